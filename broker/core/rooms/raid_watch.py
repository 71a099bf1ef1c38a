"""Slow mode by itself while a room is raided: it is a mode like any other, with an end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Generic, TypeVar

from broker.core.moderation.raids import RaidDetector, RaidRules
from broker.core.rooms.effects import Effect
from broker.core.rooms.modes import ModeChanges
from broker.core.rooms.policies import Policy

__all__ = ["RaidWatch"]

T = TypeVar("T")


class RaidWatch(Generic[T]):
    """Watches one room. ``now``: monotonic seconds; ``now_ms``: the trusted clock."""

    __slots__ = ("_detector", "_modes", "_now_ms", "_rules", "ends_at")

    def __init__(self, policy: Policy, modes: ModeChanges[T], now_ms: Callable[[], int]) -> None:
        self._rules = _rules_of(policy)
        self._detector = RaidDetector(self._rules)
        self._modes = modes
        self._now_ms = now_ms
        self.ends_at = inf
        """When `end` is due."""

    def use_policy(self, policy: Policy) -> None:
        """Apply another policy from now on; a raid that goes on keeps its end."""
        rules = _rules_of(policy)
        if rules != self._rules:
            self._rules = rules
            self._detector = RaidDetector(rules)

    @property
    def is_on(self) -> bool:
        """Whether `observe` finds anything."""
        return self._rules.is_on

    def observe(self, joined: int, repeated: int, now: float, at_ms: int) -> Sequence[Effect[T]]:
        """Begin slow mode where there is a raid; arguments as of `RaidDetector.observe`."""
        if not self._detector.observe(joined, repeated, now) or self.ends_at < inf:
            return ()
        self._modes.guard.count_raid()
        self.ends_at = now + self._rules.lasts_s
        until_ms = self._now_ms() + self._rules.lasts_s * 1000
        return self._modes.change({"raid_slow_s": self._rules.slow_s, "raid_until_ms": until_ms}, "", "", now, at_ms)

    def end(self, now: float, at_ms: int) -> Sequence[Effect[T]]:
        """End slow mode, if staff have not done so."""
        self.ends_at = inf
        if not self._modes.modes.raid_until_ms:
            return ()
        return self._modes.change({"raid_slow_s": 0, "raid_until_ms": 0}, "", "", now, at_ms)

    def restored(self, now: float) -> None:
        """Go on with the end of a raid from before a restart."""
        until_ms = self._modes.modes.raid_until_ms
        self.ends_at = now + max(0.0, (until_ms - self._now_ms()) / 1000) if until_ms else inf


def _rules_of(policy: Policy) -> RaidRules:
    return RaidRules(policy.raid_joins, policy.raid_repeats, policy.raid_slow_s, policy.raid_s)
