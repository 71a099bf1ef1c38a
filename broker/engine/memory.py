"""The memory engine: several nodes of one process over one `MemoryData`, with links that tests cut and slow down."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from functools import partial
from heapq import heappop, heappush
from typing import Any, NamedTuple, TypeVar

import trio

from broker.engine.base import (
    AppendResult,
    ControlEntry,
    EngineLinkState,
    EngineListener,
    EngineStatus,
    EngineUnavailable,
    Fenced,
    Granted,
    Held,
    InboxEntry,
    InboxPushed,
    InboxState,
    KeyWrite,
    KnownKey,
    LinkAdded,
    LogItem,
    NodeBirth,
    NodeRecord,
    OutboxItem,
    OutcomeUnknown,
    OwnerRecord,
    RoomCheckpointRecord,
    SharedLink,
    StoredLogItem,
    StoredOutboxItem,
)
from broker.engine.dataset import MemoryData

__all__ = ["MemoryBus", "MemoryEngine", "MemoryFaults", "RequestFault"]

R = TypeVar("R")


class RequestFault(Enum):
    """What happens to one request."""

    NONE = "none"
    LOST = "lost"
    """It never arrives; its caller hears `OutcomeUnknown`."""
    ANSWER_LOST = "answer lost"
    """It is done; its caller hears `OutcomeUnknown`."""
    LATE = "late"
    """Its caller hears `OutcomeUnknown` first, and it is done `MemoryFaults.late_s` later."""


class MemoryFaults:
    """What goes wrong on the link of one node; without arguments nothing does.

    ``request``: asked for each request by the name of the method; ``delay_s``: asked for each request, how long it is
    under way; ``messages``: asked for each message to this node, the seconds after which it arrives, once for each
    ``yield``: none = it is lost, two = it arrives twice, and what takes longer is overtaken. Both must be
    deterministic where the test is to be.
    """

    def __init__(
        self,
        request: Callable[[str], RequestFault] = lambda name: RequestFault.NONE,
        delay_s: Callable[[str], float] = lambda name: 0.0,
        messages: Callable[[bytes], Iterable[float]] = lambda body: (0.0,),
        late_s: float = 5.0,
    ) -> None:
        self.request = request
        self.delay_s = delay_s
        self.messages = messages
        self.late_s = late_s


class Due(NamedTuple):
    """Something that arrives."""

    at: float
    number: int
    call: Callable[[], None]


class MemoryBus:
    """The data, and the nodes that are connected to it."""

    def __init__(self, data: MemoryData) -> None:
        self.data = data
        self.engines: list[MemoryEngine] = []
        """Those that run, in the order of their start."""


class MemoryEngine:
    """The engine of one node over shared data in this process. See `broker.engine.base.Engine`.

    ``faults`` may be replaced while it runs; `cut` and `mend` take the link down and up.
    """

    def __init__(self, bus: MemoryBus, node: str, faults: MemoryFaults | None = None) -> None:
        self._bus = bus
        self._node = node
        self.faults = faults or MemoryFaults()
        self._rooms: set[str] = set()
        """Rooms whose channels it is to subscribe to."""
        self._listener: EngineListener | None = None
        self._is_cut = False
        self._life = 0
        """Counts the times that the link went down: what was under way then has no answer."""
        self._due: list[Due] = []
        """A heap of what arrives, by time; at the same time in order."""
        self._numbers = 0
        self._arrives_at = 0.0
        """When the last request arrives: none overtakes another."""
        self._wake = trio.Event()

    @property
    def node(self) -> str:
        """Name of this node."""
        return self._node

    @property
    def status(self) -> EngineStatus:
        """State as it is known now."""
        return EngineStatus(self._is_up, "nothing survives the process", "the link is cut" if self._is_cut else "")

    async def run(
        self, listener: EngineListener, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Connect, and deliver messages until cancelled."""
        self._listener = listener
        self._bus.engines.append(self)
        try:
            if not self._is_cut:
                self._connected("")
            task_status.started()
            while True:
                await self._wait_due()
                while self._due and self._due[0].at <= trio.current_time():
                    heappop(self._due).call()
        finally:
            self._bus.engines.remove(self)
            self._listener = None
            self._life += 1
            for due in self._due:
                due.call()  # requests hear that their outcome is unknown
            self._due.clear()

    async def _wait_due(self) -> None:
        """Wait until the first call is due; a checkpoint."""
        await trio.lowlevel.checkpoint()
        self._wake = trio.Event()
        with trio.move_on_at(self._due[0].at if self._due else math.inf):
            await self._wake.wait()

    def _at(self, at: float, call: Callable[[], None]) -> None:
        """Call at a time of Trio's clock, from the task of `run`."""
        self._numbers += 1
        heappush(self._due, Due(at, self._numbers, call))
        self._wake.set()

    def cut(self) -> None:
        """Take the link down: requests raise `EngineUnavailable`, messages are lost. Requests under way are unknown."""
        if not self._is_cut:
            self._is_cut = True
            self._life += 1
            if self._listener is not None:
                self._listener.link_changed(EngineLinkState.DOWN, "the link is cut")

    def mend(self) -> None:
        """Take the link up again."""
        if self._is_cut:
            self._is_cut = False
            self._connected("mended")

    def _connected(self, reason: str) -> None:
        if self._listener is not None:
            self._listener.link_changed(EngineLinkState.UP, reason)
            self._listener.node_subscribed()
            for room in sorted(self._rooms):
                self._listener.room_subscribed(room)

    @property
    def _is_up(self) -> bool:
        return not self._is_cut and self._listener is not None

    async def _ask(self, step: Callable[..., R], *args: Any) -> R:  # Any: the arguments are those of the step
        """Do one step of the data as a request over the link: in the order of the calls, also where one is slow."""
        name = step.__name__
        fault = self.faults.request(name)
        if not self._is_up:
            await trio.lowlevel.checkpoint()
            raise EngineUnavailable("the link is cut")
        answered = trio.Event()
        results: list[R | Exception] = []
        life = self._life

        def arrive() -> None:
            if life != self._life or fault is RequestFault.LOST:
                results.append(OutcomeUnknown(f"no answer to {name}"))
            elif fault is RequestFault.LATE:
                self._at(trio.current_time() + self.faults.late_s, do_late)
                results.append(OutcomeUnknown(f"no answer to {name}"))
            else:
                try:
                    results.append(step(*args))
                except Exception as error:
                    results.append(error)
                if fault is RequestFault.ANSWER_LOST:
                    results[:] = [OutcomeUnknown(f"no answer to {name}")]
            answered.set()

        def do_late() -> None:
            with suppress(EngineUnavailable):
                step(*args)

        self._arrives_at = max(self._arrives_at, trio.current_time() + self.faults.delay_s(name))
        self._at(self._arrives_at, arrive)
        await answered.wait()
        result = results[0]
        if isinstance(result, Exception):
            raise result
        return result

    # ---- nodes

    async def born(self, body: bytes) -> NodeBirth:
        """See `Engine.born`."""
        return await self._ask(self._bus.data.born, self._node, body)

    async def beat(self, incarnation: str, body: bytes) -> bool:
        """See `Engine.beat`."""
        return await self._ask(self._bus.data.beat, self._node, incarnation, body)

    async def leave(self, incarnation: str) -> None:
        """See `Engine.leave`."""
        await self._ask(self._bus.data.leave, self._node, incarnation)

    async def nodes(self) -> tuple[NodeRecord, ...]:
        """See `Engine.nodes`."""
        return await self._ask(self._bus.data.nodes)

    # ---- ownership

    async def owner(self, room: str) -> OwnerRecord | None:
        """See `Engine.owner`."""
        return await self._ask(self._bus.data.owner, room)

    async def claim(
        self, room: str, seen_fence: int, marker: LogItem, *, floor_fence: int = 0, floor_offset: int = 0
    ) -> Granted | Held:
        """See `Engine.claim`."""
        return await self._ask(self._bus.data.claim, self._node, room, seen_fence, marker, floor_fence, floor_offset)

    async def release(self, room: str, fence: int) -> Fenced | None:
        """See `Engine.release`."""
        return await self._ask(self._bus.data.release, self._node, room, fence)

    async def note(self, room: str, fence: int, note: bytes) -> Fenced | None:
        """See `Engine.note`."""
        return await self._ask(self._bus.data.note, self._node, room, fence, note)

    # ---- logs

    async def append(
        self,
        room: str,
        fence: int,
        last_offset: int,
        last_fact: int,
        items: Sequence[LogItem],
        outbox: Sequence[OutboxItem] = (),
        keys: Sequence[KeyWrite] = (),
        *,
        ends: bool = False,
    ) -> AppendResult:
        """See `Engine.append`."""
        return await self._ask(
            self._bus.data.append, self._node, room, fence, last_offset, last_fact, items, outbox, keys, ends
        )

    async def read_log(self, room: str, fence: int, offset: int, count: int) -> Sequence[StoredLogItem]:
        """See `Engine.read_log`."""
        return await self._ask(self._bus.data.read_log, room, fence, offset, count)

    async def read_newest(self, room: str, count: int) -> Sequence[StoredLogItem]:
        """See `Engine.read_newest`."""
        return await self._ask(self._bus.data.read_newest, room, count)

    async def read_facts(self, room: str, number: int, count: int) -> Sequence[StoredLogItem]:
        """See `Engine.read_facts`."""
        return await self._ask(self._bus.data.read_facts, room, number, count)

    async def resume(self, room: str, fence: int, offset: int, count: int) -> Sequence[StoredLogItem] | None:
        """See `Engine.resume`."""
        return await self._ask(self._bus.data.resume, room, fence, offset, count)

    async def known_keys(self, room: str, digests: Sequence[bytes]) -> Mapping[bytes, KnownKey]:
        """See `Engine.known_keys`."""
        return await self._ask(self._bus.data.known_keys, room, digests)

    async def write_checkpoint(self, room: str, checkpoint: RoomCheckpointRecord) -> Fenced | None:
        """See `Engine.write_checkpoint`."""
        return await self._ask(self._bus.data.write_checkpoint, self._node, room, checkpoint)

    async def remove_facts(self, room: str, fence: int, numbers: Sequence[int]) -> Fenced | None:
        """See `Engine.remove_facts`."""
        return await self._ask(self._bus.data.remove_facts, self._node, room, fence, numbers)

    async def read_checkpoint(self, room: str) -> RoomCheckpointRecord | None:
        """See `Engine.read_checkpoint`."""
        return await self._ask(self._bus.data.read_checkpoint, room)

    # ---- reports

    async def outbox_rooms(self, count: int) -> tuple[str, ...]:
        """See `Engine.outbox_rooms`."""
        return await self._ask(self._bus.data.outbox_rooms, count)

    async def read_outbox(self, room: str, after: str, count: int) -> Sequence[StoredOutboxItem]:
        """See `Engine.read_outbox`."""
        return await self._ask(self._bus.data.read_outbox, room, after, count)

    async def remove_outbox(self, room: str, fence: int, ids: Sequence[str]) -> Fenced | None:
        """See `Engine.remove_outbox`."""
        return await self._ask(self._bus.data.remove_outbox, self._node, room, fence, ids)

    async def bind_order(self, digest: bytes, room: str, ttl_ms: int) -> str:
        """See `Engine.bind_order`."""
        return await self._ask(self._bus.data.bind_order, digest, room, ttl_ms)

    # ---- channels

    def publish_room(self, room: str, body: bytes) -> bool:
        """See `Engine.publish_room`."""
        if not self._is_up:
            return False
        for engine in self._bus.engines:
            if room in engine._rooms:
                engine._send(lambda listener: listener.room_message(room, body), body)
        return True

    def publish_node(self, node: str, body: bytes) -> bool:
        """See `Engine.publish_node`."""
        if not self._is_up:
            return False
        for engine in self._bus.engines:
            if engine.node == node:
                engine._send(lambda listener: listener.node_message(body), body)
        return True

    def subscribe_room(self, room: str) -> None:
        """See `Engine.subscribe_room`."""
        if room not in self._rooms:
            self._rooms.add(room)
            if self._is_up:
                self._at(trio.current_time(), partial(self._subscribed, room))

    def unsubscribe_room(self, room: str) -> None:
        """See `Engine.unsubscribe_room`."""
        self._rooms.discard(room)

    def _subscribed(self, room: str) -> None:
        if self._is_up and room in self._rooms and self._listener is not None:
            self._listener.room_subscribed(room)

    def _send(self, deliver: Callable[[EngineListener], None], body: bytes) -> None:
        """Send a message on its way to this node."""
        if self._is_up:
            life = self._life

            def arrive() -> None:
                if life == self._life and self._listener is not None:
                    deliver(self._listener)

            for delay_s in self.faults.messages(body):
                self._at(trio.current_time() + delay_s, arrive)

    # ---- control stream

    async def post_control(self, body: bytes) -> str:
        """See `Engine.post_control`."""
        return await self._ask(self._bus.data.post_control, body)

    async def read_control(self, after: str, count: int) -> Sequence[ControlEntry]:
        """See `Engine.read_control`."""
        return await self._ask(self._bus.data.read_control, after, count)

    async def last_control(self) -> str:
        """See `Engine.last_control`."""
        return await self._ask(self._bus.data.last_control)

    # ---- users

    async def push_inbox(self, user: str, entries: Sequence[InboxEntry], cap: int, now_ms: int) -> InboxPushed:
        """See `Engine.push_inbox`."""
        return await self._ask(self._bus.data.push_inbox, user, entries, cap, now_ms)

    async def ack_inbox(self, user: str, number: int) -> int:
        """See `Engine.ack_inbox`."""
        return await self._ask(self._bus.data.ack_inbox, user, number)

    async def read_inbox(self, user: str, after: int, count: int) -> Sequence[InboxEntry]:
        """See `Engine.read_inbox`."""
        return await self._ask(self._bus.data.read_inbox, user, after, count)

    async def inbox_state(self, user: str) -> InboxState:
        """See `Engine.inbox_state`."""
        return await self._ask(self._bus.data.inbox_state, user)

    async def add_link(
        self, user: str, link: SharedLink, live: Sequence[str], limit: int, *, displace: bool
    ) -> LinkAdded:
        """See `Engine.add_link`."""
        return await self._ask(self._bus.data.add_link, user, link, live, limit, displace)

    async def remove_link(self, user: str, connection: str) -> None:
        """See `Engine.remove_link`."""
        await self._ask(self._bus.data.remove_link, user, connection)

    async def links(self, user: str) -> tuple[SharedLink, ...]:
        """See `Engine.links`."""
        return await self._ask(self._bus.data.links, user)
