"""Operations on rooms: their records and rows."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

from ..activities.audiences import Audience, audience
from ..codes import ErrorCode, Role, RoomPhase
from ..fields import (
    FieldError,
    any_value,
    array_of,
    boolean,
    described,
    display_name,
    integer,
    map_of,
    member_id,
    name_of,
    optional,
    record,
    room_name,
    room_pattern,
    text,
    user_id_or_empty,
)
from ..messages import MAX_PINS
from .rows import (
    DIRECTION,
    EVERY_MEMBER,
    LOGGED_IN,
    PLATFORM,
    STAFF,
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
    "ROWS",
    "CloseRoom",
    "EventView",
    "GetRoom",
    "HistoryPage",
    "ListRooms",
    "MemberSort",
    "MemberView",
    "MembersPage",
    "OpenRoom",
    "PinView",
    "RoomHistoryRequest",
    "RoomMembers",
    "RoomPage",
    "RoomRatesView",
    "RoomSeries",
    "RoomSort",
    "RoomStats",
    "RoomStatsRequest",
    "RoomSummary",
    "RoomView",
    "RulesSet",
    "SetPhase",
    "SetRules",
]

MAX_SECONDS = 900
"""Seconds of live statistics that a room keeps."""
_count = integer(0)
_reason = text(0, 256)


class OpenRoom(NamedTuple):
    """Open a room, or find it open. ``reopen``: also one that was ended; ``rules``: as in `SetRules`.

    ``title`` and ``tags`` replace those of the room, "" and [] remove them; null = as they are. A tag that is there
    twice counts once.
    """

    room: str
    reopen: bool = True
    rules: dict[str, float | bool | None] | None = None
    title: str | None = None
    tags: tuple[str, ...] | None = None


class GetRoom(NamedTuple):
    """Name an open room."""

    room: str


class PinView(NamedTuple):
    """One pinned message; the fields mean what they do in the wire's PinnedMessage, ``user`` is its author."""

    id: str
    type: int
    payload: Any
    user: str
    name: str
    at_ms: int
    expires_at_ms: int = 0
    offset: int = 0


class RoomView(NamedTuple):
    """One open room. ``uniques``: an estimate; ``pinned``: pinned messages, oldest pin first; ``rules``: in
    force here, null = no limit."""

    room: str
    phase: RoomPhase
    epoch: int
    last_offset: int
    opened_at_ms: int
    online: int
    users: int
    uniques: int
    peak: int
    likes: int
    tick_ms: int
    pinned: tuple[PinView, ...] = ()
    rules: dict[str, float | bool | None] | None = None
    title: str = ""
    tags: tuple[str, ...] = ()


class RoomSort(IntEnum):
    """Order of a list of rooms: by name, or those with the most connections first."""

    NAME = 0
    ONLINE = 1


class ListRooms(NamedTuple):
    """Ask for open rooms: a name, the beginning of one with ``*``, or ``*``. ``tag``: only rooms that have it.

    By ``online``, a room whose number changes between two pages may come twice or not at all.
    """

    pattern: str = "*"
    phase: RoomPhase | None = None
    limit: int = 100
    cursor: str | None = None
    sort: RoomSort = RoomSort.NAME
    tag: str | None = None


class RoomSummary(NamedTuple):
    """One line of a list of rooms."""

    room: str
    phase: RoomPhase
    online: int
    peak: int
    likes: int
    title: str = ""
    tags: tuple[str, ...] = ()


class RoomPage(NamedTuple):
    """A page of rooms. ``next``: cursor of the following page, null = the end."""

    items: tuple[RoomSummary, ...]
    next: str | None


class SetPhase(NamedTuple):
    """Pause, resume or end a room."""

    room: str
    phase: RoomPhase
    reason: str = ""


class SetRules(NamedTuple):
    """Set rules of one room, under the names that the configuration has; null = as the broker has it.

    What is left out stays as it is. Rules hold at once, until the room is ended.
    """

    room: str
    rules: dict[str, float | bool | None]


