"""Past values of some counters that only grow, so that what was counted in the last minutes is known.

Whoever owns the counters samples them now and then; counting itself costs nothing. A sample that says the same as the
one before only extends it, so counters at rest take no memory.

Bound: one sample a step, and two more.
"""

from __future__ import annotations

from collections import deque

__all__ = ["PastCounts"]

Counts = tuple[int, ...]


class PastCounts:
    """Values of some counters back to ``span_s`` seconds ago, one a ``step_s``. ``now``: monotonic seconds.

    ValueError unless 0 < ``step_s`` <= ``span_s``.
    """

    __slots__ = ("_counts", "_earlier", "_from", "_span_s", "_step_s", "_until")

    def __init__(self, span_s: float, step_s: float, counts: Counts, now: float) -> None:
        if not 0 < step_s <= span_s:
            raise ValueError(f"not a span of samples: {span_s=} {step_s=}")
        self._span_s = span_s
        self._step_s = step_s
        self._earlier: deque[tuple[float, float, Counts]] = deque()
        """Samples before the newest one: from when until when the counters had these values."""
        self._from = self._until = now
        self._counts = counts

    def __len__(self) -> int:
        """Samples held, the newest one included."""
        return len(self._earlier) + 1

    def sample(self, counts: Counts, now: float) -> None:
        """Take the present values, unless the last sample is younger than a step. O(1)."""
        if now < self._until + self._step_s:
            return
        earlier = self._earlier
        if counts != self._counts:
            earlier.append((self._from, self._until, self._counts))
            self._from, self._counts = now, counts
        self._until = now
        oldest_at = now - self._span_s
        while earlier and (earlier[1][0] if len(earlier) > 1 else self._from) <= oldest_at:
            earlier.popleft()

    def at(self, time: float) -> tuple[float, Counts]:
        """Return the values at a time, and since when later ones are missing: ``time`` itself, or up to a step before.

        Before the first sample held: that one, and its beginning. O(samples).
        """
        if self._from <= time:
            return min(time, self._until), self._counts
        for since, until, counts in reversed(self._earlier):
            if since <= time:
                return min(time, until), counts
        return (self._earlier[0][0], self._earlier[0][2]) if self._earlier else (self._from, self._counts)
