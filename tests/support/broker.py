"""A real broker on a real loopback port, and a raw link that sends and receives frames without the client."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

from broker.config.schema import Config, load
from broker.server import Broker
from broker.sessions.session import Session
from broker.telemetry.loop_monitor import LoopMonitor
from protocol.codes import Lane, Tier
from protocol.connection import NEED_DATA, Connection, Frame, encode
from protocol.errors import LocalProtocolError
from protocol.messages import (
    MAGIC,
    Auth,
    Authenticated,
    ClientHello,
    ErrorReply,
    Event,
    GoAway,
    Join,
    Joined,
    Message,
    Post,
    ServerHello,
    Side,
)
from protocol.state import LinkState
from tests.support.clocks import AdjustableClock
from tests.support.integration import require_marker

M = TypeVar("M")

DEADLINE_S = 20.0
"""Longest wait for one expected frame: far beyond what a test needs, it only ends a hang."""


def configuration(**overrides: Any) -> Config:
    """Return a development configuration on a free port; ``overrides`` are nested sections, as in TOML."""
    listen = {"port": 0, **overrides.pop("listen", {})}
    return load(None, {}, {"listen": listen, **overrides})


class LoopOfTests(LoopMonitor):
    """The monitor of a broker that shares its loop, and a busy machine, with a test.

    Their work is no overload of the broker, which would refuse joins and hold chat back while a test waits for them.
    A test of overload sets the stage (`Hub.set_stage`).
    """

    def overload_lag_s(self, late_s: float) -> float:
        """Count pauses as ever; no lag counts as overload."""
        super().overload_lag_s(late_s)
        return 0.0


@asynccontextmanager
async def running_broker(
    *, kind: type[Broker] = Broker, wall_ms: Callable[[], int] | None = None, **overrides: Any
) -> AsyncIterator[Broker]:
    """Run a broker of the class ``kind`` while the block lasts; a crash in it fails the test.

    It goes by the clock of the test, which sets that forward (`tests.support.clocks`), unless ``wall_ms`` is given.
    """
    require_marker("a whole broker")
    clock, monotonic = trio.lowlevel.current_clock(), time.monotonic
    if isinstance(clock, AdjustableClock) and wall_ms is None:
        wall_ms, monotonic = clock.unix_ms, clock.current_time
    broker = kind(configuration(**overrides), rng=random.Random(7), wall_ms=wall_ms, monotonic=monotonic)
    broker.loop_monitor = LoopOfTests()
    async with trio.open_nursery() as nursery:
        await nursery.start(broker.run)
        try:
            yield broker
        finally:
            nursery.cancel_scope.cancel()


def sessions_of(broker: Broker) -> list[Session]:
    """Return the open sessions: the broker's shutdown knows less of them than a test."""
    return [each for each in broker.context.sessions if isinstance(each, Session)]


class RawLink:
    """One TCP link that sends and receives frames in order; only `expect` skips frames."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.connection = Connection(Side.CLIENT)

    async def send(self, *messages: tuple[Message, int, int]) -> None:
        """Write (message, room, sequence) frames in one go."""
        await self.stream.send_all(b"".join(self._frame(*each) for each in messages))

    def _frame(self, message: Message, room: int, sequence: int) -> bytes:
        try:
            return self.connection.send(message, room, sequence)
        except LocalProtocolError:  # an invalid frame: the test asks how the broker answers it
            return encode(message, room, sequence, Lane.CONTROL)

    async def send_bytes(self, data: bytes) -> None:
        """Write any bytes; from here on every frame of the broker is accepted in any state."""
        self.connection.local_state = LinkState.OPEN
        await self.stream.send_all(data)

    async def next_frame(self) -> Frame | None:
        """Return the next frame, or None at the end of the stream."""
        with trio.fail_after(DEADLINE_S):
            while True:
                event = self.connection.next_event()
                if isinstance(event, Frame):
                    return event
                assert event is NEED_DATA
                try:
                    data = await self.stream.receive_some(65536)
                except trio.BrokenResourceError:
                    return None
                if not data:
                    return None
                self.connection.receive_data(data)

    async def expect(self, kind: type[M], *, rankings: bool = False) -> tuple[Frame, M]:
        """Return the next frame whose message is of ``kind``; others are skipped, the end fails.

        ``rankings``: whether tops of rankings are expected, which are pushed at any time after likes and gifts.
        """
        while True:
            frame = await self.next_frame()
            assert frame is not None, f"the link ended while waiting for {kind.__name__}"
            payload = frame.message.payload if isinstance(frame.message, Event) else ()
            is_push = isinstance(payload, tuple) and payload[:1] == ("rankings.changed",)
            if isinstance(frame.message, kind) and rankings >= is_push:
                return frame, frame.message
            assert not isinstance(frame.message, GoAway), f"{frame.message} while waiting for {kind.__name__}"

    async def expect_close(self) -> GoAway:
        """Read until GOAWAY and the end of the stream."""
        goaway = None
        while True:
            frame = await self.next_frame()
            if frame is None:
                assert goaway is not None, "the link ended without GOAWAY"
                return goaway
            if isinstance(frame.message, GoAway):
                goaway = frame.message

    async def hello(self, features: int = 0) -> ServerHello:
        await self.send((ClientHello(MAGIC, 1, 1, features, "test"), 0, 0))
        return (await self.expect(ServerHello))[1]

    async def login(self, token: str | None = None) -> Authenticated:
        await self.hello()
        await self.send((Auth(token), 0, 0))
        return (await self.expect(Authenticated))[1]

    async def join(self, name: str = "lobby", tier: Tier = Tier.FULL, sequence: int = 1) -> tuple[int, Joined]:
        """Join a room; returns its number and the snapshot."""
        await self.send((Join(name, tier), 0, sequence))
        while True:
            frame = await self.next_frame()
            assert frame is not None, f"the link ended while joining {name}"
            refused = isinstance(frame.message, ErrorReply) and frame.sequence == sequence
            assert not refused, f"{name} cannot be joined: {frame.message}"
            if isinstance(frame.message, Joined):
                assert frame.sequence == sequence
                return frame.room, frame.message

    async def post(self, room: int, sequence: int, kind: int, payload: Any) -> None:
        await self.send((Post(kind, f"m{sequence}", payload), room, sequence))


@asynccontextmanager
async def raw_link(broker: Broker) -> AsyncIterator[RawLink]:
    """Open a TCP link to ``broker``."""
    async with await trio.open_tcp_stream(*broker.addresses[0]) as stream:
        yield RawLink(stream)


@asynccontextmanager
async def joined_link(broker: Broker, token: str, room: str = "lobby") -> AsyncIterator[tuple[RawLink, int]]:
    """Open a link, log in with ``token`` and join ``room``; yields the link and the room's number."""
    async with raw_link(broker) as link:
        await link.login(token)
        number, _ = await link.join(room)
        yield link, number
