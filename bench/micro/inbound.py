"""Danmaku received a second and core, against a bare loop that only receives and unpacks them.

*Single*: each read returns one message, as with thousands of senders; a link's messages are milliseconds apart, and the
reads are counted to show that none were joined. *Pipelined*: 32 messages a write, as from a gateway or a bot. Policy
``off`` with a tick: nothing is refused, everything is shown, acks are joined for each tick. *Rules* is pipelined under
the default rules with wide limits: user rates, duplicates, merging and fairness. *Moderation* is the same with 50,000
words and all detectors in every other round, in one broker: what they add to the CPU of a message.

The rate is what one core could do: one over the CPU of a message, of the whole broker process, at the load offered.
"""

from __future__ import annotations

import select
import socket
import time
from typing import Any

import trio
from msgpack import unpackb

from bench.load.sockets import listen
from bench.micro.harness import ClientProcess, client_process, config, cpu_s, serving
from bench.micro.result import Result, median
from bench.micro.wire import HEADER, frame
from bench.micro.words import made_words
from broker.config.moderation import DetectorConfig, ModerationConfig
from broker.core.moderation.words import WordAction, WordList
from broker.net.transport import TcpTransport
from broker.rooms.screening import ListScope
from broker.server import Broker
from protocol.codes import Lane, Opcode

__all__ = ["inbound"]

WIDE: dict[str, Any] = {
    "user_chat_per_s": 10_000.0, "user_chat_burst": 10_000, "admit_per_window": 1_000_000, "tick_ms": 100,
}  # fmt: skip
OFF: dict[str, Any] = {"policy": "off", "tick_ms": 100, "tick_max_ms": 100}


async def inbound(smoke: bool) -> list[Result]:
    """Measure all loads."""
    seconds, rounds, share = (0.5, 1, 0.05) if smoke else (2.0, 4, 1.0)
    return [
        await _one("single", OFF, 200, 20, 25_000 * share, 1, 50_000, seconds, rounds),
        await _one("pipelined", OFF, 16, 16, 80_000 * share, 32, 200_000, seconds, rounds),
        await _one("pipelined, rules", WIDE, 16, 16, 80_000 * share, 32, None, seconds, rounds),
        await _moderation(80_000 * share, seconds, rounds, 1_000 if smoke else 50_000),
    ]


async def _moderation(per_s: float, seconds: float, rounds: int, words: int) -> Result:
    """Measure what words and detectors add to the CPU of a message, in percent."""
    names = [f"room-{number}" for number in range(16)]
    listed = WordList("bench", WordAction.MASK, made_words(words))
    detectors = DetectorConfig(links="mask", phones="mask", contacts="mask", repetition="flag")
    used: dict[bool, list[float]] = {False: [], True: []}
    async with serving(config(**WIDE)) as broker, client_process() as clients:
        await clients.request("open", links=16, port=broker.addresses[0][1], rooms=names, read=True)
        screening = broker.screening
        built = screening.build_now({ListScope("", ("*",)): (listed,)})
        for number in range(2 * rounds):
            is_on = number % 2 == 1
            settings = ModerationConfig(detectors=detectors) if is_on else ModerationConfig()
            screening.use(built if is_on else {}, settings)
            cpu, sent, _ = await _flood(broker, clients, per_s, seconds, 32)
            used[is_on].append(cpu / sent)
    off_s, on_s = (median(used[is_on]) for is_on in (False, True))
    detail = {"words": words, "off_us": round(off_s * 1e6, 2), "on_us": round(on_s * 1e6, 2), "rounds": rounds}
    return Result(
        "inbound", "CPU that moderation adds to a message", (on_s / off_s - 1) * 100, "%", 10.0, detail=detail
    )


async def _one(
    what: str, room: dict[str, Any], links: int, rooms: int, per_s: float, burst: int, goal: float | None,
    seconds: float, rounds: int,
) -> Result:  # fmt: skip
    broker_s: list[float] = []
    floor_s: list[float] = []
    joined: list[float] = []
    late_ms = 0.0
    names = [f"room-{number}" for number in range(rooms)]
    with _BareReader() as bare:
        async with serving(config(**room)) as broker, client_process() as clients, client_process() as bare_clients:
            await clients.request("open", links=links, port=broker.addresses[0][1], rooms=names, read=True)
            await bare_clients.send("open", links=links, port=bare.port, rooms=["bare"])
            bare.serve(links)
            await bare_clients.receive()
            with _ReadCounter() as reads:
                for _ in range(rounds):
                    used, sent, unsent = await _flood(broker, clients, per_s, seconds, burst)
                    broker_s.append(used / sent)
                    joined.append(sent / reads.take())
                    late_ms = max(late_ms, unsent)
                    await bare_clients.send("flood", per_s=per_s, seconds=seconds, burst=burst)
                    # In a thread: a blocked event loop would change the broker's overload state.
                    floor_s.append(await trio.to_thread.run_sync(bare.read, round(per_s * seconds / burst) * burst))
                    await bare_clients.receive()
    detail = {
        "offered_per_s": round(per_s), "links": links, "rooms": rooms, "messages_a_read": round(median(joined), 2),
        "cpu_us": round(median(broker_s) * 1e6, 2), "best_per_s": round(1 / min(broker_s)),
        "generator_late_ms": round(late_ms, 1),
    }  # fmt: skip
    return Result(
        "inbound", f"danmaku received a second and core, {what}", 1 / median(broker_s), "/s", goal, False,
        1 / median(floor_s), "bare recv + unpack", "value", detail,
    )  # fmt: skip


