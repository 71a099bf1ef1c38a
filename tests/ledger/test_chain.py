"""The hash chain: whatever is changed, removed, swapped or put in, verification stops at it."""

from __future__ import annotations

from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.ledger.chain import GENESIS, canonical, link, verify
from broker.ledger.entries import LedgerDamaged, StoredEntry

Row = tuple[StoredEntry, int, bytes]

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


def chained(items: list[StoredEntry]) -> list[Row]:
    rows, before = [], GENESIS
    for seq, item in enumerate(items, 1):
        entry = item._replace(seq=seq)
        data = canonical(*entry)
        before = link(before, data)
        rows.append((entry, crc32(data), before))
    return rows


@settings(max_examples=40)
@given(st.lists(entries, max_size=8))
def test_an_untouched_chain_verifies_and_returns_its_end(items: list[StoredEntry]) -> None:
    rows = chained(items)
    assert verify(rows, (0, GENESIS), "book") == ((len(rows), rows[-1][2]) if rows else (0, GENESIS))


@settings(max_examples=40)
@given(st.lists(entries, min_size=1, max_size=8), st.data())
def test_a_changed_field_is_found_even_if_its_checksum_was_mended(
    items: list[StoredEntry], data: st.DataObject
) -> None:
    rows = chained(items)
    index = data.draw(st.integers(0, len(rows) - 1))
    old = rows[index][0]
    new = data.draw(entries)._replace(seq=old.seq)
    mended = data.draw(st.booleans())
    rows[index] = (new, crc32(canonical(*new)) if mended else rows[index][1], rows[index][2])
    if new == old:
        verify(rows, (0, GENESIS), "book")
    else:
        with pytest.raises(LedgerDamaged, match=f"entry {old.seq}"):
            verify(rows, (0, GENESIS), "book")


@settings(max_examples=40)
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


@settings(max_examples=40)
@given(entries, entries)
def test_two_entries_never_share_their_canonical_bytes(one: StoredEntry, other: StoredEntry) -> None:
    assert (canonical(*one) == canonical(*other)) == (one == other)
