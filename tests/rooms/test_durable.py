"""A broker with a ledger on real sockets: what was acknowledged survives, and nothing is shown before it is durable."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio

from broker.core.rooms.traces import Publication
from broker.ledger import LedgerState, Reader, database_path
from broker.rooms import hub
from broker.rooms.encoding import Prepared
from broker.rooms.fanout import Outbox
from broker.rooms.room import Room
from broker.server import Broker
from protocol.codes import ErrorCode, Lane, LeaveReason, MessageType, Outcome, RoomPhase, Tier
from protocol.messages import Ack, AckResult, ErrorReply, Event, Join, Left, Resume, Resumed
from tests.support.broker import joined_link, raw_link
from tests.support.durable import announce, disk, durable_broker, gift
from tests.support.faulty_disk import disk_error
from tests.support.until import until

pytestmark = pytest.mark.integration


async def test_events_rooms_and_epochs_come_back_after_a_restart(directory: Path) -> None:
    async with durable_broker(directory) as broker, joined_link(broker, "dev:max:host") as (host, room):
        assert broker.hub.find("lobby") is not None
        for number in (1, 2, 3):
            assert await announce(host, room, number) == (number, Outcome.ACCEPTED, number)
        epoch = broker.hub.find("lobby").state.epoch  # type: ignore[union-attr]
    async with durable_broker(directory) as broker, raw_link(broker) as ann:
        await ann.login("dev:ann")
        await ann.send((Resume("lobby", Tier.FULL, epoch, 1), 0, 9))
        _, resumed = await ann.expect(Resumed)
        assert (resumed.recovered, resumed.snapshot.epoch, resumed.snapshot.offset) == (True, epoch, 3)
        events = [await ann.expect(Event) for _ in range(2)]
        assert [(frame.sequence, event.payload) for frame, event in events] == [(2, ("news 2",)), (3, ("news 3",))]
        async with joined_link(broker, "dev:max:host") as (host, room):
            assert await announce(host, room, 4) == (4, Outcome.ACCEPTED, 4)
            assert (await ann.expect(Event))[0].sequence == 4


async def test_nothing_is_acknowledged_or_shown_before_it_is_on_the_disk(directory: Path) -> None:
    async with (
        durable_broker(directory) as broker,
        joined_link(broker, "dev:max:host") as (host, room),
        joined_link(broker, "dev:ann") as (ann, _),
    ):
        stuck = disk(broker).stuck = threading.Event()
        await host.post(room, 1, MessageType.ANNOUNCEMENT, ("news",))
        state = broker.hub.room(room).state  # type: ignore[union-attr]
        await until(lambda: broker.stats().accounts[Lane.CONTROL].admitted)
        await trio.to_thread.run_sync(disk(broker).reached.wait)
        assert state.last_offset == 0
        assert broker.stats().accounts[Lane.CONTROL] == (1, 0, 0, 0, 0, 1)
        await ann.post(room, 2, MessageType.LIKE, (1,))
        assert (await ann.expect(Ack))[1].results == ((2, Outcome.ACCEPTED, 1),), "chat does not wait for the disk"
        stuck.set()
        assert (await host.expect(Ack))[1].results == ((1, Outcome.ACCEPTED, 1),)
        assert (await ann.expect(Event))[0].sequence == 1
        assert broker.stats().balanced


async def test_what_one_commit_makes_durable_is_answered_in_one_frame(directory: Path) -> None:
    async with (
        durable_broker(directory) as broker,
        joined_link(broker, "dev:max:host") as (host, room),
        joined_link(broker, "dev:ann") as (ann, _),
    ):
        stuck = disk(broker).stuck = threading.Event()
        for number in (1, 2, 3):
            await host.post(room, number, MessageType.ANNOUNCEMENT, (f"news {number}",))
        await until(lambda: broker.stats().accounts[Lane.CONTROL].admitted >= 3)
        sweeps = broker.fanout.sweeps
        stuck.set()
        results: list[tuple[int, Outcome, int]] = []
        frames = 0
        while len(results) < 3:
            results += (await host.expect(Ack))[1].results
            frames += 1
        assert results == [(number, Outcome.ACCEPTED, number) for number in (1, 2, 3)]
        assert [(await ann.expect(Event))[0].sequence for _ in range(3)] == [1, 2, 3]
        assert frames == broker.fanout.sweeps - sweeps <= 2, "the first may have had a commit for itself"


async def test_a_room_that_fails_to_publish_a_commit_ends_alone(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with durable_broker(directory) as broker, joined_link(broker, "dev:max:host") as (host, room):
        submit = broker.fanout.submit
        failures: list[Lane] = []

        def fail_first_event(
            outbox: Outbox,
            prepared: Prepared,
            on_done: Callable[[float], None] | None = None,
            publications: Sequence[Publication] = (),
        ) -> None:
            if prepared.lane is Lane.CONTROL and not failures:
                failures.append(prepared.lane)
                raise ZeroDivisionError
            submit(outbox, prepared, on_done, publications)

        monkeypatch.setattr(broker.fanout, "submit", fail_first_event)
        assert await announce(host, room, 1) == (1, Outcome.ACCEPTED, 1)
        assert (await host.expect(Left))[1].reason is LeaveReason.ROOM_CRASHED
        async with joined_link(broker, "dev:ann:host") as (ann, again):
            assert await announce(ann, again, 2) == (2, Outcome.ACCEPTED, 2)
        assert broker.hub.crashed == 1


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_an_order_is_one_order_in_every_room_and_means_its_content(directory: Path, is_restarted: bool) -> None:
    async def results_of(broker: Broker) -> list[AckResult]:
        found: list[AckResult] = []
        async with joined_link(broker, "dev:shop:app", "lobby") as (shop, lobby):
            other, _ = await shop.join("other", sequence=100)
            posts = [(lobby, gift("o1")), (other, gift("o1")), (lobby, gift("o1", "eve")), (lobby, gift("o1", count=2))]
            for number, (room, payload) in enumerate(posts, 1):
                await shop.post(room, number, MessageType.GIFT, payload)
                found += (await shop.expect(Ack))[1].results
        return found

    reused = [AckResult(number, Outcome.REJECTED, ErrorCode.KEY_REUSED) for number in (2, 3, 4)]
    async with durable_broker(directory) as broker:
        assert await results_of(broker) == [AckResult(1, Outcome.ACCEPTED, 1), *reused]
        if not is_restarted:
            assert await results_of(broker) == [AckResult(1, Outcome.ACCEPTED, 1), *reused]
    if is_restarted:
        async with durable_broker(directory) as broker:
            assert await results_of(broker) == [AckResult(1, Outcome.ACCEPTED, 1), *reused]


async def test_a_gift_posted_again_after_a_restart_is_the_same_gift(directory: Path) -> None:
    for life in range(2):
        async with durable_broker(directory) as broker, joined_link(broker, "dev:shop:app") as (shop, room):
            for number in (1, 2):
                await shop.post(room, number, MessageType.GIFT, gift("order-1", count=3))
                assert (await shop.expect(Ack))[1].results == ((number, Outcome.ACCEPTED, 1),)
            assert broker.stats().accounts[Lane.PAID].shown == (0 if life else 1)
    reader = Reader(database_path(directory))
    assert sum(entry.kind == MessageType.GIFT for entry, *_ in reader.entries()) == 1
    reader.close()


async def test_a_full_disk_refuses_what_must_not_be_lost_and_lets_the_chat_go_on(directory: Path) -> None:
    async with durable_broker(directory) as broker, joined_link(broker, "dev:max:host") as (host, room):
        ledger = broker.ledger
        assert ledger is not None
        assert (await announce(host, room, 1)).outcome is Outcome.ACCEPTED
        disk(broker).fault = disk_error("SQLITE_FULL")
        limited = await announce(host, room, 2)
        assert limited.outcome is Outcome.UNAVAILABLE
        assert limited.detail > 0
        ready, words = broker.status()
        assert ready
        assert (words["status"], words["ledger"]) == ("degraded", "degraded")
        assert "disk full" in words["ledger_reason"]
        await host.post(room, 3, MessageType.DANMAKU, ("still talking", None))
        assert (await host.expect(Ack))[1].results == ((3, Outcome.ACCEPTED, 0),)
        assert (await announce(host, room, 4)).outcome is Outcome.UNAVAILABLE
        disk(broker).fault = None
        await until(lambda: ledger.state is LedgerState.READY)
        assert await announce(host, room, 2) == (2, Outcome.ACCEPTED, 2), "the refused one took no offset"
        assert broker.status()[1]["status"] == "ok"
        assert broker.stats().balanced


async def test_a_broker_that_lost_what_it_promised_is_not_ready(directory: Path) -> None:
    async with durable_broker(directory) as broker, joined_link(broker, "dev:max:host") as (host, room):
        ledger = broker.ledger
        assert ledger is not None
        store = disk(broker)
        store.forget_a_commit()
        store.fault = disk_error("SQLITE_IOERR_FSYNC")
        await announce(host, room, 1)
        await until(lambda: ledger.state is LedgerState.DAMAGED)
        ready, words = broker.status()
        assert not ready
        assert words["ledger"] == "damaged"


async def test_likes_are_written_every_second(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "CHECKPOINT_S", 0.01)
    async with durable_broker(directory) as broker, joined_link(broker, "dev:ann") as (ann, room):
        await ann.post(room, 1, MessageType.LIKE, (7,))
        await ann.expect(Ack)
        state = broker.hub.room(room).state  # type: ignore[union-attr]
        reader = Reader(database_path(directory))
        with trio.fail_after(20):
            while [each.totals for each in reader.rooms()] != [state.totals()]:  # noqa: ASYNC110 - the disk has no event
                await trio.sleep(0.005)
        reader.close()
        await broker.ledger.flush()  # type: ignore[union-attr]  # a commit can be read before it is counted
        before = broker.ledger.stats.commits  # type: ignore[union-attr]
        await trio.sleep(0.1)
        assert broker.ledger.stats.commits == before, "nothing has changed, so nothing is written"  # type: ignore[union-attr]


async def test_a_paused_room_is_paused_after_a_restart_and_keeps_its_likes(directory: Path) -> None:
    async with durable_broker(directory) as broker, joined_link(broker, "dev:max:host") as (host, room):
        await host.post(room, 1, MessageType.LIKE, (7,))
        await host.expect(Ack)
        await host.post(room, 2, MessageType.ROOM_PHASE, (RoomPhase.PAUSED,))
        await host.expect(Event)
    async with durable_broker(directory) as broker, raw_link(broker) as ann:
        await ann.login("dev:ann")
        _, joined = await ann.join()
        assert (joined.phase, joined.likes, joined.offset) == (RoomPhase.PAUSED, 7, 1)


async def test_an_idle_room_that_was_paused_is_paused_when_somebody_comes(directory: Path) -> None:
    async with durable_broker(directory, room={"idle_close_s": 0.1}) as broker:
        async with joined_link(broker, "dev:max:host") as (host, room):
            await host.post(room, 1, MessageType.ROOM_PHASE, (RoomPhase.PAUSED,))
            await host.expect(Event)
        await until(lambda: len(broker.hub) == 0)
    async with durable_broker(directory) as broker, raw_link(broker) as ann:
        await ann.login("dev:ann")
        assert (await ann.join())[1].phase is RoomPhase.PAUSED


async def test_a_room_that_was_ended_begins_anew_after_a_restart(directory: Path) -> None:
    async with durable_broker(directory) as broker, joined_link(broker, "dev:max:host") as (host, room):
        await announce(host, room, 1)
        epoch = broker.hub.room(room).state.epoch  # type: ignore[union-attr]
        await host.post(room, 2, MessageType.ROOM_PHASE, (RoomPhase.ENDED,))
        assert (await host.expect(Left))[1].reason is LeaveReason.ROOM_ENDED
        again, joined = await host.join(sequence=3)
        assert again != room
        assert joined.epoch != epoch
        second = joined.epoch
    async with durable_broker(directory) as broker, raw_link(broker) as ann:
        await ann.login("dev:ann")
        _, joined = await ann.join()
        assert (joined.epoch, joined.offset) == (second, 0)


async def test_an_idle_room_goes_on_where_it_stood(directory: Path) -> None:
    async with durable_broker(directory, room={"idle_close_s": 0.1}) as broker:
        async with joined_link(broker, "dev:max:host") as (host, room):
            await announce(host, room, 1)
            epoch = broker.hub.room(room).state.epoch  # type: ignore[union-attr]
        await until(lambda: len(broker.hub) == 0)
        async with joined_link(broker, "dev:max:host") as (host, room):
            assert broker.hub.room(room).state.epoch == epoch  # type: ignore[union-attr]
            assert await announce(host, room, 2) == (2, Outcome.ACCEPTED, 2)


async def test_a_room_that_crashes_goes_on_in_the_same_stream(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with durable_broker(directory) as broker, joined_link(broker, "dev:max:host") as (host, room):
        await announce(host, room, 1)
        state = broker.hub.room(room).state  # type: ignore[union-attr]
        monkeypatch.setattr(state, "committed", lambda *args: 1 / 0)
        await host.post(room, 2, MessageType.ANNOUNCEMENT, ("boom",))
        assert (await host.expect(Left))[1].reason is LeaveReason.ROOM_CRASHED
        again, joined = await host.join(sequence=3)
        assert (joined.epoch, joined.offset) == (state.epoch, 2)
        assert await announce(host, again, 4) == (4, Outcome.ACCEPTED, 3)


async def test_an_idle_room_is_not_begun_anew_while_the_ledger_owes_it_an_answer(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        room = broker.hub.open("lobby")
        assert isinstance(room, Room)
        room.journal.pending += 1
        room.end(LeaveReason.ROOM_IDLE)
        assert broker.hub.open("lobby") is ErrorCode.OVERLOADED
        room.journal.pending -= 1
        again = broker.hub.open("lobby")
        assert isinstance(again, Room)
        assert again.state.epoch == room.state.epoch


async def test_a_pause_that_becomes_durable_after_a_crash_of_its_room_counts(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        room = broker.hub.open("lobby")
        assert isinstance(room, Room)
        room.set_phase(RoomPhase.PAUSED, "max")
        broker.hub.crash(room)
        while not isinstance(again := broker.hub.open("lobby"), Room):  # noqa: ASYNC110 - it has no event for this
            await trio.sleep(0.001)
        assert again.state.phase is RoomPhase.PAUSED


async def test_a_room_that_only_the_platform_opens_can_be_joined_again_after_a_restart(directory: Path) -> None:
    async with durable_broker(directory, room={"create_on_join": False}) as broker:
        broker.hub.open("lobby")
        async with joined_link(broker, "dev:max:host") as (host, room):
            await announce(host, room, 1)
    async with durable_broker(directory, room={"create_on_join": False}) as broker, raw_link(broker) as ann:
        await ann.login("dev:ann")
        _, joined = await ann.join()
        assert joined.offset == 1
        await ann.send((Join("elsewhere"), 0, 5))
        assert (await ann.expect(ErrorReply))[1].code == ErrorCode.UNKNOWN_ROOM


async def test_an_unused_room_that_a_viewer_opened_ends_soon_and_keeps_no_checkpoint(directory: Path) -> None:
    closing = {"unused_close_s": 0.1}
    async with durable_broker(directory, room=closing) as broker:
        assert broker.room_store is not None
        async with joined_link(broker, "dev:max:host", "kept"), joined_link(broker, "dev:ann", "used") as (ann, room):
            await ann.post(room, 1, MessageType.LIKE, (3,))
            await ann.expect(Ack)
        async with joined_link(broker, "dev:ann", "unused"):
            pass
        await until(lambda: broker.hub.find("unused") is None)
        assert not broker.room_store.knows("unused")
        assert broker.hub.find("kept") is not None
        assert broker.hub.find("used") is not None
    async with durable_broker(directory, room=closing) as broker:
        assert broker.room_store is not None
        assert [broker.room_store.knows(name) for name in ("kept", "used", "unused")] == [True, True, False]
        async with joined_link(broker, "dev:bob", "unused"):
            pass


async def test_draining_writes_what_was_paced_and_the_totals(directory: Path) -> None:
    async with durable_broker(directory, link={"drain_s": 1}, room={"paid_budget_per_s": 1}) as broker:
        async with trio.open_nursery() as nursery, joined_link(broker, "dev:shop:app") as (shop, room):
            for number in range(12):
                await shop.post(room, number, MessageType.GIFT, gift(f"order-{number}", f"user-{number}"))
            await shop.post(room, 99, MessageType.LIKE, (3,))
            answered: dict[int, Outcome] = {}
            nursery.start_soon(broker.drain)
            while len(answered) < 13:
                answered |= {each.sequence: each.outcome for each in (await shop.expect(Ack))[1].results}
            assert set(answered.values()) == {Outcome.ACCEPTED}
            await shop.stream.aclose()
        await broker.stopped.wait()
    async with durable_broker(directory) as broker, raw_link(broker) as ann:
        await ann.login("dev:ann")
        _, joined = await ann.join()
        assert (joined.offset, joined.likes) == (22, 3), "twelve gifts, and the ends of the ten combos that had started"


async def test_draining_writes_the_totals_of_more_rooms_than_the_ledger_takes_at_once(directory: Path) -> None:
    async with durable_broker(directory, link={"drain_s": 1}, ledger={"queue_items": 1}) as broker:
        async with trio.open_nursery() as nursery, raw_link(broker) as max_:
            await max_.login("dev:max:host")
            rooms = [(await max_.join(f"room-{number}"))[0] for number in range(6)]
            await broker.hub.second_taken.wait()  # the next checkpoint that is due is a second away
            for sequence, room in enumerate(rooms):
                await max_.post(room, sequence, MessageType.LIKE, (sequence + 1,))
            nursery.start_soon(broker.drain)
            await max_.expect_close()
            await max_.stream.aclose()
        await broker.stopped.wait()
    async with durable_broker(directory) as broker, raw_link(broker) as ann:
        await ann.login("dev:ann")
        for number in range(6):
            room, joined = await ann.join(f"room-{number}")
            assert joined.likes == number + 1
            opened = broker.hub.room(room)
            assert opened is not None
            assert [each.score for each in opened.state.rankings.dump()] == [number + 1]
