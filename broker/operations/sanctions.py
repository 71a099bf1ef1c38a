"""Handlers of the operations on sanctions, and what they bring about on open links."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import trio

from broker.core.moderation.sanctions import Sanction, SanctionAction, SanctionRefused, SanctionTable
from broker.core.tenants.names import plain_name, tenant_of
from broker.operations.caller import Caller, OperationError
from broker.operations.clearing import clear
from broker.operations.kept import AGAIN_MS
from broker.operations.parts import Handler, Parts
from broker.operations.results import PostResults
from broker.operations.rights import check_ban
from broker.operations.rooms import raise_for, room_of
from broker.rooms.room import Room
from broker.users.sanctions import verb_of
from protocol.activities.moderation import RoomModes, SanctionKind, SanctionVerb
from protocol.codes import CloseCode, ErrorCode, LeaveReason, Role, RoomPhase
from protocol.operations import STAFF
from protocol.operations.sanctions import (
    BanUser,
    GetModes,
    ListSanctions,
    MuteUser,
    SanctionDone,
    SanctionPage,
    SanctionView,
    SetModes,
    UnbanUser,
    UndoSanction,
    UnmuteUser,
)

__all__ = ["HANDLERS", "change_sanction", "check_target", "enforce"]

SLICE = 500
"""Sanctions that are looked at between two checkpoints of the event loop."""


async def _mute(parts: Parts, caller: Caller, request: MuteUser) -> SanctionDone:
    joined = _rooms_of(parts, request.room, request.user)
    done = await change_sanction(
        parts, caller, SanctionKind.MUTE, request.room, request.user, request.seconds, request.reason,
        is_shadow=request.shadow,
    )  # fmt: skip
    return await _cleared(parts, caller, request, done, joined) if request.clear else done


async def _unmute(parts: Parts, caller: Caller, request: UnmuteUser) -> SanctionDone:
    return await change_sanction(
        parts, caller, SanctionKind.MUTE, request.room, request.user, 0, request.reason
    )  # fmt: skip


async def _ban(parts: Parts, caller: Caller, request: BanUser) -> SanctionDone:
    joined = _rooms_of(parts, request.room, request.user)
    done = await change_sanction(
        parts, caller, SanctionKind.BAN, request.room, request.user, request.seconds, request.reason
    )
    return await _cleared(parts, caller, request, done, joined) if request.clear else done


async def _cleared(
    parts: Parts, caller: Caller, request: MuteUser | BanUser, done: SanctionDone, joined: Sequence[Room]
) -> SanctionDone:
    """Delete what a user who was sanctioned has posted, see `clear`."""
    names = [room.name for room in joined]
    return done._replace(cleared=await clear(parts, caller, request.room, request.user, request.reason, names))


async def _unban(parts: Parts, caller: Caller, request: UnbanUser) -> SanctionDone:
    return await change_sanction(parts, caller, SanctionKind.BAN, request.room, request.user, 0, request.reason)


async def change_sanction(
    parts: Parts,
    caller: Caller,
    kind: SanctionKind,
    room: str | None,
    user: str,
    seconds: int | None,
    reason: str,
    *,
    is_shadow: bool = False,
) -> SanctionDone:
    """Set a sanction of a user (qualified names), or lift it (0 ``seconds``; None: without an end), and let it hold on
    its open links. ``room`` None: in every room of the tenant. OperationError."""
    role = check_target(parts, caller, room, user)
    try:
        action = await parts.sanctions.change(
            kind, room or "", user, caller.id, role, seconds, reason, is_shadow=is_shadow
        )
    except SanctionRefused as refused:
        raise _refusal(refused) from None
    if action is None:
        return SanctionDone("")
    links = enforce(parts, action) + await parts.others.follow()
    return SanctionDone(action.id, 0 if action.after is None else action.after.until_ms, links)


def check_target(parts: Parts, caller: Caller, room: str | None, user: str) -> Role:
    """Return the caller's role where it may sanction a user; OperationError where the user is the caller itself, or has
    a role in the room that is not below the caller's."""
    role = Role.APP if caller.is_backend or room is None else caller.role_in(room)
    if room is not None:
        room_of(parts, room)
    if role is None or (not caller.is_backend and user == caller.user):
        raise OperationError(ErrorCode.NOT_ALLOWED, "must not be yourself", "user")
    members = [member for each in _rooms_of(parts, room, user) for member in each.own_links.members(plain_name(user))]
    if any(member.role >= role for member in members):
        raise OperationError(ErrorCode.NOT_ALLOWED, "has a role that is not below yours in this room", "user")
    return role


