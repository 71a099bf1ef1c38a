"""Running broadcasts and the last finished ones: how many there may be, and what is known of each.

They live in memory: a broadcast that runs when the broker ends stops there. Whoever needs to know asks for its state,
and sends it again under another id to the rooms that it has not reached.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
import trio

__all__ = ["MAX_RUNNING", "MAX_RUNNING_OF_TENANT", "BroadcastRun", "BroadcastRuns"]

log = structlog.get_logger("roomcast.operations")

MAX_RUNNING = 16
MAX_RUNNING_OF_TENANT = 4
MAX_KNOWN = 1000
"""Broadcasts whose state is known; the one that finished longest ago is forgotten first."""


@dataclass(slots=True)
class BroadcastRun:
    """One broadcast. ``rooms``: how many it goes to; ``reached`` and ``missed`` add up to them when it is done."""

    id: str
    tenant: str
    fingerprint: bytes
    rooms: int
    reached: int = 0
    missed: int = 0
    is_done: bool = False


class BroadcastRuns:
    """All broadcasts of one broker, by tenant and id. `run` is the task in whose nursery they run."""

    def __init__(self) -> None:
        self._runs: OrderedDict[tuple[str, str], BroadcastRun] = OrderedDict()
        self._running = 0
        self._running_of: dict[str, int] = {}
        self._nursery: trio.Nursery | None = None

    def find(self, tenant: str, name: str) -> BroadcastRun | None:
        """Return a broadcast that is running or has finished lately."""
        return self._runs.get((tenant, name))

    def may_start(self, tenant: str) -> bool:
        """Return whether one more may run now."""
        is_full = self._running >= MAX_RUNNING or self._running_of.get(tenant, 0) >= MAX_RUNNING_OF_TENANT
        return self._nursery is not None and not is_full

    def start(self, run: BroadcastRun, send: Callable[[BroadcastRun], Awaitable[None]]) -> None:
        """Run a broadcast that `may_start` allows; ``send`` counts what it does in it."""
        assert self._nursery is not None
        self._runs[run.tenant, run.id] = run
        self._running += 1
        self._running_of[run.tenant] = self._running_of.get(run.tenant, 0) + 1
        self._nursery.start_soon(self._supervise, run, send, name=f"broadcast {run.id}")

    async def _supervise(self, run: BroadcastRun, send: Callable[[BroadcastRun], Awaitable[None]]) -> None:
        try:
            await send(run)
        except Exception:
            log.exception("broadcast failed", id=run.id, rooms=run.rooms, reached=run.reached)
        finally:
            run.missed = run.rooms - run.reached
            run.is_done = True
            self._running -= 1
            self._running_of[run.tenant] -= 1
            if not self._running_of[run.tenant]:
                del self._running_of[run.tenant]
            self._runs.move_to_end((run.tenant, run.id))
            if len(self._runs) > MAX_KNOWN:
                name = next(key for key, each in self._runs.items() if each.is_done)
                del self._runs[name]

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run broadcasts until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None
