from __future__ import annotations

from itertools import pairwise
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.limits.overload import (
    STAGE_RULES,
    THRESHOLDS,
    ByteBudget,
    OverloadMonitor,
    OverloadSignal,
    OverloadStage,
    TickPacer,
    Transition,
)
from protocol.codes import Lane
from tests.support.examples import examples

STEP_S = 0.125
FOREVER_S = 30.0

measurements = st.tuples(st.floats(0, 1.2), st.floats(0, 2.0), st.floats(0, 4.0))


def hold(monitor: OverloadMonitor, values: tuple[float, float, float], start: float, seconds: float) -> list[int]:
    """Feed the same measurements for a time; return the stages seen."""
    return [int(monitor.observe(*values, start + n * STEP_S)) for n in range(int(seconds / STEP_S) + 1)]


class RecordingMonitor(OverloadMonitor):
    """A monitor that keeps all its transitions."""

    def __init__(self, **arguments: float) -> None:
        super().__init__(**arguments)
        self.transitions: list[Transition] = []

    def observe(self, queue_bytes_ratio: float, loop_lag_s: float, sweep_share: float, now: float) -> OverloadStage:
        before = self.transition
        stage = super().observe(queue_bytes_ratio, loop_lag_s, sweep_share, now)
        if self.transition is not None and self.transition is not before:
            self.transitions.append(self.transition)
        return stage


def only(signal: OverloadSignal, value: float) -> tuple[float, float, float]:
    values = [0.0, 0.0, 0.0]
    values[signal] = value
    return values[0], values[1], values[2]


# ---- the tables ---------------------------------------------------------------------------------


def test_each_stage_gives_up_what_the_one_below_did_and_more() -> None:
    for lower, higher in pairwise(OverloadStage):
        calm, hard = STAGE_RULES[lower], STAGE_RULES[higher]
        assert hard.admits <= calm.admits
        assert hard.state_spare_s >= calm.state_spare_s
        assert hard.chat_budget_share <= calm.chat_budget_share
        assert hard.stretches_tick >= calm.stretches_tick
        assert hard.join_retry_after_s >= calm.join_retry_after_s


def test_control_and_commerce_are_taken_in_at_every_stage() -> None:
    assert all(rule.admits >= {Lane.CONTROL, Lane.COMMERCE} for rule in STAGE_RULES.values())
    assert STAGE_RULES[OverloadStage.COMMERCE_ONLY].admits == {Lane.CONTROL, Lane.COMMERCE}
    assert STAGE_RULES[OverloadStage.REFUSE_JOINS].admits == set(Lane)


@pytest.mark.parametrize("signal", OverloadSignal)
def test_every_stage_ends_below_where_it_begins(signal: OverloadSignal) -> None:
    rises_at, falls_below = THRESHOLDS[signal]
    assert all(low < high for low, high in zip(falls_below, rises_at, strict=True))
    assert list(rises_at) == sorted(rises_at)
    assert list(falls_below) == sorted(falls_below)


# ---- rising -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signal", "value", "stage"),
    [
        (OverloadSignal.QUEUE_BYTES, 0.79, 0),
        (OverloadSignal.QUEUE_BYTES, 0.80, 1),
        (OverloadSignal.QUEUE_BYTES, 0.85, 2),
        (OverloadSignal.QUEUE_BYTES, 0.90, 3),
        (OverloadSignal.QUEUE_BYTES, 0.95, 4),
        (OverloadSignal.QUEUE_BYTES, 9.99, 4),
        (OverloadSignal.LOOP_LAG, 0.049, 0),
        (OverloadSignal.LOOP_LAG, 0.051, 1),
        (OverloadSignal.LOOP_LAG, 0.151, 2),
        (OverloadSignal.LOOP_LAG, 0.401, 3),
        (OverloadSignal.LOOP_LAG, 1.001, 4),
        (OverloadSignal.SWEEP_SHARE, 0.79, 0),
        (OverloadSignal.SWEEP_SHARE, 0.81, 1),
        (OverloadSignal.SWEEP_SHARE, 0.96, 2),
        (OverloadSignal.SWEEP_SHARE, 1.51, 3),
        (OverloadSignal.SWEEP_SHARE, 3.01, 4),
    ],
)
def test_a_lasting_signal_brings_its_stage(signal: OverloadSignal, value: float, stage: int) -> None:
    monitor = RecordingMonitor()
    assert hold(monitor, only(signal, value), 0.0, 20.0)[-1] == stage
    assert [change.after for change in monitor.transitions][-1:] == ([stage] if stage else [])


