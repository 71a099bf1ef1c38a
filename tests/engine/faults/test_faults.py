"""A real server that is stopped, full, cut off or killed, and its replica: no law is broken, nothing is lost."""

from __future__ import annotations

import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from broker.config.redis_url import RedisUrl
from broker.engine.base import (
    Appended,
    EngineError,
    EngineFull,
    EngineLinkState,
    EngineRefused,
    OutcomeUnknown,
    StoredLogItem,
)
from broker.engine.link import LinkLimits
from broker.engine.redis import RedisEngine
from broker.engine.redis_settings import RedisSettings
from tests.support.engines import Heard, claim, event
from tests.support.held_proxy import HeldProxy, held_proxy
from tests.support.histories import ROOM, History, write
from tests.support.processes import free_port
from tests.support.redis_server import PATIENT, RedisServer, redis_server
from tests.support.until import until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")
IMPATIENT = LinkLimits(ping_timeout_s=0.2, connect_timeout_s=1.0)
"""Deadlines that the faults here pass; where a slow machine passes them too, there are only more of the same."""
Nemesis = Callable[[RedisServer, HeldProxy], Awaitable[None]]


async def read_log(engine: RedisEngine) -> Sequence[StoredLogItem]:
    """Return the whole log of the room, once the server answers."""
    with trio.fail_after(120):
        while True:
            try:
                return await engine.read_log(ROOM, 0, 0, 100_000)
            except EngineError:
                await trio.sleep(0.02)


async def stop_server(server: RedisServer, proxy: HeldProxy) -> None:
    """The server stands still for longer than a PING may take."""
    assert server.process is not None
    for _ in range(3):
        server.process.send_signal(signal.SIGSTOP)
        await trio.sleep(0.7)
        server.process.send_signal(signal.SIGCONT)
        await trio.sleep(0.1)


async def break_links(server: RedisServer, proxy: HeldProxy) -> None:
    """All connections break, again and again."""
    for _ in range(20):
        await server.disconnect()
        await trio.sleep(0.03)


async def forget_scripts(server: RedisServer, proxy: HeldProxy) -> None:
    """The server forgets its scripts, again and again."""
    for _ in range(20):
        await server.ask("SCRIPT", "FLUSH", "SYNC")
        await trio.sleep(0.02)


async def fill_server(server: RedisServer, proxy: HeldProxy) -> None:
    """The server is full for moments."""
    for _ in range(10):
        await server.ask("CONFIG", "SET", "maxmemory", "1")
        await trio.sleep(0.03)
        await server.ask("CONFIG", "SET", "maxmemory", "0")
        await trio.sleep(0.03)


async def kill_server(server: RedisServer, proxy: HeldProxy) -> None:
    """The server is killed and started again."""
    for _ in range(4):
        await trio.sleep(0.1)
        await server.kill()
        await server.start()


async def cut_off(server: RedisServer, proxy: HeldProxy, *, questions: bool, answers: bool) -> None:
    """One node is cut off; what it sent arrives when another one has the room."""
    for _ in range(4):
        await trio.sleep(0.1)
        proxy.hold(questions=questions, answers=answers)
        await trio.sleep(0.7)
        proxy.release()


NEMESES: dict[str, Nemesis] = {
    "stopped": stop_server,
    "links broken": break_links,
    "scripts forgotten": forget_scripts,
    "full": fill_server,
    "killed": kill_server,
    "cut off both ways": partial(cut_off, questions=True, answers=True),
    "cut off, questions only": partial(cut_off, questions=True, answers=False),
    "cut off, answers only": partial(cut_off, questions=False, answers=True),
}


@pytest.mark.parametrize("fault", NEMESES)
async def test_no_law_is_broken_by(fault: str) -> None:
    """Two nodes fight for a room, one of them through a proxy, while the fault happens again and again."""
    async with redis_server(*ALWAYS) as server, held_proxy(server.path) as proxy, trio.open_nursery() as nursery:
        history, has_ended = History(), trio.Event()
        engines = {}
        for name, path in (("a", proxy.path), ("b", server.path)):
            engines[name] = RedisEngine(RedisSettings(RedisUrl((), path=path), links=IMPATIENT), name)
            await nursery.start(engines[name].run, Heard())
        async with trio.open_nursery() as writing:
            for seed, (name, engine) in enumerate(engines.items()):
                writing.start_soon(write, engine, name, history, random.Random(seed), has_ended.is_set)
            await NEMESES[fault](server, proxy)
            await until(lambda: {each[:1] for each in history.acknowledged} == {b"a", b"b"})  # at the latest now
            has_ended.set()
        log = await read_log(engines["b"])
        assert history.violations(log) == []
        nursery.cancel_scope.cancel()


