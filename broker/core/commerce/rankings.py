"""Ranking of users by score: the top is kept up to date with every change, and pushed now and then.

Order: the higher score, then who reached it first (``reached``: the offset of the stream at which the present score was
reached), then the id. Ranks are 1, 2, 3 without equals; a score of 0 or less is not ranked.

A change costs a few comparisons: users outside the top are all behind a known key. Where a user of the top falls
behind that key, a scan of all users finds who comes next, at most once a second; until then the top is shorter and says
so (``is_partial``). Ranks outside the top come from a full sort, as seldom.

Bound: ``max_users`` have a score; the changes of others count in the total only, and ``is_complete`` is false.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from heapq import nsmallest
from typing import NamedTuple

__all__ = ["MAX_USERS", "TOP", "RankedUser", "Ranking"]

TOP = 100
MAX_USERS = 200_000
"""Users with a score, about 200 bytes each."""
PUSH_EVERY_MS = 2000
SCAN_EVERY_MS = 1000

_Key = tuple[int, int, str]
"""Negative score, reached, user: the smaller is the better."""


class RankedUser(NamedTuple):
    """A user with a rank, from 1."""

    user: str
    score: int
    rank: int


class Ranking:
    """Scores of users. Times are milliseconds of a clock that does not go back; ``max_users`` None = no bound."""

    __slots__ = (
        "_dirty_order", "_every_ms", "_floor", "_max_users", "_next_push_ms", "_order", "_pushed", "_scanned_ms",
        "_size", "_sorted_ms", "_top", "_users", "is_complete", "ranked", "total",
    )  # fmt: skip

    def __init__(self, size: int = TOP, every_ms: int = PUSH_EVERY_MS, max_users: int | None = MAX_USERS) -> None:
        if size < 1 or every_ms < 0 or (max_users is not None and max_users < size):
            raise ValueError(f"not a ranking: {size=} {every_ms=} {max_users=}")
        self._size = size
        self._every_ms = every_ms
        self._max_users = max_users
        self._users: dict[str, _Key] = {}
        """Key of every user with a score, those of 0 or less included."""
        self._top: list[_Key] = []
        self._floor: _Key | None = None
        """Every ranked user outside the top is behind this key; None = there was none outside so far."""
        self._order: list[_Key] = []
        """All ranked users at the last sort."""
        self._dirty_order = False
        self._scanned_ms = self._sorted_ms = -SCAN_EVERY_MS
        self._pushed: tuple[RankedUser, ...] = ()
        self._next_push_ms = 0
        self.total = 0
        """Sum of all changes, also of users without a score."""
        self.ranked = 0
        """Users with a score above 0."""
        self.is_complete = True
        """Whether every user has a score."""

    def __len__(self) -> int:
        """Users with a score."""
        return len(self._users)

    def add(self, user: str, change: int, reached: int) -> None:
        """Change a score; a change of 0 changes nothing. O(log size) where the top does not change."""
        if not change:
            return
        self.total += change
        key = self._users.get(user)
        if key is None and self._max_users is not None and len(self._users) >= self._max_users:
            self.is_complete = False
            return
        score = change - (0 if key is None else key[0])
        new = -score, reached, user
        self._users[user] = new
        self._dirty_order = True
        top = self._top
        if key is not None and key[0] < 0:
            self.ranked -= 1
            if top and key <= top[-1]:
                index = bisect_left(top, key)
                if index < len(top) and top[index] == key:
                    del top[index]
        if score > 0:
            self.ranked += 1
            if self._floor is None or new < self._floor:
                insort(top, new)
                if len(top) > self._size:
                    del top[-1]
                    self._floor = top[-1]
                elif self._floor is not None and len(top) == self._size:
                    self._floor = top[-1]

    @property
    def is_partial(self) -> bool:
        """Whether the top lacks users who belong there."""
        return len(self._top) < min(self._size, self.ranked)

    def top(self, now_ms: int) -> tuple[RankedUser, ...]:
        """Return the top, complete unless a scan was made within the last second (`is_partial`)."""
        if self.is_partial and now_ms >= self._scanned_ms + SCAN_EVERY_MS:
            self._scanned_ms = now_ms
            self._order_tops()
        return _ranked(self._top)

    @property
    def latest(self) -> tuple[RankedUser, ...]:
        """The top as far as it is known without a scan."""
        return _ranked(self._top)

    def rank_of(self, user: str, now_ms: int) -> int:
        """Return the rank of a user, 0 = not ranked; outside the top as of the last second."""
        key = self._users.get(user)
        if key is None or key[0] >= 0:
            return 0
        index = bisect_left(self._top, key)
        if index < len(self._top) and self._top[index] == key:
            return index + 1
        return bisect_left(self._sorted(now_ms), key) + 1

    def around(self, user: str, count: int, now_ms: int) -> tuple[RankedUser, ...]:
        """Return up to ``count`` users before and after a user, and the user; empty if it is not ranked. As of the last
        second."""
        key = self._users.get(user)
        if key is None or key[0] >= 0:
            return ()
        order = self._sorted(now_ms)
        at = bisect_left(order, key)
        first = max(0, at - count)
        others = [each for each in order[first : at + count + 1] if each[2] != user]
        place = bisect_left(others, key)
        return _ranked((*others[:place], key, *others[place:])[: 2 * count + 1], first)

    def score_of(self, user: str) -> int:
        """Return the score of a user, 0 = none."""
        key = self._users.get(user)
        return 0 if key is None else -key[0]

    def reached_of(self, user: str) -> int:
        """Return the offset at which a user reached its score, 0 = it has none."""
        key = self._users.get(user)
        return 0 if key is None else key[1]

    def rename(self, user: str, name: str) -> bool:
        """Give the score of a user to another name, which has none; return whether there was one."""
        key = self._users.pop(user, None)
        if key is None:
            return False
        self._users[name] = key[0], key[1], name
        self._order_tops()
        return True

    # ---- pushes

    @property
    def next_push_ms(self) -> int:
        """When `push` may have something to say after a change."""
        return self._next_push_ms

    def push(self, now_ms: int) -> tuple[RankedUser, ...] | None:
        """Return the top if it is not the last one that was pushed and that is long enough ago; else None."""
        if now_ms < self._next_push_ms:
            return None
        top = self.top(now_ms)
        if top == self._pushed:
            return None
        self._pushed = top
        self._next_push_ms = now_ms + self._every_ms
        return top

    # ---- what outlives the process

    def dump(self) -> tuple[tuple[str, int, int], ...]:
        """Return (user, score, reached) of all users with a score."""
        return tuple((user, -key[0], key[1]) for user, key in self._users.items())

    def restore(self, scores: Iterable[tuple[str, int, int]]) -> None:
        """Go on with the scores of `dump`."""
        for user, score, reached in scores:
            self._users[user] = -score, reached, user
            self.total += score
            self.ranked += score > 0
        self._order_tops()

    def _order_tops(self) -> None:
        self._dirty_order = True
        self._top = nsmallest(self._size, (key for key in self._users.values() if key[0] < 0))
        self._floor = self._top[-1] if self.ranked > self._size else None

    def _sorted(self, now_ms: int) -> list[_Key]:
        if self._dirty_order and now_ms >= self._sorted_ms + SCAN_EVERY_MS:
            self._sorted_ms = now_ms
            self._dirty_order = False
            self._order = sorted(key for key in self._users.values() if key[0] < 0)
        return self._order


def _ranked(keys: Iterable[_Key], before: int = 0) -> tuple[RankedUser, ...]:
    return tuple(RankedUser(user, -negative, rank) for rank, (negative, _, user) in enumerate(keys, before + 1))
