"""Cancelling the broker's coroutines at every step: no thread, descriptor or lock stays, and what was said holds."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from broker.ledger import Committed, Entry, Ledger, LedgerLimits, LedgerResult, Reader, SubmitResult, database_path
from broker.ledger.queries import LedgerQueries
from broker.server import Broker, unix_ms
from broker.users.inbox import Inboxes
from broker.users.registry import UserRegistry
from protocol.codes import MessageType, Outcome
from protocol.messages import Ack, Event
from tests.support.broker import RawLink, configuration
from tests.support.cancellation import CancelAtStep, cancel_at_every_step
from tests.support.durable import QUICK, DurableBroker
from tests.support.faulty_disk import bodies
from tests.support.integration import require_marker


def a_broker(directory: Path, **link: float) -> Broker:
    config = configuration(ledger={"data_dir": str(directory)}, link={"drain_s": 0.05, **link})
    require_marker("a whole broker")
    return DurableBroker(config, rng=random.Random(7))


def a_ledger(directory: Path, limits: LedgerLimits | None = None) -> Ledger:
    return Ledger(directory, unix_ms=unix_ms, pace=QUICK, limits=limits)


@pytest.mark.integration
@pytest.mark.slow
def test_a_broker_that_is_cancelled_while_it_starts_leaves_nothing(directory: Path) -> None:
    async def start(instrument: CancelAtStep) -> None:
        broker = a_broker(directory)
        with instrument.scope:
            async with trio.open_nursery() as nursery:
                instrument.arm()
                await nursery.start(broker.run)
                instrument.disarm()
                assert broker.addresses
                nursery.cancel_scope.cancel()

    cancel_at_every_step(start, 15)


class Watcher(RawLink):
    """A link that reads to the end, whatever comes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self.acked: list[int] = []
        self.seen: list[int] = []

    async def read_to_the_end(self) -> None:
        while (frame := await self.next_frame()) is not None:
            if isinstance(frame.message, Ack):
                self.acked += [each.detail for each in frame.message.results if each.outcome is Outcome.ACCEPTED]
            elif isinstance(frame.message, Event):
                self.seen.append(frame.sequence)
        assert not self.connection.mid_frame, "a frame was cut"
        await self.stream.aclose()  # a broker that drains waits a second for clients that stay


@pytest.mark.integration
@pytest.mark.slow
def test_a_broker_that_is_cancelled_while_it_drains_cuts_no_frame_and_keeps_its_word(directory: Path) -> None:
    acked: set[int] = set()
    posted: list[int] = []

    async def stop(instrument: CancelAtStep) -> None:
        broker = a_broker(directory)
        async with AsyncExitStack() as links, trio.open_nursery() as outside:
            with instrument.scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(broker.run)
                    stream = await links.enter_async_context(await trio.open_tcp_stream(*broker.addresses[0]))
                    link = Watcher(stream)
                    await link.login("dev:max:host")
                    room, _ = await link.join()
                    for number in range(len(posted), len(posted) + 3):
                        posted.append(number)
                        await link.post(room, number, MessageType.ANNOUNCEMENT, (f"news {number}",))
                    outside.start_soon(link.read_to_the_end)
                    instrument.arm()
                    await broker.drain()
                    await broker.stopped.wait()
                    instrument.disarm()
            assert broker.stopped.is_set()
        acked.update(link.acked)

    cancel_at_every_step(stop, 10)
    reader = Reader(database_path(directory))
    reader.verify_all()
    offsets = [entry.offset for entry, *_ in reader.entries() if entry.offset]
    reader.close()
    assert offsets == list(range(1, len(offsets) + 1))
    assert acked <= set(offsets)
    assert len(acked) > len(posted) // 2, "most results came before the end"


@pytest.mark.slow
def test_a_ledger_that_is_cancelled_while_it_starts_can_be_opened_again(directory: Path) -> None:
    async def start(instrument: CancelAtStep) -> None:
        ledger = a_ledger(directory)
        with instrument.scope:
            async with trio.open_nursery() as nursery:
                instrument.arm()
                await nursery.start(ledger.run)
                instrument.disarm()
                nursery.cancel_scope.cancel()

    cancel_at_every_step(start, 3)


@pytest.mark.slow
def test_questions_and_waits_that_are_cancelled_leave_the_ledger_whole(directory: Path) -> None:
    results: list[LedgerResult] = []
    sent = 0

    async def ask(instrument: CancelAtStep) -> None:
        nonlocal sent
        ledger = a_ledger(directory)
        async with trio.open_nursery() as nursery:
            await nursery.start(ledger.run)
            with instrument.scope:
                instrument.arm()
                for _ in range(3):
                    sent += (
                        ledger.record((Entry("lobby", 7, 1, 4, unix_ms(), b"x"),), results.append)
                        is SubmitResult.QUEUED
                    )
                    await ledger.ask(Reader.rooms)
                await ledger.flush()
            instrument.disarm()
            await ledger.flush()
            assert len(await ledger.ask(Reader.rooms)) == 1
            nursery.cancel_scope.cancel()

    cancel_at_every_step(ask, 8)
    assert len(results) == len(bodies(database_path(directory))) == sent
    assert all(isinstance(settled, Committed) for settled in results)


@pytest.mark.slow
def test_a_batch_that_is_cancelled_is_completed_by_sending_it_again(directory: Path) -> None:
    users = {f"user{number}": {"code": f"c{number}"} for number in range(30)}
    batches = 0

    async def send(instrument: CancelAtStep) -> None:
        nonlocal batches
        batches += 1
        ledger = a_ledger(directory, LedgerLimits(max_items=4))  # so that it has to wait again and again
        queries = LedgerQueries(ledger)
        inboxes = Inboxes(ledger, queries, UserRegistry(4), unix_ms, 3600)
        async with trio.open_nursery() as nursery:
            await nursery.start(ledger.run)
            with instrument.scope:
                instrument.arm()
                await inboxes.send_batch(f"batch {batches}", 30, ("{code}",), users)
            instrument.disarm()
            result = await inboxes.send_batch(f"batch {batches}", 30, ("{code}",), users)
            assert (result.sent + result.repeated, result.failed) == (len(users), 0)
            nursery.cancel_scope.cancel()

    cancel_at_every_step(send, 10)
    reader = Reader(database_path(directory))
    for user in users:
        assert len(reader.inbox(user, 0, 1000)) == min(batches, 1000), "each batch once"
    reader.close()
