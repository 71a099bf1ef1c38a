"""Results of posts that no link has made: an operation waits for them."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from broker.core.rooms.types import TypeRules
from broker.net.transport import Transport
from broker.rooms.members import Member, RoomRef
from protocol.codes import LeaveReason, Role
from protocol.messages import AckResult, FirstResult

__all__ = ["PostResults"]


class PostResults:
    """Receiver of the results of some posts, numbered from 1, in any rooms.

    Each room answers each post exactly once; `wait` returns when all have been answered. ``repeated``: those whose key
    was used before.
    """

    transport: Transport
    """Never set: it is no member, so nothing is sent to it."""

    def __init__(self) -> None:
        self.repeated: set[int] = set()
        self._results: dict[int, AckResult] = {}
        self._expected = 0
        self._done: trio.Event | None = None

    def author(self, types: TypeRules, user: str, name: str) -> Member:
        """Return who posts: the caller, or the user for whom it does, with the role APP."""
        return Member(self, user, name, Role.APP, types.permitted(Role.APP, None), 0)

    def expect(self) -> int:
        """Return the number of one more post."""
        self._expected += 1
        return self._expected

    def refuse(self, result: AckResult) -> None:
        """Set the result of a post that no room has taken."""
        self._results[result.sequence] = result

    def reply_acks(self, room: int, results: list[AckResult], firsts: Sequence[FirstResult] = ()) -> None:
        """Take results; called by rooms."""
        for result in results:
            self._results[result.sequence] = result
        self.repeated.update(first.sequence for first in firsts)
        if self._done is not None and len(self._results) >= self._expected:
            self._done.set()

    def reply_with_reason(self, room: int, result: AckResult, reason: str, retry_after_ms: int = 0) -> None:
        """Take the result of a refused post."""
        self.reply_acks(room, [result])

    def on_left(self, room: RoomRef, reason: LeaveReason, message: str) -> None:
        """Ignore the end of a room: its posts are answered all the same."""

    async def wait(self) -> list[AckResult]:
        """Return the results in the order of the posts."""
        if len(self._results) < self._expected:
            self._done = trio.Event()
            await self._done.wait()
        return [self._results[number] for number in range(1, self._expected + 1)]
