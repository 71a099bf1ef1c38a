"""The supervisor of ``roomcast serve --processes N``: N processes on one host that share the listening ports.

It opens the listening sockets, one set a process with SO_REUSEPORT, and keeps them open: the kernel spreads connections
over them, and a process that is replaced leaves no moment in which one is refused. A process that ends by itself is
started again after a wait; until then its sockets are closed, so that new connections go to the others.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any

import structlog
import trio

from broker.cli.node_process import NodeLink
from broker.config.schema import Config, ConfigError
from broker.core.net.connection_limits import ConnectionLimits
from broker.core.nodes.restarts import Restarts
from broker.http.connection import HttpCounters
from broker.http.node_status import node_status_app
from broker.http.serving import HttpServer, api_limits, bind_api, socket_file
from broker.net.inherited import INHERITED, describe
from broker.net.listener import bind
from broker.telemetry.merged import merge

__all__ = ["Supervisor", "SupervisorFailed", "serve_signals"]

log = structlog.get_logger("roomcast.supervisor")

START_TIMEOUT_S = 120.0
"""A process that does not serve by then is replaced."""
KILL_AFTER_S = 10.0
"""How much longer than ``link.drain_limit_s`` a process may take to end."""
STATUS_CONNECTIONS = 64

_METRICS = (
    ("roomcast_node_up", "Whether the process serves.", "gauge"),
    ("roomcast_node_restarts_total", "How often the process has ended by itself.", "counter"),
)


class SupervisorFailed(Exception):
    """A process has ended before it served for the first time; its own lines say why."""


class _Process:
    """One process of a node. ``name`` differs from that of the process that it replaces, which may still drain."""

    def __init__(self, name: str, process: trio.Process, link: NodeLink) -> None:
        self.name = name
        self.process = process
        self.link = link
        self.started_at = trio.current_time()
        self.served_at: float | None = None
        self.ended = trio.Event()

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)


class _Slot:
    """Place of one process: its sockets, and the process that serves them now."""

    def __init__(self, number: int, rng: random.Random) -> None:
        self.number = number
        self.generation = 0
        self.sockets: dict[str, list[socket.socket]] = {}
        self.process: _Process | None = None
        self.restarts = Restarts(rng)
        self.changing = trio.Lock()
        """Held while a process is being started: by the rolling restart, or because the last one has ended."""

    def close_sockets(self) -> None:
        for sockets in self.sockets.values():
            for sock in sockets:
                sock.close()
        self.sockets = {}


class Supervisor:
    """Runs ``count`` processes until it is stopped. ``addresses``, ``api_urls``: known once `run` has started."""

    def __init__(
        self,
        config: Config,
        count: int,
        command: Sequence[str],
        *,
        read_config: Callable[[], Config],
        status_listen: str | None = None,
        name: str | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Prepare; nothing is opened yet.

        :param command: command line of a process; it takes its sockets from its environment (`broker.net.inherited`).
        :param read_config: reads the configuration again before a rolling restart; ConfigError.
        :param status_listen: HOST:PORT or unix:PATH of ``/readyz`` and ``/metrics`` of all processes.
        :param name: beginning of the names of the nodes; the host's name if None.
        """
        self._config = config
        self._command = list(command)
        self._read_config = read_config
        self._status_listen = status_listen
        self._name = name or socket.gethostname()
        rng = rng or random.Random()
        self._slots = [_Slot(number, random.Random(rng.random())) for number in range(1, count + 1)]
        self._port = 0
        self._api_listen = config.api.listen
        self._api_file: list[socket.socket] = []
        """The control API's socket file: all processes share one, as the kernel cannot spread connections of files."""
        self._stopping = trio.Event()
        self._rolling = trio.Lock()
        self._nursery: trio.Nursery | None = None
        self.addresses: tuple[tuple[str, int], ...] = ()
        self.api_urls: tuple[str, ...] = ()
        self.status_urls: tuple[str, ...] = ()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start all processes, report when all serve, and return when all have ended after `stop`.

        OSError if an address cannot be bound, `SupervisorFailed` if a process ends before it serves.
        """
        await self._bind_first()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                if self._status_listen is not None:
                    self.status_urls = tuple(await nursery.start(self._serve_status, self._status_listen))
                async with trio.open_nursery() as starting:
                    for slot in self._slots:
                        starting.start_soon(self._start_first, slot)
                async with trio.open_nursery() as keeping:
                    for slot in self._slots:
                        keeping.start_soon(self._keep, slot)
                    task_status.started()
                nursery.cancel_scope.cancel()
        finally:
            for slot in self._slots:
                slot.close_sockets()
                if slot.process is not None:
                    slot.process.link.close()
            for sock in self._api_file:
                sock.close()
            if self._api_listen is not None and (path := socket_file(self._api_listen)) is not None:
                path.unlink(missing_ok=True)

    def stop(self) -> None:
        """Drain all processes; those that take too long are killed. A second call kills all at once."""
        was_stopping = self._is_stopping
        self._stopping.set()
        for slot in self._slots:
            if slot.process is not None:
                slot.process.signal(signal.SIGKILL if was_stopping else signal.SIGTERM)
        if not was_stopping and self._nursery is not None:
            self._nursery.start_soon(self._kill_late)

    async def roll(self) -> None:
        """Replace all processes, one after the other: the new one serves before the old one drains.

        The first that does not come up ends it; ConfigError (nothing is replaced) if the configuration is wrong now.
        """
        if self._rolling.locked():
            log.warning("a rolling restart is under way: this one is left out")
            return
        async with self._rolling:
            self._read_config()
            log.info("rolling restart", processes=len(self._slots))
            for slot in self._slots:
                async with slot.changing:
                    old = slot.process
                    if old is None or self._is_stopping:
                        continue  # it has just been started
                    new = await self._start(slot)
                    if new is None:
                        log.error("rolling restart stopped: a process did not come up", node=old.name)
                        return
                    slot.process = new
                old.signal(signal.SIGTERM)
                await self._wait_ended(old)
            log.info("rolling restart done")

    async def status(self) -> tuple[bool, dict[str, Any]]:
        """Return whether any process takes viewers, and what each of them says. Any: fields of health checks."""
        answers = await self._ask_all()
        fields = {name: {"status": "down"} if each is None else each["fields"] for name, each in answers.items()}
        ready = sum(each is not None and each["ready"] for each in answers.values())
        is_ready = ready > 0 and not self._is_stopping
        state = "draining" if self._is_stopping else "ok" if ready == len(answers) else "degraded"
        return is_ready, {"status": state, "ready": ready, "processes": len(answers), "nodes": fields}

    async def metrics(self) -> str:
        """Return the metrics of all processes, each under the label ``node``."""
        answers = await self._ask_all()
        up = {name: int(each is not None) for name, each in answers.items()}
        ended = dict(zip(answers, (slot.restarts.total for slot in self._slots), strict=True))
        own = [(*metric, values) for metric, values in zip(_METRICS, (up, ended), strict=True)]
        return merge({name: each["metrics"] for name, each in answers.items() if each is not None}, own)

    # ---- one process

    @property
    def _is_stopping(self) -> bool:
        return self._stopping.is_set()

    def _label(self, slot: _Slot) -> str:
        """Name of a slot in metrics and readiness: it stays over restarts."""
        return f"{self._name}-{slot.number}"

    async def _start_first(self, slot: _Slot) -> None:
        slot.process = await self._start(slot)
        if slot.process is None:
            raise SupervisorFailed(f"{self._label(slot)} has ended before it served")

    async def _start(self, slot: _Slot) -> _Process | None:
        """Start a process on the sockets of a slot; None: it has ended, or did not serve in time."""
        if not slot.sockets:
            slot.sockets = await self._open_sockets()
        slot.generation += 1
        name = f"{self._label(slot)}.{slot.generation}"
        ours, theirs = socket.socketpair()
        numbers = {purpose: [sock.fileno() for sock in each] for purpose, each in slot.sockets.items()}
        with theirs:
            process = await trio.lowlevel.open_process(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), *(number for each in numbers.values() for number in each)],
                env={**os.environ, INHERITED: describe(name, theirs.fileno(), numbers)},
                start_new_session=True,  # Ctrl-C is for the supervisor, which passes it on once
            )
        ours.setblocking(False)
        started = _Process(name, process, NodeLink(ours))
        assert self._nursery is not None
        self._nursery.start_soon(self._watch, started)
        with trio.move_on_after(START_TIMEOUT_S):
            if await started.link.wait_serving():
                started.served_at = trio.current_time()
                log.info("process serves", node=name, pid=process.pid)
                if self._is_stopping:
                    started.signal(signal.SIGTERM)
                return started
        log.error("process does not serve", node=name, pid=process.pid)
        started.signal(signal.SIGKILL)
        await started.ended.wait()
        return None

    async def _watch(self, process: _Process) -> None:
        """Wait for the end of a process."""
        try:
            await process.process.wait()
        finally:
            if process.process.returncode is None:  # cancelled: the supervisor has failed
                process.signal(signal.SIGTERM)
            process.link.close()
            process.ended.set()

    async def _keep(self, slot: _Slot) -> None:
        """Start the process of a slot again whenever it has ended by itself, until the supervisor stops."""
        while True:
            process = slot.process
            if process is not None:
                await process.ended.wait()
            async with slot.changing:
                if slot.process is not process:
                    continue  # it was replaced
                slot.process = None
                slot.close_sockets()
                if self._is_stopping:
                    return
                served_s = 0.0
                if process is not None:
                    served_s = 0.0 if process.served_at is None else trio.current_time() - process.served_at
                    log.error("process has ended", node=process.name, status=process.process.returncode)
                with trio.move_on_after(slot.restarts.wait_s(served_s)):
                    await self._stopping.wait()
                    return
                try:
                    slot.process = await self._start(slot)
                except OSError as error:
                    log.error("process cannot be started", node=self._label(slot), why=error.strerror)

    async def _wait_ended(self, process: _Process) -> None:
        with trio.move_on_after(self._config.link.drain_limit_s + KILL_AFTER_S):
            await process.ended.wait()
            return
        log.error("process is killed: it has not drained in time", node=process.name)
        process.signal(signal.SIGKILL)
        await process.ended.wait()

    async def _kill_late(self) -> None:
        async with trio.open_nursery() as nursery:
            for slot in self._slots:
                if slot.process is not None:
                    nursery.start_soon(self._wait_ended, slot.process)

    # ---- sockets

    async def _bind_first(self) -> None:
        """Find the ports: each is bound alone at first, since a port shared by mistake is not refused by the kernel."""
        alone = await bind(self._config)
        self.addresses = tuple(sock.getsockname()[:2] for sock in alone)
        self._port = self.addresses[0][1]
        for sock in alone:
            sock.close()
        if self._api_listen is None:
            return
        if (path := socket_file(self._api_listen)) is not None:
            path.unlink(missing_ok=True)
            self._api_file = await bind_api(self._api_listen)
            self.api_urls = (self._api_listen,)
            return
        alone = await bind_api(self._api_listen)
        host = self._api_listen.rpartition(":")[0]
        self._api_listen = f"{host}:{alone[0].getsockname()[1]}"
        self.api_urls = (f"http://{self._api_listen}",)
        for sock in alone:
            sock.close()

    async def _open_sockets(self) -> dict[str, list[socket.socket]]:
        sockets = {"viewers": await bind(self._config, shared_port=self._port)}
        if self._api_file:
            sockets["api"] = [sock.dup() for sock in self._api_file]
        elif self._api_listen is not None:
            sockets["api"] = await bind_api(self._api_listen, is_shared=True)
        return sockets

    # ---- readiness and metrics of all

    async def _ask_all(self) -> dict[str, dict[str, Any] | None]:
        answers: dict[str, dict[str, Any] | None] = {self._label(slot): None for slot in self._slots}

        async def ask(slot: _Slot, process: _Process) -> None:
            answers[self._label(slot)] = await process.link.status()

        async with trio.open_nursery() as nursery:
            for slot in self._slots:
                if slot.process is not None:
                    nursery.start_soon(ask, slot, slot.process)
        return answers

    async def _serve_status(
        self, listen: str, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        app = node_status_app(self.status, self.metrics)
        limits = ConnectionLimits(**api_limits(STATUS_CONNECTIONS))
        await HttpServer(app, listen, limits, HttpCounters()).run(task_status=task_status)


async def serve_signals(supervisor: Supervisor, on_started: Callable[[], None]) -> None:
    """Run a supervisor: SIGTERM and SIGINT stop it, a second one at once, SIGHUP replaces its processes in turn."""
    async with trio.open_nursery() as nursery:
        with (
            trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as stops,
            trio.open_signal_receiver(signal.SIGHUP) as hangups,
        ):
            nursery.start_soon(_stop_on_signal, stops, supervisor)
            nursery.start_soon(_roll_on_signal, hangups, supervisor)
            done = trio.Event()

            async def run(task_status: trio.TaskStatus[None]) -> None:
                try:
                    await supervisor.run(task_status)
                finally:
                    done.set()

            await nursery.start(run)
            on_started()
            await done.wait()
            nursery.cancel_scope.cancel()


async def _stop_on_signal(stops: AsyncIterator[int], supervisor: Supervisor) -> None:
    async for _ in stops:
        supervisor.stop()


async def _roll_on_signal(hangups: AsyncIterator[int], supervisor: Supervisor) -> None:
    async with trio.open_nursery() as nursery:
        async for _ in hangups:
            nursery.start_soon(_roll, supervisor)


async def _roll(supervisor: Supervisor) -> None:
    try:
        await supervisor.roll()
    except (ConfigError, OSError, ValueError) as error:
        log.error("no rolling restart: the configuration is wrong", problems=str(error).splitlines())
