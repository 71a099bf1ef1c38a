"""A real redis-server of a test's own, and the lab of engines over it."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import hiredis
import trio

from broker.config.redis_url import RedisUrl
from broker.engine.base import Engine
from broker.engine.link import LinkLimits, pack
from broker.engine.redis import RedisEngine
from broker.engine.redis_records import RedisNames
from broker.engine.redis_settings import RedisSettings
from tests.support.engines import Heard
from tests.support.programs import needs

__all__ = ["PATIENT", "RedisLab", "RedisServer", "ServerLab", "redis_lab", "redis_server"]

PATIENT = LinkLimits(ping_timeout_s=60.0, connect_timeout_s=60.0)
"""Deadlines that no test lets pass by being slow."""
START_S = 60.0


class RedisServer:
    """A redis-server in a directory of its own, on a Unix socket; tests stop it, kill it and start it again."""

    def __init__(self, directory: Path, options: Sequence[str], prefix: Sequence[str] = ()) -> None:
        self._program = needs("redis")
        self.directory = directory
        self.path = str(directory / "s")
        self._options = options
        self._prefix = prefix
        self.process: trio.Process | None = None

    @property
    def url(self) -> RedisUrl:
        """Where it listens."""
        return RedisUrl((), path=self.path)

    async def start(self) -> None:
        """Start it with the data of its directory and wait until it answers."""
        fixed = [
            "--port",
            "0",
            "--unixsocket",
            self.path,
            "--dir",
            str(self.directory),
            "--save",
            "",
            "--daemonize",
            "no",
        ]
        command = [*self._prefix, self._program, *fixed, "--logfile", str(self.directory / "log"), *self._options]
        self.process = await trio.lowlevel.open_process(command, stdin=subprocess.DEVNULL)
        with trio.fail_after(START_S):
            while True:
                with suppress(OSError, trio.BrokenResourceError, AssertionError):
                    reply = await self.ask("PING")
                    if reply == b"PONG" or str(reply).startswith("NOAUTH"):
                        return
                await trio.sleep(0.01)

    async def ask(self, *command: str | bytes | int) -> Any:
        """Send a command on a connection of its own; an error is returned."""
        return (await self.ask_all([command]))[0]

    async def ask_all(self, commands: Sequence[tuple[str | bytes | int, ...]]) -> list[Any]:
        """Send commands in one write."""
        reader = hiredis.Reader()
        replies: list[Any] = []
        async with await trio.open_unix_socket(self.path) as stream:
            await stream.send_all(b"".join(map(pack, commands)))
            while len(replies) < len(commands):
                data = await stream.receive_some(65536)
                assert data, "the server closed the connection"
                reader.feed(bytes(data))
                while (reply := reader.gets()) is not False:
                    replies.append(reply)
        return replies

    async def make_old(self) -> None:
        """Let the data set be one that was made long ago: in a new one no node claims a room for some seconds."""
        await self.ask("SET", RedisNames("rc:").lineage, "old 0")

    async def kill(self) -> None:
        """Kill it with SIGKILL."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await self.process.wait()
        self.process = None

    async def disconnect(self, node: str = "") -> None:
        """Break the connections of a node ("" = of all), at once."""
        clients = (await self.ask("CLIENT", "LIST")).decode().splitlines()
        fields = [dict(part.partition("=")[::2] for part in client.split(" ")) for client in clients]
        names = [each["id"] for each in fields if each["name"].startswith(f"roomcast:{node}:" if node else "roomcast:")]
        await self.ask_all([("CLIENT", "KILL", "ID", name) for name in names])


@asynccontextmanager
async def redis_server(*options: str, prefix: Sequence[str] = ()) -> AsyncIterator[RedisServer]:
    """Start a server that ends, with its data, at the end.

    ``options``: of its command line; ``prefix``: a command that becomes it, such as unshare.
    """
    with tempfile.TemporaryDirectory(prefix="roomcast-redis-") as name:
        server = RedisServer(Path(name), options, prefix)
        try:
            await server.start()
            yield server
        finally:
            if server.process is not None:
                await server.kill()


class ServerLab:
    """What the labs over one server and over several have in common: see `tests.support.engines.EngineLab`."""

    def __init__(self, nursery: trio.Nursery, settings: RedisSettings) -> None:
        self._nursery = nursery
        self.settings = settings

    async def open(self, node: str) -> tuple[RedisEngine, Heard]:
        engine, heard = RedisEngine(self.settings, node), Heard()
        await self._nursery.start(engine.run, heard)
        return engine, heard

    async def expire_keys(self, ttl_ms: int) -> None:
        await trio.sleep(ttl_ms / 1000 + 0.01)  # the clocks of the servers

    async def mend(self, engine: Engine) -> None:
        """It comes back by itself."""


class RedisLab(ServerLab):
    """A lab over a real server."""

    def __init__(self, nursery: trio.Nursery, server: RedisServer, settings: RedisSettings) -> None:
        super().__init__(nursery, settings)
        self.server = server

    async def expire(self, node: str) -> None:
        await self.server.ask("DEL", RedisNames(self.settings.prefix).node_prefix + node)

    async def flush(self) -> None:
        await self.server.ask("FLUSHALL")

    async def set_full(self, is_full: bool) -> None:
        await self.server.ask("CONFIG", "SET", "maxmemory", "1" if is_full else "0")

    async def cut(self, engine: Engine) -> None:
        await self.server.disconnect(engine.node)


@asynccontextmanager
async def redis_lab(*options: str) -> AsyncIterator[RedisLab]:
    """Start a server, and open a lab over it whose leases no test loses by being slow."""
    async with redis_server(*options) as server, trio.open_nursery() as nursery:
        yield RedisLab(nursery, server, RedisSettings(server.url, node_ttl_ms=3_600_000, links=PATIENT))
        nursery.cancel_scope.cancel()
