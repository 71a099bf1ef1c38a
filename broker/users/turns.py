"""Turns of tasks by key: whoever has the turn of a key changes what it names; the others wait in their order.

A turn is given back by whoever knows that the change is done, also by a callback: it is not bound to a task.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import trio

__all__ = ["Turns"]


class Turns:
    """Turns by key. Several are taken in the order in which they are given, which must be the same for all callers."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[trio.Event]] = {}
        """Who waits, by key: of those that are taken."""

    def __len__(self) -> int:
        """Return how many keys are taken."""
        return len(self._waiting)

    async def take(self, keys: Sequence[str]) -> None:
        """Wait for the turns of keys. Where it is cancelled none is taken."""
        taken: list[str] = []
        try:
            for key in keys:
                await self._take(key)
                taken.append(key)
        except BaseException:
            self.give(taken)
            raise

    async def _take(self, key: str) -> None:
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = deque()
            return
        turn = trio.Event()
        waiting.append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self.give((key,))
            else:
                waiting.remove(turn)
            raise

    def give(self, keys: Sequence[str]) -> None:
        """Give turns back."""
        for key in keys:
            waiting = self._waiting[key]
            if waiting:
                waiting.popleft().set()
            else:
                del self._waiting[key]
