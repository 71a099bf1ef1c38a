"""Tickets: the same grant for a shorter time, for the broker that gave it. No token is a ticket, no ticket a token."""

from __future__ import annotations

import json
import os
import random
import stat
from pathlib import Path
from typing import Any

import jwt
import pytest
import trio
from hypothesis import given as for_all
from hypothesis import strategies as st

from broker.auth import tickets
from broker.auth.grants import AuthError, Grant, RoomGrant, TokenRevoked
from broker.auth.ticket_keys import FILE_NAME, MAX_KEYS, TicketKey, TicketKeyFile, TicketKeys
from broker.auth.tickets import MAX_TOKEN_BYTES, derived_key
from broker.auth.tokens import Authenticator
from broker.config.schema import AuthConfig
from broker.core.tenants.names import qualify
from broker.server import Broker
from protocol.clients import open_client
from protocol.codes import CloseCode, Feature, Role
from protocol.messages import Auth, Authenticated, Ping, Pong
from tests.support.broker import raw_link, running_broker
from tests.support.durable import durable_broker
from tests.support.examples import examples
from tests.support.strategies import room_names
from tests.support.tokens import NOW, SECRET, Clock
from tests.support.until import until

KEY = b"k" * 32


def authenticator(clock: Clock | None = None, key: bytes = KEY, **settings: Any) -> Authenticator:
    found = Authenticator(AuthConfig(**{"secret": SECRET, **settings}), clock or Clock(), random.Random(1))
    found.use_ticket_keys(TicketKeys.new(key))
    return found


def ticket_key(directory: Path) -> bytes:
    """Return the key that signs tickets of a broker that starts with this data directory."""
    return TicketKeyFile(directory, 600, lambda keys: None).load().keys[0].secret


allowed = st.none() | st.frozensets(st.sampled_from(["danmaku", "like", "coupon"]), max_size=3)
rooms = st.lists(st.builds(RoomGrant, room_names, st.sampled_from(Role), allowed), max_size=4).map(tuple)
users = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=64)
tenants = st.sampled_from(["", "acme", "a_b-1"])
ends = st.integers(int(NOW) + 1, int(NOW) + 10**6)
issued = st.just(0) | st.integers(1, int(NOW))


@st.composite
def _grants(draw: st.DrawFn) -> Grant:
    tenant = draw(tenants)
    user = qualify(tenant, draw(users))
    role, created = draw(st.sampled_from(Role)), draw(issued)
    end, issued_at = draw(ends), draw(issued)
    lifetime_s = end - issued_at if issued_at else None
    return Grant(user, draw(users), role, draw(rooms), end, tenant, lifetime_s, created)


grants = _grants()


@examples(60)
@for_all(grants, st.integers(0, 10**6))
def test_a_ticket_brings_back_the_same_grant_until_it_ends_and_not_a_second_longer(grant: Grant, later_s: int) -> None:
    clock = Clock()
    auth = authenticator(clock)
    ticket, ticket_ms = auth.ticket(grant)
    assert 0 < ticket_ms <= 600_000
    assert NOW + ticket_ms / 1000 <= grant.expires_at
    clock.now = NOW + later_s
    if later_s * 1000 < ticket_ms:
        assert auth.verify(ticket) == grant
        again, again_ms = auth.ticket(auth.verify(ticket))
        assert clock.now + again_ms / 1000 <= grant.expires_at, "tickets of tickets end with the first token"
        if again:
            assert auth.verify(again) == grant
    else:
        with pytest.raises(AuthError):
            auth.verify(ticket)


@examples(40)
@for_all(grants)
def test_a_ticket_is_what_pyjwt_writes_and_reads(grant: Grant) -> None:
    auth = authenticator()
    ticket, _ = auth.ticket(grant)
    key = derived_key(KEY, SECRET.encode())
    claims = json.loads(jwt.PyJWS().decode(ticket, key, algorithms=["HS256"]))
    assert (claims["sub"], claims["tenant"], claims["ends"]) == (grant.plain_id, grant.tenant, grant.expires_at)
    body = json.dumps(claims, separators=(",", ":"), ensure_ascii=False).encode()
    headers = {"typ": "ticket"}
    assert jwt.PyJWS().encode(body, key, algorithm="HS256", headers=headers) == ticket


