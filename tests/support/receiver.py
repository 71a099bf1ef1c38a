"""Receiver of webhooks on loopback: plain HTTP/1.1 over real sockets, which can also misbehave in any way."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import h11
import trio

__all__ = ["Answer", "Received", "Receiver", "http_reply", "receiver"]


class Received(NamedTuple):
    """One request. ``headers`` in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes


# Bytes are sent as they are, and the connection is kept; None: the answer has used the stream, which is closed.
Answer = Callable[[Received, trio.abc.Stream], Awaitable[bytes | None]]


def http_reply(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """Return an answer with its length; ``_`` in the names of headers is ``-``."""
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Receiver:
    """A running receiver. ``requests``: what has come; ``connections``: how many were accepted."""

    def __init__(self, answer: Answer, scheme: str) -> None:
        self.answer = answer
        self.requests: list[Received] = []
        self.connections = 0
        self.port = 0
        self._scheme = scheme

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self._scheme}://127.0.0.1:{self.port}/hook"

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one connection."""
        self.connections += 1
        try:
            async with stream:
                while (received := await _read_request(stream)) is not None:
                    self.requests.append(received)
                    data = await self.answer(received, stream)
                    if data is None:
                        return
                    await stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass  # the sender has given up


async def _read_request(stream: trio.abc.Stream) -> Received | None:
    connection = h11.Connection(h11.SERVER)
    head: h11.Request | None = None
    body = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = await stream.receive_some()
            if not data and connection.their_state is h11.IDLE:
                return None
            connection.receive_data(bytes(data))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            headers = {name.decode().lower(): value.decode() for name, value in head.headers}
            return Received(head.target.decode(), headers, body)
        else:
            return None


@asynccontextmanager
async def receiver(answer: Answer | None = None, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """Run a receiver that answers each request by ``answer``, without one by 204."""

    async def ok(received: Received, stream: trio.abc.Stream) -> bytes:
        return http_reply(204)

    running = Receiver(answer or ok, "http" if tls is None else "https")
    async with trio.open_nursery() as nursery:
        if tls is None:
            listeners = await nursery.start(_serve_tcp, running)
            running.port = listeners[0].socket.getsockname()[1]
        else:
            secure = await nursery.start(_serve_tls, running, tls)
            running.port = secure.transport_listener.socket.getsockname()[1]
        yield running
        nursery.cancel_scope.cancel()


async def _serve_tcp(running: Receiver, task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
    await trio.serve_tcp(running.serve, 0, host="127.0.0.1", task_status=task_status)


async def _serve_tls(
    running: Receiver, context: ssl.SSLContext, task_status: trio.TaskStatus[trio.SSLListener[trio.SocketStream]]
) -> None:
    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await running.serve(stream)
        except trio.BrokenResourceError:
            pass

    (listener,) = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
    task_status.started(listener)
    await trio.serve_listeners(serve, [listener])
