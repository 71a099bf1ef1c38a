"""What activities of rooms have to be done outside of their room, until the operations take it."""

from __future__ import annotations

from typing import Any, NamedTuple

import trio

from broker.core.commerce.room_activities import ActivityKey

__all__ = ["ActionQueue", "RoomActions"]


class RoomActions(NamedTuple):
    """Pending actions of one activity. ``room``: qualified name; ``epoch``: of its stream, as another run of the
    room may have the same key; ``actions``: all of them (Any: of each kind)."""

    room: str
    epoch: int
    key: ActivityKey
    actions: tuple[Any, ...]


class ActionQueue:
    """Actions in the order in which their facts became durable; bounded by the activities of all rooms, as newer
    actions of an activity take the place of its older ones."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, int, ActivityKey], RoomActions] = {}
        self._event = trio.Event()

    def put(self, asked: RoomActions) -> None:
        """Add what an activity has to be done."""
        place = asked.room, asked.epoch, asked.key
        self._waiting.pop(place, None)
        self._waiting[place] = asked
        self._event.set()

    async def take(self) -> RoomActions:
        """Wait for actions, and remove and return the first."""
        while not self._waiting:
            self._event = trio.Event()
            await self._event.wait()
        return self._waiting.pop(next(iter(self._waiting)))
