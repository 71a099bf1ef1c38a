"""Messages of conversations: one-to-one by the binary protocol, to a group of 5,000 with links, and a list of 200.

One-to-one: 50 pairs over TCP. Each sender writes 16 ``conversations.send`` at once and reads their answers; its
receiver reads the messages and acknowledges the last one of those that must arrive. The clients run in a thread, whose
CPU is not counted: without a ledger the rate is that of the CPU of the broker's own thread, with one that of all its
threads. The rates of the operations are lifted. The links of the group are stand-ins that write to the null device.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Any

import msgspec
import trio
from msgpack import packb, unpackb

from bench.micro.calls import Load, floor_of, open_links
from bench.micro.harness import config, serving, without_rate
from bench.micro.result import Result, median
from bench.micro.wire import frame, frames_in
from broker.config.schema import Config, LedgerConfig
from broker.operations.caller import Caller
from broker.server import Broker
from protocol.codes import Opcode, Role
from protocol.frames import pack_body
from protocol.operations import BY_NAME, KeyUse, Scope

__all__ = ["conversations"]

BURST, PAIRS = 16, 50
GOALS = {"memory": 10_000, "disk": 3_000}
GROUP_GOAL_MS, LIST_GOAL_MS = 200.0, 20.0
TEXT = "Is the blue mug in stock?"
_SEND = BY_NAME["conversations.send"]
_keys = count()


async def conversations(smoke: bool) -> list[Result]:
    """Measure all of it."""
    results = [await _one_to_one("memory", config(), smoke)]
    with _durable() as settings:
        results.append(await _one_to_one("disk", settings, smoke))
    with _durable() as settings:
        results += await _group_and_list(settings, smoke)
    return results


@contextmanager
def _durable() -> Iterator[Config]:
    with tempfile.TemporaryDirectory(prefix="roomcast-talk-", dir=os.environ.get("ROOMCAST_BENCH_DIR")) as name:
        yield msgspec.structs.replace(config(), ledger=LedgerConfig(data_dir=name))


@contextmanager
def _null_device() -> Iterator[int]:
    descriptor = os.open(os.devnull, os.O_WRONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _platform() -> Caller:
    scopes = frozenset({Scope.USERS_WRITE, Scope.DIRECTS_WRITE})
    return Caller("shop", "", "127.0.0.1", lambda room: Role.APP, scopes=scopes)


def _user(name: str) -> Caller:
    return Caller(name, name, "127.0.0.1", lambda room: Role.VIEWER, frozenset({Role.VIEWER}))


async def _call(broker: Broker, caller: Caller, name: str, **fields: Any) -> Any:
    row = BY_NAME[name]
    caller = replace(caller, key=f"k{next(_keys)}") if row.key is KeyUse.REQUIRED else caller
    result, _ = await broker.operations.call(caller, row, fields)
    return result


async def _one_to_one(where: str, settings: Config, smoke: bool) -> Result:
    passes, rounds = (2, 1) if smoke else (20, 5)
    made = PAIRS * BURST * passes
    used_s: list[float] = []
    floor_s: list[float] = []
    wall_s: list[float] = []
    with without_rate("conversations.send"):
        async with serving(settings) as broker:
            links = await trio.to_thread.run_sync(open_links, broker.addresses[0][1], 2 * PAIRS)
            try:
                pairs = []
                for number in range(PAIRS):
                    opened = await _call(broker, _user(f"u{number}"), "conversations.open", user=f"u{number + PAIRS}")
                    pairs.append((links[number][0], links[number + PAIRS][0], opened.id))
                load = Load(_SEND, (pairs[0][2], TEXT), "k0000001", Opcode.RESULT, (_SEND.number, (1, False)))
                for _ in range(rounds):
                    own, process, begun = time.thread_time(), time.process_time(), time.perf_counter()
                    client_s = await trio.to_thread.run_sync(_talk, pairs, passes)
                    wall_s.append((time.perf_counter() - begun) / made)
                    own, process = time.thread_time() - own, time.process_time() - process - client_s
                    used_s.append((own if where == "memory" else process) / made)
                    floor_s.append(floor_of(load, BURST, PAIRS * passes))
                assert broker.talk is not None
                if broker.talk.conversations.sent != made * rounds:
                    raise RuntimeError(f"{broker.talk.conversations.sent} of {made * rounds} were sent")
            finally:
                for sock, _ in links:
                    sock.close()
    return Result(
        "conversations", f"one-to-one messages a second and core, in {where}", 1 / median(used_s), "/s", GOALS[where],
        False, 1 / median(floor_s), "bare recv + unpack + pack + send",
        detail={"pairs": PAIRS, "sends_a_write": BURST, "cpu_us": round(median(used_s) * 1e6, 1),
                "by_the_clock": round(1 / median(wall_s))},
    )  # fmt: skip


def _talk(pairs: list[tuple[socket.socket, socket.socket, str]], passes: int) -> float:
    """Send, deliver and acknowledge; return the CPU of this thread in seconds."""
    begun = time.thread_time()
    rests: defaultdict[socket.socket, bytearray] = defaultdict(bytearray)
    for _ in range(passes):
        for sender, _, id in pairs:
            requests = (packb([_SEND.number, f"m{next(_keys)}", [id, TEXT]]) for _ in range(BURST))
            sender.sendall(b"".join(frame(Opcode.CALL, body, 0, number) for number, body in enumerate(requests, 1)))
        for sender, receiver, _ in pairs:
            _read(sender, rests[sender], Opcode.RESULT)
            last = unpackb(_read(receiver, rests[receiver], Opcode.DIRECT))[0]
            if last:
                receiver.sendall(frame(Opcode.ACK, packb([last])))
    return time.thread_time() - begun


def _read(sock: socket.socket, rest: bytearray, wanted: Opcode) -> bytes:
    """Read a burst of frames; return the body of the last one. ``rest``: what was read before. RuntimeError for an
    error."""
    found, body = 0, b""
    while found < BURST:
        rest += sock.recv(262_144)
        for opcode, _, _, received in frames_in(rest):
            if opcode in (Opcode.ERROR, Opcode.GOAWAY):
                raise RuntimeError(unpackb(received))
            if opcode == wanted:
                found, body = found + 1, received
    return body


class _Arrivals:
    """Counts down the links that have not got a message yet."""

    def __init__(self, links: int) -> None:
        self._left = links
        self.done = trio.Event()

    def count(self) -> None:
        """Count one link."""
        self._left -= 1
        if self._left == 0:
            self.done.set()


class _Link:
    """Session of a member, which writes what it is sent to ``null``, the null device."""

    is_remote = False

    def __init__(self, null: int) -> None:
        self._null = null
        self.arrivals = _Arrivals(0)

    def send(
        self, message: Any, room: int = 0, sequence: int = 0, lane: Any = None, packed: bytes | None = None
    ) -> None:
        """Take a message."""
        os.write(self._null, packed or pack_body(message))
        self.arrivals.count()


async def _group_and_list(settings: Config, smoke: bool) -> list[Result]:
    members, messages = (300, 5) if smoke else (5000, 100)
    async with serving(settings) as broker:
        names = [f"u{number}" for number in range(members)]
        await _call(broker, _platform(), "conversations.create", id="tea", title="Tea", users=names[:200])
        for start in range(200, members, 1000):
            added = names[start : start + 1000]
            await _call(broker, _platform(), "conversations.set_members", id="tea", add=added, remove=[])
        with _null_device() as null:
            taken, floors = await _group(broker, names, messages, null)
        with without_rate("conversations.open"), without_rate("conversations.send"):
            for number in range(1, 201):
                opened = await _call(broker, _user("u0"), "conversations.open", user=f"u{number}")
                await _call(broker, _user("u0"), "conversations.send", conversation=opened.id, text=TEXT)
        lists, packs = [], []
        with without_rate("conversations.list"):
            for _ in range(5 if smoke else 50):
                begun = time.perf_counter()
                found = await _call(broker, _user("u0"), "conversations.list", limit=200)
                middle = time.perf_counter()
                pack_body(tuple(found))
                packs.append((time.perf_counter() - middle) * 1000)
                lists.append((middle - begun) * 1000)
    return [
        Result(
            "conversations", f"a message to {members:,} members with a link, p99", _p99(taken), "ms", GROUP_GOAL_MS,
            floor=_p99(floors), floor_name="bare writes of the same bytes",
            detail={"median_ms": round(median(taken), 2)},
        ),
        Result(
            "conversations", "a list of 200 conversations, p99", _p99(lists), "ms", LIST_GOAL_MS, floor=_p99(packs),
            floor_name="bare packing of the answer", detail={"median_ms": round(median(lists), 3)},
        ),
    ]  # fmt: skip


async def _group(broker: Broker, names: list[str], messages: int, null: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds of each message from the call to its last link, and of bare writes to ``null``."""
    taken, floors = [], []
    links = [_Link(null) for _ in names]
    for name, link in zip(names, links, strict=True):
        broker.users.add(name, link)  # type: ignore[arg-type]  # as much of a session as the registry uses here
    for _ in range(messages):
        arrivals = _Arrivals(len(names))
        for link in links:
            link.arrivals = arrivals
        begun = time.perf_counter()
        with without_rate("conversations.send"):
            await _call(broker, _user(names[0]), "conversations.send", conversation="tea", text=TEXT)
        await arrivals.done.wait()
        taken.append((time.perf_counter() - begun) * 1000)
        begun = time.perf_counter()
        for _ in names:
            os.write(null, TEXT.encode() * 8)
        floors.append((time.perf_counter() - begun) * 1000)
    for name, link in zip(names, links, strict=True):
        broker.users.remove(name, link)  # type: ignore[arg-type]  # as above
    return taken, floors


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * 99 // 100)]
