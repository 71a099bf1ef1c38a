"""The stream of one room: how an event of lanes 0 to 2 gets its offset, becomes durable, and is answered once.

Write-ahead: `record` returns the effect `Record`, and nothing of the event happens before the ledger has reported
that it is on the disk. Then comes exactly one of `committed` (it has an offset: remember it, answer, publish),
`repeated` (a key was known: answer with the first result) and `refused` (the disk did not take it: answer "later").
Without a ledger (``durable`` false) `record` commits at once.

The committer assigns the offsets, not this module: so a commit that fails leaves no hole. While an event waits for its
commit it counts as ``held``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from broker.core.commerce.gifts import GiftCombo
from broker.core.commerce.room_activities import ActivityBatch
from broker.core.rooms.accounts import RoomAccounts
from broker.core.rooms.effects import Effect, PendingReply, Publish, Record, Reply
from broker.core.rooms.history import History
from broker.core.rooms.idempotency import FirstUse, IdempotencyTable, OperationKey, StoredResult
from protocol.activities.audiences import Audience
from protocol.codes import Lane, MessageType, Outcome
from protocol.frames import pack_body
from protocol.messages import Event

__all__ = ["BUSY_RETRY_MS", "StoredEvent", "Stream", "kept_bytes"]

T = TypeVar("T")

EXPECTED_EVENT_BYTES = 256
BUSY_RETRY_MS = 1000


class StoredEvent(NamedTuple):
    """One event of the stream, kept for those who come back. ``audience``: who it is for, None = all."""

    offset: int
    lane: Lane
    event: Event
    audience: Audience | None = None


_LARGE = frozenset({MessageType.KEYS_CHANGED, MessageType.PINS_CHANGED, MessageType.MEDIA, MessageType.ACTIVITY})


def kept_bytes(event: Event) -> int:
    """Return what an event costs to keep: measured where it may be large, else as expected."""
    return len(pack_body(event)) if event.type in _LARGE else EXPECTED_EVENT_BYTES


class Stream(Generic[T]):
    """Offsets, memory and idempotency of lanes 0 to 2. ``T`` is the reply address of one POST."""

    __slots__ = (
        "_accounts",
        "_durable",
        "_first",
        "_follow",
        "_open_orders",
        "_orders",
        "_room",
        "history",
        "open_cents",
    )

    def __init__(
        self,
        history: History[StoredEvent],
        accounts: RoomAccounts,
        durable: bool,
        room: str,
        orders: IdempotencyTable[T],
        follow: Callable[[StoredEvent, float], None] = lambda stored, now: None,
    ) -> None:
        self.history = history
        self._accounts = accounts
        self._durable = durable
        self._first: IdempotencyTable[T] = IdempotencyTable()
        self._room = room
        self._follow = follow
        """Called with each event that is in the stream."""
        self._orders = orders
        """Orders of all rooms."""
        self._open_orders: dict[OperationKey, int] = {}
        """Cents of the orders under way."""
        self.open_cents = 0
        """Their sum: what the ranking of the gifts does not have yet."""

    @property
    def is_durable(self) -> bool:
        """Whether a ledger commits its events."""
        return self._durable

    @property
    def keys_lost(self) -> int:
        """Idempotency keys forgotten before their time, orders not counted."""
        return self._first.forgotten

    # ---- idempotency

    def known(self, key: OperationKey | None, ticket: T, now: float) -> Sequence[Effect[T]] | None:
        """The answer to an operation that was asked for before; empty while that is under way, None if it is new."""
        if key is None:
            return None
        table = self._table(key)
        first = table.result(key, now)
        if first is not None:
            return (Reply(ticket, *first),)
        waits = table.wait(key, ticket)
        if waits is None:
            return None
        return () if waits else (Reply(ticket, Outcome.LIMITED, BUSY_RETRY_MS),)

    def begin(self, key: OperationKey | None, cents: int = 0) -> None:
        """The operation is new and has been taken in; one of its outcomes below will come. ``cents``: of an order."""
        if key is not None:
            table = self._table(key)
            table.begin(key)
            if table is self._orders:
                self._open_orders[key] = cents
                self.open_cents += cents

    def accept_unseen(self, key: OperationKey | None, ticket: T, outcome: Outcome, now: float) -> Sequence[Effect[T]]:
        """Answer an operation that leaves no event as one that does, also where it is repeated."""
        offset = self.history.last_offset
        result = StoredResult(outcome, offset, FirstUse(self._room, self.history.epoch, offset))
        waiting = [] if key is None else self._table(key).complete(key, result, now)
        return [Reply(ticket, outcome, offset), *(Reply(each, *result) for each in waiting)]

    def forget_orders(self) -> None:
        """Close the keys of all orders under way: the room takes nothing more, and they may be posted again."""
        for key in self._open_orders:
            self._orders.forget(key)
        self._open_orders.clear()
        self.open_cents = 0

    def _table(self, key: OperationKey) -> IdempotencyTable[T]:
        return self._orders if key.is_order else self._first

    def _close(self, key: OperationKey, result: StoredResult, now: float) -> list[T]:
        """Store a result, but for a refusal, which may be otherwise next time; return the tickets that waited."""
        self.open_cents -= self._open_orders.pop(key, 0)
        table = self._table(key)
        is_stored = result.outcome in (Outcome.ACCEPTED, Outcome.MERGED, Outcome.MASKED)
        return table.complete(key, result, now) if is_stored else table.forget(key)

    # ---- events

    def admit(self, lane: Lane) -> None:
        """Count one message in; it is held until it is committed."""
        account = self._accounts[lane]
        account.admitted += 1
        account.held += 1

    def record(
        self,
        event: Event,
        lane: Lane,
        asked: Sequence[PendingReply[T]],
        now: float,
        then: Sequence[Effect[T]] = (),
        batches: Sequence[ActivityBatch] = (),
        combo: GiftCombo | None = None,
        left: tuple[str, ...] = (),
        audience: Audience | None = None,
    ) -> Sequence[Effect[T]]:
        """Put an admitted event on its way into the stream. ``asked``: whom it answers; ``then``: what follows it;
        ``batches``: of activities, in its transaction; ``combo``, ``left``, ``audience``: as in `Record`."""
        packed = pack_body(event) if self._durable and audience is None else b""
        record = Record(event, lane, tuple(asked), tuple(then), tuple(batches), combo, left, audience, packed)
        if self._durable:
            return (record,)
        return self.committed(record, self.history.last_offset + 1, now)

    def committed(self, record: Record[T], offset: int, now: float) -> list[Effect[T]]:
        """The event is durable and has ``offset``. ValueError (a bug): that is not the next one."""
        if offset != self.history.last_offset + 1:
            raise ValueError(f"offset {offset} was given after {self.history.last_offset}")
        event, lane, weight = record.event, record.lane, record.weight
        account = self._accounts[lane]
        if weight:
            account.held -= weight
            account.shown += 1
            account.merged += weight - 1
        stored = StoredEvent(offset, lane, event, record.audience)
        self.history.append(stored, kept_bytes(event), now)
        self._follow(stored, now)
        effects: list[Effect[T]] = []
        first = FirstUse(self._room, self.history.epoch, offset)
        for asked in record.asked:
            effects.append(Reply(asked.ticket, asked.outcome, offset))
            self._answer_waiting(effects, asked, StoredResult(asked.outcome, offset, first), now)
        effects += (Publish(event, lane, offset, record.audience, record.packed), *record.then)
        return effects

    def repeated(
        self, record: Record[T], first: Mapping[OperationKey, StoredResult], now: float
    ) -> tuple[list[Effect[T]], tuple[PendingReply[T], ...]]:
        """Nothing was written, since these keys are known: answer them; return also who is still to be served."""
        effects: list[Effect[T]] = []
        left: list[PendingReply[T]] = []
        account = self._accounts[record.lane]
        for asked in record.asked:
            result = None if asked.key is None else first.get(asked.key)
            if result is None:
                left.append(asked)
            else:
                account.admitted -= 1
                account.held -= 1
                effects.append(Reply(asked.ticket, *result))
                self._answer_waiting(effects, asked, result, now)
        return effects, tuple(left)

    def refused(self, record: Record[T], outcome: Outcome, detail: int) -> list[Effect[T]]:
        """Handle an event that could not be made durable: it was not published, and its senders may try again."""
        account = self._accounts[record.lane]
        account.admitted -= record.weight
        account.held -= record.weight
        effects: list[Effect[T]] = []
        for asked in record.asked:
            effects.append(Reply(asked.ticket, outcome, detail))
            self._answer_waiting(effects, asked, StoredResult(outcome, detail), 0.0)
        return effects

    def _answer_waiting(
        self, effects: list[Effect[T]], asked: PendingReply[T], result: StoredResult, now: float
    ) -> None:
        """Close the key of a post that is answered, and answer those that repeated it meanwhile."""
        if asked.key is not None:
            effects += [Reply(ticket, *result) for ticket in self._close(asked.key, result, now)]
