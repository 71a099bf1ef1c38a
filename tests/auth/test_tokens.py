from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from math import inf
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.auth.grants import AuthError, Grant, GrantReader, RoomGrant, parse_role
from broker.auth.tickets import MAX_TOKEN_BYTES
from broker.auth.tokens import Authenticator
from broker.config.schema import AuthConfig
from protocol.codes import Role
from protocol.text import is_room_pattern
from tests.support.examples import examples
from tests.support.objects import reachable
from tests.support.strategies import user_ids
from tests.support.tokens import GOOD, HS256, NOW, SECRET, Clock, b64, sign


def authenticator(clock: Callable[[], float] | None = None, **settings: Any) -> Authenticator:
    return Authenticator(AuthConfig(secret=SECRET, **settings), clock or Clock(), random.Random(1))


def role_in(grant: Grant, room_name: str) -> Role | None:
    """The role that a grant gives in a room."""
    entry = grant.room_grant(room_name)
    return None if entry is None else entry.role


def may_post(grant: Grant, room_name: str, type_name: str) -> bool:
    """Whether a grant lets a type into a room."""
    entry = grant.room_grant(room_name)
    return entry is not None and (entry.allow is None or type_name in entry.allow)


def with_claims(**changes: Any) -> str:
    return sign(HS256, GOOD | changes)


def without(claim: str) -> str:
    return sign(HS256, {name: value for name, value in GOOD.items() if name != claim})


def with_header(**changes: Any) -> str:
    return sign(HS256 | changes, GOOD)


def unsigned(alg: str) -> str:
    return sign({"alg": alg}, GOOD).rpartition(".")[0] + "."


def tampered() -> str:
    head, _, tail = with_claims().split(".")
    return f"{head}.{b64(json.dumps(GOOD | {'role': 'app'}).encode())}.{tail}"


def room(**entry: Any) -> str:
    return with_claims(rooms=[entry])


