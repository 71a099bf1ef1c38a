"""What users learn of the service desk: records and rows of the events, and of the platform's webhooks."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..fields import array_of, boolean, integer, member_id, name_of, optional, record, text, user_id_or_empty
from .conversations import MAX_MESSAGE_BYTES, conversation_id
from .rows import ActivityEventRow, EventRow, Via

__all__ = [
    "MAX_RATING", "MAX_TAGS", "REPORTS", "ROWS", "AgentState", "DeskAsked", "DeskAskedData", "DeskInterrupted",
    "DeskState", "DeskStreaming", "DeskView", "SlaTimer", "desk_view", "subject_id", "tag_list", "topic_name",
]  # fmt: skip

MAX_TAGS = 16
MAX_RATING = 5


class DeskState(IntEnum):
    """Where a conversation of the desk is. CLOSED: over for good, and kept no more."""

    BOT = 1
    QUEUED = 2
    ASSIGNED = 3
    RESOLVED = 4
    CLOSED = 5


class AgentState(IntEnum):
    """What an agent wants. Only who is ONLINE, and has a link, gets conversations."""

    OFFLINE = 0
    AWAY = 1
    ONLINE = 2
    BUSY = 3


class SlaTimer(IntEnum):
    """A time that a conversation has exceeded."""

    FIRST_RESPONSE = 1
    RESOLUTION = 2


class DeskView(NamedTuple):
    """A conversation of the desk. ``agent``: the bot or human who holds it, empty = none; ``epoch``: rises with each
    change of the holder, who gives it back with an answer; ``revision``: rises with each change: of two views the
    higher one counts.

    ``order``, ``product``, ``live_room``: what it is about, null = not given; ``verified``: the platform has said so.
    ``asked_at_ms``: the oldest question without an answer, 0 = the customer is awaited; ``first_answer_ms``: office
    hours until a human has answered first, null = none has. ``rating``: 1 to 5, 0 = none. ``tags`` and ``alarms``,
    times that were exceeded, are empty for the customer.
    """

    id: str
    topic: str
    customer: str
    name: str
    state: DeskState
    agent: str
    epoch: int
    revision: int
    order: str | None
    product: str | None
    live_room: str | None
    verified: bool
    started_at_ms: int
    asked_at_ms: int
    first_answer_ms: int | None
    resolved_at_ms: int
    transfers: int
    rating: int
    tags: tuple[str, ...]
    alarms: tuple[SlaTimer, ...]


class DeskAsked(NamedTuple):
    """The customer has written, and a bot holds the conversation. ``epoch``: to be given with the answer; ``offset``:
    of the message."""

    customer: str
    name: str
    topic: str
    bot: str
    epoch: int
    offset: int
    text: str


class DeskStreaming(NamedTuple):
    """A part of an answer that is no message yet. ``seq``: its number, from 1; ``ended``: there are no more, and what
    was said becomes a message; ``interrupted``: before its end."""

    stream: str
    seq: int
    text: str
    ended: bool
    interrupted: bool


class DeskInterrupted(NamedTuple):
    """An answer under way was interrupted: nothing more of it is taken."""

    stream: str


class DeskAskedData(NamedTuple):
    """A customer has written, and a bot holds the conversation: see the event ``desk.asked``."""

    conversation: str
    customer: str
    name: str
    topic: str
    bot: str
    epoch: int
    offset: int
    text: str


_count = integer(0)
_stream = text(1, 64)
subject_id = text(1, 64)
"""Rule of an id of the platform: of an order, a product, a room."""
topic_name = text(1, 32)
"""Rule of the name of a topic."""
tag_list = array_of(text(1, 32), MAX_TAGS)
"""Rule of the tags of a conversation."""
desk_view = record(
    DeskView,
    (
        conversation_id, topic_name, member_id, text(0, 64), name_of(DeskState), user_id_or_empty, _count, _count,
        optional(subject_id), optional(subject_id), optional(subject_id), boolean, _count, _count, optional(_count),
        _count, _count, integer(0, MAX_RATING), tag_list, array_of(name_of(SlaTimer), len(SlaTimer)),
    ),
)  # fmt: skip
"""Rule of a conversation of the desk."""
_asked = (member_id, text(0, 64), topic_name, member_id, _count, _count, text(0, MAX_MESSAGE_BYTES, lines=True))
_AT_MS = 1_790_000_000_000
EXAMPLE = DeskView(
    "~desk-3b9d2c61f0a84e5d", "orders", "ann", "Ann", DeskState.ASSIGNED, "amy", 2, 3, "o-1", None, None, False, _AT_MS,
    _AT_MS, None, 0, 0, 0, (), (),
)  # fmt: skip

ROWS: tuple[ActivityEventRow, ...] = (
    ActivityEventRow(
        "desk.changed", Via.LIVE, DeskView, desk_view,
        "A conversation of the service desk has changed: for its customer, who held it, who holds it, and supervisors.",
        EXAMPLE,
    ),
    ActivityEventRow(
        "desk.asked", Via.LIVE, DeskAsked, record(DeskAsked, _asked),
        "A customer has written, for the links of the bot that holds the conversation.",
        DeskAsked("ann", "Ann", "orders", "helper", 1, 1, "Where is my parcel?"),
    ),
    ActivityEventRow(
        "desk.streaming", Via.LIVE, DeskStreaming,
        record(DeskStreaming, (_stream, _count, text(0, MAX_MESSAGE_BYTES, lines=True), boolean, boolean)),
        "A part of an answer, for the customer.", DeskStreaming("5f0c6a", 1, "It comes", False, False),
    ),
    ActivityEventRow(
        "desk.interrupted", Via.LIVE, DeskInterrupted, record(DeskInterrupted, (_stream,)),
        "An answer under way was interrupted, for who gives it.", DeskInterrupted("5f0c6a"),
    ),
)  # fmt: skip


def _report(name: str, summary: str) -> EventRow:
    return EventRow(name, DeskView, desk_view, summary, EXAMPLE, in_room=False)


REPORTS: tuple[EventRow, ...] = (
    _report("desk.opened", "A customer has opened a conversation of the service desk, or opened a resolved one again."),
    _report("desk.queued", "A conversation waits for an agent."),
    _report("desk.assigned", "An agent holds a conversation."),
    _report("desk.resolved", "A conversation is resolved."),
    _report("desk.rated", "A customer has rated a conversation."),
    _report("desk.alarm", "A conversation has exceeded a time of the desk."),
    _report("desk.closed", "A conversation is over for good, and is kept no more."),
    EventRow(
        "desk.asked", DeskAskedData, record(DeskAskedData, (conversation_id, *_asked)),
        "A customer has written, and a bot holds the conversation. Must be named: patterns with a * do not mean it.",
        DeskAskedData("~desk-3b9d2c61f0a84e5d", "ann", "Ann", "orders", "helper", 1, 1, "Where is my parcel?"),
        is_default=False, in_room=False,
    ),
)  # fmt: skip
