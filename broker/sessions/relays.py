"""Relayed links: requests of viewers here for rooms that other nodes own, and the answers.

A link has one relay for each node that owns a room which it has joined. The owner keeps a session for it
(`broker.sessions.remote_session`), which admits, answers and refuses; what it writes for this viewer alone comes back
over the relay, and what the room publishes to all over the room's channel (`broker.rooms.edge_room`).

A post has one answer. Where the owner is gone or the answer is lost, chat has expired, and what may be sent again with
its key is refused for now.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

import structlog

from broker.auth.grants import Grant
from broker.rooms.edge_room import EdgeRoom
from broker.rooms.encoding import TIERS
from broker.rooms.node_messages import Attach, LinkBytes, LinkClosed, LinkGranted, LinkOpened, NodeMessage, pack_grant
from broker.sessions.link import SessionLink
from broker.sessions.room_member import RoomMember
from protocol.codes import ErrorCode, Lane, LeaveReason, MessageType, Outcome
from protocol.connection import NEED_DATA, Connection, Frame, encode
from protocol.messages import (
    Ack,
    AckReason,
    AckResult,
    ErrorReply,
    GoAway,
    Join,
    Joined,
    Leave,
    Left,
    Message,
    Post,
    Resume,
    Resumed,
    Side,
)

__all__ = ["LinkRelays", "Relay", "RelayNode"]

log = structlog.get_logger("roomcast.relays")

RETRY_MS = 1000
"""When to send again what has no answer from the owner of its room."""
MAX_RELAYED_POSTS = 1024
"""Posts of one link that wait for an owner."""
_CHAT = frozenset({MessageType.DANMAKU, MessageType.EMOTE, MessageType.LIKE})


class RelayNode(Protocol):
    """What relays need of this node."""

    def send(self, node: str, record: NodeMessage) -> None:
        """Send a record to another node."""

    def edge_room(self, name: str, owner: str) -> EdgeRoom:
        """Return the room of another node, which is followed from now on."""

    def retry_join(self, link: SessionLink, request: Join | Resume, sequence: int) -> None:
        """Find out who owns a room, and join it there."""

    def forget_relay(self, relay: Relay) -> None:
        """Take that a relay has ended."""

    def next_relay(self, relay: Relay) -> int:
        """Return the number of a new relay."""


class Relay:
    """One link's way to one node."""

    def __init__(self, relays: LinkRelays, node: str) -> None:
        self.node = node
        self.relays = relays
        self.link = relays.link
        self.joins: dict[int, Join | Resume] = {}
        """JOINs and RESUMEs without an answer, by sequence."""
        self.posts: Counter[tuple[EdgeRoom | None, int, bool]] = Counter()
        """Posts without an answer: room (None: one that is not joined), sequence, and whether it is chat."""
        self._entered: list[tuple[EdgeRoom, RoomMember, int]] = []
        """Members of frames that are being taken, with the offset at which the owner has admitted them."""
        self._connection = Connection.opened(Side.CLIENT)
        self._owner = relays.owner
        self.id = self._owner.next_relay(self)
        link = self.link
        assert link.grant is not None, "requests for rooms come after AUTH"
        self._owner.send(node, LinkOpened(self.id, pack_grant(link.grant), link.address, link.parts.is_app))

    def send(self, message: Message, room: int, sequence: int) -> None:
        """Send a request of the client to the owner."""
        self._owner.send(self.node, LinkBytes(self.id, encode(message, room, sequence, Lane.CONTROL)))

    def attach(self, room: EdgeRoom, member: RoomMember) -> None:
        """Go on in a room at this node, which is its new owner."""
        tier = TIERS[member.variant % len(TIERS)]
        self._owner.send(self.node, Attach(self.id, room.name, int(tier), member.joined_at_ms))

    def take(self, data: bytes) -> None:
        """Take frames of the owner for this viewer."""
        link = self.link
        if not link.is_open:
            return
        self._connection.receive_data(data)
        with link.replying():
            while True:
                event = self._connection.next_event()
                if event is NEED_DATA:
                    break
                assert isinstance(event, Frame), "nodes send what they have checked"
                self._take(event)
            for entered in self._entered:
                self._send_events_since(*entered)
            self._entered.clear()

    def _send_events_since(self, room: EdgeRoom, member: RoomMember, offset: int) -> None:
        """Send a member the events that were written here after the owner had admitted it and before that was known:
        the channel of the room may be quicker than the answer."""
        if not any(each is member for each in self.link.memberships):
            return
        events = room.since(member, offset)
        if events is None:
            room.remove(member, LeaveReason.ROOM_CRASHED, "too many events have come before the room was joined")
            return
        for event in events:
            self.link.send(event.message, room.number, event.sequence, event.lane)

    def _take(self, frame: Frame) -> None:
        message, link = frame.message, self.link
        if isinstance(message, (Joined, Resumed)):
            self._joined(message, frame.room, frame.sequence)
            return
        if isinstance(message, ErrorReply) and not frame.room and frame.sequence in self.joins:
            request = self.joins.pop(frame.sequence)
            self.relays.stop_waiting(request.room_name)
            link.refuse(ErrorCode(message.code), message.message, frame.sequence, message.field, message.retry_after_ms)
            return
        if isinstance(message, GoAway):
            link.close(message.code, message.reason, message.retry_after_ms, message.jitter_ms)
            return
        room = self._room(frame.room)
        if frame.room and room is None:
            return  # the client has left it
        if isinstance(message, Ack):
            self._acked(room, message)
        elif room is None:
            link.send(message, 0, frame.sequence, frame.lane)
        elif isinstance(message, Left):
            self._left(room, message)
        else:
            if isinstance(message, ErrorReply):
                self._answered(room, frame.sequence)
            link.send(message, room.number, frame.sequence, frame.lane)

    def _room(self, owner_number: int) -> EdgeRoom | None:
        for member in self.link.memberships:
            room = member.room
            if isinstance(room, EdgeRoom) and room.owner == self.node and room.owner_number == owner_number:
                return room
        return None

    def _joined(self, message: Joined | Resumed, number: int, sequence: int) -> None:
        """Make the link a member here: the owner has made it one there."""
        request = self.joins.pop(sequence, None)
        if request is None:
            return
        link = self.link
        snapshot = message.snapshot if isinstance(message, Resumed) else message
        self.relays.stop_waiting(request.room_name)
        room_grant = None if link.grant is None else link.grant.room_grant(request.room_name)
        if room_grant is None:
            self.send(Leave(), number, 0)
            link.refuse(ErrorCode.ROOM_NOT_GRANTED, "the token does not grant this room", sequence, "room_name")
            return
        room = self._owner.edge_room(request.room_name, self.node)
        room.follow(self.node, number, snapshot.epoch, snapshot.offset)
        member = link.new_member(room, room_grant, request.tier)
        link.memberships = (*link.memberships, member)
        room.enter(member, link.context.unix_ms())
        link.send(message, room.number, sequence)
        self._entered.append((room, member, snapshot.offset))

    def _acked(self, room: EdgeRoom | None, message: Ack) -> None:
        link, number = self.link, 0 if room is None else room.number
        for result in message.results:
            self._answered(room, result.sequence)
        if message.reasons:
            reasons = {reason.sequence: reason for reason in message.reasons}
            for result in message.results:
                reason = reasons.get(result.sequence, AckReason(result.sequence, ""))
                link.reply_with_reason(number, result, reason.text, reason.retry_after_ms)
        else:
            link.reply_acks(number, list(message.results), message.firsts)

    def _answered(self, room: EdgeRoom | None, sequence: int) -> None:
        for is_chat in (True, False):
            key = room, sequence, is_chat
            if key in self.posts:
                self.posts[key] -= 1
                if not self.posts[key]:
                    del self.posts[key]
                return

    def _left(self, room: EdgeRoom, message: Left) -> None:
        member = next((each for each in self.link.memberships if each.room is room), None)
        if member is not None and message.reason is not LeaveReason.REQUESTED:
            room.remove(member, message.reason, message.message)

    def fail(self) -> None:
        """Answer what the owner will not answer any more."""
        link, posts = self.link, self.posts
        self.posts = Counter()
        if not link.is_open:
            return
        with link.replying():
            for (room, sequence, is_chat), times in posts.items():
                result = (Outcome.EXPIRED, 0) if is_chat else (Outcome.UNAVAILABLE, RETRY_MS)
                number = 0 if room is None else room.number
                link.reply_acks(number, [AckResult(sequence, *result)] * times)
            self.join_again()

    def join_again(self, name: str | None = None) -> None:
        """Ask again, at the owner that each room has now, what this node has not answered. ``name``: of one room."""
        for sequence, request in list(self.joins.items()):
            if name is None or request.room_name == name:
                del self.joins[sequence]
                self.relays.stop_waiting(request.room_name)
                if self.link.is_open:
                    self._owner.retry_join(self.link, request, sequence)


