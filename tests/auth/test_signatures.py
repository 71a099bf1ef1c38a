"""Signatures of requests: made by an independent library, each wrong one named, nonces used once within bounds."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from http_message_signatures import HTTPMessageSigner, HTTPSignatureKeyResolver, algorithms
from hypothesis import given
from hypothesis import strategies as st

from broker.auth.api_keys import ApiKey, ApiKeys, key_table, parse_keys, secret_text
from broker.auth.signatures import (
    MAX_AGE_S,
    MAX_AHEAD_S,
    NonceTable,
    SignatureRefused,
    Signed,
    is_digest_of,
    read_signature,
)
from protocol.operations import Scope

SECRET = b"s" * 32
NOW = 1_790_000_000
KEYS = {"shop": ApiKey("shop", b"", frozenset({Scope.ADMIN}), secret=SECRET)}
COVERED = ("@method", "@target-uri", "content-digest")


class Resolver(HTTPSignatureKeyResolver):
    def resolve_private_key(self, key_id: str) -> bytes:
        return SECRET

    def resolve_public_key(self, key_id: str) -> bytes:
        return SECRET


def digest(body: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def signed_headers(
    url: str = "http://127.0.0.1:7401/v1/rooms/open",
    body: bytes = b"{}",
    covered: tuple[str, ...] = COVERED,
    **options: Any,
) -> list[tuple[bytes, bytes]]:
    """The headers of a request that the library has signed, as the server gets them."""
    request = requests.Request("POST", url, data=body, headers={"Content-Digest": digest(body)}).prepare()
    request.headers["Host"] = urlsplit(url).netloc
    signer = HTTPMessageSigner(signature_algorithm=algorithms.HMAC_SHA256, key_resolver=Resolver())
    created = datetime.datetime.fromtimestamp(options.pop("created", NOW))
    found = {"key_id": "shop", "created": created, "nonce": "nonce-0001", "label": "sig1", **options}
    signer.sign(request, covered_component_ids=covered, use_existing_digest="content-digest" in covered, **found)
    return [(name.lower().encode(), str(value).encode()) for name, value in request.headers.items()]


def verify(headers: list[tuple[bytes, bytes]], target: str = "/v1/rooms/open", nonces: NonceTable | None = None) -> str:
    keys = ApiKeys(KEYS, lambda: NOW)
    return keys.verify_signature(read_signature("POST", target, headers), NonceTable() if nonces is None else nonces).id


@pytest.mark.parametrize(
    "covered",
    [
        COVERED,
        ("@method", "@request-target", "content-digest"),
        ("@method", "@path", "@authority", "content-digest", "content-length"),
    ],
)
def test_what_the_library_signs_is_verified(covered: tuple[str, ...]) -> None:
    assert verify(signed_headers(covered=covered)) == "shop"


def test_a_query_is_part_of_the_target() -> None:
    url = "https://live.example.com/v1/rooms/open?dry_run=1"
    for covered in (COVERED, ("@method", "@path", "@query", "content-digest")):
        headers = signed_headers(url, covered=covered)
        assert verify(headers, "/v1/rooms/open?dry_run=1") == "shop"
        with pytest.raises(SignatureRefused, match="another secret or request"):
            verify(headers, "/v1/rooms/open?dry_run=0")
    with pytest.raises(SignatureRefused, match="does not cover the target"):
        verify(signed_headers(url, covered=("@method", "@path", "content-digest")), "/v1/rooms/open?dry_run=1")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"covered": ("@path", "content-digest")}, "does not cover @method"),
        ({"covered": ("@method", "content-digest")}, "does not cover the target"),
        ({"key_id": "other"}, "unknown key"),
        ({"nonce": "short"}, "nonce is not"),
        ({"created": NOW - MAX_AGE_S - 1}, "before the broker's clock"),
        ({"created": NOW + MAX_AHEAD_S + 1}, "before the broker's clock"),
    ],
)
def test_what_is_wrong_is_named(options: dict[str, Any], why: str) -> None:
    with pytest.raises(SignatureRefused, match=why):
        verify(signed_headers(**options))


def test_a_changed_request_is_not_the_signed_one() -> None:
    headers = signed_headers()
    for wrong in (
        [(name, digest(b"other").encode() if name == b"content-digest" else value) for name, value in headers],
        [(name, b"evil.example" if name == b"host" else value) for name, value in headers],
        [(name, value.replace(b"nonce-0001", b"nonce-0002")) for name, value in headers],
    ):
        with pytest.raises(SignatureRefused, match="another secret or request"):
            verify(wrong)
    with pytest.raises(SignatureRefused, match="does not cover @method and content-digest"):
        verify([(name, value.replace(b' "content-digest"', b"")) for name, value in headers])
    with pytest.raises(SignatureRefused, match="once each"):
        verify([*headers, (b"signature", b"sig1=:AAAA:")])
    with pytest.raises(SignatureRefused, match="not in the request"):
        verify([(name, value) for name, value in headers if name != b"content-digest"])


def test_a_nonce_is_used_once_and_the_table_is_bounded() -> None:
    nonces = NonceTable(total=5, share=3)
    headers = signed_headers()
    verify(headers, nonces=nonces)
    with pytest.raises(SignatureRefused, match="nonce was used"):
        verify(headers, nonces=nonces)
    for number in range(2):
        nonces.use("shop", f"n{number}", NOW, NOW)
    for key, nonce in (("shop", "n3"), ("desk", "a"), ("desk", "b"), ("more", "c")):
        if key == "desk":
            nonces.use(key, nonce, NOW, NOW)
            continue
        with pytest.raises(SignatureRefused, match="too many nonces") as caught:
            nonces.use(key, nonce, NOW, NOW)
        assert caught.value.retry_after_s >= 1
    assert len(nonces) == 5
    later = NOW + MAX_AGE_S + MAX_AHEAD_S + 1
    nonces.use("shop", "n0", later, later)
    assert len(nonces) == 3


@given(st.integers(-MAX_AGE_S, MAX_AHEAD_S), st.integers(0, MAX_AGE_S), st.integers(0, 999))
def test_no_signature_is_accepted_again_after_a_restart(created: int, stopped_s: int, started_ms: int) -> None:
    def accepts(nonces: NonceTable, now: float) -> bool:
        signed = Signed("shop", NOW + created, 0, "nonce-0001", signature, (b"signed",))
        try:
            ApiKeys(KEYS, lambda: now).verify_signature(signed, nonces)
        except SignatureRefused:
            return False
        return True

    signature = hmac.digest(SECRET, b"signed", "sha256")
    assert accepts(NonceTable(), NOW)
    started_at_s = NOW + stopped_s + started_ms / 1000
    after = NonceTable(since=started_at_s)
    assert not any(accepts(after, started_at_s + wait_s) for wait_s in range(MAX_AGE_S + MAX_AHEAD_S))


def test_after_a_restart_the_wait_is_long_enough_for_a_backend_whose_clock_is_right() -> None:
    nonces = NonceTable(since=NOW + 0.5)
    with pytest.raises(SignatureRefused, match="before the start of the broker") as caught:
        nonces.use("shop", "n", NOW + 1, NOW + 1.5)
    then = NOW + 1.5 + caught.value.retry_after_s
    nonces.use("shop", "n", int(then), then)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_header_is_refused_or_read(input: bytes, signature: bytes) -> None:
    headers = [(b"signature-input", input), (b"signature", signature), (b"host", b"x")]
    with pytest.raises(SignatureRefused):
        read_signature("POST", "/", headers)


def test_digests() -> None:
    both = f"sha-512=:{base64.b64encode(hashlib.sha512(b'x').digest()).decode()}:, {digest(b'x')}"
    for right in (digest(b"x"), both):
        assert is_digest_of([(b"content-digest", right.encode())], b"x")
    for wrong in (digest(b"y"), "md5=:AAAA:", "", f"{digest(b'x')}, {digest(b'y')}"):
        assert not is_digest_of([(b"content-digest", wrong.encode())], b"x")


def test_a_key_file_holds_either_kind() -> None:
    text = key_table(KEYS["shop"])
    assert parse_keys(text, "f")["shop"] == KEYS["shop"]
    assert secret_text(SECRET) in text
    assert "sss" not in repr(KEYS["shop"])
    keys = ApiKeys(KEYS, lambda: NOW)
    assert keys.verify("rk_shop_" + "a" * 32)[0] is None
    for wrong in (text.replace("hmac", "sha256"), text + 'sha256 = "' + "a" * 64 + '"', text.replace("c3", "!!", 1)):
        with pytest.raises(ValueError, match="key 1"):
            parse_keys(wrong, "f")
