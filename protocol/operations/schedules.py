"""Operations on schedules and countdowns: their records and rows."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..activities.schedules import JobState, JobView, LatePolicy, job_view, label
from ..codes import ErrorCode
from ..fields import boolean, free_value, integer, name_of, optional, record, room_name, text
from .rows import DIRECTION, NEEDS_LEDGER, OperationRow, Scope, always, cursor, page_of, page_size, row

__all__ = [
    "ROWS",
    "CancelSchedule",
    "ChangeSchedule",
    "CountdownState",
    "CreateSchedule",
    "ListSchedules",
    "SchedulePage",
    "StartCountdownAt",
    "StopCountdownNow",
]

MAX_LATE_MS = 30 * 24 * 3_600_000


class CreateSchedule(NamedTuple):
    """Schedule an operation. ``id``: of the schedule; the same id and content is the same one.

    ``request``: fields of the operation, as an object; the caller's rights are checked now and when it runs. ``late``:
    what becomes of it when it is late by more than ``late_ms``.
    """

    room: str
    id: str
    operation: str
    request: Any
    at_ms: int
    late: LatePolicy = LatePolicy.LATE
    late_ms: int = 10_000


class ChangeSchedule(NamedTuple):
    """Give a scheduled operation another time. ``version``: the one it has."""

    room: str
    id: str
    at_ms: int
    version: int


class CancelSchedule(NamedTuple):
    """Let a scheduled operation not run. One that has fired or was missed stays so."""

    room: str
    id: str


class ListSchedules(NamedTuple):
    """List the scheduled operations of a room, the oldest first. ``state``: null = all."""

    room: str
    state: JobState | None = None
    limit: int = 100
    cursor: str | None = None


class SchedulePage(NamedTuple):
    """A page of scheduled operations."""

    items: tuple[JobView, ...]
    next: str | None = None


class StartCountdownAt(NamedTuple):
    """Start a countdown that every member sees. The same id and content is the same one."""

    room: str
    id: str
    label: str
    deadline_ms: int


class MoveCountdownTo(NamedTuple):
    """Give a countdown another deadline. ``known_ms``: the deadline that the caller knows; STALE where another one has
    moved it meanwhile."""

    room: str
    id: str
    deadline_ms: int
    known_ms: int


class StopCountdownNow(NamedTuple):
    """End a countdown before its deadline."""

    room: str
    id: str


class CountdownState(NamedTuple):
    """A countdown. ``is_over``: it was stopped, or its deadline has passed."""

    id: str
    label: str
    deadline_ms: int
    is_over: bool = False


_id = text(1, 64)
_time = integer(0)
_state = record(CountdownState, (_id, label, _time, boolean))
_page = record(SchedulePage, page_of(job_view))
_AGAIN = (ErrorCode.ROOM_ENDED, ErrorCode.UNKNOWN_ACTIVITY, *NEEDS_LEDGER)
_CREATES = (ErrorCode.KEY_REUSED, ErrorCode.OUT_OF_STATE, ErrorCode.ROOM_ENDED, *NEEDS_LEDGER)
_AT_MS = 4_000_000_000_000
_REQUEST = {"room": "live-1", "phase": "paused"}
_JOB = JobView("pause-1", JobState.PENDING, 1, _AT_MS, "rooms.set_phase", _REQUEST, LatePolicy.LATE, 10_000)
_COUNTDOWN = CountdownState("c-1", "The sale opens", _AT_MS)

ROWS: tuple[OperationRow, ...] = (
    row(
        380, "schedules.create", CreateSchedule,
        (room_name, _id, _id, free_value(8), _time, name_of(LatePolicy), integer(0, MAX_LATE_MS)), JobView, job_view,
        "Schedule an operation.",
        scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True, errors=_CREATES,
        example=(CreateSchedule("live-1", "pause-1", "rooms.set_phase", _REQUEST, _AT_MS), _JOB),
    ),
    row(
        381, "schedules.change", ChangeSchedule, (room_name, _id, _time, integer(1)), JobView, job_view,
        "Give a scheduled operation another time.",
        scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True, errors=(ErrorCode.STALE, *_AGAIN),
        example=(
            ChangeSchedule("live-1", "pause-1", _AT_MS + 1000, 1), _JOB._replace(at_ms=_AT_MS + 1000, version=2)
        ),
    ),
    row(
        382, "schedules.cancel", CancelSchedule, (room_name, _id), JobView, job_view,
        "Let a scheduled operation not run.",
        scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True, errors=_AGAIN,
        example=(CancelSchedule("live-1", "pause-1"), _JOB._replace(state=JobState.CANCELLED)),
    ),
    row(
        383, "schedules.list", ListSchedules, (room_name, optional(name_of(JobState)), page_size, cursor),
        SchedulePage, _page, "List the scheduled operations of a room.",
        scope=Scope.COMMERCE_READ, roles=DIRECTION, changes=False, errors=(ErrorCode.UNKNOWN_ROOM, ErrorCode.NOT_KEPT),
        example=(ListSchedules("live-1"), SchedulePage((_JOB,))),
    ),
    row(
        390, "countdowns.start", StartCountdownAt, (room_name, _id, label, _time), CountdownState, _state,
        "Start a countdown that every member sees.",
        speaks=always, scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True, errors=_CREATES,
        example=(StartCountdownAt("live-1", "c-1", "The sale opens", _AT_MS), _COUNTDOWN),
    ),
    row(
        391, "countdowns.stop", StopCountdownNow, (room_name, _id), CountdownState, _state,
        "End a countdown before its deadline.",
        scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True, errors=_AGAIN,
        example=(StopCountdownNow("live-1", "c-1"), _COUNTDOWN._replace(is_over=True)),
    ),
    row(
        392, "countdowns.move", MoveCountdownTo, (room_name, _id, _time, _time), CountdownState, _state,
        "Give a countdown another deadline.",
        scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True,
        errors=(ErrorCode.OUT_OF_STATE, ErrorCode.STALE, *_AGAIN),
        example=(
            MoveCountdownTo("live-1", "c-1", _AT_MS + 30_000, _AT_MS),
            _COUNTDOWN._replace(deadline_ms=_AT_MS + 30_000),
        ),
    ),
)  # fmt: skip
