"""Real sockets on loopback: TCP, TLS and WebSocket pipes, and servers that are not brokers."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Pong, Request, TextMessage

from protocol.clients import (
    Address,
    Client,
    ClientClosed,
    Disconnected,
    PipeLost,
    PostResult,
    StreamEvent,
    StreamPipe,
    connector,
    open_client,
)
from protocol.clients.transports import MAX_UPGRADE_BYTES, SUBPROTOCOL, WebSocketPipe, run_websocket, tls_context
from protocol.codes import CloseCode, Lane, Opcode, Outcome
from protocol.connection import NEED_DATA, Connection, Frame
from protocol.messages import Ack, AckResult, Authenticated, Post, Side
from tests.support.peer import event, joined, server_hello, take_until

# ---- addresses


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("roomcast://localhost", Address("roomcast", "localhost", 7400)),
        ("roomcast://127.0.0.1:5", Address("roomcast", "127.0.0.1", 5)),
        ("roomcasts://live.example:7443/", Address("roomcasts", "live.example", 7443)),
        ("ws://h", Address("ws", "h", 80)),
        ("wss://h/ws?enc=x", Address("wss", "h", 443, "/ws?enc=x")),
        ("ws://[::1]:8080/a", Address("ws", "::1", 8080, "/a")),
    ],
)
def test_addresses_are_read(url: str, address: Address) -> None:
    assert Address.parse(url) == address


@pytest.mark.parametrize(
    "url",
    ["", "localhost:7400", "http://h", "ws://", "ws://u:p@h", "roomcast://h/path", "roomcast://h?x=1", "ws://h#f",
     "ws://h:0", "ws://h:70000", "ws://h:x", "roomcast://[::1"],
)  # fmt: skip
def test_an_invalid_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Address.parse(url)


@pytest.mark.parametrize(
    ("host", "where"), [("", "home:80"), ("b", "b:80"), ("b:9", "b:9"), ("[::1]:9", "[::1]:9"), ("[::1]", "[::1]:80")]
)
def test_a_broker_may_name_another_host(host: str, where: str) -> None:
    moved = Address.parse("ws://home/p").at(host)
    assert moved.host_and_port == where
    assert (moved.scheme, moved.path) == ("ws", "/p")


@pytest.mark.parametrize("host", ["ws://b", "b/path", "u@b", ":9", "b:x", "b:0", "b?x", "b#x", "[::1"])
def test_a_broker_may_not_name_anything_else(host: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Address.parse("ws://home/p").at(host)


# ---- a small broker over any byte pipe


class TinyBroker:
    """Broker that authenticates, joins room 3, and accepts posts and publishes them as events."""

    def __init__(self) -> None:
        self.connection = Connection(Side.SERVER)
        self.offset = 0
        self.goaway: Any = None
        self.ended = trio.Event()

    def answer(self, received: bytes) -> bytes:
        self.connection.receive_data(received)
        answers = []
        while (frame := self.connection.next_event()) is not NEED_DATA:
            assert isinstance(frame, Frame)
            answers += self._answer(frame)
        return b"".join(answers)

    def _answer(self, frame: Frame) -> list[bytes]:
        send = self.connection.send
        if frame.opcode is Opcode.HELLO:
            return [send(server_hello())]
        if frame.opcode is Opcode.AUTH:
            return [send(Authenticated("u1", "Ann"))]
        if frame.opcode is Opcode.JOIN:
            return [send(joined(), 3, frame.sequence)]
        if isinstance(frame.message, Post):
            self.offset += 1
            text = frame.message.payload[0]
            return [
                send(Ack((AckResult(frame.sequence, Outcome.ACCEPTED, self.offset),)), 3),
                send(event(text), 3, self.offset, Lane.CONTROL),
            ]
        if frame.opcode is Opcode.GOAWAY:
            self.goaway = frame.message
            self.ended.set()
        return []


async def talk(client: Client) -> PostResult:
    """Join, post and read it back."""
    with trio.fail_after(10):
        room = await client.join("lobby")
        result = await room.post_announcement("hello " * 50)
        assert (await take_until(room, StreamEvent)).payload == ("hello " * 50,)
        return result


Handler = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[int]:
    """Serve one loopback port; yields its number."""
    async with trio.open_nursery() as nursery:

        async def safely(stream: trio.SocketStream) -> None:
            async with stream:
                try:
                    await handler(stream)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass

        serve = trio.serve_tcp
        listeners = await nursery.start(lambda task_status: serve(safely, 0, host="127.0.0.1", task_status=task_status))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def pump(broker: TinyBroker, stream: trio.abc.Stream) -> None:
    while received := await stream.receive_some(65536):
        if answer := broker.answer(bytes(received)):
            await stream.send_all(answer)


@asynccontextmanager
async def websocket_broker(broker: TinyBroker, protocol: str | None = SUBPROTOCOL) -> AsyncIterator[int]:
    async def handle(request: WebSocketRequest) -> None:
        assert list(request.proposed_subprotocols) == [SUBPROTOCOL]
        assert request.path == "/live?room=1"
        websocket = await request.accept(subprotocol=protocol)
        try:
            while True:
                message = await websocket.get_message()
                assert isinstance(message, bytes)
                assert not broker.connection.mid_frame, "one message is a whole number of frames"
                if answer := broker.answer(message):
                    await websocket.send_message(answer)
        except ConnectionClosed:
            pass

    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            lambda task_status: serve_websocket(handle, "127.0.0.1", 0, None, task_status=task_status)
        )
        yield server.port
        nursery.cancel_scope.cancel()


async def test_tcp() -> None:
    broker = TinyBroker()
    async with listening(lambda stream: pump(broker, stream)) as port:
        async with open_client(f"roomcast://127.0.0.1:{port}") as client:
            assert (await talk(client)).offset == 1
        with trio.fail_after(5):
            await broker.ended.wait()
    assert broker.goaway.code == CloseCode.CLIENT_DONE


async def test_websocket() -> None:
    broker = TinyBroker()
    async with websocket_broker(broker) as port:
        async with open_client(f"ws://127.0.0.1:{port}/live?room=1") as client:
            assert (await talk(client)).outcome is Outcome.ACCEPTED
        with trio.fail_after(5):
            await broker.ended.wait()
    assert broker.goaway.code == CloseCode.CLIENT_DONE


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def contexts(authority: trustme.CA, host: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


async def test_tls_over_tcp(authority: trustme.CA) -> None:
    theirs, ours = contexts(authority, "localhost")
    broker = TinyBroker()

    async def handle(stream: trio.SocketStream) -> None:
        await pump(broker, trio.SSLStream(stream, theirs, server_side=True, https_compatible=True))

    async with listening(handle) as port, open_client(f"roomcasts://localhost:{port}", ssl_context=ours) as client:
        await talk(client)


@pytest.mark.parametrize("saved_as", ["as it is", "with a byte order mark", "with CR LF", "below ~"])
async def test_the_authority_can_be_named_as_a_file(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved_as: str
) -> None:
    theirs, _ = contexts(authority, "localhost")
    broker = TinyBroker()
    content = authority.cert_pem.bytes()
    if saved_as == "with a byte order mark":
        content = b"\xef\xbb\xbf" + content
    elif saved_as == "with CR LF":
        content = content.replace(b"\n", b"\r\n")
    (tmp_path / "ca.pem").write_bytes(content)
    monkeypatch.setenv("HOME", str(tmp_path))
    ca = "~/ca.pem" if saved_as == "below ~" else tmp_path / "ca.pem"

    async def handle(stream: trio.SocketStream) -> None:
        await pump(broker, trio.SSLStream(stream, theirs, server_side=True, https_compatible=True))

    async with listening(handle) as port, open_client(f"roomcasts://localhost:{port}", ca=ca) as client:
        await talk(client)


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"hello", b"\xff\xfe\x00", "证书".encode()])
def test_a_file_without_certificate_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(content)
    with pytest.raises(ValueError, match=r"ca\.pem: contains no certificate in PEM form"):
        tls_context(ca)


async def test_websocket_over_tls(authority: trustme.CA) -> None:
    theirs, ours = contexts(authority, "localhost")
    broker = TinyBroker()

    async def handle(stream: trio.SocketStream) -> None:
        await upgraded(trio.SSLStream(stream, theirs, server_side=True, https_compatible=True), broker)

    async with listening(handle) as port, open_client(f"wss://localhost:{port}/x", ssl_context=ours) as client:
        await talk(client)


async def upgraded(
    stream: trio.abc.Stream, broker: TinyBroker, last: Any = None, protocol: str | None = SUBPROTOCOL
) -> None:
    """A broker on plain wsproto, which can also send what trio-websocket refuses: ``last`` after AUTH."""
    websocket = WSConnection(ConnectionType.SERVER)
    while received := await stream.receive_some(65536):
        websocket.receive_data(bytes(received))
        for found in websocket.events():
            if isinstance(found, Request):
                await stream.send_all(websocket.send(AcceptConnection(subprotocol=protocol)))
            elif isinstance(found, CloseConnection):
                if websocket.state is ConnectionState.REMOTE_CLOSING:
                    await stream.send_all(websocket.send(found.response()))
            elif isinstance(found, Pong):
                assert bytes(found.payload) == b"are you there"
                broker.ended.set()
            elif answer := broker.answer(bytes(found.data)):  # type: ignore[attr-defined]
                await stream.send_all(websocket.send(BytesMessage(answer)))
                if last is not None:
                    await stream.send_all(websocket.send(last))


async def test_a_certificate_of_another_host_is_not_final(authority: trustme.CA) -> None:
    theirs, ours = contexts(authority, "other.example")

    async def handle(stream: trio.SocketStream) -> None:
        await pump(TinyBroker(), trio.SSLStream(stream, theirs, server_side=True))

    async with listening(handle) as port:
        lost = await first_loss(f"roomcasts://localhost:{port}", ssl_context=ours)
    assert "certificate" in lost.reason.lower()
    assert lost.retry_in_s is not None


async def first_loss(url: str, **options: Any) -> Disconnected:
    with trio.fail_after(10):
        async with open_client(url, open_timeout_s=0, **options) as client:
            return await take_until(client.events(), Disconnected)
    raise AssertionError


# ---- servers that are not brokers

UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
ANSWERS: dict[str, bytes] = {
    "nothing": b"",
    "garbage": b"\x16\x03\x01 what is this",
    "forbidden": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
    "forbidden without a body": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
    "unavailable": b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n",
    "plain answer": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "redirect": b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n",
    "wrong key": UPGRADE + b"Sec-WebSocket-Accept: AAAA\r\nSec-WebSocket-Protocol: roomcast.v1\r\n\r\n",
    "non-ASCII header": UPGRADE + b"Sec-WebSocket-Accept: \xff\xfe\r\nSec-WebSocket-Protocol: \xc3\xa4\r\n\r\n",
    "non-ASCII connection": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: \xff\r\n\r\n",
    "endless headers": b"HTTP/1.1 200 OK\r\n" + b"X-Y: z\r\n" * 30_000,
    "endless body": b"HTTP/1.1 403 Forbidden\r\n\r\n" + b"x" * (2 * MAX_UPGRADE_BYTES),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
@pytest.mark.parametrize("stays", [False, True], ids=["then leaves", "then stays"])
async def test_a_websocket_server_with_any_other_answer_fails_the_attempt(answer: bytes, stays: bool) -> None:
    async def handle(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(answer)
        if stays:
            await trio.sleep_forever()

    async with listening(handle) as port:
        # Only a server that sends nothing and stays needs the timeout; the others fail at once.
        deadline_s = 8.0 if answer else 0.1
        lost = await first_loss(f"ws://127.0.0.1:{port}/", handshake_timeout_s=deadline_s)
        assert ("within 0.1 s" in lost.reason) == (stays and not answer)
        assert "within 8 s" not in lost.reason
    assert lost.code is None
    assert lost.retry_in_s is not None


async def test_a_port_without_a_listener() -> None:
    async with listening(lambda stream: pump(TinyBroker(), stream)) as port:
        pass
    lost = await first_loss(f"roomcast://127.0.0.1:{port}")
    assert lost.retry_in_s is not None


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".example", "\u2603" * 80])
async def test_a_name_that_cannot_be_looked_up_is_a_loss(host: str) -> None:
    lost = await first_loss(f"roomcast://{host}:5")
    assert lost.retry_in_s is not None


async def test_another_subprotocol_is_refused() -> None:
    async def handle(stream: trio.SocketStream) -> None:
        await upgraded(stream, TinyBroker(), protocol=None)

    async with listening(handle) as port:
        lost = await first_loss(f"ws://127.0.0.1:{port}/")
    assert SUBPROTOCOL in lost.reason


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (TextMessage("hello"), None),
        (CloseConnection(1001), 1001),
        (CloseConnection(4200), 4200),
        (CloseConnection(1000, "bye"), 1000),
    ],
)
async def test_what_ends_a_websocket_ends_the_link_with_its_code(last: Any, code: int | None) -> None:
    async def handle(stream: trio.SocketStream) -> None:
        await upgraded(stream, TinyBroker(), last)

    async with listening(handle) as port:
        lost = await first_loss(f"ws://127.0.0.1:{port}/")
    assert lost.code == code
    assert lost.retry_in_s is not None


async def test_a_websocket_without_a_close_frame_has_no_code() -> None:
    async def handle(stream: trio.SocketStream) -> None:
        with trio.move_on_after(10):
            broker = TinyBroker()
            websocket = WSConnection(ConnectionType.SERVER)
            websocket.receive_data(bytes(await stream.receive_some(65536)))
            list(websocket.events())
            await stream.send_all(websocket.send(AcceptConnection(subprotocol=SUBPROTOCOL)))
            websocket.receive_data(bytes(await stream.receive_some(65536)))
            (found,) = websocket.events()
            assert isinstance(found, BytesMessage)
            await stream.send_all(websocket.send(BytesMessage(broker.answer(bytes(found.data)))))

    async with listening(handle) as port:
        lost = await first_loss(f"ws://127.0.0.1:{port}/")
    assert lost.code is None, "1006 is the library's word, not the broker's"


async def test_a_terminal_close_frame_is_final() -> None:
    async def handle(stream: trio.SocketStream) -> None:
        await upgraded(stream, TinyBroker(), CloseConnection(4410))

    async with listening(handle) as port:
        with pytest.raises(ClientClosed) as caught, trio.fail_after(10):
            async with open_client(f"ws://127.0.0.1:{port}/") as client:
                await talk(client)
    assert caught.value.code == 4410


@pytest.mark.parametrize(
    "frame",
    [b"\x82\xff" + b"\xff" * 8, b"\xf2\x05hello", b"\x82\x83masked!", b"\x89\x7e\x01\x00" + b"p" * 256, b"\xff" * 40],
)
async def test_broken_websocket_frames_end_the_link_and_nothing_else(frame: bytes) -> None:
    async def handle(stream: trio.SocketStream) -> None:
        websocket = WSConnection(ConnectionType.SERVER)
        websocket.receive_data(bytes(await stream.receive_some(65536)))
        list(websocket.events())
        await stream.send_all(websocket.send(AcceptConnection(subprotocol=SUBPROTOCOL)))
        await stream.send_all(frame)
        await trio.sleep_forever()

    async with listening(handle) as port:
        lost = await first_loss(f"ws://127.0.0.1:{port}/")
    assert lost.retry_in_s is not None


async def test_pings_of_the_websocket_layer_are_answered() -> None:
    broker = TinyBroker()

    async def handle(stream: trio.SocketStream) -> None:
        await upgraded(stream, broker, Ping(b"are you there"))

    async with listening(handle) as port, open_client(f"ws://127.0.0.1:{port}/") as client:
        await talk(client)
        with trio.fail_after(10):
            await broker.ended.wait()


# ---- pipes


async def test_the_final_bytes_of_a_peer_are_read_though_writing_fails() -> None:
    """A WebSocket whose peer has closed: the write fails, the close code still arrives."""
    got_welcome, may_write = trio.Event(), trio.Event()

    async def handle(stream: trio.SocketStream) -> None:
        websocket = WSConnection(ConnectionType.SERVER)
        websocket.receive_data(bytes(await stream.receive_some(65536)))
        list(websocket.events())
        await stream.send_all(websocket.send(AcceptConnection(subprotocol=SUBPROTOCOL)))
        await got_welcome.wait()
        await stream.send_all(websocket.send(CloseConnection(4408)))
        stream.socket.shutdown(trio.socket.SHUT_RD)
        may_write.set()
        await trio.sleep_forever()

    async with listening(handle) as port, trio.open_nursery() as nursery:
        pipe = await connector()(nursery, Address("ws", "127.0.0.1", port))
        got_welcome.set()
        await may_write.wait()
        with pytest.raises(PipeLost) as caught, trio.fail_after(5):
            await pipe.receive()
        assert caught.value.code == 4408
        with pytest.raises(PipeLost), trio.fail_after(5):
            await pipe.send(b"x")
        await pipe.aclose()
        nursery.cancel_scope.cancel()


async def test_a_port_without_a_listener_is_reported_with_the_message_of_the_system() -> None:
    async with trio.open_nursery() as nursery:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        with pytest.raises(PipeLost, match=r"^no connection: Connection refused$"):
            await connector()(nursery, Address("roomcast", "127.0.0.1", port))


async def test_messages_that_wait_are_read_though_writing_fails_meanwhile() -> None:
    """As above, with the close frame behind messages that the library has not delivered yet."""
    ours, theirs = trio.testing.memory_stream_pair()
    websocket = WSConnection(ConnectionType.SERVER)
    async with trio.open_nursery() as nursery:
        pipes: list[WebSocketPipe] = []

        async def upgrade() -> None:
            pipes.append(await nursery.start(run_websocket, ours, Address("ws", "broker", 80)))

        nursery.start_soon(upgrade)
        websocket.receive_data(bytes(await theirs.receive_some()))
        list(websocket.events())
        await theirs.send_all(websocket.send(AcceptConnection(subprotocol=SUBPROTOCOL)))
        await trio.testing.wait_all_tasks_blocked()
        for number in range(5):
            await theirs.send_all(websocket.send(BytesMessage(bytes((number,)))))
        await theirs.send_all(websocket.send(CloseConnection(4408)))
        theirs.receive_stream.close()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(PipeLost):
            await pipes[0].send(b"x")
        assert [await pipes[0].receive() for _ in range(5)] == [bytes((number,)) for number in range(5)]
        with pytest.raises(PipeLost) as caught:
            await pipes[0].receive()
        assert caught.value.code == 4408
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("code", [None, 4411])
async def test_closing_a_pipe_is_quick_even_without_an_answer(code: int | None, autojump_clock: Any) -> None:
    ours, _theirs = trio.testing.lockstep_stream_pair()
    pipe = StreamPipe(ours)
    start = trio.current_time()
    await pipe.aclose(code)
    await pipe.aclose(code)
    assert trio.current_time() - start <= 1
    with pytest.raises(PipeLost):
        await pipe.send(b"x")
    with pytest.raises(PipeLost):
        await pipe.receive()
