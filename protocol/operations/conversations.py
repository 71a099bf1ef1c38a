"""Operations on conversations of two users and of groups: their records and rows."""

from __future__ import annotations

from typing import NamedTuple

from ..activities.conversations import (
    ConversationMessage,
    MediaReference,
    conversation_id,
    media_reference,
    mentions,
    message_text,
    shown_message,
)
from ..codes import ErrorCode
from ..fields import array_of, boolean, integer, member_id, optional, record, text, user_id, user_id_or_empty
from .rows import (
    LOGGED_IN,
    NEEDS_LEDGER,
    PLATFORM,
    KeyUse,
    OperationRow,
    RateLimit,
    Scope,
    cursor,
    page_of,
    page_size,
    row,
)

__all__ = [
    "MAX_CHANGED_MEMBERS",
    "MAX_LISTED",
    "ROWS",
    "BlockUser",
    "BlockedUser",
    "BlockedUsers",
    "ChangeMembers",
    "ChangedMembers",
    "ConversationHistory",
    "ConversationView",
    "ConversationViews",
    "CreateConversation",
    "CreatedConversation",
    "GetConversation",
    "ListBlocked",
    "ListConversationMembers",
    "ListConversations",
    "MemberPosition",
    "MemberPositions",
    "OpenConversation",
    "OwnPosition",
    "ReadHistory",
    "RecallMessage",
    "RecalledMessage",
    "ReportPosition",
    "SendMessage",
    "SentMessage",
    "ShowTyping",
    "TypingShown",
]  # fmt: skip

MAX_CHANGED_MEMBERS = 1000
"""Members that one call adds, or removes."""
MAX_LISTED = 200
"""Conversations of one page."""
MAX_PREVIEW = 64


class OpenConversation(NamedTuple):
    """Open the conversation of the caller and another user: the same one, whoever opens it, and however often."""

    user: str


class ConversationView(NamedTuple):
    """A conversation as a member sees it. ``other``: the other one of two, empty = it is a group; ``members``: how
    many; ``last``: offset of the last message; ``joined``: the last offset that the member does not see; ``delivered``
    and ``read``: its position; ``unread``: messages of others that it has not read; ``last_at_ms``, ``last_user``,
    ``last_text``: of the last message, its text cut."""

    id: str
    title: str
    other: str
    members: int
    last: int
    joined: int
    delivered: int
    read: int
    unread: int
    last_at_ms: int
    last_user: str = ""
    last_text: str = ""


class SendMessage(NamedTuple):
    """Send a message to the members of a conversation.

    ``text`` or ``media``, or both; ``reply_to``: offset of the message that it answers, 0 = none; ``mentions``:
    members; ``as_user``: the member who sends it, given by a backend and only by one.
    """

    conversation: str
    text: str | None = None
    media: MediaReference | None = None
    reply_to: int = 0
    mentions: tuple[str, ...] = ()
    as_user: str | None = None


class SentMessage(NamedTuple):
    """The message is on the disk, at an offset. ``repeated``: as an earlier call with the same key has sent it."""

    offset: int
    repeated: bool = False


class ReportPosition(NamedTuple):
    """Report how far the caller's device has received and read; the highest report of any device counts."""

    conversation: str
    delivered: int = 0
    read: int = 0


class OwnPosition(NamedTuple):
    """The caller's position, and how many messages of others it has not read."""

    delivered: int
    read: int
    unread: int


class RecallMessage(NamedTuple):
    """Take a message back: its author within two minutes, the platform at any time."""

    conversation: str
    offset: int


class RecalledMessage(NamedTuple):
    """The message has no content any more; its offset stays."""

    offset: int


class ShowTyping(NamedTuple):
    """Let the members of a conversation of at most 200 see that the caller is typing, for 5 seconds."""

    conversation: str


class TypingShown(NamedTuple):
    """How many other members see it where they have a link, whoever has one: 0 in a group of more than 200."""

    members: int


class ReadHistory(NamedTuple):
    """Read kept messages in the order of their offsets: those after ``after``, or, where ``before`` is above 0, the
    last ones before it. ``limit``: most messages."""

    conversation: str
    after: int = 0
    before: int = 0
    limit: int = 50


class ConversationHistory(NamedTuple):
    """Messages. ``more``: there are others in the direction of the request."""

    items: tuple[ConversationMessage, ...]
    more: bool


