"""What the two users of an RTC call learn: records and rows of the events, and of the platform's webhooks."""

from __future__ import annotations

from typing import NamedTuple

from ..fields import boolean, integer, member_id, record, text, user_id_or_empty
from .rows import ActivityEventRow, EventRow, Via

__all__ = [
    "REPORTS", "ROWS", "RtcAccepted", "RtcAnswered", "RtcEnded", "RtcEndedData", "RtcRinging", "RtcRingingData",
    "RtcTransferred",
    "rtc_reason",
]  # fmt: skip


class RtcRinging(NamedTuple):
    """A user calls. ``video``: with a picture; ``ends_in_ms``: how long it rings still."""

    conversation: str
    user: str
    name: str
    video: bool
    ends_in_ms: int


class RtcAccepted(NamedTuple):
    """The call is answered. ``token``: of the two, for the RTC service of the platform."""

    token: str


class RtcAnswered(NamedTuple):
    """Empty: another device of the user has answered, and this one rings no more."""


class RtcTransferred(NamedTuple):
    """The call to the service desk rings anew, at ``user``; empty = it waits for an agent."""

    user: str


class RtcEnded(NamedTuple):
    """The call is over. ``reason``: rejected, timeout, hung_up, lost, busy, or transferred, to another agent;
    ``lasted_ms``: since it was answered, 0 = it was not."""

    reason: str
    lasted_ms: int


class RtcRingingData(NamedTuple):
    """A user calls another one: the platform may wake the devices of ``callee``."""

    call: str
    conversation: str
    caller: str
    callee: str
    video: bool


class RtcEndedData(NamedTuple):
    """A call is over."""

    call: str
    caller: str
    callee: str
    reason: str
    lasted_ms: int


_id = text(1, 64)
_count = integer(0)
rtc_reason = text(1, 16)
"""Rule of why a call is over."""

ROWS: tuple[ActivityEventRow, ...] = (
    ActivityEventRow(
        "rtc.ringing", Via.LIVE, RtcRinging, record(RtcRinging, (_id, member_id, text(0, 64), boolean, _count)),
        "A user calls.", RtcRinging("tea", "ann", "Ann", True, 45_000),
    ),
    ActivityEventRow(
        "rtc.accepted", Via.LIVE, RtcAccepted, record(RtcAccepted, (text(1, 64),)), "The call is answered.",
        RtcAccepted("5f0c6a"),
    ),
    ActivityEventRow(
        "rtc.answered", Via.LIVE, RtcAnswered, record(RtcAnswered, ()),
        "A device of the user has answered: the others ring no more.", RtcAnswered(),
    ),
    ActivityEventRow(
        "rtc.transferred", Via.LIVE, RtcTransferred, record(RtcTransferred, (user_id_or_empty,)),
        "A call to the service desk rings at another agent, for its caller.", RtcTransferred("ben"),
    ),
    ActivityEventRow(
        "rtc.ended", Via.LIVE, RtcEnded, record(RtcEnded, (rtc_reason, _count)), "The call is over.",
        RtcEnded("hung_up", 63_000),
    ),
)  # fmt: skip

REPORTS: tuple[EventRow, ...] = (
    EventRow(
        "rtc.ringing", RtcRingingData, record(RtcRingingData, (_id, _id, member_id, member_id, boolean)),
        "A user calls another one.", RtcRingingData("c-1", "tea", "ann", "bob", True), in_room=False,
    ),
    EventRow(
        "rtc.ended", RtcEndedData, record(RtcEndedData, (_id, member_id, user_id_or_empty, rtc_reason, _count)),
        "A call is over.", RtcEndedData("c-1", "ann", "bob", "hung_up", 63_000), in_room=False,
    ),
)  # fmt: skip
