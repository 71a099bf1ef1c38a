"""Tags of a room: its parts, to which messages and offers may go."""

from __future__ import annotations

from typing import NamedTuple

from ..fields import array_of, boolean, integer, record, room_name, text
from .rows import ActivityEventRow, ActivityViewRow, EventRow, Via

__all__ = [
    "MAX_TAGS",
    "REPORTS",
    "ROWS",
    "VIEWS",
    "Audience",
    "AudienceGrown",
    "FollowedData",
    "InviteCountedData",
    "OwnReach",
    "RoomAudience",
    "RoomTags",
    "SharedData",
    "TagRule",
    "audience",
    "room_audience",
    "room_tags",
    "tag_name",
    "tag_rule",
]

MAX_TAGS = 16
"""Tags of one room, and of one user."""


class Audience(NamedTuple):
    """Part of a room: the viewers who have one of the tags ``any``, each of ``all``, and none of ``none``.

    An empty list asks for nothing.
    """

    any: tuple[str, ...] = ()
    all: tuple[str, ...] = ()
    none: tuple[str, ...] = ()


class RoomAudience(NamedTuple):
    """Part of a room: the users who are there now, with one of the tags ``any``, each of ``all``, and none of
    ``none``. Guests are in none."""

    room: str
    any: tuple[str, ...] = ()
    all: tuple[str, ...] = ()
    none: tuple[str, ...] = ()

    @property
    def audience(self) -> Audience:
        """The part, without the room."""
        return Audience(self.any, self.all, self.none)


class TagRule(NamedTuple):
    """A tag of a room. A user has it by its token, because the platform has set it, or by a rule.

    ``follow``: who follows the host has it; ``shares``, ``invites``: who has shared the room so often, or has brought
    so many users, 0 = that does not give it.
    """

    name: str
    follow: bool = False
    shares: int = 0
    invites: int = 0


class RoomTags(NamedTuple):
    """The tags of a room, in the order in which they were defined."""

    tags: tuple[TagRule, ...]


tag_name = text(1, 64)
"""Rule of the name of a tag."""
_tags = array_of(tag_name, MAX_TAGS)
audience = record(Audience, (_tags, _tags, _tags))
"""Rule of an `Audience`."""
room_audience = record(RoomAudience, (room_name, _tags, _tags, _tags))
"""Rule of a `RoomAudience`."""
_count = integer(0)
_user = text(1, 64)
tag_rule = record(TagRule, (tag_name, boolean, _count, _count))
"""Rule of a tag."""
room_tags = record(RoomTags, (array_of(tag_rule, MAX_TAGS),))
"""Rule of the tags of a room."""


class AudienceGrown(NamedTuple):
    """Users who follow the host, shares of the room, and users whom others have brought."""

    followers: int
    shares: int
    invites: int


class OwnReach(NamedTuple):
    """What a user has done for the room: whether it follows the host, its shares, and the users it has brought."""

    follows: bool
    shares: int
    invites: int


class FollowedData(NamedTuple):
    """A user follows the host, or does not any more."""

    user: str
    follows: bool


class SharedData(NamedTuple):
    """A user has shared the room. ``channel``: where; ``shares``: of this user."""

    user: str
    channel: str
    shares: int


class InviteCountedData(NamedTuple):
    """A user whom another has brought has watched for half a minute. ``invites``: of the one who brought it."""

    inviter: str
    invitee: str
    invites: int


ROWS: tuple[ActivityEventRow, ...] = (
    ActivityEventRow(
        "audiences.counted", Via.COUNTER, AudienceGrown, record(AudienceGrown, (_count, _count, _count)),
        "Followers, shares or invites have changed.", AudienceGrown(120, 34, 7),
    ),
)  # fmt: skip
REPORTS: tuple[EventRow, ...] = (
    EventRow(
        "audience.followed", FollowedData, record(FollowedData, (_user, boolean)),
        "A user follows the host, or does not any more.", FollowedData("ann", True),
    ),
    EventRow(
        "audience.shared", SharedData, record(SharedData, (_user, text(0, 64), _count)),
        "A user has shared the room.", SharedData("ann", "wechat", 2),
    ),
    EventRow(
        "audience.invite_counted", InviteCountedData, record(InviteCountedData, (_user, _user, _count)),
        "A user has brought another one.", InviteCountedData("ann", "bob", 1),
    ),
)  # fmt: skip
_own_reach = record(OwnReach, (boolean, _count, _count))

VIEWS: tuple[ActivityViewRow, ...] = (
    ActivityViewRow(
        "audiences",
        RoomTags,
        room_tags,
        RoomTags((TagRule("fans"), TagRule("region:cn"))),
        OwnReach,
        _own_reach,
        OwnReach(True, 2, 1),
    ),
)
