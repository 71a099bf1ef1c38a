"""A client written from `protocol/SPEC.md` alone, in plain Python with msgpack, against a broker process.

It imports nothing of `protocol`: every number below is one that the page names, so a page that misses or misstates
something that a client needs fails here.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import msgpack
import pytest
import trio

from tests.support.processes import Serving, serving

pytestmark = pytest.mark.integration

HELLO, AUTH, JOIN, POST, ACK, EVENT, TICK, RESUME = 1, 2, 3, 5, 6, 7, 8, 15
DANMAKU, ANNOUNCEMENT = 1, 4
FULL, HOST, ACCEPTED = 20, 5, 0


class Frame(NamedTuple):
    """One frame of the server: the fields of its header and its decoded body."""

    lane: int
    opcode: int
    room: int
    sequence: int
    body: list[Any]


class PlainClient:
    """Blocking client of one link: HELLO and AUTH on opening, then frames in both directions."""

    def __init__(self, port: int, token: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._stream = self._socket.makefile("rb")
        self._requests = 0
        hello = frame(HELLO, ["roomcast", 1, 1])
        self._socket.sendall(hello + frame(AUTH, [token]))

    def request(self, opcode: int, body: list[Any], room: int = 0) -> int:
        """Send a request and return its number."""
        self._requests += 1
        self._socket.sendall(frame(opcode, body, room, self._requests))
        return self._requests

    def read(self) -> Frame:
        """Return the next frame."""
        length, version, flags, opcode, room, sequence = struct.unpack(">IBBHII", self._stream.read(16))
        assert version == 1
        assert flags & 0x8F == 0, "codec 0: the client's HELLO has no feature bits"
        return Frame(flags >> 4, opcode, room, sequence, msgpack.unpackb(self._stream.read(length - 16)))

    def until(self, opcode: int) -> Frame:
        """Return the next frame of an opcode; frames before it are skipped."""
        while (got := self.read()).opcode != opcode:
            pass
        return got

    def read_all(self, *opcodes: int) -> dict[int, Frame]:
        """Return the first frame of each opcode, in whatever order the lanes deliver them."""
        found: dict[int, Frame] = {}
        while not found.keys() >= set(opcodes):
            got = self.read()
            found.setdefault(got.opcode, got)
        return found

    def close(self) -> None:
        """End the connection without GOAWAY, as a lost one ends."""
        self._stream.close()
        self._socket.close()


def frame(opcode: int, body: list[Any], room: int = 0, sequence: int = 0) -> bytes:
    """Return a frame in bytes: header of 16 bytes and a msgpack array."""
    packed: bytes = msgpack.packb(body)
    return struct.pack(">IBBHII", 16 + len(packed), 1, 0, opcode, room, sequence) + packed


async def against(program: Callable[[Serving], None]) -> None:
    """Run a blocking program against a broker process in development mode."""
    async with serving() as broker:
        with trio.fail_after(60):
            await trio.to_thread.run_sync(program, broker)


async def test_a_client_written_from_the_page_joins_posts_reads_and_resumes() -> None:
    await against(join_post_and_resume)


def join_post_and_resume(broker: Serving) -> None:
    """Join, post a danmaku and two announcements, lose the connection, resume between the two."""
    client = PlainClient(broker.port, "dev:ann:host")
    version, features, _server_ms, heartbeat_ms, cut_ms, max_rooms = client.until(HELLO).body[:6]
    assert (version, features) == (1, 0)
    assert (heartbeat_ms, cut_ms, max_rooms) == (30_000, 75_000, 16)
    assert client.until(AUTH).body[:2] == ["ann", "ann"]
    number = client.request(JOIN, ["lobby", FULL])
    joined = client.until(JOIN)
    assert joined.sequence == number
    room_name, epoch, offset, role = joined.body[:4]
    assert (room_name, role) == ("lobby", HOST)

    number = client.request(POST, [DANMAKU, "m-1", ["主播好美", None]], joined.room)
    answers = client.read_all(TICK, ACK)
    assert answers[ACK].body[0] == [[number, ACCEPTED, 0]]
    _at_ms, _interval_ms, _stage, entries, *account = answers[TICK].body[:5]
    assert [[*entry[:2], entry[3][0]] for entry in entries] == [[DANMAKU, "ann", "主播好美"]]
    assert not account, "one message that was shown"
    assert (answers[TICK].lane, answers[TICK].room) == (3, joined.room)

    for count, text in enumerate(["今天八折", "明天七折"], start=1):
        number = client.request(POST, [ANNOUNCEMENT, f"m-2-{count}", [text]], joined.room)
        answers = client.read_all(EVENT, ACK)
        assert answers[EVENT].sequence == offset + count
        assert answers[EVENT].body[0] == ANNOUNCEMENT
        assert answers[EVENT].body[4] == [text]
        assert answers[ACK].body[0] == [[number, ACCEPTED, offset + count]]
    client.close()

    client = PlainClient(broker.port, "dev:ann:host")
    client.request(RESUME, ["lobby", FULL, epoch, offset + 1])
    recovered, gap_from, snapshot = client.until(RESUME).body[:3]
    assert (recovered, gap_from, snapshot[:3]) == (True, offset + 2, ["lobby", epoch, offset + 2])
    missed = client.until(EVENT)
    assert (missed.sequence, missed.body[4]) == (offset + 2, ["明天七折"])
    client.close()
