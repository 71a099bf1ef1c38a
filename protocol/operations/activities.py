"""Operation on all activities of a room, whatever their kind."""

from __future__ import annotations

from typing import NamedTuple

from ..codes import ErrorCode
from ..fields import any_value, array_of, integer, record, room_name, text
from ..messages import ActivityView
from .rows import STAFF, OperationRow, Scope, row

__all__ = ["ROWS", "ActivityList", "ListActivities"]


class ListActivities(NamedTuple):
    """Ask for the activities of a room."""

    room: str


class ActivityList(NamedTuple):
    """Activities of a room, the nearest deadline first, as its staff sees them. ``more``: how many are left out; the
    operations on their kind return all."""

    items: tuple[ActivityView, ...]
    more: int = 0


_view = record(ActivityView, (text(1, 32), text(0, 64), any_value))
_list = record(ActivityList, (array_of(_view, 100), integer(0)))

ROWS: tuple[OperationRow, ...] = (
    row(
        580, "activities.list", ListActivities, (room_name,), ActivityList, _list,
        "List what goes on in a room: sales, packets, polls, products and the rest.",
        scope=Scope.COMMERCE_READ, roles=STAFF, changes=False, errors=(ErrorCode.UNKNOWN_ROOM,),
        example=(
            ListActivities("live-1"),
            ActivityList((ActivityView("polls", "colour", {"state": "open", "voters": 9}),)),
        ),
    ),
)  # fmt: skip
