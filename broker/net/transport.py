"""The byte layer of one connection: write now or queue, never wait; close once, after the last frame.

A transport belongs to a poller, which calls `on_readable` and `on_writable`, and has one owner (the session), which
gets the data and, exactly once, the end. Writing is a plain function call: the bytes go to the socket at once,
and only a viewer whose socket is full gets a `SendQueue` until it has caught up. What that queue drops, and when it
gives up, is decided there by lane.

Subclasses add the inbound side: plain frames on TCP here, WebSocket messages in `websocket`.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, NamedTuple, Protocol

from broker.core.limits.overload import ByteBudget
from broker.core.net.send_queue import QueueLimits, QueueMissed, QueueResult, SendQueue
from broker.core.structures.timer_wheel import Timed
from broker.net.poller import Poller
from protocol.codes import CloseCode, Lane

__all__ = ["Framing", "Owner", "Part", "TcpTransport", "Transport", "TransportSettings", "TransportState"]

RECEIVE_BYTES = 32 * 1024
"""Read at once, and so the work of one connection before the next one's turn. Not below a TLS record's 16 KiB: what a
smaller read left in OpenSSL's buffer would not show in the epoll."""

WRITE_BYTES = 64 * 1024
"""Joined into one write while catching up."""

SHED_ABOVE = 0.95
"""Part of the bytes of all queues above which the slowest links are ended."""
SHED_TO = 0.85
"""Part at which that ends."""
LINGER_S = 2.0
"""How long a closed connection is still read, so that a reset does not destroy the reason of the close on its way."""


class Framing(IntEnum):
    """How a frame's bytes stand on the wire of this transport."""

    TCP = 0
    WEBSOCKET = 1
    WEBSOCKET_JSON = 2
    EVENT_STREAM = 3


class TransportState(IntEnum):
    """OPEN: both ways. CLOSING: the last byte is written, what the peer sends is discarded. CLOSED: the descriptor is
    free."""

    OPEN = 0
    CLOSING = 1
    CLOSED = 2


class Part(NamedTuple):
    """One droppable unit of a write: whole wire frames of one lane.

    ``weight``: danmaku inside, for the account of what a slow viewer missed. ``key``: the room; of lane 4 only the
    newest part per key is kept.
    """

    data: bytes
    lane: Lane
    weight: int
    key: int


def _queued_bytes(transport: Transport) -> int:
    return 0 if transport.queue is None else transport.queue.nbytes


def _joined(parts: tuple[Part, ...]) -> bytes:
    return parts[0].data if len(parts) == 1 else b"".join([part.data for part in parts])


class Owner(Protocol):
    """The owner of a transport."""

    def on_data(self, data: bytes) -> None:
        """Bytes of whole or partial binary frames."""

    def on_text(self, text: str) -> None:
        """One JSON text message."""

    def on_backlog(self) -> None:
        """The socket is full and a queue begins: nothing may be written past it."""

    def on_drained(self, missed: QueueMissed) -> None:
        """The queue has drained; ``missed`` is what it dropped meanwhile."""

    def on_overflow(self) -> None:
        """Lanes 0-2 do not fit any more, or no byte moves: end the link with SLOW_VIEWER."""

    def on_deadline(self, now: float) -> None:
        """The deadline has come: end the link, or set the next one with `Poller.rewheel`."""

    def on_closed(self, code: int, reason: str) -> None:
        """The link has ended. Called exactly once, whoever ended it."""


@dataclass(slots=True)
class TransportSettings:
    """Settings that all transports of one poller share, and their budget of bytes."""

    poller: Poller
    queue_limits: QueueLimits
    """Bounds of the queue of one slow viewer."""
    budget: ByteBudget
    """Bytes that wait in all queues."""
    on_released: Callable[[Transport], None]
    """Called once for every connection that has left the poller."""

    shed: int = 0
    """Connections ended because all queues together were near their bound."""
    is_shedding: bool = False

    def account(self, delta_bytes: int) -> None:
        """Add to the budget what a queue has grown, or take away what it has shrunk.

        Near the bound of all queues the links with the most bytes are ended, the given one perhaps among them.
        """
        if delta_bytes > 0:
            self.budget.add(delta_bytes)
            if self.budget.ratio > SHED_ABOVE and not self.is_shedding:
                self._shed()
        elif delta_bytes:
            self.budget.remove(-delta_bytes)

    def _shed(self) -> None:
        """End backlogged links, most bytes first, until enough is free. O(n log n), seldom: each time frees a tenth."""
        self.is_shedding = True
        try:
            waiting = [each for each in self.poller.backlogged_connections() if isinstance(each, Transport)]
            for transport in sorted(waiting, key=_queued_bytes, reverse=True):
                if self.budget.ratio <= SHED_TO:
                    break
                if not transport.state:
                    self.shed += 1
                    try:
                        transport.on_stalled()
                    except Exception as error:
                        self.poller.crash(transport, error)
        finally:
            self.is_shedding = False


