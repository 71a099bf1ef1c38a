"""SIGSTOP and SIGCONT: a broker that was stopped closes no link for it, sends no burst, and is not overloaded by it."""

from __future__ import annotations

import signal

import pytest
import trio

from protocol.clients import ClientClosed, Disconnected, open_client
from protocol.clients.events import Gap, TickAccount
from protocol.codes import Outcome
from tests.support.processes import Serving, healthz, serving

pytestmark = [pytest.mark.integration, pytest.mark.slow]

VIEWERS = 60
HEARTBEAT_S = 1.5
CUT_S = 4.0
STOPPED_S = 2.8
"""Less than what a client tolerates that has received a tick just before; more than a broker would that counted it,
as it may have received the last PING long before."""


class Viewers:
    """Viewers who count what happens to them."""

    def __init__(self, broker: Serving) -> None:
        self.urls = (broker.url, f"ws://127.0.0.1:{broker.port}/")
        self.inside = 0
        self.ticks = 0
        self.lost: list[object] = []

    async def view(self, number: int) -> None:
        async with open_client(self.urls[number % 2], f"dev:v{number}") as client, trio.open_nursery() as nursery:
            nursery.start_soon(self.hear, client.events())
            room = await client.join("lobby")
            self.inside += 1
            async for event in room:
                self.ticks += isinstance(event, TickAccount)
                if isinstance(event, Gap):
                    self.lost.append(event)

    async def hear(self, events: object) -> None:
        async for event in events:  # type: ignore[attr-defined]
            if isinstance(event, Disconnected):
                self.lost.append(event)


async def chatter(url: str, said: list[Outcome | None]) -> None:
    """Somebody says something ten times a second, so that every viewer hears the broker all the time."""
    async with open_client(url, "dev:host:host") as client:
        room = await client.join("lobby")
        number = 0
        while True:
            number += 1
            try:
                result = await room.post_danmaku(f"message {number}", timeout_s=10)
            except ClientClosed:
                return
            said.append(result.outcome)
            await trio.sleep(0.1)


async def test_a_broker_that_was_stopped_goes_on_as_if_no_time_had_passed() -> None:
    said: list[Outcome | None] = []
    settings = (f"link.heartbeat_s={HEARTBEAT_S}", f"link.heartbeat_cut_s={CUT_S}", "link.write_timeout_s=1")
    options = [part for setting in settings for part in ("--set", setting)]
    async with serving(*options, "--set", "room.policy=off") as broker:
        viewers = Viewers(broker)
        async with trio.open_nursery() as nursery:
            for number in range(VIEWERS):
                nursery.start_soon(viewers.view, number)
            nursery.start_soon(chatter, broker.url, said)
            with trio.fail_after(60):
                while viewers.inside < VIEWERS:  # noqa: ASYNC110 - it only looks now and then
                    await trio.sleep(0.01)
            await trio.sleep(HEARTBEAT_S)
            broker.signal(signal.SIGSTOP)
            await trio.sleep(STOPPED_S)
            ticks, answers = viewers.ticks, len(said)
            broker.signal(signal.SIGCONT)
            await broker.err.until("event loop paused")
            status, words = await healthz(broker)
            assert status == 200, words  # counted as lag, the stop would be the highest stage of overload
            with trio.fail_after(30):
                while len(said) < answers + 10:  # noqa: ASYNC110 - as above
                    await trio.sleep(0.01)
            assert set(said[answers:]) == {Outcome.ACCEPTED}
            # What was posted is what arrives: one tick a message, and a few that were queued when the process stopped.
            assert viewers.ticks - ticks <= VIEWERS * (len(said) - answers + 5)
            await trio.sleep(CUT_S)
            assert viewers.lost == []
            nursery.cancel_scope.cancel()