class RulesSet(NamedTuple):
    """Rules in force now, null = no limit."""

    rules: dict[str, float | bool | None]
    applied_at_ms: int


class CloseRoom(NamedTuple):
    """End a room; its members leave with the reason."""

    room: str
    reason: str = ""


class MemberSort(IntEnum):
    """Order of a list of members: the highest role first, or those first who joined first; then by user id."""

    ROLE = 0
    JOINED = 1


class RoomMembers(NamedTuple):
    """Ask for the members of a room. ``role``: only these."""

    room: str
    role: Role | None = None
    limit: int = 100
    cursor: str | None = None
    sort: MemberSort = MemberSort.ROLE


class MemberView(NamedTuple):
    """A user in a room. ``links``: connections there; ``joined_at_ms``: when the oldest of them joined. A connection
    that resumes joins anew.
    """

    user: str
    name: str
    role: Role
    links: int
    joined_at_ms: int = 0


class MembersPage(NamedTuple):
    """A page of members, in the order that was asked for."""

    items: tuple[MemberView, ...]
    next: str | None
    online: int
    users: int


class RoomHistoryRequest(NamedTuple):
    """Ask for events of lanes 0 to 2 after an offset of the present epoch. ``types``: only these."""

    room: str
    after: int = 0
    limit: int = 100
    types: tuple[int, ...] | None = None


class EventView(NamedTuple):
    """One event of a room's stream. ``audience``: the part of the room that it is for, null = all; viewers do not
    learn it."""

    offset: int
    lane: int
    type: int
    at_ms: int
    user: str
    name: str
    payload: Any
    audience: Audience | None = None


class HistoryPage(NamedTuple):
    """Events in the order of their offsets.

    ``gap``: whether events after ``after`` are not kept any more; ``last_offset``: of the stream; ``next``: what to ask
    after for the following page, null = the end.
    """

    items: tuple[EventView, ...]
    epoch: int
    last_offset: int
    gap: bool
    next: int | None = None


class RoomStatsRequest(NamedTuple):
    """Ask for a room's counters. ``window_s``: 60 or 900, also for its rates over so many seconds; ``seconds``: 1 to
    900, also for what happened in each of the last so many."""

    room: str
    window_s: int | None = None
    seconds: int | None = None


class RoomRatesView(NamedTuple):
    """What came into a room a second, refused messages not counted: all but likes, of lane 3 (danmaku), of lane 2
    (gifts), users and guests who came in, and likes.

    ``window_ms``: over how long; up to a second more than was asked for, or less in a room that was opened since then.
    """

    window_ms: int
    messages_per_s: float
    danmaku_per_s: float
    gifts_per_s: float
    joins_per_s: float
    likes_per_s: float


class RoomSeries(NamedTuple):
    """What happened in each of the last seconds, the oldest first; all arrays have one number a second.

    ``until_ms``: when the last of them ended; fewer than were asked for where the room was opened since then, or where
    the broker is too busy to keep more. ``online``: connections at the end of each; the others count what came in, as
    in `RoomRatesView`, and what became of the danmaku: shown, merged into equal ones, or left out (sampled, expired).
    """

    until_ms: int
    online: tuple[int, ...]
    messages: tuple[int, ...]
    danmaku: tuple[int, ...]
    gifts: tuple[int, ...]
    joins: tuple[int, ...]
    likes: tuple[int, ...]
    shown: tuple[int, ...]
    merged: tuple[int, ...]
    left_out: tuple[int, ...]


class RoomStats(NamedTuple):
    """Counters of one room since it was opened. ``lanes``: by lane and result, see Account in SPEC.md."""

    room: str
    online: int
    users: int
    uniques: int
    peak: int
    likes: int
    lanes: dict[str, dict[str, int]]
    stage: int
    tick_ms: int
    rates: RoomRatesView | None = None
    series: RoomSeries | None = None


_phase = name_of(RoomPhase)


def _check_rule(value: Any) -> Any:
    if value is None or type(value) is bool or (type(value) in (int, float) and 0 <= value <= 1_000_000):
        return value
    raise FieldError("must be a number from 0 to 1,000,000, true, false or null")


