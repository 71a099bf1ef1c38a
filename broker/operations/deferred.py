"""An answer that a callback brings: many may wait at a time, as none needs a task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from broker.ledger.pending import PendingResult

__all__ = ["Deferred"]


class Deferred:
    """Answer of one call, or the `OperationError` that it raises. Any: the result record of the operation."""

    __slots__ = ("_answer", "_on_answer")

    def __init__(self) -> None:
        self._answer: Any = None
        self._on_answer: Callable[[Any], None] | None = None

    def set(self, answer: Any) -> None:
        """Take the answer."""
        self._answer = answer
        if self._on_answer is not None:
            self._on_answer(answer)

    @property
    def answer(self) -> Any:
        """The answer, None = there is none yet."""
        return self._answer

    def then(self, on_answer: Callable[[Any], None]) -> None:
        """Call ``on_answer`` with the answer, which is not there yet."""
        self._on_answer = on_answer

    async def wait(self) -> Any:
        """Return the answer once it is there; raise it where it is an error."""
        pending = PendingResult[Any]()
        if self._answer is None:
            self.then(pending.set)
            answer = await pending.wait()
        else:
            answer = self._answer
        if isinstance(answer, Exception):
            raise answer
        return answer
