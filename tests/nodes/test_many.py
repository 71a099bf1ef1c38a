"""Messages of one call for rooms of several owners."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker import OperationError
from broker.operations import forwarding
from broker.operations.caller import Caller
from protocol.codes import ErrorCode, MessageType, Outcome
from protocol.operations import OperationRow
from tests.support.nodes import both_have_rooms, running_nodes

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def announcements(*rooms: str) -> list[dict[str, Any]]:
    """Return an announcement for each room."""
    return [{"room": room, "type": MessageType.ANNOUNCEMENT, "payload": [f"第{n}条"]} for n, room in enumerate(rooms)]


async def test_messages_for_rooms_of_two_owners_have_a_result_each(tmp_path: Path) -> None:
    async with running_nodes("a", "b", ledger={"data_dir": str(tmp_path)}) as nodes:
        await both_have_rooms(nodes)
        first, second = nodes.room_on("a"), nodes.room_on("b")
        items = announcements(first, second, second, second, first)
        items[2]["payload"] = [5]
        for asked in "ab":
            found = await nodes[asked].broker.call("messages.publish_many", items=items)
            accepted = Outcome.ACCEPTED
            assert [each.outcome for each in found.items] == [accepted, accepted, Outcome.REJECTED, accepted, accepted]
            assert found.items[2].code == ErrorCode.BAD_FIELD
            assert found.accepted == 4
            assert found.items[0].offset < found.items[4].offset
            assert found.items[1].offset < found.items[3].offset
        assert nodes.owner_of(first) is nodes["a"]
        assert nodes.owner_of(second) is nodes["b"]
        for room, texts in ((first, ["第0条", "第4条"]), (second, ["第1条", "第3条"])):
            history = await nodes["a"].broker.call("rooms.history", room=room)
            shown = [each.payload[0] for each in history.items if each.type == MessageType.ANNOUNCEMENT]
            assert shown == texts * 2


async def test_an_owner_that_does_not_answer_leaves_the_results_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_nodes("a", "b", ledger={"data_dir": str(tmp_path)}) as nodes:
        await both_have_rooms(nodes)
        first, second = nodes.room_on("a"), nodes.room_on("b")
        await nodes["a"].broker.call("messages.publish_many", items=announcements(first, second))
        monkeypatch.setattr(forwarding, "PATIENCE_S", 0.0)
        found = await nodes["a"].broker.call("messages.publish_many", items=announcements(second, first))
        assert found.items[0][:3] == (Outcome.UNAVAILABLE, None, None)
        assert found.items[1].outcome is Outcome.ACCEPTED
        assert found.accepted == 1


async def test_a_request_with_a_bad_field_publishes_nothing_anywhere(tmp_path: Path) -> None:
    async with running_nodes("a", "b", ledger={"data_dir": str(tmp_path)}) as nodes:
        await both_have_rooms(nodes)
        first, second = nodes.room_on("a"), nodes.room_on("b")
        items = [*announcements(first), {"room": second, "type": 999, "payload": []}]
        with pytest.raises(OperationError) as refused:
            await nodes["a"].broker.call("messages.publish_many", items=items)
        assert refused.value.code is ErrorCode.BAD_FIELD
        assert nodes.owner_of(first) is None


async def test_a_call_counts_once_at_the_node_that_is_asked(tmp_path: Path) -> None:
    async with running_nodes("a", "b", ledger={"data_dir": str(tmp_path)}) as nodes:
        await both_have_rooms(nodes)
        first, second = nodes.room_on("a"), nodes.room_on("b")
        await nodes["a"].broker.call("messages.publish_many", items=announcements(first, second))
        counted: list[str] = []
        for name, node in nodes.by_name.items():
            charge = node.broker.operations.charge

            def noted(caller: Caller, row: OperationRow, *, name: str = name, charge: Any = charge) -> None:
                counted.append(name)
                charge(caller, row)

            node.broker.operations.charge = noted  # type: ignore[method-assign]
        await nodes["a"].broker.call("messages.publish_many", items=announcements(first, second, second))
        assert counted == ["a"]
        await nodes["b"].broker.call("messages.publish_many", items=announcements(first, first))
        assert counted == ["a", "b"]
