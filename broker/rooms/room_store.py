"""Durability of rooms: how a `Record` is written to the ledger, and the position of every room's stream.

A room's stream has one epoch for as long as its offsets go on: through idle times, crashes and restarts. Only a room
that was ended begins a new one. So a client that returns with a position gets what is missing, or learns exactly what
is not there any more.

Checkpoints (phase, likes, peak) are written beside the stream, with each change of phase and every second; they
are not acknowledged to any client, so losing the last one breaks no promise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import structlog

from broker.core.commerce.room_activities import ActivityBatch, ActivityKey, ActivityKind, RoomActivities
from broker.core.commerce.room_rankings import StoredScore
from broker.core.moderation.review import REVIEWS_KEY, ReviewQueue
from broker.core.moderation.review_space import ReviewSpace
from broker.core.rooms.effects import Record
from broker.core.rooms.idempotency import KEY_REUSED, FirstUse, OperationKey, StoredResult
from broker.core.rooms.keys import KeySpace
from broker.core.tenants.names import plain_name
from broker.core.users.preferences import PreferenceTable
from broker.ledger import (
    Committed,
    DirectEntry,
    Entry,
    Item,
    Key,
    Ledger,
    LedgerError,
    LedgerResult,
    OutboxEntry,
    Reader,
    Repeated,
    RoomCheckpointed,
    RoomEnded,
    RoomOpened,
    SubmitResult,
    make_key,
)
from broker.ledger.entries import ROOM_SAMPLED
from broker.ledger.orders import ORDER_KIND, Order, pack_order
from broker.ledger.records import remove_records
from broker.rooms.activity_records import DirectSink, Erasing, batch_items, read_activities, read_all_activities
from broker.rooms.combo_records import combo_items
from broker.rooms.highlight_records import highlight_items
from broker.rooms.key_records import StoredKeys, key_items, key_removals, read_room_keys
from broker.rooms.preference_records import read_preferences
from broker.rooms.reports import RoomReports
from broker.rooms.room_checkpoints import MAX_CHECKPOINTS, RoomCheckpoint, add_records, add_uncounted, read_checkpoints
from broker.rooms.score_records import score_items
from protocol.codes import MessageType, Outcome, RoomPhase
from protocol.frames import pack_body, unpack_body

__all__ = ["KeyReused", "RoomStore"]

log = structlog.get_logger("roomcast.room_store")

_PHASE = MessageType.ROOM_PHASE
_ITEMS: dict[int, Callable[[str, int, Record[Any]], list[Item]]] = {
    MessageType.KEYS_CHANGED: lambda room, epoch, record: key_items(room, record.event),
    MessageType.GIFT: combo_items,
    MessageType.HIGHLIGHT: highlight_items,
}
"""What an event writes beside itself, by its type."""


class KeyReused(Exception):
    """An idempotency key was used before with other content."""


class RoomStore:
    """Writes the records of all rooms; holds the checkpoints of those that are not open."""

    def __init__(
        self,
        ledger: Ledger,
        unix_ms: Callable[[], int],
        key_space: KeySpace | None = None,
        reports: RoomReports | None = None,
        directs: DirectSink | None = None,
        kinds: Mapping[str, ActivityKind] | None = None,
        review_space: ReviewSpace | None = None,
    ) -> None:
        """``directs``: the inboxes of users; ``kinds``: of activities that rooms may have."""
        self.ledger = ledger
        self.directs = directs
        self.kinds = {} if kinds is None else kinds
        self.erasing: Erasing = ()
        """Users whose erasure has begun and is not complete in the ledger."""
        self.reports = reports
        self.key_space = KeySpace() if key_space is None else key_space
        """Space of the keys of all rooms, with a task or without."""
        self.preferences = PreferenceTable()
        """What users prefer, as far as rooms have to know."""
        self.unix_ms = unix_ms
        self.review_space = ReviewSpace() if review_space is None else review_space
        """Of the review queues of all rooms, with a task or without."""
        self._checkpoints: dict[str, RoomCheckpoint] = {}
        self._unwritten: dict[tuple[str, int], RoomCheckpointed | RoomEnded] = {}
        """Last rows of closed rooms that the ledger could not take, by room and epoch: `write_again`."""
        self._reports_of_ends: dict[tuple[str, int], tuple[OutboxEntry, ...]] = {}
        """What is reported of streams whose end is not written yet."""

    # ---- records (Any: a record's reply addresses are the room's own business)

    def record(
        self,
        room: str,
        epoch: int,
        record: Record[Any],
        totals: bytes,
        on_result: Callable[[LedgerResult], None],
        key_names: Collection[str] = (),
    ) -> SubmitResult:
        """Submit a record to the ledger, with its orders and keys.

        ``totals`` are written with a change of phase or pins; ``key_names``: keys of the room, which go when it ends.
        """
        event = record.event
        body = record.packed or pack_body(event if record.audience is None else (*event, record.audience))
        items: list[Item] = [Entry(room, epoch, record.lane, event.type, event.at_ms, body)]
        beside = _ITEMS.get(event.type)
        if beside is not None:
            items += beside(room, epoch, record)
        if event.type == _PHASE and event.payload[0] == RoomPhase.ENDED:
            items.append(RoomEnded(room, epoch, event.at_ms))
            items += key_removals(room, key_names)
        elif totals:
            items.append(RoomCheckpointed(room, epoch, event.at_ms, totals))
        for asked in record.asked:
            if asked.gift is not None:
                order = Order(*asked.gift, event.payload[0])
                items.append(Entry(room, epoch, None, ORDER_KIND, event.at_ms, pack_order(order)))
        if self.reports is not None:
            items += self.reports.recorded(room, epoch, record)
        if record.batches:
            on_result = self._add_batches(items, room, epoch, record.batches, event.at_ms, on_result)
        keys = [_key(room, epoch, asked.key, asked.outcome) for asked in record.asked if asked.key is not None]
        return self.ledger.record(items, on_result, keys)

    def record_batch(
        self, room: str, epoch: int, made: ActivityBatch, at_ms: int, on_result: Callable[[LedgerResult], None]
    ) -> SubmitResult:
        """Submit a batch of an activity that has no event."""
        items: list[Item] = []
        on_result = self._add_batches(items, room, epoch, (made,), at_ms, on_result)
        return self.ledger.record(items, on_result)

    def _add_batches(
        self,
        items: list[Item],
        room: str,
        epoch: int,
        batches: Sequence[ActivityBatch],
        at_ms: int,
        on_result: Callable[[LedgerResult], None],
    ) -> Callable[[LedgerResult], None]:
        """Add what batches write to the items of a submission; return what is to get its result.

        Their facts come before the event: retention removes the oldest entries up to the first fact of an activity.
        """
        facts: list[Entry] = []
        directs: list[DirectEntry] = []
        report = None if self.reports is None else self.reports.rows
        for made in batches:
            entry, messages, rows = batch_items(room, epoch, made, at_ms, self.directs, report)
            facts.append(entry)
            items += (*messages, *rows)
            directs += messages
        items[:0] = facts
        return partial(self._on_directs, directs, on_result) if directs else on_result

    def _on_directs(
        self, directs: Sequence[DirectEntry], on_result: Callable[[LedgerResult], None], result: LedgerResult
    ) -> None:
        on_result(result)
        if isinstance(result, Committed) and self.directs is not None:
            self.directs.written(directs, result.direct_ids)

    async def read_activities(self, room: str, epoch: int) -> RoomActivities[Any]:
        """Return the activities of a stream as the ledger has them. What `Ledger.ask` raises."""
        return await self.ledger.ask(read_activities, self.kinds, room, epoch, self.erasing)

    def first_results(self, room: str, record: Record[Any], repeated: Repeated) -> dict[OperationKey, StoredResult]:
        """Return the first results that the ledger has for a record's keys; `KEY_REUSED` where the content differs."""
        found = {}
        for asked in record.asked:
            if asked.key is None:
                continue
            digest = _key(room, 0, asked.key, asked.outcome).digest
            stored = repeated.first.get(digest)
            if stored is None:
                continue
            first = None
            if stored.answer:
                first_room, epoch = unpack_body(stored.answer)
                first = FirstUse(first_room, epoch, stored.offset)
            if digest in repeated.reused:
                found[asked.key] = KEY_REUSED._replace(first=first)
            else:
                found[asked.key] = StoredResult(Outcome(stored.outcome), stored.offset, first)
        return found

    async def first_use(self, room: str, epoch: int, key: OperationKey) -> FirstUse | None:
        """Return where an operation took effect whose key the ledger knows; `KeyReused` where its content differs.

        What `Ledger.ask` raises.
        """
        digest, fingerprint, *_ = _key(room, epoch, key, Outcome.ACCEPTED)
        stored = await self.ledger.ask(Reader.first_result, digest)
        if stored is None:
            return None
        if stored.fingerprint != fingerprint:
            raise KeyReused
        first_room, first_epoch = unpack_body(stored.answer)
        return FirstUse(first_room, first_epoch, stored.offset)

    # ---- epochs and checkpoints

    def open_epoch(self, room: str, epoch: int, on_result: Callable[[LedgerResult], None]) -> SubmitResult:
        """Submit the new epoch of a room; no client may learn it before it is durable."""
        now_ms = self.unix_ms()
        rows = () if self.reports is None else self.reports.opened(room, epoch, now_ms)
        return self.ledger.record((RoomOpened(room, epoch, now_ms), *rows), on_result)

    def checkpoint(
        self,
        room: str,
        epoch: int,
        totals: bytes,
        on_result: Callable[[LedgerResult], None],
        scores: Sequence[StoredScore] = (),
    ) -> SubmitResult:
        """Submit the totals of an open room, and scores of its rankings."""
        now_ms = self.unix_ms()
        items: list[Item] = [RoomCheckpointed(room, epoch, now_ms, totals)]
        items += score_items(room, epoch, scores, now_ms)
        return self.ledger.record(items, on_result)

    def sample(self, room: str, epoch: int, body: bytes) -> SubmitResult:
        """Submit a sample of a room's counters, packed."""
        return self.ledger.record((Entry(room, epoch, None, ROOM_SAMPLED, self.unix_ms(), body),), lambda result: None)

    def close(self, room: str, checkpoint: RoomCheckpoint) -> None:
        """Keep the checkpoint of a room whose task has ended and whose stream goes on."""
        self._checkpoints.pop(room, None)
        self._checkpoints[room] = checkpoint
        if len(self._checkpoints) > MAX_CHECKPOINTS:
            oldest = next(iter(self._checkpoints))
            self._forget_keys(oldest, self._checkpoints.pop(oldest).keys)
        self._write(RoomCheckpointed(room, checkpoint.epoch, self.unix_ms(), checkpoint.totals))

    def _forget_keys(self, room: str, keys: StoredKeys) -> None:
        """Remove the keys of a room that nothing knows any more. A ledger that cannot write keeps them until then."""
        self.key_space.take(-keys.nbytes)
        if keys.last_version:
            remove_records(self.ledger, key_removals(room, [key.name for key in keys.keys]))

    def with_text(self, text: str) -> list[str]:
        """Return the rooms without a task whose checkpoint has a text in its totals, as the names of the authors of
        kept messages are. O(bytes of all)."""
        wanted = text.encode()
        return [name for name, checkpoint in self._checkpoints.items() if wanted in checkpoint.totals]

    def replace(self, room: str, checkpoint: RoomCheckpoint) -> None:
        """Put another checkpoint in place of that of a room without a task; its totals are written."""
        before, self._checkpoints[room] = self._checkpoints[room], checkpoint
        self.key_space.take(checkpoint.keys.nbytes - before.keys.nbytes)
        if checkpoint.totals != before.totals:
            self._write(RoomCheckpointed(room, checkpoint.epoch, self.unix_ms(), checkpoint.totals))

    def names(self) -> list[str]:
        """Return the names of the rooms without a task of which there is a checkpoint."""
        return list(self._checkpoints)

    def end(self, room: str, epoch: int, *, unused: bool) -> None:
        """Write that a stream has ended; the next room of that name begins a new epoch.

        ``unused``: nothing was posted in it; else the event that ended it has been written, and reported with it.
        """
        self._checkpoints.pop(room, None)
        self.review_space.use(room, 0, 0)
        now_ms = self.unix_ms()
        if unused and self.reports is not None:
            self._reports_of_ends[room, epoch] = self.reports.ended_unused(room, epoch, now_ms)
        self._write(RoomEnded(room, epoch, now_ms))

    def note_reviews(self, room: str, activities: RoomActivities[Any]) -> None:
        """Note what the review queue of a room holds now."""
        queue: ReviewQueue[Any] | None = activities.find(*REVIEWS_KEY)
        if queue is not None:
            self.review_space.use(room, *queue.size)

    def with_activities(self) -> list[str]:
        """Return the rooms without a task whose activities may have something to do."""
        return [
            room
            for room, checkpoint in self._checkpoints.items()
            if checkpoint.activities is not None and checkpoint.activities.has_something_to_do
        ]

    def with_activity(self, key: ActivityKey) -> list[str]:
        """Return the rooms without a task that have an activity in memory."""
        return [
            room
            for room, checkpoint in self._checkpoints.items()
            if checkpoint.activities is not None and checkpoint.activities.find(*key) is not None
        ]

    def take(self, room: str) -> RoomCheckpoint | None:
        """Remove and return the checkpoint of a room that is opened now. From here on the room writes it."""
        checkpoint = self._checkpoints.pop(room, None)
        if checkpoint is not None:
            self._unwritten.pop((room, checkpoint.epoch), None)
        return checkpoint

    def find(self, room: str) -> RoomCheckpoint | None:
        """Return the checkpoint of a room without a task, and keep it."""
        return self._checkpoints.get(room)

    def knows(self, room: str) -> bool:
        """Return whether there is a checkpoint of a room without a task."""
        return room in self._checkpoints

    def __len__(self) -> int:
        return len(self._checkpoints)

    async def ended_ago_s(self, within_s: float, continued_ms: int) -> dict[str, float]:
        """Return the rooms ended within seconds before ``continued_ms`` (`TrustedClock.continued_ms`), and the ages."""
        found = await self.ledger.ask(Reader.ended_rooms, continued_ms - round(within_s * 1000))
        return {room: (continued_ms - at_ms) / 1000 for room, at_ms in found.items()}

    async def load(self, history_entries: int, history_s: float) -> None:
        """Read the checkpoints of all rooms. At the start, before connections are accepted."""
        since_ms = self.unix_ms() - round(history_s * 1000)
        found = await self.ledger.ask(read_checkpoints, since_ms, history_entries)
        self.preferences.load(await self.ledger.ask(read_preferences))
        for room, keys in (await self.ledger.ask(read_room_keys)).items():
            self.key_space.take(keys.nbytes)
            if room in found:
                found[room] = found[room]._replace(keys=keys)
            else:
                self._forget_keys(room, keys)
        for (room, epoch), activities in (await self.ledger.ask(read_all_activities, self.kinds, self.erasing)).items():
            if room in found and found[room].epoch == epoch:
                found[room] = found[room]._replace(activities=activities)
                self.note_reviews(room, activities)
        await self.ledger.ask(add_uncounted, found)
        for removals in await self.ledger.ask(add_records, found):
            remove_records(self.ledger, removals)
        self._checkpoints.update(found)
        if found:
            log.info("rooms restored", rooms=len(found), events=sum(len(each.events) for each in found.values()))

    async def load_room(self, room: str, history_entries: int, history_s: float) -> bool:
        """Read the checkpoint of one room that other nodes have written; return whether its activities have something
        to do. As `load`."""
        self._checkpoints.pop(room, None)
        since_ms = self.unix_ms() - round(history_s * 1000)
        checkpoint = (await self.ledger.ask(read_checkpoints, since_ms, history_entries)).get(room)
        if checkpoint is None:
            return False
        keys = (await self.ledger.ask(read_room_keys)).get(room, StoredKeys())
        self.key_space.take(keys.nbytes)
        activities = await self.read_activities(room, checkpoint.epoch)
        found = {room: checkpoint._replace(keys=keys, activities=activities if len(activities) else None)}
        self.note_reviews(room, activities)
        await self.ledger.ask(add_uncounted, found)
        await self.ledger.ask(add_records, found)
        self._checkpoints.update(found)
        return activities.has_something_to_do

    @property
    def unwritten(self) -> int:
        """Last rows of closed rooms that the ledger could not take."""
        return len(self._unwritten)

    def write_again(self) -> None:
        """Submit again what the ledger could not take of closed rooms. Called with the checkpoints of the open ones."""
        unwritten, self._unwritten = self._unwritten, {}
        for item in unwritten.values():
            self._write(item)

    def _write(self, item: RoomCheckpointed | RoomEnded) -> None:
        rows = self._reports_of_ends.get((item.room, item.epoch), ())
        if self.ledger.record((item, *rows), partial(self._on_written, item)) is not SubmitResult.QUEUED:
            self._unwritten[item.room, item.epoch] = item

    def _on_written(self, item: RoomCheckpointed | RoomEnded, result: LedgerResult) -> None:
        is_current = isinstance(item, RoomEnded) or self._checkpoints.get(item.room) is not None
        if isinstance(result, LedgerError) and is_current:
            self._unwritten.setdefault((item.room, item.epoch), item)
        else:
            self._reports_of_ends.pop((item.room, item.epoch), None)


def _key(room: str, epoch: int, key: OperationKey, outcome: Outcome) -> Key:
    """Return the ledger's key. Orders and calls have one name in every room, and their room is part of their content;
    anything else belongs to the room it was sent to. A repetition learns the room and the epoch of the first."""
    parts = key.parts if key.is_in_all_rooms else ("room", room, *key.parts)
    return make_key(*parts, content=key.fingerprint, outcome=outcome, answer=_place(room, epoch))


@lru_cache(maxsize=4096)
def _place(room: str, epoch: int) -> bytes:
    """Return the answer that a key of a room holds: its plain name and epoch."""
    return pack_body((plain_name(room), epoch))
