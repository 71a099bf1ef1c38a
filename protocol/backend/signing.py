"""HTTP Message Signatures (RFC 9421, ``hmac-sha256``): a request proves that its sender has a key, without the key."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable

__all__ = ["RequestSigner", "is_signing_key"]

_is_id = re.compile(r"[!#-9;-\[\]-~]+").fullmatch


def is_signing_key(key: str) -> bool:
    """Return whether a key is one for signatures, ``ID:SECRET``; no key that is sent has a colon."""
    return ":" in key


class RequestSigner:
    """Signs requests with a key ``ID:SECRET``, its secret in base64url as ``roomcast key create --signing`` prints it.

    ValueError for what is none. ``unix_s`` and ``nonce`` replace clock and chance.
    """

    def __init__(
        self,
        key: str,
        *,
        unix_s: Callable[[], float] = time.time,
        nonce: Callable[[], str] = lambda: secrets.token_urlsafe(16),
    ) -> None:
        self._id, _, secret = key.partition(":")
        try:
            self._secret = base64.b64decode(secret + "=" * (-len(secret) % 4), b"-_", validate=True)
        except binascii.Error:
            self._secret = b""
        if not self._secret or _is_id(self._id) is None:
            raise ValueError("a key for signatures is ID:SECRET, with the secret that `roomcast key create` prints")
        self._unix_s = unix_s
        self._nonce = nonce

    def headers(self, method: str, target: str, body: bytes) -> dict[str, str]:
        """Return the headers that sign one try of a request; the broker takes them once. ``target``: path and query."""
        digest = f"sha-256=:{_base64(hashlib.sha256(body).digest())}:"
        signed = (
            f'("@method" "@request-target" "content-digest");created={int(self._unix_s())};keyid="{self._id}"'
            f';nonce="{self._nonce()}";alg="hmac-sha256"'
        )
        lines = f'"@method": {method}', f'"@request-target": {target}', f'"content-digest": {digest}'
        base = "\n".join((*lines, f'"@signature-params": {signed}'))
        signature = _base64(hmac.digest(self._secret, base.encode(), "sha256"))
        return {"Content-Digest": digest, "Signature-Input": f"sig={signed}", "Signature": f"sig=:{signature}:"}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
