"""The ledger's one thread: what waits becomes one transaction with one fsync, and its results go back together.

Group commit shares the cost of durability among all rooms: the slower the disk, the larger the groups. Nothing is ever
reported committed before its fsync has returned.

When the disk fails, everything that waits is refused, and the writer tries again with growing pauses. It first verifies
that the file still ends where it must, then writes and syncs an empty commit over what the failed one may have left. If
that works it is ready again, with no hole, since a failed batch has taken no offset. If the end is not there any more,
acknowledged data is lost: it never writes again, and says so.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from math import inf
from queue import Empty, SimpleQueue
from typing import NamedTuple

import structlog

from broker.ledger.entries import FailureKind, LedgerDamaged, LedgerError, LedgerResult, Repeated, Submission
from broker.ledger.head import HeadFile
from broker.ledger.maintenance import Maintenance
from broker.ledger.schema import failure_kind_of
from broker.ledger.store import Store

__all__ = ["LedgerState", "LedgerStats", "Pace", "Waiting", "Writer"]

log = structlog.get_logger("roomcast.ledger")


TRUSTED_TIME_EVERY_S = 10.0
"""How often the time of a trusted clock is kept for the next start."""
MARK_SYNC_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Pace:
    """The writer's rhythm. Times in seconds, sizes of the log in pages of 4 KiB."""

    max_batch: int = 500
    """Submissions of one transaction; with 2,000 in one the slowest waits above 100 ms (measured)."""
    max_batch_bytes: int = 4 * 1024 * 1024
    gather_s: float = 0.008
    """While commits have `gather_from` submissions or more, one begins so long after the one before it at the earliest:
    a commit and the delivery of its results cost as much for one gift as for some dozens."""
    gather_from: int = 16
    idle_s: float = 0.05
    """Quiet for so long means idle: time for a checkpoint."""
    maintenance_s: float = 1.0
    checkpoint_pages: int = 256
    """A log of 1 MiB is worth a checkpoint when no submission waits."""
    full_log_pages: int = 4096
    """A log of 16 MiB forces one although submissions wait; it is the same few pages many times, so it is short."""
    retry_first_s: float = 0.1
    retry_most_s: float = 2.0
    scrub_within_s: float = 600.0
    """How long a scrub waits for a pause in the submissions."""
    scrub_retry_s: float = 10.0
    slow_commit_s: float = 1.0
    """A commit that takes longer is logged, at most once a minute."""


class LedgerState(Enum):
    """Life of a ledger."""

    OPENING = "opening"
    READY = "ready"
    DEGRADED = "degraded"
    """It cannot write now and tries again by itself."""
    DAMAGED = "damaged"
    """What was acknowledged is not in the file any more, or the thread failed: it does not write again."""
    CLOSED = "closed"


class LedgerSignal(Enum):
    """What happens to a ledger."""

    OPENED = "opened"
    FAILED = "failed"
    RECOVERED = "recovered"
    BROKEN = "broken"
    CLOSE = "close"


TRANSITIONS: dict[tuple[LedgerState, LedgerSignal], LedgerState] = {
    (LedgerState.OPENING, LedgerSignal.OPENED): LedgerState.READY,
    (LedgerState.READY, LedgerSignal.FAILED): LedgerState.DEGRADED,
    (LedgerState.DEGRADED, LedgerSignal.FAILED): LedgerState.DEGRADED,
    (LedgerState.DEGRADED, LedgerSignal.RECOVERED): LedgerState.READY,
    (LedgerState.READY, LedgerSignal.BROKEN): LedgerState.DAMAGED,
    (LedgerState.DEGRADED, LedgerSignal.BROKEN): LedgerState.DAMAGED,
    **{(state, LedgerSignal.CLOSE): LedgerState.CLOSED for state in LedgerState},
}
"""``TRANSITIONS[state, signal]``; a missing key is refused."""


@dataclass(slots=True)
class LedgerStats:
    """Counters of one run."""

    submissions: int = 0
    """Settled without an error."""
    repeated: int = 0
    """Of these, those whose key was known."""
    failed: int = 0
    """Taken, and then not written."""
    refused: int = 0
    """Not taken: full or unavailable."""
    commits: int = 0
    commit_s: float = 0.0
    """Time spent in commits; divided by ``commits``, the mean."""
    slowest_commit_s: float = 0.0
    checkpoints: int = 0
    recoveries: int = 0
    expired_directs: int = 0
    removed_rows: int = 0
    scrubs: int = 0


