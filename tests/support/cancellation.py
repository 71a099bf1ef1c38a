"""Cancelling an operation at every step it makes: an instrument, and a loop that tries one step after the other."""

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
        """The operation is over."""
        self._is_armed = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._is_armed:
            self._step -= 1
            if self._step == 0:
                self.scope.cancel()


Operation = Callable[[CancelAtStep], Awaitable[None]]


def cancel_at_every_step(operation: Operation, least: int, *, clock: trio.abc.Clock | None = None) -> int:
    """Run ``operation`` again and again, cancelled one step later each time, until it comes to its end.

    It runs its work in ``instrument.scope``. Returns the steps it has; at least ``least`` (else it was not the work
    that was cancelled). Afterwards no descriptor, and no thread but Trio's idle ones, may be left.
    """
    gc.collect()  # what others have left behind is none of ours
    descriptors = -1
    for step in range(1, MAX_STEPS + 1):
        instrument = CancelAtStep(step)
        trio.run(operation, instrument, clock=clock, instruments=[instrument])
        for thread in threading.enumerate():
            if not thread.name.startswith(("Trio", "trio", "MainThread", "pytest", "Thread-")):
                thread.join(5)  # it may be in its very last moment
                assert not thread.is_alive(), f"{thread.name} was left behind after step {step}"
        left = len(os.listdir("/proc/self/fd"))
        if left > descriptors:
            gc.collect()  # a traceback may hold a socket that nobody uses any more
            left = len(os.listdir("/proc/self/fd"))
        assert left <= descriptors or step == 1, f"descriptors were left behind after step {step}"
        descriptors = left
        if not instrument.scope.cancelled_caught:
            assert step > least, "the operation ends before it has begun"
            return step - 1
    return MAX_STEPS
