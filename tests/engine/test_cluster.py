"""The engine over a Cluster: slots, the map, and servers whose slots move or that die."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from broker.config.redis_url import Address, RedisUrl, parse_url
from broker.engine.base import (
    Appended,
    EngineRefused,
    EngineUnavailable,
    KeyWrite,
    OutboxItem,
    OutcomeUnknown,
)
from broker.engine.cluster import SLOTS, ClusterTopology, cluster_map, slot_of
from broker.engine.durability import facts_of, worst_facts
from broker.engine.probe import CLUSTER_RIGHTS, RIGHTS, probe_server
from broker.engine.redis import RedisEngine
from broker.engine.redis_records import RedisNames
from broker.engine.redis_settings import RedisSettings
from tests.support.engines import Heard, claim, event
from tests.support.redis_cluster import RedisCluster, cluster_lab, redis_cluster
from tests.support.redis_server import PATIENT, redis_server
from tests.support.until import until

NAMES = RedisNames("rc:")
KEY = KeyWrite(b"k" * 16, b"f" * 8, 3_600_000)


# ---- slots


@pytest.mark.parametrize(
    ("key", "slot"), [(b"123456789", 12739), ("{user1000}.following", 3443), ("foo{}{bar}", 8363), ("foo{{bar}}", 4015)]
)
def test_slots_are_those_of_the_servers(key: str | bytes, slot: int) -> None:
    assert slot_of(key) == slot


@given(st.text(min_size=1), st.binary(min_size=16, max_size=16))
def test_all_of_a_room_is_in_one_slot_and_all_of_a_user(name: str, digest: bytes) -> None:
    keys = [NAMES.room(name, part) for part in ("own", "log", "fct", "ckp", "out", "t")]
    assert len({*map(slot_of, keys), slot_of(NAMES.key(name, digest))}) == 1
    assert len({slot_of(NAMES.user(name, part)) for part in ("in", "meta", "links")}) == 1


# ---- the map

A, B = ("a", 1), ("b", 2)


def answers(epoch: int, *masters: Address) -> tuple[bytes, list[list[object]]]:
    """Return the answers to CLUSTER INFO and CLUSTER SLOTS where the masters have equal parts."""
    size = SLOTS // len(masters)
    slots: list[list[object]] = [
        [place * size, (place + 1) * size - 1, [host.encode(), port, b"id"]]
        for place, (host, port) in enumerate(masters)
    ]
    return b"cluster_state:ok\r\ncluster_current_epoch:%d\r\n" % epoch, slots


def test_a_map_names_the_server_of_each_slot() -> None:
    info, slots = answers(7, A, B)
    read = cluster_map(info, [[*slots[0], [b"c", 3, b"id"]], slots[1]], A)
    assert (read.epoch, read.masters, read.replicas) == (7, (A, B), (("c", 3),))
    assert (read.by_slot[0], read.by_slot[SLOTS - 1]) == (A, B)
    own = cluster_map(info, [[0, 9, [None, 5, b"id"]]], A)
    assert (own.masters, own.by_slot[9], own.by_slot[10]) == ((("a", 5),), ("a", 5), None)


class Servers(ClusterTopology):
    """A topology whose servers are a table: the epoch and the masters that each names."""

    def __init__(self, known: dict[Address, tuple[int, tuple[Address, ...]]]) -> None:
        async def connect(address: Address) -> trio.abc.Stream:
            raise OSError

        super().__init__([A], connect, list)
        self.known = known

    async def _ask(self, address: Address):  # type: ignore[no-untyped-def]
        await trio.lowlevel.checkpoint()
        if address not in self.known:
            raise OSError(f"{address} is gone")
        epoch, masters = self.known[address]
        return cluster_map(*answers(epoch, *masters), address)


async def test_of_several_maps_the_latest_is_believed() -> None:
    servers = Servers({A: (3, (A, B)), B: (3, (A, B))})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(servers.run)
        await until(lambda: servers.masters == {A, B})
        servers.known[B] = 4, (B,)  # A is cut off, and goes on with what it knew
        servers.doubt()
        await until(lambda: servers.masters == {B})
        assert servers.server_of(0) == B
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("is_up", "within_s", "readings"), [(True, 4.0, 1), (False, 4.0, 6), (True, 6.0, 2)])
async def test_the_map_is_read_often_while_a_server_is_not_connected(
    is_up: bool, within_s: float, readings: int, autojump_clock: trio.testing.MockClock
) -> None:
    servers = Servers({A: (3, (A, B))})
    servers.are_up.append(lambda: is_up)
    heard: list[frozenset[int]] = []
    servers.on_read.append(heard.append)
    with trio.move_on_after(within_s):
        await servers.run()
    assert len(heard) == readings


async def test_a_slot_that_was_moved_is_known_at_once_and_a_server_that_is_gone_changes_nothing() -> None:
    servers = Servers({A: (3, (A, B))})
    heard: list[frozenset[int]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(servers.run)
        await until(lambda: servers.masters == {A, B})
        servers.on_read.append(heard.append)
        servers.known.clear()
        servers.moved(5, B)
        assert (servers.server_of(5), servers.server_of(6), heard) == (B, A, [frozenset([5])])
        await until(lambda: "is gone" in servers.reason)
        assert servers.server_of(5) == B
        nursery.cancel_scope.cancel()


def test_what_several_servers_promise_is_what_the_weakest_does() -> None:
    info = "redis_version:7.{}.0\r\nrole:master\r\nconnected_slaves:{}\r\naof_enabled:1\r\nused_memory:10\r\n"
    strong = facts_of(info.format(2, 2).encode(), {b"appendfsync": b"always"})
    weak = facts_of(info.format(0, 1).encode(), {b"appendfsync": b"everysec"})
    worst = worst_facts([strong, weak])
    assert (worst.version, worst.replicas, worst.fsync, worst.used_bytes) == ((7, 0, 0), 1, "everysec", 20)
    assert worst_facts([strong, weak._replace(eviction="allkeys-lru", has_aof=False)])[3:6:2] == (False, "allkeys-lru")


def test_urls_of_a_cluster() -> None:
    url = parse_url("redis+cluster://u:secret@a:7000,b")
    assert url == RedisUrl((("a", 7000), ("b", 6379)), user="u", password="secret", is_cluster=True)
    assert str(url) == "redis+cluster://a:7000,b:6379"
    assert parse_url("rediss+cluster://a/0").is_tls
    with pytest.raises(ValueError, match="database"):
        parse_url("redis+cluster://a/1")


# ---- real servers


def other_server(cluster: RedisCluster, room: str) -> str:
    """Return the name of a room whose keys another server has."""
    third = SLOTS // 3
    slot = slot_of(NAMES.room(room, "own")) // third
    return next(name for name in map(str, range(100)) if slot_of(NAMES.room(name, "own")) // third != slot)


@pytest.mark.integration
async def test_a_room_whose_slot_moves_goes_on_with_its_log_and_its_channel(cluster: RedisCluster) -> None:
    async with cluster_lab(cluster) as lab:
        a, _ = await lab.open("a")
        b, heard = await lab.open("b")
        b.subscribe_room("room")
        await heard.until_heard("subscribed", "room")
        granted = await claim(a, "room")
        assert await a.append("room", granted.fence, 1, 0, [event(b"2")], (), [KEY]) == Appended(2, 0)
        await cluster.move(NAMES.room("room", "own"))
        assert await a.append("room", granted.fence, 2, 0, [event(b"3")]) == Appended(3, 0)
        assert [each.body for each in await b.read_log("room", 0, 0, 10)] == [b"marker", b"2", b"3"]
        assert set(await b.known_keys("room", [KEY.digest])) == {KEY.digest}
        await heard.until_heard("subscribed", "room", times=2)
        assert a.publish_room("room", b"from the other server")
        await heard.until_heard("room", b"from the other server")


@pytest.mark.integration
async def test_a_key_whose_slot_moves_is_asked_for_at_the_server_that_gets_it(cluster: RedisCluster) -> None:
    async with cluster_lab(cluster) as lab:
        a, _ = await lab.open("a")
        key = NAMES.order(b"o" * 16)
        source = await cluster.owner_of(key)
        target = next(each for each in cluster.servers if each is not source)
        await cluster.begin_move(key, target)
        assert await a.bind_order(b"o" * 16, "room", 60_000) == "room"
        counts = [await cluster.ask(each, "CLUSTER", "COUNTKEYSINSLOT", slot_of(key)) for each in (source, target)]
        assert counts == [0, 1]
        await cluster.end_move(key, source, target)
        assert await a.bind_order(b"o" * 16, "other", 60_000) == "room"


@pytest.mark.integration
async def test_a_room_of_which_a_part_has_moved_waits_for_the_rest(cluster: RedisCluster) -> None:
    async with cluster_lab(cluster) as lab, trio.open_nursery() as nursery:
        a, _ = await lab.open("a")
        granted = await claim(a, "parts")
        key = NAMES.room("parts", "own")
        source = await cluster.owner_of(key)
        target = next(each for each in cluster.servers if each is not source)
        await cluster.begin_move(key, target)
        await cluster.ask(source, "MIGRATE", "127.0.0.1", target.port, key, 0, 60_000)
        with pytest.raises(EngineUnavailable, match="moves"):
            await a.append("parts", granted.fence, 1, 0, [event()], (), [KEY])
        results: list[object] = []

        async def append() -> None:
            while not results:
                with suppress(EngineUnavailable):
                    results.append(await a.append("parts", granted.fence, 1, 0, [event()], (), [KEY]))

        nursery.start_soon(append)
        await cluster.end_move(key, source, target)
        await until(lambda: bool(results))
        assert results == [Appended(2, 0)]
        assert [each.offset for each in await a.read_log("parts", 0, 0, 10)] == [1, 2]


@pytest.mark.integration
async def test_a_room_with_reports_is_counted_at_another_server(cluster: RedisCluster) -> None:
    async with cluster_lab(cluster) as lab:
        a, _ = await lab.open("a")
        rooms = ("1", other_server(cluster, "1"))
        for room in rooms:
            granted = await claim(a, room)
            report = OutboxItem("topic", "endpoint", "line", 1_000, b"report")
            assert await a.append(room, granted.fence, 1, 0, [event()], [report]) == Appended(2, 0)
        assert set(await a.outbox_rooms(10)) == set(rooms)
        for room in rooms:
            known = await a.owner(room)
            (item,) = await a.read_outbox(room, "", 10)
            assert known is not None
            assert await a.remove_outbox(room, known.fence, [item.id]) is None
        assert await a.outbox_rooms(10) == ()


@pytest.mark.integration
async def test_a_server_of_a_cluster_and_one_alone_are_not_taken_for_the_other(cluster: RedisCluster) -> None:
    one = RedisUrl(cluster.url.addresses[:1])
    with pytest.RaisesGroup(pytest.RaisesExc(EngineRefused, match=r"redis\+cluster"), flatten_subgroups=True):
        await RedisEngine(RedisSettings(one, links=PATIENT), "a").run(Heard())
    [found] = [each for each in await probe_server(RedisSettings(one, links=PATIENT)) if each.prevents]
    assert "redis+cluster://" in found.remedy


@pytest.mark.integration
async def test_the_rights_of_the_guide_are_enough_on_every_server(cluster: RedisCluster) -> None:
    rights = (RIGHTS + CLUSTER_RIGHTS).format("rc:").split()
    url = cluster.url._replace(user="roomcast", password="secret")
    settings = RedisSettings(url, links=PATIENT)
    async with cluster_lab(cluster), trio.open_nursery() as nursery:
        await cluster.ask_all("ACL", "SETUSER", "roomcast", "reset", "on", ">secret", *rights[:-3])
        [lacking] = [each for each in await probe_server(settings) if each.prevents]
        assert "+cluster|slots" in lacking.remedy
        await cluster.ask_all("ACL", "SETUSER", "roomcast", *rights)
        found = await probe_server(settings)
        assert [each.name for each in found if each.prevents] == []
        names = [each.name for each in found]
        assert (names.count("engine rights"), names.count("engine coverage")) == (3, 3)
        await cluster.ask_all("CONFIG", "SET", "cluster-require-full-coverage", "no")
        assert "engine coverage" not in [each.name for each in await probe_server(settings)]
        await cluster.ask_all("CONFIG", "SET", "cluster-require-full-coverage", "yes")
        engine, heard = RedisEngine(settings, "a"), Heard()
        await nursery.start(engine.run, heard)
        await engine.born(b"")
        for room in ("1", other_server(cluster, "1")):
            engine.subscribe_room(room)
            await heard.until_heard("subscribed", room)
            assert await engine.append(room, (await claim(engine, room)).fence, 1, 0, [event()]) == Appended(2, 0)
        nursery.cancel_scope.cancel()


@pytest.mark.integration
async def test_a_server_alone_is_no_cluster() -> None:
    async with redis_server("--port", "0") as server:

        async def connect(address: Address) -> trio.abc.Stream:
            return await trio.open_unix_socket(server.path)

        with pytest.raises(EngineRefused, match="no server of a Cluster"):
            await ClusterTopology([A], connect, list).run()


@pytest.mark.slow
@pytest.mark.integration
async def test_a_master_that_dies_is_replaced_by_its_replica() -> None:
    with redis_cluster("--appendonly", "yes", replicas=1) as cluster:
        settings = RedisSettings(cluster.url, node_ttl_ms=3_600_000, wait_replicas=0)
        async with trio.open_nursery() as nursery:
            engine, heard = RedisEngine(settings, "a"), Heard()
            await nursery.start(engine.run, heard)
            room = next(name for name in map(str, range(100)) if slot_of(NAMES.room(name, "own")) < SLOTS // 3)
            engine.subscribe_room(room)
            await heard.until_heard("subscribed", room)
            granted = await claim(engine, room)
            await cluster.ask(cluster.servers[0], "WAIT", 1, 60_000)
            cluster.servers[0].kill()
            await cluster.ask(cluster.servers[-1], "CLUSTER", "FAILOVER", "TAKEOVER")
            last = 1
            while last == 1:
                try:
                    assert await engine.append(room, granted.fence, 1, 0, [event()]) == Appended(2, 0)
                    last = 2
                except (EngineUnavailable, OutcomeUnknown):
                    await trio.sleep(0.05)
            await heard.until_heard("subscribed", room, times=2)
            await until(lambda: engine.status.is_up)
            assert engine.publish_room(room, b"after")
            await heard.until_heard(room, b"after")
            nursery.cancel_scope.cancel()
