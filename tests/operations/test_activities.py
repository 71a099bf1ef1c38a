"""What the operations on activities share: what they know of who calls, and rooms that have ended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from broker.operations.activities import requester
from broker.operations.caller import Caller, OperationError
from broker.server import Broker
from protocol.activities.sales import SaleState
from protocol.codes import ErrorCode, Role
from protocol.json_values import as_json
from protocol.operations import BY_NAME, OPERATIONS, KeyUse, Scope
from tests.support.broker import joined_link
from tests.support.durable import durable_broker
from tests.support.until import until

pytestmark = pytest.mark.integration

FAR_MS = 4_102_444_800_000
PLATFORM = Caller("shop", "Shop", "", lambda room: Role.APP, frozenset({Role.APP}), frozenset({Scope.ADMIN}))


async def test_the_watched_time_of_a_user_goes_on_after_it_has_left(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        now_ms = broker.clock.now_ms()
        async with joined_link(broker, "dev:ann"):
            room = broker.hub.find("lobby")
            assert room is not None
            await trio.sleep(0.02)
        await until(lambda: not room.state.online)
        watched = room.watch_times.watched_ms("ann", None, now_ms)
        assert 20 <= watched <= broker.clock.now_ms() - now_ms
        caller = Caller(
            "ann", "Ann", "", lambda room: Role.VIEWER, joined_at_ms=lambda room: now_ms,
            account_created=now_ms // 1000 - 86_400,
        )  # fmt: skip
        left_at_ms = broker.clock.now_ms()
        asked = requester(caller, room, left_at_ms + 60_500)  # the trusted clock may be some ms behind the wall clock
        assert (asked.user, asked.role, asked.is_platform) == ("ann", Role.VIEWER, False)
        assert 60 <= asked.attributes.watch_s <= (61_000 + watched + left_at_ms - now_ms) // 1000
        assert asked.attributes.account_age_s == (left_at_ms + 60_500) // 1000 - caller.account_created
        backend = requester(replace(caller, scopes=frozenset({Scope.ADMIN})), room, now_ms)
        assert (backend.role, backend.is_platform) == (Role.APP, True)


TAKING_PART: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "sales.claim": (
        "sales.create",
        {
            "sku": "mug", "stock": 9, "price_cents": 1, "open_at_ms": 0, "close_at_ms": FAR_MS, "first_window_ms": 0,
            "window_ms": 0,
        },
        {"key": "tap"},
    ),
    "packets.grab": ("packets.create", {"order_id": "o", "total_cents": 100, "count": 9}, {"key": "tap"}),
    "coupons.claim": ("coupons.create", {"count": 9}, {"key": "tap"}),
    "lotteries.enter": ("lotteries.create", {"close_at_ms": FAR_MS, "grades": [["mug", 1]]}, {}),
    "polls.vote": ("polls.create", {"title": "t", "options": ["a", "b"]}, {"options": [1]}),
    "quizzes.answer": ("quizzes.create", {"title": "t"}, {"number": 1, "option": 0}),
    "mic.request": ("mic.set_seats", {"seats": 2}, {}),
}  # fmt: skip
"""Operations by which viewers take part in an activity: the operation that makes one, its fields, and those of a
viewer's request."""


