"""A server of one URL on loopback that answers what a test says: good sets, errors, silence, too much."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

__all__ = ["JwksServer", "jwks_server", "response"]


def response(body: str | bytes, status: str = "200 OK", *headers: str) -> bytes:
    """An HTTP response."""
    data = body.encode() if isinstance(body, str) else body
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(data)}", "Connection: close", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


class JwksServer:
    """``answer`` is what every request gets; None: no answer. ``requests`` counts them."""

    def __init__(self) -> None:
        self.answer: bytes | None = response("{}")
        self.requests = 0
        self.heads: list[bytes] = []
        self.url = ""

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer one request."""
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                data = await stream.receive_some(4096)
                if not data:
                    return
                head += data
            self.requests += 1
            self.heads.append(head)
            if self.answer is None:
                await trio.sleep_forever()
                return
            try:
                await stream.send_all(self.answer)
            except trio.BrokenResourceError:  # it was more than the broker takes
                return


@asynccontextmanager
async def jwks_server() -> AsyncIterator[JwksServer]:
    """Run a server while the block lasts."""
    server = JwksServer()
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/jwks.json"
        nursery.start_soon(trio.serve_listeners, server.serve, [listener])
        yield server
        nursery.cancel_scope.cancel()
