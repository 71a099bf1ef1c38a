"""One connection of the control API: the bounds of bytes and time, hostile requests, and the listener's limits."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from broker.core.net.connection_limits import ConnectionLimits
from broker.http.connection import (
    MAX_BODY_LEFT,
    MAX_HEAD_BYTES,
    MAX_PIECES,
    PAUSE_S,
    AsgiApp,
    HttpConnection,
    HttpCounters,
)
from broker.http.serving import HttpServer, api_limits

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def echo(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """Answer a request with its body."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def deaf(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """Answer a request without reading its body."""
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"no"})


async def broken(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    raise ValueError("a defect")


@asynccontextmanager
async def connection(app: AsgiApp = echo) -> AsyncIterator[tuple[trio.SocketStream, HttpCounters]]:
    """The client's side of a connection that is served, and its counters."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    counters = HttpCounters()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(HttpConnection(theirs, app, ("127.0.0.1", 1), counters).run)
        async with trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as stream:
            yield stream, counters
        nursery.cancel_scope.deadline = trio.current_time() + 60


async def read_all(stream: trio.SocketStream) -> bytes:
    data = b""
    async for chunk in stream:
        data += chunk
    return data


async def test_requests_follow_one_another_on_a_connection() -> None:
    async with connection() as (stream, counters):
        for body in (b"", b"hello", b"x" * 100_000):
            head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            await stream.send_all(head + body)
            data = b""
            while not data.endswith(b"\r\n\r\n" + body):
                data += await stream.receive_some()
        await stream.send_all(GET * 3)
        await stream.send_eof()
        assert (await read_all(stream)).count(b"HTTP/1.1 200") == 3
        assert counters.requests == 6


async def test_the_answer_to_head_has_no_body() -> None:
    async with connection(deaf) as (stream, _):
        await stream.send_all(GET.replace(b"GET", b"HEAD"))
        await stream.send_eof()
        answer = await read_all(stream)
        assert answer.endswith(b"\r\n\r\n")
        assert b"content-length: 2" in answer.lower()


async def test_a_body_is_asked_for_only_when_it_is_read() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    async with connection() as (stream, _):
        await stream.send_all(head)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 100")
        await stream.send_all(b"hello")
        assert (await stream.receive_some()).endswith(b"hello")
    async with connection(deaf) as (stream, _):
        await stream.send_all(head)
        answer = await read_all(stream)
        assert answer.startswith(b"HTTP/1.1 401")
        assert b"connection: close" in answer.lower()


async def test_a_connection_pauses_after_a_refusal_for_its_key_or_rate(mock_clock: MockClock) -> None:
    mock_clock.autojump_threshold = 0
    async with connection(deaf) as (stream, _):
        begun = trio.current_time()
        await stream.send_all(GET * 3)
        await stream.send_eof()
        assert (await read_all(stream)).count(b"HTTP/1.1 401") == 3
        assert trio.current_time() - begun == pytest.approx(3 * PAUSE_S)


async def test_the_answer_arrives_though_the_body_was_not_read(mock_clock: MockClock) -> None:
    mock_clock.autojump_threshold = 0
    async with connection(deaf) as (stream, _):
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n" + b"x" * 100_000)
        assert (await read_all(stream)).endswith(b"no")


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
SMALL_CHUNK = b"1\r\nx\r\n"


