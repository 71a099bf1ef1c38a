"""What a bench does inside of the broker's process: entries of a lottery, and the longest step of the event loop."""

from __future__ import annotations

import time
from typing import Any

import trio

from broker.core.commerce.activity_runner import MAX_WAITING
from broker.operations.caller import Caller, OperationError
from broker.operations.deferred import Deferred
from broker.server import Broker
from protocol.codes import Role
from protocol.operations import BY_NAME

__all__ = ["Entries", "LongestStep"]

AT_ONCE = 20
"""Entries between two checkpoints: about a millisecond."""
MOST_WAITING = MAX_WAITING // 2


class Entries:
    """Enters a lottery for users without links, as fast as the ledger takes it. ``accepted``: entries so far."""

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0
        self._waiting = 0

    async def enter(self, broker: Broker, room: str, id: str, count: int, after_s: float) -> None:
        """Enter ``count`` users, from ``after_s`` seconds on."""
        await trio.sleep(after_s)
        row = BY_NAME["lotteries.enter"]
        request = {"room": room, "id": id}
        for number in range(count):
            while self._waiting >= MOST_WAITING:  # noqa: ASYNC110 - the answers need not pay for an event
                await trio.sleep(0.001)
            try:
                found = broker.operations.begin(_user(number), row, request)
            except OperationError:
                self.refused += 1
                continue
            assert isinstance(found, Deferred), "an entry is answered after its commit"
            self._waiting += 1
            found.then(self._answered)
            if not number % AT_ONCE:
                await trio.lowlevel.checkpoint()

    def _answered(self, answer: Any) -> None:
        self._waiting -= 1
        if isinstance(answer, OperationError):
            self.refused += 1
        else:
            self.accepted += 1


def _user(number: int) -> Caller:
    """Return a viewer who has joined; its address is its own."""
    id = f"more-{number}"
    return Caller(
        id, "", id, lambda room: Role.VIEWER, frozenset({Role.VIEWER}), joined_at_ms=lambda room: 1
    )  # fmt: skip


class LongestStep(trio.abc.Instrument):
    """Longest step of a task of the event loop in CPU time, so that other work on the machine does not count.

    The bench's own tasks are left out.
    """

    def __init__(self) -> None:
        self.cpu_s = 0.0
        self._begun = 0.0

    def take(self) -> float:
        """Return its CPU seconds since the last call."""
        cpu_s, self.cpu_s = self.cpu_s, 0.0
        return cpu_s

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._begun = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        cpu_s = time.thread_time() - self._begun
        if cpu_s > self.cpu_s and not task.name.startswith(("__main__.", "bench.")):
            self.cpu_s = cpu_s
