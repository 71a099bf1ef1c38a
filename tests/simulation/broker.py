"""Broker in the simulated world: the real `Broker`, started, drained and killed, on the world's disk and network.

Only its edges are replaced: an epoll over simulated wires, a listener that is given connections, and the ledger without
its thread (`tests.simulation.disk`).
"""

from __future__ import annotations

import random
import select
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import trio

from broker.config.schema import (
    AdmissionConfig,
    AuthConfig,
    Config,
    LedgerConfig,
    LinkConfig,
    QueueConfig,
    RoomConfig,
    TypeConfig,
)
from broker.ledger import Ledger, LedgerRefused
from broker.net.listener import Listener
from broker.net.poller import Poller
from broker.net.transport import Transport, TransportSettings
from broker.rooms.fanout import FanOut
from broker.server import Broker
from protocol.codes import CloseCode
from tests.simulation.disk import Disk, Killed, SimLedger
from tests.simulation.faults import Conditions
from tests.simulation.network import SimEpoll, SimSocket, Wire
from tests.simulation.world import World
from tests.support.tokens import SECRET

__all__ = ["BrokerRun", "SimBroker"]

DRAIN_S = 2.0
TICKET_S = 20
FAILED_LOGINS, NEW_ROOMS, UNUSED_CLOSE_S, STAFF_BURST, JOINS = 10, 4, 5.0, 60, 8
"""Limits of the simulated broker: low, so that a probe reaches them with few messages."""
GUEST_ROOMS = ("lobby", "probe-guests-*")
DIRECT_TYPE, CHAT_TYPE, HOST_TYPE = 200, 201, 202
TYPES = (
    TypeConfig(id=DIRECT_TYPE, name="coupon", lane="commerce", roles=("app",), max_bytes=256),
    TypeConfig(id=CHAT_TYPE, name="poll_vote", lane="chat", roles=("viewer", "host"), rate_per_s=1000, burst=100),
    TypeConfig(id=HOST_TYPE, name="host_only", lane="commerce", roles=("host",)),
)


def configuration(conditions: Conditions, directory: Path) -> Config:
    """Return the configuration of a world's broker."""
    return Config(
        link=LinkConfig(
            heartbeat_s=4.0, heartbeat_cut_s=10.0, write_timeout_s=5.0, drain_s=DRAIN_S, connections_per_user=1000
        ),
        admission=AdmissionConfig(max_connections=1000, failed_logins_per_minute=FAILED_LOGINS),
        room=RoomConfig(
            history_entries=conditions.history_entries,
            history_s=conditions.history_s,
            idle_close_s=conditions.idle_close_s,
            paid_budget_per_s=conditions.paid_budget_per_s,
            new_rooms_per_minute=NEW_ROOMS,
            unused_close_s=UNUSED_CLOSE_S,
            staff_posts_per_s=20.0,
            staff_posts_burst=STAFF_BURST,
            user_joins_per_s=1.0,
            user_joins_burst=JOINS,
        ),
        queue=QueueConfig(
            queue_bytes=4096, critical_bytes=conditions.critical_bytes, total_bytes=conditions.total_bytes
        ),
        auth=AuthConfig()
        if conditions.development
        else AuthConfig(secret=SECRET, guest_access=GUEST_ROOMS, ticket_s=TICKET_S),
        ledger=LedgerConfig(data_dir=str(directory)),
        types=TYPES,
    )


class SimPoller(Poller):
    """The poller over simulated wires."""

    def _make_epoll(self) -> select.epoll:
        """Make an epoll of the simulated network."""
        self.epoll = SimEpoll()
        return cast(select.epoll, self.epoll)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run as the real poller does, waiting for the simulated epoll."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._maintenance)
                task_status.started()
                while True:
                    await self.epoll.wait()
                    self.turn()
        finally:
            for transport in self:
                transport.abort("broker stopped", CloseCode.CLOSED_BY_PEER)


