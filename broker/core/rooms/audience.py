"""Which events of a room's stream a viewer gets: those whose audience its tags are in.

The tags of a room are numbered; a viewer's are the bits of one integer. At the offset of an event that is not for a
viewer it gets NOT_ADDRESSED, which is the same for all such viewers: so no stream has a hole, whoever reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from broker.core.rooms.stream import StoredEvent
from broker.core.users.preferences import NOT_RECOMMENDED, OPTED_OUT
from protocol.activities.audiences import Audience
from protocol.codes import MessageType
from protocol.messages import Event
from protocol.payloads import NotAddressedPayload

__all__ = ["Selector", "addressed_to", "for_marketing", "not_addressed", "selector"]


def for_marketing(audience: Audience | None) -> Audience:
    """Return the part of an audience (None: all) that may be sent marketing; where the audience is chosen by tags,
    without those who want no such choice made for them."""
    audience = Audience() if audience is None else audience
    without = (OPTED_OUT,) if not any(audience) or audience == _ALL_OF_MARKETING else (OPTED_OUT, NOT_RECOMMENDED)
    return audience._replace(none=tuple(dict.fromkeys((*audience.none, *without))))


_ALL_OF_MARKETING = Audience(none=(OPTED_OUT,))


class Selector(NamedTuple):
    """An audience as bits of tags. A tag that the room does not have is a bit that no viewer has."""

    any: int
    all: int
    none: int

    def selects(self, tags: int) -> bool:
        """Return whether a viewer with these tags is in the audience."""
        has_one = not self.any or self.any & tags
        return bool(has_one) and self.all & tags == self.all and not self.none & tags


def selector(audience: Audience, bits_of: Callable[[Sequence[str]], int]) -> Selector:
    """Return an audience as bits. ``bits_of``: returns those of tags by name."""
    return Selector(bits_of(audience.any), bits_of(audience.all), bits_of(audience.none))


def not_addressed(event: Event) -> Event:
    """Return what a viewer gets that an event is not for: its time and nothing of its content."""
    return Event(int(MessageType.NOT_ADDRESSED), event.at_ms, "", "", NotAddressedPayload())


def addressed_to(
    tags: int, events: Sequence[StoredEvent], bits_of: Callable[[Sequence[str]], int]
) -> Sequence[StoredEvent]:
    """Return events as a viewer with these tags gets them, without their audiences. O(events)."""
    if all(each.audience is None for each in events):
        return events
    return [
        each
        if each.audience is None
        else each._replace(
            event=each.event if selector(each.audience, bits_of).selects(tags) else not_addressed(each.event),
            audience=None,
        )
        for each in events
    ]
