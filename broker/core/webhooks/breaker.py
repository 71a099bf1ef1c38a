"""Circuit breaker of one endpoint: after many failures in a row it lets one trial through at a time.

Closed: everything is sent. Open: nothing is, until a time. Then one delivery is the trial; its success closes the
breaker, its failure opens it again for longer. Disabled: the receiver has answered 410 Gone, and nothing is sent until
an operator enables it again.
"""

from __future__ import annotations

import random
from enum import Enum

from broker.core.webhooks.retry import RetrySchedule

__all__ = ["Breaker", "BreakerState"]

OPENS_AFTER = 5
"""Failures in a row."""
FIRST_WAIT = 3
"""The first trial waits as a delivery does after one failure more than this."""


class BreakerState(Enum):
    """Whether an endpoint is tried."""

    CLOSED = "closed"
    OPEN = "open"
    TRIAL = "trial"
    """One delivery is under way that decides."""
    DISABLED = "disabled"


class Breaker:
    """Breaker of one endpoint. Times are Unix milliseconds.

    ``opened`` counts how often it has opened; ``failing_since_ms``: of the first failure since the last success, None =
    the last attempt succeeded.
    """

    def __init__(self, schedule: RetrySchedule, rng: random.Random, opens_after: int = OPENS_AFTER) -> None:
        self._schedule = schedule
        self._rng = rng
        self._opens_after = opens_after
        self._failures = 0
        self._openings = 0
        """Since the last success."""
        self._until_ms = 0
        self.state = BreakerState.CLOSED
        self.failing_since_ms: int | None = None
        self.opened = 0

    @property
    def due_ms(self) -> int | None:
        """When the next delivery may start: 0 = now, None = not before something else happens."""
        if self.state is BreakerState.CLOSED:
            return 0
        return self._until_ms if self.state is BreakerState.OPEN else None

    def try_start(self, now_ms: int) -> bool:
        """Return whether a delivery may start now; the one that starts while the breaker is open is the trial."""
        if self.state is BreakerState.OPEN and now_ms >= self._until_ms:
            self.state = BreakerState.TRIAL
            return True
        return self.state is BreakerState.CLOSED

    def succeeded(self) -> None:
        """Take the success of any delivery: the endpoint works."""
        if self.state is not BreakerState.DISABLED:
            self.state = BreakerState.CLOSED
        self._failures = self._openings = 0
        self.failing_since_ms = None

    def failed(self, now_ms: int, retry_after_ms: int | None = None) -> None:
        """Take the failure of a delivery; ``retry_after_ms``: what the receiver asked for."""
        self._failures += 1
        if self.failing_since_ms is None:
            self.failing_since_ms = now_ms
        if self.state is BreakerState.TRIAL or (
            self.state is BreakerState.CLOSED and self._failures >= self._opens_after
        ):
            if self.state is BreakerState.CLOSED:
                self.opened += 1
            self.state = BreakerState.OPEN
            self._openings += 1
            wait_ms = self._schedule.wait_ms(FIRST_WAIT + self._openings, self._rng, retry_after_ms)
            self._until_ms = now_ms + wait_ms

    def gave_up(self) -> None:
        """Take the end of a trial without a result: the next delivery is the trial."""
        if self.state is BreakerState.TRIAL:
            self.state = BreakerState.OPEN

    def disable(self) -> None:
        """Send nothing any more: the receiver says that it is gone."""
        self.state = BreakerState.DISABLED

    def enable(self) -> None:
        """Try again at once, one delivery first."""
        if self.state in (BreakerState.DISABLED, BreakerState.OPEN):
            self.state = BreakerState.OPEN
            self._until_ms = 0
