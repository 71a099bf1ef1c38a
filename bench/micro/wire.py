"""The client's wire format, written by hand: the code under test must not measure itself.

Only the numbers of `protocol.codes` are imported. WebSocket frames of the flood are masked with a key of zeros: the
broker unmasks them like any other, and the generator saves the time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import lz4.block
import msgpack

from protocol.codes import MessageType, Opcode
from protocol.dictionaries import BUILT_IN

__all__ = [
    "STAMP_CHARS",
    "GiftTemplate",
    "Template",
    "body_of",
    "frame",
    "frames_in",
    "hello_auth_join",
    "masked",
    "read_stamp",
    "text_of",
    "ws_messages",
]

HEADER = struct.Struct("!IBBHII")
STAMP_CHARS = 18


def frame(opcode: int, body: bytes, room: int = 0, sequence: int = 0) -> bytes:
    """Return one plain frame of a client."""
    return HEADER.pack(16 + len(body), 1, 0, opcode, room, sequence) + body


def masked(payload: bytes) -> bytes:
    """Return one whole client message, masked with zeros."""
    size = len(payload)
    if size < 126:
        return struct.pack("!BB4x", 0x82, 0x80 | size) + payload
    return struct.pack("!BBH4x", 0x82, 0xFE, size) + payload


def hello_auth_join(token: str | None, room: str, features: int = 0) -> bytes:
    """Return HELLO, AUTH and JOIN, which a client may send in one write."""
    pack = msgpack.packb
    return (
        frame(Opcode.HELLO, pack(["roomcast", 1, 1, features, "bench.micro"]))
        + frame(Opcode.AUTH, pack([token]))
        + frame(Opcode.JOIN, pack([room, 20]), sequence=1)
    )


class Template:
    """Template of danmaku of one room that differ in their stamp: building one is one bytes format.

    A stamp is ``~``, ten hex digits of the microsecond it was due (CLOCK_MONOTONIC, modulo 2**40), ``x``, and six of
    a counter, which is also in the message's own id. So every text is unique, and any copy has its latency. The ``x``
    is for the detector of phone numbers: sixteen hex digits have at times eleven decimal ones in a row.
    """

    def __init__(self, phrase: str, room: int, websocket: bool) -> None:
        text = phrase.encode()
        size = len(text) + STAMP_CHARS
        self._before = b"\x93\x01\xa8"
        self._middle = b"\x91\xd9" + bytes([size]) + text + b"~"
        length = 16 + 3 + 8 + len(self._middle) + STAMP_CHARS - 1
        self._head = HEADER.pack(length, 1, 0, Opcode.POST, room, 0)[:12]
        self._ws = struct.pack("!BB4x", 0x82, 0x80 | length) if websocket else b""
        if websocket and length > 125:
            raise ValueError("the phrase is too long for a short WebSocket frame")

    def message(self, due_us: int, count: int) -> bytes:
        """Return the ``count``-th message, due at ``due_us``."""
        return b"%b%b%b%b%08x%b%010xx%06x" % (
            self._ws, self._head, (count & 0x7FFFFFFF).to_bytes(4, "big"), self._before, count & 0xFFFFFFFF,
            self._middle, due_us & 0xFF_FFFF_FFFF, count & 0xFFFFFF,
        )  # fmt: skip


class GiftTemplate:
    """Template of gifts to one room that differ in their order and their giver. ``prefix``: of the order ids, unique
    in a run."""

    def __init__(self, prefix: str, room: int) -> None:
        self._prefix = prefix
        self._room = room

    def message(self, due_us: int, count: int) -> bytes:
        """Return the ``count``-th gift; ``due_us`` is not in it."""
        giver = f"user-{count % 997}"
        gift = f"{self._prefix}order-{count}", giver, giver, f"gift-{count % 8}", 1, 100, ""
        body = msgpack.packb((MessageType.GIFT, "", gift))
        return frame(Opcode.POST, body, self._room, count & 0x7FFFFFFF)


def read_stamp(text: str) -> int:
    """Return the microseconds (modulo 2**40) at which a stamped text was due, -1 without a stamp."""
    return int(text[-17:-7], 16) if len(text) >= STAMP_CHARS and text[-STAMP_CHARS] == "~" else -1


def ws_messages(data: bytearray) -> bytearray:
    """Remove whole server messages from the front of ``data`` and return their joined payloads."""
    payloads = bytearray()
    position, end = 0, len(data)
    while end - position >= 2:
        size = data[position + 1]
        start = position + 2
        if size == 126:
            if end - position < 4:
                break
            size = data[position + 2] << 8 | data[position + 3]
            start = position + 4
        elif size == 127:
            if end - position < 10:
                break
            size = int.from_bytes(data[position + 2 : position + 10], "big")
            start = position + 10
        if start + size > end:
            break
        if data[position] & 0x0F in (1, 2):
            payloads += data[start : start + size]
        position = start + size
    del data[:position]
    return payloads


def frames_in(data: bytearray) -> Iterator[tuple[int, int, int, bytes]]:
    """Remove whole frames from the front of ``data`` and yield (opcode, codec, room, body as sent)."""
    position, end = 0, len(data)
    while end - position >= 16:
        length, _, flags, opcode, room, _ = HEADER.unpack_from(data, position)
        if position + length > end:
            break
        yield opcode, flags & 15, room, bytes(data[position + 16 : position + length])
        position += length
    del data[:position]


def text_of(entry: Any) -> str:
    """Return the text of an entry of a tick as the broker sends it: one of three ends with it."""
    text: str = entry[2] if len(entry) == 3 else entry[3][0]
    return text


def body_of(codec: int, body: bytes) -> list[object]:
    """Unpack a server's body."""
    if codec:
        size = int.from_bytes(body[:2], "big")
        dictionary = BUILT_IN.data if codec == 2 else b""
        body = lz4.block.decompress(body[2:], uncompressed_size=size, dict=dictionary)
    unpacked: list[object] = msgpack.unpackb(body)
    return unpacked
