"""Duplicates: the same user says the same text again within the window; the second one is refused.

This is the chat rule known as "unique" or "r9k" mode on Twitch, here per user: what *others* say again is not
refused but merged by the tick. Texts are compared as `fold` returns them, as in the
merge, so "HA" and "ha" are the same.

The window starts at the text that passed; a refused repetition does not prolong it, so a user who cheers
every ten seconds is heard every thirty.

Memory does not depend on the length of texts: only a 64-bit hash of (user, text) is kept, with a time, about
100 bytes a mark and at most ``max_keys`` marks. Python keys its string hashes per process with a secret, so no user
can aim for a collision, and with the table full a new text meets another's mark with probability
max_keys / 2**64, once in 10**14 messages. A full table forgets the oldest marks early (a duplicate may then pass;
``forgotten`` counts them): 65,536 marks are the unique texts of 30 s at 1,000 a second, five times the room's quota.
"""

from __future__ import annotations

from ..structures.recent_keys import RecentKeys

__all__ = ["DuplicateFilter"]


class DuplicateFilter:
    """One room's memory of who said what; ``window_s`` 0 = off."""

    __slots__ = ("_forgotten_before", "_max_keys", "_recent", "_window_s", "refused")

    def __init__(self, window_s: float = 30.0, max_keys: int = 65_536) -> None:
        self.refused = 0
        self._window_s = window_s
        self._max_keys = max_keys
        self._forgotten_before = 0
        self._recent = RecentKeys[int](window_s, max_keys) if window_s > 0 else None

    def use_window(self, window_s: float) -> None:
        """Apply another window from now on; the marks of the present one are forgotten."""
        if window_s != self._window_s:
            self._forgotten_before = self.forgotten
            self._window_s = window_s
            self._recent = RecentKeys[int](window_s, self._max_keys) if window_s > 0 else None

    def __len__(self) -> int:
        return 0 if self._recent is None else len(self._recent)

    @property
    def forgotten(self) -> int:
        """Marks thrown away before their time because the table was full."""
        return self._forgotten_before + (0 if self._recent is None else self._recent.forgotten)

    def is_duplicate(self, key: int, now: float) -> bool:
        """Return whether a message with this key was taken in less than a window ago: refuse it. ``key``: the hash of
        its sender and its text as it is compared."""
        recent = self._recent
        if recent is None or not recent.is_recent(key, now):
            return False
        self.refused += 1
        return True

    def mark(self, key: int, now: float) -> None:
        """Remember a text that was taken in. One that a limit refused is not: no member has seen it."""
        if self._recent is not None:
            self._recent.mark(key, now)
