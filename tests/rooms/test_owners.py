"""Rooms of a node: those that it claims again after its lease was lost, that move to others, and that have work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from broker.core.nodes.membership import BEAT_S, JOIN_DELAY_S, LEASE_S
from broker.core.nodes.moves import MOVES_PER_S
from broker.core.nodes.placement import place
from broker.engine.base import Granted, Held, LogItem, OutboxItem
from broker.engine.dataset import MemoryData
from broker.engine.memory import MemoryBus, MemoryEngine, MemoryFaults, RequestFault
from broker.rooms.owners import RoomOwners
from protocol.frames import pack_body
from tests.support.engines import fact

ROOMS = ("live-1", "live-2", "live-3")


class Rooms:
    """Rooms of a node, of which only the names are known. ``others``: nodes that hear what is wanted, by name."""

    def __init__(self, others: dict[str, RoomOwners] | None = None) -> None:
        self.given_up: list[str] = []
        self.left: list[str] = []
        self.others = {} if others is None else others

    async def owned(self, name: str, granted: Granted) -> bool:
        return True

    def continued(self, name: str, granted: Granted) -> bool:
        return True

    def lost(self, name: str) -> None:
        self.given_up.append(name)

    async def leave(self, name: str) -> None:
        self.left.append(name)

    def node_gone(self, node: str) -> None:
        """Nothing waits for another node."""

    def wanted(self, node: str, name: str) -> None:
        self.others[node].find(name, lambda found: None)


class WatchedEngine(MemoryEngine):
    """Engine that notes whether the node would answer from memory while it claims a room again, and may fail then."""

    owners: RoomOwners

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.answering: list[bool] = []
        self.failures = 0

    async def claim(self, room: str, seen_fence: int, marker: LogItem, **floors: int) -> Granted | Held:
        self.answering.append(self.owners.may_answer())
        if self.failures:
            self.failures -= 1
            self.faults = MemoryFaults(lambda name: RequestFault.ANSWER_LOST)
            try:
                return await super().claim(room, seen_fence, marker, **floors)
            finally:
                self.faults = MemoryFaults()
        return await super().claim(room, seen_fence, marker, **floors)


class Listener:
    """Hears nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args: None


def report() -> OutboxItem:
    """Return a report that waits."""
    return OutboxItem("t", "", "", 1, b"")


async def a_node(nursery: trio.Nursery, engine: WatchedEngine, rooms: Rooms) -> RoomOwners:
    """Start a node."""
    owners = engine.owners = RoomOwners(engine, rooms, clock=trio.current_time, at_ms=lambda: 0)
    await nursery.start(engine.run, Listener())
    await nursery.start(owners.run)
    return owners


@asynccontextmanager
async def running_node(rooms: Rooms) -> AsyncIterator[tuple[MemoryData, WatchedEngine, RoomOwners]]:
    """Run one node, the only one of its data."""
    data = some_data()
    engine = WatchedEngine(MemoryBus(data), "a")
    async with trio.open_nursery() as nursery:
        yield data, engine, await a_node(nursery, engine, rooms)
        nursery.cancel_scope.cancel()


def some_data() -> MemoryData:
    """Return data that are no longer young."""
    age_ms = 0
    data = MemoryData(lambda: round(trio.current_time() * 1000) + age_ms)
    data.born("the first node", b"")
    age_ms = 60_000
    return data


@pytest.mark.parametrize("failures", [0, 1, 2])
async def test_a_lost_node_answers_nothing_until_it_has_claimed_its_rooms_again(
    failures: int, autojump_clock: trio.testing.MockClock
) -> None:
    rooms = Rooms()
    async with running_node(rooms) as (data, engine, owners):
        for name in ROOMS:
            assert await owners.wait_found(name) == "a"
        before = dict(owners.fences)
        engine.answering.clear()
        engine.failures = failures
        data.born("a", b"")  # another process of the same name: the incarnation is lost
        await trio.sleep(6 * BEAT_S)
        assert owners.may_answer()
        assert len(engine.answering) >= len(ROOMS)
        assert not any(engine.answering), "it answered from memory before it had its rooms again"
        assert all(owners.fences[name] > before[name] for name in ROOMS)
        assert rooms.given_up == []


