"""Schedules: operations that a room runs at a time. Each scheduled operation (job) is an activity of its own.

PENDING -> FIRED, MISSED or CANCELLED. Firing is a fact of its own before the operation runs: from then on it is run,
after a restart again, with an idempotency key made of the job's id and version, so it has one effect. It has run when
its result is a fact too; a refused operation has fired all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from broker.core.commerce.activity import (
    Activity,
    ActivityRefusal,
    ActivityReport,
    ActivityStep,
    ErasedUser,
    Fact,
    Requester,
    RoomEvent,
    refused,
)
from broker.core.users.named import without_user
from protocol.activities.schedules import JobChanged, JobFiredData, JobMissedData, JobState, JobView, LatePolicy
from protocol.codes import ErrorCode
from protocol.frames import pack_body
from protocol.operations import BY_NAME

__all__ = [
    "ERASED_CREATOR", "MAX_AHEAD_MS", "MAX_JOB_BYTES", "USER_CREATOR", "CancelJob", "ChangeJob", "CreateJob", "Job",
    "JobRan", "JobRun",
]  # fmt: skip

T = TypeVar("T")

MAX_AHEAD_MS = 30 * 24 * 3_600_000
MAX_JOB_BYTES = 4096
"""Of the packed request of one operation."""
USER_CREATOR, ERASED_CREATOR = "user", "erased"
"""First values of a ``creator`` that is a user, whose id is the third one, and that was one."""


class CreateJob(NamedTuple):
    """Schedule an operation. ``creator``: plain values by which the caller of `JobRun` finds its rights (Any: opaque
    here); ``late_ms``: how late it may run where ``late`` is SKIP."""

    operation: str
    request: Any
    at_ms: int
    creator: tuple[Any, ...]
    late: LatePolicy = LatePolicy.LATE
    late_ms: int = 10_000


class ChangeJob(NamedTuple):
    """Give a job another time. ``version``: the one it has."""

    at_ms: int
    version: int


class CancelJob(NamedTuple):
    """Let a job not run; one that has fired stays so."""


class JobRan(NamedTuple):
    """The operation has been run. ``refusal``: code of its error, None = it succeeded; ``rule``: in words."""

    version: int
    refusal: str | None = None
    rule: str = ""


class JobRun(NamedTuple):
    """An operation that is to be run now, until `JobRan`. ``key``: its idempotency key."""

    version: int
    operation: str
    request: Any
    creator: tuple[Any, ...]
    key: str


class _Plan(NamedTuple):
    """What was asked for. ``request``: with tuples for arrays, as the ledger returns it."""

    operation: str
    request: Any
    creator: tuple[Any, ...]
    late: int
    late_ms: int


class Job(Activity[T]):
    """One scheduled operation of a room."""

    kind = "schedules"

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self._plan: _Plan | None = None
        self._created_for_ms = 0
        """The time that it was created for; changes give it another."""
        self._at_ms = 0
        self._version = 0
        self._state = JobState.PENDING
        self._ended_at: int | None = None
        """When it has fired, was missed or cancelled."""
        self._ran: tuple[int, str | None, str] | None = None
        """When it has run, and the refusal it had."""

    @property
    def exists(self) -> bool:
        return self._plan is not None

    @property
    def waiting_for(self) -> tuple[Any, ...]:
        """The creator of a job whose time has not come; () = it has, or there is none."""
        plan = self._plan
        return () if plan is None or self._state is not JobState.PENDING else plan.creator

    @property
    def removable_at(self) -> int | None:
        if self._state is JobState.FIRED:
            return None if self._ran is None else self._ran[0]
        return self._ended_at

    @property
    def pending_actions(self) -> tuple[JobRun, ...]:
        plan = self._plan
        if plan is None or self._state is not JobState.FIRED or self._ran is not None:
            return ()
        key = f"job/{self.id}/{self._version}"
        return (JobRun(self._version, plan.operation, plan.request, plan.creator, key),)

    # ---- commands

    def decide(self, command: Any, requester: Requester, ticket: T, now_ms: int) -> ActivityStep[T]:
        if isinstance(command, CreateJob):
            return self._create(command, now_ms)
        if self._plan is None:
            return refused(ErrorCode.UNKNOWN_ACTIVITY, "names no scheduled operation of this room", "id")
        match command:
            case ChangeJob():
                return self._change(command, now_ms)
            case CancelJob():
                return self._cancel(now_ms)
            case JobRan():
                return self._has_run(command, now_ms)
        raise TypeError(command)

    def _create(self, command: CreateJob, now_ms: int) -> ActivityStep[T]:
        request = _frozen(command.request)
        plan = _Plan(command.operation, request, command.creator, int(command.late), command.late_ms)
        if self._plan is not None:
            # The creator may be another backend or device of the same caller.
            if (plan._replace(creator=()), command.at_ms) == (self._plan._replace(creator=()), self._created_for_ms):
                return ActivityStep(answer=self.job())
            return refused(ErrorCode.KEY_REUSED, "was used before with another content", "id")
        refusal = _refusal_of_time(command.at_ms, now_ms)
        if refusal is not None:
            return ActivityStep(answer=refusal)
        if len(pack_body(request)) > MAX_JOB_BYTES:
            return refused(ErrorCode.BAD_FIELD, f"must have at most {MAX_JOB_BYTES} bytes", "request")
        return ActivityStep((Fact("created", (*plan, command.at_ms)),), self._view(plan, command.at_ms, 1))

    def _change(self, command: ChangeJob, now_ms: int) -> ActivityStep[T]:
        assert self._plan is not None
        if self._version == command.version + 1 and self._at_ms == command.at_ms:
            return ActivityStep(answer=self.job())  # this change, once more
        if self._state is not JobState.PENDING:
            return refused(ErrorCode.STALE, f"is {self._state.name.lower()}", "id")
        if command.version != self._version:
            return refused(ErrorCode.STALE, f"is {self._version} now", "version")
        refusal = _refusal_of_time(command.at_ms, now_ms)
        if refusal is not None:
            return ActivityStep(answer=refusal)
        view = self._view(self._plan, command.at_ms, self._version + 1)
        return ActivityStep((Fact("changed", (self._at_ms, command.at_ms)),), view)

    def _cancel(self, now_ms: int) -> ActivityStep[T]:
        if self._state is not JobState.PENDING:
            return ActivityStep(answer=self.job())
        return ActivityStep((Fact("cancelled", (now_ms,)),), self.job()._replace(state=JobState.CANCELLED))

    def _has_run(self, command: JobRan, now_ms: int) -> ActivityStep[T]:
        if self._state is not JobState.FIRED or self._ran is not None or command.version != self._version:
            return ActivityStep(answer=self.job())
        view = self.job()._replace(has_run=True, refusal=command.refusal)
        report = JobFiredData(
            self.id, view.operation, self._version, self._at_ms, view.fired_at_ms or 0, command.refusal, command.rule
        )
        return ActivityStep(
            (Fact("ran", (now_ms, command.refusal, command.rule)),),
            view,
            reports=(ActivityReport("schedule.fired", report),),
        )

    # ---- time

    def next_due(self) -> int | None:
        return self._at_ms if self._plan is not None and self._state is JobState.PENDING else None

    def due(self, now_ms: int) -> ActivityStep[T] | None:
        plan, at_ms = self._plan, self.next_due()
        if plan is None or at_ms is None or now_ms < at_ms:
            return None
        if plan.late == LatePolicy.LATE or now_ms - at_ms <= plan.late_ms:
            return ActivityStep((Fact("fired", (now_ms,)),))
        report = ActivityReport("schedule.missed", JobMissedData(self.id, plan.operation, self._version, at_ms))
        return ActivityStep((Fact("missed", (now_ms,)),), reports=(report,))

    def ended(self, now_ms: int) -> ActivityStep[T] | None:
        return ActivityStep((Fact("cancelled", (now_ms,)),)) if self._state is JobState.PENDING else None

    # ---- facts

    def apply(self, fact: Fact) -> None:
        data = fact.data
        match fact.name:
            case "created":
                self._plan = _Plan(*data[:-1])
                self._created_for_ms = self._at_ms = data[-1]
                self._version = 1
            case "changed":
                self._at_ms = data[1]
                self._version += 1
            case "ran":
                self._ran = data
            case name:
                self._state, self._ended_at = _ENDS[name], data[0]

    def undo(self, fact: Fact) -> None:
        match fact.name:
            case "created":
                self._plan = None
                self._created_for_ms = self._at_ms = self._version = 0
            case "changed":
                self._at_ms = fact.data[0]
                self._version -= 1
            case "ran":
                self._ran = None
            case _:
                self._state, self._ended_at = JobState.PENDING, None

    def without(self, fact: Fact, erased: ErasedUser) -> Fact:
        if fact.name != "created":
            return fact
        *plan, at_ms = fact.data
        return Fact(fact.name, (*_without(_Plan(*plan), erased), at_ms))

    def erase(self, erased: ErasedUser) -> None:
        """Let the job of a user have no creator: it has no rights when it runs; its operation does not name the user.

        A job that names the user and is another's runs for the pseudonym, without what it has of the user: where that
        is needed, as the payload of a message is, it is refused when it runs.
        """
        if self._plan is not None:
            self._plan = _without(self._plan, erased)

    def dump(self) -> tuple[Any, ...]:
        return self._plan, self._created_for_ms, self._at_ms, self._version, self._state, self._ended_at, self._ran

    # ---- what users see

    def view(self, is_staff: bool) -> None:
        """Members get nothing of it; staff lists jobs."""
        return None

    def counter(self) -> RoomEvent | None:
        view = self.job()
        changed = JobChanged(view.state, view.version, view.at_ms, view.operation, view.refusal)
        return RoomEvent("schedules.changed", changed)

    def job(self) -> JobView:
        """Return the record of the job; it must exist."""
        assert self._plan is not None
        return self._view(self._plan, self._at_ms, self._version)

    def _view(self, plan: _Plan, at_ms: int, version: int) -> JobView:
        fired_at_ms = self._ended_at if self._state is JobState.FIRED else None
        refusal = None if self._ran is None else self._ran[1]
        return JobView(
            self.id, self._state, version, at_ms, plan.operation, plan.request, LatePolicy(plan.late), plan.late_ms,
            fired_at_ms, self._ran is not None, refusal,
        )  # fmt: skip


_ENDS = {"fired": JobState.FIRED, "missed": JobState.MISSED, "cancelled": JobState.CANCELLED}
"""States by the name of the fact that leads to them."""


def _refusal_of_time(at_ms: int, now_ms: int) -> ActivityRefusal | None:
    if now_ms <= at_ms <= now_ms + MAX_AHEAD_MS:
        return None
    return ActivityRefusal(ErrorCode.BAD_FIELD, f"must be within {MAX_AHEAD_MS} ms from now", "at_ms")


def _without(plan: _Plan, erased: ErasedUser) -> _Plan:
    """Return a plan without a user."""
    row = BY_NAME.get(plan.operation)
    creator = (ERASED_CREATOR,) if _is_user(plan.creator, erased) else plan.creator
    request = plan.request if row is None else without_user(row.request, plan.request, *erased)
    return plan._replace(creator=creator, request=_frozen(request))


def _is_user(creator: tuple[Any, ...], erased: ErasedUser) -> bool:
    """Return whether a creator is a user by kind, tenant and id."""
    return len(creator) > 2 and creator[0] == USER_CREATOR and creator[2] == erased.user


def _frozen(value: Any) -> Any:
    """Return plain values with tuples for arrays."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_frozen, value))
    if isinstance(value, Mapping):
        return {key: _frozen(each) for key, each in value.items()}
    return value
