"""The users of a part of a room who are there now, a page at a time."""

from __future__ import annotations

from heapq import nsmallest

import trio

from broker.core.rooms.audience import for_marketing, selector
from broker.core.tenants.names import plain_name
from broker.operations.caller import OperationError
from broker.operations.messages import check_audience
from broker.rooms.room import Room
from protocol.activities.audiences import Audience
from protocol.codes import ErrorCode, Role

__all__ = ["SLICE", "audience_page"]

SLICE = 5000
"""Members that are looked at between two checkpoints of the event loop."""


async def audience_page(
    room: Room, audience: Audience, cursor: str | None, limit: int, *, marketing: bool
) -> tuple[tuple[str, ...], str | None]:
    """Return the first ``limit`` users (qualified) of an audience behind ``cursor``, in the order of their ids, and the
    cursor of the following ones, None = there are none.

    A user is in the audience where one of its connections is; guests and the app are in none. OperationError where the
    audience names no tag, or one that the room does not have. ``marketing``: without those who do not want it.
    """
    if not any(audience):
        raise OperationError(ErrorCode.BAD_FIELD, "must name at least one tag", "audience")
    check_audience(room, audience)
    part = selector(for_marketing(audience) if marketing else audience, room.state.activities.tag_bits)
    members = room.members.all()
    first: list[tuple[str, str]] = []
    for start in range(0, len(members), SLICE):
        found = {
            (plain_name(each.user_id), each.user_id)
            for each in members[start : start + SLICE]
            if each.index >= 0 and each.role not in (Role.GUEST, Role.APP) and part.selects(room.views.tags_of(each))
        }
        first = nsmallest(limit + 1, {*first, *(pair for pair in found if cursor is None or pair[0] > cursor)})
        await trio.lowlevel.checkpoint()
    users = tuple(user for _, user in first[:limit])
    return users, first[limit - 1][0] if len(first) > limit else None
