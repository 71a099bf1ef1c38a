"""What the host and the staff of a room did, as lines of a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from protocol.codes import MessageType, RoomPhase
from protocol.messages import Event

__all__ = ["MAX_LINES", "MAX_TEXT", "Timeline", "TimelineLine"]

MAX_LINES = 1000
"""Lines of one report; the later ones are counted."""
MAX_TEXT = 200
_NOT_OF_HOST = ("audiences.", "mic.", "orders.", "rains.drop_", "products.put", "products.removed", "products.arranged")
"""Events of activities that are no decision of the host, or too many: by the beginning of their names."""
_TITLES = ("title", "label", "product", "sku", "reason", "question")
"""Fields of an activity event that say what it is about, the first that is a text."""


class TimelineLine(NamedTuple):
    """One line. ``what``: "phase.paused", "announcement", "sales.opened"; ``id``: of the activity; ``text``: cut to
    `MAX_TEXT` characters."""

    at_ms: int
    what: str
    id: str = ""
    text: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the line without what is empty."""
        return {name: value for name, value in self._asdict().items() if value != ""}


class Timeline:
    """Lines of one room, the first `MAX_LINES`."""

    __slots__ = ("left_out", "lines")

    def __init__(self) -> None:
        self.lines: list[TimelineLine] = []
        self.left_out = 0

    # Any: the payload of an event is what its type says.
    def take(self, event: Event, at_ms: int) -> None:
        """Add the line of an event, if it is something that the host or the staff did."""
        found = _line(event, at_ms)
        if found is None:
            return
        if len(self.lines) < MAX_LINES:
            self.lines.append(found._replace(text=found.text[:MAX_TEXT]))
        else:
            self.left_out += 1


def _line(event: Event, at_ms: int) -> TimelineLine | None:
    payload: Any = event.payload
    match event.type:
        case MessageType.ROOM_PHASE:
            return TimelineLine(at_ms, f"phase.{RoomPhase(payload[0]).name.lower()}")
        case MessageType.ANNOUNCEMENT:
            return TimelineLine(at_ms, "announcement", text=payload[0])
        case MessageType.MEDIA:
            return TimelineLine(at_ms, "media", text=payload[4] if len(payload) > 4 else "")
        case MessageType.PINS_CHANGED:
            return TimelineLine(at_ms, "pins", text=f"{len(payload[0])} pinned")
        case MessageType.MESSAGES_DELETED:
            return TimelineLine(at_ms, "messages.deleted", text=payload[3] if len(payload) > 3 else "")
        case MessageType.ACTIVITY:
            name, id, data = payload
            if not name.startswith(_NOT_OF_HOST):
                return TimelineLine(at_ms, name, id, _about(data))
    return None


def _about(data: Any) -> str:
    if isinstance(data, Mapping):
        for name in _TITLES:
            if isinstance(data.get(name), str):
                return str(data[name])
        if isinstance(data.get("question"), Mapping):
            return _about(data["question"])
    return ""
