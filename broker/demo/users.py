"""Clients of the demo: each `DemoUser` is one real client in one room, over a real socket.

What it receives goes to a function; what it posts goes through `DemoUser.say`, which counts the outcome.
`CuttableConnector` makes a connection that can be cut; `PausableConnector` one that stops reading, so that the kernel's
buffers fill up and the broker sees a slow viewer.
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

ENTRY_S = 60.0
"""Patience of a member at the door; a machine under load may need some of it."""
INBOX_ITEMS = 200
"""Unread events of a member; what its screen cannot show in time is dropped, by the client's own rule."""
WATCH_S = 0.02
"""Interval at which the stalled viewer's queue is inspected."""
RECEIVE_BUFFER_BYTES = 4096
"""Two seconds of a full room. With the system's 128 KiB a viewer without processor time would fall minutes behind
before anybody noticed; so the broker notices, and keeps it current by dropping chat."""


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
    """A connector whose present pipe can be cut in the middle of a byte."""

    def __init__(self) -> None:
        self._connect = connector()
        self._pipe: BytePipe | None = None

    async def __call__(self, nursery: trio.Nursery, address: Address) -> BytePipe:
        self._pipe = await self._connect(nursery, address)
        return self._pipe

    async def cut(self) -> None:
        """End the present pipe without a word to anybody."""
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            await pipe.aclose()


class PausableConnector:
    """A connector for TCP whose pipes are not read while it is closed."""

    def __init__(self) -> None:
        self._opened = trio.Event()
        self._opened.set()
        self.local_port = 0
        """Our port of the present link, by which the broker knows it."""

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

    def close(self) -> None:
        """Read no more, after the bytes that are awaited now."""
        if self._opened.is_set():
            self._opened = trio.Event()

    def open(self) -> None:
        """Read on."""
        self._opened.set()

    @property
    def is_open(self) -> bool:
        return self._opened.is_set()

    async def wait_open(self) -> None:
        """Wait while it is closed."""
        await self._opened.wait()


class PausablePipe:
    """`BytePipe` behind a valve."""

    def __init__(self, pipe: BytePipe, valve: PausableConnector) -> None:
        self._pipe = pipe
        self._valve = valve

    async def send(self, data: bytes) -> None:
        await self._pipe.send(data)

    async def receive(self) -> bytes:
        await self._valve.wait_open()
        return await self._pipe.receive()

    async def aclose(self, code: int | None = None) -> None:
        await self._pipe.aclose(code)


class DemoUser:
    """One client in one room. ``hear`` is called with each event, in order."""

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
        """``user``: USER or USER:ROLE, as a broker in development mode takes them."""
        self.url = url
        self.tier = tier
        self.user = user
        self.under_way = 0
        """Posts that wait for their fate."""
        self.room: JoinedRoom | None = None
        self._on_event = on_event
        self._rng = rng
        self._connect = connect
        self._inbox_items = inbox_items
        self._stay = trio.CancelScope()
        self._answered = trio.lowlevel.ParkingLot()
        self._gone = trio.Event()

    @property
    def is_websocket(self) -> bool:
        return self.url.startswith("ws")

    @property
    def is_joined(self) -> bool:
        """Whether it is in the room now."""
        return self.room is not None and self.room.is_joined

    @property
    def offset(self) -> int:
        """Last event of lanes 0-2 that it has heard."""
        position = self.room.position if self.room is not None else None
        return position.offset if position is not None else 0

    async def run(self, room_name: str, task_status: trio.TaskStatus[JoinedRoom] = trio.TASK_STATUS_IGNORED) -> None:
        """Enter, tell that the room is entered, listen until `leave`."""
        async with open_client(
            self.url,
            f"dev:{self.user}",
            rng=self._rng,
            connect=self._connect,
            open_timeout_s=ENTRY_S,
            inbox_items=self._inbox_items,
        ) as client:
            with trio.fail_after(ENTRY_S):
                while self.room is None:
                    try:
                        self.room = await client.join(room_name, self.tier, timeout_s=ENTRY_S)
                    except RoomRefused as refused:
                        if not 300 <= refused.code < 400:
                            raise
                        await trio.sleep(refused.retry_after_ms / 1000 * self._rng.uniform(0.5, 1.0) + 0.1)
            task_status.started(self.room)
            with self._stay:
                async for event in self.room:
                    self._on_event(event)
        self._gone.set()

    def leave(self) -> None:
        """Let `run` end politely."""
        self._stay.cancel()

    async def wait_gone(self) -> None:
        """Wait until it has left politely."""
        await self._gone.wait()

    async def wait_answered(self) -> None:
        """Wait until no post waits for its fate."""
        await trio.lowlevel.checkpoint()
        while self.under_way:
            await self._answered.park()

    async def say(self, accounting: Accounting, group: str, type: int, payload: Any) -> int:
        """Post, book the fate, and return how long the broker wants us to wait (milliseconds, 0 = not at all).

        Any: what `protocol.payloads` wants for ``type``.
        """
        if self.room is None:
            return 0
        self.under_way += 1
        try:
            result = await self.room.post(type, payload, timeout_s=math.inf)
        except ClientClosed:
            return 0
        finally:
            self.under_way -= 1
            if not self.under_way:
                self._answered.unpark_all()
        accounting.record(group, type, payload, result)
        return result.retry_after_ms


class StalledState(NamedTuple):
    """The viewer who stops reading."""

    state: str = "watches like everybody"
    queued_frames: int = 0
    queued_bytes: int = 0
    keyframe: bool = False
    """Keyframe mode was on, at any time."""
    was_cut: bool = False
    is_back: bool = False
    recovered: bool = False
    events: int = 0
    """Events of lanes 0-2 that came after all."""


class StalledViewer:
    """One viewer that can be told to stall. ``state`` is what the picture shows."""

    def __init__(self, url: str, broker: Broker, rng: Random) -> None:
        self.state = StalledState()
        self._valve = PausableConnector()
        self.member = DemoUser(url, "口袋里的手机", Tier.FULL, self._on_event, rng, self._valve)
        self._broker = broker
        self._target: int | None = None

    async def stall(self, absent_s: float) -> None:
        """Stop reading until the broker has cut the link, and ``absent_s`` longer; `wake` ends it before."""
        self._valve.close()
        self.state = StalledState("has stopped reading")
        port = self._valve.local_port
        while (link := self._link_from(port)) is not None:
            if self._valve.is_open:
                self.state = StalledState("reads on, before it was cut", keyframe=self.state.keyframe)
                return
            queue = link.queue
            if queue is not None:
                word = "keyframe mode: chat is dropped" if queue.keyframe else "behind: frames are queued"
                self.state = StalledState(word, queue.frames, queue.nbytes, self.state.keyframe or queue.keyframe)
            await trio.sleep(WATCH_S)
        self.state = StalledState("cut: too slow (4001), may resume", keyframe=self.state.keyframe, was_cut=True)
        await trio.sleep(absent_s)
        self._valve.open()

    def wake(self) -> None:
        """Let it read on."""
        self._valve.open()

    def has_returned(self, last_offset: int) -> bool:
        """Whether it has heard everything up to ``last_offset``, after a cut by way of a resume."""
        return (self.state.is_back or not self.state.was_cut) and self.member.offset >= last_offset

    def _link_from(self, port: int) -> Any:
        """The broker's transport of the link that comes from ``port`` on this machine, None if there is none.

        Any: looked at for the picture only.
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
                self.state = self.state._replace(state="is back, has caught up", events=events)
            case _:
                pass
