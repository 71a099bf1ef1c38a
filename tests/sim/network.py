"""Links of the simulated network: bytes take time, come in pieces, stand still, and are cut.

One end is a socket as the broker's transports use it (``send`` takes what fits, ``recv`` gives what is there); the
other is the client's `BytePipe`. Between them every direction is a line of chunks with a delay of its own each. A cut
loses what is under way; nothing is ever reordered or changed within a link, as TCP promises.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import trio

from protocol.clients import PipeLost
from tests.sim.world import World

__all__ = ["SimPipe", "SimSocket", "Wire"]

CAPACITY = 16 * 1024
"""Bytes that a direction holds before ``send`` would block: a viewer can fall behind here."""


class Line:
    """One direction: chunks under way, then bytes that wait to be read."""

    def __init__(self, world: World, on_arrival: Callable[[], None]) -> None:
        self._world = world
        self._on_arrival = on_arrival
        self._chunks: deque[bytes] = deque()
        self._more = trio.Event()
        self.arrived = bytearray()
        self.held = 0
        self.stalled_until = 0.0

    @property
    def free(self) -> int:
        return CAPACITY - self.held

    def put(self, data: bytes) -> None:
        self.held += len(data)
        self._chunks.append(data)
        self._more.set()

    def take(self, most: int) -> bytes:
        data = bytes(self.arrived[:most])
        del self.arrived[:most]
        self.held -= len(data)
        return data

    async def run(self) -> None:
        """Carry chunks, in pieces now and then."""
        world = self._world
        while True:
            while not self._chunks:
                self._more = trio.Event()
                await self._more.wait()
            await world.pause(0.05)
            while world.now() < self.stalled_until:  # noqa: ASYNC110 - a stall may be prolonged
                await trio.sleep(self.stalled_until - world.now())
            data = self._chunks.popleft()
            if len(data) > 1 and world.rng.random() < 0.2:
                cut = world.rng.randrange(1, len(data))
                self._chunks.appendleft(data[cut:])
                data = data[:cut]
            self.arrived += data
            self._on_arrival()


class Wire:
    """One connection. ``poller`` turns the broker's transport when its end of the wire has something to do."""

    def __init__(self, world: World, number: int) -> None:
        self.number = number
        self.is_cut = False
        self.scope = trio.CancelScope()
        self.transport: Any = None  # the broker's Transport, once it has accepted
        self.wants_to_write = False
        self._readable = trio.Event()
        self._world = world
        self.up = Line(world, self._on_up)
        self.down = Line(world, self._on_down)
        self.turn: Callable[[Callable[[], None]], None] = lambda call: call()
        self.is_closed_by_broker = False

    async def run(self) -> None:
        """Carry bytes until the wire is cut."""
        with self.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.up.run)
                nursery.start_soon(self.down.run)

    def cut(self) -> None:
        """Lose everything under way, both ways."""
        if not self.is_cut:
            self.is_cut = True
            self.scope.cancel()
            self._readable.set()
            if self.transport is not None:
                self.turn(self.transport.on_readable)

    def stall(self, seconds: float) -> None:
        """Let nothing through towards the client for a while."""
        self.down.stalled_until = self._world.now() + seconds

    def _on_up(self) -> None:
        if self.transport is not None:
            self.turn(self.transport.on_readable)

    def _on_down(self) -> None:
        self._readable.set()

    # ---- the client's end

    async def receive(self) -> bytes:
        while True:
            if self.down.arrived:
                data = self.down.take(self._world.rng.randint(1, 4096))
                if self.wants_to_write and not self.is_cut:
                    self.turn(self.transport.on_writable)
                return data
            if self.is_cut or (self.is_closed_by_broker and not self.down.held):
                raise PipeLost(None, "the link broke")
            self._readable = trio.Event()
            await self._readable.wait()


class SimPipe:
    """A client's end."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self._wire.is_cut or self._wire.is_closed_by_broker:
            raise PipeLost(None, "the link broke")
        self._wire.up.put(data)

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return await self._wire.receive()

    async def aclose(self, code: int | None = None) -> None:
        await trio.lowlevel.checkpoint()
        self._wire.cut()


class SimSocket:
    """The broker's end, as much of a socket as a `Transport` uses."""

    def __init__(self, wire: Wire, world: World) -> None:
        self._wire = wire
        self._world = world

    def fileno(self) -> int:
        return self._wire.number

    def send(self, data: bytes | memoryview) -> int:
        wire = self._wire
        if wire.is_cut:
            raise ConnectionResetError("cut")
        size = min(len(data), wire.down.free)
        if size > 1 and self._world.chance(0.02):
            size = self._world.rng.randrange(1, size)
        if size <= 0:
            raise BlockingIOError
        wire.down.put(bytes(data[:size]))
        return size

    def recv(self, most: int) -> bytes:
        if self._wire.is_cut:
            raise ConnectionResetError("cut")
        if not self._wire.up.arrived:
            raise BlockingIOError
        return self._wire.up.take(most)

    def shutdown(self, how: int) -> None:
        self._wire.is_closed_by_broker = True
        self._wire._readable.set()

    def close(self) -> None:
        self._wire.is_closed_by_broker = True
        self._wire._readable.set()