class ListConversations(NamedTuple):
    """List the caller's conversations, the one with the latest message first. ``limit``: most of one page; ``cursor``:
    the last answer's ``next``."""

    limit: int = MAX_LISTED
    cursor: str | None = None


class ConversationViews(NamedTuple):
    """A page. ``next``: cursor of the next one, null = that is all."""

    items: tuple[ConversationView, ...]
    next: str | None


class GetConversation(NamedTuple):
    """Ask for one of the caller's conversations."""

    conversation: str


class ListConversationMembers(NamedTuple):
    """List the members of a conversation with their positions, ordered by id."""

    conversation: str
    limit: int = 200
    cursor: str | None = None


class MemberPosition(NamedTuple):
    """A member, and how far it has received and read; 0 of one that blocks the caller."""

    user: str
    delivered: int = 0
    read: int = 0


class MemberPositions(NamedTuple):
    """A page of members. ``next``: cursor of the next one, null = that is all."""

    items: tuple[MemberPosition, ...]
    next: str | None


class BlockUser(NamedTuple):
    """Block a user, who cannot write to the caller any more, nor see whether it is online; or unblock it."""

    user: str
    blocked: bool = True


class BlockedUser(NamedTuple):
    """Whether the user is blocked."""

    user: str
    blocked: bool


class ListBlocked(NamedTuple):
    """List whom the caller blocks."""


class BlockedUsers(NamedTuple):
    """Users, ordered."""

    users: tuple[str, ...]


class CreateConversation(NamedTuple):
    """Create a group, or change nothing where there is one of this id. ``users``: its first members, 1,000 at most;
    further ones come by ``conversations.set_members``."""

    id: str
    title: str
    users: tuple[str, ...]


class CreatedConversation(NamedTuple):
    """The group. ``created``: by this call."""

    id: str
    created: bool
    members: int


class ChangeMembers(NamedTuple):
    """Add members to a group, which may have 5,000, and remove some. Who is added sees what comes from then on."""

    id: str
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


class ChangedMembers(NamedTuple):
    """How many members the group has."""

    id: str
    members: int


_id = conversation_id
_group_id = text(1, 64)
_count = integer(0)
_offset = integer(1)
_title = text(0, 64)
_view = record(
    ConversationView,
    (
        _id, _title, user_id_or_empty, _count, _count, _count, _count, _count, _count, _count, user_id_or_empty,
        text(0, MAX_PREVIEW),
    ),
)  # fmt: skip
_users = array_of(user_id, MAX_CHANGED_MEMBERS)
_KNOWN = (ErrorCode.UNKNOWN_CONVERSATION, *NEEDS_LEDGER)
_BOUNDED = (ErrorCode.TOO_MANY_MEMBERS, *NEEDS_LEDGER)
_AT_MS = 1_790_000_000_000
_PAIR = "~3b9d2c61f0a84e5d9c7b1a2f3e4d5c6b"
_SHOWN = ConversationView("tea", "Tea", "", 3, 7, 0, 7, 5, 2, _AT_MS, "bob", "hello")
MESSAGE_RATE = RateLimit(10, 30)

