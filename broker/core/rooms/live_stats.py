"""Live statistics of a room: what happened in it in each second of the last quarter of an hour.

The room's counters are read once a second by the hub: a message costs nothing more. A second in which nothing changed
takes no memory. Others take a packed row of some 16 bytes in a block a minute, so a room that is busy all the time has
about 16 KB, one at rest nothing. All rooms share a `LiveBudget`; above it the rooms that go on being busy keep less of
the past, and say so (`LiveStats.since`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from math import floor
from typing import NamedTuple

from protocol.frames import pack_body, unpack_body

__all__ = ["KEPT_S", "LiveBudget", "LiveStats", "RoomCounts", "Second"]

KEPT_S = 900
"""Seconds of the past that are kept."""
BLOCK_S = 60
MAX_BYTES = 32 * 1024 * 1024
"""Rows of all rooms; 2,000 rooms that are busy in every second. Beyond it each room may have `BLOCK_S` rows."""
BLOCK_BYTES = 128
"""What Python adds to a block, rounded up."""


class RoomCounts(NamedTuple):
    """What has come into a room, refused messages not counted, and what became of the danmaku.

    ``messages``: all but likes, danmaku and gifts included; ``left_out``: danmaku that were sampled out or expired.
    """

    messages: int
    danmaku: int
    gifts: int
    joins: int
    likes: int
    shown: int
    merged: int
    left_out: int


class Second(NamedTuple):
    """One second of a room: the connections at its end, and what was counted in it."""

    online: int
    counts: RoomCounts


NOTHING = RoomCounts(0, 0, 0, 0, 0, 0, 0, 0)


class LiveBudget:
    """Bytes that the rows of all rooms take."""

    __slots__ = ("limit_bytes", "used_bytes")

    def __init__(self, limit_bytes: int = MAX_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0


class LiveStats:
    """The seconds of one room. ``now``: monotonic seconds; a second is named by the number of whole ones at its end.

    ``counts`` and ``online``: where it begins; ``budget``: of all rooms, None = it is the only one.
    """

    __slots__ = ("_begun_at", "_blocks", "_budget", "_counts", "_first_online", "_online", "_taken", "since")

    def __init__(self, counts: RoomCounts, online: int, now: float, budget: LiveBudget | None = None) -> None:
        self._budget = LiveBudget() if budget is None else budget
        self._blocks: deque[tuple[int, bytearray]] = deque()
        """Number of the minute, and its rows, each after its length as a byte."""
        self._counts = counts
        self._online = self._first_online = online
        self._begun_at = now
        self._taken = floor(now)
        """The last second that was taken."""
        self.since = self._taken
        """The second after which everything is known."""

    @property
    def nbytes(self) -> int:
        """What its rows count against the budget."""
        return sum(len(rows) + BLOCK_BYTES for _, rows in self._blocks)

    @property
    def taken(self) -> int:
        """The last second that was taken."""
        return self._taken

    def take(self, counts: RoomCounts, online: int, second: int) -> None:
        """Take the counters at the end of a second. About 0.3 us where nothing has changed, else 2 us.

        ``second`` that is not later than the last one taken changes nothing.
        """
        if second <= self._taken:
            return
        self._taken = second
        if counts == self._counts and online == self._online:
            if self._blocks and self._blocks[0][0] * BLOCK_S + BLOCK_S <= second - KEPT_S:
                self._forget_first()
            return
        changes = [now - before for now, before in zip(counts, self._counts, strict=True)]
        self._counts, self._online = counts, online
        minute, row = second // BLOCK_S, pack_body((second, online, *changes))
        blocks, budget = self._blocks, self._budget
        if not blocks or blocks[-1][0] != minute:
            blocks.append((minute, bytearray()))
            budget.used_bytes += BLOCK_BYTES
        block = blocks[-1][1]
        block.append(len(row))
        block += row
        budget.used_bytes += len(row) + 1
        while blocks[0][0] * BLOCK_S + BLOCK_S <= second - KEPT_S:
            self._forget_first()
        if budget.used_bytes > budget.limit_bytes and len(blocks) > 1:
            self.since = max(self.since, blocks[0][0] * BLOCK_S + BLOCK_S - 1)
            self._forget_first()

    def clear(self) -> None:
        """Forget all rows: the room has ended."""
        while self._blocks:
            self._forget_first()

    def seconds(self, count: int) -> list[Second]:
        """Return the last ``count`` seconds up to `taken`, the oldest first; those that are not known are left out."""
        first = max(self._taken - min(count, KEPT_S), self.since) + 1
        found: list[Second] = []
        online = self._first_online
        for second, after, changes in self._rows():
            if second < first:
                online = after
                continue
            found += [Second(online, NOTHING)] * (second - first - len(found))
            found.append(Second(after, changes))
            online = after
        return found + [Second(online, NOTHING)] * (self._taken - first + 1 - len(found))

    def lately(self, counts: RoomCounts, window_s: int, now: float) -> tuple[float, RoomCounts]:
        """Return what has come in over the last ``window_s`` seconds, of the present ``counts``, and in how many.

        These are up to a second more, or fewer where the past is not known.
        """
        first = max(self._taken - window_s, self.since)
        sums = [count - before for count, before in zip(counts, self._counts, strict=True)]
        for second, _, changes in self._rows():
            if second > first:
                sums = [total + change for total, change in zip(sums, changes, strict=True)]
        return now - max(first, self._begun_at), RoomCounts(*sums)

    def _rows(self) -> Iterator[tuple[int, int, RoomCounts]]:
        for _, block in self._blocks:
            for second, online, *changes in _rows_of(block):
                yield second, online, RoomCounts(*changes)

    def _forget_first(self) -> None:
        _, block = self._blocks.popleft()
        self._budget.used_bytes -= len(block) + BLOCK_BYTES
        for _, online, *_ in _rows_of(block):
            self._first_online = online


def _rows_of(block: bytearray) -> Iterator[tuple[int, ...]]:
    place = 0
    while place < len(block):
        end = place + 1 + block[place]
        yield unpack_body(bytes(block[place + 1 : end]))
        place = end
