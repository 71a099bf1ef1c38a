"""Monitor of the event loop: which step blocked it, and whether the whole process was paused.

Everything shares one loop, so one long step delays every connection. The monitor measures every step of every task (1.5
us each, where a busy broker's steps work for a millisecond) and names the task of one that took longer than
`SLOW_STEP_S`.

A loop that is late has either worked too long, which is overload, or has not run at all: stopped, suspended, swapped
out, or waiting inside a call that it should not have made. Shedding load helps against the first alone. The CPU time of
the loop's thread distinguishes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
import trio

__all__ = ["LoopMonitor"]

log = structlog.get_logger("roomcast.loop")

SLOW_STEP_S = 0.05
"""Half a tick: the first length that a viewer can feel. Slices and turns stop themselves after 2 ms."""
PAUSE_S = 1.0
"""A shorter absence may be the machine's scheduler."""
PAUSED_CPU_SHARE = 0.1
"""Who worked for less than this part of the time did not work at all."""
LOG_EVERY_S = 10.0


class LoopMonitor(trio.abc.Instrument):
    """An instrument for `trio.lowlevel.add_instrument`; everything is called in the loop's thread."""

    def __init__(
        self, clock: Callable[[], float] = time.perf_counter, cpu_clock: Callable[[], float] = time.thread_time
    ) -> None:
        self.slow_steps = 0
        """Steps that took longer than `SLOW_STEP_S`."""
        self.slowest_step_s = 0.0
        self.pauses = 0
        """Times at which the loop was paused without working."""
        self.paused_s = 0.0
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._begun = clock()
        self._cpu_s = cpu_clock()
        self._logged_at = self._begun - LOG_EVERY_S
        self._unlogged = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task goes on."""
        self._begun = self._clock()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """It waits again, or has ended."""
        took_s = self._clock() - self._begun
        if took_s > SLOW_STEP_S:
            self._on_slow(task.name, took_s)

    def _on_slow(self, name: str, took_s: float) -> None:
        self.slow_steps += 1
        self.slowest_step_s = max(self.slowest_step_s, took_s)
        now = self._clock()
        if now < self._logged_at + LOG_EVERY_S:
            self._unlogged += 1
            return
        self._logged_at = now
        unlogged, self._unlogged = self._unlogged, 0
        log.warning("event loop blocked", task=name, took_ms=round(took_s * 1000), unlogged=unlogged)

    def overload_lag_s(self, late_s: float) -> float:
        """Return the lag that counts as overload, of a sampler that woke ``late_s`` too late since its last call."""
        before, self._cpu_s = self._cpu_s, self._cpu_clock()
        if late_s <= PAUSE_S or self._cpu_s - before > late_s * PAUSED_CPU_SHARE:
            return late_s
        self.pauses += 1
        self.paused_s += late_s
        log.warning("event loop paused", for_s=round(late_s, 3), cpu_s=round(self._cpu_s - before, 3))
        return 0.0
