"""Durability of rooms: how a `Record` is written to the ledger, and the position of every room's stream.

A room's stream has one epoch for as long as its offsets go on: through idle times, crashes and restarts. Only a room
that was ended begins a new one. So a client that returns with a position gets what is missing, or learns exactly what
is not there any more.

Checkpoints (phase, likes, peak) are written beside the stream, with each change of phase and every second; they
are not acknowledged to any client, so losing the last one breaks no promise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import structlog
import trio

from broker.core.commerce.room_activities import ActivityBatch, ActivityKind, RoomActivities
from broker.core.commerce.room_rankings import GIFTS, StoredScore
from broker.core.rooms.bans import BanTable
from broker.core.rooms.effects import Effect, Record
from broker.core.rooms.idempotency import KEY_REUSED, FirstUse, OperationKey, StoredResult
from broker.core.rooms.keys import KeySpace
from broker.core.rooms.state import RoomState
from broker.core.rooms.stream import StoredEvent
from broker.core.tenants.names import plain_name
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
from broker.ledger.orders import ORDER_KIND, Order, StoredOrder, pack_order
from broker.ledger.records import remove_records
from broker.rooms.activity_records import DirectSink, batch_items, read_activities, read_all_activities
from broker.rooms.ban_records import ban_removal, read_bans
from broker.rooms.combo_records import combo_items
from broker.rooms.highlight_records import highlight_items, highlight_removals
from broker.rooms.key_records import StoredKeys, key_items, key_removals, read_room_keys
from broker.rooms.reports import RoomReports
from broker.rooms.room_checkpoints import MAX_CHECKPOINTS, RoomCheckpoint, add_records, add_uncounted, read_checkpoints
from broker.rooms.score_records import MAX_SCORES, refund_items, score_items, score_removals
from protocol.codes import MessageType, Outcome, RoomPhase
from protocol.frames import pack_body, unpack_body
from protocol.messages import Event

__all__ = ["KeyReused", "RoomJournal", "RoomStore"]

log = structlog.get_logger("roomcast.room_store")

RECORD_RETRY_MS = 2000
"""When a client repeats what the ledger could not take."""
SUBMIT_AGAIN_S = 3600.0
"""How often a room that has something to do at a time submits a checkpoint that has not changed."""


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
    ) -> None:
        """``directs``: the inboxes of users; ``kinds``: of activities that rooms may have."""
        self.ledger = ledger
        self.directs = directs
        self.kinds = {} if kinds is None else kinds
        self.reports = reports
        self.key_space = KeySpace() if key_space is None else key_space
        """Space of the keys of all rooms, with a task or without."""
        self.bans = BanTable()
        """Users who may not enter a room for a while."""
        self._unix_ms = unix_ms
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
        body = pack_body(event if record.audience is None else (*event, record.audience))
        items: list[Item] = [Entry(room, epoch, record.lane, event.type, event.at_ms, body)]
        items += key_items(room, event)
        items += combo_items(room, epoch, record)
        items += highlight_items(room, epoch, record)
        if event.type == MessageType.ROOM_PHASE:
            if event.payload[0] == RoomPhase.ENDED:
                items.append(RoomEnded(room, epoch, event.at_ms))
                items += key_removals(room, key_names)
        if totals and not (event.type == MessageType.ROOM_PHASE and event.payload[0] == RoomPhase.ENDED):
            items.append(RoomCheckpointed(room, epoch, event.at_ms, totals))
        for asked in record.asked:
            if asked.gift is not None:
                order = Order(*asked.gift, shown_as=event.payload[0])
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
        """Add what batches write to the items of a submission; return what is to get its result."""
        directs: list[DirectEntry] = []
        report = None if self.reports is None else self.reports.rows
        for made in batches:
            facts, messages, rows = batch_items(room, epoch, made, at_ms, self.directs, report)
            items += (*facts, *messages, *rows)
            directs += messages
        return partial(self._on_directs, directs, on_result) if directs else on_result

    def _on_directs(
        self, directs: Sequence[DirectEntry], on_result: Callable[[LedgerResult], None], result: LedgerResult
    ) -> None:
        on_result(result)
        if isinstance(result, Committed) and self.directs is not None:
            self.directs.written(directs, result.direct_ids)

    async def read_activities(self, room: str, epoch: int) -> RoomActivities[Any]:
        """Return the activities of a stream as the ledger has them. What `Ledger.ask` raises."""
        return await self.ledger.ask(read_activities, self.kinds, room, epoch)

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
        now_ms = self._unix_ms()
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
        now_ms = self._unix_ms()
        items: list[Item] = [RoomCheckpointed(room, epoch, now_ms, totals)]
        items += score_items(room, epoch, scores, now_ms)
        return self.ledger.record(items, on_result)

    def close(self, room: str, checkpoint: RoomCheckpoint) -> None:
        """Keep the checkpoint of a room whose task has ended and whose stream goes on."""
        self._checkpoints.pop(room, None)
        self._checkpoints[room] = checkpoint
        if len(self._checkpoints) > MAX_CHECKPOINTS:
            oldest = next(iter(self._checkpoints))
            self._forget_keys(oldest, self._checkpoints.pop(oldest).keys)
        self._write(RoomCheckpointed(room, checkpoint.epoch, self._unix_ms(), checkpoint.totals))

    def _forget_keys(self, room: str, keys: StoredKeys) -> None:
        """Remove the keys of a room that nothing knows any more. A ledger that cannot write keeps them until then."""
        self.key_space.take(-keys.nbytes)
        if keys.last_version:
            remove_records(self.ledger, key_removals(room, [key.name for key in keys.keys]))

    def replace(self, room: str, checkpoint: RoomCheckpoint) -> None:
        """Put another checkpoint in place of that of a room without a task; its totals are written."""
        before, self._checkpoints[room] = self._checkpoints[room], checkpoint
        self.key_space.take(checkpoint.keys.nbytes - before.keys.nbytes)
        if checkpoint.totals != before.totals:
            self._write(RoomCheckpointed(room, checkpoint.epoch, self._unix_ms(), checkpoint.totals))

    def names(self) -> list[str]:
        """Return the names of the rooms without a task of which there is a checkpoint."""
        return list(self._checkpoints)

    def end(self, room: str, epoch: int, *, unused: bool) -> None:
        """Write that a stream has ended; the next room of that name begins a new epoch.

        ``unused``: nothing was posted in it; else the event that ended it has been written, and reported with it.
        """
        self._checkpoints.pop(room, None)
        now_ms = self._unix_ms()
        if unused and self.reports is not None:
            self._reports_of_ends[room, epoch] = self.reports.ended_unused(room, epoch, now_ms)
        self._write(RoomEnded(room, epoch, now_ms))

    def with_activities(self) -> list[str]:
        """Return the rooms without a task whose activities may have something to do."""
        return [
            room
            for room, checkpoint in self._checkpoints.items()
            if checkpoint.activities is not None and checkpoint.activities.has_deadline
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
        since_ms = self._unix_ms() - round(history_s * 1000)
        found = await self.ledger.ask(read_checkpoints, since_ms, history_entries)
        self.bans.restore(await self.ledger.ask(read_bans))
        remove_records(self.ledger, [ban_removal(ban) for ban in self.bans.sweep(self._unix_ms())])
        for room, keys in (await self.ledger.ask(read_room_keys)).items():
            self.key_space.take(keys.nbytes)
            if room in found:
                found[room] = found[room]._replace(keys=keys)
            else:
                self._forget_keys(room, keys)
        for (room, epoch), activities in (await self.ledger.ask(read_all_activities, self.kinds)).items():
            if room in found and found[room].epoch == epoch:
                found[room] = found[room]._replace(activities=activities)
        await self.ledger.ask(add_uncounted, found)
        for removals in await self.ledger.ask(add_records, found):
            remove_records(self.ledger, removals)
        self._checkpoints.update(found)
        if found:
            log.info("rooms restored", rooms=len(found), events=sum(len(each.events) for each in found.values()))

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


class RoomJournal:
    """The durable side of one open room: its epoch, its records in order, its checkpoints.

    Without a store (no ledger) nothing is durable, and a checkpoint exists as long as the hub keeps it. ``perform``
    gets the effects of every result; ``on_due`` is called after one that changes when the room's next tick is due;
    ``on_crash`` when one of them fails.
    """

    def __init__(
        self,
        store: RoomStore | None,
        room: str,
        state: RoomState[Any],  # Any: the reply addresses are the room's own business
        clock: Callable[[], float],
        *,
        perform: Callable[[Iterable[Effect[Any]]], None],
        on_due: Callable[[], None],
        on_crash: Callable[[], None],
    ) -> None:
        self.state = state
        self.pending = 0
        """Records that the ledger has not answered yet."""
        self._store = store
        self._room = room
        self._clock = clock
        self._perform = perform
        self._on_due = on_due
        self._on_crash = on_crash
        self._totals = state.totals()
        """What the last checkpoint holds."""
        self._pending_changes: list[Event] = []
        """Events that change what a checkpoint holds and whose results are to come, in order: a checkpoint that is
        submitted meanwhile is written after them, and must not bring back what was before."""
        self._submitted = self._totals if state.is_unused else b""
        """Of them, what the ledger has taken. A room that goes on writes them once more: the ledger may not have had
        the space when the room was closed."""
        self._submitted_at = clock()
        """When a checkpoint was submitted last: monotonic seconds."""
        self._last_offset = state.last_offset
        """Of the last committed event."""
        self._all_answered: trio.Event | None = None
        self._waiting_for_epoch: list[Callable[[], None]] | None = None
        """Called when the room's epoch is durable; None once it is, or has failed."""
        self._has_durable_epoch = True

    # ---- the epoch

    def open_epoch(self) -> None:
        """Make a new epoch durable. Where the ledger cannot, the room is open all the same and tries again later."""
        if self._store is not None:
            self._waiting_for_epoch = []
            self._has_durable_epoch = False
            if self._store.open_epoch(self._room, self.state.epoch, self._on_epoch) is not SubmitResult.QUEUED:
                self._waiting_for_epoch = None

    def when_durable(self, call: Callable[[], None]) -> bool:
        """Call back when the epoch is durable, and return True; False if it is now. Bounded by those who join."""
        if self._waiting_for_epoch is None:
            return False
        self._waiting_for_epoch.append(call)
        return True

    def _on_epoch(self, result: LedgerResult) -> None:
        self._has_durable_epoch = not isinstance(result, LedgerError)
        waiting, self._waiting_for_epoch = self._waiting_for_epoch or (), None
        for call in waiting:
            call()

    # ---- records

    def record(self, record: Record[Any]) -> None:
        """Submit an event to the ledger; its effects are performed with the ledger's result, or a refusal's now."""
        assert self._store is not None, "only a room with a ledger has durable rules"
        phase = RoomPhase(record.event.payload[0]) if record.event.type == MessageType.ROOM_PHASE else None
        changes_totals = record.event.type in (MessageType.ROOM_PHASE, MessageType.PINS_CHANGED)
        totals = self.state.totals(*self._pending_changes, record.event) if changes_totals else b""
        on_result = partial(self._on_result, record, totals)
        names = self.state.keys.names if phase is RoomPhase.ENDED else ()
        submitted = self._store.record(self._room, self.state.epoch, record, totals, on_result, names)
        if submitted is SubmitResult.QUEUED:
            self.pending += 1
            if changes_totals:
                self._pending_changes.append(record.event)
        else:
            self._perform(self.state.refused(record, RECORD_RETRY_MS, self._clock()))

    def _on_result(self, record: Record[Any], totals: bytes, result: LedgerResult) -> None:
        """Perform what a result means. Results come in the order of the records.

        ``totals``: what was written with it; a room that has crashed meanwhile must not write older ones over it.
        """
        assert self._store is not None
        now = self._clock()
        self.pending -= 1
        if totals:
            del self._pending_changes[0]
            if not isinstance(result, Committed):
                self._submitted = b""  # a later record may have counted it: the next checkpoint is right
        try:
            match result:
                case Committed(offsets):
                    self._last_offset = offsets[0]
                    if totals:
                        self._totals = self._submitted = totals
                    effects = self.state.committed(record, offsets[0], now)
                case Repeated():
                    known = self._store.first_results(self._room, record, result)
                    effects = self.state.repeated(record, known, now)
                case _:
                    effects = self.state.refused(record, RECORD_RETRY_MS, now)
            self._perform(effects)
            if totals or record.batches or record.event.type in (MessageType.MESSAGES_DELETED, MessageType.GIFT):
                self._on_due()
        except Exception:
            self._on_crash()
        if not self.pending and self._all_answered is not None:
            self._all_answered.set()

    def record_batch(self, made: ActivityBatch) -> None:
        """Submit a batch of an activity that has no event; its effects are performed with the ledger's result."""
        assert self._store is not None, "only a room with a ledger has activities"
        at_ms = 0 if self.state.activities.activities is None else self.state.activities.activities.times.now_ms
        on_result = partial(self._on_batch, made)
        if self._store.record_batch(self._room, self.state.epoch, made, at_ms, on_result) is SubmitResult.QUEUED:
            self.pending += 1
        else:
            self._perform(self.state.activities.refused((made,), self._clock()))

    def _on_batch(self, made: ActivityBatch, result: LedgerResult) -> None:
        """Perform what the result of a batch means. Results come in the order of the submissions."""
        self.pending -= 1
        try:
            steps = self.state.activities
            done = steps.committed if isinstance(result, Committed) else steps.refused
            self._perform(done((made,), self._clock()))
            self._on_due()
        except Exception:
            self._on_crash()
        if not self.pending and self._all_answered is not None:
            self._all_answered.set()

    def refund(
        self, order: StoredOrder, reason: str, at_ms: int, on_done: Callable[[LedgerResult], None]
    ) -> SubmitResult:
        """Submit the refund of an order, which leaves the rankings of its stream with the commit."""
        assert self._store is not None
        rankings = self.state.rankings
        score = None
        if order.epoch == self.state.epoch:
            left = rankings[GIFTS].score_of(order.user) - order.cents
            score = StoredScore(GIFTS, order.user, left, self._last_offset)

        def on_result(result: LedgerResult) -> None:
            if isinstance(result, Committed) and score is not None:
                rankings.add(GIFTS, order.user, -order.cents, self._last_offset)
                self._on_due()
            on_done(result)

        items = refund_items(self._room, self.state.epoch, order, reason, score, at_ms)
        return self._store.ledger.record(items, on_result, (order.refund_key,))

    async def first_use(self, key: OperationKey) -> FirstUse | None:
        """Return where an operation took effect whose key the ledger knows. KeyReused, and what `Ledger.ask` raises."""
        if self._store is None:
            return None
        return await self._store.first_use(self._room, self.state.epoch, key)

    async def wait_answered(self) -> None:
        """Wait until the ledger has answered every record of this room."""
        while self.pending:
            self._all_answered = trio.Event()
            await self._all_answered.wait()

    # ---- checkpoints

    def checkpoint(self) -> None:
        """Submit phase and totals, if they are not what the ledger has taken last."""
        if self._store is not None:
            if not self._has_durable_epoch and self._waiting_for_epoch is None:
                self.open_epoch()
            if self._pending_changes:
                return
            totals = self._totals = self.state.totals()
            now = self._clock()
            # The ledger ends a room without an entry for long, also one that waits for a deadline.
            is_due = self.state.activities.is_busy and now >= self._submitted_at + SUBMIT_AGAIN_S
            scores = self.state.rankings.take_changes(MAX_SCORES, self._last_offset)
            if totals != self._submitted or is_due or scores:
                self._submitted_at = now
                on_result = partial(self._on_checkpoint, scores=scores)
                result = self._store.checkpoint(self._room, self.state.epoch, totals, on_result, scores)
                if result is SubmitResult.QUEUED:
                    self._submitted = totals
                else:
                    self.state.rankings.put_back(scores)

    def remove_records(self) -> None:
        """Remove the scores of the rankings and the highlights: the stream has ended."""
        if self._store is not None:
            state, name = self.state, self._room
            removals = score_removals(name, state.epoch, state.rankings.dump())
            removals += highlight_removals(name, state.epoch, state.highlights.dump())
            remove_records(self._store.ledger, removals)

    def write_totals(self, on_done: Callable[[bool], None]) -> None:
        """Submit the totals now; ``on_done`` gets whether they are durable. Without a ledger they are kept as they are.

        What is not durable now is in the next checkpoint.
        """
        if self._store is None:
            on_done(True)
            return
        totals = self._totals = self.state.totals(*self._pending_changes)

        def on_result(result: LedgerResult) -> None:
            self._on_checkpoint(result)
            on_done(not isinstance(result, LedgerError))

        if self._store.checkpoint(self._room, self.state.epoch, totals, on_result) is SubmitResult.QUEUED:
            self._submitted = totals
        else:
            on_done(False)

    def _on_checkpoint(self, result: LedgerResult, scores: Sequence[StoredScore] = ()) -> None:
        if isinstance(result, LedgerError):
            self._submitted = b""  # the next one writes them again
            self.state.rankings.put_back(scores)

    def keep_totals(self) -> None:
        """Keep phase and totals for the last checkpoint while they are those of an open room."""
        if self.state.phase is not RoomPhase.ENDED:
            self._totals = self.state.totals()

    def last_checkpoint(self, *, with_events: bool) -> RoomCheckpoint:
        """Return where the stream stands, for the next room of this name.

        ``with_events``: with what the in-memory history holds, for after a crash all members come back at once.
        """
        self.keep_totals()
        state = self.state
        last_offset = state.last_offset if self._store is None else self._last_offset
        events: Sequence[StoredEvent] | None = None
        if with_events and state.last_offset == last_offset:
            events = state.events_since(state.epoch, state.first_offset - 1, self._clock())
        keys = StoredKeys(state.keys.dump(), state.keys.last_version)
        activities = state.activities.activities
        kept = activities if activities is not None and len(activities) else None
        return RoomCheckpoint(
            state.epoch, last_offset, self._totals, tuple(events or ()), keys, kept, state.gifts.dump(),
            state.rankings.dump(), state.highlights.dump(),
        )  # fmt: skip


def _key(room: str, epoch: int, key: OperationKey, outcome: Outcome) -> Key:
    """Return the ledger's key. Orders and calls have one name in every room, and their room is part of their content;
    anything else belongs to the room it was sent to. A repetition learns the room and the epoch of the first."""
    parts = key.parts if key.is_in_all_rooms else ("room", room, *key.parts)
    return make_key(*parts, content=key.fingerprint, outcome=outcome, answer=pack_body((plain_name(room), epoch)))
