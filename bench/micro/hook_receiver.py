"""A receiver of webhooks in a process of its own, as quick as Python allows: it takes all and checks the order.

It prints a line of JSON with its port, and at the end of its standard input one with the events, the distinct ones, and
how many came after a later one of their room.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys

ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
_length = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE).search
_place = re.compile(rb'"id":"([^"]+)","offset":(\d+),.*"room":"([^"]+)"').search


class _Receiver(asyncio.Protocol):
    """One connection. What all of them have seen is in the class."""

    events = 0
    misplaced = 0
    ids: set[bytes] = set()  # noqa: RUF012 - shared on purpose
    last: dict[bytes, int] = {}  # noqa: RUF012 - as above

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            length = _length(self._data, 0, end)
            size = end + 4 + (int(length[1]) if length else 0)
            if len(self._data) < size:
                return
            self._take(self._data[end + 4 : size])
            self._data = self._data[size:]
            self._transport.write(ANSWER)

    def _take(self, body: bytes) -> None:
        kind = type(self)
        place = _place(body)
        if place is None:
            return
        made, offset, room = place[1], int(place[2]), place[3]
        kind.events += 1
        if made not in kind.ids and offset < kind.last.get(room, 0):
            kind.misplaced += 1
        kind.ids.add(made)
        kind.last[room] = max(offset, kind.last.get(room, 0))


async def main() -> None:
    """Receive until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Receiver, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"event": "listening", "port": port}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    counts = {"events": _Receiver.events, "distinct": len(_Receiver.ids), "misplaced": _Receiver.misplaced}
    print(json.dumps({"event": "received", **counts}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
