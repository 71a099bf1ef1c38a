"""The end of the log of a room that this node owns, and the appends behind it.

A fact that was appended is there once, whatever the link does: one whose answer was lost is looked up in the log before
anything else is written. An append waits while the engine does not answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import structlog
import trio

from broker.engine.base import (
    MAX_APPEND_BYTES,
    Appended,
    Engine,
    EngineError,
    EngineUnavailable,
    Fenced,
    Granted,
    LogItem,
    Misplaced,
    OutboxItem,
    OutcomeUnknown,
)
from broker.ledger.encryption import OVERHEAD_BYTES

__all__ = ["AGAIN_S", "MAX_GROUP", "RoomLog", "groups"]

log = structlog.get_logger("roomcast.room_log")

AGAIN_S = 0.1
"""Time between two attempts while the engine does not answer."""
MAX_GROUP = 64
"""Facts of one append."""
_MAX_GROUP_BYTES = MAX_APPEND_BYTES - 2 * MAX_GROUP * OVERHEAD_BYTES
"""Bodies of one append: those of facts and of the rows of reports grow where they are encrypted."""


class RoomLog:
    """Facts of one room, written under the fence of this node; one append at a time."""

    def __init__(self, engine: Engine, room: str, granted: Granted) -> None:
        self.room = room
        self.fact = granted.last_fact
        """Number of the last fact."""
        self.fence = granted.fence
        self.is_open = True
        self._engine = engine
        self.lost_after = -1
        """The engine has lost the facts behind this number; -1: it has lost none."""
        self._offset = granted.offset

    def go_on(self, granted: Granted) -> bool:
        """Write under another fence of this node from now on; False: the engine has lost facts (`lost_after`)."""
        self.fence, self._offset = granted.fence, granted.offset
        if granted.last_fact < self.fact:
            self.lost_after = granted.last_fact
        return self.lost_after < 0

    def begin_again(self, fact: int) -> None:
        """Write on behind ``fact``, where the engine has lost what followed it."""
        self.fact, self.lost_after = fact, -1

    def close(self) -> None:
        """Write no more: this node does not own the room."""
        self.is_open = False

    async def append(self, items: Sequence[LogItem], outbox: Sequence[OutboxItem] = ()) -> bool:
        """Append facts; False: this node may not write any more, or the engine has lost facts (`lost_after`).

        Where the engine knows nothing of the room it has lost its data: this node is to claim the room again.
        """
        is_unknown = False
        while True:
            fence = self.fence
            try:
                answer = await self._engine.append(self.room, fence, self._offset, self.fact, items, outbox)
            except OutcomeUnknown:
                is_unknown = True
            except EngineUnavailable:
                pass
            except EngineError as error:
                log.error("a room cannot be written", room=self.room, why=str(error))
                return False
            else:
                if isinstance(answer, Appended):
                    self.fact = answer.last_fact
                    return True
                if fence != self.fence:
                    continue  # it was claimed again meanwhile
                if isinstance(answer, Misplaced) and is_unknown and answer.last_fact == self.fact + len(items):
                    if await self._is_there(items):
                        self.fact = answer.last_fact
                        return True
                if isinstance(answer, Misplaced) and answer.last_fact < self.fact:
                    self.lost_after, self._offset = answer.last_fact, answer.last_offset
                    return False
                if not isinstance(answer, Fenced) or answer.owner is not None:
                    if self.is_open:
                        log.warning("a room of this node is another's", room=self.room)
                    return False
            await trio.sleep(AGAIN_S)
            if not self.is_open and not is_unknown:
                return False

    async def _is_there(self, items: Sequence[LogItem]) -> bool:
        """Return whether the log goes on with these facts: an append whose answer was lost was done."""
        while True:
            try:
                found = await self._engine.read_facts(self.room, self.fact, len(items))
            except EngineError:
                await trio.sleep(AGAIN_S)
            else:
                return [each.body for each in found] == [item.body for item in items]


def groups(bodies: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Yield what goes into one append each."""
    start = nbytes = 0
    for index, body in enumerate(bodies):
        nbytes += len(body)
        if index > start and (nbytes > _MAX_GROUP_BYTES or index - start == MAX_GROUP):
            yield bodies[start:index]
            start, nbytes = index, len(body)
    if start < len(bodies):
        yield bodies[start:]
