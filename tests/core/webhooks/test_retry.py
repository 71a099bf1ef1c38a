"""Waits between attempts, and the circuit breaker."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.webhooks.breaker import OPENS_AFTER, Breaker, BreakerState
from broker.core.webhooks.retry import RetrySchedule

DAY_MS = 86_400_000


@given(st.integers(1, 10_000), st.integers(0, 2**32), st.none() | st.integers(0, 10**9))
def test_waits_grow_from_100_ms_to_20_s_and_heed_the_receiver_within_bounds(
    attempts: int, seed: int, retry_after_ms: int | None
) -> None:
    schedule = RetrySchedule()
    wait = schedule.wait_ms(attempts, random.Random(seed), retry_after_ms)
    whole = min(20_000, 100 * 2 ** min(attempts - 1, 20))
    asked = min(retry_after_ms or 0, 300_000)
    assert max(whole // 2, asked) <= wait <= max(whole, asked)


def test_waits_differ() -> None:
    rng = random.Random(1)
    assert len({RetrySchedule().wait_ms(9, rng) for _ in range(50)}) > 40


def test_a_report_is_given_up_after_a_day() -> None:
    schedule = RetrySchedule()
    assert not schedule.is_over(1000, 1000 + DAY_MS - 1)
    assert schedule.is_over(1000, 1000 + DAY_MS)


def test_a_breaker_opens_after_failures_in_a_row_and_one_trial_decides() -> None:
    breaker = Breaker(RetrySchedule(), random.Random(1))
    for number in range(OPENS_AFTER - 1):
        breaker.failed(number)
        assert breaker.try_start(number)
    breaker.succeeded()
    for number in range(OPENS_AFTER):
        assert breaker.try_start(number)
        breaker.failed(number)
    assert breaker.state is BreakerState.OPEN
    assert breaker.failing_since_ms == 0
    due = breaker.due_ms
    assert due is not None
    assert not breaker.try_start(due - 1)
    assert breaker.try_start(due)
    assert not breaker.try_start(due), "one at a time"
    assert breaker.due_ms is None
    breaker.failed(due)
    later = breaker.due_ms
    assert later is not None
    assert later > due
    assert breaker.try_start(later)
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    assert (breaker.opened, breaker.failing_since_ms) == (1, None)


def test_what_asks_for_time_gets_it() -> None:
    breaker = Breaker(RetrySchedule(), random.Random(1), opens_after=1)
    breaker.failed(1000, 60_000)
    assert breaker.due_ms == 61_000


class BreakerMachine(RuleBasedStateMachine):
    """Any deliveries, in any order: at most one is under way while the breaker is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(RetrySchedule(), random.Random(7), opens_after=3)
        self.now = 0
        self.before = 0
        """Deliveries under way that began while the breaker was closed."""
        self.trials = 0

    @rule(ms=st.integers(1, 30_000))
    def wait(self, ms: int) -> None:
        self.now += ms

    @rule()
    def start(self) -> None:
        was_closed = self.breaker.state is BreakerState.CLOSED
        if self.breaker.try_start(self.now):
            if was_closed:
                self.before += 1
            else:
                self.trials += 1

    @precondition(lambda self: self.before)
    @rule(succeeds=st.booleans())
    def end_an_old_one(self, succeeds: bool) -> None:
        self.before -= 1
        if succeeds:
            self.breaker.succeeded()
            self.before, self.trials = self.before + self.trials, 0
        else:
            self.breaker.failed(self.now)
            if self.breaker.state is not BreakerState.TRIAL:
                self.before, self.trials = self.before + self.trials, 0

    @precondition(lambda self: self.trials)
    @rule(succeeds=st.booleans())
    def end_the_trial(self, succeeds: bool) -> None:
        self.trials -= 1
        if succeeds:
            self.breaker.succeeded()
        else:
            self.breaker.failed(self.now)

    @precondition(lambda self: self.trials)
    @rule()
    def give_up(self) -> None:
        self.trials -= 1
        self.breaker.gave_up()

    @precondition(lambda self: self.breaker.state is not BreakerState.TRIAL)
    @rule()
    def disable_and_enable(self) -> None:
        self.breaker.disable()
        self.breaker.succeeded()
        assert not self.breaker.try_start(2**50)
        self.breaker.enable()
        assert self.breaker.state is BreakerState.OPEN

    @invariant()
    def one_trial_at_a_time(self) -> None:
        assert self.trials == (self.breaker.state is BreakerState.TRIAL)


TestBreaker = BreakerMachine.TestCase
