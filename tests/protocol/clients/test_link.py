"""One link over a pipe that records what it is given."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
import trio.testing

from protocol.clients import PipeLost
from protocol.clients.link import WRITE_BYTES, ClockOffset, Ending, Hello, Link
from protocol.codes import CloseCode, Opcode
from protocol.connection import NEED_DATA, Connection, Frame
from protocol.messages import Authenticated, Join, Pong, Post, Side
from protocol.reconnect import Signal
from tests.support.peer import server_hello


class RecordingPipe:
    """Keeps every write; ``say`` adds bytes of the peer."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed: list[int | None] = []
        self.sender, self._receive = trio.open_memory_channel[bytes](100)

    def say(self, data: bytes) -> None:
        self.sender.send_nowait(data)

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.writes.append(data)

    async def receive(self) -> bytes:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise PipeLost(None, "over") from None

    async def aclose(self, code: int | None = None) -> None:
        self.closed.append(code)


class Recorder:
    """Receiver that requests 200 rooms at once and records the frames."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.is_authenticated = False

    def link_opened(self, link: Link) -> None:
        for number in range(200):
            link.send(Join(f"{number:064}"), 0, number + 1)

    def link_authenticated(self, link: Link) -> None:
        self.is_authenticated = True

    async def before_frame(self, frame: Frame) -> None:
        pass

    def on_frame(self, link: Link, frame: Frame) -> None:
        self.frames.append(frame)

    def on_pong(self, pong: Pong, rtt_s: float | None) -> None:
        pass


def make_link(pipe: RecordingPipe, receiver: Recorder) -> Link:
    hello = Hello(None, 0, "test")
    return Link(pipe, hello, receiver, rng=random.Random(1), wall_ms=lambda: 0, handshake_timeout_s=5)


async def run(link: Link, endings: list[Ending]) -> None:
    endings.append(await link.run())


async def test_writes_are_joined_up_to_their_size_and_hold_whole_frames(autojump_clock: Any) -> None:
    pipe, receiver, endings = RecordingPipe(), Recorder(), list[Ending]()
    link = make_link(pipe, receiver)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, link, endings)
        await trio.testing.wait_all_tasks_blocked()
        link.finish(CloseCode.CLIENT_DONE, "enough")
    assert 2 <= len(pipe.writes) <= 4
    opcodes = []
    server = Connection(Side.SERVER)
    for write in pipe.writes:
        assert len(write) <= WRITE_BYTES
        server.receive_data(write)
        while (found := server.next_event()) is not NEED_DATA:
            assert isinstance(found, Frame)
            opcodes.append(found.opcode)
        assert not server.mid_frame
    assert opcodes == [Opcode.HELLO, Opcode.AUTH, *[Opcode.JOIN] * 200, Opcode.GOAWAY]
    assert pipe.closed == [CloseCode.CLIENT_DONE]
    assert endings[0].signal is Signal.LOST


async def test_the_peers_bytes_may_be_split_anywhere(autojump_clock: Any) -> None:
    server = Connection(Side.SERVER)
    server.receive_data(b"")
    pipe, receiver, endings = RecordingPipe(), Recorder(), list[Ending]()
    link = make_link(pipe, receiver)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, link, endings)
        await trio.testing.wait_all_tasks_blocked()
        for write in pipe.writes:
            server.receive_data(write)
            while server.next_event() is not NEED_DATA:
                pass
        for byte in server.send(server_hello()) + server.send(Authenticated("u1", "Ann")):
            pipe.say(bytes((byte,)))
            await trio.testing.wait_all_tasks_blocked()
        assert receiver.is_authenticated
        pipe.sender.close()
    assert endings == [Ending(Signal.LOST, None, "over")]
    assert pipe.closed == [None]


async def test_after_its_end_a_link_sends_nothing(autojump_clock: Any) -> None:
    pipe, receiver, endings = RecordingPipe(), Recorder(), list[Ending]()
    link = make_link(pipe, receiver)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, link, endings)
        await trio.testing.wait_all_tasks_blocked()
        link.end(Ending(Signal.LOST, None, "first"))
        link.end(Ending(Signal.LOST, 4400, "second"))
        count = len(pipe.writes)
        link.send(Post(1, "x", ("y",)), 1, 1)
        link.finish(4411, "late")
        await link.wait_writable()
    assert len(pipe.writes) == count
    assert endings[0].reason == "first"


def test_the_shortest_round_trip_gives_the_clock() -> None:
    clock = ClockOffset()
    clock.add(1000, 0, 4.0)
    assert clock.offset_ms == pytest.approx(3000)
    clock.add(5050, 0, 0.1)
    assert clock.offset_ms == pytest.approx(5100)
    clock.add(9000, 0, 2.0)
    assert clock.offset_ms == pytest.approx(5100)
    for _ in range(8):
        clock.add(7000, 0, 1.0)
    assert clock.offset_ms == pytest.approx(7500), "an old sample is forgotten: clocks drift"
