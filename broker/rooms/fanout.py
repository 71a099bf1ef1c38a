"""Scheduler of all sends: it writes what the rooms publish to their members' sockets.

Each room has a position in its table of members, which moves over the slots in a cycle while there is anything to
write. The sweep of a content starts at the position of that moment and is finished when the position is there again.
Contents in flight together are joined and written with one bare ``send`` a member, without waiting: an announcement
published in the middle of a tick's sweep is written with the rest of it and has reached every member one cycle later,
and so has each of twenty gifts of the same second. A member gets the contents of a room in the order of their start.

The scheduler works in slices of `SLICE_S`, the room with the most urgent lane first, then round robin, with a
checkpoint after each slice; so a thousand rooms that tick together delay the poller by one slice at most, and a sale in
one room is written before the chat of another.

Members that joined after a content was published, backlogged members and empty slots take the slow path
(`Outbox._write_slow`); for every other member the loop reads a socket and a code, no more than the bare loop does.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from operator import length_hint
from typing import NamedTuple

import trio

from broker.core.net.dictionaries import DictionaryTable
from broker.core.rooms.traces import Publication
from broker.core.structures.histogram import Histogram
from broker.net.transport import Part, Transport
from broker.rooms.encoding import VARIANTS, Prepared
from broker.rooms.members import SLOW_PATH, Member, Members
from protocol.codes import Lane

__all__ = ["MAX_ADDRESSED", "MAX_MIXES", "FanOut", "Outbox", "joined_frames"]

SLICE_S = 0.0015
"""Work between two checkpoints (1-2 ms keeps both the poller's latency and the checkpoint's share small)."""
CHUNK = 64
"""Slots between two readings of the clock."""
MAX_JOINED_BYTES = 16 * 1024
"""A content of lanes 0-2, and likewise one of the others, starts only while those in flight are not larger together: a
write must fit into a socket's buffer with space to spare (64 KiB). A single one may be of any size."""
MAX_ADDRESSED = 4
"""Contents for parts of the room that are in flight together: one more waits until the first has reached every member,
and what was published after it in its lanes waits behind it."""
MAX_MIXES = 2**MAX_ADDRESSED
"""So many mixes of them are joined at most, however many mixes of tags the members have."""


class Sweep:
    """One content in flight to all members. ``number``: counts the contents of the room."""

    __slots__ = (
        "at", "cost_s", "has_wrapped", "number", "on_done", "prepared", "publications", "queued", "refused", "size",
        "start", "written",
    )  # fmt: skip

    def __init__(
        self,
        prepared: Prepared,
        number: int,
        on_done: Callable[[float], None] | None,
        at: float,
        publications: Sequence[Publication],
    ) -> None:
        self.prepared = prepared
        self.number = number
        self.on_done = on_done
        self.at = at
        """When it was published, by the scheduler's clock."""
        self.publications = publications
        """Who wants to know how it went."""
        self.written = 0
        """Sockets that took it at once."""
        self.queued = 0
        """Members that were behind: it waits in their queue."""
        self.refused = 0
        """Of these, those whose queue did not take it."""
        self.size = prepared.nbytes
        self.start = 0
        self.has_wrapped = False
        """It has passed the last slot and goes from the first one towards its start."""
        self.cost_s = 0.0


class SliceResult(NamedTuple):
    """What a slice has done: writes to members, contents in them, and the sweeps that are finished."""

    writes: int
    deliveries: int
    finished: list[Sweep]


