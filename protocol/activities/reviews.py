"""The review queue of a room: messages that wait for a moderator, and messages that users have reported."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

from ..fields import (
    any_value,
    array_of,
    boolean,
    display_name,
    integer,
    member_id,
    name_of,
    optional,
    record,
    text,
    user_id_or_empty,
)
from .rows import ActivityEventRow, EventRow, Via

__all__ = [
    "MAX_CONTEXT",
    "MAX_FINDINGS",
    "MAX_REPORTERS",
    "REPORTS",
    "ROWS",
    "AtDeadline",
    "ContextMessage",
    "HeldBy",
    "MessageDecidedData",
    "MessageHeldData",
    "MessageReportedData",
    "OwnDecision",
    "ReviewFinding",
    "ReviewQueueChanged",
    "ReviewState",
    "UserReport",
    "context_message",
    "finding",
    "user_report",
]

MAX_FINDINGS = 16
"""Findings of one message that are kept."""
MAX_REPORTERS = 100
"""Users who report one message."""
MAX_CONTEXT = 32
"""Messages around a reported one."""


class HeldBy(IntEnum):
    """Why a message is in the queue."""

    PLATFORM = 0
    """The platform has answered a question about it with ``hold``."""
    WORDS = 1
    """The word filter has found something in it."""
    ROOM = 2
    """The room holds every message of those who are not staff (``pre_review``)."""
    REPORT = 3
    """Users have reported it: it is shown."""


class ReviewState(IntEnum):
    """Step of a message on its way through the queue."""

    WAITING = 0
    CLAIMED = 1
    """A reviewer has it; when the claim ends it waits again."""
    APPROVED = 2
    """It is shown when all that were held before it are decided. A reported message stays."""
    SHOWN = 3
    REJECTED = 4


class AtDeadline(IntEnum):
    """What becomes of a message that no reviewer has decided in time."""

    REJECT = 0
    APPROVE = 1
    KEEP = 2
    """It waits on."""


class ReviewFinding(NamedTuple):
    """What a filter has found, at ``start`` to ``end`` (exclusive) of the characters of the text. ``word``: the word or
    the kind of what was found; ``list_name`` and ``category``: of the list that has it."""

    start: int
    end: int
    word: str
    list_name: str = ""
    category: str = ""


class UserReport(NamedTuple):
    """Who has reported a message, when and why."""

    user: str
    reason: str
    at_ms: int


class ContextMessage(NamedTuple):
    """A message that was shown around a reported one, or is that one. ``text``: its beginning."""

    at_ms: int
    user: str
    name: str
    type: int
    text: str


class ReviewQueueChanged(NamedTuple):
    """How many messages wait for a reviewer. ``reported``: of them those that users have reported; ``approved``: those
    that are approved and wait for earlier ones; ``oldest_at_ms``: since when the first one waits; ``last_id``: the
    newest of all so far."""

    waiting: int
    reported: int
    approved: int
    oldest_at_ms: int | None
    last_id: int


class MessageHeldData(NamedTuple):
    """A message waits for a reviewer. ``id``: in the queue of its room; ``type``: the number of its type; ``reason``:
    of the platform; ``due_at_ms``: when it is decided without a reviewer, null = never."""

    id: int
    user: str
    name: str
    type: int
    payload: Any
    held_by: HeldBy
    reason: str = ""
    findings: tuple[ReviewFinding, ...] = ()
    due_at_ms: int | None = None


class MessageReportedData(NamedTuple):
    """A user has reported a message that is shown. ``id``: in the queue; ``user``, ``name``: its author; ``offset``: of
    its event, null = a danmaku; ``reports``: users who have reported it so far."""

    id: int
    user: str
    name: str
    type: int
    payload: Any
    offset: int | None
    report: UserReport
    reports: int


class MessageDecidedData(NamedTuple):
    """A message of the queue is decided. ``state``: APPROVED or REJECTED; ``by``: who did, empty = its deadline has
    passed or the room has ended."""

    id: int
    user: str
    state: ReviewState
    by: str
    reason: str


class OwnDecision(NamedTuple):
    """What became of a message of one's own that was held. ``id``: of the message in the queue; ``client_msg_id``: its
    author's name for it, empty = it had none; ``reason``: the reviewer's."""

    id: int
    type: int
    client_msg_id: str
    is_shown: bool
    reason: str


_count = integer(0)
_id = integer(1)
_type = integer(0, 255)
_at = integer(0)
finding = record(ReviewFinding, (_count, _count, text(0, 256), text(0, 64), text(0, 64)))
"""Rule of a `ReviewFinding`."""

user_report = record(UserReport, (member_id, text(0, 256), _at))
"""Rule of a `UserReport`."""
context_message = record(ContextMessage, (_at, user_id_or_empty, display_name, _type, text(0, 256, lines=True)))
"""Rule of a `ContextMessage`."""

ROWS: tuple[ActivityEventRow, ...] = (
    ActivityEventRow(
        "reviews.changed", Via.HOST_COUNTER, ReviewQueueChanged,
        record(ReviewQueueChanged, (_count, _count, _count, optional(_at), _count)),
        "The queue of messages for a reviewer has changed.", ReviewQueueChanged(3, 1, 0, 1_790_000_000_000, 17),
    ),
    ActivityEventRow(
        "reviews.decided", Via.OWN_COUNTER, OwnDecision,
        record(OwnDecision, (_id, _type, text(0, 64), boolean, text(0, 256))),
        "A message of the user that was held is shown, or rejected. Every link of the user in the room gets it.",
        OwnDecision(17, 1, "m-17", False, "advertising"),
    ),
)  # fmt: skip
REPORTS: tuple[EventRow, ...] = (
    EventRow(
        "message.held", MessageHeldData,
        record(
            MessageHeldData,
            (
                _id, member_id, display_name, _type, any_value, name_of(HeldBy), text(0, 256),
                array_of(finding, MAX_FINDINGS), optional(_at),
            ),
        ),
        "A message waits for a reviewer.",
        MessageHeldData(17, "bob", "Bob", 1, ["加我微信"], HeldBy.PLATFORM, "advertising", (), 1_790_000_600_000),
    ),
    EventRow(
        "message.reported", MessageReportedData,
        record(
            MessageReportedData,
            (
                _id, user_id_or_empty, display_name, _type, any_value, optional(_id), user_report, integer(1),
            ),
        ),
        "A user has reported a message.",
        MessageReportedData(18, "bob", "Bob", 1, ["加我微信"], None, UserReport("ann", "rude", 1_790_000_000_000), 1),
    ),
    EventRow(
        "message.decided", MessageDecidedData,
        record(MessageDecidedData, (_id, user_id_or_empty, name_of(ReviewState), text(0, 64), text(0, 256))),
        "A message of the queue is approved or rejected.",
        MessageDecidedData(17, "bob", ReviewState.REJECTED, "mod", "advertising"),
    ),
)  # fmt: skip
