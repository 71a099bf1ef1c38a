"""A broker in the simulated world: the real hub, rooms, fan-out, sessions and inboxes; disk and network are the seed's.

Only the edges are made: `SimPoller` (no epoll: the wires call), `SimLedger` (no thread: commits take virtual time and
fail when the seed says so) and the composition. What is on the disk is a real `Store`, so a life that is killed leaves
behind exactly what it had committed.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import trio

from broker.archive import Archive
from broker.auth import Authenticator
from broker.config import AuthConfig, LinkConfig, RoomConfig
from broker.core.gate import Gate
from broker.core.overload import ByteBudget
from broker.core.policies import policy_from
from broker.core.room_state import RoomRules
from broker.core.send_queue import QueueLimits
from broker.fanout import FanOut
from broker.hub import Hub
from broker.inboxes import Inboxes
from broker.ledger import LedgerError, LedgerRefused, LedgerState, Reader, Settled, Trouble, Verdict, database_path
from broker.ledger.entries import Item, Key, Submission
from broker.ledger.store import Store
from broker.ledger.upkeep import Retention, Upkeep
from broker.poller import Poller
from broker.recorder import Recorder
from broker.services import SessionServices
from broker.session import Session
from broker.transport import TcpTransport, Transport
from tests.sim.network import SimSocket, Wire
from tests.sim.world import World

__all__ = ["Life", "SimLedger"]


class SimPoller(Poller):
    """The poller's books without its epoll."""

    def add(self, transport: Transport, due: float) -> None:
        self._transports[transport.fd] = transport
        self._wheel.add(transport, due)

    def _set_interest(self, transport: Transport) -> None:
        wire = transport.sock._wire  # type: ignore[attr-defined]
        wire.wants_to_write = transport in self._behind

    def turn(self, call: Callable[[], None]) -> None:
        """Do what a wire has to do, now."""
        self.now = trio.current_time()
        call()


class SimLedger:
    """As `broker.ledger.Ledger`, but one task instead of a thread; the disk is the seed's."""

    def __init__(self, world: World, directory: Path) -> None:
        self.state = LedgerState.OPENING
        self.store = Store(database_path(directory))
        self.store.connection.execute("PRAGMA synchronous=OFF")  # a kill keeps what was written; power stays on here
        self.reader = Reader(database_path(directory))
        self.on_crash: Callable[[], None] = lambda: None
        self._world = world
        self._upkeep = Upkeep(self.store, Retention())
        self._queue: deque[tuple[Submission, Callable[[Settled], None]]] = deque()
        self._more = trio.Event()
        self._waiting = 0
        self.state = LedgerState.READY

    @property
    def waiting(self) -> int:
        return self._waiting

    def record(self, items: Sequence[Item], on_done: Callable[[Settled], None], keys: Sequence[Key] = ()) -> Verdict:
        submission = Submission(tuple(items), tuple(keys))
        if self.state is not LedgerState.READY:
            return Verdict.UNAVAILABLE
        if self._waiting >= 200:
            return Verdict.FULL
        self._waiting += 1
        self._queue.append((submission, on_done))
        self._more.set()
        return Verdict.QUEUED

    async def ask(self, question: Callable[..., Any], *args: Any) -> Any:
        await self._world.pause(0.02)
        if self.state is LedgerState.CLOSED:
            raise LedgerRefused("it is not open")
        return question(self.reader, *args)

    async def run(self) -> None:
        """Commit what waits, a group at a time; now and then the disk fails, hangs, or the process dies here."""
        world = self._world
        while True:
            while not self._queue:
                self._more = trio.Event()
                with trio.move_on_after(1.0):
                    await self._more.wait()
                self._upkeep.step(world.unix_ms())
            await world.pause(0.02)
            if world.chance(0.02):
                await world.pause(3.0)
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), world.rng.randint(1, 30)))]
            if world.chance(0.02):
                world.note("killed before a commit")
                self.on_crash()
                return
            if world.rooms_founded and world.chance(0.03):
                await self._fail(batch)
                continue
            settled = self.store.commit([submission for submission, _ in batch])
            world.note("commit", self.store.head.batch, len(batch))
            world.rooms_founded = world.rooms_founded or len(self.reader.rooms()) == 2
            if world.chance(0.02):
                world.note("killed after a commit")
                self.on_crash()
                return
            for (_, on_done), result in zip(batch, settled, strict=True):
                self._tell(on_done, result)
            await trio.lowlevel.checkpoint()

    async def _fail(self, batch: list[tuple[Submission, Callable[[Settled], None]]]) -> None:
        """The disk is full for a while: what waits fails, what comes is refused."""
        self._world.note("disk full", len(batch) + len(self._queue))
        self.state = LedgerState.DEGRADED
        error = LedgerError(Trouble.DISK_FULL, "simulated")
        batch += self._queue
        self._queue.clear()
        for _, on_done in batch:
            self._tell(on_done, error)
        await self._world.pause(2.0)
        if self.state is LedgerState.DEGRADED:
            self.state = LedgerState.READY

    def _tell(self, on_done: Callable[[Settled], None], settled: Settled) -> None:
        self._waiting -= 1
        on_done(settled)

    def close(self) -> None:
        """The process is gone: nothing more is written or told."""
        self.state = LedgerState.CLOSED
        self._queue.clear()
        self.reader.close()
        self.store.close()


