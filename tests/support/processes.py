"""The ``roomcast`` command as a process, as a user starts it."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import trio

from protocol.clients import ClientClosed
from protocol.clients.room import JoinedRoom

__all__ = [
    "Eager",
    "Finished",
    "Serving",
    "command",
    "environment",
    "free_port",
    "healthz",
    "read_all",
    "restarting",
    "roomcast",
    "serving",
    "supervised",
]

DEADLINE_S = 60
"""Far beyond anything a test needs; a loaded machine may take a second to start Python."""


class Eager(random.Random):
    """Numbers with which a client comes back as soon as it may: tests kill more often than any operator."""

    def random(self) -> float:
        return 0.0

    def uniform(self, a: float, b: float) -> float:
        return min(a, b)


def free_port() -> int:
    """Return a port of the loopback interface that nothing listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def command(*arguments: str, module: str = "broker.cli") -> list[str]:
    """The command line of ``roomcast arguments...`` in this environment."""
    return [sys.executable, "-m", module, *arguments]


def environment(**more: str) -> dict[str, str]:
    """Return the environment without settings of roomcast, with ``more``."""
    return {key: value for key, value in os.environ.items() if not key.startswith("ROOMCAST_")} | more


class Finished(NamedTuple):
    """Exit status and output of a command."""

    status: int
    out: str
    err: str


async def roomcast(*arguments: str, **more: str) -> Finished:
    """Run a command to its end."""
    with trio.fail_after(DEADLINE_S):
        done = await trio.run_process(
            command(*arguments), capture_stdout=True, capture_stderr=True, check=False, env=environment(**more)
        )
    return Finished(done.returncode, *(each.decode(errors="replace") for each in (done.stdout, done.stderr)))


class Lines:
    """Lines of a stream; everything read is kept in ``text``."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._rest = ""
        self.text = ""

    async def next(self) -> str:
        """Return the next whole line; EOFError at the end."""
        with trio.fail_after(DEADLINE_S):
            while "\n" not in self._rest:
                data = (await self._stream.receive_some()).decode()
                if not data:
                    raise EOFError(self.text)
                self._rest += data
                self.text += data
        line, _, self._rest = self._rest.partition("\n")
        return line

    async def until(self, text: str) -> str:
        """Return the next line that contains ``text``."""
        while text not in (line := await self.next()):
            pass
        return line


class Running:
    """A running command; it is killed at the end of the test."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self.out = Lines(process.stdout)
        self.err = Lines(process.stderr)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def wait(self, seconds: float = DEADLINE_S) -> int:
        """Wait for the exit status."""
        with trio.fail_after(seconds):
            return await self.process.wait()


class Serving(Running):
    """A broker process; ``announced`` is the JSON object that it prints."""

    announced: dict[str, Any]

    @property
    def port(self) -> int:
        """Port on 127.0.0.1."""
        port: int = self.announced["addresses"][0][1]
        return port

    @property
    def url(self) -> str:
        """URL for native TCP."""
        return f"roomcast://127.0.0.1:{self.port}"


@asynccontextmanager
async def running(*arguments: str, **more: str) -> AsyncIterator[Running]:
    """Start a command."""
    async with _process(command(*arguments), environment(**more)) as process:
        yield Running(process)


@asynccontextmanager
async def serving(
    *arguments: str, prefix: Sequence[str] = (), module: str = "broker.cli", **more: str
) -> AsyncIterator[Serving]:
    """Start ``roomcast serve`` on a free port, by default with ``--ephemeral``, and wait until it serves.

    ``prefix``: a command that runs it, such as unshare; ``module``: one that runs the command line after changes.
    """
    port = () if "--port" in arguments else ("--port", "0")
    kept = () if {"--data-dir", "--config"} & set(arguments) else ("--ephemeral",)
    async with _process(
        [*prefix, *command("serve", *port, *kept, *arguments, module=module)], environment(**more)
    ) as process:
        broker = Serving(process)
        broker.announced = json.loads(await broker.out.next())
        yield broker


class Restarting(Serving):
    """A broker that `restart` kills and starts again, from a process that has imported it already."""

    async def restart(self) -> None:
        """Kill the broker with SIGKILL, start it again with the same arguments and wait until it serves."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(b"\n")
        self.announced = json.loads(await self.out.next())


@asynccontextmanager
async def restarting(*arguments: str) -> AsyncIterator[Restarting]:
    """Start ``roomcast serve`` with the arguments and wait until it serves."""
    program = [sys.executable, "-m", "tests.support.restarting", "serve", *arguments]
    async with _process(program, environment(), stdin=subprocess.PIPE) as process:
        broker = Restarting(process)
        broker.announced = json.loads(await broker.out.next())
        yield broker


@asynccontextmanager
async def supervised(count: int, *settings: str) -> AsyncIterator[Serving]:
    """Start so many brokers under a supervisor, with settings KEY=VALUE, and wait until all serve."""
    program = [sys.executable, "-m", "tests.support.supervised", str(count), "listen.port=0", "ledger.ephemeral=true"]
    async with _process([*program, *settings], environment()) as process:
        supervisor = Serving(process)
        supervisor.announced = json.loads(await supervisor.out.next())
        yield supervisor


@asynccontextmanager
async def _process(
    arguments: list[str], env: dict[str, str], stdin: int = subprocess.DEVNULL
) -> AsyncIterator[trio.Process]:
    process = await trio.lowlevel.open_process(
        arguments, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        with trio.move_on_after(10, shield=True):
            await process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                await trio.aclose_forcefully(stream)


async def healthz(broker: Serving) -> tuple[int, dict[str, object]]:
    """Return status and body of the health check, as a load balancer requests it."""
    async with await trio.open_tcp_stream("127.0.0.1", broker.port) as stream:
        await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        with trio.fail_after(20):
            while data := await stream.receive_some():
                answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


async def read_all(room: JoinedRoom) -> None:
    """Read and discard a room's events until the client is closed."""
    with suppress(ClientClosed):
        async for _ in room:
            pass
