"""Positions in a room's stream: what is new, what came before, what is missing. Both ends decide by the same code.

The events of lanes 0 to 2 of a room have the offsets 1, 2, 3 ... within an epoch. Whoever has read up to an offset has
a position; everything else follows from two positions and a comparison. Nothing here keeps state or knows messages.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

__all__ = ["Arrival", "Missing", "StreamPosition", "arrival", "full_offset", "gap_from", "missing"]

_SPAN = 1 << 32


class StreamPosition(NamedTuple):
    """A place in a room's stream: all events up to ``offset`` of ``epoch`` have been read."""

    epoch: int
    offset: int


class Arrival(Enum):
    """What an event is to one who stands at a position."""

    NEXT = "next"
    DUPLICATE = "duplicate"
    """It was read already, or lies before the position: drop it."""
    AFTER_HOLE = "after a hole"
    """Events between the position and this one have not come."""


class Missing(NamedTuple):
    """Events that cannot be had: ``first`` to ``last`` of the stream's present epoch (none if ``last`` < ``first``).

    ``epoch_changed``: besides, nobody knows what else there was in the epoch that was left.
    """

    first: int
    last: int
    epoch_changed: bool


def full_offset(last: int, sequence: int) -> int:
    """The offset that a header's 32 bits mean to one who stands at ``last``: the nearest one with those low bits.

    Right for whoever is less than 2^31 events away from it.
    """
    return max(0, last + ((sequence - last + _SPAN // 2) % _SPAN) - _SPAN // 2)


def arrival(position: int, offset: int) -> Arrival:
    """What the event with ``offset`` is to one who has read up to ``position`` of the same epoch."""
    if offset <= position:
        return Arrival.DUPLICATE
    return Arrival.NEXT if offset == position + 1 else Arrival.AFTER_HOLE


def gap_from(asked: StreamPosition, epoch: int) -> int:
    """The first offset that one who asked to resume at a position does not have, in the stream as it is now."""
    return asked.offset + 1 if asked.epoch == epoch else 1


def missing(before: StreamPosition, now: StreamPosition, recovered: bool) -> Missing | None:
    """What is lost to one who stood at ``before`` and is answered that the stream stands at ``now``.

    None: nothing, either because it follows (``recovered``) or because there was nothing. A claim to have recovered
    another stream, or one that ends before the position, is not believed.
    """
    epoch_changed = before.epoch != now.epoch or before.offset > now.offset
    if recovered and not epoch_changed:
        return None
    first = gap_from(before, now.epoch) if not epoch_changed else 1
    if first > now.offset and not epoch_changed:
        return None
    return Missing(first, now.offset, epoch_changed)
