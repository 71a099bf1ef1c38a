"""Schedules: a job fires once, or is missed, over any order of changes, restarts and clocks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.strategies import booleans, integers, sampled_from

from broker.core.commerce.schedules import (
    MAX_AHEAD_MS,
    MAX_JOB_BYTES,
    CancelJob,
    ChangeJob,
    CreateJob,
    Job,
    JobRan,
    JobRun,
)
from protocol.activities.schedules import JobFiredData, JobMissedData, JobState, JobView, LatePolicy
from protocol.codes import ErrorCode
from tests.support.activities import ActivityDriver, platform
from tests.support.examples import examples

START = 1_790_000_000_000
CREATOR = ("key", "rk_1")
PHASE = {"room": "live-1", "phase": "paused"}


def new_driver() -> ActivityDriver:
    return ActivityDriver(lambda: Job("j"), START)


def job_at(in_ms: int, late: LatePolicy = LatePolicy.LATE, late_ms: int = 10_000) -> CreateJob:
    return CreateJob("rooms.set_phase", PHASE, START + in_ms, CREATOR, late, late_ms)


def scheduled(in_ms: int = 60_000, late: LatePolicy = LatePolicy.LATE) -> ActivityDriver:
    driver = new_driver()
    driver.ask(job_at(in_ms, late), platform)
    return driver


def state_of(driver: ActivityDriver) -> JobState:
    state: JobState = driver.activity.job().state
    return state


def test_a_job_fires_at_its_time_and_reports_its_result() -> None:
    driver = new_driver()
    view = driver.ask(job_at(60_000), platform)
    expected = JobView("j", JobState.PENDING, 1, START + 60_000, "rooms.set_phase", PHASE, LatePolicy.LATE, 10_000)
    assert view == expected
    driver.pass_time(59_999)
    assert driver.activity.pending_actions == ()
    driver.pass_time(1)
    assert driver.activity.pending_actions == (JobRun(1, "rooms.set_phase", PHASE, CREATOR, "job/j/1"),)
    assert driver.activity.removable_at is None
    ran = driver.ask(JobRan(1), platform)
    assert (ran.state, ran.has_run, ran.refusal, ran.fired_at_ms) == (JobState.FIRED, True, None, START + 60_000)
    assert driver.activity.pending_actions == ()
    assert driver.activity.removable_at == driver.now_ms
    assert [report.data for report in driver.reports] == [
        JobFiredData("j", "rooms.set_phase", 1, START + 60_000, START + 60_000)
    ]
    driver.ask(JobRan(1), platform)
    assert len(driver.reports) == 1


def test_a_refused_operation_has_fired_with_its_refusal() -> None:
    driver = scheduled()
    driver.pass_time(60_000)
    ran = driver.ask(JobRan(1, "ROOM_ENDED", "has ended"), platform)
    assert (ran.state, ran.refusal) == (JobState.FIRED, "ROOM_ENDED")
    assert (driver.reports[0].data.refusal, driver.reports[0].data.rule) == ("ROOM_ENDED", "has ended")


@pytest.mark.parametrize(
    ("late", "late_by_ms", "state"),
    [
        (LatePolicy.SKIP, 10_000, JobState.FIRED),
        (LatePolicy.SKIP, 10_001, JobState.MISSED),
        (LatePolicy.LATE, 10 * 24 * 3_600_000, JobState.FIRED),
    ],
)
def test_a_restart_fires_what_is_late_or_misses_it_by_policy(
    late: LatePolicy, late_by_ms: int, state: JobState
) -> None:
    driver = scheduled(60_000, late)
    driver.now_ms += 60_000 + late_by_ms
    driver.restart()
    driver.commit_all()
    assert state_of(driver) is state
    if state is JobState.MISSED:
        assert [report.data for report in driver.reports] == [JobMissedData("j", "rooms.set_phase", 1, START + 60_000)]
        assert driver.activity.counter().data.state is JobState.MISSED
        assert driver.activity.pending_actions == ()


def test_a_job_that_has_fired_is_run_after_a_restart_with_the_same_key() -> None:
    driver = scheduled(60_000, LatePolicy.SKIP)
    driver.pass_time(60_000)
    before = driver.activity.pending_actions
    driver.now_ms += 10 * 3_600_000
    driver.restart()
    driver.commit_all()
    assert driver.activity.pending_actions == before
    assert state_of(driver) is JobState.FIRED


def test_a_firing_that_the_ledger_refuses_is_tried_again() -> None:
    driver = scheduled()
    driver.advance(60_000)
    driver.refuse()
    assert state_of(driver) is JobState.PENDING
    driver.pass_time(1000)
    assert [fact.name for fact in driver.facts] == ["created", "fired"]


def test_a_change_gives_another_time_and_version() -> None:
    driver = scheduled()
    changed = driver.ask(ChangeJob(START + 5000, 1), platform)
    assert (changed.at_ms, changed.version) == (START + 5000, 2)
    assert driver.ask(ChangeJob(START + 5000, 1), platform) == changed
    stale = driver.refusal_of(ChangeJob(START + 6000, 1), platform)
    assert (stale.code, stale.field) == (ErrorCode.STALE, "version")
    assert "2" in stale.rule
    driver.pass_time(5000)
    assert driver.activity.pending_actions[0].key == "job/j/2"
    assert driver.refusal_of(ChangeJob(START + 60_000, 2), platform).code is ErrorCode.STALE


def test_a_cancelled_job_does_not_fire() -> None:
    driver = scheduled()
    assert driver.ask(CancelJob(), platform).state is JobState.CANCELLED
    assert driver.ask(CancelJob(), platform).state is JobState.CANCELLED
    driver.pass_time(120_000)
    assert driver.activity.pending_actions == ()
    assert driver.refusal_of(ChangeJob(START + 200_000, 1), platform).code is ErrorCode.STALE
    assert driver.activity.removable_at == START


def test_what_has_fired_or_was_missed_stays_so() -> None:
    driver = scheduled()
    driver.pass_time(60_000)
    assert driver.ask(CancelJob(), platform).state is JobState.FIRED
    driver = scheduled(1000, LatePolicy.SKIP)
    driver.advance(60_000)
    driver.commit_all()
    assert driver.ask(CancelJob(), platform).state is JobState.MISSED
    assert driver.ask(JobRan(1), platform).has_run is False


def test_the_same_id_is_the_same_job() -> None:
    driver = new_driver()
    first = driver.ask(job_at(60_000), platform)
    driver.pass_time(1000)
    again = job_at(60_000)._replace(creator=("key", "another"))
    assert driver.ask(again, platform) == first
    driver.restart()
    assert driver.ask(again, platform) == first
    for other in (job_at(60_001), job_at(60_000, LatePolicy.SKIP), job_at(60_000)._replace(request={})):
        assert driver.refusal_of(other, platform).code is ErrorCode.KEY_REUSED
    driver.ask(ChangeJob(START + 90_000, 1), platform)
    assert driver.ask(again, platform).at_ms == START + 90_000


def test_arrays_of_a_request_are_the_same_from_every_face() -> None:
    driver = new_driver()
    first = driver.ask(job_at(60_000)._replace(request={"ids": ["a", ["b"]]}), platform)
    driver.restart()
    assert driver.ask(job_at(60_000)._replace(request={"ids": ("a", ("b",))}), platform) == first


@pytest.mark.parametrize("in_ms", [-1, MAX_AHEAD_MS + 1])
def test_a_time_that_is_past_or_too_far_is_refused(in_ms: int) -> None:
    driver = new_driver()
    refusal = driver.refusal_of(job_at(in_ms), platform)
    assert (refusal.code, refusal.field) == (ErrorCode.BAD_FIELD, "at_ms")
    driver.ask(job_at(MAX_AHEAD_MS), platform)
    assert driver.refusal_of(ChangeJob(START + in_ms, 1), platform).field == "at_ms"


def test_a_request_has_a_bound() -> None:
    driver = new_driver()
    refusal = driver.refusal_of(job_at(0)._replace(request="x" * MAX_JOB_BYTES), platform)
    assert (refusal.code, refusal.field) == (ErrorCode.BAD_FIELD, "request")


@pytest.mark.parametrize("command", [CancelJob(), ChangeJob(START, 1), JobRan(1)])
def test_a_job_must_exist(command: Any) -> None:
    assert new_driver().refusal_of(command, platform).code is ErrorCode.UNKNOWN_ACTIVITY


def test_the_end_of_the_room_cancels_what_is_pending() -> None:
    driver = scheduled()
    driver.end()
    assert state_of(driver) is JobState.CANCELLED
    fired = scheduled()
    fired.pass_time(60_000)
    fired.end()
    assert state_of(fired) is JobState.FIRED


def test_a_clock_that_goes_back_fires_nothing_twice() -> None:
    driver = scheduled()
    driver.pass_time(60_000)
    driver.ask(JobRan(1), platform)
    driver.now_ms = START - 3_600_000
    driver.restart()
    driver.pass_time(3 * 3_600_000)
    assert [fact.name for fact in driver.facts] == ["created", "fired", "ran"]


def test_members_get_nothing_of_it() -> None:
    assert scheduled().activity.view(True) is None


class JobMachine(RuleBasedStateMachine):
    """Any order of commands, runs, commits, refusals, restarts and times."""

    @initialize(in_ms=integers(0, 30_000), skips=booleans())
    def begin(self, in_ms: int, skips: bool) -> None:
        self.driver = new_driver()
        self.driver.ask(job_at(in_ms, LatePolicy(skips), 1000), platform)
        self.runs: set[str] = set()

    @rule(in_ms=integers(0, 30_000), version=integers(1, 4))
    def change(self, in_ms: int, version: int) -> None:
        self.driver.send(ChangeJob(self.driver.now_ms + in_ms, version), platform)

    @rule(chance=integers(0, 4))
    def cancel(self, chance: int) -> None:
        if not chance:
            self.driver.send(CancelJob(), platform)

    @precondition(lambda self: not self.driver.is_under_way)
    @rule(is_refused=booleans(), is_lost=booleans())
    def run(self, is_refused: bool, is_lost: bool) -> None:
        """Run what is to be run; the report of it may be lost."""
        for action in self.driver.activity.pending_actions:
            self.runs.add(action.key)
            if not is_lost:
                self.driver.send(JobRan(action.version, "ROOM_ENDED" if is_refused else None), platform)

    @rule(ms=sampled_from([0, 1, 999, 5000, 60_000]))
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
    def it_fires_once(self) -> None:
        self.driver.check()
        names = [fact.name for fact in self.driver.facts]
        ends = [name for name in names if name in ("fired", "missed", "cancelled")]
        assert len(ends) <= 1
        assert names.count("ran") <= names.count("fired")
        assert len(self.runs) <= names.count("fired"), "two runs with different keys, or one before it has fired"
        assert len(self.driver.reports) <= 1

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        self.driver.pass_time(3_600_000)
        self.run(False, False)
        self.driver.commit_all()
        assert state_of(self.driver) is not JobState.PENDING
        assert self.driver.activity.pending_actions == ()
        assert len(self.driver.reports) == (state_of(self.driver) is not JobState.CANCELLED)
        self.driver.check()


JobMachine.TestCase.settings = examples(60, steps=25)
TestJobs = JobMachine.TestCase
