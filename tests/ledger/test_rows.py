"""Whatever is changed beside the hash chain is found: every column of every table, every missing row, the head."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.ledger import (
    DirectAcked,
    DirectEntry,
    DirectState,
    Entry,
    LedgerCut,
    LedgerDamaged,
    OutboxEntry,
    OutboxLater,
    Reader,
    RecordPut,
    Retention,
    RoomCheckpointed,
    RoomEnded,
    RoomOpened,
    database_path,
    make_key,
    open_directory,
)
from broker.ledger.entries import Submission
from broker.ledger.maintenance import EXPIRY_GRACE_MS, Maintenance
from broker.ledger.rows import TABLES, Tallies, direct_checksum
from broker.ledger.store import Store
from tests.support.examples import examples
from tests.support.faulty_disk import event, quick_directory, write_mark

TABLES_AND_HEAD = (*TABLES, "entries", "head")
KEY_COLUMNS = {"keys": "digest", "inboxes": "user", "records": "at_ms"}
"""A column that names one row of the test's ledger, in tables without rowid."""


@pytest.fixture(scope="module")
def ledger() -> Iterator[bytes]:
    """The file of a ledger with rows of every kind in every table."""
    with quick_directory() as directory:
        store = Store(database_path(directory))
        store.commit(
            [
                event(1, "lobby"),
                event(2, "lobby"),
                Submission((Entry("lobby", 7, 2, 5, 9, b"rose"),), (make_key("gift", "1", answer=b"x"),)),
                Submission((RoomCheckpointed("lobby", 7, 10, b"likes 5"),)),
                Submission((RoomOpened("empty", 3, 10),)),
                event(1, "over"),
                Submission((RoomEnded("over", 7, 11),)),
                Submission((DirectEntry("ann", 1, 5, 2**50, b"one", "sale"), DirectEntry("ann", 1, 5, 2**50, b"two"))),
                Submission((DirectEntry("bob", 1, 5, 20, b"old"), DirectEntry("bob", 1, 5, 2**50, b"new"))),
                Submission((DirectAcked("ann", 1, 12),)),
                Submission((OutboxEntry("gift", 5, b"a"), OutboxEntry("gift", 5, b"b"))),
                Submission((OutboxLater(1, 2, 99), OutboxLater(2, 3, None))),
                Submission(
                    (RecordPut("room.rules", "lobby", "", 13, b"slow"), RecordPut("pin", "lobby", "a", 14, b"x"))
                ),
            ]
        )
        assert Maintenance(store, Retention()).step(21 + EXPIRY_GRACE_MS)
        store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        store.close()
        yield database_path(directory).read_bytes()


def rows_of(content: bytes, table: str, path: Path) -> list[dict[str, Any]]:
    """All rows of a table, by column; ``at`` is the rowid."""
    path.write_bytes(content)
    connection = sqlite3.connect(path)
    try:
        return rows(connection, table)
    finally:
        connection.close()


def rows(connection: sqlite3.Connection, table: str) -> list[dict[str, Any]]:
    cursor = connection.execute(f"SELECT rowid AS at, * FROM {table}" if has_rowid(table) else f"SELECT * FROM {table}")
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def has_rowid(table: str) -> bool:
    return table not in KEY_COLUMNS


def changed(value: Any) -> Any:
    """Another value of the same type; for None, a time."""
    if value is None:
        return 12345
    if isinstance(value, int):
        return value ^ 1
    other = "!" if value[-1:] in ("~", b"~") else "~"
    return value[:-1] + (other if isinstance(value, str) else other.encode())


def refused(content: bytes, change: Any) -> str:
    """Change a copy of the ledger and verify it; return what was found, "" = nothing."""
    with quick_directory() as directory:
        path = database_path(directory)
        path.write_bytes(content)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            change(connection)  # raises where SQLite refuses the change
        reader = Reader(path)
        try:
            reader.verify_all()
        except LedgerDamaged as error:
            return str(error)
        finally:
            reader.close()
    return ""


def test_the_ledger_itself_verifies(ledger: bytes) -> None:
    assert refused(ledger, lambda connection: None) == ""


@pytest.mark.parametrize("table", TABLES_AND_HEAD)
def test_every_changed_value_is_found(ledger: bytes, table: str, tmp_path: Path) -> None:
    found = rows_of(ledger, table, tmp_path / "ledger.db")
    assert found, f"no row of {table} to change"
    missed = []
    for row in found:
        key = KEY_COLUMNS.get(table, "at")
        for column, value in row.items():
            # What SQLite gives by itself: the rowid, the counter of the outbox and the row number of directs.
            if column in ("at", "one") or (table in ("directs", "outbox") and column == "id"):
                continue
            name = "rowid" if key == "at" else key
            sql = f"UPDATE {table} SET {column} = ? WHERE {name} = ?"
            parameters = changed(value), row[key]
            try:
                if not refused(ledger, lambda connection, sql=sql, p=parameters: connection.execute(sql, p)):
                    missed.append((row, column))
            except sqlite3.IntegrityError:
                continue  # SQLite refuses it
    assert missed == []


