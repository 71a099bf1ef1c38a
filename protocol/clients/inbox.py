"""Inbox: the bounded buffer between the task that reads the socket and the application that reads events.

The application may be slower than the room. Events of lanes 3 and 4 are then dropped, oldest first, and counted;
the next event the application takes is a `MessagesMissed` with the numbers. Events of lanes 0 to 2, and the client's
own, are never dropped: when they alone fill the inbox it is *full*, and the client stops reading the socket until the
application takes one. TCP then stops the broker, for all rooms of this link; the broker drops messages or closes the
link by its own rules, and the client resumes. So memory is bounded by ``max_items`` and ``max_bytes``, exceeded by no
more than one frame.
"""

from __future__ import annotations

from collections import deque
from sys import getsizeof
from typing import Any, Generic, TypeVar

import trio

from .events import MessagesMissed

__all__ = ["MAX_INBOX_BYTES", "MAX_INBOX_ITEMS", "Inbox", "weight_of"]

MAX_INBOX_ITEMS = 2000
"""A screen shows some tens of danmaku; 2,000 is a minute and a half of a full room."""
MAX_INBOX_BYTES = 4 * 1024 * 1024
"""Bytes as Python holds them: some 5,000 usual danmaku, or 40 frames of the largest size."""

T = TypeVar("T")


def weight_of(value: Any) -> int:
    """Bytes that ``value`` takes in memory, shared parts counted each time. Linear in its size.

    ``value`` is an event made of checked messages (Any: payloads are free), so its depth is bounded by decoding.
    """
    size = getsizeof(value)
    if isinstance(value, (tuple, list)):
        for element in value:
            # Leaves without a call of their own: this runs for every event, and most of an event is leaves.
            kind = type(element)
            size += getsizeof(element) if kind is int or kind is str else weight_of(element)
    elif isinstance(value, dict):
        for key, element in value.items():
            size += getsizeof(key) + weight_of(element)
    return size


class Inbox(Generic[T]):
    """Events in order of arrival, for any number of taking tasks."""

    __slots__ = (
        "_arrived", "_keep", "_keep_bytes", "_lossy", "_lossy_bytes", "_max_bytes", "_max_items", "_missed_ambient",
        "_missed_chat", "_space", "_turn", "dropped", "is_closed",
    )  # fmt: skip

    def __init__(self, max_items: int = MAX_INBOX_ITEMS, max_bytes: int = MAX_INBOX_BYTES) -> None:
        if max_items < 1 or max_bytes < 1:
            raise ValueError("an inbox holds at least one item and one byte")
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._keep: deque[tuple[int, int, T]] = deque()
        self._lossy: deque[tuple[int, int, T, int, int]] = deque()
        self._keep_bytes = 0
        self._lossy_bytes = 0
        self._turn = 0
        self._missed_chat = 0
        self._missed_ambient = 0
        self._arrived = trio.lowlevel.ParkingLot()
        self._space = trio.lowlevel.ParkingLot()
        self.dropped = 0
        """Events dropped since the beginning."""
        self.is_closed = False

    def __len__(self) -> int:
        return len(self._keep) + len(self._lossy)

    @property
    def held_bytes(self) -> int:
        return self._keep_bytes + self._lossy_bytes

    @property
    def is_full(self) -> bool:
        """Whether events that may not be dropped fill it."""
        return len(self._keep) >= self._max_items or self._keep_bytes >= self._max_bytes

    def put(self, event: T) -> None:
        """Add an event that is never dropped. The caller has waited with `wait_space`. No-op once closed."""
        if self.is_closed:
            return
        weight = weight_of(event)
        self._keep.append((self._turn, weight, event))
        self._keep_bytes += weight
        self._added()

    def put_lossy(self, event: T, chat: int = 0, ambient: int = 0) -> None:
        """Add an event that may be dropped; the two numbers are what a `MessagesMissed` then says of it."""
        if self.is_closed:
            return
        weight = weight_of(event)
        self._lossy.append((self._turn, weight, event, chat, ambient))
        self._lossy_bytes += weight
        self._added()

    def _added(self) -> None:
        self._turn += 1
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
        if self._keep and (not self._lossy or self._keep[0][0] < self._lossy[0][0]):
            _, weight, event = self._keep.popleft()
            self._keep_bytes -= weight
            if not self.is_full:
                self._space.unpark_all()
            return event
        if self._lossy:
            _, weight, event, _, _ = self._lossy.popleft()
            self._lossy_bytes -= weight
            return event
        return None

    async def take(self) -> T | MessagesMissed | None:
        """Return the next event, or None when it is closed and empty. A checkpoint; cancelled, it takes nothing."""
        await trio.lowlevel.checkpoint()
        while True:
            event = self.take_nowait()
            if event is not None or self.is_closed:
                return event
            await self._arrived.park()

    async def wait_space(self) -> None:
        """Wait while it is full. No checkpoint when it is not."""
        while self.is_full and not self.is_closed:
            await self._space.park()

    def close(self) -> None:
        """Take no more; what is in it can still be taken."""
        self.is_closed = True
        self._arrived.unpark_all()
        self._space.unpark_all()
