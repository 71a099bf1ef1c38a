"""``roomcast serve --processes N`` over a real server of the test's own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from protocol.clients import CallLost, CallRefused, open_client
from tests.support.processes import Lines, Serving, serving
from tests.support.redis_server import RedisServer

__all__ = ["NOT_NOW", "SharedProcesses", "grab_share", "shared_processes"]

DEADLINE_S = 120
NOT_NOW = 300
"""Codes from here on refuse a call for now."""


class SharedProcesses:
    """The processes of one host. ``pids``: by node, of those that serve or have served."""

    def __init__(self, supervisor: Serving, redis: RedisServer) -> None:
        self.supervisor = supervisor
        self.redis = redis
        self.pids: dict[str, int] = {}
        self.lines: list[dict[str, Any]] = []
        """Log lines of all."""
        self._changed = trio.Event()

    @property
    def url(self) -> str:
        """Where viewers connect."""
        return f"roomcast://127.0.0.1:{self.supervisor.port}"

    @property
    def api(self) -> str:
        """Where the platform's backend connects."""
        return str(self.supervisor.announced["api"][0])

    async def read(self, err: Lines) -> None:
        """Read the log lines of all processes until they end."""
        while True:
            try:
                line = await err.next()
            except (EOFError, trio.ClosedResourceError):
                return
            if not line.startswith("{"):
                continue
            fields = json.loads(line)
            self.lines.append(fields)
            if fields["event"] == "process serves":
                self.pids[fields["node"]] = fields["pid"]
            self._changed.set()
            self._changed = trio.Event()

    async def until_logged(self, event: str, times: int = 1) -> None:
        """Wait until a line was logged so often."""
        with trio.fail_after(DEADLINE_S):
            while sum(line["event"] == event for line in self.lines) < times:
                await self._changed.wait()

    async def get(self, path: str) -> str:
        """Return the body of a GET of the supervisor's status listener."""
        port = int(self.supervisor.announced["status"][0].rpartition(":")[2])
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            with trio.fail_after(DEADLINE_S):
                while data := await stream.receive_some():
                    answer += data
        return answer.partition(b"\r\n\r\n")[2].decode()

    async def connections(self) -> list[int]:
        """Return how many connections each process has."""
        page = await self.get("/metrics")
        lines = [line for line in page.splitlines() if line.startswith('roomcast_connections{node="')]
        return [round(float(line.rpartition(" ")[2])) for line in lines]

    async def owner_of(self, room: str) -> str:
        """Return the node that owns a room, as the server has it; "" = none."""
        node = await self.redis.ask("HGET", f"rc:{{{room}}}:own", "node")
        return "" if node is None else node.decode()

    async def next_owner(self, room: str, before: str) -> str:
        """Return the node that owns a room after ``before`` does not any more."""
        with trio.fail_after(DEADLINE_S):
            while (owner := await self.owner_of(room)) in ("", before):  # noqa: ASYNC110 - no event says so
                await trio.sleep(0.01)
        return owner


@asynccontextmanager
async def shared_processes(
    count: int, redis: RedisServer, data_dir: Path, *settings: str, config: Path | None = None
) -> AsyncIterator[SharedProcesses]:
    """Serve with so many processes; settings are KEY=VALUE, beside those of a file."""
    options = [
        f"engine.url=unix://{redis.path}",
        f"ledger.data_dir={data_dir}",
        "api.listen=127.0.0.1:0",
        "admission.address_share=1",
        *settings,
    ]
    sets = [part for option in options for part in ("--set", option)]
    arguments = ["--processes", str(count), "--status-listen", "127.0.0.1:0", "--data-dir", str(data_dir), *sets]
    if config is not None:
        arguments += ["--config", str(config)]
    await redis.make_old()
    async with serving(*arguments) as supervisor, trio.open_nursery() as nursery:
        shared = SharedProcesses(supervisor, redis)
        nursery.start_soon(partial(shared.read, supervisor.err))
        await shared.until_logged("process serves", count)
        yield shared
        nursery.cancel_scope.cancel()


async def grab_share(
    shared: SharedProcesses | Serving, user: str, room: str, shares: dict[str, int], packet: str = "p1"
) -> None:
    """Take a share of the packet with a key, until there is an answer."""
    async with open_client(shared.url, f"dev:{user}") as client:
        await client.join(room)
        while user not in shares:
            try:
                shares[user] = (await client.call("packets.grab", room=room, id=packet, key=f"grab-{user}")).cents
            except CallLost:
                continue  # the key decides
            except CallRefused as error:
                if error.code < NOT_NOW:
                    shares[user] = 0
                await trio.sleep(0.05)
