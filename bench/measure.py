"""Latency histograms that are merged between processes.

Every process counts its own values in HdrHistograms and passes them on encoded. Merging adds counts, so a percentile
over five processes is the percentile of all their values; percentiles are never averaged.

There are two resolutions: three significant digits for the whole run, and two digits in one histogram a second for the
plot over time. Values are integer microseconds from 1 to an hour; values outside are clamped and counted.

Many values arrive at once (100,000 copies of a frame with 20 danmaku), so they are quantized and counted as arrays
before they go into the histogram: about 20 ns a value instead of 2 us.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram

__all__ = ["PERCENTILES", "Latencies", "SecondSeries", "Summary", "merge_series", "now_us", "quantile", "summarise"]

MAX_US = 3_600_000_000
"""Largest value: an hour."""
PERCENTILES = (50.0, 90.0, 99.0, 99.9)

Summary = dict[str, float]
"""``count, p50_ms, p90_ms, p99_ms, p99_9_ms, max_ms``."""

Array = Any
"""A numpy array of integers."""


def now_us() -> int:
    """Return CLOCK_MONOTONIC in microseconds, which all processes of a machine share."""
    return time.monotonic_ns() // 1000


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value that ``share`` of the sorted values do not exceed; 0.0 without values."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Latencies:
    """One histogram of microseconds."""

    __slots__ = ("_histogram", "digits")

    def __init__(self, digits: int = 3) -> None:
        self.digits = digits
        self._histogram = HdrHistogram(1, MAX_US, digits)

    def record(self, value_us: int, count: int = 1) -> None:
        """Count one value ``count`` times. About 2 us."""
        self._histogram.record_value(min(max(1, value_us), MAX_US), count)

    def record_many(self, values_us: Array, weights: Array | None = None) -> None:
        """Count an integer array of any shape, each value ``weights`` times (same shape; None = once).

        O(values), and a few hundred calls into the histogram.
        """
        values = np.clip(np.asarray(values_us).ravel(), 1, MAX_US).astype(np.float64)
        if not values.size:
            return
        # Exponent and first bits of the mantissa of a float, taken as an integer, are a logarithmic scale.
        bits = 12 if self.digits == 3 else 8
        codes = values.view(np.int64) >> (52 - bits)
        first = int(codes.min())
        counts = np.bincount(codes - first, None if weights is None else np.asarray(weights).ravel())
        present = np.nonzero(counts)[0]
        floors = ((present + first) << (52 - bits)).view(np.float64)
        for value, count in zip(floors.tolist(), counts[present].tolist(), strict=True):
            self._histogram.record_value(min(int(value), MAX_US), int(count))

    @property
    def count(self) -> int:
        """Values counted."""
        return int(self._histogram.get_total_count())

    def percentile_us(self, percentile: float) -> int:
        """Return the value that ``percentile`` percent of all values do not exceed; 0 without values."""
        return int(self._histogram.get_value_at_percentile(percentile)) if self.count else 0

    def encode(self) -> str:
        """Return the histogram in HdrHistogram's own format (V2, compressed, base64)."""
        encoded: bytes = self._histogram.encode()
        return encoded.decode()

    def merge(self, encoded: str) -> None:
        """Add an encoded histogram of another process."""
        self._histogram.decode_and_add(encoded)

    def summary(self) -> Summary:
        """Return count, the percentiles of `PERCENTILES` and the maximum, in milliseconds."""
        if not self.count:
            return {"count": 0}
        found: Summary = {"count": self.count}
        for percentile in PERCENTILES:
            name = f"p{percentile:g}".replace(".", "_") + "_ms"
            found[name] = round(self.percentile_us(percentile) / 1000, 3)
        found["max_ms"] = round(int(self._histogram.get_max_value()) / 1000, 3)
        return found


def summarise(encoded: Iterable[str], digits: int = 3) -> Latencies:
    """Return all of ``encoded`` as one histogram."""
    merged = Latencies(digits)
    for each in encoded:
        merged.merge(each)
    return merged


class SecondSeries:
    """One small histogram per lane and second, so that a plot can show when it was slow.

    Bounded by the length of the run: 3 KB at most a lane and second while it is encoded.
    """

    def __init__(self, origin_us: int) -> None:
        self._origin_us = origin_us
        self._current: dict[str, Latencies] = {}
        self._second = 0
        self.rows: dict[str, dict[int, str]] = {}
        """Encoded histograms: lane -> second since the origin -> histogram."""

    def add(self, lane: str, values_us: Array, at_us: int, weights: Array | None = None) -> None:
        """Count values seen about ``at_us``; times must not go back beyond the current second."""
        second = max(0, (at_us - self._origin_us) // 1_000_000)
        if second != self._second:
            self.close()
            self._second = second
        latencies = self._current.get(lane)
        if latencies is None:
            latencies = self._current[lane] = Latencies(2)
        latencies.record_many(values_us, weights)

    def close(self) -> None:
        """End the current second."""
        for lane, latencies in self._current.items():
            row = self.rows.setdefault(lane, {})
            older = row.get(self._second)
            if older is not None:
                latencies.merge(older)
            row[self._second] = latencies.encode()
        self._current.clear()


def merge_series(series: Iterable[Mapping[str, Mapping[str, str]]]) -> dict[str, list[dict[str, float]]]:
    """Series of several processes (seconds as JSON keys, text) as rows of percentiles for each lane, by time."""
    merged: dict[str, dict[int, Latencies]] = {}
    for one in series:
        for lane, row in one.items():
            seconds = merged.setdefault(lane, {})
            for second, encoded in row.items():
                seconds.setdefault(int(second), Latencies(2)).merge(encoded)
    return {
        lane: [
            {
                "second": second,
                "count": latencies.count,
                "p50_ms": latencies.percentile_us(50) / 1000,
                "p99_ms": latencies.percentile_us(99) / 1000,
                "max_ms": latencies.percentile_us(100) / 1000,
            }
            for second, latencies in sorted(seconds.items())
        ]
        for lane, seconds in sorted(merged.items())
    }
