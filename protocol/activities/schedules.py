"""Events of schedules (operations that a room runs at a time) and of countdowns."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

from ..fields import any_value, boolean, characters, integer, name_of, optional, record, text
from .rows import ActivityEventRow, ActivityViewRow, EventRow, Via

__all__ = [
    "REPORTS",
    "ROWS",
    "VIEWS",
    "CountdownMoved",
    "CountdownStarted",
    "CountdownStopped",
    "JobChanged",
    "JobFiredData",
    "JobMissedData",
    "JobState",
    "JobView",
    "LatePolicy",
    "job_view",
    "label",
]


class JobState(IntEnum):
    """State of a scheduled operation."""

    PENDING = 0
    FIRED = 1
    """It runs or has run, by success or with a refusal."""
    MISSED = 2
    CANCELLED = 3


class LatePolicy(IntEnum):
    """What becomes of an operation whose time has passed without the broker, by more than ``late_ms``."""

    LATE = 0
    """It runs all the same."""
    SKIP = 1
    """It is missed."""


class JobView(NamedTuple):
    """A scheduled operation.

    ``version``: grows with every change; ``request``: of the operation, null = the caller could not run it;
    ``fired_at_ms``: null = it has not; ``has_run``: its result is known; ``refusal``: code of the error that it had,
    null = none.
    """

    id: str
    state: JobState
    version: int
    at_ms: int
    operation: str
    request: Any
    late: LatePolicy
    late_ms: int
    fired_at_ms: int | None = None
    has_run: bool = False
    refusal: str | None = None


class JobChanged(NamedTuple):
    """A scheduled operation is new, was changed, has run or will not run."""

    state: JobState
    version: int
    at_ms: int
    operation: str
    refusal: str | None = None


class JobFiredData(NamedTuple):
    """A scheduled operation has run. ``refusal``: code of the error that it had, null = none; ``rule``: in words."""

    id: str
    operation: str
    version: int
    at_ms: int
    fired_at_ms: int
    refusal: str | None = None
    rule: str = ""


class JobMissedData(NamedTuple):
    """The time of a scheduled operation has passed without the broker, and it does not run any more."""

    id: str
    operation: str
    version: int
    at_ms: int


class CountdownStarted(NamedTuple):
    """A countdown to a time; clients count by the server's clock."""

    label: str
    deadline_ms: int


class CountdownMoved(NamedTuple):
    """A countdown goes to another time."""

    deadline_ms: int


class CountdownStopped(NamedTuple):
    """A countdown is stopped before its deadline."""


_id = text(1, 64)
_count = integer(0)
_refusal = optional(text(1, 64))
label = characters(64, 256)
"""Rule of the text of a countdown."""
job_view = record(
    JobView,
    (
        _id, name_of(JobState), integer(1), _count, _id, any_value, name_of(LatePolicy), _count, optional(_count),
        boolean, _refusal,
    ),
)  # fmt: skip
"""Rule of a scheduled operation."""
_countdown = record(CountdownStarted, (label, _count))
_A_COUNTDOWN = CountdownStarted("The sale opens", 1_790_000_600_000)

ROWS: tuple[ActivityEventRow, ...] = (
    ActivityEventRow(
        "schedules.changed", Via.HOST_COUNTER, JobChanged,
        record(JobChanged, (name_of(JobState), integer(1), _count, _id, _refusal)),
        "A scheduled operation is new, was changed, has run or will not run.",
        JobChanged(JobState.PENDING, 1, 1_790_000_600_000, "rooms.set_phase"),
    ),
    ActivityEventRow(
        "countdowns.started", Via.EVENT, CountdownStarted, _countdown, "A countdown has started.", _A_COUNTDOWN,
    ),
    ActivityEventRow(
        "countdowns.moved", Via.EVENT, CountdownMoved, record(CountdownMoved, (_count,)),
        "A countdown has another deadline.", CountdownMoved(1_790_000_630_000),
    ),
    ActivityEventRow(
        "countdowns.stopped", Via.EVENT, CountdownStopped, record(CountdownStopped, ()),
        "A countdown is stopped before its deadline.", CountdownStopped(),
    ),
)  # fmt: skip

REPORTS: tuple[EventRow, ...] = (
    EventRow(
        "schedule.fired", JobFiredData,
        record(JobFiredData, (_id, _id, integer(1), _count, _count, _refusal, text(0, 256))),
        "A scheduled operation has run.",
        JobFiredData("open-sale", "rooms.set_phase", 1, 1_790_000_600_000, 1_790_000_600_004),
    ),
    EventRow(
        "schedule.missed", JobMissedData, record(JobMissedData, (_id, _id, integer(1), _count)),
        "The time of a scheduled operation has passed without the broker.",
        JobMissedData("open-sale", "rooms.set_phase", 1, 1_790_000_600_000),
    ),
)  # fmt: skip

VIEWS: tuple[ActivityViewRow, ...] = (ActivityViewRow("countdowns", CountdownStarted, _countdown, _A_COUNTDOWN),)
