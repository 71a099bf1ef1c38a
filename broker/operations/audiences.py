"""Handlers of the operations on audiences: the parts of a room, by the tags of its users."""

from __future__ import annotations

from typing import Any

import trio

from broker.core.commerce import audiences as commands
from broker.core.rooms.audience import selector
from broker.core.tenants.names import plain_name
from broker.operations.activities import ask_activity, command, kept_key, read_activity
from broker.operations.audience_users import SLICE
from broker.operations.caller import Caller, OperationError
from broker.operations.messages import check_audience
from broker.operations.parts import Handler, Parts
from broker.operations.rooms import room_of
from protocol.codes import ErrorCode, Role
from protocol.operations.audiences import (
    AcceptInvite,
    AudienceCount,
    CountAudience,
    DefineAudiences,
    FollowHost,
    GetAudiences,
    ReachRank,
    ReachRanks,
    SetUserTags,
    ShareRoom,
    TopReach,
)

__all__ = ["HANDLERS"]

_KEY = commands.Audiences.kind, ""
"""A room has one set of tags."""


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
    room = room_of(parts, request.room)
    await ask_activity(parts, request.room, _KEY, commands.Audiences.room_tags)
    check_audience(room, request.audience)
    part = selector(request.audience, room.state.activities.tag_bits)
    members = room.members.all()
    addressed = online = 0
    for start in range(0, len(members), SLICE):
        batch = [each for each in members[start : start + SLICE] if each.index >= 0 and each.role is not Role.APP]
        online += len(batch)
        addressed += sum(part.selects(room.views.tags_of(each)) for each in batch)
        await trio.lowlevel.checkpoint()
    return AudienceCount(addressed, online)


async def _follow(parts: Parts, caller: Caller, request: FollowHost) -> Any:
    follow = commands.Follow(request.follows, _named(caller, request.user))
    return await command(parts, caller, request.room, _KEY, follow, creates=True)


async def _share(parts: Parts, caller: Caller, request: ShareRoom) -> Any:
    key = kept_key(caller)
    if key and caller.is_backend:
        key = f"{caller.account}:{key}"  # beside those of the user's own client
    share = commands.Share(request.channel, _named(caller, request.user), key)
    return await command(parts, caller, request.room, _KEY, share, creates=True)


def _named(caller: Caller, user: str | None) -> str | None:
    """Return for whom a backend calls, None = a viewer for itself. OperationError."""
    if caller.is_backend == (user is not None):
        return None if user is None else plain_name(user)
    if caller.is_backend:
        raise OperationError(ErrorCode.BAD_FIELD, "is required", "user")
    raise OperationError(ErrorCode.NOT_ALLOWED, "is for backends", "user")


async def _accept_invite(parts: Parts, caller: Caller, request: AcceptInvite) -> Any:
    invited = commands.Invited(plain_name(request.inviter))
    return await command(parts, caller, request.room, _KEY, invited, creates=True)


def _top(parts: Parts, caller: Caller, request: TopReach) -> Any:
    def ranks(audiences: commands.Audiences[Any]) -> ReachRanks:
        top = audiences.top(request.kind, request.limit)
        return ReachRanks(tuple(ReachRank(*each) for each in top), audiences.totals())

    return read_activity(parts, request.room, _KEY, ranks)


HANDLERS: dict[str, Handler] = {
    "audiences.define": _define,
    "audiences.get": _get,
    "audiences.set_tags": _set_tags,
    "audiences.count": _count,
    "audiences.follow": _follow,
    "audiences.share": _share,
    "audiences.accept_invite": _accept_invite,
    "audiences.top": _top,
}