def test_a_token_is_no_ticket_and_a_ticket_is_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    auth = authenticator()
    token = auth.issue("ann", ttl_s=3600)
    ticket, _ = auth.ticket(auth.verify(token))
    assert (auth.verified, auth.from_tickets) == (1, 0)
    assert auth.verify(ticket).user_id == "ann"
    assert (auth.verified, auth.from_tickets) == (1, 1)
    # A broker of the same secret that gives no tickets judges it as a token.
    for other in (authenticator(ticket_s=0), authenticator(key=b"x" * 32), authenticator(audience="elsewhere")):
        with pytest.raises(AuthError):
            other.verify(ticket)
    # What is signed with the platform's secret is not taken for a ticket, whatever it says.
    claims = jwt.decode(ticket, options={"verify_signature": False})
    forged = jwt.encode(claims, SECRET, algorithm="HS256", headers={"typ": "ticket"})
    assert forged.partition(".")[0] == ticket.partition(".")[0]
    with pytest.raises(AuthError):
        auth.verify(forged)
    # Even with one key for both, header and audience keep them apart.
    monkeypatch.setattr(tickets, "derived_key", lambda *_: SECRET.encode())
    same = authenticator()
    as_ticket, _ = same.ticket(same.verify(token))
    with pytest.raises(AuthError):
        authenticator(ticket_s=0).verify(as_ticket)
    with pytest.raises(AuthError, match="authentication failed") as raised:
        same.verify(jwt.encode(claims | {"aud": "roomcast"}, SECRET, algorithm="HS256", headers={"typ": "ticket"}))
    assert raised.value.detail == "ticket is for another broker"


@examples(40)
@for_all(st.integers(0, 10**6), st.binary(min_size=1, max_size=3))
def test_a_changed_ticket_is_refused(place: int, noise: bytes) -> None:
    auth = authenticator()
    ticket, _ = auth.ticket(auth.verify(auth.issue("ann", ttl_s=3600)))
    place %= len(ticket)
    changed = ticket[:place] + noise.decode("latin-1") + ticket[place + len(noise) :]
    if changed != ticket:
        with pytest.raises(AuthError):
            auth.verify(changed)


def test_a_new_secret_ends_the_tickets_made_under_the_old_one() -> None:
    auth = authenticator()
    ticket, _ = auth.ticket(auth.verify(auth.issue("ann", ttl_s=3600)))
    assert authenticator().verify(ticket).user_id == "ann"
    with pytest.raises(AuthError):
        authenticator(secret="another-secret-of-thirty-two-byte").verify(ticket)


def test_who_never_ends_gets_no_ticket() -> None:
    auth = Authenticator(AuthConfig(), Clock(), random.Random(1))
    assert auth.ticket(auth.verify(None)) == ("", 0)
    assert auth.ticket(auth.verify("dev:ann:app")) == ("", 0)


def test_no_ticket_is_longer_than_a_token_may_be() -> None:
    auth = authenticator()
    entries = tuple(RoomGrant(f"{n:02}" + "房" * 40, Role.VIEWER, frozenset({"danmaku", "like"})) for n in range(64))
    assert auth.ticket(Grant("ann", "ann", Role.VIEWER, entries, int(NOW) + 60)) == ("", 0)
    ticket, _ = auth.ticket(Grant("ann", "ann", Role.VIEWER, entries[:5], int(NOW) + 60))
    assert 0 < len(ticket) <= MAX_TOKEN_BYTES


def test_the_key_is_made_once_readable_for_no_other_user_and_a_broken_one_is_replaced(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        key = ticket_key(tmp_path)
    finally:
        os.umask(before)
    assert len(key) == 32
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    assert ticket_key(tmp_path) == key
    (tmp_path / FILE_NAME).write_bytes(key[:7])
    (tmp_path / "ticket.key.new").write_bytes(b"left over")
    new = ticket_key(tmp_path)
    assert len(new) == 32
    assert new != key
    assert ticket_key(tmp_path) == new
    assert [each.name for each in tmp_path.iterdir()] == [FILE_NAME]


def test_a_directory_that_cannot_be_written_only_costs_the_tickets_their_next_life(tmp_path: Path) -> None:
    first = ticket_key(tmp_path / "missing")
    assert len(first) == 32
    assert ticket_key(tmp_path / "missing") != first


# ---- rotation


@st.composite
def _ticket_keys(draw: st.DrawFn) -> TicketKeys:
    secret, time_ms = st.binary(min_size=32, max_size=32), st.integers(0, 2**53)
    first = draw(st.builds(TicketKey, secret, time_ms, st.none()))
    others = draw(st.lists(st.builds(TicketKey, secret, time_ms, time_ms), max_size=MAX_KEYS - 1))
    return TicketKeys(draw(secret), (first, *others))


@for_all(_ticket_keys())
def test_keys_are_read_as_they_were_written(keys: TicketKeys) -> None:
    assert TicketKeys.decode(keys.encode()) == keys


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.sampled_from(["version", "base", "keys"]), each),
    max_leaves=8,
)


@for_all(st.binary(max_size=80) | json_values.map(lambda each: json.dumps(each).encode()))
def test_what_is_no_file_of_keys_is_refused(content: bytes) -> None:
    try:
        keys = TicketKeys.decode(content)
    except ValueError:
        return
    assert content == keys.base == keys.keys[0].secret, "only a single key of 32 bytes has no structure"


