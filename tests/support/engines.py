"""Engines for tests: nodes that share data, with everything they hear, and a hand on the data behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from broker.engine.base import Engine, EngineLinkState, Granted, LogItem
from broker.engine.dataset import MemoryData
from broker.engine.memory import MemoryBus, MemoryEngine
from tests.support.until import until

__all__ = ["MARKER", "EngineLab", "Heard", "MemoryLab", "claim", "event", "fact", "memory_lab"]

MARKER = LogItem(0, 40, 1, b"marker")
"""The event with which the tests claim rooms."""


def event(body: bytes = b"event", lane: int = 0) -> LogItem:
    """Return an event of a log."""
    return LogItem(lane, 3, 1_000, body)


def fact(body: bytes = b"fact") -> LogItem:
    """Return a fact of a log."""
    return LogItem(None, 1003, 1_000, body)


async def claim(engine: Engine, room: str) -> Granted:
    """Claim a room as its present record allows it."""
    known = await engine.owner(room)
    granted = await engine.claim(room, 0 if known is None else known.fence, MARKER)
    assert isinstance(granted, Granted)
    return granted


class Heard:
    """Everything that the engine of a node has called back, as one list of tuples."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def link_changed(self, state: EngineLinkState, reason: str) -> None:
        self.calls.append((state,))

    def room_subscribed(self, room: str) -> None:
        self.calls.append(("subscribed", room))

    def room_message(self, room: str, body: bytes) -> None:
        self.calls.append((room, body))

    def node_subscribed(self) -> None:
        self.calls.append(("node subscribed",))

    def node_message(self, body: bytes) -> None:
        self.calls.append(("node", body))

    def of_room(self, room: str) -> list[bytes]:
        """Bodies of the messages of a room's channel, in order."""
        return [call[1] for call in self.calls if call[0] == room and isinstance(call[1], bytes)]

    async def until_heard(self, *call: object, times: int = 1) -> None:
        """Wait until a call has come so many times."""
        await until(lambda: self.calls.count(call) >= times)


class EngineLab(Protocol):
    """Shared data, of which tests open nodes and which they damage."""

    async def open(self, node: str) -> tuple[Engine, Heard]:
        """Start the engine of a node; it ends with the test."""

    async def expire(self, node: str) -> None:
        """Let the lease of a node lapse."""

    async def expire_keys(self, ttl_ms: int) -> None:
        """Let so much of the engine's time pass that keys of this life have gone."""

    async def flush(self) -> None:
        """Drop all data."""

    async def set_full(self, is_full: bool) -> None:
        """Take the data to its bound of memory, or away from it."""

    async def cut(self, engine: Engine) -> None:
        """Break the links of a node; they come back when `mend` is called, or by themselves."""

    async def mend(self, engine: Engine) -> None:
        """Let the links of a node come back, and wait for them."""


class MemoryLab:
    """A lab over `MemoryData`, whose time the test sets."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.now_ms = 1_700_000_000_000
        self.bus = MemoryBus(MemoryData(lambda: self.now_ms))

    async def open(self, node: str) -> tuple[MemoryEngine, Heard]:
        engine, heard = MemoryEngine(self.bus, node), Heard()
        await self._nursery.start(engine.run, heard)
        return engine, heard

    async def expire(self, node: str) -> None:
        self.now_ms += 2_001

    async def expire_keys(self, ttl_ms: int) -> None:
        self.now_ms += ttl_ms + 1

    async def flush(self) -> None:
        self.bus.data.flush()

    async def set_full(self, is_full: bool) -> None:
        self.bus.data.is_full = is_full

    async def cut(self, engine: Engine) -> None:
        assert isinstance(engine, MemoryEngine)
        engine.cut()

    async def mend(self, engine: Engine) -> None:
        assert isinstance(engine, MemoryEngine)
        engine.mend()


@asynccontextmanager
async def memory_lab() -> AsyncIterator[MemoryLab]:
    """Open a lab over data in memory."""
    async with trio.open_nursery() as nursery:
        yield MemoryLab(nursery)
        nursery.cancel_scope.cancel()
