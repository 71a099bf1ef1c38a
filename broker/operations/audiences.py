"""Handlers of the operations on audiences: the parts of a room, by the tags of its users."""

from __future__ import annotations

from typing import Any

import trio

from broker.core.commerce import audiences as commands
from broker.core.rooms.audience import selector
from broker.core.tenants.names import plain_name
from broker.operations.activities import ask_activity, command, read_activity
from broker.operations.caller import Caller, OperationError
from broker.operations.messages import check_audience
from broker.operations.parts import Handler, Parts
from broker.operations.rooms import room_of
from protocol.codes import ErrorCode, Role
from protocol.operations.audiences import (
    AudienceCount,
    CountAudience,
    DefineAudiences,
    GetAudiences,
    SetUserTags,
)

__all__ = ["HANDLERS"]

_KEY = commands.Audiences.kind, ""
"""A room has one set of tags."""
SLICE = 5000
"""Members that are counted between two checkpoints of the event loop."""


async def _define(parts: Parts, caller: Caller, request: DefineAudiences) -> Any:
    return await command(parts, caller, request.room, _KEY, commands.DefineTags(request.tags), creates=True)


def _get(parts: Parts, caller: Caller, request: GetAudiences) -> Any:
    return read_activity(parts, request.room, _KEY, commands.Audiences.room_tags)


async def _set_tags(parts: Parts, caller: Caller, request: SetUserTags) -> Any:
    users = tuple(map(plain_name, request.users))
    return await command(parts, caller, request.room, _KEY, commands.TagUsers(users, request.tags))


async def _count(parts: Parts, caller: Caller, request: CountAudience) -> AudienceCount:
    if not any(request.audience):
        raise OperationError(ErrorCode.BAD_FIELD, "must name at least one tag", "audience")
    await ask_activity(parts, request.room, _KEY, commands.Audiences.room_tags)
    room = room_of(parts, request.room)
    check_audience(room, request.audience)
    part = selector(request.audience, room.state.activities.tag_bits)
    members = room.members.all()
    addressed = online = 0
    for start in range(0, len(members), SLICE):
        batch = [each for each in members[start : start + SLICE] if each.index >= 0 and each.role is not Role.APP]
        online += len(batch)
        addressed += sum(part.selects(room.tags_of(each)) for each in batch)
        await trio.lowlevel.checkpoint()
    return AudienceCount(addressed, online)


HANDLERS: dict[str, Handler] = {
    "audiences.define": _define,
    "audiences.get": _get,
    "audiences.set_tags": _set_tags,
    "audiences.count": _count,
}
