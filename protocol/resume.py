"""Positions in a room's stream: which events are new, duplicate or missing. Both ends use this code.

The events of lanes 0 to 2 of a room have the offsets 1, 2, 3 ... within an epoch. A client that has read up to an
offset has a position; the rest is a comparison of two positions. Nothing here keeps state or knows messages.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

__all__ = ["Arrival", "Missing", "StreamPosition", "arrival", "full_offset", "gap_from", "missing"]

_SPAN = 1 << 32


class StreamPosition(NamedTuple):
    """Position in a room's stream: all events up to ``offset`` of ``epoch`` have been read."""

    epoch: int
    offset: int


class Arrival(Enum):
    """Relation of an event to a position."""

    NEXT = "next"
    DUPLICATE = "duplicate"
    """At or before the position: already read, to be dropped."""
    AFTER_GAP = "after a gap"
    """Events between the position and this one have not come."""


class Missing(NamedTuple):
    """Range of lost events: ``first`` to ``last`` of the stream's present epoch (none if ``last`` < ``first``).

    ``epoch_changed``: further events of the previous epoch, of unknown number, may be lost too.
    """

    first: int
    last: int
    epoch_changed: bool


def full_offset(last: int, sequence: int) -> int:
    """Return the offset of a header's 32 bits for a reader at ``last``: the nearest one with these low bits.

    Correct for a reader that is less than 2^31 events away from it.
    """
    return max(0, last + ((sequence - last + _SPAN // 2) % _SPAN) - _SPAN // 2)


def arrival(position: int, offset: int) -> Arrival:
    """Classify the event with ``offset`` for a reader that has read up to ``position`` of the same epoch."""
    if offset <= position:
        return Arrival.DUPLICATE
    return Arrival.NEXT if offset == position + 1 else Arrival.AFTER_GAP


def gap_from(asked: StreamPosition, epoch: int) -> int:
    """Return the first offset that a client at position ``asked`` does not have, in the stream of ``epoch``."""
    return asked.offset + 1 if asked.epoch == epoch else 1


def missing(before: StreamPosition, now: StreamPosition, recovered: bool) -> Missing | None:
    """Return what a client at position ``before`` has lost when the stream is at ``now``.

    None: nothing, because the events follow (``recovered``) or because there are none. ``recovered`` is ignored for
    another epoch and for a stream that ends before the position.
    """
    epoch_changed = before.epoch != now.epoch or before.offset > now.offset
    if recovered and not epoch_changed:
        return None
    first = gap_from(before, now.epoch) if not epoch_changed else 1
    if first > now.offset and not epoch_changed:
        return None
    return Missing(first, now.offset, epoch_changed)
