"""Questions to the ledger from those who may not wait: asked in one breath, answered by a call later.

Sessions are synchronous and the disk is not. A session leaves a question with a function to call, and goes on; this one
task takes what has gathered, asks all of it in one trip to the ledger's reading thread, and calls back in the order of
the questions. What is answered may be out of date by then: whoever is called looks again.

Bounds: `MAX_WAITING` questions; one more is refused. An answer is bounded by the question.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog
import trio

from broker.core.rooms.stream import StoredEvent
from broker.ledger import DirectState, Ledger, LedgerDamaged, LedgerRefused, Reader, StoredDirect
from broker.rooms.room_store import stored_events

__all__ = ["LedgerQueries"]

log = structlog.get_logger("roomcast.queries")

MAX_WAITING = 20_000
"""More than the connections of one process: each may wait for one room's history."""
PATIENCE_S = 10.0
"""A disk that could not be read may be read again soon; after so long nobody should wait for it any more."""
BATCH = 32
"""Questions of one trip: the trip costs as much as five of them."""


class Query(NamedTuple):
    # Any: arguments and answer are those of the question.
    ask: Callable[..., Any]
    arguments: tuple[Any, ...]
    on_done: Callable[[Any], None]
    if_damaged: Any = None
    """The answer where the ledger has it, but not as it was written: asking again will not help."""


class LedgerQueries:
    """The reading side of a ledger for sessions. ``max_bytes``: of one answer."""

    def __init__(self, ledger: Ledger, max_events: int, max_bytes: int) -> None:
        self._ledger = ledger
        self.max_events = max_events
        self._max_bytes = max_bytes
        self._waiting: deque[Query] = deque()
        self._wake = trio.Event()
        self._failing_since: float | None = None
        self.asked = 0
        self.failed = 0

    @property
    def is_worth_waiting(self) -> bool:
        """Whether what could not be read now may be read when it is asked for again."""
        return self._failing_since is None or trio.current_time() < self._failing_since + PATIENCE_S

    def history(
        self, room: str, epoch: int, after: int, last: int, on_done: Callable[[Sequence[StoredEvent] | None], None]
    ) -> bool:
        """Ask for the events ``after + 1`` to ``last``: all, or none where they cannot be had; None where that failed.

        False: too many questions wait already.
        """
        arguments = (room, epoch, after, last, self.max_events, self._max_bytes)
        return self._put(Query(_history, arguments, on_done, if_damaged=()))

    def inbox(
        self, user: str, after: int, now_ms: int, limit: int, on_done: Callable[[Sequence[StoredDirect] | None], None]
    ) -> bool:
        """Ask for the next pending messages of a user, or None where that failed. False as in `history`."""
        return self._put(Query(Reader.inbox, (user, after, now_ms, limit), on_done))

    def pending(self, user: str, on_done: Callable[[tuple[int, int] | None], None]) -> bool:
        """Ask what of a user is pending: the number before the first message and the last one, (0, 0) = nothing; None
        where that failed. False as in `history`.
        """
        return self._put(Query(_pending, (user,), on_done))

    def progress(self, batch: str, on_done: Callable[[Mapping[DirectState, int] | None], None]) -> bool:
        """Ask how many messages of a batch are in each state, or None where that failed. False as in `history`."""
        return self._put(Query(Reader.batch_progress, (batch,), on_done))

    def _put(self, question: Query) -> bool:
        if len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting.append(question)
        self._wake.set()
        return True

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask and answer until cancelled; what still waits then is never answered."""
        task_status.started()
        while True:
            if not self._waiting:
                self._wake = trio.Event()
                await self._wake.wait()
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            try:
                answers = await self._ledger.ask(_answer, batch)
            except LedgerRefused as error:  # it is closed: nobody will be served any more
                log.warning("the ledger cannot be read", why=str(error))
                answers = [error] * len(batch)
            for question, answer in zip(batch, answers, strict=True):
                self._tell(question, answer)

    def _tell(self, question: Query, answer: Any) -> None:
        self.asked += 1
        if isinstance(answer, Exception):
            self.failed += 1
            log.error("the ledger could not answer", why=str(answer))
            if isinstance(answer, LedgerDamaged):
                answer = question.if_damaged
            else:
                answer = None
                if self._failing_since is None:
                    self._failing_since = trio.current_time()
        else:
            self._failing_since = None
        try:
            question.on_done(answer)
        except Exception:
            log.exception("an answer of the ledger could not be taken")


def _answer(reader: Reader, batch: Sequence[Query]) -> list[Any]:
    """In the reading thread: every answer, or the error instead of it."""
    answers: list[Any] = []
    for question in batch:
        try:
            answers.append(question.ask(reader, *question.arguments))
        except (LedgerRefused, sqlite3.Error) as error:
            answers.append(error)
    return answers


def _pending(reader: Reader, user: str) -> tuple[int, int]:
    return reader.pending_inbox(user) or (0, 0)


def _history(
    reader: Reader, room: str, epoch: int, after: int, last: int, max_events: int, max_bytes: int
) -> Sequence[StoredEvent]:
    entries = reader.history(room, epoch, after, last, max_events, max_bytes)
    pasts = stored_events(entries or ())
    return pasts if len(pasts) == last - after else ()
