"""The ledger in the event loop: order, bounds, and a disk that fails, hangs, fills up and comes back."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio

from broker.ledger import (
    Committed,
    DirectEntry,
    Entry,
    FailureKind,
    Ledger,
    LedgerError,
    LedgerLimits,
    LedgerRefused,
    LedgerResult,
    LedgerState,
    Pace,
    Reader,
    Repeated,
    SubmitResult,
    database_path,
    make_key,
)
from tests.support.faulty_disk import FaultyStore, bodies, disk_error
from tests.support.file_systems import mounted_tmpfs, remount

QUICK = Pace(idle_s=0.005, maintenance_s=0.02, retry_first_s=0.005, retry_most_s=0.02)


class RunningLedger:
    """A running ledger, its store, and what it said of the submissions."""

    def __init__(self, ledger: Ledger, stores: list[FaultyStore]) -> None:
        self.ledger = ledger
        self._stores = stores
        self.results: list[tuple[int, LedgerResult]] = []
        self._sent = 0

    @property
    def store(self) -> FaultyStore:
        return self._stores[-1]

    def send(self, room: str = "lobby", body: bytes | None = None, key: str = "") -> SubmitResult:
        """Submit the next event; its result is appended to ``results``."""
        number = self._sent
        self._sent += 1
        entry = Entry(room, 7, 1, 4, 1000, b"event %d" % number if body is None else body)
        keys = (make_key("test", key),) if key else ()
        return self.ledger.record((entry,), lambda results: self.results.append((number, results)), keys)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds that another thread brings about."""
        with trio.fail_after(20):
            while not holds():  # noqa: ASYNC110 - the thread has no event to offer
                await trio.sleep(0.001)


@asynccontextmanager
async def running(directory: Path, **options: Any) -> AsyncIterator[RunningLedger]:
    stores: list[FaultyStore] = []

    def open_store(path: Path) -> FaultyStore:
        stores.append(FaultyStore(path))
        return stores[-1]

    ledger = Ledger(directory, **{"unix_ms": lambda: 1000, "pace": QUICK, "open_store": open_store, **options})
    async with trio.open_nursery() as nursery:
        await nursery.start(ledger.run)
        try:
            yield RunningLedger(ledger, stores)
        finally:
            nursery.cancel_scope.cancel()


async def test_results_come_in_the_order_of_the_submissions(directory: Path) -> None:
    async with running(directory) as run:
        for number in range(700):
            assert run.send(f"room-{number % 3}") is SubmitResult.QUEUED
        await run.ledger.flush()
        assert [number for number, _ in run.results] == list(range(700))
        offsets: dict[int, list[int]] = {0: [], 1: [], 2: []}
        for number, results in run.results:
            assert isinstance(results, Committed)
            offsets[number % 3] += results.offsets
        assert offsets == {0: list(range(1, 235)), 1: list(range(1, 234)), 2: list(range(1, 234))}
        assert run.ledger.stats.commits < 100
    assert len(bodies(database_path(directory))) == 700


