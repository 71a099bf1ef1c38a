"""Session of one connection, above its bytes: its life cycle and the dispatch of its requests, without a task.

The poller calls with data; everything here is synchronous and returns at once, so a session delays no other. A peer's
violation ends its own link with a close code or is answered with ERROR; a defect of the broker ends this one session
(or the one room it came from) and is logged once.
"""

from __future__ import annotations

import structlog

from broker.core.net.send_queue import QueueMissed
from broker.net.transport import Framing, Transport
from broker.sessions.context import SessionContext
from broker.sessions.link import SessionLink
from broker.sessions.requests import REQUESTS, on_danmaku, on_post, on_refused
from protocol.codes import CloseCode, Lane, MessageType, Opcode
from protocol.connection import NEED_DATA, Connection, Frame, Refused
from protocol.errors import RemoteProtocolError
from protocol.messages import Direct, Missed
from protocol.state import LinkState

__all__ = ["Session"]

log = structlog.get_logger("roomcast.session")

MAX_WAITING_ANSWERS = 64 * 1024
"""Bytes of lanes 0-2 that wait for a link above which it is read once in `BACKLOG_READ_S` only: every request makes
one more answer."""
BACKLOG_READ_S = 1.0

# Looking an Enum member up is a call on Python 3.11, and these stand on the path of every message.
_POST, _WEBSOCKET = Opcode.POST, Framing.WEBSOCKET
_OPEN = LinkState.OPEN


class Session(SessionLink):
    """The owner of one transport. All methods are synchronous; `on_closed` is the last one called."""

    __slots__ = ("_frame_tat",)

    def __init__(self, transport: Transport, context: SessionContext) -> None:
        super().__init__(transport, context)
        self._frame_tat = 0.0
        context.sessions[self] = None

    def on_data(self, data: bytes) -> None:
        """Take bytes of a binary link."""
        self._own_connection().receive_data(data)
        self.handle()

    def on_text(self, text: str) -> None:
        """Take a message of a JSON link."""
        self._own_connection().receive_text(text)
        self.handle()

    def handle(self) -> None:
        """Handle the bytes that have come."""
        if self.parts.is_held:
            return
        self._drain(self._own_connection())
        connection = self.connection
        if connection is None or self.parts.is_held:
            return
        if self.transport.framing is _WEBSOCKET and connection.mid_frame:
            self.close(CloseCode.BAD_TRANSPORT, "a message holds a whole number of frames")
        elif self.context.connections.give_back(connection):
            self.connection = None

    def _own_connection(self) -> Connection:
        connection = self.connection
        if connection is None:
            connection = self.connection = self.context.connections.take(self._encoding)
        return connection

    def _drain(self, connection: Connection) -> None:
        """Handle every event there is; answers to POSTs gather into one ACK per room, all answers into one write."""
        transport = self.transport
        next_event, take_danmaku = connection.next_event, connection.take_danmaku
        self._acks = {}
        self._out = []
        frames = posts = 0
        try:
            if self.parts.calls is not None:
                self.parts.calls.take_held()
            while not transport.state and self.connection is connection:
                danmaku = take_danmaku() if connection.peer_state is _OPEN else ()
                if danmaku:
                    frames += len(danmaku)
                    posts += len(danmaku)
                    on_danmaku(self, danmaku)
                    continue
                event = next_event()
                if event is NEED_DATA:
                    break
                frames += 1
                if type(event) is Frame:
                    if event[0] is _POST:
                        posts += 1
                        on_post(self, event)
                    else:
                        REQUESTS[event[0]](self, event)
                        if self.parts.is_held:
                            break
                elif type(event) is Refused:
                    on_refused(self, event)
        except RemoteProtocolError as error:
            self.close(error.code, error.reason)
        except Exception:
            log.exception("session failed", address=transport.address)
            self.close(CloseCode.INTERNAL_ERROR, "internal error")
        finally:
            self._flush()
        context = self.context
        context.posts += posts
        if frames:
            self._throttle(frames)

    def _throttle(self, frames: int) -> None:
        """Leave a flooding link unread until its frames fit the rate again, and one that does not take its answers."""
        context = self.context
        now, limit = context.poller.now, context.app_frame_limit if self.parts.is_app else context.frame_limit
        self._frame_tat = limit.charge(self._frame_tat, now, frames)
        wait_s = limit.wait_s(self._frame_tat, now)
        if self.unread_bytes > MAX_WAITING_ANSWERS:
            wait_s = max(wait_s, BACKLOG_READ_S)
        if wait_s and not self.parts.is_held and not self.transport.state:
            context.poller.pause_reading(self.transport, now + wait_s)

    def on_backlog(self) -> None:
        """Let the rooms publish to the queue from now on: the socket is full."""
        for member in self.memberships:
            member.room.members.use_slow_path(member)

    def on_drained(self, missed: QueueMissed) -> None:
        """Send this viewer what it missed: the queue has drained."""
        chat, ambient = missed.chat_weight, missed.ambient_frames
        if chat or ambient:
            self.own_parts().missed_chat += chat
            self.context.missed_chat += chat
            at_ms = self.context.unix_ms()
            self.send(Direct(0, MessageType.MISSED, at_ms, Missed(chat, ambient)), lane=Lane.COMMERCE)
        if ambient:
            for member in self.memberships:
                room = member.room
                counters, number = room.state.counters.state_for_one(at_ms)
                self.send(counters, room.number, number, Lane.AMBIENT)

    def on_overflow(self) -> None:
        """End the link so that it can resume: lanes 0-2 would have a gap, or no byte moves any more."""
        self.close(CloseCode.SLOW_VIEWER, "too far behind; resume from the last position")

    def on_closed(self, code: int, reason: str) -> None:
        """Leave every room and the registry. The last call."""
        context = self.context
        context.sessions.pop(self, None)
        context.closed[code] += 1
        now = context.poller.refresh_clock()  # a sweep may have found the socket broken, between two turns
        for member in self.memberships:
            self.leave(member, now)
        self.memberships = ()
        parts = self.parts
        if parts.relays is not None:
            parts.relays.close()
        if parts.senders is not None:
            parts.senders.close()
        if parts.reviews is not None:
            parts.reviews.close()
        if parts.calls is not None:
            parts.calls.close()
        grant, self.grant = self.grant, None
        if grant is not None:
            context.users.remove(grant.user_id, self)
            if context.nodes is not None:
                context.nodes.user_links.removed(grant.user_id, self)
            if grant.tenant and not self.is_remote:
                context.hub.tenants.disconnect(grant.tenant)
            if context.inboxes is not None:
                context.inboxes.leave(grant.user_id, self)
        log.debug("link closed", code=int(code), reason=reason, address=self.transport.address)
