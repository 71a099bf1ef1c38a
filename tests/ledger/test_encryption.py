"""Bodies are encrypted at rest where a key file is set: none is in any file, and all of them come back."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import ledger as ledger_package
from broker.config.files import FileError
from broker.ledger import (
    DirectEntry,
    EntriesRedacted,
    Entry,
    LedgerDamaged,
    LedgerRefused,
    OutboxAgain,
    OutboxEntry,
    OutboxLater,
    OutboxRedacted,
    Reader,
    RecordPut,
    RoomCheckpointed,
    database_path,
    make_key,
)
from broker.ledger.backup import back_up
from broker.ledger.encryption import ENCRYPTED, BodyCipher
from broker.ledger.entries import Submission
from broker.ledger.key_file import LedgerKeys, rotate_key_file
from broker.ledger.mentions import answers_with, checkpoints_with, entries_with, outbox_with, records_with
from broker.ledger.restore import restore
from broker.ledger.store import Store
from tests.support.faulty_disk import crashed_copy, quick_directory, write_mark
from tests.support.ledger_keys import key_file, keys_of

OLD, NEW = keys_of("old"), keys_of("new", "old")
PLANTED = b"planted text"
EVERYTHING = Submission(
    (
        Entry("lobby", 7, 1, 4, 1000, b"event: " + PLANTED),
        Entry("lobby", 7, None, 1003, 1000, b"fact: " + PLANTED),
        RoomCheckpointed("lobby", 7, 1000, b"totals: " + PLANTED),
        DirectEntry("ann", 4, 1000, 2**50, b"direct: " + PLANTED),
        OutboxEntry("gift", 1000, b"report: " + PLANTED, "shop", "line"),
        RecordPut("user.tags", "ann", "", 1000, b"record: " + PLANTED),
    ),
    (make_key("call", "a", answer=b"answer: " + PLANTED),),
)
"""A body of every table."""


@pytest.fixture
def directory() -> Iterator[Path]:
    with quick_directory() as directory:
        yield directory


def filled_store(directory: Path, keys: LedgerKeys | None = OLD) -> Store:
    store = Store(database_path(directory))
    store.cipher.use(keys)
    store.commit([EVERYTHING])
    write_mark(store)
    return store


def read_everything(reader: Reader) -> list[bytes]:
    """Return every body that a reader gives."""
    (room,) = reader.rooms()
    first = reader.first_result(make_key("call", "a").digest)
    assert first is not None
    return [
        *(entry.body for entry, *_ in reader.entries()),
        *(entry.body for entry in reader.history("lobby", 7, 0, 1) or ()),
        room.totals,
        *(each.body for each in reader.inbox("ann", 0)),
        *(each.body for each in reader.outbox_waiting("shop", 0, 10, 10_000)[0]),
        *(each.body for each in reader.records("user.tags")),
        first.answer,
    ]


def plain_files(directory: Path, planted: bytes = PLANTED) -> list[str]:
    """Return the files below a directory that hold a text."""
    return sorted(path.name for path in directory.rglob("*") if path.is_file() and planted in path.read_bytes())


READERS = {"inbox_rows", "key_rows", "mentions", "outbox_rows", "reader", "redaction", "row_reader", "verification"}
"""Modules whose SQL reads bodies: each decrypts them, or takes them as they are stored."""


def test_no_other_module_reads_bodies_by_sql() -> None:
    columns = "|".join(sorted({*ENCRYPTED.values()}))
    reads = re.compile(rf"SELECT\b[^;]*\b({columns})\b", re.DOTALL)
    found = {
        path.stem
        for path in Path(ledger_package.__file__).parent.parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and reads.search(node.value)
    }
    assert found - READERS - {"transaction"} == set()
    assert len(found) >= 5, "the search finds them"


@given(st.binary(min_size=1), st.sampled_from(["entries", "records"]))
def test_a_body_comes_back_as_it_was_and_only_under_its_table_and_key(body: bytes, table: str) -> None:
    stored = BodyCipher("db", OLD).encrypt(table, body)
    assert BodyCipher("db", NEW).decrypt(table, stored) == body
    assert BodyCipher("db", OLD).encrypt(table, body) != stored
    with pytest.raises(LedgerDamaged):
        BodyCipher("db", OLD).decrypt("outbox", stored)
    with pytest.raises(LedgerRefused, match=f"db: is encrypted with key {OLD.current.id.hex()}: ledger.key does not"):
        BodyCipher("db", keys_of("new")).decrypt(table, stored)
    with pytest.raises(LedgerRefused, match="set ledger"):
        BodyCipher("db").decrypt(table, stored)
    for plain in (body, b"\xc1" + body, b"\xc1\x01" + body, stored):
        assert BodyCipher("db", OLD).decrypt(table, BodyCipher("db").encrypt(table, plain)) == plain


@given(st.binary(min_size=1), st.data())
def test_a_changed_body_is_never_taken_for_what_was_encrypted(body: bytes, data: st.DataObject) -> None:
    stored = bytearray(BodyCipher("db", OLD).encrypt("entries", body))
    stored[data.draw(st.integers(2, len(stored) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(LedgerRefused):  # LedgerDamaged is one; a changed id names a key that is not there
        BodyCipher("db", OLD).decrypt("entries", bytes(stored))


def test_no_nonce_and_no_data_key_serves_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.ledger.encryption.BODIES_PER_DATA_KEY", 3)
    cipher = BodyCipher("db", OLD)
    stored = [cipher.encrypt("entries", b"same") for _ in range(8)]
    salts = [each[10:26] for each in stored]
    assert [salts.count(salt) for salt in dict.fromkeys(salts)] == [3, 3, 2]
    assert len({each[10:38] for each in stored}) == len({each[38:] for each in stored}) == 8
    cipher.use(NEW)
    assert cipher.encrypt("entries", b"same")[2:10] == NEW.current.id
    assert cipher.used == {OLD.current.id, NEW.current.id}


def test_what_is_encrypted_is_in_no_file_and_is_read_and_found_with_the_key(directory: Path) -> None:
    data, crashed = directory / "data", directory / "crashed"
    data.mkdir()
    store = filled_store(data)
    crashed_copy(data, crashed)  # with the write-ahead log
    reader = Reader(store.path, OLD)
    back_up(reader, directory / "copy.db")
    store.commit([Submission((EntriesRedacted("test", 5, ((1, b"new " + PLANTED),)), OutboxRedacted(((1, PLANTED),))))])
    store.commit([Submission((OutboxLater(1, 1, None), OutboxAgain((1,), 9)))])
    assert plain_files(directory) == []
    found = read_everything(reader)
    assert found[0] == b"new " + PLANTED
    assert len(found) == 9
    assert all(PLANTED in body or number == 2 for number, body in enumerate(found)), "but the fact of the redaction"
    text = PLANTED.decode()
    assert [each.body for each in entries_with(reader, text, 0)[0]] == [b"new " + PLANTED, b"fact: " + PLANTED]
    assert [each.body for each in reader.entries_with(text, 0, 9, 9999)[0]] == [b"new " + PLANTED]
    assert [each.body for each in outbox_with(reader, text, "", 0)[0]] == [PLANTED]
    assert [answer for _, answer in answers_with(reader, text, b"")[0]] == [b"answer: " + PLANTED]
    assert [each.body for each in records_with(reader, text, ("", "", ""))[0]] == [b"record: " + PLANTED]
    assert [each.body for each in reader.records("user.tags", text=text)] == [b"record: " + PLANTED]
    assert [each.totals for each in checkpoints_with(reader, text, 0)[0]] == [b"totals: " + PLANTED]
    reader.close()
    store.close()


def test_without_its_key_a_ledger_verifies_is_copied_and_restored_and_not_read(directory: Path) -> None:
    data = directory / "data"
    data.mkdir()
    store = filled_store(data)
    store.commit([Submission((EntriesRedacted("test", 5, ((1, b"new"),)),))])
    write_mark(store)
    store.close()
    reader = Reader(store.path)
    assert reader.verify_all() == 3
    back_up(reader, directory / "copy.db")
    for question in (reader.rooms, lambda: reader.records("user.tags"), lambda: list(reader.entries())):
        with pytest.raises(LedgerRefused, match="set ledger"):
            question()
    reader.close()
    assert restore(directory / "new", directory / "copy.db", now_ms=2000).entries == 4
    reader = Reader(database_path(directory / "new"), OLD)
    reader.verify_all()
    (room,) = reader.rooms()
    assert room.totals == b"totals: " + PLANTED
    reader.close()


def test_a_start_needs_every_key_that_anything_kept_was_encrypted_with(directory: Path) -> None:
    store = filled_store(directory)
    store.cipher.use(NEW)
    store.commit([Submission((RecordPut("user.tags", "bob", "", 1000, b"record"),))])
    for keys, missing in (
        (OLD, NEW.current.id), (keys_of("new"), OLD.current.id), (None, None), (keys_of("other"), None),
    ):  # fmt: skip
        reader = Reader(store.path, keys)
        with pytest.raises(LedgerRefused, match=f"encrypted with key {'' if missing is None else missing.hex()}"):
            reader.require_keys()
        reader.close()
    reader = Reader(store.path, NEW)
    reader.require_keys()
    reader.close()
    store.cipher.use(keys_of("new"))
    store.commit([Submission((RecordPut("user.tags", "bob", "", 1000, b"record"),))])
    for table in ("entries", "checkpoints", "directs", "outbox", "keys"):
        store.connection.execute(f"DELETE FROM {table}")
    store.connection.execute("DELETE FROM records WHERE subject = 'ann'")
    reader = Reader(store.path, keys_of("new"))
    reader.require_keys()  # nothing that is kept needs the old one
    reader.close()
    store.close()


def test_what_was_written_before_there_was_a_key_is_read_beside_what_came_after(directory: Path) -> None:
    store = filled_store(directory, None)
    store.cipher.use(OLD)
    store.commit([Submission((Entry("lobby", 7, 1, 4, 1000, b"later"),))])
    reader = Reader(store.path, OLD)
    reader.require_keys()
    assert [entry.body for entry, *_ in reader.entries()] == [b"event: " + PLANTED, b"fact: " + PLANTED, b"later"]
    reader.close()
    store.close()


def test_a_rotated_file_has_the_new_key_first_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.key"
    first = rotate_key_file(path)
    second = rotate_key_file(path)
    assert second.ids == (second.current.id, first.current.id)
    assert path.stat().st_mode & 0o777 == 0o600
    assert LedgerKeys.read(path).ids == second.ids
    assert repr(second.current) == f"LedgerKey({second.current.id.hex()})", "no secret in a traceback"
    assert path.read_text().count("# Keys") == 1


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "has no key"), ("# nothing\n\n", "has no key"), ("ab" * 31 + "\n", "line 1 is no key"),
        ("ab" * 32 + "\nsecret\n", "line 2 is no key"), (("ab" * 32 + "\n") * 101, "at most 100"),
    ],
)  # fmt: skip
def test_a_file_that_has_no_keys_is_refused_in_one_line_without_its_content(
    tmp_path: Path, content: str, why: str
) -> None:
    path = tmp_path / "ledger.key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(FileError, match=why) as caught:
        LedgerKeys.read(path)
    assert "abab" not in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(FileError):
        LedgerKeys.read(tmp_path / "missing")
    if os.getuid() == 0:
        return
    key_file(path, "old").chmod(0o644)
    with pytest.raises(FileError, match="other users"):
        LedgerKeys.read(path)
