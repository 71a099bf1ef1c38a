from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.limits.log_sampler import LINES_PER_S, MAX_KINDS, LogSampler


@given(st.lists(st.tuples(st.integers(0, 700), st.sampled_from("abc"), st.integers(1, 30)), max_size=40))
def test_at_most_so_many_lines_of_a_kind_in_a_second_and_every_other_is_reported(
    bursts: list[tuple[int, str, int]],
) -> None:
    sampler, now = LogSampler(), 0.0
    written: dict[str, list[float]] = {kind: [] for kind in "abc"}
    caused, reported = Counter[str](), Counter[str]()
    for gap_ms, kind, lines in bursts:
        now += gap_ms / 1000
        for _ in range(lines):
            caused[kind] += 1
            if sampler.admits(kind, now):
                written[kind].append(now)
        reported.update(sampler.take_left_out(now))
    reported.update(sampler.take_left_out(now + 2.0))
    for kind, times in written.items():
        assert len(times) + reported[kind] == caused[kind]
        for start in times:
            # A second of the clock touches two seconds of the sampler.
            assert sum(start <= at < start + 1.0 for at in times) <= 2 * LINES_PER_S
    assert sampler.take_left_out(now + 5.0) == {}


def test_a_clock_that_goes_back_silences_nothing() -> None:
    sampler = LogSampler(1)
    assert sampler.admits("a", 100.0)
    assert sampler.admits("a", 5.0)


def test_kinds_are_bounded() -> None:
    sampler = LogSampler(1)
    assert all(sampler.admits(f"kind {number}", 0.0) for number in range(MAX_KINDS))
    assert [sampler.admits(f"more {number}", 0.0) for number in range(3)] == [True, False, False]
    assert sampler.take_left_out(1.0) == {"other lines": 2}


def test_a_sampler_that_writes_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="lines_per_s"):
        LogSampler(0)