async def test_submissions_gather_where_many_come_at_a_time(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("broker.ledger.writer.time.sleep", waits.append)
    # No maintenance: its writes would wait for the stuck disk before the first submission does.
    pace = Pace(idle_s=1000.0, maintenance_s=1000.0, gather_s=100.0, gather_from=3, max_batch=5)
    async with running(directory, pace=pace) as run:
        run.store.stuck = threading.Event()
        run.send()
        await trio.to_thread.run_sync(run.store.reached.wait)
        for _ in range(6):
            run.send()
        run.store.stuck.set()
        await run.ledger.flush()
        assert run.ledger.stats.commits == 3
        await run.until(lambda: len(waits) == 1)
        run.send()
        await run.ledger.flush()
    assert len(waits) == 1, "a commit of one lets nothing gather"
    assert 0 < waits[0] <= 100.0


async def test_nothing_is_reported_before_the_commit_has_returned(directory: Path) -> None:
    async with running(directory) as run:
        run.store.stuck = threading.Event()
        run.send()
        await trio.to_thread.run_sync(run.store.reached.wait)
        for _ in range(50):
            await trio.lowlevel.checkpoint()
        assert run.results == []
        run.store.stuck.set()
        await run.ledger.flush()
        assert run.results == [(0, Committed((1,)))]


async def test_a_disk_that_does_not_answer_fills_the_queue_and_then_refuses(directory: Path) -> None:
    async with running(directory, limits=LedgerLimits(max_items=5)) as run:
        run.store.stuck = threading.Event()
        assert [run.send() for _ in range(7)] == [SubmitResult.QUEUED] * 5 + [SubmitResult.FULL] * 2
        assert run.ledger.status() == (True, {"ledger": "ready", "ledger_waiting": 5})
        run.store.stuck.set()
        await run.ledger.flush()
        assert [number for number, _ in run.results] == [0, 1, 2, 3, 4]
        assert run.ledger.stats.refused == 2
        assert run.send() is SubmitResult.QUEUED


async def test_a_disk_that_falls_silent_is_reported_once_while_it_is_so(directory: Path) -> None:
    # No maintenance: its writes would wait for the stuck disk before the submission does.
    pace = Pace(idle_s=1000.0, maintenance_s=1000.0, slow_commit_s=0.02)
    with structlog.testing.capture_logs() as lines:
        async with running(directory, pace=pace) as run:
            assert run.ledger.status()[0]
            run.store.stuck = threading.Event()
            run.send()
            await run.until(lambda: any("does not answer" in line["event"] for line in lines))
            ready, words = run.ledger.status()
            assert not ready
            assert words["ledger_reason"].startswith("the disk has not answered for 0.")
            assert run.results == [], "and nothing is acknowledged meanwhile"
            await trio.to_thread.run_sync(run.store.reached.wait)
            reached_at = time.monotonic()
            await run.until(lambda: time.monotonic() >= reached_at + pace.slow_commit_s)
            run.store.stuck.set()
            await run.ledger.flush()
            assert run.ledger.status() == (True, {"ledger": "ready"})
    assert [line["event"] for line in lines].count("ledger: the disk does not answer") == 1
    assert any(line["event"] == "ledger: the disk is slow" for line in lines)


async def test_what_waits_is_bounded_in_bytes(directory: Path) -> None:
    async with running(directory, limits=LedgerLimits(max_bytes=50_000)) as run:
        run.store.stuck = threading.Event()
        assert [run.send(body=bytes(20_000)) for _ in range(3)] == [
            SubmitResult.QUEUED,
            SubmitResult.QUEUED,
            SubmitResult.FULL,
        ]
        run.store.stuck.set()
        await run.ledger.flush()
        assert run.send(body=bytes(20_000)) is SubmitResult.QUEUED


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("SQLITE_IOERR_FSYNC", FailureKind.IO_ERROR),
        ("SQLITE_FULL", FailureKind.DISK_FULL),
        ("SQLITE_READONLY", FailureKind.READ_ONLY),
        ("SQLITE_BUSY", FailureKind.LOCKED),
    ],
)
async def test_a_failed_commit_is_never_acknowledged_and_the_ledger_recovers(
    directory: Path, name: str, kind: FailureKind
) -> None:
    async with running(directory) as run:
        run.send()
        await run.ledger.flush()
        run.store.fault = disk_error(name)
        run.send()
        await run.ledger.flush()
        error = run.results[1][1]
        assert isinstance(error, LedgerError)
        assert error.kind is kind
        assert run.ledger.state is LedgerState.DEGRADED
        assert run.send() is SubmitResult.UNAVAILABLE
        ready, words = run.ledger.status()
        assert not ready
        assert words["ledger"] == "degraded"
        assert kind.value in words["ledger_reason"]
        run.store.fault = None
        await run.until(lambda: run.ledger.state is LedgerState.READY)
        run.send()
        await run.ledger.flush()
        assert run.results[-1][1] == Committed((2,)), "a failed commit took an offset"
        assert run.ledger.status() == (True, {"ledger": "ready"})
        assert run.ledger.stats.recoveries == 1
    assert bodies(database_path(directory)) == [b"event 0", b"event 3"]


