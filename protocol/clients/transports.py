"""Transports: byte pipes from a client to a broker, over TCP or WebSocket, plain or TLS.

The rest of the client uses `BytePipe` and `PipeLost`. Every failure of a peer or a network (an HTTP refusal, a reset, a
text message, an unexpected header) is a `PipeLost` and nothing else. Its ``code`` is always a close code that the peer
has sent in a WebSocket close frame, never this side's opinion of the peer's bytes, because the code decides whether the
client reconnects.

Only this module imports trio-websocket, and it works around three properties of it: its reader task raises exceptions
about bad bytes in the nursery it was given (so it gets one of its own), its handshake never ends when the peer closes
early, and a failed write discards bytes that the peer has sent before (`_UpgradeStream` mends both).
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple, Protocol, cast
from urllib.parse import urlsplit

import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream
from wsproto.utilities import LocalProtocolError as WebSocketMisuse

from .exceptions import first_leaf

__all__ = ["SUBPROTOCOL", "Address", "BytePipe", "Connector", "PipeLost", "StreamPipe", "connector", "tls_context"]

SUBPROTOCOL = "roomcast.v1"
"""WebSocket subprotocol of the binary encoding."""
READ_BYTES = 64 * 1024
"""Size of a read: the largest frame."""
MAX_MESSAGE_BYTES = 1024 * 1024
"""Largest WebSocket message accepted from a broker; the library's queue holds one."""
MAX_UPGRADE_BYTES = 64 * 1024
"""Most bytes of an HTTP answer that are read before the upgrade."""
CLOSE_HANDSHAKE_S = 1.0
"""Timeout of the closing handshake; after it the socket is closed."""

_NEVER_SENT = frozenset({1005, 1006, 1015})
"""Codes that libraries report without a close frame, or for one without a code (RFC 6455, section 7.4.1)."""

_PORTS = {"roomcast": 7400, "roomcasts": 7400, "ws": 80, "wss": 443}


