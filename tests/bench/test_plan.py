from __future__ import annotations

import msgspec
import pytest

from bench.plan import LEAST_SHARE, fitted, rough_s, scheduled_s, slowness
from bench.scenario import Scenario, Sizes, has_own_size, load_scenario, resize, scenario_names

HEADLINE = ("one-room-100k", "thousand-rooms", "slow-viewers")
TEN_MINUTES = 600.0


def test_the_headline_scenarios_fit_into_ten_minutes_with_room_to_spare() -> None:
    assert sum(rough_s(load_scenario(name)) for name in HEADLINE) < 0.75 * TEN_MINUTES


@pytest.mark.parametrize("name", scenario_names())
def test_a_run_takes_longer_than_its_schedule_and_its_reference_run_counts(name: str) -> None:
    scenario = load_scenario(name)
    least = scenario.seconds / 10 if scenario.way == "memory" else scenario.seconds
    assert rough_s(scenario) > least * (2 if scenario.reference else 1)


def test_with_time_to_spare_nothing_is_shortened() -> None:
    scenarios = [load_scenario(name) for name in HEADLINE]
    assert fitted(scenarios, TEN_MINUTES) == scenarios


def test_what_does_not_fit_is_shortened_in_proportion_and_then_refused() -> None:
    scenarios = [load_scenario(name) for name in HEADLINE]
    needed = sum(map(rough_s, scenarios))
    plan = fitted(scenarios, needed - 60)
    assert plan is not None
    assert sum(map(rough_s, plan)) == pytest.approx(needed - 60, abs=1)
    shares = {round(short.seconds / own.seconds, 2) for short, own in zip(plan, scenarios, strict=True)}
    assert len(shares) == 1
    assert LEAST_SHARE < shares.pop() < 1
    assert fitted(scenarios, 60) is None


def test_goals_are_judged_at_the_scenarios_own_size_or_for_longer() -> None:
    own = load_scenario("soak")
    assert has_own_size(own, own)
    assert has_own_size(own, resize(own, Sizes(seconds=3600)))
    assert has_own_size(own, resize(own, Sizes(viewer_processes=2)))
    for smaller in (Sizes(seconds=60), Sizes(viewers=100), Sizes(smoke=True), Sizes(rate=1.0)):
        assert not has_own_size(own, resize(own, smaller))


def test_a_reference_run_of_another_length_is_shortened_too() -> None:
    own: Scenario = msgspec.structs.replace(load_scenario("slow-viewers"), reference={"seconds": 30.0})
    plan = fitted([own], rough_s(own) - 20)
    assert plan is not None
    assert plan[0].reference["seconds"] < 30


def test_a_machine_that_was_slow_once_is_expected_to_be_slow_again() -> None:
    first, *others = (load_scenario(name) for name in HEADLINE)
    assert slowness(first, rough_s(first)) == 1
    assert slowness(first, rough_s(first) - 10) == 1
    slower = slowness(first, 2 * rough_s(first) - scheduled_s(first))
    assert slower == pytest.approx(2)
    left_s = sum(map(rough_s, others))
    assert fitted(others, left_s) == others
    plan = fitted(others, left_s, slower)
    assert plan is not None
    assert sum(map(scheduled_s, plan)) < sum(map(scheduled_s, others))
