"""Handlers of the operations on rooms."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from math import ceil
from typing import Any

import trio

from broker.core.rooms.live_stats import RoomCounts
from broker.core.rooms.masking import NameMask
from broker.core.rooms.own_rules import RuleError, RuleValue, checked_rules, rules_in_force
from broker.core.rooms.policies import Policy
from broker.core.rooms.state import RoomState
from broker.core.rooms.stream import StoredEvent
from broker.core.tenants.names import plain_name
from broker.ledger.pending import PendingResult
from broker.operations.caller import Caller, OperationError
from broker.operations.kept import AGAIN_MS, ask
from broker.operations.parts import Handler, Parts, Recall
from broker.operations.results import PostResults
from broker.rooms.room import PostRef, Room
from broker.rooms.room_history import read_page
from protocol.codes import ErrorCode, Lane, LeaveReason, MessageType, Outcome, Role, RoomPhase
from protocol.fields import MAX_INT
from protocol.messages import AckResult, Post
from protocol.operations.rooms import (
    CloseRoom,
    EventView,
    GetRoom,
    HistoryPage,
    ListRooms,
    MemberSort,
    MembersPage,
    MemberView,
    OpenRoom,
    PinView,
    RoomHistoryRequest,
    RoomMembers,
    RoomPage,
    RoomRatesView,
    RoomSeries,
    RoomSort,
    RoomStats,
    RoomStatsRequest,
    RoomSummary,
    RoomView,
    RulesSet,
    SetPhase,
    SetRules,
)
from protocol.text import fits_room_pattern

__all__ = [
    "HANDLERS", "RECALLED", "events_of", "mask_for", "open_for", "pins_of", "raise_for", "room_of", "stats_of",
]  # fmt: skip

SLICE = 5000
"""Members that are read between two checkpoints of the event loop."""
MAX_HISTORY_BYTES = 512 * 1024
RATED = 5
"""The first so many counts of a room are returned as rates: what has come in."""
SHORTEST_WINDOW_S = 1.0
"""Over which the rates of a room are returned that was just opened."""


def open_for(parts: Parts, name: str, *, reopens: bool = True) -> Room:
    """Return the room, opened if need be. OperationError: ROOM_ENDED, TOO_MANY_ROOMS_OPEN, OVERLOADED."""
    opened = parts.hub.open(name, reopens=reopens)
    if isinstance(opened, ErrorCode):
        retry_after_ms = AGAIN_MS if opened is ErrorCode.OVERLOADED else 0
        raise OperationError(opened, "cannot be opened", "room", retry_after_ms)
    return opened


def room_of(parts: Parts, name: str) -> Room:
    """Return a room that is open, or whose stream goes on: it is opened then. UNKNOWN_ROOM
    otherwise.

    After a restart no room is open before a client joins it, and the platform goes on with it all the same. One that
    is being closed because it has crashed or is idle has not ended either.
    """
    room = parts.hub.find(name)
    goes_on = parts.hub.epoch_of(name) is not None if room is None else _comes_back(parts, room)
    return open_for(parts, name) if goes_on else parts.room(name)


def _comes_back(parts: Parts, room: Room) -> bool:
    """Return whether a room that is being closed is opened again with its stream."""
    if room.state.phase is not RoomPhase.ENDED or room.is_left_unused:
        return False
    return room.has_crashed or (parts.ledger is not None and room.ended[0] is not LeaveReason.ROOM_ENDED)


def raise_for(result: AckResult) -> None:
    """Raise OperationError for a result that is no acceptance."""
    if result.outcome is Outcome.LIMITED:
        raise OperationError(ErrorCode.RATE_LIMITED, "too many at a time", retry_after_ms=result.detail)
    if result.outcome is Outcome.UNAVAILABLE:
        raise OperationError(ErrorCode.OVERLOADED, "the ledger cannot take it now", retry_after_ms=result.detail)
    if result.outcome is Outcome.REJECTED:
        raise OperationError(ErrorCode(result.detail), "was refused by the room")


def plain_value(value: Any) -> Any:
    """Return a payload as it is on the wire: records as arrays, members of enumerations as numbers. Any: a payload."""
    if isinstance(value, (tuple, list)):
        return tuple(map(plain_value, value))
    if isinstance(value, Mapping):
        return {key: plain_value(each) for key, each in value.items()}
    return int(value) if isinstance(value, IntEnum) else value


def mask_for(room: Room, caller: Caller) -> NameMask | None:
    """Return the masks through which a caller sees the viewers of a room; None: it sees them as they are."""
    role = None if caller.is_backend else caller.role_in(room.name)
    return room.views.mask if role is not None and room.views.is_masked(role) else None


def pins_of(room: Room, mask: NameMask | None = None) -> tuple[PinView, ...]:
    """Return what is pinned in a room."""
    pinned = room.state.kept.pins.pinned if mask is None else map(mask.pinned, room.state.kept.pins.pinned)
    return tuple(PinView(*pin)._replace(type=int(pin.type), payload=plain_value(pin.payload)) for pin in pinned)


def view(room: Room, mask: NameMask | None = None) -> RoomView:
    """Return a room as clients of the control API see it, through masks where they must not know its viewers."""
    state = room.state
    counts, likes = state.counters.counts()
    return RoomView(
        room.name, state.phase, state.epoch, state.last_offset, room.opened_at_ms, counts.online, counts.users,
        counts.uniques, counts.peak, likes, round(state.interval_s * 1000), pins_of(room, mask),
        rules_in_force(state.policy), state.title, state.tags,
    )  # fmt: skip


async def _open(parts: Parts, caller: Caller, request: OpenRoom) -> RoomView:
    _check_rules(parts.hub.policy, request.rules or {})
    room = open_for(parts, request.room, reopens=request.reopen)
    durable = trio.Event()
    if room.journal.when_durable(durable.set):
        await durable.wait()
    if request.rules:
        _use_rules(room, request.rules)
    if request.title is not None:
        room.state.title = request.title
    if request.tags is not None:
        room.state.tags = tuple(dict.fromkeys(request.tags))
    if request.rules or request.title is not None or request.tags is not None:
        await _write_totals(room)
    return view(room)


def _check_rules(base: Policy, changes: Mapping[str, RuleValue | None]) -> None:
    """Raise OperationError where rules cannot be set."""
    try:
        checked_rules(base, {}, changes)
    except RuleError as error:
        raise _rule_refused(error) from None


def _rule_refused(error: RuleError) -> OperationError:
    return OperationError(ErrorCode.BAD_FIELD, error.why, f"rules.{error.rule}" if error.rule else "rules")


def _use_rules(room: Room, changes: Mapping[str, RuleValue | None]) -> None:
    """Set rules of a room; OperationError where they cannot be set."""
    try:
        room.set_rules(changes)
    except RuleError as error:
        raise _rule_refused(error) from None


async def _write_totals(room: Room) -> None:
    """Wait until rules, title and tags of a room are durable; OperationError OVERLOADED where they cannot be now."""
    written = PendingResult[bool]()
    room.journal.write_totals(written.set)
    if not await written.wait():
        rule = "the change holds, but cannot be made durable now"
        raise OperationError(ErrorCode.OVERLOADED, rule, retry_after_ms=AGAIN_MS)


async def _set_rules(parts: Parts, caller: Caller, request: SetRules) -> RulesSet:
    room = room_of(parts, request.room)
    if room.state.phase is RoomPhase.ENDED:
        raise OperationError(ErrorCode.ROOM_ENDED, "has ended", "room")
    applied_at_ms = parts.unix_ms()
    _use_rules(room, request.rules)
    await _write_totals(room)
    return RulesSet(rules_in_force(room.state.policy), applied_at_ms)


def _get(parts: Parts, caller: Caller, request: GetRoom) -> RoomView:
    room = room_of(parts, request.room)
    return view(room, mask_for(room, caller))


def _list(parts: Parts, caller: Caller, request: ListRooms) -> RoomPage:
    by_online = request.sort is RoomSort.ONLINE
    after = _room_cursor(request.cursor, by_online)

    def place(room: Room) -> tuple[int, str]:
        return -room.state.online if by_online else 0, plain_name(room.name)

    def matching() -> Iterator[Room]:
        for room in parts.hub:
            name = room.name
            fits = fits_room_pattern(request.pattern, name) and place(room) > after
            fits = fits and (request.tag is None or request.tag in room.state.tags)
            if fits and request.phase in (None, room.state.phase) and caller.role_in(name) is not None:
                yield room

    found = heapq.nsmallest(request.limit + 1, matching(), key=place)
    items = tuple(
        RoomSummary(room.name, room.state.phase, counts.online, counts.peak, likes, room.state.title, room.state.tags)
        for room in found[: request.limit]
        for counts, likes in (room.state.counters.counts(),)
    )
    if len(found) <= request.limit:
        return RoomPage(items, None)
    name = plain_name(items[-1].room)
    return RoomPage(items, f"{items[-1].online}:{name}" if by_online else name)


def _room_cursor(cursor: str | None, by_online: bool) -> tuple[int, str]:
    """Return the place after which a page of rooms begins."""
    if not by_online or cursor is None:
        return (-MAX_INT if by_online else 0), cursor or ""
    online, name = _numbered_cursor(cursor)
    return -online, name


async def _set_phase(parts: Parts, caller: Caller, request: SetPhase) -> RoomView:
    room = room_of(parts, request.room)
    if room.state.phase is RoomPhase.ENDED:
        raise OperationError(ErrorCode.ROOM_ENDED, "has ended", "room")
    results = PostResults()
    author = results.author(parts.types, caller.id, caller.name)
    post = Post(MessageType.ROOM_PHASE, caller.post_id, (int(request.phase),))
    room.post(author, results.expect(), post, parts.clock())
    (result,) = await results.wait()
    raise_for(result)
    return view(room)


async def _close(parts: Parts, caller: Caller, request: CloseRoom) -> RoomView:
    return await _set_phase(parts, caller, SetPhase(request.room, RoomPhase.ENDED, request.reason))


async def _members(parts: Parts, caller: Caller, request: RoomMembers) -> MembersPage:
    room = room_of(parts, request.room)
    by_joined = request.sort is MemberSort.JOINED
    order = _by_joined if by_joined else _by_role
    after = _member_cursor(request.cursor, by_joined)
    users: dict[str, MemberView] = {}
    for count, member in enumerate(room.members.all(), 1):
        is_asked_for = member.index >= 0 and member.role is not Role.APP and request.role in (None, member.role)
        is_shown = caller.is_backend or member.user_id == caller.id
        if is_asked_for and (is_shown or not room.views.is_hidden(plain_name(member.user_id))):
            links, joined_at_ms = 1, member.joined_at_ms
            known = users.get(member.user_id)
            if known is not None:
                links, joined_at_ms = known.links + 1, min(known.joined_at_ms, joined_at_ms)
            users[member.user_id] = MemberView(member.user_id, member.name, member.role, links, joined_at_ms)
        if count % SLICE == 0:
            await trio.lowlevel.checkpoint()
    following = (each for each in users.values() if order(each) > after)
    found = heapq.nsmallest(request.limit + 1, following, key=order)
    items = tuple(found[: request.limit])
    cursor = None
    if len(found) > request.limit:
        place, user = order(items[-1])
        cursor = f"{abs(place)}:{user}"
    counts, _ = room.state.counters.counts()
    return MembersPage(items, cursor, counts.online, counts.users)


def _by_role(member: MemberView) -> tuple[int, str]:
    return -member.role, member.user


def _by_joined(member: MemberView) -> tuple[int, str]:
    return member.joined_at_ms, member.user


def _member_cursor(cursor: str | None, by_joined: bool) -> tuple[int, str]:
    """Return the place after which a page of members begins."""
    if cursor is None:
        return (-1 if by_joined else -len(Role)), ""
    place, user = _numbered_cursor(cursor)
    return (place if by_joined else -place), user


def _numbered_cursor(cursor: str) -> tuple[int, str]:
    """Return the number and the name of a cursor; OperationError where it has no number."""
    number, _, name = cursor.partition(":")
    if not (number.isascii() and number.isdecimal() and len(number) <= 16):
        raise OperationError(ErrorCode.BAD_FIELD, "is no cursor of this operation", "cursor")
    return int(number), name


async def _history(parts: Parts, caller: Caller, request: RoomHistoryRequest) -> HistoryPage:
    room = room_of(parts, request.room)
    epoch, last = room.state.epoch, room.state.last_offset
    stop = min(request.after + request.limit, last)
    events = await events_of(parts, room, request.after, stop)
    if events:
        stop = events[-1].offset
    wanted = None if request.types is None else frozenset(request.types)
    if not caller.is_backend and caller.role_in(request.room) is not Role.APP:
        tags = room.views.tags_of_user(caller.id, caller.tags)
        events = None if events is None else room.views.addressed_to(tags, events)
    items = tuple(_event_view(each) for each in events or () if wanted is None or each.event.type in wanted)
    return HistoryPage(items, epoch, last, events is None, stop if stop < last else None)


async def events_of(parts: Parts, room: Room, after: int, last: int) -> Sequence[StoredEvent] | None:
    """Return the events ``after + 1`` to ``last`` of a room, deleted ones redacted; None where they are not kept.

    Those in the ledger have `MAX_HISTORY_BYTES`, so that fewer may come, and at least one.
    """
    if after >= last:
        return ()
    epoch = room.state.epoch
    stored = room.missing(epoch, after, parts.clock())
    if stored is not None:
        return stored[: last - after]
    if parts.ledger is None:
        return None
    return await ask(parts.ledger, read_page, room.name, epoch, after, last, MAX_HISTORY_BYTES)


def _event_view(stored: StoredEvent) -> EventView:
    offset, lane, event, audience = stored
    payload = plain_value(event.payload)
    return EventView(offset, int(lane), int(event.type), event.at_ms, event.user_id, event.name, payload, audience)


def _stats(parts: Parts, caller: Caller, request: RoomStatsRequest) -> RoomStats:
    room = room_of(parts, request.room)
    rates = _rates(room.state, request.window_s, parts.clock())
    return stats_of(parts, room, request.seconds)._replace(rates=rates)


def stats_of(parts: Parts, room: Room, seconds: int | None) -> RoomStats:
    """Return the counters of a room, and its last ``seconds`` one by one; None = without them."""
    state = room.state
    counts, likes = state.counters.counts()
    accounts = zip(Lane, state.counters.accounts(), strict=True)
    lanes = {lane.name.lower(): account._asdict() for lane, account in accounts}
    return RoomStats(
        room.name, counts.online, counts.users, counts.uniques, counts.peak, likes, lanes, int(state.stage),
        ceil(state.interval_s * 1000), series=_series(parts, state, seconds),
    )  # fmt: skip


def _rates(state: RoomState[PostRef], window_s: int | None, now: float) -> RoomRatesView | None:
    if window_s is None:
        return None
    lasted_s, counts = state.counters.lately(window_s, now)
    lasted_s = max(lasted_s, SHORTEST_WINDOW_S)
    rates = (round(max(0, count) / lasted_s, 3) for count in counts[:RATED])
    return RoomRatesView(round(lasted_s * 1000), *rates)


def _series(parts: Parts, state: RoomState[PostRef], count: int | None) -> RoomSeries | None:
    """Return the last seconds of a room. A gift that the ledger has refused is taken out of what came in: no second
    has less than none."""
    if count is None:
        return None
    live = state.counters.live
    seconds = live.seconds(count)
    until_ms = parts.unix_ms() - round((parts.clock() - live.taken) * 1000)
    online = tuple(each.online for each in seconds)
    columns = zip(*(each.counts for each in seconds), strict=True) if seconds else ((),) * len(RoomCounts._fields)
    return RoomSeries(until_ms, online, *(tuple(max(0, each) for each in column) for column in columns))


def _phase_again(parts: Parts, room: str, offset: int) -> RoomView:
    return view(room_of(parts, room))


RECALLED: dict[str, Recall] = {"rooms.set_phase": _phase_again}
HANDLERS: dict[str, Handler] = {
    "rooms.open": _open,
    "rooms.set_rules": _set_rules,
    "rooms.get": _get,
    "rooms.list": _list,
    "rooms.set_phase": _set_phase,
    "rooms.close": _close,
    "rooms.members": _members,
    "rooms.history": _history,
    "rooms.stats": _stats,
}
