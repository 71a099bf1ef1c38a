"""The sender against receivers on loopback that behave, and that do not."""

from __future__ import annotations

import base64
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme
from standardwebhooks.webhooks import Webhook

from broker.config.webhooks import EndpointConfig, WebhookConfig, webhook_key
from broker.webhooks.connection import HttpTarget
from broker.webhooks.sender import MAX_REPLY_BYTES, SendFailure, WebhookSender, client_context
from tests.support.receiver import Received, http_reply, receiver
from tests.support.webhooks import SECRET, event_of

KEY = webhook_key(SECRET)
BODY = '{"id": "ev_1", "text": "弹幕"}'.encode()


@asynccontextmanager
async def sender_to(
    url: str, context: ssl.SSLContext | None = None, connections: int = 4
) -> AsyncIterator[WebhookSender]:
    endpoint = EndpointConfig(name="shop", url=url, secret_file="secret")
    config = WebhookConfig(endpoints=(endpoint,), connect_timeout_s=1.0, max_connections=connections)
    made = WebhookSender(endpoint, config, (KEY,), context or client_context(None), lambda: time.time_ns() // 10**6)
    try:
        yield made
    finally:
        await made.aclose()


async def test_requests_share_a_connection_and_the_published_library_verifies_them() -> None:
    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        return http_reply(200, b'{"ok":true}', set_cookie="a=b; Path=/")

    async with receiver(answer) as hooks, sender_to(hooks.url + "?a=1") as sender:
        for _ in range(3):
            reply = await sender.post("ev_1", BODY, 5)
            assert (reply.status, reply.body, reply.is_success, reply.failure) == (200, b'{"ok":true}', True, None)
        assert hooks.connections == 1
        assert [event_of(each)["text"] for each in hooks.requests] == ["弹幕"] * 3
        assert hooks.requests[-1].path == "/hook?a=1"
        for request in hooks.requests:
            assert request.headers["host"] == f"127.0.0.1:{hooks.port}"
            assert request.headers["webhook-id"] == "ev_1"
            assert request.headers["content-type"] == "application/json"
            assert request.headers["accept-encoding"] == "identity"
            assert "cookie" not in request.headers


async def test_new_keys_sign_from_the_next_request_on() -> None:
    new = b"n" * 32
    async with receiver() as hooks, sender_to(hooks.url) as sender:
        sender.use_keys((new, KEY))
        assert (await sender.post("ev_1", BODY, 5)).is_success
        (request,) = hooks.requests
        for key in (new, KEY):
            Webhook("whsec_" + base64.b64encode(key).decode()).verify(request.body, request.headers)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_an_answer_and_is_not_followed(status: int) -> None:
    async with receiver() as target:

        async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
            return http_reply(status, location=target.url)

        async with receiver(answer) as hooks, sender_to(hooks.url) as sender:
            reply = await sender.post("ev_1", BODY, 5)
            assert (reply.status, reply.is_success, reply.failure) == (status, False, None)
            assert len(hooks.requests) == 1
            assert target.requests == []


@pytest.mark.parametrize(
    ("text", "expected"), [("7", 7.0), ("0", 0.0), ("99999999999", 86_400.0), ("Wed, 01 Jan 2031", None), ("-1", None)]
)
async def test_the_time_to_wait_is_read_where_it_is_a_number(text: str, expected: float | None) -> None:
    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        return http_reply(503, retry_after=text)

    async with receiver(answer) as hooks, sender_to(hooks.url) as sender:
        reply = await sender.post("ev_1", BODY, 5)
        assert (reply.status, reply.is_success, reply.retry_after_s) == (503, False, expected)


@pytest.mark.parametrize("head", [b"content-length: 10737418240\r\n\r\n", b"\r\n"])
async def test_ten_gigabytes_are_read_up_to_the_cap(head: bytes) -> None:
    sent = 0

    async def answer(received: Received, stream: trio.abc.Stream) -> None:
        nonlocal sent
        await stream.send_all(b"HTTP/1.1 200 OK\r\n" + head)
        while True:
            await stream.send_all(bytes(65_536))
            sent += 65_536

    async with receiver(answer) as hooks, sender_to(hooks.url) as sender:
        reply = await sender.post("ev_1", BODY, 10)
        assert (reply.status, reply.failure) == (0, SendFailure.TOO_LARGE)
        assert str(MAX_REPLY_BYTES) in reply.detail
        assert sent < 50 * 1024 * 1024


async def test_an_answer_of_exactly_the_cap_is_taken() -> None:
    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        return http_reply(200, b"x" * MAX_REPLY_BYTES)

    async with receiver(answer) as hooks, sender_to(hooks.url) as sender:
        assert len((await sender.post("ev_1", BODY, 10)).body) == MAX_REPLY_BYTES


async def _ok(received: Received, stream: trio.abc.Stream) -> bytes:
    return http_reply(200)


@pytest.mark.parametrize("begins", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"])
async def test_a_receiver_that_hangs_costs_the_deadline(begins: bytes) -> None:
    async def answer(received: Received, stream: trio.abc.Stream) -> None:
        if begins:
            await stream.send_all(begins)
        await trio.sleep_forever()

    async with receiver(answer) as hooks, sender_to(hooks.url, connections=1) as sender:
        with trio.fail_after(5):
            reply = await sender.post("ev_1", BODY, 0.1)
        assert (reply.status, reply.failure) == (0, SendFailure.TIMEOUT)
        hooks.answer = _ok
        assert (await sender.post("ev_2", BODY, 5)).is_success  # the one connection is free again


async def test_more_requests_than_connections_wait_and_none_fails() -> None:
    async with receiver(_ok) as hooks, sender_to(hooks.url, connections=2) as sender:
        replies = []

        async def one(number: int) -> None:
            replies.append(await sender.post(f"ev_{number}", BODY, 20))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(one, number)
        assert [reply.status for reply in replies] == [200] * 20
        assert hooks.connections <= 2


async def test_waiting_for_a_connection_counts_towards_the_deadline() -> None:
    async def hang(received: Received, stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    async with receiver(hang) as hooks, sender_to(hooks.url, connections=1) as sender, trio.open_nursery() as nursery:
        nursery.start_soon(sender.post, "ev_1", BODY, 20)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(5):
            assert (await sender.post("ev_2", BODY, 0.05)).failure is SendFailure.TIMEOUT
        assert len(hooks.requests) <= 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\r\n\r\n",
        b"\x00\xff" * 1000,
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 99_999,
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100,
        b"",
    ],
)
async def test_what_is_no_answer_is_a_failure_and_is_not_tried_again(data: bytes) -> None:
    async def answer(received: Received, stream: trio.abc.Stream) -> None:
        await stream.send_all(data)

    async with receiver(answer) as hooks, sender_to(hooks.url) as sender:
        reply = await sender.post("ev_1", BODY, 10)
        assert (reply.status, reply.failure) == (0, SendFailure.BROKEN)
        assert reply.detail
        assert len(hooks.requests) == 1


async def test_a_request_that_a_kept_connection_cuts_off_is_sent_again_with_its_id() -> None:
    async def answer(received: Received, stream: trio.abc.Stream) -> bytes | None:
        if hooks.connections == 1 and len(hooks.requests) == 2:
            return None  # the second request on the first connection is cut off
        return http_reply(204)

    async with receiver(answer) as hooks, sender_to(hooks.url) as sender:
        for number in (1, 2, 3):
            assert (await sender.post(f"ev_{number}", BODY, 5)).is_success
        assert hooks.connections == 2
        ids = [request.headers["webhook-id"] for request in hooks.requests]
        assert ids == ["ev_1", "ev_2", "ev_2", "ev_3"]


async def test_a_request_that_a_kept_connection_has_begun_to_answer_is_not_sent_again() -> None:
    async def answer(received: Received, stream: trio.abc.Stream) -> bytes | None:
        if len(hooks.requests) == 1:
            return http_reply(204)
        await stream.send_all(b"H")
        return None

    async with receiver(answer) as hooks, sender_to(hooks.url) as sender:
        assert (await sender.post("ev_1", BODY, 5)).is_success
        assert (await sender.post("ev_2", BODY, 5)).failure is SendFailure.BROKEN
        assert len(hooks.requests) == 2


@pytest.mark.parametrize("is_late", [False, True])
async def test_an_answer_that_nothing_asked_for_is_not_that_of_the_next_request(is_late: bool) -> None:
    unasked = http_reply(200, b"unasked")
    sent = trio.Event()

    async def answer(received: Received, stream: trio.abc.Stream) -> bytes | None:
        if hooks.connections > 1:
            return http_reply(204)
        await stream.send_all(http_reply(204) + (b"" if is_late else unasked))
        if is_late:
            await answered.wait()
            await stream.send_all(unasked)
        sent.set()
        await trio.sleep_forever()
        return None

    answered = trio.Event()
    async with receiver(answer) as hooks, sender_to(hooks.url) as sender:
        assert (await sender.post("ev_1", BODY, 5)).status == 204
        answered.set()
        await sent.wait()
        assert (await sender.post("ev_2", BODY, 5)).status == 204
        assert hooks.connections == 2


async def test_a_connection_that_is_in_use_when_the_sender_closes_is_not_kept() -> None:
    has_come, may_answer, has_ended = trio.Event(), trio.Event(), trio.Event()

    async def answer(received: Received, stream: trio.abc.Stream) -> None:
        has_come.set()
        await may_answer.wait()
        await stream.send_all(http_reply(200))
        assert await stream.receive_some() == b""
        has_ended.set()

    async with receiver(answer) as hooks, sender_to(hooks.url) as sender:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender.post, "ev_1", BODY, 5)
            await has_come.wait()
            await sender.aclose()
            may_answer.set()
        with trio.fail_after(5):
            await has_ended.wait()


