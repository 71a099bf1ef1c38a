"""How long users have watched a room: the time with a connection, of which one counts at a time.

A user who is there is not in this table: its connection knows when it joined. Only who has left is, with what it has
watched until then, and until when that counts; so of connections that overlap each moment counts once.

Bound: ``max_users``; beyond, who left first is forgotten, and begins again.
"""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["WatchTimes"]

MAX_USERS = 100_000


class WatchTimes:
    """Watched milliseconds of users. All times are Unix milliseconds of the trusted clock."""

    __slots__ = ("_left", "_max_users")

    def __init__(self, max_users: int = MAX_USERS) -> None:
        self._max_users = max_users
        self._left: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """Watched milliseconds, and until when, of users that have left."""

    def __len__(self) -> int:
        return len(self._left)

    def left(self, user: str, joined_at_ms: int, now_ms: int) -> None:
        """Count a connection that joined at a time and leaves now."""
        watched = self.watched_ms(user, joined_at_ms, now_ms)
        until = self._left.get(user, (0, 0))[1]
        self._left[user] = watched, max(until, now_ms)
        self._left.move_to_end(user)
        if len(self._left) > self._max_users:
            self._left.popitem(last=False)

    def watched_ms(self, user: str, joined_at_ms: int | None, now_ms: int) -> int:
        """Return what a user has watched. ``joined_at_ms``: of its connection, None = it has none."""
        watched, until = self._left.get(user, (0, 0))
        if joined_at_ms is None:
            return watched
        return watched + max(0, now_ms - max(joined_at_ms, until))
