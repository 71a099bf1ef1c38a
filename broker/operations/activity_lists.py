"""Handler of the operation on all activities of a room."""

from __future__ import annotations

from typing import Any

from broker.operations.caller import Caller
from broker.operations.parts import Handler, Parts
from broker.operations.rooms import room_of
from protocol.operations.activities import ActivityList, ListActivities

__all__ = ["HANDLERS"]


def _list(parts: Parts, caller: Caller, request: ListActivities) -> ActivityList:
    views, _, more = room_of(parts, request.room).state.activities.snapshot(True, "")
    return ActivityList(tuple(view._replace(data=_fixed(view.data)) for view in views), more)


def _fixed(value: Any) -> Any:
    """Return a value with tuples in place of lists, as results have them. Any: what `json` can write."""
    if isinstance(value, dict):
        return {name: _fixed(each) for name, each in value.items()}
    return tuple(map(_fixed, value)) if isinstance(value, list) else value


HANDLERS: dict[str, Handler] = {"activities.list": _list}
