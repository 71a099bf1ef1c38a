"""The engine over a real Redis in a directory of its own: appends, facts of a node's rooms, and ticks to other nodes.

*Appends*: 20 rooms with one append under way each, of one event or of 20, for each durability of the server. The floor
is the same script with the same arguments on one blocking connection of bare hiredis, 20 of them in one write. *Facts*:
what a node does with a claim, beneath its activities: a fact with its key is appended, then written into the node's
copy. *Ticks*: one owner publishes, one or three other nodes subscribe, all in this process; the latency is from
publishing to the call of the receiver.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import hiredis
import trio

from bench.measure import quantile
from bench.micro.redis_process import EVERYSEC, RedisProcess, ask, redis_process, redis_program
from bench.micro.result import Result, median
from broker.config.schema import LogConfig
from broker.engine.base import Appended, EngineLinkState, Granted, LogItem
from broker.engine.link import Command, pack
from broker.engine.redis import RedisEngine
from broker.engine.redis_records import RedisNames, append_arguments
from broker.engine.scripts import all_scripts
from broker.ledger import Committed, Entry, LedgerResult, SubmitResult, make_key
from broker.rooms.shared_ledger import SharedLedger
from broker.telemetry.logs import configure

__all__ = ["engine"]

ROOMS = 20
BODY = bytes(random.Random(1).randrange(256) for _ in range(200))
MARKER = LogItem(0, 0, 1, b"")
DURABILITIES = {
    "no AOF": ("--appendonly", "no"),
    "everysec": EVERYSEC,
    "always": ("--appendonly", "yes", "--appendfsync", "always"),
}
TICK_BYTES = 1100
"""A tick of 20 danmaku."""
TICKS_PER_S = 200
GOAL_FACTS_PER_S = 5_000
GOAL_LATENCY_MS = 10.0
_STAMP = struct.Struct("<d")


class _Ignoring:
    """Listener that counts how late messages of a room come."""

    def __init__(self) -> None:
        self.subscribed = trio.Event()
        self.latencies_s: list[float] = []

    def link_changed(self, state: EngineLinkState, reason: str) -> None:
        """Nothing depends on it."""

    def room_subscribed(self, room: str) -> None:
        self.subscribed.set()

    def room_message(self, room: str, body: bytes) -> None:
        self.latencies_s.append(time.perf_counter() - _STAMP.unpack_from(body)[0])

    def node_subscribed(self) -> None:
        """No node sends here."""

    def node_message(self, body: bytes) -> None:
        """No node sends here."""


async def engine(smoke: bool) -> list[Result]:
    """Measure all, where redis-server is installed; else nothing, and say so."""
    configure(LogConfig(level="error"))
    program = redis_program()
    if program is None:
        print("bench engine: there is no redis-server (apt install redis-server)", file=sys.stderr)
        return []
    seconds = 0.2 if smoke else 1.5
    results: list[Result] = []
    for durability, options in DURABILITIES.items():
        async with redis_process(program, *options) as server:
            results += [await _appends(server, durability, group, seconds) for group in (1, 20)]
    async with redis_process(program, *DURABILITIES["everysec"]) as server:
        results.append(await _facts(server, "everysec", seconds, smoke))
    async with redis_process(program, *DURABILITIES["always"]) as server:
        results.append(await _facts(server, "always", seconds, smoke))
    async with redis_process(program) as server:
        for receivers in (1, 3):
            results += await _ticks(server, receivers, seconds, smoke)
    return results


# ---- appends


async def _appends(server: RedisProcess, durability: str, group: int, seconds: float) -> Result:
    """Append for a time, in turns with the floor."""
    rates: list[float] = []
    floors: list[float] = []
    latencies_s: list[float] = []
    used = [0.0, 0.0]
    for turn in range(3):
        floors.append(_append_floor(server, f"floor{group}-{turn}", group, seconds / 3))
        before = time.process_time(), server.cpu_s()
        rate, events = await _append_rate(server, f"room{group}-{turn}", group, seconds / 3, latencies_s)
        rates.append(rate)
        used[0] += (time.process_time() - before[0]) / events
        used[1] += (server.cpu_s() - before[1]) / events
    ordered = sorted(latencies_s)
    return Result(
        "engine",
        f"events appended a second by {ROOMS} rooms, {group} an append, {durability}",
        median(rates),
        "/s",
        less_is_better=False,
        floor=median(floors),
        floor_name="bare hiredis",
        detail={
            "p50_ms": round(quantile(ordered, 0.5) * 1000, 2),
            "p99_ms": round(quantile(ordered, 0.99) * 1000, 2),
            "node_cpu_us": round(used[0] / 3 * 1e6, 1),
            "redis_cpu_us": round(used[1] / 3 * 1e6, 1),
        },
    )


async def _append_rate(
    server: RedisProcess, prefix: str, group: int, seconds: float, latencies_s: list[float]
) -> tuple[float, int]:
    events = 0

    async def write(engine: RedisEngine, room: str, until: float) -> None:
        nonlocal events
        granted = await engine.claim(room, 0, MARKER)
        assert isinstance(granted, Granted)
        last, items = granted.offset, [LogItem(0, 3, 1, BODY)] * group
        while (begun := time.perf_counter()) < until:
            result = await engine.append(room, granted.fence, last, 0, items)
            assert isinstance(result, Appended)
            last = result.last_offset
            events += group
            latencies_s.append(time.perf_counter() - begun)

    async with trio.open_nursery() as nursery:
        one = server.engine("a")
        await nursery.start(one.run, _Ignoring())
        begun = time.perf_counter()
        async with trio.open_nursery() as writing:
            for number in range(ROOMS):
                writing.start_soon(write, one, f"{prefix}-{number}", begun + seconds)
        rate = events / (time.perf_counter() - begun)
        nursery.cancel_scope.cancel()
    return rate, events


def _append_floor(server: RedisProcess, prefix: str, group: int, seconds: float) -> float:
    """Return the events a second of the same script on one blocking connection, for 20 rooms in one write."""
    names, scripts = RedisNames("rc:"), all_scripts()
    rooms = [f"{prefix}-{number}" for number in range(ROOMS)]
    keys_of = [[names.room(room, part) for part in ("own", "log", "fct", "out")] for room in rooms]
    claims: list[Command] = []
    for room in rooms:
        keys = [names.room(room, part) for part in ("own", "log", "fct", "ckp")]
        claims.append(("EVAL", scripts["claim"].source, 4, *keys, "a", 0, 0, 0, 0, 0, 1, b""))
    server.ask(("SCRIPT", "LOAD", scripts["append"].source))
    granted = [(int(reply[1]), int(reply[2])) for reply in server.ask(*claims)]  # type: ignore[index]
    items = append_arguments([LogItem(0, 3, 1, BODY)] * group, (), ())
    done = 0
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(server.path)
        reader = hiredis.Reader()
        begun = time.perf_counter()
        while (now := time.perf_counter()) < begun + seconds:
            commands: list[Command] = []
            for parts, (fence, last) in zip(keys_of, granted, strict=True):
                numbers = (fence, last + done * group, 0, 10_000, 0, group, 0)
                commands.append(("EVALSHA", scripts["append"].sha, 4, *parts, "a", *numbers, *items))
            data = b"".join(map(pack, commands))
            ask(sock, reader, data, ROOMS)
            done += 1
    return done * group * ROOMS / (now - begun)


# ---- facts of a node's rooms


async def _facts(server: RedisProcess, durability: str, seconds: float, smoke: bool) -> Result:
    """Submit facts with keys, 2,000 of which wait at any time."""
    latencies_s: list[float] = []
    sent = 0
    with tempfile.TemporaryDirectory(prefix="roomcast-copy-") as name:
        async with trio.open_nursery() as nursery:
            one = server.engine("a")
            await nursery.start(one.run, _Ignoring())
            shared = SharedLedger(Path(name), engine=one, unix_ms=lambda: time.time_ns() // 1_000_000)
            await nursery.start(shared.run)
            for number in range(ROOMS):
                granted = await one.claim(f"room-{number}", 0, MARKER)
                assert isinstance(granted, Granted)
                assert await shared.open(f"room-{number}", granted)

            def submit(until: float) -> None:
                nonlocal sent
                sent += 1
                begun = time.perf_counter()
                entry = Entry(f"room-{sent % ROOMS}", 7, None, 1003, 1, BODY)
                key = make_key("claim", str(sent))
                taken = shared.record((entry,), partial(on_done, begun, until), (key,))
                assert taken is SubmitResult.QUEUED

            def on_done(begun: float, until: float, result: LedgerResult) -> None:
                assert isinstance(result, Committed), result
                now = time.perf_counter()
                latencies_s.append(now - begun)
                if now < until:
                    submit(until)

            cpu_s, redis_s, begun = time.process_time(), server.cpu_s(), time.perf_counter()
            for _ in range(200 if smoke else 2_000):
                submit(begun + seconds)
            await shared.flush()
            took_s = time.perf_counter() - begun
            cpu_s, redis_s = time.process_time() - cpu_s, server.cpu_s() - redis_s
            nursery.cancel_scope.cancel()
    ordered, count = sorted(latencies_s), len(latencies_s)
    return Result(
        "engine",
        f"facts with keys a second by {ROOMS} rooms, {durability}",
        count / took_s,
        "/s",
        None if smoke else GOAL_FACTS_PER_S,
        False,
        detail={
            "p50_ms": round(quantile(ordered, 0.5) * 1000, 1),
            "p99_ms": round(quantile(ordered, 0.99) * 1000, 1),
            "node_cpu_us": round(cpu_s / count * 1e6, 1),
            "redis_cpu_us": round(redis_s / count * 1e6, 1),
        },
    )


# ---- ticks


async def _ticks(server: RedisProcess, receivers: int, seconds: float, smoke: bool) -> list[Result]:
    """Publish on a schedule, to so many nodes; then flat out without receivers of this process in the way."""
    filler = bytes(TICK_BYTES - _STAMP.size)
    listeners = [_Ignoring() for _ in range(receivers)]
    async with trio.open_nursery() as nursery:
        owner = server.engine("owner")
        await nursery.start(owner.run, _Ignoring())
        for number, listener in enumerate(listeners):
            node = server.engine(f"edge{number}")
            await nursery.start(node.run, listener)
            node.subscribe_room("room")
            await listener.subscribed.wait()
        redis_s, total = server.cpu_s(), round(TICKS_PER_S * seconds)
        publish_s = 0.0
        for _ in range(total):
            begun = time.perf_counter()
            assert owner.publish_room("room", _STAMP.pack(begun) + filler)
            publish_s += time.perf_counter() - begun
            await trio.sleep(1 / TICKS_PER_S)
        while any(len(each.latencies_s) < total for each in listeners):  # noqa: ASYNC110 - no event says so
            await trio.sleep(0.005)
        redis_s = server.cpu_s() - redis_s
        nursery.cancel_scope.cancel()
    ordered = sorted(latency for each in listeners for latency in each.latencies_s)
    nodes = f"{receivers} other node{'s' if receivers > 1 else ''}"
    detail = {"p50_ms": round(quantile(ordered, 0.5) * 1000, 2), "redis_cpu_us": round(redis_s / total * 1e6, 1)}
    return [
        Result(
            "engine",
            f"p99 of a tick from its owner to {nodes}",
            quantile(ordered, 0.99) * 1000,
            "ms",
            None if smoke else GOAL_LATENCY_MS,
            detail=detail,
        ),
        Result("engine", f"a tick published by its owner to {nodes}", publish_s / total * 1e6, "us"),
    ]
