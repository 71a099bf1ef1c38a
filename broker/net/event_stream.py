"""Server-Sent Events: ``GET /watch/ROOM`` on the viewers' port, one room, read only.

For guests behind proxies that break WebSockets. Each event is one frame of the JSON mode; keep-alive comments keep the
proxies' timers quiet. The stream ends with its connection (``Connection: close``, no length), so nothing frames it but
the events themselves, and one immutable ``bytes`` serves every watcher of a room.

It stands on the viewers' port because it is for viewers: the limits of connections and of addresses, origins, trusted
proxies and TLS are the same as for a WebSocket. The status is written with the first event, once it is clear that the
room may be watched: a refusal has its own, after which a browser does not come back by itself.
"""

from __future__ import annotations

import re
import socket
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from broker.net.http1 import HttpRefusal, HttpRequest, refuse, response
from broker.net.transport import Framing, Transport, TransportSettings
from broker.net.websocket import origin_refusal
from protocol.codes import CloseCode, Lane, Tier
from protocol.text import is_room_name

__all__ = ["EventStreamTransport", "WatchRequest", "event", "is_watch", "retry_in", "watch_request"]

PATH = b"/watch/"
RETRY_MS = 3000
"""When a browser comes back after a connection that broke; what browsers do by themselves."""
KEEP_ALIVE = b":\n\n"
_TIERS = {tier.name.lower(): tier for tier in Tier}
_PARAMETERS = frozenset({"guest", "last_event_id", "tier"})
_is_guest_key = re.compile(r"[A-Za-z0-9_-]{22,64}").fullmatch
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nX-Accel-Buffering: no\r\n"
    b"Connection: close\r\n"
)


class WatchRequest(NamedTuple):
    """What a watcher asks for. ``guest``: its random key, "" = none; ``origin``: the page's, that may read the answer,
    "" = no page's."""

    room: str
    tier: Tier
    guest: str
    last_event_id: str
    origin: str


def is_watch(request: HttpRequest) -> bool:
    """Return whether a request is for a stream of events, rightly or wrongly."""
    return request.target.startswith(PATH)


def watch_request(request: HttpRequest, origins: frozenset[str]) -> WatchRequest | HttpRefusal:
    """Judge a request for a stream; ``origins`` as for a WebSocket."""
    if request.method != b"GET":
        return refuse(405, headers=[("Allow", "GET")])
    lengths = request.all(b"content-length")
    if request.all(b"transfer-encoding") or lengths not in ([], [b"0"]):
        return refuse(400, "A request for a stream has no body.")
    refusal = origin_refusal(request, origins)
    if refusal is not None:
        return refusal
    path, _, query = request.target.partition(b"?")
    try:
        room = unquote_to_bytes(path.removeprefix(PATH)).decode()
        parameters = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=3)
    except ValueError:
        return refuse(400)
    values = dict(parameters)
    if not is_room_name(room):
        return refuse(400, "A room's name is 1 to 64 letters, digits or - _ . : @")
    if len(values) != len(parameters) or not values.keys() <= _PARAMETERS:
        return refuse(400, f"The parameters here are {', '.join(sorted(_PARAMETERS))}, each once.")
    tier, guest = _TIERS.get(values.get("tier", "full")), values.get("guest", "")
    if tier is None:
        return refuse(400, f"tier is one of {', '.join(_TIERS)}.")
    if guest and not _is_guest_key(guest):
        return refuse(400, "guest is 22 to 64 letters, digits, - and _")
    last_event_ids = request.all(b"last-event-id")
    last_event_id = last_event_ids[0].decode("latin-1") if last_event_ids else values.get("last_event_id", "")
    named = request.all(b"origin")
    return WatchRequest(room, tier, guest, last_event_id, named[0].decode("latin-1") if named else "")


def event(data: bytes, id: str = "") -> bytes:
    """Return one event: ``data`` is JSON without line ends."""
    return b"id: %b\ndata: %b\n\n" % (id.encode("ascii"), data) if id else b"data: %b\n\n" % data


def retry_in(wait_ms: int) -> bytes:
    """Return the field that says when to come back."""
    return b"retry: %d\n\n" % wait_ms


class EventStreamTransport(Transport):
    """A stream of events. ``request``: what was asked for. What the peer sends after its request ends it."""

    __slots__ = ("is_begun", "request")
    framing = Framing.EVENT_STREAM

    def __init__(self, sock: socket.socket, settings: TransportSettings, address: str, request: WatchRequest) -> None:
        super().__init__(sock, settings, address)
        self.request = request
        self.is_begun = False
        """The status is written: the room may be watched."""

    def begin(self) -> bytes:
        """Return the status, the headers and the time after which to come back, for the first write."""
        self.is_begun = True
        origin = self.request.origin.encode("latin-1")
        allow = b"Access-Control-Allow-Origin: %b\r\nVary: Origin\r\n" % origin if origin else b""
        return _HEAD + allow + b"\r\n" + retry_in(RETRY_MS)

    def refuse(self, refusal: HttpRefusal, code: int) -> None:
        """Answer with a status in place of a stream, and end."""
        origin = self.request.origin
        headers = (*refusal.headers, ("Access-Control-Allow-Origin", origin), ("Vary", "Origin")) if origin else ()
        self.finish(response(refusal._replace(headers=headers or refusal.headers)), code, refusal.text)

    def probe(self) -> None:
        """Write a comment, which no client sees: it finds out whether the peer is there, and keeps proxies quiet."""
        if self.queue is None:
            self.write(KEEP_ALIVE, Lane.CONTROL)

    def on_bytes(self, data: bytes) -> None:
        """End the connection: after its request a watcher has nothing to say."""
        self.abort("bytes after the request", CloseCode.BAD_TRANSPORT)
