"""Clients of the demo: each `DemoUser` is one real client in one room, over a real socket.

Received events go to a function; `DemoUser.post` posts and counts the outcome.
`CuttableConnector` makes a connection that can be cut; `PausableConnector` one that can stop reading, so that
the kernel's buffers fill up and the broker has a slow viewer.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import trio

from broker.demo.accounting import Accounting
from broker.server import Broker
from protocol.clients import (
    Address,
    BytePipe,
    ClientClosed,
    Connector,
    JoinedRoom,
    PipeLost,
    Rejoined,
    RoomEvent,
    RoomRefused,
    StreamEvent,
    StreamPipe,
    connector,
    open_client,
)
from protocol.codes import Tier

__all__ = ["CuttableConnector", "DemoUser", "PausableConnector", "SmallBuffers", "StalledState", "StalledViewer"]

JOIN_S = 60.0
"""Timeout of connect and join; a machine under load needs some of it."""
INBOX_ITEMS = 200
"""Unread events of a client; above it the client drops chat by its own rule."""
WATCH_S = 0.02
"""Interval at which the stalled viewer's queue is inspected."""
RECEIVE_BUFFER_BYTES = 4096
"""Two seconds of a full room. With the system's 128 KiB a viewer without processor time would be minutes behind before
the broker could notice it and drop chat for it."""


