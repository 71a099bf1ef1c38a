from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog.testing
import trio
import websockets.sync.client

from broker.config.schema import AdmissionConfig, AuthConfig, Config, LinkConfig, ListenConfig
from broker.core.net.connection_limits import OVERFLOW_MAX, ConnectionLimits
from broker.net.listener import BACKOFF_MAX_S, Listener, bind
from broker.net.poller import Poller
from broker.net.protocol_detection import release_admission
from broker.net.transport import Owner, Transport
from broker.net.websocket import LOOPBACK
from protocol.codes import CloseCode
from tests.support.poller import RecordingOwner, descriptors, make_credentials, transport_settings

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


class RunningListener:
    """A listener and a poller that run."""

    def __init__(self, config: Config, **connection_limits: Any) -> None:
        rules = {
            "max_connections": 1000,
            "per_address": 0,
            "accept_per_s": 1e6,
            "unauthenticated_share": 1.0,
        } | connection_limits
        self.connection_limits = ConnectionLimits(**rules)
        self.owners: list[RecordingOwner] = []
        self.poller = Poller(write_timeout_s=10.0)
        transports = transport_settings(
            self.poller,
            budget_bytes=1 << 20,
            on_released=lambda transport: release_admission(self.connection_limits, transport),
        )
        self.listener = Listener(
            config, transports, self.connection_limits, self.make_echo, status=lambda: (True, {"status": "ok"})
        )
        self.clients: list[socket.socket] = []

    def make_echo(self, transport: Transport) -> Owner:
        owner = RecordingOwner(transport)
        owner.echo()
        self.owners.append(owner)
        return owner

    def connect(self, say: bytes = b"") -> socket.socket:
        client = socket.create_connection(self.listener.addresses[0])
        client.setblocking(False)
        client.send(say)
        self.clients.append(client)
        return client


def config(host: str = "127.0.0.1", **listen: Any) -> Config:
    return Config(listen=ListenConfig(host=host, port=0, **listen), link=LinkConfig(), admission=AdmissionConfig())


@asynccontextmanager
async def running_listener(settings: Config | None = None, **connection_limits: Any) -> AsyncIterator[RunningListener]:
    before = descriptors()
    async with trio.open_nursery() as nursery:
        running = RunningListener(settings or config(), **connection_limits)
        await nursery.start(running.poller.run)
        await nursery.start(running.listener.run)
        yield running
        nursery.cancel_scope.cancel()
    for client in running.clients:
        client.close()
    assert (running.connection_limits.held, running.connection_limits.overflow, running.poller.crashes) == (0, 0, 0)
    assert descriptors() <= before


async def until(is_so: Callable[[], object]) -> None:
    """Let the other tasks run until ``is_so``."""
    with trio.fail_after(10):
        while not is_so():  # noqa: ASYNC110 - what it waits for happens in the kernel
            await trio.sleep(0.001)


async def read_all(client: socket.socket) -> bytes:
    got = b""
    with trio.fail_after(10):
        while True:
            await trio.lowlevel.wait_readable(client)
            try:
                data = client.recv(65536)
            except ConnectionResetError:
                return got
            if not data:
                return got
            got += data


# ---- binding


async def test_localhost_is_bound_in_both_families_on_one_port() -> None:
    async with running_listener(config("localhost")) as running:
        ports = {port for _, port in running.listener.addresses}
        assert len(ports) == 1
        assert "127.0.0.1" in {host for host, _ in running.listener.addresses}
        for host, port in running.listener.addresses:
            with socket.create_connection((host, port)) as client:
                client.send(HEALTH)
                client.setblocking(False)
                assert (await read_all(client)).startswith(b"HTTP/1.1 200")


async def test_a_taken_port_is_an_error_at_the_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Config(listen=ListenConfig(port=taken.getsockname()[1]))
        with pytest.raises(OSError, match="in use"):
            await bind(settings)


async def test_a_host_that_is_nowhere_is_an_error_at_the_start() -> None:
    before = descriptors()
    with pytest.raises(OSError, match=r"\S"):
        await bind(config("192.0.2.1"))
    assert descriptors() <= before


async def test_accepted_sockets_have_the_options_of_the_listening_one() -> None:
    async with running_listener() as running:
        running.connect(b"\x00")
        await until(lambda: running.owners)
        sock = running.owners[0].transport.sock
        link = LinkConfig()
        assert sock.getblocking() is False
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == link.notsent_lowat_bytes
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == link.heartbeat_cut_s * 1000
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * link.send_buffer_bytes


