"""The clock of the tests: a test sets it forward, so that deadlines pass when it says so and not while it acts."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

__all__ = ["AdjustableClock", "advance", "advance_to", "run"]


class AdjustableClock(trio.abc.Clock):
    """Clock of a Trio run that goes as the real one does, and can be set forward.

    Brokers of `running_broker` go by it: timers, Unix time and monotonic time alike. A test gives its deadlines a time
    that no slow machine reaches (30 s or more), acts, and then advances the clock past them. Connections are cut after
    75 s without a ping: advance by no more at once while some are open.
    """

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def start_clock(self) -> None:
        """Nothing is to be prepared."""

    def current_time(self) -> float:
        """Return monotonic seconds; may be called from any thread."""
        return time.monotonic() + self._ahead_s

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return deadline - self.current_time()

    def unix_ms(self) -> int:
        """Return the Unix time in milliseconds; may be called from any thread."""
        return time.time_ns() // 1_000_000 + round(self._ahead_s * 1000)

    def advance(self, ms: float) -> None:
        """Set the clock forward."""
        assert ms >= 0
        self._ahead_s += ms / 1000


def run(
    test: Callable[[], Awaitable[Any]], *, clock: trio.abc.Clock | None, instruments: Sequence[trio.abc.Instrument]
) -> Any:
    """Run a test, by an `AdjustableClock` unless it has requested another clock."""
    return trio.run(test, clock=clock or AdjustableClock(), instruments=instruments)


def _clock() -> AdjustableClock:
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, AdjustableClock), "the test has requested another clock"
    return clock


def advance(ms: float) -> None:
    """Set the clock of the running test forward: what has become due by then runs with the next steps of the loop."""
    _clock().advance(ms)


def advance_to(unix_ms: float) -> None:
    """Set the clock of the running test forward to a Unix time in milliseconds, unless that has passed."""
    _clock().advance(max(0.0, unix_ms - _clock().unix_ms()))
