"""Entries into lotteries by messages that equal their keyword.

A message counts when the room admits it, shown or not: merging and sampling lose none. Its sender waits for no answer,
so an entry that the ledger cannot take now is tried again; `MAX_WAITING` of them wait at most.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from broker.core.commerce.activity import ActivityRefusal, Requester
from broker.core.commerce.lottery import EnterCommand
from broker.core.commerce.room_activities import ActivityKey
from protocol.codes import ErrorCode

__all__ = ["KeywordEntries"]

MAX_WAITING = 200_000
RETRY_S = 1.0

# Any: an answer of any activity.
Send = Callable[[ActivityKey, EnterCommand, Requester, Callable[[Any], None]], None]


class KeywordEntries:
    """Gives entries to their lotteries. ``send``: gives a command to an activity; ``clock``: monotonic seconds."""

    __slots__ = ("_clock", "_send", "_waiting", "retry_at")

    def __init__(self, send: Send, clock: Callable[[], float]) -> None:
        self._send = send
        self._clock = clock
        self._waiting: dict[tuple[ActivityKey, str], tuple[Requester, str]] = {}
        self.retry_at = inf
        """When `retry` has something to do."""

    def enter(self, key: ActivityKey, requester: Requester, said: str) -> None:
        """Enter a user. ``said``: the text of its message."""

        def answered(answer: Any) -> None:
            if isinstance(answer, ActivityRefusal) and answer.code is ErrorCode.OVERLOADED:
                self._keep(key, requester, said)

        self._send(key, EnterCommand(said), requester, answered)

    def _keep(self, key: ActivityKey, requester: Requester, said: str) -> None:
        if len(self._waiting) < MAX_WAITING:
            self._waiting[key, requester.user] = requester, said
            self.retry_at = min(self.retry_at, self._clock() + RETRY_S)

    def retry(self) -> None:
        """Enter those who wait."""
        waiting, self._waiting, self.retry_at = self._waiting, {}, inf
        for (key, _), (requester, said) in waiting.items():
            self.enter(key, requester, said)
