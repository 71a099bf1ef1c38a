"""A broker is whole after its constructor: what it says of itself does not need `run`."""

from __future__ import annotations

import errno
import resource
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio

from broker.core.limits.overload import OverloadStage
from broker.core.rooms.policies import policy_from
from broker.net.descriptors import MAX_DESCRIPTORS, connection_limit
from broker.rooms.room import Room
from broker.server import Broker
from broker.telemetry.metrics import METRICS, collect
from protocol.codes import CloseCode, ErrorCode, Feature, Outcome, Tier
from protocol.messages import MAGIC, Ack, AckResult, ClientHello, ErrorReply, Join
from tests.support.broker import configuration, joined_link, raw_link, running_broker


@pytest.mark.parametrize("is_durable", [False, True])
async def test_a_broker_has_stats_and_a_status_before_it_runs(tmp_path: Path, is_durable: bool) -> None:
    ledger = {"data_dir": str(tmp_path / "data")} if is_durable else {}
    broker = Broker(configuration(ledger=ledger))
    stats = broker.stats()
    assert (stats.connections, stats.rooms, stats.posts, stats.stage) == (0, 0, 0, OverloadStage.NORMAL)
    assert stats.balanced
    assert [metric for metric, _ in collect(broker)] == list(METRICS)
    _, words = broker.status()
    assert words["stage"] == 0
    assert (broker.inboxes is not None) == is_durable
    broker.poller.close()
    assert not (tmp_path / "data").exists(), "the constructor touches no disk"


async def test_tls_files_that_cannot_be_used_are_an_error_of_the_constructor(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    with pytest.raises(OSError, match="SSL"):
        Broker(configuration(listen={"tls_cert": str(empty), "tls_key": str(empty)}))


def limits(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, *, can_raise: bool = True) -> list[tuple[int, int]]:
    """Replace the process's limits of descriptors; returns what is set."""
    changed: list[tuple[int, int]] = []

    def change(_: int, wanted: tuple[int, int]) -> None:
        if not can_raise:
            raise ValueError("not allowed to raise maximum limit")
        changed.append(wanted)

    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", change)
    return changed


@pytest.mark.parametrize(
    ("soft", "hard", "admission", "expected"),
    [
        (1024, 4096, {}, 4096 - 256),
        (4096, 4096, {"max_connections": 100}, 100),
        (276, 276, {"max_connections": 20}, 20),
        (1024, resource.RLIM_INFINITY, {}, MAX_DESCRIPTORS - 256),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, {"max_connections": 500}, 500),
        (320, 320, {}, 64),
        (100, 100, {"descriptor_reserve": 36}, 64),
        (500, 500, {"max_connections": 5000}, 244),
    ],
)
def test_as_many_connections_as_the_descriptors_allow(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, admission: dict[str, int], expected: int
) -> None:
    changed = limits(monkeypatch, soft, hard)
    with structlog.testing.capture_logs() as lines:
        assert connection_limit(configuration(admission=admission)) == expected
    assert changed == ([(hard, hard)] if soft != hard else [])
    wanted = admission.get("max_connections", 1000)
    assert [line["event"] for line in lines] == (["few file descriptors"] if expected < wanted else [])


@pytest.mark.parametrize(("descriptors", "admission"), [(319, {}), (275, {"max_connections": 20}), (20, {})])
def test_with_too_few_descriptors_a_broker_does_not_serve(
    monkeypatch: pytest.MonkeyPatch, descriptors: int, admission: dict[str, int]
) -> None:
    limits(monkeypatch, descriptors, descriptors)
    with pytest.raises(OSError, match=f"{descriptors} file descriptors are too few") as refused:
        Broker(configuration(admission=admission))
    assert refused.value.errno == errno.EMFILE


def test_a_hard_limit_that_cannot_be_reached_leaves_the_soft_one(monkeypatch: pytest.MonkeyPatch) -> None:
    limits(monkeypatch, 2000, resource.RLIM_INFINITY, can_raise=False)
    assert connection_limit(configuration()) == 2000 - 256


@pytest.mark.integration
async def test_limits_of_connections_and_rooms_are_reloaded_and_the_log_names_what_is_not() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:ann") as (ann, _):
        limits = {"max_rooms": 1, "max_viewers": 1, "reopen_ended_s": 5.0, "policy": "off"}
        with structlog.testing.capture_logs() as lines:
            for_restart = broker.reload(configuration(room=limits, admission={"per_address": 1}))
        assert for_restart == ["room.reopen_ended_s", "room.policy"]
        events = {line["event"]: line for line in lines}
        assert events["settings that need a restart"]["settings"] == for_restart
        assert events["configuration reloaded"]["changed"] == [
            "admission.per_address", "room.max_rooms", "room.max_viewers",
        ]  # fmt: skip
        await ann.send((Join("another", Tier.FULL), 0, 2))
        assert (await ann.expect(ErrorReply))[1].code == ErrorCode.TOO_MANY_ROOMS_OPEN
        async with raw_link(broker) as bob:
            await bob.send((ClientHello(MAGIC, 1, 1), 0, 0))
            assert (await bob.expect_close()).code == CloseCode.TOO_MANY_FROM_ADDRESS
        broker.reload(configuration(room={"max_viewers": 1}))
        async with raw_link(broker) as bob:
            await bob.login("dev:bob")
            await bob.send((Join("lobby", Tier.FULL), 0, 1))
            assert (await bob.expect(ErrorReply))[1].code == ErrorCode.ROOM_FULL


