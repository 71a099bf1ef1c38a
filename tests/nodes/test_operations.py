"""Every operation of the table at two nodes: the node that does not own a room answers as the one that does.

The rows are called in the order of the table, with their examples, at the owner of one room and at the other node for
another room of the same owner. So what one of them makes is there for the next, and the answers must be of one kind. A
row that several nodes do not share yet is refused by both, and the guide names it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from broker import OperationError
from broker.server import Broker
from protocol.codes import ErrorCode
from protocol.json_values import as_json
from protocol.operations import OPERATIONS, KeyUse, OperationRow
from tests.support.nodes import running_nodes
from tests.support.until import until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

GUIDE = Path(__file__).resolve().parents[2] / "broker/guides/engine.md"
REFUSED = "is not there with several nodes yet"
LAST = frozenset({"rooms.close", "broker.drain", "broker.reload"})
"""Rows that end what others need."""


async def kind_of(broker: Broker, row: OperationRow, room: str) -> tuple[str, str]:
    """Return of which kind the answer of an operation is: the name of its record, or code and field of a refusal."""
    fields: dict[str, Any] = dict(row.example[0]._asdict())
    if "room" in fields:
        fields["room"] = room
    if "rooms" in fields and isinstance(fields["rooms"], tuple):
        fields["rooms"] = (room,)
    key = "" if row.key is KeyUse.NONE else f"{row.name} {room}"
    try:
        with trio.fail_after(20):
            result = await broker.call(row.name, idempotency_key=key, **as_json(fields))
    except OperationError as error:
        return (error.rule if error.rule == REFUSED else error.code.name), error.field
    return type(result).__name__, ""


async def test_the_node_that_does_not_own_a_room_answers_as_its_owner(tmp_path: Path) -> None:
    async with running_nodes("a", "b", ledger={"data_dir": str(tmp_path)}) as nodes:
        await until(lambda: all(len(node.nodes.others_alive()) == 1 for node in nodes.by_name.values()))
        table, now = nodes["a"].nodes.owners.table, trio.current_time()
        names = [name for name in (f"live-{n}" for n in range(100)) if table.placed_on(name, now) == "a"]
        rooms = {"a": names[0], "b": names[1]}
        differ, refused = {}, set()
        for row in [row for row in OPERATIONS if row.name not in LAST]:
            found = {node: await kind_of(nodes[node].broker, row, room) for node, room in rooms.items()}
            if found["a"] != found["b"]:
                differ[row.name] = found
            if found["b"][0] == REFUSED:
                refused.add(row.name)
            assert ErrorCode.INTERNAL_ERROR.name not in (found["a"][0], found["b"][0]), row.name
        assert differ == {}
        assert all(nodes.owner_of(room) is nodes["a"] for room in rooms.values())
        section = GUIDE.read_text().partition("## Not shared yet")[2].partition("##")[0]
        rows = "".join(line for line in section.splitlines() if line.startswith("|"))
        named = {row.name for row in OPERATIONS if f"`{row.name}`" in rows or f"`{row.subject}.*`" in rows}
        assert refused == named
