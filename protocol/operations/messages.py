"""Operations on messages to rooms: their records and rows."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..activities.audiences import Audience, audience
from ..codes import ErrorCode, Outcome
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
    room_name,
    room_pattern,
    text,
    user_id,
    user_id_or_empty,
)
from ..messages import MAX_EXPIRY_S, MAX_PINS
from ..payloads import MAX_DELETED_AT_ONCE
from .rooms import PinView, not_negative, pin_view
from .rows import PLATFORM, STAFF, KeyUse, OperationRow, RateLimit, Scope, row

__all__ = [
    "ROWS",
    "BroadcastMessage",
    "BroadcastProgress",
    "BroadcastStarted",
    "BroadcastStateRequest",
    "DeleteMessages",
    "DeletedMessages",
    "MessageTrace",
    "PinMessage",
    "PinnedMessages",
    "PublishMany",
    "PublishMessage",
    "Published",
    "PublishedMany",
    "TraceMessage",
    "UnpinMessage",
]

MAX_MANY = 1000
MAX_SPREAD_MS = 600_000


class PublishMessage(NamedTuple):
    """Publish one message to a room.

    ``type``: number of its message type; ``payload``: the fields of that type, an array or an object;
    ``client_msg_id``: makes asking again harmless; ``as_user`` and ``name``: who is shown as its author, the caller by
    default; ``audience``: the part of the room that it is for, null = all: announcements, media, and the deployment's
    own types of lanes 0 to 2.
    """

    room: str
    type: int
    payload: Any
    client_msg_id: str = ""
    as_user: str | None = None
    name: str = ""
    audience: Audience | None = None
    marketing: bool = False
    """It is sent to no user whose preference is against marketing. Types of the deployment's own may always be so."""


class Published(NamedTuple):
    """What became of a message.

    ``offset``: of its event, where it has one; ``code``: why it was rejected; ``retry_after_ms``: when to try again;
    ``repeated``: whether its order or client_msg_id was used before, so that nothing was done again.
    """

    outcome: Outcome
    offset: int | None = None
    code: int | None = None
    retry_after_ms: int | None = None
    repeated: bool = False


class PublishMany(NamedTuple):
    """Publish up to 1,000 messages, each as `PublishMessage`."""

    items: tuple[PublishMessage, ...]


class PublishedMany(NamedTuple):
    """What became of each message, in their order; ``accepted``: how many were."""

    items: tuple[Published, ...]
    accepted: int


class PinMessage(NamedTuple):
    """Pin a message: the event at ``offset``, or one of its own with ``type`` and ``payload``.

    ``id``: names the pin, by default the offset; it replaces the pin of that id. ``ttl_ms``: how long it is pinned,
    null = until it is unpinned; ``as_user`` and ``name``: who is shown as the author of a message of its own.
    """

    room: str
    id: str = ""
    offset: int | None = None
    type: int | None = None
    payload: Any = None
    ttl_ms: int | None = None
    as_user: str | None = None
    name: str = ""


class UnpinMessage(NamedTuple):
    """Unpin the message that was pinned under an id."""

    room: str
    id: str


class PinnedMessages(NamedTuple):
    """What is pinned now, oldest pin first."""

    pinned: tuple[PinView, ...]


class BroadcastMessage(NamedTuple):
    """Publish one message to many open rooms, by ``pattern`` or by name (``rooms``).

    ``spread_ms``: over how long it is spread, so that the rooms do not get it all at once; ``id``: names the broadcast,
    the broker chooses one by default; ``type``, ``payload``, ``as_user`` and ``name``: as in `PublishMessage`.
    """

    type: int
    payload: Any
    pattern: str | None = None
    rooms: tuple[str, ...] | None = None
    spread_ms: int = 0
    id: str = ""
    as_user: str | None = None
    name: str = ""


class BroadcastStarted(NamedTuple):
    """A broadcast that runs now, or did before under the same id. ``rooms``: how many it goes to."""

    id: str
    rooms: int


class BroadcastStateRequest(NamedTuple):
    """Name a broadcast."""

    id: str


class BroadcastProgress(NamedTuple):
    """How far a broadcast is. ``missed``: rooms that did not take it, once it is done."""

    id: str
    rooms: int
    reached: int
    missed: int
    done: bool


