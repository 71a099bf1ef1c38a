"""Signatures of webhooks, as the Standard Webhooks specification has them.

``webhook-signature`` has ``v1,`` and the base64 of HMAC-SHA256 over ``id.timestamp.body`` for each key of the endpoint:
two during a rotation. The specification's published libraries verify them unchanged; `verify` is for receivers in
Python that have none.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable, Mapping

from broker.config.webhooks import webhook_key

__all__ = ["ID_HEADER", "SIGNATURE_HEADER", "TIMESTAMP_HEADER", "TOLERANCE_S", "SignatureError", "sign", "verify"]

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"
TOLERANCE_S = 300
"""Difference between the sender's and the receiver's clock, above which a request is refused as a repetition."""
MAX_SIGNATURES = 16
"""Signatures of one request that are compared; a sender has one for each key."""


class SignatureError(ValueError):
    """Refusal of a request whose signature, time or headers are wrong."""


def sign(keys: Iterable[bytes], message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """Return the three headers of a request, with a signature for each key.

    :param message_id: the same on every try; without a dot, so that no other id and time give the same signed text.
    :param timestamp_s: Unix time of this try, in seconds.
    """
    if "." in message_id:
        raise ValueError("a webhook's id has no dot")
    return {
        ID_HEADER: message_id,
        TIMESTAMP_HEADER: str(timestamp_s),
        SIGNATURE_HEADER: " ".join(f"v1,{_signature(key, message_id, str(timestamp_s), body)}" for key in keys),
    }


def verify(secret: str, headers: Mapping[str, str], body: bytes, now_s: float) -> str:
    """Return the id of a request that was signed with ``secret``. SignatureError where it was not, or is too old.

    :param secret: with its prefix ``whsec_``; ValueError where it is none.
    :param headers: names in any case.
    :param now_s: the receiver's Unix time, in seconds.
    """
    key = webhook_key(secret)
    found = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, timestamp, signatures = found[ID_HEADER], found[TIMESTAMP_HEADER], found[SIGNATURE_HEADER]
    except KeyError as error:
        raise SignatureError(f"the header {error.args[0]} is missing") from None
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise SignatureError(f"{TIMESTAMP_HEADER} is no Unix time")
    if abs(now_s - int(timestamp)) > TOLERANCE_S:
        raise SignatureError(f"{TIMESTAMP_HEADER} differs by more than {TOLERANCE_S} s from this clock")
    expected = base64.b64decode(_signature(key, message_id, timestamp, body))
    for signature in signatures.split(" ")[:MAX_SIGNATURES]:
        version, _, value = signature.partition(",")
        try:
            given = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            continue
        if version == "v1" and hmac.compare_digest(given, expected):
            return message_id
    raise SignatureError(f"no signature in {SIGNATURE_HEADER} fits")


def _signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    signed = f"{message_id}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
