"""What all rooms of one broker measure together, for the metrics: their ticks, and the posts that they refuse."""

from __future__ import annotations

from collections import Counter

from broker.core.rooms.traces import TraceBudget
from broker.core.structures.histogram import Histogram
from protocol.codes import ErrorCode, Outcome

__all__ = ["REFUSALS", "RoomMeasures"]

REFUSALS = frozenset({Outcome.LIMITED, Outcome.REJECTED, Outcome.UNAVAILABLE})
_CODES = {int(code): code.name.lower() for code in ErrorCode}
TENANT_QUOTA = "tenant_quota"
"""Reason of posts above the quota of the room's tenant."""


class RoomMeasures:
    """Counters and histograms that the rooms add to; nothing of it depends on the number of viewers."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        """Posts refused, by reason: an outcome, or of rejected ones the error code. Bounded by their number."""
        self.traces = TraceBudget()
        self.tick_cost = Histogram()
        """Seconds that the ticks took in the fan-out."""
        self.tick_interval = Histogram()
        """Seconds between a tick and the next one of its room, as it was decided."""
        self.tick_wait = Histogram()
        """Seconds that the oldest danmaku of each tick had waited for it."""

    def refuse(self, outcome: Outcome, detail: int) -> str:
        """Count a post that was refused, and return the reason. ``detail``: as in `AckResult`."""
        code = _CODES.get(detail) if outcome is Outcome.REJECTED else None
        reason = code or outcome.name.lower()
        self.refused[reason] += 1
        return reason

    def over_tenant_quota(self) -> None:
        """Count a post that its tenant's quota refused."""
        self.refused[TENANT_QUOTA] += 1
