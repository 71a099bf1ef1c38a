from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.structures.past_counts import PastCounts

# Times on a 1/64 s grid are exact floats.
samples = st.lists(st.tuples(st.integers(1, 200), st.integers(0, 3)), max_size=60)


@given(st.integers(1, 64), st.integers(1, 8), samples, st.integers(0, 1000))
def test_the_past_is_what_was_sampled(step: int, steps: int, sent: list[tuple[int, int]], ago: int) -> None:
    span = step * steps
    past = PastCounts(span / 64, step / 64, (0,), 0.0)
    taken, tick, count = [(0, 0)], 0, 0
    for passed, more in sent:
        tick, count = tick + passed, count + more
        past.sample((count,), tick / 64)
        if tick >= taken[-1][0] + step:
            taken.append((tick, count))
        assert len(past) <= steps + 2
    asked = tick - ago % (span + 1)
    since, (found,) = past.at(asked / 64)
    before = [each for each in taken if each[0] <= asked]
    if before:
        assert found == before[-1][1], "the newest sample that is not later"
        later = [each for each in taken if each[0] > asked]
        assert since * 64 == (asked if later and later[0][1] == found else before[-1][0])
    else:
        assert (since, found) == (0.0, 0)


def test_counters_at_rest_take_one_sample() -> None:
    past = PastCounts(60.0, 5.0, (1, 2), 0.0)
    for number in range(1, 100):
        past.sample((1, 2), number * 5.0)
    assert len(past) == 1
    assert past.at(437.5) == (437.5, (1, 2))


@pytest.mark.parametrize(("span_s", "step_s"), [(60.0, 0.0), (5.0, 60.0)])
def test_a_span_below_its_step_is_refused(span_s: float, step_s: float) -> None:
    with pytest.raises(ValueError, match="not a span"):
        PastCounts(span_s, step_s, (0,), 0.0)
