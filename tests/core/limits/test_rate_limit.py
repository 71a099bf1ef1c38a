from __future__ import annotations

from fractions import Fraction
from math import floor, inf

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broker.core.limits.rate_limit import UNLIMITED, Gcra, Rate, SingleGcra
from tests.support.examples import examples


class LeakyBucket:
    """The slow twin: exact fractions, one level that leaks."""

    def __init__(self, rate: Rate) -> None:
        self.per_s, self.burst = Fraction(rate.per_s), rate.burst
        self.level, self.at = Fraction(0), Fraction(0)

    def try_acquire(self, now: Fraction, cost: int = 1) -> Fraction:
        if now > self.at:
            self.level = max(Fraction(0), self.level - (now - self.at) * self.per_s)
            self.at = now
        over = self.level + cost - self.burst
        if over <= 0:
            self.level += cost
            return Fraction(0)
        return over / self.per_s

    def charge(self, now: Fraction, cost: int) -> Fraction:
        """Take ``cost`` whether it fits or not: the time until it does."""
        wait = self.try_acquire(now, cost)
        if wait:
            self.level += cost
        return wait

    def take(self, now: Fraction, want: int) -> int:
        return sum(self.try_acquire(now) == 0 for _ in range(want))


# Quarter messages a second and times on a 1/1024 s grid: a decision is never nearer to its edge than 4 us, while
# the limiter allows at most 0.5 us too much, so the float arithmetic must agree with the fractions exactly.
rates = st.builds(Rate, st.integers(1, 200).map(lambda q: q / 4), st.integers(1, 40))
steps = st.integers(-200, 4096)
starts = st.integers(0, 2**36)


@given(
    rates,
    starts,
    st.lists(st.tuples(steps, st.sampled_from("ab"), st.booleans(), st.integers(1, 50), st.booleans()), max_size=60),
)
def test_it_equals_a_leaky_bucket_per_key_on_any_schedule(
    rate: Rate, start: int, calls: list[tuple[int, str, bool, int, bool]]
) -> None:
    limiter = Gcra(rate)
    twins = {key: LeakyBucket(rate) for key in "ab"}
    latest = start
    limiter.sweep(start / 1024)  # sets its time
    for step, key, whole, count, sweep in calls:
        tick = latest + step
        latest = max(latest, tick)
        exact_now = Fraction(latest, 1024)
        for twin in twins.values():
            twin.try_acquire(exact_now, 0)
        if whole:
            cost = min(count, rate.burst)
            wait = limiter.try_acquire(key, tick / 1024, cost)
            assert wait == pytest.approx(float(twins[key].try_acquire(exact_now, cost)), abs=2e-6)
            assert (wait == 0.0) == (abs(wait) < 1e-6)
        else:
            assert limiter.take(key, tick / 1024, count) == twins[key].take(exact_now, count)
        if sweep:
            limiter.sweep(tick / 1024, 1)


@given(rates, starts, st.lists(st.floats(0, 2), min_size=1, max_size=80))
def test_no_window_ever_holds_more_than_burst_plus_rate_times_time(rate: Rate, start: int, gaps: list[float]) -> None:
    limiter, now, passed = Gcra(rate), start / 1024, []
    for gap in gaps:
        now += gap
        passed += [now] * limiter.take("u", now, 7)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            assert last - first + 1 <= rate.burst + rate.per_s * (passed[last] - passed[first]) + 1e-3


@given(rates, st.floats(0, 1e8), st.floats(0, 10), st.data())
def test_the_wait_is_exact_to_a_nanosecond(rate: Rate, start: float, gap: float, data: st.DataObject) -> None:
    cost = data.draw(st.integers(1, rate.burst))
    limiter = Gcra(rate)
    limiter.take("u", start, rate.burst)
    now = start + min(gap, 0.99 * cost / rate.per_s)
    wait = limiter.try_acquire("u", now, cost)
    assume(wait > 1e-6)
    step = max(1e-9, 4 * (start + 10) * 2**-53)
    assert limiter.try_acquire("u", now + wait - step, cost) > 0
    assert limiter.try_acquire("u", now + wait, cost) == 0.0
    assert limiter.try_acquire("u", now + wait, cost) > 0, "it was taken"


def test_a_chat_user_may_say_three_things_then_one_a_second() -> None:
    limiter = Gcra(Rate(per_s=1, burst=3))
    assert [limiter.try_acquire("ann", 10.0) for _ in range(4)] == [0.0, 0.0, 0.0, pytest.approx(1.0)]
    assert limiter.try_acquire("bob", 10.0) == 0.0
    assert limiter.try_acquire("ann", 10.9) == pytest.approx(0.1)
    assert limiter.try_acquire("ann", 11.0) == 0.0
    assert limiter.try_acquire("ann", 11.0) == pytest.approx(1.0)


