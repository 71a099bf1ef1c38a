"""What a console shows of a whole broker: a selection of the metrics, with what they were over the last second."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from heapq import nlargest
from pathlib import Path
from typing import Any

import trio

from broker.core.structures.histogram import Histogram
from broker.telemetry.metrics import METRICS, Reading, read

__all__ = ["Overview"]

_BY_NAME = {metric.name: metric for metric in METRICS}
NUMBERS = (
    "connections", "users", "rooms", "backlogged_connections", "queue_bytes", "queue_limit_bytes", "overload_stage",
    "posts_total", "missed_chat_total", "fanout_deliveries_total", "fanout_busy_seconds_total", "loop_slow_steps_total",
    "ledger_ready", "ledger_waiting", "ledger_commits_total", "ledger_commit_seconds_total",
    "review_oldest_age_seconds", "calls_total", "api_requests_total", "log_lines_dropped_total",
)  # fmt: skip
TABLES = (
    "messages_admitted_total", "messages_shown_total", "messages_merged_total", "messages_sampled_total",
    "messages_expired_total", "messages_held", "posts_refused_total", "connections_closed_total",
    "connections_refused_total", "review_messages",
)  # fmt: skip
"""Metrics with a label: their values by it."""
TOP_ROOMS = 8
QUANTILES = (0.5, 0.99)


class Overview:
    """Reads one broker. Any: the composition root is above this module."""

    def __init__(self, broker: Any) -> None:
        self._broker = broker
        self._counts: list[int] = []
        self._ticks = (0.0, 0)

    async def sample(self) -> tuple[dict[str, Any], list[str]]:
        """Return the numbers of this moment, and the qualified names of the largest rooms, largest first. O(rooms), in
        steps between which other tasks run. Any: what `json` can write."""
        steps = self._broker.hub.totals_in_steps()
        while True:
            try:
                next(steps)
            except StopIteration as done:
                totals = done.value
                break
            await trio.lowlevel.checkpoint()
        reading = Reading(self._broker, totals)
        found: dict[str, Any] = {name: _number(name, reading) for name in NUMBERS}
        found |= {name: _table(name, reading) for name in TABLES}
        found["publish_ms"] = self._publish_ms(reading)
        found["tick_ms"] = self._tick_ms(reading)
        found["slowest_step_ms"] = round(self._broker.loop_monitor.slowest_step_s * 1000)
        found["memory_bytes"] = memory_bytes()
        return found, [name for _, name in nlargest(TOP_ROOMS, totals.online)]

    def _publish_ms(self, reading: Reading) -> dict[str, float | None]:
        """Return quantiles of the time from a publication to its last write, since the last sample."""
        histograms: Mapping[str, Histogram] = _BY_NAME["roomcast_publish_seconds"].read(reading)
        all_counts = [each.counts for each in histograms.values()]
        counts = [sum(column) for column in zip(*all_counts, strict=True)]
        bounds = next(iter(histograms.values())).bounds
        before, self._counts = self._counts or [0] * len(counts), counts
        lately = [max(0, new - old) for new, old in zip(counts, before, strict=True)]
        return {f"p{round(q * 100)}": quantile_ms(bounds, lately, q) for q in QUANTILES}

    def _tick_ms(self, reading: Reading) -> float | None:
        """Return the mean interval of the ticks since the last sample."""
        histogram: Histogram = _BY_NAME["roomcast_tick_interval_seconds"].read(reading)
        (total_s, count), self._ticks = self._ticks, (histogram.sum, histogram.count)
        ticks = histogram.count - count
        return round((histogram.sum - total_s) * 1000 / ticks, 1) if ticks > 0 else None


def quantile_ms(bounds: tuple[float, ...], counts: list[int], q: float) -> float | None:
    """Return the upper bound of the bucket that holds a quantile, in milliseconds; None where nothing was counted."""
    total, passed = sum(counts), 0
    for bound, count in zip(bounds, counts, strict=False):
        passed += count
        if total and passed >= q * total:
            return round(bound * 1000, 3)
    return round(bounds[-1] * 1000, 3) if total else None


def memory_bytes() -> int:
    """Return the resident memory of this process; its highest where the system does not say the present one."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()


def _number(name: str, reading: Reading) -> float:
    return round(read(_BY_NAME[f"roomcast_{name}"], reading)[0].value, 6)


def _table(name: str, reading: Reading) -> dict[str, int]:
    metric = _BY_NAME[f"roomcast_{name}"]
    return {dict(value.labels)[metric.label]: round(value.value) for value in read(metric, reading)}
