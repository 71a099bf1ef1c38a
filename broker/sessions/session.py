"""Session of one connection, above its bytes: HELLO, AUTH, JOIN, POST, LEAVE. It has no task of its own.

The poller calls with data; everything here is synchronous and returns at once, so a session delays no other. A peer's
violation ends its own link with a close code or is answered with ERROR; a defect of the broker ends this one session
(or the one room it came from) and is logged once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import structlog

from broker.auth.grants import AuthError, Grant, RoomGrant
from broker.core.net.send_queue import QueueMissed
from broker.net.transport import Framing, Transport
from broker.net.websocket import ws_frame
from broker.rooms.encoding import variant_of
from broker.rooms.members import Member, RoomRef
from broker.rooms.room import Room
from broker.sessions.acks import acks_of
from broker.sessions.context import SessionContext
from broker.sessions.joining import PendingJoin
from broker.sessions.posting import RoomSenders
from broker.sessions.waiting import WaitingPosts
from protocol.codes import (
    CloseCode,
    ErrorCode,
    Feature,
    Lane,
    LeaveReason,
    MessageType,
    Opcode,
    Outcome,
    Tier,
)
from protocol.compression import best_codec
from protocol.connection import NEED_DATA, Connection, Encoding, Frame, Refused
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.frames import pack_body
from protocol.messages import (
    VERSION,
    AckResult,
    Auth,
    Authenticated,
    ClientHello,
    Direct,
    DirectAck,
    ErrorReply,
    FirstResult,
    GoAway,
    Join,
    Left,
    Message,
    Missed,
    Ping,
    Pong,
    Resume,
    SendDirect,
    Side,
    common_version,
)

__all__ = ["Session"]

log = structlog.get_logger("roomcast.session")

MAX_WAITING_ANSWERS = 64 * 1024
"""Bytes of lanes 0-2 that wait for a link above which it is read once in `BACKLOG_READ_S` only: every request makes
one more answer."""
BACKLOG_READ_S = 1.0
WAITING_RETRY_MS = 500
"""When to repeat a post that was refused because too many of its link wait for the ledger."""
MAX_JOINED = 64
"""Answers in one write; a RESUME may have hundreds."""

# Looking an Enum member up is a call on Python 3.11, and these stand on the path of every message.
_POST, _TCP, _WEBSOCKET, _JSON = Opcode.POST, Framing.TCP, Framing.WEBSOCKET, Framing.WEBSOCKET_JSON
_CONTROL, _LAST_CRITICAL = Lane.CONTROL, Lane.PAID
_SERVER, _BINARY = Side.SERVER, Encoding.BINARY
_CODECS = int(Feature.LZ4 | Feature.LZ4_DICT_1)
_TICKET = int(Feature.TICKET)


class Session:
    """The owner of one transport. All methods are synchronous; `on_closed` is the last one called."""

    __slots__ = (
        "_acks",
        "_connection",
        "_context",
        "_error_tat",
        "_features",
        "_firsts",
        "_frame_tat",
        "_grant",
        "_is_app",
        "_missed_chat",
        "_out",
        "_renew_at",
        "_senders",
        "_waiting",
        "free_returns",
        "memberships",
        "pending_joins",
        "transport",
    )  # fmt: skip

    def __init__(self, transport: Transport, context: SessionContext) -> None:
        self.transport = transport
        self._context = context
        self._connection = Connection(_SERVER, Encoding.JSON if transport.framing is _JSON else _BINARY)
        self._features = 0
        """Bits of `Feature` that both sides have; on a JSON link without those of codecs."""
        self._grant: Grant | None = None
        self.memberships: tuple[tuple[Room, Member], ...] = ()
        self.pending_joins: tuple[str, ...] = ()
        """Rooms whose JOIN or RESUME waits for the ledger."""
        self.free_returns = context.config.rooms_per_connection
        """JOINs and RESUMEs that cost nothing if they return to a room."""
        self._acks: dict[int, list[AckResult]] | None = None
        """Answers to POSTs by room, while bytes are being handled."""
        self._out: list[bytes] | None = None
        """Frames for one write at the end of that."""
        self._error_tat = 0.0
        self._frame_tat = 0.0
        self._is_app = False
        """Whether this is a link of the platform's backend, which has limits of its own."""
        self._waiting: WaitingPosts | None = None
        """Posts that the ledger has not answered; None before the first of them."""
        self._missed_chat = 0
        self._firsts: dict[int, list[FirstResult]] | None = None
        """By room: first uses of keys, for the repetitions among the answers that wait; None: there are none."""
        self._senders: RoomSenders | None = None
        """Rooms that this link of the app posts to without joining them."""
        self._renew_at = 0.0
        """From when on a PING gets a new ticket (monotonic seconds)."""
        context.sessions[self] = None

    # ---- called by the transport

    def on_data(self, data: bytes) -> None:
        """Take bytes of a binary link."""
        self._connection.receive_data(data)
        self._drain()
        if self.transport.framing is _WEBSOCKET and self._connection.mid_frame:
            self.close(CloseCode.BAD_TRANSPORT, "a message holds a whole number of frames")

    def on_text(self, text: str) -> None:
        """Take a message of a JSON link."""
        self._connection.receive_text(text)
        self._drain()

    def _drain(self) -> None:
        """Handle every event there is; answers to POSTs gather into one ACK per room, all answers into one write."""
        transport = self.transport
        next_event = self._connection.next_event
        self._acks = {}
        self._out = []
        frames = posts = 0
        try:
            while not transport.state:
                event = next_event()
                if event is NEED_DATA:
                    break
                frames += 1
                if type(event) is Frame:
                    if event[0] is _POST:
                        posts += 1
                        self._on_post(event)
                    else:
                        _HANDLERS[event[0]](self, event)
                elif type(event) is Refused:
                    self._on_refused(event)
        except RemoteProtocolError as error:
            self.close(error.code, error.reason)
        except Exception:
            log.exception("session failed", address=transport.address)
            self.close(CloseCode.INTERNAL_ERROR, "internal error")
        finally:
            self._flush()
        context = self._context
        context.posts += posts
        if frames:
            self._throttle(frames)

    def _throttle(self, frames: int) -> None:
        """Leave a flooding link unread until its frames fit the rate again, and one that does not take its answers."""
        context = self._context
        now, limit = context.poller.now, context.app_frame_limit if self._is_app else context.frame_limit
        self._frame_tat = limit.charge(self._frame_tat, now, frames)
        wait_s = limit.wait_s(self._frame_tat, now)
        queue = self.transport.queue
        if queue is not None and queue.critical_nbytes > MAX_WAITING_ANSWERS:
            wait_s = max(wait_s, BACKLOG_READ_S)
        if wait_s and not self.transport.state:
            context.poller.pause_reading(self.transport, now + wait_s)

    def on_backlog(self) -> None:
        """Let the rooms publish to the queue from now on: the socket is full."""
        for room, member in self.memberships:
            room.members.use_slow_path(member)

    def on_drained(self, missed: QueueMissed) -> None:
        """Send this viewer what it missed: the queue has drained."""
        chat, ambient = missed.chat_weight, missed.ambient_frames
        if chat or ambient:
            self._missed_chat += chat
            self._context.missed_chat += chat
            at_ms = self._context.unix_ms()
            self.send(Direct(0, MessageType.MISSED, at_ms, Missed(chat, ambient)), lane=Lane.COMMERCE)
        if ambient:
            for room, _ in self.memberships:
                counters, number = room.state.counters_for_one(at_ms)
                self.send(counters, room.number, number, Lane.AMBIENT)

    def on_overflow(self) -> None:
        """End the link so that it can resume: lanes 0-2 would have a gap, or no byte moves any more."""
        self.close(CloseCode.SLOW_VIEWER, "too far behind; resume from the last position")

    def on_closed(self, code: int, reason: str) -> None:
        """Leave every room and the registry. The last call."""
        context = self._context
        context.sessions.pop(self, None)
        context.closed[code] += 1
        now = context.poller.refresh_clock()  # a sweep may have found the socket broken, between two turns
        for room, member in self.memberships:
            self._leave(room, member, now)
        self.memberships = ()
        if self._senders is not None:
            self._senders.close()
        grant, self._grant = self._grant, None
        if grant is not None:
            context.users.remove(grant.user_id, self)
            if context.inboxes is not None:
                context.inboxes.leave(grant.user_id, self)
        log.debug("link closed", code=int(code), reason=reason, address=self.transport.address)

    def on_deadline(self, now: float) -> None:
        """End the link, or set the next deadline: log-in, heartbeat, or the token's end."""
        config = self._context.config
        grant = self._grant
        if grant is None:
            self.close(CloseCode.HANDSHAKE_TIMEOUT, f"no AUTH within {config.handshake_timeout_s:g} s")
            return
        left_s = self._context.auth.seconds_left(grant)
        if left_s <= 0:
            self.close(CloseCode.TOKEN_EXPIRED, "the token has expired")
            return
        heard_at = self.transport.heard_at
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
        self._context.poller.rewheel(self.transport, min(silent_until, now + left_s))

    # ---- sending

    def send(
        self, message: Message, room: int = 0, sequence: int = 0, lane: Lane | None = None, packed: bytes | None = None
    ) -> None:
        """Frame and write one message of this session's own: now, or with what else answers the same bytes.

        ``packed``: the message's packed body, where the caller has it already.
        """
        if self.transport.state:
            return
        data = self._connection.send(message, room, sequence, lane, packed)
        framing = self.transport.framing
        if framing is not _TCP:
            data = ws_frame(data, text=framing is _JSON)
        out = self._out
        if out is None or (lane is not None and lane > _LAST_CRITICAL):
            self._write_out()
            self.transport.write(data, _CONTROL if lane is None else lane)
        else:
            out.append(data)
            if len(out) == MAX_JOINED:
                self._write_out()

    def _framed(self, data: bytes) -> bytes:
        return data if self.transport.framing is _TCP else ws_frame(data, text=self.transport.framing is _JSON)

    def error(self, code: ErrorCode, message: str, room: int, sequence: int, field: str = "", wait_ms: int = 0) -> None:
        """Answer a failed request; a link with too many errors a minute is ended."""
        context = self._context
        context.errors[code] += 1
        now = context.poller.now
        limit = context.error_limit
        self._error_tat = limit.charge(self._error_tat, now)
        if self._waiting is not None:
            self._waiting.answered(room, sequence)
        self.send(ErrorReply(code, message, field, wait_ms), room, sequence)
        if limit.wait_s(self._error_tat, now):
            self.close(CloseCode.TOO_MANY_ERRORS, f"more than {self._context.config.errors_per_minute} errors a minute")

    def refuse(self, code: ErrorCode, message: str, sequence: int, field: str = "", wait_ms: int = 0) -> None:
        """Answer a failed request that is about no room."""
        self.error(code, message, 0, sequence, field, wait_ms)

    def close(self, code: int, reason: str, retry_after_ms: int = 0, jitter_ms: int = 0) -> None:
        """Send GOAWAY and end the link."""
        if self.transport.state:
            return
        self._flush()
        try:
            final_bytes = self._framed(self._connection.send(GoAway(code, reason, retry_after_ms, jitter_ms)))
        except LocalProtocolError:
            final_bytes = b""
        self.transport.close(code, reason, final_bytes)

    def replace(self) -> None:
        """End the link in favour of a newer one of its user: LEFT for each room, and GOAWAY, both with REPLACED."""
        why = "a newer link of this user replaced this one"
        for room, _ in self.memberships:
            self.send(Left(LeaveReason.REPLACED, why), room.number)
        self.close(CloseCode.REPLACED, why)

    @property
    def heard_at(self) -> float:
        """When the last byte came from the client, monotonic seconds."""
        return self.transport.heard_at

    # ---- rooms

    def reply_acks(self, room: int, results: list[AckResult], firsts: Sequence[FirstResult] = ()) -> None:
        """Send outcomes of POSTs: with the read or the ledger results that are being handled, or now."""
        if firsts:
            found = self._firsts = self._firsts or {}
            found.setdefault(room, []).extend(firsts)
        waits = self._waiting
        if waits is not None and waits.count:
            for result in results:
                waits.answered(room, result[0])
        acks = self._acks
        if acks is None and self._context.results.defer(self._flush_answers, answers=True):
            acks = self._acks = {}
        if acks is not None:
            waiting = acks.get(room)
            if waiting is None:
                acks[room] = results
            else:
                waiting += results
        else:
            self._send_acks(room, results)

    def _send_acks(self, room: int, results: list[AckResult]) -> None:
        for ack in acks_of(results, self._firsts.pop(room, ()) if self._firsts else ()):
            self.send(ack, room)

    def _flush_answers(self) -> None:
        """Write the acks that were deferred to the end of a slice of ledger results."""
        with self.replying():
            pass

    def _flush(self) -> None:
        """Write the answers to the bytes of this read; from here on everything is written at once."""
        acks, self._acks = self._acks, None
        if acks:
            for room, results in acks.items():
                self._send_acks(room, results)
        self._write_out()
        self._out = None

    def _write_out(self) -> None:
        out = self._out
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            self.transport.write(data, _CONTROL)

    def on_left(self, room: RoomRef, reason: LeaveReason, message: str) -> None:
        """Send LEFT: the room has removed this session."""
        self.memberships = tuple(each for each in self.memberships if each[0] is not room)
        if self._waiting is not None:
            self._waiting.forget(room.number)
        self.send(Left(reason, message), room.number)

    def _leave(self, room: Room, member: Member, now: float) -> None:
        self._context.hub.join_limit.left(member.user_id, room.name, now)
        self._guard(room, room.leave, member, now)

    def _guard(self, room: Room, call: Callable[..., None], *args: object) -> None:
        """Call into a room; its failure is the room's end, not this session's."""
        try:
            call(*args)
        except Exception:
            self._context.hub.crash(room)

    # ---- frames

    def _on_post(self, frame: Frame) -> None:
        _, _, number, sequence, post = frame
        if post.type in self._context.durable_types:  # type: ignore[union-attr]
            if self._waiting is None:
                self._waiting = WaitingPosts()
            if not self._waiting.add(number, sequence, len(pack_body((post.payload,)))):  # type: ignore[union-attr]
                self._send_acks(number, [AckResult(sequence, Outcome.LIMITED, WAITING_RETRY_MS)])
                return
        for room, member in self.memberships:
            if room.number == number:
                try:
                    room.post(member, sequence, post, self._context.poller.now)  # type: ignore[arg-type]
                except Exception:
                    self._context.hub.crash(room)
                return
        if not number and post.room_name is not None:  # type: ignore[union-attr]
            if self._senders is None:
                self._senders = RoomSenders(self, self._context)
            self._senders.post(sequence, post, self._guard)  # type: ignore[arg-type]
            return
        self.error(ErrorCode.NOT_JOINED, "join the room first", number, sequence, "room")

    def _on_refused(self, refused: Refused) -> None:
        where = f"{refused.opcode.name}.{refused.field}" if refused.field else refused.opcode.name
        self.error(refused.code, f"{where} {refused.rule}"[:256], refused.room, refused.sequence, refused.field[:64])

    def _on_hello(self, frame: Frame) -> None:
        hello = frame.message
        assert isinstance(hello, ClientHello)
        context = self._context
        if common_version(hello) is None:
            self.close(CloseCode.UNSUPPORTED_VERSION, f"this broker speaks version {VERSION}")
            return
        features = hello.features & context.features
        self._features = features & ~_CODECS if self.transport.framing is _JSON else features
        self.send(context.hello(features))

    def _on_auth(self, frame: Frame) -> None:
        message = frame.message
        assert isinstance(message, Auth)
        context = self._context
        address, now, limits = self.transport.address, context.poller.now, context.connection_limits
        wait_s = limits.login_wait_s(address, now)
        if wait_s and not context.auth.knows(message.token):
            self.close(CloseCode.TOO_MANY_FROM_ADDRESS, "too many failed log-ins", math.ceil(wait_s * 1000))
            return
        try:
            grant = context.auth.verify(message.token)
        except AuthError as error:
            limits.login_failed(address, now)
            log.info("auth refused", address=address, why=error.detail)
            self.close(CloseCode.AUTH_FAILED, str(error))
            return
        is_app = grant.is_app
        while not context.users.add(grant.user_id, self, is_app=is_app):
            silent = context.users.longest_silent(grant.user_id)
            if is_app and now - silent.heard_at <= context.config.heartbeat_late_s:
                self.close(CloseCode.TOO_MANY_FOR_USER, f"at most {context.users.most(is_app=is_app)} links a user")
                return
            silent.replace()
        self._is_app = is_app
        self._grant = grant
        self.transport.authenticated = True
        limits.authenticated(address)
        # When the time to log in is over, the wheel asks for the next deadline; a token or the heartbeat may end
        # before.
        config = context.config
        if min(context.auth.seconds_left(grant), config.heartbeat_late_s) < config.handshake_timeout_s:
            self.on_deadline(now)
        ticket, ticket_ms = context.auth.ticket(grant) if self._features & _TICKET else ("", 0)
        self.send(Authenticated(grant.user_id, grant.name, int(grant.expires_at * 1000), ticket, ticket_ms))
        if context.inboxes is not None:
            context.inboxes.arrive(grant.user_id, self)

    def _on_join(self, frame: Frame) -> None:
        request = frame.message
        assert isinstance(request, (Join, Resume))
        PendingJoin(self, self._context, request, frame.sequence).proceed()

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

    # ---- memberships

    @property
    def user_id(self) -> str | None:
        """The authenticated user; None before that."""
        return None if self._grant is None else self._grant.user_id

    @property
    def grant(self) -> Grant | None:
        """What the token grants; None before AUTH."""
        return self._grant

    @property
    def address(self) -> str:
        """The client's address, behind a trusted proxy too."""
        return self.transport.address

    @property
    def is_open(self) -> bool:
        """Whether the connection still exists."""
        return not self.transport.state

    def new_member(self, room_grant: RoomGrant, tier: Tier) -> Member:
        """Return a member for this session, in the form in which its connection receives."""
        grant = self._grant
        assert grant is not None
        may_post = self._context.types.permitted(room_grant.role, room_grant.allow)
        variant = variant_of(self.transport.framing, best_codec(self._features), tier)
        return Member(self, grant.user_id, grant.name, room_grant.role, may_post, variant)

    def _on_leave(self, frame: Frame) -> None:
        for room, member in self.memberships:
            if room.number == frame.room:
                self.memberships = tuple(each for each in self.memberships if each[0] is not room)
                self._leave(room, member, self._context.poller.now)
                self.send(Left(LeaveReason.REQUESTED), frame.room, frame.sequence)
                return
        self.error(ErrorCode.NOT_JOINED, "join the room first", frame.room, frame.sequence, "room")

    def _on_direct_ack(self, frame: Frame) -> None:
        """The user has seen its messages up to here; without a ledger there are none that need it."""
        message, grant, inboxes = frame.message, self._grant, self._context.inboxes
        if inboxes is not None and grant is not None:
            assert isinstance(message, DirectAck)
            inboxes.acknowledge(grant.user_id, self, message.direct_id)

    def _on_batch(self, frame: Frame) -> None:
        message = frame.message
        assert isinstance(message, SendDirect)
        assert self._grant is not None, "the link's state table lets BATCH pass only after AUTH"
        self._context.batches.take(self, self._grant, frame.sequence, message)

    def _on_ping(self, frame: Frame) -> None:
        ping = frame.message
        assert isinstance(ping, Ping)
        rooms = tuple(room.state.pulse(room.number) for room, _ in self.memberships)
        ticket, expires_at_ms = "", 0
        now = self._context.poller.now
        if ping.token is not None and self._grant is not None:
            refusal = self._renew_grant(self._grant, ping.token, now)
            if refusal:
                self.refuse(ErrorCode.NOT_ALLOWED, refusal, frame.sequence, "token")
                return
            expires_at_ms = int(self._grant.expires_at * 1000)
            if self._features & _TICKET:
                ticket, _ = self._context.auth.ticket(self._grant)
        elif ping.renew and self._grant is not None and self._features & _TICKET and now >= self._renew_at:
            ticket, _ = self._context.auth.ticket(self._grant)
            self._renew_at = now + self._context.renew_every_s
        pong = Pong(ping.client_ms, self._context.unix_ms(), rooms, self._missed_chat, ticket, expires_at_ms)
        self.send(pong, 0, frame.sequence)

    def _renew_grant(self, grant: Grant, token: str, now: float) -> str:
        """Replace the grant by that of a newer token, or return why not. What the link does now must be granted."""
        context = self._context
        try:
            renewed = context.auth.verify(token)
        except AuthError as error:
            context.connection_limits.login_failed(self.transport.address, now)
            return str(error)
        if renewed.user_id != grant.user_id or renewed.is_app is not self._is_app:
            return "the token is not of the same user and kind"
        members = [(room.name, member) for room, member in self.memberships]
        if self._senders is not None:
            members += self._senders.members()
        for name, member in members:
            entry = renewed.room_grant(name)
            may_post = None if entry is None else context.types.permitted(entry.role, entry.allow)
            if entry is None or (entry.role, may_post) != (member.role, member.may_post):
                return "the token grants other rights in a room of this link"
        self._grant = renewed
        self.on_deadline(now)
        return ""

    def _on_goaway(self, frame: Frame) -> None:
        self.transport.close(CloseCode.CLIENT_DONE, "the client closed")


_HANDLERS: dict[Opcode, Callable[[Session, Frame], None]] = {
    Opcode.HELLO: Session._on_hello,
    Opcode.AUTH: Session._on_auth,
    Opcode.JOIN: Session._on_join,
    Opcode.RESUME: Session._on_join,
    Opcode.LEAVE: Session._on_leave,
    Opcode.ACK: Session._on_direct_ack,
    Opcode.BATCH: Session._on_batch,
    Opcode.PING: Session._on_ping,
    Opcode.GOAWAY: Session._on_goaway,
}
