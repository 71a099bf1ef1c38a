"""Open posts: which answer belongs to which POST, and what it means.

A result comes as an entry of an ACK, in any order, or as an ERROR; both contain the number of the POST. When a link
ends, `resolve_unknown` ends the open posts with an unknown result.
"""

from __future__ import annotations

import trio

from ..codes import ErrorCode, MessageType, Outcome
from ..messages import AckResult, ErrorReply
from .events import PostResult
from .room import JoinedRoom

__all__ = ["Posts", "Waiter"]


class Waiter:
    """One open POST. When ``done`` is set, ``result`` is its result, None = unknown."""

    __slots__ = ("client_msg_id", "done", "result", "room", "type")

    def __init__(self, room: JoinedRoom, type: int, client_msg_id: str) -> None:
        self.room = room
        self.type = type
        self.client_msg_id = client_msg_id
        self.done = trio.Event()
        self.result: PostResult | None = None

    def resolve(self, result: PostResult) -> None:
        self.result = result
        self.done.set()


class Posts:
    """Open POSTs by number; as many as the application has posting tasks."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: dict[int, Waiter] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    async def wait(self, sequence: int, waiter: Waiter) -> PostResult | None:
        """Wait for the result of the POST that was sent as ``sequence``."""
        self._waiters[sequence] = waiter
        try:
            await waiter.done.wait()
        finally:
            self._waiters.pop(sequence, None)
        return waiter.result

    def on_result(self, entry: AckResult) -> bool:
        """Process one entry of an ACK; False if no POST waits for it."""
        waiter = self._waiters.get(entry.sequence)
        if waiter is None:
            return False
        result = PostResult(entry.outcome, waiter.client_msg_id)
        if entry.outcome is Outcome.LIMITED:
            result = result._replace(retry_after_ms=entry.detail)
        elif entry.outcome is Outcome.REJECTED:
            result = result._replace(error_code=entry.detail)
        elif entry.outcome is Outcome.ACCEPTED and waiter.type == MessageType.LIKE:
            result = result._replace(counted=entry.detail)
        elif entry.outcome in (Outcome.ACCEPTED, Outcome.MERGED):  # a gift in a combo: the offset of its event
            result = result._replace(offset=entry.detail)
        waiter.resolve(result)
        return True

    def on_error(self, sequence: int, error: ErrorReply) -> bool:
        """Process an ERROR; False if no POST waits for it."""
        waiter = self._waiters.get(sequence)
        if waiter is None:
            return False
        outcome = Outcome.LIMITED if error.code == ErrorCode.RATE_LIMITED else Outcome.REJECTED
        waiter.resolve(
            PostResult(
                outcome,
                waiter.client_msg_id,
                retry_after_ms=error.retry_after_ms,
                error_code=error.code,
                field=error.field,
                message=error.message,
            )
        )
        return True

    def resolve_unknown(self, room: JoinedRoom | None = None) -> None:
        """End the open POSTs of ``room``, or all of them, with an unknown result."""
        for waiter in self._waiters.values():
            if room is None or waiter.room is room:
                waiter.done.set()
