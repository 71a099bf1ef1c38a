"""HTTP Message Signatures (RFC 9421) with ``hmac-sha256``: a backend proves that it has a key without sending it.

A request is signed over its method, its target and the digest of its body (RFC 9530), with a time of at most
`MAX_AGE_S` before or `MAX_AHEAD_S` after the trusted clock and a nonce that is remembered for as long. What a proxy may
change on the way (scheme, headers that were not signed) does not matter. Exactly one signature is read.

Nonces have a bounded table with a share for each key: where a share is full a request is refused until the oldest nonce
has expired, never is one forgotten that could be used again. They are in memory: what an earlier process may have
accepted, which is every signature made up to `MAX_AHEAD_S` after the start of this one, is refused, with a time after
which the backend may sign and send again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["MAX_AGE_S", "MAX_AHEAD_S", "NonceTable", "SignatureRefused", "Signed", "is_digest_of", "read_signature"]

MAX_AGE_S = 300
MAX_AHEAD_S = 5
"""How far the clock of a backend may be ahead, and for how long after a start signatures are refused: short, but above
what time synchronization leaves."""
MAX_COMPONENTS = 16
MAX_FIELD_CHARS = 2048

Headers = Sequence[tuple[bytes, bytes]]
_label = r"[a-z*][a-z0-9_.*-]{0,31}"
_component = r'"[@a-z0-9-]+"'
_read_input = re.compile(
    rf"({_label})=(\(({_component}(?: {_component})*)\)((?:;[a-z]+=(?:[0-9]+|\"[ !#-\[\]-~]*\"))*))"
).fullmatch
_read_signature = re.compile(rf"({_label})=:([A-Za-z0-9+/]+={{0,2}}):").fullmatch
_parameters = re.compile(r";([a-z]+)=(?:([0-9]+)|\"([^\"]*)\")").findall
_is_nonce = re.compile(r"[!#-\[\]-~]{8,64}").fullmatch
_digests = re.compile(r"(?:^|, *)(sha-256|sha-512)=:([A-Za-z0-9+/]+={0,2}):(?=$| *,)").findall


class SignatureRefused(Exception):
    """A signature that is not valid here; the text says why, for the log. ``retry_after_s``: for a full share."""

    def __init__(self, why: str, retry_after_s: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class Signed(NamedTuple):
    """What a request's signature says; it is not verified. ``bases``: texts that may have been signed."""

    key_id: str
    created: int
    expires: int
    nonce: str
    signature: bytes
    bases: tuple[bytes, ...]

    def is_made_with(self, secret: bytes) -> bool:
        """Return whether the signature was made with a secret; in the same time for every wrong one."""
        found = [hmac.compare_digest(hmac.digest(secret, base, "sha256"), self.signature) for base in self.bases]
        return any(found)


def read_signature(method: str, target: str, headers: Headers) -> Signed:
    """Read the signature of a request. SignatureRefused where it does not cover what it must, or cannot be read."""
    inputs, signatures = _values(headers, b"signature-input"), _values(headers, b"signature")
    if len(inputs) != 1 or len(signatures) != 1:
        raise SignatureRefused("Signature-Input and Signature are needed, once each")
    found, signature = _read_input(inputs[0]), _read_signature(signatures[0])
    if found is None or signature is None or found[1] != signature[1]:
        raise SignatureRefused("not one signature that can be read")
    components = found[3].replace('"', "").split(" ")
    parameters = {name: number or text for name, number, text in _parameters(found[4])}
    if len(components) > MAX_COMPONENTS or len(set(components)) != len(components):
        raise SignatureRefused("too many components, or one twice")
    covered = set(components)
    query = target.partition("?")[2]
    targets = covered & {"@target-uri", "@request-target", "@path", "@query"}
    if "@method" not in covered or "content-digest" not in covered:
        raise SignatureRefused("does not cover @method and content-digest")
    has_path = "@path" in targets and ("@query" in targets or not query)
    if not has_path and not targets & {"@target-uri", "@request-target"}:
        raise SignatureRefused("does not cover the target")
    if parameters.get("alg", "hmac-sha256") != "hmac-sha256":
        raise SignatureRefused("alg is not hmac-sha256")
    created, nonce, key_id = parameters.get("created", ""), parameters.get("nonce", ""), parameters.get("keyid", "")
    expires = parameters.get("expires", "")
    if not created.isdigit() or len(created) > 12 or len(expires) > 12 or (expires and not expires.isdigit()):
        raise SignatureRefused("created is not a time")
    if _is_nonce(nonce) is None:
        raise SignatureRefused("nonce is not 8 to 64 visible characters")
    try:
        digest = base64.b64decode(signature[2], validate=True)
    except binascii.Error:
        raise SignatureRefused("the signature is not base64") from None
    schemes = ("http", "https") if "@target-uri" in covered else ("http",)
    bases = tuple(_base(components, found[2], method, target, scheme, headers) for scheme in schemes)
    return Signed(key_id, int(created), int(expires or 0), nonce, digest, bases)