@pytest.mark.parametrize("uptime_s", [0.1, 1e3 + 1 / 3, 1e6 + 0.1, 6e7 + 0.7])
@pytest.mark.parametrize("per_s", [0.5, 3, 7, 20, 1000])
def test_the_whole_burst_passes_at_once_whatever_the_clock_says(per_s: float, uptime_s: float) -> None:
    for burst in (1, 3, 20, 1000):
        limiter = Gcra(Rate(per_s, burst))
        assert all(limiter.try_acquire("u", uptime_s) == 0.0 for _ in range(burst))
        assert limiter.try_acquire("u", uptime_s) > 0
        assert limiter.take("whole", uptime_s, 2 * burst) == burst


def test_likes_come_in_counts_and_only_what_fits_is_taken() -> None:
    limiter = Gcra(Rate(per_s=20, burst=20))
    assert limiter.take("u", 0.0, 15) == 15
    assert limiter.take("u", 0.0, 15) == 5
    assert limiter.take("u", 0.0, 15) == 0
    assert limiter.take("u", 0.5, 15) == 10
    assert limiter.take("new", 0.5, 0) == limiter.take("new", 9.0, -3) == 0
    assert len(limiter) == 1, "who wants nothing is not remembered"


def test_a_refusal_changes_nothing() -> None:
    limiter = Gcra(Rate(2, 1))
    limiter.try_acquire("u", 0.0)
    waits = {limiter.try_acquire("u", 0.25) for _ in range(100)}
    assert len(waits) == 1
    assert waits.pop() == pytest.approx(0.25)
    assert limiter.try_acquire("u", 0.5) == 0.0


def test_a_clock_that_goes_back_stalls() -> None:
    limiter = Gcra(Rate(1, 1))
    assert limiter.try_acquire("u", 100.0) == 0.0
    assert limiter.try_acquire("u", 5.0) == pytest.approx(1.0)
    assert limiter.try_acquire("new", 5.0) == 0.0
    assert limiter.try_acquire("new", 101.0) == 0.0
    assert limiter.sweep(0.0) == 1
    assert limiter.try_acquire("u", 0.0) == 0.0


def test_an_unlimited_rate_allows_everything_and_remembers_nobody() -> None:
    limiter = Gcra(UNLIMITED)
    assert UNLIMITED.unlimited
    assert not Rate(1, 1).unlimited
    assert all(limiter.try_acquire(n, 0.0, 1000) == 0.0 for n in range(1000))
    assert limiter.take("u", 0.0, 10**9) == 10**9
    assert limiter.take("u", 0.0, -1) == 0
    assert len(limiter) == 0


@pytest.mark.parametrize(("per_s", "burst"), [(0, 1), (-1, 1), (2e6, 1), (float("nan"), 1), (1, 0), (inf, 0)])
def test_a_senseless_rate_is_refused(per_s: float, burst: int) -> None:
    with pytest.raises(ValueError, match=r"per_s|burst"):
        Rate(per_s, burst)


def test_a_cost_that_could_never_pass_is_the_callers_error() -> None:
    with pytest.raises(ValueError, match="can never pass"):
        Gcra(Rate(1, 3)).try_acquire("u", 0.0, 4)
    with pytest.raises(ValueError, match="max_keys"):
        Gcra(Rate(1, 3), max_keys=0)


def test_a_full_table_refuses_new_connections_and_keeps_its_promises_to_the_others() -> None:
    limiter = Gcra(Rate(per_s=1, burst=2), max_keys=3)
    for key in "abc":
        assert limiter.take(key, 0.0, 2) == 2
    assert limiter.try_acquire("d", 0.0) == 1.0
    assert limiter.take("e", 0.0, 5) == 0
    assert limiter.full_refusals == 2
    assert len(limiter) == 3
    assert limiter.try_acquire("a", 1.0) == 0.0, "who is known is served as ever"
    assert limiter.try_acquire("d", 2.0) == 0.0, "b and c are stale by now"
    assert len(limiter) <= 3


def test_repeated_sweeps_meet_every_key() -> None:
    limiter = Gcra(Rate(1, 1))
    for n in range(1000):
        limiter.try_acquire(n, 0.0)
    assert limiter.sweep(0.5) == 0
    assert sum(limiter.sweep(1.0, limit=100) for _ in range(11)) == 1000
    assert len(limiter) == 0
    assert limiter.sweep(1.0) == 0


