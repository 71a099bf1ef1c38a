"""Pacing of gifts: they are published at a rate that viewers can read, and none is ever dropped.

Viewers can read ten a second, so ten a second are published; the others wait. Meanwhile the same gift by the same
user to the same target grows into one combo: counts and amounts are summed, every sender is answered. No order waits
longer than ``max_wait_s``, and at the bounds of the backlog orders are published faster than viewers can read:
completeness comes before readability.

``admitted = shown + merged + held`` holds at any time. It never drops, reorders or refuses a gift, and never
decides whether one was paid.
"""

from __future__ import annotations

from math import inf
from typing import Generic, TypeVar

from protocol.codes import Outcome
from protocol.payloads import MAX_GIFT_COUNT, GiftPayload

__all__ = ["PaidItem", "PaidPacer"]

T = TypeVar("T")

ITEM_BYTES = 512
"""One waiting item without its texts, rounded up."""
TICKET_BYTES = 64
MAX_COMBO_ORDERS = 256
"""Orders of one combo; each is a key of one submission to the ledger."""
_EPSILON = 1e-4
"""Tokens by which float noise may err: a monotonic clock of months times a rate of thousands."""


class PaidItem(Generic[T]):
    """One gift, or a combo: ``count`` of the same gift at the same price, ordered ``1 + merged`` times.

    ``order_id``, ``name`` and ``at`` (monotonic seconds of arrival) are those of the first order. ``tickets`` are in
    order of arrival.
    """

    __slots__ = ("at", "count", "gift_id", "name", "order_id", "price_cents", "target", "tickets", "user_id")

    def __init__(
        self,
        order_id: str,
        user_id: str,
        name: str,
        gift_id: str,
        count: int,
        price_cents: int,
        target: str = "",
        at: float = 0.0,
    ) -> None:
        self.order_id = order_id
        self.user_id = user_id
        self.name = name
        self.gift_id = gift_id
        self.count = count
        self.price_cents = price_cents
        self.target = target
        self.at = at
        self.tickets: list[T] = []

    @classmethod
    def from_gift(cls, gift: GiftPayload, at: float) -> PaidItem[T]:
        return cls(*gift, at)

    @property
    def merged(self) -> int:
        """Orders that were merged into the first."""
        return len(self.tickets) - 1

    def payload(self) -> GiftPayload:
        """The gift as it goes out, with the count of the whole combo."""
        return GiftPayload(
            self.order_id, self.user_id, self.name, self.gift_id, self.count, self.price_cents, self.target
        )

    def outcomes(self) -> list[tuple[T, Outcome]]:
        """What becomes of each order's ticket: the first is ACCEPTED, the others are MERGED."""
        return [(ticket, Outcome.MERGED if index else Outcome.ACCEPTED) for index, ticket in enumerate(self.tickets)]


class PaidPacer(Generic[T]):
    """Paces the paid events of one room; ``T`` is the caller's reply address.

    ``rate_per_s`` 0 = no pacing, everything goes out at once. ``burst`` may go out together after a quiet time.
    The backlog is bounded by ``max_items`` and by ``max_bytes`` with all tickets; what is beyond goes out at once, the
    oldest first.
    """

    __slots__ = (
        "_at", "_burst", "_bytes", "_capacity", "_max_bytes", "_max_items", "_max_wait_s", "_rate_per_s", "_tokens",
        "_waiting", "pending",
    )  # fmt: skip

    def __init__(
        self,
        rate_per_s: float = 10.0,
        burst: int = 10,
        max_items: int = 256,
        max_bytes: int = 512 * 1024,
        max_wait_s: float = 3.0,
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
        self._waiting: dict[tuple[str, str, int, str], PaidItem[T]] = {}  # in order of arrival
        self._bytes = 0
        self.pending = 0
        """Orders that wait (``held`` in an account), merged ones included."""

    def use_rate(self, rate_per_s: float) -> None:
        """Apply another rate from now on; 0 = no pacing."""
        if rate_per_s != self._rate_per_s:
            self._rate_per_s = rate_per_s
            self._burst = self._capacity if rate_per_s else inf
            self._tokens = min(self._tokens, self._burst) if rate_per_s else inf

    @property
    def waiting(self) -> int:
        """Items that wait: combos and single gifts."""
        return len(self._waiting)

    @property
    def pending_bytes(self) -> int:
        return self._bytes

    def offer(self, item: PaidItem[T], ticket: T, now: float) -> list[PaidItem[T]]:
        """Take one order in and return what goes out now, in order; usually the order itself.

        ``now`` is monotonic seconds and must not go back (ValueError: a bug in the caller). O(1) an item that goes out.
        """
        self._refill(now)
        key = (item.user_id, item.gift_id, item.price_cents, item.target)
        combo = self._waiting.get(key)
        if combo is not None and (combo.count + item.count > MAX_GIFT_COUNT or len(combo.tickets) == MAX_COMBO_ORDERS):
            released = [self._pop(key)]  # one event cannot say more; the next ones begin another combo
            combo = None
        else:
            released = []
        if combo is None:
            combo = self._waiting[key] = item
            self._bytes += _cost(item)
        else:
            combo.count += item.count
        combo.tickets.append(ticket)
        self._bytes += TICKET_BYTES
        self.pending += 1
        return released + self._release(now)

    def release(self, now: float) -> list[PaidItem[T]]:
        """Return what goes out now, in order of first arrival. ``now`` as in `offer`."""
        self._refill(now)
        return self._release(now)

    def flush(self) -> list[PaidItem[T]]:
        """Return everything that waits: the room ends."""
        released = list(self._waiting.values())
        self._waiting.clear()
        self._bytes = self.pending = 0
        return released

    def next_release_at(self, now: float) -> float | None:
        """When `release` will return something if nothing else comes; None = nothing waits."""
        if not self._waiting:
            return None
        if not self._rate_per_s:
            return now
        self._refill(now)
        token_at = now + max(0.0, 1.0 - self._tokens) / self._rate_per_s
        return max(now, min(token_at, self._oldest().at + self._max_wait_s))

    def _oldest(self) -> PaidItem[T]:
        return next(iter(self._waiting.values()))

    def _refill(self, now: float) -> None:
        if now < self._at:
            raise ValueError(f"time went back from {self._at} to {now}")
        if self._tokens < self._burst:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate_per_s)
        self._at = now

    def _release(self, now: float) -> list[PaidItem[T]]:
        waiting = self._waiting
        released: list[PaidItem[T]] = []
        while waiting:
            oldest = self._oldest()
            if self._tokens >= 1.0 - _EPSILON:
                self._tokens -= 1.0
            elif now >= oldest.at + self._max_wait_s or len(waiting) > self._max_items or self._bytes > self._max_bytes:
                self._tokens = min(self._tokens, 0.0)
            else:
                break
            released.append(self._pop((oldest.user_id, oldest.gift_id, oldest.price_cents, oldest.target)))
        return released

    def _pop(self, key: tuple[str, str, int, str]) -> PaidItem[T]:
        item = self._waiting.pop(key)
        self._bytes -= _cost(item) + TICKET_BYTES * len(item.tickets)
        self.pending -= len(item.tickets)
        return item


def _cost(item: PaidItem[T]) -> int:
    """Upper bound of the memory of an item: 4 bytes a character."""
    texts = len(item.order_id) + len(item.user_id) + len(item.name) + len(item.gift_id) + len(item.target)
    return ITEM_BYTES + 4 * texts
