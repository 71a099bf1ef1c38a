"""JOIN and RESUME on real sockets: who may enter which room, how often, and what it gets."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from broker.auth.tokens import Authenticator
from broker.config.schema import load
from broker.server import Broker
from protocol.codes import ErrorCode, LeaveReason, MessageType, RoomPhase, Tier
from protocol.messages import (
    Ack,
    ErrorReply,
    Event,
    Join,
    Joined,
    Leave,
    Left,
    Ping,
    Pong,
    Resume,
    Resumed,
    State,
)
from tests.support.broker import RawLink, joined_link, raw_link, running_broker
from tests.support.tokens import SECRET
from tests.support.until import until

pytestmark = pytest.mark.integration

DAY_MS = 86_400_000
JOINS = {"user_joins_burst": 3, "user_joins_per_s": 0.001}


async def end_room(link: RawLink, room: int) -> None:
    await link.post(room, 1, MessageType.ROOM_PHASE, (RoomPhase.ENDED,))
    assert (await link.expect(Left))[1].reason is LeaveReason.ROOM_ENDED


async def refused_join(broker: Broker, token: str, *requests: Join | Resume) -> list[ErrorCode]:
    """The codes with which requests are refused on a new link."""
    found = []
    async with raw_link(broker) as link:
        await link.login(token)
        for number, request in enumerate(requests, 100):
            await link.send((request, 0, number))
            found.append(ErrorCode((await link.expect(ErrorReply))[1].code))
    return found


@pytest.mark.parametrize("is_durable", [False, True])
async def test_an_ended_room_stays_ended_for_viewers_until_staff_open_it(tmp_path: Path, is_durable: bool) -> None:
    ledger = {"data_dir": str(tmp_path)} if is_durable else {}
    requests = Join("lobby"), Resume("lobby", Tier.FULL, 1, 0)
    async with running_broker(ledger=ledger) as broker:
        async with joined_link(broker, "dev:max:host") as (host, room), joined_link(broker, "dev:ann") as (ann, _):
            await end_room(host, room)
            assert (await ann.expect(Left))[1].reason is LeaveReason.ROOM_ENDED
            assert await refused_join(broker, "dev:bob", *requests) == [ErrorCode.ROOM_ENDED] * 2
        await until(lambda: len(broker.hub) == 0)
        assert await refused_join(broker, "dev:bob:vip", *requests) == [ErrorCode.ROOM_ENDED] * 2
    async with running_broker(ledger=ledger) as broker:
        if is_durable:
            assert await refused_join(broker, "dev:bob", *requests) == [ErrorCode.ROOM_ENDED] * 2
        async with joined_link(broker, "dev:eve:moderator") as (_, room), raw_link(broker) as ann:
            await ann.login("dev:ann")
            again, joined = await ann.join()
            assert (again, joined.phase) == (room, RoomPhase.LIVE)


async def test_an_ended_room_stays_ended_where_only_a_wrong_clock_ended_it_long_ago(directory: Path) -> None:
    """A start 40 days ahead: the time goes on from the last trusted one, so that a day has not passed."""
    wall = {"ahead_ms": 0}
    settings: dict[str, Any] = {"ledger": {"data_dir": str(directory)}}
    settings["wall_ms"] = lambda: time.time_ns() // 1_000_000 + wall["ahead_ms"]
    async with running_broker(**settings) as broker, joined_link(broker, "dev:max:host") as (host, room):
        await end_room(host, room)
    for wall["ahead_ms"] in (40 * DAY_MS, 41 * DAY_MS, 0):
        async with running_broker(**settings) as broker:
            assert await refused_join(broker, "dev:bob", Join("lobby")) == [ErrorCode.ROOM_ENDED]


async def test_a_room_may_be_opened_again_at_once_where_the_configuration_says_so() -> None:
    async with (
        running_broker(room={"reopen_ended_s": 0}) as broker,
        joined_link(broker, "dev:max:host") as (host, room),
        joined_link(broker, "dev:ann") as (ann, _),
    ):
        await end_room(host, room)
        assert (await ann.expect(Left))[1].reason is LeaveReason.ROOM_ENDED
        again, joined = await ann.join(sequence=2)
        assert again != room
        assert joined.phase is RoomPhase.LIVE


@pytest.mark.parametrize("is_durable", [False, True])
async def test_a_guest_that_resumes_gets_no_more_than_a_guest_that_joins(tmp_path: Path, is_durable: bool) -> None:
    ledger = {"data_dir": str(tmp_path)} if is_durable else {}
    async with (
        running_broker(ledger=ledger) as broker,
        joined_link(broker, "dev:max:host") as (host, room),
        raw_link(broker) as ann,
        raw_link(broker) as guest,
    ):
        for number in (1, 2):
            await host.post(room, number, MessageType.ANNOUNCEMENT, (f"members only {number}",))
            await host.expect(Ack)
        state = broker.hub.room(room).state  # type: ignore[union-attr]
        await ann.login("dev:ann")
        await ann.send((Resume("lobby", Tier.FULL, state.epoch, 0), 0, 5))
        assert (await ann.expect(Resumed))[1].recovered
        await guest.login(None)
        await guest.send((Resume("lobby", Tier.FULL, state.epoch, 0), 0, 5), (Ping(1), 0, 6))
        _, resumed = await guest.expect(Resumed)
        assert not resumed.recovered
        frame = await guest.next_frame()
        while not isinstance(frame.message, Pong):  # type: ignore[union-attr]
            assert not isinstance(frame.message, Event)  # type: ignore[union-attr]
            frame = await guest.next_frame()


async def test_who_resumes_the_present_stream_is_not_announced_as_new(tmp_path: Path) -> None:
    """After a restart all viewers come back at once: none of them is new."""
    async with running_broker(ledger={"data_dir": str(tmp_path)}) as broker, joined_link(broker, "dev:ann"):
        epoch = broker.hub.room(1).state.epoch  # type: ignore[union-attr]
    async with (
        running_broker(ledger={"data_dir": str(tmp_path)}) as broker,
        raw_link(broker) as ann,
        raw_link(broker) as bob,
        raw_link(broker) as carl,
    ):
        for link, user, position in ((ann, "ann", epoch), (bob, "bob", epoch - 1)):
            await link.login(f"dev:{user}")
            await link.send((Resume("lobby", Tier.FULL, position, 0), 0, 5))
            await link.expect(Resumed)
        await carl.login("dev:carl")
        await carl.join("lobby")
        assert broker.hub.room(1).state.epoch == epoch  # type: ignore[union-attr]
        joins: set[str] = set()
        while "carl" not in joins:
            joins |= {user for user, _ in (await ann.expect(State))[1].joins}
        assert joins == {"bob", "carl"}


async def test_rooms_of_a_link_are_bounded() -> None:
    async with running_broker(link={"rooms_per_connection": 2}) as broker, raw_link(broker) as link:
        await link.login("dev:ann")
        await link.join("a")
        await link.join("b")
        await link.send((Join("c"), 0, 3))
        assert (await link.expect(ErrorReply))[1].code == ErrorCode.TOO_MANY_ROOMS


async def test_a_token_opens_only_its_rooms() -> None:
    config = load(None, {}, {"auth": {"secret": SECRET}})
    token = Authenticator(config.auth).issue("ann", rooms=[])
    async with running_broker(auth={"secret": SECRET}) as broker, raw_link(broker) as link:
        await link.login(token)
        await link.send((Join("lobby"), 0, 3))
        assert (await link.expect(ErrorReply))[1].code == ErrorCode.ROOM_NOT_GRANTED


async def test_joins_of_a_user_are_limited() -> None:
    async with running_broker(room=JOINS) as broker, raw_link(broker) as link:
        await link.login("dev:ann")
        for number in range(3):
            await link.join(f"room-{number}", sequence=number)
        await link.send((Join("one-more"), 0, 9))
        _, error = await link.expect(ErrorReply)
        assert error.code == ErrorCode.RATE_LIMITED
        assert error.retry_after_ms > 0


async def test_every_room_that_a_link_may_be_in_can_be_joined_at_once() -> None:
    rooms = {"new_rooms_per_minute": 40}
    async with running_broker(link={"rooms_per_connection": 40}, room=rooms) as broker, raw_link(broker) as link:
        await link.login("dev:ann")
        for number in range(40):
            await link.join(f"room-{number}", sequence=number)


async def test_coming_back_to_rooms_costs_nothing_of_the_limit_of_joins() -> None:
    async with running_broker(room=JOINS) as broker:
        positions = {}
        async with raw_link(broker) as link:
            await link.login("dev:ann")
            for name in ("a", "b", "c"):
                _, joined = await link.join(name)
                positions[name] = joined
        for returns in range(3):
            async with raw_link(broker) as link:
                await link.login("dev:ann")
                for name, joined in positions.items():
                    if returns == 1:  # a page that was reloaded has no position
                        await link.join(name)
                    else:
                        await link.send((Resume(name, Tier.FULL, joined.epoch, joined.offset), 0, 9))
                        await link.expect(Resumed)
        async with raw_link(broker) as link:
            await link.login("dev:ann")
            await link.send((Resume("d", Tier.FULL, 1, 0), 0, 9))
            assert (await link.expect(ErrorReply))[1].code == ErrorCode.RATE_LIMITED, "it had no members"


async def test_leaving_and_joining_in_a_loop_costs_joins() -> None:
    async with running_broker(room=JOINS, link={"rooms_per_connection": 2}) as broker, raw_link(broker) as link:
        await link.login("dev:ann")
        for joins in range(5):  # three joins of the burst and two free returns
            number, _ = await link.join("a", sequence=joins)
            await link.send((Leave(), number, 7))
            await link.expect(Left)
        await link.send((Join("a"), 0, 9))
        assert (await link.expect(ErrorReply))[1].code == ErrorCode.RATE_LIMITED


@pytest.mark.parametrize("role", ["moderator", "assistant", "host", "app"])
async def test_staff_and_the_app_have_no_limit_of_joins(role: str) -> None:
    async with running_broker(room=JOINS) as broker, raw_link(broker) as link:
        await link.login(f"dev:max:{role}")
        for number in range(9):
            await link.join(f"room-{number}", sequence=number)


async def test_only_roles_that_the_configuration_names_open_rooms() -> None:
    config = load(None, {}, {"auth": {"secret": SECRET}})
    token = Authenticator(config.auth).issue("ann")
    async with (
        running_broker(auth={"secret": SECRET, "guest_access": ["*"]}) as broker,
        raw_link(broker) as guest,
        raw_link(broker) as ann,
    ):
        await guest.login(None)
        await guest.send((Join("lobby"), 0, 3))
        assert (await guest.expect(ErrorReply))[1].code == ErrorCode.UNKNOWN_ROOM
        assert broker.hub.opened == 0
        await ann.login(token)
        await ann.join()
        await guest.join()
    hosts_only = {"open_roles": ["host"], "user_joins_burst": 99}
    async with running_broker(room=hosts_only) as broker, raw_link(broker) as ann, raw_link(broker) as host:
        await ann.login("dev:ann")
        await ann.send((Join("lobby"), 0, 3))
        assert (await ann.expect(ErrorReply))[1].code == ErrorCode.UNKNOWN_ROOM
        await host.login("dev:max:host")
        await host.join()
        await ann.join()


async def test_viewers_of_one_address_open_so_many_new_rooms_and_staff_any_number() -> None:
    async with running_broker(room={"new_rooms_per_minute": 3, "max_rooms": 50}) as broker:
        for number in range(6):
            async with raw_link(broker) as link:
                await link.login(f"dev:user-{number}")
                await link.send((Join(f"room-{number}"), 0, 3))
                if number < 3:
                    await link.expect(Joined)
                else:
                    _, error = await link.expect(ErrorReply)
                    assert error.code == ErrorCode.RATE_LIMITED
                    assert 0 < error.retry_after_ms <= 20_000
        async with raw_link(broker) as host:
            await host.login("dev:max:host")
            for number in range(10):
                await host.join(f"show-{number}")
        async with raw_link(broker) as link:
            await link.login("dev:late")
            await link.join("show-3")
            await link.join("room-0")
