"""What one viewer that does not read costs the others: the p99 of 999 healthy ones beside it, and without it.

Two rooms of one broker, alike but for one viewer that has stopped reading and whose socket is full; each message is a
frame of its own (policy ``off``), so nothing hides behind a tick. Floods alternate between the rooms.
"""

from __future__ import annotations

import msgspec
import trio

from bench.micro.harness import ClientProcess, client_process, config, serving
from bench.micro.result import Result, median

__all__ = ["stalled"]


async def stalled(smoke: bool) -> list[Result]:
    """Alternating floods."""
    viewers, readers, per_s, seconds, rounds = (60, 10, 40, 1.0, 1) if smoke else (1000, 100, 20, 1.0, 20)
    settings = config(policy="off")
    settings = msgspec.structs.replace(settings, link=msgspec.structs.replace(settings.link, write_timeout_s=3600.0))
    async with (
        serving(settings) as broker,
        client_process() as held,
        client_process() as even,
        client_process() as held_publisher,
        client_process() as even_publisher,
    ):
        port = broker.addresses[0][1]
        await held.request("open", links=1, port=port, rooms=["held"], receive_bytes=4096, prefix="dev:stalled")
        await held.request("stall", links=1)
        await held_publisher.request("open", links=4, port=port, rooms=["held"], prefix="dev:p")
        await even_publisher.request("open", links=4, port=port, rooms=["even"], prefix="dev:q")
        # Fill the stalled viewer's socket while nobody else has to hear all that.
        for _ in range(100):
            if broker.poller.backlogged:
                break
            await held_publisher.request("flood", per_s=20_000, seconds=0.05, burst=50)
            await trio.sleep(0.1)
        else:
            raise RuntimeError("the stalled viewer's socket never filled")
        for clients, room in ((held, "held"), (even, "even")):
            drains = viewers - readers - (1 if clients is held else 0)
            await clients.request("open", links=drains, port=port, rooms=[room], websocket=True)
            await clients.request("open", links=readers, port=port, rooms=[room], websocket=True, read=True)
        await trio.sleep(2.5)  # the counters of the joins have been told
        with_s: list[float] = []
        without_s: list[float] = []
        for _ in range(rounds):
            with_s.append(await _p99_ms(held, held_publisher, per_s, seconds))
            without_s.append(await _p99_ms(even, even_publisher, per_s, seconds))
            if broker.poller.backlogged != 1:
                raise RuntimeError(f"{broker.poller.backlogged} viewers are behind, not 1; the machine is too busy")
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
