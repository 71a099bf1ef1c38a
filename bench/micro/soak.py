"""Memory over minutes in which viewers join, post, stall and leave, and rooms open and close.

Resident memory, descriptors, tasks, rooms and sessions are sampled after each cycle, when all viewers have left. After
a warm-up (a fifth of the time) the last third must not be above the first third by more than noise. The run's length is
``ROOMCAST_SOAK_S`` in seconds (600).
"""

from __future__ import annotations

import os
import sys
import time
from typing import NamedTuple

import msgspec
import trio

from bench.micro.harness import client_process, config, quiesce, rss_bytes, serving
from bench.micro.result import Result, median
from broker.server import Broker

__all__ = ["soak"]

LINKS = 400
ROOMS = 10
USERS = 5000
GROWTH_BYTES = 2 * 1024 * 1024
"""Noise of the allocator between two thirds of a run."""


class Held(NamedTuple):
    """Resources of the process between two cycles."""

    rss_bytes: int
    descriptors: int
    tasks: int
    rooms: int
    sessions: int
    queue_bytes: int


async def soak(smoke: bool) -> list[Result]:
    """Run cycles until the time is over. RuntimeError as soon as a cycle leaves a resource behind."""
    seconds = 12.0 if smoke else float(os.environ.get("ROOMCAST_SOAK_S", "600"))
    settings = config(idle_close_s=1.0)
    settings = msgspec.structs.replace(settings, link=msgspec.structs.replace(settings.link, write_timeout_s=1.0))
    samples: list[tuple[float, Held]] = []
    async with serving(settings) as broker, client_process() as tcp, client_process() as web, client_process() as slow:
        port = broker.addresses[0][1]
        at_rest = await _held(broker)
        begun = time.monotonic()
        cycle = 0
        while (passed := time.monotonic() - begun) < seconds or len(samples) < 3:
            rooms = [f"room-{(cycle * 3 + number) % 1000}" for number in range(ROOMS)]
            tokens = [f"dev:u{(cycle * LINKS + number) % USERS}" for number in range(LINKS)]
            half = LINKS // 2
            await tcp.request("open", links=half, port=port, rooms=rooms, tokens=tokens[:half])
            await web.request("open", links=half, port=port, rooms=rooms, tokens=tokens[half:], websocket=True)
            await slow.request("open", links=4, port=port, rooms=rooms, prefix="dev:slow", receive_bytes=4096)
            await slow.request("stall", links=4)
            await tcp.request("flood", per_s=4000, seconds=1.0, burst=4)
            await web.request("flood", per_s=2000, seconds=0.5)
            for clients in (tcp, web, slow):
                await clients.request("close")
            cycle += 1
            for _ in range(100):
                await trio.sleep(0.1)
                if not len(broker.poller) and not len(broker.hub):
                    break
            held = await _held(broker)
            samples.append((passed, held))
            if cycle % 10 == 1 or smoke:
                print(f"{passed:6.0f} s  {held}", file=sys.stderr, flush=True)
            if held[1:] != at_rest[1:]:
                raise RuntimeError(
                    f"after cycle {cycle} more resources are held than before the first: {held}, {at_rest}"
                )
        if not broker.stats().balanced or broker.hub.crashed or broker.poller.crashes:
            raise RuntimeError(f"the accounts do not balance, or a room or session crashed: {broker.stats()}")
    warm = [held.rss_bytes for at, held in samples if at >= seconds / 5] or [held.rss_bytes for _, held in samples]
    third = max(1, len(warm) // 3)
    growth = median(warm[-third:]) - median(warm[:third])
    detail = {"cycles": cycle, "links": cycle * (LINKS + 4), "rss_mb": round(warm[-1] / 2**20, 1)}
    goal_kib = None if smoke else GROWTH_BYTES / 1024
    return [Result("soak", f"resident memory gained in {seconds:g} s", growth / 1024, "KiB", goal_kib, detail=detail)]


async def _held(broker: Broker) -> Held:
    await quiesce(0.2)
    return Held(
        rss_bytes(), len(os.listdir("/proc/self/fd")), trio.lowlevel.current_statistics().tasks_living,
        len(broker.hub), len(broker.context.sessions), broker.budget.used_bytes,
    )  # fmt: skip
