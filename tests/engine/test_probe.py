"""The look at a server before a broker uses it: every reason not to start is found, with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.config.engine import EngineConfig
from broker.config.redis_url import parse_url
from broker.engine.configured import engine_of, redis_settings
from broker.engine.durability import durability_problem, facts_of, server_problem
from broker.engine.probe import RIGHTS, UNREACHABLE, ServerFinding, probe_server
from broker.engine.redis_settings import RedisSettings
from tests.support.redis_server import PATIENT, redis_server


def info(**values: object) -> bytes:
    return "\r\n".join(f"{name}:{value}" for name, value in {"redis_version": "7.0.15", **values}.items()).encode()


def prevents(found: list[ServerFinding]) -> list[str]:
    return [each.name for each in found if each.prevents]


def test_servers_that_cannot_carry_an_engine() -> None:
    old = server_problem(facts_of(info(redis_version="6.2.7"), {}), allow_eviction=False)
    assert old is not None
    assert "6.2.7" in old.detail
    cluster = server_problem(facts_of(info(cluster_enabled=1), {}), allow_eviction=False)
    assert cluster is not None
    assert "Cluster" in cluster.detail
    drops = facts_of(info(maxmemory_policy="allkeys-lru"), {})
    lru = server_problem(drops, allow_eviction=False)
    assert lru is not None
    assert "noeviction" in lru.remedy
    assert server_problem(drops, allow_eviction=True) is None
    assert server_problem(facts_of(info(valkey_version="8.1.0"), {}), allow_eviction=False) is None


@pytest.mark.parametrize(
    ("has_aof", "fsync", "wanted", "is_enough"),
    [
        (0, "", "any", True),
        (0, "everysec", "everysec", False),
        (1, "everysec", "everysec", True),
        (1, "always", "everysec", True),
        (1, "everysec", "always", False),
        (1, "no", "everysec", False),
        (1, "no", "any", True),
        (1, "", "always", True),  # it may not be asked: the operator is believed
    ],
)
def test_what_a_server_must_promise(has_aof: int, fsync: str, wanted: str, is_enough: bool) -> None:
    facts = facts_of(info(aof_enabled=has_aof), {b"appendfsync": fsync.encode()} if fsync else {})
    assert (durability_problem(facts, wanted) is None) is is_enough


def test_settings_of_a_configuration() -> None:
    assert engine_of(EngineConfig()) is None
    config = EngineConfig(url="redis://me@h", password="p", node="live3", log_events=500, wait_replicas=1)
    settings = redis_settings(config)
    assert settings.url == parse_url("redis://me:p@h")
    assert (settings.log_length, settings.wait_replicas) == (500, 1)
    engine = engine_of(config)
    assert engine is not None
    assert engine.node == "live3"
    assert "'p'" not in repr(settings)


async def test_a_server_that_is_not_there_is_named_with_how_to_get_one() -> None:
    [found] = await probe_server(RedisSettings(parse_url("unix:///nowhere/at/all")))
    assert (found.name, found.prevents) == (UNREACHABLE, True)
    assert "unix:/nowhere/at/all" in found.detail
    assert "apt install redis-server" in found.remedy


@pytest.mark.integration
async def test_a_server_as_it_should_be() -> None:
    async with redis_server("--appendonly", "yes") as server:
        found = await probe_server(RedisSettings(server.url, durability="everysec", links=PATIENT))
        assert [(each.name, each.remedy) for each in found] == [
            ("engine", ""), ("engine durability", ""), ("engine rights", "")
        ]  # fmt: skip
        assert await server.ask("DBSIZE") == 0  # it has removed what it wrote


@pytest.mark.integration
async def test_a_server_that_keeps_nothing_is_said_and_prevents_only_where_more_is_wanted() -> None:
    async with redis_server() as server:
        found = await probe_server(RedisSettings(server.url, links=PATIENT))
        assert prevents(found) == []
        assert "appendonly yes" in found[1].remedy
        assert prevents(await probe_server(RedisSettings(server.url, durability="everysec", links=PATIENT))) == [
            "engine durability"
        ]


@pytest.mark.integration
@pytest.mark.parametrize("may_see", [False, True])
async def test_a_durability_that_the_user_may_not_see_is_said(may_see: bool) -> None:
    async with redis_server("--appendonly", "yes", "--appendfsync", "always") as server:
        rights = RIGHTS.format("rc:").split()
        await server.ask("ACL", "SETUSER", "roomcast", "on", ">secret", *(rights if may_see else rights[:-1]))
        url = server.url._replace(user="roomcast", password="secret")
        found = await probe_server(RedisSettings(url, durability="always", links=PATIENT))
        assert prevents(found) == []
        assert [finding.name for finding in found if finding.remedy] == ([] if may_see else ["engine durability"])
        assert ("+config|get" in found[1].remedy) is not may_see


@pytest.mark.integration
async def test_missing_rights_and_a_wrong_password_are_named(tmp_path: Path) -> None:
    async with redis_server() as server:
        rights = "~rc:* &rc:* +@read +@write +@pubsub +@scripting +@connection -@dangerous +info +wait"  # no TIME
        await server.ask("ACL", "SETUSER", "roomcast", "on", ">secret", *rights.split())
        url = server.url._replace(user="roomcast", password="secret")
        found = await probe_server(RedisSettings(url, links=PATIENT))
        assert prevents(found) == ["engine rights"]
        assert "take a room" in found[-1].detail
        assert "ACL SETUSER roomcast" in found[-1].remedy
        [wrong] = await probe_server(RedisSettings(url._replace(password="other-one"), links=PATIENT))
        assert wrong.prevents
        assert "WRONGPASS" in wrong.detail
        assert "other-one" not in str(wrong)


def test_a_tilde_in_the_name_of_a_certificate_is_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert redis_settings(EngineConfig(url="rediss://h", tls_ca_file="~/ca.pem")).tls_ca == "/home/ann/ca.pem"
