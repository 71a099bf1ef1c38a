"""Signatures against the specification's published library, in both directions."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from broker.webhooks.signing import SIGNATURE_HEADER, TIMESTAMP_HEADER, TOLERANCE_S, SignatureError, sign, verify

keys = st.binary(min_size=24, max_size=64)
ids = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-:", min_size=1, max_size=64)
bodies = st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))


def secret_of(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()


@given(keys, keys, ids, bodies)
def test_the_published_library_verifies_each_signature_of_a_rotation(
    old: bytes, new: bytes, message_id: str, body: bytes
) -> None:
    headers = sign((old, new), message_id, int(time.time()), body)
    for key in (old, new):
        Webhook(secret_of(key)).verify(body, headers, json_parse=False)


@given(keys, ids, bodies)
def test_what_the_published_library_signs_is_verified(key: bytes, message_id: str, body: bytes) -> None:
    now = datetime.now(UTC)
    signature = Webhook(secret_of(key)).sign(message_id, now, body.decode())
    headers = {"Webhook-Id": message_id, "Webhook-Timestamp": str(int(now.timestamp())), "Webhook-Signature": signature}
    assert verify(secret_of(key), headers, body, now.timestamp()) == message_id


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), ids, bodies, st.integers(0, 5))
def test_a_change_of_anything_is_refused(key: bytes, other: bytes, message_id: str, body: bytes, change: int) -> None:
    now = 1_790_000_000
    headers, secret = sign((key,), message_id, now, body), secret_of(key)
    assert verify(secret, headers, body, now) == message_id
    if change == 0:
        body += b" "
    elif change == 1:
        headers["webhook-id"] += "x"
    elif change == 2:
        headers[TIMESTAMP_HEADER] = str(now + 1)
    elif change == 3:
        secret = secret_of(other if other != key else bytes([key[0] ^ 1]) + key[1:])
    elif change == 4:
        headers[SIGNATURE_HEADER] = headers[SIGNATURE_HEADER].replace("v1,", "v2,")
    else:
        del headers["webhook-id"]
    with pytest.raises(SignatureError):
        verify(secret, headers, body, now)


@pytest.mark.parametrize("timestamp", ["", "now", "-1", "1e9", "9" * 13, "\u0661"])
def test_a_timestamp_that_is_none_is_refused(timestamp: str) -> None:
    headers = sign((b"k" * 24,), "a", 0, b"") | {TIMESTAMP_HEADER: timestamp}
    with pytest.raises(SignatureError, match="no Unix time"):
        verify(secret_of(b"k" * 24), headers, b"", 0)


@pytest.mark.parametrize("off_s", [TOLERANCE_S + 1, -TOLERANCE_S - 1])
def test_a_request_that_is_too_old_or_too_new_is_refused_by_both(off_s: int) -> None:
    key, now = b"k" * 32, time.time()
    headers = sign((key,), "a", int(now) + off_s, b"{}")
    with pytest.raises(SignatureError, match="differs by more"):
        verify(secret_of(key), headers, b"{}", now)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret_of(key)).verify(b"{}", headers)


@pytest.mark.parametrize("signature", ["", ",", "v1", "v1,", "v1,!", "v1,\u00e9", "v1,AAAA " * 50])
def test_a_signature_that_is_none_is_refused(signature: str) -> None:
    headers = sign((b"k" * 24,), "a", 5, b"") | {SIGNATURE_HEADER: signature}
    with pytest.raises(SignatureError, match="no signature"):
        verify(secret_of(b"k" * 24), headers, b"", 5)


def test_an_id_with_a_dot_is_not_signed() -> None:
    with pytest.raises(ValueError, match="no dot"):
        sign((b"k" * 24,), "a.1", 5, b"")
