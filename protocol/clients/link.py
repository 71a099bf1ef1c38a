"""Link: one connection, from an open pipe to its ending. It handles frames and knows no rooms.

Three tasks share a nursery: a reader, a writer, and one that times the handshake and then sends the heartbeat. The
first one that ends the link cancels the others. `run` returns the reason as an `Ending`; no bytes of the peer make it
raise.

Sending is synchronous: `send` changes the protocol's state and puts whole frames in the outbox, so a cancelled caller
never leaves half a frame on the wire; only the writer waits for the network. A caller that posts waits with
`wait_writable` first, which bounds the outbox.

The reader waits for the receiver before each frame: so a full inbox stops the reading. The peer's silence is measured
only while the reader is receiving, so a slow application is never taken for a dead broker.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable
from math import inf
from typing import NamedTuple, Protocol

import trio

from ..codes import CloseCode, Opcode
from ..connection import NEED_DATA, ClientConnection, Frame
from ..errors import RemoteProtocolError
from ..messages import (
    MAGIC,
    VERSION,
    Auth,
    Authenticated,
    ClientHello,
    DirectAck,
    GoAway,
    Message,
    Ping,
    Pong,
    ServerHello,
)
from ..reconnect import Signal
from .dictionaries import DictionaryCache
from .transports import BytePipe, PipeLost

__all__ = ["ClockOffset", "Ending", "Hello", "Link", "Receiver"]

OUTBOX_BYTES = 64 * 1024
"""A post waits while more than this is not written yet."""
WRITE_BYTES = 16 * 1024
"""Frames are joined up to this size in one write (and one WebSocket message)."""
DRAIN_TIMEOUT_S = 1.0
"""After a failed write: how long the peer's final bytes are still read. Also the timeout for sending GOAWAY."""
MIN_HEARTBEAT_S = 1.0
"""Lower bound, whatever the broker asks for."""
CLOCK_SAMPLES = 8


class Ending(NamedTuple):
    """Why a link ended, as a signal of `reconnect.Reconnect`. ``code``: the one that the peer sent, or None."""

    signal: Signal
    code: int | None
    reason: str
    retry_after_ms: int = 0
    jitter_ms: int = 0
    hosts: tuple[str, ...] = ()
    certificate: str = ""
    """Why the peer's certificate was not accepted; "" for every other ending."""

    @classmethod
    def of_pipe(cls, lost: PipeLost) -> Ending:
        signal = Signal.REFUSED if lost.refused else Signal.LOST
        return cls(signal, lost.code, lost.reason, certificate=lost.certificate)


class Hello(NamedTuple):
    """Token and HELLO fields that a client sends on every link."""

    token: str | None
    features: int
    agent: str
    dictionaries: DictionaryCache | None = None
    """None: the built-in one alone."""


class Receiver(Protocol):
    """Interface of the client to its link."""

    def link_opened(self, link: Link) -> None:
        """Send the first requests: HELLO and AUTH are in the outbox, and frames sent now leave in the same write."""

    def link_authenticated(self, link: Link) -> None:
        """Process the peer's acceptance of HELLO and AUTH."""

    async def before_frame(self, frame: Frame) -> None:
        """Wait until there is space for ``frame``."""

    def on_frame(self, link: Link, frame: Frame) -> None:
        """Process a frame that is not one of the handshake or heartbeat."""

    def on_pong(self, pong: Pong, rtt_s: float | None) -> None:
        """Process a PONG; ``rtt_s``: seconds of the round trip, None if it answers an older PING."""


class ClockOffset:
    """Estimate of the broker's clock minus the local one, from the shortest of the last round trips.

    The error of a sample is at most half of its round trip, so the shortest one is the best (as in NTP).
    """

    __slots__ = ("_samples", "offset_ms")

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=CLOCK_SAMPLES)
        self.offset_ms = 0.0

    def add(self, server_ms: int, received_ms: float, rtt_s: float) -> None:
        """Add a sample: ``server_ms`` arrived at the local time ``received_ms`` after a round trip of ``rtt_s``."""
        self._samples.append((rtt_s, server_ms + rtt_s * 500 - received_ms))
        self.offset_ms = min(self._samples)[1]


