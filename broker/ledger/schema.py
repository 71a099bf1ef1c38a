"""The tables, their versions, and who may open the file.

Schema changes are migrations: scripts that run in order, each in one transaction with its version number. A file of a
newer version is refused untouched, and so is a database that is no ledger.

Connections are made here, so that no other place can forget ``synchronous=FULL``: in WAL mode it is what makes a commit
wait for fsync. It costs nothing against NORMAL once commits are grouped (measured), and NORMAL loses the last
commits in a power cut.
"""

from __future__ import annotations

import functools
import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from broker.ledger.entries import ACTIVITY_FACTS, AUDITED, ROOM_SAMPLED, FailureKind, LedgerDamaged, LedgerRefused
from broker.ledger.head import LINEAGE_BYTES, open_private
from broker.ledger.rows import HeadRow, write_head

__all__ = [
    "APPLICATION_ID",
    "DELETION_KIND",
    "MIGRATIONS",
    "connect",
    "database_path",
    "failure_kind_of",
    "is_uninitialized",
    "mark_path",
    "migrate",
    "refusal_of",
    "require_ledger",
]

APPLICATION_ID = 0x524D4331
"""RMC1 in the file's header: shown by `file` and `sqlite3`; it marks a ledger."""
_SQLITE_MAGIC = b"SQLite format 3\0"
MIN_SQLITE = (3, 35, 0)
"""RETURNING, which numbers the messages of an inbox."""
BUSY_TIMEOUT_S = 1.0
"""How long a commit waits for another process that holds the file (a curious `sqlite3`, a copy)."""

DELETION_KIND = 11
"""Kind of the events that delete messages (`MessageType.MESSAGES_DELETED`). They have an index, because every page of a
room's history needs those that follow it."""

_VERSION_1 = f"""
CREATE TABLE head (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    batch INTEGER NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL,
    anchor_seq INTEGER NOT NULL, anchor_hash BLOB NOT NULL,
    lineage BLOB NOT NULL, is_copy INTEGER NOT NULL, inbox_base INTEGER NOT NULL,
    tallies TEXT NOT NULL, seal BLOB NOT NULL);

CREATE TABLE streams (
    stream INTEGER PRIMARY KEY,
    room TEXT NOT NULL, epoch INTEGER NOT NULL, last_offset INTEGER NOT NULL,
    opened_at_ms INTEGER NOT NULL, used_at_ms INTEGER NOT NULL, ended_at_ms INTEGER, crc INTEGER NOT NULL,
    UNIQUE (room, epoch));
CREATE TABLE checkpoints (
    stream INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, totals BLOB NOT NULL, crc INTEGER NOT NULL);

CREATE TABLE entries (
    seq INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL, offset INTEGER, lane INTEGER, kind INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    body BLOB NOT NULL, crc INTEGER NOT NULL, hash BLOB NOT NULL, salt BLOB NOT NULL);
CREATE UNIQUE INDEX entries_by_offset ON entries (stream, offset) WHERE offset IS NOT NULL;
CREATE INDEX entries_of_deletions ON entries (stream, offset) WHERE kind = {DELETION_KIND};
CREATE INDEX entries_of_activities ON entries (stream, seq) WHERE kind = {ACTIVITY_FACTS};
CREATE INDEX entries_of_audit ON entries (seq) WHERE kind = {AUDITED};
CREATE INDEX entries_of_samples ON entries (stream, seq) WHERE kind = {ROOM_SAMPLED};

CREATE TABLE keys (
    digest BLOB PRIMARY KEY, fingerprint BLOB NOT NULL, outcome INTEGER NOT NULL, offset INTEGER NOT NULL,
    answer BLOB NOT NULL, at_ms INTEGER NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE inboxes (
    user TEXT PRIMARY KEY, last_id INTEGER NOT NULL, acked_id INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    crc INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE directs (
    id INTEGER PRIMARY KEY,
    user TEXT NOT NULL, direct_id INTEGER NOT NULL, kind INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL, state INTEGER NOT NULL, batch TEXT NOT NULL, body BLOB NOT NULL,
    marketing INTEGER NOT NULL, crc INTEGER NOT NULL);
CREATE UNIQUE INDEX directs_by_user ON directs (user, direct_id);
CREATE INDEX directs_of_marketing ON directs (user, at_ms) WHERE marketing = 1;
CREATE INDEX directs_pending ON directs (expires_at_ms) WHERE state = 0;
CREATE INDEX directs_by_batch ON directs (batch, state) WHERE batch <> '';

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    endpoint TEXT NOT NULL, line TEXT NOT NULL, topic TEXT NOT NULL, number INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    due_at_ms INTEGER, attempts INTEGER NOT NULL, reason TEXT NOT NULL, body BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE INDEX outbox_waiting ON outbox (endpoint, id) WHERE due_at_ms IS NOT NULL;
CREATE INDEX outbox_lines ON outbox (endpoint, line, id) WHERE due_at_ms IS NOT NULL;
CREATE INDEX outbox_dead ON outbox (endpoint, id) WHERE due_at_ms IS NULL;

CREATE TABLE records (
    kind TEXT NOT NULL, subject TEXT NOT NULL, name TEXT NOT NULL, at_ms INTEGER NOT NULL, body BLOB NOT NULL,
    crc INTEGER NOT NULL, PRIMARY KEY (kind, subject, name)) WITHOUT ROWID;
"""

