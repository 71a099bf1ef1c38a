"""The lease of a node and its rooms: after its incarnation was lost it answers nothing before it has looked."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing

from broker.core.nodes.membership import BEAT_S
from broker.engine.base import Granted, OwnerRecord
from broker.engine.dataset import MemoryData
from broker.engine.memory import MemoryBus, MemoryEngine
from broker.rooms.owners import RoomOwners

ROOMS = ("live-1", "live-2", "live-3")


class Rooms:
    """Rooms of a node, of which only the names are known."""

    def __init__(self) -> None:
        self.given_up: list[str] = []

    async def owned(self, name: str, granted: Granted) -> bool:
        return True

    def lost(self, name: str) -> None:
        self.given_up.append(name)

    def node_gone(self, node: str) -> None:
        """Nothing waits for another node."""

    def wanted(self, node: str, name: str) -> None:
        raise AssertionError(f"{name} is placed on {node}")


class WatchedEngine(MemoryEngine):
    """Engine that notes whether the node would answer from memory while it looks a room up, and may fail then."""

    owners: RoomOwners

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.answering: list[bool] = []
        self.failures = 0

    async def owner(self, room: str) -> OwnerRecord | None:
        self.answering.append(self.owners.may_answer())
        if self.failures:
            self.failures -= 1
            self.cut()
            self.mend()
        return await super().owner(room)


class Listener:
    """Hears nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args: None


async def test_a_lost_node_answers_nothing_until_it_has_looked_its_rooms_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    for failures in (0, 1):
        data, rooms = MemoryData(lambda: round(trio.current_time() * 1000)), Rooms()
        engine = WatchedEngine(MemoryBus(data), "a")
        owners = engine.owners = RoomOwners(engine, rooms, clock=trio.current_time, at_ms=lambda: 0)
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run, Listener())
            await nursery.start(owners.run)
            for name in ROOMS:
                assert await owners.wait_found(name) == "a"
            before = dict(owners.fences)
            engine.answering.clear()
            engine.failures = failures
            data.born("a", b"")  # another process of the same name: the incarnation is lost
            await trio.sleep(6 * BEAT_S)
            assert owners.may_answer()
            assert len(engine.answering) >= len(ROOMS)
            assert not any(engine.answering), "it answered from memory before it had looked"
            assert owners.fences == before
            assert rooms.given_up == []
            nursery.cancel_scope.cancel()


async def test_a_lost_node_gives_up_what_another_has_claimed(autojump_clock: trio.testing.MockClock) -> None:
    data, rooms = MemoryData(lambda: round(trio.current_time() * 1000)), Rooms()
    engine = WatchedEngine(MemoryBus(data), "a")
    owners = engine.owners = RoomOwners(engine, rooms, clock=trio.current_time, at_ms=lambda: 0)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run, Listener())
        await nursery.start(owners.run)
        for name in ROOMS:
            assert await owners.wait_found(name) == "a"
        owners.fences[ROOMS[1]] -= 1  # as if another node had claimed it since: its fence is a later one
        data.born("a", b"")
        await trio.sleep(6 * BEAT_S)
        assert rooms.given_up == [ROOMS[1]]
        assert sorted(owners.fences) == [ROOMS[0], ROOMS[2]]
        nursery.cancel_scope.cancel()
