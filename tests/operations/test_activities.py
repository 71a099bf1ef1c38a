"""What the operations on activities share: what they know of who calls, and rooms that have ended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from broker.operations.activities import requester
from broker.operations.caller import Caller, OperationError
from protocol.codes import ErrorCode, Role
from protocol.json_values import as_json
from protocol.operations import BY_NAME, KeyUse, Scope
from tests.support.broker import joined_link
from tests.support.durable import durable_broker
from tests.support.until import until

pytestmark = pytest.mark.integration


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
        left_at_ms = now_ms + watched
        asked = requester(caller, room, left_at_ms + 60_000)
        assert (asked.user, asked.role, asked.is_platform) == ("ann", Role.VIEWER, False)
        assert 60 <= asked.attributes.watch_s <= (60_000 + 2 * watched + 1000) // 1000
        assert asked.attributes.account_age_s == (left_at_ms + 60_000) // 1000 - caller.account_created
        backend = requester(replace(caller, scopes=frozenset({Scope.ADMIN})), room, now_ms)
        assert (backend.role, backend.is_platform) == (Role.APP, True)


CREATING = (
    "sales.create", "packets.create", "rains.create", "coupons.create", "lotteries.create", "polls.create",
    "quizzes.create", "products.put", "products.remove", "products.arrange", "orders.event", "mic.set_seats",
    "schedules.create", "countdowns.start",
)  # fmt: skip
"""Operations after which there may be a new activity."""


async def test_no_activity_opens_a_room_again_that_has_ended(directory: Path) -> None:
    platform = Caller("shop", "Shop", "", lambda room: Role.APP, frozenset({Role.APP}), frozenset({Scope.ADMIN}))
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
