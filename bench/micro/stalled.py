"""Cost of one viewer that does not read for the others: the p99 of 999 healthy ones beside it, and without it.

Two rooms of one broker are equal but for one viewer that has stopped reading and whose socket is full. Each message is
a frame of its own (policy ``off``), so that no tick hides a delay. Floods alternate between the rooms.
"""

from __future__ import annotations

import msgspec
import trio

from bench.micro.harness import ClientProcess, client_process, config, serving
from bench.micro.result import Result, median

__all__ = ["stalled"]


async def stalled(smoke: bool) -> list[Result]:
    """Measure alternating floods."""
    viewers, readers, per_s, seconds, rounds = (60, 10, 40, 1.0, 1) if smoke else (1000, 100, 20, 1.0, 20)
    settings = config(policy="off")
    settings = msgspec.structs.replace(settings, link=msgspec.structs.replace(settings.link, write_timeout_s=3600.0))
    async with (
        serving(settings) as broker,
        client_process() as stalled_viewers,
        client_process() as healthy_viewers,
        client_process() as stalled_publisher,
        client_process() as healthy_publisher,
    ):
        port = broker.addresses[0][1]
        await stalled_viewers.request(
            "open", links=1, port=port, rooms=["stalled_viewers"], receive_bytes=4096, prefix="dev:stalled"
        )
        await stalled_viewers.request("stall", links=1)
        await stalled_publisher.request("open", links=4, port=port, rooms=["stalled_viewers"], prefix="dev:p")
        await healthy_publisher.request("open", links=4, port=port, rooms=["healthy_viewers"], prefix="dev:q")
        # Fill the stalled viewer's socket before other viewers join.
        for _ in range(100):
            if broker.poller.backlogged:
                break
            await stalled_publisher.request("flood", per_s=20_000, seconds=0.05, burst=50)
            await trio.sleep(0.1)
        else:
            raise RuntimeError("the stalled viewer's socket never filled")
        for clients, room in ((stalled_viewers, "stalled_viewers"), (healthy_viewers, "healthy_viewers")):
            drains = viewers - readers - (1 if clients is stalled_viewers else 0)
            await clients.request("open", links=drains, port=port, rooms=[room], websocket=True)
            await clients.request("open", links=readers, port=port, rooms=[room], websocket=True, read=True)
        await trio.sleep(2.5)  # until the counters of the joins have been sent
        with_s: list[float] = []
        without_s: list[float] = []
        for _ in range(rounds):
            with_s.append(await _p99_ms(stalled_viewers, stalled_publisher, per_s, seconds))
            without_s.append(await _p99_ms(healthy_viewers, healthy_publisher, per_s, seconds))
            if broker.poller.backlogged != 1:
                raise RuntimeError(f"{broker.poller.backlogged} viewers have a backlog, not 1; the machine is too busy")
    ratios = [one / other for one, other in zip(with_s, without_s, strict=True)]
    detail = {"rounds": rounds, "with_ms": median(with_s), "without_ms": median(without_s)}
    figure = f"p99 of {viewers - 1} healthy viewers beside a stalled one, over that without it"
    return [Result("stalled", figure, median(ratios), "x", 1.10, detail=detail)]


async def _p99_ms(clients: ClientProcess, publisher: ClientProcess, per_s: float, seconds: float) -> float:
    await trio.sleep(0.2)
    await clients.request("count", reset=True)
    await publisher.request("flood", per_s=per_s, seconds=seconds)
    await trio.sleep(0.2)
    latencies = sorted((await clients.request("count"))["latencies_us"])
    if not latencies:
        raise RuntimeError("nothing arrived")
    return float(latencies[len(latencies) * 99 // 100]) / 1000
