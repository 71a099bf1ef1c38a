from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.measure import MAX_US, Latencies, SecondSeries, merge_series, summarise
from tests.support.examples import examples

values = st.lists(st.integers(1, 10**8), min_size=1, max_size=60)


@examples(15)
@given(values, st.sampled_from([2, 3]))
def test_many_at_once_count_as_one_by_one(numbers: list[int], digits: int) -> None:
    many, single = Latencies(digits), Latencies(digits)
    many.record_many(np.array(numbers))
    for number in numbers:
        single.record(number)
    assert many.count == single.count == len(numbers)
    for percentile in (1, 50, 99, 100):
        exact, quick = single.percentile_us(percentile), many.percentile_us(percentile)
        assert quick == pytest.approx(exact, rel=2 * 10**-digits, abs=1)


@examples(15)
@given(values, values)
def test_merging_is_the_same_as_counting_together(left: list[int], right: list[int]) -> None:
    one, other, both = Latencies(2), Latencies(2), Latencies(2)
    one.record_many(np.array(left))
    other.record_many(np.array(right))
    both.record_many(np.array(left + right))
    assert summarise([one.encode(), other.encode()], 2).summary() == both.summary()


def test_weights_count_a_value_so_often() -> None:
    latencies = Latencies()
    latencies.record_many(np.array([1000, 9000]), np.array([99, 1]))
    assert latencies.count == 100
    assert latencies.percentile_us(50) == pytest.approx(1000, rel=0.01)
    assert latencies.percentile_us(100) == pytest.approx(9000, rel=0.01)


def test_what_lies_outside_is_clamped_and_still_counted() -> None:
    latencies = Latencies()
    latencies.record_many(np.array([-5, 0, 10 * MAX_US]))
    assert latencies.count == 3
    assert Latencies().summary() == {"count": 0}


def test_series_of_two_processes_add_up_by_second() -> None:
    series = [SecondSeries(1_000_000), SecondSeries(1_000_000)]
    series[0].add("chat", np.array([100, 200]), 1_500_000)
    series[0].add("chat", np.array([300]), 3_100_000)
    series[0].add("chat", np.array([400]), 1_600_000)  # a straggler of an earlier second
    series[1].add("chat", np.array([500]), 1_700_000)
    for each in series:
        each.close()
    merged = merge_series(
        [{lane: {str(s): h for s, h in row.items()} for lane, row in each.rows.items()} for each in series]
    )
    assert [(row["second"], row["count"]) for row in merged["chat"]] == [(0, 4), (2, 1)]