class SimListener(Listener):
    """Listener without sockets: the network passes connections to it."""

    is_open = False

    async def run(self, task_status: trio.TaskStatus[tuple[tuple[str, int], ...]] = trio.TASK_STATUS_IGNORED) -> None:
        self.is_open = True
        try:
            task_status.started((("127.0.0.1", 7400),))
            await trio.sleep_forever()
        finally:
            self.stop()

    def stop(self) -> None:
        self.is_open = False


class _NoLoopMonitor(trio.abc.Instrument):
    """Replacement of the loop monitor, which reads real clocks: here no step takes time."""

    slow_steps = pauses = 0

    def overload_lag_s(self, late_s: float) -> float:
        return late_s


class SimBroker(Broker):
    """Broker with its edges in the simulated world."""

    def __init__(self, world: World, disk: Disk) -> None:
        self.world = world
        self.disk = disk
        self.listener: SimListener
        self.epoll: SimEpoll
        super().__init__(
            configuration(world.conditions, disk.directory),
            rng=random.Random(world.rng.getrandbits(64)),
            wall_ms=world.wall_ms,
            monotonic=world.now,
        )
        self.loop_monitor = _NoLoopMonitor()  # type: ignore[assignment]

    def _make_ledger(self) -> Ledger:
        return SimLedger(self.disk, self.results, self.clock)

    def _make_fanout(self) -> FanOut:
        # The virtual clock does not advance within a step: every pass is one slice.
        return FanOut(self.world.now)

    def _make_poller(self, kind: type[Poller] = SimPoller) -> Poller:
        poller = super()._make_poller(kind)
        assert isinstance(poller, SimPoller)
        self.epoll = poller.epoll
        return poller

    def _make_listener(self, transports: TransportSettings, kind: type[Listener] = SimListener) -> Listener:
        listener = super()._make_listener(transports, kind)
        assert isinstance(listener, SimListener)
        return listener


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


class BrokerRun:
    """One broker process from its start to its end."""

    def __init__(self, world: World, disk: Disk, number: int) -> None:
        self.world = world
        self.number = number
        self.is_up = False
        """Whether it accepts connections."""
        self.is_over = False
        self.wires: list[Wire] = []
        self.broker = SimBroker(world, disk)
        self._scope = trio.CancelScope()
        disk.on_death = self.kill

    async def run(self) -> None:
        """Run until killed, drained, or refused by the disk."""
        self.world.trace("broker_run", self.number)
        try:
            with self._scope:
                async with trio.open_nursery() as self._nursery:
                    await self._nursery.start(self.broker.run)
                    self.is_up = True
                    self.world.trace("up", self.number)
        except* (LedgerRefused, Killed, sqlite3.Error) as group:
            self.world.count_event("not up", *sorted({type(error).__name__ for error in _leaves(group)}))
        finally:
            self._end()

    def drain(self) -> None:
        """SIGTERM."""
        self._nursery.start_soon(self.broker.drain)

    def accept(self, number: int, address: str = "") -> Wire | None:
        """Accept a connection from ``address``; None if the listener is closed."""
        broker = self.broker
        if not self.is_up or not broker.listener.is_open:
            return None
        wire = Wire(self.world, number, broker.epoll)
        broker.epoll.add_wire(wire)
        self.wires.append(wire)
        socket: Any = SimSocket(wire, self.world)  # Any: only the part of a socket that is used
        broker.listener.admit(socket, address or f"10.0.0.{number % 250}", self.world.now())
        return wire

    def transports(self) -> Iterator[Transport]:
        """Iterate over the connections that the broker holds."""
        return (cast(Transport, connection) for connection in self.broker.poller)

    def kill(self) -> None:
        """SIGKILL: no frame is sent and nothing more is written."""
        if not self.is_over:
            self.world.count_event("killed", self.number)
            ledger: Any = self.broker.ledger
            ledger.die()
            self._end()
            self._scope.cancel()

    def _end(self) -> None:
        if not self.is_over:
            self.is_over = True
            self.is_up = False
            self.world.trace("over", self.number)
            for framing, links in self.broker.listener.detector.opened.items():
                self.world.happened[f"links: {framing}"] += links
            for wire in self.wires:
                wire.cut()
