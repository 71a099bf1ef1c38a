"""Client side of a measured connection before it joins a room: TCP connect, then for WebSocket the upgrade.

`ClientLink` is the part that the viewers of a run (`bench.load.links`) and the clients of the micro benches
(`bench.micro.clients`) share. It never waits: its owner polls the socket and calls the next step. The frames that join
a room, and the reading after it, belong to the subclasses.
"""

from __future__ import annotations

import socket
from enum import IntEnum

from bench.load.sockets import connect_from, handshake_request

__all__ = ["ClientLink", "LinkState"]


class LinkState(IntEnum):
    """State of a link, in this order."""

    CONNECTING = 0
    UPGRADING = 1
    JOINING = 2
    READY = 3
    CLOSED = 4


class ClientLink:
    """One non-blocking connection of the load generator. ``rest``: bytes received that are not yet a whole frame."""

    __slots__ = ("rest", "sock", "state", "websocket")

    def __init__(self, websocket: bool) -> None:
        self.websocket = websocket
        self.sock: socket.socket | None = None
        self.state = LinkState.CLOSED
        self.rest = b""

    def connect(self, address: tuple[str, int], source: str, receive_bytes: int = 0) -> int:
        """Start to connect and return the descriptor to poll for writing; parameters and OSError: `connect_from`."""
        self.sock = connect_from(address, source, receive_bytes)
        self.rest = b""
        self.state = LinkState.CONNECTING
        return self.sock.fileno()

    def check_connected(self) -> None:
        """Raise the OSError of a connection attempt that failed; to be called when the socket is writable."""
        assert self.sock is not None
        failure = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failure:
            raise OSError(failure, "connect failed")

    def request_upgrade(self, host: str, path: str = "/", subprotocol: str | None = "roomcast.v1") -> None:
        """Send the WebSocket handshake."""
        assert self.sock is not None
        self.state = LinkState.UPGRADING
        self.sock.send(handshake_request(host, path, subprotocol))

    def is_upgraded(self, data: bytes) -> bool:
        """Take bytes of the answer to the handshake; True when it is complete, ``rest`` is then what follows it.

        OSError: the server refused the upgrade, or closed the connection (``data`` is empty) before its answer.
        """
        head, end, rest = (self.rest + data).partition(b"\r\n\r\n")
        if end:
            if not head.startswith(b"HTTP/1.1 101"):
                raise OSError(0, head.split(b"\r\n")[0].decode("latin-1"))
            self.rest = rest
            return True
        if not data:
            raise OSError(0, "closed during the upgrade")
        self.rest = head
        return False
