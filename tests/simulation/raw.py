"""Raw link of the simulated world: frames in and out without the client, over TCP or as JSON over WebSocket."""

from __future__ import annotations

from contextlib import suppress
from typing import TypeVar

import trio

from protocol.clients import PipeLost
from protocol.codes import CloseCode, ErrorCode, Feature, Tier
from protocol.connection import NEED_DATA, Connection, Encoding, Frame
from protocol.messages import (
    MAGIC,
    Ack,
    AckResult,
    Auth,
    Authenticated,
    ClientHello,
    ErrorReply,
    Event,
    GoAway,
    Join,
    Joined,
    Leave,
    Left,
    Message,
    Ping,
    Resume,
    Resumed,
    ServerHello,
    Side,
)
from tests.simulation.network import SimPipe
from tests.support.websocket import JSON_UPGRADE, TEXT, masked

__all__ = ["LinkEnded", "RawLink"]

M = TypeVar("M")

ANSWER_S = 15.0
"""Virtual seconds within which a request is answered; a degraded ledger recovers within them."""
PING_S = 3.0
"""Virtual seconds between two heartbeats: the broker of this world closes links after ten."""
NOT_NOW = frozenset({ErrorCode.OVERLOADED, ErrorCode.RATE_LIMITED})


class LinkEnded(Exception):
    """The link ended or a request was not answered. ``goaway``: reason of the broker, if it sent one."""

    def __init__(self, why: str, goaway: GoAway | None = None) -> None:
        super().__init__(why, goaway)
        self.goaway = goaway


class RawLink:
    """Client's end of one link. All methods raise `LinkEnded` where the link ends."""

    def __init__(self, pipe: SimPipe, *, is_json: bool = False) -> None:
        self.pipe = pipe
        self.is_json = is_json
        self.connection = Connection(Side.CLIENT, Encoding.JSON if is_json else Encoding.BINARY)
        self.acks: dict[int, list[AckResult]] = {}
        """Results of POSTs by sequence number, in order of arrival."""
        self.events: list[Frame] = []
        """Frames of all EVENTs so far."""
        self._sequence = 0
        self._data = b""

    # ---- frames

    async def send(self, *frames: tuple[Message, int, int]) -> None:
        """Write (message, room, sequence) frames at once."""
        parts = [self.connection.send(*frame) for frame in frames]
        data = b"".join(masked(TEXT, part) for part in parts) if self.is_json else b"".join(parts)
        await self.send_bytes(data)

    async def send_bytes(self, data: bytes) -> None:
        """Write bytes."""
        try:
            await self.pipe.send(data)
        except PipeLost as lost:
            raise LinkEnded(str(lost)) from lost

    async def _receive(self) -> bytes:
        try:
            return await self.pipe.receive()
        except PipeLost as lost:
            raise LinkEnded(str(lost)) from lost

    async def next_frame(self) -> Frame:
        """Return the next frame; a GOAWAY raises `LinkEnded`."""
        while True:
            event = self.connection.next_event()
            if isinstance(event, Frame):
                if isinstance(event.message, GoAway):
                    raise LinkEnded("the broker closed the link", event.message)
                if isinstance(event.message, Ack):
                    for result in event.message.results:
                        self.acks.setdefault(result.sequence, []).append(result)
                elif isinstance(event.message, Event):
                    self.events.append(event)
                return event
            assert event is NEED_DATA
            data = await self._receive()
            if self.is_json:
                self._feed_websocket(data)
            else:
                self.connection.receive_data(data)

    def _feed_websocket(self, data: bytes) -> None:
        """Pass complete text messages of the broker on; other frames are skipped."""
        self._data += data
        while len(self._data) >= 2:
            size, start = self._data[1], 2
            if size >= 126:
                start = 4 if size == 126 else 10
                if len(self._data) < start:
                    return
                size = int.from_bytes(self._data[2:start], "big")
            if len(self._data) < start + size:
                return
            if self._data[0] & 15 == TEXT:
                self.connection.receive_text(self._data[start : start + size].decode())
            self._data = self._data[start + size :]

    async def collect(self, seconds: float) -> list[Frame]:
        """Return the frames of some virtual seconds, with heartbeats in between."""
        end = trio.current_time() + seconds
        frames = []
        while trio.current_time() < end:
            with trio.move_on_after(min(PING_S, end - trio.current_time())):
                while True:
                    frames.append(await self.next_frame())
            await self.send((Ping(1), 0, 0))
        return frames

    async def answer(self, *kinds: type[M]) -> tuple[Frame, M]:
        """Return the next frame whose message is of one of ``kinds``; others are skipped."""
        with trio.move_on_after(ANSWER_S):
            while True:
                frame = await self.next_frame()
                if isinstance(frame.message, kinds):
                    return frame, frame.message
        raise LinkEnded(f"no {kinds[0].__name__} in {ANSWER_S:g} s")

    # ---- requests

    def sequence(self) -> int:
        """Return a new request number."""
        self._sequence += 1
        return self._sequence

    async def upgrade(self, request: bytes = JSON_UPGRADE) -> bytes:
        """Send a WebSocket request; return the head of the answer."""
        await self.send_bytes(request)
        head = b""
        while b"\r\n\r\n" not in head:
            head += await self._receive()
        head, _, rest = head.partition(b"\r\n\r\n")
        self._feed_websocket(rest)
        return head

    async def login(self, token: str | None, features: int = int(Feature.TICKET)) -> Authenticated:
        """Send HELLO and AUTH; return the answer."""
        await self.send((ClientHello(MAGIC, 1, 1, features, "probe"), 0, 0))
        await self.answer(ServerHello)
        await self.send((Auth(token), 0, 0))
        return (await self.answer(Authenticated))[1]

    async def request(self, message: Message, *kinds: type[M], room: int = 0) -> tuple[Frame, M | ErrorReply]:
        """Send a request; return the frame and message that answer it, or its error."""
        sequence = self.sequence()
        await self.send((message, room, sequence))
        while True:
            frame, found = await self.answer(ErrorReply, *kinds)
            if frame.sequence == sequence:
                return frame, found  # type: ignore[return-value]

    async def enter(self, request: Join | Resume) -> tuple[int, Joined, Resumed | None] | ErrorReply:
        """Send JOIN or RESUME; return room number, snapshot and the answer to a RESUME, or the refusal."""
        frame, found = await self.request(request, Joined, Resumed)
        if isinstance(found, ErrorReply):
            return found
        if isinstance(found, Resumed):
            return frame.room, found.snapshot, found
        assert isinstance(found, Joined)
        return frame.room, found, None

    async def join(self, name: str) -> tuple[int, Joined]:
        """Join a room that admits this link; `LinkEnded` if it is refused for now."""
        found = await self.enter(Join(name, Tier.FULL))
        if isinstance(found, ErrorReply):
            assert found.code in NOT_NOW, (name, found)
            raise LinkEnded(f"refused: {found}")
        return found[0], found[1]

    async def leave(self, room: int) -> None:
        """Leave a room."""
        await self.request(Leave(), Left, room=room)

    async def aclose(self) -> None:
        """End the link."""
        with suppress(LinkEnded):
            await self.pipe.aclose(CloseCode.CLIENT_DONE)
