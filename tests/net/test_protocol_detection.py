from __future__ import annotations

import contextlib
import json
import random
import select
import socket
import struct
from collections.abc import Iterator

import pytest
import structlog.testing

from broker.core.net.connection_limits import OVERFLOW_MAX, ConnectionLimits
from broker.core.net.proxy_header import Networks
from broker.net.http1 import MAX_HEAD_BYTES
from broker.net.protocol_detection import ProtocolDetector
from broker.net.transport import Framing, TcpTransport
from broker.net.websocket import WebSocketJsonTransport, WebSocketTransport
from protocol.codes import CloseCode
from protocol.connection import Connection, Frame
from protocol.messages import GoAway, Side
from tests.support.poller import Harness, connection_harness
from tests.support.websocket import BINARY, HELLO, JSON_UPGRADE, KEY, TEXT, UPGRADE, masked, status, v2


@pytest.fixture
def harness() -> Iterator[Harness]:
    with connection_harness() as found:
        yield found


# ---- who speaks what


def test_a_zero_byte_is_the_native_protocol(harness: Harness) -> None:
    _, client = harness.greet()
    client.sendall(HELLO[:1])
    harness.until(lambda: harness.owners)
    assert isinstance(harness.owners[0].transport, TcpTransport)
    client.sendall(HELLO[1:])
    harness.until(lambda: harness.owners[0].data == HELLO)
    assert harness.detector.opened == {"native": 1}


@pytest.mark.parametrize("split", [False, True])
def test_a_websocket_handshake_becomes_a_websocket(harness: Harness, split: bool) -> None:
    _, client = harness.greet()
    for piece in [UPGRADE[n : n + 1] for n in range(len(UPGRADE))] if split else [UPGRADE]:
        client.sendall(piece)
        harness.turn()
    transport = harness.owners[0].transport
    assert type(transport) is WebSocketTransport
    assert harness.read(client, 12) == b"HTTP/1.1 101"
    client.sendall(masked(BINARY, HELLO))
    harness.until(lambda: harness.owners[0].data == HELLO)
    assert harness.detector.opened == {"websocket": 1}


def test_a_client_may_send_its_first_frames_with_the_handshake(harness: Harness) -> None:
    _, client = harness.greet()
    client.sendall(UPGRADE + masked(BINARY, HELLO) + masked(BINARY, HELLO)[:7])
    harness.until(lambda: harness.owners)
    assert harness.owners[0].data == HELLO
    client.sendall(masked(BINARY, HELLO)[7:])
    harness.until(lambda: harness.owners[0].data == HELLO * 2)


def test_the_json_subprotocol_becomes_a_json_link(harness: Harness) -> None:
    _, client = harness.greet()
    client.sendall(JSON_UPGRADE + masked(TEXT, b"{}"))
    harness.until(lambda: harness.owners)
    assert type(harness.owners[0].transport) is WebSocketJsonTransport
    assert harness.owners[0].transport.framing is Framing.WEBSOCKET_JSON
    assert harness.owners[0].texts == ["{}"]


def test_the_deadline_of_the_greeting_goes_on_for_the_link(harness: Harness) -> None:
    _, client = harness.greet()
    harness.later(4.0)
    client.sendall(HELLO)
    harness.until(lambda: harness.owners)
    harness.later(2.0)
    assert harness.owners[0].closed == [(CloseCode.HANDSHAKE_TIMEOUT, "too late")]


