"""Accounting of one receiving process: which frames arrived and when, without an object for each copy.

A frame that goes to a whole room has the same 16-byte header and the same body for every viewer of a group (framing,
tier). The first copy is decoded and becomes a `FrameRecord`; every further copy is recognized by its header, which
costs one dict look-up and one number: the time of arrival. A sampled share of links compares whole bodies.

The decoded copies say, once for each room and tier, what the broker showed. So latencies are exact for every danmaku of
every copy, and the totals can be compared with the broker's accounts and the publishers' acks.

Violations are collected as sentences (`ViewerAccounting.violations`): the first ones in full, all of them counted.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from typing import Any

import numpy as np

from bench.load.texts import Stamp, read_stamp
from bench.measure import Latencies, SecondSeries
from protocol.codes import Lane, MessageType, Opcode, Tier
from protocol.compression import decompress
from protocol.errors import RemoteProtocolError
from protocol.fields import FieldError
from protocol.frames import HEADER_BYTES, parse_header, unpack_body
from protocol.message_rules import reader_of
from protocol.messages import Event, Joined, Side, State, Tick

__all__ = [
    "FLOOR_SEQUENCE",
    "LANES",
    "SINGLE",
    "STREAM_EVENT",
    "STREAM_STATE",
    "STREAM_TICK",
    "FrameRecord",
    "ViewerAccounting",
]

LANES = tuple(lane.name.lower() for lane in Lane)
STREAM_EVENT, STREAM_TICK, STREAM_STATE, SINGLE = range(4)
_STREAMS = {Opcode.EVENT: STREAM_EVENT, Opcode.TICK: STREAM_TICK, Opcode.STATE: STREAM_STATE}

FLOOR_SEQUENCE = 0xF000_0000
"""PONG frames of room 0 from this sequence on belong to the raw loop; their ``client_ms`` is its start in us."""

MAX_RECORDS = 400_000
"""Distinct frames that one group remembers; above it the oldest half is dropped."""
MAX_REPORTED = 20
"""Violations that one process reports in full; all are counted."""
COUNT_AFTER_US = 5_000_000
"""Age at which the copies of a frame are counted; later copies (of slow readers) are counted at the end."""
MAX_VALUES = 100_000
"""Latencies of one frame (arrivals times messages in it) that are counted one by one; above it arrivals are binned."""


class FrameRecord:
    """One distinct frame and the arrivals of its copies since the last flush."""

    __slots__ = (
        "arrivals",
        "before",
        "copies",
        "danmaku",
        "first_seen_us",
        "lane",
        "length",
        "published",
        "raw",
        "room",
        "sequence",
        "stream",
    )  # fmt: skip

    def __init__(self, stream: int, lane: str, length: int, room: int, sequence: int) -> None:
        self.stream = stream
        self.lane = lane
        self.length = length
        self.room = room
        self.sequence = sequence
        self.before = sequence - 1
        """The sequence before this one in its stream, which a link without a gap has received last."""
        self.arrivals = array("q")
        """Nanoseconds of CLOCK_MONOTONIC."""
        self.published: list[int] = []
        """Due times (us) of the messages inside, by the publishers' schedule."""
        self.danmaku = 0
        self.copies = 0
        self.raw: bytes | None = None
        self.first_seen_us = 0


class FrameGroup:
    """Viewers that receive the same bytes: one framing and tier, either all healthy or all slow."""

    def __init__(self, tier: Tier, slow: bool) -> None:
        self.tier = tier
        self.slow = slow
        self.seen: dict[bytes, FrameRecord] = {}


class RoomTotals:
    """Totals of one room, from the frames that its viewers received."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.index = int(name.rpartition("-")[2]) if name.rpartition("-")[2].isdigit() else -1
        self.ticks: dict[Tier, dict[int, int]] = {tier: {} for tier in Tier}
        """Tier -> tick number -> danmaku in it."""
        self.owners: dict[tuple[Tier, int], FrameGroup] = {}
        self.parts: dict[tuple[Tier, int], list[int]] = {}
        self.account = [0] * 6
        """Sum of the accounts of the FULL tier's ticks."""
        self.events: dict[int, int | None] = {}
        """Offset -> lane; None = the end of a combo of gifts, which is no message of a sender."""
        self.gifts = 0
        self.gift_cents = 0
        self.likes = 0
        self.state_sequence = -1
        self.online = 0
        self.state_accounts: list[list[int]] = []

    def report(self) -> dict[str, Any]:
        """Return the totals as JSON."""
        by_lane = [0] * len(Lane)
        for lane in self.events.values():
            if lane is not None:
                by_lane[lane] += 1
        full = self.ticks[Tier.FULL]
        return {
            "name": self.name,
            "ticks": len(full),
            "last_tick": max(full, default=0),
            "account": self.account,
            "events_by_lane": by_lane,
            "events": len(self.events),
            "last_offset": max(self.events, default=0),
            "gifts": self.gifts,
            "gift_cents": self.gift_cents,
            "likes": self.likes,
            "online": self.online,
            "state_accounts": self.state_accounts,
        }