BAD_TOKENS: dict[str, str] = {
    # algorithm and key
    "none": unsigned("none"),
    "None": unsigned("None"),
    "empty algorithm": unsigned(""),
    "no algorithm": sign({"typ": "JWT"}, GOOD),
    "algorithm is a list": sign({"alg": ["HS256"]}, GOOD),
    "algorithm in small letters": sign({"alg": "hs256"}, GOOD),
    "HS384": sign({"alg": "HS384"}, GOOD, digest="sha384"),
    "HS512": sign({"alg": "HS512"}, GOOD, digest="sha512"),
    "RS256 signed with the HMAC secret": sign({"alg": "RS256"}, GOOD),
    "ES256 signed with the HMAC secret": sign({"alg": "ES256"}, GOOD),
    "another secret": sign(HS256, GOOD, secret="f" * 32),
    "empty secret": sign(HS256, GOOD, secret=""),
    "no signature": with_claims().rpartition(".")[0] + ".",
    "signature cut short": with_claims()[:-4],
    "claims changed after signing": tampered(),
    # header
    "crit": with_header(crit=["exp"]),
    "crit that the library knows": with_header(crit=["b64"], b64=True),
    "b64 false": with_header(crit=["b64"], b64=False),
    "jwk": with_header(jwk={"kty": "oct", "k": b64(SECRET.encode())}),
    "jku": with_header(jku="https://evil.example/keys"),
    "x5u": with_header(x5u="https://evil.example/cert"),
    "zip": with_header(zip="DEF"),
    "kid with a path": with_header(kid="../../../../dev/null"),
    "kid with SQL": with_header(kid="x' UNION SELECT 'key"),
    "kid with a newline": with_header(kid="a\nb"),
    "kid is a number": with_header(kid=7),
    "typ of an encrypted token": with_header(typ="JWE"),
    "header is a list": sign([HS256], GOOD),
    "header is deeply nested": sign(b"[" * 2000, b""),
    "header is not UTF-8": sign(b'{"alg":"HS256","x":"\xff"}', GOOD),
    # form
    "empty": "",
    "garbage": "garbage",
    "three garbage parts": "a.b.c",
    "dots": "...",
    "five parts, as an encrypted token has": "a.b.c.d.e",
    "cut in the middle": with_claims()[:60],
    "standard base64 alphabet": with_claims().replace("-", "+").replace("_", "/") + "=+/",
    "a space after": with_claims() + " ",
    "a newline after": with_claims() + "\n",
    "NUL": with_claims() + "\0",
    "not ASCII": "é" + with_claims(),
    "lone surrogate": "\ud800" + with_claims(),
    "huge": "a" * 10_000_000,
    "huge but well signed": with_claims(name="x", junk="x" * MAX_TOKEN_BYTES),
    "claims are a list": sign(HS256, [GOOD]),
    "claims are no JSON": sign(HS256, b"{"),
    "claims are deeply nested": sign(HS256, b'{"sub":' + b"[" * 1400),
    "development user": "dev:alice:app",
    "tenant in capitals": with_claims(tenant="Acme"),
    "tenant is no text": with_claims(tenant=7),
    "tenant is null": with_claims(tenant=None),
    "tenant is too long": with_claims(tenant="a" * 33),
    "tenant with a separator": with_claims(tenant="a/b"),
    # times
    "expired": with_claims(exp=int(NOW) - 31),
    "expired at the second the leeway ends": with_claims(exp=int(NOW) - 30),
    "exp in milliseconds": with_claims(exp=int(NOW * 1000)),
    "exp is half a second after 1970": with_claims(exp=0.5),
    "exp is text": with_claims(exp=str(int(NOW) + 60)),
    "exp is true": with_claims(exp=True),
    "exp is null": with_claims(exp=None),
    "exp is a list": with_claims(exp=[int(NOW) + 60]),
    "exp is NaN": with_claims(exp=float("nan")),
    "exp is infinite": with_claims(exp=inf),
    "exp is beyond floats": with_claims(exp=10**400),
    "exp is negative": with_claims(exp=-1),
    "no exp": without("exp"),
    "nbf in the future": with_claims(nbf=int(NOW) + 31),
    "nbf is text": with_claims(nbf="0"),
    "issued in the future": with_claims(iat=int(NOW) + 31),
    "account_created is text": with_claims(account_created="2020"),
    "account_created is 0": with_claims(account_created=0),
    # audience
    "another audience": with_claims(aud="billing"),
    "audience in another case": with_claims(aud="Roomcast"),
    "audience that begins alike": with_claims(aud="roomcast2"),
    "empty audience": with_claims(aud=""),
    "no audience among the list": with_claims(aud=["billing", "x"]),
    "audience is a number": with_claims(aud=1),
    "no audience": without("aud"),
    # who
    "no sub": without("sub"),
    "sub is a number": with_claims(sub=7),
    "sub is a list": with_claims(sub=["u1"]),
    "sub is null": with_claims(sub=None),
    "sub is empty": with_claims(sub=""),
    "sub is too long": with_claims(sub="u" * 65),
    "sub with a newline": with_claims(sub="u1\nlevel=info"),
    "sub with an escape code": with_claims(sub="\x1b[2Ju1"),
    "sub with NUL": with_claims(sub="u\0"),
    "sub with a zero-width space": with_claims(sub="admin\u200b"),
    "sub with a lone surrogate": with_claims(sub="\ud800"),
    "sub with spaces around": with_claims(sub=" u1"),
    "name is too long": with_claims(name="n" * 65),
    "name is a number": with_claims(name=1),
    "name is null": with_claims(name=None),
    "name with a carriage return": with_claims(name="a\rb"),
    "name with a C1 control": with_claims(name="a\x9bb"),
    "name with a lone surrogate": with_claims(name="\udfff"),
    "name that reorders the text around it": with_claims(name="\u202eeman"),
    "name with a line separator": with_claims(name="a\u2028b"),
    # rights
    "unknown role": with_claims(role="admin"),
    "role in capitals": with_claims(role="APP"),
    "role is a number": with_claims(role=6),
    "role is a list": with_claims(role=["app"]),
    "no rooms": without("rooms"),
    "rooms is null": with_claims(rooms=None),
    "rooms is text": with_claims(rooms="*"),
    "rooms is an object": with_claims(rooms={"pattern": "*"}),
    "too many rooms": with_claims(rooms=[{"pattern": "a"}] * 65),
    "room is text": with_claims(rooms=["*"]),
    "room without pattern": room(role="host"),
    "pattern is empty": room(pattern=""),
    "pattern is a number": room(pattern=1),
    "pattern with the star inside": room(pattern="a*b"),
    "pattern with two stars": room(pattern="a**"),
    "pattern with a space": room(pattern="a b"),
    "pattern is too long": room(pattern="r" * 65),
    "room with an unknown role": room(pattern="a", role="root"),
    "room with role null": room(pattern="a", role=None),
    "allow misspelt": room(pattern="a", alow=["like"]),
    "allow is text": room(pattern="a", allow="like"),
    "allow is null": room(pattern="a", allow=None),
    "allow holds a number": room(pattern="a", allow=[1]),
    "allow holds no name": room(pattern="a", allow=["LIKE"]),
    "allow is too long": room(pattern="a", allow=["like"] * 33),
}


