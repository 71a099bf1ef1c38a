"""The receivers' books: what arrived, when, and whether it adds up, without an object per frame.

A frame that goes to a whole room has the same 16-byte header and the same body for every viewer of the same form. So
the first copy is decoded and becomes a `Record`; every further copy is recognised by its header, which is as exact as
parsing it, and costs one look-up and one number: the time of its arrival. A sampled share of links compares whole
bodies with the decoded one.

From the decoded copies the books learn, once per room and tier, what the broker says it showed. So latencies are exact
for every danmaku of every copy, and the totals can be held against the broker's accounts and the publishers' acks.

Broken rules are collected as sentences (`violations`), the first ones in full and all of them counted.
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
from protocol.messages import Event, Joined, Side, State, Tick, reader_of

__all__ = ["FLOOR_SEQUENCE", "LANES", "SINGLE", "STREAM_EVENT", "STREAM_STATE", "STREAM_TICK", "Books", "Record"]

LANES = tuple(lane.name.lower() for lane in Lane)
STREAM_EVENT, STREAM_TICK, STREAM_STATE, SINGLE = range(4)
_STREAMS = {Opcode.EVENT: STREAM_EVENT, Opcode.TICK: STREAM_TICK, Opcode.STATE: STREAM_STATE}

FLOOR_SEQUENCE = 0xF000_0000
"""PONG frames of room 0 from this sequence on are sweeps of the raw loop; their ``client_ms`` is the start in us."""

MAX_RECORDS = 400_000
"""Distinct frames remembered by one form of viewer; then the oldest half is forgotten."""
MAX_TOLD = 20
"""Violations told in full by one process; all are counted."""
SETTLE_US = 5_000_000
"""Age at which a frame's copies are counted; later ones (of slow readers) are counted at the end."""
MAX_VALUES = 100_000
"""Latencies of one frame (arrivals times messages in it) that are counted one by one; above, arrivals are binned."""


class Record:
    """One distinct frame and the arrivals of its copies since the last flush."""

    __slots__ = (
        "arrivals", "before", "born_us", "copies", "danmaku", "lane", "length", "published", "raw", "room", "sequence",
        "stream",
    )  # fmt: skip

    def __init__(self, stream: int, lane: str, length: int, room: int, sequence: int) -> None:
        self.stream = stream
        self.lane = lane
        self.length = length
        self.room = room
        self.sequence = sequence
        self.before = sequence - 1
        """What a link that misses nothing has heard last in this stream."""
        self.arrivals = array("q")
        """Nanoseconds of CLOCK_MONOTONIC, as they come from the clock."""
        self.published: list[int] = []
        """Times (us) at which the schedule wanted the messages inside to be sent."""
        self.danmaku = 0
        self.copies = 0
        self.raw: bytes | None = None
        self.born_us = 0


class Form:
    """Viewers that get the same bytes: one framing, tier and manner of reading (healthy or slow)."""

    def __init__(self, tier: Tier, slow: bool) -> None:
        self.tier = tier
        self.slow = slow
        self.seen: dict[bytes, Record] = {}


class RoomBook:
    """What one room has said, as its receivers heard it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.index = int(name.rpartition("-")[2]) if name.rpartition("-")[2].isdigit() else -1
        self.ticks: dict[Tier, dict[int, int]] = {tier: {} for tier in Tier}
        """Tier -> tick number -> danmaku in it."""
        self.owners: dict[tuple[Tier, int], Form] = {}
        self.parts: dict[tuple[Tier, int], list[int]] = {}
        self.account = [0] * 6
        """Sum of the accounts of the FULL tier's ticks."""
        self.events: dict[int, int] = {}
        """Offset -> lane."""
        self.gifts = 0
        self.gift_cents = 0
        self.likes = 0
        self.state_sequence = -1
        self.online = 0
        self.state_accounts: list[list[int]] = []

    def report(self) -> dict[str, Any]:
        """Totals as JSON."""
        by_lane = [0] * len(Lane)
        for lane in self.events.values():
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


