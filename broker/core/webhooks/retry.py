"""When a delivery that failed is tried again, and when it is given up."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["RetrySchedule"]


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """Exponential waits with jitter. Times in milliseconds.

    ``retry_for_ms``: how old a report may be when its last attempt fails; ``max_wait_ms`` bounds what a receiver may
    ask for by ``Retry-After``.
    """

    first_ms: int = 100
    longest_ms: int = 20_000
    retry_for_ms: int = 86_400_000
    max_wait_ms: int = 300_000

    def wait_ms(self, attempts: int, rng: random.Random, retry_after_ms: int | None = None) -> int:
        """Return the wait after ``attempts`` failures: half of it is fixed, half is chance, so that many do not come
        at once.

        ``retry_after_ms``: what the receiver asked for; it is never undercut, up to ``max_wait_ms``.
        """
        exponent = min(max(attempts, 1) - 1, 30)
        whole = min(self.longest_ms, self.first_ms << exponent)
        wait = whole - round(rng.random() * whole / 2)
        return max(wait, min(retry_after_ms or 0, self.max_wait_ms))

    def is_over(self, at_ms: int, now_ms: int) -> bool:
        """Return whether a report that was written at ``at_ms`` is given up when an attempt fails now."""
        return now_ms - at_ms >= self.retry_for_ms
