"""One connection of the control API: HTTP/1.1 by h11, requests one after another, each run by an ASGI application.

Everything has a bound: a head has `MAX_HEAD_BYTES` and `MAX_HEADERS` headers, and must be whole within `HEAD_S`, a
body within `BODY_S`, an answer must be taken within `SEND_S`, an idle connection ends after `IDLE_S`. The application
runs in the connection's own task, so a request costs no other. What a peer sends can end its own connection only; a
defect of the application is logged and answered by 500.

A body that the application did not read ends the connection, unless it is short and has come already: at most
`MAX_BODY_LEFT` bytes are read first, so that the answer is not destroyed by a reset. A body has at most `MAX_PIECES`
pieces: chunks of one byte cost as much as long ones, and the event loop runs between any two.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote_to_bytes

import h11
import structlog
import trio

from broker.net.http1 import MAX_HEADERS

__all__ = ["AsgiApp", "HttpConnection", "HttpCounters", "plain_answer"]

log = structlog.get_logger("roomcast.api.server")

MAX_HEAD_BYTES = 16 * 1024
RECEIVE_BYTES = 64 * 1024
IDLE_S = 15.0
HEAD_S = 10.0
BODY_S = 20.0
SEND_S = 20.0
PAUSE_S = 0.2
"""How long a connection is not read after a refusal for its rate or its key: whoever goes on all the same costs the
viewers five requests a second and connection."""
LINGER_S = 1.0
"""How long an ended connection is still read."""
MAX_BODY_LEFT = 256 * 1024
MAX_PIECES = 8192
"""Chunks and reads of one body."""
MAX_SKIPPED_PIECES = 16
"""Pieces of an unread body that are discarded without letting the event loop run."""

# Any: what ASGI passes are dictionaries.
AsgiApp = Callable[[Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]
_STATUS_ERRORS = {
    400: "The request is wrong",
    408: "Too slow",
    413: "The body has too many pieces",
    431: "The head is too large",
    501: "Not known here",
    505: "HTTP/1.1 is spoken here",
}


_PAUSES = frozenset({401, 429})


class _TooSlow(Exception):
    """The peer has not sent, or taken, its bytes in time."""


class HttpCounters:
    """Counters of all connections; they only grow."""

    __slots__ = ("malformed", "requests", "too_slow")

    def __init__(self) -> None:
        self.requests = 0
        self.malformed = 0
        """Connections ended because what came is not HTTP, or above a bound."""
        self.too_slow = 0
        """Connections ended because a head, a body or the taking of an answer lasted too long."""


class HttpConnection:
    """The serving side of one socket. ``client``: the peer's address, None on a socket file."""

    def __init__(
        self, sock: socket.socket, app: AsgiApp, client: tuple[str, int] | None, counters: HttpCounters
    ) -> None:
        self._sock = sock
        self._app = app
        self._client = client
        self._counters = counters
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._deadline = 0.0
        """Until when the bytes that are waited for must have come."""
        self._is_reading_body = False
        self._is_silent = True
        """No byte of the next request has come."""
        self._is_answered = False
        """The request was answered here, whatever the application says."""
        self._is_head = False
        self._pieces = 0
        """Pieces of the request's body so far."""
        self._status = 0
        """Of the last response."""
        self._start: Any = None
        """The ASGI message that starts the response, until its first bytes of body."""

    async def run(self) -> None:
        """Serve requests until either side ends the connection. Closes the socket; raises only Cancelled."""
        try:
            may_follow = await self._serve_one()
            while may_follow:
                await trio.sleep(PAUSE_S if self._status in _PAUSES else 0)
                may_follow = await self._serve_one()
        except _TooSlow:
            if not self._is_silent:
                self._counters.too_slow += 1
                await self._refuse(408)
        except h11.RemoteProtocolError as error:
            self._counters.malformed += 1
            await self._refuse(error.error_status_hint)
        except (OSError, h11.LocalProtocolError, trio.ClosedResourceError):
            pass  # the peer has left
        finally:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    # ---- one request

    async def _serve_one(self) -> bool:
        """Serve the next request; returns whether another may follow."""
        http = self._http
        self._is_reading_body = self._is_answered = False
        self._is_silent = not http.trailing_data[0]
        self._deadline = trio.current_time() + IDLE_S
        request = await self._next_event()
        if not isinstance(request, h11.Request):
            return False
        self._counters.requests += 1
        nbytes = len(request.target) + sum(len(name) + len(value) for name, value in request.headers)
        if len(request.headers) > MAX_HEADERS or nbytes > MAX_HEAD_BYTES:  # h11 measures only heads that come in pieces
            raise h11.RemoteProtocolError("the head is too large", 431)
        if not request.http_version.startswith(b"1."):
            raise h11.RemoteProtocolError("not HTTP/1", 505)
        names = {name for name, _ in request.headers}
        if {b"content-length", b"transfer-encoding"} <= names:  # a proxy in front may have believed the other one
            raise h11.RemoteProtocolError("two lengths of one body", 400)
        self._deadline = trio.current_time() + BODY_S
        self._is_reading_body = True
        self._is_head = request.method == b"HEAD"
        self._pieces = 0
        self._start = None
        target, _, query = request.target.partition(b"?")
        path = unquote_to_bytes(target).decode(errors="replace")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": request.http_version.decode("ascii"),
            "method": request.method.decode("ascii"),
            "scheme": "http",
            "path": path,
            "raw_path": target,
            "query_string": query,
            "root_path": "",
            "headers": list(request.headers),
            "client": self._client,
            "server": None,
        }
        try:
            await self._app(scope, self._receive, self._send)
        except (_TooSlow, OSError, h11.ProtocolError):
            raise
        except Exception:
            log.exception("request failed", path=path[:128])
            await self._refuse(500)
        if http.our_state is h11.DONE and http.their_state is h11.DONE:
            http.start_next_cycle()
            return True
        if not self._is_answered and http.our_state in (h11.DONE, h11.MUST_CLOSE):
            await self._linger()
        return False

    async def _next_event(self) -> Any:
        """Return h11's next event, reading as long as it needs more. OSError, RemoteProtocolError, _TooSlow."""
        http = self._http
        while True:
            if http.they_are_waiting_for_100_continue and self._is_reading_body:
                await self._write(http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            event = http.next_event()
            if event is not h11.NEED_DATA:
                return event
            data = await self._read()
            if self._is_silent and data:
                self._is_silent = False
                self._deadline = trio.current_time() + HEAD_S
            http.receive_data(data)

    async def _read(self) -> bytes:
        """Return the next bytes, b"" at the end of the stream."""
        while True:
            try:
                return self._sock.recv(RECEIVE_BYTES if self._is_reading_body else MAX_HEAD_BYTES)
            except BlockingIOError:
                with trio.move_on_at(self._deadline) as waiting:
                    await trio.lowlevel.wait_readable(self._sock)
                if waiting.cancelled_caught:
                    raise _TooSlow from None

    async def _write(self, data: bytes) -> None:
        """Write everything. OSError, _TooSlow."""
        view = memoryview(data)
        deadline = 0.0
        while view:
            try:
                view = view[self._sock.send(view) :]
            except BlockingIOError:
                deadline = deadline or trio.current_time() + SEND_S
                with trio.move_on_at(deadline) as waiting:
                    await trio.lowlevel.wait_writable(self._sock)
                if waiting.cancelled_caught:
                    raise _TooSlow from None

    # ---- ASGI

    async def _receive(self) -> Any:
        """Return the next piece of the body; after its end, that the peer has left, once it has."""
        http = self._http
        if http.their_state is h11.SEND_BODY:
            self._pieces += 1
            if self._pieces > MAX_PIECES:
                raise h11.RemoteProtocolError("too many pieces of a body", 413)
            await trio.lowlevel.checkpoint()
            try:
                event = await self._next_event()
            except _TooSlow:
                self._counters.too_slow += 1
                await self._refuse(408)
                return {"type": "http.disconnect"}
            if isinstance(event, h11.Data):
                return {"type": "http.request", "body": bytes(event.data), "more_body": True}
            if isinstance(event, h11.EndOfMessage):
                return {"type": "http.request", "body": b"", "more_body": False}
            return {"type": "http.disconnect"}
        await trio.lowlevel.wait_readable(self._sock)
        if self._sock.recv(1, socket.MSG_PEEK):
            await trio.sleep_forever()  # the next request waits for the end of this one
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        """Write a part of the response."""
        if self._is_answered:
            return
        if message["type"] == "http.response.start":
            self._start = message
            return
        http = self._http
        data = b""
        start, self._start = self._start, None
        if start is not None:
            self._status = start["status"]
            headers = [(bytes(name), bytes(value)) for name, value in start["headers"]]
            if not self._skip_buffered_body():
                headers.append((b"connection", b"close"))
            data = http.send(h11.Response(status_code=start["status"], headers=headers)) or b""
        body = message.get("body", b"")
        if body and not self._is_head:
            data += http.send(h11.Data(data=bytes(body))) or b""
        if not message.get("more_body", False):
            data += http.send(h11.EndOfMessage()) or b""
        await self._write(data)

    # ---- the end

    def _skip_buffered_body(self) -> bool:
        """Discard a short body as far as it has come; returns whether it is whole."""
        http = self._http
        for _ in range(MAX_SKIPPED_PIECES):
            if http.their_state is not h11.SEND_BODY or http.they_are_waiting_for_100_continue:
                break
            if http.next_event() is h11.NEED_DATA:
                try:
                    data = self._sock.recv(RECEIVE_BYTES)
                except BlockingIOError:
                    break
                http.receive_data(data)
        return http.their_state is not h11.SEND_BODY

    async def _refuse(self, status: int) -> None:
        """Answer what is no request, if nothing was answered yet, and end."""
        self._is_answered = True
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            try:
                await self._write(plain_answer(self._http, status))
                await self._linger()
            except (OSError, _TooSlow):
                pass

    async def _linger(self) -> None:
        """Shut the sending side down, and read on for a while: a reset would destroy the answer on its way."""
        self._sock.shutdown(socket.SHUT_WR)
        left = MAX_BODY_LEFT
        self._deadline = trio.current_time() + LINGER_S
        try:
            while left > 0 and (data := await self._read()):
                left -= len(data)
        except (_TooSlow, OSError):
            pass


def plain_answer(http: h11.Connection, status: int) -> bytes:
    """Return a whole response of HTTP's own, as a problem document; the connection ends with it."""
    title = _STATUS_ERRORS.get(status, "Internal error" if status >= 500 else _STATUS_ERRORS[400])
    body = f'{{"type":"about:blank","title":"{title}","status":{status}}}'.encode()
    headers = [
        ("Content-Type", "application/problem+json"), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"),
        ("Connection", "close"),
    ]  # fmt: skip
    answer = http.send(h11.Response(status_code=status, headers=headers)) or b""
    return answer + (http.send(h11.Data(data=body)) or b"") + (http.send(h11.EndOfMessage()) or b"")
