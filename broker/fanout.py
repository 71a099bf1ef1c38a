"""The hot loop: one scheduler that runs the sweeps of all rooms.

A sweep writes one prepared content to every member of a room with a bare `send` each and never waits. The scheduler
runs sweeps in slices of `SLICE_S`, most urgent lane first, then round robin by room, with a checkpoint after each
slice; so a thousand rooms that tick together keep the poller waiting for one slice at most, and a sale in one room
overtakes the chat sweep of another that is under way.

Within a room lanes 0-2 share one queue: they carry the offsets of one stream, so they stay in order. Chat and ambient
ticks wait behind them. A sweep starts at a rotating position so that nobody is always last.

Measured: the loop body besides `send(2)` is a few list and slot look-ups; `bench/micro` prints it against the bare
loop.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import trio

from broker.audience import Audience, Member, Prepared
from protocol.codes import Lane

__all__ = ["FanOut", "Outbox", "Sweep"]

SLICE_S = 0.0015
"""Work between two checkpoints (1-2 ms keeps both the poller's latency and the checkpoint's share small)."""
CHUNK = 64
"""Members between two looks at the clock."""


class Sweep:
    """One content on its way to the members who were there when it was published."""

    __slots__ = ("cost_s", "limit", "members", "on_done", "position", "prepared", "start")

    def __init__(
        self, prepared: Prepared, members: list[Member], start: int, on_done: Callable[[float], None] | None
    ) -> None:
        self.prepared = prepared
        self.members = members
        self.start = start
        self.position = 0
        self.limit = len(members)
        self.cost_s = 0.0
        self.on_done = on_done

    def run(self, deadline: float, clock: Callable[[], float]) -> bool:
        """Write to members until done or ``deadline``; returns whether it is done. Never waits."""
        members, start, limit = self.members, self.start, self.limit
        begun = clock()
        now = begun
        while self.position < limit:
            first = self.position + start
            if first >= limit:
                first -= limit
            last = min(first + CHUNK, limit, first + limit - self.position)
            self._write(members[first:last])
            self.position += last - first
            now = clock()
            if now >= deadline:
                break
        self.cost_s += now - begun
        return self.position >= limit

    def _write(self, members: list[Member]) -> None:
        frames = self.prepared.frames
        for member in members:
            data = frames[member.variant]
            if data is None:
                continue
            transport = member.transport
            if transport.queue is None:
                try:
                    sent = transport.send(data)
                except BlockingIOError:
                    sent = 0
                except OSError as error:
                    transport.lose(f"write failed: {error.strerror or error}")
                    continue
                if sent == len(data):
                    continue
                bundle = self.prepared.bundles[member.variant]
                if bundle is not None:
                    transport.fall_behind(bundle.parts, sent)
            else:
                bundle = self.prepared.bundles[member.variant]
                if bundle is not None:
                    transport.enqueue(bundle.parts)


class Outbox:
    """The sweeps of one room that wait or are under way.

    Bounded by its room: it makes the next tick only when the last one is done, and lanes 0-2 by the room's admission.
    """

    __slots__ = ("_rotation", "critical", "rank", "relaxed")

    def __init__(self) -> None:
        self.critical: deque[Sweep] = deque()
        self.relaxed: deque[Sweep] = deque()
        self.rank = -1
        """Lane of the ready queue this outbox stands in, -1 = in none."""
        self._rotation = 0

    def next_start(self, size: int) -> int:
        """Where the next sweep over ``size`` members starts (golden-ratio steps spread the starts evenly)."""
        self._rotation = (self._rotation + 0x9E37_79B1) & 0xFFFF_FFFF
        return self._rotation * size >> 32

    def head(self) -> Sweep | None:
        """The sweep to go on with."""
        if self.critical:
            return self.critical[0]
        return self.relaxed[0] if self.relaxed else None

    def remove(self, sweep: Sweep) -> None:
        """Take a finished head out (a more urgent one may have come before it meanwhile)."""
        queue = self.critical if self.critical and self.critical[0] is sweep else self.relaxed
        queue.popleft()

    def urgency(self) -> int:
        """The most urgent lane that waits here."""
        if self.critical:
            return min(sweep.prepared.lane for sweep in self.critical)
        return self.relaxed[0].prepared.lane


class FanOut:
    """The scheduler of all sweeps; its `run` is one task."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._ready: tuple[deque[Outbox], ...] = tuple(deque() for _ in Lane)
        self._work = trio.Event()
        self.deliveries = 0
        """Members swept so far."""
        self.sweeps = 0
        self.busy_s = 0.0

    @property
    def waiting(self) -> bool:
        """Whether any sweep waits."""
        return any(self._ready)

    def submit(
        self,
        outbox: Outbox,
        prepared: Prepared,
        audience: Audience,
        on_done: Callable[[float], None] | None = None,
    ) -> None:
        """Queue one content for everybody in ``audience`` now. ``on_done(cost_s)`` follows the last write."""
        members = audience.snapshot()
        sweep = Sweep(prepared, members, outbox.next_start(len(members)), on_done)
        (outbox.critical if prepared.lane <= Lane.PAID else outbox.relaxed).append(sweep)
        self._rank(outbox, prepared.lane)

    def _rank(self, outbox: Outbox, lane: int) -> None:
        if outbox.rank == -1 or lane < outbox.rank:
            outbox.rank = lane
            self._ready[lane].append(outbox)
            self._work.set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run sweeps until cancelled."""
        task_status.started()
        while True:
            outbox = self._take()
            if outbox is None:
                self._work = trio.Event()
                await self._work.wait()
                continue
            self._slice(outbox)
            await trio.lowlevel.checkpoint()

    def _take(self) -> Outbox | None:
        for lane, ready in enumerate(self._ready):
            while ready:
                outbox = ready.popleft()
                # A stale entry is left behind where an outbox moved to a more urgent queue; pass it by.
                if outbox.rank == lane and outbox.head() is not None:
                    outbox.rank = -1
                    return outbox
        return None

    def _slice(self, first: Outbox) -> None:
        """Work for one slice: several small rooms, or a part of a large one."""
        begun = self._clock()
        deadline = begun + SLICE_S
        outbox: Outbox | None = first
        while outbox is not None:
            sweep = outbox.head()
            assert sweep is not None, "only an outbox with a sweep is taken"
            before = sweep.position
            done = sweep.run(deadline, self._clock)
            self.deliveries += sweep.position - before
            if done:
                outbox.remove(sweep)
                self.sweeps += 1
            if outbox.head() is not None:
                self._rank(outbox, outbox.urgency())
            if done and sweep.on_done is not None:
                sweep.on_done(sweep.cost_s)
            outbox = self._take() if self._clock() < deadline else None
        self.busy_s += self._clock() - begun
