"""What watchers learn of the presence of a user: the record and row of the event."""

from __future__ import annotations

from typing import NamedTuple

from ..fields import boolean, record
from .rows import ActivityEventRow, Via

__all__ = ["ROWS", "PresenceChanged"]


class PresenceChanged(NamedTuple):
    """The user whose id is that of the event has an open link now, or none."""

    online: bool


ROWS: tuple[ActivityEventRow, ...] = (
    ActivityEventRow(
        "presence.changed", Via.LIVE, PresenceChanged, record(PresenceChanged, (boolean,)),
        "A watched user is online now, or offline.", PresenceChanged(True),
    ),
)  # fmt: skip
