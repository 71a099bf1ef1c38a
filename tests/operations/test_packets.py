"""Operations on red packets and rains: over HTTP and CALL, with a ledger, webhooks, and over kill -9."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.core.commerce import rain
from broker.server import Broker
from protocol.activities import ActivityEvent
from protocol.activities.packets import (
    OwnPacketShare,
    PacketScheduled,
    PacketSettled,
    PacketState,
    PacketView,
    SplitMode,
)
from protocol.activities.rains import DropOpened, OwnDrops, RainSettled
from protocol.clients import CallRefused, Client, JoinedRoom, StreamEvent, open_client
from protocol.codes import ErrorCode
from protocol.messages import ActivityView, Joined
from protocol.operations.packets import GrabPacket, MyPacketShare, MyShare
from protocol.packet_shares import packet_shares
from protocol.primitives import seed_hash
from tests.support.api import API, call, client_of, ok, refused
from tests.support.broker import running_broker
from tests.support.durable import durable_broker
from tests.support.faulty_disk import crashed_copy
from tests.support.receiver import receiver
from tests.support.until import until
from tests.support.webhooks import events_of, hook_settings

pytestmark = pytest.mark.integration

PACKET: dict[str, Any] = {"room": "live-1", "id": "p", "order_id": "order-1", "total_cents": 1000, "count": 3}
RAIN: dict[str, Any] = {
    "room": "live-1", "id": "r", "order_id": "order-2", "total_cents": 600, "drops": 2, "count": 3, "span_ms": 1000,
    "jitter_percent": 0,
}  # fmt: skip


@asynccontextmanager
async def member(broker: Broker, user: str) -> AsyncIterator[tuple[Client, JoinedRoom]]:
    host, port = broker.addresses[0][:2]
    async with open_client(f"roomcast://{host}:{port}", f"dev:{user}") as client:
        yield client, await client.join("live-1")


def snapshot_of(room: JoinedRoom) -> Joined:
    assert room.snapshot is not None
    return room.snapshot


async def event_named(room: JoinedRoom, name: str) -> Any:
    """Return the data of the next event of a name."""
    with trio.fail_after(20):
        async for event in room:
            if isinstance(event, StreamEvent) and isinstance(event.payload, ActivityEvent):
                if event.payload.name == name:
                    return event.payload.data
    raise AssertionError("the room has ended")


async def grab(client: Client, packet: str = "p") -> Any:
    """Return a share, or the code of the refusal."""
    try:
        return await client.call("packets.grab", key="k", room="live-1", id=packet)
    except CallRefused as error:
        return error.code


async def test_a_packet_pays_out_its_total(directory: Path) -> None:
    async with receiver() as shop:
        hooks = hook_settings(directory, shop.url, "packet.*")
        async with (
            durable_broker(directory, api=API, webhooks=hooks) as broker,
            client_of(broker) as platform,
            member(broker, "ann") as (ann, room),
        ):
            created = await ok(platform, "packets.create", key="k1", **PACKET, title="Luck", mode="lucky")
            assert created["expire_at_ms"] == created["open_at_ms"] + 86_400_000
            scheduled = await event_named(room, "packets.scheduled")
            assert isinstance(scheduled, PacketScheduled)
            assert (scheduled.title, scheduled.seed_hash) == ("Luck", created["seed_hash"])
            await event_named(room, "packets.opened")
            async with member(broker, "bob") as (bob, bobs_room), member(broker, "cem") as (cem, _):
                first = await grab(ann)
                assert isinstance(first, OwnPacketShare)
                shares = [first, await grab(bob), await grab(cem)]
                assert await grab(ann) == first
                assert await ann.call(MyPacketShare("live-1", "p")) == MyShare(first)
                assert snapshot_of(bobs_room).activities
                async with member(broker, "dora") as (dora, doras_room):
                    assert await grab(dora) == ErrorCode.EMPTY
                    assert await dora.call("packets.mine", room="live-1", id="p") == MyShare(None)
                    (view,) = snapshot_of(doras_room).activities
                    assert isinstance(view.data, PacketView)
                    assert view.data.taken == 3
                    assert snapshot_of(doras_room).own_activities == ()
            assert [share.share for share in shares] == [0, 1, 2]
            assert sum(share.cents for share in shares) == 1000
            settled = await event_named(room, "packets.settled")
            assert isinstance(settled, PacketSettled)
            seed = bytes.fromhex(settled.seed)
            assert seed_hash(seed).hex() == created["seed_hash"]
            assert [share.cents for share in shares] == packet_shares(SplitMode.LUCKY, 1000, 3, 1, 0, seed)
            page = await ok(platform, "packets.list", room="live-1")
            (info,) = page["items"]
            assert (info["state"], info["taken_cents"], page["next"]) == ("settled", 1000, None)
            await until(lambda: len(events_of(shop)) >= 4)
            reports = events_of(shop)
            assert sorted((each["data"]["user"], each["data"]["cents"]) for each in reports[:3]) == sorted(
                (user, share.cents) for user, share in zip(("ann", "bob", "cem"), shares, strict=True)
            )
            assert (reports[3]["type"], reports[3]["data"]["returned_cents"]) == ("packet.settled", 0)


async def test_many_users_grab_at_once_and_ask_again_after_kill_9(directory: Path) -> None:
    first_place, second_place = directory / "first", directory / "second"
    first_place.mkdir()
    users = [f"u{number}" for number in range(30)]
    before: dict[str, Any] = {}

    async def grab_as(broker: Broker, user: str, found: dict[str, Any]) -> None:
        async with member(broker, user) as (client, _):
            found[user] = await grab(client)

    async def all_grab(broker: Broker, found: dict[str, Any]) -> None:
        async with trio.open_nursery() as nursery:
            for user in users:
                nursery.start_soon(grab_as, broker, user, found)

    async with durable_broker(first_place, api=API) as broker, client_of(broker) as platform:
        await ok(platform, "packets.create", key="k1", **PACKET | {"count": 40})
        await all_grab(broker, before)
        crashed_copy(first_place, second_place)
    assert all(isinstance(answer, OwnPacketShare) for answer in before.values())
    assert {answer.share for answer in before.values()} == set(range(30))
    async with durable_broker(second_place, api=API) as broker, client_of(broker) as platform:
        after: dict[str, Any] = {}
        await all_grab(broker, after)
        assert after == before
        taken = sum(answer.cents for answer in before.values())
        assert await ok(platform, "packets.cancel", room="live-1", id="p") == {"returned_cents": 1000 - taken}
        async with member(broker, "u0") as (_, room):
            own = ActivityView("packets", "p", before["u0"])
            assert snapshot_of(room).own_activities == (own,)


async def test_refusals_of_packets_over_http_and_call(directory: Path) -> None:
    async with (
        durable_broker(directory, api=API) as broker,
        client_of(broker) as platform,
        member(broker, "ann") as (ann, _),
    ):
        assert await refused(platform, "packets.create", **PACKET) == (400, "BAD_FIELD", "key")
        for field, value in (
            ("total_cents", 0), ("total_cents", -1), ("total_cents", 10**12 + 1), ("total_cents", 1.5), ("count", 0),
            ("count", 10_001), ("count", 1001), ("mode", "unfair"), ("id", ""), ("id", "a/1"), ("expire_at_ms", 1),
        ):  # fmt: skip
            answer = await call(platform, "packets.create", "bad", **PACKET | {field: value})
            assert answer.status_code == 400, (field, value, answer.text)
            named = "total_cents" if value == 1001 else field
            assert (answer.json()["code"], answer.json()["field"]) == ("BAD_FIELD", named)
        assert await grab(ann) == ErrorCode.UNKNOWN_ACTIVITY
        opens = broker.clock.now_ms() + 60_000
        first = await ok(platform, "packets.create", key="k1", **PACKET, open_at_ms=opens)
        assert await ok(platform, "packets.create", key="k1", **PACKET, open_at_ms=opens) == first
        assert await ok(platform, "packets.create", key="k2", **PACKET, open_at_ms=opens) == first
        again = await call(platform, "packets.create", "k3", **PACKET)
        assert (again.status_code, again.json()["code"]) == (409, "KEY_REUSED")
        with pytest.raises(CallRefused) as early:
            await ann.call(GrabPacket("live-1", "p"), key="k")
        assert early.value.code == ErrorCode.NOT_OPEN
        assert 50_000 < early.value.retry_after_ms <= 60_000
        with pytest.raises(CallRefused) as forged:
            await ann.call("packets.cancel", room="live-1", id="p")
        assert forged.value.code == ErrorCode.NOT_ALLOWED
        assert await refused(platform, "packets.grab", room="live-1", id="p") == (403, "NOT_ALLOWED", "operation")
        assert await ok(platform, "packets.cancel", room="live-1", id="p") == {"returned_cents": 1000}
        assert await grab(ann) == ErrorCode.CANCELLED
        await ok(platform, "packets.create", key="k4", **PACKET | {"id": "q", "eligibility": {"min_role": "vip"}})
        assert await grab(ann, "q") == ErrorCode.NOT_ELIGIBLE
        await ok(platform, "rooms.set_phase", room="live-1", phase="paused")
        assert await grab(ann, "q") == ErrorCode.ROOM_PAUSED


async def test_guests_take_no_share_and_a_broker_without_a_ledger_has_no_packets(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as platform:
        await ok(platform, "packets.create", key="k1", **PACKET)
        host, port = broker.addresses[0][:2]
        async with open_client(f"roomcast://{host}:{port}") as guest:
            await guest.join("live-1")
            assert await grab(guest) == ErrorCode.NOT_ALLOWED
    async with running_broker(api=API) as broker, client_of(broker) as platform:
        answer = await call(platform, "packets.create", "k1", **PACKET)
        assert answer.json()["code"] == "NOT_KEPT"


async def test_the_end_of_a_room_returns_what_is_not_taken(directory: Path) -> None:
    async with receiver() as shop:
        hooks = hook_settings(directory, shop.url, "packet.settled")
        async with (
            durable_broker(directory, api=API, webhooks=hooks) as broker,
            client_of(broker) as platform,
            member(broker, "ann") as (ann, _),
        ):
            await ok(platform, "packets.create", key="k1", **PACKET)
            await until(lambda: broker.hub.find("live-1") is not None)
            while not isinstance(share := await grab(ann), OwnPacketShare):
                assert share == ErrorCode.NOT_OPEN
            await ok(platform, "rooms.close", room="live-1")
            await until(lambda: bool(events_of(shop)))
            (settled,) = events_of(shop)
            assert settled["data"]["taken_cents"] == share.cents
            assert settled["data"]["returned_cents"] == 1000 - share.cents


async def test_a_packet_is_settled_in_time_in_a_room_where_nothing_else_happens(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as platform:
        opens = broker.clock.now_ms() + 60_000
        await ok(platform, "packets.create", key="k1", **PACKET, open_at_ms=opens)
        await ok(platform, "packets.cancel", room="live-1", id="p")
        await ok(platform, "packets.create", key="k2", **PACKET | {"id": "q", "expire_at_ms": opens - 59_900})
        room = broker.hub.find("live-1")
        assert room is not None
        activities = room.state.activities.activities
        assert activities is not None
        packets = [activities.find("packets", id) for id in ("p", "q")]
        await until(lambda: all(packet.state is PacketState.SETTLED for packet in packets))


async def test_lists_page_through_all_packets(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as platform:
        for number in range(5):
            await ok(platform, "packets.create", key=f"k{number}", **PACKET | {"id": f"p{number}"})
        found: list[str] = []
        cursor = None
        while True:
            page = await ok(platform, "packets.list", room="live-1", limit=2, cursor=cursor)
            assert all(item["state"] in ("scheduled", "open") for item in page["items"])
            found += [item["id"] for item in page["items"]]
            cursor = page["next"]
            if cursor is None:
                break
        assert found == [f"p{number}" for number in range(5)]


async def test_a_rain_falls(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rain, "ANNOUNCED_MS", 50)
    async with AsyncExitStack() as stack:
        shop = await stack.enter_async_context(receiver())
        hooks = hook_settings(directory, shop.url, "packet.*", "rain.*")
        broker = await stack.enter_async_context(durable_broker(directory, api=API, webhooks=hooks))
        platform = await stack.enter_async_context(client_of(broker))
        ann, room = await stack.enter_async_context(member(broker, "ann"))
        created = await ok(platform, "rains.create", key="k1", **RAIN, drop_ms=1000, max_per_user=1)
        opened = await event_named(room, "rains.drop_opened")
        assert isinstance(opened, DropOpened)
        assert (opened.packet, opened.total_cents) == ("r/0", 300)
        share = await grab(ann, "r/0")
        assert isinstance(share, OwnPacketShare)
        assert await ann.call("packets.mine", room="live-1", id="r/0") == MyShare(share)
        assert await grab(ann, "r/7") == ErrorCode.UNKNOWN_ACTIVITY
        assert (await event_named(room, "rains.drop_opened")).packet == "r/1"
        assert await grab(ann, "r/1") == ErrorCode.ALREADY_HAVE
        async with member(broker, "ann") as (_, other):
            (view,) = [each for each in snapshot_of(other).own_activities if each.kind == "rains"]
            assert isinstance(view.data, OwnDrops)
            assert view.data.cents == share.cents
        settled = await event_named(room, "rains.settled")
        assert isinstance(settled, RainSettled)
        assert seed_hash(bytes.fromhex(settled.seed)).hex() == created["seed_hash"]
        assert (settled.fallen, settled.returned_cents) == (2, 600 - share.cents)
        await until(lambda: len(events_of(shop)) == 2)
        grabbed, report = events_of(shop)
        assert (grabbed["type"], grabbed["data"]["packet"]) == ("packet.grabbed", "r/0")
        assert report["data"]["taken_cents"] + report["data"]["returned_cents"] == 600


async def test_a_rain_is_cancelled_by_the_platform(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as platform:
        assert await refused(platform, "rains.create", **RAIN) == (400, "BAD_FIELD", "key")
        await ok(platform, "rains.create", key="k1", **RAIN)
        assert await ok(platform, "rains.cancel", room="live-1", id="r") == {"returned_cents": 600}
        assert await ok(platform, "rains.cancel", room="live-1", id="r") == {"returned_cents": 600}
        assert await refused(platform, "rains.cancel", room="live-1", id="x") == (404, "UNKNOWN_ACTIVITY", "id")
