"""This node among others that share an engine: where requests for rooms go, and what other nodes ask of this one.

A room that this node owns runs here as with one process, and its output is mirrored on the room's channel while other
nodes have viewers in it. A room that another node owns is an `EdgeRoom` here; requests of its viewers are relayed. When
an owner is gone, the next one opens the room, and the links of all nodes go on in it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import structlog
import trio

from broker.core.tenants.names import plain_name
from broker.engine.base import Engine, EngineError, EngineLinkState, Granted
from broker.rooms.broker_log import BROKER_LOG
from broker.rooms.edge_room import EdgeRoom
from broker.rooms.fanout import FanOut
from broker.rooms.hub import Hub
from broker.rooms.mirror import RoomMirror
from broker.rooms.node_messages import (
    MAX_RECORDS,
    Attach,
    Attached,
    CallAsked,
    CallReturned,
    EventsAsked,
    EventsFound,
    JoinMoved,
    LinkAnswers,
    LinkBytes,
    LinkClosed,
    LinkDisplaced,
    LinkEnded,
    LinkGranted,
    LinkOpened,
    LogFollowed,
    Moved,
    NodeMessage,
    Submitted,
    TenantsUsed,
    UsersAsked,
    UsersReported,
    UsersShown,
    Wanted,
    read_batch,
    read_output,
)
from broker.rooms.node_sender import NodeSender
from broker.rooms.owners import RoomOwners
from broker.rooms.room import Room
from broker.sessions.context import SessionContext
from broker.sessions.joining import PendingJoin
from broker.sessions.link import SessionLink
from broker.sessions.log_link import LogLink
from broker.sessions.node_contracts import CallsOfNodes, RoomLogs
from broker.sessions.relays import LinkRelays, Relay
from broker.sessions.remote_session import RemoteSession
from broker.sessions.remote_sessions import RemoteSessions
from broker.sessions.requests import senders_of
from broker.sessions.room_member import RoomMember, notify_missed
from broker.sessions.tenant_reports import TenantReports
from broker.sessions.user_links import UserLinks
from protocol.codes import ErrorCode, LeaveReason, Outcome
from protocol.frames import pack_body
from protocol.messages import AckResult, Join, Post, Resume

__all__ = ["Nodes"]

log = structlog.get_logger("roomcast.nodes")

RETRY_MS = 1000
NO_OWNER = "the room has no owner now"
WATCH_S = 1.0
"""Time between two looks at the rooms of other nodes: viewers, missing events."""
STAY_S = 5.0
"""How long a room of another node without viewers is followed on."""


class Nodes:
    """The part of this node; its `run` is one task. An `EngineListener`, and the `RoomsOfNode` of its `RoomOwners`."""

    def __init__(
        self,
        engine: Engine,
        hub: Hub,
        context: SessionContext,
        fanout: FanOut,
        *,
        clock: Callable[[], float],
        logs: RoomLogs | None = None,
    ) -> None:
        self.engine = engine
        self.node = engine.node
        self.owners = RoomOwners(engine, self, clock=clock, at_ms=context.unix_ms)
        self.calls: CallsOfNodes | None = None
        self.user_links = UserLinks(engine, self.owners, context.users, context.unix_ms, self.send, self.start)
        self.log: LogLink | None = None
        """To the broker's log, where something is kept."""
        self.edge_rooms: dict[str, EdgeRoom] = {}
        """Rooms of other nodes that are followed here."""
        self._hub = hub
        self._context = context
        self._fanout = fanout
        self._clock = clock
        self._logs = logs
        self._relays: dict[int, Relay] = {}
        self._last_relay = 0
        self._remote = RemoteSessions(context, self.owners, self.send)
        self._sender = NodeSender(engine, lambda: self._stream)
        self.tenants = TenantReports(hub.tenants, self.others_alive, self.send, clock)
        self._heard: dict[str, tuple[str, int]] = {}
        """Incarnation and number of the last batch of each node."""
        self._empty_since: dict[str, float] = {}
        self._finding: set[str] = set()
        """Rooms with viewers here that are looked up."""
        self._to_find: set[str] = set()
        """Those whose owner was not found: they are looked up again soon."""
        self._stream: str = ""
        self._nursery: trio.Nursery | None = None
        hub.may_open = lambda name: name in self.owners.fences
        hub.on_opened = self.opened

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take part until cancelled. EngineRefused if the engine will not have this node."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await nursery.start(self.engine.run, self)
                await nursery.start(self.owners.run)
                self._stream = self.owners.lease.incarnation
                if self.log is not None:
                    await self.log.begin(self._stream)
                    nursery.start_soon(self.log.run)
                nursery.start_soon(self._sender.run)
                nursery.start_soon(self._watch)
                nursery.start_soon(self.tenants.run)
                log.info("node serving", node=self.node)
                task_status.started()
        finally:
            self._nursery = None

    def start(self, work: Callable[..., Awaitable[None]], *args: object) -> None:
        """Start a task of this node; it must not raise."""
        if self._nursery is not None:
            self._nursery.start_soon(work, *args)

    def others_alive(self) -> list[str]:
        """Return the other nodes that are alive."""
        return [node for node in self.owners.table.peers if node != self.node]

    @property
    def is_stale(self) -> bool:
        """Whether this node does not know who is banned or whose token is revoked, and admits no user."""
        return self.log is not None and self.log.is_stale

    async def drain(self) -> None:
        """Give all rooms up, so that other nodes take them: this node is about to stop."""
        await self.owners.start_leaving()
        await self.owners.release_all()
        self._sender.flush()
        with suppress(EngineError):
            await self.engine.nodes()  # answered behind it: the next owners are notified before this node ends

    # ---- requests of viewers here

    def join(self, link: SessionLink, request: Join | Resume, sequence: int, plain: Join | Resume) -> None:
        """Answer a JOIN or RESUME: here, or over a relay. ``plain``: as the client has sent it."""
        name = request.room_name
        owner = self.owners.owner_of(name)
        if owner == self.node or link.grant is None or link.grant.room_grant(name) is None:
            PendingJoin(link, self._context, request, sequence).proceed()
            return
        if link.is_remote:  # this node is about to own the room, or does not any more
            self.owners.find(name, partial(self._on_owned, link, request, sequence))
            return
        relays = self._relays_of(link)
        if len(link.memberships) + len(link.pending_joins) >= self._context.config.rooms_per_connection:
            most = self._context.config.rooms_per_connection
            link.refuse(ErrorCode.TOO_MANY_ROOMS, f"at most {most} rooms a link", sequence, "room_name")
        elif not relays.wait(name):
            link.refuse(ErrorCode.ALREADY_JOINED, "this link is in that room", sequence, "room_name")
        elif owner is None:
            self.owners.find(name, partial(self._on_found, link, request, sequence, plain))
        else:
            edge = self.edge_room(name, owner)
            if edge.is_subscribed:
                relays.join(owner, request, plain, sequence)
            else:
                edge.when_subscribed.append(partial(self._on_found, link, request, sequence, plain, True))

    def _on_found(
        self, link: SessionLink, request: Join | Resume, sequence: int, plain: Join | Resume, found: bool
    ) -> None:
        if not link.is_open:
            return
        self._context.poller.refresh_clock()
        self._relays_of(link).stop_waiting(request.room_name)
        with link.replying():
            if found:
                self.join(link, request, sequence, plain)
            else:
                link.refuse(ErrorCode.OVERLOADED, NO_OWNER, sequence, "room_name", RETRY_MS)

    def post_to(self, link: SessionLink, name: str, sequence: int, post: Post) -> bool:
        """Give a post of a link that has not joined its room to the owner; False: that is this node."""
        owner = self.owners.owner_of(name)
        if owner == self.node:
            return False
        if isinstance(link, RemoteSession):  # its node will know the owner when it comes again
            self.owners.look_again(name)
            link.on_moved(name)
            link.reply_acks(0, [AckResult(sequence, Outcome.UNAVAILABLE, RETRY_MS)])
        elif owner is None:
            self.owners.find(name, partial(self._on_post_found, link, name, sequence, post))
        else:
            self._relays_of(link).post_to(owner, sequence, post)
        return True

    def _on_post_found(self, link: SessionLink, name: str, sequence: int, post: Post, found: bool) -> None:
        if not link.is_open or link.grant is None:
            return
        self._context.poller.refresh_clock()
        with link.replying():
            if not found:
                link.reply_acks(0, [AckResult(sequence, Outcome.UNAVAILABLE, RETRY_MS)])
            elif not self.post_to(link, name, sequence, post):
                senders_of(link).post(sequence, post, link.guard)

    def _on_owned(self, link: SessionLink, request: Join | Resume, sequence: int, found: bool) -> None:
        if link.is_open:
            self._context.poller.refresh_clock()
            with link.replying():
                if found:
                    PendingJoin(link, self._context, request, sequence).proceed()
                else:
                    link.refuse(ErrorCode.OVERLOADED, NO_OWNER, sequence, "room_name", RETRY_MS)

    def join_elsewhere(self, link: SessionLink, request: Join | Resume, sequence: int) -> bool:
        """Have a JOIN or RESUME answered by the node that owns its room now; False: that is this node."""
        if request.room_name in self.owners.fences:
            return False
        if isinstance(link, RemoteSession):
            link.on_moved(request.room_name)
        else:
            self.retry_join(link, request, sequence)
        return True

    def retry_join(self, link: SessionLink, request: Join | Resume, sequence: int) -> None:
        """Find out who owns a room, and join it there."""
        self.join(link, request, sequence, request._replace(room_name=plain_name(request.room_name)))

    def _relays_of(self, link: SessionLink) -> LinkRelays:
        relays = link.parts.relays
        if not isinstance(relays, LinkRelays):
            relays = link.own_parts().relays = LinkRelays(link, self)
        return relays

    def forward(self, room: EdgeRoom, member: Any, sequence: int, post: Post) -> None:
        """Give a post of a member to the owner of its room."""
        self._relays_of(member.session).post(room, sequence, post)

    def left(self, room: EdgeRoom, member: Any) -> None:
        """Notify the owner of a room that a member has left."""
        self._relays_of(member.session).leave(room)

    def next_relay(self, relay: Relay) -> int:
        """Return the number of a new relay."""
        self._last_relay += 1
        self._relays[self._last_relay] = relay
        return self._last_relay

    def forget_relay(self, relay: Relay) -> None:
        """Take that a relay has ended."""
        self._relays.pop(relay.id, None)

    def edge_room(self, name: str, owner: str, number: int = 0) -> EdgeRoom:
        """Return the room of another node, which is followed from now on. ``number``: in frames here, 0 = a new one."""
        room = self.edge_rooms.get(name)
        if room is None:
            hub, context = self._hub, self._context
            room = EdgeRoom(
                name, number or hub.next_number(), self._fanout, context.results, clock=self._clock,
                unix_ms=context.unix_ms, event_ids=hub.event_ids, measures=hub.measures, ask=self._ask_events,
                forward=self.forward, left=self.left, missed=notify_missed, mask=hub.mask_of(name),
            )  # fmt: skip
            self.edge_rooms[name] = room
            self.engine.subscribe_room(name)
        room.owner = owner
        return room

    def _ask_events(self, room: EdgeRoom) -> None:
        self.send(room.owner, EventsAsked(room.name, room.state.epoch, room.offset))

    # ---- rooms of this node

    async def owned(self, name: str, granted: Granted) -> bool:
        """Read what the log has of a room that this node owns now, and take the viewers here over."""
        if self._logs is not None and not await self._logs.open(name, granted):
            return False
        self.owners.fences[name] = granted.fence
        if self.log is not None:
            self.log.owned(name)
        edge = self.edge_rooms.pop(name, None)
        if edge is not None:
            self.engine.unsubscribe_room(name)
            self._take_over(edge)
        if self._logs is not None and self._logs.is_busy(name):
            self._hub.open(name, goes_on=True)
        return True

    def _take_over(self, edge: EdgeRoom) -> None:
        """Make the viewers of a room of another node here members of the room that this node owns now."""
        members = edge.members_here()
        room = self._hub.open(edge.name, number=edge.number, goes_on=True) if members else None
        if room is not None and not isinstance(room, Room):
            edge.give_up("the room has another owner")
            return
        now = self._context.poller.refresh_clock()
        for member in members:
            assert isinstance(member, RoomMember)
            assert room is not None
            link: Any = member.session
            edge.members.remove(member)
            joined_at_ms = member.joined_at_ms
            member.room = room
            room.enter(member, now, resumes=True)
            member.joined_at_ms = joined_at_ms
            relay = self._relays_of(link).lost(edge.owner)
            if relay is not None:
                relay.fail()
        if room is not None and members:
            events = None if edge.state.epoch != room.state.epoch else room.missing(edge.state.epoch, edge.offset, now)
            for member in members:
                if events is None:
                    room.remove(member, LeaveReason.ROOM_CRASHED, "the room has another owner", now)
                    continue
                for event in room.views.events_for(member, events):
                    member.session.send(event.event, room.number, event.offset, event.lane)  # type: ignore[attr-defined]

    def continued(self, name: str, granted: Granted) -> bool:
        """Go on with a room that no other node had while this one was lost."""
        return self._logs is None or self._logs.go_on(name, granted)

    def lost(self, name: str) -> None:
        """Give up a room that another node owns now."""
        self.owners.drop(name)
        self._leave_room(name)

    async def leave(self, name: str) -> None:
        """Give up a room that is to be released, once what waits to be written is written."""
        if self._logs is not None:
            await self._logs.settle(name)
        self._leave_room(name)

    def _leave_room(self, name: str) -> None:
        """Follow a room as one of another node from now on, with the viewers here."""
        room = self._hub.find(name)
        if self._logs is not None:
            self._logs.close(name)
        if self.log is not None:
            self.log.left(name)
        if room is None:
            return
        members = room.members.local()
        for member in room.members.all():
            room.members.remove(member)
        self._remote.leave(room)
        edge = self.edge_room(name, "", room.number)
        edge.state.epoch, edge.offset = room.state.epoch, room.state.last_offset
        for member in members:
            assert isinstance(member, RoomMember)
            member.room = edge
            edge.enter(member, member.joined_at_ms)
        self._hub.give_up(room)
        if members:
            self._find_again(name)

    # ---- other nodes

    def node_gone(self, node: str) -> None:
        """Take that a node, or an earlier life of it, is gone."""
        self._remote.drop(node)
        self._drop_relays(node)
        if self.log is not None:
            self.log.node_gone(node)
        self._hub.tenants.forget_node(node)
        if self.calls is not None:
            self.calls.node_gone(node)

    def _drop_relays(self, node: str) -> None:
        """Go on without the relays to a node: the rooms that it owned are looked up again."""
        self._sender.clear(node)
        relays = [relay for relay in self._relays.values() if relay.node == node]
        for relay in relays:
            relay.relays.lost(node)
            relay.fail()
        for room in list(self.edge_rooms.values()):
            if room.owner == node:
                self.owners.forget(room.name)
                room.owner = ""
                self._find_again(room.name)

    def _find_again(self, name: str) -> None:
        if name not in self._finding:
            self._finding.add(name)
            self.owners.find(name, partial(self._on_found_again, name))

    def _on_found_again(self, name: str, found: bool) -> None:
        """Go on at the owner that a room has now."""
        self._finding.discard(name)
        room, owner = self.edge_rooms.get(name), self.owners.owner_of(name)
        if room is None or owner == self.node or not len(room.members):
            return
        if not found or owner is None:
            self._to_find.add(name)
            return
        room.owner = owner
        for member in room.members_here():
            assert isinstance(member, RoomMember)
            link: Any = member.session
            self._relays_of(link).to(owner).attach(room, member)

    def wanted(self, node: str, name: str) -> None:
        """Notify a node that a room placed on it is wanted."""
        self.send(node, Wanted(name))

    def send(self, node: str, record: NodeMessage) -> None:
        """Send a record to another node: with others, soon."""
        self._sender.send(node, record)

    # ---- what the engine brings

    def link_changed(self, state: EngineLinkState, reason: str) -> None:
        """Take that the link to the engine is up or down."""
        log.debug("engine link", state=state.value, why=reason)

    def room_subscribed(self, room: str) -> None:
        """Take that the channel of a room is subscribed to, perhaps anew."""
        edge = self.edge_rooms.get(room)
        if edge is not None:
            edge.is_subscribed = True
            waiting, edge.when_subscribed = edge.when_subscribed, []
            for call in waiting:
                call()
            if edge.offset >= 0 and edge.owner:
                self._ask_events(edge)

    def room_message(self, room: str, body: bytes) -> None:
        """Write what the owner of a room has published to its viewers here."""
        edge = self.edge_rooms.get(room)
        if room == BROKER_LOG and self.log is not None:
            self.log.hint()
        elif edge is not None:
            try:
                edge.take(read_output(body))
            except Exception:
                log.exception("a message of a room's owner cannot be used", room=room)
                edge.give_up("the room cannot be followed")

    def node_subscribed(self) -> None:
        """Take that messages to this node come now."""

    def node_message(self, body: bytes) -> None:
        """Take a batch of another node."""
        try:
            node, incarnation, number, records = read_batch(body)
            before = self._heard.get(node)
            self._heard[node] = incarnation, number
            if before is not None and before != (incarnation, number - 1):
                log.warning("records of a node are lost", peer=node)
                self._remote.drop(node)
                self.send(node, Moved(""))
                self._drop_relays(node)
            with self._context.results:
                for record in records:
                    self._take(node, record)
        except Exception:
            log.exception("a message of a node cannot be used")

    def _take(self, node: str, record: NodeMessage) -> None:
        match record:
            case LinkOpened() | LinkBytes() | LinkGranted() | LinkClosed() | Attach():
                self._remote.take(node, record)
            case LinkAnswers(link, data) if (relay := self._relay(node, link)) is not None:
                relay.take(data)
            case JoinMoved(link, name) if (relay := self._relay(node, link)) is not None:
                self.owners.forget(name)
                relay.join_again(name)
            case LinkEnded(link, code, reason) if (relay := self._relay(node, link)) is not None:
                self._ended(relay, code, reason)
            case Attached(link, name, number, epoch, offset) if self._relay(node, link) is not None:
                if (edge := self.edge_rooms.get(name)) is not None:
                    edge.follow(node, number, epoch, offset)
            case EventsAsked(name, epoch, offset):
                self.send(node, self._events(name, epoch, offset))
            case EventsFound() if (edge := self.edge_rooms.get(record.room)) is not None:
                edge.found(record)
            case CallAsked() if self.calls is not None:
                self.calls.asked(node, record)
            case CallReturned() if self.calls is not None:
                self.calls.answered(record)
            case Moved(name):
                if name:
                    self._moved(name)
                else:
                    self._drop_relays(node)
            case Submitted() | LogFollowed() | UsersReported() | UsersAsked() | UsersShown() if self.log is not None:
                self.log.take(node, record)
            case TenantsUsed():
                self.tenants.take(node, record)
            case LinkDisplaced(name):
                self.user_links.displaced(name)
            case Wanted(name):
                self.owners.look_again(name)  # its owner may have released it for this node

    def _relay(self, node: str, link: int) -> Relay | None:
        """Return the relay to a node of this number; None: it has ended."""
        relay = self._relays.get(link)
        return None if relay is None or relay.node != node else relay

    def _moved(self, name: str) -> None:
        self.owners.forget(name)
        edge = self.edge_rooms.get(name)
        if edge is not None:
            edge.owner = ""
            self._find_again(name)

    def _ended(self, relay: Relay, code: int, reason: str) -> None:
        """Take that the owner has ended a relayed link: for its client, or for the rooms that it gives up."""
        if code:
            relay.link.close(code, reason)
            return
        relay.relays.lost(relay.node)
        relay.fail()
        for member in relay.link.memberships:
            room = member.room
            if isinstance(room, EdgeRoom) and room.owner == relay.node:
                self._moved(room.name)

    def opened(self, room: Room) -> None:
        """Mirror a room of this node from its first viewer at another node on."""
        mirror = RoomMirror(self.owners.fences.get(room.name, 0), partial(self.engine.publish_room, room.name))

        def make() -> RoomMirror:
            mirror.offset = room.state.last_offset
            return mirror

        room.members.make_mirror = make

    def _events(self, name: str, epoch: int, offset: int) -> EventsFound:
        room = self._hub.find(name)
        events = None
        if room is not None and room.state.epoch == epoch and name in self.owners.fences:
            events = room.missing(epoch, offset, self._clock())
        if events is None:
            return EventsFound(name, epoch, offset, None)
        packed = tuple((int(each.lane), each.offset, pack_body(each.event)) for each in events[:MAX_RECORDS])
        return EventsFound(name, epoch, offset, packed)

    async def _watch(self) -> None:
        """Ask again for what is missing, and stop following rooms without viewers."""
        while True:
            await trio.sleep(WATCH_S)
            now = self._clock()
            for mirrored in self._hub:
                if not mirrored.members.remote:
                    mirrored.members.mirror = None
            await self._note_idle()
            to_find, self._to_find = self._to_find, set()
            for name in to_find:
                self._find_again(name)
            for name, room in list(self.edge_rooms.items()):
                room.ask_again()
                if len(room.members) or room.when_subscribed:
                    self._empty_since.pop(name, None)
                elif now - self._empty_since.setdefault(name, now) >= STAY_S:
                    del self.edge_rooms[name], self._empty_since[name]
                    self.engine.unsubscribe_room(name)

    async def _note_idle(self) -> None:
        """Let the engine know of rooms whose activities have nothing to do any more."""
        logs = self._logs
        for name in list(self.owners.fences) if logs is not None else ():
            if logs is None or not logs.has_work(name):
                continue
            room = self._hub.find(name)
            activities = None if room is None else room.state.activities.activities
            if logs.is_busy(name) if room is None else activities is not None and activities.has_something_to_do:
                continue
            try:
                await logs.note_idle(name)
            except EngineError as error:
                log.info("a room's work cannot be noted now", room=name, why=str(error))