class PipeLost(Exception):
    """The pipe cannot be opened or has ended.

    ``code``: the close code that the peer sent, None if it sent none. ``refused``: the peer refused the connection.
    ``certificate``: why the peer's certificate is not accepted, "" for every other reason.
    """

    def __init__(self, code: int | None, reason: str, *, refused: bool = False, certificate: str = "") -> None:
        super().__init__(reason if code is None else f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.refused = refused
        self.certificate = certificate


class Address(NamedTuple):
    """Address of a broker; ``path`` is the WebSocket resource."""

    scheme: str
    host: str
    port: int
    path: str = "/"

    @classmethod
    def parse(cls, url: str) -> Address:
        """Parse ``roomcast://host[:port]``, ``roomcasts://`` (TLS), ``ws://host[:port]/path`` or ``wss://``.

        Raises ValueError with the rule that the text breaks.
        """
        parts = urlsplit(url)
        port = _PORTS.get(parts.scheme)
        if port is None:
            raise ValueError(f"{parts.scheme!r} is not one of {', '.join(_PORTS)}")
        if not parts.hostname or "@" in parts.netloc:
            raise ValueError("an address has a host and no user name")
        if parts.fragment or (parts.scheme.startswith("roomcast") and (parts.path not in ("", "/") or parts.query)):
            raise ValueError("only a ws:// or wss:// address has a path, and none has a fragment")
        resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(parts.scheme, parts.hostname, _port_of(parts.port, port), resource)

    def at(self, host: str) -> Address:
        """Return this address on another host: ``name``, ``name:port`` or ``[v6]:port``; "" is this host.

        Raises ValueError for anything else, for example a URL: a broker cannot change the scheme of its clients.
        """
        if not host:
            return self
        parts = urlsplit(f"//{host}")
        if parts.netloc != host or not parts.hostname or "@" in host:
            raise ValueError(f"{host!r} is not a host with a port")
        return self._replace(host=parts.hostname, port=_port_of(parts.port, self.port))

    @property
    def is_websocket(self) -> bool:
        return self.scheme in ("ws", "wss")

    @property
    def is_secure(self) -> bool:
        return self.scheme in ("roomcasts", "wss")

    @property
    def host_and_port(self) -> str:
        """Text of a Host header."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _port_of(given: int | None, default: int) -> int:
    if given == 0:
        raise ValueError("port 0 cannot be connected to")
    return default if given is None else given


class BytePipe(Protocol):
    """Ordered bytes in both directions. One task may send while another receives."""

    async def send(self, data: bytes) -> None:
        """Write whole frames. Raises PipeLost. After a cancelled call the pipe has to be closed."""

    async def receive(self) -> bytes:
        """Return the next bytes, at least one. Raises PipeLost; safe to cancel."""

    async def aclose(self, code: int | None = None) -> None:
        """Close the pipe: with a close ``code`` by a handshake within CLOSE_HANDSHAKE_S, without one at once.

        Never raises PipeLost.
        """


Connector = Callable[[trio.Nursery, Address], Awaitable[BytePipe]]
"""Async function that opens a pipe; the pipe's tasks run in the nursery, which is cancelled after its end."""


class StreamPipe:
    """A pipe over any Trio stream: TCP, TLS over TCP, or a memory stream in tests."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream

    async def send(self, data: bytes) -> None:
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise PipeLost(None, _reason_of(error, "the connection broke")) from error

    async def receive(self) -> bytes:
        try:
            received = await self.stream.receive_some(READ_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise PipeLost(None, _reason_of(error, "the connection broke")) from error
        if not received:
            raise PipeLost(None, "the peer closed the connection")
        return bytes(received)

    async def aclose(self, code: int | None = None) -> None:
        if code is not None:
            with trio.move_on_after(CLOSE_HANDSHAKE_S, shield=True):
                try:
                    await self.stream.aclose()
                except trio.BrokenResourceError:
                    pass
                return
        await trio.aclose_forcefully(self.stream)


class WebSocketPipe:
    """A pipe over a WebSocket: one binary message is a whole number of frames."""

    def __init__(self, connection: WebSocketConnection, stream: _UpgradeStream) -> None:
        self._connection = connection
        self._stream = stream

    async def send(self, data: bytes) -> None:
        try:
            await self._connection.send_message(data)
        except (ConnectionClosed, WebSocketMisuse) as error:
            raise self._lost() from error
        if self._stream.is_broken:
            raise PipeLost(None, "the connection broke")

    async def receive(self) -> bytes:
        while True:
            try:
                message = await self._connection.get_message()
            except ConnectionClosed as error:
                raise self._lost() from error
            if isinstance(message, str):
                raise PipeLost(None, "the peer sent text on a binary link")
            if message:
                return message

    async def aclose(self, code: int | None = None) -> None:
        if code is not None:
            with trio.move_on_after(CLOSE_HANDSHAKE_S, shield=True):
                try:
                    await self._connection.aclose(code)
                except (ConnectionClosed, WebSocketMisuse):
                    pass
        await trio.aclose_forcefully(self._stream)

    def _lost(self) -> PipeLost:
        closed = self._connection.closed
        if closed is None or closed.code is None or int(closed.code) in _NEVER_SENT:
            return PipeLost(None, "the WebSocket ended without a close frame")
        return PipeLost(int(closed.code), "the WebSocket was closed")


class _UpgradeStream(trio.abc.Stream):
    """Stream under a WebSocket that reports its end, bounds the HTTP answer, and reads on after a failed write.

    When the peer has closed, its final bytes are still in the receive buffer; so a failed write only sets
    ``is_broken``, and reading continues to the end.
    """

    def __init__(self, stream: trio.abc.Stream, on_end: Callable[[], None]) -> None:
        self._stream = stream
        self._on_end: Callable[[], None] | None = on_end
        self._left = MAX_UPGRADE_BYTES
        self.is_broken = False

    def upgraded(self) -> None:
        self._on_end = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            self.is_broken = True

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            received = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._ended()
            raise
        self._left -= len(received)
        if not received or (self._on_end is not None and self._left < 0):
            self._ended()
            return b""
        return received

    def _ended(self) -> None:
        if self._on_end is not None:
            self._on_end()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def run_websocket(
    stream: trio.abc.Stream, address: Address, *, task_status: trio.TaskStatus[WebSocketPipe]
) -> None:
    """Upgrade ``stream`` and run trio-websocket's reader in a nursery of its own.

    Before the upgrade an exception of the reader becomes a PipeLost; after it, `receive` finds the queue closed.
    """
    failure: Exception | None = None
    pipe: WebSocketPipe | None = None
    try:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as upgrade:
                guarded = _UpgradeStream(stream, upgrade.cancel)
                connection = await wrap_client_stream(
                    nursery,
                    cast("trio.SocketStream", guarded),  # the library takes any stream; its annotation is narrower
                    address.host_and_port,
                    address.path,
                    subprotocols=[SUBPROTOCOL],
                    max_message_size=MAX_MESSAGE_BYTES,
                    receive_buffer_size=READ_BYTES,
                )
                guarded.upgraded()
                if connection.subprotocol == SUBPROTOCOL:
                    pipe = WebSocketPipe(connection, guarded)
            if pipe is None:
                nursery.cancel_scope.cancel()
            else:
                task_status.started(pipe)
    except* Exception as group:  # anything that the library raises for the peer's bytes
        failure = first_leaf(group)
    if pipe is not None:
        return
    if isinstance(failure, ConnectionRejected):
        raise PipeLost(None, f"the upgrade was refused with HTTP {failure.status_code}", refused=True)
    if failure is not None:
        raise PipeLost(None, _reason_of(failure, "the upgrade failed"))
    raise PipeLost(None, f"the peer ended the upgrade or does not speak {SUBPROTOCOL}", refused=True)


def _reason_of(error: BaseException, otherwise: str) -> str:
    """Return the text of a network exception, shortened."""
    cause: BaseException = error.__cause__ or error
    if isinstance(cause, BaseExceptionGroup):  # one exception per address of the host
        first = first_leaf(cause)
        number = first.errno if isinstance(first, OSError) else None
        return f"no connection: {os.strerror(number) if number else first}"[:200]
    return (str(cause) or otherwise)[:200]


def _tls_failure(error: trio.BrokenResourceError) -> PipeLost:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = cause.verify_message.rstrip(".")
        return PipeLost(None, f"the certificate is not accepted: {why}"[:200], certificate=why[:200])
    return PipeLost(None, _reason_of(error, "TLS failed"))


def tls_context(ca: str | os.PathLike[str]) -> ssl.SSLContext:
    """Return a context that accepts only certificates of the authorities in the PEM file ``ca``.

    Raises ValueError, naming the file, if it cannot be read or contains no certificate.
    """
    try:
        # ASCII: what is not is a byte order mark, which OpenSSL does not skip, or in a comment.
        text = Path(os.path.expanduser(ca)).read_text(encoding="ascii", errors="ignore")
        if not text:
            raise ValueError  # the context would accept the system's authorities
        return ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError):
        raise ValueError(f"{os.fspath(ca)}: contains no certificate in PEM form") from None
    except OSError as error:
        raise ValueError(f"{os.fspath(ca)}: {error.strerror}") from None


def connector(ssl_context: ssl.SSLContext | None = None) -> Connector:
    """Return the connector of real networks. ``ssl_context``: for TLS addresses; None uses the system's defaults."""
    context = ssl_context

    async def connect(nursery: trio.Nursery, address: Address) -> BytePipe:
        nonlocal context
        try:
            tcp = await trio.open_tcp_stream(address.host, address.port)
        except (OSError, ValueError) as error:  # ValueError: a name that cannot be encoded
            raise PipeLost(None, _reason_of(error, "no connection")) from error
        stream: trio.abc.Stream = tcp
        try:
            if address.is_secure:
                if context is None:
                    context = ssl.create_default_context()  # reads the system's certificates, once
                # https_compatible: a peer that ends without close_notify is a lost link, which is resumed.
                secure = trio.SSLStream(tcp, context, server_hostname=address.host, https_compatible=True)
                stream = secure
                await secure.do_handshake()
            if not address.is_websocket:
                return StreamPipe(stream)
            pipe: WebSocketPipe = await nursery.start(run_websocket, stream, address)
            return pipe
        except trio.BrokenResourceError as error:
            await trio.aclose_forcefully(stream)
            raise _tls_failure(error) from error
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    return connect
