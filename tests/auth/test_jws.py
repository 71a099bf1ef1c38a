"""The short way of judging a token, held against PyJWT's: same grants, same refusals, whatever the bytes."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.auth.grants import AuthError, Grant
from broker.auth.jws import TokenKey
from broker.auth.tokens import Authenticator
from broker.config.schema import AuthConfig
from tests.support.tokens import GOOD, HS256, NOW, SECRET, b64, sign


def judged(token: str, *, fast: bool, issuer: str | None = None) -> Grant | str:
    """What the broker makes of a token whose header it has seen before, with or without the short way."""
    one = Authenticator(AuthConfig(secret=SECRET, issuer=issuer), lambda: NOW, random.Random(1))
    good = GOOD | ({} if issuer is None else {"iss": issuer})
    for header in (HS256, {"typ": "JWT", "alg": "HS256", "kid": "k1"}):
        one.verify(sign(header, good))  # from here on these headers are known
    with pytest.MonkeyPatch.context() as patch:
        if not fast:
            patch.setattr(TokenKey, "fast_claims", lambda *_: None)
        try:
            return one.verify(token)
        except AuthError as error:
            return error.detail


values = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 2**40), st.floats(), st.text(max_size=8), st.lists(st.text(max_size=4)),
    st.sampled_from(["roomcast", "platform", "u1", [{"pattern": "*"}], ["roomcast"], int(NOW) + 60, int(NOW) - 60]),
)  # fmt: skip
changes = st.dictionaries(st.sampled_from(["sub", "aud", "exp", "rooms", "iss", "jti", "nbf", "iat", "role"]), values)


@given(changes, st.sets(st.sampled_from(sorted(GOOD))), st.sampled_from([None, "platform"]))
def test_the_short_way_judges_claims_as_pyjwt_does(
    changed: dict[str, Any], missing: set[str], issuer: str | None
) -> None:
    claims = {name: value for name, value in (GOOD | changed).items() if name not in missing}
    token = sign(HS256, claims)
    assert judged(token, fast=True, issuer=issuer) == judged(token, fast=False, issuer=issuer)


@given(st.integers(0, 300), st.characters(codec="ascii"))
@example(0, "+")
@example(50, "/")
def test_the_short_way_judges_damage_as_pyjwt_does(at: int, character: str) -> None:
    token = sign(HS256, GOOD)
    at %= len(token)
    for damaged in (token[:at] + character + token[at:], token[:at] + character + token[at + 1 :], token[:at]):
        assert judged(damaged, fast=True) == judged(damaged, fast=False)


@given(st.binary(max_size=40))
@example(b'{"sub":"a","sub":"b"}')
@example(b"[" * 30)
@example(b'{"sub":"\xff"}')
def test_the_short_way_judges_payloads_that_are_no_claims_as_pyjwt_does(payload: bytes) -> None:
    token = sign(HS256, payload)
    assert judged(token, fast=True) == judged(token, fast=False)


def test_a_good_token_of_a_known_header_needs_no_pyjwt(monkeypatch: Any) -> None:
    one = Authenticator(AuthConfig(secret=SECRET), lambda: NOW, random.Random(1))
    one.verify(sign(HS256, GOOD))
    monkeypatch.setattr(TokenKey, "claims", None)
    assert one.verify(sign(HS256, GOOD | {"sub": "u2"})).user_id == "u2"


def test_a_signature_of_another_key_or_encoding_never_takes_the_short_way() -> None:
    forged = sign(HS256, GOOD, secret="another secret, as long as the right one")
    assert isinstance(judged(forged, fast=True), str)
    head, payload, signature = sign(HS256, GOOD).split(".")
    assert isinstance(judged(f"{head}.{payload}.{signature}.", fast=True), str)
    assert isinstance(judged(f"{b64(b'{}')}.{payload}.{signature}", fast=True), str)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(json_values, st.booleans(), st.integers(0, 60), st.text(max_size=2))
@example("\ud800", True, 0, "")
@example({"exp": 2**64}, True, 0, "")
@example(1e300, True, 2, "9")
def test_the_quick_parser_of_json_reads_what_it_takes_as_the_other_does(
    value: object, escaped: bool, at: int, damage: str
) -> None:
    text = json.dumps(value, ensure_ascii=escaped)
    for changed in (text, text[:at] + damage + text[at:]):
        try:
            quick = msgspec.json.decode(changed.encode())
        except (ValueError, RecursionError):
            continue
        assert repr(quick) == repr(json.loads(changed))
