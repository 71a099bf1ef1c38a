"""What a call asks for, and whether its caller may make it: the same for calls now and for scheduled ones."""

from __future__ import annotations

from functools import partial
from typing import Any

from broker.core.moderation.sanctions import Sanction, SanctionTable
from broker.core.tenants.names import qualify
from broker.operations.caller import Caller, OperationError
from protocol.activities.moderation import SanctionKind
from protocol.codes import ErrorCode, Role
from protocol.fields import FieldError, renamed
from protocol.operations import STAFF, KeyUse, OperationRow, Scope

__all__ = ["check_ban", "check_rights", "check_sanctions", "muted", "read_request"]


def read_request(caller: Caller, row: OperationRow, arguments: Any) -> Any:
    """Return the request record of a call, with qualified names (Any: each row has its own). OperationError."""
    try:
        request = row.read(arguments)
    except FieldError as error:
        raise OperationError(error.code, error.rule, error.field) from None
    return renamed(row.read, request, partial(qualify, caller.tenant)) if caller.tenant else request


def check_rights(caller: Caller, row: OperationRow, request: Any) -> None:
    """Raise OperationError where the caller may not make a request (Any: of the row)."""
    if caller.scopes is not None:
        if row.scope is None or not caller.scopes & {row.scope, Scope.ADMIN}:
            rule = f"needs a key with the scope {row.scope}" if row.scope else "is not for backends"
            raise OperationError(ErrorCode.NOT_ALLOWED, rule, "operation")
    elif not row.roles:
        raise OperationError(ErrorCode.NOT_ALLOWED, "is for backends", "operation")
    if caller.tenant and row.subject == "broker":
        raise OperationError(ErrorCode.NOT_ALLOWED, "is for keys of no tenant: it is about all of them", "operation")
    if row.room and request.room is None:
        if Role.APP not in caller.roles or not caller.in_all_rooms:
            raise OperationError(ErrorCode.NOT_ALLOWED, "is required, but for the platform in all rooms", "room")
    elif row.room:
        role = caller.role_in(request.room)
        if role is None:
            raise OperationError(ErrorCode.ROOM_NOT_GRANTED, "is not granted", "room")
        if not caller.is_backend and role not in row.roles:
            raise OperationError(ErrorCode.NOT_ALLOWED, "is not for your role in this room", "operation")
        if row.joined and not caller.is_backend and role not in STAFF and caller.joined_at_ms(request.room) is None:
            raise OperationError(ErrorCode.NOT_JOINED, "join the room first", "room")
    elif not caller.is_backend and not caller.roles & row.roles:
        raise OperationError(ErrorCode.NOT_ALLOWED, "is not for your role", "operation")
    if row.key is KeyUse.REQUIRED and not caller.key:
        raise OperationError(ErrorCode.BAD_FIELD, "is required", "key")
    if row.key is KeyUse.NONE and caller.key and row.changes:
        raise OperationError(ErrorCode.BAD_FIELD, "is not taken by this operation", "key")


def check_sanctions(sanctions: SanctionTable, caller: Caller, row: OperationRow, request: Any, now_ms: int) -> None:
    """Raise OperationError BANNED where a request (Any: of the row) is about a room that its caller is banned from, and
    MUTED where it puts words or the voice of a user before others who is muted in the room and knows it. ``now_ms``: by
    the clock of sanctions."""
    if row.room and request.room is not None:
        check_ban(sanctions, caller, request.room, now_ms)
    if not sanctions.mutes or row.speaks is None or caller.is_backend or not row.speaks(request):
        return
    role = caller.role_in(request.room)
    user = caller.user
    mute = None if role is None else sanctions.find(SanctionKind.MUTE, request.room, user, role, now_ms)
    if mute is not None and not mute.is_shadow:
        raise muted(mute, now_ms)


def muted(mute: Sanction, now_ms: int) -> OperationError:
    """Return the refusal of what a muted user may not do. ``now_ms``: by the clock of sanctions."""
    rule = f"is not for you, as you are muted{f': {mute.reason}' if mute.reason else ''}"
    return OperationError(ErrorCode.MUTED, rule, "operation", mute.left_ms(now_ms))


def check_ban(sanctions: SanctionTable, caller: Caller, room: str, now_ms: int) -> None:
    """Raise OperationError BANNED where the caller is a user who is banned from a room (qualified name), staff too: who
    may not enter does not moderate it from outside either."""
    role = None if caller.is_backend or not sanctions.has_bans else caller.role_in(room)
    if role is None:
        return
    ban = sanctions.find(SanctionKind.BAN, room, caller.user, role, now_ms)
    if ban is not None:
        rule = f"is not for you, as you are banned{f': {ban.reason}' if ban.reason else ''}"
        raise OperationError(ErrorCode.BANNED, rule, "room", ban.left_ms(now_ms))
