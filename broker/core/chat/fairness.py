"""How much of a room's attention each sender has had lately: the lower, the sooner they are shown.

The standing of a message is the number of its sender's messages shown lately (fading), plus what the sender
tried before it in the open window. Picking the lowest standings first is then fair queueing: the k-th
message of one sender comes after the first of everybody else. Repeated attempts weigh a little even when nothing
was shown for them, so who floods unseen still stands behind who waits.

It counts; it never refuses anybody. Both tables are bounded: see their constants for what is forgotten.
"""

from __future__ import annotations

from math import inf

__all__ = ["QUIET_BELOW", "FairnessScores"]

QUIET_BELOW = 0.5
"""Standing of a sender who has had nearly nothing: one message shown fades to this in half the memory."""
MAX_KNOWN = 4096
"""Senders remembered; the one charged longest ago is forgotten first. 20 shown a second for 20 s are 400."""
MAX_IN_WINDOW = 8192
"""Senders whose attempts are counted in one window; any further one counts as trying for the first time."""
_ATTEMPT = 0.1
"""Weight of each repeated attempt in one window, against 1 for a message shown."""
_STEPS = 8
_STEP_FACTOR = 0.25 ** (1 / _STEPS)
"""A standing fades to a quarter over the memory, in steps, so that reading one is a dict access."""
_FORGOTTEN = 0.05


class FairnessScores:
    """Standings of the senders of one room. ``memory_s``: a message shown that long ago weighs a quarter."""

    __slots__ = ("_attempts", "_fade_at", "_lately", "_step_s")

    def __init__(self, memory_s: float) -> None:
        if memory_s <= 0:
            raise ValueError(f"memory must be positive, not {memory_s}")
        self._step_s = memory_s / _STEPS
        self._fade_at = -inf
        self._lately: dict[str, float] = {}
        self._attempts: dict[str, int] = {}

    def attempt(self, sender: str, now: float) -> float:
        """Count one attempt and return the standing of the message, from 0 up. O(1) but for a fading step."""
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
