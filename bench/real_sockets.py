"""Scenario ``real-100k``: one room over several processes and a real Redis, each viewer a socket of its own.

Viewers connect from many loopback addresses, the kernel spreads them over the processes of ``roomcast serve --processes
N``, and a host announces. Of each announcement it is noted when each viewer had it. Before, as many raw senders with as
many sockets send the same number of bytes to the same readers: what the machine takes for that alone. One connected
socket needs a descriptor at each end, so a process has 18,000 of its 20,000.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import trio

from bench.load.sockets import raise_descriptors
from bench.machine import facts
from bench.micro.harness import ClientProcess, client_process
from bench.micro.nodes import serving_nodes
from bench.micro.redis_process import EVERYSEC, cpu_of, redis_process, redis_program
from protocol.clients import open_client
from protocol.codes import MessageType, Outcome

__all__ = ["NAME", "Sweep", "percentile", "run_real"]

NAME = "real-100k"
ROOM = "stage"
GOAL = 1.3
PER_PROCESS = 18_000
SOURCES = 50
"""Loopback addresses that viewers connect from: 28,000 ports each."""
ANNOUNCEMENTS = 8
PAUSE_S = 1.0
PATIENCE_S = 60.0
"""How long the last viewer is waited for; then the rest counts as lost."""


class Sweep(NamedTuple):
    """One announcement: seconds from its sending until viewers had it, sorted, and how many never had it."""

    seconds: list[float]
    lost: int


def percentile(values: list[float], share: float) -> float:
    """Return the value of sorted ``values`` below which a share of them lies; NaN where there are none."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


async def run_real(viewers: int, processes: int, json_path: Path | None) -> int:
    """Run the scenario and print its result; return the exit status: 1 where an announcement was lost.

    ValueError: there is no redis-server, or the viewers are too many for the processes or their descriptors.
    """
    program = redis_program()
    if program is None:
        raise ValueError("there is no redis-server (apt install redis-server)")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    per_process = min(PER_PROCESS, hard - 2000)
    if viewers > processes * per_process:
        raise ValueError(f"{processes} processes take {processes * per_process:,} viewers: add some or take fewer")
    raise_descriptors()
    raw = await _raw(viewers, processes)
    async with redis_process(program, *EVERYSEC) as server, serving_nodes(server, processes) as (port, pids):
        async with AsyncExitStack() as stack:
            clients, opened_s = await _viewers(stack, viewers, processes, port)
            host = await stack.enter_async_context(open_client(f"roomcast://127.0.0.1:{port}", "dev:host:host"))
            room = await host.join(ROOM)
            used = sum(map(cpu_of, pids))

            async def announce(text: str) -> None:
                result = await room.post(MessageType.ANNOUNCEMENT, (text,), timeout_s=PATIENCE_S)
                if result.outcome is not Outcome.ACCEPTED:
                    raise RuntimeError(f"{NAME}: an announcement was not accepted: {result}")

            broker = await _sweeps(clients, viewers, announce)
            used_s = sum(map(cpu_of, pids)) - used
            cut = sum([(await each.request("count"))["lost"] for each in clients])
    return _report(viewers, processes, raw, broker, cut, opened_s, used_s, json_path)


async def _raw(viewers: int, processes: int) -> list[Sweep]:
    """Sweep over as many sockets with raw senders."""
    async with AsyncExitStack() as stack:
        senders = [await stack.enter_async_context(client_process("bench.load.raw_senders")) for _ in range(processes)]
        port = 0
        for sender in senders:
            port = (await sender.request("listen", port=port))["port"]
        clients, _ = await _viewers(stack, viewers, processes, port)

        async def sweep(text: str) -> None:
            for sender in senders:
                await sender.send("sweep", text=text)
            for sender in senders:
                await sender.receive()

        return await _sweeps(clients, viewers, sweep)


async def _viewers(stack: AsyncExitStack, viewers: int, processes: int, port: int) -> tuple[list[ClientProcess], float]:
    """Connect the viewers from as many processes; return these, and how long it took."""
    clients = [await stack.enter_async_context(client_process()) for _ in range(processes)]
    begun = time.monotonic()
    async with trio.open_nursery() as nursery:
        for number, client in enumerate(clients):
            share = viewers // processes + (number < viewers % processes)

            async def connect(client: ClientProcess = client, number: int = number, share: int = share) -> None:
                await client.request(
                    "open", links=share, port=port, rooms=[ROOM], prefix=f"dev:u{number}-", sources=SOURCES
                )

            nursery.start_soon(connect)
    return clients, time.monotonic() - begun


async def _sweeps(clients: list[ClientProcess], viewers: int, send: Callable[[str], Awaitable[None]]) -> list[Sweep]:
    """Let announcements be sent, one after the other, and return when viewers had them. The first is left out: it
    takes the memory that the next ones use."""
    found = []
    for number in range(ANNOUNCEMENTS + 1):
        text = f"announcement-{number:04d}"
        for client in clients:
            await client.request("watch", marker=text)
        await trio.sleep(PAUSE_S)
        begun_ns = time.monotonic_ns()
        await send(text)
        arrived = 0
        with trio.move_on_after(PATIENCE_S):
            while arrived < viewers:
                arrived = sum([(await client.request("arrivals"))["count"] for client in clients])
                await trio.sleep(0.1)
        times: list[int] = []
        for client in clients:
            times += (await client.request("arrivals", times=True))["times_ns"]
        found.append(Sweep(sorted((each - begun_ns) / 1e9 for each in times), viewers - len(times)))
    return found[1:]


def _report(
    viewers: int, processes: int, raw: list[Sweep], broker: list[Sweep], cut: int, opened_s: float, used_s: float,
    json_path: Path | None,
) -> int:  # fmt: skip
    figures: dict[str, Any] = {"scenario": NAME, "viewers": viewers, "processes": processes, "machine": facts()}
    for name, sweeps in (("raw", raw), ("broker", broker)):
        for label, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
            figures[f"{name}_{label}_ms"] = 1000 * statistics.median(percentile(each.seconds, share) for each in sweeps)
        figures[f"{name}_lost"] = sum(each.lost for each in sweeps)
    ratio = figures["ratio"] = figures["broker_p99_ms"] / figures["raw_p99_ms"]
    sends = viewers * (ANNOUNCEMENTS + 1)
    figures |= {"links_cut": cut, "connect_s": opened_s, "cpu_us_a_delivery": used_s / sends * 1e6}
    print(f"{NAME}: {viewers:,} sockets, {processes} processes, one room over Redis; connected in {opened_s:.1f} s")
    for name in ("raw", "broker"):
        shown = [f"{label} {figures[f'{name}_{label}_ms']:.0f} ms" for label in ("p50", "p99", "max")]
        print(f"  {name:<7}{', '.join(shown)}, lost {figures[f'{name}_lost']}")
    print(f"  announcement p99 {ratio:.2f} x the raw sweep (goal {GOAL}); links cut {cut};"
          f" CPU of the nodes {figures['cpu_us_a_delivery']:.1f} us a delivery")  # fmt: skip
    if json_path is not None:
        json_path.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    has_lost = bool(figures["broker_lost"] or cut)
    if has_lost:
        print(f"{NAME}: announcements were lost", file=sys.stderr)
    return int(has_lost)