def _rooms_of(parts: Parts, room: str | None, user: str) -> list[Room]:
    """Return the rooms of a scope that are open: the room, or those that the user is in."""
    if room is not None:
        return [room_of(parts, room)]
    sessions: tuple[Any, ...] = parts.users.sessions(user)
    return list(dict.fromkeys(each.room for session in sessions for each in session.memberships))


def enforce(parts: Parts, action: SanctionAction) -> int:
    """Let a sanction hold on the open links of its user; return how many it concerns. O(links of the user)."""
    sessions: tuple[Any, ...] = parts.users.sessions(action.user)
    now_ms = parts.hub.trusted.continued_ms()
    links = 0
    for session in sessions:
        joined = [each for each in session.memberships if action.room in ("", each.room.name)]
        # The owner of a room counts the links in it, whichever node they have; a node its own ones elsewhere.
        links += any(isinstance(each.room, Room) for each in joined) if action.room else not session.is_remote
        for member in joined:
            room = member.room
            if action.kind is SanctionKind.MUTE or not isinstance(room, Room):  # else the room's owner does it
                continue
            ban = parts.hub.sanctions.find(action.kind, room.name, action.user, member.role, now_ms)
            if ban is not None:
                room.remove(member, LeaveReason.BANNED, ban.reason, parts.clock())
        if action.kind is SanctionKind.BAN and not action.room and not session.is_remote:
            role = session.grant.role
            ban = parts.hub.sanctions.find(action.kind, "", action.user, role, now_ms)
            if ban is not None:
                session.close(CloseCode.BANNED, ban.reason or "banned", ban.left_ms(now_ms))
    if action.kind is SanctionKind.MUTE and (_is_shown(action.before) or _is_shown(action.after)):
        for room in {each.room for session in sessions for each in session.memberships}:
            if isinstance(room, Room) and action.room in ("", room.name):
                room.own_links.show_mute(plain_name(action.user))
    return links


def _is_shown(sanction: Sanction | None) -> bool:
    return sanction is not None and not sanction.is_shadow


async def _undo(parts: Parts, caller: Caller, request: UndoSanction) -> SanctionDone:
    action = parts.sanctions.table.action(request.action)
    if action is None or tenant_of(action.user) != caller.tenant:
        raise OperationError(ErrorCode.UNKNOWN_ACTION, "names no action that can be undone", "action")
    role: Role | None = Role.APP
    if action.room:
        role = caller.role_in(action.room)
    elif Role.APP not in caller.roles or not caller.in_all_rooms:
        role = None
    if role not in STAFF or (not caller.is_backend and action.user == caller.user):
        raise OperationError(ErrorCode.NOT_ALLOWED, "is not for your role in its room", "action")
    check_ban(parts.hub.sanctions, caller, action.room, parts.hub.trusted.continued_ms())
    try:
        undone = await parts.sanctions.undo(request.action, caller.id, role)
    except SanctionRefused as refused:
        raise _refusal(refused) from None
    links = enforce(parts, undone) + await parts.others.follow()
    return SanctionDone(undone.id, 0 if undone.before is None else undone.before.until_ms, links)


