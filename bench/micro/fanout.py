"""CPU of a delivered frame: a pass of the broker's fan-out against the bare ``send`` loop.

Same bytes, same sockets, same process, in turn.

A publisher's danmaku arrives on its own socket; policy ``off`` sends each as a frame of its own, so nothing is joined
and every viewer costs one ``send(2)``. The broker's side is the whole process from the publisher's bytes to the last
write: poller, session, room, encoding, scheduler and Trio.
"""

from __future__ import annotations

import socket
import time

import trio

from bench.floor import FloorSweep, c_sweep, python_sweep
from bench.micro.harness import client_process, config, cpu_s, record_bundles, serving
from bench.micro.result import Result, median
from bench.micro.wire import Template, frames_in, hello_auth_join
from broker.server import Broker

__all__ = ["fanout_tcp", "fanout_ws"]

REST_S = 0.06
"""Pause in which clients read, so that each pass starts with empty sockets and idle readers."""


async def fanout_tcp(smoke: bool) -> list[Result]:
    """Measure one room of TCP viewers."""
    return await _fanout("fanout-tcp", False, smoke)


async def fanout_ws(smoke: bool) -> list[Result]:
    """Measure one room of WebSocket viewers."""
    return await _fanout("fanout-ws", True, smoke)


async def _fanout(name: str, websocket: bool, smoke: bool) -> list[Result]:
    viewers, rounds, frames = (500, 3, 2) if smoke else (8000, 12, 3)
    async with serving(config(policy="off")) as broker, client_process() as clients:
        port = broker.addresses[0][1]
        await clients.request("open", links=viewers, port=port, rooms=["stage"], websocket=websocket)
        publisher, number = await _publisher(port)
        room = broker.hub.find("stage")
        assert room is not None
        socks = [member.session.transport.sock for member in room.members.all() if member.user_id != "publisher"]
        sent = record_bundles(broker)
        template = Template("来了来了，前排围观", number, False)
        await trio.sleep(2.5)  # until the counters of the joins have been sent
        await _sweep(broker, publisher, template.message(0, 0))
        await clients.request("count", reset=True)
        expected = 0
        broker_us: list[float] = []
        python_us: list[float] = []
        floor_by_round: list[float] = []
        c_us: list[float] = []
        for round_number in range(rounds):
            used = 0.0
            for count in range(frames):
                sent.clear()
                used += await _sweep(broker, publisher, template.message(time.monotonic_ns() // 1000, count))
                expected += len(sent[0].joined) * viewers
            broker_us.append(used / frames / viewers * 1e6)
            data = sent[0].joined
            floor_by_round.append(0.0)
            for _ in range(frames):
                floor = python_sweep(socks, data)
                _check_none_refused(floor)
                python_us.append(floor.us_per_send)
                floor_by_round[-1] += floor.us_per_send / frames
                expected += len(data) * viewers
                await trio.sleep(REST_S)
            in_c = c_sweep(socks, data) if round_number % 3 == 0 else None
            if in_c is not None:
                _check_none_refused(in_c)
                c_us.append(in_c.us_per_send)
                expected += len(data) * viewers
                await trio.sleep(REST_S)
        await trio.sleep(0.3)
        arrived = (await clients.request("count"))["bytes"]
        publisher.close()
    if arrived != expected:
        raise RuntimeError(f"{name}: {expected} bytes were sent and {arrived} arrived")
    detail = {
        "viewers": viewers, "sweeps": rounds * frames, "frame_bytes": len(data), "c_us": round(median(c_us), 2),
        "median_of_ratios": round(median([a / b for a, b in zip(broker_us, floor_by_round, strict=True)]), 3),
        "of_minima": round(min(broker_us) / min(python_us), 3),
        "over_c": round(median(broker_us) / median(c_us), 3) if c_us else None,
    }  # fmt: skip
    return [
        Result(
            name, f"CPU a delivered frame, {viewers:,} viewers", median(broker_us), "us",
            1.20 if websocket else 1.15, True, median(python_us), "bare send loop", "ratio", detail,
        )
    ]  # fmt: skip


async def _publisher(port: int) -> tuple[socket.socket, int]:
    """Connect a publisher in this process; it reads nothing after its join."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setblocking(False)
    sock.send(hello_auth_join("dev:publisher", "stage"))
    buffer = bytearray()
    while True:
        await trio.lowlevel.wait_readable(sock)
        buffer += sock.recv(65536)
        for opcode, _, number, _ in frames_in(buffer):
            if opcode == 3:
                return sock, number


async def _sweep(broker: Broker, publisher: socket.socket, message: bytes) -> float:
    """Publish one danmaku and return the CPU that this process used until every viewer had it."""
    before = broker.fanout.sweeps
    used = cpu_s()
    publisher.send(message)
    while True:  # polling costs CPU as well, so rarely
        await trio.sleep(0.01)
        if broker.fanout.sweeps != before:
            break
    used = cpu_s() - used
    if broker.poller.backlogged:
        raise RuntimeError("a viewer has a backlog; the machine is too busy to measure")
    try:
        while publisher.recv(65536):
            pass
    except BlockingIOError:
        pass
    await trio.sleep(REST_S)
    return used


def _check_none_refused(floor: FloorSweep) -> None:
    if floor.refused:
        raise RuntimeError("a socket of the floor was full; the machine is too busy to measure")
