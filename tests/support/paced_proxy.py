"""A proxy in front of a broker whose way to the client is slow, or stands still: it makes a viewer slow."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.integration import require_marker

__all__ = ["PacedProxy", "paced_proxy"]

CHUNK = 1024
SMALL = 4096


class PacedProxy:
    """Forwards connections. While ``hold`` is in force, nothing of the broker is read, so that its sockets fill."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._may_read = threading.Event()
        self._may_read.set()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def hold(self) -> None:
        """Take nothing from the broker until ``release``."""
        self._may_read.clear()

    def release(self) -> None:
        self._may_read.set()

    def close(self) -> None:
        self._may_read.set()
        for each in [self._listener, *self._sockets]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(10)

    def _start(self, task: object, *arguments: object) -> None:
        thread = threading.Thread(target=task, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket()
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
            self._sockets += [client, server]
            try:
                server.connect(self._target)
            except OSError:
                client.close()
                continue
            self._start(self._copy, client, server, False)
            self._start(self._copy, server, client, True)

    def _copy(self, source: socket.socket, sink: socket.socket, is_paced: bool) -> None:
        with suppress(OSError):
            while True:
                if is_paced:
                    self._may_read.wait()
                data = source.recv(CHUNK)
                if not data:
                    break
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def paced_proxy(origin: str) -> Iterator[PacedProxy]:
    """Run a proxy before ``http://HOST:PORT``."""
    require_marker("a proxy")
    host, _, port = origin.removeprefix("http://").rpartition(":")
    proxy = PacedProxy((host, int(port)))
    try:
        yield proxy
    finally:
        proxy.close()
