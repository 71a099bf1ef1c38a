"""Events of a PK: two rooms compare what their viewers give within a time."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..fields import boolean, integer, name_of, optional, record, text
from .rows import ActivityEventRow, ActivityViewRow, EventRow, Via

__all__ = [
    "REPORTS",
    "ROWS",
    "VIEWS",
    "PkEnded",
    "PkMeasure",
    "PkOutcome",
    "PkPhase",
    "PkScore",
    "PkStarted",
    "PkState",
    "pk_state",
]


class PkPhase(IntEnum):
    """Phase of one room's half of a PK."""

    IDLE = 0
    INVITING = 1
    """The room has invited another one."""
    INVITED = 2
    RUNNING = 3
    """Accepted: what is given from ``starts_at_ms`` on counts, until ``ends_at_ms``."""
    SCORING = 4
    RESULT = 5


class PkMeasure(IntEnum):
    """What is compared."""

    GIFTS = 0
    """Cents of gifts and of paid messages."""
    LIKES = 1
    """Likes, those of guests too."""


class PkOutcome(IntEnum):
    """How a PK, or the invitation to one, has ended for the room."""

    WON = 1
    LOST = 2
    DRAW = 3
    VOID = 4
    """The score of a room is not known."""
    DECLINED = 5
    CANCELLED = 6
    EXPIRED = 7


class PkState(NamedTuple):
    """A room's half of a PK.

    ``id``: of the PK, the same in both rooms; ``is_inviting``: this room has invited the other; ``expires_at_ms``: of
    the invitation; ``starts_at_ms``, ``ends_at_ms``: null before it is accepted; ``other_score``: null while it is not
    known; ``outcome``: null before the end; ``is_forfeit``: one of the rooms has ended or given up.
    """

    id: str
    phase: PkPhase
    other_room: str
    is_inviting: bool
    measure: PkMeasure
    duration_ms: int
    expires_at_ms: int | None = None
    starts_at_ms: int | None = None
    ends_at_ms: int | None = None
    score: int = 0
    other_score: int | None = None
    outcome: PkOutcome | None = None
    is_forfeit: bool = False


class PkStarted(NamedTuple):
    """A PK is accepted, and counts from ``starts_at_ms`` on."""

    id: str
    other_room: str
    measure: PkMeasure
    starts_at_ms: int
    ends_at_ms: int


class PkEnded(NamedTuple):
    """A PK is over. ``other_score``: null where it is not known; ``is_forfeit``: a room has ended or given up."""

    id: str
    other_room: str
    outcome: PkOutcome
    score: int
    other_score: int | None
    is_forfeit: bool = False


class PkScore(NamedTuple):
    """The scores of a PK that runs, for display: only those of `PkEnded` decide."""

    id: str
    score: int
    other_score: int | None


_id = text(1, 64)
_count = integer(0)
_score = optional(_count)
_outcome = name_of(PkOutcome)
_measure = name_of(PkMeasure)
pk_state = record(
    PkState,
    (
        _id, name_of(PkPhase), _id, boolean, _measure, _count, _score, _score, _score, _count, _score,
        optional(_outcome), boolean,
    ),
)  # fmt: skip
"""Rule of a room's half of a PK."""
_started = record(PkStarted, (_id, _id, _measure, _count, _count))
_ended = record(PkEnded, (_id, _id, _outcome, _count, _score, boolean))
_A_START = PkStarted("pk-1", "live-2", PkMeasure.GIFTS, 1_790_000_003_000, 1_790_000_303_000)
_AN_END = PkEnded("pk-1", "live-2", PkOutcome.WON, 52_000, 31_400)

ROWS: tuple[ActivityEventRow, ...] = (
    ActivityEventRow("pk.started", Via.EVENT, PkStarted, _started, "A PK is accepted.", _A_START),
    ActivityEventRow("pk.ended", Via.EVENT, PkEnded, _ended, "A PK is over.", _AN_END),
    ActivityEventRow(
        "pk.score_changed", Via.COUNTER, PkScore, record(PkScore, (_id, _count, _score)),
        "The scores of a PK that runs.", PkScore("pk-1", 12_000, 9_400),
    ),
    ActivityEventRow(
        "pk.invitation_changed", Via.HOST_COUNTER, PkState, pk_state,
        "The room has invited another one to a PK or is invited, or the invitation is over.",
        PkState(
            "pk-1", PkPhase.INVITED, "live-2", False, PkMeasure.GIFTS, 300_000, expires_at_ms=1_790_000_030_000
        ),
    ),
)  # fmt: skip

REPORTS: tuple[EventRow, ...] = (
    EventRow("pk.started", PkStarted, _started, "A PK is accepted; each of its rooms reports it.", _A_START),
    EventRow("pk.ended", PkEnded, _ended, "A PK is over; each of its rooms reports it.", _AN_END),
)  # fmt: skip

VIEWS: tuple[ActivityViewRow, ...] = (
    ActivityViewRow(
        "pk", PkState, pk_state,
        PkState(
            "pk-1", PkPhase.RUNNING, "live-2", True, PkMeasure.GIFTS, 300_000, None, 1_790_000_003_000,
            1_790_000_303_000, 12_000, 9_400,
        ),
    ),
)  # fmt: skip
