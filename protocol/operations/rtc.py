"""Operations on RTC calls of two users: their records and rows. Media is not the broker's."""

from __future__ import annotations

from typing import NamedTuple

from ..activities.conversations import conversation_id
from ..codes import ErrorCode
from ..fields import boolean, integer, optional, record, text, user_id_or_empty
from .rows import LOGGED_IN, NEEDS_LEDGER, OperationRow, RateLimit, row

__all__ = [
    "ROWS", "AcceptRtc", "AcceptedRtc", "EndedRtc", "GetRtc", "HangUpRtc", "OwnRtc", "RejectRtc", "RingRtc",
    "RingingRtc", "RtcView",
]  # fmt: skip


class RingRtc(NamedTuple):
    """Call the other one of a conversation of two, or, as its customer, the service desk: the call rings at who holds
    the conversation, and follows it. BUSY: one of the two has another call."""

    conversation: str
    video: bool = False


class RingingRtc(NamedTuple):
    """The call rings at every device of the other one, for 45 seconds at most."""

    call: str
    ends_in_ms: int


class AcceptRtc(NamedTuple):
    """Answer a call that rings. OUT_OF_STATE: another device of the user was quicker."""

    call: str


class AcceptedRtc(NamedTuple):
    """The call is this device's. ``token``: of the two, for the RTC service of the platform."""

    token: str


class RejectRtc(NamedTuple):
    """Refuse a call that rings, for all devices of the user."""

    call: str


class HangUpRtc(NamedTuple):
    """End a call, also one that still rings."""

    call: str


class EndedRtc(NamedTuple):
    """The call is over."""

    call: str


class GetRtc(NamedTuple):
    """Ask for the caller's call: a device that has just connected may find one that rings."""


class RtcView(NamedTuple):
    """A call. ``user``: the other one, empty = it waits for an agent; ``incoming``: it has called; ``answered``:
    otherwise it rings."""

    call: str
    conversation: str
    user: str
    incoming: bool
    answered: bool


class OwnRtc(NamedTuple):
    """The caller's call, null = it has none."""

    call: RtcView | None


_id = text(1, 64)
_KNOWN = (ErrorCode.UNKNOWN_CALL, *NEEDS_LEDGER)
_ended = record(EndedRtc, (_id,))
_RATE = RateLimit(1, 10)

ROWS: tuple[OperationRow, ...] = (
    row(
        645, "rtc.ring", RingRtc, (conversation_id, boolean), RingingRtc, record(RingingRtc, (_id, integer(0))),
        "Call the other one of a conversation.",
        scope=None, roles=LOGGED_IN, rate=_RATE,
        errors=(ErrorCode.BUSY, ErrorCode.MUTED, ErrorCode.UNKNOWN_CONVERSATION, *NEEDS_LEDGER),
        example=(RingRtc("~3b9d2c61"), RingingRtc("c-1", 45_000)),
    ),
    row(
        646, "rtc.accept", AcceptRtc, (_id,), AcceptedRtc, record(AcceptedRtc, (text(1, 64),)), "Answer a call.",
        scope=None, roles=LOGGED_IN, rate=_RATE, errors=(ErrorCode.OUT_OF_STATE, *_KNOWN),
        example=(AcceptRtc("c-1"), AcceptedRtc("5f0c6a")),
    ),
    row(
        647, "rtc.reject", RejectRtc, (_id,), EndedRtc, _ended, "Refuse a call.",
        scope=None, roles=LOGGED_IN, rate=_RATE, errors=(ErrorCode.OUT_OF_STATE, *_KNOWN),
        example=(RejectRtc("c-1"), EndedRtc("c-1")),
    ),
    row(
        648, "rtc.hang_up", HangUpRtc, (_id,), EndedRtc, _ended, "End a call.",
        scope=None, roles=LOGGED_IN, rate=_RATE, errors=_KNOWN, example=(HangUpRtc("c-1"), EndedRtc("c-1")),
    ),
    row(
        649, "rtc.mine", GetRtc, (), OwnRtc,
        record(OwnRtc, (optional(record(RtcView, (_id, conversation_id, user_id_or_empty, boolean, boolean))),)),
        "Return the caller's call.",
        scope=None, roles=LOGGED_IN, changes=False, errors=NEEDS_LEDGER,
        example=(GetRtc(), OwnRtc(RtcView("c-1", "~3b9d2c61", "ann", True, False))),
    ),
)  # fmt: skip
