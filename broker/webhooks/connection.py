"""One HTTP/1.1 connection to an endpoint: a request, and its answer up to a size.

The one request that the broker sends needs no client library: a POST of a few fields to a fixed URL, without redirects,
cookies, proxies or compressed bodies. A general client takes 0.8 to 1 ms of CPU for it, this 0.2 ms: that decides how
many questions a core can ask and, with the order of events in a room, how many events an endpoint can take. Parsing
stays with h11.
"""

from __future__ import annotations

import ssl
from typing import NamedTuple
from urllib.parse import urlsplit

import h11
import trio

from broker.webhooks.connecting import Connector

__all__ = ["AnswerBroken", "EndpointConnection", "HttpAnswer", "HttpTarget"]

READ_BYTES = 16 * 1024
MAX_HEAD_BYTES = 16 * 1024
MAX_ANSWERS = 10
"""Informational answers (1xx) before the answer."""


class AnswerBroken(Exception):
    """The connection ended, or what came was not HTTP. ``began``: whether any byte of an answer had come."""

    def __init__(self, why: str, began: bool) -> None:
        super().__init__(why)
        self.began = began


class HttpTarget(NamedTuple):
    """Where a URL leads: ``host`` is also the field of a request, with the port where it is not the scheme's own."""

    is_tls: bool
    address: str
    port: int
    host: str
    path: str

    @classmethod
    def of(cls, url: str) -> HttpTarget:
        """Return the target of an http or https URL that the configuration has checked."""
        parts = urlsplit(url)
        is_tls = parts.scheme == "https"
        address = parts.hostname or ""
        port = parts.port or (443 if is_tls else 80)
        host = f"[{address}]" if ":" in address else address
        if port != (443 if is_tls else 80):
            host = f"{host}:{port}"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(is_tls, address, port, host, path)


class HttpAnswer(NamedTuple):
    """An answer. ``body`` None: it was larger than permitted."""

    status: int
    retry_after: str
    body: bytes | None


class EndpointConnection:
    """An open connection. ``used_at``: when it was opened, or its last answer ended, by Trio's clock."""

    def __init__(self, stream: trio.abc.Stream, socket: trio.socket.SocketType) -> None:
        self._stream = stream
        self._socket = socket
        """The socket below the stream."""
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self.used_at = trio.current_time()

    @classmethod
    async def open(cls, target: HttpTarget, context: ssl.SSLContext, connector: Connector) -> EndpointConnection:
        """Connect. OSError, ssl.SSLError or trio.BrokenResourceError where that fails."""
        tcp = await connector.open(target.address, target.port)
        if not target.is_tls:
            return cls(tcp, tcp.socket)
        stream = trio.SSLStream(tcp, context, server_hostname=target.address, https_compatible=True)
        try:
            await stream.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return cls(stream, tcp.socket)

    async def post(self, target: HttpTarget, fields: list[tuple[str, str]], body: bytes, max_bytes: int) -> HttpAnswer:
        """Send a request and return its answer, of whose body at most ``max_bytes`` are read.

        AnswerBroken where there is none. The connection can be used again if `is_reusable`.

        :param fields: names and values in ASCII without line breaks; they are not checked.
        """
        http = self._http
        # h11 needs to know of the request, not of every field: checking them all costs more than all else here.
        known = h11.Request(
            method="POST", target=target.path, headers=[("Host", target.host), ("Content-Length", str(len(body)))]
        )
        for part in (known, h11.Data(data=body), h11.EndOfMessage()):
            http.send(part)
        lines = [f"POST {target.path} HTTP/1.1", f"Host: {target.host}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in fields]
        data = "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body
        began = False
        try:
            await self._stream.send_all(data)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it may have answered before it closed: 413, say
        status, retry_after, answers = 0, "", 0
        received = bytearray()
        try:
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    chunk = await self._stream.receive_some(READ_BYTES)
                    began = began or bool(chunk)
                    http.receive_data(bytes(chunk))
                elif isinstance(event, h11.InformationalResponse):
                    answers += 1
                    if answers > MAX_ANSWERS:
                        raise AnswerBroken("too many informational answers", True)
                elif isinstance(event, h11.Response):
                    status = event.status_code
                    retry_after = dict(event.headers).get(b"retry-after", b"").decode("latin-1")
                elif isinstance(event, h11.Data):
                    received += event.data
                    if len(received) > max_bytes:
                        return HttpAnswer(status, retry_after, None)
                elif isinstance(event, h11.EndOfMessage):
                    break
                else:
                    raise AnswerBroken("the connection ended", began)
        except h11.RemoteProtocolError as error:
            raise AnswerBroken(str(error) or "not HTTP", began) from None
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise AnswerBroken(str(error.__cause__ or error) or type(error).__name__, began) from None
        if http.our_state is h11.DONE and http.their_state is h11.DONE and not http.trailing_data[0]:
            http.start_next_cycle()
            self.used_at = trio.current_time()
        return HttpAnswer(status, retry_after, bytes(received))

    @property
    def is_reusable(self) -> bool:
        """Whether another request may follow."""
        return self._http.our_state is h11.IDLE and self._http.their_state is h11.IDLE

    @property
    def is_stale(self) -> bool:
        """Whether the receiver has ended a connection that waits for a request, or has sent what nothing asked for:
        that would be read as the answer to the next request."""
        return self._socket.is_readable()

    async def aclose(self) -> None:
        """Close it at once, without the closing alert of TLS."""
        await trio.aclose_forcefully(self._stream)
