"""The wall clock leaps an hour: order, offsets, deadlines and inboxes do not care; tokens do, by their own rule."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio
from trio.testing import MockClock

from broker.auth.tokens import Authenticator
from broker.config.schema import AuthConfig
from broker.ledger import LedgerResult
from broker.net import poller
from protocol.codes import CloseCode, MessageType, Outcome, Role, Tier
from protocol.messages import Ack, Direct, Event, Ping, Pong, Resume, Resumed
from tests.support.broker import joined_link, raw_link, running_broker
from tests.support.durable import announce, durable_broker, gift

pytestmark = pytest.mark.integration

HOUR_MS = 3_600_000
SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def _nothing_waits_for_company(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stands still here unless a test moves it."""
    monkeypatch.setattr(poller, "GATHER_S", 0.0)


class WallClock:
    """The real one, and by how much it was set off."""

    def __init__(self) -> None:
        self.off_ms = 0

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000 + self.off_ms


@pytest.mark.parametrize("leap_ms", [HOUR_MS, -HOUR_MS], ids=["ahead", "back"])
async def test_a_leap_of_the_wall_clock_changes_nothing(directory: Path, leap_ms: int) -> None:
    wall = WallClock()
    async with (
        durable_broker(directory, wall_ms=wall) as broker,
        joined_link(broker, "dev:max:host") as (host, room),
        joined_link(broker, "dev:shop:app") as (shop, _),
        raw_link(broker) as ann,
    ):
        await ann.login("dev:ann")
        _, joined = await ann.join()
        for number in range(1, 4):
            assert await announce(host, room, number) == (number, Outcome.ACCEPTED, number)
        await shop.post(room, 1, MessageType.GIFT, (*gift("order-1"), False))
        assert (await shop.expect(Ack))[1].results == ((1, Outcome.ACCEPTED, 4),)
        before = wall()
        wall.off_ms = leap_ms
        for number in range(4, 7):
            assert await announce(host, room, number) == (number, Outcome.ACCEPTED, number + 1)
        await shop.post(room, 2, MessageType.GIFT, (*gift("order-1"), False))
        assert (await shop.expect(Ack))[1].results == ((2, Outcome.ACCEPTED, 4),), "the same order is the same gift"
        events = [await ann.expect(Event) for _ in range(7)]
        assert [frame.sequence for frame, _ in events] == [1, 2, 3, 4, 5, 6, 7]
        assert all(abs(event.at_ms - before) < HOUR_MS / 2 for _, event in events[4:]), "dates follow the trusted clock"
        async with raw_link(broker) as bob:
            await bob.login("dev:bob")
            await bob.send((Resume("lobby", Tier.FULL, joined.epoch, 2), 0, 9))
            assert (await bob.expect(Resumed))[1].recovered
            assert [(await bob.expect(Event))[0].sequence for _ in range(5)] == [3, 4, 5, 6, 7]
        assert not broker.context.closed[CloseCode.HEARTBEAT_MISSED]
        assert broker.stats().balanced
    # The next life may begin under the leapt clock, or under the right one again.
    for off_ms in (leap_ms, 0):
        wall.off_ms = off_ms
        async with durable_broker(directory, wall_ms=wall) as broker, raw_link(broker) as ann:
            await ann.login("dev:ann")
            await ann.send((Resume("lobby", Tier.FULL, joined.epoch, 5), 0, 9))
            _, resumed = await ann.expect(Resumed)
            assert (resumed.recovered, resumed.snapshot.epoch, resumed.snapshot.offset) == (True, joined.epoch, 7)


async def test_a_message_that_waits_in_an_inbox_outlives_a_leap(directory: Path) -> None:
    wall = WallClock()
    results: list[LedgerResult] = []
    with structlog.testing.capture_logs() as lines:
        await leap_and_return(directory, wall, results)
    found = [line["event"] for line in lines]
    assert found.count("the clock is not trusted: nothing expires and nothing is removed") == 1
    assert found.count("the clock is trusted again") == 1


async def leap_and_return(directory: Path, wall: WallClock, results: list[LedgerResult]) -> None:
    async with durable_broker(directory, wall_ms=wall) as broker:
        assert broker.inboxes is not None
        assert broker.ledger is not None
        expires_at_ms = wall() + HOUR_MS // 2
        broker.inboxes.send("ann", MessageType.ANNOUNCEMENT, ("code",), results.append, expires_at_ms=expires_at_ms)
        await broker.ledger.flush()
        await trio.to_thread.run_sync(time.sleep, 0.1)  # maintenance has seen the right time
        wall.off_ms = HOUR_MS
        await trio.to_thread.run_sync(time.sleep, 0.2)  # and now the wrong one, several times
        assert broker.ledger.stats.expired_directs == 0
        wall.off_ms = 0
        async with raw_link(broker) as ann:
            await ann.login("dev:ann")
            assert (await ann.expect(Direct))[1].payload == ("code",)
        await trio.to_thread.run_sync(time.sleep, 0.2)


def token_broker(wall: WallClock) -> tuple[dict[str, Any], Authenticator]:
    config = AuthConfig(secret=SECRET)
    return {"auth": {"secret": SECRET}}, Authenticator(config, clock=lambda: wall() / 1000)


@pytest.mark.parametrize("leap_ms", [HOUR_MS, -HOUR_MS], ids=["ahead", "back"])
async def test_a_leap_neither_ends_a_token_nor_refuses_one(leap_ms: int, mock_clock: MockClock) -> None:
    wall = WallClock()
    settings, platform = token_broker(wall)
    token, fresh = platform.issue("ann", role=Role.VIEWER, ttl_s=600), platform.issue("bob")
    link = {"heartbeat_s": 2, "heartbeat_cut_s": 5}
    async with running_broker(**settings, link=link, wall_ms=wall) as broker, joined_link(broker, token) as (ann, _):
        wall.off_ms = leap_ms
        for number in range(30):
            mock_clock.jump(0.25)
            await ann.send((Ping(number), 0, number + 1))
            assert (await ann.expect(Pong))[0].sequence == number + 1
        async with raw_link(broker) as bob:
            assert (await bob.login(fresh)).user_id == "bob"
        assert "leapt" in broker.status()[1].get("clock", broker.clock.distrust())
