"""Tenants of several nodes: one quota over all of them, and no path from one tenant to the other."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from broker import OperationError
from broker.core.tenants.names import qualify
from broker.core.tenants.quotas import TenantUse
from broker.operations.caller import Caller
from broker.operations.forwarding import NOT_YET
from broker.server import Broker
from protocol.codes import CloseCode, ErrorCode, Outcome
from protocol.messages import Auth, GoAway, Left
from protocol.operations import BY_NAME, OPERATIONS, KeyUse
from tests.support.broker import raw_link
from tests.support.nodes import NodesOfTest, both_have_rooms, running_nodes
from tests.support.tenants import backend, tenant_link, token
from tests.support.tenants_table import (
    KEY,
    OWNER,
    TENANTS,
    answer,
    has_pushed_rankings,
    heard,
    in_order,
    leave_out_times,
    memory_of,
    populate,
    push_counters_at_once,
)
from tests.support.tokens import SECRET
from tests.support.until import until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def settings(tmp_path: Path, *tenants: dict[str, Any]) -> dict[str, Any]:
    """Return settings of brokers with tenants."""
    return {"ledger": {"data_dir": str(tmp_path)}, "auth": {"secret": SECRET}, "tenants": list(tenants)}


def use_at(nodes: NodesOfTest, name: str) -> TenantUse:
    """Return what acme uses at a node."""
    use = nodes[name].broker.hub.tenants.find("acme")
    assert use is not None
    return use


def knows_one_of_each(use: TenantUse) -> bool:
    """Return whether a node knows of one connection and one room at others."""
    return use.connections_elsewhere == use.rooms_elsewhere == 1


def must_wait(use: TenantUse) -> bool:
    """Return whether the next message would be above the rate."""
    return use.message_wait_s(trio.current_time()) > 0


def have_same_lists(nodes: NodesOfTest) -> bool:
    """Return whether both nodes have read the lists of words and the hints that were put last."""
    of_a, of_b = (nodes[name].broker for name in "ab")
    lists = [broker.word_lists.of("globex") for broker in (of_a, of_b)]
    hints = [broker.hub.hints.rules("globex") for broker in (of_a, of_b)]
    return lists[0] == lists[1] and hints[0] == hints[1]


async def call(broker: Broker, name: str, *request: Any, caller: Caller | None = None) -> Any:
    """Call an operation as a backend of acme."""
    found, _ = await broker.operations.call(caller or backend("acme"), BY_NAME[name], request)
    return found


async def opens(broker: Broker, room: str) -> bool:
    """Return whether acme may open a room."""
    try:
        await call(broker, "rooms.open", room)
    except OperationError as error:
        if error.code is not ErrorCode.TOO_MANY_ROOMS_OPEN:
            raise
        return False
    return True


async def test_a_quota_of_connections_and_rooms_is_one_of_all_nodes(tmp_path: Path) -> None:
    async with running_nodes(
        "a", "b", **settings(tmp_path, {"name": "acme", "max_connections": 2, "max_rooms": 2})
    ) as nodes:
        await both_have_rooms(nodes)
        on_a, on_b = (nodes.room_on(name, qualify("acme", "live")).partition("\x1f")[2] for name in "ab")
        async with raw_link(nodes["a"].broker) as ann, raw_link(nodes["b"].broker) as ben:
            for link, user, room in ((ann, "ann", on_b), (ben, "ben", on_a)):
                await link.login(token("acme", user))
                await link.join(room)
            for name in "ab":
                await until(partial(knows_one_of_each, use_at(nodes, name)))
                async with raw_link(nodes[name].broker) as third:
                    await third.hello()
                    await third.send((Auth(token("acme", "third")), 0, 0))
                    assert (await third.expect(GoAway))[1].code == CloseCode.TOO_MANY_CONNECTIONS
                assert not await opens(nodes[name].broker, "third")
                view = (await call(nodes[name].broker, "broker.tenants", caller=backend(""))).items[0]
                assert (view.connections, view.rooms, view.is_configured) == (2, 2, True)
        # The sessions that the owners had for links of the other node are gone too.
        await until(lambda: all(use_at(nodes, name).connections_elsewhere == 0 for name in "ab"))
        assert [use_at(nodes, name).connections for name in "ab"] == [0, 0]


async def test_rooms_of_a_node_that_is_killed_go_on_within_the_quota(tmp_path: Path) -> None:
    async with running_nodes("a", "b", **settings(tmp_path, {"name": "acme", "max_rooms": 1})) as nodes:
        await both_have_rooms(nodes)
        room = nodes.room_on("a", qualify("acme", "live"))
        plain = room.partition("\x1f")[2]
        async with tenant_link(nodes["b"].broker, "acme", "ben") as ben:
            number, _ = await ben.join(plain)
            await until(lambda: use_at(nodes, "b").rooms_elsewhere == 1)
            nodes["a"].kill()
            await until(lambda: nodes.owner_of(room) is nodes["b"])
            await until(lambda: use_at(nodes, "b").rooms == 1)
            published = await call(nodes["b"].broker, "messages.publish", plain, 4, ("go on",))
            assert published.outcome is Outcome.ACCEPTED
            while True:
                frame = await ben.next_frame()
                assert frame is not None
                assert not isinstance(frame.message, Left)
                if frame.room == number and getattr(frame.message, "payload", None) == ("go on",):
                    break
            await until(lambda: use_at(nodes, "b").rooms_elsewhere == 0)
            assert not await opens(nodes["b"].broker, "another")


async def test_a_call_counts_once_whichever_nodes_answer_it(tmp_path: Path) -> None:
    async with running_nodes("a", "b", **settings(tmp_path, {"name": "acme", "messages_per_s": 1})) as nodes:
        await both_have_rooms(nodes)
        on_a, on_b = (nodes.room_on(name, qualify("acme", "live")).partition("\x1f")[2] for name in "ab")

        def calls() -> int:
            return use_at(nodes, "a").calls + use_at(nodes, "b").calls

        for name, request in (
            ("rooms.open", (on_a,)),
            ("rooms.open", (on_b,)),
            ("rooms.list", ()),
            ("users.get", ("ann",)),
            ("messages.publish_many", (((on_a, 4, ("x",)), (on_b, 4, ("y",))),)),
        ):
            before = calls()
            await call(nodes["b"].broker, name, *request)
            assert calls() == before + 1, name
        await until(lambda: use_at(nodes, "a").messages + use_at(nodes, "b").messages == 2)
        # Both messages were admitted by one node each, and take from one rate of both.
        for name in "ab":
            await until(partial(must_wait, use_at(nodes, name)))


async def test_no_operation_reaches_what_another_tenant_has(tmp_path: Path) -> None:
    """The rows of the table are called at the node that does not own what acme has, with its names."""
    answers: list[dict[str, Any]] = []
    asked = ""
    for place in ("with", "without"):
        found: dict[str, Any] = {}
        async with running_nodes("a", "b", **settings(tmp_path / place, *TENANTS)) as nodes:
            await both_have_rooms(nodes)  # no room moves from now on
            for each in nodes.by_name.values():
                push_counters_at_once(each.broker)
            async with tenant_link(nodes["a"].broker, OWNER, "ann") as ann:
                if place == "with":
                    await populate(nodes["a"].broker, OWNER)
                    await ann.join("live-1")
                    asked = "b" if nodes.owner_of(qualify(OWNER, "live-1")) is nodes["a"] else "a"
                    for each in nodes.by_name.values():
                        await until(partial(has_pushed_rankings, each.broker))
                    await heard(ann)
                for row in in_order(OPERATIONS):
                    caller = replace(backend("globex"), key=KEY if row.key is not KeyUse.NONE else "")
                    before = {each: memory_of(nodes[each].broker, OWNER) for each in "ab"}
                    request = row.example[0]
                    if row.name == "rooms.stats":
                        request = request._replace(window_s=None, seconds=None)  # rates and series are of times
                    found[row.name] = await answer(nodes[asked].broker, caller, row, request)
                    await until(partial(have_same_lists, nodes))
                    after = {each: memory_of(nodes[each].broker, OWNER) for each in "ab"}
                    assert after == before, f"{row.name} changes what {OWNER} has"
                if place == "with":
                    assert await heard(ann) == []
        leave_out_times(found)
        answers.append(found)
    assert sum(NOT_YET in repr(each) for each in answers[0].values()) < len(answers[0]) / 2
    for name, found_answer in answers[0].items():
        assert found_answer == answers[1][name], f"{name} shows what {OWNER} has"
