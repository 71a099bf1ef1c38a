"""Session of one watcher: a guest that sees one room through a stream of events and cannot send anything.

It is a member like any other: it counts as a guest and for the room's bound of viewers, has a send queue whose drops
are counted, and is ended when it is too far behind. It comes back with the id of the last event it saw
(`broker.core.rooms.event_ids`); what the room has in memory since then follows, else the answer says that there is a
gap.
"""

from __future__ import annotations

import secrets
from math import ceil

import structlog

from broker.auth.grants import GUEST_PREFIX, AuthError
from broker.net.event_stream import EventStreamTransport, event, retry_in
from broker.net.http1 import refuse
from broker.rooms.members import RoomRef
from broker.sessions.context import SessionContext
from broker.sessions.joining import PendingJoin
from broker.sessions.session import Session
from protocol.codes import CloseCode, ErrorCode, Lane, LeaveReason
from protocol.connection import Encoding
from protocol.messages import Event, GoAway, Join, Joined, Message, Resume, Resumed

__all__ = ["WatchSession"]

log = structlog.get_logger("roomcast.session")

KEEP_ALIVE_S = 15.0
"""A comment as often: proxies end a silent answer after 30 s or more."""
_STATUS = {
    ErrorCode.ROOM_NOT_GRANTED: 403,
    ErrorCode.BANNED: 403,
    ErrorCode.ROOM_ENDED: 410,
    ErrorCode.UNKNOWN_ROOM: 404,
    ErrorCode.RATE_LIMITED: 429,
}
"""Any other refusal is 503: later it may be different."""


class WatchSession(Session):
    """The owner of a stream of events. `start` joins the room, or answers why not."""

    __slots__ = ("_events",)

    def __init__(self, transport: EventStreamTransport, context: SessionContext) -> None:
        super().__init__(transport, context)
        self._events = transport
        self.connection = None  # open from the start

    def start(self) -> None:
        """Enter the room as a guest."""
        transport, context, request = self._events, self.context, self._events.request
        address, now, limits = transport.address, context.poller.now, context.connection_limits
        wait_s = limits.login_wait_s(address, now)
        if wait_s:
            self._refuse(429, "Too many failed log-ins.", ceil(wait_s))
            return
        try:
            grant = context.auth.verify(GUEST_PREFIX + request.guest if request.guest else None)
        except AuthError as error:
            limits.login_failed(address, now)
            log.info("auth refused", address=address, why=error.detail)
            self._refuse(403, "Guests are not admitted: the broker's auth.guest_access names no room.")
            return
        while not context.users.add(grant.user_id, self, is_app=False):
            context.users.longest_silent(grant.user_id).replace()
        self.grant = grant
        transport.authenticated = True
        limits.authenticated(address)
        context.poller.rewheel(transport, now + KEEP_ALIVE_S)
        position = context.hub.event_ids.read(request.room, request.last_event_id)
        with self.replying():
            asked: Join | Resume = Join(request.room, request.tier)
            if position is not None:
                asked = Resume(request.room, request.tier, position.epoch, position.offset)
            if context.nodes is None:
                PendingJoin(self, context, asked, 0, is_signed=True).proceed()
            else:
                context.nodes.join(self, asked, 0, asked)

    def send(
        self, message: Message, room: int = 0, sequence: int = 0, lane: Lane | None = None, packed: bytes | None = None
    ) -> None:
        """Write one message as an event; the first one begins the stream."""
        if self.transport.state:
            return
        connection = self.connection
        if connection is None:
            connection = self.context.connections.sender(Encoding.JSON)
        data = event(connection.send(message, room, sequence, lane), self._id_of(message, room, sequence))
        if not self._events.is_begun:
            data = self._events.begin() + data
        out = self._out
        if out is None:
            self.transport.write(data, Lane.CONTROL if lane is None else lane)
        else:
            out.append(data)

    def _id_of(self, message: Message, room: int, sequence: int) -> str:
        """Return the id of what moves the position in the stream, "" of anything else."""
        ids = self.context.hub.event_ids
        if isinstance(message, Resumed):
            message = message.snapshot._replace(
                offset=message.gap_from - 1 if message.recovered else message.snapshot.offset
            )
        if isinstance(message, Joined):
            return ids.of(message.room_name, message.epoch, message.offset)
        if isinstance(message, Event):
            for member in self.memberships:
                if member.room.number == room:
                    return member.room.event_id(sequence)
        return ""

    def refuse(self, code: ErrorCode, message: str, sequence: int, field: str = "", wait_ms: int = 0) -> None:
        """Answer that the room cannot be watched, and end."""
        self.context.errors[code] += 1
        if code is ErrorCode.ROOM_NOT_GRANTED:
            message = "guests may not watch this room: the broker's auth.guest_access does not name it"
        self._refuse(_STATUS.get(code, 503), f"{message[:1].upper()}{message[1:]}.", ceil(wait_ms / 1000))

    def _refuse(self, status: int, text: str, wait_s: int = 0) -> None:
        if not self.transport.state:
            headers = [("Retry-After", str(wait_s))] if wait_s else []
            self._events.refuse(refuse(status, text, headers), CloseCode.CLIENT_DONE)

    def close(self, code: int, reason: str, retry_after_ms: int = 0, jitter_ms: int = 0) -> None:
        """Write GOAWAY and when to come back, and end."""
        if self.transport.state:
            return
        self._flush()
        if not self._events.is_begun:
            self._refuse(503, "Try again later.", ceil(retry_after_ms / 1000))
            return
        final = b""
        if retry_after_ms or jitter_ms:
            final = retry_in(retry_after_ms + secrets.randbelow(jitter_ms + 1))
        final += event(self._own_connection().send(GoAway(code, reason, retry_after_ms, jitter_ms)))
        self.transport.close(code, reason, final)

    def on_left(self, room: RoomRef, reason: LeaveReason, message: str) -> None:
        """Write LEFT and end: there is nothing else to see here."""
        super().on_left(room, reason, message)
        self.close(CloseCode.CLIENT_DONE, "the room was left")

    def on_deadline(self, now: float) -> None:
        """Write a comment: a watcher sends no heartbeat, so the connection must show by itself that it is there."""
        self.transport.probe()
        self.context.poller.rewheel(self.transport, now + KEEP_ALIVE_S)
