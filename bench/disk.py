"""The floor of durable figures: the disk alone, in the directory of the ledger.

It writes 4 KiB and calls ``fdatasync``, again and again: the rate of serial syncs, and the time of a slow one. Group
commit has to be above that rate. A disk may be a shared or remote volume, so a durable figure is shown only beside the
floor of the same run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from bench.measure import quantile

__all__ = ["SyncFloor", "sync_floor", "sync_times"]

PAGE_BYTES = 4096


class SyncFloor(NamedTuple):
    """Serial syncs a second, and the time of one."""

    per_s: float
    p50_ms: float
    p99_ms: float
    syncs: int


def sync_times(directory: Path, seconds: float) -> list[float]:
    """Append 4 KiB and sync, repeatedly for ``seconds``; return the seconds of each sync. The file is removed."""
    path = directory / "floor"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    page = os.urandom(PAGE_BYTES)
    times: list[float] = []
    last = time.perf_counter()
    end = last + seconds
    try:
        while last < end:
            os.write(descriptor, page)
            os.fdatasync(descriptor)
            now = time.perf_counter()
            times.append(now - last)
            last = now
    finally:
        os.close(descriptor)
        path.unlink()
    return times


def sync_floor(probes: Iterable[list[float]]) -> SyncFloor:
    """Return the floor from the samples of `sync_times` before and after the load. ValueError without a sync."""
    times = sorted(each for probe in probes for each in probe)
    if not times:
        raise ValueError("no sync was timed")
    return SyncFloor(
        round(len(times) / sum(times), 1),
        round(quantile(times, 0.5) * 1e3, 3),
        round(quantile(times, 0.99) * 1e3, 3),
        len(times),
    )
