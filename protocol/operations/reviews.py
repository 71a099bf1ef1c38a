"""Operations on the review queue of rooms: messages that wait for a moderator. Their records and rows."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

from ..activities.reviews import (
    MAX_CONTEXT,
    MAX_FINDINGS,
    MAX_REPORTERS,
    ContextMessage,
    HeldBy,
    ReviewFinding,
    ReviewState,
    UserReport,
    context_message,
    finding,
    user_report,
)
from ..codes import ErrorCode
from ..fields import (
    any_value,
    array_of,
    boolean,
    display_name,
    integer,
    name_of,
    optional,
    record,
    room_name,
    text,
    user_id,
    user_id_or_empty,
)
from .rows import LOGGED_IN, NEEDS_LEDGER, STAFF, OperationRow, RateLimit, Scope, cursor, page_of, page_size, row

__all__ = [
    "MAX_CLAIMED",
    "MAX_CLAIM_MS",
    "MAX_DECIDED",
    "ROWS",
    "ClaimReview",
    "ClaimedItems",
    "DecideReview",
    "DecidedItem",
    "DecidedItems",
    "ListReview",
    "ReportMessage",
    "ReportedMessage",
    "ReviewItem",
    "ReviewPage",
    "Verdict",
]

MAX_CLAIMED = 100
"""Messages of one claim."""
MAX_CLAIM_MS = 600_000
MAX_DECIDED = 1000
"""Messages that one call names."""


class Verdict(IntEnum):
    """What a reviewer decides."""

    APPROVE = 0
    """It is shown."""
    REJECT = 1
    """It is never shown."""
    BAN = 2
    """It is rejected with all others of its author in the queue, and the author is banned from the room."""


class ListReview(NamedTuple):
    """Ask for the messages of a queue, oldest first. ``room``: null = of all rooms, for backends; ``state``: null =
    those that are not decided."""

    room: str | None = None
    state: ReviewState | None = None
    limit: int = 100
    cursor: str | None = None


class ReviewItem(NamedTuple):
    """A message of the queue. ``id``: its number in its room, in the order in which they were held; ``reason`` and
    ``findings``: why it is held; ``at_ms``: since when; ``due_at_ms``: when it is decided without a reviewer, null =
    never; ``claimed_by``: who has it until ``claimed_until_ms``, under the number ``fence``; ``decided_by``: who
    decided, empty = its deadline or the end of the room; ``decision``: the reason that was given. A message that users
    have reported is shown: ``offset``: of its event, null = it is a danmaku; ``reports``: of users; ``context``: what
    was shown around it."""

    id: int
    room: str
    state: ReviewState
    held_by: HeldBy
    user: str
    name: str
    type: int
    payload: Any
    reason: str
    findings: tuple[ReviewFinding, ...]
    at_ms: int
    due_at_ms: int | None
    claimed_by: str = ""
    claimed_until_ms: int | None = None
    fence: int = 0
    decided_by: str = ""
    decision: str = ""
    decided_at_ms: int | None = None
    offset: int | None = None
    reports: tuple[UserReport, ...] = ()
    context: tuple[ContextMessage, ...] = ()


class ReviewPage(NamedTuple):
    """Messages of the queue."""

    items: tuple[ReviewItem, ...]
    next: str | None


class ClaimReview(NamedTuple):
    """Take messages of the queue for a while, so that no other reviewer decides them. ``items``: their ids, empty = the
    ``limit`` oldest ones that no reviewer has."""

    room: str
    items: tuple[int, ...] = ()
    ttl_ms: int = 60_000
    limit: int = 20


class ClaimedItems(NamedTuple):
    """What the caller has until ``until_ms``. Messages that another reviewer has, or that are decided, are left out.
    ``fence``: number of this claim, larger than all before; 0 = nothing is claimed."""

    fence: int
    until_ms: int
    items: tuple[ReviewItem, ...]


class DecideReview(NamedTuple):
    """Decide messages of the queue: ``items``, or all of ``user`` that wait. ``reason``: the author gets it with a
    refusal; ``fence``: of the claim under which the caller has them, null = what the caller or no reviewer has;
    ``ban_s``: how long a BAN lasts. A reported message stays where it is approved; where it is rejected, its event is
    deleted."""

    room: str
    items: tuple[int, ...] = ()
    verdict: Verdict = Verdict.REJECT
    reason: str = ""
    user: str | None = None
    fence: int | None = None
    ban_s: int = 3600


class ReportMessage(NamedTuple):
    """Report a message that is shown: the event at ``offset``, or the last danmaku of ``user`` with this ``text``."""

    room: str
    reason: str = ""
    offset: int | None = None
    user: str | None = None
    text: str | None = None


class ReportedMessage(NamedTuple):
    """The message is in the queue. ``repeated``: the caller had reported it before."""

    repeated: bool


class DecidedItem(NamedTuple):
    """What became of one message. ``code``: why it was not decided: STALE, where another reviewer has it or it was
    decided otherwise, or UNKNOWN_ACTIVITY; ``user``: its author, "" = not known."""

    id: int
    state: ReviewState | None = None
    code: int | None = None
    user: str = ""


class DecidedItems(NamedTuple):
    """What became of each message; ``decided``: how many this call has decided."""

    items: tuple[DecidedItem, ...]
    decided: int


_count = integer(0)
_id = integer(1)
_ids = array_of(_id, MAX_DECIDED)
review_item = record(
    ReviewItem,
    (
        _id, room_name, name_of(ReviewState), name_of(HeldBy), user_id_or_empty, display_name, integer(0, 255),
        any_value, text(0, 256), array_of(finding, MAX_FINDINGS), _count, optional(_count), text(0, 64),
        optional(_count), _count, text(0, 64), text(0, 256), optional(_count), optional(_id),
        array_of(user_report, MAX_REPORTERS), array_of(context_message, MAX_CONTEXT),
    ),
)  # fmt: skip
_decided = record(DecidedItem, (_id, optional(name_of(ReviewState)), optional(_count), user_id_or_empty))
_ERRORS = (*NEEDS_LEDGER, ErrorCode.UNKNOWN_ROOM)
_CHANGES = (*_ERRORS, ErrorCode.ROOM_ENDED)
_AT = 1_790_000_000_000
_ITEM = ReviewItem(
    17, "live-1", ReviewState.WAITING, HeldBy.PLATFORM, "bob", "Bob", 1, ("加我微信", None), "advertising", (), _AT,
    _AT + 600_000,
)  # fmt: skip
_CLAIMED = _ITEM._replace(state=ReviewState.CLAIMED, claimed_by="mod", claimed_until_ms=_AT + 60_000, fence=3)

ROWS: tuple[OperationRow, ...] = (
    row(
        530, "moderation.queue", ListReview,
        (optional(room_name), optional(name_of(ReviewState)), page_size, cursor), ReviewPage,
        record(ReviewPage, page_of(review_item)), "Return messages that wait for a reviewer, oldest first.",
        scope=Scope.MODERATION_READ, roles=STAFF, changes=False, errors=_ERRORS,
        example=(ListReview("live-1"), ReviewPage((_ITEM,), None)),
    ),
    row(
        531, "moderation.claim", ClaimReview,
        (room_name, array_of(_id, MAX_CLAIMED), integer(1000, MAX_CLAIM_MS), integer(1, MAX_CLAIMED)), ClaimedItems,
        record(ClaimedItems, (_count, _count, array_of(review_item, MAX_CLAIMED))),
        "Take messages of the queue for a while: one reviewer at a time.",
        scope=Scope.MODERATION_WRITE, roles=STAFF, durable=True, errors=_CHANGES,
        example=(ClaimReview("live-1", (17,)), ClaimedItems(3, _AT + 60_000, (_CLAIMED,))),
    ),
    row(
        532, "moderation.decide", DecideReview,
        (room_name, _ids, name_of(Verdict), text(0, 256), optional(user_id), optional(_id), integer(1, 31_536_000)),
        DecidedItems,
        record(
            DecidedItems,
            (array_of(_decided, MAX_DECIDED), _count),
        ),
        "Approve or reject messages of the queue, or ban their authors.",
        scope=Scope.MODERATION_WRITE, roles=STAFF, durable=True, rate=RateLimit(20, 100), errors=_CHANGES,
        example=(
            DecideReview("live-1", (17,), Verdict.REJECT, "advertising"),
            DecidedItems((DecidedItem(17, ReviewState.REJECTED, None, "bob"),), 1),
        ),
    ),
    row(
        533, "moderation.report", ReportMessage,
        (room_name, text(0, 256), optional(_id), optional(user_id), optional(text(1, 1024, lines=True))),
        ReportedMessage, record(ReportedMessage, (boolean,)), "Report a message of others to the reviewers.",
        scope=None, roles=LOGGED_IN, joined=True, durable=True, rate=RateLimit(0.2, 5),
        errors=(*_CHANGES, ErrorCode.RATE_LIMITED),
        example=(ReportMessage("live-1", "advertising", user="bob", text="加我微信"), ReportedMessage(False)),
    ),
)  # fmt: skip