@examples(60)
@for_all(st.data())
def test_each_ticket_is_valid_to_its_end_over_rotations_and_restarts_and_no_key_longer(data: st.DataObject) -> None:
    """A model of a broker: tickets are issued, keys rotated, and it restarts with other lifetimes."""
    clock = Clock()
    keys, lifetime_s = TicketKeys.new().signing_for(600_000), 600
    issued: list[tuple[str, float]] = []
    replaced: dict[bytes, int] = {}
    for action in data.draw(st.lists(st.sampled_from(["issue", "rotate", "restart", "wait"]), max_size=40)):
        auth = authenticator(clock, ticket_s=lifetime_s)
        auth.use_ticket_keys(keys)
        now_ms = int(clock.now * 1000)
        if action == "issue":
            ticket, ticket_ms = auth.ticket(Grant("ann", "ann", Role.VIEWER, (), int(NOW) + 10**7))
            issued.append((ticket, int(clock.now) + ticket_ms / 1000))
        elif action == "rotate":
            wait_ms = keys.wait_ms(now_ms)
            if wait_ms:
                assert len(keys.keys) == MAX_KEYS
                clock.now += wait_ms / 1000
                now_ms += wait_ms
                assert keys.wait_ms(now_ms) == 0
            keys = keys.rotated(data.draw(st.binary(min_size=32, max_size=32)), now_ms, lifetime_s * 1000)
            assert len(keys.keys) <= MAX_KEYS
            replaced[keys.keys[1].secret] = now_ms
        elif action == "restart":
            lifetime_s = data.draw(st.integers(1, 86_400))
            keys = TicketKeys.decode(keys.encode()).signing_for(lifetime_s * 1000)
        else:
            clock.now += data.draw(st.integers(1, 100_000))
        auth = authenticator(clock, ticket_s=lifetime_s)
        auth.use_ticket_keys(keys)
        for ticket, ends_at in issued:
            if clock.now < ends_at:
                assert auth.verify(ticket).user_id == "ann"
            else:
                with pytest.raises(AuthError):
                    auth.verify(ticket)
        for key in keys.keys[1:]:
            assert key.ends_at_ms is not None
            assert key.ends_at_ms <= replaced[key.secret] + 86_400_000


def test_a_replaced_key_signs_nothing_that_is_valid_after_its_end() -> None:
    """What a thief of the key signs after the last ticket has ended is refused, whatever end it claims."""
    clock = Clock()
    old = TicketKeys.new()
    keys = old.rotated(b"n" * 32, int(NOW * 1000), 600_000)
    thief, auth = authenticator(clock, ticket_s=86_400), authenticator(clock)
    thief.use_ticket_keys(old)
    auth.use_ticket_keys(keys)
    clock.now = NOW + 599
    forged, _ = thief.ticket(Grant("ann", "ann", Role.HOST, (), int(NOW) + 10**6))
    assert auth.verify(forged).role is Role.HOST
    clock.now = NOW + 600
    with pytest.raises(AuthError):
        auth.verify(forged)


def test_a_file_of_one_key_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(KEY)
    path.chmod(0o600)
    assert ticket_key(tmp_path) == KEY
    assert TicketKeys.decode(path.read_bytes()) == TicketKeys(KEY, (TicketKey(KEY, 600_000),))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_key_that_cannot_be_written_is_not_used(tmp_path: Path) -> None:
    used: list[TicketKeys] = []
    directory = tmp_path / "data"
    directory.mkdir()
    file = TicketKeyFile(directory, 600, used.append)
    keys = file.load()
    content = (directory / FILE_NAME).read_bytes()
    directory.rename(tmp_path / "away")
    with pytest.raises(OSError, match="No such file"):
        await file.rotate(int(NOW * 1000))
    (tmp_path / "away").rename(directory)
    assert (used, (directory / FILE_NAME).read_bytes()) == ([keys], content)
    rotated = await file.rotate(int(NOW * 1000))
    assert used[1:] == [rotated]
    assert TicketKeyFile(directory, 600, used.append).load() == rotated


# ---- on links


CONFIGURED: dict[str, Any] = {"auth": {"secret": SECRET}}


async def given(broker: Broker, token: str, features: int = int(Feature.TICKET)) -> Authenticated:
    """What a link gets that authenticates with ``token``."""
    async with raw_link(broker) as link:
        await link.hello(features)
        await link.send((Auth(token), 0, 0))
        return (await link.expect(Authenticated))[1]


async def refused(broker: Broker, token: str) -> bool:
    async with raw_link(broker) as link:
        await link.hello()
        await link.send((Auth(token), 0, 0))
        return (await link.expect_close()).code == CloseCode.AUTH_FAILED


