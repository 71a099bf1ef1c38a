"""The Redis engine beside what every engine promises: a real server that is killed, changed and full."""

from __future__ import annotations

import pytest
import trio

from broker.config.redis_url import RedisUrl, parse_url
from broker.engine.base import (
    Appended,
    EngineLinkState,
    EngineRefused,
    EngineUnavailable,
    KeyWrite,
    LogItem,
    OutcomeUnknown,
)
from broker.engine.redis import RedisEngine
from broker.engine.redis_settings import RedisSettings
from tests.support.engines import Heard, claim, event
from tests.support.redis_server import PATIENT, redis_lab, redis_server

pytestmark = pytest.mark.integration


async def test_what_was_acknowledged_survives_a_kill_of_the_server_and_nodes_go_on() -> None:
    async with redis_lab("--appendonly", "yes", "--appendfsync", "always") as lab:
        a, heard = await lab.open("a")
        a.subscribe_room("room")
        await heard.until_heard("subscribed", "room")
        granted = await claim(a, "room")
        key = KeyWrite(b"k" * 16, b"f" * 8, 3_600_000)
        assert await a.append("room", granted.fence, 1, 0, [event(b"kept")], (), [key]) == Appended(2, 0)
        await lab.server.kill()
        await heard.until_heard(EngineLinkState.DOWN)
        with pytest.raises((EngineUnavailable, OutcomeUnknown)):
            await a.append("room", granted.fence, 2, 0, [event()])
        await lab.server.start()
        await heard.until_heard(EngineLinkState.UP, times=2)
        await heard.until_heard("subscribed", "room", times=2)
        assert [each.body for each in await a.read_log("room", 0, 0, 10)] == [b"marker", b"kept"]
        assert set(await a.known_keys("room", [key.digest])) == {key.digest}
        assert await a.append("room", granted.fence, 2, 0, [event()]) == Appended(3, 0)


async def test_a_request_that_was_sent_to_a_server_that_dies_has_an_unknown_outcome() -> None:
    async with redis_lab() as lab, trio.open_nursery() as nursery:
        a, heard = await lab.open("a")
        granted = await claim(a, "room")
        await lab.server.ask("CLIENT", "PAUSE", 600_000, "WRITE")

        async def ask() -> None:
            with pytest.raises(OutcomeUnknown):
                await a.append("room", granted.fence, 1, 0, [event()])

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked(0.05)
        await lab.server.kill()
        await heard.until_heard(EngineLinkState.DOWN)


async def test_scripts_that_the_server_has_forgotten_are_sent_again() -> None:
    async with redis_lab() as lab:
        a, _ = await lab.open("a")
        granted = await claim(a, "room")
        await lab.server.ask("SCRIPT", "FLUSH", "SYNC")
        assert await a.append("room", granted.fence, 1, 0, [event()]) == Appended(2, 0)
        assert await a.append("room", granted.fence, 2, 0, [event()]) == Appended(3, 0)


async def test_a_cancelled_request_leaves_the_answers_of_the_others_in_place() -> None:
    async with redis_lab() as lab:
        a, _ = await lab.open("a")
        await claim(a, "room")
        for _ in range(50):
            with trio.CancelScope() as scope:
                scope.cancel()
                await a.owner("nowhere")
            found = await a.owner("room")
            assert found is not None


async def test_storms_of_disconnections_leave_a_log_without_hole_or_repetition() -> None:
    async with redis_lab() as lab:
        a, heard = await lab.open("a")
        granted = await claim(a, "room")
        last, storms = 1, 0
        while last < 200:
            if last % 20 == 0 and storms < last // 20:
                storms += 1
                await lab.server.disconnect()
            try:
                result = await a.append("room", granted.fence, last, 0, [event(b"%d" % (last + 1))])
                assert result == Appended(last + 1, 0)
                last += 1
            except (EngineUnavailable, OutcomeUnknown):
                found = None
                while found is None:
                    try:
                        found = await a.owner("room")
                    except (EngineUnavailable, OutcomeUnknown):
                        await trio.sleep(0.01)
                last = found.last_offset
        bodies = [each.body for each in await a.read_log("room", granted.fence, 1, 1000)]
        assert bodies == [b"%d" % number for number in range(2, last + 1)]
        assert heard.calls.count((EngineLinkState.DOWN,)) >= 1