async def _flood(
    broker: Broker, clients: ClientProcess, per_s: float, seconds: float, burst: int
) -> tuple[float, int, float]:
    """Run one flood and return (CPU of the broker, messages, lateness of the generator in ms).

    RuntimeError if one was lost.
    """
    await clients.request("count", reset=True)
    before = broker.hub.accounts()[Lane.CHAT].admitted
    used = cpu_s()
    flooded = await clients.request("flood", per_s=per_s, seconds=seconds, burst=burst)
    deadline = trio.current_time() + 60
    while broker.hub.accounts()[Lane.CHAT].held or (await clients.request("count"))["unanswered"] > 0:
        if trio.current_time() > deadline:
            break
        await trio.sleep(0.1)
    used = cpu_s() - used
    account = broker.hub.accounts()[Lane.CHAT]
    outcomes = (await clients.request("count"))["outcomes"]
    sent = int(flooded["sent"])
    if not sent == account.admitted - before == sum(outcomes.values()):
        raise RuntimeError(
            f"sent {sent}, admitted {account.admitted - before}, answered {outcomes}, closed {broker.stats().closed}"
        )
    return used, sent, flooded["late_ms"]


class _ReadCounter:
    """Context manager that counts reads of native links: about 0.1 us each."""

    def __init__(self) -> None:
        self.reads = 0

    def __enter__(self) -> _ReadCounter:
        self._on_bytes = on_bytes = TcpTransport.on_bytes

        def counted(transport: TcpTransport, data: bytes) -> None:
            self.reads += 1
            on_bytes(transport, data)

        TcpTransport.on_bytes = counted  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *_: object) -> None:
        TcpTransport.on_bytes = self._on_bytes  # type: ignore[method-assign]

    def take(self) -> int:
        reads, self.reads = self.reads, 0
        return max(1, reads)


class _BareReader:
    """The floor: an epoll loop that only receives and unpacks."""

    def __enter__(self) -> _BareReader:
        self._listener = listen()
        self.port: int = self._listener.getsockname()[1]
        self._epoll = select.epoll()
        self._socks: dict[int, socket.socket] = {}
        self._rests: dict[int, bytes] = {}
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._socks.values():
            sock.close()
        self._listener.close()
        self._epoll.close()

    def serve(self, links: int) -> None:
        """Accept ``links`` clients and answer each as if it had joined."""
        receive = frame(Opcode.JOIN, b"\x90", room=1)
        self._listener.setblocking(True)
        while len(self._socks) < links:
            sock, _ = self._listener.accept()
            sock.recv(4096)
            sock.send(receive)
            sock.setblocking(False)
            self._socks[sock.fileno()] = sock
            self._epoll.register(sock.fileno(), select.EPOLLIN)

    def read(self, messages: int) -> float:
        """Read ``messages`` messages and return the CPU of one."""
        socks, rests, fields = self._socks, self._rests, HEADER.unpack_from
        seen = 0
        deadline = time.monotonic() + 60
        used = cpu_s()
        while seen < messages:
            if time.monotonic() > deadline:
                raise RuntimeError(f"only {seen} of {messages} messages arrived at the bare loop")
            for fd, _ in self._epoll.poll(1, 64):
                data = socks[fd].recv(32768)
                if not data:
                    raise RuntimeError("a client closed its link")
                rest = rests.pop(fd, b"")
                if rest:
                    data = rest + data
                position, end = 0, len(data)
                while end - position >= 16:
                    length = fields(data, position)[0]
                    if end - position < length:
                        break
                    unpackb(data[position + 16 : position + length], use_list=False)
                    position += length
                    seen += 1
                if position < end:
                    rests[fd] = data[position:]
        return (cpu_s() - used) / messages