async def test_tls_files_of_the_configuration_are_used() -> None:
    credentials = make_credentials()
    async with running_listener(config(tls_cert=str(credentials.cert), tls_key=str(credentials.key))) as running:

        def visit() -> bytes:
            with (
                socket.create_connection(running.listener.addresses[0]) as sock,
                credentials.client.wrap_socket(sock, server_hostname="127.0.0.1") as client,
            ):
                client.sendall(HEALTH)
                return client.recv(65536)

        assert (await trio.to_thread.run_sync(visit)).startswith(b"HTTP/1.1 200")


async def test_without_a_secret_any_origin_may_connect_and_with_one_only_those_listed() -> None:
    assert RunningListener(config()).listener.detector.origins == {LOOPBACK}
    origin = "https://live.example.com"
    strict = Config(auth=AuthConfig(secret="x" * 32), link=LinkConfig(allowed_origins=(origin,)))
    assert RunningListener(strict).listener.detector.origins == {origin}


# ---- a hostile peer


@pytest.mark.parametrize("subprotocol", ["roomcast.v1", "roomcast.json.v1", None])
async def test_the_websockets_library_connects_and_hears_its_echo(subprotocol: Any) -> None:
    async with running_listener() as running:
        host, port = running.listener.addresses[0]
        messages: list[Any] = [bytes(1), bytes(range(256)) * 40, b"x" * 65_000]
        if subprotocol == "roomcast.json.v1":
            messages = ["弹幕", "x" * 9000]

        def visit() -> list[Any]:
            offer = [subprotocol] if subprotocol else None
            with websockets.sync.client.connect(f"ws://{host}:{port}/live", subprotocols=offer) as client:
                assert client.subprotocol == subprotocol
                assert client.ping(b"are you there").wait(10)
                answers = []
                for message in messages:
                    client.send(message)
                    answers.append(client.recv(10))
                return answers

        assert await trio.to_thread.run_sync(visit) == messages
        await until(lambda: running.owners[0].closed)
        assert running.owners[0].closed == [(CloseCode.CLOSED_BY_PEER, "closed by peer with 1000")]


async def test_the_websockets_library_hears_our_close_code() -> None:
    async with running_listener() as running:
        host, port = running.listener.addresses[0]

        def visit() -> tuple[int, str]:
            with websockets.sync.client.connect(f"ws://{host}:{port}/") as client:
                client.send(b"hello")
                assert client.recv(10) == b"hello"
                with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
                    client.recv(10)
                assert caught.value.rcvd is not None
                return caught.value.rcvd.code, caught.value.rcvd.reason

        async with trio.open_nursery() as nursery:
            results: list[tuple[int, str]] = []

            async def run_visit() -> None:
                results.append(await trio.to_thread.run_sync(visit))

            nursery.start_soon(run_visit)
            await until(lambda: running.owners and running.owners[0].data)
            running.owners[0].transport.close(CloseCode.KICKED, "bad words")
        assert results == [(4410, "bad words")]


# ---- admission


async def test_new_connections_beyond_the_rate_wait_in_the_backlog(autojump_clock: trio.testing.MockClock) -> None:
    async with running_listener(accept_per_s=10.0) as running:
        for _ in range(30):
            running.connect()
        await trio.sleep(1.05)
        assert 10 <= running.connection_limits.held <= 12
        await trio.sleep(2.0)
        assert running.connection_limits.held == 30


async def test_when_full_a_few_learn_why_and_the_rest_is_dropped() -> None:
    async with running_listener(max_connections=2) as running:
        inside = [running.connect(b"\x00") for _ in range(2)]
        await until(lambda: len(running.owners) == 2)
        refused = [running.connect(HEALTH) for _ in range(OVERFLOW_MAX)]
        await until(lambda: running.connection_limits.overflow == OVERFLOW_MAX)
        dropped = running.connect()
        assert await read_all(dropped) == b""
        assert running.connection_limits.dropped == 1
        for client in refused:
            assert (await read_all(client)).startswith(b"HTTP/1.1 503")
            client.close()
        await until(lambda: not running.connection_limits.overflow)
        inside[0].send(b"still here")
        await until(lambda: running.owners[0].data == b"\x00still here")


