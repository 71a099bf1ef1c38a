"""Activities of rooms of a real broker with a real ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from broker.core.commerce.activity import ActivityRefusal
from broker.core.commerce.room_activities import ActivityKind
from broker.ledger import LedgerState
from broker.ledger.pending import PendingResult
from broker.operations.caller import Caller, OperationError
from broker.rooms import hub
from broker.rooms.room_store import RoomStore
from broker.server import Broker
from protocol.activities import BY_EVENT_NAME, ActivityEventRow, Via
from protocol.codes import ErrorCode, Lane, LeaveReason, MessageType, Role, RoomPhase, Tier
from protocol.messages import ActivityView, Direct, Event, Join, Joined, Left
from protocol.operations import BY_NAME, Scope
from tests.support.activities import viewer
from tests.support.broker import joined_link, raw_link
from tests.support.durable import disk, durable_broker
from tests.support.faulty_disk import disk_error
from tests.support.sum_activity import Sum, Total
from tests.support.until import until

pytestmark = pytest.mark.integration
KEY = "sums", "s"


@pytest.fixture(autouse=True)
def _sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.rooms.configured.activity_kinds", lambda *_: {"sums": ActivityKind("sums", Sum, 3, 2)})


async def add(
    broker: Broker, amount: int, key: tuple[str, str] = KEY, *, waits: bool = False, user: str = "ann"
) -> Any:
    """Add a number in the room "lobby" and return the answer."""
    room = broker.hub.open("lobby")
    assert not isinstance(room, ErrorCode)
    pending = PendingResult[Any]()
    room.command_activity(key, (amount, waits), viewer("ann"), pending.set, creates=True)
    return await pending.wait()


async def test_an_activity_is_as_it_was_after_a_restart(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        assert await add(broker, 60) == 60
        assert await add(broker, 50, waits=True) == 110
        assert await add(broker, 5, ("sums", "other")) == 5
    async with durable_broker(directory) as broker, raw_link(broker) as ann:
        await ann.login("dev:ann")
        await ann.send((Join("lobby", Tier.FULL), 0, 1))
        joined = (await ann.expect(Joined))[1]
        shown = {(view.kind, view.id): view.data for view in joined.activities}
        assert shown == {KEY: {"total": 110}, ("sums", "other"): {"total": 5}}
        assert ActivityView("sums", "s", {"total": 2}) in joined.own_activities
        assert joined.activities_more == 0
        assert await add(broker, 1) == 111


async def test_members_see_events_and_counters_and_the_user_gets_its_message(directory: Path) -> None:
    async with durable_broker(directory) as broker, joined_link(broker, "dev:ann") as (ann, _):
        assert await add(broker, 100) == 100
        found: dict[str, Any] = {}
        while len(found) < 3:
            frame = await ann.next_frame()
            assert frame is not None
            message = frame.message
            if isinstance(message, Direct):
                found["direct"] = message.type, message.payload
            elif isinstance(message, Event) and frame.lane is Lane.COMMERCE:
                found["event"] = frame.sequence, message.type, message.payload
            elif isinstance(message, Event) and frame.lane is Lane.AMBIENT:
                found["counter"] = message.type, message.payload
        assert found["direct"] == (MessageType.ACTIVITY, ("sums.added", "s", {"total": 100}))
        assert found["event"] == (1, MessageType.ACTIVITY, ("sums.grew", "s", {"total": 100}))
        assert found["counter"] == (MessageType.ACTIVITY_COUNTER, ("sums.counter", "s", {"total": 100}))


async def test_what_the_disk_refuses_has_not_happened(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        assert await add(broker, 10) == 10
        disk(broker).fault = disk_error("SQLITE_FULL")
        refused = await add(broker, 20)
        assert isinstance(refused, ActivityRefusal)
        assert (refused.code, refused.retry_after_ms) == (ErrorCode.OVERLOADED, 1000)
        disk(broker).fault = None
        await until(lambda: broker.ledger is not None and broker.ledger.state is LedgerState.READY)
        assert await add(broker, 1) == 11
        counts = broker.hub.activity_counts
        assert (counts.facts["sums"], counts.refusals["sums"], counts.undone["sums"]) == (2, 1, 1)
        assert broker.hub.totals().activities == {"sums": 1}


async def test_the_end_of_the_room_ends_its_activities_in_one_transaction(directory: Path) -> None:
    async with durable_broker(directory) as broker, joined_link(broker, "dev:ann") as (ann, _):
        assert await add(broker, 10) == 10
        room = broker.hub.find("lobby")
        assert room is not None
        activity = room.state.activities.activities.find(*KEY)  # type: ignore[union-attr]
        room.set_phase(RoomPhase.ENDED, "host")
        assert (await ann.expect(Left))[1].reason is LeaveReason.ROOM_ENDED
        assert activity.is_over
        pending = PendingResult[Any]()
        room.command_activity(KEY, (1, False), viewer("ann"), pending.set)
        assert (await pending.wait()).code is ErrorCode.ROOM_ENDED


async def test_a_room_with_a_deadline_stays_open_and_opens_at_the_start(directory: Path) -> None:
    async with durable_broker(directory, room={"idle_close_s": 0.1}) as broker:
        assert await add(broker, 10) == 10
        await until(lambda: broker.hub.find("lobby") is None)
        assert await add(broker, -600) == 10
        room = broker.hub.find("lobby")
        assert room is not None
        await until(lambda: sum_of(broker) == 11)
        assert broker.hub.find("lobby") is room
        await until(lambda: broker.hub.find("lobby") is None)
        assert await add(broker, -500) == 11
    async with durable_broker(directory) as broker:
        await until(lambda: sum_of(broker) == 12)


def sum_of(broker: Broker) -> int | None:
    """Return the total in the room "lobby", None where it is not open."""
    room = broker.hub.find("lobby")
    return None if room is None else room.state.activities.activities.find(*KEY).total  # type: ignore[union-attr]


async def test_a_crashed_room_reads_its_activities_from_the_ledger(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        assert await add(broker, 10) == 10
        room = broker.hub.find("lobby")
        assert room is not None
        activity = room.state.activities.activities.find(*KEY)  # type: ignore[union-attr]
        activity.total = -1  # the defect
        broker.hub.crash(room)
        await until(lambda: broker.hub.find("lobby") is None)
        with trio.fail_after(10):
            assert await add(broker, 1) == 11


async def test_a_crashed_room_stays_closed_until_its_activities_can_be_read(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "READ_AGAIN_S", 0.05)
    platform = Caller("shop", "Shop", "", lambda room: Role.APP, frozenset({Role.APP}), frozenset({Scope.ADMIN}))
    read = RoomStore.read_activities
    found: list[ErrorCode] = []

    async def fail_first(self: RoomStore, room: str, epoch: int) -> Any:
        with pytest.raises(OperationError) as caught:
            await broker.operations.call(platform, BY_NAME["rooms.get"], (room,))
        found.append(caught.value.code)
        if len(found) < 3:
            raise disk_error("SQLITE_IOERR_READ")
        return await read(self, room, epoch)

    monkeypatch.setattr(RoomStore, "read_activities", fail_first)
    async with durable_broker(directory) as broker:
        assert await add(broker, 10) == 10
        room = broker.hub.find("lobby")
        assert room is not None
        room.state.activities.activities.find(*KEY).total = -1  # type: ignore[union-attr]
        broker.hub.crash(room)
        await until(lambda: broker.hub.find("lobby") is None)
        assert found == [ErrorCode.OVERLOADED] * 3
        assert await add(broker, 1) == 11


async def test_a_room_has_so_many_activities_of_a_kind(directory: Path) -> None:
    async with durable_broker(directory) as broker, raw_link(broker) as ann:
        for number in range(3):
            assert await add(broker, 1, ("sums", f"s{number}")) == 1
        refused = await add(broker, 1, ("sums", "s4"))
        assert (refused.code, refused.rule) == (ErrorCode.OUT_OF_STATE, "has 3 sums")
        await ann.login("dev:ann")
        await ann.send((Join("lobby", Tier.FULL), 0, 1))
        joined = (await ann.expect(Joined))[1]
        assert (len(joined.activities), joined.activities_more) == (2, 1)


async def test_counters_for_the_host_reach_staff_alone(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = ActivityEventRow("sums.counter", Via.HOST_COUNTER, Total, Total._make, "The sum.", Total(1))
    monkeypatch.setitem(BY_EVENT_NAME, "sums.counter", row)
    async with (
        durable_broker(directory) as broker,
        joined_link(broker, "dev:max:host") as (host, _),
        joined_link(broker, "dev:bob") as (bob, _),
    ):
        assert await add(broker, 10) == 10
        while True:
            frame = await host.next_frame()
            assert frame is not None
            if isinstance(frame.message, Event):
                break
        assert (frame.lane, frame.message.payload) == (Lane.AMBIENT, ("sums.counter", "s", {"total": 10}))
        assert await add(broker, 100) == 110
        assert (await bob.expect(Event))[1].payload == ("sums.grew", "s", {"total": 110})
