"""Several nodes with a key file: what people wrote is nowhere in the engine, and each node with the keys reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.engine.base import EngineRefused
from broker.ledger.key_file import rotate_key_file
from protocol.codes import MessageType
from protocol.messages import Direct
from tests.support.broker import raw_link
from tests.support.ledger_keys import key_file
from tests.support.nodes import NodesOfTest, running_nodes
from tests.support.until import until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PLANTED = "secret-text"


def settings(tmp_path: Path, file: Path | None) -> dict[str, Any]:
    return {"ledger": {"data_dir": str(tmp_path / "data")} | ({} if file is None else {"key_file": str(file)})}


async def plant(nodes: NodesOfTest, room: str) -> None:
    """Write a text into a room, an inbox and a list of words, over the node b."""
    b = nodes["b"].broker
    await b.call("messages.publish", room=room, type=MessageType.ANNOUNCEMENT, payload=[f"{PLANTED} 1"])
    await b.call("directs.send", user="ann", type=MessageType.ANNOUNCEMENT, payload=[f"{PLANTED} 2"])
    await b.call("moderation.put_list", name="own", words=[f"{PLANTED} 3"], action="block")


async def texts_of(nodes: NodesOfTest, name: str, room: str) -> set[str]:
    """Return what a node shows of what was planted."""
    broker = nodes[name].broker
    history = await broker.call("rooms.history", room=room)
    found = {each.payload[0] for each in history.items if each.type == MessageType.ANNOUNCEMENT}
    found.update((await broker.call("moderation.get_list", name="own")).words)
    async with raw_link(broker) as ann:
        await ann.login("dev:ann")
        found.add((await ann.expect(Direct))[1].payload[0])
    return found


ALL = {f"{PLANTED} {number}" for number in (1, 2, 3)}


@pytest.mark.parametrize("is_encrypted", [True, False])
async def test_nothing_that_was_written_is_in_the_engine_and_the_next_owner_reads_it(
    tmp_path: Path, is_encrypted: bool
) -> None:
    file = key_file(tmp_path / "ledger.key", "first") if is_encrypted else None
    async with running_nodes("a", "b", **settings(tmp_path, file)) as nodes:
        await until(lambda: all(len(nodes[name].nodes.others_alive()) == 1 for name in "ab"))
        room = nodes.room_on("a")
        await plant(nodes, room)
        assert (PLANTED in repr(vars(nodes.data))) is not is_encrypted
        nodes["a"].kill()
        await until(lambda: nodes.owner_of("\0broker") is nodes["b"])
        assert await texts_of(nodes, "b", room) == ALL
        assert nodes.owner_of(room) is nodes["b"]


async def test_a_node_reads_its_file_again_for_a_key_that_another_was_given_first(tmp_path: Path) -> None:
    file = key_file(tmp_path / "ledger.key", "first")
    async with running_nodes("a", "b", **settings(tmp_path, file)) as nodes:
        await until(lambda: all(len(nodes[name].nodes.others_alive()) == 1 for name in "ab"))
        owner = nodes.owner_of("\0broker")
        assert owner is not None
        new = rotate_key_file(file)
        owner.broker.ledger.use_keys(new)  # type: ignore[union-attr]
        await plant(nodes, nodes.room_on("a"))
        for node in nodes.by_name.values():
            assert node.broker.ledger is not None
            await until(lambda ledger=node.broker.ledger: new.current.id in ledger.other_keys)  # type: ignore[misc]


async def start_with_other_keys(tmp_path: Path) -> None:
    """Start a node, and another whose key file has another key."""
    file = key_file(tmp_path / "ledger.key", "first")
    async with running_nodes("a", **settings(tmp_path, file)) as nodes:
        await nodes["a"].broker.call(
            "directs.send", user="ann", type=MessageType.ANNOUNCEMENT, payload=[f"{PLANTED} 2"]
        )
        key_file(file, "another")
        await nodes.start("b")


async def test_a_node_without_the_keys_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        await start_with_other_keys(tmp_path)
    refusal = caught.value.subgroup(EngineRefused)
    assert refusal is not None
    assert "is encrypted with key" in repr(refusal)
    assert "put the right file, or the key, back" in repr(refusal)
