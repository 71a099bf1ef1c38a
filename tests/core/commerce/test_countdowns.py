"""Countdowns: a label and a deadline, until it passes or is stopped."""

from __future__ import annotations

import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.strategies import sampled_from

from broker.core.commerce.countdowns import Countdown, MoveCountdown, StartCountdown, StopCountdown
from broker.core.commerce.schedules import MAX_AHEAD_MS
from protocol.activities.schedules import CountdownMoved, CountdownStarted
from protocol.codes import ErrorCode, Role
from protocol.operations.schedules import CountdownState
from tests.support.activities import ActivityDriver, viewer
from tests.support.examples import examples

HOST = viewer("host", Role.HOST)
START = 1_790_000_000_000
SOON = StartCountdown("The sale opens", START + 60_000)


def new_driver() -> ActivityDriver:
    return ActivityDriver(lambda: Countdown("c"), START)


def test_a_countdown_is_seen_until_its_deadline() -> None:
    driver = new_driver()
    assert driver.ask(SOON, HOST) == CountdownState("c", *SOON)
    assert [(event.name, event.data) for event in driver.events] == [("countdowns.started", CountdownStarted(*SOON))]
    driver.pass_time(59_999)
    assert driver.activity.view(False) == CountdownStarted(*SOON)
    driver.pass_time(1)
    assert driver.activity.view(False) is None
    assert driver.activity.removable_at == START + 60_000
    assert driver.ask(StopCountdown(), HOST).is_over
    assert len(driver.events) == 1


def test_a_countdown_is_stopped_once() -> None:
    driver = new_driver()
    driver.ask(SOON, HOST)
    first = driver.ask(StopCountdown(), HOST)
    assert driver.ask(StopCountdown(), HOST) == first
    assert [event.name for event in driver.events] == ["countdowns.started", "countdowns.stopped"]


def test_the_same_id_is_the_same_countdown() -> None:
    driver = new_driver()
    first = driver.ask(SOON, HOST)
    driver.restart()
    assert driver.ask(SOON, HOST) == first
    assert driver.refusal_of(SOON._replace(label="another"), HOST).code is ErrorCode.KEY_REUSED
    assert len(driver.events) == 1


@pytest.mark.parametrize("in_ms", [-1, 0, MAX_AHEAD_MS + 1])
def test_a_deadline_that_is_past_or_too_far_is_refused(in_ms: int) -> None:
    refusal = new_driver().refusal_of(SOON._replace(deadline_ms=START + in_ms), HOST)
    assert (refusal.code, refusal.field) == (ErrorCode.BAD_FIELD, "deadline_ms")


def test_a_countdown_that_is_moved_ends_at_its_new_deadline() -> None:
    driver = new_driver()
    driver.ask(SOON, HOST)
    later = MoveCountdown(SOON.deadline_ms + 30_000, SOON.deadline_ms)
    moved = driver.ask(later, HOST)
    assert moved == CountdownState("c", SOON.label, SOON.deadline_ms + 30_000)
    assert driver.events[-1].data == CountdownMoved(SOON.deadline_ms + 30_000)
    driver.restart()
    assert driver.ask(later, HOST) == moved  # asked again: nothing more happens
    refusal = driver.refusal_of(later._replace(deadline_ms=SOON.deadline_ms + 60_000), HOST)
    assert (refusal.code, refusal.field) == (ErrorCode.STALE, "known_ms")
    driver.pass_time(89_999)
    assert not driver.activity.state().is_over
    driver.pass_time(1)
    assert driver.activity.state().is_over
    assert driver.refusal_of(MoveCountdown(START + 200_000, moved.deadline_ms), HOST).code is ErrorCode.OUT_OF_STATE
    assert len(driver.events) == 2


@pytest.mark.parametrize("in_ms", [-1, 0, MAX_AHEAD_MS + 1])
def test_a_countdown_is_not_moved_to_the_past_or_too_far(in_ms: int) -> None:
    driver = new_driver()
    driver.ask(SOON, HOST)
    refusal = driver.refusal_of(MoveCountdown(START + in_ms, SOON.deadline_ms), HOST)
    assert (refusal.code, refusal.field) == (ErrorCode.BAD_FIELD, "deadline_ms")


def test_a_countdown_must_exist() -> None:
    assert new_driver().refusal_of(MoveCountdown(START + 1, START), HOST).code is ErrorCode.UNKNOWN_ACTIVITY
    assert new_driver().refusal_of(StopCountdown(), HOST).code is ErrorCode.UNKNOWN_ACTIVITY


def test_the_end_of_the_room_ends_it() -> None:
    driver = new_driver()
    driver.ask(SOON, HOST)
    driver.end()
    assert driver.activity.state().is_over


class CountdownMachine(RuleBasedStateMachine):
    """Any order of commands, commits, refusals, restarts and times."""

    @initialize()
    def begin(self) -> None:
        self.driver = new_driver()

    @rule(in_ms=sampled_from([0, 1, 5000]), name=sampled_from(["a", "b"]))
    def start(self, in_ms: int, name: str) -> None:
        self.driver.send(StartCountdown(name, START + in_ms), HOST)

    @rule(in_ms=sampled_from([1, 4000, 6000]), known_ms=sampled_from([1, 4000, 5000, 6000]))
    def move(self, in_ms: int, known_ms: int) -> None:
        self.driver.send(MoveCountdown(START + in_ms, START + known_ms), HOST)

    @rule()
    def stop(self) -> None:
        self.driver.send(StopCountdown(), HOST)

    @rule(ms=sampled_from([0, 1, 3000]))
    def wait(self, ms: int) -> None:
        self.driver.advance(ms)

    @precondition(lambda self: self.driver.is_under_way)
    @rule()
    def commit(self) -> None:
        self.driver.commit()

    @precondition(lambda self: self.driver.is_under_way)
    @rule()
    def refuse(self) -> None:
        self.driver.refuse()

    @rule()
    def restart(self) -> None:
        self.driver.restart()

    @invariant()
    def it_starts_and_ends_once(self) -> None:
        self.driver.check()
        names = [fact.name for fact in self.driver.facts if fact.name != "moved"]
        assert names in ([], ["started"], ["started", "ended"])
        events = [event.name for event in self.driver.events if event.name != "countdowns.moved"]
        assert events in ([], ["countdowns.started"], ["countdowns.started", "countdowns.stopped"])

    def teardown(self) -> None:
        if hasattr(self, "driver"):
            self.driver.pass_time(60_000)
            assert self.driver.activity.view(False) is None


CountdownMachine.TestCase.settings = examples(30, steps=20)
TestCountdowns = CountdownMachine.TestCase
