"""Opening a ledger: what is refused stays as it was found, what is damaged is named, and a torn end is cut."""

from __future__ import annotations

import fcntl
import os
import random
import sqlite3
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from broker.ledger import Entry, Ledger, LedgerDamaged, LedgerRefused, Pace, Reader, database_path
from broker.ledger.backup import back_up
from broker.ledger.head import HeadFile
from broker.ledger.schema import MIGRATIONS, connect, migrate
from broker.ledger.store import Store
from tests.support.faulty_disk import bodies, crashed_copy, event, filled, quick_directory

PAGE = 4096
FRAME = PAGE + 24


def killed(directory: Path, commits: int, *, moved: int = 0) -> Path:
    """A data directory as SIGKILL leaves it after ``commits`` commits, ``moved`` of them already in the database."""
    living = directory / "living"
    living.mkdir()
    store = Store(database_path(living))
    marks = HeadFile(living / "ledger.head")
    for number in range(commits):
        store.commit([event(number)])
        marks.write(store.head)
        if number + 1 == moved:
            store.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    copy = crashed_copy(living, directory / "copy")
    store.close()
    marks.close()
    return copy


async def opened(directory: Path) -> list[bytes]:
    """Open the ledger as the broker does, close it, and read all of it."""
    ledger = Ledger(directory, unix_ms=lambda: 1000, pace=Pace(idle_s=0.01, maintenance_s=0.01))
    async with trio.open_nursery() as nursery:
        await nursery.start(ledger.run)
        nursery.cancel_scope.cancel()
    return bodies(database_path(directory))


