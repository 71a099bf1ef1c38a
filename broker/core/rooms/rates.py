"""How much came into a room lately, in the last minute and in the last quarter of an hour.

The room's counters are sampled every few seconds (`SAMPLE_S`) by the task that also writes checkpoints: a message costs
nothing more. At most 31 samples, about 9 KB, for a room in which something happens all the time.
"""

from __future__ import annotations

from typing import NamedTuple

from broker.core.structures.past_counts import PastCounts

__all__ = ["SAMPLE_S", "RoomCounts", "RoomRates"]

SAMPLE_S = 5.0
"""How often a room is sampled, and how much longer than asked for a window may be."""
MINUTE_S = 60.0
"""Step of the longer window."""
QUARTER_S = 900.0


class RoomCounts(NamedTuple):
    """What has come into a room, refused messages not counted. ``messages``: all but likes, danmaku and gifts
    included."""

    messages: int
    danmaku: int
    gifts: int
    joins: int
    likes: int


class RoomRates:
    """Past counts of one room. ``now``: monotonic seconds."""

    __slots__ = ("_minute", "_quarter")

    def __init__(self, counts: RoomCounts, now: float) -> None:
        self._minute = PastCounts(MINUTE_S, SAMPLE_S, counts, now)
        self._quarter = PastCounts(QUARTER_S, MINUTE_S, counts, now)

    def sample(self, counts: RoomCounts, now: float) -> None:
        """Take the present counts."""
        self._minute.sample(counts, now)
        self._quarter.sample(counts, now)

    def lately(self, counts: RoomCounts, window_s: float, now: float) -> tuple[float, RoomCounts]:
        """Return what has come in the last ``window_s`` seconds, of the present ``counts``, and in how many seconds.

        These are up to a sample more, or fewer for a room that was opened since then.
        """
        past = self._minute if window_s <= MINUTE_S else self._quarter
        since, earlier = past.at(now - window_s)
        return now - since, RoomCounts(*(count - before for count, before in zip(counts, earlier, strict=True)))