class EndlessSocket(socket.socket):
    """A peer that always has sent more: chunks of one byte. What it is asked for beyond ``limit`` bytes is an error."""

    def __init__(self, limit: int) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self._head = CHUNKED
        self._limit = limit
        self.taken = 0
        self.answer = b""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        data, self._head = (self._head or SMALL_CHUNK * (size // len(SMALL_CHUNK))), b""
        self.taken += len(data)
        assert self.taken <= self._limit, "the connection is read without an end"
        return data

    def send(self, data: Any, flags: int = 0, /) -> int:
        self.answer += bytes(data)
        return len(data)

    def shutdown(self, how: int, /) -> None:
        pass


async def test_an_unread_body_without_an_end_is_read_up_to_a_bound() -> None:
    with EndlessSocket(limit=2 * MAX_BODY_LEFT) as peer:
        await HttpConnection(peer, deaf, None, HttpCounters()).run()
    assert peer.answer.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" in peer.answer.lower()


async def test_a_body_in_too_many_pieces_is_refused_and_others_run_meanwhile() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    with EndlessSocket(limit=2 * MAX_BODY_LEFT + MAX_PIECES * len(SMALL_CHUNK)) as peer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await HttpConnection(peer, echo, None, HttpCounters()).run()
            nursery.cancel_scope.cancel()
    assert peer.answer.startswith(b"HTTP/1.1 413 ")
    assert turns > MAX_PIECES / 2


@pytest.mark.parametrize(
    ("data", "status", "slow"),
    [
        (b"", None, 0),  # it was never asked anything: no answer
        (b"GET / HT", 408, 1),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123", 408, 1),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n12", 408, 1),
    ],
)
async def test_a_peer_that_stops_sending_is_answered_and_ended(
    data: bytes, status: int | None, slow: int, mock_clock: MockClock
) -> None:
    mock_clock.autojump_threshold = 0
    async with connection() as (stream, counters):
        await stream.send_all(data)
        answer = await read_all(stream)
        assert trio.current_time() <= 25
        assert (int(answer[9:12]) if answer else None) == status
        assert counters.too_slow == slow


@pytest.mark.parametrize(
    "head", [b"GET / HTTP/1.1\r\nHost: x\r\nX: ", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"]
)
async def test_a_byte_now_and_then_does_not_extend_the_time(head: bytes, mock_clock: MockClock) -> None:
    mock_clock.autojump_threshold = 0
    async with connection() as (stream, counters):
        await stream.send_all(head)
        is_over = False
        while not is_over:
            await trio.sleep(2)
            try:
                await stream.send_all(b"a")
            except trio.BrokenResourceError:
                is_over = True
        assert trio.current_time() < 30
        assert counters.too_slow == 1


async def test_a_peer_that_does_not_take_its_answer_is_ended(mock_clock: MockClock) -> None:
    async def long(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9000000")]})
        await send({"type": "http.response.body", "body": b"x" * 9_000_000})

    mock_clock.autojump_threshold = 0
    async with connection(long) as (stream, counters):
        await stream.send_all(GET)
        await trio.sleep(30)
        assert counters.too_slow == 1
        assert len(await read_all(stream)) < 9_000_000


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: \xff\xfe\r\nConnection: upgrade\r\n\r\n", 200),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 200),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 2 * MAX_HEAD_BYTES + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:b\r\n" * 3000 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:b\r\n" * 100 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:b\r\n" * 99 + b"\r\n", 200),
        (b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ],
)
async def test_what_is_not_http_is_answered_and_ended(data: bytes, status: int, mock_clock: MockClock) -> None:
    mock_clock.autojump_threshold = 0
    async with connection() as (stream, counters):
        await stream.send_all(data)
        await stream.send_eof()
        answer = await read_all(stream)
        assert int(answer[9:12]) == status
        assert counters.malformed == (status != 200)
        if status != 200:
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == status


async def test_a_defect_is_answered_by_500() -> None:
    async with connection(broken) as (stream, _):
        await stream.send_all(GET)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 500")


async def test_a_reset_ends_only_its_connection() -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    ours.send(b"\x00garbage\r\n\r\n")
    ours.close()
    await HttpConnection(theirs, echo, None, HttpCounters()).run()
    assert theirs.fileno() < 0


async def test_the_application_learns_that_the_client_has_left() -> None:
    messages: list[str] = []

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        messages.extend([(await receive())["type"] for _ in range(2)])

    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    ours.send(GET)
    ours.close()
    await HttpConnection(theirs, waiting, None, HttpCounters()).run()
    assert messages == ["http.request", "http.disconnect"]


# ---- the listener


@asynccontextmanager
async def server(limits: ConnectionLimits) -> AsyncIterator[int]:
    """Serve `echo` on a free port, which is yielded."""
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(HttpServer(echo, "127.0.0.1:0", limits, HttpCounters()).run)
        yield int(url.rpartition(":")[2])
        nursery.cancel_scope.cancel()


async def ask(stream: trio.SocketStream) -> bytes:
    await stream.send_all(GET)
    return bytes(await stream.receive_some())


async def test_connections_above_the_share_of_an_address_and_the_total_are_refused_with_a_wait() -> None:
    limits = ConnectionLimits(**api_limits(4))
    async with server(limits) as port, AsyncExitStack() as held:
        streams = [await held.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port)) for _ in range(2)]
        for stream in streams:
            assert (await ask(stream)).startswith(b"HTTP/1.1 200")
        async with await trio.open_tcp_stream("127.0.0.1", port) as third:
            answer = await ask(third)
            assert answer.startswith(b"HTTP/1.1 429")
            assert b"Retry-After: 10\r\n" in answer
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "RATE_LIMITED"
        limits.enter("192.0.2.1", trio.current_time())
        limits.enter("192.0.2.2", trio.current_time())
        async with await trio.open_tcp_stream("127.0.0.1", port) as fifth:
            answer = await ask(fifth)
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"Retry-After: 5\r\n" in answer
        for stream in streams:
            assert (await ask(stream)).startswith(b"HTTP/1.1 200")
    assert limits.held == 2


async def test_a_connection_that_ends_makes_place_for_another() -> None:
    limits = ConnectionLimits(**api_limits(2))
    async with server(limits) as port:
        for _ in range(5):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                assert (await ask(stream)).startswith(b"HTTP/1.1 200")
                await stream.send_eof()
                assert await stream.receive_some() == b""
        assert limits.held == 0
