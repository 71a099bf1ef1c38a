"""Presence of one room: users and links present, users ever present, and a sample of those who just joined.

Counters first, a list never: pushing members to members costs viewers squared. A *user* may have many connections
(tabs, devices); joins and leaves are the user's, from the first connection to the last.

- ``online`` connections now, ``peak`` the most there ever were.
- ``users`` different logged-in users now; guests are not users. An id counts as logged in from its first connection
  whose role is above GUEST until its last connection leaves.
- ``uniques`` different ids ever, guests' ids included: exact up to ``exact_uniques`` (100,000), beyond that a
  HyperLogLog estimate with 0.81 % standard error. It never falls.
- Join notices ("Ann came in"): at most 5 named ones a second, the rest as "+n". Higher roles are named first, guests
  only counted. A user who returns within 60 s of leaving (a reload, a lost link) causes no notice, so no user causes
  more than one a minute. Nor does one who resumes the present stream: after a restart all viewers do.

Memory: one dict entry from user id to a small integer, no object per user: about 55 bytes besides the id itself,
which the session holds anyway. The integer is twice the number of connections, plus 1 if the user is logged in. While
uniques are exact, users who left stay in the same dict with 0, so remembering them costs a present user nothing. The
sketch is filled two users at a time during the second half of the exact range: no call ever has to hash all users at
once.

Bounds: the dict by the room's connections plus ``exact_uniques``; users who left lately by ``max_left`` (a full
table forgets the earliest, which costs a surplus notice, and notices are sampled anyway); named joins by 5.
"""

from __future__ import annotations

from math import inf
from operator import itemgetter
from typing import NamedTuple

from protocol.codes import Role

from ..structures.hyperloglog import HyperLogLog
from ..structures.recent_keys import RecentKeys

__all__ = ["DEBOUNCE_S", "EXACT_UNIQUES", "NAMED_JOINS_PER_S", "Presence", "PresenceCounts"]

NAMED_JOINS_PER_S = 5
DEBOUNCE_S = 60.0
"""A viewer who changes between Wi-Fi and mobile data, or reloads, returns within seconds, and often several times."""
EXACT_UNIQUES = 100_000

_NOTICE_INTERVAL_S = 1.0
_GUEST = Role.GUEST
_role = itemgetter(0)


class PresenceCounts(NamedTuple):
    """The four numbers that a room publishes."""

    online: int
    users: int
    uniques: int
    peak: int


