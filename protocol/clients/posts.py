"""Posts under way: which answer belongs to which POST, and what it means.

A fate comes as an entry of an ACK, in any order, or as an ERROR; both name the POST by its number. A link that is
lost answers none, so `give_up` wakes whoever waits with "nobody knows".
"""

from __future__ import annotations

import trio

from ..codes import ErrorCode, MessageType, Outcome
from ..messages import AckResult, ErrorReply
from .events import PostResult
from .room import JoinedRoom

__all__ = ["Posts", "Waiter"]


class Waiter:
    """One POST that waits. When ``done`` is set, ``result`` is its fate, None = nobody knows."""

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
    """The waiting POSTs by number; as many as the application has tasks that wait."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: dict[int, Waiter] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    async def wait(self, sequence: int, waiter: Waiter) -> PostResult | None:
        """Wait for the fate of the POST that was sent as ``sequence``. Cancelled, its answer will be a stray."""
        self._waiters[sequence] = waiter
        try:
            await waiter.done.wait()
        finally:
            self._waiters.pop(sequence, None)
        return waiter.result

    def on_fate(self, fate: AckResult) -> bool:
        """Take one entry of an ACK; False where nobody waits for it."""
        waiter = self._waiters.get(fate.sequence)
        if waiter is None:
            return False
        result = PostResult(fate.outcome, waiter.client_msg_id)
        if fate.outcome is Outcome.LIMITED:
            result = result._replace(retry_after_ms=fate.detail)
        elif fate.outcome is Outcome.REJECTED:
            result = result._replace(error_code=fate.detail)
        elif fate.outcome is Outcome.ACCEPTED and waiter.type == MessageType.LIKE:
            result = result._replace(counted=fate.detail)
        elif fate.outcome in (Outcome.ACCEPTED, Outcome.MERGED):  # a gift in a combo has its event's offset too
            result = result._replace(offset=fate.detail)
        waiter.resolve(result)
        return True

    def on_error(self, sequence: int, error: ErrorReply) -> bool:
        """Take an ERROR; False where no POST waits for it."""
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

    def give_up(self, room: JoinedRoom | None = None) -> None:
        """Wake the waiters of ``room``, or all of them: nobody will answer."""
        for waiter in self._waiters.values():
            if room is None or waiter.room is room:
                waiter.done.set()
