"""A real Cluster of redis-servers on the loopback interface, and the lab of engines over it."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import hiredis
import trio

from broker.config.redis_url import RedisUrl
from broker.engine.base import Engine
from broker.engine.cluster import SLOTS, slot_of
from broker.engine.link import ask_once, pack
from broker.engine.redis_records import RedisNames
from broker.engine.redis_settings import RedisSettings
from tests.support.processes import free_port
from tests.support.programs import needs
from tests.support.redis_server import PATIENT, START_S, ServerLab

__all__ = ["ClusterLab", "RedisCluster", "cluster_lab", "redis_cluster"]

MASTERS = 3
TRIES = 5
"""A port that was free may be taken meanwhile."""


class ClusterServer:
    """One redis-server of a Cluster."""

    def __init__(self, directory: Path, options: Sequence[str]) -> None:
        directory.mkdir()
        self._directory = directory
        self._options = options
        self.port = 0
        self.id = b""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, program: str) -> None:
        """Start it on ports that are free, and wait until it answers."""
        for _ in range(TRIES):
            self.port = free_port()
            self._run(program)
            if self._answers():
                (self.id,) = self.ask(("CLUSTER", "MYID"))
                return
        raise AssertionError((self._directory / "log").read_text())

    def _run(self, program: str) -> None:
        own = ["--port", str(self.port), "--cluster-port", str(free_port()), "--bind", "127.0.0.1", "--save", ""]
        place = ["--dir", str(self._directory), "--logfile", str(self._directory / "log")]
        cluster = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "1000",
            "--repl-diskless-sync-delay",
            "0",
            *self._options,
        ]
        self.process = subprocess.Popen([program, *own, *place, *cluster], stdin=subprocess.DEVNULL)

    def _answers(self) -> bool:
        deadline = time.monotonic() + START_S
        assert self.process is not None
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                return self.ask(("PING",)) == [b"PONG"]
            except OSError:
                time.sleep(0.01)
        return False

    def ask(self, *commands: tuple[str | bytes | int, ...]) -> list[Any]:
        """Send commands on a connection of its own, outside of Trio, and return the answers; an error is raised."""
        reader = hiredis.Reader(notEnoughData=None)
        replies: list[Any] = []
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"".join(map(pack, commands)))
            while len(replies) < len(commands):
                data = connection.recv(65536)
                if not data:
                    raise ConnectionResetError
                reader.feed(data)
                while (reply := reader.gets()) is not None:
                    if isinstance(reply, hiredis.ReplyError):
                        raise reply
                    replies.append(reply)
        return replies

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class RedisCluster:
    """Masters that have the slots in equal parts; tests ask them, move slots between them, and kill them."""

    def __init__(self, servers: Sequence[ClusterServer]) -> None:
        self.servers = list(servers)

    @property
    def url(self) -> RedisUrl:
        """Where they listen: a broker is given two of them."""
        return RedisUrl(tuple(("127.0.0.1", each.port) for each in self.servers[:2]), is_cluster=True)

    async def ask(self, server: ClusterServer, *command: str | bytes | int) -> Any:
        """Send a command to one server and return the answer; an error is raised."""
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            return (await ask_once(stream, [command]))[0]

    async def ask_all(self, *command: str | bytes | int) -> list[Any]:
        """Send a command to every server."""
        return [await self.ask(server, *command) for server in self.servers if server.process is not None]

    async def owner_of(self, key: str | bytes) -> ClusterServer:
        """Return the server that has a key."""
        slots = await self.ask(self.servers[0], "CLUSTER", "SLOTS")
        (port,) = (master[1] for first, last, master, *_ in slots if first <= slot_of(key) <= last)
        return next(each for each in self.servers if each.port == port)

    async def begin_move(self, key: str | bytes, target: ClusterServer) -> None:
        """Begin to move the slot of a key to another server: keys that are not there are asked for at the target."""
        source, slot = await self.owner_of(key), slot_of(key)
        await self.ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        await self.ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)

    async def end_move(self, key: str | bytes, source: ClusterServer, target: ClusterServer) -> None:
        """Move the keys of a slot, and then the slot itself."""
        slot = slot_of(key)
        while keys := await self.ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 100):
            await self.ask(source, "MIGRATE", "127.0.0.1", target.port, "", 0, 60_000, "KEYS", *keys)
        for server in (target, source, *self.servers):
            await self.ask(server, "CLUSTER", "SETSLOT", slot, "NODE", target.id)

    async def move(self, key: str) -> None:
        """Move the slot of a key to another server."""
        source = await self.owner_of(key)
        target = next(each for each in self.servers if each is not source)
        await self.begin_move(key, target)
        await self.end_move(key, source, target)


@contextmanager
def redis_cluster(*options: str, replicas: int = 0) -> Iterator[RedisCluster]:
    """Start three masters, the first of them with ``replicas``; they end, with their data, at the end.

    It runs outside of Trio, so that tests may share one.
    """
    program = needs("redis")
    with tempfile.TemporaryDirectory(prefix="roomcast-cluster-") as name:
        count = MASTERS + replicas
        servers = [ClusterServer(Path(name) / str(number), options) for number in range(count)]
        try:
            for server in servers:
                server.start(program)
            for number, server in enumerate(servers[:MASTERS]):
                first, last = number * SLOTS // MASTERS, (number + 1) * SLOTS // MASTERS - 1
                server.ask(("CLUSTER", "SET-CONFIG-EPOCH", number + 1), ("CLUSTER", "ADDSLOTSRANGE", first, last))
            for server in servers[1:]:
                bus = servers[0].ask(("CONFIG", "GET", "cluster-port"))[0][1]
                server.ask(("CLUSTER", "MEET", "127.0.0.1", servers[0].port, int(bus)))
            _wait(lambda: all(_is_whole(each, count) for each in servers))
            for server in servers[MASTERS:]:
                server.ask(("CLUSTER", "REPLICATE", servers[0].id))
                _wait(partial(_follows, server))
            yield RedisCluster(servers)
        finally:
            for server in servers:
                server.kill()


def _is_whole(server: ClusterServer, count: int) -> bool:
    (info,) = server.ask(("CLUSTER", "INFO"))
    return b"cluster_state:ok" in info and b"cluster_known_nodes:%d\r" % count in info


def _follows(server: ClusterServer) -> bool:
    return b"master_link_status:up" in server.ask(("INFO",))[0]


def _wait(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_S
    while not is_so():
        assert time.monotonic() < deadline, "the Cluster does not come up"
        time.sleep(0.02)


class ClusterLab(ServerLab):
    """A lab over a Cluster."""

    def __init__(self, nursery: trio.Nursery, cluster: RedisCluster, settings: RedisSettings) -> None:
        super().__init__(nursery, settings)
        self.cluster = cluster

    async def expire(self, node: str) -> None:
        key = RedisNames(self.settings.prefix).node_prefix + node
        await self.cluster.ask(await self.cluster.owner_of(key), "DEL", key)

    async def flush(self) -> None:
        await self.cluster.ask_all("FLUSHALL")

    async def set_full(self, is_full: bool) -> None:
        await self.cluster.ask_all("CONFIG", "SET", "maxmemory", "1" if is_full else "0")

    async def cut(self, engine: Engine) -> None:
        for server in self.cluster.servers:
            clients = (await self.cluster.ask(server, "CLIENT", "LIST")).decode().splitlines()
            fields = [dict(part.partition("=")[::2] for part in client.split(" ")) for client in clients]
            for each in fields:
                if each["name"].startswith(f"roomcast:{engine.node}:") and not each["name"].endswith(":topology"):
                    await self.cluster.ask(server, "CLIENT", "KILL", "ID", each["id"])


@asynccontextmanager
async def cluster_lab(cluster: RedisCluster) -> AsyncIterator[ClusterLab]:
    """Empty a Cluster, and open a lab over it whose leases no test loses by being slow."""
    async with trio.open_nursery() as nursery:
        lab = ClusterLab(nursery, cluster, RedisSettings(cluster.url, node_ttl_ms=3_600_000, links=PATIENT))
        await lab.set_full(False)
        await lab.flush()
        yield lab
        nursery.cancel_scope.cancel()
