"""Tenants over the wire: the same names in two tenants are two rooms, two users, two inboxes, two orders."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.config.tenants import TenantConfig
from broker.core.tenants.names import qualify
from broker.server import Broker
from protocol.codes import CloseCode, ErrorCode, Feature, MessageType, Outcome, RoomPhase, Tier
from protocol.messages import (
    Ack,
    AckResult,
    Auth,
    Authenticated,
    Call,
    Direct,
    ErrorReply,
    Event,
    Join,
    Joined,
    Ping,
    Pong,
    Post,
    Result,
    Resume,
    Resumed,
    State,
    Tick,
)
from protocol.operations import BY_NAME
from protocol.operations.directs import DirectProgress, SentDirects
from tests.support.broker import RawLink, raw_link
from tests.support.directs import ack, nothing_more
from tests.support.durable import durable_broker, gift
from tests.support.tenants import backend, tenant_link, token
from tests.support.tokens import SECRET
from tests.support.until import until

pytestmark = pytest.mark.integration

TENANTS = ("", "acme", "globex")


@asynccontextmanager
async def shared_broker(directory: Path, **overrides: Any) -> AsyncIterator[Broker]:
    tenants = overrides.pop("tenants", [{"name": name} for name in TENANTS if name])
    async with durable_broker(directory, auth={"secret": SECRET}, tenants=tenants, **overrides) as broker:
        yield broker


async def answers(link: RawLink, sequence: int) -> Ack:
    """Return the ACK that answers a post."""
    while True:
        _, found = await link.expect(Ack)
        if any(each.sequence == sequence for each in found.results):
            return found


async def test_the_same_room_name_is_a_room_of_each_tenant(directory: Path) -> None:
    async with shared_broker(directory) as broker, AsyncExitStack() as stack:
        links = {each: await stack.enter_async_context(tenant_link(broker, each, "ann")) for each in TENANTS}
        numbers = {}
        for tenant, link in links.items():
            numbers[tenant], joined = await link.join("live-1")
            assert (joined.room_name, joined.online) == ("live-1", 1)
        assert len(set(numbers.values())) == 3
        for number, (tenant, link) in enumerate(links.items()):
            await link.post(numbers[tenant], 10 + number, MessageType.DANMAKU, (f"from {tenant}", None))
            await link.post(numbers[tenant], 20 + number, MessageType.LIKE, (3,))
        for tenant, link in links.items():
            _, tick = await link.expect(Tick)
            assert [(entry.user_id, entry.payload[0]) for entry in tick.entries] == [("ann", f"from {tenant}")]
            while (state := (await link.expect(State))[1]).likes != 3:
                assert state.online == 1
        assert {room.name for room in broker.hub} == {qualify(each, "live-1") for each in TENANTS}


async def test_a_room_number_of_another_tenant_is_no_way_in(directory: Path) -> None:
    async with (
        shared_broker(directory) as broker,
        tenant_link(broker, "acme", "ann", "host") as ann,
        tenant_link(broker, "globex", "bob", "host") as bob,
    ):
        number, _ = await ann.join("live-1")
        own, _ = await bob.join("other")
        await bob.post(number, 5, MessageType.ANNOUNCEMENT, ("intruder",))
        await bob.post(own, 6, MessageType.ANNOUNCEMENT, ("own",))
        assert (await answers(bob, 6)).results[0].outcome is Outcome.ACCEPTED
        room = broker.hub.find(qualify("acme", "live-1"))
        assert room is not None
        assert (room.state.last_offset, room.state.online) == (0, 1)


async def test_a_position_of_another_tenant_brings_nothing_back(directory: Path) -> None:
    async with (
        shared_broker(directory) as broker,
        tenant_link(broker, "acme", "max", "host") as host,
        tenant_link(broker, "globex", "bob", "host") as bob,
    ):
        number, joined = await host.join("live-1")
        await host.post(number, 3, MessageType.ANNOUNCEMENT, ("secret",))
        await answers(host, 3)
        await bob.send((Resume("live-1", Tier.FULL, joined.epoch, 0), 0, 2))
        _, resumed = await bob.expect(Resumed)
        assert (resumed.recovered, resumed.snapshot.room_name, resumed.snapshot.offset) == (False, "live-1", 0)
        assert resumed.snapshot.epoch != joined.epoch
        assert resumed.snapshot.announcement is None
        await bob.send((Resume("live-2", Tier.FULL, joined.epoch, 0), 0, 3))
        _, unknown = await bob.expect(Resumed)
        assert not unknown.recovered


async def test_directs_reach_only_the_user_of_the_tenant_and_only_it_acknowledges(directory: Path) -> None:
    async with shared_broker(directory) as broker, AsyncExitStack() as stack:
        links = {each: await stack.enter_async_context(tenant_link(broker, each, "ann")) for each in TENANTS}
        app = await stack.enter_async_context(tenant_link(broker, "acme", "shop", "app"))
        await app.send((Call(81, "", ("may", 4, ("for acme",), {"ann": {}})), 0, 9))
        assert (await app.expect(Result))[1].result == SentDirects("may", 1, 0, 0)
        _, direct = await links["acme"].expect(Direct)
        assert direct.payload == ("for acme",)
        for tenant in ("", "globex"):
            await ack(links[tenant], direct.direct_id)
            await nothing_more(links[tenant])
        other = await stack.enter_async_context(tenant_link(broker, "globex", "shop", "app"))
        await other.send((Call(82, "", ("may",)), 0, 4))
        assert (await other.expect(Result))[1].result == DirectProgress("may", 0, 0, 0)
        await other.send((Call(81, "", ("may", 4, ("for globex",), {"ann": {}})), 0, 5))
        assert (await other.expect(Result))[1].result == SentDirects("may", 1, 0, 0)
        assert broker.inboxes is not None
        assert broker.inboxes.pending_users == {qualify("acme", "ann"), qualify("globex", "ann")}


async def test_an_order_id_is_one_order_of_its_tenant(directory: Path) -> None:
    async with shared_broker(directory) as broker, AsyncExitStack() as stack:
        for tenant in TENANTS:
            app = await stack.enter_async_context(tenant_link(broker, tenant, "shop", "app"))
            for sequence in (1, 2):
                await app.send((Post(MessageType.GIFT, "", gift("order-1"), "live-1"), 0, sequence))
                answer = await answers(app, sequence)
                assert [each.outcome for each in answer.results] == [Outcome.ACCEPTED]
                assert [(each.room_name, each.sequence) for each in answer.firsts] == [("live-1", 2)] * (sequence == 2)
            room = broker.hub.find(qualify(tenant, "live-1"))
            assert room is not None
            assert room.state.last_offset == 1


async def test_rooms_come_back_to_their_tenants_after_a_restart(directory: Path) -> None:
    epochs: dict[str, int] = {}
    for run in (1, 2):
        async with shared_broker(directory) as broker:
            for tenant in TENANTS:
                async with tenant_link(broker, tenant, "max", "host") as host:
                    number, joined = await host.join("live-1")
                    assert epochs.setdefault(tenant, joined.epoch) == joined.epoch
                    assert joined.offset == run - 1
                    await host.post(number, run, MessageType.ANNOUNCEMENT, (f"run {run}",))
                    await answers(host, run)
                    async with tenant_link(broker, tenant, "ann") as ann:
                        await ann.send((Resume("live-1", Tier.FULL, joined.epoch, 0), 0, 2))
                        assert (await ann.expect(Resumed))[1].recovered
                        assert (await ann.expect(Event))[1].payload == ("run 1",)
    assert len(set(epochs.values())) == 3


async def test_a_ticket_keeps_its_tenant(directory: Path) -> None:
    async with shared_broker(directory) as broker:
        async with raw_link(broker) as link:
            await link.hello(Feature.TICKET)
            await link.send((Auth(token("acme", "ann")), 0, 0))
            _, first = await link.expect(Authenticated)
            assert first.user_id == "ann"
        assert first.ticket
        async with raw_link(broker) as link:
            assert (await link.login(first.ticket)).user_id == "ann"
            await link.join("live-1")
            assert broker.hub.find(qualify("acme", "live-1")) is not None
            assert broker.hub.find("live-1") is None


async def test_a_link_is_not_renewed_by_a_token_of_another_tenant(directory: Path) -> None:
    async with shared_broker(directory) as broker, tenant_link(broker, "acme", "ann") as ann:
        await ann.send((Ping(1, token=token("globex", "ann")), 0, 3))
        _, refused = await ann.expect(ErrorReply)
        assert (refused.code, refused.field) == (ErrorCode.NOT_ALLOWED, "token")
        await ann.send((Ping(1, token=token("acme", "ann")), 0, 4))
        assert (await ann.expect(Pong))[0].sequence == 4


async def test_the_limit_of_links_is_of_the_user_of_one_tenant(directory: Path) -> None:
    async with shared_broker(directory, link={"connections_per_user": 1}) as broker, AsyncExitStack() as stack:
        links = [await stack.enter_async_context(tenant_link(broker, each, "ann")) for each in TENANTS]
        for link in links:
            await nothing_more(link)
        assert len(broker.users) == 3


@pytest.mark.parametrize("name", ["acme\x1flive-1", "\x1flive-1"])
async def test_no_client_can_say_a_qualified_name(directory: Path, name: str) -> None:
    async with (
        shared_broker(directory) as broker,
        tenant_link(broker, "acme", "ann") as ann,
        tenant_link(broker, "", "bob") as bob,
    ):
        await ann.join("live-1")
        await bob.send((Join(name), 0, 4))
        while (frame := await bob.next_frame()) is not None and frame.sequence != 4:
            assert not isinstance(frame.message, Joined)
        assert len(broker.hub) == 1


async def test_a_token_of_an_unknown_tenant_ends_the_link(directory: Path) -> None:
    async with shared_broker(directory) as broker, raw_link(broker) as link:
        await link.hello()
        await link.send((Auth(token("initech", "ann")), 0, 0))
        assert (await link.expect_close()).code == CloseCode.AUTH_FAILED
        assert len(broker.users) == 0


async def test_a_tenant_has_its_quota_of_connections_and_others_are_not_concerned(directory: Path) -> None:
    tenants = [{"name": "acme", "max_connections": 1}, {"name": "globex"}]
    async with shared_broker(directory, tenants=tenants) as broker:
        async with tenant_link(broker, "acme", "ann"), raw_link(broker) as second:
            await second.hello()
            await second.send((Auth(token("acme", "bob")), 0, 0))
            closed = await second.expect_close()
            assert closed.code == CloseCode.TOO_MANY_CONNECTIONS
            assert "quota of the tenant" in closed.reason
            assert closed.retry_after_ms > 0
            assert "acme\x1fbob" not in broker.users
            for tenant in ("globex", ""):
                async with tenant_link(broker, tenant, "bob"):
                    pass
        acme = broker.hub.tenants.find("acme")
        assert acme is not None
        await until(lambda: acme.connections == 0)
        async with tenant_link(broker, "acme", "bob"):
            assert (acme.connections, dict(acme.refused)) == (1, {"connections": 1})


async def test_a_tenant_has_its_quota_of_rooms(directory: Path) -> None:
    tenants = [{"name": "acme", "max_rooms": 1}, {"name": "globex"}]
    async with (
        shared_broker(directory, tenants=tenants) as broker,
        tenant_link(broker, "acme", "ann", "host") as ann,
        tenant_link(broker, "globex", "bob", "host") as bob,
    ):
        number, _ = await ann.join("live-1")
        await ann.send((Join("live-2", Tier.FULL), 0, 4))
        _, refused = await ann.expect(ErrorReply)
        assert (refused.code, refused.field) == (ErrorCode.TOO_MANY_ROOMS_OPEN, "room_name")
        await bob.join("live-2")
        await ann.post(number, 5, MessageType.ROOM_PHASE, (int(RoomPhase.ENDED),))
        await until(lambda: broker.hub.find(qualify("acme", "live-1")) is None)
        await ann.join("live-2")


async def test_a_tenant_has_its_quota_of_messages_in_all_its_rooms(directory: Path) -> None:
    tenants = [{"name": "acme", "messages_per_s": 1}, {"name": "globex"}]
    async with (
        shared_broker(directory, tenants=tenants) as broker,
        tenant_link(broker, "acme", "ann", "host") as ann,
        tenant_link(broker, "globex", "bob", "host") as bob,
    ):
        for link, limited in ((ann, True), (bob, False)):
            outcomes: list[AckResult] = []
            for number in range(1, 5):
                room, _ = await link.join(f"live-{number}", sequence=number)
                await link.post(room, 10 + number, MessageType.ANNOUNCEMENT, ("hi",))
                outcomes += (await answers(link, 10 + number)).results
            assert (outcomes[-1].outcome is Outcome.LIMITED) is limited
            assert all(each.detail > 0 for each in outcomes if each.outcome is Outcome.LIMITED)


async def test_a_reload_brings_tenants_and_quotas_and_takes_them_away(directory: Path) -> None:
    async with (
        shared_broker(directory, tenants=[{"name": "acme"}]) as broker,
        tenant_link(broker, "acme", "ann") as ann,
    ):
        changed = msgspec.structs.replace(broker.config, tenants=(TenantConfig(name="globex", max_connections=1),))
        assert broker.reload(changed) == []
        async with tenant_link(broker, "globex", "bob"):
            pass
        await ann.send((Join("live-1", Tier.FULL), 0, 4))
        assert (await ann.expect(ErrorReply))[1].code == ErrorCode.TOO_MANY_ROOMS_OPEN
        async with raw_link(broker) as link:
            await link.hello()
            await link.send((Auth(token("acme", "bob")), 0, 0))
            assert (await link.expect_close()).code == CloseCode.AUTH_FAILED


async def test_a_call_over_a_link_is_of_its_tenant(directory: Path) -> None:
    async with shared_broker(directory) as broker, AsyncExitStack() as stack:
        links = {each: await stack.enter_async_context(tenant_link(broker, each, "max", "host")) for each in TENANTS}
        numbers = {tenant: (await link.join("live-1"))[0] for tenant, link in links.items()}
        pause = Call(BY_NAME["rooms.set_phase"].number, "k1", ("live-1", int(RoomPhase.PAUSED)))
        await links["acme"].send((pause, numbers["acme"], 5))
        assert (await links["acme"].expect(Result))[1].result.phase is RoomPhase.PAUSED
        for tenant, link in links.items():
            await link.send((Call(BY_NAME["rooms.get"].number, "", ("live-1",)), 0, 6))
            _, view = await link.expect(Result)
            assert (view.result.room, view.result.phase is RoomPhase.PAUSED) == ("live-1", tenant == "acme")
            await link.send((Call(BY_NAME["rooms.members"].number, "", ("live-1",)), 0, 7))
            assert [member.user for member in (await link.expect(Result))[1].result.items] == ["max"]
        await links["globex"].send((Call(BY_NAME["rooms.open"].number, "", ("live-2",)), 0, 8))
        await links["globex"].expect(Result)
        await links["acme"].send((Call(BY_NAME["rooms.get"].number, "", ("live-2",)), 0, 9))
        assert (await links["acme"].expect(ErrorReply))[1].code == ErrorCode.UNKNOWN_ROOM


async def test_a_revocation_ends_the_links_of_the_user_of_its_own_tenant(directory: Path) -> None:
    async with shared_broker(directory) as broker, AsyncExitStack() as stack:
        links = {each: await stack.enter_async_context(tenant_link(broker, each, "ann")) for each in TENANTS}
        before_ms = broker.clock.now_ms() + 1000
        revoked, _ = await broker.operations.call(backend("acme"), BY_NAME["users.revoke"], ("ann", before_ms))
        assert revoked.links == 1
        assert (await links["acme"].expect_close()).code == CloseCode.TOKEN_REVOKED
        for tenant in ("", "globex"):
            await nothing_more(links[tenant])
        async with raw_link(broker) as link:
            await link.hello()
            await link.send((Auth(token("acme", "ann")), 0, 0))
            assert (await link.expect_close()).code in (CloseCode.TOKEN_REVOKED, CloseCode.AUTH_FAILED)