def _refusal(refused: SanctionRefused) -> OperationError:
    retry_ms = AGAIN_MS if refused.code is ErrorCode.OVERLOADED else 0
    return OperationError(refused.code, refused.rule, refused.field, retry_ms)


async def _list(parts: Parts, caller: Caller, request: ListSanctions) -> SanctionPage:
    table, now_ms = parts.sanctions.table, parts.hub.trusted.continued_ms()
    before = float("inf")
    if request.cursor is not None:
        if not (request.cursor.isascii() and request.cursor.isdecimal() and len(request.cursor) <= 16):
            raise OperationError(ErrorCode.BAD_FIELD, "is no cursor of this operation", "cursor")
        before = int(request.cursor)
    known: list[Sanction | SanctionAction] = []
    if request.active is not False:
        known += table.in_force() if request.user is None else table.of_user(request.user, now_ms)
    known += table.actions()
    found: dict[int, Sanction | SanctionAction] = {}
    for count, each in enumerate(known, 1):
        if each.number < before and _selects(request, caller, each):
            is_active = table.is_in_force(each, now_ms)
            if request.active in (None, is_active):
                found[each.number] = each
        if count % SLICE == 0:
            found = {number: found[number] for number in heapq.nlargest(request.limit + 1, found)}
            await trio.lowlevel.checkpoint()
    numbers = heapq.nlargest(request.limit + 1, found)
    items = tuple(_view(found[number], table, now_ms) for number in numbers[: request.limit])
    return SanctionPage(items, str(numbers[request.limit - 1]) if len(numbers) > request.limit else None)


def _selects(request: ListSanctions, caller: Caller, each: SanctionAction | Sanction) -> bool:
    return (
        request.room in (None, each.room)
        and request.user in (None, each.user)
        and tenant_of(each.user) == caller.tenant
    )


def _view(each: SanctionAction | Sanction, table: SanctionTable, now_ms: int) -> SanctionView:
    is_active = table.is_in_force(each, now_ms)
    if isinstance(each, Sanction):
        verb = SanctionVerb.MUTE if each.kind is SanctionKind.MUTE else SanctionVerb.BAN
        return SanctionView(
            each.action, verb, each.room or None, each.user, each.until_ms, each.reason, each.by, each.by_role,
            each.at_ms, each.is_shadow, is_active,
        )  # fmt: skip
    after, undo_until_ms = each.after, each.at_ms + table.undo_ms
    return SanctionView(
        each.id, verb_of(each), each.room or None, each.user, 0 if after is None else after.until_ms, each.reason,
        each.by, each.by_role, each.at_ms, after is not None and after.is_shadow, is_active,
        0 if each.undone_by or now_ms > undo_until_ms else undo_until_ms, each.undone_by,
    )  # fmt: skip


async def _set_modes(parts: Parts, caller: Caller, request: SetModes) -> RoomModes:
    room = room_of(parts, request.room)
    if room.state.phase is RoomPhase.ENDED:
        raise OperationError(ErrorCode.ROOM_ENDED, "has ended", "room")
    changes = {name: value for name, value in request._asdict().items() if name != "room" and value is not None}
    if request.slow_s is not None:
        changes |= {"raid_slow_s": 0, "raid_until_ms": 0}
    if changes:
        results = PostResults()
        author = results.author(parts.types, caller.id, caller.name)
        room.set_modes(author, results.expect(), changes)
        (result,) = await results.wait()
        raise_for(result)
    return room.state.modes.modes


def _get_modes(parts: Parts, caller: Caller, request: GetModes) -> RoomModes:
    return room_of(parts, request.room).state.modes.modes


HANDLERS: dict[str, Handler] = {
    "moderation.mute": _mute,
    "moderation.unmute": _unmute,
    "moderation.ban": _ban,
    "moderation.unban": _unban,
    "moderation.list": _list,
    "moderation.undo": _undo,
    "moderation.set_modes": _set_modes,
    "moderation.get_modes": _get_modes,
}