_rule = described(
    _check_rule,
    "number or boolean or nil",
    {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1_000_000}, {"type": "boolean"}, {"type": "null"}]},
)
_rules = map_of(text(1, 32), _rule, 32)


def _check_window(value: Any) -> Any:
    if type(value) is int and value in (60, 900):
        return value
    raise FieldError("must be 60 or 900")


def _check_not_negative(value: Any) -> Any:
    if type(value) in (int, float) and value >= 0:
        return value
    raise FieldError("must be a number that is not below 0")


_window_s = described(_check_window, "integer 60 or 900", {"type": "integer", "enum": [60, 900]})
not_negative = described(_check_not_negative, "number 0..", {"type": "number", "minimum": 0})
_rates = record(RoomRatesView, (_count, *(not_negative,) * 5))
_seconds = array_of(_count, MAX_SECONDS)
_series = record(RoomSeries, (_count, *(_seconds,) * 9))
_title = text(0, 128)
_tag = text(1, 32)
_tags = array_of(_tag, 16)
_rules_set = record(RulesSet, (_rules, _count))
pin_view = record(PinView, (text(1, 64), integer(1, 255), any_value, text(0, 64), text(0, 64), _count, _count, _count))
"""Rule of one pinned message."""
_view = record(
    RoomView,
    (room_name, _phase, *(_count,) * 9, array_of(pin_view, MAX_PINS), optional(_rules), _title, _tags),
)
_summary = record(RoomSummary, (room_name, _phase, _count, _count, _count, _title, _tags))
_rooms = record(RoomPage, page_of(_summary))
_member = record(MemberView, (member_id, display_name, name_of(Role), _count, _count))
_members = record(MembersPage, (*page_of(_member), _count, _count))
_event = record(
    EventView,
    (_count, integer(0, 2), integer(1, 255), _count, user_id_or_empty, display_name, any_value, optional(audience)),
)
_history = record(HistoryPage, (array_of(_event, 1000), _count, _count, boolean, optional(_count)))
_stats = record(
    RoomStats,
    (
        room_name, _count, _count, _count, _count, _count,
        map_of(text(1, 16), map_of(text(1, 16), _count, 8), 5), integer(0, 4), _count,
        optional(_rates), optional(_series),
    ),
)  # fmt: skip

_EXAMPLE_VIEW = RoomView("live-1", RoomPhase.LIVE, 7, 0, 1_790_000_000_000, 0, 0, 0, 0, 0, 100)
_READ = RateLimit(20, 40)

