from __future__ import annotations

import random
import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.core.net.connection_limits import ConnectionLimits
from broker.core.net.proxy_header import Networks
from broker.net.tls import (
    RECORD_BYTES,
    TlsSocket,
    server_context,
    wrap,
)
from broker.net.transport import TcpTransport, Transport
from broker.net.websocket import WebSocketJsonTransport, WebSocketTransport, ws_frame
from tests.support.poller import Credentials, Harness, connection_harness, do_handshakes, make_credentials
from tests.support.websocket import BINARY, HELLO, JSON_UPGRADE, TEXT, UPGRADE, masked, status, v2


@pytest.fixture(scope="module")
def credentials() -> Credentials:
    return make_credentials()


@pytest.fixture
def harness(credentials: Credentials) -> Iterator[Harness]:
    connection_limits = ConnectionLimits(
        max_connections=100, per_address=0, accept_per_s=1e6, unauthenticated_share=1.0
    )
    with connection_harness(
        tls=credentials.server, connection_limits=connection_limits, trusted=Networks(["127.0.0.0/8"])
    ) as found:
        yield found


def greet_in_tls(harness: Harness, credentials: Credentials, *, first: bytes = b"") -> ssl.SSLSocket:
    """A client that has finished its TLS handshake and sent HELLO."""
    _, client = harness.greet(is_proxied=bool(first))
    client.send(first)
    wrapped = credentials.client.wrap_socket(
        client, server_hostname="127.0.0.1", do_handshake_on_connect=False, suppress_ragged_eofs=False
    )
    harness.clients.append(wrapped)

    def is_done() -> bool:
        try:
            wrapped.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    harness.until(is_done, wrapped)
    return wrapped


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (HELLO, TcpTransport),
        (UPGRADE + masked(BINARY, HELLO), WebSocketTransport),
        (JSON_UPGRADE + masked(TEXT, b"{}"), WebSocketJsonTransport),
    ],
)
def test_inside_tls_the_first_byte_decides_again(
    harness: Harness, credentials: Credentials, first: bytes, kind: type[Transport]
) -> None:
    client = greet_in_tls(harness, credentials)
    client.send(first)
    harness.until(lambda: harness.owners)
    owner = harness.owners[0]
    assert type(owner.transport) is kind
    assert isinstance(owner.transport.sock, TlsSocket)
    assert owner.data == HELLO or owner.texts == ["{}"]
    assert harness.detector.opened["tls"] == 1
    owner.transport.close(4000, "bye", ws_frame(b"last") if kind is WebSocketTransport else b"last")
    assert b"last" in harness.read_all(client), "and the end is a close_notify, or recv would have raised"


def test_http_over_tls_is_answered(harness: Harness, credentials: Credentials) -> None:
    client = greet_in_tls(harness, credentials)
    client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status(harness.read_all(client)) == 200


def test_plain_connections_are_served_beside_tls(harness: Harness) -> None:
    for data, kind in ((HELLO, TcpTransport), (UPGRADE, WebSocketTransport)):
        _, client = harness.greet()
        for byte in data:
            client.send(bytes((byte,)))
            harness.turn()
        assert type(harness.owners[-1].transport) is kind


def test_a_proxy_header_may_come_before_tls(harness: Harness, credentials: Credentials) -> None:
    client = greet_in_tls(harness, credentials, first=v2("203.0.113.9"))
    client.send(HELLO)
    harness.until(lambda: harness.owners)
    assert harness.owners[0].transport.address == "203.0.113.9"


def test_a_refused_client_learns_it_inside_tls(credentials: Credentials) -> None:
    connection_limits = ConnectionLimits(max_connections=1, per_address=0, accept_per_s=1e6, unauthenticated_share=1.0)
    with connection_harness(tls=credentials.server, connection_limits=connection_limits) as harness:
        harness.greet()
        client = greet_in_tls(harness, credentials)
        client.send(UPGRADE)
        assert status(harness.read_all(client)) == 503
        client.close()
        harness.until(lambda: not connection_limits.overflow)
        assert connection_limits.held == 1


