"""When an append counts as written: what the server's settings promise, and waiting for replicas."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import trio

from broker.engine.base import EngineError, EngineUnavailable, OutcomeUnknown
from broker.engine.link import RedisLink, Reply

__all__ = [
    "ReplicaWait",
    "ServerFacts",
    "ServerProblem",
    "durability_problem",
    "facts_of",
    "promise_of",
    "server_problem",
    "worst_facts",
]

LEAST_VERSION = (7, 0)
"""Flags of scripts and sharded channels."""

FSYNC = ("no", "", "everysec", "always")
"""Values of appendfsync from the weakest; "" = unknown."""

WAIT_MS = 400
"""How long one WAIT holds its connection; below the deadline of a PING on it."""


class ServerFacts(NamedTuple):
    """What a server says of itself. ``fsync``: of the append-only file; "" = unknown, the right to ask is missing."""

    version: tuple[int, ...]
    is_primary: bool
    replicas: int
    has_aof: bool
    fsync: str
    eviction: str
    used_bytes: int
    is_cluster: bool = False


class ServerProblem(NamedTuple):
    """Why a server may not be used, and what to do."""

    detail: str
    remedy: str


def facts_of(info: bytes, config: Mapping[bytes, bytes]) -> ServerFacts:
    """Return the facts in the answers to INFO and CONFIG GET."""
    lines = (line.partition(":") for line in info.decode(errors="replace").splitlines())
    values = {name: value for name, _, value in lines}
    version = values.get("valkey_version") or values.get("redis_version") or "0"
    return ServerFacts(
        tuple(int(part) for part in version.split(".") if part.isdigit()),
        values.get("role", "master") == "master",
        int(values.get("connected_slaves", "0")),
        values.get("aof_enabled") == "1",
        config.get(b"appendfsync", b"").decode(),
        values.get("maxmemory_policy", ""),
        int(values.get("used_memory", "0")),
        values.get("cluster_enabled") == "1",
    )


def worst_facts(servers: Iterable[ServerFacts]) -> ServerFacts:
    """Return what holds on every one of some servers, with the bytes of all. At least one."""
    every = list(servers)
    evictions = {each.eviction for each in every}
    return ServerFacts(
        min(each.version for each in every),
        all(each.is_primary for each in every),
        min(each.replicas for each in every),
        all(each.has_aof for each in every),
        min((each.fsync for each in every), key=FSYNC.index),
        next((each for each in sorted(evictions) if each not in ("noeviction", "")), "noeviction"),
        sum(each.used_bytes for each in every),
        any(each.is_cluster for each in every),
    )


def server_problem(facts: ServerFacts, *, allow_eviction: bool, in_cluster: bool = False) -> ServerProblem | None:
    """Return why a server cannot carry an engine; None: it can. ``in_cluster``: whether the URL is of a Cluster."""
    if facts.version < LEAST_VERSION:
        version = ".".join(map(str, facts.version))
        return ServerProblem(f"it is version {version}", "install Redis 7.0 or later, or Valkey")
    if facts.is_cluster is not in_cluster:
        if in_cluster:
            return ServerProblem("it is no server of a Cluster", "engine.url = redis://HOST:PORT")
        return ServerProblem(
            "it is a server of a Cluster, which has a part of the keys only",
            "engine.url = redis+cluster://HOST:PORT,HOST:PORT, with some of its servers",
        )
    if facts.eviction not in ("noeviction", "") and not allow_eviction:
        return ServerProblem(
            f"it drops keys when its memory is full (maxmemory-policy {facts.eviction}), and with them what was"
            " acknowledged",
            "set maxmemory-policy noeviction: redis.conf, or `redis-cli CONFIG SET maxmemory-policy noeviction`",
        )
    return None


def durability_problem(facts: ServerFacts, wanted: str) -> ServerProblem | None:
    """Return in what a server promises less than ``wanted``: any, everysec or always; None: in nothing.

    Where the right to read its configuration is missing, the operator is believed.
    """
    if wanted != "any" and not facts.has_aof:
        return ServerProblem(
            f"engine.durability is {wanted}, and the server has no append-only file",
            "appendonly yes in redis.conf, or `redis-cli CONFIG SET appendonly yes`",
        )
    if (facts.fsync == "no" and wanted != "any") or (wanted == "always" and facts.fsync == "everysec"):
        return ServerProblem(
            f"engine.durability is {wanted}, and the server has appendfsync {facts.fsync}",
            f"appendfsync {wanted} in redis.conf, or `redis-cli CONFIG SET appendfsync {wanted}`",
        )
    return None


def promise_of(facts: ServerFacts, replicas: int) -> str:
    """Return what an acknowledged append survives, in the words of the guide. ``replicas``: how many are waited for."""
    if not facts.has_aof:
        disk = "no append-only file: a restart of the server loses everything"
    elif facts.fsync == "always":
        disk = "on the server's disk"
    elif facts.fsync == "everysec":
        disk = "on the server's disk within 1 to 2 s"
    else:
        disk = "in the server's append-only file, appendfsync is unknown" if not facts.fsync else "in the page cache"
    if replicas:
        return f"{disk}; in the memory of {replicas} of {facts.replicas} replicas"
    return f"{disk}; a failover to a replica may lose the last moments" if facts.replicas else disk


@dataclass(slots=True, eq=False)
class _Pending:
    event: trio.Event
    error: EngineError | None = None


class ReplicaWait:
    """Waits until so many replicas have what was written on a link: one WAIT at a time for all who wait.

    WAIT covers every write of its connection before it, so those who come while one is under way share the next.
    """

    def __init__(self, link: RedisLink, replicas: int, timeout_s: float) -> None:
        self._link = link
        self._replicas = replicas
        self._timeout_s = timeout_s
        self._pending: deque[_Pending] = deque()
        self._asked = 0
        """Of those who wait, how many the WAIT that is under way covers."""

    async def wait(self) -> None:
        """Return when what the caller has written on the link is on the replicas. OutcomeUnknown: not in time."""
        pending = _Pending(trio.Event())
        self._pending.append(pending)
        if not self._asked:
            self._ask()
        with trio.move_on_after(self._timeout_s):
            await pending.event.wait()
        if not pending.event.is_set():
            raise OutcomeUnknown(f"fewer than {self._replicas} replicas have it after {self._timeout_s:g} s")
        if pending.error is not None:
            raise pending.error

    def _ask(self) -> None:
        self._asked = len(self._pending)
        try:
            self._link.submit(("WAIT", self._replicas, WAIT_MS), self._on_reply)
        except EngineUnavailable as error:
            self._on_reply(OutcomeUnknown(str(error)))

    def _on_reply(self, reply: Reply) -> None:
        asked, self._asked = self._asked, 0
        if isinstance(reply, EngineError):
            # What was written on a connection that broke is covered by no later WAIT.
            for pending in self._pending:
                pending.error = OutcomeUnknown(str(reply))
                pending.event.set()
            self._pending.clear()
            return
        if reply >= self._replicas:
            for _ in range(asked):
                self._pending.popleft().event.set()
        if self._pending:
            self._ask()