ROWS: tuple[OperationRow, ...] = (
    row(
        1, "rooms.open", OpenRoom, (room_name, boolean, optional(_rules), optional(_title), optional(_tags)), RoomView,
        _view, "Open a room, or return it if it is open, and set its rules, title and tags.",
        speaks=lambda request: bool(request.title or request.tags),
        scope=Scope.ROOMS_WRITE, roles=DIRECTION, durable=True, rate=RateLimit(50, 200),
        errors=(ErrorCode.ROOM_ENDED, ErrorCode.TOO_MANY_ROOMS_OPEN),
        example=(
            OpenRoom("live-1", title="Evening sale", tags=("beauty",)),
            _EXAMPLE_VIEW._replace(title="Evening sale", tags=("beauty",)),
        ),
    ),
    row(
        9, "rooms.set_rules", SetRules, (room_name, _rules), RulesSet, _rules_set,
        "Set limits of one room, in place of the broker's.",
        scope=Scope.ROOMS_WRITE, roles=DIRECTION, durable=True,
        errors=(ErrorCode.UNKNOWN_ROOM, ErrorCode.ROOM_ENDED, ErrorCode.OVERLOADED),
        example=(
            SetRules("live-1", {"user_chat_per_s": 0.2, "merge": None}),
            RulesSet({"user_chat_per_s": 0.2, "merge": True}, 1_790_000_000_000),
        ),
    ),
    row(
        2, "rooms.get", GetRoom, (room_name,), RoomView, _view, "Return one open room.",
        scope=Scope.ROOMS_READ, roles=EVERY_MEMBER, joined=True, rate=_READ, changes=False,
        errors=(ErrorCode.UNKNOWN_ROOM,),
        example=(GetRoom("live-1"), _EXAMPLE_VIEW),
    ),
    row(
        3, "rooms.list", ListRooms,
        (room_pattern, optional(_phase), page_size, cursor, name_of(RoomSort), optional(_tag)), RoomPage, _rooms,
        "List open rooms by name, or by the number of connections.",
        scope=Scope.ROOMS_READ, roles=PLATFORM, rate=_READ, changes=False,
        example=(
            ListRooms("live-*"),
            RoomPage((RoomSummary("live-1", RoomPhase.LIVE, 0, 0, 0),), None),
        ),
    ),
    row(
        4, "rooms.set_phase", SetPhase, (room_name, _phase, _reason), RoomView, _view, "Pause, resume or end a room.",
        scope=Scope.ROOMS_WRITE, roles=DIRECTION, key=KeyUse.OPTIONAL, durable=True,
        errors=(ErrorCode.UNKNOWN_ROOM, ErrorCode.ROOM_ENDED),
        example=(SetPhase("live-1", RoomPhase.PAUSED), _EXAMPLE_VIEW._replace(phase=RoomPhase.PAUSED, last_offset=1)),
    ),
    row(
        5, "rooms.close", CloseRoom, (room_name, _reason), RoomView, _view, "End a room for its members.",
        scope=Scope.ROOMS_WRITE, roles=DIRECTION, durable=True, errors=(ErrorCode.UNKNOWN_ROOM,),
        example=(CloseRoom("live-1"), _EXAMPLE_VIEW._replace(phase=RoomPhase.ENDED, last_offset=1)),
    ),
    row(
        6, "rooms.members", RoomMembers,
        (room_name, optional(name_of(Role)), page_size, cursor, name_of(MemberSort)), MembersPage, _members,
        "List the users in a room, by role or by when they joined.",
        scope=Scope.ROOMS_READ, roles=LOGGED_IN, joined=True, rate=_READ, changes=False,
        errors=(ErrorCode.UNKNOWN_ROOM,),
        example=(
            RoomMembers("live-1"),
            MembersPage((MemberView("ann", "Ann", Role.VIEWER, 1, 1_790_000_000_000),), None, 1, 1),
        ),
    ),
    row(
        7, "rooms.history", RoomHistoryRequest,
        (room_name, _count, page_size, optional(array_of(integer(1, 255), 32))), HistoryPage, _history,
        "Return events of lanes 0 to 2 after an offset.",
        scope=Scope.ROOMS_READ, roles=LOGGED_IN, joined=True, rate=_READ, changes=False,
        errors=(ErrorCode.UNKNOWN_ROOM,),
        example=(
            RoomHistoryRequest("live-1"),
            HistoryPage((EventView(1, 0, 4, 1_790_000_000_000, "max", "Max", ("欢迎",)),), 7, 1, False),
        ),
    ),
    row(
        8, "rooms.stats", RoomStatsRequest,
        (room_name, optional(_window_s), optional(integer(1, MAX_SECONDS))), RoomStats, _stats,
        "Return the counters of a room, its rates, and its last seconds one by one.",
        scope=Scope.ROOMS_READ, roles=STAFF, rate=_READ, changes=False, errors=(ErrorCode.UNKNOWN_ROOM,),
        example=(
            RoomStatsRequest("live-1", 60, 2),
            RoomStats(
                "live-1", 1, 1, 1, 1, 0, {"chat": {"admitted": 2, "shown": 2}}, 0, 100,
                RoomRatesView(60_000, 0.033, 0.033, 0, 0.017, 0),
                RoomSeries(
                    1_790_000_060_000, (1, 1), (0, 2), (0, 2), (0, 0), (0, 0), (0, 0), (0, 2), (0, 0), (0, 0)
                ),
            ),
        ),
    ),
)  # fmt: skip
