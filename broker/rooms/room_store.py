"""Between rooms and the ledger: how a `Record` is written down, and where every room stands when it comes back.

A room's stream has one epoch for as long as its offsets go on: through idle times, crashes and restarts. Only a room
that was ended begins a new one. So whoever returns with a position gets what is missing, or hears exactly what is not
there.

Notes (phase, likes, peak) are written beside the stream, with each change of phase and now and then; they are not
acknowledged to anybody, so losing the last one loses nothing that was promised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog

from broker.core.rooms.effects import PendingReply, Record
from broker.core.rooms.idempotency import FirstResult
from broker.core.rooms.stream import StoredEvent
from broker.ledger import (
    Entry,
    Item,
    Key,
    KeyResult,
    Ledger,
    LedgerError,
    LedgerResult,
    Reader,
    RoomEnded,
    RoomNoted,
    RoomOpened,
    StoredEntry,
    SubmitResult,
    make_key,
)
from broker.ledger.queries import LedgerQueries
from broker.ledger.replay import event_of
from protocol.codes import Lane, MessageType, Outcome, RoomPhase
from protocol.frames import pack_body

__all__ = ["RoomCheckpoint", "RoomHistory", "RoomStore"]

log = structlog.get_logger("roomcast.room_store")

MAX_STANDINGS = 100_000
"""Rooms without a task whose position is remembered, about 300 bytes each; beyond, the longest unused is forgotten."""
MAX_RINGS = 1000
"""Rooms whose newest events are read at the start, so that a wave of resumes after a restart needs no disk."""


class RoomCheckpoint(NamedTuple):
    """Where a room stands that has no task now."""

    epoch: int
    last_offset: int
    note: bytes
    past: tuple[StoredEvent, ...] = ()
    """Its newest events, without a hole, up to ``last_offset``."""


class RoomStore:
    """Writes the records of all rooms; knows where those stand that are not open."""

    def __init__(self, ledger: Ledger, unix_ms: Callable[[], int]) -> None:
        self.ledger = ledger
        self._unix_ms = unix_ms
        self._standings: dict[str, RoomCheckpoint] = {}

    # ---- records (Any: a record's reply addresses are the room's own business)

    def record(
        self, room: str, epoch: int, record: Record[Any], note: bytes, on_settled: Callable[[LedgerResult], None]
    ) -> SubmitResult:
        """Hand a record to the ledger; ``note`` is written with a change of phase."""
        event = record.event
        items: list[Item] = [Entry(room, epoch, record.lane, event.type, event.at_ms, pack_body(event))]
        if event.type == MessageType.ROOM_PHASE:
            if event.payload[0] == RoomPhase.ENDED:
                items.append(RoomEnded(room, epoch, event.at_ms))
            else:
                items.append(RoomNoted(room, epoch, event.at_ms, note))
        return self.ledger.record(items, on_settled, [_key(room, asked) for asked in record.asked if asked.key])

    def first_results(self, room: str, record: Record[Any], first: Mapping[bytes, KeyResult]) -> dict[str, FirstResult]:
        """What the ledger knew of a record's keys, by the room's own names for them."""
        found = {}
        for asked in record.asked:
            stored = first.get(_key(room, asked).digest) if asked.key else None
            if stored is not None:
                found[asked.key] = FirstResult(Outcome(stored.outcome), stored.offset)
        return found

    # ---- lives of rooms

    def opened(self, room: str, epoch: int, on_settled: Callable[[LedgerResult], None]) -> SubmitResult:
        """A room has begun with a new epoch; nobody should hear of it before a crash would remember it."""
        return self.ledger.record((RoomOpened(room, epoch, self._unix_ms()),), on_settled)

    def noted(self, room: str, epoch: int, note: bytes) -> None:
        """A room goes on, and this is what it wants to find again."""
        self._tell(RoomNoted(room, epoch, self._unix_ms(), note))

    def closed(self, room: str, standing: RoomCheckpoint) -> None:
        """A room's task has ended, but not its stream."""
        self._standings.pop(room, None)
        self._standings[room] = standing
        if len(self._standings) > MAX_STANDINGS:
            del self._standings[next(iter(self._standings))]
        self.noted(room, standing.epoch, standing.note)

    def ended(self, room: str, epoch: int) -> None:
        """A room is over for good."""
        self._standings.pop(room, None)
        self._tell(RoomEnded(room, epoch, self._unix_ms()))

    def take(self, room: str) -> RoomCheckpoint | None:
        """Where a room stands that is opened now; its past is handed over."""
        return self._standings.pop(room, None)

    def knows(self, room: str) -> bool:
        """Whether a room without a task can be gone on with."""
        return room in self._standings

    def __len__(self) -> int:
        return len(self._standings)

    async def load(self, history_entries: int, history_s: float) -> None:
        """Find out where all rooms stand. At the start, before anybody is let in."""
        since_ms = self._unix_ms() - round(history_s * 1000)
        found = await self.ledger.ask(_read_standings, since_ms, history_entries)
        self._standings.update(found)
        if found:
            log.info("rooms restored", rooms=len(found), events=sum(len(each.past) for each in found.values()))

    def _tell(self, item: Item) -> None:
        self.ledger.record((item,), _told)


