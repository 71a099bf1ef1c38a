"""Operations on mic-link: their records and rows."""

from __future__ import annotations

from typing import NamedTuple

from ..activities.eligibility import Eligibility, eligibility
from ..activities.mic import MAX_SEATS, MicSeat, MicSeats, MicState, MicStatus, MicWaiting, mic_seats, mic_state
from ..codes import ErrorCode
from ..fields import array_of, boolean, integer, optional, record, room_name, text, user_id
from .rows import DIRECTION, LOGGED_IN, NEEDS_LEDGER, OperationRow, RateLimit, Scope, always, row

__all__ = [
    "MAX_TOKEN_CHARS",
    "ROWS",
    "AcceptMic",
    "CancelMic",
    "GetMic",
    "GoOnMic",
    "InviteToMic",
    "LeaveMic",
    "MicAccess",
    "MuteMic",
    "RejectFromMic",
    "RemoveFromMic",
    "RequestMic",
    "SetMicSeats",
]

MAX_TOKEN_CHARS = 2048


class SetMicSeats(NamedTuple):
    """Set the number of seats beside the host; 0 closes the mic-link.

    ``remove``: users that are to leave, where more seats are taken or held than are left; ``eligibility``: who may ask
    for a seat, null = as before.
    """

    room: str
    seats: int
    remove: tuple[str, ...] = ()
    eligibility: Eligibility | None = None


class GetMic(NamedTuple):
    """Ask for the seats; staff gets the first of the queue too."""

    room: str


class RequestMic(NamedTuple):
    """Ask for a seat: the caller is queued."""

    room: str


class CancelMic(NamedTuple):
    """Take the own request or invitation back. ``fence``: of the invitation, null = the caller is only queued."""

    room: str
    fence: int | None = None


class InviteToMic(NamedTuple):
    """Offer a seat to a user. ``seat``: null = the first free one; ``rtc_token``: opaque, for this user alone."""

    room: str
    user: str
    seat: int | None = None
    rtc_token: str | None = None


class RejectFromMic(NamedTuple):
    """End the request or the invitation of a user, or its speaking."""

    room: str
    user: str


class AcceptMic(NamedTuple):
    """Accept an invitation. ``fence``: of it."""

    room: str
    fence: int


class GoOnMic(NamedTuple):
    """The caller is connected to the media; or it is back after it had lost its connection to the room."""

    room: str
    fence: int


class LeaveMic(NamedTuple):
    """Leave the seat."""

    room: str
    fence: int


class RemoveFromMic(NamedTuple):
    """Remove a user from the mic."""

    room: str
    user: str


class MuteMic(NamedTuple):
    """Switch the sound of a user on the mic off or on. ``user``: null = the caller's own, with its ``fence``."""

    room: str
    is_muted: bool
    user: str | None = None
    fence: int | None = None


class MicAccess(NamedTuple):
    """An invitation that is accepted. ``rtc_token``: opaque, for this user alone; null = ask the application for it."""

    state: MicState
    rtc_token: str | None = None


_fence = integer(1)
_seat = integer(1, MAX_SEATS)
_token = optional(text(1, MAX_TOKEN_CHARS))
_access = record(MicAccess, (mic_state, _token))
_AGAIN = (ErrorCode.ROOM_ENDED, ErrorCode.UNKNOWN_ACTIVITY, *NEEDS_LEDGER)
_HOLDER = (ErrorCode.STALE, ErrorCode.NOT_INVITED, *_AGAIN)
_RATE = RateLimit(5, 10)
_A_FENCE, _AT_MS = 1_790_000_000_000, 1_790_000_015_000
_QUEUED = MicState("ann", MicStatus.QUEUED, 1, expires_at_ms=1_790_000_600_000)
_INVITED = MicState("ann", MicStatus.INVITED, 0, 1, _A_FENCE, _AT_MS)
_ACCEPTED = MicState("ann", MicStatus.ACCEPTED, 0, 1, _A_FENCE, _AT_MS)
_ON_MIC = MicState("ann", MicStatus.ON_MIC, 0, 1, _A_FENCE)
_NONE = MicState("ann", MicStatus.NONE)

