"""Space of the review queues of all rooms, with a task or without: no tenant's may fill the broker's memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from broker.core.tenants.names import tenant_of

__all__ = ["ReviewSpace"]

MAX_ITEMS = 50_000
"""Messages that are held in all rooms of one tenant."""
MAX_BYTES = 64 * 1024 * 1024


class ReviewSpace:
    """Messages and bytes that rooms (qualified names) hold. ``max_items``, ``max_bytes``: of one tenant."""

    def __init__(self, max_items: int = MAX_ITEMS, max_bytes: int = MAX_BYTES) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._rooms: dict[str, tuple[int, int]] = {}
        self._items: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    @property
    def rooms(self) -> Mapping[str, tuple[int, int]]:
        """Messages and bytes of each room that holds any."""
        return self._rooms

    def use(self, room: str, items: int, nbytes: int) -> None:
        """Set what a room holds now."""
        tenant = tenant_of(room)
        before = self._rooms.pop(room, (0, 0))
        self._items[tenant] += items - before[0]
        self._bytes[tenant] += nbytes - before[1]
        if items:
            self._rooms[room] = items, nbytes

    def is_full(self, room: str) -> bool:
        """Return whether the tenant of a room may hold no more."""
        tenant = tenant_of(room)
        return self._items[tenant] >= self._max_items or self._bytes[tenant] >= self._max_bytes
