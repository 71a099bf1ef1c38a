"""The readiness loop over all connections: one private epoll, one Trio task, no task per connection.

Measured on a 2-core machine: a Trio task per connection costs 41-49 us a read and 5 KB of memory, this loop 8.5 us and
0.33 KB. The task waits until the epoll's own descriptor is readable, takes ready descriptors in batches and calls their
transports' synchronous methods, and gives way to other tasks after `TURN_S`.

The poller owns its connections: when `run` ends, for whatever reason, every one of them is closed. Deadlines
(handshake, heartbeat, lingering closes) are one timer wheel; viewers that are behind and make no progress are found
by a sweep over those only. Time in which the poller itself was away (a stopped process, a frozen machine) counts
against nobody: the wheel stands still meanwhile.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

import structlog
import trio

from broker.core.limits.overload import ByteBudget
from broker.core.net.send_queue import QueueLimits
from broker.core.structures.timer_wheel import TimerWheel
from protocol.codes import CloseCode

if TYPE_CHECKING:
    from broker.net.transport import Transport

__all__ = ["Poller"]

log = structlog.get_logger("roomcast.poller")

BATCH = 64
"""Descriptors taken from the kernel at once."""
TURN_S = 0.002
"""Time one turn may take before other tasks run."""
GATHER_S = 0.001
"""A wake-up so soon after the last turn means that events come fast: then they gather for so long first. Waking up
costs as much as serving several of them (37 us a danmaku became 27), and nobody sees a millisecond."""
HOUSEKEEPING_S = 0.25
STALL_S = 1.0
"""Housekeeping that comes so much later than it should: we were away, and our peers' silence may be our own."""
SLOT_S = 0.5
"""Width of a wheel slot: a deadline is met at most 0.75 s late, so a slow handshake ends within its deadline and a
second."""

_IN = select.EPOLLIN | select.EPOLLRDHUP
_OUT = select.EPOLLOUT


