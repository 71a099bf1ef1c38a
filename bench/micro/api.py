"""Publishes a second and core by the control API over HTTP, against a bare loop of h11 and JSON over a socket pair.

*Single*: ``messages.publish``, one request after another on each of some connections; *many*: ``messages.publish_many``
with 1,000 messages a request. The messages are danmaku of rooms without a policy. The clients run in a thread, so only
the CPU of the broker's own thread is counted. The rates of the operations are lifted.
"""

from __future__ import annotations

import json
import socket
import threading
import time

import h11
import msgspec
import trio

from bench.micro.harness import config, serving, without_rate
from bench.micro.result import Result, median
from broker.config.sections import ApiConfig
from broker.server import Broker

__all__ = ["api"]

GOAL_SINGLE, GOAL_MANY = 1_000, 20_000
MANY = 1000
ROOMS = 20
TIMEOUT_S = 60.0


async def api(smoke: bool) -> list[Result]:
    """Measure both loads."""
    rounds = 1 if smoke else 5
    return [
        await _one("single", "messages.publish", 1, 60, 1 if smoke else 20, GOAL_SINGLE, rounds),
        await _one("1,000 a request", "messages.publish_many", MANY, 2, 1 if smoke else 10, GOAL_MANY, rounds),
    ]


async def _one(what: str, name: str, messages: int, links: int, passes: int, goal: int, rounds: int) -> Result:
    settings = msgspec.structs.replace(
        config(policy="off", tick_ms=100, tick_max_ms=100),
        api=ApiConfig(listen="127.0.0.1:0", requests_per_s=100_000),
    )
    request = _request(name, messages)
    broker_s: list[float] = []
    floor_s: list[float] = []
    made = links * passes * messages
    with without_rate(name):
        async with serving(settings) as broker:
            clients = [_connect(broker) for _ in range(links)]
            try:
                for _ in range(rounds):
                    used = time.thread_time()
                    answer = await trio.to_thread.run_sync(_ask, clients, request, passes)
                    used = time.thread_time() - used
                    _check(answer, messages)
                    broker_s.append(used / made)
                    floor_s.append(_floor(request, answer, links * passes) / messages)
            finally:
                for client in clients:
                    client.close()
            if broker.operations.refused or broker.operations.called != links * passes * rounds:
                raise RuntimeError(f"{broker.operations.called} calls, refused: {broker.operations.refused}")
    return Result(
        "api", f"messages published by HTTP a second and core, {what}", 1 / median(broker_s), "/s", goal, False,
        1 / median(floor_s), "bare h11 and JSON",
        detail={"connections": links, "messages_a_request": messages, "cpu_us": round(median(broker_s) * 1e6, 2)},
    )  # fmt: skip


def _request(name: str, messages: int) -> bytes:
    items = [
        {"room": f"room-{number % ROOMS}", "type": 1, "payload": [f"弹幕 {number}", None]} for number in range(messages)
    ]
    body = json.dumps(items[0] if messages == 1 else {"items": items}, ensure_ascii=False).encode()
    head = f"POST /v1/{name.replace('.', '/')} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _connect(broker: Broker) -> socket.socket:
    host, _, port = broker.api_urls[0].rpartition("/")[2].rpartition(":")
    link = socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def _ask(clients: list[socket.socket], request: bytes, passes: int) -> bytes:
    """Send one request on each connection and read the answers, ``passes`` times; return the last one."""
    answer = b""
    for _ in range(passes):
        for client in clients:
            client.sendall(request)
        for client in clients:
            answer = _answer(client)
    return answer


def _answer(client: socket.socket) -> bytes:
    """Read one answer with its head. RuntimeError for any that is no success."""
    data = client.recv(262_144)
    while b"\r\n\r\n" not in data:
        data += client.recv(262_144)
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(data.decode())
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    left = int(fields[b"content-length"]) - len(body)
    while left > 0:
        received = client.recv(262_144)
        if not received:
            raise RuntimeError("the broker has closed the connection")
        data += received
        left -= len(received)
    return data


def _check(answer: bytes, messages: int) -> None:
    """Raise RuntimeError where a message was not accepted."""
    result = json.loads(answer.partition(b"\r\n\r\n")[2])
    items = result["items"] if messages > 1 else [result]
    if len(items) != messages or any(item["outcome"] not in ("accepted", "merged") for item in items):
        raise RuntimeError(f"not all of {messages} messages were accepted: {items[:3]}")


def _floor(request: bytes, answer: bytes, requests: int) -> float:
    """Return the CPU of a request in a bare loop: h11 both ways, the body read and the answer written as JSON."""
    server, client = socket.socketpair()
    result = json.loads(answer.partition(b"\r\n\r\n")[2])
    client.settimeout(TIMEOUT_S)
    thread = threading.Thread(target=_client, args=(client, request, requests))
    thread.start()
    used = time.thread_time()
    http = h11.Connection(h11.SERVER)
    for _ in range(requests):
        body = bytearray()
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(server.recv(65536))
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
        json.loads(bytes(body))
        made = json.dumps(result, ensure_ascii=False, separators=(",", ":")).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(made)))]
        data = http.send(h11.Response(status_code=200, headers=headers)) or b""
        data += http.send(h11.Data(data=made)) or b""
        server.sendall(data + (http.send(h11.EndOfMessage()) or b""))
        http.start_next_cycle()
    used = time.thread_time() - used
    thread.join()
    server.close()
    client.close()
    return used / requests


def _client(client: socket.socket, request: bytes, requests: int) -> None:
    for _ in range(requests):
        client.sendall(request)
        _answer(client)