async def test_what_was_queued_behind_a_failed_commit_fails_too(directory: Path) -> None:
    async with running(directory) as run:
        run.store.stuck = threading.Event()
        run.send()
        await trio.to_thread.run_sync(run.store.reached.wait)
        for _ in range(600):
            run.send()
        run.store.fault = disk_error("SQLITE_FULL")
        run.store.stuck.set()
        await run.ledger.flush()
        assert len(run.results) == 601
        assert all(isinstance(results, LedgerError) for _, results in run.results)
        run.store.fault = None
    assert bodies(database_path(directory)) == []


async def test_a_file_that_lost_its_end_is_never_written_again(directory: Path) -> None:
    async with running(directory) as run:
        run.send()
        await run.ledger.flush()
        run.store.fault = disk_error("SQLITE_IOERR_FSYNC")
        run.store.forget_a_commit()
        run.send()
        await run.until(lambda: run.ledger.state is LedgerState.DAMAGED)
        run.store.fault = None
        assert run.send() is SubmitResult.UNAVAILABLE
        assert "acknowledged" in run.ledger.status()[1]["ledger_reason"]
        assert str(directory) not in run.ledger.status()[1]["ledger_reason"]
        assert [room.last_offset for room in await run.ledger.ask(Reader.rooms)] == [1], "it can still be read"


async def test_one_submission_that_cannot_be_written_fails_alone(directory: Path) -> None:
    async with running(directory) as run:
        run.store.stuck = threading.Event()
        run.send()
        await trio.to_thread.run_sync(run.store.reached.wait)
        run.send()
        run.send(body="not bytes")  # type: ignore[arg-type]
        run.send()
        run.store.stuck.set()
        await run.ledger.flush()
        results = [results for _, results in run.results]
        assert [type(results) for results in results] == [Committed, Committed, LedgerError, Committed]
        assert [results.offsets for results in results if isinstance(results, Committed)] == [(1,), (2,), (3,)]
        assert run.ledger.state is LedgerState.READY


async def test_a_repeated_key_gets_the_first_result_after_a_restart_too(directory: Path) -> None:
    for life in range(2):
        async with running(directory) as run:
            run.send(key="order-1")
            run.send(key="order-1")
            await run.ledger.flush()
            kinds = [type(results) for _, results in run.results]
            assert kinds == ([Repeated, Repeated] if life else [Committed, Repeated])
            (first,) = run.results[1][1].first.values()  # type: ignore[union-attr]
            assert (first.outcome, first.offset) == (0, 1)


async def test_closing_writes_what_waits_and_reports_every_result(directory: Path) -> None:
    async with running(directory) as run:
        run.store.stuck = threading.Event()
        for _ in range(10):
            run.send()
        threading.Timer(0.05, run.store.stuck.set).start()
    assert [number for number, _ in run.results] == list(range(10))
    assert all(isinstance(results, Committed) for _, results in run.results)
    assert run.ledger.state is LedgerState.CLOSED
    assert run.send() is SubmitResult.UNAVAILABLE
    with pytest.raises(LedgerRefused, match="not open"):
        await run.ledger.ask(Reader.rooms)
    assert len(bodies(database_path(directory))) == 10


async def test_a_listener_that_raises_harms_nobody(directory: Path) -> None:
    async with running(directory) as run:
        run.ledger.record((Entry("lobby", 7, 1, 4, 1, b"x"),), lambda results: 1 / 0)  # type: ignore[arg-type]
        run.send()
        await run.ledger.flush()
        assert run.results == [(0, Committed((2,)))]


async def test_inboxes_are_numbered_by_user(directory: Path) -> None:
    results: list[LedgerResult] = []
    async with running(directory) as run:
        for user in ("ann", "bob", "ann"):
            run.ledger.record((DirectEntry(user, 1, 1000, 9000, b"code"),), results.append)
        await run.ledger.flush()
        assert [results.direct_ids for results in results if isinstance(results, Committed)] == [(1,), (1,), (2,)]
        assert [direct.direct_id for direct in await run.ledger.ask(Reader.inbox, "ann", 0)] == [1, 2]


