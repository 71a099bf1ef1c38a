"""Sockets of the load generator: many on one machine, non-blocking, within the limit of descriptors.

The limits of many loopback connections, and where they are handled: descriptors (`raise_descriptors`), ephemeral ports
(28,232 for one pair of addresses, so clients connect from several addresses of 127.0.0.0/8: `source_address`), and
receive buffers that hide a slow reader (`connect_from` can make them small).

The WebSocket client's handshake and framing are written here by hand: the code under test must not measure itself.
"""

from __future__ import annotations

import base64
import os
import resource
import socket
import struct
from collections.abc import Sequence

__all__ = [
    "MAX_DESCRIPTORS",
    "close_all",
    "connect_from",
    "handshake_request",
    "listen",
    "mask_message",
    "pairs",
    "raise_descriptors",
    "server_message",
    "source_address",
]

MAX_DESCRIPTORS = 20_000
"""No process of the bench opens more, even if the machine allows it."""

_IP_BIND_ADDRESS_NO_PORT = 24
"""Linux: choose the port at connect, so that one port may serve several targets."""


def raise_descriptors() -> int:
    """Raise the soft limit of descriptors to the hard one; return how many this process may use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(hard, MAX_DESCRIPTORS)


def source_address(index: int, sources: int) -> str:
    """Return the loopback address from which link ``index`` connects, one of ``sources``: 127.0.0.2 and up."""
    return f"127.0.0.{2 + index % max(1, min(sources, 250))}"


def connect_from(address: tuple[str, int], source: str, receive_bytes: int = 0) -> socket.socket:
    """Start a non-blocking connection; it is established when the socket is writable.

    ``receive_bytes`` > 0 sets the receive buffer (a slow viewer needs a small one).
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.setsockopt(socket.SOL_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((source, 0))
        try:
            sock.connect(address)
        except BlockingIOError:
            pass
    except OSError:
        sock.close()
        raise
    return sock


def listen(host: str = "127.0.0.1", backlog: int = 4096) -> socket.socket:
    """Return a non-blocking listening socket on a free port."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, 0))
    sock.listen(backlog)
    sock.setblocking(False)
    return sock


def pairs(count: int, send_bytes: int = 64 * 1024, sources: int = 4) -> tuple[list[socket.socket], list[socket.socket]]:
    """Return ``count`` connected loopback TCP pairs: (sending ends, receiving ends), all non-blocking.

    For measurements within one process. The caller closes both lists.
    """
    senders: list[socket.socket] = []
    receivers: list[socket.socket] = []
    with listen() as listener:
        address = listener.getsockname()
        listener.setblocking(True)
        for index in range(count):
            receivers.append(connect_from(address, source_address(index, sources)))
            sender, _ = listener.accept()
            sender.setblocking(False)
            sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_bytes)
            senders.append(sender)
    return senders, receivers


def close_all(socks: Sequence[socket.socket]) -> None:
    """Close every socket."""
    for sock in socks:
        sock.close()


# ---- WebSocket, the client's side ---------------------------------------------------------------


def handshake_request(host: str, path: str = "/", subprotocol: str | None = "roomcast.v1") -> bytes:
    """Return a WebSocket handshake (RFC 6455, section 4.1) with a fresh key."""
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
    ]
    if subprotocol is not None:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def mask_message(payload: bytes, opcode: int = 2) -> bytes:
    """Return one whole client message with a random mask."""
    size = len(payload)
    mask = os.urandom(4)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
    stream = (mask * (size // 4 + 1))[:size]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")).to_bytes(size, "big")
    return head + mask + masked


def server_message(payload: bytes) -> bytes:
    """Return one whole unmasked binary server message."""
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", 0x82, size) + payload
    if size < 65536:
        return struct.pack("!BBH", 0x82, 126, size) + payload
    return struct.pack("!BBQ", 0x82, 127, size) + payload
