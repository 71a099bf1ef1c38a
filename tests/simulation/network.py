"""Links of the simulated network: bytes are delayed, split, stalled, cut, or dropped silently.

One end is a socket as the broker's transports use it (``send`` accepts what fits, ``recv`` returns what has arrived)
under an epoll of its own, `SimEpoll`; the other is the client's `BytePipe`. A cut drops the bytes in flight; nothing is
reordered or changed within a link, as TCP promises.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable

import trio

from protocol.clients import PipeLost
from tests.simulation.world import World

__all__ = ["SimEpoll", "SimPipe", "SimSocket", "SimStream", "Wire"]

DELAY_S = 0.05
"""Longest delay of bytes in flight."""


class Line:
    """One direction of a link: bytes in flight, then bytes that wait to be read."""

    def __init__(self, world: World, on_change: Callable[[], object]) -> None:
        self._world = world
        self._on_change = on_change
        self._chunks: deque[bytes] = deque()
        self._is_busy = False
        self._capacity = world.conditions.link_bytes
        self.arrived = bytearray()
        self.held = 0
        self.stalled_until = 0.0
        self.is_ended = False
        """No more bytes will be sent."""

    @property
    def free(self) -> int:
        """Bytes that can be sent now."""
        return self._capacity - self.held

    @property
    def is_at_end(self) -> bool:
        """Whether the other end has finished and everything was read."""
        return self.is_ended and not self.held

    def put(self, data: bytes) -> None:
        """Send bytes."""
        self.held += len(data)
        self._chunks.append(data)
        self._go()

    def end(self) -> None:
        """Mark the end of the stream."""
        self.is_ended = True
        self._go()

    def abort(self) -> None:
        """Drop the bytes in flight and end the stream."""
        self._chunks.clear()
        self.held = len(self.arrived)
        self.is_ended = True

    def take(self, most: int) -> bytes:
        """Return at most ``most`` bytes that have arrived."""
        data = bytes(self.arrived[:most])
        del self.arrived[:most]
        self.held -= len(data)
        return data

    def _go(self) -> None:
        if not self._is_busy:
            self._is_busy = True
            self._world.soon(DELAY_S, self._arrive)

    def _arrive(self) -> None:
        world = self._world
        if world.now() < self.stalled_until:
            world.later(self.stalled_until - world.now(), self._arrive)
            return
        self._is_busy = False
        if self._chunks:
            data = b"".join(self._chunks)
            self._chunks.clear()
            if len(data) > 1 and world.rng.random() < 0.2:
                cut = world.rng.randrange(1, len(data))
                self._chunks.append(data[cut:])
                data = data[:cut]
                self._go()
            self.arrived += data
        self._on_change()


class Wire:
    """One connection. ``epoll`` belongs to the broker's end; the client waits at ``readable`` and ``writable``."""

    def __init__(self, world: World, number: int, epoll: SimEpoll) -> None:
        self.number = number
        self.is_cut = False
        self.epoll = epoll
        self.readable = trio.lowlevel.ParkingLot()
        self.writable = trio.lowlevel.ParkingLot()
        self._world = world
        self.up = Line(world, epoll.wake)
        self.down = Line(world, self.readable.unpark_all)

    def changed(self) -> None:
        """Wake both ends: the connection has changed."""
        self.readable.unpark_all()
        self.writable.unpark_all()
        self.epoll.wake()

    def cut(self) -> None:
        """Drop all bytes in flight in both directions and notify both ends."""
        if not self.is_cut:
            self.is_cut = True
            self.up.abort()
            self.down.abort()
            self.changed()

    def stall(self, seconds: float) -> None:
        """Hold back bytes to the client, or in both directions, for some seconds."""
        until = self._world.now() + seconds
        self.down.stalled_until = until
        if self._world.rng.random() < 0.5:
            self.up.stalled_until = until


