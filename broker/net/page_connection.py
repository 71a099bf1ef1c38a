"""Connection of a browser that loads pages: answers GET requests one after another, without an owner.

A page has some dozens of small files, so the connection stays for the next request. It has an idle time, a longest
life and a greatest number of requests; the next request is read only when the answer before it has been taken.
"""

from __future__ import annotations

import socket
from collections import Counter
from typing import Protocol

from broker.net.http1 import (
    MAX_HEAD_BYTES,
    HttpRefusal,
    HttpRequest,
    PageAnswer,
    Pages,
    find_end,
    read_head,
    refuse,
    response,
    write_answer,
)
from broker.net.transport import Transport, TransportSettings
from protocol.codes import CloseCode

__all__ = ["PageConnection", "PageServing"]

IDLE_S = 5.0
"""Between two requests, and while an answer is taken."""
LIFE_S = 60.0
MAX_REQUESTS = 200


class PageServing(Protocol):
    """What a connection needs of its listener: the pages, and the counter of answers by status."""

    pages: Pages | None
    answered: Counter[int]


class PageConnection(Transport):
    """One connection, from its first request for a page on."""

    __slots__ = ("_buffer", "_ends_at", "_is_last", "_left", "_searched", "_serving")

    def __init__(self, sock: socket.socket, settings: TransportSettings, address: str, serving: PageServing) -> None:
        super().__init__(sock, settings, address)
        self._serving = serving
        self._buffer = bytearray()
        self._searched = 0
        self._left = MAX_REQUESTS
        self._ends_at = self.poller.now + LIFE_S
        self._is_last = False

    def answer(self, request: HttpRequest, answer: PageAnswer, rest: bytes = b"") -> None:
        """Write an answer; ``rest``: what came behind its request."""
        self._buffer += rest
        self._write(request, answer)
        self._continue()

    def on_writable(self) -> None:
        """Write what waits; then answer the next request."""
        super().on_writable()
        self._continue()

    def on_bytes(self, data: bytes) -> None:
        """Collect the next request; a peer that sends more than two heads while it takes nothing is ended."""
        if self._is_last:
            return
        self._buffer += data
        if len(self._buffer) > 2 * MAX_HEAD_BYTES:
            self.abort("too many bytes before an answer was taken", CloseCode.BAD_TRANSPORT)
        else:
            self._continue()

    def _continue(self) -> None:
        """Answer the requests that have come, as long as the peer takes the answers; end after the last one."""
        while self.queue is None and not self.state:
            if self._is_last:
                self.finish(b"", CloseCode.CLIENT_DONE, "answered")
                return
            request = self._next_request()
            if request is None:
                return
            page = None
            if isinstance(request, HttpRequest):
                page = None if self._serving.pages is None else self._serving.pages(request)
            if page is None or isinstance(request, HttpRefusal):
                refusal = request if isinstance(request, HttpRefusal) else refuse(404)
                self._serving.answered[refusal.status] += 1
                self.finish(response(refusal), CloseCode.CLIENT_DONE, "answered")
                return
            self._write(request, page)

    def _next_request(self) -> HttpRequest | HttpRefusal | None:
        """Take the next head off the buffer; None: it has not come whole."""
        end = find_end(self._buffer, self._searched)
        if end < 0:
            self._searched = len(self._buffer)
            return refuse(431) if self._searched > MAX_HEAD_BYTES else None
        request = read_head(bytes(self._buffer[:end]))
        del self._buffer[:end]
        self._searched = 0
        return request

    def _write(self, request: HttpRequest, answer: PageAnswer) -> None:
        self._left -= 1
        self._is_last = not self._left or not _keeps(request)
        self._serving.answered[answer.status] += 1
        self.poller.rewheel(self, min(self.poller.now + IDLE_S, self._ends_at))
        self.write(write_answer(answer, head_only=request.method == b"HEAD", keeps=not self._is_last))

    def close(self, code: int, reason: str, final_bytes: bytes = b"") -> None:
        """End the connection without another byte: a GOAWAY is for links."""
        self.abort(reason, code)

    def on_deadline(self, now: float) -> None:
        """End an idle connection, or one that takes its answer too slowly."""
        if self.state:
            self.release()
        else:
            self.abort("idle", CloseCode.CLIENT_DONE)


def _keeps(request: HttpRequest) -> bool:
    """Return whether another request may follow: a body would be in the way, and old clients close."""
    options = {each.strip().lower() for value in request.all(b"connection") for each in value.split(b",")}
    has_body = request.all(b"transfer-encoding") or request.all(b"content-length") not in ([], [b"0"])
    return request.version == b"1.1" and b"close" not in options and not has_body
