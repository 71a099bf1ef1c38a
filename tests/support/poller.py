"""Harness of the link tests: a poller with a manual clock, real loopback sockets, and owners that record events.

Nothing sleeps: `Harness.until` turns the poller and waits in `select` for the kernel only.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme

from broker.core.limits.overload import ByteBudget
from broker.core.net.connection_limits import ConnectionLimits, Refuse
from broker.core.net.proxy_header import Networks
from broker.core.net.send_queue import QueueLimits, QueueMissed
from broker.net.poller import Poller
from broker.net.protocol_detection import DetectorSettings, ProtocolDetector, release_admission
from broker.net.tls import server_context
from broker.net.transport import Framing, Owner, Transport, TransportSettings
from broker.net.websocket import ws_frame
from protocol.codes import CloseCode

TIMEOUT_S = 10.0
"""Real seconds after which a test fails."""


@dataclass(frozen=True)
class Credentials:
    """TLS contexts of a listener and of a client that trusts it, and the listener's PEM files."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    cert: Path
    key: Path


def make_credentials() -> Credentials:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    folder = Path(tempfile.mkdtemp())
    cert, key = folder / "cert.pem", folder / "key.pem"
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Credentials(server_context(cert, key), client, cert, key)


def do_handshakes(*ends: ssl.SSLSocket) -> None:
    """Let both ends of a TLS connection finish their handshake."""
    waiting = list(ends)
    while waiting:
        for end in list(waiting):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
                waiting.remove(end)


class Clock:
    """Monotonic clock that the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class RecordingOwner:
    """Owner that records all events; ``on_data_do`` may answer."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.data = b""
        self.texts: list[str] = []
        self.missed: list[QueueMissed] = []
        self.backlogged = 0
        self.overflows = 0
        self.closed: list[tuple[int, str]] = []
        self.on_data_do: Callable[[Any], None] = lambda data: None

    def on_data(self, data: bytes) -> None:
        assert not self.closed, "data after the end"
        self.data += data
        self.on_data_do(data)

    def on_text(self, text: str) -> None:
        assert not self.closed, "data after the end"
        self.texts.append(text)
        self.on_data_do(text)

    def on_backlog(self) -> None:
        self.backlogged += 1

    def on_drained(self, missed: QueueMissed) -> None:
        self.missed.append(missed)

    def on_deadline(self, now: float) -> None:
        self.transport.close(CloseCode.HANDSHAKE_TIMEOUT, "too late")

    def on_overflow(self) -> None:
        self.overflows += 1
        self.transport.close(CloseCode.SLOW_VIEWER, "too slow")

    def on_closed(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))

    def echo(self) -> None:
        """Send every message back."""

        def send_back(data: bytes | str) -> None:
            if isinstance(data, str):
                self.transport.write(ws_frame(data.encode(), text=True))
            elif self.transport.framing is Framing.WEBSOCKET:
                self.transport.write(ws_frame(data))
            else:
                self.transport.write(data)

        self.on_data_do = send_back


def transport_settings(
    poller: Poller,
    *,
    limits: QueueLimits | None = None,
    budget_bytes: int = 1 << 30,
    on_released: Callable[[Transport], None] = lambda transport: None,
) -> TransportSettings:
    """Settings of transports on a poller."""
    return TransportSettings(poller, limits or QueueLimits(), ByteBudget(budget_bytes), on_released)


