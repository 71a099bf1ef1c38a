"""Batched reads of the ledger for callers that must not wait: asked synchronously, answered later by a callback.

Sessions are synchronous and the disk is not. A caller queues a query with a callback and goes on; one task takes what
has gathered, runs it in one trip to the ledger's reading thread, and calls back in the order of the queries. An answer
may be out of date by then: the callback checks again.

Bounds: `MAX_WAITING` queries; one more is refused. The size of an answer is bounded by the query.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import structlog
import trio

from broker.ledger.entries import LedgerDamaged, LedgerRefused
from broker.ledger.reader import Reader
from broker.ledger.service import Ledger

__all__ = ["LedgerQueries"]

log = structlog.get_logger("roomcast.ledger")

MAX_WAITING = 20_000
"""More than the connections of one process: each may wait for the history of one room."""
RETRY_FOR_S = 10.0
"""A disk that could not be read may be readable again soon; after this time callers should give up."""
BATCH = 32
"""Queries of one trip: the trip costs as much as five of them."""


class _Query(NamedTuple):
    # Any: arguments and answer are those of the query.
    read: Callable[..., Any]
    arguments: tuple[Any, ...]
    on_done: Callable[[Any], None]
    if_damaged: Any


class LedgerQueries:
    """Queue of reads beside the ledger's writer. Counters ``asked`` and ``failed`` only grow."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: deque[_Query] = deque()
        self._wake = trio.Event()
        self._failing_since: float | None = None
        self.asked = 0
        self.failed = 0

    def __len__(self) -> int:
        """Return how many queries wait."""
        return len(self._waiting)

    @property
    def may_recover(self) -> bool:
        """Whether what could not be read now may be readable when it is asked for again."""
        return self._failing_since is None or trio.current_time() < self._failing_since + RETRY_FOR_S

    def submit(
        self,
        read: Callable[..., Any],
        arguments: tuple[Any, ...],
        on_done: Callable[[Any], None],
        *,
        if_damaged: Any = None,
    ) -> bool:
        """Queue ``read(reader, *arguments)``; ``on_done`` gets the answer, or None if reading failed.

        ``if_damaged``: the answer where the rows are there but damaged, so that asking again will not help. Returns
        False if too many queries wait: ``on_done`` is not called.
        """
        if len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting.append(_Query(read, arguments, on_done, if_damaged))
        self._wake.set()
        return True

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer queries until cancelled; queries that still wait then are never answered."""
        task_status.started()
        while True:
            if not self._waiting:
                self._wake = trio.Event()
                await self._wake.wait()
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            try:
                answers = await self._ledger.ask(_answer_all, batch)
            except LedgerRefused as error:  # it is closed
                log.warning("the ledger cannot be read", why=str(error))
                answers = [error] * len(batch)
            for query, answer in zip(batch, answers, strict=True):
                self._complete(query, answer)

    def _complete(self, query: _Query, answer: Any) -> None:
        self.asked += 1
        if isinstance(answer, Exception):
            self.failed += 1
            log.error("the ledger could not answer", why=str(answer))
            if isinstance(answer, LedgerDamaged):
                answer = query.if_damaged
            else:
                answer = None
                if self._failing_since is None:
                    self._failing_since = trio.current_time()
        else:
            self._failing_since = None
        try:
            query.on_done(answer)
        except Exception:
            log.exception("an answer of the ledger could not be taken")


def _answer_all(reader: Reader, batch: Sequence[_Query]) -> list[Any]:
    """Run in the reading thread: return every answer, or the error in its place."""
    answers: list[Any] = []
    for query in batch:
        try:
            answers.append(query.read(reader, *query.arguments))
        except (LedgerRefused, sqlite3.Error) as error:
            answers.append(error)
    return answers