class Life:
    """One broker process from its start to its death."""

    def __init__(self, world: World, directory: Path, number: int, history_entries: int) -> None:
        self.world = world
        self.number = number
        self.is_dead = False
        self.wires: list[Wire] = []
        self.scope = trio.CancelScope()
        self.ledger: Any = SimLedger(world, directory)  # Any: it stands in for a Ledger
        self.ledger.on_crash = self.kill
        rng = random.Random(world.rng.getrandbits(64))
        policy = policy_from("roomcast", {"admit_per_window": 100_000, "paid_budget_per_s": 5})
        rules = RoomRules(policy, {}, history_entries, 120.0, 20, durable=True)
        self.recorder = Recorder(self.ledger, world.unix_ms)
        self.archive = Archive(self.ledger, 2000, 256 * 1024)
        self.inboxes = Inboxes(self.ledger, self.archive, world.unix_ms, 72 * 3600.0)
        # The fan-out measures its slices with a clock that stands still within a step: every sweep is one slice.
        self.fanout = FanOut(world.now)
        self.hub = Hub(
            RoomConfig(idle_close_s=30.0), rules, self.fanout, clock=world.now, unix_ms=world.unix_ms, rng=rng,
            recorder=self.recorder,
        )  # fmt: skip
        gate = Gate(max_connections=1000, per_address=0, accept_per_s=1e6, unauthenticated_share=1.0)
        self.poller = SimPoller(
            queue_limits=QueueLimits(32, 64 * 1024, 128 * 1024),
            budget=ByteBudget(1 << 30),
            write_timeout_s=5.0,
            on_due=lambda transport: transport.owner.on_due(self.poller.now),  # type: ignore[union-attr, attr-defined]
            on_gone=lambda transport: self.services.gate.leave(transport.address, transport.authenticated),
        )
        self.services = SessionServices(
            LinkConfig(connections_per_user=10_000), self.hub, Authenticator(AuthConfig(), rng=rng), gate, self.poller,
            world.unix_ms, {}, 0, True, self.archive, self.inboxes,
        )  # fmt: skip

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Live until killed."""
        with self.scope:
            await self.recorder.load(512, 120.0)
            await self.inboxes.load()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.ledger.run)
                await nursery.start(self.archive.run)
                await nursery.start(self.inboxes.run)
                await nursery.start(self.fanout.run)
                await nursery.start(self.hub.run)
                nursery.start_soon(self._keep_house)
                self.world.note("life", self.number)
                task_status.started()
        self.kill()

    async def _keep_house(self) -> None:
        while True:
            await trio.sleep(0.25)
            self.poller._tidy()

    def accept(self, wire: Wire) -> None:
        """Take a connection."""
        socket: Any = SimSocket(wire, self.world)  # Any: as much of a socket as is needed
        self.poller.now = trio.current_time()
        transport = TcpTransport(socket, self.poller, f"10.0.0.{wire.number % 250}")
        wire.transport = transport
        wire.turn = self.poller.turn
        self.wires.append(wire)
        self.services.gate.enter(transport.address)
        self.poller.add(transport, self.poller.now + 5.0)
        transport.owner = Session(transport, self.services)

    def kill(self) -> None:
        """SIGKILL: nobody says goodbye, nothing more is written."""
        if not self.is_dead:
            self.is_dead = True
            self.world.note("killed", self.number)
            self.ledger.close()
            for wire in self.wires:
                wire.transport = None
                wire.cut()
            self.scope.cancel()
            self.poller._epoll.close()