class DeleteMessages(NamedTuple):
    """Delete messages of a room: the events with these offsets (``ids``), or those of ``user``, or those later than
    ``after_ms``, or both of the last.

    Danmaku have no offset: they go by user and time. ``reason``: for people, every member gets it.
    """

    room: str
    ids: tuple[int, ...] | None = None
    user: str | None = None
    after_ms: int | None = None
    reason: str = ""


class DeletedMessages(NamedTuple):
    """``deleted``: how many events and danmaku that the broker had in memory; ``offset``: of the event that says so."""

    deleted: int
    offset: int


class TraceMessage(NamedTuple):
    """Ask what became of a message: of the one in the event at ``offset``, or of the newest one with this
    ``client_msg_id``, of ``user`` or, where that is null, of any user."""

    room: str
    client_msg_id: str = ""
    offset: int | None = None
    user: str | None = None


class MessageTrace(NamedTuple):
    """What became of one message; times without a name of their own are milliseconds after ``received_at_ms``.

    ``outcome``: null = it waits; ``offset``: of its event; ``code`` and ``retry_after_ms``: of a refusal; ``tick``:
    number of the tick that has decided a danmaku; ``merged_into``: whose equal message it was merged into, and
    ``senders``: how many senders what was shown stands for; ``to_sender``: it was shown to its sender alone.

    ``published_ms``, ``written_ms``: when it was published, and written to the last member; ``members``: how many there
    were; ``written``: sockets that took it at once; ``queued``: members that were behind, so that it waited in their
    queue, of which ``refused`` did not take it.
    """

    user: str
    client_msg_id: str
    type: int
    received_at_ms: int
    outcome: Outcome | None = None
    decided_ms: float | None = None
    offset: int | None = None
    code: int | None = None
    retry_after_ms: int | None = None
    tick: int | None = None
    merged_into: str | None = None
    senders: int = 0
    to_sender: bool = False
    published_ms: float | None = None
    written_ms: float | None = None
    members: int = 0
    written: int = 0
    queued: int = 0
    refused: int = 0


_PUBLISH_RULES = (
    room_name, integer(1, 255), any_value, text(0, 64), optional(member_id), display_name, optional(audience), boolean,
)  # fmt: skip
_publish = record(PublishMessage, _PUBLISH_RULES)
_published = record(
    Published, (name_of(Outcome), optional(integer(0)), optional(integer(0)), optional(integer(0)), boolean)
)
_published_many = record(PublishedMany, (array_of(_published, MAX_MANY), integer(0)))
_pinned = record(PinnedMessages, (array_of(pin_view, MAX_PINS),))
_deleted = record(DeletedMessages, (integer(0), integer(0)))
_count = integer(0)
_started = record(BroadcastStarted, (text(1, 64), _count))
_progress = record(BroadcastProgress, (text(1, 64), _count, _count, _count, boolean))
_ms = optional(not_negative)
_trace = record(
    MessageTrace,
    (
        user_id_or_empty, text(0, 64), _count, _count, optional(name_of(Outcome)), _ms, optional(_count),
        optional(_count), optional(_count), optional(_count), optional(user_id_or_empty), _count, boolean, _ms, _ms,
        *(_count,) * 4,
    ),
)  # fmt: skip
_ROOM_ERRORS = (ErrorCode.UNKNOWN_ROOM, ErrorCode.ROOM_ENDED, ErrorCode.OVERLOADED)
_PIN = PinView("1", 4, ("欢迎",), "max", "Max", 1_790_000_000_000, 1_790_000_060_000, 1)

