"""Scaling over processes: CPU of a delivery with one process and with two that share a room over a real Redis.

Viewers of one room are spread by the kernel over the processes of ``roomcast serve --processes N``, and a publisher
posts danmaku that are frames of their own. Clients share the cores of the machine, so what N busy cores deliver follows
from the CPU of a delivery, less what the processes need without one.

Each danmaku is written before the next one comes: contents that overlap are joined into one send a viewer, the more of
them the longer a sweep takes, so a busy machine would make one process cheaper than two. The floor are raw senders:
one process and two with as many sockets and about as many bytes, and nothing between them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import trio

from bench.load.sockets import raise_descriptors
from bench.micro.harness import ClientProcess, client_process, config
from bench.micro.redis_process import EVERYSEC, RedisProcess, cpu_of, redis_process, redis_program
from bench.micro.result import Result, median
from broker.config.engine import EngineConfig
from broker.config.schema import LedgerConfig, LogConfig, to_toml
from broker.telemetry.logs import configure

__all__ = ["nodes", "serving_nodes"]

GOAL_SCALING = 1.7
DANMAKU_PER_S = 4
PUBLISHERS = 4
SETTLE_S = 2.5
"""Until the counters of the joins have been sent."""
QUIET_S = 3.0
"""How long the processes are measured without a danmaku."""
RAW_TEXT = "x" * 50
"""Makes about the bytes of a danmaku in its tick."""


class Cost(NamedTuple):
    """What processes need: CPU seconds of a delivery, and the share of a core of each without any."""

    delivery_s: float
    idle: float = 0.0

    @property
    def per_core(self) -> float:
        """Deliveries a second of a process that has a core."""
        return (1 - self.idle) / self.delivery_s


async def nodes(smoke: bool) -> list[Result]:
    """Measure one process, one over the engine, and two, in turn, and one raw sender and two; nothing where there is
    no redis-server."""
    configure(LogConfig(level="error"))
    raise_descriptors()
    program = redis_program()
    if program is None:
        print("bench nodes: there is no redis-server (apt install redis-server)", file=sys.stderr)
        return []
    viewers, seconds, rounds = (1_000, 2.0, 1) if smoke else (8_000, 5.0, 3)
    costs: dict[int, list[Cost]] = {0: [], 1: [], 2: []}
    """By processes over the engine; 0 = one without it."""
    raw: dict[int, list[float]] = {1: [], 2: []}
    redis_us: list[float] = []
    for _ in range(rounds):
        for count, found in costs.items():
            async with redis_process(program, *EVERYSEC) as server:
                cost, redis_s = await _measure(server, count, viewers, seconds)
            found.append(cost)
            if count == 2:
                redis_us.append(redis_s * 1e6)
        for count, each in raw.items():
            each.append(await _measure_raw(count, viewers, seconds))
    floor, one, two = (median([each.delivery_s for each in costs[count]]) * 1e6 for count in costs)
    scaling = median([2 * b.per_core / a.per_core for a, b in zip(costs[0], costs[2], strict=True)])
    raw_scaling = median([2 * a / b for a, b in zip(raw[1], raw[2], strict=True)])
    detail = {
        "viewers": viewers, "danmaku_per_s": DANMAKU_PER_S, "one_us": round(one, 2), "two_us": round(two, 2),
        "raw_one_us": round(median(raw[1]) * 1e6, 2), "raw_two_us": round(median(raw[2]) * 1e6, 2),
        "idle": round(median([each.idle for each in costs[2]]), 4), "redis_us": round(median(redis_us), 3),
        "rounds": rounds,
    }  # fmt: skip
    return [
        Result("nodes", "CPU of a delivery, two processes that share a room", two, "us", None, True, floor,
               "one process without an engine", "value", detail),
        Result("nodes", "deliveries a second of two busy processes over those of one", scaling, "x",
               GOAL_SCALING, False, raw_scaling, "two raw senders over one", "value", detail),
    ]  # fmt: skip


async def _measure(server: RedisProcess, processes: int, viewers: int, seconds: float) -> tuple[Cost, float]:
    """Return what the nodes need, and the CPU seconds of Redis for a delivery."""
    async with AsyncExitStack() as stack:
        port, pids = await stack.enter_async_context(serving_nodes(server, processes))
        readers = await stack.enter_async_context(client_process())
        publishers = await stack.enter_async_context(client_process())
        await readers.request("open", links=viewers, port=port, rooms=["stage"])
        await publishers.request("open", links=PUBLISHERS, port=port, rooms=["stage"], prefix="dev:p", read=True)
        await trio.sleep(SETTLE_S)
        for clients in (readers, publishers):
            await clients.request("count", reset=True)
        before = _Reading.of(pids, server)
        await trio.sleep(QUIET_S)
        quiet = _Reading.of(pids, server)
        await publishers.request("flood", per_s=DANMAKU_PER_S, seconds=seconds)
        shown = await _all_shown(publishers, round(DANMAKU_PER_S * seconds))
        await trio.sleep(0.5)
        after = _Reading.of(pids, server)
        if (await readers.request("count"))["lost"]:
            raise RuntimeError("nodes: viewers lost their links")
    deliveries = shown * (viewers + PUBLISHERS)
    idle = (quiet.nodes_s - before.nodes_s) / (quiet.at - before.at)
    used_s = after.nodes_s - quiet.nodes_s - idle * (after.at - quiet.at)
    return Cost(used_s / deliveries, idle / len(pids)), (after.redis_s - quiet.redis_s) / deliveries


class _Reading(NamedTuple):
    """CPU seconds so far, at a time."""

    at: float
    nodes_s: float
    redis_s: float

    @classmethod
    def of(cls, pids: Sequence[int], server: RedisProcess) -> _Reading:
        return cls(time.monotonic(), sum(map(cpu_of, pids)), server.cpu_s())


async def _measure_raw(processes: int, viewers: int, seconds: float) -> float:
    """Return the CPU seconds of a send of raw senders."""
    async with AsyncExitStack() as stack:
        senders = [await stack.enter_async_context(client_process("bench.load.raw_senders")) for _ in range(processes)]
        port = 0
        for sender in senders:
            port = (await sender.request("listen", port=port))["port"]
        readers = await stack.enter_async_context(client_process())
        await readers.request("open", links=viewers, port=port, rooms=["stage"])
        used_s = sends = 0.0
        for _ in range(round(DANMAKU_PER_S * seconds)):
            for sender in senders:
                await sender.send("sweep", text=RAW_TEXT)
            swept = [await sender.receive() for sender in senders]
            used_s += sum(each["cpu_s"] for each in swept)
            sends += sum(each["sends"] for each in swept)
            await trio.sleep(1 / DANMAKU_PER_S)
    return used_s / sends


async def _all_shown(publishers: ClientProcess, count: int) -> int:
    """Wait until each publisher has seen every danmaku; return how many those are."""
    with trio.fail_after(60):
        while (await publishers.request("count"))["shown"] < count * PUBLISHERS:  # noqa: ASYNC110 - another process
            await trio.sleep(0.05)
    return count


@asynccontextmanager
async def serving_nodes(server: RedisProcess, processes: int) -> AsyncIterator[tuple[int, list[int]]]:
    """Serve in so many processes over the engine, 0 = in one without it; yields the port and the ids of the nodes."""
    with tempfile.TemporaryDirectory(prefix="roomcast-nodes-") as folder:
        settings = msgspec.structs.replace(
            config(policy="off", user_chat_per_s=10_000, user_chat_burst=10_000),
            engine=EngineConfig(url=f"unix://{server.path}" if processes else None),
            ledger=LedgerConfig(data_dir=folder),
            log=LogConfig(level="error"),
        )
        path = Path(folder) / "broker.toml"
        path.write_text(to_toml(settings, comments=False), encoding="utf-8")
        process = await trio.lowlevel.open_process(
            [
                *(sys.executable, "-m", "broker.cli", "serve", "--config", str(path)),
                *("--processes", str(max(1, processes))),
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            line = b""
            with trio.fail_after(60):
                while not line.endswith(b"\n"):
                    line += await process.stdout.receive_some()
            port: int = json.loads(line)["addresses"][0][1]
            yield port, _children(process.pid) if processes > 1 else [process.pid]
        finally:
            process.terminate()
            with trio.CancelScope(shield=True), trio.move_on_after(30):
                await process.wait()
            process.kill()


def _children(pid: int) -> list[int]:
    """Return the processes that a process, with all of its threads, has started."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(each) for thread in threads for each in (thread / "children").read_text("ascii").split()]
