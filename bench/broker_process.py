"""The broker process of a run: the real `Broker`, with a task for commands and a task for samples.

It serves exactly as ``roomcast serve`` does. One task answers the bench's commands on standard input (counters,
accounts, the raw loop over the sockets of its viewers), another reports a sample twice a second. Both cost less than a
thousandth of a core.

The command ``shared`` adds viewers that share sockets (`shared_sockets`); everything else is the broker's own.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from socket import socket
from typing import Any

import trio

from bench.cpu_parts import CpuParts
from bench.floor import FloorSweep, c_loop, c_sweep, python_sweep
from bench.in_process import Entries, LongestStep
from bench.load.accounting import FLOOR_SEQUENCE
from bench.load.child import CommandReader, emit, set_alarm
from bench.load.links import CODECS
from bench.load.shared_sockets import SharedViewers
from bench.load.sockets import listen, server_message
from bench.measure import now_us
from bench.micro.harness import without_rate
from broker.config.schema import load
from broker.core.net.send_queue import QueueLimits
from broker.net.poller import Poller
from broker.net.transport import Framing, TransportSettings
from broker.rooms.room_history import RoomHistory
from broker.server import Broker
from broker.telemetry.logs import configure
from broker.telemetry.process import tune_process
from protocol.codes import Opcode
from protocol.frames import HEADER_BYTES, build_frame, pack_body

__all__ = ["floor_frame", "main"]

SAMPLE_S = 0.5
STEADY_SENDS = 20_000
"""Sends of each loop that make a stable median; a small room is repeated until it has as many."""
MAX_SWEEPS = 25
PAUSE_S = 0.02
"""Pause after each raw sweep, besides seven tenths of its time, in which receivers read."""
_PONG_BODY_BYTES = 14
"""A floor frame's body without its padding."""


def floor_frame(sweep: int, size_bytes: int, start_us: int) -> bytes:
    """Return a PONG of about ``size_bytes`` that marks a raw sweep to receivers; even ``sweep`` = Python, odd = C."""
    padding = "x" * max(0, size_bytes - HEADER_BYTES - _PONG_BODY_BYTES)
    body = pack_body((start_us, 0, (), 0, padding))
    return build_frame(Opcode.PONG, 0, 0, FLOOR_SEQUENCE + sweep, body)


