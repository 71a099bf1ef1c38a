"""A broker in this process, and crowds in others: what every bench over sockets begins with."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog
import trio

from bench.load.sockets import raise_descriptors
from broker.config.schema import AdmissionConfig, AuthConfig, Config, LinkConfig, ListenConfig, LogConfig, RoomConfig
from broker.core.limits.overload import OverloadMonitor, OverloadStage
from broker.rooms.encoding import Bundle, Prepared
from broker.rooms.fanout import Outbox
from broker.server import Broker, tune_process
from broker.telemetry.logs import configure

__all__ = ["ClientProcess", "client_process", "config", "cpu_s", "quiesce", "record_bundles", "rss_bytes", "serving"]

ANSWER_S = 300.0
"""A crowd that says nothing for so long has failed."""


def config(secret: str | None = None, **room: Any) -> Config:
    """A broker on a free port whose doors do not hold the bench up; ``room`` as in `RoomConfig`."""
    return Config(
        listen=ListenConfig(port=0),
        link=LinkConfig(frames_per_s=0, connections_per_user=10_000),
        admission=AdmissionConfig(per_address=0, accept_per_s=1_000_000, unauthenticated_share=1.0, address_share=1.0),
        room=RoomConfig(**room),
        auth=AuthConfig(secret=secret),
        log=LogConfig(level="warning", format="text"),
    )


@asynccontextmanager
async def serving(settings: Config) -> AsyncIterator[Broker]:
    """A broker that serves, in this very process and thread."""
    raise_descriptors()
    tune_process()
    configure(settings.log)
    structlog.contextvars.clear_contextvars()
    broker = Broker(settings)
    broker.monitor = _NoOverloadMonitor()
    async with trio.open_nursery() as nursery:
        await nursery.start(broker.run)
        try:
            yield broker
        finally:
            nursery.cancel_scope.cancel()


class _NoOverloadMonitor(OverloadMonitor):
    """Never sees overload: on a shared machine it would judge the neighbours, and change what is measured."""

    __slots__ = ()

    def observe(self, queue_bytes_ratio: float, loop_lag_s: float, sweep_share: float, now: float) -> OverloadStage:
        return OverloadStage.NORMAL


class ClientProcess:
    """One process of clients; see `bench.micro.clients`."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._buffer = b""

    async def request(self, do: str, **fields: Any) -> dict[str, Any]:
        """Give one command and wait for its answer. RuntimeError if the crowd has died or says nothing."""
        await self.send(do, **fields)
        return await self.receive()

    async def send(self, do: str, **fields: Any) -> None:
        """Give one command; `receive` waits for what it says."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps({"do": do, **fields}).encode() + b"\n")

    async def receive(self) -> dict[str, Any]:
        """The next event of the crowd."""
        assert self._process.stdout is not None
        with trio.move_on_after(ANSWER_S):
            while b"\n" not in self._buffer:
                data = await self._process.stdout.receive_some(65536)
                if not data:
                    raise RuntimeError("the crowd has ended")
                self._buffer += data
            line, _, self._buffer = self._buffer.partition(b"\n")
            event: dict[str, Any] = json.loads(line)
            return event
        raise RuntimeError(f"the crowd has said nothing for {ANSWER_S:g} s")


@asynccontextmanager
async def client_process() -> AsyncIterator[ClientProcess]:
    """A process of clients, ended with the block."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "bench.micro.clients"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        one = ClientProcess(process)
        await one.receive()
        yield one
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


def record_bundles(broker: Broker) -> list[Bundle]:
    """What is handed to the fan-out from now on: of each sweep the longest form, which WebSocket viewers get."""
    sent: list[Bundle] = []
    submit = broker.fanout.submit

    def watched(outbox: Outbox, prepared: Prepared, on_done: Callable[[float], None] | None = None) -> None:
        sent.append(max((bundle for bundle in prepared.bundles if bundle), key=lambda each: len(each.joined)))
        submit(outbox, prepared, on_done)

    broker.fanout.submit = watched  # type: ignore[method-assign]
    return sent


def cpu_s() -> float:
    """CPU of this whole process so far, user and system."""
    return time.process_time()


def rss_bytes() -> int:
    """Resident memory of this process now."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def quiesce(seconds: float = 0.3) -> None:
    """Let what is under way come to an end, then collect garbage."""
    await trio.sleep(seconds)
    gc.collect()