class Harness:
    """One poller with everything that a connection needs, driven by the test's thread."""

    def __init__(
        self,
        *,
        limits: QueueLimits | None = None,
        connection_limits: ConnectionLimits | None = None,
        tls: ssl.SSLContext | None = None,
        origins: frozenset[str] = frozenset(),
        trusted: Networks | None = None,
        detect_timeout_s: float = 5.0,
    ) -> None:
        self.clock = Clock()
        self.budget = ByteBudget(1 << 30)
        self.connection_limits = connection_limits or ConnectionLimits(
            max_connections=10_000, per_address=0, accept_per_s=1e6, unauthenticated_share=1.0
        )
        self.owners: list[RecordingOwner] = []
        self.gone: list[Transport] = []
        self.ready = True
        self.detect_timeout_s = detect_timeout_s
        self.detector = DetectorSettings(
            connection_limits=self.connection_limits,
            make_session=self.make_owner,
            health=lambda: (self.ready, {"status": "ok" if self.ready else "draining"}),
            origins=origins,
            tls=tls,
            trusted=trusted or Networks(),
        )
        self.poller = Poller(write_timeout_s=10.0, clock=self.clock)
        self.transports = TransportSettings(self.poller, limits or QueueLimits(), self.budget, self.on_released)
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.clients: list[socket.socket] = []

    def make_owner(self, transport: Transport) -> Owner:
        owner = RecordingOwner(transport)
        self.owners.append(owner)
        return owner

    def on_released(self, transport: Transport) -> None:
        self.gone.append(transport)
        release_admission(self.connection_limits, transport)

    # ---- connections

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Return the broker's and the client's end of a loopback TCP connection, both non-blocking."""
        client = socket.create_connection(self.listening.getsockname())
        server, _ = self.listening.accept()
        for sock in (server, client):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.clients.append(client)
        return server, client

    def narrow_pair(self) -> tuple[socket.socket, socket.socket]:
        """Return two ends of a Unix stream that is full after a few KiB: so small a TCP window opens every 200 ms."""
        server, client = socket.socketpair()
        for sock in (server, client):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self.clients.append(client)
        return server, client

    def add(self, kind: type[Transport]) -> tuple[Transport, RecordingOwner, socket.socket]:
        """Add an admitted transport of ``kind`` with an owner."""
        server, client = self.pair()
        transport = kind(server, self.transports, "127.0.0.1")
        self.adopt(transport)
        return transport, self.owners[-1], client

    def adopt(self, transport: Transport) -> None:
        self.connection_limits.enter(transport.address, 0.0)
        self.poller.add(transport, self.clock.now + 60.0)
        transport.owner = self.make_owner(transport)

    def greet(self, *, is_proxied: bool = False, proxy: str = "") -> tuple[ProtocolDetector, socket.socket]:
        """Add a new connection in protocol detection, as the listener does."""
        server, client = self.pair()
        address = "" if is_proxied or proxy else "127.0.0.1"
        admission = self.connection_limits.enter(address, 0.0)
        refusal = admission if isinstance(admission, Refuse) else None
        due = self.clock.now + self.detect_timeout_s
        detector = ProtocolDetector(
            server, self.transports, address, self.detector, refusal, is_proxied=is_proxied, proxy=proxy
        )
        self.poller.add(detector, due)
        return detector, client

    # ---- time

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.poller.turn()

    def later(self, passed_s: float) -> None:
        """Advance the clock in steps of the poller's timer interval."""
        end = self.clock.now + passed_s
        while self.clock.now < end:
            self.clock.now = min(end, self.clock.now + 0.25)
            self.poller.run_timers()
            self.turn()

    def until(self, is_so: Callable[[], object], *socks: socket.socket) -> None:
        """Turn the poller until ``is_so`` is true; ``socks`` are waited for besides the poller."""
        end = time.monotonic() + TIMEOUT_S
        while True:
            self.turn()
            if is_so():
                return
            assert time.monotonic() < end, "timeout: the condition is still false"
            watched = [self.poller.fileno(), *(sock.fileno() for sock in socks)]
            select.select([fd for fd in watched if fd >= 0], [], [], 0.02)

    def read_all(self, client: socket.socket) -> bytes:
        """Return everything that the client receives up to the end of the stream."""
        got = bytearray()

        def is_at_end() -> bool:
            try:
                while data := client.recv(65536):
                    got.extend(data)
            except (BlockingIOError, ssl.SSLWantReadError):
                return False
            except ConnectionResetError:
                return True
            return True

        self.until(is_at_end, client)
        return bytes(got)

    def read(self, client: socket.socket, size: int) -> bytes:
        """Return the next ``size`` bytes that the client receives."""
        got = bytearray()

        def is_enough() -> bool:
            try:
                while len(got) < size:
                    data = client.recv(size - len(got))
                    assert data, f"ended after {bytes(got)!r}"
                    got.extend(data)
            except (BlockingIOError, ssl.SSLWantReadError):
                return False
            return True

        self.until(is_enough, client)
        return bytes(got)

    def ask(self, *pieces: bytes, **kwargs: Any) -> bytes:
        """Send ``pieces`` on a new connection; return what the broker sends before it ends the connection."""
        _, client = self.greet(**kwargs)
        for piece in pieces:
            with suppress(ConnectionError):  # the broker may have closed it already
                client.sendall(piece)
            self.turn()
        received = self.read_all(client)
        client.close()
        return received

    def close(self) -> None:
        """Close all connections and check that nothing is left."""
        for client in self.clients:
            client.close()
        self.until(lambda: not len(self.poller) or self._give_up())
        assert self.poller.crashes == 0
        assert (self.budget.used_bytes, self.budget.mismatches) == (0, 0)
        assert (
            self.connection_limits.held,
            self.connection_limits.unauthenticated,
            self.connection_limits.overflow,
        ) == (0, 0, 0)
        assert len(self.gone) == len(set(map(id, self.gone)))
        self.listening.close()
        self.poller.close()

    def _give_up(self) -> bool:
        """Abort transports with a backlog: they notice the end of their peer only when they write."""
        for transport in self.poller:
            transport.abort("test over", CloseCode.CLOSED_BY_PEER)
        return True


@contextmanager
def connection_harness(**kwargs: Any) -> Iterator[Harness]:
    """Run a `Harness`; at the end it is closed and no descriptor may be left."""
    before = descriptors()
    harness = Harness(**kwargs)
    yield harness
    harness.close()
    del harness
    assert descriptors() <= before


def descriptors() -> int:
    """Return the number of open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))
