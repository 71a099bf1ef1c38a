"""A look at the server of an engine before a broker uses it: is it there, may it be used, what does it promise."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import hiredis
import trio

from broker.engine.base import EngineError, EngineRefused
from broker.engine.connecting import connector
from broker.engine.durability import durability_problem, facts_of, promise_of, server_problem
from broker.engine.link import Command, Reply, error_of, pack
from broker.engine.redis import RedisSettings
from broker.engine.redis_records import RedisNames
from broker.engine.scripts import all_scripts

__all__ = ["RIGHTS", "UNREACHABLE", "ServerFinding", "probe_server"]

UNREACHABLE = "engine connection"
"""Name of the finding that the server does not answer."""
RIGHTS = "~{0}* &{0}* +@read +@write +@pubsub +@scripting +@connection -@dangerous +info +wait +time +config|get"
"""Rights of an ACL user that are enough, for a prefix."""
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
                await _examine(stream, settings, found)
    except EngineRefused as error:
        remedy = "check the user and the password: engine.url, engine.password_file, `ACL LIST` on the server"
        found.append(ServerFinding("engine", f"{url}: {error}", remedy, True))
    except (OSError, trio.BrokenResourceError, trio.TooSlowError, EngineError, hiredis.HiredisError) as error:
        why = str(error) or ("it does not answer in time" if isinstance(error, trio.TooSlowError) else "it broke off")
        remedy = "start it (apt install redis-server, or docker run -p 127.0.0.1:6379:6379 valkey/valkey:8), or"
        found.append(ServerFinding(UNREACHABLE, f"{url}: {why}", f"{remedy} correct engine.url", True))
    return found


async def _examine(stream: trio.abc.Stream, settings: RedisSettings, found: list[ServerFinding]) -> None:
    url = settings.url
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

    hello: Command = ("HELLO", 3)
    if url.password:
        hello += ("AUTH", url.user or "default", url.password)
    for reply in await ask(hello, *([("SELECT", url.database)] if url.database else [])):
        if isinstance(reply, hiredis.ReplyError):
            raise error_of(reply)
    info, config = await ask(("INFO",), ("CONFIG", "GET", "appendfsync"))
    if isinstance(info, hiredis.ReplyError):
        detail = f"{url}: INFO is refused: {info}"
        found.append(ServerFinding("engine rights", detail, _rights(settings), True))
        return
    facts = facts_of(info, {} if isinstance(config, Exception) else config)
    version = ".".join(map(str, facts.version))
    wrong = server_problem(facts, allow_eviction=settings.allow_eviction)
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
    if wrong is None:
        refused = await _refused(ask, settings.prefix)
        if refused:
            detail = f"the user may not: {', '.join(refused)}"
            found.append(ServerFinding("engine rights", detail, _rights(settings), True))
        else:
            found.append(ServerFinding("engine rights", f"enough, for keys and channels {settings.prefix}*"))


async def _refused(ask: _Ask, prefix: str) -> Sequence[str]:
    """Do once what a broker does, in a room of its own; return what the server refuses."""
    room, names, scripts = f"probe-{secrets.token_hex(8)}", RedisNames(prefix), all_scripts()
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
    return f"redis-cli ACL SETUSER {user} {RIGHTS.format(settings.prefix)}"
