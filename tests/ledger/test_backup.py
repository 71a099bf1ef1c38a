"""A backup is a verified ledger of one moment, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.ledger import (
    EntriesRedacted,
    LedgerRefused,
    Reader,
    RecordPut,
    RecordRemoved,
    database_path,
    open_directory,
)
from broker.ledger.backup import back_up
from broker.ledger.entries import Submission
from broker.ledger.store import Store
from tests.support.faulty_disk import bodies, event, filled


def test_a_backup_is_a_whole_ledger_of_that_moment(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = filled(tmp_path / "data", 30)
    store = Store(path)
    reader = Reader(path)
    target = tmp_path / "copy.db"
    assert back_up(reader, target) == target.stat().st_size
    store.commit([event(30)])
    assert len(bodies(path)) == 31
    assert len(bodies(target)) == 30
    assert [found.name for found in tmp_path.iterdir() if "unfinished" in found.name] == []
    with pytest.raises(LedgerRefused, match="there already"):
        back_up(reader, target)
    reader.close()
    store.close()


def test_a_backup_has_nothing_of_what_was_replaced_before(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = filled(tmp_path / "data", 30)
    store = Store(path)
    store.commit(
        [Submission((EntriesRedacted("test", 1, ((3, b"-"), (30, b"-"))), RecordPut("a", "b", "c", 1, b"text")))]
    )
    store.commit([Submission((RecordRemoved("a", "b", "c"),))])
    reader = Reader(path)
    target = tmp_path / "copy.db"
    back_up(reader, target)
    copied = target.read_bytes()
    assert (b"event 28" in copied, b"event 29" in copied, b"text" in copied) == (True, False, False)
    assert bodies(target)[:4] == [b"event 0", b"event 1", b"-", b"event 3"]
    reader.close()
    store.close()


def test_a_backup_of_a_damaged_ledger_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    path = filled(tmp_path, 30)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"event 17", b"eVent 17"))
    reader = Reader(path)
    target = tmp_path / "copy.db"
    with pytest.raises(LedgerRefused, match="entry 18"):
        back_up(reader, target)
    assert [found.name for found in tmp_path.iterdir() if found.name.startswith("copy")] == []
    reader.close()


def test_a_backup_is_no_ledger_before_it_is_restored(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "copied").mkdir()
    reader = Reader(filled(tmp_path / "data", 3))
    back_up(reader, database_path(tmp_path / "copied"))
    reader.close()
    with pytest.raises(LedgerRefused, match="roomcast ledger restore"):
        open_directory(tmp_path / "copied")
