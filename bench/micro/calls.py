"""CALLs of a pure read answered a second and core, against a bare loop that receives, unpacks, packs and sends.

``rooms.get`` by the binary protocol over TCP: *single*, one call a read, as from thousands of clients, and *pipelined*,
16 calls a write. The clients run in a thread, so only the CPU of the broker's own thread is counted. The operation's
rate is lifted, because one user may call it 20 times a second.
"""

from __future__ import annotations

import socket
import threading
import time

import trio
from msgpack import packb, unpackb

from bench.micro.harness import config, serving, without_rate
from bench.micro.result import Result, median
from bench.micro.wire import HEADER, frame, hello_auth_join
from protocol.codes import Opcode
from protocol.operations import BY_NAME

__all__ = ["calls"]

ROW = BY_NAME["rooms.get"]
GOAL = 30_000
TIMEOUT_S = 60.0


async def calls(smoke: bool) -> list[Result]:
    """Measure both loads."""
    passes, rounds = (5, 1) if smoke else (200, 5)
    return [
        await _one("single", 50, 1, passes, rounds),
        await _one("pipelined", 10, 16, passes, rounds),
    ]


async def _one(what: str, links: int, burst: int, passes: int, rounds: int) -> Result:
    broker_s: list[float] = []
    floor_s: list[float] = []
    with without_rate(ROW.name):
        async with serving(config()) as broker:
            port = broker.addresses[0][1]
            clients = await trio.to_thread.run_sync(_open, port, links)
            try:
                for _ in range(rounds):
                    before = broker.operations.called
                    used = time.thread_time()
                    await trio.to_thread.run_sync(_ask, clients, burst, passes)
                    used = time.thread_time() - used
                    made = links * burst * passes
                    if broker.operations.called - before != made or broker.operations.refused:
                        raise RuntimeError(
                            f"{broker.operations.called - before} of {made}: {broker.operations.refused}"
                        )
                    broker_s.append(used / made)
                    floor_s.append(_floor(burst, links * passes))
            finally:
                for sock, _ in clients:
                    sock.close()
    return Result(
        "calls", f"CALLs of a pure read a second and core, {what}", 1 / median(broker_s), "/s", GOAL, False,
        1 / median(floor_s), "bare recv + unpack + pack + send",
        detail={"links": links, "calls_a_write": burst, "cpu_us": round(median(broker_s) * 1e6, 2)},
    )  # fmt: skip


def _open(port: int, links: int) -> list[tuple[socket.socket, int]]:
    """Return joined links, each with the number of its room."""
    found = []
    for number in range(links):
        sock = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(hello_auth_join(f"dev:u{number}", "lobby"))
        data, room = b"", 0
        while not room:
            data += sock.recv(65536)
            while len(data) >= 16 and len(data) >= HEADER.unpack_from(data)[0]:
                length, _, _, opcode, named, _ = HEADER.unpack_from(data)
                if opcode == Opcode.JOIN:
                    room = named
                data = data[length:]
        found.append((sock, room))
    return found


def _ask(clients: list[tuple[socket.socket, int]], burst: int, passes: int) -> None:
    """Send ``burst`` calls on each link and read their answers, ``passes`` times. RuntimeError for a refusal."""
    body = packb([ROW.number, "", [None]])
    rests = {sock: b"" for sock, _ in clients}
    for _ in range(passes):
        for sock, room in clients:
            sock.sendall(b"".join(frame(Opcode.CALL, body, room, number) for number in range(burst)))
        for sock, _ in clients:
            answers, data = 0, rests[sock]
            while answers < burst:
                data += sock.recv(262_144)
                position = 0
                while len(data) - position >= 16:
                    length, _, _, opcode, _, _ = HEADER.unpack_from(data, position)
                    if len(data) - position < length:
                        break
                    if opcode in (Opcode.ERROR, Opcode.GOAWAY):
                        raise RuntimeError(unpackb(data[position + 16 : position + length]))
                    answers += opcode == Opcode.RESULT
                    position += length
                data = data[position:]
            rests[sock] = data


def _floor(burst: int, writes: int) -> float:
    """Return the CPU of one call in a bare loop over a socket pair, in the same bytes."""
    server, client = socket.socketpair()
    result = [ROW.number, tuple(ROW.example[1])]
    request = b"".join(frame(Opcode.CALL, packb([ROW.number, "", [None]]), 1, number) for number in range(burst))
    answered = len(frame(Opcode.RESULT, packb(result))) * burst
    thread = threading.Thread(target=_client, args=(client, request, answered, writes))
    thread.start()
    used = time.thread_time()
    for _ in range(writes):
        data = server.recv(65536)
        while len(data) < len(request):
            data += server.recv(65536)
        answers = []
        position = 0
        while position < len(data):
            length, _, _, _, room, sequence = HEADER.unpack_from(data, position)
            unpackb(data[position + 16 : position + length], use_list=False)
            answers.append(frame(Opcode.RESULT, packb(result), room, sequence))
            position += length
        server.sendall(b"".join(answers))
    used = time.thread_time() - used
    thread.join()
    server.close()
    client.close()
    return used / (burst * writes)


def _client(sock: socket.socket, request: bytes, answered: int, writes: int) -> None:
    for _ in range(writes):
        sock.sendall(request)
        left = answered
        while left:
            left -= len(sock.recv(65536))