def fields_of(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an operation on the activity of a test."""
    read = BY_NAME[name].request._fields
    return {"room": "live-1", **({"id": "a"} if "id" in read else {}), **fields}


async def ask(broker: Broker, caller: Caller, name: str, fields: dict[str, Any]) -> Any:
    row, fields = BY_NAME[name], dict(fields)
    key = fields.pop("key", "k" if row.key is KeyUse.REQUIRED else "")
    result, _ = await broker.operations.call(replace(caller, key=key), row, fields_of(name, fields))
    return result


def viewer(user: str) -> Caller:
    return Caller(
        user, user.title(), user, lambda room: Role.VIEWER, frozenset({Role.VIEWER}), joined_at_ms=lambda room: 1
    )


def test_the_table_says_of_all_who_take_part_that_a_paused_room_refuses_them() -> None:
    assert {row.name for row in OPERATIONS if ErrorCode.ROOM_PAUSED in row.errors} == TAKING_PART.keys()


async def make_activity(broker: Broker, taking_part: str) -> None:
    """Make the activity in which viewers take part by an operation, open."""
    creates, fields, _ = TAKING_PART[taking_part]
    open_at_ms = broker.clock.now_ms() + 300
    if creates == "lotteries.create":
        fields = {**fields, "open_at_ms": open_at_ms}
    await ask(broker, PLATFORM, creates, fields)
    if creates == "quizzes.create":
        close_at_ms = open_at_ms + 600_000
        question = {"number": 1, "title": "q", "options": ["a", "b"], "answer_hash": "0" * 64}
        await ask(broker, PLATFORM, "quizzes.ask", {**question, "close_at_ms": close_at_ms})


async def first_answer(broker: Broker, user: str, name: str) -> Any:
    """Take part, as soon as the activity is open."""
    while True:
        try:
            return await ask(broker, viewer(user), name, TAKING_PART[name][2])
        except OperationError as error:
            if error.code is not ErrorCode.NOT_OPEN:
                raise
        await trio.sleep(0.2)


@pytest.mark.parametrize("name", TAKING_PART)
async def test_who_has_taken_part_gets_its_first_answer_again_in_a_paused_room(directory: Path, name: str) -> None:
    async with durable_broker(directory) as broker:
        await make_activity(broker, name)
        first = await first_answer(broker, "ann", name)
        await ask(broker, PLATFORM, "rooms.set_phase", {"phase": "paused"})
        assert await ask(broker, viewer("ann"), name, TAKING_PART[name][2]) == first
        with pytest.raises(OperationError) as caught:
            await ask(broker, viewer("bob"), name, TAKING_PART[name][2])
        assert (caught.value.code, caught.value.field) == (ErrorCode.ROOM_PAUSED, "room")
    async with durable_broker(directory) as broker:
        assert await ask(broker, viewer("ann"), name, TAKING_PART[name][2]) == first, "after a restart too"
        await ask(broker, PLATFORM, "rooms.set_phase", {"phase": "live"})
        await ask(broker, viewer("bob"), name, TAKING_PART[name][2])


async def test_what_waits_when_a_room_is_paused_is_still_decided_and_its_repetition_joins_it(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        await make_activity(broker, "polls.vote")
        waiting = {"sku": "mug", "stock": 1, "price_cents": 1, "open_at_ms": 0, "close_at_ms": FAR_MS}
        await ask(broker, PLATFORM, "sales.create", waiting)
        await until(lambda: sale_of(broker).state is SaleState.OPEN)
        answers: dict[str, list[Any]] = {"sales.claim": [], "polls.vote": []}

        async def take_part(name: str) -> None:
            answers[name].append(await ask(broker, viewer("ann"), name, {**TAKING_PART[name][2], "key": "tap"}))

        async with trio.open_nursery() as nursery:
            for name in answers:
                nursery.start_soon(take_part, name)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await ask(broker, PLATFORM, "rooms.set_phase", {"phase": "paused"})
            for name in answers:
                nursery.start_soon(take_part, name)
                with pytest.raises(OperationError) as caught:
                    await ask(broker, viewer("bob"), name, {**TAKING_PART[name][2], "key": "tap"})
                assert caught.value.code is ErrorCode.ROOM_PAUSED
        assert all(first == again for first, again in answers.values())


def sale_of(broker: Broker) -> Any:
    room = broker.hub.find("live-1")
    assert room is not None
    assert room.state.activities.activities is not None
    return room.state.activities.activities.find("sales", "a")


CREATING = (
    "sales.create", "packets.create", "rains.create", "coupons.create", "lotteries.create", "polls.create",
    "quizzes.create", "products.put", "products.remove", "products.arrange", "orders.event", "mic.set_seats",
    "schedules.create", "countdowns.start",
)  # fmt: skip
"""Operations after which there may be a new activity."""


async def test_no_activity_opens_a_room_again_that_has_ended(directory: Path) -> None:
    platform = PLATFORM
    async with durable_broker(directory) as broker:
        countdown = "live-1", "c", "Soon", broker.clock.now_ms() + 600_000
        await broker.operations.call(platform, BY_NAME["countdowns.start"], countdown)
        await broker.operations.call(platform, BY_NAME["rooms.close"], ("live-1",))
        await until(lambda: broker.hub.find("live-1") is None)
        for name in CREATING:
            row = BY_NAME[name]
            caller = replace(platform, key=name if row.key is KeyUse.REQUIRED else "")
            with pytest.raises(OperationError) as caught:
                await broker.operations.call(caller, row, as_json(row.example[0]._replace(room="live-1")))
            assert caught.value.code is ErrorCode.ROOM_ENDED, name
        assert broker.hub.find("live-1") is None
        await broker.operations.call(platform, BY_NAME["rooms.open"], ("live-1",))
        await broker.operations.call(platform, BY_NAME["countdowns.start"], countdown)
