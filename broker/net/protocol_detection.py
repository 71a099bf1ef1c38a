"""Detection of a connection's protocol by its first bytes, and the answer to a refused connection.

    first byte                      becomes
    0x00                            the native protocol
    a method's initial              HTTP: a WebSocket handshake, or one answer
    0x16, if TLS is configured      a TLS handshake, and then this table again
    0x0D or "PROXY ", if the peer   a PROXY header, and then this table again; from a trusted proxy the
    is a trusted proxy              header is required but for a health check, from any other peer it is noise
    anything else                   closed

A connection that the limits refused gets its answer in its own protocol: GOAWAY with a time to return, or 503 with
Retry-After. The deadline was set when the connection was accepted; no byte moves it, and the transport that takes over
keeps it, up to the end of the log-in.

Where a trusted proxy sends no PROXY header, a header of the WebSocket handshake names the client, and a native
connection counts as the proxy's.

No byte of a client comes back in an answer, and at most `MAX_HEAD_BYTES` and a read are held.
"""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import structlog

from broker.core.net.connection_limits import Admission, ConnectionLimits, Refuse
from broker.core.net.forwarded import client_address
from broker.core.net.proxy_header import MAX_BYTES, HeaderState, Networks, parse
from broker.net.event_stream import EventStreamTransport, WatchRequest, is_watch, watch_request
from broker.net.http1 import (
    MAX_HEAD_BYTES,
    METHOD_INITIALS,
    Health,
    HttpRefusal,
    HttpRequest,
    Pages,
    answer,
    could_be_http,
    find_end,
    read_head,
    refuse,
    response,
)
from broker.net.page_connection import PageConnection
from broker.net.tls import TlsSocket, wrap
from broker.net.transport import Owner, TcpTransport, Transport, TransportSettings, TransportState
from broker.net.websocket import WebSocketJsonTransport, WebSocketTransport, is_upgrade, upgrade
from protocol.codes import CloseCode, Lane
from protocol.connection import encode
from protocol.messages import GoAway

__all__ = ["DetectorSettings", "ProtocolDetector", "release_admission"]

log = structlog.get_logger("roomcast.connections")

NATIVE_FIRST = 0x00
TLS_FIRST = 0x16
_NO_PROXY_HEADER = "a PROXY header is required here"


@dataclass(slots=True)
class DetectorSettings:
    """Settings that all detectors of a listener share, and the counters they write."""

    connection_limits: ConnectionLimits
    make_session: Callable[[Transport], Owner]
    health: Health
    watch: Callable[[EventStreamTransport], None] | None = None
    """Gives a stream of events its owner and starts it; None: there are no such streams."""
    pages: Pages | None = None
    """Answers requests for pages; None: there are none."""
    origins: frozenset[str] = frozenset()
    tls: ssl.SSLContext | None = None
    trusted: Networks = field(default_factory=Networks)
    """Proxies that may name the client's address; empty = PROXY headers are noise."""
    address_header: bytes = b"x-forwarded-for"
    """Header in which they name the client of a WebSocket if they send no PROXY header."""
    opened: Counter[str] = field(default_factory=Counter)
    """Connections by detected protocol: native, websocket, json, watch (tls counts the handshakes under them)."""
    answered: Counter[int] = field(default_factory=Counter)
    """HTTP answers, by status."""
    refused: int = 0
    """Refusals by the limits that were answered."""
    noise: int = 0
    """Connections closed without a known protocol: bad first bytes, bad TLS, bad PROXY header."""
    unnamed: int = 0
    """WebSockets of a trusted proxy that named no client: they count as the proxy's."""


