"""A broadcast over nodes: each node sends it to its own rooms, and any of them has the state of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from broker import OperationError
from broker.core.nodes.membership import LEASE_S
from broker.operations.caller import Caller
from broker.operations.forwarding import BROADCAST
from protocol.codes import ErrorCode, MessageType, Role
from protocol.messages import Tick
from protocol.operations import BY_NAME
from tests.support.broker import joined_link
from tests.support.nodes import NodesOfTest, running_nodes
from tests.support.until import until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

MESSAGE: dict[str, Any] = {"type": MessageType.ANNOUNCEMENT, "payload": ["全场直播"]}


async def state_of(nodes: NodesOfTest, node: str) -> Any:  # Any: the record of the operation
    """Return the state of the broadcast once it is done."""
    while not (state := await nodes[node].broker.call("messages.broadcast_state", id="welcome")).done:  # noqa: ASYNC110 - a call has no events
        await trio.sleep(0.01)
    return state


async def test_a_broadcast_reaches_the_rooms_of_all_nodes_once(tmp_path: Path) -> None:
    async with running_nodes("a", "b", ledger={"data_dir": str(tmp_path)}) as nodes:
        tables = [node.nodes.owners.table for node in nodes.by_name.values()]
        await until(lambda: all(len(table.settled(trio.current_time(), LEASE_S)) == 2 for table in tables))
        first, second = nodes.room_on("a"), nodes.room_on("b")
        for room in (first, second):
            await nodes["a"].broker.call("rooms.open", room=room)
        assert (nodes.owner_of(first), nodes.owner_of(second)) == (nodes["a"], nodes["b"])
        for asked in "ab":
            started = await nodes[asked].broker.call("messages.broadcast", pattern="live-*", id="welcome", **MESSAGE)
            assert started == ("welcome", 2)
        for asked in "ab":
            assert (await state_of(nodes, asked))[:4] == ("welcome", 2, 2, 0)
        for room in (first, second):
            history = await nodes["a"].broker.call("rooms.history", room=room)
            assert [item.payload for item in history.items] == [("全场直播",)]

        named = await nodes["b"].broker.call("messages.broadcast", rooms=[first, "closed"], id="named", **MESSAGE)
        assert named == ("named", 1)
        with pytest.raises(OperationError) as unknown:
            await nodes["b"].broker.call("messages.broadcast_state", id="unknown")
        assert (unknown.value.code, unknown.value.field) == (ErrorCode.BAD_FIELD, "id")
        with pytest.raises(OperationError) as unnamed:
            await nodes["b"].broker.call("messages.broadcast", pattern="live-*", **MESSAGE)
        assert (unnamed.value.code, unnamed.value.field) == (ErrorCode.BAD_FIELD, "id")
        operations = nodes["b"].broker.operations
        of_one_room = Caller("app", "app", "", lambda room: Role.APP, frozenset({Role.APP}), in_all_rooms=False)
        arguments = {"pattern": "live-*", "id": "wide", **MESSAGE}
        with pytest.raises(OperationError) as wide:
            await operations.call(of_one_room, BY_NAME[BROADCAST], arguments)
        assert (wide.value.code, wide.value.field) == (ErrorCode.BAD_FIELD, "pattern")


async def test_chat_that_is_broadcast_again_is_not_sent_twice_by_a_node_that_was_started_since(tmp_path: Path) -> None:
    async with running_nodes("a", "b", ledger={"data_dir": str(tmp_path)}) as nodes:
        tables = [node.nodes.owners.table for node in nodes.by_name.values()]
        await until(lambda: all(len(table.settled(trio.current_time(), LEASE_S)) == 2 for table in tables))
        room = nodes.room_on("b")
        await nodes["a"].broker.call("rooms.open", room=room)
        chat: dict[str, Any] = {"type": MessageType.DANMAKU, "payload": ["欢迎"], "pattern": "live-*", "id": "welcome"}
        news: dict[str, Any] = {**MESSAGE, "pattern": "live-*", "id": "news"}
        for message in (chat, news):
            assert (await nodes["a"].broker.call("messages.broadcast", **message)).rooms == 1
        assert (await state_of(nodes, "a"))[1:4] == (1, 1, 0)
        nodes["b"].kill()
        await nodes.start("b")
        await until(lambda: nodes["a"].nodes.owners.owner_of(room) is None)
        async with joined_link(nodes["a"].broker, "dev:host:host", room) as (host, number):
            assert nodes.owner_of(room) is nodes["b"]
            for message in (chat, news):
                await nodes["a"].broker.call("messages.broadcast", **message)
            await host.post(number, 3, MessageType.DANMAKU, ("大家好",))
            seen: list[str] = []
            while "大家好" not in seen:
                _, tick = await host.expect(Tick)
                seen += [entry.payload[0] for entry in tick.entries]
            assert "欢迎" not in seen
        history = await nodes["a"].broker.call("rooms.history", room=room)
        assert [item.payload for item in history.items] == [("全场直播",)]