async def test_only_a_trusted_proxy_is_asked_for_its_header() -> None:
    header = b"PROXY TCP4 203.0.113.9 127.0.0.1 1 2\r\n"
    async with running_listener(config(proxy_protocol=True, trusted_proxies=("127.0.0.0/8",))) as running:
        running.connect(header + b"\x00")
        await until(lambda: running.owners)
        assert running.owners[0].transport.address == "203.0.113.9"
        assert await read_all(running.connect(b"\x00")) == b""
        assert (await read_all(running.connect(HEALTH))).startswith(b"HTTP/1.1 200"), "a health check needs no header"
    async with running_listener(config(proxy_protocol=True, trusted_proxies=("10.0.0.0/8",))) as running:
        assert (await read_all(running.connect(header + HEALTH))).startswith(b"HTTP/1.1 400")
        assert (await read_all(running.connect(HEALTH))).startswith(b"HTTP/1.1 200")


# ---- out of descriptors


class FailingListener(socket.socket):
    """A listening socket whose ``accept`` fails for as long as there are errors left."""

    errors: list[int]

    def _accept(self) -> Any:
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, os.strerror(number))
        return super()._accept()  # type: ignore[misc]  # the typeshed has no private names


def failing_listener(sock: socket.socket, errors: list[int]) -> FailingListener:
    """Return such a socket, on the port of ``sock``."""
    bad = FailingListener(fileno=socket.dup(sock.fileno()))
    bad.setblocking(False)
    bad.errors = errors
    return bad


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EIO])
async def test_out_of_descriptors_it_backs_off_and_does_not_spin(
    number: int, autojump_clock: trio.testing.MockClock
) -> None:
    before = descriptors()
    running = RunningListener(config())
    (sock,) = await bind(config())
    bad = failing_listener(sock, [number] * 1_000_000)
    with socket.create_connection(sock.getsockname()), structlog.testing.capture_logs() as lines:
        with trio.move_on_after(20.0):
            await running.listener.accept_from(bad)
    assert 20 <= running.listener.accept_errors <= 30
    assert len(lines) <= 21
    assert {line["error"] for line in lines} == {errno.errorcode[number]}
    assert lines[-1]["backoff_s"] == BACKOFF_MAX_S
    assert sum(line["unlogged"] for line in lines) + len(lines) == running.listener.accept_errors
    bad.close()
    sock.close()
    running.poller.close()
    assert descriptors() <= before


async def test_a_new_connection_that_went_away_is_no_error(autojump_clock: trio.testing.MockClock) -> None:
    running = RunningListener(config())
    (sock,) = await bind(config())
    bad = failing_listener(sock, [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN])
    with socket.create_connection(sock.getsockname()):
        with trio.move_on_after(1.0):
            await running.listener.accept_from(bad)
        assert running.connection_limits.admitted == 1
    assert running.listener.accept_errors == 0
    for transport in running.poller:
        transport.abort("test over", CloseCode.CLOSED_BY_PEER)
    bad.close()
    sock.close()
    running.poller.close()


async def test_when_descriptors_run_out_those_admitted_are_served_and_new_connections_come_in_later() -> None:
    async with running_listener() as running:
        insider = running.connect(b"\x00")
        await until(lambda: running.owners)
        waiting = [socket.socket() for _ in range(3)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            for client in waiting:
                client.connect(running.listener.addresses[0])
                client.send(HEALTH)
            await until(lambda: running.listener.accept_errors >= 2)
            insider.send(b"hello")
            await until(lambda: running.owners[0].data == b"\x00hello")
            assert running.connection_limits.held == 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for client in waiting:
            client.setblocking(False)
            assert (await read_all(client)).startswith(b"HTTP/1.1 200")
            client.close()


# ---- the end


async def test_after_stop_no_connection_is_accepted_and_open_ones_stay() -> None:
    before = descriptors()
    async with trio.open_nursery() as nursery:
        running = RunningListener(config())
        await nursery.start(running.poller.run)
        async with trio.open_nursery() as inner:
            await inner.start(running.listener.run)
            insider = running.connect(b"\x00")
            await until(lambda: running.owners)
            running.listener.stop()
            running.listener.stop()
        # leaving the inner nursery: run has returned by itself
        with pytest.raises(ConnectionRefusedError):
            running.connect()
        insider.send(b"hello")
        await until(lambda: running.owners[0].data == b"\x00hello")
        nursery.cancel_scope.cancel()
    insider.close()
    assert descriptors() <= before
