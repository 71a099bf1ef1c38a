"""Calls of banned users: none about a room that they are banned from, over the table and for staff too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from broker.core.moderation.sanctions import SanctionChange
from broker.operations.caller import Caller, OperationError
from broker.server import Broker
from protocol.activities.moderation import SanctionKind
from protocol.codes import ErrorCode, Role
from protocol.json_values import as_json
from protocol.operations import BY_NAME, OPERATIONS, KeyUse, OperationRow, Scope
from tests.support.broker import running_broker
from tests.support.durable import durable_broker

ABOUT_ROOMS = [row for row in OPERATIONS if row.room and row.roles - {Role.APP}]


def ban(broker: Broker, room: str) -> None:
    """Ban ann from a room."""
    change = SanctionChange(f"ban {room}", SanctionKind.BAN, room, "ann", "shop", Role.APP, 60, "fraud")
    action = broker.hub.sanctions.decide(change, broker.hub.trusted.continued_ms())
    assert action is not None
    broker.hub.sanctions.apply(action)


def caller_of(row: OperationRow) -> Caller:
    role = max(row.roles - {Role.APP})
    key = "k1" if row.key is KeyUse.REQUIRED else ""
    return Caller(
        "ann", "Ann", "", lambda room: role, frozenset({role}), key=key, dry_run=True, joined_at_ms=lambda room: 1
    )


async def code_of(broker: Broker, caller: Caller, row: OperationRow) -> ErrorCode | None:
    with trio.move_on_after(0.2):
        try:
            await broker.operations.call(caller, row, as_json(row.example[0]._replace(room="live-1")))
        except OperationError as error:
            return error.code
    return None


@pytest.mark.integration
async def test_a_banned_user_may_call_nothing_about_its_room() -> None:
    assert all(ErrorCode.BANNED in row.errors for row in ABOUT_ROOMS)
    async with running_broker() as broker:
        ban(broker, "live-1")
        for row in ABOUT_ROOMS:
            caller = caller_of(row)
            assert await code_of(broker, caller, row) is ErrorCode.BANNED, row.name
        caller, row = caller_of(BY_NAME["keys.get"]), BY_NAME["keys.get"]
        for other in (replace(caller, id="bob"), replace(caller, scopes=frozenset({Scope.ADMIN}))):
            assert await code_of(broker, other, row) is not ErrorCode.BANNED
        ban(broker, "live-2")
        table, now_ms = broker.hub.sanctions, broker.hub.trusted.continued_ms()
        change = SanctionChange("lift", SanctionKind.BAN, "live-1", "ann", "shop", Role.APP, 0)
        lifted = table.decide(change, now_ms)
        assert lifted is not None
        table.apply(lifted)
        assert await code_of(broker, caller, row) is not ErrorCode.BANNED


@pytest.mark.integration
async def test_a_banned_moderator_undoes_nothing_in_its_room_either() -> None:
    async with running_broker() as broker:
        change = SanctionChange("mute", SanctionKind.MUTE, "live-1", "bob", "ann", Role.MODERATOR, 60)
        action = broker.hub.sanctions.decide(change, broker.hub.trusted.continued_ms())
        assert action is not None
        broker.hub.sanctions.apply(action)
        moderator = frozenset({Role.MODERATOR})
        caller = Caller("ann", "Ann", "", lambda room: Role.MODERATOR, moderator)
        ban(broker, "live-1")
        with pytest.raises(OperationError) as refused:
            await broker.operations.call(caller, BY_NAME["moderation.undo"], {"action": "mute"})
        assert refused.value.code is ErrorCode.BANNED


@pytest.mark.integration
async def test_a_banned_host_changes_no_list_of_words_of_its_room(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        caller = Caller("ann", "Ann", "", lambda room: Role.HOST, frozenset({Role.HOST}))
        put = {"name": "mine", "words": ["foo"], "action": "block", "rooms": ["live-1"]}
        await broker.operations.call(caller, BY_NAME["moderation.put_list"], put)
        ban(broker, "live-1")
        for name, request in (("put_list", put), ("get_list", {"name": "mine"}), ("delete_list", {"name": "mine"})):
            with pytest.raises(OperationError) as refused:
                await broker.operations.call(caller, BY_NAME[f"moderation.{name}"], request)
            assert refused.value.code is ErrorCode.BANNED
