"""Transports: how a client gets a pipe of bytes to a broker, over TCP or WebSocket, plain or TLS.

The rest of the client sees a `BytePipe` and a `PipeLost`. Whatever a peer or a network can do to a transport (an
HTTP refusal, a reset, a text message, a header that no library expects) comes out as `PipeLost` and as nothing
else. Its ``code`` is only ever a close code that the peer itself has sent in a WebSocket close frame: what *we*
think of the peer's bytes is never reported as the peer's word, because the word decides whether to come back.

This is the one door to trio-websocket. Three of its habits are handled here: its reader task lets exceptions
about bad bytes into the nursery it was given (so it gets one of its own), its handshake waits for ever when the
peer leaves early (`_Guarded` tells), and a failed write throws away what the peer said last (`_Guarded` keeps
reading).
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol, cast
from urllib.parse import urlsplit

import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream
from wsproto.utilities import LocalProtocolError as WebSocketMisuse

from .exceptions import first_leaf

__all__ = ["SUBPROTOCOL", "Address", "BytePipe", "Connector", "PipeLost", "StreamPipe", "connector"]

SUBPROTOCOL = "roomcast.v1"
"""WebSocket subprotocol of the binary encoding."""
READ_BYTES = 64 * 1024
"""One read: the largest frame."""
MAX_MESSAGE_BYTES = 1024 * 1024
"""Largest WebSocket message taken from a broker; with the library's queue of one, what a pipe may hold."""
MAX_UPGRADE_BYTES = 64 * 1024
"""Bytes of an HTTP answer that are read at most before the upgrade."""
GOODBYE_S = 1.0
"""Deadline of a polite close; after it the socket is simply closed."""

_NEVER_SENT = frozenset({1005, 1006, 1015})
"""Codes a library makes up where no close frame, or none with a code, has come (RFC 6455, section 7.4.1)."""

_PORTS = {"roomcast": 7400, "roomcasts": 7400, "ws": 80, "wss": 443}


class PipeLost(Exception):
    """The pipe cannot be made or has ended.

    ``code``: the close code the peer sent, None if it sent none. ``refused``: the peer answered and said no.
    """

    def __init__(self, code: int | None, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason if code is None else f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.refused = refused


class Address(NamedTuple):
    """Where a broker listens; ``path`` is the WebSocket resource."""

    scheme: str
    host: str
    port: int
    path: str = "/"

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read ``roomcast://host[:port]``, ``roomcasts://`` (TLS), ``ws://host[:port]/path`` or ``wss://``.

        Raises ValueError that says what is wrong.
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
        """This address on another host: ``name``, ``name:port`` or ``[v6]:port``; "" is this host.

        Raises ValueError for anything else, for example a URL: a broker may move its clients, not their scheme.
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
        """As in a Host header."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _port_of(given: int | None, default: int) -> int:
    if given == 0:
        raise ValueError("port 0 cannot be connected to")
    return default if given is None else given


class BytePipe(Protocol):
    """Bytes both ways, in order. One task may send while another receives."""

    async def send(self, data: bytes) -> None:
        """Write whole frames. Raises PipeLost. Cancelled halfway, the pipe is of no further use."""

    async def receive(self) -> bytes:
        """Return the next bytes, at least one. Raises PipeLost; safe to cancel."""

    async def aclose(self, code: int | None = None) -> None:
        """End the pipe: politely within GOODBYE_S with a close ``code``, at once without. Never raises PipeLost."""


Connector = Callable[[trio.Nursery, Address], Awaitable[BytePipe]]
"""Makes a pipe; tasks the pipe needs live in the nursery, which is cancelled when the pipe is done with."""


class StreamPipe:
    """A pipe over any Trio stream: TCP, TLS over TCP, or a memory stream in tests."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def send(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise PipeLost(None, _why(error, "the connection broke")) from error

    async def receive(self) -> bytes:
        try:
            received = await self._stream.receive_some(READ_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise PipeLost(None, _why(error, "the connection broke")) from error
        if not received:
            raise PipeLost(None, "the peer closed the connection")
        return bytes(received)

    async def aclose(self, code: int | None = None) -> None:
        if code is not None:
            with trio.move_on_after(GOODBYE_S, shield=True):
                try:
                    await self._stream.aclose()
                except trio.BrokenResourceError:
                    pass
                return
        await trio.aclose_forcefully(self._stream)


class WebSocketPipe:
    """A pipe over a WebSocket: one binary message is a whole number of frames."""

    def __init__(self, connection: WebSocketConnection, stream: _Guarded) -> None:
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
            with trio.move_on_after(GOODBYE_S, shield=True):
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


class _Guarded(trio.abc.Stream):
    """The stream under a WebSocket: says when it has ended, bounds the handshake, survives a failed write.

    A peer that has closed still has its last words in our receive buffer; so a write that fails is only noted
    (``is_broken``) and reading goes on to the end.
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
    """Upgrade ``stream`` and keep trio-websocket's reader alive in a nursery of its own.

    What the reader raises before the upgrade is a PipeLost; after it, the closed message queue tells `receive`.
    """
    failure: Exception | None = None
    pipe: WebSocketPipe | None = None
    try:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as upgrade:
                guarded = _Guarded(stream, upgrade.cancel)
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
    except* Exception as group:  # whatever the peer's bytes made of the library
        failure = first_leaf(group)
    if pipe is not None:
        return
    if isinstance(failure, ConnectionRejected):
        raise PipeLost(None, f"the upgrade was refused with HTTP {failure.status_code}", refused=True)
    if failure is not None:
        raise PipeLost(None, _why(failure, "the upgrade failed"))
    raise PipeLost(None, f"the peer ended the upgrade or does not speak {SUBPROTOCOL}", refused=True)


def _why(error: BaseException, otherwise: str) -> str:
    """What to tell the user of an exception of the network: its own words, shortened."""
    cause: BaseException = error.__cause__ or error
    if isinstance(cause, BaseExceptionGroup):  # one exception for each address of the host that was tried
        first = first_leaf(cause)
        number = first.errno if isinstance(first, OSError) else None
        return f"no connection: {os.strerror(number) if number else first}"[:200]
    return (str(cause) or otherwise)[:200]


def connector(ssl_context: ssl.SSLContext | None = None) -> Connector:
    """The connector of real networks. ``ssl_context``: for TLS addresses; None takes the system's defaults."""
    context = ssl_context

    async def connect(nursery: trio.Nursery, address: Address) -> BytePipe:
        nonlocal context
        try:
            tcp = await trio.open_tcp_stream(address.host, address.port)
        except (OSError, ValueError) as error:  # ValueError: a name that cannot be encoded
            raise PipeLost(None, _why(error, "no connection")) from error
        stream: trio.abc.Stream = tcp
        try:
            if address.is_secure:
                if context is None:
                    context = ssl.create_default_context()  # reads the system's certificates: once
                # https_compatible: a peer that ends without TLS's goodbye is a lost link, which is resumed.
                secure = trio.SSLStream(tcp, context, server_hostname=address.host, https_compatible=True)
                stream = secure
                await secure.do_handshake()
            if not address.is_websocket:
                return StreamPipe(stream)
            pipe: WebSocketPipe = await nursery.start(run_websocket, stream, address)
            return pipe
        except trio.BrokenResourceError as error:
            await trio.aclose_forcefully(stream)
            raise PipeLost(None, _why(error, "TLS failed")) from error
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    return connect