class Presence:
    """Who is in one room. ``exact_uniques`` >= 1, ``max_left`` >= 2; else ValueError."""

    __slots__ = (
        "_connections", "_exact", "_left", "_lowest_named", "_more", "_named", "_next_notice_at", "_pending_since",
        "_sketch", "_to_sketch", "_uniques_exact", "joined", "online", "peak", "users",
    )  # fmt: skip

    def __init__(self, exact_uniques: int = EXACT_UNIQUES, max_left: int = 20_000) -> None:
        if exact_uniques < 1:
            raise ValueError(f"exact_uniques must be at least 1: {exact_uniques!r}")
        self.online = 0
        """Connections now."""
        self.users = 0
        """Different logged-in users now."""
        self.peak = 0
        """Most connections at once so far."""
        self.joined = 0
        """Users and guests who came in so far, each time they did; one who resumes did not."""
        self._connections: dict[str, int] = {}
        self._exact = exact_uniques
        self._uniques_exact = True
        self._sketch: HyperLogLog | None = None
        self._to_sketch: list[str] = []
        self._left = RecentKeys[str](DEBOUNCE_S, max_left)
        self._named: list[tuple[Role, str, str]] = []
        self._lowest_named = Role.GUEST
        self._more = 0
        self._pending_since = inf
        self._next_notice_at = -inf

    @property
    def entries(self) -> int:
        """Users and guests in the table, those here and those remembered for `uniques`."""
        return len(self._connections)

    @property
    def entries_left(self) -> int:
        """Users who left lately and are not announced again."""
        return len(self._left)

    @property
    def returns_lost(self) -> int:
        """Marks of users who have left forgotten early because the table was full: their return is announced."""
        return self._left.forgotten

    @property
    def uniques(self) -> int:
        """Different users and guests so far; some microseconds once it is an estimate."""
        if self._uniques_exact or self._sketch is None:
            return len(self._connections)
        return max(self._exact + 1, self._sketch.estimate())

    @property
    def uniques_exact(self) -> bool:
        """Whether `uniques` is a count rather than an estimate."""
        return self._uniques_exact

    def has(self, user_id: str) -> bool:
        """Return whether a user has a connection now."""
        return self._connections.get(user_id, 0) > 1

    def counts(self) -> PresenceCounts:
        return PresenceCounts(self.online, self.users, self.uniques, self.peak)

    def enter(
        self, user_id: str, display_name: str, role: Role, now: float, resumes: bool = False, is_hidden: bool = False
    ) -> bool:
        """Count one more connection of ``user_id``; return whether it is their first one now. About 1 us.

        ``resumes``: it continues a connection to this stream, so that it causes no join notice; ``is_hidden``: the
        notice counts it without its name.
        """
        self.online += 1
        if self.online > self.peak:
            self.peak = self.online
        known = self._connections.get(user_id)
        marks = (known or 0) + 2
        if role is not _GUEST and not marks & 1:
            marks += 1
            self.users += 1
        self._connections[user_id] = marks
        if known:
            return False
        if known is None:
            self._count_unique(user_id)
        if resumes:
            return True
        self.joined += 1
        if not self._left.is_recent(user_id, now):
            self._note(user_id, display_name, _GUEST if is_hidden else role, now)
        return True

    def leave(self, user_id: str, now: float) -> bool:
        """One connection less; return whether it was the user's last one.

        ValueError for a user who is not here, with nothing changed: the caller's count is wrong.
        """
        marks = self._connections.get(user_id, 0)
        if not marks:
            raise ValueError("a user who is not in the room cannot leave it")
        self.online -= 1
        if marks >= 4:
            self._connections[user_id] = marks - 2
            return False
        self.users -= marks & 1
        if self._uniques_exact:
            self._connections[user_id] = 0
        else:
            del self._connections[user_id]
        self._left.mark(user_id, now)
        return True

    def erase(self, user_id: str, pseudonym: str) -> None:
        """Remember a user who has left under another id, so that `uniques` stays. One who is here stays as it is."""
        if self._connections.get(user_id) == 0:
            self._connections = {pseudonym if user == user_id else user: n for user, n in self._connections.items()}
        self._named = [named for named in self._named if named[1] != user_id or self.has(user_id)]

    @property
    def joins_due_at(self) -> float:
        """When `take_joins` will next return something: inf while no user came."""
        return max(self._next_notice_at, self._pending_since)

    def take_joins(self, now: float) -> tuple[list[tuple[str, str]], int]:
        """Return ([(user_id, name), ...], more): who came in since the last notice, and how many besides.

        ([], 0) when no user did, or when the last notice is less than a second old.
        """
        if now < self.joins_due_at:
            return [], 0
        joins = [(user_id, name) for _, user_id, name in self._named], self._more
        self._named = []
        self._more = 0
        self._pending_since = inf
        self._next_notice_at = now + _NOTICE_INTERVAL_S
        return joins

    def _note(self, user_id: str, name: str, role: Role, now: float) -> None:
        if self._pending_since == inf:
            self._pending_since = now
        named = self._named
        if role is _GUEST:
            self._more += 1
        elif len(named) < NAMED_JOINS_PER_S:
            named.append((role, user_id, name))
            self._lowest_named = role if len(named) == 1 else min(role, self._lowest_named)
        else:
            self._more += 1
            if role > self._lowest_named:
                # Of equals the first stays: min() finds the lowest role, reversed() the latest of them.
                named.remove(min(reversed(named), key=_role))
                named.append((role, user_id, name))
                self._lowest_named = min(map(_role, named))

    def _count_unique(self, user_id: str) -> None:
        sketch = self._sketch
        if sketch is None:
            if len(self._connections) <= self._exact // 2:
                return
            self._to_sketch = list(self._connections)
            self._sketch = sketch = HyperLogLog()
        else:
            sketch.add(user_id)
        if self._to_sketch:
            sketch.add(self._to_sketch.pop())
        if self._uniques_exact and len(self._connections) > self._exact:
            # Every user is in the sketch: the second half of the range took one of the first half along each time.
            self._uniques_exact = False
            self._connections = {user: count for user, count in self._connections.items() if count}
