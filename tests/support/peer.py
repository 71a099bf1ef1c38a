"""Scripted broker for the client's tests: the server's side of the protocol over memory streams.

`Network` is the client's connector: each attempt gets the next item of the plan (a failure, or a new pair of streams
whose other end `accept` returns as a `Peer`).
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio
import trio.testing

from protocol.clients import Address, BytePipe, Client, JoinedRoom, PipeLost, PostResult, StreamPipe, open_client
from protocol.clients.room_posts import RoomPosts
from protocol.codes import Lane, Opcode, Outcome, Role, RoomPhase, Tier
from protocol.connection import NEED_DATA, Connection, Frame
from protocol.messages import (
    Ack,
    AckResult,
    Authenticated,
    Event,
    GoAway,
    Join,
    Joined,
    Message,
    Resume,
    ServerHello,
    Side,
    Tick,
    TickEntry,
)

HEARTBEAT_MS = 30_000
CUT_MS = 75_000
URL = "roomcast://broker:7400"

M = TypeVar("M")


def server_hello(features: int = 0, heartbeat_ms: int = HEARTBEAT_MS, cut_ms: int = CUT_MS) -> ServerHello:
    return ServerHello(1, features, 1_000_000, heartbeat_ms, cut_ms, 16, (), "scripted")


def joined(name: str = "lobby", epoch: int = 7, offset: int = 0, **changes: Any) -> Joined:
    snapshot = Joined(name, epoch, offset, Role.VIEWER, RoomPhase.LIVE, Tier.FULL, 100, 1, 1, 1, 1, 0)
    return snapshot._replace(**changes)


def event(text: str = "hello", type: int = 4, payload: Any = None) -> Event:
    return Event(type, 1_000_000, "u1", "Ann", (text,) if payload is None else payload)


def tick(*texts: str, **changes: Any) -> Tick:
    entries = tuple(TickEntry(1, "u1", "Ann", (text, None)) for text in texts)
    return Tick(1_000_000, 100, 0, entries)._replace(**changes)


class Peer:
    """Broker's end of one link."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.connection = Connection(Side.SERVER)
        self.numbers: dict[str, int] = {}
        self.received = 0

    async def send(self, message: Message, room: int = 0, sequence: int = 0, lane: Lane | None = None) -> None:
        await self.stream.send_all(self.connection.send(message, room, sequence, lane))

    async def send_bytes(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def next_frame(self) -> Frame | None:
        """Return the client's next frame, None at the end of the stream."""
        while True:
            found = self.connection.next_event()
            if found is not NEED_DATA:
                assert isinstance(found, Frame), found
                return found
            received = await self.stream.receive_some(65536)
            if not received:
                return None
            self.received += 1
            self.connection.receive_data(bytes(received))

    async def expect(self, opcode: Opcode) -> Frame:
        """Return the client's next frame, which must have this opcode; heartbeats are skipped."""
        while True:
            frame = await self.next_frame()
            assert frame is not None, f"the client has closed the link, {opcode.name} was expected"
            if frame.opcode is Opcode.PING and opcode is not Opcode.PING:
                continue
            assert frame.opcode is opcode, frame
            return frame

    async def welcome(self, hello: ServerHello | None = None) -> None:
        """Answer HELLO and AUTH."""
        await self.expect(Opcode.HELLO)
        await self.expect(Opcode.AUTH)
        await self.send(hello or server_hello())
        await self.send(Authenticated("u1", "Ann"))

    async def admit(self, number: int = 3, **changes: Any) -> Frame:
        """Answer one JOIN."""
        frame = await self.expect(Opcode.JOIN)
        assert isinstance(frame.message, Join)
        await self.send(joined(frame.message.room_name, **changes), number, frame.sequence)
        return frame

    async def expect_resume(self) -> tuple[Frame, Resume]:
        frame = await self.expect(Opcode.RESUME)
        assert isinstance(frame.message, Resume)
        return frame, frame.message

    async def ack(self, post: Frame, outcome: Outcome, detail: int = 0) -> None:
        await self.send(Ack((AckResult(post.sequence, outcome, detail),)), post.room)

    async def goaway(self, code: int, **fields: Any) -> None:
        await self.send(GoAway(code, "scripted")._replace(**fields))
        await self.stream.aclose()

    async def vanish(self) -> None:
        """Close the link without GOAWAY."""
        await self.stream.aclose()

    async def rest(self) -> list[Frame]:
        """Return the client's frames up to the end of the stream."""
        frames = []
        while (frame := await self.next_frame()) is not None:
            frames.append(frame)
        return frames


class Network:
    """Connector of the tests. ``plan``: failures of the next attempts (None: success); an empty plan means success."""

    def __init__(self, pair: Callable[[], tuple[Any, Any]] = trio.testing.memory_stream_pair) -> None:
        self.plan: list[Exception | None] = []
        self.attempts: list[tuple[float, str, int]] = []
        self._pair = pair
        self._send, self._receive = trio.open_memory_channel[Peer](100)

    async def __call__(self, nursery: trio.Nursery, address: Address) -> BytePipe:
        self.attempts.append((trio.current_time(), address.host, address.port))
        await trio.lowlevel.checkpoint()
        failure = self.plan.pop(0) if self.plan else None
        if failure is not None:
            raise failure
        ours, theirs = self._pair()
        self._send.send_nowait(Peer(theirs))
        return StreamPipe(ours)

    async def accept(self) -> Peer:
        """Return the broker's end of the next link."""
        with trio.fail_after(1000):
            return await self._receive.receive()


NO_ROUTE = PipeLost(None, "no route")


@asynccontextmanager
async def client_of(network: Network, **options: Any) -> AsyncIterator[Client]:
    """Open a client on ``network`` without waiting for its connection."""
    options.setdefault("open_timeout_s", 0)
    options.setdefault("rng", random.Random(5))
    async with open_client(URL, connect=network, **options) as client:
        yield client


@asynccontextmanager
async def linked(*, hello: ServerHello | None = None, **options: Any) -> AsyncIterator[tuple[Client, Peer, Network]]:
    """Open a client with an authenticated link; yields it, its peer and its network."""
    network = Network()
    async with client_of(network, **options) as client:
        peer = await network.accept()
        await peer.welcome(hello)
        await client.wait_connected()
        yield client, peer, network


async def take(events: Any, kind: type[M]) -> M:
    """Return the next event, which must be of this kind."""
    with trio.fail_after(1000):
        found = await anext(events)
    assert isinstance(found, kind), found
    return found


async def take_until(events: Any, kind: type[M]) -> M:
    """Return the next event of this kind."""
    with trio.fail_after(1000):
        async for found in events:
            if isinstance(found, kind):
                return found
    raise AssertionError(kind)


async def quiet(peer: Peer) -> None:
    """Check that the client sends nothing for a second."""
    with trio.move_on_after(1) as scope:
        frame = await peer.next_frame()
        raise AssertionError(frame)
    assert scope.cancelled_caught


async def join(client: Client, peer: Peer, name: str = "lobby", **changes: Any) -> JoinedRoom:
    """Join a room; the peer accepts."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: peer.admit(**changes))
        return await client.join(name)


class Running:
    """Post that runs concurrently with the test."""

    def __init__(
        self, nursery: trio.Nursery, room: RoomPosts, post: Callable[[RoomPosts], Awaitable[PostResult]]
    ) -> None:
        self.result: PostResult | None = None
        self.done = trio.Event()
        nursery.start_soon(self._run, room, post)

    async def _run(self, room: RoomPosts, post: Callable[[RoomPosts], Awaitable[PostResult]]) -> None:
        self.result = await post(room)
        self.done.set()

    async def wait_result(self) -> PostResult:
        with trio.fail_after(1000):
            await self.done.wait()
        assert self.result is not None
        return self.result


class Posting(Running):
    """A danmaku that is posted beside the test."""

    def __init__(self, nursery: trio.Nursery, room: JoinedRoom, text: str = "hi", **options: Any) -> None:
        super().__init__(nursery, room, lambda room: room.post_danmaku(text, **options))


async def count_likes(peer: Peer, count: int) -> None:
    """Answer the next post with ``count`` counted likes."""
    await peer.ack(await peer.expect(Opcode.POST), Outcome.ACCEPTED, count)
