"""Gifts as combos: how gifts are shown, at a rate that viewers can read. None is ever dropped.

A gift is a fact with the platform's order id; a combo is only how gifts are shown. The same gift by the same user to
the same target at the same price within `WINDOW_S` of the last one belongs to one combo: an event that starts it, at
most two events a second that add what has come, and one that ends it. Every event has the combo's id, the number of
the event in it, what it adds and the total, so that clients that add and clients that show the total are both right.

Viewers can read ten events a second, so ten a second that add gifts are published; gifts wait for their turn, and those
of one combo go out together. Nothing waits longer than ``max_wait_s`` after its turn has come, and at the bounds of the
backlog events are published faster than viewers can read: completeness comes before readability.

A combo has one event on its way to the ledger at a time, so that its numbers have no gap where the ledger refuses one:
the next follows when `committed` or `withdrawn` has been called. ``admitted = shown + merged + held`` counts orders;
an end that adds nothing is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Any, Generic, NamedTuple, TypeVar

from protocol.codes import Outcome
from protocol.payloads import COMBO_END, COMBO_START, MAX_GIFT_COUNT, GiftPayload, HighlightPayload

__all__ = ["ComboPacer", "GiftCombo", "GiftEvent", "GiftOrder"]

T = TypeVar("T")

WINDOW_S = 3.0
"""A combo ends so long after its last gift."""
MAX_COMBO_S = 60.0
"""It ends so long after its start in any case."""
PROGRESS_S = 0.5
"""Between two events of one combo that add gifts."""
RETRY_S = 1.0
"""When the end of a combo is tried again that the ledger has refused."""
MAX_EVENT_ORDERS = 256
"""Orders of one event; each is a key of one submission to the ledger."""
ITEM_BYTES = 512
"""One waiting order without its texts, rounded up."""
_BOTH = COMBO_START | COMBO_END
_EPSILON = 1e-4
"""Tokens by which float noise may err: a monotonic clock of months times a rate of thousands."""


class GiftOrder(NamedTuple):
    """One order, as it was posted. ``price_cents`` is the price of one of ``count`` gifts."""

    order_id: str
    user_id: str
    name: str
    gift_id: str
    count: int  # type: ignore[assignment]  # hides tuple.count
    price_cents: int
    target: str = ""

    @classmethod
    def of(cls, payload: GiftPayload) -> GiftOrder:
        """Return the order in a posted gift."""
        order_id, user_id, name, gift_id, count, price_cents, target, *_ = payload
        return cls(order_id, user_id, name, gift_id, count, price_cents, target)

    @classmethod
    def of_highlight(cls, payload: HighlightPayload) -> GiftOrder:
        """Return the order in a posted highlight: one without the id of a gift."""
        return cls(payload.order_id, payload.user_id, payload.name, "", 1, payload.cents)

    @property
    def cents(self) -> int:
        """What is paid."""
        return self.count * self.price_cents


class GiftCombo(NamedTuple):
    """A combo that has started and not ended, as its events in the stream say. Times in Unix milliseconds."""

    id: str
    user_id: str
    name: str
    gift_id: str
    price_cents: int
    target: str
    seq: int
    total: int
    started_ms: int
    last_ms: int


class GiftEvent(NamedTuple, Generic[T]):
    """An event to publish, and the orders in it, in order of arrival.

    ``combo``: as it is after the event, None = it has ended.
    """

    payload: GiftPayload
    tickets: tuple[T, ...]
    combo: GiftCombo | None

    def outcomes(self) -> list[tuple[T, Outcome]]:
        """What becomes of each order's ticket: the first is ACCEPTED, the others are MERGED."""
        return [(ticket, Outcome.MERGED if index else Outcome.ACCEPTED) for index, ticket in enumerate(self.tickets)]


_Key = tuple[str, str, str]


class _Combo(Generic[T]):
    __slots__ = (
        "end_at", "entry", "id", "in_flight", "is_over", "key", "last_ms", "name", "next_progress", "price_cents",
        "seq", "started_at", "started_ms", "total", "waiting", "waiting_count",
    )  # fmt: skip

    def __init__(self, key: _Key, price_cents: int, now: float, at_ms: int) -> None:
        self.key = key
        """User, gift, target."""
        self.price_cents = price_cents
        self.id = self.name = ""
        self.seq = 0
        """Events that were given out; ``total``: gifts in them."""
        self.total = 0
        self.started_at = self.next_progress = self.end_at = now
        self.started_ms = self.last_ms = at_ms
        self.waiting: list[tuple[GiftOrder, T]] = []
        self.waiting_count = 0
        self.in_flight = 0
        """Events whose result is to come."""
        self.is_over = False
        """Whether its last event was given out."""
        self.entry = -1
        """Serial number of its entry in a heap; entries with another number are void."""

    @property
    def count(self) -> int:
        return self.total + self.waiting_count

    @property
    def turn_at(self) -> float:
        """When what waits may be shown."""
        return min(self.next_progress, self.end_at)

    def as_shown(self) -> GiftCombo:
        """Return it as its events say that were given out."""
        user_id, gift_id, target = self.key
        return GiftCombo(
            self.id, user_id, self.name, gift_id, self.price_cents, target, self.seq, self.total, self.started_ms,
            self.last_ms,
        )  # fmt: skip


