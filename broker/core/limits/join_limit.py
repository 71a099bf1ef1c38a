"""Limit of joins per user: whether a JOIN or RESUME may pass now, and if not, when.

What costs is a room that is new to the user: a snapshot for it, and a line for the other members. So the limit counts
those only:

- Returning is free: a RESUME with the room's present epoch, or any request for a room that the user left within
  `RETURN_WINDOW_S`. A link has as many free returns as it may be in rooms, so leaving and joining in a loop is
  not free.
- Staff and the platform's own backend (MODERATOR and above) have no limit here; the frames of their links have one.

Bounds: one float per user with recent joins, and `MAX_RETURNS` marks of rooms that were left. A mark that is
forgotten early makes a return cost what a join costs.
"""

from __future__ import annotations

from broker.core.limits.rate_limit import Gcra, Rate
from broker.core.structures.recent_keys import RecentKeys
from protocol.codes import Role

__all__ = ["MAX_RETURNS", "RETURN_WINDOW_S", "JoinLimit"]

RETURN_WINDOW_S = 120.0
"""As long as a room keeps its events for those who resume (``room.history_s``)."""
SWEEP_USERS = 10_000
"""Users that one sweep checks."""
MAX_RETURNS = 65_536
"""Marks of (user, room), about 120 bytes each."""


class JoinLimit:
    """The joins of all users of one broker. Every method is O(1)."""

    __slots__ = ("_joins", "_left")

    def __init__(self, rate: Rate) -> None:
        self._joins = Gcra(rate)
        self._left = RecentKeys[tuple[str, str]](RETURN_WINDOW_S, MAX_RETURNS)

    def __len__(self) -> int:
        """Return the number of users whose joins are remembered."""
        return len(self._joins)

    @property
    def full_refusals(self) -> int:
        """Joins refused because the table of users was full."""
        return self._joins.full_refusals

    @property
    def returns_lost(self) -> int:
        """Marks of users who have left forgotten early because the table was full: their return counts as a join."""
        return self._left.forgotten

    def use_rate(self, rate: Rate) -> None:
        """Apply another rate from now on; a return stays free."""
        self._joins = self._joins.at_rate(rate)

    def sweep(self, now: float) -> None:
        """Forget users whose limit is at rest, some at a time; about 0.1 us a user, and no answer changes."""
        self._joins.sweep(now, SWEEP_USERS)

    def left(self, user_id: str, room_name: str, now: float) -> None:
        """Remember that a user was in a room until ``now`` (monotonic seconds)."""
        if not self._joins.rate.unlimited:
            self._left.mark((user_id, room_name), now)

    def is_return(self, user_id: str, room_name: str, now: float) -> bool:
        """Return whether the user left the room a short time ago."""
        return self._left.is_recent((user_id, room_name), now)

    def wait_s(self, user_id: str, role: Role, now: float, *, is_free: bool) -> float:
        """Take one join: 0.0 = it may pass, else the seconds to wait. ``is_free``: a return that the link has left."""
        if is_free or role >= Role.MODERATOR:
            return 0.0
        return self._joins.try_acquire(user_id, now)
