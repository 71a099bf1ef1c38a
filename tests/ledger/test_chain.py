"""The hash chain: whatever is changed, removed, swapped or put in, verification stops at it."""

from __future__ import annotations

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.ledger.chain import (
    GENESIS,
    SALT_BYTES,
    ChainRow,
    canonical,
    commitment,
    digest_of,
    link,
    pack_redactions,
    verify,
)
from broker.ledger.entries import ENTRIES_REDACTED, LedgerDamaged, StoredEntry
from tests.support.examples import examples

entries = st.builds(
    lambda room, epoch, offset, lane, kind, at_ms, body: StoredEntry(1, room, epoch, offset, lane, kind, at_ms, body),
    st.text(min_size=0, max_size=8),
    st.integers(0, 2**48),
    st.integers(0, 2**40),
    st.none() | st.integers(0, 2),
    st.integers(1, 5000),
    st.integers(-(2**40), 2**45),
    st.binary(max_size=20),
)


def crc_of(entry: StoredEntry) -> int:
    return crc32(canonical(*entry[:-1]) + entry.body)


def chained(items: list[StoredEntry]) -> list[ChainRow]:
    rows, before = [], GENESIS
    for seq, item in enumerate(items, 1):
        entry, salt = item._replace(seq=seq), bytes([seq]) * SALT_BYTES
        before = link(before, canonical(*entry[:-1]), commitment(salt, entry.body))
        rows.append((entry, crc_of(entry), before, salt))
    return rows


def redacted(row: ChainRow, body: bytes) -> ChainRow:
    """Return an entry with another body, as a redaction writes it."""
    entry, _, hashed, salt = row
    changed = entry._replace(body=body)
    return changed, crc_of(changed), hashed, commitment(salt, entry.body)


def vouching(seq: int, body: bytes) -> StoredEntry:
    fact = pack_redactions("test", [(seq, digest_of(body))])
    return StoredEntry(1, "", 0, 0, None, ENTRIES_REDACTED, 1, fact)


@examples(40)
@given(st.lists(entries, max_size=8))
def test_an_untouched_chain_verifies_and_returns_its_end(items: list[StoredEntry]) -> None:
    rows = chained(items)
    assert verify(rows, (0, GENESIS), "book") == ((len(rows), rows[-1][2]) if rows else (0, GENESIS))


@examples(40)
@given(st.lists(entries, min_size=1, max_size=8), st.data())
def test_a_changed_field_is_found_even_if_its_checksum_was_mended(
    items: list[StoredEntry], data: st.DataObject
) -> None:
    rows = chained(items)
    index = data.draw(st.integers(0, len(rows) - 1))
    old = rows[index][0]
    new = data.draw(entries)._replace(seq=old.seq)
    mended = data.draw(st.booleans())
    rows[index] = (new, crc_of(new) if mended else rows[index][1], *rows[index][2:])
    if new == old:
        verify(rows, (0, GENESIS), "book")
    else:
        with pytest.raises(LedgerDamaged, match=f"entry {old.seq}"):
            verify(rows, (0, GENESIS), "book")


@examples(40)
@given(st.lists(entries, min_size=2, max_size=8), st.data())
def test_a_missing_or_swapped_entry_is_found(items: list[StoredEntry], data: st.DataObject) -> None:
    rows = chained(items)
    index = data.draw(st.integers(0, len(rows) - 2))
    if data.draw(st.booleans()):
        del rows[index]
    else:
        rows[index], rows[index + 1] = rows[index + 1], rows[index]
    with pytest.raises(LedgerDamaged, match=f"entry {index + 1} is missing"):
        verify(rows, (0, GENESIS), "book")


@examples(40)
@given(entries, entries)
def test_two_entries_never_share_their_canonical_bytes(one: StoredEntry, other: StoredEntry) -> None:
    assert (canonical(*one[:-1]) == canonical(*other[:-1])) == (one[:-1] == other[:-1])


@examples(40)
@given(st.lists(entries, min_size=1, max_size=8), st.binary(max_size=20), st.data())
def test_a_body_is_replaced_where_a_later_entry_vouches_for_it(
    items: list[StoredEntry], body: bytes, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(items) - 1))
    vouched = chained([*items, vouching(index + 1, body)])
    vouched[index] = redacted(vouched[index], body)
    assert verify(vouched, (0, GENESIS), "book") == (len(vouched), vouched[-1][2])
    vouched[index] = redacted(vouched[index], body + b"!")
    with pytest.raises(LedgerDamaged, match=f"entry {index + 1} is redacted, and no redaction says so"):
        verify(vouched, (0, GENESIS), "book")


@examples(40)
@given(st.lists(entries, min_size=1, max_size=8), st.binary(max_size=20), st.data())
def test_a_replaced_body_that_no_entry_vouches_for_is_found(
    items: list[StoredEntry], body: bytes, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(items) - 1))
    rows = chained(items)
    rows[index] = redacted(rows[index], body)
    with pytest.raises(LedgerDamaged, match=f"entry {index + 1} is redacted, and no redaction says so"):
        verify(rows, (0, GENESIS), "book")


def test_of_two_redactions_of_an_entry_the_newer_one_counts() -> None:
    first = StoredEntry(1, "lobby", 7, 1, 1, 4, 1000, b"ann")
    rows = chained([first, vouching(1, b"once"), vouching(1, b"twice")])
    rows[0] = redacted(redacted(rows[0], b"once"), b"twice")
    assert verify(rows, (0, GENESIS), "book") == (3, rows[-1][2])


def test_a_commitment_says_nothing_of_a_body_without_its_salt() -> None:
    assert commitment(bytes(SALT_BYTES), b"ann") != commitment(bytes([1]) * SALT_BYTES, b"ann")