async def test_a_server_that_drops_keys_when_it_is_full_is_refused() -> None:
    async with redis_server("--maxmemory-policy", "allkeys-lru") as server:
        with pytest.RaisesGroup(
            pytest.RaisesExc(EngineRefused, match="maxmemory-policy noeviction"), flatten_subgroups=True
        ):
            await RedisEngine(RedisSettings(server.url, links=PATIENT), "a").run(Heard())
        async with trio.open_nursery() as nursery:
            allowed = RedisEngine(RedisSettings(server.url, links=PATIENT, allow_eviction=True), "a")
            await nursery.start(allowed.run, Heard())
            assert allowed.status.is_up
            nursery.cancel_scope.cancel()


async def test_a_wrong_password_is_refused_without_naming_it() -> None:
    async with redis_server("--requirepass", "right") as server:
        wrong = server.url._replace(password="wrong-one")
        with pytest.RaisesGroup(pytest.RaisesExc(EngineRefused, match="WRONGPASS"), flatten_subgroups=True) as caught:
            await RedisEngine(RedisSettings(wrong, links=PATIENT), "a").run(Heard())
        assert "wrong-one" not in repr(caught.value)
        async with trio.open_nursery() as nursery:
            engine = RedisEngine(RedisSettings(server.url._replace(password="right"), links=PATIENT), "a")
            await nursery.start(engine.run, Heard())
            nursery.cancel_scope.cancel()


async def test_the_rights_of_the_guide_are_enough() -> None:
    rights = "~rc:* &rc:* +@read +@write +@pubsub +@scripting +@connection -@dangerous +info +wait +time"
    async with redis_server() as server:
        assert await server.ask("ACL", "SETUSER", "roomcast", "on", ">secret", *rights.split()) == b"OK"
        url = server.url._replace(user="roomcast", password="secret")
        async with trio.open_nursery() as nursery:
            engine, heard = RedisEngine(RedisSettings(url, links=PATIENT), "a"), Heard()
            await nursery.start(engine.run, heard)
            await engine.born(b"")
            granted = await claim(engine, "room")
            assert await engine.append("room", granted.fence, 1, 0, [event()]) == Appended(2, 0)
            engine.subscribe_room("room")
            await heard.until_heard("subscribed", "room")
            assert engine.publish_room("room", b"x")
            await heard.until_heard("room", b"x")
            assert "appendfsync" not in engine.status.reason
            nursery.cancel_scope.cancel()


async def test_an_append_that_too_few_replicas_have_is_not_acknowledged() -> None:
    async with redis_lab() as lab:
        settings = lab.settings
        waiting = RedisEngine(RedisSettings(settings.url, wait_replicas=1, wait_timeout_s=0.01, links=PATIENT), "a")
        async with trio.open_nursery() as nursery:
            await nursery.start(waiting.run, Heard())
            granted = await claim(waiting, "room")
            with pytest.raises(OutcomeUnknown, match="1 replicas"):
                await waiting.append("room", granted.fence, 1, 0, [event()])
            assert "0 replicas are connected" in waiting.status.reason
            nursery.cancel_scope.cancel()


async def test_a_log_keeps_about_its_length() -> None:
    async with redis_server() as server, trio.open_nursery() as nursery:
        engine = RedisEngine(RedisSettings(server.url, log_length=300, links=PATIENT), "a")
        await nursery.start(engine.run, Heard())
        granted = await claim(engine, "room")
        for turn in range(10):
            items = [LogItem(0, 3, 1, b"x")] * 100
            assert await engine.append("room", granted.fence, 1 + turn * 100, 0, items) == Appended(101 + turn * 100, 0)
        assert 300 <= len(await engine.read_log("room", 0, 0, 5000)) <= 500
        nursery.cancel_scope.cancel()


def test_urls() -> None:
    assert parse_url("redis://host") == RedisUrl((("host", 6379),))
    assert parse_url("rediss://u:p%40@[::1]:7000/3") == RedisUrl(
        (("::1", 7000),), user="u", password="p@", database=3, is_tls=True
    )
    assert parse_url("unix:///run/redis.sock?db=2") == RedisUrl((), path="/run/redis.sock", database=2)
    assert parse_url("sentinel://:p@a,b:1/main") == RedisUrl((("a", 26379), ("b", 1)), service="main", password="p")
    assert str(parse_url("rediss://u:secret@host/1")) == "rediss://host:6379/1"
    assert "secret" not in repr(parse_url("redis://u:secret@host"))


@pytest.mark.parametrize(
    "text",
    ["", "host", "http://host", "redis://", "redis://a:b:c", "redis://a:0", "redis://a/x", "redis://a,b", "sentinel://a",
     "unix://x", "redis://u:secret@h:99999"],
)  # fmt: skip
def test_a_wrong_url_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(ValueError, match=r"URL|Sentinels") as caught:
        parse_url(text)
    assert "secret" not in str(caught.value)
