"""Running broadcasts and the last finished ones: how many there may be, and what is known of each.

With a ledger a broadcast is a record: it is durable before it begins, and before each group of its rooms. So after a
restart it goes on where it was, and the state of the finished ones is known. Without a ledger it ends with the broker.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

import structlog
import trio

from broker.ledger import Ledger
from broker.ledger.records import remove_records
from broker.operations.broadcast_records import (
    BroadcastState,
    StoredBroadcast,
    read_broadcasts,
    removals,
    rooms_items,
    state_items,
)
from broker.operations.caller import OperationError
from broker.operations.kept import AGAIN_MS, keep, later
from protocol.operations.messages import BroadcastMessage

__all__ = ["MAX_RUNNING", "MAX_RUNNING_OF_TENANT", "BroadcastRun", "BroadcastRuns"]

log = structlog.get_logger("roomcast.operations")

MAX_RUNNING = 16
MAX_RUNNING_OF_TENANT = 4
MAX_KNOWN = 1000
"""Broadcasts whose state is known; the one that finished longest ago is forgotten first."""


class BroadcastRun:
    """One broadcast of this process. ``rooms``: qualified names, empty once it is done; ``state.reached`` and
    ``state.missed`` add up to their number then."""

    __slots__ = ("begun", "message", "rooms", "state")

    def __init__(self, state: BroadcastState, message: BroadcastMessage | None, rooms: Sequence[str]) -> None:
        self.state = state
        self.message = message
        self.rooms = rooms
        self.begun = trio.Event()
        """Set when it is durable, or could not be made durable and is forgotten."""

    @property
    def is_done(self) -> bool:
        """Whether every room got it that will."""
        return self.state.is_done


class BroadcastRuns:
    """All broadcasts of one broker, by tenant and id. `run` is the task in whose nursery they run."""

    def __init__(self, ledger: Ledger | None, unix_ms: Callable[[], int]) -> None:
        self._ledger = ledger
        self._unix_ms = unix_ms
        self._runs: OrderedDict[tuple[str, str], BroadcastRun] = OrderedDict()
        self._running = 0
        self._running_of: dict[str, int] = {}
        self._nursery: trio.Nursery | None = None

    async def load(self) -> None:
        """Take over those of the last run. At the start, before connections are accepted."""
        if self._ledger is not None:
            found: list[StoredBroadcast] = await self._ledger.ask(read_broadcasts)
            for stored in found:
                run = self._runs[stored.state.tenant, stored.state.id] = BroadcastRun(*stored)
                run.begun.set()

    @property
    def unfinished(self) -> list[BroadcastRun]:
        """Those that the last run of the broker has not finished, or that run now."""
        return [run for run in self._runs.values() if not run.is_done]

    def find(self, tenant: str, name: str) -> BroadcastRun | None:
        """Return a broadcast that is running or has finished lately."""
        return self._runs.get((tenant, name))

    def may_start(self, tenant: str) -> bool:
        """Return whether one more may run now."""
        is_full = self._running >= MAX_RUNNING or self._running_of.get(tenant, 0) >= MAX_RUNNING_OF_TENANT
        return self._nursery is not None and not is_full

    async def start(self, run: BroadcastRun, send: Callable[[BroadcastRun], Awaitable[None]]) -> None:
        """Make a broadcast that `may_start` allows durable, and run it; ``send`` posts it to its rooms.

        OperationError OVERLOADED where the ledger cannot take it: then nothing is sent.
        """
        name = run.state.tenant, run.state.id
        self._runs[name] = run
        self._count(run, 1)
        try:
            if self._ledger is not None:
                assert run.message is not None
                at_ms = self._unix_ms()
                items = state_items(run.state, run.message, at_ms) + rooms_items(run.state, run.rooms, at_ms)
                await keep(self._ledger, items)
            if self._nursery is None:
                raise later()
        except BaseException:
            self._count(run, -1)
            del self._runs[name]
            if self._ledger is not None:
                remove_records(self._ledger, removals(run.state))  # it may be written all the same
            raise
        finally:
            run.begun.set()
        self._nursery.start_soon(self._supervise, run, send, name=f"broadcast {run.state.id}")

    def go_on(self, run: BroadcastRun, send: Callable[[BroadcastRun], Awaitable[None]]) -> None:
        """Run the rest of a broadcast that the last run of the broker has not finished."""
        assert self._nursery is not None
        self._count(run, 1)
        self._nursery.start_soon(self._supervise, run, send, name=f"broadcast {run.state.id}")

    async def claim(self, run: BroadcastRun, last: int) -> None:
        """Write that the next rooms before ``last`` get the message now; waits for as long as the ledger cannot."""
        await self._write(run, run.state._replace(first=run.state.last, last=last))

    async def _write(self, run: BroadcastRun, state: BroadcastState) -> None:
        """Take another state, once it is durable."""
        if self._ledger is not None:
            assert run.message is not None, "it is not done"
            items = state_items(state, run.message, self._unix_ms())
            while True:
                try:
                    await keep(self._ledger, items)
                    break
                except OperationError:
                    await trio.sleep(AGAIN_MS / 1000)
        run.state = state

    async def _supervise(self, run: BroadcastRun, send: Callable[[BroadcastRun], Awaitable[None]]) -> None:
        try:
            try:
                await send(run)
            except Exception:
                log.exception("broadcast failed", id=run.state.id, rooms=run.state.rooms, reached=run.state.reached)
            state = run.state
            await self._write(run, state._replace(is_done=True, missed=state.rooms - state.reached))
            run.message, run.rooms = None, ()
            self._forget_oldest(run)
        finally:
            self._count(run, -1)

    def _count(self, run: BroadcastRun, change: int) -> None:
        tenant = run.state.tenant
        self._running += change
        self._running_of[tenant] = self._running_of.get(tenant, 0) + change
        if not self._running_of[tenant]:
            del self._running_of[tenant]

    def _forget_oldest(self, run: BroadcastRun) -> None:
        self._runs.move_to_end((run.state.tenant, run.state.id))
        if len(self._runs) > MAX_KNOWN:
            name, oldest = next((name, each) for name, each in self._runs.items() if each.is_done)
            del self._runs[name]
            if self._ledger is not None:
                remove_records(self._ledger, removals(oldest.state))

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run broadcasts until cancelled or stopped."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def stop(self) -> None:
        """Stop all that run; with a ledger they go on after the next start. The broker drains."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()