@pytest.mark.parametrize("case", BAD_TOKENS)
def test_a_bad_token_is_refused_with_the_one_public_text(case: str) -> None:
    auth = authenticator()
    with pytest.raises(AuthError) as caught:
        auth.verify(BAD_TOKENS[case])
    assert str(caught.value) == "authentication failed"
    assert caught.value.detail.isprintable()
    assert len(caught.value.detail) < 120


CLAIMS = {
    "exp": ("exp", "expired"), "nbf": ("nbf",), "iat": ("issued",),
    "aud": ("audience", "another audience", "no audience"),
    "sub": ("sub", "no sub"), "name": ("name",), "role": ("role", "unknown role"),
    "rooms": ("room", "rooms", "no rooms", "too many rooms", "pattern", "allow"),
}  # fmt: skip
"""How the cases of `BAD_TOKENS` begin that are about a claim."""


@pytest.mark.parametrize(
    ("claim", "case"),
    [
        (claim, case)
        for claim, heads in CLAIMS.items()
        for case in BAD_TOKENS
        if case in heads or case.startswith(tuple(f"{head} " for head in heads))
    ],
)
def test_the_log_names_the_claim_that_is_missing_or_wrong(claim: str, case: str) -> None:
    with pytest.raises(AuthError) as caught:
        authenticator().verify(BAD_TOKENS[case])
    assert re.search(rf"\bclaim {claim}\b", caught.value.detail), (case, caught.value.detail)


@pytest.mark.parametrize("claim", ["exp", "sub", "aud", "rooms"])
def test_a_missing_claim_is_called_missing(claim: str) -> None:
    for known_header in (False, True):  # the fast path is taken for a header that was seen before
        auth = authenticator()
        if known_header:
            auth.verify(with_claims())
        with pytest.raises(AuthError) as caught:
            auth.verify(without(claim))
        assert caught.value.detail == f"claim {claim} is missing"


def test_another_secret_and_another_issuer_are_named() -> None:
    details = []
    for auth, token in (
        (authenticator(), BAD_TOKENS["another secret"]),
        (authenticator(issuer="platform"), with_claims(iss="other")),
        (authenticator(issuer="platform"), with_claims()),
    ):
        with pytest.raises(AuthError) as caught:
            auth.verify(token)
        details.append(caught.value.detail)
    assert details == [
        "the signature is not that of this broker's secret or keys",
        "claim iss is not the issuer (auth.issuer)",
        "claim iss is missing",
    ]
    assert (auth.refused, auth.verified, auth.from_cache) == (1, 0, 0)


def test_a_token_that_is_no_text_is_refused() -> None:
    not_text: list[Any] = [b"abc", 7, [], {}]
    for token in not_text:
        with pytest.raises(AuthError):
            authenticator().verify(token)


def test_a_good_token_of_another_maker_is_taken() -> None:
    grant = authenticator().verify(with_claims(name="小明 👨‍👩‍👧", role="vip", unheard_of={"x": 1}))
    assert grant == Grant("u1", "小明 👨‍👩‍👧", Role.VIP, (RoomGrant("*", Role.VIP),), int(NOW) + 600)


@pytest.mark.parametrize(
    "token",
    [
        with_claims(aud=["billing", "roomcast"]),
        with_claims(exp=int(NOW) - 29),
        with_claims(nbf=int(NOW) + 30, iat=int(NOW) + 30),
        with_claims(exp=NOW + 0.5),
        with_header(kid="2026-11.main"),
        with_header(typ="jwt"),
        sign({"alg": "HS256"}, GOOD),
    ],
)
def test_what_the_standard_allows_is_taken(token: str) -> None:
    assert authenticator().verify(token).user_id == "u1"


def test_the_issuer_counts_where_one_is_configured() -> None:
    auth = authenticator(issuer="shop")
    assert auth.verify(with_claims(iss="shop")).user_id == "u1"
    for token in (with_claims(), with_claims(iss="Shop"), with_claims(iss=["shop"])):
        with pytest.raises(AuthError):
            auth.verify(token)
    assert auth.verify(auth.issue("u2")).user_id == "u2"


