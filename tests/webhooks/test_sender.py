"""The sender against receivers on loopback that behave, and that do not."""

from __future__ import annotations

import base64
import ssl
import time
from pathlib import Path

import pytest
import trio
import trustme
from standardwebhooks.webhooks import Webhook

from broker.config.webhooks import EndpointConfig, WebhookConfig
from broker.webhooks.sender import MAX_REPLY_BYTES, SendFailure, WebhookSender, client_context
from tests.support.receiver import Received, http_reply, receiver

KEY = b"k" * 32
SECRET = "whsec_" + base64.b64encode(KEY).decode()


def unix_ms() -> int:
    return round(time.time() * 1000)


@pytest.fixture(scope="module")
def context() -> ssl.SSLContext:
    return client_context(None)


def sender_to(url: str, context: ssl.SSLContext, connections: int = 4, connect_s: float = 1.0) -> WebhookSender:
    return WebhookSender(
        url, (KEY,), context=context, unix_ms=unix_ms, max_connections=connections, connect_timeout_s=connect_s
    )


async def test_the_published_library_verifies_what_arrives(context: ssl.SSLContext) -> None:
    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        assert Webhook(SECRET).verify(received.body, received.headers) == {"a": "弹幕"}
        return http_reply(200, b'{"ok":true}')

    async with receiver(answer) as running:
        sender = sender_to(running.url, context)
        reply = await sender.post("evt_1", '{"a": "弹幕"}'.encode(), 5)
        assert (reply.status, reply.body, reply.is_success, reply.failure) == (200, b'{"ok":true}', True, None)
        (request,) = running.requests
        assert request.headers["webhook-id"] == "evt_1"
        assert request.headers["content-type"] == "application/json"
        await sender.aclose()


async def test_a_kept_connection_is_used_again_and_no_cookie_comes_back(context: ssl.SSLContext) -> None:
    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        return http_reply(200, set_cookie="a=b; Path=/")

    async with receiver(answer) as running:
        sender = sender_to(running.url, context)
        for number in range(3):
            assert (await sender.post(f"evt_{number}", b"{}", 5)).is_success
        assert running.connections == 1
        assert all("cookie" not in request.headers for request in running.requests)
        await sender.aclose()


async def test_new_keys_sign_from_the_next_request_on(context: ssl.SSLContext) -> None:
    new = b"n" * 32
    async with receiver() as running:
        sender = sender_to(running.url, context)
        sender.use_keys((new, KEY))
        assert (await sender.post("evt_1", b"{}", 5)).is_success
        (request,) = running.requests
        for key in (new, KEY):
            Webhook("whsec_" + base64.b64encode(key).decode()).verify(request.body, request.headers)
        await sender.aclose()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_an_answer_and_is_not_followed(status: int, context: ssl.SSLContext) -> None:
    async with receiver() as target:

        async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
            return http_reply(status, location=target.url)

        async with receiver(answer) as running:
            sender = sender_to(running.url, context)
            reply = await sender.post("evt_1", b"{}", 5)
            assert (reply.status, reply.is_success, reply.failure) == (status, False, None)
            assert target.requests == []
            await sender.aclose()


@pytest.mark.parametrize(
    ("text", "expected"), [("7", 7.0), ("0", 0.0), ("99999999999", 86_400.0), ("Wed, 01 Jan 2031", None), ("-1", None)]
)
async def test_the_time_to_wait_is_read_where_it_is_a_number(
    text: str, expected: float | None, context: ssl.SSLContext
) -> None:
    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        return http_reply(503, retry_after=text)

    async with receiver(answer) as running:
        sender = sender_to(running.url, context)
        reply = await sender.post("evt_1", b"{}", 5)
        assert (reply.status, reply.is_success, reply.retry_after_s) == (503, False, expected)
        await sender.aclose()


@pytest.mark.parametrize("has_length", [True, False])
async def test_ten_gigabytes_are_read_up_to_the_cap(has_length: bool, context: ssl.SSLContext) -> None:
    sent = 0

    async def answer(received: Received, stream: trio.abc.Stream) -> None:
        nonlocal sent
        length = f"content-length: {10 * 1024**3}\r\n" if has_length else ""
        await stream.send_all(f"HTTP/1.1 200 OK\r\n{length}\r\n".encode())
        while True:
            await stream.send_all(b"x" * 65536)
            sent += 65536

    async with receiver(answer) as running:
        sender = sender_to(running.url, context)
        reply = await sender.post("evt_1", b"{}", 10)
        assert (reply.status, reply.failure) == (0, SendFailure.TOO_LARGE)
        assert sent < 64 * 1024 * 1024
        await sender.aclose()


async def test_an_answer_of_exactly_the_cap_is_taken(context: ssl.SSLContext) -> None:
    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        return http_reply(200, b"x" * MAX_REPLY_BYTES)

    async with receiver(answer) as running:
        sender = sender_to(running.url, context)
        assert len((await sender.post("evt_1", b"{}", 10)).body) == MAX_REPLY_BYTES
        await sender.aclose()


