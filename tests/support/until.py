"""Wait for a state of the broker that has no event of its own."""

from __future__ import annotations

from collections.abc import Callable

import trio

__all__ = ["until"]

TIMEOUT_S = 120.0
"""Far beyond what a test needs; it only ends a hang."""


class _Watch(trio.abc.Instrument):
    """Checks a condition after every step of a task."""

    def __init__(self, is_so: Callable[[], object]) -> None:
        self._is_so = is_so
        self._error: BaseException | None = None
        self.event = trio.Event()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if not self.event.is_set():
            try:
                is_so = bool(self._is_so())
            except BaseException as error:
                self._error, is_so = error, True
            if is_so:
                self.event.set()

    def check(self) -> None:
        """Raise what the condition has raised."""
        if self._error is not None:
            raise self._error


async def until(is_so: Callable[[], object]) -> None:
    """Wait until ``is_so()`` is true: it is called after every step of any task, and must change nothing.

    A state that another thread sets is noticed with the next step of a task; a broker makes several a second.
    """
    if is_so():
        return
    watch = _Watch(is_so)
    trio.lowlevel.add_instrument(watch)
    try:
        with trio.fail_after(TIMEOUT_S):
            await watch.event.wait()
    finally:
        trio.lowlevel.remove_instrument(watch)
    watch.check()
