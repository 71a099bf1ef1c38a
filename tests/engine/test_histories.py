"""Histories of two nodes that fight for a room over faulty links, and laws that a checker finds broken in mutants."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest
import trio
from trio.testing import MockClock

from broker.engine.base import (
    Appended,
    AppendResult,
    Engine,
    EngineError,
    Fenced,
    Granted,
    KeysKnown,
    KeyWrite,
    KnownKey,
    LogItem,
    OutboxItem,
    OwnerRecord,
    StoredLogItem,
)
from broker.engine.dataset import MemoryData
from broker.engine.memory import MemoryBus, MemoryEngine, MemoryFaults, RequestFault
from tests.support.engines import MARKER, Heard, event
from tests.support.redis_server import RedisLab, redis_lab

ROOM = "room"


class History:
    """What the nodes were told."""

    def __init__(self) -> None:
        self.fences: list[int] = []
        self.acknowledged: dict[bytes, int] = {}
        """Offset of each request."""

    def violations(self, log: Sequence[StoredLogItem]) -> list[str]:
        """Check the laws against the log as it is in the end."""
        found = []
        offsets = [each.offset for each in log]
        if offsets != list(range(1, len(log) + 1)):
            found.append("offsets have a hole, or are given twice")
        if [each.fence for each in log] != sorted(each.fence for each in log):
            found.append("a fence falls")
        if len(set(self.fences)) != len(self.fences):
            found.append("a fence is given twice")
        requests = [each.body for each in log if each.body != MARKER.body]
        if len(set(requests)) != len(requests):
            found.append("a request is written twice")
        written = {(each.offset, each.body) for each in log}
        if any((offset, request) not in written for request, offset in self.acknowledged.items()):
            found.append("an acknowledged request is not in the log at its offset")
        return found


async def write(engine: Engine, name: str, history: History, rng: random.Random) -> None:
    """Claim the room again and again, and write requests under each claim; one that is unknown is asked again."""
    number = 0
    for _ in range(30):
        try:
            known: OwnerRecord | None = await engine.owner(ROOM)
            granted = await engine.claim(ROOM, 0 if known is None else known.fence, MARKER)
            if not isinstance(granted, Granted):
                continue
            history.fences.append(granted.fence)
            last = granted.offset
        except EngineError:
            await trio.sleep(0.02)
            continue
        for _ in range(rng.randrange(1, 12)):
            request = f"{name}{number}".encode()
            key = KeyWrite(request.ljust(16, b"."), b"12345678", 3_600_000, item=0)
            try:
                result = await engine.append(ROOM, granted.fence, last, 0, [event(request)], (), [key])
            except EngineError:
                try:
                    known = await engine.owner(ROOM)
                except EngineError:
                    break
                if known is None or (known.node, known.fence) != (name, granted.fence):
                    break
                last = known.last_offset
                continue
            if isinstance(result, Appended):
                last = history.acknowledged[request] = result.last_offset
            elif isinstance(result, KeysKnown):
                history.acknowledged[request] = result.first[key.digest].offset
            elif isinstance(result, Fenced):
                break
            else:
                last = result.last_offset
                continue
            number += 1


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


async def break_server(lab: RedisLab) -> None:
    """Break all connections, make the server forget its scripts, stop it for a moment, and kill it; again and again."""
    for _ in range(4):
        await trio.sleep(0.05)
        await lab.server.disconnect()
        await lab.server.ask("SCRIPT", "FLUSH", "SYNC")
        await trio.sleep(0.05)
        await lab.server.kill()
        await lab.server.start()


@pytest.mark.integration
@pytest.mark.slow
async def test_no_law_is_broken_by_a_real_server_that_is_killed() -> None:
    async with redis_lab("--appendonly", "yes", "--appendfsync", "always") as lab:
        engines = {name: (await lab.open(name))[0] for name in ("a", "b")}
        history = History()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(break_server, lab)
            for seed, (name, engine) in enumerate(engines.items()):
                nursery.start_soon(write, engine, name, history, random.Random(seed))
        log: Sequence[StoredLogItem] | None = None
        while log is None:
            try:
                log = await engines["a"].read_log(ROOM, 0, 0, 10_000)
            except EngineError:
                await trio.sleep(0.02)
        assert history.acknowledged
        assert history.violations(log) == []