class ProtocolDetector(Transport):
    """A connection before its protocol is known.

    ``refusal``: the limits' answer, if it was a refusal.
    ``proxy``: the address of the peer, if it is a trusted proxy; the connection's address is "" until it is known.
    ``is_proxied``: a PROXY header comes first, or a health check of the proxy.
    """

    __slots__ = (
        "_buffer", "_detector", "_peeks", "_searched", "in_overflow", "is_proxied", "only_health", "proxy", "refusal",
    )  # fmt: skip

    def __init__(
        self,
        sock: socket.socket,
        settings: TransportSettings,
        address: str,
        detector: DetectorSettings,
        refusal: Refuse | None = None,
        *,
        is_proxied: bool = False,
        proxy: str = "",
    ) -> None:
        super().__init__(sock, settings, address)
        self.refusal = refusal
        self.in_overflow = refusal is not None
        self.is_proxied = is_proxied
        self.only_health = False
        """Whether nothing but an HTTP request is taken: the trusted proxy sent no PROXY header."""
        self.proxy = proxy
        self._detector = detector
        self._buffer = bytearray()
        self._searched = 0
        self._peeks = is_proxied or detector.tls is not None

    @property
    def buffered_bytes(self) -> int:
        """Bytes that were read and do not yet decide the protocol."""
        return len(self._buffer)

    # ---- bytes

    def on_readable(self) -> None:
        """Inspect the first bytes, without taking any that belong to TLS."""
        if self._peeks and not self.state:
            self._peek()
        else:
            super().on_readable()

    def _peek(self) -> None:
        try:
            data = self.sock.recv(MAX_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError as error:
            self.abort(f"read failed: {error.strerror or error}")
            return
        if not data:
            self.abort("closed by peer")
        elif self.is_proxied:
            self._read_proxy_header(data)
        elif data[0] == TLS_FIRST and self._detector.tls is not None:
            self.start_tls(self._detector.tls)
        else:
            self._peeks = False
            super().on_readable()

    def _read_proxy_header(self, data: bytes) -> None:
        """Take the header's bytes off the socket, and not one more."""
        held = len(self._buffer)
        self._buffer += data
        header = parse(self._buffer)
        if header is HeaderState.MALFORMED:
            is_tls = self._buffer[0] == TLS_FIRST and self._detector.tls is not None
            if is_tls or could_be_http(self._buffer):
                del self._buffer[held:]  # the rest is still on the socket
                self.is_proxied = False
                self.only_health = True
                self.on_readable()
            else:
                self._end_noise(_NO_PROXY_HEADER)
            return
        try:
            if isinstance(header, HeaderState):
                self.sock.recv(len(data))
                return
            self.sock.recv(header.consumed - held)
            address = header.address or str(self.sock.getpeername()[0])
        except OSError as error:
            self.abort(f"read failed: {error.strerror or error}")
            return
        self._buffer.clear()
        self.is_proxied = False
        self._peeks = self._detector.tls is not None
        self._reveal(address)

    def _reveal(self, address: str) -> None:
        """Count the connection for its address, which was not known when it was accepted."""
        self.proxy = ""
        if self.refusal is None:
            admission = self._detector.connection_limits.reveal(address, self.settings.poller.now)
            if admission is Admission.ADMIT:
                self.address = sys.intern(address)
            elif isinstance(admission, Refuse):
                self.refusal = admission

    def _reveal_named(self, request: HttpRequest) -> None:
        """Count a request of a trusted proxy for the client that its header names; the proxy's own health checks count
        for no address."""
        detector = self._detector
        values = request.all(detector.address_header)
        if not values:
            if not _is_viewer(request):
                return
            detector.unnamed += 1
            log.warning(
                "a trusted proxy names no client", proxy=self.proxy, header=detector.address_header.decode(),
                effect="its viewers count as one address",
            )  # fmt: skip
        is_rfc7239 = detector.address_header == b"forwarded"
        self._reveal(client_address(values, self.proxy, detector.trusted, is_rfc7239=is_rfc7239))

    def on_bytes(self, data: bytes) -> None:
        """Choose the protocol by the first byte."""
        if not self._buffer and data[0] == NATIVE_FIRST and not self.only_health:
            self._become_native(data)
            return
        self._buffer += data
        if self._buffer[0] in METHOD_INITIALS:
            self._read_http()
        else:
            self._end_noise("no protocol starts with this byte")

    def _end_noise(self, reason: str) -> None:
        self._detector.noise += 1
        self.abort(reason, CloseCode.BAD_TRANSPORT)

    # ---- native

    def _become_native(self, data: bytes) -> None:
        if self.proxy:
            self._reveal(self.proxy)
        refusal = self.refusal
        if refusal is None:
            self._hand_over(TcpTransport, "native", b"", data)
            return
        self._detector.refused += 1
        why = refusal.code.name.lower().replace("_", " ")
        goaway = GoAway(refusal.code, why, refusal.retry_after_ms, refusal.retry_after_ms)
        self.finish(encode(goaway, 0, 0, Lane.CONTROL), refusal.code, "refused")

    # ---- HTTP

    def _read_http(self) -> None:
        buffer = self._buffer
        end = find_end(buffer, self._searched)
        if end < 0:
            self._searched = len(buffer)
            if not could_be_http(buffer):
                self._answer(refuse(400))
            elif len(buffer) > MAX_HEAD_BYTES:
                self._answer(refuse(431))
            return
        request = read_head(bytes(buffer[:end]))
        if isinstance(request, HttpRequest):
            if self.only_health and _is_viewer(request):
                self._end_noise(_NO_PROXY_HEADER)
                return
            if self.proxy:
                self._reveal_named(request)
        refusal = self.refusal
        if isinstance(request, HttpRefusal):
            self._answer(request)
        elif refusal is not None and (refusal.code != CloseCode.GOING_AWAY or _is_viewer(request)):
            self._detector.refused += 1
            self._answer(refuse(503, headers=[("Retry-After", str(math.ceil(refusal.retry_after_ms / 1000)))]))
        elif self._detector.watch is not None and is_watch(request):
            asked = watch_request(request, self._detector.origins)
            if isinstance(asked, HttpRefusal):
                self._answer(asked)
            else:
                self._become_stream(asked, self._detector.watch)
        elif not is_upgrade(request):
            page = None if self._detector.pages is None else self._detector.pages(request)
            if page is None:
                self._finish_http(answer(request, self._detector.health))
            else:
                connection = PageConnection(self.sock, self.settings, self.address, self._detector)
                self._replace_by(connection)
                connection.answer(request, page, bytes(buffer[end:]))
        else:
            agreed = upgrade(request, self._detector.origins)
            if isinstance(agreed, HttpRefusal):
                self._answer(agreed)
            else:
                kind, name = (WebSocketJsonTransport, "json") if agreed.json else (WebSocketTransport, "websocket")
                self._hand_over(kind, name, agreed.response, bytes(buffer[end:]))

    def _answer(self, refusal: HttpRefusal) -> None:
        self._finish_http(response(refusal))

    def _finish_http(self, answer_bytes: bytes) -> None:
        self._detector.answered[int(answer_bytes[9:12])] += 1
        self.finish(answer_bytes, CloseCode.CLIENT_DONE, "answered")

    def close(self, code: int, reason: str, final_bytes: bytes = b"") -> None:
        """End a connection without a protocol, with 408 or 503 for half a request. It does not linger."""
        if not self.state and not self.is_proxied and self._buffer and self._buffer[0] in METHOD_INITIALS:
            status = 408 if code == CloseCode.HANDSHAKE_TIMEOUT and self.refusal is None else 503
            self._detector.answered[status] += 1
            with contextlib.suppress(OSError):
                self.sock.send(response(refuse(status)))
        self.abort(reason, code)

    # ---- becoming

    def _hand_over(self, kind: type[Transport], name: str, first: bytes, rest: bytes) -> None:
        """Replace this by a transport of ``kind``: it writes ``first``, then gets an owner and the ``rest`` of the
        bytes."""
        transport = kind(self.sock, self.settings, self.address)
        self._replace_by(transport)
        if first:
            transport.write(first)
            if transport.state:
                return
        self._detector.opened[name] += 1
        transport.owner = self._detector.make_session(transport)
        if rest:
            transport.on_bytes(rest)

    def _become_stream(self, asked: WatchRequest, watch: Callable[[EventStreamTransport], None]) -> None:
        transport = EventStreamTransport(self.sock, self.settings, self.address, asked)
        self._replace_by(transport)
        self._detector.opened["watch"] += 1
        watch(transport)

    def start_tls(self, context: ssl.SSLContext) -> None:
        sock = self.sock
        try:
            self.sock = wrap(context, sock)
        except (OSError, ValueError) as error:
            self.abort(f"TLS failed: {error}")
            return
        handshake = TlsHandshake(self.sock, self.settings, self.address, self._detector, self.refusal)
        handshake.in_overflow = self.in_overflow
        handshake.only_health, handshake.proxy = self.only_health, self.proxy
        self._replace_by(handshake)
        handshake.on_readable()

    def _replace_by(self, transport: Transport) -> None:
        self.poller.replace(self, transport)
        self.state = TransportState.CLOSED


def _is_viewer(request: HttpRequest) -> bool:
    """Return whether a request means to become a viewer's connection."""
    return is_upgrade(request) or is_watch(request)


class TlsHandshake(ProtocolDetector):
    """Protocol detection inside TLS, beginning with the TLS handshake."""

    __slots__ = ("_is_handshaking",)

    def __init__(
        self,
        sock: socket.socket,
        settings: TransportSettings,
        address: str,
        detector: DetectorSettings,
        refusal: Refuse | None = None,
    ) -> None:
        super().__init__(sock, settings, address, detector, refusal)
        self._peeks = False
        self._is_handshaking = True

    def on_readable(self) -> None:
        """Continue the handshake, then detect the protocol as on a plain connection."""
        if self.state or not self._is_handshaking or self._continue_handshake():
            super().on_readable()

    def on_writable(self) -> None:
        """Continue a handshake that found the socket full."""
        if self._is_handshaking:
            self.on_readable()
        else:
            super().on_writable()

    def _continue_handshake(self) -> bool:
        try:
            done = cast(TlsSocket, self.sock).continue_handshake()
        except BlockingIOError:
            self.poller.watch_writable(self)
            return False
        except OSError as error:
            self._detector.noise += 1
            self.abort(f"TLS failed: {error.strerror or error}")
            return False
        self.poller.unwatch_writable(self)
        if done:
            self._is_handshaking = False
            self._detector.opened["tls"] += 1
        return done


def release_admission(connection_limits: ConnectionLimits, transport: Transport) -> None:
    """Count the end of a connection in the limits; the transports' ``on_released``."""
    if isinstance(transport, ProtocolDetector) and transport.in_overflow:
        connection_limits.leave_refused(transport.address)
    else:
        connection_limits.leave(transport.address, transport.authenticated)