class Link:
    """One link over ``pipe``. ``wall_ms`` returns the local time in Unix milliseconds, for heartbeats."""

    def __init__(
        self,
        pipe: BytePipe,
        hello: Hello,
        receiver: Receiver,
        *,
        rng: random.Random,
        wall_ms: Callable[[], int],
        handshake_timeout_s: float,
    ) -> None:
        self._pipe = pipe
        self._client_hello = hello
        self._receiver = receiver
        self._rng = rng
        self._wall_ms = wall_ms
        self._handshake_timeout_s = handshake_timeout_s
        self._connection = ClientConnection()
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._direct_id: int | None = None
        self._wake_writer = trio.lowlevel.ParkingLot()
        self._written = trio.lowlevel.ParkingLot()
        self._authenticated = trio.Event()
        self._scope = trio.CancelScope()
        self._ending: Ending | None = None
        self._final: Ending | None = None
        self._heartbeat_s = self._silence_s = handshake_timeout_s
        self._pinged: tuple[int, float] = (-1, 0.0)
        self._hello_sent_at = 0.0
        self.renew_at = inf
        """When the next PING requests a new ticket (monotonic seconds)."""
        self.clock = ClockOffset()
        self.hello: ServerHello | None = None
        self.user: Authenticated | None = None

    @property
    def outbox_bytes(self) -> int:
        """Bytes that are not written yet."""
        return self._outbox_bytes

    @property
    def is_open(self) -> bool:
        """Whether frames that are sent now will be written, as far as this side knows."""
        return self._ending is None and self._final is None

    # ---- sending

    def send(self, message: Message, room: int = 0, sequence: int = 0) -> None:
        """Put one message in the outbox. Never waits; a link that is ending drops it.

        The fields are not checked: the client has checked the application's arguments.
        """
        if not self.is_open:
            return
        data = self._connection.send(message, room, sequence)
        self._outbox.append(data)
        self._outbox_bytes += len(data)
        self._wake_writer.unpark_all()

    def renew_token(self, token: str, sequence: int) -> None:
        """Send a PING with a newer token; the answer is a PONG with its end, or an ERROR for ``sequence``."""
        self._ping(token, sequence)

    def _ping(self, token: str | None = None, sequence: int = 0) -> None:
        client_ms = self._wall_ms()
        self._pinged = client_ms, trio.current_time()
        self.send(Ping(client_ms, self._pinged[1] >= self.renew_at, token), 0, sequence)

    def acknowledge_direct(self, direct_id: int) -> None:
        """Acknowledge every DIRECT up to ``direct_id``; only the newest of several unsent ones is sent."""
        if self.user is not None:
            self._direct_id = direct_id
            self._wake_writer.unpark_all()

    def _flush_direct_ack(self) -> None:
        if self._direct_id is not None:
            direct_id, self._direct_id = self._direct_id, None
            self.send(DirectAck(direct_id))

    async def wait_writable(self) -> None:
        """Wait until the outbox has room, or the link has ended. No checkpoint when it has."""
        while self._outbox_bytes > OUTBOX_BYTES and self.is_open:
            await self._written.park()

    def finish(self, code: int, reason: str, ending: Ending | None = None) -> None:
        """Write the outbox and a GOAWAY, then end (with ``ending``)."""
        if self.is_open:
            self._flush_direct_ack()
            self.send(GoAway(code, reason))
            self._final = ending or Ending(Signal.LOST, None, "closed by this side")
            self._wake_writer.unpark_all()
            self._written.unpark_all()

    def end(self, ending: Ending) -> None:
        """End now; the first reason counts."""
        if self._ending is None:
            self._ending = ending
            self._written.unpark_all()
            self._scope.cancel()

    # ---- running

    def spawn(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        """Start a task that ends with the link at the latest. Only while `run` runs."""
        self._nursery.start_soon(task, *args)

    async def run(self) -> Ending:
        """Run the link and return why it ended; the pipe is closed then, also when cancelled."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    _, features, agent, cache = self._client_hello
                    names = () if cache is None else cache.names
                    self.send(ClientHello(MAGIC, VERSION, VERSION, features, agent, names))
                    self.send(Auth(self._client_hello.token))
                    self._hello_sent_at = trio.current_time()
                    self._receiver.link_opened(self)
                    nursery.start_soon(self._read)
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._watch)
        finally:
            if self._ending is None:
                self._ending = Ending(Signal.LOST, None, "cancelled")
            self._written.unpark_all()
            await self._pipe.aclose(CloseCode.CLIENT_DONE if self._final else None)
        return self._ending

    async def _read(self) -> None:
        try:
            while True:
                with trio.move_on_after(self._silence_s) as timeout:
                    received = await self._pipe.receive()
                if timeout.cancelled_caught:
                    self.end(Ending(Signal.LOST, None, f"no byte from the peer for {self._silence_s:g} s"))
                    return
                self._connection.receive_data(received)
                while (frame := self._connection.next_event()) is not NEED_DATA:
                    assert isinstance(frame, Frame)  # a client's Connection has no refusals, it raises
                    await self._receiver.before_frame(frame)
                    self._process(frame)
                    if self._ending is not None:
                        return
        except PipeLost as lost:
            self.end(Ending(Signal.LOST, lost.code, lost.reason))
        except RemoteProtocolError as error:
            # Without a code: this side found the error, and a broken proxy must not end the client.
            ending = Ending(Signal.LOST, None, f"the peer broke the protocol: {error.reason}")
            self.finish(error.code, error.reason, ending)  # the writer ends the link after GOAWAY
            await trio.sleep(DRAIN_TIMEOUT_S)
            self.end(ending)

    def _process(self, frame: Frame) -> None:
        message = frame.message
        if isinstance(message, Pong):
            self._on_pong(message)
        elif isinstance(message, ServerHello):
            self._on_hello(message)
        elif isinstance(message, Authenticated) and not self._authenticated.is_set():
            self.user = message
            self._authenticated.set()
            self._receiver.link_authenticated(self)
        elif isinstance(message, GoAway):
            self.end(
                Ending(Signal.GOAWAY, message.code, message.reason, message.retry_after_ms, message.jitter_ms,
                       message.hosts)
            )  # fmt: skip
        elif frame.opcode is Opcode.HELLO:
            raise AssertionError(frame.opcode)  # unreachable: the connection reads only a server's messages
        else:
            self._receiver.on_frame(self, frame)

    def _on_hello(self, hello: ServerHello) -> None:
        if hello.version != VERSION:
            self.end(Ending(Signal.LOST, None, f"the peer chose version {hello.version}, not {VERSION}"))
            return
        self.hello = hello
        for codec, name, _ in hello.dictionaries:
            self.use_dictionary(codec, name)
        self._heartbeat_s = max(hello.heartbeat_ms / 1000, MIN_HEARTBEAT_S)
        # A cut shorter than the heartbeat would end every idle link.
        self._silence_s = max(hello.cut_ms / 1000, 1.5 * self._heartbeat_s)
        self.clock.add(hello.server_ms, self._wall_ms(), trio.current_time() - self._hello_sent_at)

    def use_dictionary(self, codec: int, name: str) -> bool:
        """Read frames with ``codec`` with a dictionary from now on; returns False where the client does not have it."""
        cache = self._client_hello.dictionaries
        found = None if cache is None else cache.get(name)
        if found is not None:
            self._connection.use_dictionary(codec, found.data)
        return found is not None

    def _on_pong(self, pong: Pong) -> None:
        client_ms, sent_at = self._pinged
        rtt_s = trio.current_time() - sent_at if pong.client_ms == client_ms else None
        if rtt_s is not None:
            self.clock.add(pong.server_ms, self._wall_ms(), rtt_s)
        self._receiver.on_pong(pong, rtt_s)

    async def _write(self) -> None:
        try:
            while True:
                batch = self._next_batch()
                if not batch:
                    if self._final is not None:
                        self.end(self._final)
                        return
                    await self._wake_writer.park()
                    continue
                with trio.move_on_after(self._silence_s) as timeout:
                    await self._pipe.send(batch)
                if timeout.cancelled_caught:
                    self.end(Ending(Signal.LOST, None, f"the peer took no bytes for {self._silence_s:g} s"))
                    return
        except PipeLost as lost:
            # The receive buffer may contain a GOAWAY whose code forbids a reconnect: read on for a moment.
            await trio.sleep(DRAIN_TIMEOUT_S)
            self.end(Ending(Signal.LOST, lost.code, lost.reason))

    def _next_batch(self) -> bytes:
        """Take whole frames of up to WRITE_BYTES from the outbox."""
        self._flush_direct_ack()
        frames: list[bytes] = []
        taken = 0
        while self._outbox and (not frames or taken + len(self._outbox[0]) <= WRITE_BYTES):
            frames.append(self._outbox.popleft())
            taken += len(frames[-1])
        self._outbox_bytes -= taken
        if taken:
            self._written.unpark_all()
        return b"".join(frames)

    async def _watch(self) -> None:
        """End a handshake that takes too long, then send PINGs, the first one after a random part of the interval."""
        with trio.move_on_after(self._handshake_timeout_s):
            await self._authenticated.wait()
        if not self._authenticated.is_set():
            self.end(Ending(Signal.LOST, None, f"no answer to HELLO and AUTH within {self._handshake_timeout_s:g} s"))
            return
        await trio.sleep(self._heartbeat_s * self._rng.uniform(0.1, 1.0))
        while True:
            self._ping()
            await trio.sleep(self._heartbeat_s)
