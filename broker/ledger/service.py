"""The ledger as the broker sees it: submissions in, without waiting; their results back in the event loop, in order.

`record` only counts and queues; the thread (`writer`) writes. One wake-up a batch brings the results back, and `run`
hands them out in slices, so that a large batch does not hold up the loop. Questions are answered by a second, read-only
connection in a worker thread, beside the writer.

Bounds: what waits is limited in items and bytes; full means `SubmitResult.FULL`, and the caller refuses its own peer.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog
import trio

from broker.core.users.marketing import MarketingRules
from broker.ledger.encryption import BodyCipher
from broker.ledger.entries import Item, Key, LedgerRefused, LedgerResult, StoredOutbox, Submission, SubmitResult
from broker.ledger.head import HeadFile, TrustedTimeFile, sync_path
from broker.ledger.key_file import LedgerKeys
from broker.ledger.lock import lock_directory, unlock_directory
from broker.ledger.maintenance import LedgerReports, Maintenance, Retention
from broker.ledger.reader import Reader, open_directory
from broker.ledger.result_batch import ResultBatch
from broker.ledger.schema import database_path, is_uninitialized, mark_path, refusal_of
from broker.ledger.store import Store
from broker.ledger.writer import LedgerSignal, LedgerState, LedgerStats, Pace, Waiting, Writer

__all__ = ["Ledger", "LedgerLimits"]

log = structlog.get_logger("roomcast.ledger")

R = TypeVar("R")

SLICE_S = 0.005
"""Results are delivered for so long between two checkpoints of the loop. Longer than a slice of the fan-out, so that
the events of a commit find each other and share writes; a commit of 500 is delivered in about four slices."""
CLOSE_TIMEOUT_S = 10.0
"""How long closing waits for the disk; threads are daemons, so a disk that never answers cannot keep the process."""


MAX_START_STEPS = 100
"""Batches of expired rows that are marked before the ledger is open; the rest follows while it works."""


@dataclass(frozen=True, slots=True)
class LedgerLimits:
    """Bounds of what waits for the disk."""

    max_items: int = 20_000
    """At 5,000 a second, four seconds of a disk that does not answer."""
    max_bytes: int = 64 * 1024 * 1024


class Ledger:
    """The ledger in ``directory``, which is created if need be. ``await nursery.start(ledger.run)`` opens it.

    ``unix_ms``: the time by which it expires and removes; ``distrust`` returns why it may not now, "" = it may;
    ``on_open`` is called once it is open with the last trusted time, Unix milliseconds (0 = none), and the seconds of
    distrust since; ``trusted`` returns both for the next start; ``keys``: what bodies are
    encrypted with, None = nothing; ``marketing``: when it is sent.
    """

    is_copy = False
    """Whether what it has is elsewhere too: its hash chain proves nothing then."""

    def __init__(
        self,
        directory: Path,
        *,
        unix_ms: Callable[[], int],
        distrust: Callable[[], str] = lambda: "",
        on_open: Callable[[int, float], None] = lambda trusted_ms, held_s: None,
        trusted: Callable[[], tuple[int, float]] | None = None,
        retention: Retention | None = None,
        limits: LedgerLimits | None = None,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
        open_store: Callable[[Path], Store] = Store,
        reports: LedgerReports | None = None,
        close_timeout_s: float = CLOSE_TIMEOUT_S,
        results: ResultBatch | None = None,
        keys: LedgerKeys | None = None,
        marketing: MarketingRules | None = None,
    ) -> None:
        self._results = results or ResultBatch()
        self.directory = directory
        self.path = database_path(directory)
        self._unix_ms = unix_ms
        self._distrust = distrust
        self._on_open = on_open
        self._trusted = trusted or (lambda: (unix_ms(), 0.0))
        self._retention = retention or Retention()
        self._limits = limits or LedgerLimits()
        self._pace = pace or Pace()
        self._clock = clock
        self._open_store = open_store
        self._reports = reports
        self._close_timeout_s = close_timeout_s
        self._writer: Writer | None = None
        self._is_open = False
        self._waiting_items = 0
        self._waiting_bytes = 0
        self._refused = 0
        self._answered_at = clock()
        """When the disk last answered, or was asked after a pause."""
        self._is_silence_logged = False
        self._answered: deque[tuple[Waiting, LedgerResult]] = deque()
        self._wake = trio.Event()
        self._flushed: trio.Event | None = None
        self.reported = trio.Event()
        """Set, and replaced by another, when a commit has added to the outbox."""
        self._token: trio.lowlevel.TrioToken | None = None
        self._reader: Reader | None = None
        self._store: Store | None = None
        self._recorded_keys: frozenset[bytes] = frozenset()
        self._keys = keys
        self.other_keys: set[bytes] = set()
        """Ids of keys that something beside the database needs."""
        self._marketing = marketing or MarketingRules()
        self.read_limiter = trio.CapacityLimiter(1)
        """One query at a time reads the database."""

    def record(
        self, items: Sequence[Item], on_done: Callable[[LedgerResult], None], keys: Sequence[Key] = ()
    ) -> SubmitResult:
        """Hand over a submission. Where QUEUED, ``on_done`` is called later, exactly once, from the task of `run`.

        Results come in the order of the calls. ValueError (a bug of the caller) for too many items or bytes.
        Never waits.
        """
        submission = Submission(tuple(items), tuple(keys))
        writer = self._writer
        if writer is None or not self._is_open or writer.state is not LedgerState.READY:
            self._refused += 1
            return SubmitResult.UNAVAILABLE
        limits = self._limits
        if self._waiting_items >= limits.max_items or self._waiting_bytes + submission.nbytes > limits.max_bytes:
            self._refused += 1
            return SubmitResult.FULL
        if not self._waiting_items:
            self._answered_at = self._clock()
        self._waiting_items += 1
        self._waiting_bytes += submission.nbytes
        writer.queue.put(Waiting(submission, on_done))
        return SubmitResult.QUEUED

    @property
    def waiting(self) -> int:
        """Submissions without a result."""
        return self._waiting_items

    @property
    def silent_s(self) -> float:
        """How long the disk has not answered a submission; 0 while it is as quick as it should be."""
        silent_s = self._clock() - self._answered_at if self._waiting_items else 0.0
        return silent_s if silent_s >= self._pace.slow_commit_s else 0.0

    @property
    def state(self) -> LedgerState:
        """Where it stands."""
        return LedgerState.OPENING if self._writer is None else self._writer.state

    @property
    def stats(self) -> LedgerStats:
        """Counters of this run, as they are now."""
        stats = LedgerStats() if self._writer is None else self._writer.stats
        stats.refused = self._refused
        return stats

    def status(self) -> tuple[bool, dict[str, Any]]:
        """Readiness and its words, for health checks."""
        words: dict[str, Any] = {"ledger": self.state.value}
        if self._writer is not None and self._writer.reason:
            # Health checks may be public: they name no path of this machine.
            words["ledger_reason"] = self._writer.reason.replace(str(self.path), self.path.name)
        silent_s = self.silent_s
        if silent_s:
            words.setdefault("ledger_reason", f"the disk has not answered for {silent_s:.1f} s")
        if self._waiting_items:
            words["ledger_waiting"] = self._waiting_items
        return self.state is LedgerState.READY and not silent_s, words

    @property
    def may_report(self) -> bool:
        """Whether reports of the outbox may be sent now."""
        return True

    def reports_done(self, reports: Sequence[StoredOutbox]) -> None:
        """Take that reports were taken or dropped. Here nothing follows: `OutboxDone` removes them."""

    async def ask(self, question: Callable[..., R], *args: Any) -> R:
        """Answer a question of `Reader` in a thread: ``await ledger.ask(Reader.history, room, epoch, 0, 9)``.

        Questions are answered one at a time. LedgerRefused when it is not open, LedgerDamaged, sqlite3.Error. A
        checkpoint; a cancelled question is answered to its end all the same, and the answer is dropped.
        """
        # Any: the arguments are those of the question.
        # Abandoned: a disk that does not answer must not keep the broker from ending. The limiter is held until it
        # does, so the connection is not closed under the question.
        return await trio.to_thread.run_sync(
            self._ask, question, args, limiter=self.read_limiter, abandon_on_cancel=True
        )

    def _ask(self, question: Callable[..., R], args: tuple[Any, ...]) -> R:
        if self._reader is None:
            raise LedgerRefused(f"{self.path}: is not open")
        return question(self._reader, *args)

    async def flush(self) -> None:
        """Wait until every submission has its result delivered."""
        await trio.lowlevel.checkpoint()
        while self._waiting_items:
            if self._flushed is None:
                self._flushed = trio.Event()
            await self._flushed.wait()

    def use_keys(self, keys: LedgerKeys | None) -> bool:
        """Encrypt with the first of other keys from now on; None = encrypt nothing more. Return whether they are
        other ones. LedgerRefused where one is missing that what is kept needs."""
        has_changed = (() if self._keys is None else self._keys.ids) != (() if keys is None else keys.ids)
        if self._reader is not None and self._store is not None:
            before = () if self._keys is None else self._keys.ids
            used = self._store.cipher.used | self.other_keys | self._recorded_keys.intersection(before)
            for key_id in used.difference(() if keys is None else keys.ids):
                raise BodyCipher(self.path, keys).refusal(key_id)
            self._store.cipher.use(keys)
            self._reader.cipher.use(keys)
        self._keys = keys
        return has_changed

    def use_marketing(self, rules: MarketingRules) -> None:
        """Take other rules of marketing for what is written from now on."""
        self._marketing = rules
        if self._store is not None:
            self._store.marketing = rules

    async def scrub(self) -> None:
        """Wait until nothing that was removed or replaced before is left in the database's file or its log.

        The database is rebuilt in a pause of the submissions, at the latest after `Pace.scrub_within_s`. LedgerRefused
        when it is not open.
        """
        if self._writer is None or not self._is_open:
            raise LedgerRefused(f"{self.path}: is not open")
        done = trio.Event()
        self._writer.scrub_requests.put(partial(self._call_soon, done.set))
        await done.wait()

    # ---- the task

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open, serve until cancelled, then write what waits and close.

        LedgerRefused (LedgerDamaged) if it cannot be opened, with nothing changed.
        """
        lock = await trio.to_thread.run_sync(lock_directory, self.directory)
        try:
            writer = self._writer = await trio.to_thread.run_sync(self._open)
            self._token = trio.lowlevel.current_trio_token()
            closed = trio.Event()
            threading.Thread(target=self._work, args=(writer, closed.set), name="ledger", daemon=True).start()
            self._is_open = True
            try:
                task_status.started()
                while True:
                    await self._deliver_results()
            finally:
                self._is_open = False
                deadline = trio.current_time() + self._close_timeout_s
                # A question that hangs must not keep what waits from being written.
                with trio.move_on_after(self._close_timeout_s / 4, shield=True):
                    async with self.read_limiter:
                        if self._reader is not None:
                            self._reader.close()
                        self._reader = None
                writer.queue.put(None)
                with trio.move_on_at(deadline, shield=True):
                    await closed.wait()
                while self._answered:
                    self._call_back(*self._answered.popleft())
                writer.move(LedgerSignal.CLOSE)
        finally:
            unlock_directory(lock)

    async def _deliver_results(self) -> None:
        """Deliver results for a slice of time; wait for them first if there are none."""
        if not self._answered:
            self._wake = trio.Event()
            with trio.move_on_after(self._pace.slow_commit_s):
                await self._wake.wait()
            self._log_silence()
        deadline = time.perf_counter() + SLICE_S
        with self._results:
            while self._answered and time.perf_counter() < deadline:
                self._call_back(*self._answered.popleft())
        await trio.lowlevel.checkpoint()

    def _log_silence(self) -> None:
        """Log once that the disk does not answer, while it is so; the writer cannot, for it waits."""
        silent_s = self.silent_s
        if silent_s and not self._is_silence_logged:
            log.error("ledger: the disk does not answer", for_s=round(silent_s, 3), waiting=self._waiting_items)
        self._is_silence_logged = silent_s > 0

    def _call_back(self, waiting: Waiting, settled: LedgerResult) -> None:
        self._waiting_items -= 1
        self._waiting_bytes -= waiting.submission.nbytes
        if waiting.submission.has_reports:
            self.reported.set()
            self.reported = trio.Event()
        try:
            waiting.on_done(settled)
        except Exception:
            log.exception("a result of the ledger could not be taken")
        if not self._waiting_items and self._flushed is not None:
            self._flushed.set()
            self._flushed = None

    def _on_results(self, results: list[tuple[Waiting, LedgerResult]]) -> None:
        self._answered_at = self._clock()
        self._answered.extend(results)
        self._wake.set()

    # ---- in threads

    def _open(self) -> Writer:
        """Open the ledger. The checks only read, so a file that is refused stays as it was."""
        if self.path.exists() and self.path.stat().st_size:
            self._check()
        try:
            store = self._open_store(self.path)
        except (sqlite3.Error, ValueError) as error:
            raise refusal_of(self.path, error) from error
        marks: HeadFile | None = None
        try:
            store.cipher.use(self._keys)
            store.marketing = self._marketing
            maintenance = Maintenance(store, self._retention, self._reports)
            maintenance.checkpoint()
            store.probe()
            marks = HeadFile(mark_path(self.directory))
            marks.write(store.head)
            marks.sync()
            sync_path(self.directory)
            self._reader = Reader(self.path, self._keys)
            self._recorded_keys = self._reader.recorded_keys()
            self._store = store
        except BaseException as error:
            if marks is not None:
                marks.close()
            store.close()
            if isinstance(error, (sqlite3.Error, ValueError)):
                raise refusal_of(self.path, error) from error
            if isinstance(error, OSError):
                raise LedgerRefused(f"{error.filename or self.path}: {error.strerror}") from error
            raise
        trusted_time = TrustedTimeFile(self.directory / "ledger.time")
        trusted_ms, held_s = trusted_time.read()
        self._on_open(trusted_ms or store.newest_ms(), held_s)
        with suppress(OSError):  # from now on dates in the ledger may be wrong ones
            trusted_time.write(*self._trusted())
        if not self._distrust():  # what expired while the process was down is not delivered any more
            for _ in range(MAX_START_STEPS):
                if not maintenance.expire(self._unix_ms()):
                    break
        log.info("ledger open", path=str(self.path), entries=store.head.seq, commits=store.head.batch)
        return Writer(
            store, marks, maintenance, self._deliver, pace=self._pace, unix_ms=self._unix_ms, distrust=self._distrust,
            keep_trusted=lambda: trusted_time.write(*self._trusted()),
            clock=self._clock,
        )  # fmt: skip

    def _check(self) -> None:
        """Check that the file is a ledger that ends where it must; one that was never finished has lost nothing."""
        try:
            if HeadFile.read(mark_path(self.directory)) is None and is_uninitialized(self.path):
                return
        except (sqlite3.Error, ValueError) as error:
            raise refusal_of(self.path, error) from error
        reader = open_directory(self.directory, self._keys)
        try:
            reader.require_keys()
        finally:
            reader.close()

    def _work(self, writer: Writer, on_closed: Callable[[], None]) -> None:
        try:
            writer.loop()
        finally:
            self._call_soon(on_closed)

    def _deliver(self, results: list[tuple[Waiting, LedgerResult]]) -> None:
        self._call_soon(self._on_results, results)

    def _call_soon(self, call: Callable[..., None], *args: Any) -> None:
        assert self._token is not None
        try:
            self._token.run_sync_soon(call, *args)
        except trio.RunFinishedError:
            pass  # the broker is gone: what is committed stays committed; there is no task to deliver it to
