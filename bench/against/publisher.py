"""Publisher for other servers: the same schedule, one roomcast frame in each message, in the protocol of the server.

``websocket``: a binary message on a WebSocket to ``/pub/room`` (`websockets_server` passes it to
``websockets.broadcast``). ``redis``: PUBLISH. ``nats``: PUB. ``nchan``: HTTP POST to ``/pub/room``. ``centrifugo``:
HTTP POST to its API, with the frame in base64. Open loop: a late message carries its due time.
"""

from __future__ import annotations

import base64
import random
import socket
import sys
import time

from bench.load.child import emit, set_alarm
from bench.load.publishers import Schedule, StreamSpec
from bench.load.sockets import handshake_request, mask_message
from bench.load.texts import PHRASES, stamped
from bench.measure import Latencies, now_us
from protocol.codes import Lane, MessageType
from protocol.connection import encode
from protocol.messages import Account, Tick, TickEntry

__all__ = ["CENTRIFUGO_KEY", "main", "wrapped"]

ROOM = 1
CENTRIFUGO_KEY = "bench"


def message(number: int, due_us: int, phrase: str) -> bytes:
    """Return a TICK of one danmaku, as roomcast writes it without policies."""
    entry = TickEntry(MessageType.DANMAKU, f"user-{number % 16}", "", (stamped(phrase, 0, number, due_us),))
    return encode(Tick(0, 0, 0, (entry,), Account(1, 1)), ROOM, number, Lane.CHAT)


def wrapped(dialect: str, host: str, data: bytes) -> bytes:
    """Return ``data`` as one publication."""
    if dialect == "redis":
        return b"*3\r\n$7\r\nPUBLISH\r\n$4\r\nroom\r\n$%d\r\n%s\r\n" % (len(data), data)
    if dialect == "nats":
        return b"PUB room %d\r\n%b\r\n" % (len(data), data)
    if dialect == "centrifugo":
        body = b'{"channel":"room","data":"%b"}' % base64.b64encode(data)
        head = f"POST /api/publish HTTP/1.1\r\nHost: {host}\r\nX-API-Key: {CENTRIFUGO_KEY}\r\n"
        return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    if dialect == "nchan":
        head = f"POST /pub/room HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/octet-stream\r\n"
        return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data
    return mask_message(data)


def main() -> None:
    """``python -m bench.against.publisher DIALECT HOST PORT ORIGIN_US START_US SECONDS RATE``."""
    dialect, host, port, origin_us, start_us, seconds, rate = sys.argv[1:8]
    set_alarm(float(seconds) + 60)
    sock = socket.create_connection((host, int(port)), timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if dialect == "websocket":
        sock.sendall(handshake_request(f"{host}:{port}", "/pub/room", None))
        if not sock.recv(4096).startswith(b"HTTP/1.1 101"):
            emit("failed", why="the publisher's handshake was refused")
            return
    if dialect == "nats":
        sock.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\n')
    sock.setblocking(False)
    rng = random.Random(1)
    schedule = Schedule(StreamSpec(kind="danmaku", phases=[(float(seconds), float(rate))]), int(start_us), rng)
    lateness = Latencies()
    sent = 0
    pending = b""
    while (due := schedule.next_due()) is not None:
        while (left := due - now_us()) > 0:
            time.sleep(min(left / 1e6, 0.01))
            _discard(sock)
        sent += 1
        lateness.record(now_us() - due)
        pending += wrapped(dialect, host, message(sent, due - int(origin_us), rng.choice(PHRASES)))
        pending = _send(sock, pending)
    deadline = time.monotonic() + 10
    while pending and time.monotonic() < deadline:
        pending = _send(sock, pending)
        _discard(sock)
        time.sleep(0.005)
    emit("done", sent=sent, lateness_p99_ms=lateness.percentile_us(99) / 1000)
    sys.stdin.readline()


def _send(sock: socket.socket, data: bytes) -> bytes:
    try:
        return data[sock.send(data) :]
    except BlockingIOError:
        return data


def _discard(sock: socket.socket) -> None:
    """Read and drop answers, so that they do not fill the buffers."""
    try:
        sock.recv(65_536)
    except BlockingIOError:
        pass


if __name__ == "__main__":
    main()
