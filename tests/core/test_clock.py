"""The trusted clock: small steps are followed, leaps are not until they last, and a start far from the ledger holds."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from broker.core.clock import HOLD_S, MAX_START_HOLD_S, MAX_STOP_S, TOLERANCE_S, TrustedClock

BEGIN_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class Clocks:
    """Both clocks, moved by the test."""

    def __init__(self) -> None:
        self.now = 500.0
        self.off_ms = 0

    def wall_ms(self) -> int:
        return BEGIN_MS + round((self.now - 500.0) * 1000) + self.off_ms

    def monotonic(self) -> float:
        return self.now


def made() -> tuple[Clocks, TrustedClock]:
    clocks = Clocks()
    return clocks, TrustedClock(clocks.wall_ms, clocks.monotonic)


@given(st.lists(st.tuples(st.floats(0.01, 900), st.integers(-100, 100)), max_size=40))
def test_it_never_goes_far_from_monotonic_time_before_a_leap_has_lasted(steps: list[tuple[float, int]]) -> None:
    """Whatever the wall clock does within the hold, the trusted time moves as monotonic time does."""
    clocks, clock = made()
    for step_s, off_hours in steps:
        before, begun = clock.now_ms(), clocks.now
        clocks.now += min(step_s, HOLD_S / 100)
        clocks.off_ms = off_hours * HOUR_MS
        if clocks.now - 500.0 >= HOLD_S:
            return
        moved_s = (clock.now_ms() - before) / 1000
        assert abs(moved_s - (clocks.now - begun)) <= 0.01


@given(st.lists(st.integers(-int(TOLERANCE_S * 900), int(TOLERANCE_S * 900)), max_size=20))
def test_small_steps_are_followed_at_once(offs: list[int]) -> None:
    clocks, clock = made()
    last = 0
    for off_ms in offs:
        clocks.now += 1
        if abs(off_ms - last) <= TOLERANCE_S * 1000 - 1:
            clocks.off_ms = last = off_ms
            assert clock.now_ms() == clocks.wall_ms()
            assert clock.distrust() == ""


@given(st.integers(1, 10_000).map(lambda hours: hours * HOUR_MS), st.sampled_from([1, -1]))
def test_a_leap_that_lasts_is_taken_over_and_one_that_passes_is_not(leap_ms: int, sign: int) -> None:
    clocks, clock = made()
    clocks.off_ms = sign * leap_ms
    assert clock.now_ms() == BEGIN_MS
    assert "leapt" in clock.distrust()
    clocks.now += 3.0
    clocks.off_ms = 0
    assert clock.now_ms() == clocks.wall_ms()
    assert clock.distrust() == ""
    clocks.off_ms = sign * leap_ms
    clock.now_ms()
    clocks.now += HOLD_S - 1
    assert abs(clock.now_ms() - clocks.wall_ms()) == leap_ms
    clocks.now += 2
    assert clock.now_ms() == clocks.wall_ms()
    assert clock.distrust() == ""


@given(st.integers(0, 100 * 24), st.booleans())
def test_a_start_far_after_the_ledger_holds_for_as_long_as_the_stop_was(stopped_h: int, reads: bool) -> None:
    clocks, clock = made()
    clock.start(BEGIN_MS - stopped_h * HOUR_MS)
    stopped_s = stopped_h * 3600.0
    assert (clock.distrust() == "") == (stopped_s <= MAX_STOP_S)
    clocks.now += min(stopped_s, MAX_START_HOLD_S) - 1
    if reads:
        clock.now_ms()
    if stopped_s > MAX_STOP_S:
        assert "ahead of the last trusted time" in clock.distrust()
    clocks.now += 2
    assert clock.distrust() == ""


@given(st.integers(2, 100_000), st.booleans())
def test_a_clock_behind_the_ledger_does_not_take_the_time_back(behind_min: int, is_corrected: bool) -> None:
    clocks, clock = made()
    newest_ms = BEGIN_MS + behind_min * 60_000
    clock.start(newest_ms)
    assert clock.now_ms() == newest_ms
    assert "leapt" in clock.distrust()
    clocks.now += 100
    assert clock.now_ms() == newest_ms + 100_000
    if is_corrected:
        clocks.off_ms = behind_min * 60_000
    else:
        clocks.now += HOLD_S
    assert clock.now_ms() == clocks.wall_ms()
    assert clock.distrust() == ""


@given(st.integers(25, 100 * 24), st.lists(st.floats(60, 100_000), min_size=1, max_size=30))
def test_a_hold_goes_on_over_restarts_and_ends(stopped_h: int, runs: list[float]) -> None:
    """However often the process starts again, it holds for seven days of running at most."""
    clocks = Clocks()
    trusted, held = (BEGIN_MS - stopped_h * HOUR_MS, 0.0), 0.0
    for run_s in [*runs, MAX_START_HOLD_S]:
        clock = TrustedClock(clocks.wall_ms, clocks.monotonic)
        clock.start(*trusted)
        if clock.distrust():
            assert held < MAX_START_HOLD_S
            assert trusted[0] == BEGIN_MS - stopped_h * HOUR_MS, "the time that was trusted stays the same"
            held += run_s
        clocks.now += run_s
        trusted = clock.trusted()
    assert clock.distrust() == ""


def test_an_empty_ledger_compares_nothing() -> None:
    _, clock = made()
    clock.start(0)
    assert clock.distrust() == ""


def test_the_time_of_deadlines_from_before_goes_on_while_the_start_is_far_ahead() -> None:
    wall, mono = [40 * DAY_MS], [0.0]
    clock = TrustedClock(lambda: wall[0], lambda: mono[0])
    clock.start(1000)
    assert (clock.now_ms(), clock.continued_ms()) == (40 * DAY_MS, 1000)
    mono[0], wall[0] = 5.0, 40 * DAY_MS + 5000
    assert (clock.now_ms(), clock.continued_ms()) == (40 * DAY_MS + 5000, 6000)
    mono[0], wall[0] = MAX_START_HOLD_S, 47 * DAY_MS
    assert clock.continued_ms() == clock.now_ms() == 47 * DAY_MS