def _told(settled: LedgerResult) -> None:
    """Nobody waits for these; the ledger has told the log if the disk failed."""
    if isinstance(settled, LedgerError):
        log.debug("a room's note was not written", why=str(settled))


def _key(room: str, asked: PendingReply[Any]) -> Key:
    """An order is the same in every room; anything else a client says belongs to the room it was said in."""
    return make_key("" if asked.order_id else room, asked.key, outcome=asked.outcome)


def _read_standings(reader: Reader, since_ms: int, history_entries: int) -> dict[str, RoomCheckpoint]:
    """In the ledger's reading thread: every open stream, the longest unused first."""
    found: dict[str, RoomCheckpoint] = {}
    rings = 0
    for stored in reader.rooms(MAX_STANDINGS):
        past: Sequence[StoredEvent] = ()
        if stored.last_offset and stored.used_at_ms >= since_ms and rings < MAX_RINGS and history_entries:
            rings += 1
            past = _stored_events(reader.latest(stored.room, stored.epoch, since_ms, history_entries))
        if stored.room not in found:
            found[stored.room] = RoomCheckpoint(stored.epoch, stored.last_offset, stored.note, tuple(past))
    return dict(reversed(found.items()))


def _stored_events(entries: Sequence[StoredEntry]) -> list[StoredEvent]:
    """Stored events as a room remembers them: the newest ones without a hole, cut where one cannot be read."""
    pasts: list[StoredEvent] = []
    for entry in entries:
        event = event_of(entry)
        if event is None or entry.lane is None:
            pasts.clear()
        else:
            pasts.append(StoredEvent(entry.offset, Lane(entry.lane), event))
    return pasts


class RoomHistory:
    """Reads the events of a room that its in-memory history has no longer. Never waits.

    ``max_events`` and ``max_bytes``: bounds of one answer.
    """

    def __init__(self, queries: LedgerQueries, max_events: int, max_bytes: int) -> None:
        self._queries = queries
        self.max_events = max_events
        self._max_bytes = max_bytes

    @property
    def may_recover(self) -> bool:
        """Whether what could not be read now may be readable when it is asked for again."""
        return self._queries.may_recover

    def read(
        self,
        room: str,
        epoch: int,
        after: int,
        last: int,
        on_done: Callable[[Sequence[StoredEvent] | None], None],
    ) -> bool:
        """Ask for the events ``after + 1`` to ``last`` of a room.

        ``on_done`` gets all of them, an empty sequence if they cannot be had, or None if reading failed. Returns False
        if too many queries wait.
        """
        arguments = (room, epoch, after, last, self.max_events, self._max_bytes)
        return self._queries.submit(_read_events, arguments, on_done, if_damaged=())


def _read_events(
    reader: Reader, room: str, epoch: int, after: int, last: int, max_events: int, max_bytes: int
) -> Sequence[StoredEvent]:
    events = _stored_events(reader.history(room, epoch, after, last, max_events, max_bytes) or ())
    return events if len(events) == last - after else ()
