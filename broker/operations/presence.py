"""Handlers of the operations on the presence of users."""

from __future__ import annotations

from broker.operations.caller import Caller
from broker.operations.kept import commit, required
from broker.operations.parts import Handler, Parts
from protocol.operations.presence import PresenceStates, SetVisible, UserPresence, VisibleSet, WatchPresence

__all__ = ["HANDLERS"]


def _watch(parts: Parts, caller: Caller, request: WatchPresence) -> PresenceStates:
    presences = required(parts.presences)
    if caller.is_backend:
        shown = [presences.is_shown(user) for user in request.users]
    else:
        shown = presences.watch(caller.user, request.users)
    return PresenceStates(tuple(map(UserPresence, request.users, shown)))


async def _set_visible(parts: Parts, caller: Caller, request: SetVisible) -> VisibleSet:
    presences, user = required(parts.presences), caller.user
    await commit(lambda on_done: presences.set_visible(user, on_done, is_visible=request.visible))
    return VisibleSet(request.visible)


HANDLERS: dict[str, Handler] = {"presence.watch": _watch, "presence.set_visible": _set_visible}