class Transport:
    """Outbound side and lifetime of one connection; a `broker.net.poller.Pollable`.

    The fan-out calls ``sock.send`` itself until `Owner.on_backlog`.
    """

    __slots__ = (
        "address",
        "authenticated",
        "fd",
        "heard_at",
        "owner",
        "queue",
        "settings",
        "sock",
        "state",
        "wheel_after",
        "wheel_before",
    )
    framing: ClassVar[Framing] = Framing.TCP

    def __init__(self, sock: socket.socket, settings: TransportSettings, address: str) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.settings = settings
        self.address = sys.intern(address)  # viewers behind one address share the text
        self.queue: SendQueue | None = None
        self.owner: Owner | None = None
        self.authenticated = False
        self.state = TransportState.OPEN
        self.heard_at = settings.poller.now
        self.wheel_before: Timed | None = None
        self.wheel_after: Timed | None = None

    @property
    def poller(self) -> Poller:
        """The poller that the connection belongs to."""
        return self.settings.poller

    @property
    def progress_at(self) -> float:
        """When the socket took bytes last, monotonic seconds; 0.0 while no queue waits for it."""
        return 0.0 if self.queue is None else self.queue.progress_at

    @property
    def _repeats_refused_write(self) -> bool:
        """Whether a refused write must be repeated with the same bytes, as on a `broker.net.tls.TlsSocket`."""
        return getattr(self.sock, "repeats_refused_write", False)

    # ---- writing

    def write(self, data: bytes, lane: Lane = Lane.CONTROL, weight: int = 0, key: int = 0) -> None:
        """Send whole wire frames of one lane, or queue them. Never waits, never raises for the peer's sake."""
        if self.queue is not None:
            self.enqueue((Part(data, lane, weight, key),))
        elif not self.state and (sent := self._try_send(data)) != len(data):
            self.start_backlog((Part(data, lane, weight, key),), sent)

    def write_parts(self, parts: tuple[Part, ...]) -> None:
        """As `write`, several units at once."""
        if self.queue is not None:
            self.enqueue(parts)
        elif not self.state and parts:
            data = _joined(parts)
            if (sent := self._try_send(data)) != len(data):
                self.start_backlog(parts, sent)

    def _try_send(self, data: bytes) -> int:
        """Return how many bytes the socket took; all of them where the peer has disconnected."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self.abort(f"write failed: {error.strerror or error}")
            return len(data)

    def start_backlog(self, parts: tuple[Part, ...], sent: int) -> None:
        """Start queueing: the socket took only ``sent`` bytes of the joined ``parts``."""
        if self.state:
            return
        settings = self.settings
        poller = settings.poller
        queue = self.queue = SendQueue(settings.queue_limits)
        queue.progress_at = poller.now
        poller.watch_writable(self)
        if self.owner is not None:
            self.owner.on_backlog()
        waiting: list[Part] = []
        if self._repeats_refused_write:  # all of the refused write is begun, for all of it must come again
            data = _joined(parts)
            queue.push_rest(memoryview(data)[sent:])
            parts = ()
        for part in parts:
            size = len(part.data)
            if sent >= size:
                sent -= size
            elif sent:
                queue.push_rest(memoryview(part.data)[sent:])
                sent = 0
            else:
                waiting.append(part)
        settings.account(queue.nbytes)
        if waiting:
            self.enqueue(tuple(waiting))

    def enqueue(self, parts: tuple[Part, ...]) -> bool:
        """Queue parts behind what already waits; the lanes decide what is dropped. Return whether the first waits."""
        queue = self.queue
        if queue is None or self.state:
            return False
        before = queue.nbytes
        overflow = False
        results = [queue.offer(part.data, part.lane, part.weight, part.key) for part in parts]
        overflow = QueueResult.OVERFLOW in results
        self.settings.account(queue.nbytes - before)
        if overflow and self.owner is not None:
            self.owner.on_overflow()
        return bool(results) and results[0] is QueueResult.QUEUED

    def on_writable(self) -> None:
        """Write what waits, as much as the socket takes."""
        queue = self.queue
        if queue is None or self.state:
            self.poller.unwatch_writable(self)
            return
        before = queue.nbytes
        repeats = self._repeats_refused_write
        try:
            while not queue.empty:
                if repeats:
                    data = queue.begin()
                else:
                    chunks = queue.chunks(WRITE_BYTES)
                    data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
                size = len(data)
                sent = self.sock.send(data)
                queue.advance(sent)
                queue.progress_at = self.poller.now
                if sent != size:
                    break
        except BlockingIOError:
            pass
        except OSError as error:
            self.settings.account(queue.nbytes - before)
            self.abort(f"write failed: {error.strerror or error}")
            return
        self.settings.account(queue.nbytes - before)
        if queue.empty:
            self.queue = None
            self.poller.unwatch_writable(self)
            if self.owner is not None:
                self.owner.on_drained(queue.take_missed())

    def probe(self) -> None:
        """Ask a silent peer for a byte where the transport has a frame for that (WebSocket)."""

    # ---- ending

    def close_frame(self, code: int, reason: str) -> bytes:
        """Return the transport's own close frame, after GOAWAY (a WebSocket has one, TCP has none)."""
        return b""

    def close(self, code: int, reason: str, final_bytes: bytes = b"") -> None:
        """End the link: write ``final_bytes`` and the close frame if the socket takes them, then free the descriptor.

        A backlogged viewer gets nothing more: its frames in flight must not be cut in the middle. Idempotent.
        """
        if not self.state:
            self.finish(final_bytes + self.close_frame(code, reason), code, reason)

    def finish(self, final: bytes, code: int, reason: str) -> None:
        """As `close`, with exactly the bytes ``final`` as the last ones."""
        if self.state:
            return
        is_written = False
        if self.queue is None:
            try:
                is_written = not final or self.sock.send(final) == len(final)
                if is_written:
                    self.shut_down()
            except OSError:
                is_written = False
        self._end(code, reason)
        if is_written:
            self.state = TransportState.CLOSING
            self.poller.rewheel(self, self.poller.now + LINGER_S)
        else:
            self.release()

    def shut_down(self) -> None:
        """Shut the sending side down."""
        self.sock.shutdown(socket.SHUT_WR)

    def abort(self, reason: str, code: int = CloseCode.CLOSED_BY_PEER) -> None:
        """End the connection without another byte, and free everything at once. Idempotent."""
        if not self.state:
            self._end(code, reason)
        self.release()

    def _end(self, code: int, reason: str) -> None:
        self.state = TransportState.CLOSED
        queue, self.queue = self.queue, None
        if queue is not None:
            self.settings.account(-queue.nbytes)
            self.poller.unwatch_writable(self)
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.on_closed(code, reason)

    def release(self) -> None:
        """Leave the poller and close the descriptor. Idempotent."""
        self.state = TransportState.CLOSED
        if self.fd >= 0:
            try:
                if self.settings.poller.remove(self):
                    self.settings.on_released(self)
            finally:
                self.fd = -1
                self.sock.close()

    # ---- deadlines

    def on_deadline(self, now: float) -> None:
        """Free the descriptor after lingering; before that ask the owner, or end a connection that has none yet."""
        if self.state:
            self.release()
        elif self.owner is not None:
            self.owner.on_deadline(now)
        else:
            self.close(CloseCode.HANDSHAKE_TIMEOUT, "no complete handshake in time")

    def on_stalled(self) -> None:
        """Report to the owner that no byte moves; a connection without one has its handshake's deadline."""
        if self.owner is not None:
            self.owner.on_overflow()

    def extend_deadlines(self, seconds: float) -> None:
        """Move the times of the peer's last bytes: for so long the poller neither read nor wrote."""
        now = self.poller.now
        self.heard_at = min(now, self.heard_at + seconds)
        if self.queue is not None:
            self.queue.progress_at = min(now, self.queue.progress_at + seconds)

    # ---- reading

    def on_readable(self) -> None:
        """Read once and pass it on; the poller calls again while there is more."""
        try:
            data = self.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.abort(f"read failed: {error.strerror or error}")
            return
        if not data:
            self.abort("closed by peer")
        elif not self.state:
            self.heard_at = self.settings.poller.now
            self.on_bytes(data)

    def on_bytes(self, data: bytes) -> None:
        """Understand inbound bytes."""
        raise NotImplementedError


class TcpTransport(Transport):
    """Native frames on a TCP socket: the bytes are the owner's as they come."""

    __slots__ = ()

    def on_bytes(self, data: bytes) -> None:
        if self.owner is not None:
            self.owner.on_data(data)
