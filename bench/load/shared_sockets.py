"""Way (b): real members in one broker process that share sockets, each with its own queue and its own send(2).

A process may hold 20,000 descriptors here, so 100,000 viewers cannot have a socket each. The viewers are real `Member`
objects of real rooms, written by the broker's own fan-out: every viewer costs one ``send`` on a real socket and has its
own queue and limits. Only the socket is shared, by as few viewers as the descriptors allow; the report says how many.

A shared socket must not mix the bytes of two viewers: when it has accepted a part of one viewer's frame, it refuses the
others (``BlockingIOError``, as a full socket does) until that frame is complete. Otherwise a member's socket is the
real one, so the hot loop is the same as with a socket for each.

The receiving process (`viewers`, with ``shared``) counts and times every copy. These viewers have no sessions,
heartbeats or handshakes; those are measured with real links.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Sequence
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
from protocol.messages import AckResult, FirstResult

if TYPE_CHECKING:
    from broker.rooms.hub import Hub
    from broker.rooms.members import RoomRef
    from broker.rooms.room import Room

__all__ = ["SharedLink", "SharedSocket", "SharedViewers"]

_FOREVER_S = 86_400.0


class _FullSocket:
    """The socket of a viewer while the frame of another is partly written."""

    def send(self, data: bytes | memoryview) -> int:
        raise BlockingIOError


_FULL = cast(socket.socket, _FullSocket())


class SharedSocket(Transport):
    """One real socket and the viewers that share it (``links``); the poller knows only the socket."""

    __slots__ = ("link_settings", "links", "partial", "taken_at", "waiting")

    def __init__(self, sock: socket.socket, settings: TransportSettings) -> None:
        super().__init__(sock, settings, "shared")
        # To its links this object is the poller.
        self.link_settings = replace(settings, poller=cast(Poller, self), on_released=lambda link: None)
        self.links: list[SharedLink] = []
        self.waiting: dict[SharedLink, None] = {}
        """Viewers with a queue, in the order in which their backlogs began."""
        self.taken_at = 0.0
        """When the socket took bytes last, monotonic seconds."""
        self.partial: SharedLink | None = None
        """The viewer whose frame is partly written."""

    @property
    def progress_at(self) -> float:
        return self.taken_at

    # Called by links, to which this is the poller.

    @property
    def now(self) -> float:
        return self.poller.now

    def watch_writable(self, link: SharedLink) -> None:
        if not self.waiting:
            self.taken_at = self.poller.now
            self.poller.watch_writable(self)
        self.waiting[link] = None

    def unwatch_writable(self, link: SharedLink) -> None:
        self.waiting.pop(link, None)
        if self.partial is link:
            if link.state:
                self.abort_all()
                return
            self.unblock()
        if not self.waiting:
            self.poller.unwatch_writable(self)

    def rewheel(self, link: SharedLink, due: float) -> None:
        """Shared links have no deadlines."""

    def remove(self, link: SharedLink) -> None:
        self.unwatch_writable(link)

    def block_others(self, partial: SharedLink) -> None:
        """Refuse the sends of all other links until ``partial`` has written its frame."""
        self.partial = partial
        partial.sock = self.sock
        for link in self.links:
            if link is not partial:
                link.sock = _FULL
                if link.owner is not None:
                    link.owner.on_backlog()  # the fan-out must not call the socket's own send

    def unblock(self) -> None:
        """Let every link write again: no frame is partly written."""
        self.partial = None
        for link in self.links:
            link.sock = self.sock

    def abort_all(self) -> None:
        """Abort all links: one of them closed within a frame, so the socket is unusable."""
        self.partial = None
        for link in self.links:
            link.abort("its socket was closed within a frame")
        self.release()

    # Called by the poller.

    def on_writable(self) -> None:
        """Let waiting links write, first the one with a partial frame; stop when the socket is full again."""
        order = list(self.waiting)
        if self.partial is not None and self.partial in self.waiting:
            order.remove(self.partial)
            order.insert(0, self.partial)
        for link in order:
            if self.partial is None:
                self.block_others(link)
            link.on_writable()
            if link.queue is not None:
                return
            if self.partial is link:
                self.unblock()
        self.taken_at = self.poller.now

    def on_readable(self) -> None:
        """Read the end of file: it ends all links, and nothing else is expected."""
        try:
            data = self.sock.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            for link in list(self.links):
                link.abort("the receiver closed the connection")
            self.release()

    def on_bytes(self, data: bytes) -> None:
        """Ignore the bytes: none are expected."""


class SharedLink(TcpTransport):
    """One viewer's transport on a shared socket."""

    __slots__ = ("shared",)

    def __init__(self, shared: SharedSocket) -> None:
        super().__init__(shared.sock, shared.link_settings, "shared")
        self.shared = shared

    def start_backlog(self, parts: tuple[Part, ...], sent: int) -> None:
        if sent and not self.state:
            self.shared.block_others(self)
        super().start_backlog(parts, sent)

    def shut_down(self) -> None:
        """Do nothing: the socket belongs to all its links."""

    def release(self) -> None:
        """Detach from the socket, which stays open for the other links."""
        if self.fd >= 0:
            self.fd = -1
            self.shared.remove(self)


