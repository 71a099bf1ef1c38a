"""Calls of muted users: which operations a mute forbids, and which not, over the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.core.moderation.sanctions import SanctionChange
from broker.operations.caller import Caller, OperationError
from broker.server import Broker
from protocol.activities.moderation import SanctionKind
from protocol.codes import ErrorCode, MessageType, Role
from protocol.json_values import as_json
from protocol.operations import BY_NAME, OPERATIONS, KeyUse, OperationRow, Scope
from tests.support.api import API, client_of, ok
from tests.support.broker import joined_link, running_broker
from tests.support.durable import durable_broker

ALLOWED = {
    "app.call": "reaches the platform alone, which knows who is muted",
    "audiences.accept_invite": "says nothing",
    "audiences.define": "defines by tags of the platform",
    "audiences.follow": "says nothing",
    "audiences.share": "names a channel to the platform alone",
    "conversations.block": "says nothing",
    "conversations.open": "says nothing: the other learns of it with the first message",
    "conversations.recall": "takes back what was said",
    "conversations.report_position": "says nothing",
    "conversations.send": "refuses a muted user itself, and takes what a shadow-muted one says without sending it",
    "countdowns.move": "says nothing",
    "countdowns.stop": "says nothing",
    "coupons.claim": "takes what is offered: a keyword is compared, and not shown",
    "desk.answer": "refuses a muted user itself; of agents",
    "desk.append": "goes on with what a user who is not muted has begun",
    "desk.ask": "refuses a muted user itself",
    "desk.end_stream": "refuses a muted user itself; of agents",
    "desk.interrupt": "says nothing",
    "desk.open": "refuses a muted user itself",
    "desk.rate": "says nothing",
    "desk.resolve": "says nothing: of agents",
    "desk.set_state": "says nothing: of agents",
    "desk.start_stream": "refuses a muted user itself; of agents",
    "desk.tag": "is between agents",
    "desk.take_over": "says nothing: of supervisors",
    "desk.transfer": "says nothing: of agents",
    "dictionaries.use": "chooses the compression of the user's own link",
    "keys.delete": "says nothing",
    "locks.acquire": "is between backends and staff",
    "locks.release": "is between backends and staff",
    "locks.renew": "is between backends and staff",
    "lotteries.draw": "carries a public beacon",
    "lotteries.enter": "takes what is offered: a keyword is compared, and not shown",
    "lotteries.void": "ends what others rely on; its reason is in the audit",
    "messages.delete": "moderates",
    "messages.unpin": "says nothing",
    "mic.cancel": "gives a place back",
    "mic.invite": "lets another speak",
    "mic.leave": "gives a place back",
    "mic.reject": "moderates",
    "mic.remove": "moderates",
    "mic.set_seats": "says nothing",
    "moderation.add_words": "moderates",
    "moderation.ban": "moderates",
    "moderation.claim": "moderates",
    "moderation.decide": "moderates",
    "moderation.delete_list": "moderates",
    "moderation.mute": "moderates",
    "moderation.put_list": "moderates",
    "moderation.report": "reaches staff alone: who is muted may still need help",
    "moderation.set_modes": "moderates",
    "moderation.unban": "moderates",
    "moderation.undo": "moderates; never the caller's own sanction",
    "moderation.unmute": "moderates; never the caller's own mute",
    "packets.grab": "takes what is offered: a keyword is compared, and not shown",
    "pk.answer": "says nothing",
    "pk.cancel": "says nothing",
    "pk.invite": "says nothing",
    "polls.close": "says nothing",
    "polls.reveal": "says nothing of its own",
    "polls.vote": "is counted, and not shown",
    "presence.set_visible": "says nothing",
    "products.arrange": "says nothing",
    "products.explain": "says nothing",
    "products.remove": "says nothing",
    "products.report_clicks": "is counted, and not shown",
    "products.stop_explaining": "says nothing",
    "quizzes.answer": "is counted, and not shown",
    "quizzes.cancel": "says nothing",
    "quizzes.close": "says nothing",
    "quizzes.finish": "says nothing",
    "quizzes.reveal": "says nothing of its own",
    "rooms.close": "ends what others rely on; its reason is in the audit",
    "rooms.set_phase": "directs the room; its reason is in the audit",
    "rooms.set_rules": "directs the room",
    "rtc.accept": "says nothing through the broker",
    "rtc.hang_up": "says nothing through the broker",
    "rtc.reject": "says nothing through the broker",
    "rtc.ring": "says nothing through the broker: a user who does not want to be rung blocks the caller",
    "sales.cancel_sale": "says nothing",
    "sales.claim": "takes what is offered: a keyword is compared, and not shown",
    "sales.close": "says nothing",
    "sales.create": "names a product by its number",
    "sales.release": "gives a unit back",
    "schedules.cancel": "says nothing",
    "schedules.change": "says nothing",
    "schedules.create": "is judged by the operation that it schedules",
    "users.kick": "moderates",
}
"""Operations that users may call while they are muted, and why."""
SPOKEN: dict[str, dict[str, Any]] = {
    "mic.mute": {"user": None, "is_muted": False},
    "rooms.open": {"title": "a title"},
    "messages.pin": {"offset": None, "type": 10, "payload": ("text",), "id": "p-1"},
}
"""Fields with which a request of the example says something."""
UNSPOKEN: dict[str, dict[str, Any]] = {
    "mic.mute": {"user": None, "is_muted": True},
    "rooms.open": {"title": None, "tags": None},
    "messages.pin": {"offset": 7, "type": None, "payload": None},
}
OF_USERS = [row for row in OPERATIONS if row.changes and row.roles - {Role.APP}]
SPEAKING = [row for row in OF_USERS if row.speaks is not None]


def test_each_operation_of_users_is_forbidden_by_a_mute_or_allowed_for_a_reason() -> None:
    assert {row.name for row in OF_USERS if row.speaks is None} == ALLOWED.keys()
    assert all(row.speaks is None for row in OPERATIONS if row not in OF_USERS)
    assert all(ErrorCode.MUTED in row.errors for row in SPEAKING)


def mute(broker: Broker, *, is_shadow: bool = False) -> None:
    """Mute ann in every room."""
    table = broker.hub.sanctions
    change = SanctionChange("a", SanctionKind.MUTE, "", "ann", "shop", Role.APP, 60, "spam", is_shadow)
    action = table.decide(change, broker.hub.trusted.continued_ms())
    assert action is not None
    table.apply(action)


def caller_of(row: OperationRow) -> Caller:
    role = max(row.roles - {Role.APP})
    key = "k1" if row.key is KeyUse.REQUIRED else ""
    return Caller(
        "ann", "Ann", "", lambda room: role, frozenset({role}), key=key, dry_run=True, joined_at_ms=lambda room: 1
    )


async def error_of(broker: Broker, caller: Caller, row: OperationRow, **fields: Any) -> OperationError | None:
    request = row.example[0]._replace(**fields)
    try:
        await broker.operations.call(caller, row, as_json(request))
    except OperationError as error:
        return error
    return None


def is_muted(error: OperationError | None) -> bool:
    return error is not None and error.code is ErrorCode.MUTED


@pytest.mark.integration
async def test_a_muted_user_may_not_say_anything_by_a_call() -> None:
    async with running_broker() as broker:
        mute(broker)
        for row in SPEAKING:
            caller, spoken = caller_of(row), SPOKEN.get(row.name, {})
            error = await error_of(broker, caller, row, **spoken)
            assert error is not None
            assert (error.code, "spam" in error.rule) == (ErrorCode.MUTED, True), row.name
            assert 0 < error.retry_after_ms <= 60_000
            assert not is_muted(await error_of(broker, replace(caller, id="bob"), row, **spoken)), row.name
            if row.scope is not None:  # a backend's key of that name
                backend = replace(caller, scopes=frozenset({Scope.ADMIN}))
                assert not is_muted(await error_of(broker, backend, row, **spoken)), row.name
            if row.name in UNSPOKEN:
                assert not is_muted(await error_of(broker, caller, row, **UNSPOKEN[row.name])), row.name
        mute(broker, is_shadow=True)
        for row in SPEAKING:
            assert not is_muted(await error_of(broker, caller_of(row), row, **SPOKEN.get(row.name, {}))), row.name


@pytest.mark.integration
async def test_a_muted_user_may_still_take_part() -> None:
    async with running_broker() as broker:
        mute(broker)
        for name in ALLOWED:
            assert not is_muted(await error_of(broker, caller_of(BY_NAME[name]), BY_NAME[name])), name


@pytest.mark.integration
async def test_what_a_muted_user_schedules_is_judged_as_if_it_was_called() -> None:
    async with running_broker() as broker:
        mute(broker)
        row = BY_NAME["schedules.create"]
        caller = replace(caller_of(row), dry_run=False)
        request = as_json(BY_NAME["countdowns.start"].example[0])
        assert is_muted(await error_of(broker, caller, row, operation="countdowns.start", request=request))


@pytest.mark.integration
async def test_a_clear_in_every_room_reaches_rooms_that_the_user_has_left_or_that_have_no_task(directory: Path) -> None:
    by_ann: dict[str, Any] = {"type": MessageType.ANNOUNCEMENT, "payload": ["of ann"], "as_user": "ann"}
    by_bob: dict[str, Any] = {"type": MessageType.ANNOUNCEMENT, "payload": ["of bob"], "as_user": "bob"}
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        for room in ("asleep", "open", "of-bob"):
            await ok(client, "rooms.open", room=room)
        for room, message in (("asleep", by_ann), ("open", by_ann), ("open", by_bob), ("of-bob", by_bob)):
            await ok(client, "messages.publish", room=room, **message)
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        async with joined_link(broker, "dev:bob", room="open"):
            assert broker.hub.find("asleep") is None
            done = await ok(client, "moderation.ban", room=None, user="ann", reason="fraud", clear=True)
            assert done["cleared"] == 2
            for room in ("asleep", "open"):
                assert "of ann" not in str(await ok(client, "rooms.history", room=room))
            for room in ("open", "of-bob"):
                assert "of bob" in str(await ok(client, "rooms.history", room=room))