MIGRATIONS: tuple[str, ...] = (_VERSION_1,)
"""``MIGRATIONS[n]`` leads from version n to n + 1. Only ever appended to."""

_KINDS = {
    "SQLITE_FULL": FailureKind.DISK_FULL,
    "SQLITE_IOERR_SHMSIZE": FailureKind.DISK_FULL,
    "SQLITE_READONLY": FailureKind.READ_ONLY,
    "SQLITE_BUSY": FailureKind.LOCKED,
    "SQLITE_LOCKED": FailureKind.LOCKED,
    "SQLITE_CORRUPT": FailureKind.DAMAGED,
    "SQLITE_NOTADB": FailureKind.DAMAGED,
    "SQLITE_CONSTRAINT": FailureKind.REFUSED,
    "SQLITE_MISMATCH": FailureKind.REFUSED,
    "SQLITE_TOOBIG": FailureKind.REFUSED,
}


def failure_kind_of(error: sqlite3.Error) -> FailureKind:
    """Return the kind of an error of SQLite; what is not known counts as I/O error (never as harmless)."""
    name = getattr(error, "sqlite_errorname", None) or ""
    primary = "_".join(name.split("_")[:2])
    if not name and isinstance(error, (sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError)):
        return FailureKind.REFUSED
    return _KINDS.get(name) or _KINDS.get(primary, FailureKind.IO_ERROR)


def refusal_of(path: Path, error: sqlite3.Error | ValueError) -> LedgerRefused:
    """What to raise where SQLite could not even open or read ``path``.

    ValueError: a broken file makes SQLite name things that are no text.
    """
    kind = failure_kind_of(error) if isinstance(error, sqlite3.Error) else FailureKind.DAMAGED
    refusal = LedgerDamaged if kind is FailureKind.DAMAGED else LedgerRefused
    return refusal(f"{path}: {kind.value}: {error}")


def database_path(directory: Path) -> Path:
    """Return the path of the database of a data directory."""
    return directory / "ledger.db"


def mark_path(directory: Path) -> Path:
    """Return the path of the high-water mark of a data directory."""
    return directory / "ledger.head"