class Outbox:
    """Contents of one room that are in flight or wait, and the position of its sweeps.

    Bounded by its room: it makes the next tick only when the last one is done, and lanes 0-2 by the room's admission.
    """

    __slots__ = (
        "_addressed",
        "_frames",
        "_in_flight",
        "_mixes",
        "_mixes_by_tags",
        "_position",
        "_rotation",
        "_waiting",
        "members",
        "rank",
    )

    def __init__(self, members: Members) -> None:
        self.members = members
        self.rank = -1
        """Lane of the ready queue this outbox is in, -1 = in none."""
        self._in_flight: list[Sweep] = []
        """In the order of their start, which is the order in which they finish."""
        self._waiting: tuple[deque[Sweep], deque[Sweep]] = deque(), deque()
        """Contents that have not started: of lanes 0-2, and of the others."""
        self._position = 0
        self._rotation = 0
        self._frames: list[bytes | None] | None = None
        """The joined bytes in flight, by variant; None after a change."""
        self._addressed: list[Sweep] = []
        """Of those in flight, the contents for a part of the room."""
        self._mixes: dict[int, list[bytes | None]] = {}
        """The joined bytes in flight, by variant, for each mix of them that a member may get: a bit says whether it
        gets the content of that place in `_addressed`. At most `MAX_MIXES`."""
        self._mixes_by_tags: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._in_flight) + len(self._waiting[0]) + len(self._waiting[1])

    def put(
        self,
        prepared: Prepared,
        on_done: Callable[[float], None] | None,
        at: float = 0.0,
        publications: Sequence[Publication] = (),
    ) -> None:
        """Publish a content to every member of this moment, which is ``at`` by the scheduler's clock."""
        self.members.published += 1
        sweep = Sweep(prepared, self.members.published, on_done, at, publications)
        self._waiting[prepared.lane > Lane.PAID].append(sweep)

    def urgency(self) -> int:
        """Return the most urgent lane that is in flight or waits; only while there is one."""
        return min(sweep.prepared.lane for sweep in (*self._in_flight, *self._waiting[0], *self._waiting[1]))

    def write_slots(self, deadline: float, clock: Callable[[], float]) -> SliceResult:
        """Write until every sweep is finished, or until ``deadline``. Never waits."""
        writes = deliveries = 0
        finished: list[Sweep] = []
        in_flight = self._in_flight
        now = clock()
        while True:
            if self._waiting[0] or self._waiting[1]:
                self._start_waiting()
            if not in_flight:
                break
            begin = self._position
            first = in_flight[0]
            slots = len(self.members.codes)
            end = min(begin + CHUNK, first.start if first.has_wrapped else slots)
            direct = end - begin - self.members.codes.count(SLOW_PATH, begin, end)
            if self._addressed:
                self._write_by_tags(begin, end)
            else:
                self._write(begin, end)
            started_at, now = now, clock()
            for sweep in in_flight:
                sweep.cost_s += now - started_at
                sweep.written += direct
            writes += end - begin
            deliveries += (end - begin) * len(in_flight)
            self._position = end
            if end >= slots:
                self._position = 0
                for sweep in in_flight:
                    sweep.has_wrapped = True
            while in_flight and in_flight[0].has_wrapped and in_flight[0].start == self._position:
                finished.append(in_flight.pop(0))
                self._changed()
            if now >= deadline:
                break
        return SliceResult(writes, deliveries, finished)

    def _start_waiting(self) -> None:
        """Start the contents that wait, as many as fit into a write."""
        if not self._in_flight:
            # Golden-ratio steps spread the starts evenly, so that no member is always the last.
            self.members.close_up()
            self._rotation = (self._rotation + 0x9E37_79B1) & 0xFFFF_FFFF
            self._position = self._rotation * len(self.members.codes) >> 32
        for is_relaxed, waiting in enumerate(self._waiting):
            if waiting:
                size = sum(each.size for each in self._in_flight if (each.prepared.lane > Lane.PAID) == is_relaxed)
                while waiting and (not size or size + waiting[0].size <= MAX_JOINED_BYTES):
                    if waiting[0].prepared.others is not None and len(self._addressed) == MAX_ADDRESSED:
                        break
                    sweep = waiting.popleft()
                    size += sweep.size
                    sweep.start = self._position
                    self._in_flight.append(sweep)
                    self._changed()

    def _changed(self) -> None:
        """Forget the joined bytes: other contents are in flight."""
        self._frames = None
        self._addressed = [sweep for sweep in self._in_flight if sweep.prepared.others is not None]
        self._mixes = {}
        self._mixes_by_tags = {}

    def _join(self) -> list[bytes | None]:
        """Join the bytes in flight, by variant."""
        frames = self._frames = joined_frames([sweep.prepared for sweep in self._in_flight])
        return frames

    def _frames_for(self, tags: int) -> list[bytes | None]:
        """Return the joined bytes in flight for members with these tags, by variant."""
        mix = self._mixes_by_tags.get(tags)
        if mix is None:
            mix = 0
            for place, sweep in enumerate(self._addressed):
                mix |= (sweep.prepared.seen_by(tags) is sweep.prepared) << place
            self._mixes_by_tags[tags] = mix
        frames = self._mixes.get(mix)
        if frames is None:
            frames = self._mixes[mix] = joined_frames([sweep.prepared.seen_by(tags) for sweep in self._in_flight])
        return frames

    def _write_by_tags(self, begin: int, end: int) -> None:
        """Write to the slots from ``begin`` up to ``end`` while a content for a part of the room is in flight."""
        members = self.members
        for index in range(begin, end):
            member, code = members.slots[index], members.codes[index]
            data = None if member is None or code == SLOW_PATH else self._frames_for(members.tags_of(member))[code]
            if data is None:
                self._write_slow(index)
                continue
            try:
                sent = members.senders[index].send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._on_partial_write(index, error)
                continue
            if sent != len(data):
                self._on_partial_write(index, sent)

    def _write(self, begin: int, end: int) -> None:
        """Write to the slots from ``begin`` up to ``end``."""
        members = self.members
        frames = self._frames or self._join()
        # Copies: a connection aborted here leaves its slot and moves no other.
        rest = iter(members.senders[begin:end])
        for sender, code in zip(rest, members.codes[begin:end], strict=True):
            data = frames[code]
            if data is None:
                self._write_slow(end - 1 - length_hint(rest))
                continue
            try:
                sent = sender.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._on_partial_write(end - 1 - length_hint(rest), error)
                continue
            if sent != len(data):
                self._on_partial_write(end - 1 - length_hint(rest), sent)

    def _on_partial_write(self, index: int, met: OSError | int) -> None:
        """Handle a bare write that failed (the error), or took only a part (the bytes)."""
        member = self.members.slots[index]
        assert member is not None, "an empty slot has no variant"
        transport: Transport = member.session.transport
        try:
            if isinstance(met, int):
                transport.start_backlog(self._parts_for(member), met)
            else:
                transport.abort(f"write failed: {met.strerror or met}")
        except Exception as error:
            transport.poller.crash(transport, error)

    def _parts_for(self, member: Member) -> tuple[Part, ...]:
        """Return the parts in flight for this member."""
        members = self.members
        tags = members.tags_of(member) if self._addressed else 0
        has_changed = member in members.changed
        parts: list[Part] = []
        for sweep in self._in_flight:
            if sweep.number > member.since:
                variant = members.variant_of(member, sweep.number) if has_changed else member.variant
                bundle = sweep.prepared.seen_by(tags).bundles.get(variant)
                if bundle is not None:
                    parts += bundle.parts
        return tuple(parts)

    def _write_slow(self, index: int) -> None:
        """Serve an empty slot, a member that has just joined, or a backlogged one."""
        member = self.members.slots[index]
        if member is None:
            return
        transport: Transport = member.session.transport
        try:
            if transport.queue is not None:
                self._enqueue(member, transport)
                return
            transport.write_parts(self._parts_for(member))
            if self.members.codes[index] == SLOW_PATH:
                for sweep in self._in_flight:
                    sweep.written += sweep.number > member.since
        except Exception as error:
            transport.poller.crash(transport, error)
            return
        if member.index >= 0 and transport.queue is None:
            oldest = self._oldest()
            if member.since < oldest and not (self.members.changed and self.members.has_changed(member, oldest)):
                self.members.use_fast_path(member)

    def _enqueue(self, member: Member, transport: Transport) -> None:
        """Queue what is in flight for a member that is behind."""
        tags = self.members.tags_of(member) if self._addressed else 0
        for sweep in self._in_flight:
            bundle = sweep.prepared.seen_by(tags).bundles.get(self.members.variant_of(member, sweep.number))
            if sweep.number > member.since and bundle is not None:
                sweep.queued += 1
                sweep.refused += not transport.enqueue(bundle.parts)

    def _oldest(self) -> int:
        """Return the number of the first content that has not reached every member; only while there is one."""
        heads = (queue[0] for queue in (self._in_flight, *self._waiting) if queue)
        return min(sweep.number for sweep in heads)