async def test_nothing_that_listens_is_a_failure_of_connecting() -> None:
    async with receiver() as hooks:
        url = hooks.url
    async with sender_to(url) as sender:
        reply = await sender.post("ev_1", BODY, 5)
        assert (reply.status, reply.failure) == (0, SendFailure.CONNECT)
        assert reply.detail


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    async with receiver() as hooks, sender_to(hooks.url) as sender:
        assert (await sender.post("ev_1", BODY, 5)).is_success


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@pytest.mark.parametrize(("name", "is_trusted"), [("127.0.0.1", True), ("127.0.0.2", False), ("other.example", False)])
async def test_the_certificate_must_name_the_receiver(
    name: str, is_trusted: bool, authority: trustme.CA, ca_file: str
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(tls)
    async with receiver(tls=tls) as hooks, sender_to(hooks.url, client_context(ca_file)) as sender:
        for _ in range(3):
            reply = await sender.post("ev_1", BODY, 5)
            assert (reply.is_success, reply.failure) == ((True, None) if is_trusted else (False, SendFailure.CONNECT))
        assert len(hooks.requests) == (3 if is_trusted else 0)
        assert hooks.connections == (1 if is_trusted else 3)


async def test_an_authority_that_is_not_configured_is_not_trusted(authority: trustme.CA) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    async with receiver(tls=tls) as hooks, sender_to(hooks.url) as sender:
        reply = await sender.post("ev_1", BODY, 5)
        assert reply.failure is SendFailure.CONNECT
        assert "certificate" in reply.detail.lower()
        assert hooks.requests == []


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://shop.example", HttpTarget(True, "shop.example", 443, "shop.example", "/")),
        ("http://[::1]:8080/a?b=c", HttpTarget(False, "::1", 8080, "[::1]:8080", "/a?b=c")),
    ],
)
def test_a_url_leads_somewhere(url: str, target: HttpTarget) -> None:
    assert HttpTarget.of(url) == target
