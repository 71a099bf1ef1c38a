"""Signatures of requests, as the broker reads them."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.auth.api_keys import ApiKey, ApiKeys, secret_text
from broker.auth.signatures import NonceTable, SignatureRefused, is_digest_of, read_signature
from protocol.backend import Backend
from protocol.backend.signing import RequestSigner, is_signing_key
from protocol.operations import Scope

NOW = 1_790_000_000


@given(st.binary(min_size=32, max_size=64), st.binary(max_size=200), st.sampled_from(["/v1/a/b", "/v1/a/b?dry_run=1"]))
def test_a_signed_request_is_one_for_the_broker(secret: bytes, body: bytes, target: str) -> None:
    signer = RequestSigner(f"shop:{secret_text(secret)}", unix_s=lambda: NOW)
    keys = ApiKeys({"shop": ApiKey("shop", b"", frozenset({Scope.ADMIN}), secret=secret)}, lambda: NOW)
    nonces = NonceTable()
    for _ in range(2):
        headers = [
            (name.lower().encode(), value.encode()) for name, value in signer.headers("POST", target, body).items()
        ]
        signed = read_signature("POST", target, headers)
        assert keys.verify_signature(signed, nonces).id == "shop"
        assert is_digest_of(headers, body)
        assert not is_digest_of(headers, body + b"!")
        with pytest.raises(SignatureRefused):
            keys.verify_signature(read_signature("POST", target + "x", headers), NonceTable())


@pytest.mark.parametrize("key", ["shop:", ":" + "c" * 43, "shop:not base64", 'a"b:' + "c" * 43, "shop:ccccc"])
def test_what_is_no_key_for_signatures_is_refused(key: str) -> None:
    assert is_signing_key(key)
    with pytest.raises(ValueError, match=r"ID:SECRET|printable"):
        Backend("http://127.0.0.1:1", key)
    with pytest.raises(ValueError, match="ID:SECRET"):
        RequestSigner(key)


def test_the_secret_is_in_no_header_and_in_no_words_of_the_client() -> None:
    secret = base64.urlsafe_b64encode(b"s" * 32).decode().rstrip("=")
    with Backend("http://127.0.0.1:1", f"shop:{secret}") as backend:
        assert secret not in repr(vars(backend))
    assert secret not in str(RequestSigner(f"shop:{secret}").headers("POST", "/", b""))