class ViewerAccounting:
    """Accounting of one receiving process.

    ``origin_us``: start of the run's schedule. ``wall_offset_us``: Unix time minus monotonic time, in microseconds.
    """

    def __init__(self, origin_us: int, wall_offset_us: int) -> None:
        self.origin_us = origin_us
        self.groups: list[FrameGroup] = []
        self.rooms: dict[int, RoomTotals] = {}
        self.violations: list[str] = []
        self.violation_count = 0
        self.copies: dict[str, int] = {}
        """Frames by ``opcode/lane``, all copies."""
        self.nbytes = 0
        self.danmaku_copies = 0
        """Danmaku delivered: entries times copies."""
        self.compared = 0
        self.pulse: dict[int, list[int]] = {}
        """Second -> [longest tick interval in ms, highest overload stage] that the broker reported."""
        self._wall_offset_us = wall_offset_us
        self._latencies: dict[str, Latencies] = {}
        self.series = SecondSeries(origin_us)
        self._numbers: set[int] = set()
        self._uncounted: deque[tuple[FrameGroup, FrameRecord]] = deque()

    def group(self, tier: Tier, slow: bool) -> FrameGroup:
        """Return a new group of viewers."""
        group = FrameGroup(tier, slow)
        self.groups.append(group)
        return group

    def report_violation(self, sentence: str) -> None:
        """Record a violation."""
        self.violation_count += 1
        if len(self.violations) < MAX_REPORTED:
            self.violations.append(sentence)

    def joined(self, number: int, snapshot: Joined) -> RoomTotals:
        """Record that a link has joined a room, and return the room's totals."""
        totals = self.rooms.get(number)
        if totals is None:
            totals = self.rooms[number] = RoomTotals(snapshot.room_name)
        elif totals.name != snapshot.room_name:
            self.report_violation(f"room number {number} is {totals.name} and {snapshot.room_name}")
        return totals

    def name_room(self, number: int, name: str) -> None:
        """Add a room whose viewers did not join through this process (they share sockets)."""
        self.rooms[number] = RoomTotals(name)

    def reset(self) -> None:
        """Drop all frames, totals and violations."""
        self._uncounted.clear()
        for group in self.groups:
            group.seen.clear()
        self.rooms = {number: RoomTotals(totals.name) for number, totals in self.rooms.items()}
        self.violations, self.violation_count = [], 0
        self.copies.clear()
        self.nbytes = self.danmaku_copies = 0

    # ---- first copies

    def decode_first(self, group: FrameGroup, key: bytes, raw: bytes, now: int) -> FrameRecord:
        """Decode the first copy of a frame that goes to a whole room (EVENT, TICK, STATE) or of the raw loop."""
        header = parse_header(raw)
        stream = _STREAMS.get(header.opcode, SINGLE)
        record = FrameRecord(stream, LANES[header.lane], header.length, header.room, header.sequence)
        record.raw = raw
        record.first_seen_us = now
        group.seen[key] = record
        self._uncounted.append((group, record))
        if len(group.seen) > MAX_RECORDS:
            self.flush()
            for old in list(group.seen)[: MAX_RECORDS // 2]:
                del group.seen[old]
        body = raw[HEADER_BYTES:]
        try:
            fields = unpack_body(decompress(body, header.codec) if header.codec else body)
            if stream == SINGLE:
                record.lane = "floor c" if header.sequence % 2 else "floor"
                record.published = [fields[0]]
                return record
            message = reader_of(Side.SERVER, header.opcode)(fields)
        except (RemoteProtocolError, FieldError) as error:
            self.report_violation(
                f"a frame of opcode {header.opcode.name}, sequence {header.sequence} does not decode: {error}"
            )
            return record
        totals = self.rooms.get(header.room)
        if totals is None:
            self.report_violation(f"a {header.opcode.name} of room {header.room}, which no link has joined")
            return record
        if isinstance(message, Tick):
            self._first_tick(group, totals, record, message, now)
        elif isinstance(message, Event) and header.lane is Lane.AMBIENT:
            record.stream = SINGLE  # counters of an activity, which have no place in the stream
        elif isinstance(message, Event):
            self._first_event(totals, record, message, header.lane)
        elif isinstance(message, State):
            self._first_state(totals, record, message, now)
        return record

    def _first_tick(self, group: FrameGroup, totals: RoomTotals, record: FrameRecord, tick: Tick, now: int) -> None:
        self._record_pulse(now, tick.interval_ms, tick.stage)
        stamps = [stamp for entry in tick.entries if (stamp := _stamp_of(entry.payload)) is not None]
        record.published = [self.origin_us + stamp.due_us for stamp in stamps]
        record.danmaku = len(tick.entries)
        key = (group.tier, record.sequence)
        if totals.owners.setdefault(key, group) is not group:
            return
        weights = totals.ticks[group.tier]
        weights[record.sequence] = weights.get(record.sequence, 0) + len(tick.entries)
        self._check_leaks(totals, stamps)
        parts = totals.parts.setdefault(key, [0, 0])
        parts[0] += len(tick.entries)
        parts[1] += sum(entry.count - 1 for entry in tick.entries)
        account = tick.account
        if account.admitted:
            del totals.parts[key]
            where = f"tick {record.sequence} of {totals.name} (tier {int(group.tier)})"
            if account.admitted != sum(account[1:]):
                self.report_violation(f"{where}: the account does not balance: {tuple(account)}")
            if [account.shown, account.merged] != parts:
                self.report_violation(
                    f"{where}: says {account.shown} shown, {account.merged} merged, but holds {tuple(parts)}"
                )
            if group.tier is Tier.FULL:
                totals.account = [total + part for total, part in zip(totals.account, account, strict=True)]
        if group.tier is Tier.FULL:
            for stamp in stamps:
                if stamp.number in self._numbers:
                    self.report_violation(f"{describe_frame(totals, record)}: danmaku {stamp.number} is shown twice")
                self._numbers.add(stamp.number)

    def _first_event(self, totals: RoomTotals, record: FrameRecord, event: Event, lane: Lane) -> None:
        stamp = _stamp_of(event.payload)
        if stamp is not None:
            record.published = [self.origin_us + stamp.due_us]
            self._check_leaks(totals, [stamp])
        if record.sequence in totals.events:
            return
        totals.events[record.sequence] = int(lane)
        if event.type == MessageType.GIFT:
            if not event.payload[4]:
                totals.events[record.sequence] = None
            totals.gifts += event.payload[4]
            totals.gift_cents += event.payload[4] * event.payload[5]

    def _first_state(self, totals: RoomTotals, record: FrameRecord, state: State, now: int) -> None:
        self._record_pulse(now, state.interval_ms, state.stage)
        record.published = [state.at_ms * 1000 - self._wall_offset_us]
        for lane, account in zip(LANES, state.accounts, strict=False):
            if account.admitted != sum(account[1:]):
                self.report_violation(
                    f"{describe_frame(totals, record)}: the account of lane {lane} does not balance: {tuple(account)}"
                )
        if record.sequence > totals.state_sequence:
            if state.likes < totals.likes:
                self.report_violation(
                    f"{describe_frame(totals, record)}: likes fell from {totals.likes} to {state.likes}"
                )
            totals.state_sequence = record.sequence
            totals.likes = state.likes
            totals.online = state.online
            totals.state_accounts = [list(account) for account in state.accounts]

    def _check_leaks(self, totals: RoomTotals, stamps: list[Stamp]) -> None:
        for stamp in stamps:
            if stamp.room != totals.index:
                self.report_violation(
                    f"message {stamp.number} was sent to room bench-{stamp.room} and arrived in {totals.name}"
                )

    def _record_pulse(self, now: int, interval_ms: int, stage: int) -> None:
        second = (now - self.origin_us) // 1_000_000
        beat = self.pulse.setdefault(second, [0, 0])
        beat[0] = max(beat[0], interval_ms)
        beat[1] = max(beat[1], stage)

    # ---- copies

    def compare(self, record: FrameRecord, raw: bytes) -> None:
        """Compare the copy of a sampled link with the bytes that were decoded."""
        self.compared += 1
        if record.raw is not None and raw != record.raw:
            self.report_violation(f"two copies of frame {record.sequence} of room {record.room} differ")

    def count_old(self, now: int, budget_us: int) -> None:
        """Count the arrivals of frames older than `COUNT_AFTER_US`, for at most ``budget_us``.

        To be called while no frame waits: its time would be measured as their latency.
        """
        fresh = self._uncounted
        end = time.monotonic_ns() // 1000 + budget_us
        while fresh and fresh[0][1].first_seen_us + COUNT_AFTER_US < now:
            group, record = fresh.popleft()
            self._count(group, record)
            record.raw = None
            if time.monotonic_ns() // 1000 > end:
                return

    def flush(self) -> None:
        """Count every arrival."""
        self._uncounted.clear()
        left = [
            (record.arrivals[0], group, record)
            for group in self.groups
            for record in group.seen.values()
            if record.arrivals
        ]
        for _, group, record in sorted(left, key=lambda each: each[0]):
            self._count(group, record)
        self.series.close()

    def _count(self, group: FrameGroup, record: FrameRecord) -> None:
        if not record.arrivals:
            return
        arrivals = np.frombuffer(record.arrivals, dtype=np.int64) // 1000
        record.arrivals = array("q")
        copies = len(arrivals)
        record.copies += copies
        self.nbytes += copies * record.length
        self.danmaku_copies += copies * record.danmaku
        kind = ("event", "tick", "state", "floor")[record.stream]
        name = f"{kind}/{record.lane}"
        self.copies[name] = self.copies.get(name, 0) + copies
        if not record.published:
            return
        first = int(arrivals.min())
        # At least 256 bins, 4,096 for a frame with one message: a pass of 1 s is then exact to 0.25 ms.
        bins_wanted = max(256, min(4096, MAX_VALUES // len(record.published)))
        shift = max(0, (int(arrivals.max()) - first).bit_length() - bins_wanted.bit_length() + 1)
        counts = np.bincount((arrivals - first) >> shift)
        bins = np.nonzero(counts)[0]
        times = (bins << shift) + first + ((1 << shift) >> 1)
        values = times[:, None] - np.array(record.published, dtype=np.int64)[None, :]
        weights = np.repeat(counts[bins], len(record.published))
        lane = f"slow {record.lane}" if group.slow else record.lane
        self.latencies(lane).record_many(values, weights)
        self.series.add(lane, values, first, weights)

    def latencies(self, name: str) -> Latencies:
        """Return the histogram called ``name``."""
        found = self._latencies.get(name)
        if found is None:
            found = self._latencies[name] = Latencies()
        return found

    def received_bytes(self) -> int:
        """Return the bytes of all copies so far, counted or not."""
        waiting = sum(len(record.arrivals) * record.length for group in self.groups for record in group.seen.values())
        return self.nbytes + waiting

    def copies_by_room(self) -> dict[int, list[list[int]]]:
        """Return room -> for each stream (event, tick, state) [distinct frames, copies]. Call `flush` before."""
        found: dict[int, list[list[int]]] = {}
        for group in self.groups:
            for record in group.seen.values():
                if record.stream != SINGLE:
                    row = found.setdefault(record.room, [[0, 0], [0, 0], [0, 0]])[record.stream]
                    row[0] += 1
                    row[1] += record.copies
        return found

    def report(self) -> dict[str, Any]:
        """Return everything as JSON; counts what is not counted yet."""
        self.flush()
        return {
            "copies": self.copies,
            "bytes": self.nbytes,
            "danmaku_copies": self.danmaku_copies,
            "compared": self.compared,
            "latencies": {name: latencies.encode() for name, latencies in self._latencies.items()},
            "series": self.series.rows,
            "pulse": self.pulse,
            "rooms": [totals.report() for totals in self.rooms.values()],
            "violations": self.violations,
            "violation_count": self.violation_count,
        }


def describe_frame(totals: RoomTotals, record: FrameRecord) -> str:
    """Return a frame in words."""
    kind = ("event", "tick", "state", "frame")[record.stream]
    return f"{kind} {record.sequence} of {totals.name}"


def _stamp_of(payload: Any) -> Stamp | None:
    """Return the stamp of a danmaku, announcement or gift: the end of its first field (text or order id)."""
    if isinstance(payload, tuple) and payload and isinstance(payload[0], str):
        return read_stamp(payload[0])
    return None
