"""Totals of likes of one room: summed as they come, sent to the viewers once a second.

Likes are the most frequent message and only their sum is shown. So a like
costs one dict update, and the room publishes at most one update an interval: how many came, how many there are in
all, and who gave most meanwhile. The totals are exact, always; the top is of the present interval only.

The per-user cap (20 likes a second) is the caller's `rate_limit.Gcra.take`; only what it admits comes here.

Bound: the present interval remembers at most ``max_likers`` users. Likes of a user beyond that count in full but
cannot reach the top of this interval; ``unranked`` says how many likes that were.
"""

from __future__ import annotations

from heapq import nlargest
from math import inf
from operator import itemgetter
from typing import NamedTuple

__all__ = ["TOP_LIKERS", "LikeCounter", "LikeUpdate"]

TOP_LIKERS = 3


class LikeUpdate(NamedTuple):
    """What to publish: ``delta`` (>= 1) likes since the last update, ``total`` since the room began."""

    total: int
    delta: int
    top: tuple[tuple[str, int], ...]
    """(user_id, likes in this interval), most first, the earlier liker first among equals; at most 3."""


class LikeCounter:
    """Sums likes; ``total`` starts where a recovered room left off."""

    __slots__ = ("_by_user", "_interval_s", "_max_likers", "_next_at", "_pending_since", "delta", "total", "unranked")

    def __init__(self, total: int = 0, interval_s: float = 1.0, max_likers: int = 10_000) -> None:
        if total < 0 or not interval_s > 0 or max_likers < TOP_LIKERS:
            raise ValueError(f"not a like counter: {total=} {interval_s=} {max_likers=}")
        self.total = total
        self.delta = 0
        """Likes since the last `take`."""
        self.unranked = 0
        self._interval_s = interval_s
        self._max_likers = max_likers
        self._by_user: dict[str, int] = {}
        self._next_at = -inf
        self._pending_since = inf

    def add(self, user_id: str, count: int, now: float) -> None:
        """Count ``count`` (>= 0, else ValueError) likes of ``user_id``. O(1), about 0.3 us."""
        if count <= 0:
            if count < 0:
                raise ValueError(f"likes are not taken back: {count}")
            return
        if not self.delta:
            self._pending_since = now
        self.total += count
        self.delta += count
        by_user = self._by_user
        if user_id in by_user:
            by_user[user_id] += count
        elif len(by_user) < self._max_likers:
            by_user[user_id] = count
        else:
            self.unranked += count

    @property
    def due_at(self) -> float:
        """When `take` will next have something to say: inf while no like waits."""
        return max(self._next_at, self._pending_since) if self.delta else inf

    def take(self, now: float) -> LikeUpdate | None:
        """Return the update and begin a new interval; None if no like came or the last update is too fresh.

        The first like after a quiet interval goes out at once. O(likers of the interval).
        """
        if not self.delta or now < self._next_at:
            return None
        # nlargest keeps the order of arrival among equals, as sorted(reverse=True) does.
        top = tuple(nlargest(TOP_LIKERS, self._by_user.items(), key=itemgetter(1)))
        update = LikeUpdate(self.total, self.delta, top)
        self.delta = 0
        self._by_user = {}
        self._next_at = now + self._interval_s
        return update
