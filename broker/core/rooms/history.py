"""In-memory history of a room: events for clients that resume, recent danmaku for clients that join.

`History` holds the last events of lanes 0 to 2 by offset: 1, 2, 3 ... without a hole, within one epoch (one
run of the room). A client that returns with a position gets exactly what was appended after it, or None:
"that cannot be complete". There is no third answer, so a part is never taken for the whole.

`RecentDanmaku` holds the last danmaku shown, for the snapshot of a JOIN; it promises nothing.

Both are bounded, and forget the oldest first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Generic, TypeVar

__all__ = ["History", "RecentDanmaku"]

E = TypeVar("E")


class History(Generic[E]):
    """The stream of one room, as far as it is remembered. Entries are the caller's and are not inspected.

    ``max_entries`` 0 keeps nothing: offsets are still given out, and only who is up to date can resume.
    An entry leaves when there are too many, too many bytes, or when it is older than ``max_age_s``.
    """

    __slots__ = ("_entries", "_max_age_s", "_max_bytes", "_max_entries", "epoch", "last_offset", "nbytes")

    def __init__(
        self, epoch: int, max_entries: int = 512, max_age_s: float = 120.0, max_bytes: int = 4 * 1024 * 1024
    ) -> None:
        if max_entries < 0 or max_age_s < 0 or max_bytes < 0:
            raise ValueError("bounds must not be negative")
        self.epoch = epoch
        self.last_offset = 0
        self.nbytes = 0
        self._max_entries = max_entries
        self._max_age_s = max_age_s
        self._max_bytes = max_bytes
        self._entries: deque[tuple[float, int, E]] = deque()  # appended at, bytes, entry

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[E]:
        return (entry for _, _, entry in self._entries)

    def replace(self, change: Callable[[E], E]) -> None:
        """Put ``change(entry)`` in place of each entry. Linear in the entries kept."""
        for index, (at, nbytes, entry) in enumerate(self._entries):
            self._entries[index] = at, nbytes, change(entry)

    @property
    def first_offset(self) -> int:
        """Offset of the oldest entry kept, ``last_offset + 1`` if there is none."""
        return self.last_offset + 1 - len(self._entries)

    def append(self, entry: E, nbytes: int, now: float) -> int:
        """Give ``entry`` the next offset (always ``last_offset + 1``) and return it. O(1) amortized.

        ``nbytes``: what it costs to keep. ``now`` in monotonic seconds.
        """
        self.last_offset += 1
        self._entries.append((now, nbytes, entry))
        self.nbytes += nbytes
        self.trim(now)
        return self.last_offset

    def trim(self, now: float) -> None:
        """Forget what is too much or too old; for an idle room, whose history nothing else shortens."""
        oldest_at = now - self._max_age_s
        entries = self._entries
        while entries and (
            len(entries) > self._max_entries or self.nbytes > self._max_bytes or entries[0][0] < oldest_at
        ):
            self.nbytes -= entries.popleft()[1]

    def since(self, epoch: int, offset: int, now: float) -> list[E] | None:
        """Return all entries after ``offset``, oldest first, or None if that cannot be complete.

        None: another epoch, something after ``offset`` is forgotten, or it has not been given out yet. Linear in
        the entries kept.
        """
        self.trim(now)
        if epoch != self.epoch or not self.first_offset - 1 <= offset <= self.last_offset:
            return None
        return [entry for _, _, entry in islice(self._entries, offset + 1 - self.first_offset, None)]


class RecentDanmaku(Generic[E]):
    """The last danmaku that were shown, oldest first; 0 ``max_items`` = none.

    ``size_of``: bytes of one on the wire. A snapshot holds the newest that fit into ``max_bytes``; it is made once and
    kept until the next danmaku.
    """

    __slots__ = ("_items", "_max_bytes", "_size_of", "_snapshot", "_taken_bytes")

    def __init__(self, max_items: int, max_bytes: int, size_of: Callable[[E], int]) -> None:
        if max_items < 0 or max_bytes < 0:
            raise ValueError("bounds must not be negative")
        self._items: deque[E] = deque(maxlen=max_items)
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._snapshot: tuple[tuple[E, ...], bool] | None = None
        self._taken_bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def extend(self, items: Iterable[E]) -> None:
        """Add danmaku that were shown, oldest first."""
        self._items.extend(items)
        self._snapshot = None

    def __iter__(self) -> Iterator[E]:
        return iter(self._items)

    def replace(self, change: Callable[[E], E | None]) -> None:
        """Put ``change(item)`` in place of each; None = it goes."""
        changed = (change(item) for item in self._items)
        self._items = deque((item for item in changed if item is not None), self._items.maxlen)
        self._snapshot = None

    def snapshot(self, taken_bytes: int = 0) -> tuple[tuple[E, ...], bool]:
        """Return the newest ones, oldest first, and whether older ones were left out for their size.

        ``taken_bytes``: what of ``max_bytes`` is taken by something else.
        """
        if self._snapshot is None or self._taken_bytes != taken_bytes:
            self._taken_bytes = taken_bytes
            left = self._max_bytes - taken_bytes
            found: list[E] = []
            for item in reversed(self._items):
                left -= self._size_of(item)
                if left < 0:
                    break
                found.append(item)
            self._snapshot = tuple(reversed(found)), len(found) < len(self._items)
        return self._snapshot
