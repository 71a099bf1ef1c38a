"""Operations on audiences: the parts of a room, by the tags of its users. Their records and rows."""

from __future__ import annotations

from typing import NamedTuple

from ..activities.audiences import MAX_TAGS, Audience, RoomTags, TagRule, audience, room_tags, tag_name, tag_rule
from ..codes import ErrorCode
from ..fields import array_of, integer, optional, record, room_name, user_id
from .rows import DIRECTION, NEEDS_LEDGER, PLATFORM, STAFF, OperationRow, RateLimit, Scope, row

__all__ = [
    "MAX_USERS",
    "ROWS",
    "AudienceCount",
    "CountAudience",
    "DefineAudiences",
    "GetAudiences",
    "SetUserTags",
    "TaggedUsers",
]

MAX_USERS = 256
"""Users of one call of audiences.set_tags."""


class DefineAudiences(NamedTuple):
    """Give tags to a room, which then has at most 16. Tags that it has stay; their rules become those given."""

    room: str
    tags: tuple[TagRule, ...]


class GetAudiences(NamedTuple):
    """Ask for the tags of a room."""

    room: str


class SetUserTags(NamedTuple):
    """Set the tags of users in a room, in place of those of their tokens.

    ``tags``: all that they have from now on; null = those of their tokens again.
    """

    room: str
    users: tuple[str, ...]
    tags: tuple[str, ...] | None


class TaggedUsers(NamedTuple):
    """``changed``: users whose tags are others now; ``tagged``: users of the room whose tags are set by the
    platform."""

    changed: int
    tagged: int


class CountAudience(NamedTuple):
    """Ask how many connections in a room an audience has."""

    room: str
    audience: Audience


class AudienceCount(NamedTuple):
    """Connections in the room that are in the audience, and all of them."""

    addressed: int
    online: int


_count = integer(0)
_ERRORS = (*NEEDS_LEDGER, ErrorCode.UNKNOWN_ROOM, ErrorCode.UNKNOWN_ACTIVITY)
_TAGS = RoomTags((TagRule("fans"), TagRule("buyers")))

ROWS: tuple[OperationRow, ...] = (
    row(
        400, "audiences.define", DefineAudiences, (room_name, array_of(tag_rule, MAX_TAGS)), RoomTags, room_tags,
        "Give tags to a room, to which messages and offers may go; the room is opened if need be.",
        scope=Scope.ROOMS_WRITE, roles=DIRECTION, durable=True,
        errors=(*NEEDS_LEDGER, ErrorCode.ROOM_ENDED, ErrorCode.OUT_OF_STATE),
        example=(DefineAudiences("live-1", (TagRule("fans"), TagRule("buyers"))), _TAGS),
    ),
    row(
        401, "audiences.get", GetAudiences, (room_name,), RoomTags, room_tags, "Return the tags of a room.",
        scope=Scope.ROOMS_READ, roles=STAFF, changes=False, errors=_ERRORS,
        example=(GetAudiences("live-1"), _TAGS),
    ),
    row(
        402, "audiences.set_tags", SetUserTags,
        (room_name, array_of(user_id, MAX_USERS), optional(array_of(tag_name, MAX_TAGS))),
        TaggedUsers, record(TaggedUsers, (_count, _count)), "Set the tags of users in a room.",
        scope=Scope.ROOMS_WRITE, roles=PLATFORM, durable=True, rate=RateLimit(500, 1000),
        errors=(*_ERRORS, ErrorCode.ROOM_ENDED, ErrorCode.OUT_OF_STATE),
        example=(SetUserTags("live-1", ("ann", "bob"), ("fans",)), TaggedUsers(2, 2)),
    ),
    row(
        403, "audiences.count", CountAudience, (room_name, audience), AudienceCount,
        record(AudienceCount, (_count, _count)), "Return how many connections in a room an audience has.",
        scope=Scope.ROOMS_READ, roles=STAFF, rate=RateLimit(2, 10), changes=False, errors=_ERRORS,
        example=(CountAudience("live-1", Audience(any=("fans",))), AudienceCount(12, 340)),
    ),
)  # fmt: skip
