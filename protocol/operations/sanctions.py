"""Operations on sanctions of users and on the modes of rooms: their records and rows."""

from __future__ import annotations

from typing import NamedTuple

from ..activities.moderation import (
    MAX_DELAY_MS,
    MAX_FOLLOWERS_S,
    MAX_SLOW_S,
    RoomModes,
    SanctionVerb,
    room_modes,
)
from ..codes import ErrorCode, Role
from ..fields import array_of, boolean, integer, name_of, optional, record, room_name, text, user_id
from .rows import STAFF, OperationRow, RateLimit, Scope, cursor, page_size, row

__all__ = [
    "MAX_SANCTION_S",
    "ROWS",
    "BanUser",
    "GetModes",
    "ListSanctions",
    "MuteUser",
    "SanctionDone",
    "SanctionPage",
    "SanctionView",
    "SetModes",
    "UnbanUser",
    "UndoSanction",
    "UnmuteUser",
]

MAX_SANCTION_S = 31_536_000
"""A year; what is to hold longer has no end."""


class MuteUser(NamedTuple):
    """Let a user not post. ``room``: where, null = in every room; ``seconds``: how long, null = until it is lifted;
    ``shadow``: its messages are accepted, and only itself sees them; ``clear``: delete what it has posted in the room,
    or in all rooms of the tenant, and reject what waits there for a reviewer.
    """

    room: str | None
    user: str
    seconds: int | None = None
    reason: str = ""
    shadow: bool = False
    clear: bool = False


class BanUser(NamedTuple):
    """Remove a user from a room and let it not come back; fields as of `MuteUser`.

    Where ``room`` is null its connections end.
    """

    room: str | None
    user: str
    seconds: int | None = None
    reason: str = ""
    clear: bool = False


class UnmuteUser(NamedTuple):
    """Name a mute. ``room``: null = the one in every room."""

    room: str | None
    user: str
    reason: str = ""


class UnbanUser(NamedTuple):
    """Name a ban. ``room``: null = the one in every room."""

    room: str | None
    user: str
    reason: str = ""


class SanctionDone(NamedTuple):
    """``action``: names it for moderation.undo, empty = there was nothing to lift; ``until_ms``: the sanction's end,
    0 = it has none, or is lifted; ``links``: connections of the user that it concerns now; ``cleared``: rooms in which
    its messages were deleted."""

    action: str
    until_ms: int = 0
    links: int = 0
    cleared: int = 0


class ListSanctions(NamedTuple):
    """Select sanctions, the newest first. ``room``, ``user``: null = all; ``active``: false = those that are over, and
    liftings; null = both."""

    room: str | None = None
    user: str | None = None
    active: bool | None = True
    limit: int = 100
    cursor: str | None = None


class SanctionView(NamedTuple):
    """One action. ``room``: null = every room; ``until_ms``: 0 = without an end; ``by``: user or key;
    ``undo_until_ms``: until when it can be undone, 0 = it cannot; ``undone_by``: empty = it is not undone."""

    action: str
    verb: SanctionVerb
    room: str | None
    user: str
    until_ms: int
    reason: str
    by: str
    role: Role
    at_ms: int
    shadow: bool
    active: bool
    undo_until_ms: int = 0
    undone_by: str = ""


class SanctionPage(NamedTuple):
    """A page of actions."""

    items: tuple[SanctionView, ...]
    next: str | None = None


class UndoSanction(NamedTuple):
    """Name an action: what was in force before it is in force again."""

    action: str
    reason: str = ""


class SetModes(NamedTuple):
    """Change modes of a room, see `RoomModes`; null = as it is. Setting ``slow_s`` ends the slow mode of a raid."""

    room: str
    slow_s: int | None = None
    followers_s: int | None = None
    vip_only: bool | None = None
    emote_only: bool | None = None
    unique: bool | None = None
    mute_all: bool | None = None
    links: bool | None = None
    delay_ms: int | None = None


class GetModes(NamedTuple):
    """Name a room."""

    room: str


_room = optional(room_name)
_flag = optional(boolean)
_seconds = optional(integer(1, MAX_SANCTION_S))
_reason = text(0, 256)
_action = text(1, 64)
_by = text(1, 128)
_done = record(SanctionDone, (text(0, 64), integer(0), integer(0), integer(0)))
_view = record(
    SanctionView,
    (
        _action, name_of(SanctionVerb), _room, user_id, integer(0), _reason, _by, name_of(Role), integer(0), boolean,
        boolean, integer(0), text(0, 128),
    ),
)  # fmt: skip
_RATE = RateLimit(20, 100)
_ERRORS = (ErrorCode.OVERLOADED, ErrorCode.OUT_OF_STATE)
_END_MS = 1_790_000_600_000

