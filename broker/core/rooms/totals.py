"""Sums over rooms: their accounts, what else they count, and what their activities hold."""

from __future__ import annotations

from collections import Counter
from typing import Any

from broker.core.commerce.room_activities import RoomActivities
from broker.core.moderation.review import REVIEWS_KEY, ReviewQueue
from broker.core.rooms.accounts import closed, sum_of
from broker.core.rooms.counters import EVENT_COUNTERS, RoomCounters
from protocol.codes import Lane
from protocol.messages import Account

__all__ = ["RoomTotals"]


NOTHING = tuple(Account() for _ in Lane)


class RoomTotals:
    """Sums over the rooms that were added. Each room is read at one moment, so the account of every lane balances."""

    __slots__ = ("_events", "_lanes", "activities", "amounts", "combo_gifts", "held_since_ms", "online")

    def __init__(self, past: RoomTotals | None = None) -> None:
        """``past``: sums to go on from."""
        self._lanes = [list(each) for each in (NOTHING if past is None else past.accounts)]
        self._events: list[tuple[int, ...]] = [(0,) * len(EVENT_COUNTERS)] if past is None else [past._sum_of_events()]
        """Rows to add up: all at once costs less than one by one."""
        self.activities: Counter[str] = Counter()
        """Activities of open rooms, by kind."""
        self.amounts: Counter[tuple[str, str]] = Counter()
        """Money, units and codes of the activities of open rooms, by kind and state."""
        self.combo_gifts = 0
        """Gifts that wait for the next event of their combo."""
        self.held_since_ms: int | None = None
        """Since when the first message of an open room waits for a reviewer, None = none does."""
        self.online: list[tuple[int, str]] = []
        """Connections and qualified name of each open room that has any."""

    def add(self, name: str, counters: RoomCounters, activities: RoomActivities[Any] | None) -> None:
        """Add an open room by its qualified name. About 2.5 us where it has no activities."""
        counters.add_accounts_to(self._lanes)
        self._events.append(counters.events())
        online, combo_gifts = counters.online_and_combo_gifts()
        if online:
            self.online.append((online, name))
        self.combo_gifts += combo_gifts
        if activities is not None and len(activities):
            self.activities.update(activities.count_by_kind())
            self.amounts.update(activities.amounts())
            queue: ReviewQueue[Any] | None = activities.find(*REVIEWS_KEY)
            since_ms = None if queue is None else queue.waiting_since_ms
            if since_ms is not None and (self.held_since_ms is None or since_ms < self.held_since_ms):
                self.held_since_ms = since_ms

    def add_closed(self, counters: RoomCounters) -> None:
        """Add a room that has ended: what it held back has expired, and its activities are in no open room."""
        self._lanes = [list(each) for each in sum_of(self.accounts, closed(counters.accounts()))]
        self._events = [self._sum_of_events(), counters.events()]

    @property
    def accounts(self) -> tuple[Account, ...]:
        """The five lanes' accounts."""
        return tuple(Account(*lane) for lane in self._lanes)

    @property
    def events(self) -> dict[str, int]:
        """What the rooms have counted beside their accounts, by the names in `EVENT_COUNTERS`."""
        return dict(zip(EVENT_COUNTERS, self._sum_of_events(), strict=True))

    def _sum_of_events(self) -> tuple[int, ...]:
        return tuple(map(sum, zip(*self._events, strict=True)))