@pytest.mark.integration
async def test_limits_of_messages_are_reloaded_for_open_rooms_and_each_change_is_reported_once() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:ann") as (_, number):
        room = broker.hub.room(number)
        assert room is not None
        room.set_rules({"tick_ms": 500, "tick_max_ms": 700})
        slower = configuration(room={"user_chat_per_s": 0.25, "tick_ms": 200, "tick_max_ms": 600, "history_s": 9.0})
        with structlog.testing.capture_logs() as lines:
            assert broker.reload(slower) == ["room.history_s"]
            assert broker.reload(slower) == ["room.history_s"]
        reported = [line["changed"] for line in lines if line["event"] == "configuration reloaded"]
        assert reported == [["room.tick_ms", "room.tick_max_ms", "room.user_chat_per_s"], []]
        assert (room.state.policy.user_chat.per_s, room.state.policy.tick_ms) == (0.25, 500)
        assert (broker.config.room.tick_ms, broker.config.room.policy) == (200, "roomcast")
        room.set_rules({"tick_ms": None, "tick_max_ms": None})
        assert (room.state.policy.tick_ms, room.state.policy.tick_max_ms) == (200, 600)


@pytest.mark.integration
async def test_a_policy_is_reloaded_by_name_for_open_rooms_and_later_ones() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:ann") as (_, number):
        room = broker.hub.room(number)
        assert room is not None
        room.set_rules({"user_chat_per_s": 0.5})
        assert broker.reload(configuration(room={"policy": "goim"})) == []
        assert room.state.policy.name == "goim"
        assert (room.state.policy.user_chat.per_s, room.state.has_batches) == (0.5, True)
        later = broker.hub.open("later")
        assert isinstance(later, Room)
        assert later.state.policy == policy_from("goim")
        assert broker.reload(configuration(room={"policy": "off", "max_viewers": 7})) == ["room.policy"]
        assert (later.state.policy.name, broker.config.room.policy, broker.context.max_viewers) == ("goim", "goim", 7)
        assert broker.reload(configuration(room={"policy": "roomcast", "compress": False})) == ["room.compress"]
        assert later.state.policy == policy_from("roomcast")
        assert broker.context.features & Feature.LZ4


@pytest.mark.integration
async def test_ticks_of_rooms_do_not_begin_while_the_broker_runs() -> None:
    async with running_broker(room={"policy": "off"}) as broker:
        before = broker.config
        with pytest.raises(ValueError, match=r"room\.tick_ms"):
            broker.reload(configuration(room={"policy": "off", "tick_ms": 100, "max_viewers": 9}))
        assert (broker.config, broker.context.max_viewers) == (before, 0)


@pytest.mark.integration
async def test_a_busy_machine_is_no_overload_of_a_broker_in_a_test_and_a_refused_join_fails_at_once() -> None:
    async with running_broker() as broker, raw_link(broker) as link:
        assert broker.loop_monitor.overload_lag_s(0.4) == 0.0
        await link.login("dev:ann")
        broker.hub.set_stage(OverloadStage.REFUSE_JOINS)
        with trio.fail_after(5), pytest.raises(AssertionError, match=r"lobby cannot be joined.*takes no more viewers"):
            await link.join()


@pytest.mark.integration
async def test_message_types_are_reloaded_for_open_rooms_and_links() -> None:
    def types(*entries: tuple[int, str, str, tuple[str, ...]]) -> list[dict[str, Any]]:
        return [{"id": id, "name": name, "lane": lane, "roles": list(roles)} for id, name, lane, roles in entries]

    before = types((200, "vote", "chat", ("viewer",)), (201, "wave", "commerce", ("viewer",)))
    after = types((200, "vote", "commerce", ("host",)), (202, "clap", "commerce", ("viewer",)))
    async with running_broker(types=before) as broker, joined_link(broker, "dev:ann") as (ann, room):

        async def outcome(number: int, kind: int) -> AckResult:
            await ann.post(room, number, kind, ("x",))
            while not (results := (await ann.expect(Ack))[1].results):
                pass
            return results[0]

        assert (await outcome(1, 201)).outcome is Outcome.ACCEPTED
        assert broker.reload(configuration(types=after)) == []
        refused = [(await outcome(number, kind)).detail for number, kind in ((2, 200), (3, 201))]
        assert refused == [ErrorCode.NOT_ALLOWED, ErrorCode.UNKNOWN_TYPE]
        assert (await outcome(4, 202)).outcome is Outcome.ACCEPTED, "in the open room, by the open link"
        assert broker.reload(configuration(types=before)) == []
        assert [(await outcome(number, kind)).outcome for number, kind in ((5, 201), (6, 202))] == [
            Outcome.ACCEPTED, Outcome.REJECTED,
        ]  # fmt: skip
        assert [each.name for each in broker.context.hello(0).types] == ["vote", "wave"]
        async with joined_link(broker, "dev:max:host", "later") as (host, later):
            await host.post(later, 1, 202, ("x",))
            while not (results := (await host.expect(Ack))[1].results):
                pass
            assert results[0].detail == ErrorCode.UNKNOWN_TYPE
