"""Clients that share no code with us: the ``websockets`` library, JSON by hand, bytes typed from the specification."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
import trio
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from protocol.messages import Tick
from tests.support.broker import joined_link, running_broker

pytestmark = pytest.mark.integration

DEADLINE_S = 20


def binary(opcode: int, body: list[Any], room: int = 0, sequence: int = 0) -> bytes:
    """A client's frame, built from the header's description alone."""
    packed = msgpack.packb(body)
    length = (16 + len(packed)).to_bytes(4, "big")
    return b"".join(
        (
            length,
            b"\x01",
            b"\x00",
            opcode.to_bytes(2, "big"),
            room.to_bytes(4, "big"),
            sequence.to_bytes(4, "big"),
            packed,
        )
    )


def frames(data: bytes) -> Iterator[tuple[int, int, int, Any]]:
    """(opcode, room, sequence, body) of whole frames."""
    while data:
        length = int.from_bytes(data[:4], "big")
        assert data[4] == 1
        assert data[5] & 0x0F == 0, "compression was not asked for"
        yield (
            int.from_bytes(data[6:8], "big"),
            int.from_bytes(data[8:12], "big"),
            int.from_bytes(data[12:16], "big"),
            msgpack.unpackb(data[16:length], strict_map_key=True),
        )
        data = data[length:]


HELLO, AUTH, JOIN, POST, ACK, TICK = 1, 2, 3, 5, 6, 8


async def test_the_websockets_library_joins_talks_and_hears() -> None:
    def visit(port: int) -> tuple[Any, Any, int]:
        with connect(f"ws://127.0.0.1:{port}/", subprotocols=["roomcast.v1"], compression=None) as link:  # type: ignore[list-item]
            assert link.subprotocol == "roomcast.v1"
            link.send(
                binary(HELLO, ["roomcast", 1, 1]) + binary(AUTH, ["dev:eve"]) + binary(JOIN, ["lobby"], sequence=4)
            )
            joined = _until(link, JOIN)
            link.send(binary(POST, [1, "m1", ["来自陌生人"]], room=joined[1], sequence=5))
            ack = _until(link, ACK)
            link.close()
            return joined, ack, link.close_code or 0

    def _until(link: ClientConnection, opcode: int) -> Any:
        while True:
            message = link.recv(timeout=DEADLINE_S)
            assert isinstance(message, bytes)
            for frame in frames(message):
                if frame[0] == opcode:
                    return frame

    async with running_broker() as broker, joined_link(broker, "dev:ann") as (ann, room):
        joined, ack, code = await trio.to_thread.run_sync(visit, broker.addresses[0][1])
        assert joined[1:3] == (room, 4)
        assert joined[3][0] == "lobby"
        assert ack[3] == [[[5, 0, 0]], [], []]
        assert code == 1000
        while True:
            frame = await ann.next_frame()
            assert frame is not None
            if isinstance(frame.message, Tick) and frame.message.entries:
                assert frame.message.entries[0].payload == ("来自陌生人",)
                break


@pytest.mark.parametrize("way", ["subprotocol", "query"])
async def test_json_mode_says_the_same_things_in_words(way: str) -> None:
    def visit(port: int) -> list[dict[str, Any]]:
        query, protocols = ("", ["roomcast.json.v1"]) if way == "subprotocol" else ("?enc=json", None)
        heard: list[dict[str, Any]] = []
        with connect(f"ws://127.0.0.1:{port}/{query}", subprotocols=protocols, compression=None) as link:  # type: ignore[arg-type]
            hello = {"magic": "roomcast", "version_min": 1, "version_max": 1}
            link.send(
                json.dumps(
                    [
                        {"op": "HELLO", "body": hello},
                        {"op": "AUTH", "body": {"token": "dev:json"}},
                        {"op": "JOIN", "seq": 1, "body": {"room_name": "lobby"}},
                    ]
                )
            )

            def until(op: str) -> dict[str, Any]:
                while True:
                    message = json.loads(link.recv(timeout=DEADLINE_S))
                    heard.append(message)
                    if message["op"] == op:
                        found: dict[str, Any] = message
                        return found

            room = until("JOIN")["room"]
            link.send(json.dumps({"op": "POST", "room": room, "seq": 2, "body": [1, "m", {"text": "你好"}]}))
            until("ACK")
            until("TICK")
            link.send(json.dumps({"op": "POST", "room": room, "seq": 3, "body": {"type": 1, "payload": [""]}}))
            until("ERROR")
        return heard

    async with running_broker() as broker:
        heard = await trio.to_thread.run_sync(visit, broker.addresses[0][1])
    by_op = {message["op"]: message for message in heard}
    assert by_op["AUTH"]["body"]["user_id"] == "json"
    assert by_op["JOIN"]["body"]["room_name"] == "lobby"
    assert by_op["ACK"]["body"]["results"] == [{"sequence": 2, "outcome": 0, "detail": 0}]
    assert by_op["TICK"]["body"]["entries"][0]["payload"] == ["你好"]
    assert by_op["ERROR"]["seq"] == 3
    assert by_op["ERROR"]["body"]["field"]


async def test_bytes_typed_by_hand_are_a_whole_session() -> None:
    """HELLO, AUTH as ``dev:hex``, JOIN ``lobby``: typed from the header table and the msgpack specification."""
    typed = bytes.fromhex(
        # length   ver flags opcode room     sequence
        "0000001c 01  00    0001   00000000 00000000  93 a8 726f6f6d63617374 01 01".replace(" ", "")
        + "00000019 01 00 0002 00000000 00000000  91 a7 6465763a686578".replace(" ", "")
        + "00000017 01 00 0003 00000000 00000007  91 a5 6c6f626279".replace(" ", "")
    )

    def visit(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as sock:
            sock.sendall(typed)
            data = b""
            while data.count(b"lobby") < 1:
                data += sock.recv(65536)
            return data

    async with running_broker() as broker:
        data = await trio.to_thread.run_sync(visit, broker.addresses[0][1])
    opcodes = [int.from_bytes(data[6:8], "big")]
    first = int.from_bytes(data[:4], "big")
    opcodes.append(int.from_bytes(data[first + 6 : first + 8], "big"))
    assert opcodes == [HELLO, AUTH]
    assert data[:5] == first.to_bytes(4, "big") + b"\x01"


async def test_plain_http_is_answered_politely_on_the_same_port() -> None:
    def ask(port: int, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as sock:
            sock.sendall(request)
            answer = b""
            while chunk := sock.recv(65536):
                answer += chunk
            return answer

    async with running_broker() as broker:
        port = broker.addresses[0][1]
        health = await trio.to_thread.run_sync(ask, port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert health.startswith(b"HTTP/1.1 200 ")
        assert json.loads(health.split(b"\r\n\r\n", 1)[1])["status"] == "ok"
        missing = await trio.to_thread.run_sync(ask, port, b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        assert missing.startswith(b"HTTP/1.1 404 ")
        posted = await trio.to_thread.run_sync(ask, port, b"POST /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert posted.startswith(b"HTTP/1.1 405 ")
        assert len(broker.context.sessions) == 0


def _read_to_the_end(link: ClientConnection) -> None:
    while True:
        link.recv(timeout=DEADLINE_S)


async def test_a_websocket_message_that_cuts_a_frame_ends_the_link() -> None:
    def visit(port: int) -> int | None:
        with connect(f"ws://127.0.0.1:{port}/", subprotocols=["roomcast.v1"], compression=None) as link:  # type: ignore[list-item]
            link.send(binary(HELLO, ["roomcast", 1, 1])[:-1])
            with pytest.raises(ConnectionClosed, match="4407"):
                _read_to_the_end(link)
            return link.close_code

    async with running_broker() as broker:
        code = await trio.to_thread.run_sync(visit, broker.addresses[0][1])
        assert code == 4407
        assert broker.context.closed[code] == 1
