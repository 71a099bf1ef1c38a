"""What users learn of their conversations: records and rows of the events, and of the platform's webhooks."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..codes import MediaKind
from ..fields import (
    any_value,
    array_of,
    boolean,
    characters,
    hex_digest,
    https_url,
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
    "MAX_MEDIA_BYTES", "MAX_MENTIONS", "MAX_MESSAGE_BYTES", "MAX_MESSAGE_CHARS", "REPORTS", "ROWS",
    "ConversationJoined", "ConversationLeft", "ConversationMessage", "ConversationSentData", "MediaReference",
    "MessageRecalled", "PositionChanged", "UserTyping", "conversation_id", "media_reference", "mentions",
    "message_text", "shown_message",
]  # fmt: skip

MAX_MESSAGE_CHARS = 500
"""Grapheme clusters of the text of one message."""
MAX_MESSAGE_BYTES = 2000
MAX_MENTIONS = 20
MAX_MEDIA_BYTES = 2**40


class MediaReference(NamedTuple):
    """A medium by reference: the broker stores none. ``kind``: image, audio, video or file; ``sha256``: of its bytes,
    in hexadecimal, for whoever loads it."""

    url: str
    kind: MediaKind
    size_bytes: int
    sha256: str


class ConversationMessage(NamedTuple):
    """A message of a conversation. ``offset``: its place, from 1; ``reply_to``: offset of the message that it answers,
    0 = none; ``card``: what the platform shows with it, null = nothing; ``recalled``: it has no content any more."""

    offset: int
    user: str
    name: str
    at_ms: int
    text: str = ""
    media: MediaReference | None = None
    reply_to: int = 0
    mentions: tuple[str, ...] = ()
    card: Any = None
    recalled: bool = False


class MessageRecalled(NamedTuple):
    """A message was recalled: its content is to be shown no more. ``by``: who has, empty = the platform."""

    offset: int
    by: str


class PositionChanged(NamedTuple):
    """A member has received and read the messages up to these offsets: another one, or the user itself, on another
    device. ``unread``: the user's own count, null for the position of another one."""

    user: str
    delivered: int
    read: int
    unread: int | None = None


class UserTyping(NamedTuple):
    """A member is typing; it holds for 5 seconds."""

    user: str


class ConversationJoined(NamedTuple):
    """The user is a member now, and sees the messages after ``joined``. ``other``: the other one of a conversation of
    two, empty = it is a group."""

    title: str
    other: str
    joined: int


class ConversationLeft(NamedTuple):
    """Empty: the user is no member any more."""


class ConversationSentData(NamedTuple):
    """A message was sent. ``text``: empty where it was recalled before this was taken."""

    conversation: str
    offset: int
    user: str
    text: str


conversation_id = text(1, 64)
"""Rule of the id of a conversation."""
message_text = characters(MAX_MESSAGE_CHARS, MAX_MESSAGE_BYTES, lines=True)
"""Rule of the text of a message."""
media_reference = record(MediaReference, (https_url, name_of(MediaKind), integer(0, MAX_MEDIA_BYTES), hex_digest))
"""Rule of a reference to a medium."""
mentions = array_of(member_id, MAX_MENTIONS)
"""Rule of the users that a message mentions."""
_count = integer(0)
_offset = integer(1)
shown_message = record(
    ConversationMessage,
    (
        _offset, user_id_or_empty, text(0, 64), _count, text(0, MAX_MESSAGE_BYTES, lines=True),
        optional(media_reference), _count, mentions, any_value, boolean,
    ),
)  # fmt: skip
"""Rule of a message as members get it."""
_AT_MS = 1_790_000_000_000

ROWS: tuple[ActivityEventRow, ...] = (
    ActivityEventRow(
        "conversations.message", Via.DIRECT, ConversationMessage, shown_message,
        "A message of a conversation. With `direct_id` 0 to the user's own other devices, and in groups above 200 "
        "members.",
        ConversationMessage(1, "ann", "Ann", _AT_MS, "hello"),
    ),
    ActivityEventRow(
        "conversations.recalled", Via.DIRECT, MessageRecalled, record(MessageRecalled, (_offset, user_id_or_empty)),
        "A message was recalled.", MessageRecalled(1, "ann"),
    ),
    ActivityEventRow(
        "conversations.joined", Via.DIRECT, ConversationJoined,
        record(ConversationJoined, (text(0, 64), user_id_or_empty, _count)),
        "The user is a member of a conversation.", ConversationJoined("Tea", "", 0),
    ),
    ActivityEventRow(
        "conversations.left", Via.DIRECT, ConversationLeft, record(ConversationLeft, ()),
        "The user is no member of a conversation any more.", ConversationLeft(),
    ),
    ActivityEventRow(
        "conversations.position", Via.LIVE, PositionChanged,
        record(PositionChanged, (member_id, _count, _count, optional(_count))),
        "A member has received and read messages.", PositionChanged("bob", 3, 2),
    ),
    ActivityEventRow(
        "conversations.typing", Via.LIVE, UserTyping, record(UserTyping, (member_id,)), "A member is typing.",
        UserTyping("bob"),
    ),
)  # fmt: skip

REPORTS: tuple[EventRow, ...] = (
    EventRow(
        "conversation.sent", ConversationSentData,
        record(
            ConversationSentData, (conversation_id, _offset, member_id, text(0, MAX_MESSAGE_BYTES, lines=True))
        ),
        "A message was sent in a conversation. Must be named: patterns with a * do not mean it.",
        ConversationSentData("tea", 1, "ann", "hello"), is_default=False, in_room=False,
    ),
)  # fmt: skip
