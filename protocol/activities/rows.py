"""One row of the table of activity events: what members, or one user, learn of an activity."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from ..webhook_row import EventRow

__all__ = ["ActivityEventRow", "ActivityViewRow", "EventRow", "Via"]


class Via(Enum):
    """How an activity event travels."""

    EVENT = "event"
    """To every member, with an offset: lane 1."""
    COUNTER = "counter"
    """To every member, the newest replaces older ones: lane 4, at most one a second for each activity."""
    HOST_COUNTER = "host counter"
    """As COUNTER, to the staff of the room alone."""
    OWN_COUNTER = "own counter"
    """As COUNTER, to the connections of one user in the room alone."""
    DIRECT = "direct"
    """To one user, as a must-deliver message."""
    LIVE = "live"
    """To the open links of one user: a DIRECT with the id 0, which nothing keeps."""


class ActivityEventRow(NamedTuple):
    """Declaration of one activity event.

    ``name``: ``subject.past_verb``, whose subject is that of the activity's operations; ``data``: the record of its
    fields, which `read` makes of an object or array; ``example``: of that record.
    """

    name: str
    via: Via
    data: type[Any]
    read: Callable[[Any], Any]
    summary: str
    example: Any

    @property
    def subject(self) -> str:
        """First part of the name."""
        return self.name.partition(".")[0]


class ActivityViewRow(NamedTuple):
    """Declaration of what a member that joins gets of the activities of one kind.

    ``read``: makes the record that everybody gets of an object or array; ``read_own``: that of the user's own part,
    None = there is none; ``example``: of the first.
    """

    kind: str
    data: type[Any]
    read: Callable[[Any], Any]
    example: Any
    own: type[Any] | None = None
    read_own: Callable[[Any], Any] | None = None
    own_example: Any = None