class SimPipe:
    """The client's end of a connection."""

    def __init__(self, world: World, wire: Wire) -> None:
        self._world = world
        self.wire = wire

    async def send(self, data: bytes) -> None:
        """Write all of ``data``, in as many pieces as the link has space for."""
        line = self.wire.up
        await trio.lowlevel.checkpoint()
        while data:
            if self.wire.is_cut or line.is_ended or self.wire.down.is_at_end:
                raise PipeLost(None, "the link broke")
            size = min(len(data), line.free)
            if size > 0:
                line.put(data[:size])
                data = data[size:]
            else:
                await self.wire.writable.park()

    async def receive(self) -> bytes:
        """Return bytes that have arrived, at least one."""
        line = self.wire.down
        if line.arrived:
            await trio.lowlevel.checkpoint()
        while not line.arrived:
            if self.wire.is_cut or line.is_at_end:
                raise PipeLost(None, "the link broke")
            await self.wire.readable.park()
        data = line.take(self._world.rng.randint(1, 4096))
        self.wire.epoll.on_space(self.wire)
        return data

    async def aclose(self, code: int | None = None) -> None:
        """Close: after the bytes in flight where there is a close code, else at once."""
        await trio.lowlevel.checkpoint()
        if code is None:
            self.wire.cut()
        else:
            self.wire.up.end()


class SimStream(trio.abc.Stream):
    """The client's end as a stream, for WebSocket."""

    def __init__(self, pipe: SimPipe) -> None:
        self._pipe = pipe

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._pipe.send(bytes(data))
        except PipeLost as lost:
            raise trio.BrokenResourceError from lost

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            return await self._pipe.receive()
        except PipeLost as lost:
            if self._pipe.wire.is_cut:
                raise trio.BrokenResourceError from lost
            return b""

    async def aclose(self) -> None:
        await self._pipe.aclose()


class SimSocket:
    """The broker's end: the part of a socket that a `Transport` uses."""

    def __init__(self, wire: Wire, world: World) -> None:
        self._wire = wire
        self._world = world

    def fileno(self) -> int:
        return self._wire.number

    def setblocking(self, flag: bool) -> None:
        assert not flag

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
        wire = self._wire
        if wire.is_cut:
            raise ConnectionResetError("cut")
        if wire.up.arrived:
            data = wire.up.take(most)
            wire.writable.unpark_all()
            return data
        if wire.up.is_at_end:
            return b""
        raise BlockingIOError

    def shutdown(self, how: int) -> None:
        self._wire.down.end()

    def close(self) -> None:
        wire = self._wire
        wire.up.abort()
        wire.down.end()
        wire.changed()


class SimEpoll:
    """The part of an epoll that the broker's `Poller` uses, over wires."""

    def __init__(self) -> None:
        self._wires: dict[int, Wire] = {}
        self._interests: dict[int, int] = {}
        self._woken = trio.Event()

    def add_wire(self, wire: Wire) -> None:
        """Register a wire under its descriptor number."""
        self._wires[wire.number] = wire

    def register(self, fd: int, events: int) -> None:
        self._interests[fd] = events
        self.wake()

    def modify(self, fd: int, events: int) -> None:
        self._interests[fd] = events
        self.wake()

    def unregister(self, fd: int) -> None:
        del self._interests[fd]
        del self._wires[fd]

    def close(self) -> None:
        self._interests.clear()

    def wake(self) -> None:
        """Wake `wait`: a wire may be ready."""
        self._woken.set()

    def on_space(self, wire: Wire) -> None:
        """Wake `wait` if the broker waits for space on this wire."""
        if self._interests.get(wire.number, 0) & select.EPOLLOUT:
            self._woken.set()

    async def wait(self) -> None:
        """Wait until a wire may be ready."""
        await self._woken.wait()

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        """Return descriptors and events that are ready now."""
        self._woken = trio.Event()
        ready = []
        for fd, interest in self._interests.items():
            wire = self._wires[fd]
            events = select.EPOLLERR if wire.is_cut else 0  # reported without registration, as epoll does
            if interest & select.EPOLLIN and (wire.up.arrived or wire.up.is_at_end):
                events |= select.EPOLLIN
            if interest & select.EPOLLOUT and wire.down.free > 0:
                events |= select.EPOLLOUT
            if events:
                ready.append((fd, events))
        return ready[:most]
