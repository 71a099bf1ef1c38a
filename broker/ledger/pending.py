"""One result that a callback brings and one task waits for."""

from __future__ import annotations

from typing import Generic, TypeVar

import trio

__all__ = ["PendingResult"]

T = TypeVar("T")


class PendingResult(Generic[T]):
    """Result of a submission: `set` is its ``on_done``, `wait` returns it."""

    __slots__ = ("_event", "_results")

    def __init__(self) -> None:
        self._results: list[T] = []
        self._event = trio.Event()

    def set(self, result: T) -> None:
        """Take the result."""
        self._results.append(result)
        self._event.set()

    async def wait(self) -> T:
        """Return the result once it is there."""
        await self._event.wait()
        return self._results[0]
