"""Rows are written in their order by few statements, whatever their number."""

from __future__ import annotations

import sqlite3

from hypothesis import given
from hypothesis import strategies as st

from broker.ledger.chain import SALT_BYTES, Salts
from broker.ledger.encryption import BodyCipher
from broker.ledger.inserting import insert_rows, sizes_of
from broker.ledger.key_rows import read_keys
from broker.ledger.rows import key_checksum
from broker.ledger.schema import MIGRATIONS


@given(st.integers(0, 2_000))
def test_few_statements_take_any_number_of_rows(count: int) -> None:
    sizes = list(sizes_of(count))
    assert sum(sizes) >= count > sum(sizes[:-1]) or not count
    assert len(sizes) <= count // 256 + 4
    assert sum(sizes) <= 2 * count


@given(st.lists(st.tuples(st.binary(min_size=1), st.none() | st.binary(), st.none() | st.integers(0, 9)), max_size=80))
def test_rows_are_written_in_their_order(rows: list[tuple[bytes, bytes | None, int | None]]) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a BLOB NOT NULL, b BLOB, c INTEGER)")
    insert_rows(connection, "INSERT INTO t (a, b, c)", rows)
    assert connection.execute("SELECT a, b, c FROM t ORDER BY id").fetchall() == rows
    connection.close()


@given(st.integers(0, 70), st.integers(0, 70))
def test_known_keys_are_found_however_many_are_asked_for(known: int, asked: int) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(MIGRATIONS[0])
    rows = []
    for number in range(known):
        columns = number.to_bytes(16, "big"), b"content", 1, number, b""
        rows.append((*columns, 5, key_checksum(*columns, 5)))
    insert_rows(connection, "INSERT INTO keys (digest, fingerprint, outcome, offset, answer, at_ms, crc)", rows)
    found = read_keys(connection, BodyCipher("t"), [number.to_bytes(16, "big") for number in range(asked)])
    assert {digest: result.offset for digest, result in found.items()} == {
        number.to_bytes(16, "big"): number for number in range(min(known, asked))
    }
    connection.close()


def test_every_salt_is_given_out_once() -> None:
    salts = Salts()
    given_out = {salts.take() for _ in range(1_000)}
    assert len(given_out) == 1_000
    assert {len(salt) for salt in given_out} == {SALT_BYTES}
