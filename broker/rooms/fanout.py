"""The hot loop: one scheduler that carries what all rooms publish to all their members.

Each room has a round: a position that walks over the places of its audience, again and again while there is anything
to say. A content sets out wherever the round stands and has been everywhere when the round is back there. What is
under way together is written together, with one bare ``send`` a member and no waiting: an announcement made in the
middle of a tick's sweep rides with the rest of it and is everywhere one round later, and so is each of twenty gifts
in the same second. A member sees the contents of a room in the order in which they set out.

The scheduler walks in slices of `SLICE_S`, the room with the most urgent lane first, then round robin, with a
checkpoint after each slice; so a thousand rooms that tick together keep the poller waiting for one slice at most, and
a sale in one room overtakes the chat of another that is under way.

Who came after a content was published, whoever is behind and empty places take the long way (`Outbox._write_slow`);
for everybody else the loop reads a ``send`` and a code, no more than the bare loop does.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from operator import length_hint
from typing import NamedTuple

import trio

from broker.net.transport import Part, Transport
from broker.rooms.encoding import Prepared
from broker.rooms.members import Member, Members
from protocol.codes import Lane

__all__ = ["FanOut", "Outbox"]

SLICE_S = 0.0015
"""Work between two checkpoints (1-2 ms keeps both the poller's latency and the checkpoint's share small)."""
CHUNK = 64
"""Places between two looks at the clock."""
MAX_JOINED_BYTES = 16 * 1024
"""Contents of lanes 0-2, and likewise of the others, set out while those under way are not larger together: a write
must fit into a socket's buffer with room to spare (64 KiB). One alone may be of any size."""


class Sweep:
    """One content on its way round. ``number``: its place among all contents of the room."""

    __slots__ = ("cost_s", "has_wrapped", "number", "on_done", "prepared", "size", "start")

    def __init__(self, prepared: Prepared, number: int, on_done: Callable[[float], None] | None) -> None:
        self.prepared = prepared
        self.number = number
        self.on_done = on_done
        self.size = max((len(data) for data in prepared.frames if data is not None), default=0)
        self.start = 0
        self.has_wrapped = False
        """It has passed the last place and comes from the first one towards its start."""
        self.cost_s = 0.0


class SliceResult(NamedTuple):
    """What a slice has done: writes to members, contents in them, contents that have been everywhere."""

    writes: int
    deliveries: int
    finished: list[Sweep]


