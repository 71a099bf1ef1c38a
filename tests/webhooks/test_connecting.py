"""Connections to a host by name, with a resolver that each test decides: addresses that fail or hang, lookups too."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from broker.config.webhooks import EndpointConfig, WebhookConfig
from broker.webhooks.connecting import MAX_LOOKUPS, STAGGER_S, Connector
from broker.webhooks.sender import SendFailure, WebhookSender

HOST = "shop.example"
Found = list[tuple[int, int, int, str, Any]]
of_the_system = socket.getaddrinfo


def use_resolver(monkeypatch: pytest.MonkeyPatch, look_up: Callable[[int], Found]) -> None:
    """Look the name `HOST` up by a function of the port; the system serves all others."""

    def getaddrinfo(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host != HOST.encode():
            return of_the_system(host, port, *args, **options)
        if options["flags"] & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        return look_up(port)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def ip4(address: str, port: int) -> tuple[int, int, int, str, Any]:
    return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port)


def ip6(address: str, port: int) -> tuple[int, int, int, str, Any]:
    return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0)


@asynccontextmanager
async def listening() -> AsyncIterator[int]:
    """Port on 127.0.0.1 that accepts connections."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        yield listener.socket.getsockname()[1]


async def test_a_name_is_looked_up_and_an_address_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up = []

    def look_up(port: int) -> Found:
        looked_up.append(port)
        return [ip4("127.0.0.1", port)]

    use_resolver(monkeypatch, look_up)
    async with listening() as port:
        for host in (HOST, "127.0.0.1"):
            async with await Connector().open(host, port) as stream:
                assert stream.socket.getpeername() == ("127.0.0.1", port)
        assert looked_up == [port]


async def test_addresses_that_refuse_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    use_resolver(monkeypatch, lambda port: [ip4("127.0.0.9", port), ip4("127.0.0.8", port), ip4("127.0.0.1", port)])
    async with listening() as port, await Connector().open(HOST, port) as stream:
        assert stream.socket.getpeername() == ("127.0.0.1", port)


async def test_an_address_that_does_not_answer_delays_the_next_one_by_the_stagger_only(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    with trio.socket.socket() as made_by_trio:
        kind: Any = type(made_by_trio)
    connect = kind.connect
    tried = []

    async def connecting(made: Any, address: Any) -> None:
        tried.append((address[0], trio.current_time() - started))
        if address[0] != "127.0.0.1":
            await trio.sleep_forever()
        await connect(made, address)

    monkeypatch.setattr(kind, "connect", connecting)
    use_resolver(monkeypatch, lambda port: [ip4("192.0.2.1", port), ip4("127.0.0.1", port), ip6("2001:db8::1", port)])
    async with listening() as port:
        started = trio.current_time()
        async with await Connector().open(HOST, port) as stream:
            assert stream.socket.getpeername() == ("127.0.0.1", port)
    assert [address for address, _ in tried] == ["192.0.2.1", "2001:db8::1", "127.0.0.1"]
    assert [at for _, at in tried] == [pytest.approx(STAGGER_S * number) for number in range(3)]


async def test_a_host_without_an_address_that_accepts_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as port:
        pass
    use_resolver(monkeypatch, lambda port: [ip4("127.0.0.9", port), ip4("127.0.0.1", port)])
    with pytest.raises(OSError, match=r"127\.0\.0\.9"):
        await Connector().open(HOST, port)


@pytest.mark.parametrize("name", ["a..b", "x" * 70, "-"])
async def test_a_name_that_cannot_be_is_an_error_of_connecting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match=r"\S"):
        await Connector().open(name, 80)


async def test_a_resolver_that_hangs_costs_the_deadline_and_none_of_trios_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released = threading.Event()
    looking_up = threading.Semaphore(0)

    def hang(port: int) -> Found:
        looking_up.release()
        released.wait(30)
        return [ip4("127.0.0.1", port)]

    use_resolver(monkeypatch, hang)
    endpoint = EndpointConfig(name="shop", url=f"http://{HOST}:9/hook", secret_file="secret", plain_http=True)
    config = WebhookConfig(endpoints=(endpoint,), max_connections=3 * MAX_LOOKUPS)
    sender = WebhookSender(endpoint, config, (b"k" * 32,), ssl.create_default_context(), lambda: 0)
    failures = []

    async def post(number: int) -> None:
        failures.append((await sender.post(f"ev_{number}", b"{}", 0.2)).failure)

    started = time.monotonic()
    try:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for number in range(3 * MAX_LOOKUPS):
                    nursery.start_soon(post, number)
            assert failures == [SendFailure.TIMEOUT] * 3 * MAX_LOOKUPS
            assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
            assert await trio.to_thread.run_sync(lambda: "free") == "free"
        assert time.monotonic() - started < 10
        begun = 0
        while looking_up.acquire(blocking=False):
            begun += 1
        assert begun == MAX_LOOKUPS
    finally:
        released.set()
        await sender.aclose()
