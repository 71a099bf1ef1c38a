"""Disk of the simulated world with a real ledger: files in memory; faults and time from the seed.

The ledger is the broker's own code: store, writer, maintenance, opening, limits. Only the thread is replaced:
`SimLedger` runs the writer's steps at times that the world decides. A commit may be slow, fail (no space, an error, a
failed fsync), or kill the process; the seed then decides whether that commit, or an earlier failed one, is on the disk.
What was reported durable is always there.

`Disk.streams` is the reference of all checks: each event as it was read from the file after the commit, independent of
the code under test and of retention.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

import trio

from broker.core.clock import TrustedClock
from broker.ledger import Ledger, LedgerLimits, LedgerResult, LedgerState, ResultBatch, Retention, database_path
from broker.ledger.entries import Submission
from broker.ledger.orders import ORDER_KIND, Order
from broker.ledger.store import Store
from broker.ledger.writer import LedgerSignal, Pace, Waiting
from protocol.frames import unpack_body
from tests.simulation.world import World
from tests.support.faulty_disk import disk_error

__all__ = ["Disk", "Killed", "SimLedger", "Written"]

R = TypeVar("R")

QUICK_S, SLOW_S = 0.01, 3.0
"""Longest duration of a usual commit and of a slow one."""
FAILURES = ("SQLITE_FULL", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_WRITE", "SQLITE_READONLY")
RETRY_S = 0.5


class Killed(BaseException):
    """Raised where the process is killed."""


class Written(NamedTuple):
    """One event as read from the file."""

    kind: int
    body: bytes


class Disk:
    """State that survives a process. ``on_death`` kills the running process."""

    def __init__(self, world: World, directory: Path) -> None:
        self.world = world
        self.directory = directory
        self.path = database_path(directory)
        self.streams: dict[tuple[str, int], list[Written]] = {}
        self.orders: list[tuple[str, Written, Order]] = []
        """Room, event and order of each order's fact."""
        """Every stream, by room and epoch; the event with offset n has index n - 1."""
        self.on_death: Callable[[], None] = lambda: None
        self.may_kill = True
        """Whether a commit may kill the process: not while a ledger is being closed."""
        self._fails_until = 0.0
        self._failure = FAILURES[0]
        self._seq = 0

    # ---- faults

    def check(self, sql: str) -> None:
        """Raise if this is a commit and the disk is failing."""
        if sql == "COMMIT" and self.world.now() < self._fails_until and not self.world.healed:
            raise disk_error(self._failure)

    def before_commit(self) -> None:
        """Fail the commit or kill the process, as the seed decides."""
        world, conditions = self.world, self.world.conditions
        if world.chance(conditions.disk_failures):
            self._failure = world.rng.choice(FAILURES)
            self._fails_until = world.now() + world.rng.choice((0.0, 0.2, 3.0))
            world.count_event(f"disk fails: {self._failure}")
            raise disk_error(self._failure)
        self.check("COMMIT")
        if self.may_kill and world.chance(conditions.kills_at_commit / 2):
            world.count_event("killed before a commit")
            self._die()

    def after_commit(self, connection: sqlite3.Connection) -> None:
        """Record the commit; the process may be killed before it reports it."""
        self.read_new_entries(connection)
        if self.may_kill and self.world.chance(self.world.conditions.kills_at_commit / 2):
            self.world.count_event("killed after a commit")
            self._die()

    def _die(self) -> None:
        self.on_death()
        raise Killed

    # ---- contents

    def read_new_entries(self, connection: sqlite3.Connection) -> None:
        rows = connection.execute(
            "SELECT seq, room, epoch, offset, lane, kind, body FROM entries JOIN streams USING (stream) WHERE seq > ?"
            " ORDER BY seq",
            (self._seq,),
        ).fetchall()
        for seq, room, epoch, offset, lane, kind, body in rows:
            self._seq = seq
            if lane is None:
                if kind == ORDER_KIND:
                    self.orders.append((room, self.streams[room, epoch][-1], Order(*unpack_body(body))))
                continue
            stream = self.streams.setdefault((room, epoch), [])
            assert offset == len(stream) + 1, f"{room} {epoch}: offset {offset} after {len(stream)}"
            stream.append(Written(kind, body))
            self.world.trace("durable", room, offset)

    def skip_existing(self) -> None:
        """Leave out of `streams` what the file holds already: the entries of a restored ledger."""
        connection = sqlite3.connect(self.path)
        try:
            (self._seq,) = connection.execute("SELECT max(seq) FROM entries").fetchone()
        finally:
            connection.close()

    def stored_from(self, room: str, epoch: int) -> int:
        """Return the first offset of a stream that retention has kept."""
        connection = sqlite3.connect(self.path)
        try:
            row = connection.execute(
                "SELECT min(offset) FROM entries JOIN streams USING (stream) WHERE room = ? AND epoch = ?",
                (room, epoch),
            ).fetchone()
        finally:
            connection.close()
        return row[0] if row[0] is not None else len(self.streams.get((room, epoch), ())) + 1


