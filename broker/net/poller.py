"""Readiness loop over all connections: one private epoll, one Trio task, no task per connection.

Measured on a 2-core machine: a Trio task per connection costs 41-49 us a read and 5 KB of memory, this loop 8.5 us and
0.33 KB. The task waits until the epoll's own descriptor is readable, takes ready descriptors in batches, calls the
synchronous methods of their connections, and yields to other tasks after `TURN_S`.

The poller owns its connections: when `run` ends, for whatever reason, it closes every one of them. It knows them only
as `Pollable`, and nothing of bytes, queues or sessions. Deadlines (handshake, heartbeat, lingering closes) are one
timer wheel; a sweep over the backlogged connections finds those that make no progress. Time in which the poller itself
was paused (a stopped process, a frozen machine) counts against no connection: the wheel does not advance meanwhile.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable, Iterator
from math import inf
from typing import Protocol

import structlog
import trio

from broker.core.structures.timer_wheel import Timed, TimerWheel
from protocol.codes import CloseCode

__all__ = ["Pollable", "Poller"]

log = structlog.get_logger("roomcast.poller")

BATCH = 64
"""Descriptors taken from the kernel at once."""
TURN_S = 0.002
"""Time one turn may take before other tasks run."""
GATHER_S = 0.001
"""A wake-up so soon after the last turn means that events come fast: then the loop lets them gather for so long first.
A wake-up costs as much as serving several events (37 us a danmaku became 27), and no viewer notices a millisecond."""
TIMERS_S = 0.25
"""Interval of `Poller.run_timers`."""
PAUSE_S = 1.0
"""Timers that run so much later than they should mean that the poller was paused: a peer seemed silent only because the
broker did not read."""
SLOT_S = 0.5
"""Width of a wheel slot: a deadline is met at most 0.75 s late, so a slow handshake ends within its deadline and a
second."""

_IN = select.EPOLLIN | select.EPOLLRDHUP
_OUT = select.EPOLLOUT


class Pollable(Protocol):
    """One connection as the poller sees it. The poller calls these methods; an exception of theirs ends it."""

    @property
    def address(self) -> str:
        """Address of the peer, for the log."""

    fd: int
    """The descriptor; -1 once it has left the poller."""
    wheel_before: Timed | None
    wheel_after: Timed | None
    """Written by the timer wheel alone; None at first."""

    @property
    def progress_at(self) -> float:
        """When its socket took bytes last, monotonic seconds; counts while it is backlogged."""

    def on_readable(self) -> None:
        """Read once: there are bytes, the end of the stream, or an error."""

    def on_writable(self) -> None:
        """Write what waits: the socket takes bytes again."""

    def on_deadline(self, now: float) -> None:
        """End the connection, or set its next deadline with `Poller.rewheel`: its deadline has come."""

    def on_stalled(self) -> None:
        """End the connection: backlogged, it has taken no byte for ``write_timeout_s``."""

    def extend_deadlines(self, seconds: float) -> None:
        """Move every deadline of its own: for so long the poller was paused."""

    def abort(self, reason: str, code: int) -> None:
        """End it without another byte and free the descriptor, through `Poller.remove`. Idempotent."""

    def release(self) -> None:
        """Free the descriptor, through `Poller.remove`. Idempotent."""


class Poller:
    """All connections of one process.

    ``write_timeout_s``: a backlogged connection that takes no byte for so long has stalled. ``clock``: monotonic
    seconds.
    """

    def __init__(self, *, write_timeout_s: float, clock: Callable[[], float] = trio.current_time) -> None:
        self.now = clock()
        """Time of the current turn, monotonic seconds; what sessions use instead of asking the clock each."""
        self.turns = 0
        self.turn_s = 0.0
        """Seconds spent in turns so far."""
        self.crashes = 0
        """Connections ended because the broker's own code failed on them."""
        self.paused_s = 0.0
        """Seconds that counted against no connection, because this loop did not run."""
        self._clock = clock
        self._write_timeout_s = write_timeout_s
        self._epoll = self._make_epoll()
        self._ended_at = -inf
        """When the last turn ended."""
        self._ready: list[tuple[int, int]] = []
        """Descriptors and events of the batch that the last turn had no time for."""
        self._connections: list[Pollable | None] = []
        """By descriptor: the kernel gives the lowest free one. (A dict weighs 40 bytes more a connection.)"""
        self._count = 0
        self._backlogged: dict[Pollable, None] = {}
        self._paused: dict[Pollable, float] = {}
        """Connections whose reading is paused, and until when."""
        self._wheel: TimerWheel[Pollable] = TimerWheel(self.now, SLOT_S, 256)
        """Its times are the clock's less `paused_s`."""
        self._timers_ran_at = self.now

    def _make_epoll(self) -> select.epoll:
        return select.epoll()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Pollable]:
        """All connections now; a copy, so that they may leave meanwhile."""
        return iter([connection for connection in self._connections if connection is not None])

    def _find(self, fd: int) -> Pollable | None:
        return self._connections[fd] if 0 <= fd < len(self._connections) else None

    def fileno(self) -> int:
        """Descriptor that is readable while a connection is ready; -1 after `close`."""
        return self._epoll.fileno()

    @property
    def backlogged(self) -> int:
        """Connections that wait for their socket to take bytes."""
        return len(self._backlogged)

    def backlogged_connections(self) -> list[Pollable]:
        """Return the connections that wait for their socket to take bytes."""
        return list(self._backlogged)

    @property
    def paused(self) -> int:
        """Connections whose reading is paused."""
        return len(self._paused)

    def refresh_clock(self) -> float:
        """Read the clock and return the time, for callers that call into sessions from outside a turn."""
        self.now = self._clock()
        return self.now

    # ---- called by connections

    def add(self, connection: Pollable, due: float) -> None:
        """Take a connection; its first deadline is ``due``. OSError: it cannot be polled and is not taken."""
        fd, connections = connection.fd, self._connections
        self._epoll.register(fd, _IN)
        if fd >= len(connections):
            connections.extend([None] * (fd + 1 - len(connections)))
        self._count += connections[fd] is None
        connections[fd] = connection
        self._wheel.add(connection, due - self.paused_s)

    def replace(self, old: Pollable, new: Pollable) -> None:
        """Let ``new`` continue with the descriptor of ``old``, and with its deadline."""
        self._wheel.exchange(old, new)
        was_watched = old in self._backlogged or old in self._paused
        self._backlogged.pop(old, None)
        self._paused.pop(old, None)
        self._connections[old.fd] = new
        new.fd, old.fd = old.fd, -1  # one integer object for both
        if was_watched:
            self._set_interest(new)

    def remove(self, connection: Pollable) -> bool:
        """Forget a connection before its descriptor is closed; returns whether it was there."""
        if self._find(connection.fd) is not connection:
            return False
        self._connections[connection.fd] = None
        self._count -= 1
        self._wheel.remove(connection)
        self._backlogged.pop(connection, None)
        self._paused.pop(connection, None)
        with contextlib.suppress(OSError):  # a TLS wrap that failed has closed it already
            self._epoll.unregister(connection.fd)
        return True

    def rewheel(self, connection: Pollable, due: float) -> None:
        """Set the next deadline."""
        self._wheel.add(connection, due - self.paused_s)

    def watch_writable(self, connection: Pollable) -> None:
        """Call `on_writable` when the socket takes bytes again."""
        self._backlogged[connection] = None
        self._set_interest(connection)

    def unwatch_writable(self, connection: Pollable) -> None:
        """End the watch: the connection has written everything."""
        if connection in self._backlogged:
            del self._backlogged[connection]
            self._set_interest(connection)

    def pause_reading(self, connection: Pollable, until: float) -> None:
        """Leave its bytes in the kernel until ``until`` (back-pressure); then the poller resumes reading by itself."""
        self._paused[connection] = until
        self._set_interest(connection)

    def resume_reading(self, connection: Pollable) -> None:
        """End a pause before its time."""
        if self._paused.pop(connection, None) is not None:
            self._set_interest(connection)

    def _set_interest(self, connection: Pollable) -> None:
        if self._find(connection.fd) is connection:
            interest = 0 if connection in self._paused else _IN
            self._epoll.modify(connection.fd, interest | (_OUT if connection in self._backlogged else 0))

    # ---- the loop

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Drive all connections until cancelled; then close every one of them."""
        self.refresh_clock()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._maintenance)
                task_status.started()
                while True:
                    await self._wait_ready()
                    self.turn()
        finally:
            self.close()

    async def _wait_ready(self) -> None:
        await trio.lowlevel.wait_readable(self._epoll.fileno())
        if self._clock() - self._ended_at < GATHER_S and not self._ready:
            await trio.sleep(GATHER_S)

    def close(self) -> None:
        """End every connection and free the epoll."""
        for connection in self:
            try:
                connection.abort("broker stopped", CloseCode.GOING_AWAY)
            except Exception as error:
                self.crash(connection, error)
        self._epoll.close()

    async def serve_pending(self, limit_s: float, waits: Callable[[], object] = lambda: False) -> None:
        """Serve everything that has arrived by now, for at most ``limit_s``; called before the broker closes its
        connections. ``waits``: whether another task still handles what has been read."""
        until = self._clock() + limit_s
        while (self._ready or waits() or self._epoll.poll(0, 1)) and self._clock() < until:
            self.turn()
            await trio.lowlevel.checkpoint()

    def turn(self) -> None:
        """Serve ready descriptors for at most `TURN_S` and one read; called when `fileno` is readable.

        What is left of a batch comes first in the next turn: the kernel would name the same ones first again.
        """
        clock = self._clock
        connections = self._connections
        begun = now = self.now = clock()
        end = begun + TURN_S
        ready = self._ready
        while now < end:
            last = not ready and len(ready := self._epoll.poll(0, BATCH)) < BATCH
            for served, (fd, events) in enumerate(ready, 1):
                connection = connections[fd]
                if connection is None:
                    continue
                try:
                    if events & _OUT:
                        connection.on_writable()
                        if connection.fd != fd:
                            continue
                    if events & ~_OUT:
                        connection.on_readable()
                except Exception as error:
                    self.crash(connections[fd] or connection, error)
                now = self.now = clock()
                if now >= end:
                    ready = ready[served:]
                    break
            else:
                ready = []
                if last:
                    break
        self._ready = ready
        self._ended_at = now
        self.turns += 1
        self.turn_s += now - begun

    async def _maintenance(self) -> None:
        self._timers_ran_at = self._clock()
        while True:
            await trio.sleep(TIMERS_S)
            self.run_timers()

    def run_timers(self) -> None:
        """Serve what time alone makes due: deadlines, stalled connections, pauses that are over."""
        now = self.now = self._clock()
        late_s = now - self._timers_ran_at - TIMERS_S
        self._timers_ran_at = now
        if late_s > PAUSE_S:
            self._extend_deadlines(late_s)
        for connection in self._wheel.expire(now - self.paused_s):
            try:
                connection.on_deadline(now)
            except Exception as error:
                self.crash(connection, error)
        stalled = now - self._write_timeout_s
        for connection in [each for each in self._backlogged if each.progress_at < stalled]:
            try:
                connection.on_stalled()
            except Exception as error:
                self.crash(connection, error)
        for connection in [each for each, until in self._paused.items() if until <= now]:
            self.resume_reading(connection)

    def _extend_deadlines(self, paused_s: float) -> None:
        """Move every deadline by a time in which the poller neither read nor wrote."""
        self.paused_s += paused_s
        for connection in self:
            connection.extend_deadlines(paused_s)
        log.warning("deadlines extended: the poller was paused", paused_s=round(paused_s, 3), connections=self._count)

    def crash(self, connection: Pollable, error: Exception) -> None:
        """End one connection because the broker's own code failed on it; no other notices."""
        self.crashes += 1
        log.error("connection failed", address=connection.address, exc_info=error)
        try:
            connection.abort("internal error", CloseCode.INTERNAL_ERROR)
        except Exception as again:
            log.error("connection failed while ending", address=connection.address, exc_info=again)
            connection.release()
