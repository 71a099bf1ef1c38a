"""Series: bounded, and no value is lost or counted twice however often the points widen."""

from __future__ import annotations

from operator import add

from hypothesis import given
from hypothesis import strategies as st

from broker.core.reports.series import MAX_POINTS, Series

times = st.integers(0, 40 * 24 * 3600 * 1000)


@given(st.lists(st.tuples(times, st.integers(0, 1000)), max_size=60))
def test_sums_and_largest_values_are_those_of_all_rows(rows: list[tuple[int, int]]) -> None:
    sums, largest = Series(1000, add), Series(1000, max)
    for at_ms, value in rows:
        sums.add(at_ms, (value, 1))
        largest.add(at_ms, (value,))
    found = sums.rows()
    assert sum(row[1] for row in found) == sum(value for _, value in rows)
    assert sum(row[2] for row in found) == len(rows)
    assert max((row[1] for row in largest.rows()), default=0) == max((value for _, value in rows), default=0)
    places = [row[0] for row in found]
    assert places == sorted(set(places))
    assert all(0 <= place < MAX_POINTS for place in places)


@given(st.lists(times, min_size=1, max_size=60))
def test_a_row_is_in_the_point_of_its_time(at: list[int]) -> None:
    series = Series(1000, add)
    at.sort()
    for at_ms in at:
        series.add(at_ms, (1,))
    assert series.from_ms == at[0]
    width = series.width_ms
    expected = sorted({(at_ms - at[0]) // width for at_ms in at})
    assert [row[0] for row in series.rows()] == expected


def test_a_time_before_the_first_one_counts_to_the_first_point() -> None:
    series = Series(1000, add)
    series.add(5000, (1,))
    series.add(10, (1,))
    assert series.rows() == [[0, 2]]