@pytest.mark.integration
async def test_only_a_link_that_asks_is_given_a_ticket() -> None:
    async with running_broker(ledger={"ephemeral": True}, **CONFIGURED) as broker:
        token = broker.context.auth.issue("ann", role=Role.HOST)
        granted = await given(broker, token)
        assert 590_000 < granted.ticket_ms <= 600_000
        assert (await given(broker, token, features=3))[3:5] == ("", 0)
        again = await given(broker, granted.ticket)
        assert again[:3] == granted[:3]
        async with raw_link(broker) as link:
            await link.login(granted.ticket)
            assert (await link.join())[1].role is Role.HOST
    async with running_broker(ledger={"ephemeral": True}, **CONFIGURED) as broker:
        assert await refused(broker, granted.ticket), "a broker that keeps nothing forgets its key too"
    async with running_broker(ledger={"ephemeral": True}, auth={"secret": SECRET, "ticket_s": 0}) as broker:
        async with raw_link(broker) as link:
            assert not (await link.hello(int(Feature.TICKET))).features & Feature.TICKET
        assert (await given(broker, token))[3:5] == ("", 0)


@pytest.mark.integration
async def test_a_ping_that_wants_a_ticket_gets_one_and_no_other() -> None:
    async with running_broker(ledger={"ephemeral": True}, **CONFIGURED) as broker:
        token = broker.context.auth.issue("ann")
        for features, renew in ((4, True), (4, False), (0, True)):
            async with raw_link(broker) as link:
                await link.hello(features)
                await link.send((Ping(1, True), 0, 1))
                assert (await link.expect(Pong))[1].ticket == "", "before AUTH no user is known to give one to"
                await link.send((Auth(token), 0, 0), (Ping(1, renew), 0, 2))
                _, pong = await link.expect(Pong)
                assert (pong.ticket != "") is (features == 4 and renew)
                if pong.ticket:
                    assert (await given(broker, pong.ticket)).user_id == "ann"


@pytest.mark.integration
async def test_a_ticket_is_good_after_a_restart_of_a_broker_that_keeps_something(directory: Path) -> None:
    async with durable_broker(directory, **CONFIGURED) as broker:
        ticket = (await given(broker, broker.context.auth.issue("ann"))).ticket
    async with durable_broker(directory, **CONFIGURED) as broker:
        assert (await given(broker, ticket)).user_id == "ann"
        assert stat.S_IMODE((directory / FILE_NAME).stat().st_mode) == 0o600
    async with durable_broker(directory, auth={"secret": "another-secret-of-thirty-two-byte"}) as broker:
        assert await refused(broker, ticket)
    async with durable_broker(directory) as broker:
        assert await refused(broker, ticket), "development mode has a secret of its own"


class Hasty(random.Random):
    """Of every delay the shortest."""

    def uniform(self, a: float, b: float) -> float:
        return a


@pytest.mark.integration
async def test_our_client_comes_back_after_a_restart_without_asking_its_application(directory: Path) -> None:
    asked = 0

    async def application() -> str:
        nonlocal asked
        asked += 1
        return issuer.issue("ann", ttl_s=3600)

    issuer = Authenticator(AuthConfig(secret=SECRET))
    async with durable_broker(directory, **CONFIGURED) as broker:
        host, port = broker.addresses[0]
    again = {"listen": {"port": port}, **CONFIGURED}
    with trio.fail_after(60):
        async with open_client(f"roomcast://{host}:{port}", application, open_timeout_s=0, rng=Hasty()) as client:
            for life in range(3):
                if life == 2:
                    (directory / FILE_NAME).unlink()
                async with durable_broker(directory, **again) as broker:
                    auth = broker.context.auth
                    await until(lambda auth=auth: auth.verified + auth.from_tickets)  # type: ignore[misc]
                    await client.wait_connected()
                    assert client.user is not None
                    assert (client.user.user_id, asked) == ("ann", 2 if life == 2 else 1)
                    assert auth.refused == (life == 2)


def test_the_ticket_of_a_user_that_the_platform_vouches_for_holds_after_a_revocation_before() -> None:
    revoked_before = int(NOW) - 5
    auth = Authenticator(
        AuthConfig(secret=SECRET), Clock(), random.Random(1),
        is_revoked=lambda tenant, user, issued_at, jti: issued_at < revoked_before,
    )  # fmt: skip
    auth.use_ticket_keys(TicketKeys.new(KEY))
    ticket, _ = auth.ticket(auth.grant_of({"sub": "ann", "rooms": []}))
    assert auth.verify(ticket).user_id == "ann"
    old, _ = auth.ticket(auth.grant_of({"sub": "ann", "rooms": [], "iat": revoked_before - 1}))
    with pytest.raises(TokenRevoked):
        auth.verify(old)
