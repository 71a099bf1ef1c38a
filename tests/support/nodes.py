"""Several brokers of one process that share a memory engine."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from broker.core.nodes.membership import LEASE_S
from broker.engine.dataset import MemoryData
from broker.engine.memory import MemoryBus, MemoryEngine
from broker.server import Broker
from tests.support.broker import LoopOfTests, configuration
from tests.support.integration import require_marker
from tests.support.until import until

__all__ = ["Node", "NodesOfTest", "both_have_rooms", "running_nodes"]


class Node:
    """One broker and its engine."""

    def __init__(self, broker: Broker, engine: MemoryEngine, scope: trio.CancelScope) -> None:
        self.broker = broker
        self.engine = engine
        self.is_dead = False
        self._scope = scope

    @property
    def nodes(self) -> Any:  # Any: tests look into it
        """The part of the broker that other nodes see."""
        return self.broker.nodes

    def kill(self) -> None:
        """Stop the broker at once, as if its process were killed: nothing more leaves it."""
        self.is_dead = True
        self.engine.cut()
        self._scope.cancel()


class NodesOfTest:
    """The nodes by name."""

    def __init__(self, data: MemoryData, start: Callable[[str], Awaitable[None]]) -> None:
        self.by_name: dict[str, Node] = {}
        self.data = data
        """What they share."""
        self.start = start
        """Starts a node, also one that was killed before."""

    def __getitem__(self, name: str) -> Node:
        return self.by_name[name]

    def owner_of(self, room: str) -> Node | None:
        """Return the node that owns a room."""
        alive = [each for each in self.by_name.values() if not each.is_dead]
        return next((each for each in alive if room in each.nodes.owners.fences), None)

    def room_on(self, name: str, prefix: str = "live") -> str:
        """Return the name of a room that is placed on a node."""
        table = self[name].nodes.owners.table
        return next(room for n in range(1000) if table.placed_on(room := f"{prefix}-{n}", trio.current_time()) == name)


@asynccontextmanager
async def running_nodes(*names: str, data_age_s: float = 60.0, **overrides: Any) -> AsyncIterator[NodesOfTest]:
    """Run a broker for each name; a crash in one fails the test. ``data_age_s``: how old the engine's data are."""
    require_marker("whole brokers")
    begun_at, is_old = trio.current_time(), False
    data = MemoryData(lambda: round((trio.current_time() - begun_at + is_old * data_age_s) * 1000))
    data.born("the first node", b"")
    is_old = True
    bus = MemoryBus(data)
    async with trio.open_nursery() as nursery:

        async def run(broker: Broker, scope: trio.CancelScope, task_status: trio.TaskStatus[None]) -> None:
            with scope:
                await broker.run(task_status)

        async def start(name: str) -> None:
            engine = MemoryEngine(bus, name)
            broker = Broker(configuration(**overrides), rng=random.Random(7), engine=engine)
            broker.loop_monitor = LoopOfTests()
            scope = trio.CancelScope()
            nodes.by_name[name] = Node(broker, engine, scope)
            await nursery.start(lambda task_status, b=broker, s=scope: run(b, s, task_status))

        nodes = NodesOfTest(data, start)
        for name in names:
            await start(name)
        try:
            yield nodes
        finally:
            nursery.cancel_scope.cancel()


async def both_have_rooms(nodes: NodesOfTest) -> None:
    """Wait until each node knows that rooms are placed on both."""
    tables = [node.nodes.owners.table for node in nodes.by_name.values()]
    await until(lambda: all(len(table.settled(trio.current_time(), LEASE_S)) == 2 for table in tables))
