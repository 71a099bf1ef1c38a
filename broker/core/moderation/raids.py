"""Raids: many users who join at once, or many who say the same at once."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

__all__ = ["WINDOW_S", "RaidDetector", "RaidRules"]

WINDOW_S = 10.0
"""Time over which joins and repetitions are counted."""
_STEP_S = 0.5
"""The counts are sampled so often at most."""


class RaidRules(NamedTuple):
    """What is a raid: ``joins`` users who come in within `WINDOW_S`, or ``repeats`` messages that are merged into equal
    ones; 0 = is none. Then slow mode of ``slow_s`` seconds holds for ``lasts_s``."""

    joins: int = 0
    repeats: int = 0
    slow_s: int = 30
    lasts_s: int = 300

    @property
    def is_on(self) -> bool:
        """Whether anything is a raid."""
        return bool(self.joins or self.repeats)


class RaidDetector:
    """Watches one room. ``now``: monotonic seconds."""

    __slots__ = ("_rules", "_samples")

    def __init__(self, rules: RaidRules) -> None:
        self._rules = rules
        self._samples: deque[tuple[float, int, int]] = deque()
        """Sums at the begin of each step of the window."""

    def observe(self, joined: int, repeated: int, now: float) -> bool:
        """Return whether there is a raid. ``joined``, ``repeated``: sums since the room exists."""
        samples = self._samples
        while len(samples) > 1 and samples[1][0] <= now - WINDOW_S:
            samples.popleft()
        if not samples or now >= samples[-1][0] + _STEP_S:
            samples.append((now, joined, repeated))
        _, joined_before, repeated_before = samples[0]
        rules = self._rules
        return bool(
            (rules.joins and joined - joined_before >= rules.joins)
            or (rules.repeats and repeated - repeated_before >= rules.repeats)
        )