class Connection:
    """A database connection on this disk."""

    def __init__(self, connection: sqlite3.Connection, check: Callable[[str], None]) -> None:
        self._connection = connection
        self._check = check

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        self._check(sql)
        return self._connection.execute(sql, parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class SimStore(Store):
    """A store on this disk."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self._batch: Sequence[Submission] = ()
        self.leftover: Sequence[Submission] = ()
        """Submissions of a failed commit; the next successful one replaces them."""
        super().__init__(path)
        real = self._connection
        self._real = real
        self._connection = Connection(real, disk.check)  # type: ignore[assignment]

    def commit(self, batch: Sequence[Submission]) -> Any:
        self._batch = batch
        return super().commit(batch)

    def _finish(self) -> None:
        try:
            self._disk.before_commit()
            self._real.execute("COMMIT")
        except sqlite3.Error:
            self.leftover = self._batch or self.leftover
            raise
        self.leftover = ()
        self._disk.after_commit(self._real)

    def abandon(self) -> None:
        """Close as a killed process does: the data of a failed commit may be present afterwards."""
        leftover, self.leftover = self.leftover, ()
        if self._real.in_transaction:
            self._real.execute("ROLLBACK")
        elif leftover and self._disk.world.chance(self._disk.world.conditions.leftovers):
            self._disk.world.count_event("data of a failed commit present")
            self._disk.may_kill = False
            self._finish = lambda: self._real.execute("COMMIT")  # type: ignore[method-assign,assignment]
            super().commit(leftover)
            self._disk.read_new_entries(self._real)
        self._real.close()


class _Queue(SimpleQueue):  # type: ignore[type-arg]
    """The writer's queue with a callback on each put in place of a waiting thread."""

    def __new__(cls, on_put: Callable[[], None]) -> _Queue:
        return super().__new__(cls)

    def __init__(self, on_put: Callable[[], None]) -> None:
        self._wake_writer = on_put

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item)
        self._wake_writer()


class SimLedger(Ledger):
    """The broker's ledger without its thread."""

    def __init__(self, disk: Disk, results: ResultBatch, trusted: TrustedClock) -> None:
        world = disk.world
        conditions = world.conditions
        super().__init__(
            disk.directory,
            unix_ms=trusted.now_ms,
            distrust=trusted.distrust,
            on_open=trusted.start,
            trusted=trusted.trusted,
            retention=Retention(entries_s=conditions.entries_s),
            limits=LedgerLimits(max_items=conditions.ledger_items),
            pace=Pace(max_batch=conditions.max_batch),
            clock=world.now,
            open_store=self._open_simulated,
            results=results,
        )
        self._disk = disk
        self._world = world
        self._store: SimStore | None = None
        self._is_busy = False
        self._is_stepping = False
        self._is_gone = False

    def _open_simulated(self, path: Path) -> Store:
        self._store = SimStore(self._disk, path)
        return self._store

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open, serve until cancelled, then write the queue and close; after a kill, neither."""
        world, disk = self._world, self._disk
        await world.pause(0.05)
        disk.may_kill = True
        self._is_stepping = True
        writer = self._writer = self._open()
        self._is_stepping = False
        writer.queue = _Queue(self._wake_writer)
        assert self._reader is not None
        self._reader._connection = Connection(self._reader._connection, self._check_read)  # type: ignore[assignment]
        self._is_open = True
        try:
            if world.chance(world.conditions.kills_at_start):
                world.later(world.rng.uniform(0, 0.1), self._die_at_start)
            self._run_maintenance()
            task_status.started()
            await trio.sleep_forever()
        finally:
            self._is_open = False
            if not self._is_gone:
                disk.may_kill = False
                while not writer.queue.empty():
                    self._step()
                self._call_back_all()
                self._is_gone = True
                self._reader.close()
                self._reader = None
                writer.close()
                writer.move(LedgerSignal.CLOSE)

    def _die_at_start(self) -> None:
        if not self._is_gone:
            self._world.count_event("killed while starting")
            self._disk.on_death()

    def die(self) -> None:
        """Kill: nothing more is written or reported."""
        if not self._is_gone:
            self._is_gone = True
            if not self._is_stepping:
                self._abandon()

    def _abandon(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._store is not None:
            self._store.abandon()

    async def ask(self, question: Callable[..., R], *args: Any) -> R:
        """Answer a query after the delay of a thread."""
        await self._world.pause(0.02)
        return self._ask(question, args)

    def _check_read(self, sql: str) -> None:
        if self._world.chance(self._world.conditions.read_errors):
            self._world.count_event("a read fails")
            raise disk_error("SQLITE_IOERR_READ")

    # ---- the writer's steps

    def _wake_writer(self) -> None:
        if not self._is_busy:
            self._is_busy = True
            slow = self._world.chance(self._world.conditions.slow_commits)
            if slow:
                self._world.count_event("slow commit")
            self._world.soon(SLOW_S if slow else QUICK_S, self._run_step)

    def _run_step(self) -> None:
        self._is_busy = False
        if self._is_gone or self._writer is None:
            return
        self._is_stepping = True
        try:
            self._step()
        except Killed:
            self._abandon()
            return
        finally:
            self._is_stepping = False
        if self._writer.state is not LedgerState.READY:
            self._is_busy = True
            self._world.soon(RETRY_S, self._run_step)
        elif not self._writer.queue.empty():
            self._wake_writer()

    def _step(self) -> None:
        """Run one step of the writer's thread."""
        writer = self._writer
        assert writer is not None
        was_ready = writer.state is LedgerState.READY
        writer.step(wait=False)
        if writer.state is LedgerState.READY and not was_ready:
            self._world.count_event("disk recovers")

    def _run_maintenance(self) -> None:
        if not self._is_gone:
            self._wake_writer()
            self._world.later(1.0, self._run_maintenance)

    def _deliver(self, results: list[tuple[Waiting, LedgerResult]]) -> None:
        self._answered.extend(results)
        if self._is_open:
            self._world.soon(0.005, self._call_back_some)
        else:
            self._call_back_all()

    def _call_back_some(self) -> None:
        """Deliver results in slices, as the event loop does; the process may be killed between two."""
        for _ in range(self._world.rng.randint(1, 8)):
            if self._answered and not self._is_gone:
                self._call_back(*self._answered.popleft())
        if self._answered and not self._is_gone:
            self._world.soon(0.005, self._call_back_some)

    def _call_back_all(self) -> None:
        while self._answered:
            self._call_back(*self._answered.popleft())