class Table(RuleBasedStateMachine):
    """A small table under new keys, sweeps and time: bounded, and sweeping is invisible."""

    @initialize(rate=rates)
    def start(self, rate: Rate) -> None:
        self.swept, self.unbounded = Gcra(rate, max_keys=4), Gcra(rate)
        self.tick = 0

    @rule(step=st.integers(0, 3000))
    def wait(self, step: int) -> None:
        self.tick += step

    @rule(key=st.integers(0, 7))
    def post(self, key: int) -> None:
        now, refused = self.tick / 1024, self.swept.full_refusals
        wait = self.swept.try_acquire(key, now)
        if self.swept.full_refusals == refused:
            assert wait == self.unbounded.try_acquire(key, now)
        else:
            assert wait == 1 / self.swept.rate.per_s

    @rule(limit=st.integers(0, 9))
    def sweep(self, limit: int) -> None:
        before = len(self.swept)
        assert self.swept.sweep(self.tick / 1024, limit) == before - len(self.swept) <= limit

    @invariant()
    def is_bounded(self) -> None:
        assert len(self.swept) <= 4


TestTable = Table.TestCase
TestTable.settings = examples(40)


@given(rates, st.integers(1, 100))
def test_taking_many_leaves_the_same_wait_as_taking_one_by_one(rate: Rate, want: int) -> None:
    once, singly = Gcra(rate), Gcra(rate)
    taken = once.take("u", 5.0, want)
    assert taken == sum(singly.try_acquire("u", 5.0) == 0.0 for _ in range(want)) == min(want, floor(rate.burst))
    assert once.try_acquire("u", 5.0, rate.burst) == pytest.approx(singly.try_acquire("u", 5.0, rate.burst))


# ---- one key, whose state is the caller's


@given(rates, starts, st.lists(st.tuples(steps, st.integers(1, 50)), max_size=60))
def test_a_single_limit_equals_a_leaky_bucket_that_overflows(
    rate: Rate, start: int, calls: list[tuple[int, int]]
) -> None:
    limit, twin = SingleGcra(rate), LeakyBucket(rate)
    tat, latest = 0.0, start
    for step, cost in calls:
        latest = max(latest, latest + step)
        now = latest / 1024
        tat = limit.charge(tat, now, cost)
        wait = limit.wait_s(tat, now)
        assert wait == pytest.approx(float(twin.charge(Fraction(latest, 1024), cost)), abs=2e-6)
        assert (wait == 0.0) == (abs(wait) < 1e-6)


@given(rates, st.floats(0, 1e8), st.lists(st.tuples(st.floats(0, 10), st.integers(1, 40)), max_size=40))
def test_a_single_limit_allows_what_a_table_allows_to_a_caller_that_stops_when_refused(
    rate: Rate, start: float, calls: list[tuple[float, int]]
) -> None:
    table, limit = Gcra(rate), SingleGcra(rate)
    tat, now = 0.0, start
    for gap, count in calls:
        now += gap
        cost = min(count, rate.burst)
        charged = limit.charge(tat, now, cost)
        assert (limit.wait_s(charged, now) == 0.0) == (table.try_acquire("u", now, cost) == 0.0)
        if not limit.wait_s(charged, now):
            tat = charged


@given(rates, st.floats(0, 1e8), st.integers(1, 200))
def test_after_the_wait_what_was_charged_fits(rate: Rate, now: float, cost: int) -> None:
    limit = SingleGcra(rate)
    tat = limit.charge(0.0, now, cost)
    wait = limit.wait_s(tat, now)
    assert (wait > 0.0) == (cost > rate.burst)
    assert limit.wait_s(tat, now + wait) <= 1e-7
    assert limit.wait_s(tat, now + wait + 1e-6) == 0.0


@pytest.mark.parametrize("per_s", [0.5, 3, 7, 20, 1000])
def test_a_single_limit_passes_the_whole_burst_one_by_one(per_s: float) -> None:
    limit, now, tat = SingleGcra(Rate(per_s, 100)), 6e7 + 0.7, 0.0
    for _ in range(100):
        tat = limit.charge(tat, now)
        assert limit.wait_s(tat, now) == 0.0
    assert limit.wait_s(limit.charge(tat, now), now) == pytest.approx(1 / per_s, rel=1e-3)


def test_an_unlimited_single_limit_never_waits_whatever_the_clock_does() -> None:
    limit = SingleGcra(UNLIMITED)
    tat = limit.charge(0.0, 100.0, 10**9)
    assert limit.wait_s(tat, 100.0) == limit.wait_s(tat, 5.0) == 0.0
    assert tat == 0.0, "no state of its own is made for it"


@given(rates, starts, st.lists(st.tuples(st.integers(0, 4096), st.integers(1, 50)), min_size=1, max_size=20))
def test_what_is_left_is_what_can_be_taken(rate: Rate, start: int, calls: list[tuple[int, int]]) -> None:
    limiter = Gcra(rate)
    now = start / 1024
    for step, count in calls:
        now += step / 1024
        limiter.take("a", now, count)
    left, whole_s = limiter.left("a", now)
    assert limiter.left("a", now + whole_s) == (rate.burst, 0.0)
    assert limiter.left("unseen", now) == (rate.burst, 0.0)
    assert limiter.take("a", now, rate.burst + 1) == left