class SharedViewer:
    """Session of one viewer, with the methods that rooms and transports call."""

    __slots__ = ("all_viewers", "member", "room", "transport")

    def __init__(
        self, all_viewers: SharedViewers, transport: Transport, room: Room, user_id: str, variant: int
    ) -> None:
        self.all_viewers = all_viewers
        self.transport = transport
        self.room = room
        self.member = Member(self, user_id, "", Role.VIEWER, frozenset(), variant)

    def on_data(self, data: bytes) -> None:
        """Ignore it: these viewers send nothing."""

    def on_text(self, text: str) -> None:
        """Ignore it: these viewers send nothing."""

    def on_backlog(self) -> None:
        self.room.members.use_slow_path(self.member)

    def on_drained(self, missed: QueueMissed) -> None:
        self.all_viewers.missed_chat_frames += missed.chat_frames
        self.all_viewers.missed_ambient_frames += missed.ambient_frames + missed.superseded
        self.all_viewers.missed_danmaku += missed.chat_weight

    def on_overflow(self) -> None:
        self.transport.abort("too far behind", CloseCode.SLOW_VIEWER)

    def on_deadline(self, now: float) -> None:
        """These viewers have no deadlines."""

    def on_closed(self, code: int, reason: str) -> None:
        self.all_viewers.closed += 1

    def reply_acks(self, room: int, results: list[AckResult], firsts: Sequence[FirstResult] = ()) -> None:
        """These viewers post nothing."""

    def reply_with_reason(self, room: int, result: AckResult, reason: str, retry_after_ms: int = 0) -> None:
        """These viewers post nothing."""

    def on_left(self, room: RoomRef, reason: LeaveReason, message: str) -> None:
        """The room is gone; the run ends soon."""


class SharedViewers:
    """All viewers on shared sockets, in rooms ``bench-0`` and up.

    Viewer v is in room v mod rooms, on socket v mod sockets.
    """

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
        """Accept ``count`` receivers and sort them by the number that each sends first."""
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

    async def add_members(self) -> None:
        """Create every viewer and let it enter its room. About 10 us a viewer; other tasks run in between."""
        rooms: list[Room] = []
        for index in range(self._room_count):
            room = self._hub.open(f"bench-{index}")
            assert not isinstance(room, int), "the hub opens the rooms of the bench"
            rooms.append(room)
            self.rooms[room.number] = room.name
        for number in range(self._viewers):
            shared = self.sockets[number % len(self.sockets)]
            link = SharedLink(shared)
            shared.links.append(link)
            session = SharedViewer(self, link, rooms[number % len(rooms)], f"viewer-{number}", self._variant)
            link.owner = session
            self.members.append(session.member)
            session.room.enter(session.member, self._now())
            if number % 200 == 0:
                await trio.lowlevel.checkpoint()
