"""Fixtures of the benches over sockets: a broker in this process, clients in others."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from unittest.mock import patch

import structlog
import trio

from bench.load.sockets import raise_descriptors
from broker import server
from broker.config.schema import AdmissionConfig, AuthConfig, Config, LinkConfig, ListenConfig, LogConfig, RoomConfig
from broker.core.limits.overload import OverloadMonitor, OverloadStage
from broker.core.rooms.traces import Publication
from broker.rooms.encoding import Bundle, Prepared
from broker.rooms.fanout import Outbox
from broker.server import Broker
from broker.telemetry.logs import configure
from broker.telemetry.loop_monitor import LoopMonitor
from broker.telemetry.process import tune_process
from protocol.codes import CloseCode
from protocol.operations import BY_NAME, BY_NUMBER, RateLimit

__all__ = [
    "BrokerLoopMonitor",
    "ClientProcess",
    "client_process",
    "config",
    "cpu_s",
    "quiesce",
    "record_bundles",
    "rss_bytes",
    "serving",
    "without_rate",
]

ANSWER_S = 300.0
"""Longest wait for an answer of a client process."""


def config(secret: str | None = None, **room: Any) -> Config:
    """Return the configuration of a broker on a free port without limits of admission; ``room`` as in `RoomConfig`."""
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
    """Run a broker in this process and thread."""
    raise_descriptors()
    tune_process()
    configure(settings.log)
    structlog.contextvars.clear_contextvars()
    broker = Broker(settings)
    broker.monitor = _NoOverloadMonitor()
    broker.loop_monitor = BrokerLoopMonitor()
    async with trio.open_nursery() as nursery:
        # The bench itself switches the limits off: none of them is a mistake.
        with patch.object(server, "without_limit", return_value=[]):
            await nursery.start(broker.run)
        try:
            yield broker
            await _end_links(broker)
        finally:
            nursery.cancel_scope.cancel()


async def _end_links(broker: Broker) -> None:
    """End all connections in steps: the poller of a broker that is cancelled ends them in one, 0.2 s for 10,000."""
    for count, connection in enumerate(broker.poller, 1):
        connection.abort("the bench is over", CloseCode.GOING_AWAY)
        if count % 64 == 0:
            await trio.lowlevel.checkpoint()


@contextmanager
def without_rate(name: str) -> Iterator[None]:
    """Lift the rate of an operation, over HTTP and for CALLs: one caller of a bench stands for many."""
    row = BY_NAME[name]
    BY_NAME[name] = BY_NUMBER[row.number] = row._replace(rate=RateLimit(1e6, 1_000_000), address_rate=None)
    try:
        yield
    finally:
        BY_NAME[name] = BY_NUMBER[row.number] = row


class _NoOverloadMonitor(OverloadMonitor):
    """Monitor that never reports overload: other load on the machine would change what is measured."""

    __slots__ = ()

    def observe(self, queue_bytes_ratio: float, loop_lag_s: float, sweep_share: float, now: float) -> OverloadStage:
        return OverloadStage.NORMAL


class BrokerLoopMonitor(LoopMonitor):
    """Monitor of the loop that leaves out the steps of the bench's own tasks: collecting garbage, making tokens and
    measuring floors take longer than a broker may."""

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task waits again, or has ended."""
        if not task.name.startswith("bench."):
            super().after_task_step(task)


class ClientProcess:
    """One process of clients; see `bench.micro.clients`."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._buffer = b""

    async def request(self, do: str, **fields: Any) -> dict[str, Any]:
        """Send one command and wait for its answer. RuntimeError if the process ends or does not answer."""
        await self.send(do, **fields)
        return await self.receive()

    async def send(self, do: str, **fields: Any) -> None:
        """Send one command; `receive` waits for its answer."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps({"do": do, **fields}).encode() + b"\n")

    async def receive(self) -> dict[str, Any]:
        """Wait for the next event of the process."""
        assert self._process.stdout is not None
        with trio.move_on_after(ANSWER_S):
            while b"\n" not in self._buffer:
                data = await self._process.stdout.receive_some(65536)
                if not data:
                    raise RuntimeError("the client process has ended")
                self._buffer += data
            line, _, self._buffer = self._buffer.partition(b"\n")
            event: dict[str, Any] = json.loads(line)
            return event
        raise RuntimeError(f"the client process has not answered for {ANSWER_S:g} s")


@asynccontextmanager
async def client_process(module: str = "bench.micro.clients") -> AsyncIterator[ClientProcess]:
    """Start a client process, or another one that takes commands, and end it with the block."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE
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
    """Record what the fan-out sends from now on: of each pass the longest bundle, that of WebSocket viewers."""
    sent: list[Bundle] = []
    submit = broker.fanout.submit

    def recorded(
        outbox: Outbox,
        prepared: Prepared,
        on_done: Callable[[float], None] | None = None,
        publications: Sequence[Publication] = (),
    ) -> None:
        sent.append(max(prepared.bundles.values(), key=lambda each: len(each.joined)))
        submit(outbox, prepared, on_done, publications)

    broker.fanout.submit = recorded  # type: ignore[method-assign]
    return sent


def cpu_s() -> float:
    """Return the CPU seconds of this process so far, user and system."""
    return time.process_time()


def rss_bytes() -> int:
    """Return the resident memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def quiesce(seconds: float = 0.3) -> None:
    """Wait until pending work is done, then collect garbage."""
    await trio.sleep(seconds)
    gc.collect()
