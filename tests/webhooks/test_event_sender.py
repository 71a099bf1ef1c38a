"""The sender of events against receivers on loopback that behave, and that do not."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme

from broker.config.webhooks import EndpointConfig, WebhookConfig, webhook_key
from broker.webhooks.connection import HttpTarget
from broker.webhooks.event_sender import EventSender
from broker.webhooks.sender import MAX_REPLY_BYTES, SendFailure, client_context
from tests.support.receiver import Received, http_reply, receiver
from tests.support.webhooks import SECRET, event_of

BODY = '{"id": "ev_1", "text": "弹幕"}'.encode()


@asynccontextmanager
async def sender_to(url: str, context: ssl.SSLContext | None = None) -> AsyncIterator[EventSender]:
    endpoint = EndpointConfig(name="shop", url=url, secret_file="secret")
    config = WebhookConfig(endpoints=(endpoint,), connect_timeout_s=1.0)
    made = EventSender(
        endpoint, config, (webhook_key(SECRET),), context or client_context(None), lambda: time.time_ns() // 10**6
    )
    try:
        yield made
    finally:
        await made.aclose()


async def test_requests_share_a_connection_and_the_published_library_verifies_them() -> None:
    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        return http_reply(200, b'{"ok":true}', set_cookie="a=b")

    async with receiver(answer) as hooks, sender_to(hooks.url + "?a=1") as sender:
        for _ in range(3):
            reply = await sender.post("ev_1", BODY, 5)
            assert (reply.status, reply.body, reply.failure) == (200, b'{"ok":true}', None)
        assert hooks.connections == 1
        assert [event_of(each)["text"] for each in hooks.requests] == ["弹幕"] * 3
        request = hooks.requests[-1]
        assert (request.path, request.headers["host"]) == ("/hook?a=1", f"127.0.0.1:{hooks.port}")
        assert request.headers["content-type"] == "application/json"
        assert "cookie" not in request.headers


async def test_a_redirect_is_an_answer_and_a_time_to_wait_is_read() -> None:
    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        return http_reply(301, location="/other", retry_after="7")

    async with receiver(answer) as hooks, sender_to(hooks.url) as sender:
        reply = await sender.post("ev_1", BODY, 5)
        assert (reply.status, reply.retry_after_s, reply.is_success) == (301, 7.0, False)
        assert len(hooks.requests) == 1


@pytest.mark.parametrize("head", [b"content-length: 10737418240\r\n\r\n", b"\r\n"])
async def test_ten_gigabytes_are_read_up_to_the_cap(head: bytes) -> None:
    sent = 0

    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        nonlocal sent
        await stream.send_all(b"HTTP/1.1 200 OK\r\n" + head)
        while True:
            await stream.send_all(bytes(65_536))
            sent += 65_536

    async with receiver(answer) as hooks, sender_to(hooks.url) as sender:
        reply = await sender.post("ev_1", BODY, 5)
        assert reply.failure is SendFailure.TOO_LARGE
        assert str(MAX_REPLY_BYTES) in reply.detail
        assert sent < 50 * 1024 * 1024


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab"])
async def test_a_receiver_that_hangs_costs_the_deadline(data: bytes) -> None:
    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        if data:
            await stream.send_all(data)
        await trio.sleep_forever()
        raise AssertionError

    async with receiver(answer) as hooks, sender_to(hooks.url) as sender:
        with trio.fail_after(5):
            assert (await sender.post("ev_1", BODY, 0.1)).failure is SendFailure.TIMEOUT


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\xff" * 1000,
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 100_000,
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100,
        b"",
    ],
)
async def test_what_is_no_answer_is_a_failure(data: bytes) -> None:
    async def answer(received: Received, stream: trio.abc.Stream) -> None:
        await stream.send_all(data)

    async with receiver(answer) as hooks, sender_to(hooks.url) as sender:
        assert (await sender.post("ev_1", BODY, 5)).failure is SendFailure.BROKEN
        assert len(hooks.requests) == 1


async def test_a_kept_connection_that_ended_is_replaced() -> None:
    async def answer(received: Received, stream: trio.abc.Stream) -> bytes | None:
        if hooks.connections == 1 and len(hooks.requests) == 2:
            return None  # the second request on the first connection is cut off
        return http_reply(204)

    async with receiver(answer) as hooks, sender_to(hooks.url) as sender:
        for _ in range(3):
            assert (await sender.post("ev_1", BODY, 5)).is_success
        assert hooks.connections == 2
        assert len(hooks.requests) == 4


async def test_nothing_that_listens_is_a_failure_of_connecting() -> None:
    async with sender_to("http://127.0.0.1:9/hook") as sender:
        reply = await sender.post("ev_1", BODY, 5)
        assert reply.failure is SendFailure.CONNECT
        assert reply.detail


@pytest.mark.parametrize(("name", "is_trusted"), [("127.0.0.1", True), ("other.example", False)])
async def test_the_certificate_must_name_the_receiver(tmp_path: Path, name: str, is_trusted: bool) -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(server)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = client_context(str(tmp_path / "ca.pem"))
    async with receiver(tls=server) as hooks, sender_to(hooks.url, context) as sender:
        for _ in range(2):
            reply = await sender.post("ev_1", BODY, 5)
            assert reply.is_success is is_trusted
        assert is_trusted or reply.failure is SendFailure.CONNECT
        assert hooks.connections <= 2


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://shop.example", HttpTarget(True, "shop.example", 443, "shop.example", "/")),
        ("http://[::1]:8080/a?b=c", HttpTarget(False, "::1", 8080, "[::1]:8080", "/a?b=c")),
    ],
)
def test_a_url_leads_somewhere(url: str, target: HttpTarget) -> None:
    assert HttpTarget.of(url) == target
