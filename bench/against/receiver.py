"""The receiver for other servers: only connecting and the framing of a message differ.

Each message contains a roomcast frame, made by `publisher`, so the same code checks order, completeness and latency.
``websocket``: each message is a binary WebSocket message. ``redis``: each is a pub/sub push (RESP 2).
"""

from __future__ import annotations

import select
import sys

import msgspec

from bench.load.accounting import STREAM_TICK
from bench.load.child import read_spec, set_alarm
from bench.load.client_link import LinkState
from bench.load.links import Link, ViewerSpec
from bench.load.viewers import Viewers

__all__ = ["CHANNEL", "PATH", "ROOM", "OtherServerViewers"]

ROOM = 1
CHANNEL = b"room"
PATH = "/sub/room"
_PUSH = b"*3\r\n$7\r\nmessage\r\n$4\r\nroom\r\n$"


class OtherServerViewers(Viewers):
    """Viewers of a server that is not roomcast."""

    def __init__(self, spec: ViewerSpec, redis: bool) -> None:
        super().__init__(spec)
        self._redis = redis
        self.accounting.name_room(ROOM, "bench-0")

    def _ping_some(self) -> None:
        """Send nothing: these servers need no heartbeats within a run."""

    def _continue_connecting(self, link: Link) -> None:
        if link.state is LinkState.CONNECTING:
            assert link.sock is not None
            try:
                link.check_connected()
            except OSError as error:
                self.errors[f"connect: {error.errno}"] += 1
                self._close_link(link)
                self._reconnect_later(link, 200_000)
                return
            self._epoll.modify(link.sock.fileno(), select.EPOLLIN)
            if self._redis:
                link.state = LinkState.UPGRADING
                link.sock.send(b"SUBSCRIBE " + CHANNEL + b"\r\n")
            else:
                link.request_upgrade(f"{self.spec.host}:{self.spec.port}", PATH, None)
            return
        super()._continue_connecting(link) if not self._redis else self._subscribed(link)

    def _subscribed(self, link: Link) -> None:
        assert link.sock is not None
        data = link.sock.recv(4096)
        if not data.endswith(b":1\r\n"):
            self.errors["subscribe refused"] += 1
            self._close_link(link)
            return
        self._send_join(link)

    def _send_join(self, link: Link) -> None:
        """Send nothing more: the link receives from now on."""
        link.websocket = True
        link.room = link.room_number = ROOM
        link.positions = [0, 0, -1, 0]
        self._on_ready(link)

    def _parse_messages(self, link: Link, end: int, now: int) -> int:
        if not self._redis:
            return super()._parse_messages(link, end, now)
        buffer = self._buffer
        position = 0
        while end - position > len(_PUSH) + 3:
            line = buffer.find(b"\r\n", position + len(_PUSH), end)
            if line < 0:
                break
            if not buffer.startswith(_PUSH, position):
                self.accounting.report_violation(f"{link}: a reply that is no push")
                return end
            size = int(buffer[position + len(_PUSH) : line])
            begin = line + 2
            if begin + size + 2 > end:
                break
            self._parse_frames(link, begin, begin + size, now)
            position = begin + size + 2
        return position

    def _check_final_state(self, link: Link) -> None:
        """Check that every message arrived, in order: these servers report no loss."""
        last = max(self.accounting.rooms[ROOM].ticks[link.group.tier], default=0)
        if link.state is not LinkState.READY or link.holes or link.positions[STREAM_TICK] != last:
            self.accounting.report_violation(
                f"{link}: {link.state.name.lower()}, received {link.positions[STREAM_TICK]} of {last}"
            )


def main() -> None:
    """``python -m bench.against.receiver websocket|redis``."""
    fields = read_spec()
    if fields is not None:
        spec = msgspec.convert(fields, ViewerSpec)
        set_alarm(spec.lifetime_s)
        OtherServerViewers(spec, redis=sys.argv[1] == "redis").run()


if __name__ == "__main__":
    main()
