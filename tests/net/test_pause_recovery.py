"""A viewer in a lift for a minute, while the show goes on: a real client and a real broker, and a clock that we move.

Sockets, ledger and its disk are real; only time is not, so a minute takes a second.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from broker.net import poller
from broker.server import Broker
from protocol.clients import Address, BytePipe, Client, PipeLost, open_client
from protocol.clients.events import Gap, Rejoined, StreamEvent
from protocol.clients.room import JoinedRoom
from protocol.clients.transports import StreamPipe, connector
from protocol.codes import CloseCode, MessageType, Outcome
from tests.support.durable import durable_broker

pytestmark = pytest.mark.integration

LIFT_S = 60.0
MISSED = 1200
"""More than twice what a room remembers."""
STEP_S = 0.25


@pytest.fixture(autouse=True)
def _nothing_waits_for_company(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stands still here unless a test moves it."""
    monkeypatch.setattr(poller, "GATHER_S", 0.0)


class Lift:
    """A network that can be taken away: cut, so that every link breaks and none can be made; or silent, so that nothing
    arrives and no peer is notified.
    """

    def __init__(self) -> None:
        self.is_cut = False
        self.open = trio.Event()
        self.open.set()
        self._dial = connector()
        self.attempts = 0
        self._pipes: list[BytePipe] = []

    async def dial(self, nursery: trio.Nursery, address: Address) -> BytePipe:
        """The client's connector."""
        self.attempts += 1
        if self.is_cut:
            await trio.lowlevel.checkpoint()
            raise PipeLost(None, "no network in a lift")
        pipe = await self._dial(nursery, address)
        if self.attempts == 1:  # so that it can be full while no task reads
            assert isinstance(pipe, StreamPipe)
            pipe.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)  # type: ignore[attr-defined]
        self._pipes.append(pipe)
        return Carried(self, pipe)

    async def cut(self) -> None:
        """Break every link, without a word."""
        self.is_cut = True
        for pipe in self._pipes:
            await pipe.aclose()
        self._pipes.clear()

    def silence(self) -> None:
        self.open = trio.Event()


class Carried:
    """A pipe that waits while its lift is silent."""

    def __init__(self, lift: Lift, pipe: BytePipe) -> None:
        self._lift = lift
        self._pipe = pipe

    async def send(self, data: bytes) -> None:
        await self._lift.open.wait()
        await self._pipe.send(data)

    async def receive(self) -> bytes:
        await self._lift.open.wait()
        data = await self._pipe.receive()
        await self._lift.open.wait()
        return data

    async def aclose(self, code: int | None = None) -> None:
        await self._pipe.aclose(code)


async def pass_time(clock: MockClock, seconds: float) -> None:
    """Let virtual time pass in small steps, with a moment of real time in each for sockets and the disk."""
    for _ in range(round(seconds / STEP_S)):
        clock.jump(STEP_S)
        await trio.to_thread.run_sync(time.sleep, 0.001)


class Viewer:
    """What the one in the lift sees."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.gaps: list[Gap] = []
        self.returns: list[Rejoined] = []

    async def watch(self, room: JoinedRoom) -> None:
        async for event in room:
            if isinstance(event, StreamEvent):
                self.offsets.append(event.offset)
            elif isinstance(event, Gap):
                self.gaps.append(event)
            elif isinstance(event, Rejoined):
                self.returns.append(event)


async def pass_over(room: JoinedRoom) -> None:
    async for _ in room:
        pass


async def publish(room: JoinedRoom, count: int, words: str) -> None:
    """Publish so many events, several at a time."""

    async def publish_some(numbers: range) -> None:
        for number in numbers:
            result = await room.post(MessageType.ANNOUNCEMENT, (f"{words} {number}",), timeout_s=1000)
            assert result.outcome is Outcome.ACCEPTED, result

    async with trio.open_nursery() as nursery:
        for first in range(20):
            nursery.start_soon(publish_some, range(first, count, 20))


@asynccontextmanager
async def show(
    directory: Path, lift: Lift, **overrides: object
) -> AsyncIterator[tuple[Broker, JoinedRoom, Viewer, Client]]:
    """A host's room, and a viewer who has come by lift and seen three events."""
    link = {"frames_per_s": 0, "send_buffer_bytes": 16384}
    viewer = Viewer()
    async with (
        durable_broker(
            directory, link=link, room={"admit_per_window": 100_000, "staff_posts_burst": 100_000}, **overrides
        ) as broker,
        open_client(f"roomcast://127.0.0.1:{broker.addresses[0][1]}", "dev:max:host") as host,
        open_client(
            f"roomcast://127.0.0.1:{broker.addresses[0][1]}", "dev:ann", connect=lift.dial, rng=random.Random(1)
        ) as ann,
        trio.open_nursery() as nursery,
    ):
        harness = await host.join("lobby")
        nursery.start_soon(pass_over, harness)
        nursery.start_soon(viewer.watch, await ann.join("lobby"))
        await publish(harness, 3, "before")
        while len(viewer.offsets) < 3:
            await trio.to_thread.run_sync(time.sleep, 0.001)
        yield broker, harness, viewer, ann
        nursery.cancel_scope.cancel()


async def catch_up(clock: MockClock, viewer: Viewer, last: int) -> None:
    """Time passes until the viewer has seen the last event; the client may wait half a minute before it tries again."""
    for _ in range(400):
        if viewer.offsets[-1] == last:
            return
        await pass_time(clock, STEP_S)
    raise AssertionError(f"the viewer stands at {viewer.offsets[-1]} of {last}, gaps: {viewer.gaps}")


@pytest.mark.parametrize("way", ["cut", "silent"])
async def test_a_minute_in_a_lift_costs_no_event_and_shows_none_twice(
    way: str, directory: Path, mock_clock: MockClock
) -> None:
    lift = Lift()
    async with show(directory, lift) as (broker, harness, viewer, _):
        if way == "cut":
            await lift.cut()
        else:
            lift.silence()
        for part in range(6):  # the show goes on all the time
            await publish(harness, MISSED // 6, "公告" * 20 + f" {part}")
            await pass_time(mock_clock, LIFT_S / 6)
        assert len(viewer.offsets) == 3
        lift.is_cut = False
        lift.open.set()
        await catch_up(mock_clock, viewer, 3 + MISSED)
        await publish(harness, 5, "after")
        await catch_up(mock_clock, viewer, 3 + MISSED + 5)
        assert viewer.offsets == list(range(1, 3 + MISSED + 5 + 1))
        assert viewer.gaps == []
        assert [back.recovered for back in viewer.returns] == [True]
        assert broker.queries is not None
        assert broker.queries.asked >= 1, "the room alone could not have known all of it"
        assert broker.context.closed[CloseCode.SLOW_VIEWER] == (way == "silent")
        assert lift.attempts > 3 if way == "cut" else lift.attempts == 2


async def test_beyond_what_one_resume_may_bring_back_the_gap_is_named(directory: Path, mock_clock: MockClock) -> None:
    lift = Lift()
    async with show(directory, lift, ledger={"resume_events": 100}) as (_, harness, viewer, _):
        await lift.cut()
        await publish(harness, MISSED, "news")
        await pass_time(mock_clock, LIFT_S)
        lift.is_cut = False
        while not viewer.returns:
            await pass_time(mock_clock, STEP_S)
        await publish(harness, 1, "after")
        await catch_up(mock_clock, viewer, 3 + MISSED + 1)
        assert [back.recovered for back in viewer.returns] == [False]
        assert viewer.gaps == [Gap(4, 3 + MISSED)]
        assert viewer.offsets == [1, 2, 3, 3 + MISSED + 1]
