"""Operations on users: their records and rows."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

from ..activities.moderation import SanctionKind
from ..codes import ErrorCode
from ..fields import (
    any_value,
    array_of,
    boolean,
    integer,
    map_of,
    name_of,
    optional,
    record,
    room_name,
    text,
    user_id,
)
from .rows import DIRECTION, MAX_PAGE, NEEDS_LEDGER, PLATFORM, OperationRow, RateLimit, Scope, page_size, row

__all__ = [
    "ROWS",
    "DisconnectUser",
    "DisconnectedUser",
    "EraseStarted",
    "EraseStateRequest",
    "EraseUser",
    "ErasureState",
    "ErasureStatus",
    "ExportKind",
    "ExportUser",
    "ExportedItem",
    "GetUser",
    "KickUser",
    "Kicked",
    "Preferences",
    "SetPreferences",
    "SetTags",
    "UserExport",
    "UserLink",
    "UserSanction",
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
    websocket_json or event_stream; ``id``: for users.disconnect, of this process alone."""

    address: str
    transport: str
    rooms: tuple[str, ...]
    agent: str = ""
    since_ms: int = 0
    id: str = ""


class Visibility(IntEnum):
    """Whether other members see a user; the broker keeps it for the platform."""

    VISIBLE = 0
    HIDDEN = 1


class Preferences(NamedTuple):
    """Preferences of a user; null = not set. ``marketing`` false: no marketing message reaches the user, also none that
    waits; ``recommendation`` false: none that is for an audience, which is chosen by the tags of users."""

    marketing: bool | None = None
    recommendation: bool | None = None
    visibility: Visibility | None = None


class UserSanction(NamedTuple):
    """What a user may not do. ``room``: null = in no room; ``until_ms``: 0 = without an end."""

    kind: SanctionKind
    room: str | None
    until_ms: int
    reason: str
    shadow: bool = False


class UserView(NamedTuple):
    """Open connections of a user, the rooms they are in, and what the platform has set for the user."""

    user: str
    links: tuple[UserLink, ...]
    rooms: tuple[str, ...]
    preferences: Preferences = Preferences()
    tags: tuple[str, ...] = ()
    sanctions: tuple[UserSanction, ...] = ()


class DisconnectUser(NamedTuple):
    """End all connections of a user, or one. ``reconnect``: whether its clients may come back by themselves; ``link``:
    id of the one to end, as users.get says it, null = all."""

    user: str
    reason: str = ""
    reconnect: bool = False
    link: str | None = None


class DisconnectedUser(NamedTuple):
    """How many connections were ended."""

    links: int


class KickUser(NamedTuple):
    """Remove a user from one room. ``ban_s``: and ban it for so long, as moderation.ban does; 0 = lift a ban,
    null = it may come back."""

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


class ExportKind(IntEnum):
    """What an item of an export is."""

    PREFERENCE = 0
    TAGS = 1
    REVOCATION = 2
    """The user's tokens that were issued before ``at_ms`` are revoked."""
    SANCTION = 3
    """A sanction of the user that is in force, or has ended lately."""
    KEY = 4
    """A key of a room that the user owns."""
    DIRECT = 5
    """A must-deliver message to the user."""
    EVENT = 6
    """An event of a room by the user, or a gift that the user gave."""
    SANCTION_ACTION = 7
    """What was done lately about a sanction of the user."""
    HELD = 8
    """A message of the user that was held for review, whatever was decided."""
    REPORT = 9
    """A report of the user about a message of another one; ``data``: its reason."""
    MESSAGE = 10
    """A message of a conversation that the user has sent; ``about``: id of the conversation."""


class ExportUser(NamedTuple):
    """Ask for what the broker keeps on a user. ``cursor``: ``next`` of the page before."""

    user: str
    limit: int = 100
    cursor: str | None = None


class ExportedItem(NamedTuple):
    """One thing that the broker keeps on a user. ``id``: number of a message to the user, offset of an event, name of a
    key or preference; ``about``: what else there is, by name; ``type``: of a message or an event; ``data``: its
    content, null for an event that was deleted."""

    kind: ExportKind
    room: str | None = None
    id: str = ""
    at_ms: int = 0
    about: dict[str, Any] = {}  # noqa: RUF012 - never changed
    type: int | None = None
    data: Any = None


class UserExport(NamedTuple):
    """A page of an export; it may be empty. ``next``: cursor of the next page, null = the end."""

    items: tuple[ExportedItem, ...]
    next: str | None = None


class EraseUser(NamedTuple):
    """Erase a user: everything that the broker keeps on it. ``confirm``: the user id again."""

    user: str
    confirm: str


class EraseStarted(NamedTuple):
    """The job that erases the user; of a user that is being erased, the one that does it."""

    job: str


class EraseStateRequest(NamedTuple):
    """Name an erasure."""

    job: str