def test_full_memory_is_stage_4_at_the_very_first_look() -> None:
    monitor = RecordingMonitor()
    assert monitor.observe(0.95, 0.0, 0.0, 7.0) is OverloadStage.COMMERCE_ONLY
    assert monitor.transitions == [
        Transition(7.0, OverloadStage.NORMAL, OverloadStage.COMMERCE_ONLY, OverloadSignal.QUEUE_BYTES, 0.95)
    ]
    assert monitor.rule is STAGE_RULES[OverloadStage.COMMERCE_ONLY]


def test_a_short_stall_is_tolerated_and_a_long_one_is_not() -> None:
    monitor = OverloadMonitor()
    hold(monitor, (0, 0, 0), 0.0, 1.0)
    assert monitor.observe(0, 0.1, 0, 1.2) is OverloadStage.NORMAL
    monitor = OverloadMonitor()
    hold(monitor, (0, 0, 0), 0.0, 1.0)
    assert monitor.observe(0, 2.0, 0, 3.1) is OverloadStage.COMMERCE_ONLY


@examples(50)
@given(measurements, measurements)
def test_the_worst_signal_decides(one: tuple[float, float, float], two: tuple[float, float, float]) -> None:
    worst = (max(one[0], two[0]), max(one[1], two[1]), max(one[2], two[2]))
    stages = []
    for values in (one, two, worst):
        monitor = OverloadMonitor()
        stages.append(hold(monitor, values, 0.0, FOREVER_S)[-1])
    assert stages[2] == max(stages)


@pytest.mark.parametrize("signal", [OverloadSignal.LOOP_LAG, OverloadSignal.SWEEP_SHARE])
def test_lag_and_share_are_smoothed_over_time_not_over_calls(signal: OverloadSignal) -> None:
    once, often = RecordingMonitor(smoothing_s=4.0), RecordingMonitor(smoothing_s=4.0)
    for monitor in (once, often):
        monitor.observe(0, 0, 0, 0.0)
    once.observe(*only(signal, 8.0), 2.0)
    for n in range(1, 17):
        often.observe(*only(signal, 8.0), n / 8)
    expected = 8.0 * (1 - exp(-2.0 / 4.0))
    (change,) = once.transitions
    assert (change.after, change.signal) == (OverloadStage.COMMERCE_ONLY, signal)
    assert change.value == pytest.approx(expected)
    assert often.transition is not None
    before, again = often.transition.value, often.observe(*only(signal, 8.0), 2.0)
    assert again is OverloadStage.COMMERCE_ONLY
    assert before <= expected * (1 + 1e-9), "many calls do not weigh more than one"


def test_of_two_signals_that_demand_the_same_the_first_is_named() -> None:
    monitor = RecordingMonitor()
    monitor.observe(0.0, 9.0, 9.0, 0.0)
    monitor.observe(0.99, 9.0, 9.0, 60.0)
    assert [change.signal for change in monitor.transitions] == [OverloadSignal.QUEUE_BYTES]


# ---- falling ------------------------------------------------------------------------------------


def test_it_falls_one_stage_at_a_time_after_five_quiet_seconds_each() -> None:
    monitor = RecordingMonitor(quiet_s=5.0)
    monitor.observe(1.0, 0, 0, 0.0)
    stages = hold(monitor, (0, 0, 0), STEP_S, 30.0)
    changes = monitor.transitions
    assert [change.after for change in changes] == [4, 3, 2, 1, 0]
    assert [change.at for change in changes] == [0.0, 5.125, 10.125, 15.125, 20.125]
    assert stages[-1] == 0


