"""Posts of the platform's backend to rooms that its link has not joined: the POST names the room.

Such a link is no member: it is not counted and gets nothing but the answers to its posts, whose ACKs name room 0. A
room is opened as a JOIN would open it; one that was ended stays ended until it is joined by staff or the app, or made
LIVE by a post. A post that the room's crash leaves unanswered is LIMITED, so that the client repeats it with its key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from broker.auth.grants import Grant, RoomGrant
from broker.core.tenants.names import qualify
from broker.net.transport import Transport
from broker.rooms.members import Member, RoomRef
from broker.rooms.room import Room
from broker.sessions.context import SessionContext
from protocol.codes import ErrorCode, LeaveReason, MessageType, Outcome, Role, RoomPhase, Tier
from protocol.messages import AckResult, FirstResult, Post

__all__ = ["MAX_SENDERS", "Poster", "RoomSenders"]

MAX_SENDERS = 1024
"""Rooms of one link that it posts to without joining them; the one used longest ago is forgotten."""
RETRY_MS = 1000
_FINAL = frozenset({ErrorCode.ROOM_ENDED, ErrorCode.UNKNOWN_ROOM})


class Poster(Protocol):
    """What posting needs of a session."""

    transport: Transport

    @property
    def grant(self) -> Grant | None:
        """What the token grants; None before AUTH."""

    @property
    def address(self) -> str:
        """The client's address."""

    def reply_acks(self, room: int, results: list[AckResult], firsts: Sequence[FirstResult] = ()) -> None:
        """Answer POSTs of this session."""

    def reply_with_reason(self, room: int, result: AckResult, reason: str, retry_after_ms: int = 0) -> None:
        """Answer a POST of this session, with a reason for its user."""

    def error(self, code: ErrorCode, message: str, room: int, sequence: int, field: str = "") -> None:
        """Answer a failed request."""

    def new_member(self, room: Room, room_grant: RoomGrant, tier: Tier) -> Member:
        """Return a member of a room for this session in the form in which it receives."""


class RoomSender:
    """The link as one room sees it: it answers posts, each once."""

    __slots__ = ("_open", "_poster", "member", "room", "transport")

    def __init__(self, poster: Poster, room: Room, member: Member) -> None:
        self.transport = poster.transport
        self.room = room
        self.member = member
        self._poster = poster
        self._open: dict[int, int] = {}
        """Posts without an answer, by the client's number, with how often it was used."""
        member.session = self

    @property
    def is_idle(self) -> bool:
        """Whether every post has its answer."""
        return not self._open

    def post(self, sequence: int, post: Post, now: float) -> None:
        """Give a post to the room."""
        self._open[sequence] = self._open.get(sequence, 0) + 1
        self.room.post(self.member, sequence, post, now)

    def reply_acks(self, room: int, results: list[AckResult], firsts: Sequence[FirstResult] = ()) -> None:
        """Answer posts; a result that comes after the room's crash has no recipient."""
        due = [result for result in results if self._take(result.sequence)]
        if due:
            self._poster.reply_acks(0, due, firsts)

    def reply_with_reason(self, room: int, result: AckResult, reason: str, retry_after_ms: int = 0) -> None:
        """Answer a post with the reason why it was refused."""
        if self._take(result.sequence):
            self._poster.reply_with_reason(0, result, reason, retry_after_ms)

    def on_left(self, room: RoomRef, reason: LeaveReason, message: str) -> None:
        """Answer what the room leaves unanswered: later, with the same key."""
        left = [sequence for sequence, times in self._open.items() for _ in range(times)]
        self.reply_acks(room.number, [AckResult(sequence, Outcome.LIMITED, RETRY_MS) for sequence in left])

    def _take(self, sequence: int) -> bool:
        times = self._open.pop(sequence, 0)
        if times > 1:
            self._open[sequence] = times - 1
        return times > 0


class RoomSenders:
    """The rooms that one link posts to without having joined them."""

    __slots__ = ("_by_name", "_context", "_poster")

    def __init__(self, poster: Poster, context: SessionContext) -> None:
        self._poster = poster
        self._context = context
        self._by_name: dict[str, RoomSender] = {}

    def post(self, sequence: int, post: Post, guard: Callable[..., None]) -> None:
        """Process a POST that names its room. ``guard`` calls into a room, whose failure is its own end."""
        grant = self._poster.grant
        assert grant is not None, "the link's state table lets POST pass only after AUTH"
        assert post.room_name is not None, "the caller has seen a name"
        name = qualify(grant.tenant, post.room_name)
        sender = self._by_name.pop(name, None)
        if sender is None or sender.room.state.phase is RoomPhase.ENDED:
            sender = self._open(name, sequence, post)
            if sender is None:
                return
        self._by_name[name] = sender
        now = self._context.poller.now
        sender.room.keep_open(now)
        guard(sender.room, sender.post, sequence, post, now)

    def members(self) -> list[tuple[str, Member]]:
        """Return the rooms by name, each with this link as its sender."""
        return [(name, sender.member) for name, sender in self._by_name.items()]

    def regrant(self, grant: Grant) -> None:
        """Give this link the rights of a new token in each room, and forget those where it is no sender any more.

        Posts that have no answer yet get theirs all the same.
        """
        for name, sender in list(self._by_name.items()):
            entry = grant.room_grant(name)
            if entry is None or entry.role is not Role.APP:
                del self._by_name[name]
                sender.room.senders.pop(sender.member, None)
            else:
                sender.member.name = self._context.name_in(name, grant.name)
                sender.member.may_post = self._context.types.permitted(entry.role, entry.allow)

    def close(self) -> None:
        """Forget all rooms: the link has ended."""
        for sender in self._by_name.values():
            sender.room.senders.pop(sender.member, None)
        self._by_name.clear()

    def _open(self, name: str, sequence: int, post: Post) -> RoomSender | None:
        """Return a sender for a room, or answer why there is none."""
        poster, grant = self._poster, self._poster.grant
        assert grant is not None, "the link's state table lets POST pass only after AUTH"
        room_grant = grant.room_grant(name)
        if room_grant is None:
            poster.error(ErrorCode.ROOM_NOT_GRANTED, "the token does not grant this room", 0, sequence, "room_name")
            return None
        if room_grant.role is not Role.APP:
            poster.error(ErrorCode.NOT_JOINED, "join the room first", 0, sequence, "room")
            return None
        if len(self._by_name) >= MAX_SENDERS and not self._forget_one():
            poster.reply_acks(0, [AckResult(sequence, Outcome.LIMITED, RETRY_MS)])
            return None
        goes_live = post.type == MessageType.ROOM_PHASE and post.payload[0] == RoomPhase.LIVE
        opened = self._context.hub.open(name, joining=Role.APP, address=poster.address, reopens=goes_live)
        if not isinstance(opened, Room):
            result = (Outcome.REJECTED, opened) if opened in _FINAL else (Outcome.LIMITED, RETRY_MS)
            poster.reply_acks(0, [AckResult(sequence, *result)])
            return None
        sender = RoomSender(poster, opened, poster.new_member(opened, room_grant, Tier.FULL))
        opened.senders[sender.member] = None
        return sender

    def _forget_one(self) -> bool:
        """Forget the room that was posted to longest ago and owes no answer; False: there is none."""
        for name, sender in self._by_name.items():
            if sender.is_idle:
                del self._by_name[name]
                sender.room.senders.pop(sender.member, None)
                return True
        return False
