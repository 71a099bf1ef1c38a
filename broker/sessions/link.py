"""State of one connection above its bytes, and everything that is written to it: answers, ACKs, ERROR, GOAWAY.

The answers to the bytes of one read, or of one slice of ledger results, leave in one write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import structlog

from broker.auth.grants import Grant, RoomGrant
from broker.net.transport import Framing, Transport
from broker.net.websocket import ws_frame
from broker.rooms.encoding import variant_of, with_codec
from broker.rooms.members import RoomRef
from broker.rooms.room import Room
from broker.sessions.acks import acks_of
from broker.sessions.context import SessionContext
from broker.sessions.parts import NO_PARTS, LinkParts
from broker.sessions.room_member import AnyRoom, RoomMember
from protocol.codes import CloseCode, Codec, ErrorCode, Feature, Lane, LeaveReason, Tier
from protocol.compression import best_codec
from protocol.connection import Connection, Encoding
from protocol.errors import LocalProtocolError
from protocol.messages import Ack, AckReason, AckResult, ErrorReply, FirstResult, GoAway, Left, Message, Side

__all__ = ["SessionLink"]

log = structlog.get_logger("roomcast.session")

MAX_JOINED = 64
"""Answers in one write; a RESUME may have hundreds."""
MAX_JOINED_BYTES = 16 * 1024
"""A larger answer is written at once, so that what the client has not taken is known."""

# Looking an Enum member up is a call on Python 3.11, and these stand on the path of every message.
_TCP, _JSON = Framing.TCP, Framing.WEBSOCKET_JSON
_BINARY_FRAMINGS = (Framing.TCP, Framing.WEBSOCKET)
_CONTROL, _LAST_CRITICAL = Lane.CONTROL, Lane.PAID
_SERVER, _BINARY = Side.SERVER, Encoding.BINARY
_PLAIN, _LZ4 = Codec.PLAIN, int(Feature.LZ4)


class SessionLink:
    """One connection as requests see it: who it is, where it is a member, and how it is answered. All synchronous."""

    is_remote = False
    """Whether the connection is one of another node."""

    __slots__ = (
        "_acks",
        "_out",
        "agent",
        "codec",
        "connection",
        "context",
        "features",
        "free_returns",
        "grant",
        "memberships",
        "opened_at",
        "parts",
        "renew_at",
        "transport",
    )

    def __init__(self, transport: Transport, context: SessionContext) -> None:
        self.transport = transport
        self.context = context
        self.connection: Connection | None = Connection(_SERVER, self._encoding)
        """The state of the protocol; None on an open link between its frames, where all links have the same."""
        self.features = 0
        """Bits of `Feature` that both sides have; on a JSON link without those of codecs."""
        self.codec = _PLAIN
        """Of what rooms publish."""
        self.grant: Grant | None = None
        """What the token grants; None before AUTH."""
        self.memberships: tuple[RoomMember, ...] = ()
        self.free_returns = context.config.rooms_per_connection
        """JOINs and RESUMEs that cost nothing if they return to a room."""
        self._acks: dict[int, list[AckResult]] | None = None
        """Answers to POSTs by room, while bytes are being handled."""
        self._out: list[bytes] | None = None
        """Frames for one write at the end of that."""
        self.parts = NO_PARTS
        """What few links use; to be written only by `own_parts`."""
        self.agent = ""
        """What the client calls itself."""
        self.opened_at = context.poller.now
        """When the connection began (monotonic seconds)."""
        self.renew_at = 0.0
        """From when on a PING gets a new ticket (monotonic seconds)."""

    @property
    def _encoding(self) -> Encoding:
        return _BINARY if self.transport.framing in _BINARY_FRAMINGS else Encoding.JSON

    def own_parts(self) -> LinkParts:
        """Return the parts of this link, to be written."""
        if self.parts is NO_PARTS:
            self.parts = LinkParts()
        return self.parts

    @property
    def is_held(self) -> bool:
        """Whether no byte is handled now: the platform is asked who this is, or a CALL waits for its turn."""
        return self.parts.is_held

    @property
    def pending_joins(self) -> tuple[str, ...]:
        """Rooms whose JOIN or RESUME waits for the ledger or the platform."""
        return self.parts.pending_joins

    @pending_joins.setter
    def pending_joins(self, rooms: tuple[str, ...]) -> None:
        self.own_parts().pending_joins = rooms
        self._drop_unused_parts()

    def _drop_unused_parts(self) -> None:
        """Share the parts again, after what has been in use for a time only."""
        if self.parts.are_unused:
            self.parts = NO_PARTS

    def send(
        self, message: Message, room: int = 0, sequence: int = 0, lane: Lane | None = None, packed: bytes | None = None
    ) -> None:
        """Frame and write one message of this session's own: now, or with what else answers the same bytes.

        ``packed``: the message's packed body, where the caller has it already.
        """
        transport, connection = self.transport, self.connection
        if transport.state:
            return
        if connection is None:
            connection = self.context.connections.sender(self._encoding)
        data = connection.send(message, room, sequence, lane, packed)
        framing = transport.framing
        if framing is not _TCP:
            data = ws_frame(data, text=framing is _JSON)
        out = self._out
        if out is None or (lane is not None and lane > _LAST_CRITICAL):
            self._write_out()
            transport.write(data, _CONTROL if lane is None else lane)
        else:
            out.append(data)
            if len(out) == MAX_JOINED or len(data) > MAX_JOINED_BYTES:
                self._write_out()

    def _framed(self, data: bytes) -> bytes:
        return data if self.transport.framing is _TCP else ws_frame(data, text=self.transport.framing is _JSON)

    def error(self, code: ErrorCode, message: str, room: int, sequence: int, field: str = "", wait_ms: int = 0) -> None:
        """Answer a failed request; a link with too many errors a minute is ended."""
        context = self.context
        context.errors[code] += 1
        now = context.poller.now
        limit = context.error_limit
        parts = self.own_parts()
        parts.error_tat = limit.charge(parts.error_tat, now)
        if parts.waiting_posts is not None:
            parts.waiting_posts.answered(room, sequence)
        self.send(ErrorReply(code, message, field, wait_ms), room, sequence)
        if limit.wait_s(parts.error_tat, now):
            self.close(CloseCode.TOO_MANY_ERRORS, f"more than {self.context.config.errors_per_minute} errors a minute")

    def refuse(self, code: ErrorCode, message: str, sequence: int, field: str = "", wait_ms: int = 0) -> None:
        """Answer a failed request that is about no room."""
        self.error(code, message, 0, sequence, field, wait_ms)

    def close(self, code: int, reason: str, retry_after_ms: int = 0, jitter_ms: int = 0) -> None:
        """Send GOAWAY and end the link."""
        if self.transport.state:
            return
        self._flush()
        if self.connection is None:
            self.connection = self.context.connections.take(self._encoding)
        try:
            final_bytes = self._framed(self.connection.send(GoAway(code, reason, retry_after_ms, jitter_ms)))
        except LocalProtocolError:
            final_bytes = b""
        self.transport.close(code, reason, final_bytes)

    def replace(self) -> None:
        """End the link in favour of a newer one of its user: LEFT for each room, and GOAWAY, both with REPLACED."""
        why = "a newer link of this user replaced this one"
        for member in self.memberships:
            self.send(Left(LeaveReason.REPLACED, why), member.room.number)
        self.close(CloseCode.REPLACED, why)

    @property
    def heard_at(self) -> float:
        """When the last byte came from the client, monotonic seconds."""
        return self.transport.heard_at

    def on_deadline(self, now: float) -> None:
        """End the link, or set the next deadline: log-in, heartbeat, or the token's end."""
        config = self.context.config
        grant = self.grant
        if grant is None:
            self.close(CloseCode.HANDSHAKE_TIMEOUT, f"no AUTH within {config.handshake_timeout_s:g} s")
            return
        left_s = self.context.auth.seconds_left(grant)
        if left_s <= 0:
            self.close(CloseCode.TOKEN_EXPIRED, "the token has expired")
            return
        heard_at = now if self.parts.is_held else self.transport.heard_at
        silent_until = heard_at + config.heartbeat_cut_s
        if silent_until <= now:
            self.close(CloseCode.HEARTBEAT_MISSED, f"silent for {config.heartbeat_cut_s:g} s")
            return
        if self.transport.framing is not _TCP:
            probe_at = heard_at + config.heartbeat_late_s
            if now < probe_at:
                silent_until = probe_at
            else:
                self.transport.probe()
        self.context.poller.rewheel(self.transport, min(silent_until, now + left_s))

    def reply_acks(self, room: int, results: list[AckResult], firsts: Sequence[FirstResult] = ()) -> None:
        """Send outcomes of POSTs: with the read or the ledger results that are being handled, or now."""
        if firsts:
            found = self.own_parts().firsts = self.parts.firsts or {}
            found.setdefault(room, []).extend(firsts)
        parts = self.parts
        if parts.reviews is not None:
            results = parts.reviews.with_masks(room, results)
        waits = parts.waiting_posts
        if waits is not None and waits.count:
            for result in results:
                waits.answered(room, result[0])
        acks = self._acks
        if acks is None and self.context.results.defer(self._flush_answers, answers=True):
            acks = self._acks = {}
        if acks is not None:
            waiting = acks.get(room)
            if waiting is None:
                acks[room] = results
            else:
                waiting += results
        else:
            self.send_acks(room, results)

    def reply_with_reason(self, room: int, result: AckResult, reason: str, retry_after_ms: int = 0) -> None:
        """Send the outcome of a POST, with the reason where there is one, and when it would be taken."""
        if not reason and not retry_after_ms:
            self.reply_acks(room, [result])
            return
        if self.parts.waiting_posts is not None:
            self.parts.waiting_posts.answered(room, result.sequence)
        self.send(Ack((result,), (), (AckReason(result.sequence, reason, retry_after_ms),)), room)

    def hold(self, until: float) -> None:
        """Leave the connection unread, and what it has sent unhandled, until `go_on`.

        It is read again after ``until`` (monotonic seconds) in any case.
        """
        self.own_parts().is_held = True
        self.context.poller.pause_reading(self.transport, until)

    def go_on(self) -> None:
        """Handle what the connection has sent while it was held. It was not read meanwhile, so it was not silent."""
        self.own_parts().is_held = False
        self._drop_unused_parts()
        self.transport.heard_at = self.context.poller.now
        self.context.poller.resume_reading(self.transport)
        self.handle()

    def handle(self) -> None:
        """Handle the bytes that have come; the session does."""
        raise NotImplementedError

    def send_acks(self, room: int, results: list[AckResult]) -> None:
        """Write outcomes of POSTs."""
        firsts = self.parts.firsts
        for ack in acks_of(results, firsts.pop(room, ()) if firsts else ()):
            self.send(ack, room)

    def _flush_answers(self) -> None:
        """Write the acks that were deferred to the end of a slice of ledger results."""
        self._out = []
        self._flush()

    def _flush(self) -> None:
        """Write the answers to the bytes of this read; from here on everything is written at once."""
        acks, self._acks = self._acks, None
        if acks:
            for room, results in acks.items():
                self.send_acks(room, results)
        self._write_out()
        self._out = None

    def _write_out(self) -> None:
        out = self._out
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            self.transport.write(data, _CONTROL)

    @contextmanager
    def replying(self) -> Iterator[None]:
        """Collect the replies inside the block, outside of a read, into one write; an exception ends this session
        alone."""
        self._out = []
        try:
            yield
        except Exception:
            log.exception("session failed", address=self.transport.address)
            self.close(CloseCode.INTERNAL_ERROR, "internal error")
        finally:
            self._flush()

    def on_left(self, room: RoomRef, reason: LeaveReason, message: str) -> None:
        """Send LEFT: the room has removed this session."""
        self.memberships = tuple(each for each in self.memberships if each.room is not room)
        parts = self.parts
        if parts.reviews is not None:
            parts.reviews.forget(room.number)
        if parts.waiting_posts is not None:
            parts.waiting_posts.forget(room.number)
        self.send(Left(reason, message), room.number)

    def leave(self, member: RoomMember, now: float) -> None:
        """Leave a room."""
        room = member.room
        if self.grant is not None:
            self.context.hub.join_limit.left(self.grant.user_id, room.name, now)
        self.guard(room, room.leave, member, now)

    def guard(self, room: AnyRoom, call: Callable[..., None], *args: object) -> None:
        """Call into a room; its failure is the room's end, not this session's."""
        try:
            call(*args)
        except Exception:
            if not isinstance(room, Room):
                raise
            self.context.hub.crash(room)

    @property
    def user_id(self) -> str | None:
        """The authenticated user by qualified name; None before that."""
        return None if self.grant is None else self.grant.user_id

    @property
    def address(self) -> str:
        """The client's address, behind a trusted proxy too."""
        return self.transport.address

    @property
    def unread_bytes(self) -> int:
        """Bytes of lanes 0-2 that the client has not taken."""
        queue = self.transport.queue
        return 0 if queue is None else queue.critical_nbytes

    def joined_name(self, number: int) -> str | None:
        """Return the name of a joined room by its number; None = the link is not in it."""
        return next((each.room.name for each in self.memberships if each.room.number == number), None)

    def joined_at_ms(self, room: str) -> int | None:
        """Return when the link has joined a room by name, None = it has not."""
        return next((each.joined_at_ms for each in self.memberships if each.room.name == room), None)

    @property
    def is_open(self) -> bool:
        """Whether the connection still exists."""
        return not self.transport.state

    def use_types(self) -> None:
        """Take what the token permits of the types of messages that there are now."""
        grant = self.grant
        if grant is None:
            return
        for member in self.memberships:
            entry = grant.room_grant(member.room.name)
            if entry is not None:
                member.may_post = self.context.types.permitted(entry.role, entry.allow)
        if self.parts.senders is not None:
            self.parts.senders.regrant(grant)

    def use_codec(self, codec: Codec) -> bool:
        """Compress what rooms publish with this codec from now on; False: on this link nothing is compressed."""
        if not self.features & _LZ4:
            return False
        if codec is not self.codec:
            self.codec = codec
            for member in self.memberships:
                member.room.members.change_variant(member, with_codec(member.variant, codec))
        return True

    def leave_codec(self, codec: Codec) -> None:
        """Compress without the dictionary of a codec from now on, if this link has that codec."""
        if self.codec is codec:
            self.use_codec(best_codec(self.features))

    def new_member(self, room: AnyRoom, room_grant: RoomGrant, tier: Tier) -> RoomMember:
        """Return a member of a room for this session, in the form in which its connection receives."""
        grant = self.grant
        assert grant is not None
        may_post = self.context.types.permitted(room_grant.role, room_grant.allow)
        variant = variant_of(self.transport.framing, self.codec, tier)
        name = self.context.name_in(room.name, grant.name)
        member = RoomMember(self, grant.plain_id, name, room_grant.role, may_post, variant, grant.tags)
        member.room = room
        return member
