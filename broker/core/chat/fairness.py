"""Fairness among senders: a score of each sender's recent messages, the lowest shown first, and the reading budget.

The score of a message is the number of its sender's messages shown lately (fading), plus what the sender
tried before it in the open window. Picking the lowest scores first is then fair queueing: the k-th
message of one sender comes after the first of all others. Repeated attempts weigh a little even when nothing
was shown for them, so a flooder whose messages are not shown still comes after a sender who waits.

It counts; it refuses no message. Both tables are bounded: see their constants for what is forgotten.

The reading budget says how many danmaku a tier may show now: a token bucket, and a part of it that floods cannot take.

One second's worth may be saved up, so the first messages after a quiet second are all shown. In a flood that
is not enough to be fair: flooders take every token of every tick, so of four quiet senders that happen to
post in one tick only two would be shown. So quiet senders are shown as if there were no flooders: they have
a bucket of their own beside the common one, and may overdraw the common one by half a second's worth,
which the flooders then wait for. Over any time t a tier shows at most ``rate * (t + 1.5 s)``, and without
flooders ``rate * (t + 1 s)``. In a flood of 5,000/s, 98 % to 100 % of 15 quiet messages a second are shown in a
budget of 20 and ticks of 100 ms; by the bucket alone 77 % to 86 %.

It knows numbers only, neither senders nor texts.
"""

from __future__ import annotations

from math import floor, inf

__all__ = ["QUIET_BELOW", "FairnessScores", "ReadingBudget"]

QUIET_BELOW = 0.5
"""Score of a sender who has had nearly nothing: one message shown fades to this in half the memory."""
MAX_KNOWN = 4096
"""Senders remembered; the one charged longest ago is forgotten first. 20 shown a second for 20 s are 400."""
MAX_IN_WINDOW = 8192
"""Senders whose attempts are counted in one window; any further one counts as trying for the first time."""
_ATTEMPT = 0.1
"""Weight of each repeated attempt in one window, against 1 for a message shown."""
_STEPS = 8
_STEP_FACTOR = 0.25 ** (1 / _STEPS)
"""A score fades to a quarter over the memory, in steps, so that reading one is a dict access."""
_FORGOTTEN = 0.05


class FairnessScores:
    """Scores of the senders of one room. ``memory_s``: a message shown that long ago weighs a quarter."""

    __slots__ = ("_attempts", "_fade_at", "_lately", "_step_s")

    def __init__(self, memory_s: float) -> None:
        if memory_s <= 0:
            raise ValueError(f"memory must be positive, not {memory_s}")
        self._step_s = memory_s / _STEPS
        self._fade_at = -inf
        self._lately: dict[str, float] = {}
        self._attempts: dict[str, int] = {}

    def attempt(self, sender: str, now: float) -> float:
        """Count one attempt and return the score of the message, from 0 up. O(1) but for a fading step."""
        if now >= self._fade_at:
            self._fade(now)
        tried = self._attempts.get(sender, 0)
        if tried or len(self._attempts) < MAX_IN_WINDOW:
            self._attempts[sender] = tried + 1
        return self._lately.get(sender, 0.0) + tried

    def insistence(self, sender: str) -> float:
        """Return what the attempts of the open window add to every message of ``sender`` in it."""
        return _ATTEMPT * (self._attempts.get(sender, 1) - 1)

    def close_window(self, shown: list[str], now: float) -> None:
        """Charge 1 for each of the ``shown`` senders and something for repeated attempts; forget the window."""
        if now >= self._fade_at:
            self._fade(now)
        for sender in shown:
            self._charge(sender, 1.0)
        for sender, tried in self._attempts.items():
            if tried > 1:
                self._charge(sender, _ATTEMPT * (tried - 1))
        self._attempts = {}

    def _charge(self, sender: str, weight: float) -> None:
        lately = self._lately
        before = lately.pop(sender, 0.0)
        if len(lately) >= MAX_KNOWN:
            del lately[next(iter(lately))]
        lately[sender] = before + weight

    def _fade(self, now: float) -> None:
        if self._lately:
            factor = _STEP_FACTOR ** (1 + (now - self._fade_at) // self._step_s)
            faded = ((sender, weight * factor) for sender, weight in self._lately.items())
            self._lately = {sender: weight for sender, weight in faded if weight > _FORGOTTEN}
        self._fade_at = now + self._step_s


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
        taken = self.allowed(now, scale, waiting, quiet)
        if taken and self._rate_per_s < inf:
            self._tokens -= taken
            self._quiet_tokens -= min(taken, quiet)
        return taken

    def allowed(self, now: float, scale: float, waiting: int, quiet: int) -> int:
        """Return how many items `take` would pay for with the same arguments."""
        rate = self._rate_per_s
        if rate == inf:
            return waiting
        rate *= scale
        passed_s = now - self._at
        self._at = now
        tokens, quiet_tokens = self._tokens, self._quiet_tokens
        if passed_s > 0.0:
            tokens += rate * passed_s
            quiet_tokens += rate * passed_s
        # A budget below 1/s still has room for the one message it is saving for.
        burst = rate if rate > 1.0 else 1.0
        self._tokens = tokens = tokens if tokens < burst else burst
        self._quiet_tokens = quiet_tokens = quiet_tokens if quiet_tokens < burst else burst
        taken = floor(tokens + _EPSILON)
        if taken > waiting:
            taken = waiting
        elif taken < 0:
            taken = 0
        if taken < quiet:
            allowed = min(quiet_tokens, tokens + rate * _OVERDRAFT_S)
            taken = max(taken, min(quiet, floor(allowed + _EPSILON)))
        return taken
