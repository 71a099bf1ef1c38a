"""Whether a marketing message may go to a user: the user's preference, caps on how often, and quiet hours."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

__all__ = ["DAY_MS", "HOUR_MS", "MarketingRules", "QuietHours", "Suppression"]

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
_MINUTE_MS = 60_000


class Suppression(IntEnum):
    """Why a marketing message is not sent. The ledger gives it in place of a number: all are below 0."""

    OPTED_OUT = -1
    """The user wants no marketing."""
    FREQUENCY = -2
    """The user has had as many within an hour, or within a day, as may be."""
    QUIET_HOURS = -3
    """It is a time of day at which none is sent."""


class QuietHours(NamedTuple):
    """Time of day at which no marketing is sent, in minutes from midnight; over midnight where the end is before the
    begin. ``offset_min``: of the local time from UTC."""

    begin_min: int
    end_min: int
    offset_min: int = 0

    def cover(self, now_ms: int) -> bool:
        """Return whether a time is in them."""
        minute = (now_ms // _MINUTE_MS + self.offset_min) % (24 * 60)
        if self.begin_min <= self.end_min:
            return self.begin_min <= minute < self.end_min
        return minute >= self.begin_min or minute < self.end_min


class MarketingRules(NamedTuple):
    """Rules of a deployment. ``per_hour``, ``per_day``: messages to one user within any such time, 0 = no bound."""

    per_hour: int = 0
    per_day: int = 0
    quiet: QuietHours | None = None

    @property
    def has_caps(self) -> bool:
        """Whether it matters how many a user has had."""
        return bool(self.per_hour or self.per_day)

    def judge(self, is_opted_out: bool, last_hour: int, last_day: int, now_ms: int) -> Suppression | None:
        """Return why a message is not sent, None = it is. ``last_hour``, ``last_day``: those that were sent."""
        if is_opted_out:
            return Suppression.OPTED_OUT
        if self.quiet is not None and self.quiet.cover(now_ms):
            return Suppression.QUIET_HOURS
        is_capped = (self.per_hour and last_hour >= self.per_hour) or (self.per_day and last_day >= self.per_day)
        return Suppression.FREQUENCY if is_capped else None
