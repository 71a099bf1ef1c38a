"""What every transport promises, checked on real sockets for each kind of it."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest
import structlog.testing
from wsproto.frame_protocol import FrameDecoder, FrameProtocol, Opcode

from broker.core.net.send_queue import QueueLimits
from broker.net.tls import RECORD_BYTES, TlsSocket, wrap
from broker.net.transport import LINGER_S, RECEIVE_BYTES, Framing, Part, TcpTransport, Transport, TransportState
from broker.net.websocket import WebSocketJsonTransport, WebSocketTransport, ws_frame
from protocol.codes import CloseCode, Lane
from tests.support.poller import (
    Credentials,
    Harness,
    RecordingOwner,
    connection_harness,
    do_handshakes,
    make_credentials,
)

KINDS = [(kind, tls) for tls in (False, True) for kind in (TcpTransport, WebSocketTransport, WebSocketJsonTransport)]
"""Every transport, on a plain socket and on TLS."""


@dataclass
class Link:
    """A transport, its owner, and a client that speaks the transport's framing with wsproto's help."""

    harness: Harness
    transport: Transport
    owner: RecordingOwner
    client: socket.socket
    codec: FrameProtocol = field(default_factory=lambda: FrameProtocol(client=True, extensions=[]))

    def is_behind(self) -> bool:
        return self.transport.queue is not None

    @property
    def is_native(self) -> bool:
        return self.transport.framing is Framing.TCP

    def message(self, payload: bytes) -> bytes:
        """``payload`` as the broker would write it to this link."""
        if self.is_native:
            return payload
        return ws_frame(payload, text=self.transport.framing is Framing.WEBSOCKET_JSON)

    def say(self, payload: bytes) -> bytes:
        """``payload`` as the client writes it."""
        if self.is_native:
            return payload
        is_json = self.transport.framing is Framing.WEBSOCKET_JSON
        return bytes(self.codec.send_data(payload.decode() if is_json else payload))

    def heard(self) -> bytes:
        return self.owner.data or "".join(self.owner.texts).encode()

    def unframed(self, stream: bytes) -> tuple[bytes, list[bytes]]:
        """The payloads the client got, joined, and the control frames after them."""
        if self.is_native:
            return stream, []
        decoder = FrameDecoder(client=True)
        decoder.receive_bytes(stream)
        payload, control = b"", []
        while (frame := decoder.process_buffer()) is not None:
            assert isinstance(frame.payload, bytes)
            if frame.opcode.iscontrol():
                control.append(frame.payload)
            else:
                assert not control, "a message after the Close frame"
                assert frame.opcode is not Opcode.BINARY or self.transport.framing is Framing.WEBSOCKET
                payload += frame.payload
        assert decoder.header is None, "a frame is cut in the middle"
        assert not len(decoder.buffer), "a frame is cut in the middle"
        return payload, control


def make_link(
    harness: Harness, kind: type[Transport], credentials: Credentials | None, *, is_narrow: bool = False
) -> Link:
    """A link of one kind; on TLS where there are ``credentials``."""
    server, client = harness.narrow_pair() if is_narrow else harness.pair()
    if credentials is not None:
        server = wrap(credentials.server, server)
        client = credentials.client.wrap_socket(
            client, server_hostname="127.0.0.1", do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
        harness.clients.append(client)
        do_handshakes(server, client)
    transport = kind(server, harness.transports, "127.0.0.1")
    harness.adopt(transport)
    return Link(harness, transport, harness.owners[-1], client)


@pytest.fixture(params=KINDS, ids=lambda param: "Tls" * param[1] + param[0].__name__)
def kind(request: pytest.FixtureRequest) -> tuple[type[Transport], bool]:
    found: tuple[type[Transport], bool] = request.param
    return found


@pytest.fixture(scope="module")
def credentials() -> Credentials:
    return make_credentials()


@pytest.fixture
def open_link(kind: tuple[type[Transport], bool], credentials: Credentials) -> Iterator[Callable[..., Link]]:
    with connection_harness(limits=QueueLimits(frames=64, queue_bytes=128 * 1024, critical_bytes=1 << 20)) as harness:
        yield lambda **kwargs: make_link(harness, kind[0], credentials if kind[1] else None, **kwargs)


Opener = Callable[..., Link]


def test_what_is_written_arrives_in_order(open_link: Opener) -> None:
    link = open_link()
    payloads = [b"%d," % n * (n + 1) for n in range(100)]
    for payload in payloads:
        link.transport.write(link.message(payload))
    link.transport.close(CloseCode.GOING_AWAY, "bye")
    assert link.unframed(link.harness.read_all(link.client))[0] == b"".join(payloads)


def test_what_the_client_says_reaches_the_owner_in_any_split(open_link: Opener) -> None:
    link = open_link()
    payloads = [b"x" * size for size in (1, 125, 126, 4000, 9000, 60_000)]
    stream = b"".join(map(link.say, payloads))
    rng = random.Random(7)
    position = 0
    while position < len(stream):
        size = rng.choice((1, 2, 3, 7, 100, 20_000))
        link.client.send(stream[position : position + size])
        position += min(size, len(stream) - position)
        link.harness.turn()
    expected = b"".join(payloads)
    link.harness.until(lambda: len(link.heard()) >= len(expected))
    assert link.heard() == expected


def test_a_full_socket_queues_and_catches_up_without_a_hole(open_link: Opener) -> None:
    link = open_link(is_narrow=True)
    payloads = [struct.pack("!I", n) * 250 for n in range(600)]
    for payload in payloads:
        link.transport.write(link.message(payload), Lane.COMMERCE)
    assert link.transport.queue is not None
    assert link.harness.poller.backlogged == 1
    assert link.harness.budget.used_bytes == link.transport.queue.nbytes > 0
    expected = b"".join(map(link.message, payloads))
    assert link.harness.read(link.client, len(expected)) == expected
    link.harness.until(lambda: link.transport.queue is None, link.client)
    assert len(link.owner.missed) == 1
    assert link.harness.poller.backlogged == 0
    assert link.harness.budget.used_bytes == 0


def test_dropping_chat_cuts_no_frame_and_loses_no_event(open_link: Opener) -> None:
    link = open_link(is_narrow=True)
    rng = random.Random(11)
    frames: list[tuple[Lane, bytes]] = []
    got = bytearray()

    def read_some(size: int) -> bool:
        link.harness.turn()
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
            got.extend(link.client.recv(size))
        return link.transport.queue is None

    for n in range(1500):
        lane = rng.choice([Lane.CONTROL, Lane.PAID, Lane.CHAT, Lane.CHAT, Lane.CHAT, Lane.AMBIENT])
        payload = struct.pack("!BIH", lane, n, size := rng.choice((10, 300, 2500))) + bytes(size)
        frames.append((lane, payload))
        if link.transport.queue is None and rng.random() < 0.5:  # as the fan-out does: several parts in one write
            more = struct.pack("!BIH", Lane.CHAT, 10_000 + n, 700) + bytes(700)
            frames.append((Lane.CHAT, more))
            parts = (Part(link.message(payload), lane, 1, 1), Part(link.message(more), Lane.CHAT, 1, 1))
            joined = parts[0].data + parts[1].data
            try:
                sent = link.transport.sock.send(joined)
            except BlockingIOError:
                sent = 0
            if sent != len(joined):
                link.transport.start_backlog(parts, sent)
        else:
            link.transport.write(link.message(payload), lane, 1, 1)
        if n % 3 == 0:
            read_some(rng.choice((100, 1000, 3000)))
    assert not link.owner.closed
    assert link.transport.queue is not None
    link.harness.until(lambda: read_some(65536), link.client)
    link.transport.close(CloseCode.GOING_AWAY, "bye")
    got += link.harness.read_all(link.client)

    stream, _ = link.unframed(bytes(got))
    arrived: list[tuple[int, int]] = []
    while stream:
        lane_number, number, size = struct.unpack_from("!BIH", stream)
        assert stream[7 : 7 + size] == bytes(size)
        stream = stream[7 + size :]
        arrived.append((lane_number, number))
    numbers = [struct.unpack_from("!BIH", payload)[:2] for _, payload in frames]
    critical = [each for each in numbers if each[0] <= Lane.PAID]
    assert [each for each in arrived if each[0] <= Lane.PAID] == critical
    chat = [each for each in arrived if each[0] == Lane.CHAT]
    assert len(set(chat)) == len(chat)
    missed = sum(each.chat_frames for each in link.owner.missed)
    assert 0 < missed == sum(each[0] == Lane.CHAT for each in numbers) - len(chat)


def test_more_than_the_queue_holds_is_reported_to_the_owner(open_link: Opener) -> None:
    link = open_link(is_narrow=True)
    for _ in range(60):
        link.transport.write(link.message(b"sale" * 10_000), Lane.COMMERCE)
    assert link.owner.overflows == 1
    assert link.owner.closed == [(CloseCode.SLOW_VIEWER, "too slow")]
    assert link.transport.fd == -1, "who is behind hears nothing more and is gone at once"
    assert link.harness.budget.used_bytes == 0


def test_a_viewer_that_takes_no_byte_is_cut_and_one_that_takes_some_is_not(open_link: Opener) -> None:
    link = open_link(is_narrow=True)
    while len(link.owner.closed) == 0 and (link.transport.queue is None or link.transport.queue.nbytes < 200_000):
        link.transport.write(link.message(b"event" * 1000), Lane.CONTROL)
    for _ in range(4):
        link.harness.later(9.0)
        link.harness.read(link.client, 20_000)
        link.harness.turn()
    assert not link.owner.closed
    link.harness.later(10.5)
    assert link.owner.overflows == 1


def test_the_final_bytes_arrive_and_then_the_end(open_link: Opener) -> None:
    link = open_link()
    link.transport.write(link.message(b"hello"))
    link.transport.close(CloseCode.KICKED, "bad words", link.message(b"goodbye"))
    link.transport.close(CloseCode.GOING_AWAY, "again")
    assert link.owner.closed == [(CloseCode.KICKED, "bad words")]
    payload, control = link.unframed(link.harness.read_all(link.client))
    assert payload == b"hellogoodbye"
    if not link.is_native:
        assert control == [struct.pack("!H", CloseCode.KICKED) + b"bad words"]


def test_after_the_last_byte_the_rest_is_read_and_discarded_until_the_client_ends(open_link: Opener) -> None:
    link = open_link()
    link.transport.close(CloseCode.GOING_AWAY, "bye", link.message(b"bye"))
    assert link.transport.state == TransportState.CLOSING
    link.client.send(link.say(b"late"))
    link.harness.turn(3)
    assert link.heard() == b""
    assert link.harness.gone == []
    link.client.close()
    link.harness.until(lambda: link.harness.gone == [link.transport])
    assert link.transport.fd == -1


def test_a_client_that_does_not_end_is_released_after_a_while(open_link: Opener) -> None:
    link = open_link()
    link.transport.close(CloseCode.GOING_AWAY, "bye", link.message(b"bye"))
    link.harness.later(LINGER_S - 0.1)
    assert link.transport.fd >= 0
    link.harness.later(1.0)
    assert link.harness.gone == [link.transport]


def test_a_client_that_leaves_ends_the_link_once(open_link: Opener) -> None:
    link = open_link()
    link.client.close()
    link.harness.until(lambda: link.owner.closed)
    link.transport.abort("again")
    link.transport.close(CloseCode.GOING_AWAY, "again")
    link.transport.release()
    link.harness.turn(3)
    assert [code for code, _ in link.owner.closed] == [CloseCode.CLOSED_BY_PEER]
    assert link.harness.gone == [link.transport]


def test_a_client_that_resets_ends_the_link_once(open_link: Opener) -> None:
    link = open_link()
    link.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    link.client.close()
    link.harness.until(lambda: link.owner.closed)
    assert [code for code, _ in link.owner.closed] == [CloseCode.CLOSED_BY_PEER]
    assert link.harness.gone == [link.transport]


def test_writing_to_a_client_that_reset_ends_the_link_and_raises_nothing(open_link: Opener) -> None:
    link = open_link(is_narrow=True)
    while not link.is_behind():
        link.transport.write(link.message(b"event" * 1000), Lane.CONTROL)
    link.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    link.client.close()
    link.harness.until(lambda: link.owner.closed)
    link.transport.write(link.message(b"more"))
    link.transport.enqueue((Part(b"more", Lane.CONTROL, 0, 0),))
    link.transport.start_backlog((Part(b"more", Lane.CONTROL, 0, 0),), 1)
    link.transport.on_writable()
    assert not link.is_behind()
    assert link.harness.budget.used_bytes == 0


def test_the_budget_is_right_when_a_write_fails_after_another_went_through(open_link: Opener) -> None:
    link = open_link(is_narrow=True)
    while not link.is_behind():
        link.transport.write(link.message(b"event" * 10_000), Lane.CONTROL)
    link.transport.write(link.message(b"event" * 10_000), Lane.CONTROL)
    outcomes = [50_000]

    def send(data: bytes | memoryview) -> int:
        if outcomes:
            outcomes.pop()
            return len(data)
        raise ConnectionResetError("gone")

    link.transport.sock = cast(socket.socket, SimpleNamespace(send=send, close=link.transport.sock.close))
    link.transport.on_writable()
    assert link.owner.closed
    assert (link.harness.budget.used_bytes, link.harness.budget.mismatches) == (0, 0)


def test_an_owner_that_ends_the_link_hears_nothing_after_it(open_link: Opener) -> None:
    link = open_link()
    link.owner.on_data_do = lambda _: link.transport.close(CloseCode.KICKED, "enough")
    link.client.send(link.say(b"one") + link.say(b"two") + link.say(b"three"))
    link.harness.until(lambda: link.owner.closed)
    link.harness.turn(3)
    assert len(link.owner.closed) == 1


def test_an_owner_that_fails_loses_its_own_link_only(open_link: Opener) -> None:
    link, other = open_link(), open_link()

    def fail(_: object) -> None:
        raise RuntimeError("a defect")

    link.owner.on_data_do = fail
    link.client.send(link.say(b"boom"))
    other.client.send(other.say(b"fine"))
    with structlog.testing.capture_logs() as lines:
        link.harness.until(lambda: link.owner.closed and other.heard())
    assert [line["address"] for line in lines] == ["127.0.0.1"]
    assert link.owner.closed == [(CloseCode.INTERNAL_ERROR, "internal error")]
    assert link.harness.poller.crashes == 1
    link.harness.poller.crashes = 0
    assert not other.owner.closed


def test_a_paused_link_is_not_read_until_its_time(open_link: Opener) -> None:
    link = open_link()
    link.harness.poller.pause_reading(link.transport, link.harness.clock.now + 3.0)
    link.client.send(link.say(b"flood"))
    link.harness.later(2.5)
    assert link.heard() == b""
    link.harness.later(1.0)
    assert link.heard() == b"flood"


def test_hearing_is_noted_with_the_time_of_the_turn(open_link: Opener) -> None:
    link = open_link()
    link.harness.clock.now += 40.0
    link.client.send(link.say(b"ping"))
    link.harness.until(link.heard)
    assert link.transport.heard_at == link.harness.clock.now


def test_a_refused_tls_write_comes_again_with_the_same_bytes(credentials: Credentials) -> None:
    """OpenSSL has encrypted the refused record already: whatever is queued after it must not get before it."""
    with connection_harness(limits=QueueLimits(frames=4, queue_bytes=64 * 1024)) as harness:
        link = make_link(harness, TcpTransport, credentials, is_narrow=True)
        parts = tuple(Part(bytes([65 + n]) * 900, Lane.CHAT, 1, 1) for n in range(20))
        joined = b"".join(part.data for part in parts)
        written = 0
        while not link.is_behind():
            try:
                sent = link.transport.sock.send(joined)
            except BlockingIOError:
                sent = 0
            if sent == len(joined):
                written += 1
            else:
                link.transport.start_backlog(parts, sent)
        for n in range(50):
            link.transport.write(b"sale%3d" % n, Lane.COMMERCE)
            link.transport.write(b"chat%3d" % n, Lane.CHAT, 1)
        expected = joined * (written + 1) + b"".join(b"sale%3d" % n for n in range(50))
        assert harness.read(link.client, len(expected)) == expected


def test_a_read_leaves_nothing_in_openssl(credentials: Credentials) -> None:
    """What OpenSSL has decrypted does not show in the epoll: a read must take a whole record."""
    assert RECEIVE_BYTES >= RECORD_BYTES
    with connection_harness() as harness:
        link = make_link(harness, TcpTransport, credentials)
        assert isinstance(link.transport.sock, TlsSocket)
        data = random.Random(1).randbytes(5 * RECORD_BYTES + 100)
        link.client.setblocking(True)
        link.client.sendall(data)
        while len(link.heard()) < len(data):
            harness.turn()
            assert link.transport.sock.pending() == 0
        assert link.heard() == data


def test_near_the_bound_of_all_queues_the_links_with_the_most_bytes_end_first() -> None:
    with connection_harness(limits=QueueLimits(frames=9, queue_bytes=1 << 20, critical_bytes=1 << 20)) as harness:
        harness.budget.limit_bytes = 100_000
        links = []
        for waiting in (30_000, 10_000, 40_000, 5_000):
            transport, owner, _ = harness.add(TcpTransport)
            transport.start_backlog((Part(bytes(waiting), Lane.CONTROL, 0, 0),), 0)
            links.append((transport, owner))
        assert [bool(owner.closed) for _, owner in links] == [False] * 4
        small, _ = links[1]
        small.write(bytes(12_000), Lane.COMMERCE)
        assert [bool(owner.closed) for _, owner in links] == [False, False, True, False]
        assert links[2][1].closed == [(CloseCode.SLOW_VIEWER, "too slow")]
        assert (harness.budget.used_bytes, harness.budget.mismatches, harness.transports.shed) == (57_000, 0, 1)
        small.write(bytes(60_000), Lane.COMMERCE)
        assert [bool(owner.closed) for _, owner in links] == [False, True, True, False], "also the one that writes"
        assert harness.budget.used_bytes == 35_000