ROWS: tuple[OperationRow, ...] = (
    row(
        340, "mic.set_seats", SetMicSeats,
        (room_name, integer(0, MAX_SEATS), array_of(user_id, MAX_SEATS), optional(eligibility)),
        MicSeats, mic_seats, "Set the number of seats beside the host.",
        scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True, rate=_RATE,
        errors=(ErrorCode.BELOW_TAKEN, ErrorCode.ROOM_ENDED, ErrorCode.OUT_OF_STATE, *NEEDS_LEDGER),
        example=(SetMicSeats("live-1", 3), MicSeats(3, (), 0)),
    ),
    row(
        341, "mic.get", GetMic, (room_name,), MicSeats, mic_seats, "Get the seats, and for staff the queue.",
        scope=Scope.COMMERCE_READ, roles=LOGGED_IN, joined=True, changes=False,
        errors=(ErrorCode.UNKNOWN_ROOM, ErrorCode.UNKNOWN_ACTIVITY, ErrorCode.NOT_KEPT),
        example=(
            GetMic("live-1"), MicSeats(3, (MicSeat(1, "ann", "Ann"),), 1, (MicWaiting(7, "bob", "Bob"),)),
        ),
    ),
    row(
        342, "mic.request", RequestMic, (room_name,), MicState, mic_state, "Ask for a seat.",
        speaks=always, scope=None, roles=LOGGED_IN, joined=True, durable=True, rate=RateLimit(1, 5),
        errors=(ErrorCode.CLOSED, ErrorCode.NOT_ELIGIBLE, ErrorCode.ROOM_PAUSED, *_AGAIN),
        example=(RequestMic("live-1"), _QUEUED),
    ),
    row(
        343, "mic.cancel", CancelMic, (room_name, optional(_fence)), MicState, mic_state,
        "Take the own request or invitation back.",
        scope=None, roles=LOGGED_IN, durable=True, rate=_RATE, errors=_HOLDER,
        example=(CancelMic("live-1"), _NONE),
    ),
    row(
        344, "mic.invite", InviteToMic, (room_name, user_id, optional(_seat), _token), MicState, mic_state,
        "Offer a seat to a user.",
        scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True, rate=_RATE, errors=(ErrorCode.SEAT_TAKEN, *_AGAIN),
        example=(InviteToMic("live-1", "ann", rtc_token="token-of-ann"), _INVITED),
    ),
    row(
        345, "mic.reject", RejectFromMic, (room_name, user_id), MicState, mic_state,
        "End the request or invitation of a user.",
        scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True, rate=_RATE, errors=_AGAIN,
        example=(RejectFromMic("live-1", "ann"), _NONE),
    ),
    row(
        346, "mic.accept", AcceptMic, (room_name, _fence), MicAccess, _access, "Accept an invitation.",
        speaks=always, scope=None, roles=LOGGED_IN, joined=True, durable=True, rate=_RATE, errors=_HOLDER,
        example=(AcceptMic("live-1", _A_FENCE), MicAccess(_ACCEPTED, "token-of-ann")),
    ),
    row(
        347, "mic.on_mic", GoOnMic, (room_name, _fence), MicState, mic_state,
        "Say that the caller speaks, or is back after it had lost its connection.",
        speaks=always, scope=None, roles=LOGGED_IN, joined=True, durable=True, rate=_RATE, errors=_HOLDER,
        example=(GoOnMic("live-1", _A_FENCE), _ON_MIC),
    ),
    row(
        348, "mic.leave", LeaveMic, (room_name, _fence), MicState, mic_state, "Leave the seat.",
        scope=None, roles=LOGGED_IN, durable=True, rate=_RATE, errors=_HOLDER,
        example=(LeaveMic("live-1", _A_FENCE), _NONE),
    ),
    row(
        349, "mic.remove", RemoveFromMic, (room_name, user_id), MicState, mic_state, "Remove a user from the mic.",
        scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True, rate=_RATE, errors=_AGAIN,
        example=(RemoveFromMic("live-1", "ann"), _NONE),
    ),
    row(
        350, "mic.mute", MuteMic, (room_name, boolean, optional(user_id), optional(_fence)), MicState, mic_state,
        "Switch the sound of a user on the mic off or on.",
        speaks=lambda request: request.user is None and not request.is_muted,
        scope=Scope.COMMERCE_WRITE, roles=LOGGED_IN, durable=True, rate=_RATE, errors=_HOLDER,
        example=(MuteMic("live-1", True, "ann"), _ON_MIC._replace(is_muted=True)),
    ),
)  # fmt: skip
