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
from hypothesis import settings
from hypothesis import strategies as st

from broker.auth import tickets
from broker.auth.grants import AuthError, Grant, RoomGrant
from broker.auth.tickets import FILE_NAME, MAX_TOKEN_BYTES, derived_key, ticket_key
from broker.auth.tokens import Authenticator
from broker.config.schema import AuthConfig
from broker.core.tenants.names import qualify
from broker.server import Broker
from protocol.clients import open_client
from protocol.codes import CloseCode, Feature, Role
from protocol.messages import Auth, Authenticated, Ping, Pong
from tests.support.broker import raw_link, running_broker
from tests.support.durable import durable_broker
from tests.support.strategies import room_names
from tests.support.tokens import NOW, SECRET, Clock
from tests.support.until import until

KEY = b"k" * 32


def authenticator(clock: Clock | None = None, key: bytes = KEY, **settings: Any) -> Authenticator:
    found = Authenticator(AuthConfig(**{"secret": SECRET, **settings}), clock or Clock(), random.Random(1))
    found.use_ticket_key(key)
    return found


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
    return Grant(user, draw(users), draw(st.sampled_from(Role)), draw(rooms), draw(ends), tenant, draw(issued))


grants = _grants()


@settings(max_examples=60)
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


@settings(max_examples=40)
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


@settings(max_examples=40)
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
    (tmp_path / "ticket.new").write_bytes(b"left over")
    new = ticket_key(tmp_path)
    assert len(new) == 32
    assert new != key
    assert ticket_key(tmp_path) == new
    assert [each.name for each in tmp_path.iterdir()] == [FILE_NAME]


def test_a_directory_that_cannot_be_written_only_costs_the_tickets_their_next_life(tmp_path: Path) -> None:
    first = ticket_key(tmp_path / "missing")
    assert len(first) == 32
    assert ticket_key(tmp_path / "missing") != first


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
