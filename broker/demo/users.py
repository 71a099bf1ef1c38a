"""The cast: real clients on real sockets, each a `Member`, and two connectors that do to a link what life does to it.

A member is one `Client` of ours in one room from its entrance to its exit; what it hears goes to a function, what it
says goes through `Member.say`, which books the fate. `Cable` can be cut; `Valve` stops reading, as a phone does in a
pocket: the kernel's buffers fill up, and the broker has to live with it.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from random import Random
from typing import Any

import trio

from broker.demo.accounting import Ledger
from protocol.clients import (
    Address,
    BytePipe,
    ClientClosed,
    Connector,
    PipeLost,
    Room,
    RoomEvent,
    RoomRefused,
    StreamPipe,
    connector,
    open_client,
)
from protocol.codes import Tier

__all__ = ["Cable", "Member", "SmallBuffers", "Valve"]

ENTRY_S = 60.0
"""Patience of a member at the door; a machine under load may need some of it."""
INBOX_ITEMS = 200
"""Unread events of a member; what its screen cannot show in time is dropped, by the client's own rule."""
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


class Cable:
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


class Valve:
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
        return _ValvedPipe(StreamPipe(trio.SocketStream(sock)), self)

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


class _ValvedPipe:
    """`BytePipe` behind a valve."""

    def __init__(self, pipe: BytePipe, valve: Valve) -> None:
        self._pipe = pipe
        self._valve = valve

    async def send(self, data: bytes) -> None:
        await self._pipe.send(data)

    async def receive(self) -> bytes:
        await self._valve.wait_open()
        return await self._pipe.receive()

    async def aclose(self, code: int | None = None) -> None:
        await self._pipe.aclose(code)


class Member:
    """One client in one room. ``hear`` is called with each event, in order."""

    def __init__(
        self,
        url: str,
        user: str,
        tier: Tier,
        hear: Callable[[RoomEvent], object],
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
        self.room: Room | None = None
        self._hear = hear
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

    async def run(self, room_name: str, task_status: trio.TaskStatus[Room] = trio.TASK_STATUS_IGNORED) -> None:
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
                    self._hear(event)
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

    async def say(self, ledger: Ledger, group: str, type: int, payload: Any) -> int:
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
        ledger.note(group, type, payload, result)
        return result.retry_after_ms