class LinkRelays:
    """The relays of one link."""

    def __init__(self, link: SessionLink, owner: RelayNode) -> None:
        self.link = link
        self.owner = owner
        self.by_node: dict[str, Relay] = {}

    def to(self, node: str) -> Relay:
        """Return the relay to a node."""
        relay = self.by_node.get(node)
        if relay is None:
            relay = self.by_node[node] = Relay(self, node)
        return relay

    def wait(self, name: str) -> bool:
        """Note that a room is being joined; False, and answered by the caller, where it is already or was."""
        link = self.link
        if name in link.pending_joins or any(each.room.name == name for each in link.memberships):
            return False
        link.pending_joins = (*link.pending_joins, name)
        return True

    def stop_waiting(self, name: str) -> None:
        """Note that a room is not being joined any more."""
        self.link.pending_joins = tuple(other for other in self.link.pending_joins if other != name)

    def join(self, node: str, request: Join | Resume, plain: Join | Resume, sequence: int) -> None:
        """Ask the owner of a room. ``plain``: the request as the client has sent it."""
        relay = self.to(node)
        relay.joins[sequence] = request
        relay.send(plain, 0, sequence)

    def post(self, room: EdgeRoom, sequence: int, post: Post) -> None:
        """Give a post to the owner of its room."""
        relay = self.by_node.get(room.owner)
        is_chat = post.type in _CHAT
        if relay is None or sum(relay.posts.values()) >= MAX_RELAYED_POSTS:
            result = AckResult(sequence, Outcome.UNAVAILABLE, RETRY_MS)
            self.link.reply_acks(room.number, [result])
            return
        relay.posts[room, sequence, is_chat] += 1
        relay.send(post, room.owner_number, sequence)

    def post_to(self, node: str, sequence: int, post: Post) -> None:
        """Give a post that names its room to the room's owner."""
        relay = self.to(node)
        if sum(relay.posts.values()) >= MAX_RELAYED_POSTS:
            self.link.reply_acks(0, [AckResult(sequence, Outcome.UNAVAILABLE, RETRY_MS)])
            return
        relay.posts[None, sequence, post.type in _CHAT] += 1
        relay.send(post, 0, sequence)

    def regrant(self, grant: Grant) -> None:
        """Notify the owners that the link has a newer token."""
        for relay in self.by_node.values():
            self.owner.send(relay.node, LinkGranted(relay.id, pack_grant(grant)))

    def leave(self, room: EdgeRoom) -> None:
        """Leave a room at its owner."""
        relay = self.by_node.get(room.owner)
        if relay is not None:
            relay.send(Leave(), room.owner_number, 0)
            for key in [key for key in relay.posts if key[0] is room]:
                del relay.posts[key]

    def lost(self, node: str) -> Relay | None:
        """Remove the relay to a node that is gone, or has lost it."""
        relay = self.by_node.pop(node, None)
        if relay is not None:
            self.owner.forget_relay(relay)
        return relay

    def close(self) -> None:
        """End all relays: the link has ended."""
        for relay in self.by_node.values():
            self.owner.send(relay.node, LinkClosed(relay.id))
            self.owner.forget_relay(relay)
        self.by_node.clear()
