"""Sorted set of texts that grows one by one: sorting 100,000 of them at once would hold the event loop for too long."""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import chain

__all__ = ["SortedTexts"]

MAX_PART = 1024


class SortedTexts:
    """Different texts in the order of their code points, which is that of their bytes in UTF-8."""

    __slots__ = ("_lasts", "_parts")

    def __init__(self) -> None:
        self._parts: list[list[str]] = []
        self._lasts: list[str] = []
        """Last text of each part."""

    def add(self, text: str) -> None:
        """Add a text that is not in the set: about 2 us with 100,000 texts."""
        if not self._parts:
            self._parts.append([text])
            self._lasts.append(text)
            return
        at = min(bisect_left(self._lasts, text), len(self._parts) - 1)
        part = self._parts[at]
        insort(part, text)
        self._lasts[at] = part[-1]
        if len(part) > MAX_PART:
            half = len(part) // 2
            self._parts[at : at + 1] = part[:half], part[half:]
            self._lasts[at : at + 1] = part[half - 1], part[-1]

    def remove(self, text: str) -> None:
        """Remove a text of the set."""
        at = bisect_left(self._lasts, text)
        part = self._parts[at]
        del part[bisect_left(part, text)]
        if part:
            self._lasts[at] = part[-1]
        else:
            del self._parts[at], self._lasts[at]

    def all(self) -> list[str]:
        """Return all texts in order: about 1 ms for 100,000."""
        return list(chain.from_iterable(self._parts))
