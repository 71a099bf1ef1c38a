"""Operations on messages to rooms: their records and rows."""

from __future__ import annotations

from typing import Any, NamedTuple

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
    text,
)
from .rows import PLATFORM, KeyUse, OperationRow, RateLimit, Scope, row

__all__ = ["ROWS", "PublishMany", "PublishMessage", "Published", "PublishedMany"]

MAX_MANY = 1000


class PublishMessage(NamedTuple):
    """Publish one message to a room.

    ``type`` and ``payload``: as in POST; ``client_msg_id``: makes asking again harmless; ``as_user`` and ``name``: who
    is shown as its author, the caller by default.
    """

    room: str
    type: int
    payload: Any
    client_msg_id: str = ""
    as_user: str | None = None
    name: str = ""


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


_PUBLISH_RULES = (room_name, integer(1, 255), any_value, text(0, 64), optional(member_id), display_name)
_publish = record(PublishMessage, _PUBLISH_RULES)
_published = record(
    Published, (name_of(Outcome), optional(integer(0)), optional(integer(0)), optional(integer(0)), boolean)
)
_published_many = record(PublishedMany, (array_of(_published, MAX_MANY), integer(0)))

ROWS: tuple[OperationRow, ...] = (
    row(
        20, "messages.publish", PublishMessage, _PUBLISH_RULES, Published, _published,
        "Publish a message of any type to a room; the room is opened if need be.",
        scope=Scope.MESSAGES_WRITE, roles=PLATFORM, key=KeyUse.OPTIONAL, durable=True, rate=RateLimit(2000, 4000),
        errors=(
            ErrorCode.UNKNOWN_TYPE, ErrorCode.PAYLOAD_TOO_LARGE, ErrorCode.ROOM_ENDED, ErrorCode.TOO_MANY_ROOMS_OPEN,
            ErrorCode.OVERLOADED,
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
)  # fmt: skip