class Outbox:
    """What one room has to say, and its round.

    Bounded by its room: it makes the next tick only when the last one is done, and lanes 0-2 by the room's admission.
    """

    __slots__ = ("_frames", "_position", "_rotation", "_under_way", "_waiting", "members", "rank")

    def __init__(self, members: Members) -> None:
        self.members = members
        self.rank = -1
        """Lane of the ready queue this outbox stands in, -1 = in none."""
        self._under_way: list[Sweep] = []
        """In the order of setting out, which is the order of coming home."""
        self._waiting: tuple[deque[Sweep], deque[Sweep]] = deque(), deque()
        """Of lanes 0-2, and of the others: what has not set out."""
        self._position = 0
        self._rotation = 0
        self._frames: list[bytes | None] | None = None
        """What is under way joined, by variant; None after a change."""

    def __len__(self) -> int:
        return len(self._under_way) + len(self._waiting[0]) + len(self._waiting[1])

    def put(self, prepared: Prepared, on_done: Callable[[float], None] | None) -> None:
        """Publish a content to everybody who is there now."""
        self.members.published += 1
        sweep = Sweep(prepared, self.members.published, on_done)
        self._waiting[prepared.lane > Lane.PAID].append(sweep)

    def urgency(self) -> int:
        """The most urgent lane that is under way or waits; only while there is one."""
        return min(sweep.prepared.lane for sweep in (*self._under_way, *self._waiting[0], *self._waiting[1]))

    def write_slots(self, deadline: float, clock: Callable[[], float]) -> SliceResult:
        """Walk until everything has been everywhere, or ``deadline``. Never waits."""
        writes = deliveries = 0
        finished: list[Sweep] = []
        under_way = self._under_way
        now = clock()
        while True:
            if self._waiting[0] or self._waiting[1]:
                self._start_waiting()
            if not under_way:
                break
            begin = self._position
            first = under_way[0]
            slots = len(self.members.codes)
            end = min(begin + CHUNK, first.start if first.has_wrapped else slots)
            self._write(begin, end)
            begun, now = now, clock()
            for sweep in under_way:
                sweep.cost_s += now - begun
            writes += end - begin
            deliveries += (end - begin) * len(under_way)
            self._position = end
            if end >= slots:
                self._position = 0
                for sweep in under_way:
                    sweep.has_wrapped = True
            while under_way and under_way[0].has_wrapped and under_way[0].start == self._position:
                finished.append(under_way.pop(0))
                self._frames = None
            if now >= deadline:
                break
        return SliceResult(writes, deliveries, finished)

    def _start_waiting(self) -> None:
        """Let what waits join the round, as much as fits into a write."""
        if not self._under_way:
            # Golden-ratio steps spread the starts evenly, so that nobody is always last.
            self.members.close_up()
            self._rotation = (self._rotation + 0x9E37_79B1) & 0xFFFF_FFFF
            self._position = self._rotation * len(self.members.codes) >> 32
        for is_relaxed, waiting in enumerate(self._waiting):
            if waiting:
                size = sum(each.size for each in self._under_way if (each.prepared.lane > Lane.PAID) == is_relaxed)
                while waiting and (not size or size + waiting[0].size <= MAX_JOINED_BYTES):
                    sweep = waiting.popleft()
                    size += sweep.size
                    sweep.start = self._position
                    self._under_way.append(sweep)
                    self._frames = None

    def _join(self) -> list[bytes | None]:
        """The bytes of everything under way, by variant."""
        under_way = self._under_way
        if len(under_way) == 1:
            frames = under_way[0].prepared.frames
        else:
            columns = zip(*(sweep.prepared.frames for sweep in under_way), strict=True)
            frames = [b"".join(filter(None, column)) or None for column in columns]
        self._frames = frames
        return frames

    def _write(self, begin: int, end: int) -> None:
        """Write to the places from ``begin`` up to ``end``."""
        members = self.members
        frames = self._frames or self._join()
        # Copies: a link that is lost here leaves its place, and touches no other.
        rest = iter(members.sends[begin:end])
        for send, code in zip(rest, members.codes[begin:end], strict=True):
            data = frames[code]
            if data is None:
                self._write_slow(end - 1 - length_hint(rest))
                continue
            try:
                sent = send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._on_partial_write(end - 1 - length_hint(rest), error)
                continue
            if sent != len(data):
                self._on_partial_write(end - 1 - length_hint(rest), sent)

    def _on_partial_write(self, index: int, met: OSError | int) -> None:
        """A bare write failed, or took only so many bytes."""
        member = self.members.slots[index]
        assert member is not None, "an empty place has no variant"
        transport: Transport = member.session.transport
        try:
            if isinstance(met, int):
                transport.start_backlog(self._parts_for(member), met)
            else:
                transport.abort(f"write failed: {met.strerror or met}")
        except Exception as error:
            transport.poller.crash(transport, error)

    def _parts_for(self, member: Member) -> tuple[Part, ...]:
        """What is under way for this member."""
        since, variant = member.since, member.variant
        bundles = [sweep.prepared.bundles[variant] for sweep in self._under_way if sweep.number > since]
        return tuple(part for bundle in bundles if bundle is not None for part in bundle.parts)

    def _write_slow(self, index: int) -> None:
        """Serve a place with nobody, with somebody who has just come, or whose link is behind."""
        member = self.members.slots[index]
        if member is None:
            return
        transport: Transport = member.session.transport
        parts = self._parts_for(member)
        try:
            if transport.queue is not None:
                transport.enqueue(parts)
                return
            transport.write_parts(parts)
        except Exception as error:
            transport.poller.crash(transport, error)
            return
        if member.index >= 0 and transport.queue is None and member.since < self._oldest():
            self.members.use_fast_path(member)

    def _oldest(self) -> int:
        """Number of the first content that has not been everywhere; only while there is one."""
        heads = (queue[0] for queue in (self._under_way, *self._waiting) if queue)
        return min(sweep.number for sweep in heads)


class FanOut:
    """The scheduler of all sweeps; its `run` is one task."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._ready: tuple[deque[Outbox], ...] = tuple(deque() for _ in Lane)
        self._work = trio.Event()
        self.writes = 0
        """Members written to so far, each time counted."""
        self.deliveries = 0
        """Contents delivered so far: a write may carry several."""
        self.sweeps = 0
        """Contents that have been everywhere."""
        self.busy_s = 0.0

    @property
    def waiting(self) -> bool:
        """Whether any sweep waits."""
        return any(self._ready)

    def submit(self, outbox: Outbox, prepared: Prepared, on_done: Callable[[float], None] | None = None) -> None:
        """Publish one content to everybody in the outbox's audience. ``on_done(cost_s)`` follows the last write."""
        outbox.put(prepared, on_done)
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
                if outbox.rank == lane and len(outbox):
                    outbox.rank = -1
                    return outbox
        return None

    def _slice(self, first: Outbox) -> None:
        """Work for one slice: several small rooms, or a part of a large one."""
        begun = self._clock()
        deadline = begun + SLICE_S
        outbox: Outbox | None = first
        while outbox is not None:
            writes, deliveries, finished = outbox.write_slots(deadline, self._clock)
            self.writes += writes
            self.deliveries += deliveries
            self.sweeps += len(finished)
            if len(outbox):
                self._rank(outbox, outbox.urgency())
            for sweep in finished:
                if sweep.on_done is not None:
                    sweep.on_done(sweep.cost_s)
            outbox = self._take() if self._clock() < deadline else None
        self.busy_s += self._clock() - begun
