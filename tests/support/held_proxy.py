"""A proxy that holds back what comes from one side or both: a partition whose packets arrive late."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

__all__ = ["HeldProxy", "held_proxy"]


class _Gate:
    """Lets bytes pass while it is open."""

    def __init__(self) -> None:
        self._opened = trio.Event()
        self._opened.set()

    def hold(self) -> None:
        self._opened = trio.Event()

    def release(self) -> None:
        self._opened.set()

    async def passed(self) -> None:
        await self._opened.wait()


class HeldProxy:
    """Forwards connections of a socket file; nothing is lost, so what was held arrives once it is released."""

    def __init__(self, target: str, path: str) -> None:
        self.path = path
        self._target = target
        self._questions = _Gate()
        self._answers = _Gate()

    def hold(self, *, questions: bool, answers: bool) -> None:
        """Hold what clients send, what the server answers, or both."""
        for gate, is_held in ((self._questions, questions), (self._answers, answers)):
            if is_held:
                gate.hold()

    def release(self) -> None:
        """Let everything pass."""
        self._questions.release()
        self._answers.release()

    async def serve(self, client: trio.SocketStream) -> None:
        try:
            server = await trio.open_unix_socket(self._target)
        except OSError:
            return
        async with server, trio.open_nursery() as nursery:
            nursery.start_soon(self._forward, client, server, self._questions)
            nursery.start_soon(self._forward, server, client, self._answers)

    async def _forward(self, source: trio.SocketStream, target: trio.SocketStream, gate: _Gate) -> None:
        try:
            while data := await source.receive_some(65536):
                await gate.passed()
                await target.send_all(data)
            await gate.passed()
            await target.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await gate.passed()
            await trio.aclose_forcefully(target)


@asynccontextmanager
async def held_proxy(target: str) -> AsyncIterator[HeldProxy]:
    """Run a proxy in front of the socket file ``target``."""
    with tempfile.TemporaryDirectory(prefix="roomcast-proxy-") as name:
        proxy = HeldProxy(target, str(Path(name) / "s"))
        sock = trio.socket.socket(socket.AF_UNIX)
        await sock.bind(proxy.path)
        sock.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, proxy.serve, [trio.SocketListener(sock)])
            yield proxy
            nursery.cancel_scope.cancel()
