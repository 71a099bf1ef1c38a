"""Moves of rooms from this node to others, a few a second: when a node has joined, and when this one drains.

A room that moves stops deciding for about the time of two questions to the engine. Many at once would hold up every
other command of the link, so a budget spreads them. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import NamedTuple

from broker.core.limits.rate_limit import Gcra, Rate
from broker.core.nodes.membership import BEAT_S, NodeTable

__all__ = ["MOVES_PER_S", "Move", "Moves"]

MOVES_PER_S = 20
"""Rooms that leave a node a second when another has joined, and at least so many when it drains."""


class Move(NamedTuple):
    """A room that is to be released, and the node that is to claim it."""

    room: str
    heir: str


def _budget(per_s: float) -> Gcra:
    """Return a budget that may be asked once a beat."""
    return Gcra(Rate(per_s, ceil(per_s * BEAT_S)), max_keys=1)


class Moves:
    """Budget of the moves away from one node."""

    __slots__ = ("_drain", "_join")

    def __init__(self) -> None:
        self._join = _budget(MOVES_PER_S)
        self._drain: Gcra | None = None

    def start_drain(self, rooms: int, within_s: float) -> None:
        """Plan the moves of all rooms within a time.

        :param rooms: how many this node owns.
        :param within_s: seconds in which the last has left.
        """
        self._drain = _budget(max(MOVES_PER_S, rooms / within_s))

    def next(self, rooms: Iterable[str], table: NodeTable, now: float) -> list[Move]:
        """Return the rooms that leave now.

        :param rooms: rooms owned by this node and not under way, in the order in which they should leave.
        """
        budget = self._join if self._drain is None else self._drain
        moves: list[Move] = []
        for room in rooms:
            heir = table.better_node(room, now)
            if heir is None:
                continue
            if budget.try_acquire("moves", now) > 0:
                break
            moves.append(Move(room, heir))
        return moves
