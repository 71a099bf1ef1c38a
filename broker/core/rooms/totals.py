"""Sums over rooms: their accounts, what else they count, and what their activities hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from broker.core.commerce.room_activities import RoomActivities
from broker.core.moderation.review import REVIEWS_KEY, ReviewQueue
from broker.core.rooms.accounts import closed
from broker.core.rooms.counters import EVENT_COUNTERS, RoomCounters
from protocol.codes import Lane
from protocol.messages import Account

__all__ = ["RoomReading", "RoomTotals"]

_ACCOUNTED = len(Lane) * len(Account._fields)
_NOTHING = (0,) * (_ACCOUNTED + len(EVENT_COUNTERS) + 1)
MAX_ROWS = 100
"""Rooms whose numbers are added up at once, which costs less than one by one."""


class RoomReading(NamedTuple):
    """The numbers of one open room at one moment, so the account of every lane balances.

    ``numbers``: the accounts of its lanes, what it counts beside them (`EVENT_COUNTERS`), and the gifts that wait for
    the next event of their combo; ``held_since_ms``: since when its first message waits for a reviewer.
    """

    numbers: tuple[int, ...]
    online: int
    activities: Mapping[str, int] | None = None
    amounts: Mapping[tuple[str, str], int] | None = None
    held_since_ms: int | None = None

    @classmethod
    def of(cls, counters: RoomCounters, activities: RoomActivities[Any] | None) -> RoomReading:
        """Read an open room. About 4 us where it has no activities."""
        online, combo_gifts = counters.online_and_combo_gifts()
        numbers = (*counters.account_numbers(), *counters.events(), combo_gifts)
        if activities is None or not len(activities):
            return cls(numbers, online)
        queue: ReviewQueue[Any] | None = activities.find(*REVIEWS_KEY)
        since_ms = None if queue is None else queue.waiting_since_ms
        return cls(numbers, online, activities.count_by_kind(), activities.amounts(), since_ms)


class RoomTotals:
    """Sums over the rooms that were added."""

    __slots__ = ("_rows", "activities", "amounts", "held_since_ms", "online")

    def __init__(self, past: RoomTotals | None = None) -> None:
        """``past``: sums to go on from."""
        self._rows: list[tuple[int, ...]] = [_NOTHING if past is None else past._sum()]
        """Numbers of rooms, to be added up."""
        self.activities: Counter[str] = Counter()
        """Activities of open rooms, by kind."""
        self.amounts: Counter[tuple[str, str]] = Counter()
        """Money, units and codes of the activities of open rooms, by kind and state."""
        self.held_since_ms: int | None = None
        """Since when the first message of an open room waits for a reviewer, None = none does."""
        self.online: list[tuple[int, str]] = []
        """Connections and qualified name of each open room that has any."""

    def add(self, name: str, reading: RoomReading) -> None:
        """Add an open room by its qualified name. About 1 us where it has no activities."""
        numbers, online, activities, amounts, since_ms = reading
        self._rows.append(numbers)
        if len(self._rows) > MAX_ROWS:
            self._sum()
        if online:
            self.online.append((online, name))
        if activities is not None and amounts is not None:
            self.activities.update(activities)
            self.amounts.update(amounts)
            if since_ms is not None and (self.held_since_ms is None or since_ms < self.held_since_ms):
                self.held_since_ms = since_ms

    def add_closed(self, counters: RoomCounters) -> None:
        """Add a room that has ended: what it held back has expired, and its activities are in no open room."""
        accounts = closed(counters.accounts())
        self._rows.append((*(number for lane in accounts for number in lane), *counters.events(), 0))
        self._sum()

    @property
    def accounts(self) -> tuple[Account, ...]:
        """The five lanes' accounts."""
        numbers, size = self._sum(), len(Account._fields)
        return tuple(Account(*numbers[start : start + size]) for start in range(0, _ACCOUNTED, size))

    @property
    def events(self) -> dict[str, int]:
        """What the rooms have counted beside their accounts, by the names in `EVENT_COUNTERS`."""
        return dict(zip(EVENT_COUNTERS, self._sum()[_ACCOUNTED:-1], strict=True))

    @property
    def combo_gifts(self) -> int:
        """Gifts that wait for the next event of their combo."""
        return self._sum()[-1]

    def _sum(self) -> tuple[int, ...]:
        """Add up the rows, leave the sum as the only one, and return it."""
        if len(self._rows) > 1:
            self._rows = [tuple(map(sum, zip(*self._rows, strict=True)))]
        return self._rows[0]
