"""The receiver for other servers: only connecting and the framing of a message differ.

Each message contains a roomcast frame, made by `publisher`, so the same code checks order, completeness and latency.
``websocket``: each message is a binary WebSocket message. ``redis``: each is a pub/sub push (RESP 2). ``nats``: each is
a MSG. ``centrifugo``: each is a publication of its JSON protocol, with the frame in base64.
"""

from __future__ import annotations

import base64
import json
import select
import sys

import msgspec

from bench.load.accounting import STREAM_TICK
from bench.load.child import read_spec, set_alarm
from bench.load.client_link import LinkState
from bench.load.links import Link, ViewerSpec
from bench.load.sockets import mask_message
from bench.load.viewers import Viewers

__all__ = ["CHANNEL", "PATH", "ROOM", "OtherServerViewers"]

ROOM = 1
MAX_ANSWER_BYTES = 16 * 1024
_TEXT = 0x81
CHANNEL = b"room"
PATH = "/sub/room"
_PUSH = {"redis": b"*3\r\n$7\r\nmessage\r\n$4\r\nroom\r\n$", "nats": b"MSG room 1 "}
"""What stands before the size of a message."""
_SUBSCRIBE = {
    "redis": b"SUBSCRIBE " + CHANNEL + b"\r\n",
    "nats": b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB ' + CHANNEL + b" 1\r\nPING\r\n",
}
_SUBSCRIBED = {"redis": b":1\r\n", "nats": b"PONG\r\n"}
"""How the answer ends."""
_NATS_PING = b"PING\r\n"
_CENTRIFUGO_PATH = "/connection/websocket"
_CENTRIFUGO_SUBSCRIBE = mask_message(b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"room"}}', 1)


class OtherServerViewers(Viewers):
    """Viewers of a server that is not roomcast."""

    def __init__(self, spec: ViewerSpec, dialect: str) -> None:
        super().__init__(spec)
        self._dialect = dialect
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
            if self._dialect in _SUBSCRIBE:
                link.state = LinkState.UPGRADING
                link.sock.send(_SUBSCRIBE[self._dialect])
            else:
                path = _CENTRIFUGO_PATH if self._dialect == "centrifugo" else PATH
                link.request_upgrade(f"{self.spec.host}:{self.spec.port}", path, None)
            return
        super()._continue_connecting(link) if self._dialect not in _SUBSCRIBE else self._subscribed(link)

    def _subscribed(self, link: Link) -> None:
        assert link.sock is not None
        data = link.sock.recv(4096)
        answer = link.rest + data
        if answer.endswith(_SUBSCRIBED[self._dialect]):
            link.rest = b""
            self._send_join(link)
        elif not data or answer.startswith(b"-") or len(answer) > MAX_ANSWER_BYTES:
            self.errors["subscribe refused"] += 1
            self._close_link(link)
        else:
            link.rest = answer

    def _send_join(self, link: Link) -> None:
        """Send nothing more, but for the commands of Centrifugo: the link receives from now on."""
        if self._dialect == "centrifugo":
            assert link.sock is not None
            link.sock.send(_CENTRIFUGO_SUBSCRIBE)
            link.state = LinkState.JOINING
        else:
            self._receive_from_now_on(link)

    def _receive_from_now_on(self, link: Link) -> None:
        link.websocket = True
        link.room = link.room_number = ROOM
        link.positions = [0, 0, -1, 0]
        self._on_ready(link)

    def _parse_messages(self, link: Link, end: int, now: int) -> int:
        push = _PUSH.get(self._dialect)
        if push is None:
            if self._dialect == "centrifugo":
                return self._parse_publications(link, end, now)
            return super()._parse_messages(link, end, now)
        buffer = self._buffer
        position = 0
        while end - position > len(push) + 3 or buffer.startswith(_NATS_PING, position, end):
            if buffer.startswith(_NATS_PING, position, end):
                position += len(_NATS_PING)
                continue
            line = buffer.find(b"\r\n", position + len(push), end)
            if line < 0:
                break
            if not buffer.startswith(push, position):
                self.accounting.report_violation(f"{link}: a reply that is no push")
                return end
            size = int(buffer[position + len(push) : line])
            begin = line + 2
            if begin + size + 2 > end:
                break
            self._parse_frames(link, begin, begin + size, now)
            position = begin + size + 2
        return position

    def _parse_publications(self, link: Link, end: int, now: int) -> int:
        """Parse whole text messages of Centrifugo: one JSON object a line, each a reply, a push, or a ping ({})."""
        buffer, view = self._buffer, self._view
        position = 0
        while end - position >= 2:
            size, begin = buffer[position + 1], position + 2
            if size >= 126:
                begin += 2 if size == 126 else 8
                if begin > end:
                    break
                size = int.from_bytes(buffer[position + 2 : begin], "big")
            stop = begin + size
            if stop > end:
                break
            if buffer[position] == _TEXT:
                for line in bytes(view[begin:stop]).split(b"\n"):
                    frame = frame_of_reply(line)
                    if frame == b"" and link.state is LinkState.JOINING:
                        self._receive_from_now_on(link)
                    elif frame:
                        self._buffer = bytearray(frame)
                        self._view = memoryview(self._buffer)
                        try:
                            self._parse_frames(link, 0, len(frame), now)
                        finally:
                            self._buffer, self._view = buffer, view
            else:
                self.unicast_frames[f"websocket {buffer[position] & 15}"] += 1
            position = stop
        return position

    def _check_final_state(self, link: Link) -> None:
        """Check that every message arrived, in order: these servers report no loss."""
        last = max(self.accounting.rooms[ROOM].ticks[link.group.tier], default=0)
        if link.state is not LinkState.READY or link.holes or link.positions[STREAM_TICK] != last:
            self.accounting.report_violation(
                f"{link}: {link.state.name.lower()}, received {link.positions[STREAM_TICK]} of {last}"
            )


def frame_of_reply(line: bytes) -> bytes | None:
    """Return the frame in a line of Centrifugo, empty for the answer to SUBSCRIBE, None for anything else."""
    reply = json.loads(line) if line else {}
    if "push" in reply:
        publication = reply["push"].get("pub")
        return None if publication is None else base64.b64decode(publication["data"])
    return b"" if "subscribe" in reply else None


def main() -> None:
    """``python -m bench.against.receiver websocket|redis|nats|centrifugo``."""
    fields = read_spec()
    if fields is not None:
        spec = msgspec.convert(fields, ViewerSpec)
        set_alarm(spec.lifetime_s)
        OtherServerViewers(spec, sys.argv[1]).run()


if __name__ == "__main__":
    main()
