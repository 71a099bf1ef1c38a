"""Operations on must-deliver messages to users: their records and rows."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from ..activities.audiences import RoomAudience, room_audience
from ..codes import ErrorCode
from ..fields import any_value, array_of, boolean, integer, map_of, name_of, optional, record, scoped, text, user_id
from ..messages import MAX_EXPIRY_S, MAX_RECIPIENTS, MAX_TEMPLATE_FIELDS
from .rows import NEEDS_LEDGER, PLATFORM, KeyUse, OperationRow, RateLimit, Scope, cursor, page_of, page_size, row

__all__ = [
    "ROWS",
    "CancelDirects",
    "CancelledDirects",
    "DirectProgress",
    "DirectStateRequest",
    "DirectStateView",
    "DirectStatus",
    "DirectView",
    "DirectsPage",
    "ListDirects",
    "ProgressRequest",
    "SendManyDirects",
    "SendOneDirect",
    "SentDirect",
    "SentDirects",
    "SuppressedBy",
]


class DirectStatus(IntEnum):
    """State of a must-deliver message: not acknowledged yet, acknowledged by a link of its user, expired, or cancelled
    by the platform.
    """

    PENDING = 0
    ACKED = 1
    EXPIRED = 2
    CANCELLED = 3


class SuppressedBy(IntEnum):
    """Why a marketing message is not sent: the user wants none, has had as many as may be, or it is a quiet hour."""

    OPTED_OUT = 1
    FREQUENCY = 2
    QUIET_HOURS = 3


class SendOneDirect(NamedTuple):
    """Send one message to a user. ``type``: ANNOUNCEMENT or a custom type; ``expires_s``: as configured by default;
    ``marketing``: only where the user's preference, the caps on how often and the quiet hours allow for it. Types of
    the deployment's own may be marketing whatever is said here.
    """

    user: str
    type: int
    payload: Any
    expires_s: int | None = None
    marketing: bool = False


class SentDirect(NamedTuple):
    """A message that is durable. ``id``: its number in the user's inbox; ``repeated``: whether an earlier call with the
    same key sent it, so that nothing was done again.
    """

    id: int
    repeated: bool = False
    suppressed: bool = False
    """It is marketing and was not to be sent: ``id`` is 0."""
    why: SuppressedBy | None = None
    """Why it is suppressed."""


class SendManyDirects(NamedTuple):
    """Send one message to each of up to 1,024 users: a part of a batch.

    ``template``: a payload in whose strings ``{name}`` stands for a value; ``values``: by user and name; ``users``: in
    place of ``values``, where the template has no fields; ``audience``: in their place the users of a part of a room,
    1,024 a call, in the order of their ids; ``cursor``: the last answer's ``next``. A user gets one message of a batch.
    """

    batch: str
    type: int
    template: Any
    values: Mapping[str, Mapping[str, str]] | None = None
    users: tuple[str, ...] | None = None
    expires_s: int | None = None
    audience: RoomAudience | None = None
    cursor: str | None = None
    marketing: bool = False


class SentDirects(NamedTuple):
    """Users whose message is durable now, was before, and could not be written: send the same again for those.
    ``next``: cursor of the further users of an audience, null = there are none; ``suppressed``: users to whom no
    marketing was to be sent."""

    batch: str
    sent: int
    repeated: int
    failed: int
    next: str | None = None
    suppressed: int = 0


class ProgressRequest(NamedTuple):
    """Name a batch."""

    batch: str


class DirectProgress(NamedTuple):
    """Messages of a batch by their state."""

    batch: str
    pending: int
    acked: int
    expired: int
    cancelled: int = 0


class DirectStateRequest(NamedTuple):
    """Name a message by its user and number."""

    user: str
    id: int


class DirectStateView(NamedTuple):
    """State of a message; null = it is unknown, or not kept any more."""

    state: DirectStatus | None


class ListDirects(NamedTuple):
    """Ask for the messages of a user. ``state``: only these; ``payloads``: with what they say, fewer at a time."""

    user: str
    state: DirectStatus | None = None
    payloads: bool = False
    limit: int = 100
    cursor: str | None = None


class DirectView(NamedTuple):
    """One message to a user. ``batch``: null where it was sent alone; ``payload``: null where it was not asked for."""

    id: int
    type: int
    state: DirectStatus
    at_ms: int
    expires_at_ms: int
    batch: str | None = None
    payload: Any = None


class DirectsPage(NamedTuple):
    """Messages in the order of their numbers, as long as the broker keeps them. A page may have fewer than asked for,
    or none; ``next``: cursor of the following page, null = the end.
    """

    items: tuple[DirectView, ...]
    next: str | None


class CancelDirects(NamedTuple):
    """Name what is not to be delivered any more: a batch, or one message by its user and number."""

    batch: str | None = None
    user: str | None = None
    id: int | None = None


class CancelledDirects(NamedTuple):
    """Messages that were pending and are cancelled now. ``more``: the batch has further pending ones, call again."""

    cancelled: int
    more: bool = False


_count = integer(0)
_batch = scoped(text(1, 64))
_expires = optional(integer(1, MAX_EXPIRY_S))
_values = map_of(user_id, map_of(text(1, 32), text(0, 4096, lines=True), MAX_TEMPLATE_FIELDS), MAX_RECIPIENTS)
_sent = record(SentDirect, (_count, boolean, boolean, optional(name_of(SuppressedBy))))
_sent_many = record(SentDirects, (_batch, _count, _count, _count, cursor, _count))
_progress = record(DirectProgress, (_batch, *(_count,) * 4))
_state = record(DirectStateView, (optional(name_of(DirectStatus)),))
_status = name_of(DirectStatus)
_listed = record(DirectView, (_count, integer(1, 255), _status, _count, _count, optional(_batch), any_value))
_page = record(DirectsPage, page_of(_listed))
_cancelled = record(CancelledDirects, (_count, boolean))
_REFUSED = (*NEEDS_LEDGER, ErrorCode.UNKNOWN_TYPE, ErrorCode.PAYLOAD_TOO_LARGE)

ROWS: tuple[OperationRow, ...] = (
    row(
        80, "directs.send", SendOneDirect, (user_id, integer(1, 255), any_value, _expires, boolean), SentDirect,
        _sent,
        "Send a user a message that must arrive.",
        scope=Scope.DIRECTS_WRITE, roles=PLATFORM, key=KeyUse.OPTIONAL, durable=True, rate=RateLimit(1000, 2000),
        errors=_REFUSED,
        example=(SendOneDirect("ann", 4, ("您的订单已发货",)), SentDirect(1)),
    ),
    row(
        81, "directs.send_many", SendManyDirects,
        (
            _batch, integer(1, 255), any_value, optional(_values), optional(array_of(user_id, MAX_RECIPIENTS)),
            _expires, optional(room_audience), cursor, boolean,
        ),
        SentDirects, _sent_many, "Send each of up to 1,024 users one message of a batch.",
        scope=Scope.DIRECTS_WRITE, roles=PLATFORM, durable=True, rate=RateLimit(500, 1000), at_once=4,
        errors=(*_REFUSED, ErrorCode.KEY_REUSED, ErrorCode.UNKNOWN_ROOM, ErrorCode.ROOM_NOT_GRANTED),
        example=(
            SendManyDirects("may", 4, ("您的优惠码 {code}",), {"ann": {"code": "C-1"}}),
            SentDirects("may", 1, 0, 0),
        ),
    ),
    row(
        82, "directs.progress", ProgressRequest, (_batch,), DirectProgress, _progress,
        "Count the messages of a batch by their state.",
        scope=Scope.DIRECTS_WRITE, roles=PLATFORM, rate=RateLimit(20, 50), changes=False, errors=NEEDS_LEDGER,
        example=(ProgressRequest("may"), DirectProgress("may", 1, 0, 0)),
    ),
    row(
        83, "directs.state", DirectStateRequest, (user_id, _count), DirectStateView, _state,
        "Return whether a message is pending, acknowledged, expired or cancelled.",
        scope=Scope.DIRECTS_WRITE, roles=PLATFORM, rate=RateLimit(50, 100), changes=False, errors=NEEDS_LEDGER,
        example=(DirectStateRequest("ann", 1), DirectStateView(DirectStatus.PENDING)),
    ),
    row(
        84, "directs.list", ListDirects, (user_id, optional(_status), boolean, page_size, cursor), DirectsPage, _page,
        "List the messages of a user.",
        scope=Scope.DIRECTS_WRITE, roles=PLATFORM, rate=RateLimit(20, 40), changes=False, errors=NEEDS_LEDGER,
        example=(
            ListDirects("ann", DirectStatus.PENDING),
            DirectsPage(
                (DirectView(1, 4, DirectStatus.PENDING, 1_790_000_000_000, 1_790_604_800_000, "may"),), None
            ),
        ),
    ),
    row(
        85, "directs.cancel", CancelDirects, (optional(_batch), optional(user_id), optional(integer(1))),
        CancelledDirects, _cancelled, "Cancel messages that are not acknowledged yet.",
        scope=Scope.DIRECTS_WRITE, roles=PLATFORM, durable=True, rate=RateLimit(20, 40), at_once=4,
        errors=NEEDS_LEDGER, example=(CancelDirects("may"), CancelledDirects(2)),
    ),
)  # fmt: skip