@pytest.mark.parametrize("begins", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"])
async def test_a_receiver_that_hangs_costs_the_deadline(begins: bytes, context: ssl.SSLContext) -> None:
    async def answer(received: Received, stream: trio.abc.Stream) -> None:
        await stream.send_all(begins)
        await trio.sleep_forever()

    async with receiver(answer) as running:
        sender = sender_to(running.url, context, connections=1)
        reply = await sender.post("evt_1", b"{}", 0.1)
        assert (reply.status, reply.failure) == (0, SendFailure.TIMEOUT)
        running.answer = lambda received, stream: _ok()
        assert (await sender.post("evt_2", b"{}", 5)).is_success  # the one connection is free again
        await sender.aclose()


async def _ok() -> bytes:
    return http_reply(200)


async def test_more_requests_than_connections_wait_and_none_fails(context: ssl.SSLContext) -> None:
    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        await trio.lowlevel.checkpoint()
        return http_reply(200)

    async with receiver(answer) as running:
        sender = sender_to(running.url, context, connections=2)
        replies = []

        async def one(number: int) -> None:
            replies.append(await sender.post(f"evt_{number}", b"{}", 20))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(one, number)
        assert [reply.status for reply in replies] == [200] * 20
        assert running.connections <= 2
        await sender.aclose()


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 99_999,
    ],
)
async def test_an_answer_that_is_not_http_is_a_failure(data: bytes, context: ssl.SSLContext) -> None:
    async def answer(received: Received, stream: trio.abc.Stream) -> None:
        await stream.send_all(data)

    async with receiver(answer) as running:
        sender = sender_to(running.url, context)
        reply = await sender.post("evt_1", b"{}", 10)
        assert (reply.status, reply.failure) == (0, SendFailure.BROKEN)
        assert reply.detail
        await sender.aclose()


async def test_a_connection_that_ends_unused_is_replaced_and_one_that_is_new_is_not(context: ssl.SSLContext) -> None:
    async def cut(received: Received, stream: trio.abc.Stream) -> bytes | None:
        return None if len(running.requests) % 2 == 0 else http_reply(200)

    async with receiver(cut) as running:
        sender = sender_to(running.url, context)
        assert (await sender.post("evt_1", b"{}", 5)).is_success
        assert (await sender.post("evt_2", b"{}", 5)).is_success  # cut off once, and sent again with the same id
        ids = [request.headers["webhook-id"] for request in running.requests]
        assert ids == ["evt_1", "evt_2", "evt_2"]
        await sender.aclose()
    async with receiver(cut) as running:
        running.requests.append(Received("", {}, b""))
        sender = sender_to(running.url, context)
        assert (await sender.post("evt_3", b"{}", 5)).failure is SendFailure.BROKEN
        await sender.aclose()


async def test_nobody_listening_is_a_failure_of_connecting(context: ssl.SSLContext) -> None:
    async with receiver() as running:
        url = running.url
    sender = sender_to(url, context)
    reply = await sender.post("evt_1", b"{}", 5)
    assert (reply.status, reply.failure) == (0, SendFailure.CONNECT)
    await sender.aclose()


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, context: ssl.SSLContext) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    async with receiver() as running:
        sender = sender_to(running.url, context)
        assert (await sender.post("evt_1", b"{}", 5)).is_success
        await sender.aclose()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.mark.parametrize(("name", "is_trusted"), [("127.0.0.1", True), ("127.0.0.2", False)])
async def test_the_certificate_must_name_the_receiver(
    name: str, is_trusted: bool, authority: trustme.CA, ca_file: Path
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(tls)
    async with receiver(tls=tls) as running:
        sender = sender_to(running.url, client_context(str(ca_file)))
        reply = await sender.post("evt_1", b"{}", 5)
        assert (reply.is_success, reply.failure) == ((True, None) if is_trusted else (False, SendFailure.CONNECT))
        await sender.aclose()


async def test_an_authority_that_is_not_configured_is_not_trusted(
    authority: trustme.CA, context: ssl.SSLContext
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    async with receiver(tls=tls) as running:
        sender = sender_to(running.url, context)
        reply = await sender.post("evt_1", b"{}", 5)
        assert reply.failure is SendFailure.CONNECT
        assert "certificate" in reply.detail.lower()
        assert running.requests == []
        await sender.aclose()


async def test_a_sender_is_made_of_a_configured_endpoint(tmp_path: Path, context: ssl.SSLContext) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n", encoding="utf-8")
    secret.chmod(0o600)
    async with receiver() as running:
        endpoint = EndpointConfig(name="shop", url=running.url, secret_file=str(secret))
        sender = WebhookSender.of(endpoint, WebhookConfig(endpoints=(endpoint,)), context, unix_ms)
        assert (await sender.post("evt_1", b"{}", 5)).is_success
        Webhook(SECRET).verify(running.requests[0].body, running.requests[0].headers)
        await sender.aclose()
