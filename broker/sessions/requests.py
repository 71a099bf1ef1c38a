"""Requests of a connection by opcode: HELLO, AUTH, JOIN, RESUME, POST, LEAVE, ACK, CALL, PING, GOAWAY.

Each function answers one frame at once, or leaves it to what waits for the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from sys import intern

import structlog

from broker.core.tenants.names import qualify
from broker.net.transport import Framing
from broker.rooms.room import Room
from broker.sessions.calls import LinkCalls
from broker.sessions.joining import PendingJoin
from broker.sessions.link import SessionLink
from broker.sessions.login import on_auth
from broker.sessions.posting import RoomSenders
from broker.sessions.renewal import renew_token
from broker.sessions.reviews import ReviewedPosts
from broker.sessions.room_member import RoomMember
from broker.sessions.waiting import WaitingPosts
from protocol.codes import CloseCode, ErrorCode, Feature, Lane, LeaveReason, MessageType, Opcode, Outcome
from protocol.connection import Frame, Refused
from protocol.messages import (
    VERSION,
    AckResult,
    ClientHello,
    DirectAck,
    Join,
    Left,
    Ping,
    Pong,
    Post,
    Resume,
    common_version,
)

__all__ = ["REQUESTS", "on_danmaku", "on_post", "on_refused", "senders_of"]

log = structlog.get_logger("roomcast.session")

WAITING_RETRY_MS = 500
"""When to repeat a post that was refused because too many of its link wait for the ledger."""
_POST, _CONTROL, _DANMAKU = Opcode.POST, Lane.CONTROL, MessageType.DANMAKU
_JSON = Framing.WEBSOCKET_JSON
_CODECS = int(Feature.LZ4 | Feature.LZ4_DICT_1)
_TICKET = int(Feature.TICKET)


def on_post(link: SessionLink, frame: Frame) -> None:
    """Give a message to its room, or answer why not."""
    _, _, number, sequence, post = frame
    context = link.context
    if post.type in context.durable_types:  # type: ignore[union-attr]
        waits = link.parts.waiting_posts
        if waits is None:
            waits = link.own_parts().waiting_posts = WaitingPosts()
        if not waits.add(number, sequence, 0 if link.connection is None else link.connection.post_bytes):
            link.send_acks(number, [AckResult(sequence, Outcome.LIMITED, WAITING_RETRY_MS)])
            return
    for member in link.memberships:
        room = member.room
        if room.number == number:
            if context.reviewed_types and isinstance(room, Room):
                reviews = link.parts.reviews
                if reviews is None:
                    reviews = link.own_parts().reviews = ReviewedPosts(link, context)
                if reviews.take(room, member, sequence, post):  # type: ignore[arg-type]
                    return
            try:
                room.post(member, sequence, post, context.poller.now)  # type: ignore[arg-type]
            except Exception:
                if not isinstance(room, Room):
                    raise
                context.hub.crash(room)
            return
    if not number and post.room_name is not None:  # type: ignore[union-attr]
        if context.nodes is not None and link.grant is not None:
            name = qualify(link.grant.tenant, post.room_name)  # type: ignore[union-attr]
            if context.nodes.post_to(link, name, sequence, post):
                return
        senders_of(link).post(sequence, post, link.guard)  # type: ignore[arg-type]
        return
    link.error(ErrorCode.NOT_JOINED, "join the room first", number, sequence, "room")


def on_danmaku(link: SessionLink, danmaku: Sequence[tuple[int, int, Post]]) -> None:
    """Give messages to their rooms, as `on_post` each; those after one that ends the link are not read."""
    context, transport = link.context, link.transport
    now = context.poller.now
    if _DANMAKU in context.durable_types or context.reviewed_types:
        for number, sequence, post in danmaku:
            on_post(link, Frame(_POST, _CONTROL, number, sequence, post))
            if transport.state:
                return
        return
    memberships: Sequence[RoomMember] = ()
    last = -1
    for number, sequence, post in danmaku:
        if number != last or memberships is not link.memberships:
            memberships, last = link.memberships, number
            member = next((each for each in memberships if each.room.number == number), None)
            if member is None:
                last = -1
                on_post(link, Frame(_POST, _CONTROL, number, sequence, post))
            else:
                room = member.room
        if member is not None:
            try:
                room.post(member, sequence, post, now)
            except Exception:
                if not isinstance(room, Room):
                    raise
                context.hub.crash(room)
        if transport.state:
            return


def senders_of(link: SessionLink) -> RoomSenders:
    """Return the rooms that a link posts to without joining them."""
    senders = link.parts.senders
    if senders is None:
        senders = link.own_parts().senders = RoomSenders(link, link.context)
    return senders


def on_refused(link: SessionLink, refused: Refused) -> None:
    """Answer a frame that is well-formed and breaks a rule."""
    where = f"{refused.opcode.name}.{refused.field}" if refused.field else refused.opcode.name
    link.error(refused.code, f"{where} {refused.rule}"[:256], refused.room, refused.sequence, refused.field[:64])


def _on_hello(link: SessionLink, frame: Frame) -> None:
    hello = frame.message
    assert isinstance(hello, ClientHello)
    context = link.context
    if common_version(hello) is None:
        link.close(CloseCode.UNSUPPORTED_VERSION, f"this broker speaks version {VERSION}")
        return
    link.agent = intern(hello.agent)
    features = hello.features & context.features
    link.features = own = features & ~_CODECS if link.transport.framing is _JSON else features
    link.codec = context.hub.dictionaries.choose(own, hello.dictionaries, context.poller.now)
    answer = context.hello(features, hello.dictionaries)
    link.send(answer if own == features else answer._replace(dictionaries=()))


def _on_join(link: SessionLink, frame: Frame) -> None:
    request = frame.message
    assert isinstance(request, (Join, Resume))
    assert link.grant is not None, "the link's state table lets JOIN and RESUME pass only after AUTH"
    plain = request
    if link.grant.tenant:
        request = request._replace(room_name=qualify(link.grant.tenant, request.room_name))
    nodes = link.context.nodes
    if nodes is None:
        PendingJoin(link, link.context, request, frame.sequence).proceed()
    else:
        nodes.join(link, request, frame.sequence, plain)


def _on_leave(link: SessionLink, frame: Frame) -> None:
    for member in link.memberships:
        room = member.room
        if room.number == frame.room:
            link.memberships = tuple(each for each in link.memberships if each is not member)
            if link.parts.reviews is not None:
                link.parts.reviews.leave(room.number)
            link.leave(member, link.context.poller.now)
            link.send(Left(LeaveReason.REQUESTED), frame.room, frame.sequence)
            return
    link.error(ErrorCode.NOT_JOINED, "join the room first", frame.room, frame.sequence, "room")


def _on_direct_ack(link: SessionLink, frame: Frame) -> None:
    """The user has seen its messages up to here; without a ledger there are none that need it."""
    message, grant, inboxes = frame.message, link.grant, link.context.inboxes
    if inboxes is not None and grant is not None:
        assert isinstance(message, DirectAck)
        inboxes.acknowledge(grant.user_id, link, message.direct_id)


def _on_call(link: SessionLink, frame: Frame) -> None:
    calls = link.parts.calls
    if calls is None:
        calls = link.own_parts().calls = LinkCalls(link, link.context.operations, link.context.call_tasks)
    if link.context.call_turns.admits(link):
        calls.take(frame.room, frame.sequence, frame.message)  # type: ignore[arg-type]
    else:
        calls.held = frame


def _on_ping(link: SessionLink, frame: Frame) -> None:
    ping = frame.message
    assert isinstance(ping, Ping)
    rooms = tuple(each.room.state.counters.pulse(each.room.number) for each in link.memberships)
    ticket, expires_at_ms = "", 0
    now = link.context.poller.now
    if ping.token is not None and link.grant is not None:
        if not renew_token(link, ping.token, frame.sequence):
            return
        expires_at_ms = int(link.grant.expires_at * 1000)
        if link.features & _TICKET:
            ticket, _ = link.context.auth.ticket(link.grant)
    elif ping.renew and link.grant is not None and link.features & _TICKET and now >= link.renew_at:
        ticket, _ = link.context.auth.ticket(link.grant)
        link.renew_at = now + link.context.renew_every_s
    pong = Pong(ping.client_ms, link.context.unix_ms(), rooms, link.parts.missed_chat, ticket, expires_at_ms)
    link.send(pong, 0, frame.sequence)


def _on_goaway(link: SessionLink, frame: Frame) -> None:
    link.transport.close(CloseCode.CLIENT_DONE, "the client closed")


REQUESTS: dict[Opcode, Callable[[SessionLink, Frame], None]] = {
    Opcode.HELLO: _on_hello,
    Opcode.AUTH: on_auth,
    Opcode.JOIN: _on_join,
    Opcode.RESUME: _on_join,
    Opcode.LEAVE: _on_leave,
    Opcode.ACK: _on_direct_ack,
    Opcode.CALL: _on_call,
    Opcode.PING: _on_ping,
    Opcode.GOAWAY: _on_goaway,
}
"""What answers a frame of each opcode but POST."""
