"""How many danmaku a tier may show now."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.chat.fairness import ReadingBudget


def test_the_first_second_is_shown_at_once_and_then_the_rate_holds() -> None:
    budget = ReadingBudget(20.0)
    assert budget.take(100.0, 1.0, waiting=50, quiet=50) == 20
    assert [budget.take(100.0 + tick / 10, 1.0, 50, 50) for tick in range(1, 11)] == [2] * 10
    assert budget.take(102.0, 1.0, 50, 0) == 20


def test_scale_stretches_the_rate() -> None:
    budget = ReadingBudget(20.0)
    budget.take(0.0, 0.5, 50, 0)
    assert sum(budget.take(tick / 10, 0.5, 50, 0) for tick in range(1, 11)) == 10


def test_the_quiet_are_shown_though_the_loud_spent_everything_and_the_loud_wait_for_it() -> None:
    budget = ReadingBudget(20.0)
    assert budget.take(0.0, 1.0, waiting=50, quiet=0) == 20
    assert budget.take(0.1, 1.0, waiting=50, quiet=6) == 6
    assert [budget.take(tick / 10, 1.0, 50, 0) for tick in (2, 3, 4)] == [0, 0, 2]


def test_the_overdraft_ends_at_half_a_second() -> None:
    budget = ReadingBudget(20.0)
    budget.take(0.0, 1.0, waiting=50, quiet=0)
    assert [budget.take(tick / 10, 1.0, 50, 50) for tick in (1, 2, 3)] == [12, 2, 2]


def test_without_loud_senders_nobody_overdraws() -> None:
    budget = ReadingBudget(20.0)
    assert budget.take(0.0, 1.0, 100, 100) == 20
    assert budget.take(0.1, 1.0, 100, 100) == 2


def test_a_budget_below_one_a_second_still_shows_something() -> None:
    budget = ReadingBudget(0.5)
    assert [budget.take(float(second), 1.0, 5, 0) for second in range(5)] == [1, 0, 1, 0, 1]


def test_no_limit_shows_everything() -> None:
    assert ReadingBudget(math.inf).take(0.0, 0.0, 1_000_000, 0) == 1_000_000


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan])
def test_a_budget_must_be_positive(rate: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        ReadingBudget(rate)


windows = st.tuples(st.floats(0.0, 2.0), st.floats(0.1, 1.0), st.integers(0, 60), st.integers(0, 60))


@given(st.sampled_from([1.0, 5.0, 20.0]), st.lists(windows, min_size=1, max_size=40))
def test_the_envelope_holds_over_any_span(rate: float, schedule: list[tuple[float, float, int, int]]) -> None:
    budget = ReadingBudget(rate)
    now = 1_000_000.0
    taken: list[tuple[float, int]] = []
    for pause, scale, waiting, quiet in schedule:
        now += pause
        shown = budget.take(now, scale, waiting, min(quiet, waiting))
        assert 0 <= shown <= waiting
        taken.append((now, shown))
    for start, (began, _) in enumerate(taken):
        total = 0
        for ended, shown in taken[start:]:
            total += shown
            assert total <= rate * (ended - began + 1.5) + 0.01