async def test_the_log_is_moved_when_nobody_waits(directory: Path) -> None:
    async with running(directory, pace=Pace(idle_s=0.005, maintenance_s=0.02, checkpoint_pages=1)) as run:
        run.send()
        await run.until(lambda: run.ledger.stats.checkpoints > 0)


# ---- real disks


@pytest.mark.integration
async def test_a_full_disk_refuses_and_recovers_when_there_is_space(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk", "1m") as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(300_000))
        async with running(disk / "data") as run:
            while run.ledger.state is LedgerState.READY:
                assert run.send(body=os.urandom(20_000)) is SubmitResult.QUEUED
                await run.ledger.flush()
                assert len(run.results) < 60, "the disk never filled"
            acknowledged = sum(isinstance(results, Committed) for _, results in run.results)
            last = run.results[-1][1]
            assert isinstance(last, LedgerError)
            assert last.kind is FailureKind.DISK_FULL
            ballast.unlink()
            await run.until(lambda: run.ledger.state is LedgerState.READY)
            run.send(body=b"at last")
            await run.ledger.flush()
            assert run.results[-1][1] == Committed((acknowledged + 1,))
        assert bodies(database_path(disk / "data"))[-1] == b"at last"


@pytest.mark.integration
async def test_a_first_start_on_a_full_disk_does_no_harm_to_the_next_one(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk", "1m") as disk:
        for left in (0, 4096, 16384, 65536, 131072):  # it fails at another step each time
            ballast = disk / "ballast"
            ballast.write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize - left))
            with suppress(ExceptionGroup):
                async with running(disk / "data"):
                    pass
            ballast.unlink()
        async with running(disk / "data") as run:
            run.send(body=b"at last")
            await run.ledger.flush()
            assert isinstance(run.results[0][1], Committed)
        assert bodies(database_path(disk / "data"))[-1] == b"at last"


@pytest.mark.integration
async def test_a_disk_that_becomes_read_only_refuses_and_recovers(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk", "4m") as disk:
        async with running(disk / "data") as run:
            run.send()
            await run.ledger.flush()
        remount(disk, "ro")
        with pytest.raises(BaseExceptionGroup) as caught:
            async with running(disk / "data"):
                raise AssertionError("it opened on a read-only disk")
        assert "Read-only" in str(caught.value.exceptions[0])
        remount(disk, "rw")
        async with running(disk / "data") as run:
            run.send()
            await run.ledger.flush()
            assert run.results == [(0, Committed((2,)))]


async def test_a_file_locked_by_another_program_degrades_and_recovers(directory: Path) -> None:
    async with running(directory) as run:
        other = sqlite3.connect(database_path(directory), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        run.store.connection.execute("PRAGMA busy_timeout=1")
        run.send()
        await run.ledger.flush()
        error = run.results[0][1]
        assert isinstance(error, LedgerError)
        assert error.kind is FailureKind.LOCKED
        other.execute("ROLLBACK")
        other.close()
        await run.until(lambda: run.ledger.state is LedgerState.READY)
        run.send()
        await run.ledger.flush()
        assert run.results[1][1] == Committed((1,))


async def test_a_start_is_compared_with_the_last_trusted_time(directory: Path) -> None:
    """A broker that ran under a wrong clock has written wrong dates: they say nothing at its next start."""
    found: list[tuple[int, float]] = []
    kept = [(1_000_000, 0.0), (1_000_000, 70.0), (1_000_000, 80.0)]
    for number, each in enumerate(kept):
        async with running(
            directory,
            unix_ms=lambda number=number: 9_000_000_000 + number,
            distrust=lambda: "wrong",
            on_open=lambda *times: found.append(times),
            trusted=lambda each=each: each,
        ) as run:
            run.send()
            await run.ledger.flush()
    assert found == [(0, 0.0), *kept[:2]]
