"""Operations on audiences: the parts of a room, by the tags of its users. Their records and rows."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..activities.audiences import (
    MAX_TAGS,
    Audience,
    AudienceGrown,
    OwnReach,
    RoomTags,
    TagRule,
    audience,
    room_tags,
    tag_name,
    tag_rule,
)
from ..codes import ErrorCode
from ..fields import array_of, boolean, integer, name_of, optional, record, room_name, text, user_id
from .rows import DIRECTION, LOGGED_IN, NEEDS_LEDGER, PLATFORM, STAFF, KeyUse, OperationRow, RateLimit, Scope, row

__all__ = [
    "MAX_USERS",
    "ROWS",
    "AcceptInvite",
    "AudienceCount",
    "CountAudience",
    "DefineAudiences",
    "FollowHost",
    "GetAudiences",
    "ReachKind",
    "ReachRank",
    "ReachRanks",
    "SetUserTags",
    "ShareRoom",
    "TaggedUsers",
    "TopReach",
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


class FollowHost(NamedTuple):
    """Follow the host of a room, or stop. ``user``: for whom a backend does it, null = the caller."""

    room: str
    follows: bool = True
    user: str | None = None


class ShareRoom(NamedTuple):
    """Count that a room was shared. ``channel``: where; ``user``: as in `FollowHost`."""

    room: str
    channel: str = ""
    user: str | None = None


class AcceptInvite(NamedTuple):
    """Say who has brought the caller into a room, in the first half minute there."""

    room: str
    inviter: str


class TopReach(NamedTuple):
    """Ask who has shared the room most, or brought most users."""

    room: str
    kind: ReachKind
    limit: int = 10


class ReachKind(IntEnum):
    """What users are ranked by."""

    SHARES = 0
    INVITES = 1


class ReachRank(NamedTuple):
    """A user and its count."""

    user: str
    score: int


class ReachRanks(NamedTuple):
    """The first users, and the sums of the room."""

    top: tuple[ReachRank, ...]
    totals: AudienceGrown


_count = integer(0)
_own = record(OwnReach, (boolean, _count, _count))
_grown = record(AudienceGrown, (_count, _count, _count))
_VIEWER_ERRORS = (*NEEDS_LEDGER, ErrorCode.UNKNOWN_ROOM, ErrorCode.ROOM_ENDED, ErrorCode.OUT_OF_STATE)
_ERRORS = (*NEEDS_LEDGER, ErrorCode.UNKNOWN_ROOM, ErrorCode.UNKNOWN_ACTIVITY)
_OF_BACKENDS = RateLimit(200, 400)
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
    row(
        404, "audiences.follow", FollowHost, (room_name, boolean, optional(user_id)), OwnReach, _own,
        "Follow the host of a room, or stop.",
        scope=Scope.ROOMS_WRITE, roles=LOGGED_IN, joined=True, durable=True, backend_rate=_OF_BACKENDS,
        errors=_VIEWER_ERRORS, example=(FollowHost("live-1", user="ann"), OwnReach(True, 0, 0)),
    ),
    row(
        405, "audiences.share", ShareRoom, (room_name, text(0, 64), optional(user_id)), OwnReach, _own,
        "Count that a room was shared.",
        scope=Scope.ROOMS_WRITE, roles=LOGGED_IN, joined=True, key=KeyUse.OPTIONAL, keeps_keys=True, durable=True,
        rate=RateLimit(1, 5), backend_rate=_OF_BACKENDS, errors=(*_VIEWER_ERRORS, ErrorCode.KEY_REUSED),
        example=(ShareRoom("live-1", "wechat", "ann"), OwnReach(True, 1, 0)),
    ),
    row(
        406, "audiences.accept_invite", AcceptInvite, (room_name, user_id), OwnReach, _own,
        "Say who has brought the caller; it counts after half a minute of watching.",
        scope=None, roles=LOGGED_IN, joined=True, durable=True,
        errors=(*_VIEWER_ERRORS, ErrorCode.ALREADY_HAVE, ErrorCode.NOT_ELIGIBLE, ErrorCode.RATE_LIMITED),
        example=(AcceptInvite("live-1", "ann"), OwnReach(False, 0, 0)),
    ),
    row(
        407, "audiences.top", TopReach, (room_name, name_of(ReachKind), integer(1, 100)), ReachRanks,
        record(ReachRanks, (array_of(record(ReachRank, (text(1, 64), _count)), 100), _grown)),
        "Return who has shared the room most, or brought most users.",
        scope=Scope.ROOMS_READ, roles=LOGGED_IN, joined=True, rate=RateLimit(2, 10), changes=False, errors=_ERRORS,
        example=(TopReach("live-1", ReachKind.INVITES), ReachRanks((ReachRank("ann", 7),), AudienceGrown(120, 34, 7))),
    ),
)  # fmt: skip
