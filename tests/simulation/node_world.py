"""A small world of several nodes over the memory engine, in virtual time: sales in rooms that move between nodes.

Each node has the owners and logs of a broker (`RoomOwners`, `RoomLog`) and a small sale in each room; the engine loses,
delays and repeats, nodes are killed and cut off. Buyers claim and give back units at any node. `violations` checks the
history against the logs:

- facts without a hole, fences that never fall;
- what was acknowledged is in the log under the number that was answered, once;
- never more units than the stock, never two for one user;
- each negative answer is true of the state that it was given of, and that state is no older than any fact that was
  acknowledged before the question.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import trio

from broker.core.nodes.membership import JOIN_DELAY_S
from broker.engine.base import Granted, LogItem, StoredLogItem
from broker.engine.dataset import MemoryData
from broker.engine.memory import MemoryBus, MemoryEngine, MemoryFaults, RequestFault
from broker.rooms.owners import RoomOwners
from broker.rooms.room_log import RoomLog
from tests.support.engines import Heard

__all__ = ["Answer", "World", "violations"]

STOCK = 5
USERS = 12
ROOMS = ("live-1", "live-2")


class Answer(NamedTuple):
    """One answered request. ``number``: of the fact, or of the last fact of the state that a negative answer is of."""

    room: str
    user: str
    command: str
    outcome: str
    """done, sold out, already, nothing"""
    number: int
    asked_at: float
    answered_at: float


class SimulatedRoom:
    """What a node has in memory of the sale in one room that it owns."""

    def __init__(self, end: RoomLog) -> None:
        self.end = end
        self.holders: set[str] = set()
        self.is_writing = False

    def apply(self, body: bytes) -> None:
        command, _, user = body.decode().partition(" ")
        if command == "claim":
            self.holders.add(user)
        else:
            self.holders.discard(user)

    def refusal(self, command: str, user: str) -> str:
        if command == "return":
            return "" if user in self.holders else "nothing"
        if user in self.holders:
            return "already"
        return "sold out" if len(self.holders) >= STOCK else ""


class SimulatedNode:
    """One node; ``run`` is its life until it is cancelled. The `RoomsOfNode` of its `RoomOwners`."""

    def __init__(self, world: World, name: str, owners: type[RoomOwners], log: type[RoomLog]) -> None:
        self._world = world
        self._log = log
        self.engine = MemoryEngine(world.bus, name, MemoryFaults(world.fault, world.delay))
        self.owners = owners(self.engine, self, clock=trio.current_time, at_ms=lambda: 1)
        self.rooms: dict[str, SimulatedRoom] = {}

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.engine.run, Heard())
            await self.owners.run()

    async def owned(self, name: str, granted: Granted) -> bool:
        room = SimulatedRoom(self._log(self.engine, name, granted))
        found = await self.engine.read_facts(name, 0, 100_000)
        for each in found:
            room.apply(each.body)
        if len(found) != granted.last_fact:
            return False
        self.rooms[name] = room
        return True

    def continued(self, name: str, granted: Granted) -> bool:
        room = self.rooms.get(name)
        return room is not None and room.end.go_on(granted)

    def lost(self, name: str) -> None:
        if (room := self.rooms.pop(name, None)) is not None:
            room.end.close()

    async def leave(self, name: str) -> None:
        self.lost(name)

    def node_gone(self, node: str) -> None:
        """Nothing waits for another node."""

    def wanted(self, node: str, name: str) -> None:
        other = self._world.nodes[node].owners
        other.forget(name)
        other.find(name, lambda found: None)

    async def serve(self, name: str, command: str, user: str) -> None:
        """Answer a buyer, or not: what is refused for now leaves nothing in the history."""
        room, asked_at = self.rooms.get(name), trio.current_time()
        if room is None or name not in self.owners.fences:
            self.owners.find(name, lambda found: None)
            return
        if not self.owners.may_answer():
            return
        if refusal := room.refusal(command, user):
            answer = Answer(name, user, command, refusal, room.end.fact, asked_at, asked_at)
            self._world.history.append(answer)
            return
        if room.is_writing:
            return
        body = f"{command} {user}".encode()
        room.is_writing = True
        if await room.end.append([LogItem(None, 3, 1, body)]):
            room.apply(body)
            room.is_writing = False
            answer = Answer(name, user, command, "done", room.end.fact, asked_at, trio.current_time())
            self._world.history.append(answer)
        elif self.rooms.get(name) is room:
            self.owners.drop(name)
            self.lost(name)


class World:
    """Three nodes, buyers and faults, for some seconds of virtual time; ``seed`` is that of chance."""

    def __init__(self, seed: int, owners: type[RoomOwners] = RoomOwners, log: type[RoomLog] = RoomLog) -> None:
        self._rng = random.Random(seed)
        self._owners = owners
        self._log = log
        self.data = MemoryData(lambda: 1_700_000_000_000 + int(trio.current_time() * 1000))
        self.bus = MemoryBus(self.data)
        self.nodes: dict[str, SimulatedNode] = {}
        self._lives: dict[str, trio.CancelScope] = {}
        self.history: list[Answer] = []
        self.is_faulty = True
        self.owners_at_end = 0

    def fault(self, request: str) -> RequestFault:
        """What becomes of a request."""
        if not self.is_faulty or self._rng.random() > 0.03:
            return RequestFault.NONE
        return self._rng.choice([RequestFault.LOST, RequestFault.ANSWER_LOST, RequestFault.LATE])

    def delay(self, request: str) -> float:
        """How long a request is under way."""
        return self._rng.random() * (2 if self.is_faulty and self._rng.random() < 0.01 else 0.02)

    async def run(self, seconds: float) -> None:
        """Let faults and buyers loose, then let it heal; some node must own each room in the end."""
        async with trio.open_nursery() as nursery:
            for name in ("a", "b", "c"):
                nursery.start_soon(self._live, name)
            nursery.start_soon(self._buy, nursery)
            with trio.move_on_after(seconds):
                await self._harm()
            self.is_faulty = False
            for node in self.nodes.values():
                node.engine.mend()
            await trio.sleep(7 + JOIN_DELAY_S)
            self.owners_at_end = sum(
                room in node.owners.fences and node.owners.may_answer()
                for node in self.nodes.values()
                for room in ROOMS
            )
            nursery.cancel_scope.cancel()

    async def _live(self, name: str) -> None:
        """Live, die when killed, and start again."""
        while True:
            node = self.nodes[name] = SimulatedNode(self, name, self._owners, self._log)
            with trio.CancelScope() as self._lives[name]:
                await node.run()
            await trio.sleep(self._rng.random() * 4)

    async def _harm(self) -> None:
        while True:
            await trio.sleep(self._rng.random() * 3)
            name = self._rng.choice(sorted(self.nodes))
            if self._rng.random() < 0.3:
                self._lives[name].cancel()
                continue
            engine = self.nodes[name].engine
            engine.cut()
            await trio.sleep(self._rng.choice([0.1, 1.0, 3.0, 5.0]))
            engine.mend()

    async def _buy(self, nursery: trio.Nursery) -> None:
        while True:
            await trio.sleep(0.01)
            node = self.nodes.get(self._rng.choice("abc"))
            if node is not None:
                command = self._rng.choice(["claim", "claim", "return"])
                nursery.start_soon(node.serve, self._rng.choice(ROOMS), command, f"user-{self._rng.randrange(USERS)}")

    def log(self, room: str) -> Sequence[StoredLogItem]:
        """Return the facts of a room, as the engine has them."""
        return self.data.read_facts(room, 0, 100_000)


def violations(log: Sequence[StoredLogItem], history: Sequence[Answer]) -> list[str]:
    """Return what is wrong with one room, in words."""
    found = []
    if [item.fact for item in log] != list(range(1, len(log) + 1)):
        found.append("the log has a hole")
    if [item.fence for item in log] != sorted(item.fence for item in log):
        found.append("a fence fell")
    states: list[frozenset[str]] = [frozenset()]
    for item in log:
        command, _, user = item.body.decode().partition(" ")
        holders = states[-1]
        if command == "claim":
            if user in holders:
                found.append(f"{user} has two at {item.fact}")
            holders = holders | {user}
        elif command == "return":
            if user not in holders:
                found.append(f"{user} gave back what it had not at {item.fact}")
            holders = holders - {user}
        if len(holders) > STOCK:
            found.append(f"oversold at {item.fact}")
        states.append(holders)
    acknowledged: list[tuple[float, int]] = []
    for answer in sorted(history, key=lambda each: each.answered_at):
        if answer.outcome == "done":
            acknowledged.append((answer.answered_at, answer.number))
            if answer.number > len(log) or log[answer.number - 1].body.decode() != f"{answer.command} {answer.user}":
                found.append(f"an acknowledged write is not in the log: {answer}")
            continue
        holders = states[answer.number]
        is_true = {
            "sold out": len(holders) >= STOCK, "already": answer.user in holders, "nothing": answer.user not in holders,
        }[answer.outcome]  # fmt: skip
        if not is_true:
            found.append(f"an answer that was not true: {answer}")
        newest = max((number for at, number in acknowledged if at < answer.asked_at), default=0)
        if answer.number < newest:
            found.append(f"a stale answer, {newest} had been acknowledged: {answer}")
    return found