class Waiting(NamedTuple):
    """A submission and who wants to know."""

    submission: Submission
    on_done: Callable[[LedgerResult], None]


Deliver = Callable[[list[tuple[Waiting, LedgerResult]]], None]


class Writer:
    """Owner of a store. `loop` is what its thread runs; ``queue`` takes submissions, and None as the last.

    ``deliver`` is called in the thread with the results of a batch, in order; it must not raise. ``state`` and
    ``reason`` are written here and may be read anywhere.
    """

    def __init__(
        self,
        store: Store,
        marks: HeadFile,
        maintenance: Maintenance,
        deliver: Deliver,
        *,
        pace: Pace,
        unix_ms: Callable[[], int],
        distrust: Callable[[], str] = lambda: "",
        keep_trusted: Callable[[], None] = lambda: None,
        clock: Callable[[], float],
    ) -> None:
        self.queue: SimpleQueue[Waiting | None] = SimpleQueue()
        self.stats = LedgerStats()
        self.state = LedgerState.OPENING
        self.reason = ""
        self.scrub_requests: SimpleQueue[Callable[[], None]] = SimpleQueue()
        """What is called once nothing of what was removed before is left in the file."""
        self._scrubbing: list[Callable[[], None]] = []
        self._scrub_due_at: float | None = None
        self._scrub_retry_at = -inf
        self._store = store
        self._marks = marks
        self._maintenance = maintenance
        self._deliver = deliver
        self._pace = pace
        self._unix_ms = unix_ms
        self._clock = clock
        self._distrust = distrust
        self._distrusted = ""
        self._keep_trusted = keep_trusted
        self._trusted_at = -inf
        self._failure = FailureKind.IO_ERROR
        self._log_pages = 0
        self._retry_pause_s = pace.retry_first_s
        self._stopping = False
        self._mark_failed = False
        self._is_mark_synced = True
        self._mark_synced_at = -inf
        self._gather_until = -inf
        self._maintenance_at = clock()
        self._slow_logged_at = self._maintenance_logged_at = clock() - 60.0
        self.move(LedgerSignal.OPENED)

    def move(self, signal: LedgerSignal) -> None:
        """Change the state; RuntimeError (a bug) where the table has no key."""
        state = TRANSITIONS.get((self.state, signal))
        if state is None:
            raise RuntimeError(f"a ledger that is {self.state.value} cannot be {signal.value}")
        self.state = state

    def loop(self) -> None:
        """Write, recover and run maintenance until None comes; everything before it is answered first."""
        try:
            while not self._stopping:
                self.step()
        except Exception as error:
            log.exception("the ledger's thread failed")
            if self.state is not LedgerState.DAMAGED:
                self._broken(f"the ledger's thread failed: {error!r}")
            while not self._stopping:
                self._refuse(self._pace.retry_most_s)
        self.close()

    def step(self, *, wait: bool = True) -> None:
        """Do one iteration of `loop`: commit one batch and maintain the file, or refuse what comes and try to recover.

        ``wait``: block for the first submission, or for the pause before the next attempt to recover; False takes only
        what is in the queue.
        """
        if self.state is not LedgerState.READY:
            self._refuse(self._retry_pause_s if wait else 0.0)
            self._retry_pause_s = min(2 * self._retry_pause_s, self._pace.retry_most_s)
            if self.state is LedgerState.DEGRADED and not self._stopping:
                self._try_again()
            return
        batch = self._gather(wait)
        if batch:
            self._commit(batch)
        if self.state is LedgerState.READY:
            self._run_maintenance(is_idle=not batch)

    # ---- commits

    def _gather(self, wait: bool) -> list[Waiting]:
        """What waits now, up to a batch; waits a moment for the first."""
        pace = self._pace
        batch: list[Waiting] = []
        nbytes = 0
        try:
            if wait:
                self._let_gather()
                waiting = self.queue.get(timeout=pace.idle_s if self._log_pages else pace.maintenance_s)
            else:
                waiting = self.queue.get_nowait()
            while True:
                if waiting is None:
                    self._stopping = True
                    return batch
                batch.append(waiting)
                nbytes += waiting.submission.nbytes
                if len(batch) >= pace.max_batch or nbytes >= pace.max_batch_bytes:
                    return batch
                waiting = self.queue.get_nowait()
        except Empty:
            return batch

    def _let_gather(self) -> None:
        """Let submissions gather where many come at a time."""
        wait_s = self._gather_until - self._clock()
        if 0 < wait_s <= self._pace.gather_s:
            time.sleep(wait_s)

    def _commit(self, batch: Sequence[Waiting]) -> None:
        begun = self._clock()
        self._gather_until = begun + self._pace.gather_s if len(batch) >= self._pace.gather_from else -inf
        try:
            results: Sequence[LedgerResult] = self._store.commit([waiting.submission for waiting in batch])
        except LedgerDamaged as error:
            self._broken(str(error))
        except sqlite3.Error as error:
            kind = failure_kind_of(error)
            if kind is FailureKind.REFUSED:
                self._commit_singly(batch, error)
                return
            self._failed(kind, error)
        except Exception as error:
            self._commit_singly(batch, error)
            return
        else:
            self._log_pages += 8 + 3 * len(batch)
            self._mark()
            self._count(results, self._clock() - begun)
            self._deliver(list(zip(batch, results, strict=True)))
            return
        self._refuse_all(batch)

    def _commit_singly(self, batch: Sequence[Waiting], error: Exception) -> None:
        """A submission that cannot be written must not take the others of its batch with it."""
        if len(batch) > 1:
            for waiting in batch:
                if self.state is LedgerState.READY:
                    self._commit([waiting])
                else:
                    self._refuse_all([waiting])
        else:
            log.error("ledger: a submission cannot be written", why=repr(error), exc_info=error)
            self.stats.failed += 1
            self._deliver([(batch[0], LedgerError(FailureKind.REFUSED, str(error)))])

    def _refuse_all(self, batch: Sequence[Waiting]) -> None:
        self.stats.failed += len(batch)
        error = LedgerError(self._failure, self.reason)
        self._deliver([(waiting, error) for waiting in batch])

    def _count(self, results: Sequence[LedgerResult], took_s: float) -> None:
        stats = self.stats
        stats.submissions += len(results)
        stats.repeated += sum(type(result) is Repeated for result in results)
        stats.commits += 1
        stats.commit_s += took_s
        stats.slowest_commit_s = max(stats.slowest_commit_s, took_s)
        if took_s >= self._pace.slow_commit_s:
            now = self._clock()
            if now >= self._slow_logged_at + 60.0:
                self._slow_logged_at = now
                log.warning("ledger: the disk is slow", commit_s=round(took_s, 3), submissions=len(results))

    def _mark(self) -> None:
        """Raise the high-water mark. One that cannot be written makes the next start's check weaker, no more."""
        self._try_mark(partial(self._marks.write, self._store.head))
        self._is_mark_synced = False

    def _sync_mark(self, now: float) -> None:
        """Make the mark durable, at most once a second."""
        if not self._is_mark_synced and now >= self._mark_synced_at + MARK_SYNC_EVERY_S:
            self._try_mark(self._marks.sync)
            self._is_mark_synced = True
            self._mark_synced_at = now

    def _try_mark(self, call: Callable[[], None]) -> None:
        try:
            call()
        except OSError as error:
            if not self._mark_failed:
                self._mark_failed = True
                log.warning("ledger: the high-water mark cannot be written", why=error.strerror)

    # ---- failures

    def _failed(self, kind: FailureKind, error: Exception) -> None:
        if kind is FailureKind.DAMAGED:
            self._broken(str(error))
            return
        if self.state is LedgerState.READY:
            self._retry_pause_s = self._pace.retry_first_s
            log.error("ledger degraded: nothing durable is acknowledged", kind=kind.value, why=str(error))
        self._failure = kind
        self.reason = f"{kind.value} ({error})"
        self.move(LedgerSignal.FAILED)

    def _broken(self, detail: str) -> None:
        log.critical("ledger damaged: it does not write again", why=detail)
        self._failure = FailureKind.DAMAGED
        self.reason = detail
        self.move(LedgerSignal.BROKEN)

    def _try_again(self) -> None:
        """Verify the file and commit an empty batch over its end; READY again if both succeed."""
        try:
            self._store.verify_tail()
            self._store.probe()
        except LedgerDamaged as error:
            self._broken(str(error))
        except sqlite3.Error as error:
            self._failed(failure_kind_of(error), error)
        else:
            self._mark()
            self.reason = ""
            self.stats.recoveries += 1
            self.move(LedgerSignal.RECOVERED)
            log.warning("ledger ready again")

    def _refuse(self, for_s: float) -> None:
        """Turn away everything that comes within ``for_s``."""
        until = time.monotonic() + for_s
        while True:
            try:
                waiting = self.queue.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                return
            if waiting is None:
                self._stopping = True
                return
            self._refuse_all([waiting])

    # ---- maintenance

    def _run_maintenance(self, is_idle: bool) -> None:
        pace, now = self._pace, self._clock()
        self._sync_mark(now)
        try:
            if self._log_pages >= (pace.checkpoint_pages if is_idle else pace.full_log_pages):
                self._checkpoint()
            if now >= self._maintenance_at + (pace.maintenance_s if is_idle else 10 * pace.maintenance_s):
                self._maintenance_at = now
                why = self._distrust()
                if why and not self._distrusted:
                    log.warning("the clock is not trusted: nothing expires and nothing is removed", why=why)
                elif self._distrusted and not why:
                    log.info("the clock is trusted again")
                self._distrusted = why
                self._keep_trusted_time(now)
                if not why and self._maintenance.step(self._unix_ms()):
                    self._mark()
                    self._log_pages += pace.checkpoint_pages // 4
                    if is_idle:
                        self._maintenance_at = now - pace.maintenance_s  # there may be more
                self.stats.expired_directs = self._maintenance.expired
                self.stats.removed_rows = self._maintenance.removed
            if now >= self._scrub_retry_at and (self._scrubbing or not self.scrub_requests.empty()):
                self._scrub(now, is_idle)
        except sqlite3.Error as error:
            kind = failure_kind_of(error)
            if kind is FailureKind.DAMAGED:
                self._broken(str(error))
                return
            # Commits are judged by themselves: a full disk may still have room for them in the log.
            self._log_pages = 0
            self._maintenance_at = now + 10 * pace.maintenance_s
            self._scrub_retry_at = now + pace.scrub_retry_s
            if now >= self._maintenance_logged_at + 60.0:
                self._maintenance_logged_at = now
                log.warning("ledger: maintenance has to wait", kind=kind.value, why=str(error))

    def _keep_trusted_time(self, now: float) -> None:
        """Write every few seconds what the next start compares its clock with."""
        if now >= self._trusted_at + TRUSTED_TIME_EVERY_S:
            self._trusted_at = now
            with suppress(OSError):  # a full disk shows in the commits; the old time stays
                self._keep_trusted()

    def _scrub(self, now: float, is_idle: bool) -> None:
        """Rebuild the database in a pause of the submissions, or when it has waited for one long enough; then empty the
        log. Commits wait meanwhile."""
        if not self._scrubbing:
            if self._scrub_due_at is None:
                self._scrub_due_at = now + self._pace.scrub_within_s
            if not is_idle and now < self._scrub_due_at:
                return
            begun, wanted = self._clock(), self.scrub_requests.qsize()
            self._maintenance.rebuild()
            self._scrub_due_at = None
            self._scrubbing = [self.scrub_requests.get() for _ in range(wanted)]
            log.info("ledger: the database is rebuilt", took_s=round(self._clock() - begun, 3))
        if self._maintenance.empty_log():
            self._log_pages = 0
            self.stats.scrubs += 1
            scrubbed, self._scrubbing = self._scrubbing, []
            for call in scrubbed:
                call()
        else:
            self._scrub_retry_at = now + self._pace.scrub_retry_s

    def _checkpoint(self) -> None:
        done = self._maintenance.checkpoint()
        self.stats.checkpoints += 1
        # What a reader still needs stays in the log; do not try again at once.
        self._log_pages = max(0, done.log - done.moved) // 2

    def close(self) -> None:
        """Checkpoint, so that the log is left empty, and close the files. The disk may refuse; that is only logged."""
        try:
            if self.state is LedgerState.READY:
                self._checkpoint()
            self._store.close()
            self._try_mark(self._marks.sync)
        except sqlite3.Error as error:
            log.warning("ledger: not closed cleanly", why=str(error))
        self._marks.close()