class Observer:
    """Tasks that observe one broker."""

    def __init__(self, broker: Broker, nursery: trio.Nursery) -> None:
        self._broker = broker
        self._nursery = nursery
        self._shared: SharedViewers | None = None
        self._shared_poller: Poller | None = None
        self._lifted = ExitStack()
        """Operations whose rate is lifted, for the lifetime of this process."""
        self._entries = Entries()
        self._longest = LongestStep()
        self._times_steps = False
        self._parts = CpuParts()
        self._sweeps = 0
        self._histories = self._by_ledger = 0
        if broker.history is not None:
            self._count_histories(broker.history)

    def _count_histories(self, history: RoomHistory) -> None:
        """Count the resumes whose events are read from the ledger because the room's history does not have them.

        A resume may need a second read, if the room has published meanwhile: its callback carries the first result.
        """
        read = history.read

        def counted(*query: Any) -> bool:  # Any: passed on unchanged
            self._histories += 1
            on_done = query[-1]
            self._by_ledger += not (isinstance(on_done, partial) and on_done.args[-1])
            return read(*query)

        history.read = counted  # type: ignore[method-assign,assignment]  # of this process only

    def _time_steps(self) -> None:
        """Time the steps of the event loop from now on: where activities are played, as it costs 0.5 us a step."""
        if not self._times_steps:
            self._times_steps = True
            trio.lowlevel.add_instrument(self._longest)

    async def run_commands(self) -> None:
        """Execute commands until ``stop`` or the end of standard input."""
        reader = CommandReader()
        while not reader.ended:
            await trio.lowlevel.wait_readable(reader.fd)
            for command in reader.read():
                match command["command"]:
                    case "stats":
                        self._send_stats()
                    case "shared":
                        await self._connect_shared(command)
                    case "lift":
                        self._time_steps()
                        self._lifted.enter_context(without_rate(command["operation"]))
                    case "enter":
                        nursery = self._nursery
                        room, id, count, after_s = (command[part] for part in ("room", "id", "count", "after_s"))
                        nursery.start_soon(self._entries.enter, self._broker, room, id, count, after_s)
                    case "floor":
                        await self._floor(command["size_bytes"], command["sweeps"])
                    case "stop":
                        reader.ended = True
        self._nursery.cancel_scope.cancel()

    async def sample(self) -> None:
        """Report a sample every `SAMPLE_S` seconds."""
        while True:
            await trio.sleep(SAMPLE_S)
            broker = self._broker
            stats = broker.fanout
            intervals = [room.state.interval_s for room in broker.hub]
            emit(
                "sample",
                at_us=now_us(),
                connections=len(broker.poller),
                backlogged=self._backlogged(),
                stage=int(broker.monitor.stage),
                queue_bytes=broker.budget.used_bytes,
                deliveries=stats.deliveries,
                sweeps=stats.sweeps,
                busy_s=round(stats.busy_s, 6),
                turn_s=round(broker.poller.turn_s, 6),
                cpu_s=time.process_time(),
                interval_ms=round(max(intervals, default=0.0) * 1000, 1),
            )

    def _backlogged(self) -> int:
        shared = self._shared
        waiting = sum(len(each.waiting) for each in shared.sockets) if shared is not None else 0
        return self._broker.poller.backlogged + waiting

    def _send_stats(self) -> None:
        stats = self._broker.stats()
        rooms = [
            {
                "name": room.name,
                "number": room.number,
                "accounts": [list(account) for account in room.state.counters.accounts()],
                "likes": room.state.like_total,
                "last_offset": room.state.last_offset,
                "online": room.state.online,
                "combos": room.state.gifts.running,
            }
            for room in self._broker.hub
        ]
        shared = self._shared
        emit(
            "stats",
            connections=stats.connections,
            backlogged=self._backlogged(),
            stage=int(stats.stage),
            queue_bytes=stats.queue_bytes,
            posts=stats.posts,
            deliveries=stats.deliveries,
            writes=self._broker.fanout.writes,
            sweeps=stats.sweeps,
            missed_chat=stats.missed_chat,
            rooms_crashed=stats.rooms_crashed,
            balanced=stats.balanced,
            accounts=[list(account) for account in stats.accounts],
            closed=stats.closed,
            fanning_out=self._broker.fanout.waiting,
            busy_s=self._broker.fanout.busy_s,
            cpu_s=time.process_time(),
            ledger=self._ledger_stats(),
            rooms=rooms,
            entered=self._entries.accepted,
            longest_step_s=self._longest.take(),
            cpu_parts=self._parts.read(),
            shared=None
            if shared is None
            else {
                "sockets": len(shared.sockets),
                "viewers": len(shared.members),
                "missed_chat_frames": shared.missed_chat_frames,
                "missed_ambient_frames": shared.missed_ambient_frames,
                "missed_danmaku": shared.missed_danmaku,
                "closed": shared.closed,
            },
        )

    def _ledger_stats(self) -> dict[str, Any] | None:
        """Counters of the ledger, None without one. Any: plain JSON."""
        ledger = self._broker.ledger
        if ledger is None:
            return None
        stats = ledger.stats
        return {
            "state": ledger.state.value,
            "waiting": ledger.waiting,
            "submissions": stats.submissions,
            "failed": stats.failed,
            "refused": stats.refused,
            "commits": stats.commits,
            "commit_s": round(stats.commit_s, 6),
            "slowest_commit_s": round(stats.slowest_commit_s, 6),
            "histories": self._histories,
            "by_ledger": self._by_ledger,
        }

    async def _connect_shared(self, command: dict[str, Any]) -> None:
        broker = self._broker
        queue = broker.config.queue
        poller = self._shared_poller = Poller(write_timeout_s=broker.config.link.write_timeout_s)
        limits = QueueLimits(queue.frames, queue.queue_bytes, queue.critical_bytes)
        transports = TransportSettings(poller, limits, broker.budget, lambda transport: None)
        await self._nursery.start(poller.run)
        listener = listen()
        link = broker.config.link
        listener.setsockopt(1, 7, link.send_buffer_bytes)  # SOL_SOCKET, SO_SNDBUF: inherited by what is accepted
        listener.setsockopt(6, 25, link.notsent_lowat_bytes)  # IPPROTO_TCP, TCP_NOTSENT_LOWAT
        listener.setsockopt(6, 1, 1)  # TCP_NODELAY
        shared = self._shared = SharedViewers(
            broker.hub,
            transports,
            viewers=command["viewers"],
            rooms=command["rooms"],
            websocket=command["websocket"],
            codec=CODECS[command["features"]],
            now=trio.current_time,
        )
        emit("shared_listening", port=listener.getsockname()[1])
        await shared.accept(listener, command["sockets"])
        listener.close()
        await shared.add_members()
        emit("shared_ready", rooms=shared.rooms)

    # ---- the raw loop

    async def _floor(self, size_bytes: int, sweeps: int) -> None:
        """Run the raw loop over the viewers' own sockets, in Python and in C in turn."""
        by_framing: dict[Framing, list[socket]] = {}
        for room in self._broker.hub:
            for member in room.members.all():
                transport = member.session.transport
                if transport.queue is None and not transport.state:
                    by_framing.setdefault(self._framing(transport.framing), []).append(transport.sock)
        done: list[dict[str, Any]] = []
        targets = sum(map(len, by_framing.values()))
        sweeps = max(sweeps, min(MAX_SWEEPS, STEADY_SENDS // max(1, targets)))
        gc.collect()
        c_loop()
        for number in range(sweeps * 2):
            in_c = number % 2 == 1
            self._sweeps += 1
            start = now_us()
            frame = floor_frame(self._sweeps * 2 + in_c, size_bytes, start)
            parts = [self._sweep(socks, frame, framing, in_c) for framing, socks in by_framing.items()]
            swept = [part for part in parts if part is not None]
            if swept:
                done.append(
                    {
                        "loop": swept[0].loop,
                        "sends": sum(part.sends for part in swept),
                        "size_bytes": swept[0].size_bytes,
                        "wall_s": sum(part.wall_s for part in swept),
                        "cpu_s": sum(part.cpu_s for part in swept),
                        "refused": sum(part.refused for part in swept),
                    }
                )
                await trio.sleep(PAUSE_S + 0.7 * sum(part.wall_s for part in swept))
        emit("floor", sweeps=done)

    def _framing(self, framing: Framing) -> Framing:
        shared = self._shared
        return Framing.WEBSOCKET if shared is not None and shared.websocket and framing is Framing.TCP else framing

    def _sweep(self, socks: Sequence[socket], frame: bytes, framing: Framing, in_c: bool) -> FloorSweep | None:
        data = frame if framing is Framing.TCP else server_message(frame)
        return c_sweep(socks, data) if in_c else python_sweep(socks, data)


async def _main(path: Path) -> None:
    config = load(path)
    configure(config.log)
    tune_process()
    broker = Broker(config)
    async with trio.open_nursery() as nursery:
        await nursery.start(broker.run)
        emit(
            "serving", address=list(broker.addresses[0]), max_connections=broker.max_connections,
            api_urls=list(broker.api_urls),
        )  # fmt: skip
        observer = Observer(broker, nursery)
        nursery.start_soon(observer.sample)
        nursery.start_soon(observer.run_commands)


def main() -> None:
    """``python -m bench.broker_process CONFIG LIFETIME_S``."""
    set_alarm(float(sys.argv[2]))
    trio.run(_main, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
