"""Values over time with a bounded number of points: where there would be more, each covers twice the time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["MAX_POINTS", "Series"]

MAX_POINTS = 720
"""Two hours of 10 seconds each."""


class Series:
    """Rows of integers by time. ``width_ms``: time of a point at first; ``combine``: of the values in one point, `max`
    or the sum."""

    __slots__ = ("_combine", "_points", "from_ms", "width_ms")

    def __init__(self, width_ms: int, combine: Callable[[int, int], int]) -> None:
        self.width_ms = width_ms
        self.from_ms: int | None = None
        """Start of the first point, None = there is none."""
        self._combine = combine
        self._points: dict[int, list[int]] = {}

    def add(self, at_ms: int, values: Sequence[int]) -> None:
        """Add a row of values; a time before the first one counts to the first point."""
        if self.from_ms is None:
            self.from_ms = at_ms
        place = max(0, at_ms - self.from_ms) // self.width_ms
        while place >= MAX_POINTS:
            self._widen()
            place //= 2
        self._put(place, values)

    def rows(self) -> list[list[int]]:
        """Return the number of each point that has values, from 0, and its values; in order."""
        return [[place, *self._points[place]] for place in sorted(self._points)]

    def _widen(self) -> None:
        points, self._points = self._points, {}
        self.width_ms *= 2
        for place in sorted(points):
            self._put(place // 2, points[place])

    def _put(self, place: int, values: Sequence[int]) -> None:
        known = self._points.get(place)
        self._points[place] = list(values) if known is None else list(map(self._combine, known, values))