def test_a_nameless_user_is_called_by_the_id() -> None:
    assert authenticator().verify(with_claims()).name == "u1"
    assert authenticator().verify(with_claims(name="  ")).name == "u1"


def test_the_first_entry_that_fits_counts() -> None:
    rooms = (
        RoomGrant("live-1", Role.HOST),
        RoomGrant("live-*", Role.MODERATOR, frozenset({"danmaku", "like"})),
        RoomGrant("live-9", Role.APP),
    )
    grant = Grant("u", "u", Role.VIEWER, rooms)
    assert role_in(grant, "live-1") is Role.HOST
    assert role_in(grant, "live-") is Role.MODERATOR
    assert role_in(grant, "live-9") is Role.MODERATOR
    assert role_in(grant, "live") is None
    assert role_in(grant, "xlive-1") is None
    assert role_in(Grant("u", "u", Role.HOST, (RoomGrant("*", Role.GUEST),)), "any") is Role.GUEST
    assert role_in(Grant("u", "u", Role.APP, ()), "any") is None


def test_allow_narrows_what_may_be_posted() -> None:
    rooms = (
        RoomGrant("a", Role.HOST, frozenset({"like"})),
        RoomGrant("b", Role.HOST),
        RoomGrant("c", Role.HOST, frozenset()),
    )
    grant = Grant("u", "u", Role.VIEWER, rooms)
    assert may_post(grant, "a", "like")
    assert not may_post(grant, "a", "danmaku")
    assert may_post(grant, "b", "danmaku")
    assert not may_post(grant, "c", "like")
    assert not may_post(grant, "d", "like")


def test_a_room_entry_without_a_role_has_the_tokens_role() -> None:
    rooms = [{"pattern": "a", "allow": ["like"]}, {"pattern": "b", "role": "app"}]
    grant = authenticator().verify(with_claims(role="vip", rooms=rooms))
    assert grant.rooms == (RoomGrant("a", Role.VIP, frozenset({"like"})), RoomGrant("b", Role.APP))
    assert role_in(authenticator().verify(with_claims(rooms=[])), "a") is None


def test_equal_lists_of_rooms_are_one_object() -> None:
    auth = authenticator()
    first = auth.verify(with_claims(sub="a", rooms=[{"pattern": "live-1", "allow": ["like"]}]))
    second = auth.verify(with_claims(sub="b", rooms=[{"pattern": "live-1", "allow": ["like"]}]))
    assert first.rooms is second.rooms


def test_the_shared_lists_of_rooms_are_bounded() -> None:
    reader = GrantReader()
    for index in range(1500):
        reader.read({"sub": "ann", "exp": 1, "rooms": [{"pattern": f"live-{index}"}]})
        assert len(reader) <= 1024
    assert len(reader) == 1500 - 1024


def test_a_token_seen_before_costs_no_second_check() -> None:
    auth = authenticator()
    token = with_claims()
    assert auth.verify(token) is auth.verify(token)
    assert (auth.verified, auth.from_cache) == (1, 1)


def test_a_remembered_token_expires_all_the_same() -> None:
    clock = Clock()
    auth = authenticator(clock)
    token = with_claims(exp=int(NOW) + 10)
    grant = auth.verify(token)
    clock.now = NOW + 39.5
    assert auth.verify(token) is grant
    assert auth.seconds_left(grant) == 0.5
    clock.now = NOW + 40
    for _ in range(2):
        with pytest.raises(AuthError):
            auth.verify(token)
    assert auth.cached == 0


def test_the_cache_keeps_the_newest_tokens_and_no_more() -> None:
    auth = authenticator(cache_tokens=3)
    tokens = [with_claims(sub=f"u{index}") for index in range(5)]
    for token in tokens:
        auth.verify(token)
    assert auth.cached == 3
    for token in tokens[2:]:
        auth.verify(token)
    assert (auth.verified, auth.from_cache) == (5, 3)
    for token in tokens[:2]:
        auth.verify(token)
    assert auth.verified == 7


def test_no_cache_is_a_choice() -> None:
    auth = authenticator(cache_tokens=0)
    token = with_claims()
    assert auth.verify(token) == auth.verify(token)
    assert (auth.verified, auth.from_cache) == (2, 0)


def test_neither_tokens_nor_the_secret_are_kept_where_they_can_be_read() -> None:
    auth = authenticator()
    token = with_claims()
    auth.verify(token)
    held = [each for each in reachable(auth) if isinstance(each, str)]
    assert "u1" in held
    assert token not in held
    assert SECRET not in repr(auth)
    assert [each for each in reachable(auth) if isinstance(each, AuthConfig) and SECRET in repr(each)] == []


