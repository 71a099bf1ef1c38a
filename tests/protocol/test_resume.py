"""Positions: both ends decide by this, so it is compared with a stream that is simply a list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol.resume import Arrival, Missing, StreamPosition, arrival, full_offset, gap_from, missing

offsets = st.integers(0, 40)
positions = st.builds(StreamPosition, st.integers(1, 2), offsets)


@given(st.integers(0, 2**40), st.integers(-(2**31), 2**31 - 1))
def test_a_header_means_the_nearest_offset(last: int, distance: int) -> None:
    offset = last + distance
    if offset >= 0:
        assert full_offset(last, offset % 2**32) == offset


def test_a_header_before_the_beginning_is_the_beginning() -> None:
    assert full_offset(0, 2**32 - 1) == 0
    assert full_offset(2**32 - 1, 0) == 2**32


@given(offsets, offsets)
def test_an_event_is_next_exactly_once(position: int, offset: int) -> None:
    read = set(range(position + 1))
    expected = Arrival.DUPLICATE if offset in read else Arrival.NEXT if offset - 1 in read else Arrival.AFTER_GAP
    assert arrival(position, offset) is expected


@given(positions, positions, st.booleans())
def test_what_is_missing_is_what_was_not_read_and_does_not_follow(
    before: StreamPosition, now: StreamPosition, recovered: bool
) -> None:
    same_stream = before.epoch == now.epoch and before.offset <= now.offset
    lost = missing(before, now, recovered)
    if same_stream:
        unread = set(range(before.offset + 1, now.offset + 1))
        missed = set(range(lost.first, lost.last + 1)) if lost is not None else set()
        assert missed == (set() if recovered else unread)
        assert lost is None or not lost.epoch_changed
    else:
        assert lost == Missing(1, now.offset, True)


def test_the_first_offset_that_is_not_there() -> None:
    assert gap_from(StreamPosition(7, 41), 7) == 42
    assert gap_from(StreamPosition(7, 41), 8) == 1