def connect(path: Path, *, readonly: bool = False) -> sqlite3.Connection:
    """Open ``path`` in autocommit mode (the caller says BEGIN), usable from any one thread at a time.

    A read-only connection changes nothing, not even by recovery or by closing. LedgerRefused where SQLite is too old,
    sqlite3.Error as SQLite raises it.
    """
    if sqlite3.sqlite_version_info < MIN_SQLITE:
        raise LedgerRefused(f"SQLite {sqlite3.sqlite_version} is too old, 3.35 is needed")
    if not readonly:
        with suppress(OSError):  # SQLite says why; its log and its index get the rights of this file
            os.close(open_private(path, os.O_WRONLY))
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={'ro' if readonly else 'rwc'}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "temp_store=MEMORY", "cache_size=-16384"):
            connection.execute(f"PRAGMA {pragma}")
        if readonly:
            connection.execute("PRAGMA query_only=ON")
        else:
            if not _has_tables(connection):
                connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            if mode != "wal":
                raise LedgerRefused(f"{path}: this file system cannot hold a write-ahead log (journal mode {mode})")
            for pragma in ("synchronous=FULL", "wal_autocheckpoint=0", "secure_delete=OFF"):
                connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def require_ledger(connection: sqlite3.Connection, path: Path, migrations: Sequence[str] = MIGRATIONS) -> int:
    """The version of the ledger behind ``connection``; 0 for a new, empty file. Reads only.

    LedgerRefused for a database that is something else, of a newer version, or that a development version wrote before
    its version had all of its columns.
    """
    if not _has_tables(connection):
        return 0
    mark = connection.execute("PRAGMA application_id").fetchone()[0]
    if mark != APPLICATION_ID:
        raise LedgerRefused(f"{path}: a database, but no ledger of roomcast (application id {mark:#x})")
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(migrations):
        raise LedgerRefused(
            f"{path}: written by a newer roomcast (ledger version {version}, this one knows {len(migrations)}); "
            "nothing was changed"
        )
    if version < 1:
        raise LedgerDamaged(f"{path}: a ledger without a version")
    found = _columns(connection)
    missing = [name for name in _columns_of(tuple(migrations[:version])) if name not in found]
    if missing:
        raise LedgerRefused(
            f"{path}: a ledger of version {version} that an older development version of roomcast wrote: it has no "
            f"column {missing[0]}, which version {version} of this one needs; nothing was changed; move it away, and "
            f"{mark_path(path.parent).name} beside it, to begin an empty one, or go on with the roomcast that wrote it"
        )
    return version


@functools.cache
def _columns_of(migrations: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns, as "table.column", of a ledger that these migrations make."""
    connection = sqlite3.connect(":memory:")
    try:
        for script in migrations:
            connection.executescript(script)
        return tuple(_columns(connection))
    finally:
        connection.close()


def _columns(connection: sqlite3.Connection) -> dict[str, None]:
    """Return the columns of all tables as "table.column", ordered."""
    rows = connection.execute(
        "SELECT t.name, c.name FROM sqlite_master AS t, pragma_table_info(t.name) AS c WHERE t.type = 'table'"
    )
    return {f"{table}.{column}": None for table, column in rows}


def is_uninitialized(path: Path) -> bool:
    """Whether ``path`` is a database that was begun and has no table yet: its first start was cut short. Reads only.

    Only together with a missing high-water mark does it mean that nothing was lost. sqlite3.Error as SQLite raises it.
    """
    with path.open("rb") as file:
        if file.read(len(_SQLITE_MAGIC)) != _SQLITE_MAGIC:
            return False
    connection = connect(path, readonly=True)
    try:
        return not _has_tables(connection)
    finally:
        connection.close()


def migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str] = MIGRATIONS) -> int:
    """Bring the schema to the newest version; returns the version found. Each step is one transaction."""
    version = require_ledger(connection, path, migrations)
    for number in range(version, len(migrations)):
        try:
            # executescript() commits what is open before it: the script itself begins the transaction.
            connection.executescript(
                f"BEGIN IMMEDIATE; {migrations[number]}; "
                f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={number + 1};"
            )
            if number == 0:
                write_head(connection, HeadRow.new(os.urandom(LINEAGE_BYTES)))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    return version


def _has_tables(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None
