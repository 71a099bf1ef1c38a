"""Inbox: bounded buffer between the task that reads the socket and the application that reads events.

When the application is slower than the room, events of lanes 3 and 4 are dropped, oldest first, and counted; the next
event that the application takes is a `MessagesMissed` with the counts. Events of lanes 0 to 2 and those of the client
itself are never dropped: when they alone fill the inbox it is *full*, and the client stops reading the socket until the
application takes one. TCP then stops the broker for all rooms of this link; the broker drops messages or closes the
link by its own rules, and the client resumes. So memory is bounded by ``max_items`` and ``max_bytes``, exceeded by no
more than one frame.
"""

from __future__ import annotations

from collections import deque
from sys import getsizeof
from typing import Any, Generic, TypeVar

import trio

from .events import MessagesMissed

__all__ = ["MAX_INBOX_BYTES", "MAX_INBOX_ITEMS", "Inbox", "size_of"]

MAX_INBOX_ITEMS = 2000
"""A screen shows some tens of danmaku; 2,000 is a minute and a half of a full room."""
MAX_INBOX_BYTES = 4 * 1024 * 1024
"""Bytes of Python objects: about 5,000 danmaku, or 40 frames of the largest size."""

T = TypeVar("T")


def size_of(value: Any) -> int:
    """Return the bytes that ``value`` takes in memory, shared parts counted each time. Linear in its size.

    ``value`` is an event made of checked messages (Any: payloads are free), so its depth is bounded by decoding.
    """
    size = getsizeof(value)
    if isinstance(value, (tuple, list)):
        for element in value:
            # No call for a leaf: this runs for every event, and most parts of an event are leaves.
            kind = type(element)
            size += getsizeof(element) if kind is int or kind is str else size_of(element)
    elif isinstance(value, dict):
        for key, element in value.items():
            size += getsizeof(key) + size_of(element)
    return size


class Inbox(Generic[T]):
    """Queue of events in order of arrival, for any number of consumers."""

    __slots__ = (
        "_arrived",
        "_lossy",
        "_lossy_bytes",
        "_max_bytes",
        "_max_items",
        "_missed_ambient",
        "_missed_chat",
        "_order",
        "_reliable",
        "_reliable_bytes",
        "_space",
        "dropped",
        "is_closed",
    )  # fmt: skip

    def __init__(self, max_items: int = MAX_INBOX_ITEMS, max_bytes: int = MAX_INBOX_BYTES) -> None:
        if max_items < 1 or max_bytes < 1:
            raise ValueError("an inbox holds at least one item and one byte")
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._reliable: deque[tuple[int, int, T]] = deque()
        self._lossy: deque[tuple[int, int, T, int, int]] = deque()
        self._reliable_bytes = 0
        self._lossy_bytes = 0
        self._order = 0
        self._missed_chat = 0
        self._missed_ambient = 0
        self._arrived = trio.lowlevel.ParkingLot()
        self._space = trio.lowlevel.ParkingLot()
        self.dropped = 0
        """Events dropped so far."""
        self.is_closed = False

    def __len__(self) -> int:
        return len(self._reliable) + len(self._lossy)

    @property
    def held_bytes(self) -> int:
        return self._reliable_bytes + self._lossy_bytes

    @property
    def is_full(self) -> bool:
        """Whether events that may not be dropped fill the inbox."""
        return len(self._reliable) >= self._max_items or self._reliable_bytes >= self._max_bytes

    def put(self, event: T) -> None:
        """Add an event that is never dropped. The caller waits with `wait_space` first. No-op once closed."""
        if self.is_closed:
            return
        weight = size_of(event)
        self._reliable.append((self._order, weight, event))
        self._reliable_bytes += weight
        self._added()

    def put_lossy(self, event: T, chat: int = 0, ambient: int = 0) -> None:
        """Add an event that may be dropped; ``chat`` and ``ambient`` are then added to the next `MessagesMissed`."""
        if self.is_closed:
            return
        weight = size_of(event)
        self._lossy.append((self._order, weight, event, chat, ambient))
        self._lossy_bytes += weight
        self._added()

    def _added(self) -> None:
        self._order += 1
        while self._lossy and (len(self) > self._max_items or self.held_bytes > self._max_bytes):
            _, weight, _, chat, ambient = self._lossy.popleft()
            self._lossy_bytes -= weight
            self.dropped += 1
            self._missed_chat += chat
            self._missed_ambient += ambient
        self._arrived.unpark_all()

    def take_nowait(self) -> T | MessagesMissed | None:
        """Return the oldest event, a `MessagesMissed` if some were dropped before it, or None. O(1)."""
        if self._missed_chat or self._missed_ambient:
            missed = MessagesMissed(self._missed_chat, self._missed_ambient, is_local=True)
            self._missed_chat = self._missed_ambient = 0
            return missed
        if self._reliable and (not self._lossy or self._reliable[0][0] < self._lossy[0][0]):
            _, weight, event = self._reliable.popleft()
            self._reliable_bytes -= weight
            if not self.is_full:
                self._space.unpark_all()
            return event
        if self._lossy:
            _, weight, event, _, _ = self._lossy.popleft()
            self._lossy_bytes -= weight
            return event
        return None

    async def take(self) -> T | MessagesMissed | None:
        """Return the next event, or None when closed and empty. A checkpoint; when cancelled, it takes nothing."""
        await trio.lowlevel.checkpoint()
        while True:
            event = self.take_nowait()
            if event is not None or self.is_closed:
                return event
            await self._arrived.park()

    async def wait_space(self) -> None:
        """Wait while the inbox is full. No checkpoint when it is not."""
        while self.is_full and not self.is_closed:
            await self._space.park()

    def close(self) -> None:
        """Accept no more events; those inside can still be taken."""
        self.is_closed = True
        self._arrived.unpark_all()
        self._space.unpark_all()