ROWS: tuple[OperationRow, ...] = (
    row(
        20, "messages.publish", PublishMessage, _PUBLISH_RULES, Published, _published,
        "Publish a message of any type to a room; the room is opened if need be.",
        scope=Scope.MESSAGES_WRITE, roles=PLATFORM, key=KeyUse.OPTIONAL, durable=True, rate=RateLimit(2000, 4000),
        errors=(
            ErrorCode.UNKNOWN_TYPE, ErrorCode.PAYLOAD_TOO_LARGE, ErrorCode.ROOM_ENDED, ErrorCode.TOO_MANY_ROOMS_OPEN,
            ErrorCode.OVERLOADED, ErrorCode.UNKNOWN_ROOM,
        ),
        example=(PublishMessage("live-1", 4, ("欢迎",)), Published(Outcome.ACCEPTED, 1)),
    ),
    row(
        21, "messages.publish_many", PublishMany, (array_of(_publish, MAX_MANY),), PublishedMany, _published_many,
        "Publish up to 1,000 messages; each has its own result.",
        scope=Scope.MESSAGES_WRITE, roles=PLATFORM, durable=True, rate=RateLimit(50, 100),
        errors=(ErrorCode.OVERLOADED,),
        example=(
            PublishMany((PublishMessage("live-1", 4, ("欢迎",)),)),
            PublishedMany((Published(Outcome.ACCEPTED, 1),), 1),
        ),
    ),
    row(
        25, "messages.broadcast", BroadcastMessage,
        (
            integer(1, 255), any_value, optional(room_pattern), optional(array_of(room_name, MAX_MANY)),
            integer(0, MAX_SPREAD_MS), text(0, 48), optional(member_id), display_name,
        ),
        BroadcastStarted, _started, "Publish one message to many open rooms, spread over time.",
        scope=Scope.MESSAGES_WRITE, roles=PLATFORM, key=KeyUse.OPTIONAL, durable=True, rate=RateLimit(2, 10),
        errors=(
            ErrorCode.UNKNOWN_TYPE, ErrorCode.PAYLOAD_TOO_LARGE, ErrorCode.ROOM_NOT_GRANTED, ErrorCode.KEY_REUSED,
            ErrorCode.OVERLOADED,
        ),
        example=(
            BroadcastMessage(4, ("欢迎",), "live-*", spread_ms=2000, id="welcome"), BroadcastStarted("welcome", 2),
        ),
    ),
    row(
        26, "messages.broadcast_state", BroadcastStateRequest, (text(1, 64),), BroadcastProgress, _progress,
        "Return how far a broadcast is.",
        scope=Scope.MESSAGES_WRITE, roles=PLATFORM, rate=RateLimit(20, 40), changes=False,
        example=(BroadcastStateRequest("welcome"), BroadcastProgress("welcome", 2, 1, 0, False)),
    ),
    row(
        22, "messages.pin", PinMessage,
        (
            room_name, text(0, 64), optional(integer(1)), optional(integer(1, 255)), any_value,
            optional(integer(1000, MAX_EXPIRY_S * 1000)), optional(member_id), display_name,
        ),
        PinnedMessages, _pinned, "Pin a message for all members of a room, now and later.",
        speaks=lambda request: request.type is not None,
        scope=Scope.MESSAGES_WRITE, roles=STAFF, key=KeyUse.OPTIONAL, durable=True, rate=RateLimit(10, 40),
        errors=(*_ROOM_ERRORS, ErrorCode.UNKNOWN_TYPE, ErrorCode.PAYLOAD_TOO_LARGE, ErrorCode.OUT_OF_STATE),
        example=(PinMessage("live-1", "", 1, ttl_ms=60_000), PinnedMessages((_PIN,))),
    ),
    row(
        23, "messages.unpin", UnpinMessage, (room_name, text(1, 64)), PinnedMessages, _pinned, "Unpin a message.",
        scope=Scope.MESSAGES_WRITE, roles=STAFF, key=KeyUse.OPTIONAL, durable=True, rate=RateLimit(10, 40),
        errors=(*_ROOM_ERRORS, ErrorCode.OUT_OF_STATE),
        example=(UnpinMessage("live-1", "1"), PinnedMessages(())),
    ),
    row(
        24, "messages.delete", DeleteMessages,
        (
            room_name, optional(array_of(integer(1), MAX_DELETED_AT_ONCE)), optional(user_id), optional(integer(0)),
            text(0, 256),
        ),
        DeletedMessages, _deleted, "Delete messages by offset, by user or by time.",
        scope=Scope.MESSAGES_WRITE, roles=STAFF, key=KeyUse.OPTIONAL, durable=True, rate=RateLimit(20, 100),
        errors=_ROOM_ERRORS,
        example=(DeleteMessages("live-1", user="bob", reason="advertising"), DeletedMessages(2, 3)),
    ),
    row(
        550, "messages.trace", TraceMessage, (room_name, text(0, 64), optional(integer(1)), optional(user_id)),
        MessageTrace, _trace, "Return what became of one message, and to how many sockets it was written.",
        scope=Scope.ROOMS_READ, roles=STAFF, rate=RateLimit(20, 40), changes=False, errors=(ErrorCode.UNKNOWN_ROOM,),
        example=(
            TraceMessage("live-1", offset=1),
            MessageTrace(
                "max", "m-1", 4, 1_790_000_000_000, Outcome.ACCEPTED, 3.2, 1, published_ms=3.4, written_ms=9.7,
                members=800, written=798, queued=2,
            ),
        ),
    ),
)  # fmt: skip