def test_between_the_thresholds_the_stage_stands() -> None:
    monitor = OverloadMonitor()
    monitor.observe(0.82, 0, 0, 0.0)
    assert set(hold(monitor, (0.72, 0, 0), STEP_S, 120.0)) == {1}
    assert set(hold(monitor, (0.70, 0, 0), 130.0, 60.0)) == {1}, "must be below"
    assert hold(monitor, (0.69, 0, 0), 200.0, 6.0)[-1] == 0


def test_one_unquiet_moment_starts_the_wait_anew() -> None:
    monitor = OverloadMonitor()
    monitor.observe(0.82, 0, 0, 0.0)
    hold(monitor, (0, 0, 0), STEP_S, 4.5)
    monitor.observe(0.75, 0, 0, 4.75)
    assert set(hold(monitor, (0, 0, 0), 4.875, 4.875)) == {1}
    assert monitor.observe(0, 0, 0, 9.875) == 0


def test_the_log_names_the_signal_that_held_the_stage_up() -> None:
    monitor = RecordingMonitor()
    hold(monitor, (0.1, 0.3, 0.1), 0.0, 10.0)
    hold(monitor, (0.1, 0.05, 0.1), 10.0, 10.0)
    up, down = monitor.transitions[-2:]
    assert (up.before, up.after, up.signal) == (1, 2, OverloadSignal.LOOP_LAG)
    assert (down.before, down.after, down.signal) == (2, 1, OverloadSignal.LOOP_LAG)
    assert up.value >= 0.150
    assert down.value < 0.075


# ---- any life -----------------------------------------------------------------------------------

runs = st.lists(st.tuples(measurements, st.integers(-3, 30)), max_size=40)


@given(runs)
def test_in_any_life_it_rises_freely_and_falls_by_one_a_quiet_time(
    life: list[tuple[tuple[float, float, float], int]],
) -> None:
    monitor, now, last_fall = RecordingMonitor(quiet_s=2.0), 0.0, -1e9
    before = monitor.stage
    for values, steps in life:
        now += steps * STEP_S
        after = monitor.observe(*values, now)
        if after < before:
            assert after == before - 1
            assert now - last_fall >= 2.0
            last_fall = now
        if values[0] >= 0.8:
            assert after >= 1
        if values[0] >= 0.95:
            assert after == 4
        before = after
    changes = monitor.transitions
    assert [change.after for change in changes[:-1]] == [change.before for change in changes[1:]]
    assert all(change.before != change.after for change in changes)
    assert (changes[-1].after if changes else 0) == monitor.stage


@examples(50)
@given(runs, measurements)
def test_steady_measurements_end_in_a_steady_stage(
    life: list[tuple[tuple[float, float, float], int]], values: tuple[float, float, float]
) -> None:
    monitor, now = OverloadMonitor(), 0.0
    for past, steps in life:
        now += abs(steps) * STEP_S
        monitor.observe(*past, now)
    hold(monitor, values, now + 1, 10.0)  # the past fades from the smoothed signals
    stages = hold(monitor, values, now + 12, FOREVER_S)
    assert stages in (sorted(stages), sorted(stages, reverse=True)), "no flapping"
    assert len(set(stages[-16:])) == 1
    fresh = hold(OverloadMonitor(), values, 0.0, FOREVER_S)[-1]
    assert fresh <= stages[-1], "hysteresis may hold a stage, never lower it"


def test_a_clock_that_goes_back_counts_as_no_time() -> None:
    monitor = RecordingMonitor()
    monitor.observe(0.9, 0, 0, 100.0)
    assert monitor.observe(0.0, 9.0, 9.0, 50.0) == 3
    assert hold(monitor, (0, 0, 0), 60.0, 30.0)[-1] == 3
    assert [change.at for change in monitor.transitions] == [100.0]


@pytest.mark.parametrize("arguments", [(0, 1), (1, 0)])
def test_a_senseless_monitor_is_refused(arguments: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="not a monitor"):
        OverloadMonitor(*arguments)


# ---- the tick -----------------------------------------------------------------------------------

stages = st.sampled_from(OverloadStage)


def bound_s(stage: OverloadStage) -> float:
    return 2.0 if stage >= OverloadStage.SAMPLE_HARDER else 1.0