class ErasureState(IntEnum):
    """How far an erasure is."""

    REDACTING = 0
    """It is being removed."""
    SCRUBBING = 1
    """The broker and later backups do not have it any more; bytes of it may be left in unused parts of the ledger's
    file."""
    DONE = 2
    """Nothing of it is left in the file."""


class ErasureStatus(NamedTuple):
    """An erasure. ``entries``: of the ledger that were redacted so far; ``done_at_ms``: 0 = it is not done yet."""

    job: str
    state: ErasureState
    asked_at_ms: int
    entries: int
    done_at_ms: int = 0


_address = text(0, 64)
_rooms = array_of(room_name, 1000)
_link = record(UserLink, (_address, text(1, 16), _rooms, text(0, 128), integer(0), text(0, 32)))
_PREFERENCE_RULES = optional(boolean), optional(boolean), optional(name_of(Visibility))
_preferences = record(Preferences, _PREFERENCE_RULES)
_tags = array_of(text(1, 64), MAX_TAGS)
_sanction = record(UserSanction, (name_of(SanctionKind), optional(room_name), integer(0), text(0, 256), boolean))
_view = record(
    UserView, (user_id, array_of(_link, MAX_LINKS), _rooms, _preferences, _tags, array_of(_sanction, 1000))
)  # fmt: skip
_disconnected = record(DisconnectedUser, (integer(0),))
_kicked = record(Kicked, (integer(0),))

_job = text(1, 64)
_erasure = record(ErasureStatus, (_job, name_of(ErasureState), integer(0), integer(0), integer(0)))

_export_cursor = optional(text(1, 1024))
_about = map_of(text(1, 32), any_value, 16)
_exported = record(
    ExportedItem,
    (name_of(ExportKind), optional(room_name), text(0, 128), integer(0), _about, optional(integer(1, 255)), any_value),
)


ROWS: tuple[OperationRow, ...] = (
    row(
        40, "users.get", GetUser, (user_id,), UserView, _view, "Return the open connections of a user.",
        scope=Scope.USERS_READ, roles=PLATFORM, rate=RateLimit(50, 100), changes=False,
        example=(GetUser("ann"), UserView("ann", (UserLink("203.0.113.*", "websocket", ("live-1",)),), ("live-1",))),
    ),
    row(
        41, "users.disconnect", DisconnectUser, (user_id, _reason, boolean, optional(text(1, 32))),
        DisconnectedUser, _disconnected,
        "End all connections of a user, or one of them.",
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
        scope=Scope.USERS_WRITE, roles=PLATFORM, durable=True, rate=RateLimit(50, 100), errors=NEEDS_LEDGER,
        example=(SetPreferences("ann", marketing=False), Preferences(False, None, Visibility.VISIBLE)),
    ),
    row(
        45, "users.set_tags", SetTags, (user_id, _tags), UserTags, record(UserTags, (_tags,)),
        "Set the tags of a user.",
        scope=Scope.USERS_WRITE, roles=PLATFORM, durable=True, rate=RateLimit(50, 100), errors=NEEDS_LEDGER,
        example=(SetTags("ann", ("gold",)), UserTags(("gold",))),
    ),
    row(
        46, "users.export", ExportUser, (user_id, page_size, _export_cursor), UserExport,
        record(UserExport, (array_of(_exported, MAX_PAGE), _export_cursor)),
        "Return everything that the broker keeps on a user.",
        scope=Scope.USERS_READ, roles=PLATFORM, rate=RateLimit(50, 100), changes=False, at_once=2, errors=NEEDS_LEDGER,
        example=(
            ExportUser("ann"),
            UserExport((
                ExportedItem(ExportKind.TAGS, at_ms=1_790_000_000_000, data=("gold",)),
                ExportedItem(
                    ExportKind.SANCTION, "live-1", "", 1_790_000_000_000,
                    {"until_ms": 0, "shadow": False, "sanction": "ban", "reason": "spam", "by": "mod"},
                ),
            )),
        ),
    ),
    row(
        47, "users.erase", EraseUser, (user_id, user_id), EraseStarted, record(EraseStarted, (_job,)),
        "Erase everything that the broker keeps on a user.",
        scope=Scope.USERS_WRITE, roles=PLATFORM, durable=True, rate=RateLimit(10, 100), errors=NEEDS_LEDGER,
        example=(EraseUser("ann", "ann"), EraseStarted("5f1d9c0a7be2463d")),
    ),
    row(
        48, "users.erase_state", EraseStateRequest, (_job,), ErasureStatus, _erasure,
        "Return how far an erasure is.",
        scope=Scope.USERS_READ, roles=PLATFORM, rate=RateLimit(50, 100), changes=False, errors=NEEDS_LEDGER,
        example=(
            EraseStateRequest("5f1d9c0a7be2463d"),
            ErasureStatus("5f1d9c0a7be2463d", ErasureState.DONE, 1_790_000_000_000, 37, 1_790_000_004_000),
        ),
    ),
)  # fmt: skip
