"""The broker's log is cut at checkpoints, and what holds on every node goes on to hold."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from broker import OperationError
from broker.engine.memory import MemoryFaults, RequestFault
from broker.rooms import log_checkpoints
from broker.rooms.broker_log import BROKER_LOG
from protocol.messages import Direct
from tests.support.broker import raw_link
from tests.support.nodes import NodesOfTest, running_nodes
from tests.support.until import until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let checkpoints be due early, in many parts, and the log be cut at once."""
    monkeypatch.setattr(log_checkpoints, "MIN_BYTES", 2000)
    monkeypatch.setattr(log_checkpoints, "PART_BYTES", 100)
    monkeypatch.setattr(log_checkpoints, "CUT_AFTER_S", 0.0)


def first_fact(nodes: NodesOfTest) -> int:
    """Return the number of the first fact that the engine has of the broker's log."""
    facts = nodes.data.read_facts(BROKER_LOG, 0, 1)
    return facts[0].fact if facts else 0


async def cut(nodes: NodesOfTest, node: str) -> None:
    """Change what holds on every node until the log is cut once more."""
    before = max(first_fact(nodes), 1)
    while first_fact(nodes) == before or first_fact(nodes) == 1:
        await nodes[node].broker.call("directs.send", user="other", type=4, payload=["x" * 450])


async def change(nodes: NodesOfTest, node: str) -> None:
    """Mute two users and let one of them go, revoke tokens, send messages with keys."""
    broker = nodes[node].broker
    await broker.call("moderation.mute", room=None, user="ben", seconds=600)
    lifted = await broker.call("moderation.mute", room=None, user="cai", seconds=600)
    await broker.call("moderation.undo", action=lifted.action)
    await broker.call("users.revoke", user="eve")
    for number in range(5):
        await broker.call("directs.send", user="dan", type=4, payload=[str(number)], idempotency_key=f"k{number}")


async def holds(nodes: NodesOfTest, node: str) -> None:
    """Check on a node what `change` has done."""
    broker = nodes[node].broker
    assert "ben" in broker.hub.sanctions.mutes
    assert "cai" not in broker.hub.sanctions.mutes
    assert broker.revocations.is_revoked("", "eve", 1)
    async with raw_link(broker) as dan:
        await dan.login("dev:dan")
        for number in range(5):
            assert (await dan.expect(Direct))[1].payload == (str(number),)


async def test_a_node_that_starts_after_the_log_was_cut_knows_what_holds(tmp_path: Path) -> None:
    async with running_nodes("a", "b", ledger={"data_dir": str(tmp_path)}) as nodes:
        await change(nodes, "a")
        await cut(nodes, "b")
        await cut(nodes, "a")
        await nodes.start("c")
        await holds(nodes, "c")
        for name in "ab":
            nodes[name].kill()
        await until(lambda: nodes.owner_of(BROKER_LOG) is nodes["c"])
        await cut(nodes, "c")
        await nodes.start("d")
        await holds(nodes, "d")
        again = await nodes["d"].broker.call("directs.send", user="dan", type=4, payload=["0"], idempotency_key="k0")
        more = await nodes["d"].broker.call("directs.send", user="dan", type=4, payload=["5"], idempotency_key="k5")
        assert (again.id, more.id) == (1, 6)


async def test_a_node_that_was_away_until_the_log_was_cut_knows_what_holds(tmp_path: Path) -> None:
    async with running_nodes("a", "b", ledger={"data_dir": str(tmp_path)}) as nodes:
        await nodes["a"].broker.call("moderation.mute", room=None, user="cai", seconds=600)
        await until(lambda: all("cai" in nodes[name].broker.hub.sanctions.mutes for name in "ab"))
        owner, away = ("a", "b") if nodes.owner_of(BROKER_LOG) is nodes["a"] else ("b", "a")
        nodes[away].engine.faults = MemoryFaults(
            lambda name: RequestFault.LOST if name == "read_facts" else RequestFault.NONE
        )
        with suppress(OperationError):  # the node that is away does not have it
            await change(nodes, owner)
        with suppress(OperationError):
            await nodes[owner].broker.call("moderation.unmute", room=None, user="cai")
        await cut(nodes, owner)
        assert "cai" in nodes[away].broker.hub.sanctions.mutes
        nodes[away].engine.faults = MemoryFaults()
        await until(lambda: "ben" in nodes[away].broker.hub.sanctions.mutes)
        assert "cai" not in nodes[away].broker.hub.sanctions.mutes


async def test_a_log_that_the_engine_has_lost_with_its_owner_is_written_again_by_the_next_one(tmp_path: Path) -> None:
    async with running_nodes("a", "b", ledger={"data_dir": str(tmp_path)}) as nodes:
        await change(nodes, "a")
        owner = nodes.owner_of(BROKER_LOG)
        assert owner is not None
        other = "b" if owner is nodes["a"] else "a"
        last = nodes.data.read_facts(BROKER_LOG, 0, 1000)[-1].fact
        await until(lambda: nodes[other].broker.ledger.broker_log.fact == last)  # type: ignore[union-attr]
        owner.kill()
        nodes.data.flush()
        await until(lambda: nodes[other].broker.ledger.broker_log.has_lost)  # type: ignore[union-attr]
        await until(lambda: nodes.owner_of(BROKER_LOG) is nodes[other])
        await nodes.start("c")
        await holds(nodes, "c")


async def test_a_log_that_the_engine_has_lost_is_written_again_from_the_copy_of_its_owner(tmp_path: Path) -> None:
    async with running_nodes("a", "b", ledger={"data_dir": str(tmp_path)}) as nodes:
        await change(nodes, "a")
        nodes.data.flush()
        await until(lambda: bool(nodes.data.read_facts(BROKER_LOG, 0, 1)))
        await nodes.start("c")
        await holds(nodes, "c")
        await nodes["b"].broker.call("moderation.mute", room=None, user="fay", seconds=600)
        assert all("fay" in nodes[name].broker.hub.sanctions.mutes for name in "abc")
        await holds(nodes, "a")