def test_a_leeway_of_zero_is_exact() -> None:
    clock = Clock()
    auth = authenticator(clock, leeway_s=0.0)
    token = with_claims(exp=int(NOW) + 1)
    auth.verify(token)
    clock.now = NOW + 1
    with pytest.raises(AuthError):
        auth.verify(token)


def test_guests_enter_only_where_they_are_admitted() -> None:
    with pytest.raises(AuthError):
        authenticator().verify(None)
    auth = authenticator(guest_access=("lobby", "open-*"))
    guest = auth.verify(None)
    assert guest.user_id == guest.name
    assert guest.user_id.startswith("guest-")
    assert len(guest.user_id) == 14
    assert [role_in(guest, name) for name in ("lobby", "open-7")] == [Role.GUEST] * 2
    assert [role_in(guest, name) for name in ("any room", "lobby2", "open")] == [None] * 3
    assert auth.seconds_left(guest) == inf
    assert auth.verify(None).user_id != guest.user_id
    with pytest.raises(AuthError):
        auth.verify("")


def test_a_guest_that_keeps_its_key_keeps_its_id() -> None:
    auth = authenticator(guest_access=("lobby",))
    other_secret = Authenticator(AuthConfig(secret="f" * 32, guest_access=("lobby",)), Clock())
    token = "guest:" + "aB3_-" * 5
    guest = auth.verify(token)
    assert re.fullmatch("guest-[a-z2-9]{12}", guest.user_id)
    assert guest == auth.verify(token) == authenticator(guest_access=("lobby",)).verify(token)
    assert (guest.role, guest.name, guest.rooms) == (Role.GUEST, guest.user_id, (RoomGrant("lobby", Role.GUEST),))
    assert auth.seconds_left(guest) == inf
    assert auth.guests == 2
    assert guest.user_id not in {auth.verify(token + "x").user_id, other_secret.verify(token).user_id}
    assert auth.ticket(guest) == ("", 0)
    assert auth.knows(token)


@pytest.mark.parametrize(
    "key", ["", "short", "a" * 21, "a" * 65, "a" * 30 + "é", "a" * 30 + "\n", "\ud800" * 30, "a b" * 9]
)
def test_a_guest_key_that_could_be_guessed_or_logged_badly_is_refused(key: str) -> None:
    auth = authenticator(guest_access=("*",))
    with pytest.raises(AuthError) as refused:
        auth.verify(f"guest:{key}")
    assert refused.value.detail == "guest key is not 22 to 64 letters, digits, - and _"
    assert auth.guests == 0


def test_a_key_of_a_guest_opens_nothing_where_guests_are_not_admitted() -> None:
    with pytest.raises(AuthError) as refused:
        authenticator().verify("guest:" + "a" * 22)
    assert "guests are not admitted" in refused.value.detail


def test_development_mode_believes_names() -> None:
    auth = Authenticator(AuthConfig(), Clock(), random.Random(1))
    assert auth.development
    assert auth.verify(None).role is Role.GUEST
    alice = auth.verify("dev:alice")
    assert (alice.user_id, role_in(alice, "x")) == ("alice", Role.VIEWER)
    assert role_in(auth.verify("dev:小明:app"), "x") is Role.APP
    assert auth.verify(auth.issue("bob")).user_id == "bob"
    for token in ("dev:", "dev::host", "dev:a:root", "dev:a:host:b", "dev:a\nb", "dev:" + "a" * 65, "DEV:alice"):
        with pytest.raises(AuthError):
            auth.verify(token)


def test_development_mode_has_a_secret_of_its_own() -> None:
    first, second = Authenticator(AuthConfig(), Clock()), Authenticator(AuthConfig(), Clock())
    with pytest.raises(AuthError):
        second.verify(first.issue("bob"))
    with pytest.raises(AuthError):
        first.verify(sign(HS256, GOOD, secret=""))


@pytest.mark.parametrize("config", [AuthConfig(secret=""), AuthConfig(secret="x" * 31), AuthConfig(secret_file="f")])
def test_a_secret_that_is_missing_or_short_never_means_development(config: AuthConfig) -> None:
    with pytest.raises(ValueError, match="secret"):
        Authenticator(config)