def joined_frames(contents: list[Prepared]) -> list[bytes | None]:
    """Return the bytes of contents together, by variant."""
    if len(contents) == 1:
        return contents[0].frames
    joined: list[bytes | None] = [None] * (VARIANTS + 1)
    for variant in {variant for each in contents for variant in each.bundles}:
        joined[variant] = b"".join([each.frames[variant] or b"" for each in contents])
    return joined


class FanOut:
    """The scheduler of all sweeps; its `run` is one task."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.dictionaries = DictionaryTable()
        """Those of the frames that it sends."""
        self._ready: tuple[deque[Outbox], ...] = tuple(deque() for _ in Lane)
        self._work = trio.Event()
        self._calls: deque[Callable[[], None]] = deque()
        self.writes = 0
        """Writes to members so far."""
        self.deliveries = 0
        """Contents delivered so far: a write may carry several."""
        self.sweeps = 0
        """Contents that have reached every member."""
        self.busy_s = 0.0
        self.latency = tuple(Histogram() for _ in Lane)
        """By lane: seconds from the publication of a content until it was written to every member."""

    @property
    def waiting(self) -> bool:
        """Whether any sweep waits."""
        return any(self._ready)

    def submit(
        self,
        outbox: Outbox,
        prepared: Prepared,
        on_done: Callable[[float], None] | None = None,
        publications: Sequence[Publication] = (),
    ) -> None:
        """Publish one content to every member of the outbox's room. ``on_done(cost_s)`` follows the last write;
        ``publications`` learn how it went."""
        outbox.put(prepared, on_done, self._clock(), publications)
        self._rank(outbox, prepared.lane)

    def _rank(self, outbox: Outbox, lane: int) -> None:
        if outbox.rank == -1 or lane < outbox.rank:
            outbox.rank = lane
            self._ready[lane].append(outbox)
            self._work.set()

    def call_soon(self, call: Callable[[], None]) -> None:
        """Call a room in the next turn, before anything is written: it has something to publish. The call must not
        raise."""
        self._calls.append(call)
        self._work.set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run sweeps until cancelled."""
        task_status.started()
        while True:
            self.turn()
            if self._calls or any(self._ready):
                await trio.lowlevel.checkpoint()
            else:
                self._work = trio.Event()
                await self._work.wait()

    def turn(self) -> bool:
        """Call the rooms that have something to publish, and write, for one slice each, the most urgent room first;
        return whether there was anything to do."""
        has_called = len(self._calls) > 0
        if has_called:
            self._call()
        outbox = self._take()
        if outbox is None:
            return has_called
        self._slice(outbox)
        return True

    def _call(self) -> None:
        """Call rooms for one slice."""
        calls, deadline = self._calls, self._clock() + SLICE_S
        while calls:
            calls.popleft()()
            if self._clock() >= deadline:
                break

    def _take(self) -> Outbox | None:
        for lane, ready in enumerate(self._ready):
            while ready:
                outbox = ready.popleft()
                # A stale entry is left behind where an outbox moved to a more urgent queue; skip it.
                if outbox.rank == lane and len(outbox):
                    outbox.rank = -1
                    return outbox
        return None

    def _slice(self, first: Outbox) -> None:
        """Write for one slice: several small rooms, or a part of a large one."""
        started_at = self._clock()
        deadline = started_at + SLICE_S
        outbox: Outbox | None = first
        while outbox is not None:
            writes, deliveries, finished = outbox.write_slots(deadline, self._clock)
            self.writes += writes
            self.deliveries += deliveries
            self.sweeps += len(finished)
            if len(outbox):
                self._rank(outbox, outbox.urgency())
            now = self._clock() if finished else 0.0
            for sweep in finished:
                self.latency[sweep.prepared.lane].observe(now - sweep.at)
                for publication in sweep.publications:
                    publication.finish(now - sweep.at, sweep.written, sweep.queued, sweep.refused)
                if sweep.on_done is not None:
                    sweep.on_done(sweep.cost_s)
            outbox = self._take() if self._clock() < deadline else None
        self.busy_s += self._clock() - started_at
