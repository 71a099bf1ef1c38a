"""Rooms that were ended: they stay ended for viewers until staff or the platform open them, or a time has passed.

Bounded by ``max_rooms``: beyond, the room that was ended first is forgotten, and may be opened by viewers again.
"""

from __future__ import annotations

__all__ = ["EndedRooms"]


class EndedRooms:
    """Names of ended rooms. ``reopen_s``: how long a room stays ended for viewers; all times are monotonic seconds."""

    __slots__ = ("_max_rooms", "_reopen_s", "_until")

    def __init__(self, reopen_s: float, max_rooms: int = 100_000) -> None:
        self._reopen_s = reopen_s
        self._max_rooms = max_rooms
        self._until: dict[str, float] = {}

    def __len__(self) -> int:
        """Return the number of rooms that are remembered."""
        return len(self._until)

    def add(self, name: str, ended_at: float) -> None:
        """Remember a room that has ended; ``ended_at`` may lie before the start of this process."""
        self._until.pop(name, None)
        self._until[name] = ended_at + self._reopen_s
        if len(self._until) > self._max_rooms:
            del self._until[next(iter(self._until))]

    def discard(self, name: str) -> None:
        """Forget a room that is opened again."""
        self._until.pop(name, None)

    def is_ended(self, name: str, now: float) -> bool:
        """Return whether viewers may not open a room."""
        until = self._until.get(name)
        if until is None:
            return False
        if now >= until:
            del self._until[name]
            return False
        return True
