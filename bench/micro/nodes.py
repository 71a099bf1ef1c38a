"""Scaling over processes: CPU of a delivery with one process and with two that share a room over a real Redis.

Viewers of one room are spread by the kernel over the processes of ``roomcast serve --processes N``, a publisher posts
danmaku that are frames of their own, and the CPU of all nodes is divided by the copies that arrived. Clients share the
cores of the machine, so deliveries a second of N busy cores follow from the CPU of one delivery; the floor is one
process without an engine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

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
DANMAKU_PER_S = 20
PUBLISHERS = 4
SETTLE_S = 2.5
"""Until the counters of the joins have been sent."""


async def nodes(smoke: bool) -> list[Result]:
    """Measure one process, one over the engine, and two, in turn; nothing where there is no redis-server."""
    configure(LogConfig(level="error"))
    raise_descriptors()
    program = redis_program()
    if program is None:
        print("bench nodes: there is no redis-server (apt install redis-server)", file=sys.stderr)
        return []
    viewers, seconds, rounds = (1_000, 2.0, 1) if smoke else (8_000, 4.0, 3)
    cpu: dict[int, list[float]] = {0: [], 1: [], 2: []}
    """CPU of a delivery in seconds, by processes over the engine; 0 = one without it."""
    redis_us: list[float] = []
    for _ in range(rounds):
        for count in cpu:
            async with redis_process(program, *EVERYSEC) as server:
                used_s, redis_s, deliveries = await _measure(server, count, viewers, seconds)
            cpu[count].append(used_s / deliveries)
            if count == 2:
                redis_us.append(redis_s / deliveries * 1e6)
    floor, one, two = (median(cpu[count]) * 1e6 for count in cpu)
    detail = {
        "viewers": viewers, "danmaku_per_s": DANMAKU_PER_S, "one_us": round(one, 2), "two_us": round(two, 2),
        "redis_us": round(median(redis_us), 3), "rounds": rounds,
    }  # fmt: skip
    return [
        Result("nodes", "CPU of a delivery, two processes that share a room", two, "us", None, True, floor,
               "one process without an engine", "value", detail),
        Result("nodes", "deliveries a second of two busy processes over those of one", 2 * floor / two, "x",
               GOAL_SCALING, False, detail=detail),
    ]  # fmt: skip


async def _measure(server: RedisProcess, processes: int, viewers: int, seconds: float) -> tuple[float, float, int]:
    """Return the CPU seconds of the nodes and of Redis, and the copies that arrived."""
    async with AsyncExitStack() as stack:
        port, pids = await stack.enter_async_context(serving_nodes(server, processes))
        readers = await stack.enter_async_context(client_process())
        publishers = await stack.enter_async_context(client_process())
        await readers.request("open", links=viewers, port=port, rooms=["stage"])
        await publishers.request("open", links=PUBLISHERS, port=port, rooms=["stage"], prefix="dev:p", read=True)
        await trio.sleep(SETTLE_S)
        for clients in (readers, publishers):
            await clients.request("count", reset=True)
        used, redis = sum(map(cpu_of, pids)), server.cpu_s()
        await publishers.request("flood", per_s=DANMAKU_PER_S, seconds=seconds)
        shown = await _all_shown(publishers, round(DANMAKU_PER_S * seconds))
        await trio.sleep(0.5)
        used_s, redis_s = sum(map(cpu_of, pids)) - used, server.cpu_s() - redis
        if (await readers.request("count"))["lost"]:
            raise RuntimeError("nodes: viewers lost their links")
    return used_s, redis_s, shown * (viewers + PUBLISHERS)


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
