"""Cancellation of an operation at every step: an instrument, and a loop over the steps."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Awaitable, Callable

import trio

__all__ = ["CancelAtStep", "cancel_at_every_step"]

MAX_STEPS = 100


class CancelAtStep(trio.abc.Instrument):
    """Cancels ``scope`` just before the ``step``-th step that any task makes after `arm`."""

    def __init__(self, step: int) -> None:
        self.scope = trio.CancelScope()
        self._step = step
        self._is_armed = False

    def arm(self) -> None:
        """Count from here."""
        self._is_armed = True

    def disarm(self) -> None:
        """Stop counting: the operation is over."""
        self._is_armed = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._is_armed:
            self._step -= 1
            if self._step == 0:
                self.scope.cancel()


Operation = Callable[[CancelAtStep], Awaitable[None]]


def cancel_at_every_step(operation: Operation, least: int, *, clock: trio.abc.Clock | None = None) -> int:
    """Run ``operation`` repeatedly, cancelled one step later each time, until it completes.

    It runs its work in ``instrument.scope``. Returns the number of its steps, which must be more than ``least``
    (otherwise something else was cancelled). Afterwards no descriptor, and no thread but Trio's idle ones, may be left.
    """
    gc.collect()  # free what earlier tests have left
    gc.freeze()  # and scan the rest no more: each step may collect, half a second after thousands of tests
    descriptors = -1
    for step in range(1, MAX_STEPS + 1):
        instrument = CancelAtStep(step)
        trio.run(operation, instrument, clock=clock, instruments=[instrument])
        for thread in threading.enumerate():
            if not thread.name.startswith(("Trio", "trio", "MainThread", "pytest", "Thread-")):
                thread.join(5)  # it may be about to end
                assert not thread.is_alive(), f"{thread.name} is left after step {step}"
        left = len(os.listdir("/proc/self/fd"))
        if left > descriptors:
            gc.collect()  # a traceback may hold a socket that is not used any more
            left = len(os.listdir("/proc/self/fd"))
        assert left <= descriptors or step == 1, f"descriptors are left after step {step}"
        descriptors = left
        if not instrument.scope.cancelled_caught:
            assert step > least, "the operation has fewer steps than expected"
            return step - 1
    return MAX_STEPS
