"""Table of recent keys: when a key was last marked, if that was less than a window ago.

Two generations of dicts. Marks go to the young one; once it is a window old it becomes the old one and
the old one is thrown away whole, because every mark in it is older than a window by then. Each mark keeps its
time, so answers are exact; there is no timer, no scan, and every call is O(1).

Bound: ``max_keys`` marks in both generations together. A young generation that reaches half of that turns old
early, and the old one is forgotten before its time: marks may be forgotten, oldest first, never invented. ``forgotten``
counts the marks thrown away early, so that the loss can be seen. ``now`` that goes back counts as unchanged.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import Generic, TypeVar

__all__ = ["RecentKeys"]

K = TypeVar("K", bound=Hashable)


class RecentKeys(Generic[K]):
    """Keys marked within the last ``window_s`` (> 0) seconds, at most ``max_keys`` (>= 2) of them."""

    __slots__ = ("_half", "_latest", "_old", "_turn_at", "_window_s", "_young", "forgotten")

    def __init__(self, window_s: float, max_keys: int) -> None:
        if not window_s > 0 or max_keys < 2:
            raise ValueError(f"not a window of recent keys: {window_s=} {max_keys=}")
        self.forgotten = 0
        self._window_s = window_s
        self._half = max_keys // 2
        self._latest = -inf
        self._turn_at = -inf
        self._young: dict[K, float] = {}
        self._old: dict[K, float] = {}

    def __len__(self) -> int:
        """Marks held, outdated and repeated ones included; never above ``max_keys``."""
        return len(self._young) + len(self._old)

    def is_recent(self, key: K, now: float) -> bool:
        """Whether ``key`` was marked less than ``window_s`` before ``now`` (and not forgotten)."""
        if now < self._latest:
            now = self._latest
        else:
            self._latest = now
        marked_at = self._young.get(key)
        if marked_at is None:
            marked_at = self._old.get(key, -inf)
        return now - marked_at < self._window_s

    def mark(self, key: K, now: float) -> None:
        """Remember ``key`` at ``now``; a newer mark replaces an older one."""
        if now < self._latest:
            now = self._latest
        else:
            self._latest = now
        young = self._young
        if now >= self._turn_at:
            self._old = young if now < self._turn_at + self._window_s else {}
            self._young = young = {}
            self._turn_at = now + self._window_s
        elif len(young) >= self._half and key not in young:
            self._forget(now)
            self._old = young
            self._young = young = {}
            self._turn_at = now + self._window_s
        young[key] = now

    def _forget(self, now: float) -> None:
        oldest = now - self._window_s
        self.forgotten += sum(marked_at > oldest for marked_at in self._old.values())
