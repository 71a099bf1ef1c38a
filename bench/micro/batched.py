"""Danmaku delivered a second and core, joined in ticks: 1,000 WebSocket viewers, policy ``off``, a tick of 50 ms.

One danmaku shown to one viewer is one delivery. Some viewers parse what they receive: the latency is from the moment a
danmaku was *due* by the publishers' schedule to its arrival at one of them. The floor sends the same ticks again to the
same sockets in a bare loop.
"""

from __future__ import annotations

import trio

from bench.floor import python_sweep
from bench.micro.harness import client_process, config, cpu_s, record_bundles, serving
from bench.micro.result import Result, median
from protocol.codes import Lane

__all__ = ["batched"]

READERS = 4


async def batched(smoke: bool) -> list[Result]:
    """Measure the flood, then the floor, several times."""
    viewers, per_s, seconds, rounds = (100, 500, 1.0, 1) if smoke else (1000, 6000, 4.0, 4)
    per_core: list[float] = []
    p99_ms: list[float] = []
    floors: list[float] = []
    rates: list[float] = []
    late_ms = 0.0
    async with (
        serving(config(policy="off", tick_ms=50, tick_max_ms=100)) as broker,
        client_process() as readers,
        client_process() as watchers,
        client_process() as publishers,
    ):
        port = broker.addresses[0][1]
        await watchers.request("open", links=viewers - READERS, port=port, rooms=["stage"], websocket=True)
        await readers.request(
            "open", links=READERS, port=port, rooms=["stage"], websocket=True, read=True, prefix="dev:r"
        )
        await publishers.request("open", links=16, port=port, rooms=["stage"], prefix="dev:p")
        room = broker.hub.find("stage")
        assert room is not None
        socks = [m.session.transport.sock for m in room.members.all() if m.user_id.startswith("u")]
        sent = record_bundles(broker)
        await trio.sleep(2.5)
        for _ in range(rounds):
            sent.clear()
            await readers.request("count", reset=True)
            before = broker.hub.accounts()[Lane.CHAT].shown
            used, begun = cpu_s(), trio.current_time()
            flooded = await publishers.request("flood", per_s=per_s, seconds=seconds)
            took_s = trio.current_time() - begun
            await trio.sleep(0.2)
            used = cpu_s() - used
            shown = broker.hub.accounts()[Lane.CHAT].shown - before
            counted = await readers.request("count")
            if not flooded["sent"] == shown == counted["shown"] / READERS:
                raise RuntimeError(f"sent {flooded['sent']}, shown {shown}, received {counted['shown'] / READERS}")
            if broker.context.missed_chat:
                raise RuntimeError("a viewer has a backlog; the machine is too busy to measure")
            late_ms = max(late_ms, flooded["late_ms"])
            per_core.append(shown * viewers / used)
            rates.append(shown * viewers / took_s)
            latencies = sorted(counted["latencies_us"])
            p99_ms.append(latencies[len(latencies) * 99 // 100] / 1000)
            floor_s = 0.0
            replayed = [bundle for bundle in sent if bundle.parts[0].weight][-10:]
            for bundle in replayed:
                floor_s += python_sweep(socks, bundle.joined).cpu_s
                await trio.sleep(0.05)
            floors.append(sum(bundle.parts[0].weight for bundle in replayed) * len(socks) / floor_s)
            frame_bytes = median([len(bundle.joined) for bundle in replayed])
    detail = {
        "viewers": viewers, "carried_per_s": round(median(rates)), "posts_per_s": per_s, "tick_bytes": int(frame_bytes),
        "best_per_core": round(max(per_core)), "generator_late_ms": round(late_ms, 1),
    }  # fmt: skip
    return [
        Result(
            "batched", f"danmaku delivered a second and core, {viewers:,} viewers", median(per_core), "/s", 5_000_000,
            False, median(floors), "bare send of the same ticks", "value", detail,
        ),
        Result("batched", "p99 from due to received", median(p99_ms), "ms", 100.0, detail={"rounds_ms": p99_ms}),
    ]  # fmt: skip