async def test_a_claim_that_was_under_way_while_a_node_was_lost_is_refused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running_node(Rooms()) as (data, _, owners):
        assert await owners.wait_found("live-1") == "a"
        seen = owners.fences["live-1"]  # by another node, which has found this one gone and claims the room
        data.born("a", b"")
        await trio.sleep(6 * BEAT_S)
        assert owners.may_answer()
        late = data.claim("b", "live-1", seen, LogItem(0, 0, 0, b""), 0, 0)
        assert isinstance(late, Held)
        assert late.owner.node == "a"


async def test_a_room_that_its_owner_has_claimed_again_in_another_life_is_not_claimed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    data = some_data()
    async with trio.open_nursery() as nursery:
        owners = await a_node(nursery, WatchedEngine(MemoryBus(data), "b"), Rooms())
        data.born("a", pack_body((1.0, False, "")))
        claimed = data.claim("a", "live-1", 0, LogItem(0, 0, 0, b""), 0, 0)
        assert isinstance(claimed, Granted)
        await trio.sleep(2 * BEAT_S)
        assert "a" in owners.table.peers
        while not owners.table.is_gone("a", trio.current_time()):  # noqa: ASYNC110 - no event says so
            await trio.sleep(BEAT_S / 10)
        data.born("a", pack_body((1.0, False, "")))  # back before the next look of b
        again = data.claim("a", "live-1", claimed.fence, LogItem(0, 0, 0, b""), 0, 0)
        assert isinstance(again, Granted)
        assert owners.table.is_gone("a", trio.current_time())
        assert await owners.wait_found("live-1") == "a"
        assert owners.fences == {}
        nursery.cancel_scope.cancel()


async def test_a_lost_node_gives_up_what_another_has_claimed(autojump_clock: trio.testing.MockClock) -> None:
    rooms = Rooms()
    async with running_node(rooms) as (data, _, owners):
        for name in ROOMS:
            assert await owners.wait_found(name) == "a"
        assert isinstance(data.claim("b", ROOMS[1], owners.fences[ROOMS[1]], LogItem(0, 0, 0, b""), 0, 0), Granted)
        data.born("a", b"")
        await trio.sleep(6 * BEAT_S)
        assert rooms.given_up == [ROOMS[1]]
        assert sorted(owners.fences) == [ROOMS[0], ROOMS[2]]


async def test_rooms_move_to_a_node_that_has_joined_a_few_a_second(autojump_clock: trio.testing.MockClock) -> None:
    data, rooms = some_data(), Rooms()
    bus = MemoryBus(data)
    names = [f"live-{number}" for number in range(100)]
    async with trio.open_nursery() as nursery:
        first = await a_node(nursery, WatchedEngine(bus, "a"), rooms)
        for name in names:
            await first.wait_found(name)
        assert len(first.fences) == len(names)
        second = await a_node(nursery, WatchedEngine(bus, "b"), Rooms())
        rooms.others["b"] = second
        await trio.sleep(JOIN_DELAY_S - BEAT_S)
        assert not second.fences, "it has not been there for long enough"
        await trio.sleep(4 * BEAT_S)
        assert 0 < len(second.fences) <= 2 * MOVES_PER_S
        await trio.sleep(10)
        expected = {name for name in names if place(name, {"a": 1.0, "b": 1.0}) == "b"}
        assert set(second.fences) == expected == set(rooms.left)
        assert set(first.fences) == set(names) - expected
        nursery.cancel_scope.cancel()


async def test_rooms_with_work_are_claimed_when_their_owner_is_gone_and_others_are_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    data = some_data()
    bus = MemoryBus(data)
    async with trio.open_nursery() as nursery:
        engine, scope = WatchedEngine(bus, "a"), trio.CancelScope()

        async def live(task_status: trio.TaskStatus[RoomOwners]) -> None:
            with scope:
                async with trio.open_nursery() as life:
                    task_status.started(await a_node(life, engine, Rooms()))
                    await trio.sleep_forever()

        first: RoomOwners = await nursery.start(live)
        for name in ROOMS:
            assert await first.wait_found(name) == "a"
        record = data.owner("live-2")
        assert record is not None
        data.append("a", "live-2", record.fence, record.last_offset, 0, [fact()], [report()], (), False)
        second = await a_node(nursery, WatchedEngine(bus, "b"), Rooms())
        await trio.sleep(4 * BEAT_S)
        assert not second.fences
        scope.cancel()
        await trio.sleep(LEASE_S + 5)
        assert list(second.fences) == ["live-2"]
        nursery.cancel_scope.cancel()