class Poller:
    """All connections of one process.

    ``on_due(transport)`` is asked when a transport's deadline has come; it closes the transport or adds it again with
    `rewheel`. ``on_gone(transport)`` is told once of every connection that leaves. ``write_timeout_s``: a viewer that
    is behind and takes no byte for so long is cut.
    """

    def __init__(
        self,
        *,
        queue_limits: QueueLimits,
        budget: ByteBudget,
        write_timeout_s: float,
        on_due: Callable[[Transport], None],
        on_gone: Callable[[Transport], None],
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self.queue_limits = queue_limits
        self.budget = budget
        self.now = clock()
        """Time of the current turn, monotonic seconds; what sessions use instead of asking the clock each."""
        self.turns = 0
        self.turn_s = 0.0
        """Seconds spent in turns so far."""
        self.crashes = 0
        """Connections ended because our own code failed on them."""
        self.away_s = 0.0
        """Seconds that counted against nobody, because this loop did not run."""
        self._clock = clock
        self._on_due = on_due
        self._on_gone = on_gone
        self._write_timeout_s = write_timeout_s
        self._epoll = select.epoll()
        self._ended_at = -inf
        """When the last turn ended."""
        self._ready: list[tuple[int, int]] = []
        """Descriptors and events of the batch that the last turn had no time for."""
        self._transports: dict[int, Transport] = {}
        self._backlogged: set[Transport] = set()
        self._paused: dict[Transport, float] = {}
        self._wheel: TimerWheel[Transport] = TimerWheel(self.now, SLOT_S, 256)
        """Its times are ours less `away_s`."""
        self._tidied_at = self.now

    def __len__(self) -> int:
        return len(self._transports)

    @property
    def backlogged(self) -> int:
        """Viewers with a queue now."""
        return len(self._backlogged)

    def refresh_clock(self) -> float:
        """Take the time anew, for whoever calls into sessions from outside a turn; returns it."""
        self.now = self._clock()
        return self.now

    # ---- what transports ask for

    def account(self, delta_bytes: int) -> None:
        """Tell the global budget that a queue has grown or shrunk."""
        if delta_bytes > 0:
            self.budget.add(delta_bytes)
        elif delta_bytes:
            self.budget.remove(-delta_bytes)

    def add(self, transport: Transport, due: float) -> None:
        """Take a connection; its first deadline is ``due``."""
        self._epoll.register(transport.fd, _IN)
        self._transports[transport.fd] = transport
        self._wheel.add(transport, due - self.away_s)

    def replace(self, old: Transport, new: Transport) -> None:
        """Let ``new`` go on with the descriptor of ``old``, and with its deadline."""
        self._wheel.exchange(old, new)
        was_watched = old in self._backlogged or old in self._paused
        self._backlogged.discard(old)
        self._paused.pop(old, None)
        self._transports[new.fd] = new
        old.fd = -1
        if was_watched:
            self._set_interest(new)

    def remove(self, transport: Transport) -> None:
        """Forget a connection before its descriptor is closed."""
        if self._transports.get(transport.fd) is transport:
            del self._transports[transport.fd]
            self._wheel.remove(transport)
            self._backlogged.discard(transport)
            self._paused.pop(transport, None)
            with contextlib.suppress(OSError):  # a TLS wrap that failed has closed it already
                self._epoll.unregister(transport.fd)
            self._on_gone(transport)

    def rewheel(self, transport: Transport, due: float) -> None:
        """Set the next deadline."""
        self._wheel.add(transport, due - self.away_s)

    def watch_writable(self, transport: Transport) -> None:
        """Call `on_writable` when the socket takes bytes again."""
        self._backlogged.add(transport)
        self._set_interest(transport)

    def unwatch_writable(self, transport: Transport) -> None:
        """The transport has caught up."""
        if transport in self._backlogged:
            self._backlogged.discard(transport)
            self._set_interest(transport)

    def pause_reading(self, transport: Transport, until: float) -> None:
        """Back-pressure: leave its bytes in the kernel until ``until`` (then reading goes on by itself)."""
        self._paused[transport] = until
        self._set_interest(transport)

    def resume_reading(self, transport: Transport) -> None:
        """Read again now."""
        if self._paused.pop(transport, None) is not None:
            self._set_interest(transport)

    def _set_interest(self, transport: Transport) -> None:
        if transport.fd >= 0 and self._transports.get(transport.fd) is transport:
            interest = 0 if transport in self._paused else _IN
            self._epoll.modify(transport.fd, interest | (_OUT if transport in self._backlogged else 0))

    # ---- the loop

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Drive all connections until cancelled; then close every one of them."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_house)
                task_status.started()
                while True:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                    if self._clock() - self._ended_at < GATHER_S and not self._ready:
                        await trio.sleep(GATHER_S)
                    self._turn()
        finally:
            for transport in list(self._transports.values()):
                try:
                    transport.abort("broker stopped", CloseCode.GOING_AWAY)
                except Exception as error:
                    self.crash(transport, error)
            self._epoll.close()

    async def serve_pending(self, limit_s: float) -> None:
        """Serve everything that has arrived by now, for at most ``limit_s``: the broker is about to say goodbye."""
        until = self._clock() + limit_s
        while (self._ready or self._epoll.poll(0, 1)) and self._clock() < until:
            self._turn()
            await trio.lowlevel.checkpoint()

    def _turn(self) -> None:
        """Serve ready descriptors for at most `TURN_S` and one read.

        What is left of a batch comes first in the next turn: the kernel would name the same ones first again.
        """
        clock = self._clock
        transports = self._transports
        begun = now = self.now = clock()
        end = begun + TURN_S
        ready = self._ready
        while now < end:
            last = not ready and len(ready := self._epoll.poll(0, BATCH)) < BATCH
            for served, (fd, events) in enumerate(ready, 1):
                transport = transports.get(fd)
                if transport is None:
                    continue
                try:
                    if events & _OUT:
                        transport.on_writable()
                        if transport.fd != fd:
                            continue
                    if events & ~_OUT:
                        transport.on_readable()
                except Exception as error:
                    self.crash(transports.get(fd, transport), error)
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

    async def _keep_house(self) -> None:
        self._tidied_at = self._clock()
        while True:
            await trio.sleep(HOUSEKEEPING_S)
            self._tidy()

    def _tidy(self) -> None:
        """Serve what time alone makes due: deadlines, viewers that do not move, pauses that are over."""
        now = self.now = self._clock()
        late_s = now - self._tidied_at - HOUSEKEEPING_S
        self._tidied_at = now
        if late_s > STALL_S:
            self._extend_deadlines(late_s)
        for transport in self._wheel.expire(now - self.away_s):
            try:
                if transport.state:
                    transport.release()
                else:
                    self._on_due(transport)
            except Exception as error:
                self.crash(transport, error)
        stuck = now - self._write_timeout_s
        for transport in [each for each in self._backlogged if each.progress_at < stuck]:
            try:
                if transport.owner is not None:
                    transport.owner.on_overflow()
            except Exception as error:
                self.crash(transport, error)
        for transport in [each for each, until in self._paused.items() if until <= now]:
            self.resume_reading(transport)

    def _extend_deadlines(self, away_s: float) -> None:
        """Move every deadline by a time in which we could not have heard anybody, nor written to anybody."""
        self.away_s += away_s
        for transport in self._transports.values():
            transport.extend_deadlines(away_s)
        log.warning("deadlines moved: the loop was away", away_s=round(away_s, 3), connections=len(self._transports))

    def crash(self, transport: Transport, error: Exception) -> None:
        """Our own code failed on one connection: that one ends, no other notices."""
        self.crashes += 1
        log.error("connection failed", address=transport.address, exc_info=error)
        try:
            transport.abort("internal error", CloseCode.INTERNAL_ERROR)
        except Exception as again:
            log.error("connection failed while ending", address=transport.address, exc_info=again)
            transport.release()
