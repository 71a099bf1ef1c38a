"""Way (b): a crowd of real members in one broker process, each with its own queue and its own send(2).

A process may hold 20,000 descriptors here, so 100,000 viewers cannot have a socket each. In a crowd they are real
`Member` objects of real rooms, swept by the broker's own fan-out: every viewer costs one ``send`` on a real socket
and has its own queue and its own limits. Only the socket is shared, by as few viewers as the descriptors allow; the
report says by how many.

What a shared socket must not do is mix two viewers' bytes: when it has taken a part of one viewer's frame, the others
are refused (``BlockingIOError``, as a full socket would) until that frame is whole. In the undisturbed case a
member's ``send`` is the socket's own bound method, so the hot loop is the same as with a socket each.

The receiving process (`viewers`, ``crowd``) counts and times every copy. What a crowd does not have: sessions,
heartbeats, and the handshake; those are measured with real links.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import trio
import trio.lowlevel

from broker.core.net.send_queue import QueueMissed
from broker.net.poller import Poller
from broker.net.transport import Framing, Part, TcpTransport, Transport, TransportSettings
from broker.rooms.encoding import variant_of
from broker.rooms.members import Member
from protocol.codes import CloseCode, Codec, LeaveReason, Role, Tier
from protocol.messages import AckResult

if TYPE_CHECKING:
    from broker.rooms.hub import Hub
    from broker.rooms.members import RoomRef
    from broker.rooms.room import Room

__all__ = ["Crowd", "SharedLink", "SharedSocket"]

_FOREVER_S = 86_400.0


def _refuse(data: bytes | memoryview) -> int:
    """A ``send`` while another viewer's frame is half written."""
    raise BlockingIOError


class SharedSocket(Transport):
    """One real socket and the viewers that share it. The poller knows only this; ``links`` are the viewers."""

    __slots__ = ("begun", "for_links", "links", "waiting")

    def __init__(self, sock: socket.socket, settings: TransportSettings) -> None:
        super().__init__(sock, settings, "crowd")
        # The socket stands in the poller's place: all that a link asks of its poller, it answers.
        self.for_links = replace(settings, poller=cast(Poller, self), on_released=lambda link: None)
        self.links: list[SharedLink] = []
        self.waiting: dict[SharedLink, None] = {}
        """Viewers with a queue, in the order in which they fell behind."""
        self.begun: SharedLink | None = None
        """The viewer whose frame is half written."""

    # What a link asks of its poller, this answers in the poller's place.

    @property
    def now(self) -> float:
        return self.poller.now

    def watch_writable(self, link: SharedLink) -> None:
        if not self.waiting:
            self.progress_at = self.poller.now
            self.poller.watch_writable(self)
        self.waiting[link] = None

    def unwatch_writable(self, link: SharedLink) -> None:
        self.waiting.pop(link, None)
        if self.begun is link:
            if link.state:
                self.break_off()
                return
            self.let_go()
        if not self.waiting:
            self.poller.unwatch_writable(self)

    def rewheel(self, link: SharedLink, due: float) -> None:
        """A link of a crowd has no deadlines."""

    def remove(self, link: SharedLink) -> None:
        self.unwatch_writable(link)

    def hold(self, begun: SharedLink) -> None:
        """Refuse everybody else until ``begun`` has nothing left to write."""
        self.begun = begun
        begun.send = self.sock.send
        for link in self.links:
            if link is not begun:
                link.send = _refuse
                if link.owner is not None:
                    link.owner.on_backlog()  # the fan-out must not call the socket's own send

    def let_go(self) -> None:
        """Nobody's frame is half written any more."""
        self.begun = None
        for link in self.links:
            link.send = self.sock.send

    def break_off(self) -> None:
        """A viewer went in the middle of a frame: nobody can use this socket any more."""
        self.begun = None
        for link in self.links:
            link.abort("its socket broke off within a frame")
        self.release()

    # What the poller calls.

    def on_writable(self) -> None:
        """Let those who wait write, first the one whose frame is begun; stop when the socket is full again."""
        order = list(self.waiting)
        if self.begun is not None and self.begun in self.waiting:
            order.remove(self.begun)
            order.insert(0, self.begun)
        for link in order:
            if self.begun is None:
                self.hold(link)
            link.on_writable()
            if link.queue is not None:
                return
            if self.begun is link:
                self.let_go()
        self.progress_at = self.poller.now

    def on_readable(self) -> None:
        """The receiver says nothing after its first word; an end of file ends all its viewers."""
        try:
            data = self.sock.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            for link in list(self.links):
                link.abort("the receiver has gone")
            self.release()

    def on_bytes(self, data: bytes) -> None:
        """Nothing is expected."""