async def test_a_room_whose_release_was_lost_is_owned_again_without_being_asked_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running_node(Rooms()) as (_, engine, owners):
        assert await owners.wait_found("live-1") == "a"
        engine.faults = MemoryFaults(lambda name: RequestFault.LOST if name == "release" else RequestFault.NONE)
        await owners.release("live-1", None)
        assert owners.owner_of("live-1") is None
        await trio.sleep(2 * BEAT_S)
        assert list(owners.fences) == ["live-1"]
        assert not owners.unsettled


async def test_a_node_that_drains_releases_a_room_whose_first_release_was_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running_node(Rooms()) as (data, engine, owners):
        assert await owners.wait_found("live-1") == "a"
        await owners.start_leaving()
        engine.faults = MemoryFaults(lambda name: RequestFault.LOST if name == "release" else RequestFault.NONE)
        await owners.release_all()
        engine.faults = MemoryFaults()
        await trio.sleep(2 * BEAT_S)
        record = data.owner("live-1")
        assert record is not None
        assert record.node == ""
        assert not owners.fences


async def test_a_room_with_work_is_claimed_by_a_node_that_was_not_notified_of_its_release(
    autojump_clock: trio.testing.MockClock,
) -> None:
    data = some_data()
    bus = MemoryBus(data)
    async with trio.open_nursery() as nursery:
        first = await a_node(nursery, WatchedEngine(bus, "a"), Rooms())
        assert await first.wait_found("live-1") == "a"
        record = data.owner("live-1")
        assert record is not None
        data.append("a", "live-1", record.fence, record.last_offset, 0, [fact()], [report()], (), False)
        second = await a_node(nursery, WatchedEngine(bus, "b"), Rooms())
        assert await second.wait_found("live-1") == "a"
        await trio.sleep(LEASE_S)
        await first.start_leaving()
        await first.release("live-1", None)
        await trio.sleep(4 * BEAT_S)
        assert "live-1" in second.fences
        nursery.cancel_scope.cancel()


async def test_a_node_keeps_its_lease_while_it_claims_its_rooms_again(autojump_clock: trio.testing.MockClock) -> None:
    data, rooms = some_data(), Rooms()
    engine = WatchedEngine(MemoryBus(data), "a")
    names = [f"live-{number}" for number in range(100)]
    async with trio.open_nursery() as nursery:
        owners = await a_node(nursery, engine, rooms)
        for name in names:
            await owners.wait_found(name)
        engine.faults = MemoryFaults(delay_s=lambda name: 0.5 if name == "claim" else 0.0)
        data.born("a", b"")  # 16 at a time: more than a lease, and than the engine has for one beat
        await trio.sleep(20 * BEAT_S)
        assert owners.may_answer()
        assert sorted(owners.fences) == sorted(names)
        nursery.cancel_scope.cancel()


class SlowRooms(Rooms):
    """Rooms whose logs are read when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.read = trio.Event()

    async def owned(self, name: str, granted: Granted) -> bool:
        await self.read.wait()
        return True


async def test_a_claim_goes_on_when_its_request_has_given_up(autojump_clock: trio.testing.MockClock) -> None:
    rooms = SlowRooms()
    async with running_node(rooms) as (data, _, owners):
        assert await owners.wait_found("live-1") is None
        fence = data.owner("live-1")
        rooms.read.set()
        await trio.lowlevel.checkpoint()
        assert await owners.wait_found("live-1") == "a"
        assert data.owner("live-1") == fence, "it was claimed once"


async def test_a_claim_of_an_earlier_life_owns_nothing(autojump_clock: trio.testing.MockClock) -> None:
    rooms = SlowRooms()
    async with running_node(rooms) as (data, _, owners):
        owners.find("live-1", lambda found: None)
        await trio.sleep(BEAT_S)
        record = data.owner("live-1")
        assert record is not None
        data.born("a", b"")  # the lease is lost while the log is read, and another node claims the room
        data.born("b", pack_body((1.0, False, "")))
        assert isinstance(data.claim("b", "live-1", record.fence, LogItem(0, 0, 0, b""), 0, 0), Granted)
        await trio.sleep(2 * BEAT_S)
        assert owners.may_answer()
        rooms.read.set()
        await trio.sleep(0.01)
        assert not owners.fences
        assert rooms.given_up == ["live-1"]
