"""First bytes of connections and WebSocket frames, built by hand so that they may be invalid."""

from __future__ import annotations

import itertools
import operator
import socket
import struct

from protocol.connection import Connection
from protocol.messages import ClientHello, Side

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def masked(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, key: bytes = b"\x11\x22\x33\x44"
) -> bytes:
    """Return a client's frame, built by hand so that it may be invalid."""
    first = bytes((fin << 7 | rsv << 4 | opcode,))
    size = len(payload)
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 65536:
        length = b"\xfe" + struct.pack("!H", size)
    else:
        length = b"\xff" + struct.pack("!Q", size)
    return first + length + key + bytes(map(operator.xor, payload, itertools.cycle(key)))


HELLO = Connection(Side.CLIENT).send(ClientHello("roomcast", 1, 1))
UPGRADE = (
    b"GET /live HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: " + KEY + b"\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: roomcast.v1\r\n\r\n"
)
JSON_UPGRADE = UPGRADE.replace(b"roomcast.v1", b"roomcast.json.v1")


def status(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer
    return int(answer[9:12])


def v2(source: str, command: int = 0x21) -> bytes:
    body = socket.inet_aton(source) * 2 + struct.pack("!HH", 50_000, 443)
    return b"\r\n\r\n\x00\r\nQUIT\n" + struct.pack("!BBH", command, 0x11, len(body)) + body