class SharedLink(TcpTransport):
    """One viewer's transport on a shared socket."""

    __slots__ = ("shared",)

    def __init__(self, shared: SharedSocket) -> None:
        super().__init__(shared.sock, shared.for_links, "crowd")
        self.shared = shared

    def start_backlog(self, parts: tuple[Part, ...], sent: int) -> None:
        if sent and not self.state:
            self.shared.hold(self)
        super().start_backlog(parts, sent)

    def shut_down(self) -> None:
        """The socket is not this viewer's to close."""

    def release(self) -> None:
        """Leave the socket to the others."""
        if self.fd >= 0:
            self.fd = -1
            self.shared.remove(self)


class Seat:
    """A viewer's session, as far as a room and a transport know one."""

    __slots__ = ("crowd", "member", "room", "transport")

    def __init__(self, crowd: Crowd, transport: Transport, room: Room, user_id: str, variant: int) -> None:
        self.crowd = crowd
        self.transport = transport
        self.room = room
        self.member = Member(self, user_id, "", Role.VIEWER, frozenset(), variant)

    def on_data(self, data: bytes) -> None:
        """Viewers of a crowd say nothing."""

    def on_text(self, text: str) -> None:
        """Viewers of a crowd say nothing."""

    def on_backlog(self) -> None:
        self.room.members.use_slow_path(self.member)

    def on_drained(self, missed: QueueMissed) -> None:
        self.crowd.missed_chat_frames += missed.chat_frames
        self.crowd.missed_ambient_frames += missed.ambient_frames + missed.superseded
        self.crowd.missed_danmaku += missed.chat_weight

    def on_overflow(self) -> None:
        self.transport.abort("too far behind", CloseCode.SLOW_VIEWER)

    def on_deadline(self, now: float) -> None:
        """Viewers of a crowd have no deadlines."""

    def on_closed(self, code: int, reason: str) -> None:
        self.crowd.closed += 1

    def reply_acks(self, room: int, results: list[AckResult]) -> None:
        """Viewers of a crowd post nothing."""

    def on_left(self, room: RoomRef, reason: LeaveReason, message: str) -> None:
        """The room is gone; so is the crowd, soon."""


class Crowd:
    """All members of one crowd, in rooms ``bench-0`` and up. Viewer v sits in room v mod rooms, on socket v mod
    sockets."""

    def __init__(
        self,
        hub: Hub,
        transports: TransportSettings,
        *,
        viewers: int,
        rooms: int,
        websocket: bool,
        codec: Codec,
        now: Callable[[], float],
    ) -> None:
        self._hub = hub
        self._transports = transports
        self._poller = transports.poller
        self._viewers = viewers
        self._room_count = rooms
        framing = Framing.WEBSOCKET if websocket else Framing.TCP
        self._variant = variant_of(framing, codec, Tier.FULL)
        self.websocket = websocket
        self._now = now
        self.sockets: list[SharedSocket] = []
        self.members: list[Member] = []
        self.rooms: dict[int, str] = {}
        self.missed_chat_frames = 0
        self.missed_ambient_frames = 0
        self.missed_danmaku = 0
        self.closed = 0

    async def accept(self, listener: socket.socket, count: int) -> None:
        """Take ``count`` receivers in, in the order of the number each of them says first."""
        found: dict[int, socket.socket] = {}
        while len(found) < count:
            await trio.lowlevel.wait_readable(listener)
            for _ in range(64):
                try:
                    sock, _ = listener.accept()
                except BlockingIOError:
                    break
                sock.setblocking(False)
                await trio.lowlevel.wait_readable(sock)
                (index,) = struct.unpack("!I", sock.recv(4))
                found[index] = sock
        for index in sorted(found):
            shared = SharedSocket(found[index], self._transports)
            self._poller.add(shared, self._poller.now + _FOREVER_S)
            self.sockets.append(shared)

    async def sit_down(self) -> None:
        """Make every viewer and seat it. About 10 us a viewer; other tasks run in between."""
        rooms: list[Room] = []
        for index in range(self._room_count):
            room = self._hub.open(f"bench-{index}")
            assert not isinstance(room, int), "the hub opens a bench's rooms"
            rooms.append(room)
            self.rooms[room.number] = room.name
        for viewer in range(self._viewers):
            shared = self.sockets[viewer % len(self.sockets)]
            link = SharedLink(shared)
            shared.links.append(link)
            seat = Seat(self, link, rooms[viewer % len(rooms)], f"viewer-{viewer}", self._variant)
            link.owner = seat
            self.members.append(seat.member)
            seat.room.enter(seat.member, self._now())
            if viewer % 200 == 0:
                await trio.lowlevel.checkpoint()

    def end(self) -> None:
        """Close every socket."""
        for shared in self.sockets:
            for link in shared.links:
                link.abort("the bench is over")
            shared.release()
