"""RESUME beyond a room's memory: everything once, in order, while the room goes on, or an honest no."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from broker.ledger import Reader, queries
from broker.server import Broker
from protocol.codes import ErrorCode, MessageType, Tier
from protocol.messages import Ack, Call, ErrorReply, Event, Result, Resume, Resumed
from protocol.operations import BY_NAME
from tests.support.broker import RawLink, joined_link, raw_link, running_broker
from tests.support.durable import announce, disk, durable_broker
from tests.support.faulty_disk import disk_error
from tests.support.until import until

pytestmark = pytest.mark.integration

SHORT = {"history_entries": 3}


@asynccontextmanager
async def nobody_reads(broker: Broker) -> AsyncIterator[None]:
    """Questions to the ledger wait while the block lasts."""
    assert broker.ledger is not None
    async with broker.ledger.read_limiter:
        yield


async def offsets(link: RawLink, count: int) -> list[int]:
    return [(await link.expect(Event))[0].sequence for _ in range(count)]


async def test_what_the_room_has_forgotten_comes_from_the_disk(directory: Path) -> None:
    async with durable_broker(directory, room=SHORT) as broker, joined_link(broker, "dev:max:host") as (host, room):
        for number in range(1, 11):
            await announce(host, room, number)
        epoch = broker.hub.room(room).state.epoch  # type: ignore[union-attr]
        async with raw_link(broker) as ann:
            await ann.login("dev:ann")
            await ann.send((Resume("lobby", Tier.FULL, epoch, 2), 0, 9))
            frame, answer = await ann.expect(Resumed)
            assert (frame.sequence, answer.recovered, answer.gap_from, answer.snapshot.offset) == (9, True, 3, 10)
            assert await offsets(ann, 8) == [3, 4, 5, 6, 7, 8, 9, 10]
            await announce(host, room, 11)
            assert await offsets(ann, 1) == [11]


async def test_what_was_deleted_later_does_not_come_from_the_disk(directory: Path) -> None:
    async with durable_broker(directory, room=SHORT) as broker, joined_link(broker, "dev:max:host") as (host, room):
        for number in range(1, 11):
            await announce(host, room, number)
        await host.send((Call(BY_NAME["messages.delete"].number, "", {"room": "lobby", "ids": (2, 4)}), 0, 90))
        await host.expect(Result)
        for number in range(12, 14):
            await announce(host, room, number)
        epoch = broker.hub.room(room).state.epoch  # type: ignore[union-attr]
        async with raw_link(broker) as ann:
            await ann.login("dev:ann")
            await ann.send((Resume("lobby", Tier.FULL, epoch, 0), 0, 9))
            assert (await ann.expect(Resumed))[1].recovered
            found = [(await ann.expect(Event))[1] for _ in range(13)]
        deleted = [number for number, event in enumerate(found, 1) if event.type == MessageType.MESSAGES_DELETED]
        assert deleted == [2, 4, 11]
        assert not {"news 2", "news 4"} & {str(each) for event in found for each in event.payload}


@pytest.mark.parametrize("is_durable", [True, False])
async def test_more_bytes_than_a_link_may_have_waiting_are_a_gap_and_no_endless_loop(
    directory: Path, is_durable: bool
) -> None:
    queue = {"queue_bytes": 65_536, "critical_bytes": 65_536}
    run = durable_broker(directory, queue=queue) if is_durable else running_broker(queue=queue)
    async with run as broker, joined_link(broker, "dev:shop:app") as (app, room):
        for number in range(1, 41):
            await app.post(room, number, MessageType.ANNOUNCEMENT, ("很" * 490 + str(number),))
            await app.expect(Ack)
        epoch = broker.hub.epoch_of("lobby")
        assert epoch is not None
        for after, recovered in ((0, False), (35, True)):
            async with raw_link(broker) as ann:
                await ann.login("dev:ann")
                await ann.send((Resume("lobby", Tier.FULL, epoch, after), 0, 9))
                _, answer = await ann.expect(Resumed)
                assert answer.recovered is recovered
                if recovered:
                    assert await offsets(ann, 6) == [36, 37, 38, 39, 40, 41]
                await announce(app, room, 100 + after)
                frame, _ = await ann.expect(Event)
                assert frame.sequence == 41 + int(recovered)


async def test_what_is_published_meanwhile_comes_after_what_was_missed(directory: Path) -> None:
    async with durable_broker(directory, room=SHORT) as broker, joined_link(broker, "dev:max:host") as (host, room):
        for number in range(1, 8):
            await announce(host, room, number)
        epoch = broker.hub.room(room).state.epoch  # type: ignore[union-attr]
        async with raw_link(broker) as ann:
            await ann.login("dev:ann")
            async with nobody_reads(broker):
                await ann.send(
                    (Resume("lobby", Tier.FULL, epoch, 0), 0, 9), (Resume("lobby", Tier.FULL, epoch, 0), 0, 10)
                )
                assert (await ann.expect(ErrorReply))[1].code == ErrorCode.ALREADY_JOINED, "one at a time"
                for number in range(8, 10):  # the ring of three still reaches back to what is asked of the disk
                    await announce(host, room, number)
            _, answer = await ann.expect(Resumed)
            assert answer.recovered
            assert await offsets(ann, 9) == list(range(1, 10))
            await announce(host, room, 10)
            assert await offsets(ann, 1) == [10]


async def test_a_ring_that_has_moved_on_meanwhile_is_asked_of_the_disk_again(directory: Path) -> None:
    async with durable_broker(directory, room=SHORT) as broker, joined_link(broker, "dev:max:host") as (host, room):
        for number in range(1, 8):
            await announce(host, room, number)
        epoch = broker.hub.room(room).state.epoch  # type: ignore[union-attr]
        async with raw_link(broker) as ann:
            await ann.login("dev:ann")
            async with nobody_reads(broker):
                await ann.send((Resume("lobby", Tier.FULL, epoch, 0), 0, 9))
                for number in range(8, 20):
                    await announce(host, room, number)
            _, answer = await ann.expect(Resumed)
            assert answer.recovered
            assert await offsets(ann, 19) == list(range(1, 20))


async def test_a_flood_of_events_during_resumes_skips_nothing_and_repeats_nothing(directory: Path) -> None:
    rng = random.Random(3)
    async with durable_broker(directory, room={**SHORT, "staff_posts_burst": 1000}, link={"frames_per_s": 0}) as broker:
        async with joined_link(broker, "dev:max:host") as (host, room), trio.open_nursery() as nursery:
            epoch = broker.hub.room(room).state.epoch  # type: ignore[union-attr]

            async def publish() -> None:
                for number in range(1, 301):
                    await host.post(room, number, MessageType.ANNOUNCEMENT, (f"news {number}",))
                    if number % 10 == 0:
                        await host.expect(Ack)

            async def come_back(user: str) -> None:
                position = links = 0
                while position < 300:
                    links += 1  # a user of its own each: how often one user may join is limited
                    async with raw_link(broker) as link:
                        await link.login(f"dev:{user}{links}")
                        await link.send((Resume("lobby", Tier.FULL, epoch, position), 0, 1))
                        _, answer = await link.expect(Resumed)
                        assert answer.recovered
                        for _ in range(rng.randint(1, 80)):
                            if position == 300:
                                break
                            assert (await link.expect(Event))[0].sequence == position + 1
                            position += 1

            nursery.start_soon(publish)
            for user in ("ann", "bob", "cat"):
                nursery.start_soon(come_back, user)


async def test_more_than_the_bound_is_a_gap_and_says_so(directory: Path) -> None:
    async with durable_broker(directory, room=SHORT, ledger={"resume_events": 4}) as broker:
        async with joined_link(broker, "dev:max:host") as (host, room), raw_link(broker) as ann:
            for number in range(1, 11):
                await announce(host, room, number)
            epoch = broker.hub.room(room).state.epoch  # type: ignore[union-attr]
            await ann.login("dev:ann")
            await ann.send((Resume("lobby", Tier.FULL, epoch, 0), 0, 9))
            _, answer = await ann.expect(Resumed)
            assert (answer.recovered, answer.gap_from, answer.snapshot.offset) == (False, 1, 10)
            async with raw_link(broker) as bob:
                await bob.login("dev:bob")
                await bob.send((Resume("lobby", Tier.FULL, epoch, 3), 0, 9))
                assert (await bob.expect(Resumed))[1].recovered
                assert await offsets(bob, 7) == list(range(4, 11))


async def test_a_position_that_never_was_is_not_recovered(directory: Path) -> None:
    async with durable_broker(directory, room=SHORT) as broker, joined_link(broker, "dev:max:host") as (host, room):
        await announce(host, room, 1)
        epoch = broker.hub.room(room).state.epoch  # type: ignore[union-attr]
        for wrong_epoch, offset in ((epoch + 1, 0), (epoch, 99)):
            async with raw_link(broker) as ann:
                await ann.login("dev:ann")
                await ann.send((Resume("lobby", Tier.FULL, wrong_epoch, offset), 0, 9))
                assert not (await ann.expect(Resumed))[1].recovered


async def test_a_damaged_history_is_never_served(directory: Path) -> None:
    async with durable_broker(directory, room=SHORT) as broker, joined_link(broker, "dev:max:host") as (host, room):
        for number in range(1, 8):
            await announce(host, room, number)
        epoch = broker.hub.room(room).state.epoch  # type: ignore[union-attr]
        disk(broker).connection.execute(
            "UPDATE entries SET body = x'95' || substr(body, 2), at_ms = at_ms + 1 WHERE seq = 2"
        )
        async with raw_link(broker) as ann:
            await ann.login("dev:ann")
            await ann.send((Resume("lobby", Tier.FULL, epoch, 0), 0, 9))
            _, answer = await ann.expect(Resumed)
            assert (answer.recovered, answer.gap_from) == (False, 1)
        assert broker.queries is not None
        assert broker.queries.failed == 1


async def test_a_disk_that_cannot_be_read_for_a_moment_makes_no_gap(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with durable_broker(directory, room=SHORT) as broker, joined_link(broker, "dev:max:host") as (host, room):
        for number in range(1, 8):
            await announce(host, room, number)
        epoch = broker.hub.room(room).state.epoch  # type: ignore[union-attr]

        def cannot(*args: object) -> None:
            raise disk_error("SQLITE_IOERR_READ")

        async with raw_link(broker) as ann:
            await ann.login("dev:ann")
            with monkeypatch.context() as broken:
                broken.setattr(Reader, "history", cannot)
                await ann.send((Resume("lobby", Tier.FULL, epoch, 0), 0, 9))
                frame, error = await ann.expect(ErrorReply)
                assert (frame.sequence, error.code, error.retry_after_ms) == (9, ErrorCode.OVERLOADED, 1000)
                with monkeypatch.context() as hurried:
                    hurried.setattr(queries, "RETRY_FOR_S", 0.0)
                    async with raw_link(broker) as bob:
                        await bob.login("dev:bob")
                        await bob.send((Resume("lobby", Tier.FULL, epoch, 0), 0, 9))
                        assert not (await bob.expect(Resumed))[1].recovered, (
                            "no client waits for a broken disk for ever"
                        )
            await ann.send((Resume("lobby", Tier.FULL, epoch, 0), 0, 10))
            assert (await ann.expect(Resumed))[1].recovered
            assert await offsets(ann, 7) == list(range(1, 8))


async def test_a_link_that_goes_while_it_waits_leaves_nothing_behind(directory: Path) -> None:
    async with durable_broker(directory, room=SHORT) as broker, joined_link(broker, "dev:max:host") as (host, room):
        for number in range(1, 8):
            await announce(host, room, number)
        found = broker.hub.room(room)
        assert found is not None
        async with nobody_reads(broker):
            async with raw_link(broker) as ann:
                await ann.login("dev:ann")
                await ann.send((Resume("lobby", Tier.FULL, found.state.epoch, 0), 0, 9))
                await until(lambda: broker.queries or broker.ledger.read_limiter.statistics().tasks_waiting)  # type: ignore[union-attr]
            await until(lambda: len(broker.context.sessions) <= 1)
        await until(lambda: broker.queries.asked >= 1)  # type: ignore[union-attr]
        assert len(found.members) == 1
        assert await announce(host, room, 8)


async def test_after_a_restart_the_newest_events_need_no_disk(directory: Path) -> None:
    async with durable_broker(directory) as broker, joined_link(broker, "dev:max:host") as (host, room):
        for number in range(1, 6):
            await announce(host, room, number)
        epoch = broker.hub.room(room).state.epoch  # type: ignore[union-attr]
    async with durable_broker(directory) as broker, raw_link(broker) as ann:
        await ann.login("dev:ann")
        await ann.send((Resume("lobby", Tier.FULL, epoch, 2), 0, 9))
        assert (await ann.expect(Resumed))[1].recovered
        assert await offsets(ann, 3) == [3, 4, 5]
        assert broker.queries is not None
        assert broker.queries.asked == 0
