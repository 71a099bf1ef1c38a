"""Operations on users: their records and rows."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..codes import ErrorCode
from ..fields import array_of, boolean, integer, name_of, optional, record, room_name, text, user_id
from .rows import DIRECTION, PLATFORM, OperationRow, RateLimit, Scope, row

__all__ = [
    "ROWS",
    "DisconnectUser",
    "DisconnectedUser",
    "GetUser",
    "KickUser",
    "Kicked",
    "Preferences",
    "SetPreferences",
    "SetTags",
    "UserBan",
    "UserLink",
    "UserTags",
    "UserView",
    "Visibility",
]

MAX_LINKS = 100
MAX_TAGS = 32
MAX_BAN_S = 31_536_000

_reason = text(0, 256)


class GetUser(NamedTuple):
    """Name a user."""

    user: str


class UserLink(NamedTuple):
    """One open connection of a user. ``address``: its last part is masked; ``transport``: tcp, websocket,
    websocket_json or event_stream."""

    address: str
    transport: str
    rooms: tuple[str, ...]
    agent: str = ""
    since_ms: int = 0


class Visibility(IntEnum):
    """Whether other members see a user; the broker keeps it for the platform."""

    VISIBLE = 0
    HIDDEN = 1


class Preferences(NamedTuple):
    """Preferences of a user; null = not set. ``marketing`` false: `directs.send` with ``marketing`` sends nothing."""

    marketing: bool | None = None
    recommendation: bool | None = None
    visibility: Visibility | None = None


class UserBan(NamedTuple):
    """A room that a user may not enter until ``until_ms``."""

    room: str
    until_ms: int
    reason: str


class UserView(NamedTuple):
    """Open connections of a user, the rooms they are in, and what the platform has set for the user."""

    user: str
    links: tuple[UserLink, ...]
    rooms: tuple[str, ...]
    preferences: Preferences = Preferences()
    tags: tuple[str, ...] = ()
    bans: tuple[UserBan, ...] = ()


class DisconnectUser(NamedTuple):
    """End all connections of a user. ``reconnect``: whether its clients may come back by themselves."""

    user: str
    reason: str = ""
    reconnect: bool = False


class DisconnectedUser(NamedTuple):
    """How many connections were ended."""

    links: int


class KickUser(NamedTuple):
    """Remove a user from one room. ``ban_s``: and keep it out for so long; 0 = lift a ban, null = leave it."""

    room: str
    user: str
    reason: str = ""
    ban_s: int | None = None


class Kicked(NamedTuple):
    """How many of its connections were in the room."""

    links: int


class SetPreferences(NamedTuple):
    """Set preferences of a user; null leaves one as it is."""

    user: str
    marketing: bool | None = None
    recommendation: bool | None = None
    visibility: Visibility | None = None


class SetTags(NamedTuple):
    """Set the tags of a user: those are all it has."""

    user: str
    tags: tuple[str, ...]


class UserTags(NamedTuple):
    """Tags of a user."""

    tags: tuple[str, ...]


_address = text(0, 64)
_rooms = array_of(room_name, 1000)
_link = record(UserLink, (_address, text(1, 16), _rooms, text(0, 128), integer(0)))
_PREFERENCE_RULES = optional(boolean), optional(boolean), optional(name_of(Visibility))
_preferences = record(Preferences, _PREFERENCE_RULES)
_tags = array_of(text(1, 64), MAX_TAGS)
_ban = record(UserBan, (room_name, integer(0), text(0, 256)))
_view = record(
    UserView, (user_id, array_of(_link, MAX_LINKS), _rooms, _preferences, _tags, array_of(_ban, 1000))
)  # fmt: skip
_disconnected = record(DisconnectedUser, (integer(0),))
_kicked = record(Kicked, (integer(0),))

_NOT_KEPT = (ErrorCode.NOT_KEPT, ErrorCode.OVERLOADED)

ROWS: tuple[OperationRow, ...] = (
    row(
        40, "users.get", GetUser, (user_id,), UserView, _view, "Return the open connections of a user.",
        scope=Scope.USERS_READ, roles=PLATFORM, rate=RateLimit(50, 100), changes=False,
        example=(GetUser("ann"), UserView("ann", (UserLink("203.0.113.*", "websocket", ("live-1",)),), ("live-1",))),
    ),
    row(
        41, "users.disconnect", DisconnectUser, (user_id, _reason, boolean), DisconnectedUser, _disconnected,
        "End all connections of a user.",
        scope=Scope.USERS_WRITE, roles=PLATFORM, rate=RateLimit(50, 100),
        example=(DisconnectUser("ann", "spam"), DisconnectedUser(1)),
    ),
    row(
        42, "users.kick", KickUser, (room_name, user_id, _reason, optional(integer(0, MAX_BAN_S))), Kicked, _kicked,
        "Remove a user from a room.",
        scope=Scope.USERS_WRITE, roles=DIRECTION, rate=RateLimit(20, 50),
        errors=(ErrorCode.UNKNOWN_ROOM, ErrorCode.OVERLOADED),
        example=(KickUser("live-1", "ann", "spam", 600), Kicked(1)),
    ),
    row(
        44, "users.set_preferences", SetPreferences, (user_id, *_PREFERENCE_RULES), Preferences, _preferences,
        "Set preferences of a user.",
        scope=Scope.USERS_WRITE, roles=PLATFORM, durable=True, rate=RateLimit(50, 100), errors=_NOT_KEPT,
        example=(SetPreferences("ann", marketing=False), Preferences(False, None, Visibility.VISIBLE)),
    ),
    row(
        45, "users.set_tags", SetTags, (user_id, _tags), UserTags, record(UserTags, (_tags,)),
        "Set the tags of a user.",
        scope=Scope.USERS_WRITE, roles=PLATFORM, durable=True, rate=RateLimit(50, 100), errors=_NOT_KEPT,
        example=(SetTags("ann", ("gold",)), UserTags(("gold",))),
    ),
)  # fmt: skip
