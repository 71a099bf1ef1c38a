"""One row of the table of webhook events (`webhook_events`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["EventRow"]

_Kind = type[Any]


class EventRow(NamedTuple):
    """Declaration of one event. ``is_default``: patterns with a ``*`` mean it too; others must name it.

    ``in_room``: the envelope has room and epoch; ``has_offset``: and the offset of a message in the room's stream.
    """

    type: str
    data: _Kind
    read: Callable[[Any], Any]
    summary: str
    example: Any
    is_default: bool = True
    in_room: bool = True
    has_offset: bool = False
