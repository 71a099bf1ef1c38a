"""The durable side of one open room: its records in order, its epoch, and its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import trio

from broker.core.commerce.room_activities import ActivityBatch
from broker.core.commerce.room_rankings import GIFTS, StoredScore
from broker.core.moderation.review import REVIEWS_KEY
from broker.core.rooms.effects import Effect, Record
from broker.core.rooms.idempotency import FirstUse, OperationKey
from broker.core.rooms.modes import modes_of
from broker.core.rooms.samples import SAMPLE_EVERY_S, sample_of
from broker.core.rooms.state import RoomState
from broker.core.rooms.stream import StoredEvent
from broker.ledger import Committed, LedgerError, LedgerResult, Repeated, SubmitResult
from broker.ledger.orders import StoredOrder
from broker.ledger.records import remove_records
from broker.rooms.highlight_records import highlight_removals
from broker.rooms.key_records import StoredKeys
from broker.rooms.room_checkpoints import RoomCheckpoint
from broker.rooms.room_store import RoomStore
from broker.rooms.score_records import MAX_SCORES, refund_items, score_removals
from protocol.codes import MessageType, RoomPhase
from protocol.messages import Event

__all__ = ["RoomJournal"]

_PHASE = MessageType.ROOM_PHASE
_CHANGES_TOTALS = frozenset({MessageType.ROOM_PHASE, MessageType.PINS_CHANGED})
_CHANGES_DUE = frozenset({MessageType.MESSAGES_DELETED, MessageType.GIFT})
RECORD_RETRY_MS = 2000
"""When a client repeats what the ledger could not take."""
SUBMIT_AGAIN_S = 3600.0
"""How often a room that has something to do at a time submits a checkpoint that has not changed."""


class RoomJournal:
    """The durable side of one open room: its epoch, its records in order, its checkpoints.

    Without a store (no ledger) nothing is durable, and a checkpoint exists as long as the hub keeps it. ``perform``
    gets the effects of every result; ``on_due`` is called, with the monotonic time, after results that change when the
    room's next tick is due; ``on_crash`` when one of them fails; ``defer``: as `ResultBatch.defer`.
    """

    def __init__(
        self,
        store: RoomStore | None,
        room: str,
        state: RoomState[Any],  # Any: the reply addresses are the room's own business
        clock: Callable[[], float],
        *,
        perform: Callable[[Iterable[Effect[Any]]], None],
        on_due: Callable[[float], None],
        defer: Callable[[Callable[[], None]], bool],
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
        self._defer = defer
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
        self._run_ms = 0 if store is None else store.unix_ms()
        self._sampled = b""
        """Body of the last sample."""
        self._sample_at = clock() + SAMPLE_EVERY_S
        """When the next sample is due: monotonic seconds."""

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
        kind = record.event.type
        phase = RoomPhase(record.event.payload[0]) if kind == _PHASE else None
        changes_totals = kind in _CHANGES_TOTALS or modes_of(record.event) is not None
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
            if record.batches:
                self._note_reviews(record.batches)
            if totals or record.batches or record.event.type in _CHANGES_DUE:
                self._due_may_change()
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
            self._note_reviews((made,))
            self._due_may_change()
        except Exception:
            self._on_crash()
        if not self.pending and self._all_answered is not None:
            self._all_answered.set()

    def _due_may_change(self) -> None:
        """Find out when the room's next tick is due, once for all results of a slice."""
        if not self._defer(self._find_due):
            self._on_due(self._clock())

    def _find_due(self) -> None:
        try:
            self._on_due(self._clock())
        except Exception:
            self._on_crash()

    def _note_reviews(self, batches: Sequence[ActivityBatch]) -> None:
        """Note what the room holds for review after the results of batches."""
        activities = self.state.activities.activities
        if self._store is not None and activities is not None and any(made.key == REVIEWS_KEY for made in batches):
            self._store.note_reviews(self._room, activities)

    @property
    def is_review_full(self) -> bool:
        """Whether the room's tenant may hold no more messages for review."""
        return self._store is not None and self._store.review_space.is_full(self._room)

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
                self._due_may_change()
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
                    self._submitted = b""  # totals that have not changed are written with the scores
                    self.state.rankings.put_back(scores)

    @property
    def is_written(self) -> bool:
        """Whether the ledger has taken what the last `checkpoint` was to write."""
        return self._store is None or self.state.phase is RoomPhase.ENDED or self._totals == self._submitted

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

    def sample(self, *, is_now: bool = False, is_last: bool = False) -> None:
        """Submit the room's counters, where they have changed and it is time. ``is_now``: due or not; ``is_last``: the
        room's task ends.

        Nothing is made good where the ledger cannot take them: the next sample has what this one had.
        """
        now = self._clock()
        is_due = is_now or is_last or now >= self._sample_at
        if self._store is not None and is_due and not self.state.is_unused:
            self._sample_at = now + SAMPLE_EVERY_S
            body = sample_of(self.state, self._run_ms, is_last=is_last).pack()
            if body != self._sampled and self._store.sample(self._room, self.state.epoch, body) is SubmitResult.QUEUED:
                self._sampled = body

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
