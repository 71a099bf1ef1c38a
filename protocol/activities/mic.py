"""Events of mic-link: who speaks beside the host."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..fields import array_of, boolean, display_name, integer, member_id, name_of, optional, record
from .rows import ActivityEventRow, ActivityViewRow, EventRow, Via

__all__ = [
    "MAX_FIRST",
    "MAX_LISTED",
    "MAX_SEATS",
    "REPORTS",
    "ROWS",
    "VIEWS",
    "LeaveCause",
    "MicInvited",
    "MicQueueChanged",
    "MicRejected",
    "MicSeat",
    "MicSeats",
    "MicState",
    "MicStatus",
    "MicWaiting",
    "SeatChangedData",
    "SeatLeft",
    "SeatMuted",
    "SeatTaken",
    "SeatsChanged",
    "mic_seats",
    "mic_state",
]

MAX_SEATS = 20
MAX_LISTED = 100
"""Users of the queue in one answer."""
MAX_FIRST = 10
"""Users of the queue in one counter."""


class MicStatus(IntEnum):
    """Step of a user on the way to a seat."""

    NONE = 0
    QUEUED = 1
    INVITED = 2
    """A seat is held for the user, who has not answered."""
    ACCEPTED = 3
    """The user has its RTC token and connects."""
    ON_MIC = 4


class LeaveCause(IntEnum):
    """Why a user is no longer on the mic."""

    LEFT = 0
    REMOVED = 1
    CONNECTION_LOST = 2
    ROOM_ENDED = 3


class MicSeat(NamedTuple):
    """A seat and who speaks there. ``seat``: 1 and up."""

    seat: int
    user: str
    name: str
    is_muted: bool = False


class MicWaiting(NamedTuple):
    """A user in the queue. ``number``: of its request; the queue is in order of numbers."""

    number: int
    user: str
    name: str


class MicState(NamedTuple):
    """Step of a user on the way to a seat.

    ``place``: in the queue, 1 = the next, 0 = not queued; ``seat``: that is held or taken, 0 = none; ``fence``: of that
    holding, which every act of its holder names, 0 = none; ``expires_at_ms``: when it ends by itself, null = it does
    not.
    """

    user: str
    status: MicStatus
    place: int = 0
    seat: int = 0
    fence: int = 0
    expires_at_ms: int | None = None
    is_muted: bool = False


class MicSeats(NamedTuple):
    """All seats of a room. ``taken``: who is on the mic, by seat; ``waiting``: users in the queue; ``queue``: the first
    of them, for staff alone."""

    seats: int
    taken: tuple[MicSeat, ...]
    waiting: int
    queue: tuple[MicWaiting, ...] = ()


class SeatTaken(NamedTuple):
    """A user is on the mic."""

    seat: int
    user: str
    name: str


class SeatLeft(NamedTuple):
    """A user is no longer on the mic, and its seat is free."""

    seat: int
    user: str
    cause: LeaveCause


class SeatMuted(NamedTuple):
    """The sound of a user on the mic is switched off or on."""

    seat: int
    user: str
    is_muted: bool


class SeatsChanged(NamedTuple):
    """The number of seats has changed. ``taken``: all who are on the mic now, by seat; users may have moved."""

    seats: int
    taken: tuple[MicSeat, ...]


class MicInvited(NamedTuple):
    """A seat is held for this user until ``expires_at_ms``. ``fence``: proves the invitation in `mic.accept`."""

    seat: int
    fence: int
    expires_at_ms: int


class MicRejected(NamedTuple):
    """Staff has ended the request or invitation of this user."""


class MicQueueChanged(NamedTuple):
    """Who waits for a seat. ``waiting``: how many; ``first``: of them, in order."""

    waiting: int
    first: tuple[MicWaiting, ...]


class SeatChangedData(NamedTuple):
    """A user has come on the mic, or left it. ``cause``: why it left, null = it is on the mic."""

    user: str
    seat: int
    fence: int
    cause: LeaveCause | None


_seat = integer(1, MAX_SEATS)
_cause = name_of(LeaveCause)
_count = integer(0)
_taken = record(MicSeat, (_seat, member_id, display_name, boolean))
_waiting = record(MicWaiting, (integer(1), member_id, display_name))
_seat_or_none = integer(0, MAX_SEATS)
mic_state = record(MicState, (member_id, name_of(MicStatus), _count, _seat_or_none, _count, optional(_count), boolean))
"""Rule of the step of a user."""
mic_seats = record(MicSeats, (_seat_or_none, array_of(_taken, MAX_SEATS), _count, array_of(_waiting, MAX_LISTED)))
"""Rule of all seats of a room."""

ROWS: tuple[ActivityEventRow, ...] = (
    ActivityEventRow(
        "mic.seat_taken", Via.EVENT, SeatTaken, record(SeatTaken, (_seat, member_id, display_name)),
        "A user is on the mic.", SeatTaken(1, "ann", "Ann"),
    ),
    ActivityEventRow(
        "mic.seat_left", Via.EVENT, SeatLeft, record(SeatLeft, (_seat, member_id, _cause)),
        "A user is no longer on the mic.", SeatLeft(1, "ann", LeaveCause.LEFT),
    ),
    ActivityEventRow(
        "mic.seat_muted", Via.EVENT, SeatMuted, record(SeatMuted, (_seat, member_id, boolean)),
        "The sound of a user on the mic is switched off or on.", SeatMuted(1, "ann", True),
    ),
    ActivityEventRow(
        "mic.seats_changed", Via.EVENT, SeatsChanged,
        record(SeatsChanged, (_seat_or_none, array_of(_taken, MAX_SEATS))),
        "The number of seats has changed.", SeatsChanged(3, (MicSeat(1, "ann", "Ann"),)),
    ),
    ActivityEventRow(
        "mic.invited", Via.DIRECT, MicInvited, record(MicInvited, (_seat, integer(1), integer(0))),
        "A seat is held for the user.", MicInvited(1, 1_790_000_000_000, 1_790_000_015_000),
    ),
    ActivityEventRow(
        "mic.rejected", Via.DIRECT, MicRejected, record(MicRejected, ()),
        "The user's request for a seat is rejected.", MicRejected(),
    ),
    ActivityEventRow(
        "mic.queue_changed", Via.HOST_COUNTER, MicQueueChanged,
        record(MicQueueChanged, (_count, array_of(_waiting, MAX_FIRST))),
        "Who waits for a seat.", MicQueueChanged(1, (MicWaiting(7, "bob", "Bob"),)),
    ),
)  # fmt: skip

REPORTS: tuple[EventRow, ...] = (
    EventRow(
        "seat.changed", SeatChangedData,
        record(SeatChangedData, (member_id, _seat, integer(1), optional(_cause))),
        "A user has come on the mic of a room, or left it.", SeatChangedData("ann", 1, 1_790_000_000_000, None),
    ),
)  # fmt: skip

VIEWS: tuple[ActivityViewRow, ...] = (
    ActivityViewRow(
        "mic", MicSeats, mic_seats, MicSeats(3, (MicSeat(1, "ann", "Ann"),), 4),
        MicState, mic_state, MicState("bob", MicStatus.QUEUED, 2, expires_at_ms=1_790_000_600_000),
    ),
)  # fmt: skip