async def test_a_server_that_is_full_refuses_as_a_whole_and_keeps_leases() -> None:
    async with redis_server() as server, trio.open_nursery() as nursery:
        engine = RedisEngine(RedisSettings(server.url, links=PATIENT), "a")
        await nursery.start(engine.run, Heard())
        born = await engine.born(b"")
        granted = await claim(engine, ROOM)
        await server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(EngineFull):
            await engine.append(ROOM, granted.fence, 1, 0, [event(), event()])
        assert await engine.beat(born.incarnation, b"")
        await server.ask("CONFIG", "SET", "maxmemory", "0")
        assert await engine.append(ROOM, granted.fence, 1, 0, [event()]) == Appended(2, 0)
        nursery.cancel_scope.cancel()


async def test_a_node_of_a_cluster_is_refused() -> None:
    async with redis_server(
        "--port", str(free_port()), "--cluster-enabled", "yes", "--cluster-port", str(free_port())
    ) as server:
        with pytest.RaisesGroup(pytest.RaisesExc(EngineRefused, match="Cluster"), flatten_subgroups=True):
            await RedisEngine(RedisSettings(server.url, links=PATIENT), "a").run(Heard())


# ---- replicas


@asynccontextmanager
async def primary_and_replica() -> AsyncIterator[tuple[RedisServer, RedisServer, int]]:
    """Run a primary on a port, and a replica that has its data."""
    port = free_port()
    async with (
        redis_server("--port", str(port), "--bind", "127.0.0.1", *ALWAYS) as primary,
        redis_server(
            "--port", str(free_port()), "--bind", "127.0.0.1", "--replicaof", "127.0.0.1", str(port), *ALWAYS
        ) as replica,
    ):
        with trio.fail_after(120):
            while b"state=online" not in await primary.ask("INFO", "replication"):  # noqa: ASYNC110 - a server
                await trio.sleep(0.02)
        yield primary, replica, port


async def test_an_append_is_acknowledged_once_the_replica_has_it() -> None:
    async with primary_and_replica() as (primary, replica, _), trio.open_nursery() as nursery:
        settings = RedisSettings(primary.url, wait_replicas=1, wait_timeout_s=60.0, links=PATIENT)
        engine = RedisEngine(settings, "a")
        await nursery.start(engine.run, Heard())
        granted = await claim(engine, ROOM)
        assert await engine.append(ROOM, granted.fence, 1, 0, [event()]) == Appended(2, 0)
        assert await replica.ask("XLEN", f"rc:{{{ROOM}}}:log") == 2
        assert "1 of 1 replicas" in engine.status.durability
        assert replica.process is not None
        replica.process.send_signal(signal.SIGSTOP)
        hasty = RedisEngine(RedisSettings(primary.url, wait_replicas=1, wait_timeout_s=0.1, links=PATIENT), "a")
        await nursery.start(hasty.run, Heard())
        with pytest.raises(OutcomeUnknown):
            await hasty.append(ROOM, granted.fence, 2, 0, [event()])
        replica.process.send_signal(signal.SIGCONT)
        assert await engine.append(ROOM, granted.fence, 3, 0, [event()]) == Appended(4, 0)
        assert await replica.ask("XLEN", f"rc:{{{ROOM}}}:log") == 4
        nursery.cancel_scope.cancel()


async def test_nothing_acknowledged_is_lost_when_sentinel_promotes_the_replica() -> None:
    watcher = free_port()
    async with primary_and_replica() as (primary, _, port), trio.open_nursery() as nursery:
        config = primary.directory / "sentinel.conf"
        config.write_text(
            f"port {watcher}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {port} 1\n"
            "sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 3000\n"
        )
        command = ["redis-server", str(config), "--sentinel", "--logfile", str(primary.directory / "sentinel.log")]
        sentinel = await trio.lowlevel.open_process(command)
        try:
            with trio.fail_after(120):  # it has to know the replica
                while not await knows_replica(watcher):  # noqa: ASYNC110 - a server
                    await trio.sleep(0.05)
            url = RedisUrl((("127.0.0.1", watcher),), service="main")
            links = LinkLimits(ping_timeout_s=1.0, connect_timeout_s=5.0)
            engine, heard = RedisEngine(RedisSettings(url, wait_replicas=1, links=links), "a"), Heard()
            await nursery.start(engine.run, heard)
            granted = await claim(engine, ROOM)
            for number in range(50):
                result = await engine.append(ROOM, granted.fence, 1 + number, 0, [event(b"%d" % number)])
                assert result == Appended(2 + number, 0)
            killed_at = trio.current_time()
            await primary.kill()
            await heard.until_heard(EngineLinkState.DOWN)
            await until(lambda: engine.status.is_up)
            print(f"failover took {trio.current_time() - killed_at:.1f} s")
            bodies = [each.body for each in await read_log(engine)]
            assert bodies[1:] == [b"%d" % number for number in range(50)]
            assert "0 replicas are connected" in engine.status.reason
        finally:
            sentinel.kill()
            with trio.CancelScope(shield=True):
                await sentinel.wait()
        nursery.cancel_scope.cancel()


async def knows_replica(port: int) -> bool:
    """Return whether a Sentinel knows a replica of what it watches."""
    try:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"SENTINEL MASTER main\r\n")
            found = await stream.receive_some(65536)
    except OSError:
        return False
    return b"num-slaves\r\n$1\r\n1" in bytes(found)
