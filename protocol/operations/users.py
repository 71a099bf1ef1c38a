"""Operations on users: their records and rows."""

from __future__ import annotations

from typing import NamedTuple

from ..codes import ErrorCode
from ..fields import array_of, boolean, integer, record, room_name, text, user_id
from .rows import DIRECTION, PLATFORM, OperationRow, RateLimit, Scope, row

__all__ = [
    "ROWS",
    "DisconnectUser",
    "DisconnectedUser",
    "GetUser",
    "KickUser",
    "Kicked",
    "UserLink",
    "UserView",
]

MAX_LINKS = 100

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


class UserView(NamedTuple):
    """Open connections of a user, and the rooms they are in."""

    user: str
    links: tuple[UserLink, ...]
    rooms: tuple[str, ...]


class DisconnectUser(NamedTuple):
    """End all connections of a user. ``reconnect``: whether its clients may come back by themselves."""

    user: str
    reason: str = ""
    reconnect: bool = False


class DisconnectedUser(NamedTuple):
    """How many connections were ended."""

    links: int


class KickUser(NamedTuple):
    """Remove a user from one room."""

    room: str
    user: str
    reason: str = ""


class Kicked(NamedTuple):
    """How many of its connections were in the room."""

    links: int


_address = text(0, 64)
_rooms = array_of(room_name, 1000)
_link = record(UserLink, (_address, text(1, 16), _rooms))
_view = record(UserView, (user_id, array_of(_link, MAX_LINKS), _rooms))
_disconnected = record(DisconnectedUser, (integer(0),))
_kicked = record(Kicked, (integer(0),))

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
        42, "users.kick", KickUser, (room_name, user_id, _reason), Kicked, _kicked, "Remove a user from a room.",
        scope=Scope.USERS_WRITE, roles=DIRECTION, rate=RateLimit(20, 50), errors=(ErrorCode.UNKNOWN_ROOM,),
        example=(KickUser("live-1", "ann", "spam"), Kicked(1)),
    ),
)  # fmt: skip
