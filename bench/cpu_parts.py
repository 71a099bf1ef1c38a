"""CPU of the broker's process by part, from samples of what its loop executes.

A timer of the process's CPU time interrupts the loop a hundred times in a second of CPU; the part is that of the
innermost module of the broker that is not a helper of all. Time in the kernel counts for who called it. The threads of
the ledger are no samples: theirs is what the process used and the loop's thread did not.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from types import FrameType

__all__ = ["PARTS", "CpuParts", "by_part_us", "part_of"]

INTERVAL_S = 0.01
PARTS = ("network", "sessions", "rooms", "fanout", "ledger", "other")

_MODULES = (
    ("broker.rooms.fanout", "fanout"),
    ("broker.rooms", "rooms"),
    ("broker.core.rooms", "rooms"),
    ("broker.core.chat", "rooms"),
    ("broker.core.commerce", "rooms"),
    ("broker.core.moderation", "rooms"),
    ("broker.sessions", "sessions"),
    ("broker.auth", "sessions"),
    ("broker.users", "sessions"),
    ("broker.operations", "sessions"),
    ("broker.net", "network"),
    ("broker.ledger", "ledger"),
)
"""The first that fits counts. A module in none (protocol, structures) is part of who called it."""


def part_of(frame: FrameType | None) -> str:
    """Return the part of the broker that a stack is in."""
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        for module, part in _MODULES:
            if name == module or name.startswith(f"{module}."):
                return part
        frame = frame.f_back
    return "other"


class CpuParts:
    """Samples of the thread that makes it, which must be the main one."""

    def __init__(self) -> None:
        self._samples: Counter[str] = Counter()
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)

    def _sample(self, number: int, frame: FrameType | None) -> None:
        self._samples[part_of(frame)] += 1

    def read(self) -> dict[str, float]:
        """Return the samples so far by part, and the CPU seconds so far of the loop's thread and of all others."""
        loop_s = time.thread_time()
        return {**self._samples, "loop_s": loop_s, "threads_s": time.process_time() - loop_s}


def by_part_us(before: dict[str, float], after: dict[str, float], deliveries: int) -> dict[str, float]:
    """Return the CPU of one delivery by part, in us, between two readings; nothing without a sample or a delivery."""
    samples = {part: after.get(part, 0) - before.get(part, 0) for part in PARTS}
    total = sum(samples.values())
    if not total or not deliveries:
        return {}
    loop_us = (after["loop_s"] - before["loop_s"]) / deliveries * 1e6
    found = {part: loop_us * count / total for part, count in samples.items()}
    found["ledger"] += (after["threads_s"] - before["threads_s"]) / deliveries * 1e6
    return found