@pytest.mark.parametrize(
    "arguments",
    [
        {"user_id": ""},
        {"user_id": "u" * 65},
        {"user_id": "a\nb"},
        {"user_id": "u", "name": "\x00"},
        {"user_id": "u", "rooms": [RoomGrant("a*b", Role.HOST)]},
        {"user_id": "u", "rooms": [RoomGrant("a", Role.HOST)] * 65},
        {"user_id": "u", "rooms": [RoomGrant(f"room-{i}-" + "x" * 50, Role.HOST) for i in range(60)]},
        {"user_id": "u", "ttl_s": -NOW},
    ],
)
def test_a_token_that_would_be_refused_is_not_issued(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        authenticator().issue(**arguments)


def test_an_issued_token_is_plain_jwt() -> None:
    token = authenticator().issue("u", "n", Role.HOST, ttl_s=60)
    claims = jwt.decode(token, SECRET, ["HS256"], {"verify_exp": False, "verify_iat": False}, audience="roomcast")
    assert claims == {
        "sub": "u",
        "name": "n",
        "aud": "roomcast",
        "iat": NOW,
        "exp": NOW + 60,
        "role": "host",
        "rooms": [{"pattern": "*", "role": "host"}],
    }


def test_names_of_roles_and_patterns_as_the_command_line_reads_them() -> None:
    assert parse_role("app") is Role.APP
    assert parse_role("App") is None
    assert [is_room_pattern(text) for text in ("a", "a*", "*", "房间:1", "", "**", "a b")] == [True] * 4 + [False] * 3


_pattern = st.from_regex(r"[a-z0-9_.:@-]{1,12}\*?|\*", fullmatch=True)
_entries = st.lists(
    st.builds(
        RoomGrant,
        _pattern,
        st.sampled_from(Role),
        st.none() | st.frozensets(st.sampled_from(["danmaku", "like", "gift", "flash_sale"])),
    ),
    max_size=8,
)


@given(user_ids, user_ids, st.sampled_from(Role), _entries, st.integers(1, 10**6))
def test_what_is_issued_is_verified_to_the_same_grant(
    user_id: str, name: str, role: Role, rooms: list[RoomGrant], ttl_s: int
) -> None:
    auth = authenticator()
    grant = auth.verify(auth.issue(user_id, name, role, rooms, ttl_s))
    assert grant == Grant(user_id, name, role, tuple(rooms), int(NOW) + ttl_s, lifetime_s=ttl_s)


@given(_entries, st.from_regex(r"[a-z0-9_.:@-]{1,12}", fullmatch=True))
def test_a_role_is_given_by_the_first_fitting_entry_and_by_no_other(rooms: list[RoomGrant], room_name: str) -> None:
    grant = Grant("u", "u", Role.VIEWER, tuple(rooms))
    fitting = [entry for entry in rooms if entry.pattern in (room_name, *(room_name[:n] + "*" for n in range(13)))]
    assert role_in(grant, room_name) == (fitting[0].role if fitting else None)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["pattern", "role", "allow"]), inner),
    max_leaves=8,
)


@examples(150)
@given(
    st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit", "b64", "x"]), _json),
    st.dictionaries(st.sampled_from([*GOOD, "name", "role", "nbf", "iat", "iss", "jti"]), _json),
)
def test_any_signed_claims_give_a_sound_grant_or_auth_error(header: dict[str, Any], claims: dict[str, Any]) -> None:
    auth = authenticator()
    for token in (sign(HS256, GOOD | claims), sign(HS256 | header, GOOD)):
        try:
            grant = auth.verify(token)
        except AuthError:
            continue
        assert 1 <= len(grant.user_id) <= 64
        assert (grant.user_id + grant.name).encode()
        assert NOW - 30 < grant.expires_at


@given(st.text(max_size=60) | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_refused(token: str) -> None:
    with pytest.raises(AuthError):
        authenticator(guest_access=("*",)).verify(token)


@given(st.integers(0, 400), st.characters(codec="ascii"))
def test_one_changed_character_is_refused(position: int, character: str) -> None:
    token = with_claims()
    position %= len(token)
    changed = token[:position] + character + token[position + 1 :]
    if changed != token:
        with pytest.raises(AuthError):
            authenticator().verify(changed)


@pytest.mark.parametrize(("claims", "tenant"), [({}, ""), ({"tenant": ""}, ""), ({"tenant": "acme-1"}, "acme-1")])
def test_the_tenant_of_a_token_is_on_its_grant(claims: dict[str, str], tenant: str) -> None:
    assert authenticator().verify(with_claims(**claims)).tenant == tenant
