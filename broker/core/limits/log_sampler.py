"""Sampling of log lines: at most so many of a kind in a second, with the number of those left out.

Clients can cause some kinds of lines at will (refused tokens, rooms opened). A kind is the text of the event, which is
a constant of the code, so kinds are few; above `MAX_KINDS` further ones share one count.
"""

from __future__ import annotations

__all__ = ["LINES_PER_S", "MAX_KINDS", "LogSampler"]

LINES_PER_S = 10
MAX_KINDS = 256
OTHER = "other lines"


class LogSampler:
    """Counts of lines by kind. Every method is O(1), but `take_left_out`: O(kinds). ``now``: monotonic seconds."""

    __slots__ = ("_kinds", "_lines_per_s")

    def __init__(self, lines_per_s: int = LINES_PER_S) -> None:
        if lines_per_s < 1:
            raise ValueError(f"lines_per_s must be at least 1: {lines_per_s!r}")
        self._lines_per_s = lines_per_s
        self._kinds: dict[str, list[float]] = {}
        """By kind: when its second began, the lines in it, and those left out since the last report."""

    def admits(self, kind: str, now: float) -> bool:
        """Count a line, and return whether it may be written."""
        if kind not in self._kinds and len(self._kinds) >= MAX_KINDS:
            kind = OTHER
        counts = self._kinds.setdefault(kind, [now, 0, 0])
        if not 0 <= now - counts[0] < 1.0:
            counts[0], counts[1] = now, 0
        if counts[1] < self._lines_per_s:
            counts[1] += 1
            return True
        counts[2] += 1
        return False

    def take_left_out(self, now: float) -> dict[str, int]:
        """Return how many lines were left out, by kind, for the kinds whose second is over; they count as reported."""
        found = {}
        for kind, counts in self._kinds.items():
            if counts[2] and not 0 <= now - counts[0] < 1.0:
                found[kind] = int(counts[2])
                counts[2] = 0
        return found
