"""Operations on mic-link: their records."""

from __future__ import annotations

from typing import NamedTuple

from ..activities.mic import MAX_SEATS, MicSeat, MicStatus, MicWaiting, mic_seat, mic_waiting
from ..fields import array_of, boolean, integer, member_id, name_of, optional, record, text

__all__ = ["MAX_LISTED", "MAX_TOKEN_CHARS", "MicAccess", "MicSeats", "MicState"]

MAX_LISTED = 100
"""Users of the queue in one answer."""
MAX_TOKEN_CHARS = 2048


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


class MicAccess(NamedTuple):
    """An invitation that is accepted. ``rtc_token``: opaque, for this user alone; null = ask the application for it."""

    state: MicState
    rtc_token: str | None = None


class MicSeats(NamedTuple):
    """All seats of a room. ``taken``: who is on the mic, by seat; ``waiting``: users in the queue; ``queue``: the first
    of them, for staff alone."""

    seats: int
    taken: tuple[MicSeat, ...]
    waiting: int
    queue: tuple[MicWaiting, ...] = ()


_count = integer(0)
_seat_or_none = integer(0, MAX_SEATS)
mic_state = record(MicState, (member_id, name_of(MicStatus), _count, _seat_or_none, _count, optional(_count), boolean))
_access = record(MicAccess, (mic_state, optional(text(1, MAX_TOKEN_CHARS))))
_seats = record(MicSeats, (_seat_or_none, array_of(mic_seat, MAX_SEATS), _count, array_of(mic_waiting, MAX_LISTED)))