ROWS: tuple[OperationRow, ...] = (
    row(
        620, "conversations.open", OpenConversation, (user_id,), ConversationView, _view,
        "Open the conversation with another user.",
        scope=None, roles=LOGGED_IN, durable=True, rate=RateLimit(1, 20),
        errors=(ErrorCode.TOO_MANY_MEMBERS, *NEEDS_LEDGER),
        example=(
            OpenConversation("bob"), ConversationView(_PAIR, "", "bob", 2, 7, 0, 7, 7, 0, _AT_MS, "ann", "hello")
        ),
    ),
    row(
        621, "conversations.send", SendMessage,
        (_id, optional(message_text), optional(media_reference), _count, mentions, optional(user_id)),
        SentMessage, record(SentMessage, (_count, boolean)), "Send a message in a conversation.",
        scope=Scope.DIRECTS_WRITE, roles=LOGGED_IN, key=KeyUse.REQUIRED, keeps_keys=True, durable=True,
        rate=MESSAGE_RATE, backend_rate=RateLimit(500, 1000),
        errors=(ErrorCode.KEY_REUSED, ErrorCode.BLOCKED, ErrorCode.MUTED, ErrorCode.PAYLOAD_TOO_LARGE, *_KNOWN),
        example=(SendMessage("tea", "hello"), SentMessage(8)),
    ),
    row(
        622, "conversations.report_position", ReportPosition, (_id, _count, _count), OwnPosition,
        record(OwnPosition, (_count, _count, _count)), "Report how far the caller has received and read.",
        scope=None, roles=LOGGED_IN, durable=True, rate=MESSAGE_RATE, errors=_KNOWN,
        example=(ReportPosition("tea", 8, 8), OwnPosition(8, 8, 0)),
    ),
    row(
        623, "conversations.recall", RecallMessage, (_id, _offset), RecalledMessage,
        record(RecalledMessage, (_offset,)), "Take a message of a conversation back.",
        scope=Scope.MODERATION_WRITE, roles=LOGGED_IN, durable=True,
        errors=(ErrorCode.EXPIRED, *_KNOWN),
        example=(RecallMessage("tea", 8), RecalledMessage(8)),
    ),
    row(
        624, "conversations.show_typing", ShowTyping, (_id,), TypingShown, record(TypingShown, (_count,)),
        "Let others see that the caller is typing.",
        scope=None, roles=LOGGED_IN, changes=False, rate=RateLimit(1, 5),
        errors=_KNOWN, example=(ShowTyping("tea"), TypingShown(2)),
    ),
    row(
        625, "conversations.history", ReadHistory, (_id, _count, _count, integer(1, 200)), ConversationHistory,
        record(ConversationHistory, (array_of(shown_message, 200), boolean)), "Read messages of a conversation.",
        scope=Scope.MODERATION_READ, roles=LOGGED_IN, changes=False, errors=_KNOWN,
        example=(
            ReadHistory("tea", 7),
            ConversationHistory((ConversationMessage(8, "ann", "Ann", _AT_MS, "hello"),), False),
        ),
    ),
    row(
        626, "conversations.list", ListConversations, (integer(1, MAX_LISTED), cursor), ConversationViews,
        record(ConversationViews, page_of(_view)), "List the caller's conversations.",
        scope=None, roles=LOGGED_IN, changes=False, errors=NEEDS_LEDGER,
        example=(ListConversations(), ConversationViews((_SHOWN,), None)),
    ),
    row(
        627, "conversations.block", BlockUser, (user_id, boolean), BlockedUser, record(BlockedUser, (user_id, boolean)),
        "Block a user, or unblock it.",
        scope=None, roles=LOGGED_IN, durable=True, errors=_BOUNDED,
        example=(BlockUser("eve"), BlockedUser("eve", True)),
    ),
    row(
        628, "conversations.blocked", ListBlocked, (), BlockedUsers,
        record(BlockedUsers, (array_of(member_id, 1000),)), "List whom the caller blocks.",
        scope=None, roles=LOGGED_IN, changes=False, errors=NEEDS_LEDGER,
        example=(ListBlocked(), BlockedUsers(("eve",))),
    ),
    row(
        629, "conversations.create", CreateConversation, (_group_id, _title, _users), CreatedConversation,
        record(CreatedConversation, (_id, boolean, _count)), "Create a group.",
        scope=Scope.USERS_WRITE, roles=PLATFORM, durable=True, errors=_BOUNDED,
        example=(CreateConversation("tea", "Tea", ("ann", "bob")), CreatedConversation("tea", True, 2)),
    ),
    row(
        630, "conversations.set_members", ChangeMembers, (_id, _users, _users), ChangedMembers,
        record(ChangedMembers, (_id, _count)), "Add members to a group, and remove some.",
        scope=Scope.USERS_WRITE, roles=PLATFORM, durable=True,
        errors=(ErrorCode.UNKNOWN_CONVERSATION, *_BOUNDED),
        example=(ChangeMembers("tea", ("cem",), ("bob",)), ChangedMembers("tea", 2)),
    ),
    row(
        631, "conversations.members", ListConversationMembers, (_id, page_size, cursor), MemberPositions,
        record(MemberPositions, page_of(record(MemberPosition, (member_id, _count, _count)))),
        "List the members of a conversation with their positions.",
        scope=Scope.USERS_READ, roles=LOGGED_IN, changes=False, errors=_KNOWN,
        example=(
            ListConversationMembers("tea"), MemberPositions((MemberPosition("ann", 8, 7),), None)
        ),
    ),
    row(
        632, "conversations.get", GetConversation, (_id,), ConversationView, _view,
        "Return one of the caller's conversations.",
        scope=None, roles=LOGGED_IN, changes=False, errors=_KNOWN, example=(GetConversation("tea"), _SHOWN),
    ),
)  # fmt: skip
