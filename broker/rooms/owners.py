"""Which node owns which room, as this node knows it: its lease, its claims, and the owners that it has looked up.

A room is looked up when this node needs it. One without a live owner is claimed by the node that it is placed on, which
is notified that the room is wanted. A room that has work of its own (reports that wait, activities that run) is claimed
by that node without a request, once its owner is gone. Rooms move to a node that has joined, a few a second.

A node whose lease was lost answers nothing from memory until it has claimed its rooms again with the fences it held:
granted means that no other node had them meanwhile, so the state in memory is right; else it is dropped. See
`broker.core.nodes.membership` for who may claim, `broker.engine.base` for what makes it safe.

A record may name a live node that does not own the room: its claim or release had no answer, or it was started again at
once. Other nodes take it for the owner, so only this node can end that: it looks such rooms up by itself (`unsettled`),
and those that it is asked for (`look_again`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import structlog
import trio

from broker.core.nodes.membership import BEAT_S, JOIN_DELAY_S, NodeLease, NodeTable, Peer
from broker.core.nodes.moves import Moves
from broker.engine.base import (
    Engine,
    EngineError,
    EngineRefused,
    EngineUnavailable,
    Granted,
    Held,
    LogItem,
    NodeBirth,
    NodeRecord,
    OwnerRecord,
)
from broker.rooms.shared_ledger import AGAIN
from protocol.frames import pack_body, unpack_body

__all__ = ["MARKER_KIND", "RoomOwners", "RoomsOfNode"]

log = structlog.get_logger("roomcast.owners")

MARKER_KIND = 0
"""Kind of the entry with which an owner begins."""
LOOK_S = 0.1
"""Time between two looks for the owner of a room that has none yet."""
PATIENCE_S = 10.0
"""How long a request waits for a room to have an owner."""
MAX_LOOKING = 10_000
"""Rooms that are looked up at a time."""
MAX_KNOWN = 100_000
"""Owners that are known; beyond, the one looked up longest ago is forgotten."""
MAX_CLAIMING = 16
"""Rooms that are claimed and read at a time: more would hold up every other command."""
ANSWER_S = 4 * BEAT_S
"""How long the engine has for the answers of one beat."""
WORK_S = 1.0
"""Time between two looks for rooms that have work and no owner."""
MAX_WITH_WORK = 10_000
"""Rooms with work that are read at a time."""

OnFound = Callable[[bool], None]
"""Gets whether the owner is known now."""


class RoomsOfNode(Protocol):
    """What happens to the rooms of this node."""

    async def owned(self, name: str, granted: Granted) -> bool:
        """Read what the log has of a room that this node owns now; False: it cannot be read."""

    def continued(self, name: str, granted: Granted) -> bool:
        """Go on with a room that no other node had while this one was lost; False: what the engine has of it does not
        go on where this node was."""

    def lost(self, name: str) -> None:
        """Give up a room that another node owns now."""

    async def leave(self, name: str) -> None:
        """Give up a room that is to be released, once what waits to be written is written."""

    def node_gone(self, node: str) -> None:
        """Take that a node, or an earlier life of it, is gone."""

    def wanted(self, node: str, name: str) -> None:
        """Notify a node that a room placed on it is wanted."""


class RoomOwners:
    """Owners of rooms. ``clock``: monotonic seconds; ``at_ms``: Unix milliseconds; ``address``: for people."""

    def __init__(
        self,
        engine: Engine,
        rooms: RoomsOfNode,
        *,
        clock: Callable[[], float],
        at_ms: Callable[[], int],
        address: str = "",
    ) -> None:
        self.engine = engine
        self.node = engine.node
        self.fences: dict[str, int] = {}
        """Fences of the rooms that this node owns."""
        self.lease = NodeLease("")
        self.table = NodeTable(self.node, self.lease)
        self.is_leaving = False
        """Whether this node drains: it takes no more rooms."""
        self._rooms = rooms
        self._clock = clock
        self._at_ms = at_ms
        self._address = address
        self._known: dict[str, str] = {}
        self._looking: dict[str, list[OnFound]] = {}
        self._claiming = trio.Semaphore(MAX_CLAIMING)
        self._claims: dict[str, trio.Event] = {}
        """Rooms that are being claimed, with what is set at the end of that."""
        self.unsettled: set[str] = set()
        """Rooms that this node does not own, and whose record may name it: each beat looks at them."""
        self._nodes_lock = trio.Lock()
        self._moves = Moves()
        self._moving: set[str] = set()
        self._placed_for: frozenset[str] = frozenset()
        """Nodes for which every room of this one was looked at: none has a better node among them."""
        self._work_at = 0.0
        self.always: set[str] = set()
        """Names of logs that some node is always to own."""
        self._incarnations: dict[str, str] = {}
        self._nursery: trio.Nursery | None = None

    # ---- looking rooms up

    def owner_of(self, name: str) -> str | None:
        """Return the node that owns a room, this one perhaps; None: that is not known now."""
        return self.node if name in self.fences else self._known.get(name)

    def find(self, name: str, on_found: OnFound) -> None:
        """Find out who owns a room, claiming it if it is placed here and has no owner; then call back, once."""
        waiting = self._looking.get(name)
        if waiting is not None:
            waiting.append(on_found)
        elif self._nursery is None or len(self._looking) >= MAX_LOOKING:
            on_found(False)
        else:
            self._looking[name] = [on_found]
            self._nursery.start_soon(self._look, name)

    async def wait_found(self, name: str) -> str | None:
        """Return the owner of a room, None: it has none for so long."""
        owner = self.owner_of(name)
        if owner is None:
            done = trio.Event()
            self.find(name, lambda found: done.set())
            await done.wait()
            owner = self.owner_of(name)
        return owner

    def forget(self, name: str) -> None:
        """Forget who owns a room: it has said that it does not."""
        self._known.pop(name, None)

    def look_again(self, name: str) -> None:
        """Look a room up that is wanted of this node, whatever it knew of the owner."""
        self.forget(name)
        self.find(name, lambda found: None)

    async def _look(self, name: str) -> None:
        found = False
        try:
            with trio.move_on_after(PATIENCE_S):
                while not found:
                    try:
                        found = await self._try(name)
                    except EngineError as error:
                        log.info("the owner of a room cannot be found now", room=name, why=str(error))
                    if not found:
                        await trio.sleep(LOOK_S)
        finally:
            for on_found in self._looking.pop(name):
                on_found(found)

    async def _try(self, name: str) -> bool:
        """Look a room up once; return whether its owner is known now."""
        if (claim := self._claims.get(name)) is not None:
            await claim.wait()
        if name in self.fences:
            return True
        if name in self._moving:
            return False
        record = await self.engine.owner(name)
        owner = None if record is None or not record.node else record.node
        if owner == self.node and record is not None and self.is_leaving:
            await self.engine.release(name, record.fence)
            owner = None
        now = self._clock()
        if owner is not None and owner != self.node and owner in self.table.peers:
            self._learn(name, owner)
            return True
        if not self.is_leaving and self.table.may_claim(name, owner, now):
            if owner is not None and owner != self.node:
                # It may have begun another life since the last look, and claimed the room again: then the record is of
                # that life. Who is not there after the record was read has no lease of that claim.
                await self._look_at_nodes(now)
                if not self.table.may_claim(name, owner, self._clock()):
                    return False
            return await self._claim(name, record)
        heir = self.table.placed_on(name, now)
        if heir is not None and heir != self.node:
            self._rooms.wanted(heir, name)
        return False

    async def _look_at_nodes(self, since: float) -> None:
        """Read which nodes are alive, unless that was asked at ``since`` or later."""
        async with self._nodes_lock:
            if self.table.read_at < since:
                asked_at = self._clock()
                self._read(await self.engine.nodes(), asked_at)

    def _learn(self, name: str, owner: str) -> None:
        self._known.pop(name, None)
        self._known[name] = owner
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]

    async def _claim(self, name: str, record: OwnerRecord | None) -> bool:
        """Claim a room; return whether this node owns it. A claim that has begun goes on to its end, however long the
        log of the room is: who waits for it may give up before."""
        if self._nursery is None:
            return False
        done = self._claims[name] = trio.Event()
        self._nursery.start_soon(self._claim_to_end, name, record, done)
        await done.wait()
        return name in self.fences

    async def _claim_to_end(self, name: str, record: OwnerRecord | None, done: trio.Event) -> None:
        try:
            async with self._claiming:
                if name not in self.fences and name not in self._moving:
                    await self._claim_now(name, record)
        except EngineError as error:
            self.unsettled.add(name)
            log.info("a room cannot be claimed now", room=name, why=str(error))
        finally:
            del self._claims[name]
            done.set()

    async def _claim_now(self, name: str, record: OwnerRecord | None) -> None:
        marker, life = LogItem(0, MARKER_KIND, self._at_ms(), pack_body((self.node,))), self.lease.incarnation
        answer = await self.engine.claim(name, 0 if record is None else record.fence, marker)
        if not isinstance(answer, Granted):
            if answer.owner.node == self.node:
                self.unsettled.add(name)
            return
        try:
            is_read = await self._rooms.owned(name, answer)
        except EngineRefused as error:
            log.error("what the engine has of a room cannot be read", room=name, why=str(error))
            is_read = False
        if not is_read:
            await self.engine.release(name, answer.fence)
            return
        self.fences[name] = answer.fence
        if self.lease.incarnation != life:
            # The lease was lost meanwhile, so that another node may have claimed it, and it is not claimed again.
            log.info("a room was claimed by an earlier life of this node", room=name)
            self.drop(name)
            self._rooms.lost(name)
            return
        self.unsettled.discard(name)
        self._known.pop(name, None)
        log.info("room claimed", room=name, fence=answer.fence, before="" if record is None else record.node)

    def drop(self, name: str) -> None:
        """Take that this node does not own a room any more."""
        if self.fences.pop(name, None) is not None:
            self.unsettled.add(name)

    async def release(self, name: str, heir: str | None) -> None:
        """Give a room up, and notify the node that is to claim it, None = none is known."""
        fence = self.fences.pop(name, None)
        if fence is None:
            return
        self._moving.add(name)
        try:
            await self._rooms.leave(name)
            await self.engine.release(name, fence)
            log.info("room released", room=name, heir=heir)
            if heir is not None:
                self._rooms.wanted(heir, name)
        except EngineError as error:
            self.unsettled.add(name)
            log.warning("a room is not released", room=name, why=str(error))
        finally:
            self._moving.discard(name)

    async def release_all(self) -> None:
        """Give all rooms up, `MAX_CLAIMING` at a time."""
        limit = trio.CapacityLimiter(MAX_CLAIMING)

        async def release(name: str) -> None:
            async with limit:
                await self.release(name, self.table.better_node(name, self._clock()))

        async with trio.open_nursery() as nursery:
            for name in list(self.fences):
                nursery.start_soon(release, name)

    def _move(self) -> None:
        """Release rooms that have a better node, as many as may move now."""
        now = self._clock()
        nodes = self.table.settled(now, JOIN_DELAY_S)
        if self._nursery is None or self.is_leaving or nodes == self._placed_for or not self.may_answer():
            return
        moves = self._moves.next(self.fences, self.table, now)
        for room, heir in moves:
            self._nursery.start_soon(self.release, room, heir)
        if not moves and not self._moving:
            self._placed_for = nodes

    async def _find_work(self) -> None:
        """Claim the rooms placed here that have work and no live owner."""
        now = self._clock()
        if now < self._work_at or self.is_leaving or not self.lease.is_healthy(now):
            return
        self._work_at = now + WORK_S
        for name in (*self.always, *await self.engine.outbox_rooms(MAX_WITH_WORK)):
            # Who was known as the owner may have released it, and not reached this node.
            if name not in self.fences and self.table.placed_on(name, now) == self.node:
                self.find(name, lambda found: None)

    async def _settle(self) -> None:
        """Look up the rooms that this node does not own where the record names it."""
        for name in self.unsettled - self._moving - self.fences.keys():
            record = await self.engine.owner(name)
            if record is not None and record.node == self.node:
                self.find(name, lambda found: None)
            elif name not in self._claims:
                self.unsettled.discard(name)

    # ---- the lease

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the lease until cancelled; started once it holds."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                while not self.lease.incarnation:
                    await self._beat()
                    if not self.lease.incarnation:
                        await trio.sleep(BEAT_S)
                task_status.started()
                while True:
                    await trio.sleep(BEAT_S)
                    await self._beat()
            finally:
                self._nursery = None

    async def start_leaving(self) -> None:
        """Announce that this node takes no more rooms: they are placed on other nodes from now on."""
        self.is_leaving = True
        await self._beat()

    async def _beat(self) -> None:
        sent_at = self._clock()
        body = pack_body((1.0, self.is_leaving, self._address))
        birth: NodeBirth | None = None
        try:
            with trio.move_on_after(ANSWER_S) as answering:
                if self.lease.incarnation and await self.engine.beat(self.lease.incarnation, body):
                    self.lease.confirmed(sent_at, self._clock())
                else:
                    if self.lease.incarnation:
                        log.warning("the lease of this node was lost", rooms=len(self.fences))
                        self.lease.lost("")
                    birth = await self.engine.born(body)
            if answering.cancelled_caught:
                return
            if birth is not None:
                await self._begin_life(birth, body, sent_at)
            with trio.move_on_after(ANSWER_S):
                await self._look_at_nodes(self._clock())
                self._move()
                await self._find_work()
                await self._settle()
        except EngineError as error:
            log.info("no beat", why=str(error))

    async def _begin_life(self, birth: NodeBirth, body: bytes, sent_at: float) -> None:
        """Claim the rooms of the last life again, as a new incarnation.

        The lease begins when all have been claimed: until then this node answers nothing from memory. That may take
        longer than a lease, which is kept meanwhile. An error on the way leaves this node without an incarnation, and
        the next beat begins again.
        """
        self.table.found_data_set(birth.lineage_age_ms / 1000, self._clock())
        errors: list[EngineError] = []
        async with trio.open_nursery() as life:

            async def keep() -> None:
                nonlocal sent_at
                while True:
                    await trio.sleep(BEAT_S)
                    begun_at = self._clock()
                    try:
                        with trio.move_on_after(ANSWER_S) as answering:
                            is_kept = await self.engine.beat(birth.incarnation, body)
                    except EngineError:
                        continue
                    if answering.cancelled_caught:
                        continue
                    if not is_kept:
                        errors.append(EngineUnavailable("the lease was lost again"))
                        life.cancel_scope.cancel()
                    sent_at = begun_at

            life.start_soon(keep)
            async with trio.open_nursery() as claims:
                for name in list(self.fences):
                    claims.start_soon(self._claim_again, name, errors)
            life.cancel_scope.cancel()
        if errors:
            raise errors[0]
        self.lease.incarnation = birth.incarnation
        self.lease.confirmed(sent_at, self._clock())

    async def _claim_again(self, name: str, errors: list[EngineError]) -> None:
        """Claim a room with the fence that this node held. An owner's record that names this node is of a claim whose
        answer was lost: it was compared with the fence before, so no other node had the room between."""
        async with self._claiming:
            held = fence = self.fences.get(name)
            marker = LogItem(0, MARKER_KIND, self._at_ms(), pack_body((self.node,)))
            try:
                answer: Granted | Held | None = None
                while fence is not None:
                    answer = await self.engine.claim(name, fence, marker, floor_fence=fence)
                    is_own = isinstance(answer, Held) and answer.owner.node == self.node
                    fence = answer.owner.fence if isinstance(answer, Held) and is_own else None
                if held is not None and isinstance(answer, Held) and not answer.owner.fence:
                    # The engine knows nothing of the room: it has lost its data, and this node has them.
                    answer = await self.engine.claim(name, 0, marker._replace(body=AGAIN), floor_fence=held)
            except EngineError as error:
                errors.append(error)
                return
            if isinstance(answer, Granted):
                self.fences[name] = answer.fence
                if self._rooms.continued(name, answer):
                    return
                log.error("the engine has lost records of a room", room=name)
            if answer is not None:
                self.drop(name)
                self._rooms.lost(name)

    def _read(self, records: Sequence[NodeRecord], asked_at: float) -> None:
        peers, incarnations = [], {}
        for record in records:
            weight, is_leaving, _ = unpack_body(record.body)
            peers.append(Peer(record.node, record.incarnation, weight, is_leaving))
            incarnations[record.node] = record.incarnation
        self.table.read(peers, asked_at)
        before, self._incarnations = self._incarnations, incarnations
        for node, incarnation in before.items():
            if node != self.node and incarnations.get(node) != incarnation:
                log.warning("a node is gone", peer=node)
                self._known = {name: owner for name, owner in self._known.items() if owner != node}
                self._rooms.node_gone(node)

    def may_answer(self) -> bool:
        """Return whether this node may answer from memory: its lease holds."""
        return self.lease.is_valid(self._clock())
