"""Office hours of a service desk: times of the week, and how much of an interval lies within them. Pure.

The clocks of promises to customers stand still outside of them: a question of the night is not late in the morning.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["WEEK_MINUTES", "OfficeHours"]

WEEK_MINUTES = 7 * 24 * 60
MAX_WINDOWS = 50
MAX_OFFSET_MINUTES = 14 * 60
_MINUTE_MS = 60_000
_WEEK_MS = WEEK_MINUTES * _MINUTE_MS
_FIRST_MONDAY_MS = 4 * 24 * 60 * _MINUTE_MS
"""1970 began with a Thursday."""


class OfficeHours(NamedTuple):
    """When a desk is open. ``windows``: pairs of minutes since Monday 00:00, from the first to before the second, in
    their order and apart; none = always. ``offset_minutes``: how far the local time is ahead of UTC, all the year."""

    windows: tuple[tuple[int, int], ...] = ()
    offset_minutes: int = 0

    def check(self) -> None:
        """Raise ValueError, with the rule, where these are no office hours."""
        if len(self.windows) > MAX_WINDOWS:
            raise ValueError(f"there must be at most {MAX_WINDOWS} windows")
        if abs(self.offset_minutes) > MAX_OFFSET_MINUTES:
            raise ValueError(f"the offset must be at most {MAX_OFFSET_MINUTES} minutes")
        last = 0
        for begin, end in self.windows:
            if not last <= begin < end <= WEEK_MINUTES:
                raise ValueError("windows must be minutes of a week, in their order and apart")
            last = end

    def is_open(self, at_ms: int) -> bool:
        """Return whether the desk is open at a time, Unix milliseconds."""
        minute = self._of_week(at_ms) // _MINUTE_MS
        return not self.windows or any(begin <= minute < end for begin, end in self.windows)

    def between(self, since_ms: int, until_ms: int) -> int:
        """Return how many milliseconds of an interval the desk is open; 0 where it ends before it begins."""
        if until_ms <= since_ms:
            return 0
        return self._open_ms(until_ms) - self._open_ms(since_ms) if self.windows else until_ms - since_ms

    def opens_in_ms(self, at_ms: int) -> int:
        """Return how long it takes until the desk is open; 0 = it is."""
        if self.is_open(at_ms):
            return 0
        begins = [begin * _MINUTE_MS for begin, _ in self.windows]
        return min((begin - self._of_week(at_ms)) % _WEEK_MS for begin in begins)

    def _local(self, at_ms: int) -> int:
        return at_ms + self.offset_minutes * _MINUTE_MS - _FIRST_MONDAY_MS

    def _of_week(self, at_ms: int) -> int:
        return self._local(at_ms) % _WEEK_MS

    def _open_ms(self, at_ms: int) -> int:
        """Return the open milliseconds since the first Monday, below 0 before it."""
        weeks, rest_ms = divmod(self._local(at_ms), _WEEK_MS)
        found = 0
        for begin, end in self.windows:
            length_ms = (end - begin) * _MINUTE_MS
            found += weeks * length_ms + min(max(rest_ms - begin * _MINUTE_MS, 0), length_ms)
        return found