class Books:
    """The books of one receiving process. ``origin_us``: when the run's schedule begins; ``wall_offset_us``: what to
    take from a Unix time in microseconds to get this clock's."""

    def __init__(self, origin_us: int, wall_offset_us: int) -> None:
        self.origin_us = origin_us
        self.forms: list[Form] = []
        self.rooms: dict[int, RoomBook] = {}
        self.violations: list[str] = []
        self.violated = 0
        self.copies: dict[str, int] = {}
        """Frames by ``opcode/lane``, all copies."""
        self.nbytes = 0
        self.danmaku_copies = 0
        """Danmaku delivered: entries times copies."""
        self.compared = 0
        self.pulse: dict[int, list[int]] = {}
        """Second -> [longest tick interval in ms, highest overload stage] that the broker told."""
        self._wall_offset_us = wall_offset_us
        self._latencies: dict[str, Latencies] = {}
        self.series = SecondSeries(origin_us)
        self._numbers: set[int] = set()
        self._fresh: deque[tuple[Form, Record]] = deque()

    def form(self, tier: Tier, slow: bool) -> Form:
        """A new form of viewer."""
        form = Form(tier, slow)
        self.forms.append(form)
        return form

    def violate(self, sentence: str) -> None:
        """Note a broken rule."""
        self.violated += 1
        if len(self.violations) < MAX_TOLD:
            self.violations.append(sentence)

    def joined(self, number: int, snapshot: Joined) -> RoomBook:
        """A link has entered a room."""
        book = self.rooms.get(number)
        if book is None:
            book = self.rooms[number] = RoomBook(snapshot.room_name)
        elif book.name != snapshot.room_name:
            self.violate(f"room number {number} is {book.name} and {snapshot.room_name}")
        return book

    def name_room(self, number: int, name: str) -> None:
        """A room that viewers of this process are in without having joined (a crowd's)."""
        self.rooms[number] = RoomBook(name)

    def forget(self) -> None:
        """Begin anew: frames seen before, and what was wrong with them, count for nothing."""
        self._fresh.clear()
        for form in self.forms:
            form.seen.clear()
        self.rooms = {number: RoomBook(book.name) for number, book in self.rooms.items()}
        self.violations, self.violated = [], 0
        self.copies.clear()
        self.nbytes = self.danmaku_copies = 0

    # ---- first copies

    def first(self, form: Form, key: bytes, raw: bytes, now: int) -> Record:
        """Decode the first copy of a frame that goes to a whole room (EVENT, TICK, STATE) or of a floor sweep."""
        header = parse_header(raw)
        stream = _STREAMS.get(header.opcode, SINGLE)
        record = Record(stream, LANES[header.lane], header.length, header.room, header.sequence)
        record.raw = raw
        record.born_us = now
        form.seen[key] = record
        self._fresh.append((form, record))
        if len(form.seen) > MAX_RECORDS:
            self.flush()
            for old in list(form.seen)[: MAX_RECORDS // 2]:
                del form.seen[old]
        body = raw[HEADER_BYTES:]
        try:
            fields = unpack_body(decompress(body, header.codec) if header.codec else body)
            if stream == SINGLE:
                record.lane = "floor c" if header.sequence % 2 else "floor"
                record.published = [fields[0]]
                return record
            message = reader_of(Side.SERVER, header.opcode)(fields)
        except (RemoteProtocolError, FieldError) as error:
            self.violate(f"a frame of opcode {header.opcode.name}, sequence {header.sequence} does not decode: {error}")
            return record
        book = self.rooms.get(header.room)
        if book is None:
            self.violate(f"a {header.opcode.name} of room {header.room}, which nobody here has joined")
            return record
        if isinstance(message, Tick):
            self._first_tick(form, book, record, message, now)
        elif isinstance(message, Event):
            self._first_event(book, record, message, header.lane)
        elif isinstance(message, State):
            self._first_state(book, record, message, now)
        return record

    def _first_tick(self, form: Form, book: RoomBook, record: Record, tick: Tick, now: int) -> None:
        self._feel_pulse(now, tick.interval_ms, tick.stage)
        stamps = [stamp for entry in tick.entries if (stamp := _stamp_of(entry.payload)) is not None]
        record.published = [self.origin_us + stamp.due_us for stamp in stamps]
        record.danmaku = len(tick.entries)
        key = (form.tier, record.sequence)
        if book.owners.setdefault(key, form) is not form:
            return
        weights = book.ticks[form.tier]
        weights[record.sequence] = weights.get(record.sequence, 0) + len(tick.entries)
        self._check_leaks(book, stamps)
        parts = book.parts.setdefault(key, [0, 0])
        parts[0] += len(tick.entries)
        parts[1] += sum(entry.count - 1 for entry in tick.entries)
        account = tick.account
        if account.admitted:
            del book.parts[key]
            where = f"tick {record.sequence} of {book.name} (tier {int(form.tier)})"
            if account.admitted != sum(account[1:]):
                self.violate(f"{where}: the account does not balance: {tuple(account)}")
            if [account.shown, account.merged] != parts:
                self.violate(f"{where}: says {account.shown} shown, {account.merged} merged, but holds {tuple(parts)}")
            if form.tier is Tier.FULL:
                book.account = [total + part for total, part in zip(book.account, account, strict=True)]
        if form.tier is Tier.FULL:
            for stamp in stamps:
                if stamp.number in self._numbers:
                    self.violate(f"{where_of(book, record)}: danmaku {stamp.number} is shown twice")
                self._numbers.add(stamp.number)

    def _first_event(self, book: RoomBook, record: Record, event: Event, lane: Lane) -> None:
        stamp = _stamp_of(event.payload)
        if stamp is not None:
            record.published = [self.origin_us + stamp.due_us]
            self._check_leaks(book, [stamp])
        if record.sequence in book.events:
            return
        book.events[record.sequence] = int(lane)
        if event.type == MessageType.GIFT:
            book.gifts += event.payload[4]
            book.gift_cents += event.payload[4] * event.payload[5]

    def _first_state(self, book: RoomBook, record: Record, state: State, now: int) -> None:
        self._feel_pulse(now, state.interval_ms, state.stage)
        record.published = [state.at_ms * 1000 - self._wall_offset_us]
        for lane, account in zip(LANES, state.accounts, strict=False):
            if account.admitted != sum(account[1:]):
                self.violate(f"{where_of(book, record)}: the account of lane {lane} does not balance: {tuple(account)}")
        if record.sequence > book.state_sequence:
            if state.likes < book.likes:
                self.violate(f"{where_of(book, record)}: likes fell from {book.likes} to {state.likes}")
            book.state_sequence = record.sequence
            book.likes = state.likes
            book.online = state.online
            book.state_accounts = [list(account) for account in state.accounts]

    def _check_leaks(self, book: RoomBook, stamps: list[Stamp]) -> None:
        for stamp in stamps:
            if stamp.room != book.index:
                self.violate(f"message {stamp.number} was sent to room bench-{stamp.room} and arrived in {book.name}")

    def _feel_pulse(self, now: int, interval_ms: int, stage: int) -> None:
        second = (now - self.origin_us) // 1_000_000
        beat = self.pulse.setdefault(second, [0, 0])
        beat[0] = max(beat[0], interval_ms)
        beat[1] = max(beat[1], stage)

    # ---- copies

    def compare(self, record: Record, raw: bytes) -> None:
        """A sampled link's copy: its bytes must be those that were decoded."""
        self.compared += 1
        if record.raw is not None and raw != record.raw:
            self.violate(f"two copies of frame {record.sequence} of room {record.room} differ")

    def settle(self, now: int, budget_us: int) -> None:
        """Move arrivals of frames older than `SETTLE_US` into histograms, for at most ``budget_us``.

        Meant for idle moments: counting while frames wait would be measured as their latency.
        """
        fresh = self._fresh
        end = time.monotonic_ns() // 1000 + budget_us
        while fresh and fresh[0][1].born_us + SETTLE_US < now:
            form, record = fresh.popleft()
            self._count(form, record)
            record.raw = None
            if time.monotonic_ns() // 1000 > end:
                return

    def flush(self) -> None:
        """Move every arrival into the histograms."""
        self._fresh.clear()
        left = [
            (record.arrivals[0], form, record)
            for form in self.forms
            for record in form.seen.values()
            if record.arrivals
        ]
        for _, form, record in sorted(left, key=lambda each: each[0]):
            self._count(form, record)
        self.series.close()

    def _count(self, form: Form, record: Record) -> None:
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
        # At least 256 bins, 4,096 for a frame with one message: a sweep of 1 s is then exact to 0.25 ms.
        bins_wanted = max(256, min(4096, MAX_VALUES // len(record.published)))
        shift = max(0, (int(arrivals.max()) - first).bit_length() - bins_wanted.bit_length() + 1)
        counts = np.bincount((arrivals - first) >> shift)
        bins = np.nonzero(counts)[0]
        times = (bins << shift) + first + ((1 << shift) >> 1)
        values = times[:, None] - np.array(record.published, dtype=np.int64)[None, :]
        weights = np.repeat(counts[bins], len(record.published))
        lane = f"slow {record.lane}" if form.slow else record.lane
        self.latencies(lane).record_many(values, weights)
        self.series.add(lane, values, first, weights)

    def latencies(self, name: str) -> Latencies:
        """The histogram called ``name``."""
        found = self._latencies.get(name)
        if found is None:
            found = self._latencies[name] = Latencies()
        return found

    def volume_bytes(self) -> int:
        """Bytes of all copies so far, counted or not."""
        waiting = sum(len(record.arrivals) * record.length for form in self.forms for record in form.seen.values())
        return self.nbytes + waiting

    def copies_by_room(self) -> dict[int, list[list[int]]]:
        """Room -> per stream (event, tick, state): [distinct frames, copies]. Flush first."""
        found: dict[int, list[list[int]]] = {}
        for form in self.forms:
            for record in form.seen.values():
                if record.stream != SINGLE:
                    row = found.setdefault(record.room, [[0, 0], [0, 0], [0, 0]])[record.stream]
                    row[0] += 1
                    row[1] += record.copies
        return found

    def report(self) -> dict[str, Any]:
        """Everything as JSON; flushes first."""
        self.flush()
        return {
            "copies": self.copies,
            "bytes": self.nbytes,
            "danmaku_copies": self.danmaku_copies,
            "compared": self.compared,
            "latencies": {name: latencies.encode() for name, latencies in self._latencies.items()},
            "series": self.series.rows,
            "pulse": self.pulse,
            "rooms": [book.report() for book in self.rooms.values()],
            "violations": self.violations,
            "violated": self.violated,
        }


def where_of(book: RoomBook, record: Record) -> str:
    """A frame in words."""
    kind = ("event", "tick", "state", "frame")[record.stream]
    return f"{kind} {record.sequence} of {book.name}"


def _stamp_of(payload: Any) -> Stamp | None:
    """The stamp of a danmaku, announcement or gift: its first field is the text (the order's number) that ends in
    it."""
    if isinstance(payload, tuple) and payload and isinstance(payload[0], str):
        return read_stamp(payload[0])
    return None
