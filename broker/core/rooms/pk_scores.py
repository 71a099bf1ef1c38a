"""Gift events of a room on their way into the score of its PK.

One command is under way at a time, with the sum of all events that have come meanwhile. So events are counted in order,
each once (`Pk.counted_to`), and a PK takes one commit at a time, however many gifts there are. What the ledger refuses
is given again. After a restart the events that are not counted come from the history of the room.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Any

from broker.core.commerce.activity import ActivityRefusal
from broker.core.commerce.pk import Pk
from broker.core.commerce.pk_half import Scored
from protocol.codes import ErrorCode

__all__ = ["PkScores"]

MAX_WAITING = 10_000
"""Events that wait. All of them are durable and come within one commit of the score, or during an invitation."""
RETRY_S = 1.0


class PkScores:
    """Gifts that are not in the score yet. It is the ticket of its commands."""

    __slots__ = ("_under_way", "_waiting", "retry_at")

    def __init__(self) -> None:
        self._waiting: deque[Scored] = deque(maxlen=MAX_WAITING)
        self._under_way: Scored | None = None
        self.retry_at = inf
        """When `next` should be called again: monotonic seconds, infinite = with the next event or answer."""

    @property
    def has_waiting(self) -> bool:
        """Whether any gift waits."""
        return bool(self._waiting)

    def add(self, pk: Pk[Any] | None, cents: int, at_ms: int, offset: int) -> None:
        """Take a gift event of the stream. ``pk``: of the room, None = it has none."""
        if pk is not None and pk.takes_gifts and offset > pk.counted_to:
            self._waiting.append(Scored(cents, at_ms, offset))

    def next(self, pk: Pk[Any] | None, now: float) -> Scored | None:
        """Return the next command, None = there is none now."""
        if not self._waiting or self._under_way is not None or now < self.retry_at < inf:
            return None
        self.retry_at = inf
        if pk is None or not pk.takes_gifts:
            self._waiting.clear()
            return None
        window = pk.window
        if window is None:
            return None  # an invitation, which may be accepted at any moment
        counted = [gift for gift in self._waiting if window[0] <= gift.at_ms < window[1]]
        self._waiting.clear()
        if not counted:
            return None
        last = counted[-1]
        self._under_way = last._replace(amount=sum(gift.amount for gift in counted))
        return self._under_way

    # Any: an answer of any activity.
    def answered(self, answer: Any, now: float) -> None:
        """Take the answer to the command under way."""
        gift, self._under_way = self._under_way, None
        if gift is not None and isinstance(answer, ActivityRefusal) and answer.code is ErrorCode.OVERLOADED:
            self._waiting.appendleft(gift)
            self.retry_at = now + RETRY_S
