"""The same receiver for other servers: only the way in and the wrapping of a message differ.

What travels inside is a frame of our own, made by `publisher`, so order, completeness and latency are judged by the
very same code. ``websocket``: each message is a binary WebSocket message. ``redis``: each is a pub/sub push (RESP 2).
"""

from __future__ import annotations

import select
import sys

import msgspec

from bench.load.books import STREAM_TICK
from bench.load.child import first_order, set_alarm
from bench.load.client_link import LinkState
from bench.load.links import Link, ViewerSpec
from bench.load.viewers import Viewers

__all__ = ["CHANNEL", "PATH", "ROOM", "ForeignViewers"]

ROOM = 1
CHANNEL = b"room"
PATH = "/sub/room"
_PUSH = b"*3\r\n$7\r\nmessage\r\n$4\r\nroom\r\n$"


class ForeignViewers(Viewers):
    """Viewers of a server that is not roomcast."""

    def __init__(self, spec: ViewerSpec, redis: bool) -> None:
        super().__init__(spec)
        self._redis = redis
        self.books.name_room(ROOM, "bench-0")

    def _ping_some(self) -> None:
        """These servers want no heartbeats within a run."""

    def _advance(self, link: Link) -> None:
        if link.state is LinkState.CONNECTING:
            assert link.sock is not None
            try:
                link.check_connected()
            except OSError as error:
                self.errors[f"connect: {error.errno}"] += 1
                self._drop(link)
                self._again(link, 200_000)
                return
            self._epoll.modify(link.sock.fileno(), select.EPOLLIN)
            if self._redis:
                link.state = LinkState.UPGRADING
                link.sock.send(b"SUBSCRIBE " + CHANNEL + b"\r\n")
            else:
                link.request_upgrade(f"{self.spec.host}:{self.spec.port}", PATH, None)
            return
        super()._advance(link) if not self._redis else self._subscribed(link)

    def _subscribed(self, link: Link) -> None:
        assert link.sock is not None
        data = link.sock.recv(4096)
        if not data.endswith(b":1\r\n"):
            self.errors["subscribe refused"] += 1
            self._drop(link)
            return
        self._enter(link)

    def _enter(self, link: Link) -> None:
        """Nothing more to say: the link hears from now on."""
        link.websocket = True
        link.room = link.seat = ROOM
        link.marks = [0, 0, -1, 0]
        self._seat(link)

    def _walk_messages(self, link: Link, end: int, now: int) -> int:
        if not self._redis:
            return super()._walk_messages(link, end, now)
        buffer = self._buffer
        position = 0
        while end - position > len(_PUSH) + 3:
            line = buffer.find(b"\r\n", position + len(_PUSH), end)
            if line < 0:
                break
            if not buffer.startswith(_PUSH, position):
                self.books.violate(f"{link}: something that is no push")
                return end
            size = int(buffer[position + len(_PUSH) : line])
            begin = line + 2
            if begin + size + 2 > end:
                break
            self._walk(link, begin, begin + size, now)
            position = begin + size + 2
        return position

    def _judge_end(self, link: Link) -> None:
        """Every message, in order; there is nobody here who owns up to a loss."""
        last = max(self.books.rooms[ROOM].ticks[link.form.tier], default=0)
        if link.state is not LinkState.READY or link.holes or link.marks[STREAM_TICK] != last:
            self.books.violate(f"{link}: {link.state.name.lower()}, got to {link.marks[STREAM_TICK]} of {last}")


def main() -> None:
    """``python -m bench.against.receiver websocket|redis``."""
    orders = first_order()
    if orders is not None:
        spec = msgspec.convert(orders, ViewerSpec)
        set_alarm(spec.lifetime_s)
        ForeignViewers(spec, redis=sys.argv[1] == "redis").run()


if __name__ == "__main__":
    main()
