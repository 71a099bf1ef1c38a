"""CPU of a connection: accept, hello, a new token, join, and their answers.

Each connection has another user, so every signature is verified (HS256) and no cache helps. The floor accepts, reads
and answers with as many bytes, in the shortest Python loop.
"""

from __future__ import annotations

import select
import socket
import time

from bench.load.sockets import listen, server_message
from bench.micro.harness import ClientProcess, client_process, config, cpu_s, quiesce, serving
from bench.micro.memory import SECRET, tokens
from bench.micro.result import Result, median
from bench.micro.wire import frame
from protocol.codes import Opcode

__all__ = ["connect_tcp", "connect_ws"]

_SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\n" + b"X-Filler: " + b"x" * 120 + b"\r\n\r\n"
_ANSWER = frame(Opcode.HELLO, b"\xc4\x30" + bytes(48)) + frame(Opcode.JOIN, b"\xc4\x80" + bytes(128), room=1)


async def connect_tcp(smoke: bool) -> list[Result]:
    """Measure native links."""
    return [await _connect("connect-tcp", False, 8000, smoke)]


async def connect_ws(smoke: bool) -> list[Result]:
    """Measure WebSockets."""
    return [await _connect("connect-ws", True, 3000, smoke)]


async def _connect(name: str, websocket: bool, goal: float, smoke: bool) -> Result:
    links, rounds = (100, 2) if smoke else (2000, 5)
    shown = tokens(links * rounds)
    broker_s: list[float] = []
    floor_s: list[float] = []
    async with serving(config(SECRET)) as broker, client_process() as clients, client_process() as bare_clients:
        port = broker.addresses[0][1]
        for number in range(rounds):
            mine = shown[number * links : (number + 1) * links]
            await quiesce()
            used = cpu_s()
            await clients.request(
                "open", links=links, port=port, rooms=[f"room-{number}"], websocket=websocket, tokens=mine
            )
            broker_s.append((cpu_s() - used) / links)
            floor_s.append(await _bare(bare_clients, links, mine, websocket))
    detail = {
        "connections": links * rounds, "cpu_us": round(median(broker_s) * 1e6, 1),
        "best_per_s": round(1 / min(broker_s)),
    }  # fmt: skip
    return Result(
        name, "connect + auth + join a second and core", 1 / median(broker_s), "/s", goal, False,
        1 / median(floor_s), "bare accept, recv, send", "value", detail,
    )  # fmt: skip


async def _bare(clients: ClientProcess, links: int, shown: list[str], websocket: bool) -> float:
    """Measure the floor and return the CPU of one connection."""
    # The client parses whole WebSocket messages, so the floor answers with one.
    answers = (_SWITCHING, server_message(_ANSWER)) if websocket else (_ANSWER,)
    with listen() as listener:
        port = listener.getsockname()[1]
        await clients.send("open", links=links, port=port, rooms=["bare"], websocket=websocket, tokens=shown)
        epoll = select.epoll()
        epoll.register(listener.fileno(), select.EPOLLIN)
        socks: dict[int, socket.socket] = {}
        answered: dict[int, int] = {}
        waiting = links * len(answers)
        deadline = time.monotonic() + 60
        used = cpu_s()
        while waiting:
            if time.monotonic() > deadline:
                raise RuntimeError("the clients of the floor did not connect")
            for fd, _ in epoll.poll(1, 64):
                if fd != listener.fileno():
                    socks[fd].recv(32768)
                    receive = answers[answered[fd]]
                    answered[fd] += 1
                    socks[fd].send(receive)
                    waiting -= 1
                    continue
                try:
                    for _ in range(64):
                        sock, _ = listener.accept()
                        sock.setblocking(False)
                        socks[sock.fileno()] = sock
                        answered[sock.fileno()] = 0
                        epoll.register(sock.fileno(), select.EPOLLIN)
                except BlockingIOError:
                    pass
        used = cpu_s() - used
        await clients.receive()
        await clients.request("close")
        for sock in socks.values():
            sock.close()
        epoll.close()
    return used / links