def test_a_client_refused_for_the_address_its_proxy_names_leaves_the_books_right(credentials: Credentials) -> None:
    connection_limits = ConnectionLimits(max_connections=9, per_address=1, accept_per_s=1e6, unauthenticated_share=1.0)
    with connection_harness(
        tls=credentials.server, connection_limits=connection_limits, trusted=Networks(["127.0.0.0/8"])
    ) as harness:
        greet_in_tls(harness, credentials, first=v2("203.0.113.9")).send(HELLO)
        harness.until(lambda: harness.owners)
        client = greet_in_tls(harness, credentials, first=v2("203.0.113.9"))
        client.send(UPGRADE)
        assert status(harness.read_all(client)) == 503
        client.close()
        harness.until(lambda: connection_limits.held == 1)
        assert connection_limits.overflow == 0


def test_a_slow_handshake_keeps_its_deadline(harness: Harness, credentials: Credentials) -> None:
    _, client = harness.greet()
    outgoing = ssl.MemoryBIO()
    tls = credentials.client.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    for byte in hello[:20]:
        client.send(bytes((byte,)))
        harness.later(0.2)
    assert len(harness.poller) == 1
    harness.later(2.0)
    assert len(harness.poller) == 0


def test_broken_handshakes_leave_nothing_behind(harness: Harness, credentials: Credentials) -> None:
    rng = random.Random(3)
    outgoing = ssl.MemoryBIO()
    tls = credentials.client.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    for _ in range(150):
        data = bytearray(hello[: rng.randrange(1, len(hello) + 1)])
        if rng.random() < 0.8:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        _, client = harness.greet()
        client.send(data)
        if rng.random() < 0.7:
            harness.turn()
        if rng.random() < 0.5:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    harness.until(lambda: not len(harness.poller))
    assert len(harness.gone) == 150
    client = greet_in_tls(harness, credentials)
    client.send(HELLO)
    harness.until(lambda: harness.owners)


def test_a_client_that_resets_between_the_peek_and_the_wrap_is_forgotten(harness: Harness) -> None:
    greeting, client = harness.greet()
    client.send(b"\x16\x03\x01")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert harness.detector.tls is not None
    greeting.start_tls(harness.detector.tls)
    harness.turn()
    assert len(harness.poller) == 0
    assert harness.gone != []


def test_old_versions_are_not_spoken(harness: Harness, credentials: Credentials) -> None:
    assert credentials.server.minimum_version == ssl.TLSVersion.TLSv1_2
    assert credentials.server.options & ssl.OP_NO_RENEGOTIATION


def test_files_that_do_not_fit_are_refused(credentials: Credentials, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"\S"):
        server_context(credentials.cert, tmp_path / "missing.pem")
    other = make_credentials()
    with pytest.raises(ssl.SSLError):
        server_context(credentials.cert, other.key)


def test_a_long_write_is_taken_in_parts(credentials: Credentials) -> None:
    """Without parts a full socket would have to be offered all of a long write again and again."""
    server, client = socket.socketpair()
    for sock in (server, client):
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
    one = wrap(credentials.server, server)
    other = credentials.client.wrap_socket(client, server_hostname="127.0.0.1", do_handshake_on_connect=False)
    do_handshakes(one, other)
    data = random.Random(1).randbytes(1_000_000)
    sent = one.send(data)
    assert 0 < sent < len(data)
    assert sent % RECORD_BYTES == 0
    with pytest.raises(BlockingIOError):
        one.send(data[sent:])
    got = b""
    while len(got) < len(data):
        try:
            got += other.recv(65536)
        except ssl.SSLWantReadError:
            sent += one.send(data[sent:])
    assert got == data
    with pytest.raises(BlockingIOError):
        one.recv(10)
    one.close()
    other.close()
    assert isinstance(one, TlsSocket)