@pytest.mark.parametrize("table", TABLES_AND_HEAD)
def test_every_missing_row_is_found(ledger: bytes, table: str, tmp_path: Path) -> None:
    found = rows_of(ledger, table, tmp_path / "ledger.db")
    key = KEY_COLUMNS.get(table, "at")
    name = "rowid" if key == "at" else key
    for row in found:
        sql = f"DELETE FROM {table} WHERE {name} = ?"
        assert refused(ledger, lambda connection, sql=sql, value=row[key]: connection.execute(sql, (value,))), row


def test_a_row_put_back_to_an_older_state_is_found(ledger: bytes) -> None:
    """A page that was not written keeps rows whose checksums hold."""

    def change(connection: sqlite3.Connection) -> None:
        user, number, kind, at_ms, expires_at_ms, batch, body = connection.execute(
            "SELECT user, direct_id, kind, at_ms, expires_at_ms, batch, body FROM directs WHERE state = 1"
        ).fetchone()
        crc = direct_checksum(user, number, kind, at_ms, expires_at_ms, DirectState.PENDING, batch, body, 0)
        connection.execute(
            "UPDATE directs SET state = 0, crc = ? WHERE user = ? AND direct_id = ?", (crc, user, number)
        )

    assert "direct messages by state" in refused(ledger, change)


def test_an_end_that_was_cut_together_with_its_mark_is_found() -> None:
    with quick_directory() as directory:
        store = Store(database_path(directory))
        store.commit([event(1), event(2)])
        store.commit([event(3)])
        write_mark(store)
        store.close()
        connection = sqlite3.connect(database_path(directory), isolation_level=None)
        hashed = connection.execute("SELECT hash FROM entries WHERE seq = 2").fetchone()[0]
        connection.execute("DELETE FROM entries WHERE seq = 3")
        connection.execute("UPDATE streams SET last_offset = 2")
        connection.execute("UPDATE head SET batch = 1, seq = 2, hash = ?", (hashed,))
        connection.close()
        (directory / "ledger.head").unlink()
        with pytest.raises(LedgerDamaged, match="the head is not what was written"):
            open_directory(directory)


@pytest.mark.parametrize("harm", ["missing", "torn", "another"])
def test_a_mark_that_says_nothing_is_reported(harm: str) -> None:
    with quick_directory() as directory:
        store = Store(database_path(directory))
        store.commit([event(1)])
        write_mark(store)
        store.close()
        mark = directory / "ledger.head"
        if harm == "missing":
            mark.unlink()
        elif harm == "torn":
            mark.write_bytes(mark.read_bytes()[:-1])
        else:
            other = directory / "other"
            other.mkdir()
            store = Store(database_path(other))
            store.commit([event(1)])
            write_mark(store)
            store.close()
            mark.write_bytes((other / "ledger.head").read_bytes())
        with pytest.raises(LedgerCut, match="ledger restore --accept-loss"):
            open_directory(directory)


def test_retention_beside_a_reading_command_does_not_look_like_damage() -> None:
    with quick_directory() as directory:
        store = Store(database_path(directory))
        for first in range(0, 3000, 500):
            store.commit([event(number, at_ms=1) for number in range(first, first + 500)])
        reader = Reader(store.path)
        maintenance = Maintenance(store, Retention(entries_s=1.0))
        with reader.snapshot():
            seen = 0
            for _ in reader.entries():
                seen += 1
                if seen % 700 == 0:
                    assert maintenance.step(10_000_000)
            assert seen == 3000
            assert reader.verify_all() == 3000
        assert reader.verify_all() < 3000
        reader.close()
        store.close()


numbers = st.integers(0, 2**40)


@examples(40)
@given(st.text(max_size=5), numbers, numbers, numbers, numbers, st.text(max_size=3), st.binary(max_size=8))
def test_the_checksum_of_a_message_grows_with_its_state(
    user: str, number: int, kind: int, at_ms: int, expires_at_ms: int, batch: str, body: bytes
) -> None:
    crcs = [direct_checksum(user, number, kind, at_ms, expires_at_ms, state, batch, body, 0) for state in DirectState]
    assert len(set(crcs)) == len(crcs)
    tallies = Tallies()
    tallies.add_direct(crcs[DirectState.PENDING], DirectState.PENDING)
    tallies.move_directs(1, DirectState.PENDING, DirectState.ACKED)
    assert Tallies.load(tallies.dump()).dump() == tallies.dump()
    assert tallies.remove_directs([(crcs[DirectState.ACKED], DirectState.ACKED)]) == 1
    assert tallies.dump() == Tallies().dump()
    assert tallies.is_empty


def test_tallies_of_a_ledger_with_fewer_states_are_read() -> None:
    tallies = Tallies()
    tallies.states = [3, 2, 1, 0]
    written = tallies.dump().replace("[3, 2, 1, 0]", "[3, 2, 1]")
    assert Tallies.load(written).states == [3, 2, 1, 0]
