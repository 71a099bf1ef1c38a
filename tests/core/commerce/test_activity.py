"""The runner of activities, with an activity that adds up numbers."""

from __future__ import annotations

import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.strategies import integers, sampled_from

from broker.core.commerce.activity_runner import (
    FIRST_RETRY_MS,
    MAX_BATCH_ANSWERS,
    MAX_BATCH_FACTS,
    MAX_RETRY_MS,
    MAX_WAITING_OF_ONE,
    ActivityRunner,
)
from protocol.codes import ErrorCode
from tests.support.activities import ActivityDriver, platform, viewer
from tests.support.examples import examples
from tests.support.sum_activity import MAX_SUM, WINDOW_MS, Sum

START_MS = 1_790_000_000_000


class SumMachine(RuleBasedStateMachine):
    """Any order of commands, commits, refusals and restarts."""

    @initialize()
    def begin(self) -> None:
        self.driver = ActivityDriver(Sum)

    @rule(amount=integers(1, 60), user=sampled_from("abc"), waits=sampled_from([False, True]))
    def add(self, amount: int, user: str, waits: bool) -> None:
        self.driver.send((amount, waits), viewer(user))

    @rule(ms=integers(0, 200))
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
    def the_state_is_the_fold_and_answers_are_committed(self) -> None:
        self.driver.check()
        durable = sum(fact.data[0] for fact in self.driver.facts if fact.name == "added")
        sums = [answer for answer in self.driver.answers.values() if isinstance(answer, int)]
        assert max(sums, default=0) <= durable <= MAX_SUM

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        self.driver.pass_time(10 * MAX_RETRY_MS)
        assert len(self.driver.answers) + len(self.driver.lost) == self.driver.asked
        assert self.driver.activity.shown == self.driver.activity.total // 100
        self.driver.check()


SumMachine.TestCase.settings = examples(60, steps=30)
TestSums = SumMachine.TestCase


def test_commands_that_arrive_during_a_commit_share_the_next_one() -> None:
    driver = ActivityDriver(Sum)
    first = driver.send((1, False), viewer("a"))
    others = [driver.send((1, False), viewer(f"u{number}")) for number in range(50)]
    assert driver.answers == {}
    driver.commit()
    assert list(driver.answers) == [first]
    assert len(driver.facts) == 1
    driver.commit()
    assert sorted(driver.answers) == [first, *others]
    assert not driver.is_under_way


def test_a_batch_takes_so_many_facts_and_one_event() -> None:
    driver = ActivityDriver(Sum)
    driver.send((1, False), platform)
    for _ in range(MAX_BATCH_FACTS + 50):
        driver.send((1, False), platform)
    driver.commit()
    driver.commit()
    assert len(driver.facts) <= 1 + MAX_BATCH_FACTS + 1
    driver.commit_all()
    assert driver.events[-1].data.total >= 300


def test_a_refused_batch_is_undone_and_what_was_due_is_tried_again() -> None:
    driver = ActivityDriver(Sum)
    driver.ask((99, False), viewer("a"))
    ticket = driver.send((1, False), viewer("a"))
    driver.refuse()
    assert driver.answers[ticket].code is ErrorCode.OVERLOADED
    assert driver.answers[ticket].retry_after_ms
    assert driver.activity.total == 99
    driver.send((1, False), viewer("a"))
    driver.commit()
    waits = FIRST_RETRY_MS
    for _ in range(8):
        assert driver.is_under_way, "the event is due"
        driver.refuse()
        due = driver.runner.next_due()
        assert due == driver.now_ms + waits
        driver.advance(waits - 1)
        assert not driver.is_under_way
        driver.advance(1)
        waits = min(2 * waits, MAX_RETRY_MS)
    driver.commit()
    assert [event.name for event in driver.events] == ["sums.grew"]


def test_one_user_takes_a_share_of_what_waits() -> None:
    driver = ActivityDriver(Sum)
    driver.send((1, False), viewer("a"))
    tickets = [driver.send((1, False), viewer("a")) for _ in range(MAX_WAITING_OF_ONE + 1)]
    assert driver.answers[tickets[-1]].code is ErrorCode.OVERLOADED
    other = driver.send((1, False), viewer("b"))
    assert other not in driver.answers
    driver.commit_all()
    assert driver.answers[other] == driver.activity.total


def test_time_never_goes_back() -> None:
    runner = ActivityRunner(Sum())
    assert runner.command((1, True), viewer("a"), 1, START_MS) is None
    assert runner.next_batch(START_MS) is None
    assert runner.next_due() == START_MS + WINDOW_MS
    batch = runner.next_batch(START_MS + WINDOW_MS)
    assert batch is not None
    assert batch.answers == ((1, 1),)
    runner.committed()
    assert runner.command((1, True), viewer("a"), 2, START_MS) is None
    assert runner.next_batch(START_MS) is None
    assert runner.next_due() == START_MS + 2 * WINDOW_MS


def test_the_end_of_the_room_is_a_fact_and_refuses_who_waits() -> None:
    driver = ActivityDriver(Sum)
    driver.ask((1, False), viewer("a"))
    driver.end()
    assert driver.activity.is_over
    assert [fact.name for fact in driver.facts] == ["added", "ended"]


def test_only_a_batch_under_way_has_a_result() -> None:
    runner = ActivityRunner(Sum())
    with pytest.raises(ValueError, match="under way"):
        runner.committed()
    with pytest.raises(ValueError, match="under way"):
        runner.refused(START_MS)


def test_a_batch_has_so_many_answers() -> None:
    driver = ActivityDriver(Sum)
    driver.ask((MAX_SUM, False), platform)
    runner = driver.runner
    runner.command((1, True), platform, 1, driver.now_ms)
    for number in range(2, MAX_BATCH_ANSWERS + 50):
        runner.command((1, False), platform, number, driver.now_ms)
    first = runner.next_batch(driver.now_ms)
    assert first is not None
    assert len(first.answers) == MAX_BATCH_ANSWERS
    second = runner.next_batch(driver.now_ms)
    assert second is not None
    assert len(first.answers) + len(second.answers) == MAX_BATCH_ANSWERS + 49
    assert runner.next_batch(driver.now_ms) is None