_Heap = list[tuple[float, int, _Combo[T]]]


class ComboPacer(Generic[T]):
    """Combos of one room; ``T`` is the caller's reply address.

    ``rate_per_s`` 0 = no pacing and no combos: each gift is an event of its own, at once. ``burst`` may go out
    together after a quiet time. Where more than ``max_items`` combos wait for their turn, or ``max_bytes`` with all
    orders, those whose turn it is go out at once, the oldest first. All ``now`` are monotonic seconds and must not go
    back (ValueError: a bug of the caller); all ``at_ms`` are Unix milliseconds.
    """

    __slots__ = (
        "_at",
        "_burst",
        "_by_key",
        "_bytes",
        "_capacity",
        "_ends",
        "_flying",
        "_live",
        "_max_bytes",
        "_max_items",
        "_max_wait_s",
        "_rate_per_s",
        "_restored",
        "_serial",
        "_singles",
        "_tokens",
        "_turns",
        "pending",
        "waiting",
    )  # fmt: skip

    def __init__(
        self,
        rate_per_s: float = 10.0,
        burst: int = 10,
        max_items: int = 256,
        max_bytes: int = 512 * 1024,
        max_wait_s: float = 2.5,
    ) -> None:
        if rate_per_s < 0 or burst < 1 or max_items < 0 or max_bytes < 0 or max_wait_s < 0:
            raise ValueError("rate and bounds must not be negative, and burst must be at least 1")
        self._rate_per_s = rate_per_s
        self._capacity = float(burst)
        self._burst = self._capacity if rate_per_s else inf
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._max_wait_s = max_wait_s
        self._tokens = self._burst
        self._at = -inf
        self._serial = count()
        self._live: dict[_Combo[T], None] = {}
        """Combos whose last event is not in the stream, in order of their start."""
        self._by_key: dict[_Key, _Combo[T]] = {}
        """Those that take more gifts."""
        self._turns: _Heap[T] = []
        """Those with gifts that wait for their turn, by its time."""
        self._ends: _Heap[T] = []
        """Those that have shown all their gifts, by the time of their end."""
        self._flying: dict[str, _Combo[T]] = {}
        """Those with events in flight, by id."""
        self._singles: set[str] = set()
        """Orders in flight that were never to wait and are no combos: without pacing."""
        self._restored: tuple[GiftCombo, ...] = ()
        self._bytes = 0
        self.pending = 0
        """Orders that wait, and are in no event yet."""
        self.waiting = 0
        """Combos and single gifts in which orders wait for their turn."""

    def use_rate(self, rate_per_s: float) -> None:
        """Apply another rate from now on; 0 = no pacing."""
        if rate_per_s != self._rate_per_s:
            self._rate_per_s = rate_per_s
            self._burst = self._capacity if rate_per_s else inf
            self._tokens = min(self._tokens, self._burst) if rate_per_s else inf

    @property
    def pending_bytes(self) -> int:
        """Memory of the orders that wait."""
        return self._bytes

    def offer(self, gift: GiftPayload, ticket: T, now: float, at_ms: int) -> list[GiftEvent[T]]:
        """Take one order in and return what goes out now, in order; usually the order itself.

        O(log n) in the combos that run, for each event that goes out.
        """
        self._refill(now)
        if self._restored:
            self._adopt(now, at_ms)
        if not self._rate_per_s:
            return [*self._release(now), self._single(gift, ticket)]
        order = GiftOrder.of(gift)
        combo = self._combo_of(order, now, at_ms, is_single=gift.combo is False)
        combo.last_ms = at_ms
        self._wait(combo, len(combo.waiting), ((order, ticket),))
        if combo.count >= MAX_GIFT_COUNT or len(combo.waiting) >= MAX_EVENT_ORDERS:
            self._close(combo, now)
        return self._release(now)

    def release(self, now: float, at_ms: int) -> list[GiftEvent[T]]:
        """Return what goes out now, in order of its time."""
        self._refill(now)
        self._adopt(now, at_ms)
        return self._release(now)

    def flush(self, now: float, at_ms: int, user: str | None = None) -> list[GiftEvent[T]]:
        """Return what waits, and the ends of all combos: the room ends, or the broker stops. ``user``: of its combos,
        and those with it as their target.

        A combo with an event in flight ends all the same, as if that were committed.
        """
        self._adopt(now, at_ms)
        combos = [combo for combo in self._live if not combo.is_over or combo.waiting]
        if user is not None:
            combos = [combo for combo in combos if user in (combo.key[0], combo.key[2])]
        combos.sort(key=lambda combo: combo.turn_at if combo.waiting else inf)
        return [self._event(combo, now, is_end=True) for combo in combos]

    def next_release_at(self, now: float) -> float | None:
        """When `release` should be called if nothing else comes; None = nothing waits. O(1)."""
        if self._restored:
            return now
        if not (self._ends or self._turns):
            return None
        due = _head(self._ends)
        turn_at = _head(self._turns)
        if turn_at < inf:
            missing = 1.0 - self._tokens - max(0.0, now - self._at) * self._rate_per_s
            token_at = now + missing / self._rate_per_s if missing > _EPSILON and self._rate_per_s else now
            due = min(due, max(turn_at, min(token_at, turn_at + self._max_wait_s)))
        return None if due == inf else max(now, due)

    # ---- results

    def committed(self, payload: GiftPayload, now: float) -> None:
        """An event that was given out is in the stream."""
        if self._is_single(payload):
            self._singles.discard(payload.order_id)
            return
        combo = self._landed(payload)
        if combo is not None:
            if payload.flags & COMBO_END:
                self._live.pop(combo, None)
            else:
                self._schedule(combo)

    def withdrawn(self, payload: GiftPayload, left: Sequence[tuple[GiftOrder, T]], now: float) -> list[GiftEvent[T]]:
        """An event that was given out is not in the stream; return what takes its place.

        ``left``: its orders that are still to be shown; the others have their answers.
        """
        if self._is_single(payload):
            if left:
                return [GiftEvent(payload, tuple(ticket for _, ticket in left), None)]
            self._singles.discard(payload.order_id)
            return []
        combo = self._landed(payload)
        if combo is None:
            return []
        combo.seq -= 1
        combo.total -= payload.added
        was_end = bool(payload.flags & COMBO_END)
        if was_end:
            combo.is_over = False
        if left:
            self._wait(combo, 0, left)
            return [self._event(combo, now, is_end=was_end or now >= combo.end_at)]
        if not combo.seq and not combo.waiting:
            self._forget(combo)
            return []
        if was_end:
            combo.end_at = now + RETRY_S
        self._schedule(combo)
        return []

    # ---- what outlives the room's task

    @property
    def running(self) -> int:
        """Combos whose end is not in the stream yet."""
        return len(self._restored) + len(self._live) + len(self._singles)

    def dump(self) -> tuple[GiftCombo, ...]:
        """Return the combos that have started and not ended, as their events in the stream say."""
        return (
            *self._restored,
            *(combo.as_shown() for combo in self._live if combo.seq and not combo.in_flight),
        )

    def restore(self, combos: Iterable[GiftCombo]) -> None:
        """Go on with combos of the room's last run; those that are overdue end with the next `release`."""
        self._restored = tuple(combos)

    def _adopt(self, now: float, at_ms: int) -> None:
        restored, self._restored = self._restored, ()
        for each in restored:
            key = each.user_id, each.gift_id, each.target
            combo: _Combo[T] = _Combo(key, each.price_cents, now, each.last_ms)
            combo.id, combo.name, combo.seq, combo.total = each.id, each.name, each.seq, each.total
            combo.started_ms = each.started_ms
            combo.next_progress = now + PROGRESS_S  # its last event may have been a moment ago
            combo.started_at = now - max(0, at_ms - each.started_ms) / 1000
            combo.end_at = min(now - max(0, at_ms - each.last_ms) / 1000 + WINDOW_S, combo.started_at + MAX_COMBO_S)
            self._live[combo] = None
            if key in self._by_key:
                combo.end_at = now
            else:
                self._by_key[key] = combo
            self._schedule(combo)

    # ---- inside

    def _single(self, gift: GiftPayload, ticket: T) -> GiftEvent[T]:
        """Make the one event of a gift that waits for nothing: it starts its combo and ends it."""
        order_id, user_id, name, gift_id, count, price_cents, target, *_ = gift
        self._singles.add(order_id)
        payload = GiftPayload(
            order_id, user_id, name, gift_id, count, price_cents, target, order_id, 1, count, count,
            _BOTH,
        )  # fmt: skip
        return GiftEvent(payload, (ticket,), None)

    def _is_single(self, payload: GiftPayload) -> bool:
        return payload.order_id in self._singles and payload.flags == _BOTH

    def _combo_of(self, order: GiftOrder, now: float, at_ms: int, *, is_single: bool) -> _Combo[T]:
        """Return the combo that an order belongs to, a new one if need be; one that it does not fit is closed."""
        key = order.user_id, order.gift_id, order.target
        combo = None if is_single else self._by_key.get(key)
        if combo is not None:
            fits = now < combo.end_at and combo.count + order.count <= MAX_GIFT_COUNT
            if not fits or combo.price_cents != order.price_cents:
                self._close(combo, now)
                combo = None
        if combo is None:
            combo = _Combo(key, order.price_cents, now, at_ms)
            self._live[combo] = None
            if not is_single:
                self._by_key[key] = combo
        if not is_single:
            combo.end_at = min(now + WINDOW_S, combo.started_at + MAX_COMBO_S)
        return combo

    def _wait(self, combo: _Combo[T], position: int, orders: Sequence[tuple[GiftOrder, T]]) -> None:
        """Let orders wait in a combo, at a position among those that wait in it."""
        is_first = not combo.waiting
        combo.waiting[position:position] = orders
        for order, _ in orders:
            combo.waiting_count += order.count
            self._bytes += _cost(order)
        self.pending += len(orders)
        if is_first:
            self.waiting += 1
            self._schedule(combo)

    def _close(self, combo: _Combo[T], now: float) -> None:
        """Let the next event of a combo be its last, now."""
        if self._by_key.get(combo.key) is combo:
            del self._by_key[combo.key]
        combo.end_at = now
        self._schedule(combo)

    def _forget(self, combo: _Combo[T]) -> None:
        self._live.pop(combo, None)
        if self._by_key.get(combo.key) is combo:
            del self._by_key[combo.key]

    def _schedule(self, combo: _Combo[T]) -> None:
        """Enter a combo for its next event; one with an event in flight waits for the result."""
        combo.entry = entry = next(self._serial)
        if not combo.in_flight and not combo.is_over:
            if combo.waiting:
                heappush(self._turns, (combo.turn_at, entry, combo))
            else:
                heappush(self._ends, (combo.end_at, entry, combo))

    def _landed(self, payload: GiftPayload) -> _Combo[T] | None:
        """Return the combo of an event whose result has come."""
        combo = self._flying.get(str(payload.combo))
        if combo is not None:
            combo.in_flight -= 1
            if not combo.in_flight:
                del self._flying[combo.id]
        return combo

    def _refill(self, now: float) -> None:
        if now < self._at:
            raise ValueError(f"time went back from {self._at} to {now}")
        if self._tokens < self._burst:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate_per_s)
        self._at = now

    def _release(self, now: float) -> list[GiftEvent[T]]:
        released: list[GiftEvent[T]] = []
        while _head(self._ends) <= now:
            released.append(self._event(heappop(self._ends)[2], now, is_end=True))
        while (turn_at := _head(self._turns)) <= now:
            if self._tokens >= 1.0 - _EPSILON:
                self._tokens -= 1.0
            elif now >= turn_at + self._max_wait_s or self.waiting > self._max_items or self._bytes > self._max_bytes:
                self._tokens = min(self._tokens, 0.0)
            else:
                break
            combo = heappop(self._turns)[2]
            released.append(self._event(combo, now, is_end=now >= combo.end_at))
        return released

    def _event(self, combo: _Combo[T], now: float, *, is_end: bool) -> GiftEvent[T]:
        """Make the next event of a combo, with everything that waits in it."""
        waiting, combo.waiting = combo.waiting, []
        added, combo.waiting_count = combo.waiting_count, 0
        if waiting:
            self.waiting -= 1
            self.pending -= len(waiting)
            self._bytes -= sum(_cost(order) for order, _ in waiting)
        flags = COMBO_END if is_end else 0
        first = waiting[0][0] if waiting else None
        if first is not None and not combo.seq:
            combo.id, combo.name = first.order_id, first.name
            flags |= COMBO_START
        combo.seq += 1
        combo.total += added
        combo.in_flight += 1
        combo.is_over = is_end
        combo.next_progress = now + PROGRESS_S
        combo.entry = -1
        self._flying[combo.id] = combo
        if is_end and self._by_key.get(combo.key) is combo:
            del self._by_key[combo.key]
        user_id, gift_id, target = combo.key
        payload = GiftPayload(
            "" if first is None else first.order_id, user_id, combo.name, gift_id, added, combo.price_cents, target,
            combo.id, combo.seq, added, combo.total, flags,
        )  # fmt: skip
        return GiftEvent(payload, tuple(ticket for _, ticket in waiting), None if is_end else combo.as_shown())


def _head(heap: _Heap[Any]) -> float:
    """Return the time of the first entry that holds, inf if there is none; void entries before it are removed."""
    while heap and heap[0][2].entry != heap[0][1]:
        heappop(heap)
    return heap[0][0] if heap else inf


def _cost(order: GiftOrder) -> int:
    """Upper bound of the memory of an order: 4 bytes a character."""
    texts = len(order.order_id) + len(order.user_id) + len(order.name) + len(order.gift_id) + len(order.target)
    return ITEM_BYTES + 4 * texts
