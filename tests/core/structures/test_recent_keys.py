from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.structures.recent_keys import RecentKeys

# Times on a 1/64 s grid are exact floats.
calls = st.lists(st.tuples(st.integers(-64, 256), st.integers(0, 6), st.booleans()), max_size=80)


@given(st.integers(1, 256), calls)
def test_with_room_enough_it_equals_a_dict_that_never_forgets(window: int, sent: list[tuple[int, int, bool]]) -> None:
    recent, twin = RecentKeys[int](window / 64, max_keys=1000), dict[int, int]()
    latest = -(10**9)
    for step, key, mark in sent:
        tick = max(latest, 0) + step
        latest = max(latest, tick)
        assert recent.is_recent(key, tick / 64) == (key in twin and latest - twin[key] < window)
        if mark:
            recent.mark(key, tick / 64)
            twin[key] = latest
    assert recent.forgotten == 0


@given(st.integers(2, 6), st.integers(1, 256), calls)
def test_a_small_table_forgets_the_oldest_and_never_invents(
    max_keys: int, window: int, sent: list[tuple[int, int, bool]]
) -> None:
    recent, twin = RecentKeys[int](window / 64, max_keys), dict[int, int]()
    tick = 0
    for step, key, mark in sent:
        tick += abs(step)
        if recent.is_recent(key, tick / 64):
            assert tick - twin[key] < window
        if mark:
            recent.mark(key, tick / 64)
            twin.pop(key, None)
            twin[key] = tick
        assert len(recent) <= max_keys
        newest = list(twin.items())[-(max_keys // 2) :]
        assert all(recent.is_recent(k, tick / 64) == (tick - at < window) for k, at in newest)


def test_what_was_thrown_away_early_is_counted_and_what_was_outdated_is_not() -> None:
    recent = RecentKeys[str](window_s=10, max_keys=4)
    for key in "abcd":
        recent.mark(key, 0.0)
    assert recent.forgotten == 0
    recent.mark("e", 5.0)
    assert recent.forgotten == 2
    assert not recent.is_recent("a", 5.0)
    assert recent.is_recent("c", 5.0)
    recent.mark("f", 10.0)
    recent.mark("g", 11.0)
    assert recent.forgotten == 2, "c and d were older than the window"


def test_a_quiet_time_forgets_everything() -> None:
    recent = RecentKeys[str](window_s=1, max_keys=100)
    for n in range(50):
        recent.mark(str(n), 0.0)
    recent.mark("x", 2.0)
    assert len(recent) == 1


@pytest.mark.parametrize(("window_s", "max_keys"), [(0, 10), (-1, 10), (1, 1)])
def test_a_senseless_window_is_refused(window_s: float, max_keys: int) -> None:
    with pytest.raises(ValueError, match="not a window"):
        RecentKeys(window_s, max_keys)
