"""Posts of one link that the ledger has not answered yet, by number and bytes.

The ledger's queue is shared: without a bound for each link, one that posts faster than the disk takes would fill it,
and posts of all other links would be refused. A post waits from the read that brought it to its one answer.
"""

from __future__ import annotations

__all__ = ["MAX_BYTES", "MAX_POSTS", "WaitingPosts"]

MAX_POSTS = 2048
"""Posts of one link that may wait: a tenth of what the ledger's queue takes by default."""
MAX_BYTES = 4 * 1024 * 1024
"""Bytes of their payloads."""


class WaitingPosts:
    """Posts of one link that wait, by room and sequence. A client that repeats a sequence has both counted."""

    __slots__ = ("_sizes", "count", "nbytes")

    def __init__(self) -> None:
        self._sizes: dict[tuple[int, int], list[int]] = {}
        self.count = 0
        """Posts that wait."""
        self.nbytes = 0
        """Bytes of their payloads."""

    def add(self, room: int, sequence: int, size: int) -> bool:
        """Count a post of ``size`` bytes; False, and nothing is counted, if it does not fit. O(1)."""
        if self.count >= MAX_POSTS or self.nbytes + size > MAX_BYTES:
            return False
        self._sizes.setdefault((room, sequence), []).append(size)
        self.count += 1
        self.nbytes += size
        return True

    def answered(self, room: int, sequence: int) -> None:
        """Count the answer to a post; an answer to anything else is ignored. O(1)."""
        sizes = self._sizes.get((room, sequence))
        if sizes is not None:
            self.count -= 1
            self.nbytes -= sizes.pop()
            if not sizes:
                del self._sizes[room, sequence]

    def forget(self, room: int) -> None:
        """Count every post of a room as answered: the link has left it. O(posts)."""
        for key in [key for key in self._sizes if key[0] == room]:
            sizes = self._sizes.pop(key)
            self.count -= len(sizes)
            self.nbytes -= sum(sizes)
