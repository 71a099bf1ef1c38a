"""Histories of two nodes that fight for a room over faulty links, and laws that a checker finds broken in mutants."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest
import trio
from trio.testing import MockClock

from broker.engine.base import (
    AppendResult,
    KeyWrite,
    KnownKey,
    LogItem,
    OutboxItem,
    OwnerRecord,
)
from broker.engine.dataset import MemoryData
from broker.engine.memory import MemoryBus, MemoryEngine, MemoryFaults, RequestFault
from tests.support.engines import Heard
from tests.support.histories import ROOM, History, write


async def history_of(data: MemoryData, seed: int) -> list[str]:
    """Let two nodes write over links whose faults the seed draws; return what the checker finds."""
    rng = random.Random(seed)
    bus, history = MemoryBus(data), History()
    kinds = [*[RequestFault.NONE] * 12, RequestFault.LOST, RequestFault.ANSWER_LOST, RequestFault.LATE]
    faults = MemoryFaults(lambda name: rng.choice(kinds), lambda name: rng.random(), late_s=2.0)
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as writing:
            for name in ("a", "b"):
                engine = MemoryEngine(bus, name, faults)
                await nursery.start(engine.run, Heard())
                writing.start_soon(write, engine, name, history, rng)
        await trio.sleep(10)  # what was late has arrived
        nursery.cancel_scope.cancel()
    assert history.acknowledged
    return history.violations(data.read_log(ROOM, 0, 0, 10_000))


class WithoutFence(MemoryData):
    """A mutant: whoever writes is the owner, where it says."""

    def append(
        self,
        node: str,
        room: str,
        fence: int,
        last_offset: int,
        last_fact: int,
        items: Sequence[LogItem],
        outbox: Sequence[OutboxItem],
        keys: Sequence[KeyWrite],
        ends: bool,
    ) -> AppendResult:
        self._rooms[room].owner = OwnerRecord(node, fence, last_offset, last_fact, b"", False)
        return super().append(node, room, fence, last_offset, last_fact, items, outbox, keys, ends)


class WithoutPlace(MemoryData):
    """A mutant: an append goes wherever the log ends."""

    def append(
        self,
        node: str,
        room: str,
        fence: int,
        last_offset: int,
        last_fact: int,
        items: Sequence[LogItem],
        outbox: Sequence[OutboxItem],
        keys: Sequence[KeyWrite],
        ends: bool,
    ) -> AppendResult:
        owner = self._rooms[room].owner
        assert owner is not None
        self._rooms[room].owner = owner._replace(last_offset=last_offset)
        return super().append(node, room, fence, last_offset, last_fact, items, outbox, keys, ends)


class WithoutKeys(MemoryData):
    """A mutant: it forgets the idempotency keys."""

    def known_keys(self, room: str, digests: Sequence[bytes]) -> Mapping[bytes, KnownKey]:
        return {}


@pytest.mark.parametrize("seed", range(20))
async def test_no_law_is_broken_whatever_is_lost_or_late(seed: int, autojump_clock: MockClock) -> None:
    assert await history_of(MemoryData(lambda: 1_700_000_000_000), seed) == []


@pytest.mark.parametrize("mutant", [WithoutFence, WithoutPlace, WithoutKeys])
async def test_the_checker_finds_each_mutant(mutant: type[MemoryData], autojump_clock: MockClock) -> None:
    found = [await history_of(mutant(lambda: 1_700_000_000_000), seed) for seed in range(5)]
    assert any(found)