def test_health_is_answered_and_the_connection_ends(harness: Harness) -> None:
    said = harness.ask(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status(said) == 200
    assert json.loads(said.partition(b"\r\n\r\n")[2]) == {"status": "ok"}
    harness.ready = False
    assert status(harness.ask(b"GET /healthz HTTP/1.0\r\n\r\n")) == 503
    assert harness.detector.answered == {200: 1, 503: 1}
    assert harness.owners == []


def test_a_body_is_never_read_and_a_second_request_never_answered(harness: Harness) -> None:
    smuggled = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    body = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(smuggled)
    assert harness.ask(body + smuggled).count(b"HTTP/1.1") == 1
    assert harness.ask(smuggled + smuggled).count(b"HTTP/1.1") == 1
    chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"
    assert status(harness.ask(chunked + smuggled)) == 400


# ---- hostile handshakes


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (UPGRADE.replace(b"Connection: Upgrade", b"Connection: \xd0\xa3pgrade"), 400),
        (UPGRADE.replace(b"roomcast.v1", "комната".encode()), 400),
        (UPGRADE.replace(b"/live", b"/l\xedve"), 400),
        (UPGRADE.replace(b"GET", b"POST"), 400),
        (UPGRADE.replace(b"Upgrade: websocket", b"Upgrade: webrocket"), 400),
        (UPGRADE.replace(b"Version: 13", b"Version: 8"), 426),
        (UPGRADE.replace(KEY, b"c2hvcnQ="), 400),
        (UPGRADE.replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
        (UPGRADE.replace(b"Host: x\r\n", b""), 400),
        (UPGRADE.replace(b"Host: x\r\n", b"Host: x\r\nOrigin: https://evil.example\r\n"), 403),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 426),
        (b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GARBAGE\x00\xff\xfe", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * MAX_HEAD_BYTES, 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n", 431),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    ],
)
def test_a_hostile_handshake_is_answered_and_ended(harness: Harness, request_bytes: bytes, expected: int) -> None:
    assert status(harness.ask(request_bytes)) == expected
    assert harness.owners == []
    assert status(harness.ask(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")) == 200


@pytest.mark.parametrize("noise", [b"\xff\xfe", b"\x01", b"\x16\x03\x01\x02\x00", b"\r\n", b"hello", b"SSH-2.0-x\r\n"])
def test_noise_is_closed_without_an_answer(harness: Harness, noise: bytes) -> None:
    assert harness.ask(noise) == b""
    assert harness.detector.noise == 1


def test_a_stray_byte_after_the_upgrade_waits_and_a_bad_frame_ends_with_1002(harness: Harness) -> None:
    for stray in (b"\x00", b"\xff", b"\x82", b"\x88"):
        _, client = harness.greet()
        client.sendall(UPGRADE + stray)
        assert harness.read(client, 12) == b"HTTP/1.1 101"
        client.close()
        harness.until(lambda: harness.owners[-1].closed)
    said = harness.ask(UPGRADE, b"\xff\xff")
    assert said.endswith(b"\x88\x1a" + struct.pack("!H", 1002) + b"WebSocket protocol error")


def test_leaving_at_any_moment_leaves_nothing_behind(harness: Harness) -> None:
    whole = UPGRADE + masked(BINARY, HELLO)
    for size in range(0, len(whole), 9):
        for reset in (False, True):
            _, client = harness.greet()
            client.sendall(whole[:size])
            if size % 2:
                harness.turn()
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
    harness.until(lambda: not len(harness.poller))
    assert all(len(owner.closed) == 1 for owner in harness.owners)


def test_2000_fuzzed_handshakes_leave_the_broker_serving_and_no_descriptor_behind() -> None:
    rng = random.Random(20_211)
    tokens = [
        b"\r\n", b"\n", b"\r", b"\x00", b"\xff", b": ", b",", b" ", b"\t", b"GET ", b" HTTP/1.1", b"Host: x",
        b"A" * 5000, b"\x16\x03\x01", b"\r\n\r\n\x00\r\nQUIT\n", b"Sec-WebSocket-Key: x", b"\x88\x80", b"\xc0\x80",
        b"Transfer-Encoding: chunked", "弹".encode(), b"Connection: ", b"Upgrade: websocket", masked(BINARY, b"x"),
        b"\x82\xff" + b"\xff" * 8,
    ]  # fmt: skip
    seeds = [
        UPGRADE,
        JSON_UPGRADE,
        UPGRADE + masked(BINARY, HELLO),
        HELLO * 3,
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    ]
    with connection_harness() as harness:
        for number in range(2000):
            data = bytearray(rng.choice(seeds))
            for _ in range(rng.choice((0, 1, 1, 2, 5))):
                position = rng.randrange(len(data) + 1)
                match rng.randrange(4):
                    case 0:
                        data[position : position + rng.randrange(9)] = rng.choice(tokens)
                    case 1:
                        data[position:position] = rng.randbytes(rng.randrange(1, 9))
                    case 2:
                        del data[position : position + rng.randrange(1, 40)]
                    case _:
                        if position < len(data):
                            data[position] ^= 1 << rng.randrange(8)
            _, client = harness.greet()
            split = rng.randrange(len(data) + 1)
            client.send(data[:split])
            if rng.random() < 0.5:
                harness.turn()
            with contextlib.suppress(ConnectionError):
                client.send(data[split:])
            end = rng.randrange(4)
            if end == 0:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if end <= 1:
                client.close()
            harness.turn()
            if end > 1:
                client.close()
            if number % 250 == 249:
                harness.turn(5)
                assert status(harness.ask(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")) == 200
                assert harness.ask(UPGRADE, b"\x88\x80KEY!").startswith(b"HTTP/1.1 101")
        harness.until(lambda: not len(harness.poller))
        assert all(len(owner.closed) == 1 for owner in harness.owners)
        assert len(harness.gone) == 2000 + 16


# ---- deadlines


def test_a_slow_loris_is_gone_at_the_deadline_whatever_it_sends(harness: Harness) -> None:
    loris = [harness.greet()[1] for _ in range(5)]
    texts = [b"", HELLO[:0], UPGRADE, b"GET /healthz HTTP/1.1\r\nX: ", b"P"]
    for second in range(24):
        for client, text in zip(loris, texts, strict=True):
            client.send(text[second : second + 1])
        harness.later(0.2)
    assert len(harness.gone) == 0, "no connection is cut before the deadline"
    harness.later(1.2)
    assert len(harness.gone) == 5, "no byte has moved the deadline, and no connection lingers after it"
    said = [harness.read_all(client) for client in loris]
    assert said[0] == said[1] == b""
    assert status(said[2]) == status(said[3]) == status(said[4]) == 408


# ---- refused at the gate


def full_gate() -> ConnectionLimits:
    connection_limits = ConnectionLimits(max_connections=1, per_address=0, accept_per_s=1e6, unauthenticated_share=1.0)
    return connection_limits


def test_a_refused_native_client_learns_why_and_when_to_return() -> None:
    with connection_harness(connection_limits=full_gate()) as harness:
        _, first = harness.greet()
        said = harness.ask(HELLO)
        link = Connection(Side.CLIENT)
        link.receive_data(said)
        event = link.next_event()
        assert isinstance(event, Frame)
        assert isinstance(event.message, GoAway)
        assert event.message.code == CloseCode.TOO_MANY_CONNECTIONS
        assert event.message.reason == "too many connections"
        assert event.message.retry_after_ms == 5000
        assert event.message.jitter_ms > 0
        first.close()
        harness.until(lambda: not harness.connection_limits.held)
        _, client = harness.greet()
        client.sendall(HELLO)
        harness.until(lambda: harness.owners)


def test_a_refused_http_or_websocket_client_gets_503_and_retry_after() -> None:
    with connection_harness(connection_limits=full_gate()) as harness:
        harness.greet()
        for request_bytes in (UPGRADE, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"):
            said = harness.ask(request_bytes)
            assert status(said) == 503
            assert b"\r\nRetry-After: 5\r\n" in said
        assert harness.detector.refused == 2
        assert harness.owners == []
        assert harness.connection_limits.held == 1


def test_a_refused_client_that_says_nothing_is_closed_with_its_place_in_the_overflow() -> None:
    with connection_harness(connection_limits=full_gate(), detect_timeout_s=1.0) as harness:
        for _ in range(1 + OVERFLOW_MAX):
            harness.greet()
        assert harness.connection_limits.overflow == OVERFLOW_MAX
        harness.later(2.0)
        assert (harness.connection_limits.overflow, len(harness.poller)) == (0, 0)


# ---- PROXY headers


@pytest.fixture
def proxied() -> Iterator[Harness]:
    connection_limits = ConnectionLimits(
        max_connections=100, per_address=2, accept_per_s=1e6, unauthenticated_share=1.0
    )
    with connection_harness(connection_limits=connection_limits, trusted=Networks(["127.0.0.0/8"])) as found:
        yield found


@pytest.mark.parametrize("header", [v2("203.0.113.9"), b"PROXY TCP4 203.0.113.9 127.0.0.1 1 2\r\n"])
@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("then", [HELLO, UPGRADE])
def test_a_trusted_proxy_says_whom_it_speaks_for(proxied: Harness, header: bytes, step: int, then: bytes) -> None:
    _, client = proxied.greet(is_proxied=True)
    data = header + then
    for start in range(0, len(data), step):
        client.sendall(data[start : start + step])
        proxied.turn()
    proxied.until(lambda: proxied.owners)
    assert proxied.owners[0].transport.address == "203.0.113.9"
    assert proxied.connection_limits.addresses == 1


def test_the_limit_per_address_counts_the_clients_behind_the_proxy(proxied: Harness) -> None:
    for _ in range(2):
        _, client = proxied.greet(is_proxied=True)
        client.sendall(v2("203.0.113.9") + HELLO)
    proxied.until(lambda: len(proxied.owners) == 2)
    said = proxied.ask(v2("203.0.113.9") + UPGRADE, is_proxied=True)
    assert status(said) == 503
    _, client = proxied.greet(is_proxied=True)
    client.sendall(v2("203.0.113.10") + HELLO)
    proxied.until(lambda: len(proxied.owners) == 3)


def test_a_health_check_of_the_proxy_itself_has_the_proxys_address(proxied: Harness) -> None:
    greeting, client = proxied.greet(is_proxied=True)
    client.sendall(v2("203.0.113.9", command=0x20))
    proxied.until(lambda: greeting.address)
    assert greeting.address == "127.0.0.1"
    client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status(proxied.read_all(client)) == 200


@pytest.mark.parametrize("data", [HELLO, UPGRADE, v2("1.2.3.4")[:8] + b"xxxxxxxxx", b"PROXY NONSENSE\r\n"])
def test_from_a_trusted_proxy_the_header_is_required(proxied: Harness, data: bytes) -> None:
    assert proxied.ask(data, is_proxied=True) == b""
    assert proxied.detector.noise == 1


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize("start", [b"GET", b"PUT", b"HEAD"])
def test_a_health_check_of_a_trusted_proxy_needs_no_header(proxied: Harness, start: bytes, step: int) -> None:
    check = start + b" /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    pieces = [check[at : at + step] for at in range(0, len(check), step)]
    assert status(proxied.ask(*pieces, is_proxied=True)) == (405 if start == b"PUT" else 200)
    assert (proxied.detector.noise, proxied.connection_limits.addresses) == (0, 0)


def forwarded(*addresses: str, upgrade: bytes = UPGRADE) -> bytes:
    lines = "".join(f"X-Forwarded-For: {address}\r\n" for address in addresses)
    return upgrade[:-2] + lines.encode() + b"\r\n"


def test_viewers_behind_a_web_proxy_count_by_their_own_addresses(proxied: Harness) -> None:
    for number in range(5):
        _, client = proxied.greet(proxy="127.0.0.1")
        client.sendall(forwarded(f"198.51.100.1, 203.0.113.{number}", "127.0.0.2"))
    proxied.until(lambda: len(proxied.owners) == 5)
    assert [owner.transport.address for owner in proxied.owners] == [f"203.0.113.{number}" for number in range(5)]
    _, client = proxied.greet(proxy="127.0.0.1")
    client.sendall(forwarded("203.0.113.1"))
    proxied.until(lambda: len(proxied.owners) == 6)
    assert status(proxied.ask(forwarded("203.0.113.1"), proxy="127.0.0.1")) == 503
    assert proxied.connection_limits.addresses == 5


def test_only_the_named_header_of_a_trusted_proxy_counts(harness: Harness) -> None:
    harness.detector.trusted = Networks(["127.0.0.0/8"])
    harness.detector.address_header = b"forwarded"
    claimed = forwarded("192.0.2.1")
    for upgrade, proxy in ((claimed, "127.0.0.1"), (claimed, ""), (UPGRADE, "127.0.0.1")):
        _, client = harness.greet(proxy=proxy)
        client.sendall(upgrade)
    _, client = harness.greet(proxy="127.0.0.1")
    client.sendall(claimed[:-2] + b"Forwarded: for=203.0.113.7\r\n\r\n")
    harness.until(lambda: len(harness.owners) == 4)
    assert sorted(owner.transport.address for owner in harness.owners) == ["127.0.0.1"] * 3 + ["203.0.113.7"]
    assert harness.detector.unnamed == 2


def test_a_proxy_that_names_no_client_is_reported(harness: Harness) -> None:
    harness.detector.trusted = Networks(["127.0.0.0/8"])
    with structlog.testing.capture_logs() as lines:
        _, client = harness.greet(proxy="127.0.0.1")
        client.sendall(UPGRADE)
        harness.until(lambda: harness.owners)
    assert [(line["event"], line["proxy"]) for line in lines] == [("a trusted proxy names no client", "127.0.0.1")]
    assert status(harness.ask(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", proxy="127.0.0.1")) == 200
    assert harness.detector.unnamed == 1, "a health check of the proxy itself is no client"


def test_a_native_link_through_a_trusted_proxy_counts_as_the_proxys(harness: Harness) -> None:
    harness.detector.trusted = Networks(["127.0.0.0/8"])
    _, client = harness.greet(proxy="127.0.0.1")
    client.sendall(HELLO)
    harness.until(lambda: harness.owners)
    assert harness.owners[0].transport.address == "127.0.0.1"


def test_a_header_of_any_other_peer_is_ignored(harness: Harness) -> None:
    assert harness.ask(v2("203.0.113.9") + HELLO) == b""
    assert status(harness.ask(b"PROXY TCP4 203.0.113.9 127.0.0.1 1 2\r\n" + UPGRADE)) == 400
    assert harness.owners == []


def test_half_a_proxy_header_does_not_spin(proxied: Harness) -> None:
    greeting, client = proxied.greet(is_proxied=True)
    client.sendall(v2("203.0.113.9")[:20])
    proxied.until(lambda: greeting.buffered_bytes == 20)
    assert select.select([proxied.poller.fileno()], [], [], 0)[0] == [], "the bytes are off the socket"


def test_a_session_that_cannot_be_made_ends_its_connection_only(harness: Harness) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("a defect")

    make_session, harness.detector.make_session = harness.detector.make_session, fail  # type: ignore[assignment]
    with structlog.testing.capture_logs() as lines:
        assert harness.ask(HELLO) == b""
    assert harness.poller.crashes == len(lines) == 1
    harness.poller.crashes = 0
    harness.detector.make_session = make_session
    greeting, client = harness.greet()
    client.sendall(HELLO)
    harness.until(lambda: harness.owners)
    assert isinstance(greeting, ProtocolDetector)
