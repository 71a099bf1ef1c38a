"""Gifts, paid messages and likes of a room on their way into the score of its PK.

One command is under way at a time, with the sum of all that has come meanwhile. So events are counted in order, each
once (`Pk.counted_to`), and a PK takes one commit at a time, however many gifts there are. What the ledger refuses is
given again. After a restart the events that are not counted come from the history of the room.

Likes are no events: what the room has more of them than at the start of the PK is given once a second, and at its end.
Those of the last second before a crash count in no score, as they do not count in the room either.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Any

from broker.core.commerce.activity import ActivityRefusal
from broker.core.commerce.pk import Pk
from broker.core.commerce.pk_half import Scored
from protocol.activities.pk import PkMeasure
from protocol.codes import ErrorCode

__all__ = ["LIKES_EVERY_MS", "PkScores"]

MAX_WAITING = 10_000
"""Events that wait. All of them are durable and come within one commit of the score, or during an invitation."""
RETRY_S = 1.0
LIKES_EVERY_MS = 1000


class PkScores:
    """What is not in the score yet. It is the ticket of its commands."""

    __slots__ = ("_likes_seen", "_under_way", "_waiting", "retry_at")

    def __init__(self) -> None:
        self._waiting: deque[Scored] = deque(maxlen=MAX_WAITING)
        self._under_way: Scored | None = None
        self._likes_seen: int | None = None
        """Likes of the room when it was asked for them last; None = no PK counts them now."""
        self.retry_at = inf
        """When `next` should be called again: monotonic seconds, infinite = with the next event or answer."""

    @property
    def has_waiting(self) -> bool:
        """Whether anything waits."""
        return bool(self._waiting)

    def add(self, pk: Pk[Any] | None, cents: int, at_ms: int, offset: int) -> None:
        """Take a paid event of the stream. ``pk``: of the room, None = it has none."""
        if pk is not None and pk.takes(PkMeasure.GIFTS) and offset > pk.counted_to:
            self._waiting.append(Scored(cents, at_ms, offset))

    def add_likes(self, pk: Pk[Any] | None, likes: int, now_ms: int) -> int | None:
        """Take the likes that have come since the last call; return when to call again, None = with the next PK.

        ``likes``: all of the room so far.
        """
        window = pk.window if pk is not None and pk.takes(PkMeasure.LIKES) else None
        if window is None:
            self._likes_seen = None
            return None
        starts_at_ms, ends_at_ms = window
        if now_ms < starts_at_ms:
            return starts_at_ms
        if self._likes_seen is not None and likes > self._likes_seen:
            self._waiting.append(Scored(likes - self._likes_seen, min(now_ms, ends_at_ms - 1)))
        if now_ms >= ends_at_ms:
            self._likes_seen = None
            return None
        self._likes_seen = likes
        return min(now_ms + LIKES_EVERY_MS, ends_at_ms)

    def next(self, pk: Pk[Any] | None, now: float) -> Scored | None:
        """Return the next command, None = there is none now."""
        if not self._waiting or self._under_way is not None or now < self.retry_at < inf:
            return None
        self.retry_at = inf
        if pk is None or not any(map(pk.takes, PkMeasure)):
            self._waiting.clear()
            return None
        window = pk.window
        if window is None:
            return None  # an invitation, which may be accepted at any moment
        counted = [each for each in self._waiting if window[0] <= each.at_ms < window[1]]
        self._waiting.clear()
        if not counted:
            return None
        last = counted[-1]
        self._under_way = last._replace(amount=sum(each.amount for each in counted))
        return self._under_way

    # Any: an answer of any activity.
    def answered(self, answer: Any, now: float) -> None:
        """Take the answer to the command under way."""
        given, self._under_way = self._under_way, None
        if given is not None and isinstance(answer, ActivityRefusal) and answer.code is ErrorCode.OVERLOADED:
            self._waiting.appendleft(given)
            self.retry_at = now + RETRY_S
