"""A redis-server of a bench's own, in a directory that goes with it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import hiredis
import trio

from broker.config.redis_url import RedisUrl
from broker.engine.link import Command, pack
from broker.engine.redis import RedisEngine
from broker.engine.redis_settings import RedisSettings

__all__ = ["EVERYSEC", "RedisProcess", "ask", "cpu_of", "redis_process", "redis_program"]

EVERYSEC = ("--appendonly", "yes", "--appendfsync", "everysec")


def redis_program() -> str | None:
    """Return the path of redis-server or valkey-server, None = neither is installed."""
    return shutil.which("redis-server") or shutil.which("valkey-server")


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process so far, of all threads that it has."""
    nanoseconds = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        nanoseconds += int((thread / "schedstat").read_text(encoding="ascii").split()[0])
    return nanoseconds / 1e9


class RedisProcess:
    """A redis-server on a socket file."""

    def __init__(self, path: str, pid: int) -> None:
        self.path = path
        self.pid = pid

    def cpu_s(self) -> float:
        """Return its CPU seconds so far."""
        return cpu_of(self.pid)

    def engine(self, node: str) -> RedisEngine:
        return RedisEngine(RedisSettings(RedisUrl((), path=self.path)), node)

    def ask(self, *commands: Command) -> list[object]:
        """Send commands in one write on a blocking connection of its own, and return the answers."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self.path)
            return ask(sock, hiredis.Reader(), b"".join(map(pack, commands)), len(commands))


def ask(sock: socket.socket, reader: hiredis.Reader, data: bytes, count: int) -> list[object]:
    """Send ``data`` and return ``count`` answers."""
    sock.sendall(data)
    replies: list[object] = []
    while len(replies) < count:
        reader.feed(sock.recv(65536))
        while (reply := reader.gets()) is not False:
            replies.append(reply)
    return replies


@asynccontextmanager
async def redis_process(program: str, *options: str) -> AsyncIterator[RedisProcess]:
    """Run a server on a socket file while the block lasts."""
    with tempfile.TemporaryDirectory(prefix="roomcast-redis-") as name:
        path = f"{name}/s"
        fixed = ["--port", "0", "--unixsocket", path, "--dir", name, "--save", "", "--logfile", f"{name}/log"]
        process = await trio.lowlevel.open_process([program, *fixed, *options], stdin=subprocess.DEVNULL)
        try:
            while not await trio.Path(path).exists():  # noqa: ASYNC110 - another process makes it
                await trio.sleep(0.01)
            yield RedisProcess(path, process.pid)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
