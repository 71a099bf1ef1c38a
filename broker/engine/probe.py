"""A look at the server of an engine before a broker uses it: is it there, may it be used, what does it promise."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import hiredis
import trio

from broker.config.redis_url import Address
from broker.engine.base import EngineError, EngineRefused
from broker.engine.cluster import cluster_map
from broker.engine.connecting import connector, hello_commands, server_connector
from broker.engine.durability import durability_problem, facts_of, promise_of, server_problem
from broker.engine.link import Command, Reply, SlotElsewhere, error_of, pack
from broker.engine.redis_records import RedisNames
from broker.engine.redis_settings import RedisSettings
from broker.engine.scripts import all_scripts

__all__ = ["RIGHTS", "UNREACHABLE", "ServerFinding", "probe_server"]

UNREACHABLE = "engine connection"
"""Name of the finding that the server does not answer."""
RIGHTS = "~{0}* &{0}* +@read +@write +@pubsub +@scripting +@connection -@dangerous +info +wait +time +config|get"
"""Rights of an ACL user that are enough, for a prefix."""
CLUSTER_RIGHTS = " +cluster|info +cluster|slots +asking"
"""What a Cluster needs beside them."""
COVERAGE = "cluster-require-full-coverage"
PROBE_ROOMS = 1000
"""Names that are tried for a room whose slot a server of a Cluster has."""
_Ask = Callable[..., Awaitable[list[Reply]]]


class ServerFinding(NamedTuple):
    """One thing that was found. ``remedy``: what to do, "" = nothing is wrong; ``prevents``: no broker starts."""

    name: str
    detail: str
    remedy: str = ""
    prevents: bool = False


async def probe_server(settings: RedisSettings) -> list[ServerFinding]:
    """Return what was found, what is wrong included. It writes a few keys of a room that no broker has, and removes
    them. Takes no longer than twice the timeout of a connection."""
    url = settings.url
    found: list[ServerFinding] = []
    try:
        with trio.fail_after(2 * settings.links.connect_timeout_s):
            async with await connector(url, settings.tls_ca, settings.tls_cert)() as stream:
                others = await _examine(stream, settings, found)
            for address in others:
                async with await server_connector(url, settings.tls_ca, settings.tls_cert)(address) as stream:
                    await _examine(stream, settings, found, address)
    except EngineRefused as error:
        remedy = "check the user and the password: engine.url, engine.password_file, `ACL LIST` on the server"
        found.append(ServerFinding("engine", f"{url}: {error}", remedy, True))
    except (OSError, trio.BrokenResourceError, trio.TooSlowError, EngineError, hiredis.HiredisError) as error:
        why = str(error) or ("it does not answer in time" if isinstance(error, trio.TooSlowError) else "it broke off")
        remedy = "start it (apt install redis-server, or docker run -p 127.0.0.1:6379:6379 valkey/valkey:8), or"
        found.append(ServerFinding(UNREACHABLE, f"{url}: {why}", f"{remedy} correct engine.url", True))
    return found


async def _examine(
    stream: trio.abc.Stream, settings: RedisSettings, found: list[ServerFinding], address: Address | None = None
) -> Sequence[Address]:
    """Look at one server. Where it is of a Cluster and at no ``address``: return the masters, to look at each."""
    url = settings.url if address is None else "{}:{}".format(*address)
    reader = hiredis.Reader()

    async def ask(*commands: Command) -> list[Reply]:
        await stream.send_all(b"".join(map(pack, commands)))
        replies: list[Reply] = []
        while len(replies) < len(commands):
            data = await stream.receive_some(65536)
            if not data:
                raise trio.BrokenResourceError("the server closed the connection")
            reader.feed(bytes(data))
            while (reply := reader.gets()) is not False:
                if type(reply) is not hiredis.PushNotification:
                    replies.append(reply)
        return replies

    for reply in await ask(*hello_commands(settings.url)):
        if isinstance(reply, hiredis.ReplyError):
            raise error_of(reply)
    if settings.url.is_cluster and address is None:
        known, slots = await ask(("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"))
        refused = next((each for each in (known, slots) if isinstance(each, hiredis.ReplyError)), None)
        if refused is None:
            servers = cluster_map(known, slots, settings.url.addresses[0])
            missing = servers.by_slot.count(None)
            if missing:
                remedy = "`redis-cli --cluster check HOST:PORT`, `redis-cli --cluster fix HOST:PORT`"
                found.append(ServerFinding("engine", f"{url}: {missing} slots have no server", remedy, True))
            return servers.masters
        if str(refused).startswith("NOPERM"):
            found.append(ServerFinding("engine rights", f"{url}: {refused}", _rights(settings), True))
            return ()
    info, config = await ask(("INFO",), ("CONFIG", "GET", "appendfsync"))
    if isinstance(info, hiredis.ReplyError):
        detail = f"{url}: INFO is refused: {info}"
        found.append(ServerFinding("engine rights", detail, _rights(settings), True))
        return ()
    facts = facts_of(info, {} if isinstance(config, Exception) else config)
    version = ".".join(map(str, facts.version))
    wrong = server_problem(facts, allow_eviction=settings.allow_eviction, in_cluster=settings.url.is_cluster)
    if wrong:
        found.append(ServerFinding("engine", f"{url}: {wrong.detail}", wrong.remedy, True))
    else:
        found.append(ServerFinding("engine", f"{url}: version {version}, {facts.used_bytes / 2**20:.0f} MiB of data"))
    promise = promise_of(facts, settings.wait_replicas)
    lack = durability_problem(facts, settings.durability)
    if lack is None and not facts.has_aof:
        remedy = "appendonly yes in redis.conf, or `redis-cli CONFIG SET appendonly yes`"
        found.append(ServerFinding("engine durability", promise, remedy))
    elif lack is None and not facts.fsync and settings.durability != "any":
        remedy = f"engine.durability = {settings.durability} cannot be checked: give the user +config|get"
        found.append(ServerFinding("engine durability", promise, remedy))
    else:
        found.append(
            ServerFinding("engine durability", promise)
            if lack is None
            else ServerFinding("engine durability", lack.detail, lack.remedy, True)
        )
    if facts.is_cluster and wrong is None:
        (coverage,) = await ask(("CONFIG", "GET", COVERAGE))
        if isinstance(coverage, dict) and coverage.get(COVERAGE.encode()) == b"yes":
            detail = f"{url}: {COVERAGE} yes: where one master is lost, no room goes on"
            remedy = f"{COVERAGE} no in redis.conf, or `redis-cli CONFIG SET {COVERAGE} no`, on every server"
            found.append(ServerFinding("engine coverage", detail, remedy))
    if wrong is None:
        may_not = await _refused(ask, settings.prefix)
        if may_not:
            detail = f"the user may not: {', '.join(may_not)}"
            found.append(ServerFinding("engine rights", detail, _rights(settings), True))
        else:
            found.append(ServerFinding("engine rights", f"enough, for keys and channels {settings.prefix}*"))
    return ()


async def _refused(ask: _Ask, prefix: str) -> Sequence[str]:
    """Do once what a broker does, in a room of its own; return what the server refuses."""
    names, scripts = RedisNames(prefix), all_scripts()
    room = f"probe-{secrets.token_hex(8)}"
    for _ in range(PROBE_ROOMS):  # a server of a Cluster has some slots only
        (reply,) = await ask(("EXISTS", names.room(room, "own")))
        if not isinstance(error_of(reply) if isinstance(reply, hiredis.ReplyError) else None, SlotElsewhere):
            break
        room = f"probe-{secrets.token_hex(8)}"
    keys = [names.room(room, part) for part in ("own", "log", "fct", "ckp")]
    claim: Command = ("EVAL", scripts["claim"].source, 4, *keys, "probe", 0, 0, 0, 0, 0, 0, b"")
    trials: list[tuple[str, Command]] = [
        ("take a room (EVAL, TIME, XADD, HSET)", claim),
        ("load scripts (SCRIPT LOAD)", ("SCRIPT", "LOAD", scripts["release"].source)),
        ("read a log (XRANGE)", ("XRANGE", keys[1], "-", "+", "COUNT", 1)),
        ("publish (SPUBLISH)", ("SPUBLISH", names.room(room, "t"), b"")),
        ("wait for replicas (WAIT)", ("WAIT", 0, 1)),
        ("remove keys (UNLINK)", ("UNLINK", *keys)),
    ]
    replies = await ask(*(command for _, command in trials))
    return [
        f"{name}: {reply}"
        for (name, _), reply in zip(trials, replies, strict=True)
        if isinstance(reply, hiredis.ReplyError)
    ]


def _rights(settings: RedisSettings) -> str:
    user = settings.url.user or "default"
    more = CLUSTER_RIGHTS if settings.url.is_cluster else ""
    return f"redis-cli ACL SETUSER {user} {RIGHTS.format(settings.prefix)}{more}"