def _base(components: Sequence[str], signed: str, method: str, target: str, scheme: str, headers: Headers) -> bytes:
    """Return the signature base of RFC 9421, section 2.5."""
    path, question, query = target.partition("?")
    authority = ", ".join(_values(headers, b"host")).lower()
    authority = authority.removesuffix(":443" if scheme == "https" else ":80")
    derived = {
        "@method": method, "@request-target": target, "@path": path, "@query": f"?{query}", "@authority": authority,
        "@scheme": scheme, "@target-uri": f"{scheme}://{authority}{path}{question}{query}",
    }  # fmt: skip
    lines = []
    for component in components:
        value = derived.get(component)
        if value is None:
            values = _values(headers, component.encode())
            if component.startswith("@") or not values:
                raise SignatureRefused(f"the component {component[:64]} is not in the request")
            value = ", ".join(values)
        lines.append(f'"{component}": {value}')
    lines.append(f'"@signature-params": {signed}')
    return "\n".join(lines).encode("latin-1", "replace")


def _values(headers: Headers, name: bytes) -> list[str]:
    found = [value.decode("latin-1").strip() for key, value in headers if key == name]
    if any(len(value) > MAX_FIELD_CHARS for value in found):
        raise SignatureRefused("a header that is signed is too long")
    return found


def is_digest_of(headers: Headers, body: bytes) -> bool:
    """Return whether ``Content-Digest`` (RFC 9530) names a body, by every algorithm of it that is known."""
    found = _digests(", ".join(_values(headers, b"content-digest")))
    equal = [
        hmac.compare_digest(base64.b64encode(hashlib.new(name.replace("-", ""), body).digest()), text.encode())
        for name, text in found
    ]
    return bool(equal) and all(equal)


class NonceTable:
    """Nonces that were used, each for as long as its signature could be valid: ``total``, and of one key ``share``.

    ``since``: Unix seconds at which it began; what was used before is not known, so that nothing is valid which could
    have been used then (`use`).
    """

    def __init__(self, total: int = 400_000, share: int = 200_000, since: float = 0.0) -> None:
        self.since = since
        self._total = total
        self._share = share
        self._count = 0
        self._by_key: dict[str, OrderedDict[str, float]] = {}

    def __len__(self) -> int:
        return self._count

    def use(self, key_id: str, nonce: str, created: int, now: float) -> None:
        """Take a nonce of a valid signature, made at ``created``. SignatureRefused if it was used or may have been used
        before the table began, or the share of the key is full."""
        known_from = self.since + MAX_AHEAD_S
        if created <= known_from:
            # The next second that is later, by a clock that is right.
            raise SignatureRefused("may have been used before the start of the broker", max(1.0, known_from + 1 - now))
        known = self._by_key.setdefault(key_id, OrderedDict())
        while known and next(iter(known.values())) < now:
            known.popitem(last=False)
            self._count -= 1
        if nonce in known:
            raise SignatureRefused("the nonce was used")
        if len(known) >= self._share or self._count >= self._total:
            wait_s = next(iter(known.values()), now + MAX_AGE_S) - now
            raise SignatureRefused("too many nonces are remembered", max(1.0, wait_s))
        # In order of use: all are kept for the longest time that any could be valid.
        known[nonce] = now + MAX_AGE_S + MAX_AHEAD_S
        self._count += 1