@pytest.mark.parametrize(
    ("cost_s", "stage", "interval_s"),
    [(0.0, 0, 0.1), (0.06, 0, 0.1), (0.12, 0, 0.2), (0.6, 0, 1.0), (5.0, 1, 1.0), (0.9, 2, 1.5), (5.0, 4, 2.0)],
)
def test_a_sweep_gets_its_share_of_the_interval_within_the_bounds(cost_s: float, stage: int, interval_s: float) -> None:
    pacer = TickPacer()
    assert pacer.observe(cost_s, OverloadStage(stage)) == pytest.approx(interval_s)
    assert pacer.interval_ms == round(interval_s * 1000)


def test_a_room_may_have_one_interval_only() -> None:
    assert TickPacer(1000, 1000, share=1.0).observe(9.0, OverloadStage.NORMAL) == 1.0
    assert TickPacer(0, 0).observe(9.0, OverloadStage.NORMAL) == 0.0


def test_a_bound_above_the_overload_bound_holds_in_overload_too() -> None:
    pacer = TickPacer(base_ms=100, max_ms=5000)
    assert pacer.observe(9.0, OverloadStage.COMMERCE_ONLY) == 5.0


@given(st.lists(st.tuples(st.floats(0, 10), stages), max_size=50))
def test_the_interval_stays_within_its_bounds_and_never_jumps_down_without_reason(
    sweeps: list[tuple[float, OverloadStage]],
) -> None:
    pacer = TickPacer()
    before = pacer.interval_s
    for cost_s, stage in sweeps:
        after = pacer.observe(cost_s, stage)
        assert after == pacer.interval_s
        assert 0.1 <= after <= bound_s(stage)
        assert after >= min(cost_s / 0.6, bound_s(stage)) - 1e-9
        assert after >= min(0.7 * before, bound_s(stage)) - 1e-9
        before = after


@given(st.lists(st.tuples(st.floats(0, 10), stages), max_size=20), st.floats(0, 0.047), st.sampled_from([0, 1, 2]))
def test_it_is_back_at_its_base_within_ten_seconds_of_the_load_falling(
    past: list[tuple[float, OverloadStage]], cost_s: float, stage: int
) -> None:
    pacer = TickPacer()
    for past_cost_s, past_stage in past:
        pacer.observe(past_cost_s, past_stage)
    waited_s = pacer.interval_s
    while pacer.observe(cost_s, OverloadStage(stage)) > 0.1:
        waited_s += pacer.interval_s + cost_s
    assert waited_s < 10.0


@given(st.floats(0.01, 3), stages, st.floats(0, 3), st.lists(st.floats(0.9, 1.0), max_size=30))
def test_a_steady_load_that_trembles_by_a_tenth_does_not_swing_the_tick(
    cost_s: float, stage: OverloadStage, past_s: float, tremble: list[float]
) -> None:
    pacer = TickPacer()
    pacer.observe(past_s, stage)
    for _ in range(20):
        pacer.observe(0.9 * cost_s, stage)
    pacer.observe(cost_s, stage)
    settled = pacer.interval_s
    assert all(pacer.observe(cost_s * factor, stage) == settled for factor in tremble)


@pytest.mark.parametrize("arguments", [(200, 100, 300, 0.5), (-1, 1, 1, 0.5), (1, 1, 1, 0.0)])
def test_a_senseless_pacer_is_refused(arguments: tuple[int, int, int, float]) -> None:
    with pytest.raises(ValueError, match="not a pacer"):
        TickPacer(*arguments)


# ---- bytes --------------------------------------------------------------------------------------


@given(st.integers(1, 1000), st.lists(st.tuples(st.booleans(), st.integers(0, 500)), max_size=50))
def test_the_byte_count_is_never_negative_and_every_mismatch_is_counted(
    limit: int, moves: list[tuple[bool, int]]
) -> None:
    budget, used, mismatches = ByteBudget(limit), 0, 0
    for grows, size in moves:
        if grows:
            budget.add(size)
            used += size
        else:
            budget.remove(size)
            mismatches += size > used
            used = max(0, used - size)
        assert budget.used_bytes == used
        assert budget.ratio == used / limit
        assert budget.mismatches == mismatches


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="limit_bytes"):
        ByteBudget(0)