ROWS: tuple[OperationRow, ...] = (
    row(
        510, "moderation.mute", MuteUser, (_room, user_id, _seconds, _reason, boolean, boolean), SanctionDone, _done,
        "Let a user not post, in a room or everywhere.",
        scope=Scope.MODERATION_WRITE, roles=STAFF, rate=_RATE, errors=_ERRORS,
        example=(MuteUser("live-1", "ann", 600, "spam"), SanctionDone("7c1d9c0a7be2463d", _END_MS, 1)),
    ),
    row(
        511, "moderation.unmute", UnmuteUser, (_room, user_id, _reason), SanctionDone, _done,
        "Let a user post again.",
        scope=Scope.MODERATION_WRITE, roles=STAFF, rate=_RATE, errors=_ERRORS,
        example=(UnmuteUser("live-1", "ann", "a mistake"), SanctionDone("8c1d9c0a7be2463d", 0, 1)),
    ),
    row(
        512, "moderation.ban", BanUser, (_room, user_id, _seconds, _reason, boolean), SanctionDone, _done,
        "Remove a user from a room, or from everywhere, and let it not come back.",
        scope=Scope.MODERATION_WRITE, roles=STAFF, rate=_RATE, errors=_ERRORS,
        example=(BanUser("live-1", "ann", 600, "spam"), SanctionDone("9c1d9c0a7be2463d", _END_MS, 1)),
    ),
    row(
        513, "moderation.unban", UnbanUser, (_room, user_id, _reason), SanctionDone, _done,
        "Let a user come back.",
        scope=Scope.MODERATION_WRITE, roles=STAFF, rate=_RATE, errors=_ERRORS,
        example=(UnbanUser("live-1", "ann"), SanctionDone("ac1d9c0a7be2463d")),
    ),
    row(
        514, "moderation.list", ListSanctions, (_room, optional(user_id), optional(boolean), page_size, cursor),
        SanctionPage, record(SanctionPage, (array_of(_view, 1000), cursor)),
        "Return sanctions, the newest first.",
        scope=Scope.MODERATION_READ, roles=STAFF, changes=False,
        example=(
            ListSanctions("live-1"),
            SanctionPage((
                SanctionView(
                    "7c1d9c0a7be2463d", SanctionVerb.MUTE, "live-1", "ann", _END_MS, "spam", "mod", Role.MODERATOR,
                    1_790_000_000_000, False, True, 1_790_086_400_000,
                ),
            )),
        ),
    ),
    row(
        515, "moderation.undo", UndoSanction, (_action, _reason), SanctionDone, _done,
        "Undo an action on a sanction.",
        scope=Scope.MODERATION_WRITE, roles=STAFF, rate=_RATE,
        errors=(*_ERRORS, ErrorCode.UNKNOWN_ACTION, ErrorCode.STALE),
        example=(UndoSanction("7c1d9c0a7be2463d", "a mistake"), SanctionDone("7c1d9c0a7be2463d", 0, 1)),
    ),
    row(
        520, "moderation.set_modes", SetModes,
        (
            room_name, optional(integer(0, MAX_SLOW_S)), optional(integer(-1, MAX_FOLLOWERS_S)), _flag, _flag, _flag,
            _flag, _flag, optional(integer(0, MAX_DELAY_MS)),
        ),
        RoomModes, room_modes,
        "Set who may chat in a room, and how.",
        scope=Scope.MODERATION_WRITE, roles=STAFF, rate=_RATE,
        errors=(ErrorCode.OVERLOADED, ErrorCode.ROOM_ENDED),
        example=(SetModes("live-1", slow_s=10, links=False), RoomModes(slow_s=10, links=False)),
    ),
    row(
        521, "moderation.get_modes", GetModes, (room_name,), RoomModes, room_modes,
        "Return who may chat in a room, and how.",
        scope=Scope.MODERATION_READ, roles=STAFF, changes=False,
        example=(GetModes("live-1"), RoomModes(slow_s=10, links=False)),
    ),
)  # fmt: skip