def refusal(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception inside."""
    inner = group.exceptions[0]
    return refusal(inner) if isinstance(inner, BaseExceptionGroup) else inner


def contents(directory: Path) -> dict[str, bytes]:
    """Every file that says something; reading in WAL mode makes an empty log and shared memory."""
    found = {path.name: path.read_bytes() for path in directory.iterdir() if not path.name.endswith("-shm")}
    return {name: data for name, data in found.items() if data and name != "ledger.lock"}


async def refused(directory: Path) -> LedgerRefused:
    """Try to open; it must be refused, and every file must stay as it was."""
    before = contents(directory)
    with pytest.raises(BaseExceptionGroup) as caught:
        await opened(directory)
    error = refusal(caught.value)
    assert isinstance(error, LedgerRefused), error
    assert contents(directory) == before
    return error


async def test_a_new_directory_becomes_an_empty_ledger(tmp_path: Path) -> None:
    assert await opened(tmp_path / "deep" / "data") == []
    assert await opened(tmp_path / "deep" / "data") == []


async def test_what_was_acknowledged_before_a_kill_is_there_afterwards() -> None:
    with quick_directory() as directory:
        copy = killed(directory, 20, moved=5)
        assert await opened(copy) == [b"event %d" % number for number in range(20)]


async def test_a_torn_end_of_the_log_is_cut_and_the_rest_is_kept() -> None:
    with quick_directory() as directory:
        copy = killed(directory, 5)
        log = database_path(copy).with_name("ledger.db-wal")
        data = log.read_bytes()
        head = data[32 : 32 + 24]
        assert head[8:16] == data[16:24], "the frames carry the salts of this log, so that SQLite looks at them"
        with log.open("ab") as file:  # a commit of which two pages came to the disk, the second one torn
            file.write(head + bytes(PAGE) + head + bytes(100))
        assert await opened(copy) == [b"event %d" % number for number in range(5)]


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "older"])
async def test_a_log_that_lost_acknowledged_commits_is_refused(harm: str) -> None:
    with quick_directory() as directory:
        copy = killed(directory, 6, moved=2)
        database = database_path(copy)
        log = database.with_name("ledger.db-wal")
        data = bytearray(log.read_bytes())
        if harm == "flip":
            data[32 + 4 * FRAME + 200] ^= 1
            log.write_bytes(data)
        elif harm == "cut":
            log.write_bytes(data[: 32 + 4 * FRAME])
        elif harm == "remove":
            log.unlink()
        else:  # yesterday's database and log, beside today's mark
            mark = HeadFile.read(copy / "ledger.head")
            assert mark is not None
            marks = HeadFile(copy / "ledger.head")
            marks.write(mark._replace(batch=mark.batch + 100, seq=mark.seq + 300))
            marks.close()
        error = await refused(copy)
        assert isinstance(error, LedgerDamaged)
        assert "acknowledged" in str(error)
        assert "ledger.db" in str(error)


async def test_a_flipped_bit_in_the_middle_of_the_book_is_named() -> None:
    with quick_directory() as directory:
        path = filled(directory, 50)
        data = path.read_bytes()
        place = data.index(b"event 17")
        path.write_bytes(data[:place] + b"eVent 17" + data[place + 8 :])
        error = await refused(directory)
        assert "entry 18 is not what was written" in str(error)


async def test_a_newer_version_is_refused_untouched() -> None:
    with quick_directory() as directory:
        path = filled(directory, 3)
        connection = sqlite3.connect(path)
        connection.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
        connection.close()
        error = await refused(directory)
        assert "newer roomcast" in str(error)


def older(path: Path) -> None:
    """Make a ledger one that was written before entries had a salt."""
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE entries DROP COLUMN salt")
    connection.close()


async def test_a_ledger_of_an_older_schema_is_refused_untouched_with_the_way_out() -> None:
    with quick_directory() as directory:
        path = filled(directory, 3)
        older(path)
        error = await refused(directory)
        assert not isinstance(error, LedgerDamaged)
        for part in (str(path), "of version 1", "no column entries.salt", "version 1 of this one", "move it away"):
            assert part in str(error)
        with pytest.raises(LedgerRefused, match=r"no column entries\.salt"):
            Reader(path)


async def test_a_database_that_is_something_else_is_refused() -> None:
    with quick_directory() as directory:
        connection = sqlite3.connect(database_path(directory))
        connection.execute("CREATE TABLE cookies (name TEXT)")
        connection.close()
        assert "no ledger of roomcast" in str(await refused(directory))


@pytest.mark.parametrize("content", [b"not a database at all" * 500, bytes(PAGE)])
async def test_a_file_that_is_no_database_is_refused(content: bytes) -> None:
    with quick_directory() as directory:
        database_path(directory).write_bytes(content)
        await refused(directory)


async def test_a_directory_that_another_process_holds_is_refused(tmp_path: Path) -> None:
    lock = os.open(tmp_path / "ledger.lock", os.O_RDWR | os.O_CREAT)
    os.write(lock, b"4711\n")
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert "in use by process 4711" in str(await refused(tmp_path))
    os.close(lock)
    assert await opened(tmp_path) == []


async def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BaseExceptionGroup) as caught:
        await opened(tmp_path / "file" / "data")
    assert "cannot be written" in str(refusal(caught.value))


def test_migrations_run_in_order_and_only_once(tmp_path: Path) -> None:
    steps = (*MIGRATIONS, "CREATE TABLE later (x INTEGER)", "ALTER TABLE later ADD COLUMN y INTEGER")
    path = filled(tmp_path, 3)
    connection = connect(path)
    assert migrate(connection, path, steps) == len(MIGRATIONS)
    assert migrate(connection, path, steps) == len(steps)
    connection.execute("INSERT INTO later (x, y) VALUES (1, 2)")
    with pytest.raises(LedgerRefused, match="newer roomcast"):
        migrate(connection, path)
    connection.close()


def test_a_migration_that_fails_leaves_the_old_version(tmp_path: Path) -> None:
    path = filled(tmp_path, 3)
    connection = connect(path)
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, path, (*MIGRATIONS, "CREATE TABLE half (x INTEGER); CREATE TABLE head (again INTEGER)"))
    connection.close()
    assert bodies(path) == [b"event 0", b"event 1", b"event 2"]
    connection = connect(path)
    assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'half'").fetchone() == (0,)
    connection.close()


def flips(size: int, count: int, rng: random.Random) -> list[int]:
    return sorted(rng.sample(range(size * 8), count))


def survives(path: Path, bit: int, read: Callable[[Path], list[bytes]], truth: list[bytes]) -> bool:
    """Return whether a file with one flipped bit is refused, or is read as it was written."""
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    changed = path.with_name("changed.db")
    changed.write_bytes(data)
    try:
        return read(changed) == truth
    except (LedgerRefused, sqlite3.DatabaseError):
        return True
    finally:
        for suffix in ("", "-wal", "-shm"):
            changed.with_name(changed.name + suffix).unlink(missing_ok=True)


def history(path: Path) -> list[bytes]:
    reader = Reader(path)
    try:
        found = reader.history("lobby", 7, 0, 60)
        return [b"refused"] if found is None else [entry.body for entry in found]
    finally:
        reader.close()


def test_one_flipped_bit_anywhere_never_makes_a_wrong_answer() -> None:
    rng = random.Random(11)
    with quick_directory() as directory:
        path = filled(directory, 60)
        truth = [b"event %d" % number for number in range(60)]
        assert history(path) == truth
        for bit in flips(path.stat().st_size, 60, rng):
            assert survives(path, bit, bodies, truth), f"verify believed bit {bit}"
            assert survives(
                path, bit, lambda changed: truth if history(changed) == [b"refused"] else history(changed), truth
            )


@pytest.mark.slow
def test_a_thousand_flipped_bits_never_make_a_wrong_answer() -> None:
    rng = random.Random(12)
    with quick_directory() as directory:
        path = filled(directory, 200)
        truth = bodies(path)
        for bit in flips(path.stat().st_size, 1000, rng):
            assert survives(path, bit, bodies, truth), f"verify believed bit {bit}"


async def test_a_ledger_is_never_opened_twice(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, unix_ms=lambda: 1000)
    async with trio.open_nursery() as nursery:
        await nursery.start(ledger.run)
        with pytest.raises(BaseExceptionGroup) as caught:
            await opened(tmp_path)
        assert f"in use by process {os.getpid()}" in str(refusal(caught.value))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
async def test_files_are_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    directory = tmp_path / "data"
    before = os.umask(umask)
    try:
        ledger = Ledger(directory, unix_ms=lambda: 1000, pace=Pace(idle_s=0.005, maintenance_s=0.01))
        async with trio.open_nursery() as nursery:
            await nursery.start(ledger.run)
            ledger.record((Entry("lobby", 7, 1, 4, 1, b"x"),), lambda result: None)
            await ledger.flush()
            with trio.fail_after(20):
                while not (directory / "ledger.time").exists():  # noqa: ASYNC110 - maintenance writes it
                    await trio.sleep(0.005)
            reader = Reader(database_path(directory))
            back_up(reader, tmp_path / "copy.db")
            files = {}
            for path in [*directory.iterdir(), tmp_path / "copy.db"]:
                with suppress(FileNotFoundError):  # what maintenance has just moved to its name
                    files[path.name] = stat.S_IMODE(path.stat().st_mode)
            reader.close()
            nursery.cancel_scope.cancel()
    finally:
        os.umask(before)
    assert {"ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.head", "ledger.lock", "ledger.time"} <= files.keys()
    assert set(files.values()) == {0o600}, files
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert (directory / "ledger.lock").read_bytes() == b"", "a clean end leaves no process number"
