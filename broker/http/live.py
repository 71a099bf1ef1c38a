"""Live statistics of a room as Server-Sent Events: one event a second, on the control API's listener.

Each event is the result of ``rooms.stats`` with the seconds since the last one. A reader that is slower than a second
gets several of them in one event; one that takes nothing for a while is ended as any connection is. All readers of a
room share the text of an event.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import trio
from starlette.responses import Response

from broker.core.tenants.names import plain_name
from broker.http.problems import HttpProblem
from broker.operations.parts import Parts
from broker.operations.rooms import stats_of
from protocol.json_values import as_json
from protocol.operations.rooms import RoomStats

__all__ = [
    "MAX_SECONDS", "RETRY_MS", "LiveParts", "LiveResponse", "LiveStreams", "StreamResponse", "live_parts", "piece",
]  # fmt: skip

MAX_STREAMS = 200
"""Streams of all keys; each costs one write a second."""
MAX_STREAMS_OF_KEY = 20
MAX_SECONDS = 60
"""Seconds of one event: what a reader has missed beyond them is in ``rooms.stats``."""
RETRY_MS = 3000
"""When a browser comes back after a stream that broke."""


@dataclass(frozen=True, slots=True)
class LiveParts:
    """What the streams use, of rooms by qualified name.

    ``stats``: of an open room, with so many of its last seconds, None = it is not open; ``taken``: number of its last
    second that is over, None as well; ``next_second``: an event that is set when another one is over.
    """

    stats: Callable[[str, int], RoomStats | None]
    taken: Callable[[str], int | None]
    next_second: Callable[[], trio.Event]
    is_draining: Callable[[], bool]


def live_parts(parts: Parts, is_draining: Callable[[], bool]) -> LiveParts:
    """Return what the streams use of a broker."""
    hub = parts.hub

    def stats(name: str, seconds: int) -> RoomStats | None:
        room = hub.find(name)
        return None if room is None else stats_of(parts, room, seconds)._replace(room=plain_name(name))

    def taken(name: str) -> int | None:
        room = hub.find(name)
        return None if room is None else room.state.counters.live.taken

    return LiveParts(stats, taken, lambda: hub.second_taken, is_draining)


class _Text(NamedTuple):
    """The text of one event of a room."""

    second: int | None
    seconds: int
    data: bytes


class LiveStreams:
    """All streams of the control API, and the texts that they share."""

    def __init__(self, parts: LiveParts) -> None:
        self.parts = parts
        self._open: Counter[str] = Counter()
        """Streams by key."""
        self._texts: dict[str, _Text] = {}
        """The last text of each room that is followed."""

    def __len__(self) -> int:
        return self._open.total()

    def enter(self, key: str) -> None:
        """Count a stream of a key. Problem 429 above its share, 503 where there are too many."""
        if self._open[key] >= MAX_STREAMS_OF_KEY:
            raise HttpProblem(429, "RATE_LIMITED", f"a key may have {MAX_STREAMS_OF_KEY} streams", "", RETRY_MS)
        if len(self) >= MAX_STREAMS:
            raise HttpProblem(503, "OVERLOADED", f"there are {MAX_STREAMS} streams", "", RETRY_MS)
        self._open[key] += 1

    def leave(self, key: str) -> None:
        """Count a stream out."""
        self._open[key] -= 1
        if not self._open[key]:
            del self._open[key]
        if not self._open:
            self._texts.clear()

    def text(self, room: str, seconds: int) -> bytes | None:
        """Return the event of a room with its last ``seconds``; None where it is not open any more."""
        taken, known = self.parts.taken(room), self._texts.get(room)
        if known is not None and (known.second, known.seconds) == (taken, seconds):
            return known.data
        stats = self.parts.stats(room, seconds)
        if stats is None:
            self._texts.pop(room, None)
            return None
        data = b"data: %b\n\n" % json.dumps(as_json(stats), ensure_ascii=False, separators=(",", ":")).encode()
        self._texts[room] = _Text(taken, seconds, data)
        return data


class StreamResponse(Response):
    """One stream of Server-Sent Events. ``key``: whose stream it is, entered already in ``streams``; ``holds``: whether
    that key is still valid, else the stream ends."""

    media_type = "text/event-stream"

    def __init__(self, streams: LiveStreams, key: str, holds: Callable[[], bool]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._streams = streams
        self._key = key
        self._holds = holds

    # Any: what ASGI passes are dictionaries.
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Write events until the stream ends or the reader leaves."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if scope["method"] != "HEAD":
                await self._stream(send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._streams.leave(self._key)

    async def _stream(self, send: Any) -> None:
        raise NotImplementedError


class LiveResponse(StreamResponse):
    """Stream of ``room`` (qualified name): an event a second until the room closes or the broker drains."""

    def __init__(self, streams: LiveStreams, room: str, key: str, holds: Callable[[], bool], seconds: int) -> None:
        super().__init__(streams, key, holds)
        self._room = room
        self._seconds = seconds

    async def _stream(self, send: Any) -> None:
        parts, streams = self._streams.parts, self._streams
        seconds, last = self._seconds, parts.taken(self._room)
        await send(piece(b"retry: %d\n\n" % RETRY_MS))
        while not parts.is_draining() and self._holds():
            waiting = parts.next_second()
            if seconds:
                data = streams.text(self._room, seconds)
                await send(piece(b"event: closed\ndata: {}\n\n" if data is None else data))
                if data is None:
                    return
            await waiting.wait()
            taken = parts.taken(self._room)
            seconds = min(MAX_SECONDS, 1 if last is None or taken is None or taken < last else taken - last)
            last = taken


def piece(data: bytes) -> dict[str, object]:
    """Return the ASGI message of a part of the answer."""
    return {"type": "http.response.body", "body": data, "more_body": True}
