"""Several nodes over an engine that loses, delays and repeats: the laws hold, and the checker finds planted faults."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from broker.engine.base import Appended, EngineError, LogItem, Misplaced, OutboxItem, StoredLogItem
from broker.rooms.owners import RoomOwners
from broker.rooms.room_log import RoomLog
from tests.simulation.node_world import ROOMS, STOCK, Answer, World, violations

pytestmark = pytest.mark.slow


async def run(world: World, seconds: float = 30) -> list[str]:
    await world.run(seconds)
    found: list[str] = []
    for room in ROOMS:
        found += violations(world.log(room), [answer for answer in world.history if answer.room == room])
    return found


@pytest.mark.parametrize("seed", range(5))
async def test_no_law_is_broken_and_each_room_has_one_owner_in_the_end(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    world = World(seed)
    assert await run(world) == []
    assert world.owners_at_end == len(ROOMS)
    outcomes = {answer.outcome for answer in world.history}
    assert outcomes == {"done", "sold out", "already", "nothing"}
    assert len({item.fence for room in ROOMS for item in world.log(room)}) > 2


class AnswersWithoutLease(RoomOwners):
    """Owners that do not look at their lease."""

    def may_answer(self) -> bool:
        return True


class BelievesLostWrites(RoomLog):
    """A log that takes an append without an answer for one that was not done, and goes on where the log ends."""

    async def append(self, items: Sequence[LogItem], outbox: Sequence[OutboxItem] = ()) -> bool:
        while True:
            try:
                answer = await self._engine.append(self.room, self.fence, self._offset, self.fact, items, outbox)
            except EngineError:
                await trio.sleep(0.1)
                continue
            if isinstance(answer, Misplaced):
                self.fact = answer.last_fact
                continue
            if isinstance(answer, Appended):
                self.fact = answer.last_fact
                return True
            return False


PLANTED: list[tuple[type[RoomOwners], type[RoomLog]]] = [
    (AnswersWithoutLease, RoomLog),
    (RoomOwners, BelievesLostWrites),
]


@pytest.mark.parametrize(("owners", "log"), PLANTED)
async def test_planted_faults_are_found(
    owners: type[RoomOwners], log: type[RoomLog], autojump_clock: trio.testing.MockClock
) -> None:
    for seed in range(20):
        if await run(World(seed, owners, log)):
            return
    pytest.fail("no seed has shown it")


def fact(number: int, fence: int, body: bytes) -> StoredLogItem:
    return StoredLogItem(fence, 0, number, None, 3, 1, body)


def test_the_checker_knows_each_law() -> None:
    log = [fact(1, 1, b""), fact(2, 1, b"claim ann")]
    done = Answer("live-1", "ann", "claim", "done", 2, 1.0, 2.0)
    assert violations(log, [done, Answer("live-1", "bob", "return", "nothing", 2, 3.0, 3.0)]) == []
    assert "stale" in violations(log, [done, Answer("live-1", "bob", "return", "nothing", 1, 3.0, 3.0)])[0]
    assert violations(log, [Answer("live-1", "bob", "return", "nothing", 1, 1.5, 1.5), done]) == []
    assert "not true" in violations(log, [Answer("live-1", "ann", "return", "nothing", 2, 3.0, 3.0)])[0]
    assert "not in the log" in violations(log[:1], [done])[0]
    assert violations([log[1]], []) == ["the log has a hole"]
    assert violations([fact(1, 2, b""), fact(2, 1, b"")], []) == ["a fence fell"]
    assert violations([fact(1, 1, b"claim ann"), fact(2, 1, b"claim ann")], []) == ["ann has two at 2"]
    many = [fact(index + 1, 1, f"claim user-{index}".encode()) for index in range(STOCK + 1)]
    assert violations(many, []) == [f"oversold at {STOCK + 1}"]
