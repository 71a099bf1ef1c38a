"""Keys from PEM and JWKS, and tokens verified with them; PyJWT and cryptography make what is verified."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from hypothesis import given
from hypothesis import strategies as st

from broker.auth.grants import AuthError, Grant
from broker.auth.jws import BadToken, TokenKey
from broker.auth.keys import MAX_KEYS, KeyProblem, Keyring, UnknownKey, parse_public_keys, read_public_keys
from broker.auth.ticket_keys import TicketKeys
from broker.auth.tokens import Authenticator
from broker.config.schema import AuthConfig
from tests.support.examples import examples
from tests.support.keys import ALGORITHMS, jwk, jwks, key_pair, pem, private_pem, signed
from tests.support.tokens import GOOD, HS256, NOW, SECRET, Clock, b64, sign


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def authenticator(keys_file: Path, text: str, **settings: Any) -> Authenticator:
    keys_file.write_text(text)
    return Authenticator(AuthConfig(keys_file=str(keys_file), **settings), Clock(), random.Random(1))


def refusal(auth: Authenticator, token: str) -> str:
    with pytest.raises(AuthError) as refused:
        auth.verify(token)
    assert str(refused.value) == "authentication failed"
    return refused.value.detail


ALL_PEM = "".join(pem(key_pair(algorithm)) for algorithm in ALGORITHMS)
ALL_JWKS = jwks(*[jwk(algorithm, kid=f"k-{algorithm}") for algorithm in ALGORITHMS])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("text", [ALL_PEM, ALL_JWKS], ids=["PEM", "JWKS"])
def test_a_token_of_each_algorithm_is_verified_by_its_key(algorithm: str, text: str, keys_file: Path) -> None:
    auth = authenticator(keys_file, text)
    assert not auth.development
    for token in (
        signed(algorithm, kid=f"k-{algorithm}"),
        signed(algorithm, GOOD | {"sub": "u2"}),
        signed(algorithm, GOOD | {"sub": "u3"}),  # by now the header is known
        jwt.encode(GOOD | {"sub": "u4"}, key_pair(algorithm), algorithm, {"kid": f"k-{algorithm}"}),
    ):
        assert auth.verify(token).user_id.startswith("u")
    assert (auth.verified, auth.refused) == (4, 0)
    assert auth.verify(token) is auth.verify(token)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_of_another_pair_or_algorithm_verifies_nothing(algorithm: str, keys_file: Path) -> None:
    auth = authenticator(keys_file, pem(key_pair(algorithm)))
    assert "the signature is not" in refusal(auth, signed(algorithm, key=key_pair(algorithm, "other")))
    for other in ALGORITHMS:
        if other != algorithm:
            assert "name no key" in refusal(auth, signed(other))
    assert "name no key" in refusal(auth, sign(HS256, GOOD))


def forged() -> dict[str, str]:
    """Tokens that attack the choice of the algorithm."""
    found = {}
    for algorithm in ALGORITHMS:
        public = pem(key_pair(algorithm))
        for name, secret in {"PEM": public, "stripped PEM": public.strip(), "JWK": json.dumps(jwk(algorithm))}.items():
            found[f"HS256 with the {name} of {algorithm} as secret"] = sign(HS256, GOOD, secret=secret)
            found[f"{algorithm} signed by HMAC with the {name}"] = sign({"alg": algorithm}, GOOD, secret=secret)
        good = signed(algorithm)
        head, body, tail = good.split(".")
        headers: dict[str, dict[str, Any]] = {
            "none": {"alg": "none"}, "None": {"alg": "None"}, "no algorithm": {"typ": "JWT"},
            "list": {"alg": [algorithm]}, "small letters": {"alg": algorithm.lower()}, "HS256": {"alg": "HS256"},
            "jwk": {"alg": algorithm, "jwk": jwk(algorithm, "other")},
            "crit": {"alg": algorithm, "crit": ["exp"], "exp": 1},
            "b64": {"alg": algorithm, "crit": ["b64"], "b64": False}, "kid is a number": {"alg": algorithm, "kid": 7},
            "kid is null": {"alg": algorithm, "kid": None}, "kid is empty": {"alg": algorithm, "kid": ""},
        }  # fmt: skip
        for name, header in headers.items():
            found[f"{algorithm} with header {name}"] = f"{b64(json.dumps(header).encode())}.{body}.{tail}"
            extra = {key: value for key, value in header.items() if key != "alg"}
            if extra and name != "no algorithm":
                found[f"{algorithm} well signed with header {name}"] = signed(algorithm, **extra)
        found |= {
            f"{algorithm} without signature": f"{head}.{body}.",
            f"{algorithm} with a signature of zeros": f"{head}.{body}.{b64(bytes(64))}",
            f"{algorithm} with a long signature": f"{head}.{body}.{tail}AAAA",
            f"{algorithm} with a short signature": f"{head}.{body}.{tail[:-4]}",
            f"{algorithm} in the standard alphabet": f"{head}.{body}.{tail[:-2]}+/",
            f"{algorithm} as JSON": json.dumps({"payload": body, "protected": head, "signature": tail}),
            f"{algorithm} with times that are none": signed(algorithm, GOOD | {"exp": 10**400}),
            f"{algorithm} not valid yet": signed(algorithm, GOOD | {"nbf": int(NOW) + 31}),
            f"{algorithm} expired": signed(algorithm, GOOD | {"exp": int(NOW) - 31}),
        }
    return found


FORGED = forged()


@pytest.mark.parametrize("case", FORGED)
def test_no_token_chooses_its_algorithm_or_key(case: str, keys_file: Path) -> None:
    for text in (ALL_PEM, ALL_JWKS):
        auth = authenticator(keys_file, text, secret=SECRET)
        for algorithm in ALGORITHMS:  # afterwards the headers of good tokens are known
            auth.verify(signed(algorithm))
        detail = refusal(auth, FORGED[case])
        assert len(detail) < 120
        assert detail.isprintable()


@examples(150)
@given(st.sampled_from(ALGORITHMS), st.integers(0, 900), st.sampled_from("AQgw09-_+/=. \n\0"), st.booleans())
def test_one_changed_character_is_refused(algorithm: str, at: int, character: str, known: bool) -> None:
    ring = Keyring((), parse_public_keys(ALL_JWKS).keys)
    token = signed(algorithm)
    if known:
        ring.claims(token, "roomcast", None)
    at %= len(token)
    changed = token[:at] + character + token[at + 1 :]
    if changed.rstrip("=") != token.rstrip("="):
        with pytest.raises(BadToken):
            ring.claims(changed, "roomcast", None)


values = st.one_of(st.none(), st.booleans(), st.integers(-1, 2**40), st.floats(), st.text(max_size=6))
changes = st.dictionaries(st.sampled_from(["sub", "aud", "exp", "rooms", "iss", "jti", "nbf", "tenant"]), values)


@examples(60)
@given(st.sampled_from(ALGORITHMS), changes, st.integers(0, 900), st.booleans())
def test_the_short_way_judges_as_pyjwt_does(algorithm: str, changed: dict[str, Any], at: int, damaged: bool) -> None:
    token = signed(algorithm, GOOD | changed)
    if damaged:
        at %= len(token)
        token = token[:at] + "A" + token[at + 1 :]
    results: list[Any] = []
    for fast in (True, False):
        ring = Keyring((), parse_public_keys(ALL_JWKS).keys)
        ring.claims(signed(algorithm), "roomcast", None)
        with pytest.MonkeyPatch.context() as patch:
            if not fast:
                patch.setattr(TokenKey, "fast_claims", lambda *_: None)
            try:
                results.append(ring.claims(token, "roomcast", None))
            except BadToken as error:
                results.append(str(error))
    assert repr(results[0]) == repr(results[1])


def test_the_last_of_two_equal_claims_counts_on_both_ways() -> None:
    ring = Keyring((), parse_public_keys(ALL_JWKS).keys)
    twice = json.dumps(GOOD).encode()[:-1] + b', "sub": "second"}'
    for _ in range(2):  # by PyJWT, then by the short way
        assert ring.claims(signed("EdDSA", twice), "roomcast", None)["sub"] == "second"


def test_a_good_token_of_a_known_header_needs_no_pyjwt(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = Keyring((), parse_public_keys(ALL_JWKS).keys)
    for algorithm in ALGORITHMS:
        ring.claims(signed(algorithm), "roomcast", None)
    monkeypatch.setattr(TokenKey, "claims", None)
    for algorithm in ALGORITHMS:
        assert ring.claims(signed(algorithm, GOOD | {"sub": "u2"}), "roomcast", None)["sub"] == "u2"


# ---- which key


def test_two_keys_are_active_during_a_rotation() -> None:
    old, new = jwk("ES256", "old", kid="old"), jwk("ES256", "new", kid="new")
    both = Keyring((), parse_public_keys(jwks(old, new)).keys)
    for name in ("old", "new"):
        key = key_pair("ES256", name)
        for token in (signed("ES256", key=key, kid=name), signed("ES256", key=key)):  # without a kid each key is tried
            assert both.claims(token, "roomcast", None)["sub"] == "u1"
    with pytest.raises(BadToken, match="signature"):
        both.claims(signed("ES256", key=key_pair("ES256", "old"), kid="new"), "roomcast", None)
    only_new = Keyring((), parse_public_keys(jwks(new)).keys)
    with pytest.raises(BadToken, match="name no key"):
        only_new.claims(signed("ES256", key=key_pair("ES256", "old"), kid="old"), "roomcast", None)


def test_two_secrets_are_active_during_a_rotation() -> None:
    before = "f" * 32
    auth = Authenticator(AuthConfig(secret=SECRET, previous_secret=before), Clock())
    for secret in (SECRET, before, SECRET, before):
        assert auth.verify(sign(HS256, GOOD | {"name": secret[:5]}, secret=secret)).user_id == "u1"
    assert jwt.decode(
        auth.issue("u2"), SECRET, ["HS256"], {"verify_exp": False, "verify_iat": False}, audience="roomcast"
    )
    config = AuthConfig(secret=SECRET)
    auth.use(config, auth.keyring_of(config))
    with pytest.raises(AuthError):
        auth.verify(sign(HS256, GOOD, secret=before))


def test_an_unknown_kid_is_its_own_error_only_where_a_newer_set_may_have_the_key() -> None:
    keys = parse_public_keys(ALL_JWKS).keys
    ring = Keyring((SECRET.encode(),), keys, has_url=True)
    with pytest.raises(UnknownKey):
        ring.claims(signed("RS256", kid="k-9"), "roomcast", None)
    for token in (sign({"alg": "none", "kid": "k-9"}, GOOD), sign({"alg": "HS512", "kid": "k-9"}, GOOD)):
        with pytest.raises(BadToken) as refused:
            ring.claims(token, "roomcast", None)
        assert type(refused.value) is BadToken
    with pytest.raises(BadToken) as refused:
        Keyring((), keys).claims(signed("RS256", kid="k-9"), "roomcast", None)
    assert type(refused.value) is BadToken


def test_a_token_without_kid_is_not_tried_with_any_number_of_keys() -> None:
    keys = [jwk("EdDSA", f"n{number}", kid=f"n{number}") for number in range(6)]
    ring = Keyring((), parse_public_keys(jwks(*keys)).keys)
    assert ring.claims(signed("EdDSA", key=key_pair("EdDSA", "n5"), kid="n5"), "roomcast", None)["sub"] == "u1"
    with pytest.raises(BadToken, match="more than 4 keys"):
        ring.claims(signed("EdDSA", key=key_pair("EdDSA", "n5")), "roomcast", None)


# ---- reading


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_private_keys_are_refused_by_name(algorithm: str, keys_file: Path) -> None:
    numbers = json.loads(jwt.algorithms.get_default_algorithms()[algorithm].to_jwk(key_pair(algorithm)))
    for text, reason in (
        (private_pem(key_pair(algorithm)), "key 1: is a private key"),
        (jwks(jwk(algorithm, "new"), numbers | {"kid": "mine"}), r"key 2 \(mine\): is a private key \(member d\)"),
    ):
        keys_file.write_text(text)
        with pytest.raises(KeyProblem, match=reason) as refused:
            read_public_keys(str(keys_file))
        assert numbers["d"] not in str(refused.value)


WEAK = rsa.generate_private_key(65537, 1024)
WEAK_JWK = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(WEAK.public_key()))
REFUSED: dict[str, tuple[str, str]] = {
    "weak RSA as PEM": (pem(WEAK), "key 1: has 1024 bits"),
    "weak RSA as JWK": (jwks(WEAK_JWK | {"kid": "w"}), "key 1 (w): has 1024 bits"),
    "symmetric": (jwks({"kty": "oct", "k": b64(SECRET.encode()), "kid": "s"}), "key 1 (s): is a symmetric key"),
    "P-384 as PEM": (pem(ec.generate_private_key(ec.SECP384R1())), "none of RSA, P-256 and Ed25519"),
    "Ed448 as PEM": (pem(ed448.Ed448PrivateKey.generate()), "none of RSA, P-256 and Ed25519"),
    "certificate": ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is a certificate"),
    "broken PEM": ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "cannot be read"),
    "a secret": (SECRET, "is neither PEM nor a JSON Web Key Set"),
    "empty": ("", "is neither PEM nor a JSON Web Key Set"),
    "broken JSON": ("{", "is not JSON"),
    "nested JSON": ("{" + '"a":{' * 100_000, "is not JSON"),
    "JSON of something else": ('{"issuer": "x"}', "is not a JSON Web Key Set"),
    "keys is no list": ('{"keys": {}}', "is not a JSON Web Key Set"),
    "key is no object": (jwks(7), "key 1: is not an object"),
    "member twice": ('{"keys": [], "keys": []}', "has a member twice"),
    "kid is a number": (jwks(jwk("EdDSA", kid=7)), "key 1: its kid is not"),
    "kid with a newline": (jwks(jwk("EdDSA", kid="a\nb")), "key 1: its kid is not"),
    "kty is a list": (jwks({"kty": ["RSA"]}), "key 1: its kty is not text"),
    "no coordinates": (jwks({"kty": "EC", "crv": "P-256"}), "key 1: cannot be read"),
    "not on the curve": (jwks(jwk("ES256", y=b64(bytes(32)))), "key 1: cannot be read"),
    "x is a number": (jwks(jwk("EdDSA", x=7)), "key 1: cannot be read"),
    "x is too short": (jwks(jwk("EdDSA", x="AAAA")), "key 1: cannot be read"),
    "even exponent": (jwks(jwk("RS256", e="Ag")), "key 1: cannot be read"),
    "too many": (jwks(*[jwk("EdDSA")] * (MAX_KEYS + 1)), "more than 32 keys"),
    "no key of use": (jwks(jwk("RS256", use="enc")), "has no key for"),
    "no keys": (jwks(), "has no key for"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_cannot_be_used_is_refused_with_key_and_reason(case: str, keys_file: Path) -> None:
    text, reason = REFUSED[case]
    keys_file.write_text(text)
    with pytest.raises(KeyProblem) as refused:
        read_public_keys(str(keys_file))
    assert str(refused.value).startswith(f"{keys_file}: ")
    assert reason in str(refused.value)
    with pytest.raises(ValueError, match="key"):
        Authenticator(AuthConfig(keys_file=str(keys_file)))


def test_a_file_that_is_not_there_is_named(keys_file: Path) -> None:
    with pytest.raises(KeyProblem, match="No such file"):
        read_public_keys(str(keys_file))


def test_keys_for_another_purpose_are_passed_over_and_the_others_used() -> None:
    read = parse_public_keys(
        jwks(
            jwk("RS256", kid="enc", use="enc"), jwk("RS256", kid="rs512", alg="RS512"), jwk("EdDSA", key_ops=["sign"]),
            {"kty": "EC", "crv": "P-384"}, {"kty": "AKP"}, WEAK_JWK,
            jwk("ES256", kid="good", use="sig", alg="ES256", key_ops=["verify"], x5c=["..."]),
        )
    )  # fmt: skip
    assert [(key.algorithm, key.key_id) for key in read.keys] == [("ES256", "good")]
    assert read.refused == ("key 6: has 1024 bits; an RSA key has 2048 to 8192",)


words = st.sampled_from(["RSA", "EC", "OKP", "P-256", "Ed25519", "AQAB"])
members = st.sampled_from(["keys", "kty", "crv", "n", "e", "x", "y", "kid", "alg", "use", "key_ops"])
sets = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(members, inner),
)


@given(st.text(max_size=80) | sets.map(json.dumps))
def test_any_text_is_read_to_keys_and_reasons(text: str) -> None:
    read = parse_public_keys(text)
    assert all(reason.isprintable() for reason in read.refused)
    assert all(key.algorithm in ALGORITHMS for key in read.keys)


# ---- without a secret


def test_without_a_secret_there_are_tickets_and_guests_and_no_tokens_of_the_brokers_own(keys_file: Path) -> None:
    def after_restart(key: bytes) -> Authenticator:
        auth = authenticator(keys_file, ALL_PEM, guest_access=("lobby",))
        auth.use_ticket_keys(TicketKeys.new(key))
        return auth

    one, two, other = after_restart(b"k" * 32), after_restart(b"k" * 32), after_restart(b"o" * 32)
    grant: Grant = one.verify(signed("EdDSA"))
    assert two.verify(one.ticket(grant)[0]) == grant
    with pytest.raises(AuthError):
        other.verify(one.ticket(grant)[0])
    guest = "guest:" + "a" * 22
    assert one.verify(guest) == two.verify(guest)
    assert one.verify(guest) != other.verify(guest)
    with pytest.raises(ValueError, match=r"no auth\.secret"):
        one.issue("u1")
    with pytest.raises(AuthError):
        one.verify("dev:ann:app")
    with pytest.raises(ValueError, match="development mode"):
        one.keyring_of(AuthConfig())