class SmallBuffers(trio.abc.SocketFactory):
    """Makes sockets with `RECEIVE_BUFFER_BYTES`; it must be set before they connect, or the first window is large."""

    def socket(
        self,
        family: socket.AddressFamily | int | None = None,
        type: socket.SocketKind | int | None = None,
        proto: int | None = None,
    ) -> trio.socket.SocketType:
        made = socket.socket(-1 if family is None else family, -1 if type is None else type, proto or 0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        return trio.socket.from_stdlib_socket(made)


class CuttableConnector:
    """Connector whose connection can be cut without a close frame."""

    def __init__(self, connect: Connector | None = None) -> None:
        """``connect`` makes the connections; None = the client's own connector."""
        self._connect = connect if connect is not None else connector()
        self._pipe: BytePipe | None = None

    async def __call__(self, nursery: trio.Nursery, address: Address) -> BytePipe:
        self._pipe = await self._connect(nursery, address)
        return self._pipe

    async def cut(self) -> None:
        """Close the present connection without a close frame."""
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            await pipe.aclose()


class PausableConnector:
    """Connector for TCP whose connections are not read while it is paused."""

    def __init__(self) -> None:
        self._readable = trio.Event()
        self._readable.set()
        self.local_port = 0
        """Local port of the present connection, by which the broker's side of it is found."""

    async def __call__(self, nursery: trio.Nursery, address: Address) -> BytePipe:
        sock = SmallBuffers().socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            await sock.connect((address.host, address.port))
        except OSError as error:
            sock.close()
            raise PipeLost(None, str(error)) from error
        except BaseException:
            sock.close()
            raise
        self.local_port = sock.getsockname()[1]
        return PausablePipe(StreamPipe(trio.SocketStream(sock)), self)

    def pause(self) -> None:
        """Stop reading, after the bytes that are awaited now."""
        if self._readable.is_set():
            self._readable = trio.Event()

    def resume(self) -> None:
        """Continue reading."""
        self._readable.set()

    @property
    def is_paused(self) -> bool:
        return not self._readable.is_set()

    async def wait_readable(self) -> None:
        """Wait while it is paused."""
        await self._readable.wait()


class PausablePipe:
    """`BytePipe` whose reads wait while its connector is paused."""

    def __init__(self, pipe: BytePipe, connector: PausableConnector) -> None:
        self._pipe = pipe
        self._connector = connector

    async def send(self, data: bytes) -> None:
        await self._pipe.send(data)

    async def receive(self) -> bytes:
        await self._connector.wait_readable()
        return await self._pipe.receive()

    async def aclose(self, code: int | None = None) -> None:
        await self._pipe.aclose(code)


class DemoUser:
    """One client in one room. ``on_event`` is called with each event, in order."""

    def __init__(
        self,
        url: str,
        user: str,
        tier: Tier,
        on_event: Callable[[RoomEvent], object],
        rng: Random,
        connect: Connector | None = None,
        inbox_items: int = INBOX_ITEMS,
    ) -> None:
        """``user``: USER or USER:ROLE, as a broker in development mode accepts them."""
        self.url = url
        self.tier = tier
        self.user = user
        self.unanswered = 0
        """Posts without a result."""
        self.room: JoinedRoom | None = None
        self._on_event = on_event
        self._rng = rng
        self._connect = connect
        self._inbox_items = inbox_items
        self._receiving = trio.CancelScope()
        self._answered = trio.lowlevel.ParkingLot()
        self._left = trio.Event()

    @property
    def is_websocket(self) -> bool:
        return self.url.startswith("ws")

    @property
    def is_joined(self) -> bool:
        """Whether the client is in the room now."""
        return self.room is not None and self.room.is_joined

    @property
    def offset(self) -> int:
        """Offset of the last event of lanes 0-2 that it has received."""
        position = self.room.position if self.room is not None else None
        return position.offset if position is not None else 0

    async def run(self, room_name: str, task_status: trio.TaskStatus[JoinedRoom] = trio.TASK_STATUS_IGNORED) -> None:
        """Connect, join, report the room as started, and receive until `leave`."""
        async with open_client(
            self.url,
            f"dev:{self.user}",
            rng=self._rng,
            connect=self._connect,
            open_timeout_s=JOIN_S,
            inbox_items=self._inbox_items,
        ) as client:
            with trio.fail_after(JOIN_S):
                while self.room is None:
                    try:
                        self.room = await client.join(room_name, self.tier, timeout_s=JOIN_S)
                    except RoomRefused as refused:
                        if not 300 <= refused.code < 400:
                            raise
                        await trio.sleep(refused.retry_after_ms / 1000 * self._rng.uniform(0.5, 1.0) + 0.1)
            task_status.started(self.room)
            with self._receiving:
                async for event in self.room:
                    self._on_event(event)
        self._left.set()

    def leave(self) -> None:
        """Let `run` leave the room and return."""
        self._receiving.cancel()

    async def wait_left(self) -> None:
        """Wait until `run` has left the room."""
        await self._left.wait()

    async def wait_answered(self) -> None:
        """Wait until every post has its result."""
        await trio.lowlevel.checkpoint()
        while self.unanswered:
            await self._answered.park()

    async def post(self, accounting: Accounting, group: str, type: int, payload: Any) -> int:
        """Post, count the result, and return the milliseconds to wait before a repetition (0 = do not repeat).

        Any: the payload that `protocol.payloads` defines for ``type``.
        """
        if self.room is None:
            return 0
        self.unanswered += 1
        try:
            result = await self.room.post(type, payload, timeout_s=math.inf)
        except ClientClosed:
            return 0
        finally:
            self.unanswered -= 1
            if not self.unanswered:
                self._answered.unpark_all()
        accounting.record(group, type, payload, result)
        return result.retry_after_ms


class StalledState(NamedTuple):
    """State of the viewer that stops reading."""

    state: str = "reads"
    queued_frames: int = 0
    queued_bytes: int = 0
    keyframe: bool = False
    """Whether keyframe mode was on at any time."""
    was_cut: bool = False
    is_back: bool = False
    recovered: bool = False
    events: int = 0
    """Events of lanes 0-2 that were replayed after the resume."""


class StalledViewer:
    """One viewer that can stall. ``state`` is what the screen shows."""

    def __init__(self, url: str, broker: Broker, rng: Random) -> None:
        self.state = StalledState()
        self._connector = PausableConnector()
        self.member = DemoUser(url, "口袋里的手机", Tier.FULL, self._on_event, rng, self._connector)
        self._broker = broker
        self._target: int | None = None

    async def stall(self, absent_s: float) -> None:
        """Stop reading until the broker has cut the link, and ``absent_s`` longer; `resume_reading` ends it earlier."""
        self._connector.pause()
        self.state = StalledState("does not read")
        port = self._connector.local_port
        while (link := self._link_from(port)) is not None:
            if not self._connector.is_paused:
                self.state = StalledState("reads again, was not cut", keyframe=self.state.keyframe)
                return
            queue = link.queue
            if queue is not None:
                text = "keyframe mode: chat is dropped" if queue.keyframe else "backlogged: frames are queued"
                self.state = StalledState(text, queue.frames, queue.nbytes, self.state.keyframe or queue.keyframe)
            await trio.sleep(WATCH_S)
        self.state = StalledState("cut: too slow (4001), may resume", keyframe=self.state.keyframe, was_cut=True)
        await trio.sleep(absent_s)
        self._connector.resume()

    def resume_reading(self) -> None:
        """Continue reading."""
        self._connector.resume()

    def has_returned(self, last_offset: int) -> bool:
        """Return whether it has received everything up to ``last_offset``, by a resume if it was cut."""
        return (self.state.is_back or not self.state.was_cut) and self.member.offset >= last_offset

    def _link_from(self, port: int) -> Any:
        """Return the broker's transport of the link from ``port`` on this machine, None if there is none.

        Any: read for the screen only.
        """
        for session in self._broker.context.sessions:
            transport = session.transport
            try:
                if not transport.state and transport.sock.getpeername()[1] == port:
                    return transport
            except OSError:
                continue
        return None

    def _on_event(self, event: RoomEvent) -> None:
        match event:
            case Rejoined(snapshot, recovered):
                self._target = snapshot.offset
                self.state = self.state._replace(state="is back", is_back=True, recovered=recovered)
            case StreamEvent(offset=offset) if self._target is not None and offset <= self._target:
                events = self.state.events + 1
                self.state = self.state._replace(state="is back, replay complete", events=events)
            case _:
                pass
