"""Load process of the demo: many clients that watch, post, flood, like, disconnect and reconnect.

It is a process because it would otherwise take the broker's processor time, and the demonstration would be one of a
broker that is starved. Commands come in as JSON lines, reports go out as JSON lines; the end of the input is the end of
the crowd.

    {"do": "mood", "at_s": 3.2, "mood": [...]}   behave so from now on (`script.ActRates`), 3.2 s into the show
    {"do": "cut", "share": 0.33}                 cut so many links at once, as soon as those people know all fates
    {"do": "calm"}                               say nothing more; reports are "calm" when every fate is known
    {"do": "leave"}                              go home
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from itertools import cycle
from random import Random
from typing import Any, NamedTuple

import trio

from broker.demo.accounting import Accounting, Latency
from broker.demo.scenario import ActRates, Phrases, viewer_name
from broker.demo.users import CuttableConnector, DemoUser, SmallBuffers
from protocol.clients import Danmaku, Gap, MessagesMissed, Rejoined, RoomEvent, State, StreamEvent, TickAccount
from protocol.codes import MessageType, Tier
from protocol.payloads import DanmakuPayload, LikePayload

__all__ = ["FLOODERS", "QUIET", "LoadProcess", "LoadShare", "LoadViewer", "Report", "read_lines"]

QUIET, FLOODERS = "people", "flooders"
"""Groups of the ledger."""

STEP_S = 0.02
REPORT_S = 0.25
ENTRANTS = 16
"""Members that enter at a time."""
MAX_IN_FLIGHT = 300
"""Posts without a fate; what the crowd would say beyond it is not said. A fate takes a tick, or nothing."""
LATE_S = 0.1
"""A crowd whose own steps come so late says less, until they do not: it must not measure how slow it is itself."""
CREDIT_S = 0.2
"""A crowd that was held up catches up with so much of what it should have said."""
FLOODER_EVERY = 25
"""One in so many floods."""
FLOOD_BURST = 5
WEBSOCKET_EVERY = 4
"""One in so many watches over WebSocket."""
CALM_S = 20.0
LEAVE_S = 5.0
_TIERS = (Tier.FULL, Tier.FULL, Tier.MEDIUM, Tier.LOW)


class LoadShare(NamedTuple):
    """Which of the viewers one load process plays: viewers ``first`` to ``first + size - 1``.

    ``talks`` False: they only watch, and nobody cuts them. A few such in a process of their own measure latency better
    than the many, who wait for each other's turn on a processor.
    """

    port: int
    room: str
    first: int
    size: int
    seed: int
    talks: bool = True


class Report(NamedTuple):
    """What a crowd has to say, all numbers since the beginning except ``latency``."""

    entered: int = 0
    tcp: int = 0
    """Members in the room now, by transport."""
    websocket: int = 0
    under_way: int = 0
    calm: bool = False
    received: int = 0
    """Danmaku, events and counters that reached a member."""
    cut: int = 0
    back: int = 0
    recovered: int = 0
    """Of those back: nothing of lanes 0-2 was missed."""
    holes: int = 0
    missed: int = 0
    offset: int = 0
    """Events of lanes 0-2 that everybody has heard."""
    latency: tuple[tuple[int, int], ...] = ()
    """(milliseconds, how often) since the last report."""
    accounting: Any = None
    """`Accounting.to_json`."""


class LoadViewer:
    """One member of the crowd and what it has seen."""

    def __init__(self, share: LoadShare, index: int, latency: Latency, wall_ms: Callable[[], float]) -> None:
        self.cable = CuttableConnector()
        self.resting = False
        """Says nothing: its link is about to be cut, or is."""
        self.received = 0
        self.back = 0
        self.recovered = 0
        self.holes = 0
        self.missed = 0
        self._latency = latency
        self._wall_ms = wall_ms
        self._old_until = 0
        websocket = index % WEBSOCKET_EVERY == 1
        url = f"ws://127.0.0.1:{share.port}/" if websocket else f"roomcast://127.0.0.1:{share.port}"
        rng = Random(f"{share.seed}-{index}")
        tier = _TIERS[index // WEBSOCKET_EVERY % len(_TIERS)]
        self.member = DemoUser(url, viewer_name(index), tier, self.on_event, rng, self.cable)

    def on_event(self, event: RoomEvent) -> None:
        """Take one event of the room."""
        match event:
            case Danmaku() | State():
                self.received += 1
            case TickAccount(at_ms=at_ms):
                self._latency.add(self._wall_ms() - at_ms)
            case StreamEvent(offset=offset, at_ms=at_ms):
                self.received += 1
                if offset > self._old_until:
                    self._latency.add(self._wall_ms() - at_ms)
            case Rejoined(snapshot, recovered):
                self.back += 1
                self.recovered += recovered
                self.resting = False
                self._old_until = snapshot.offset
            case Gap():
                self.holes += 1
            case MessagesMissed(chat, ambient):
                self.missed += chat + ambient
            case _:
                pass


class LoadProcess:
    """The members of one process."""

    def __init__(self, share: LoadShare, wall_ms: Callable[[], float] = lambda: time.time_ns() / 1e6) -> None:
        self._share = share
        self._rng = Random(f"{share.seed}-crowd-{share.first}")
        self._phrases = Phrases(self._rng)
        self._latency = Latency()
        self.accounting = Accounting()
        self.viewers = [
            LoadViewer(share, index, self._latency, wall_ms) for index in range(share.first, share.first + share.size)
        ]
        flooders = self.viewers[FLOODER_EVERY // 3 :: FLOODER_EVERY]
        chosen = set(map(id, flooders))
        quiet = [viewer for viewer in self.viewers if id(viewer) not in chosen]
        self._quiet = self._in_turn(self._rng.sample(quiet, len(quiet)))
        self._flooders = self._in_turn(flooders)
        self.rates = ActRates()
        self._begun = 0.0
        self._entered = 0
        self._cut = 0
        self._calm = False

    # ---- commands

    async def run(self, commands: AsyncIterator[str], tell: Callable[[str], None]) -> None:
        """Play until told to leave or the commands end. ``tell`` takes one line of report and must not wait."""
        async with trio.open_nursery() as house:
            async with trio.open_nursery() as stage:
                stage.start_soon(self._enter_all, house)
                stage.start_soon(self._talk, stage)
                stage.start_soon(self._report, tell)
                async for line in commands:
                    command = json.loads(line)
                    match command["do"]:
                        case "rates" | "cut" if not self._share.talks:
                            pass
                        case "rates":
                            self.rates = ActRates(*command["rates"])
                            self._begun = trio.current_time() - command["at_s"]
                        case "cut":
                            stage.start_soon(self._cut_links, command["share"])
                        case "calm":
                            self._calm = True
                        case _:
                            break
                tell(self._line())
                stage.cancel_scope.cancel()
            for viewer in self.viewers:
                viewer.member.leave()
            house.cancel_scope.deadline = trio.current_time() + LEAVE_S

    async def _cut_links(self, share: float) -> None:
        chosen = self._rng.sample(self.viewers, round(share * len(self.viewers)))
        for viewer in chosen:
            viewer.resting = True
        with trio.move_on_after(CALM_S):
            for viewer in chosen:
                await viewer.member.wait_answered()
        # Only those who have heard all: a fate that nobody hears cannot be counted.
        chosen = [viewer for viewer in chosen if not viewer.member.under_way]
        self._cut += len(chosen)
        async with trio.open_nursery() as nursery:
            for viewer in chosen:
                nursery.start_soon(viewer.cable.cut)

    # ---- members

    async def _enter_all(self, nursery: trio.Nursery) -> None:
        doors = trio.CapacityLimiter(ENTRANTS)

        async def enter(viewer: LoadViewer) -> None:
            async with doors:
                await nursery.start(viewer.member.run, self._share.room)
            self._entered += 1

        async with trio.open_nursery() as entrance:
            for viewer in self.viewers:
                entrance.start_soon(enter, viewer)

    @staticmethod
    def _in_turn(viewers: list[LoadViewer]) -> Iterator[LoadViewer | None]:
        """Those who may speak, one after another; None if nobody may."""
        if not viewers:
            return cycle((None,))

        def turns() -> Iterator[LoadViewer | None]:
            place = 0
            while True:
                for step in range(len(viewers)):
                    viewer = viewers[(place + step) % len(viewers)]
                    if not viewer.resting and viewer.member.is_joined:
                        place = (place + step + 1) % len(viewers)
                        yield viewer
                        break
                else:
                    yield None

        return turns()

    async def _talk(self, nursery: trio.Nursery) -> None:
        """Say what the mood demands, in small steps."""
        credit = [0.0, 0.0, 0.0]
        pace = 1.0
        before = trio.current_time()
        while True:
            await trio.sleep(STEP_S)
            now = trio.current_time()
            elapsed_s, before = now - before, now
            pace = max(0.05, pace * 0.8) if elapsed_s > STEP_S + LATE_S else min(1.0, pace + 0.01)
            if self._calm:
                continue
            rates, size, under_way = self.rates, len(self.viewers), self._under_way()
            by_source = (
                rates.chat_per_viewer * size,
                rates.flood_per_viewer * size / FLOOD_BURST,
                rates.likes_per_viewer * size,
            )
            for source, rate in enumerate(by_source):
                credit[source] = min(credit[source] + pace * rate * elapsed_s, max(1.0, rate * CREDIT_S))
                while credit[source] >= 1.0:
                    credit[source] -= 1.0
                    if under_way < MAX_IN_FLIGHT:
                        under_way += self._speak(source, now - self._begun, nursery)

    def _speak(self, source: int, at_s: float, nursery: trio.Nursery) -> int:
        """Let the next one speak; returns how many posts that is."""
        viewer = next(self._flooders if source == 1 else self._quiet)
        if viewer is None:
            return 0
        say = viewer.member.say
        if source == 0:
            payload = DanmakuPayload(self._phrases.next(at_s, self.rates.hot_share))
            nursery.start_soon(say, self.accounting, QUIET, MessageType.DANMAKU, payload)
        elif source == 1:
            for _ in range(FLOOD_BURST):
                payload = DanmakuPayload(self._phrases.flood())
                nursery.start_soon(say, self.accounting, FLOODERS, MessageType.DANMAKU, payload)
            return FLOOD_BURST
        else:
            taps = LikePayload(self._rng.randint(1, 15))
            nursery.start_soon(say, self.accounting, QUIET, MessageType.LIKE, taps)
        return 1

    def _under_way(self) -> int:
        return sum(viewer.member.under_way for viewer in self.viewers)

    # ---- reports

    async def _report(self, tell: Callable[[str], None]) -> None:
        while True:
            tell(self._line())
            await trio.sleep(REPORT_S)

    def report(self) -> Report:
        """What there is to say now; takes the latencies."""
        viewers = self.viewers
        joined = [viewer.member for viewer in viewers if viewer.member.is_joined]
        websocket = sum(member.is_websocket for member in joined)
        under_way = self._under_way()
        return Report(
            self._entered, len(joined) - websocket, websocket, under_way, self._calm and not under_way,
            sum(viewer.received for viewer in viewers), self._cut,
            sum(viewer.back for viewer in viewers), sum(viewer.recovered for viewer in viewers),
            sum(viewer.holes for viewer in viewers), sum(viewer.missed for viewer in viewers),
            min((viewer.member.offset for viewer in viewers), default=0),
            tuple(self._latency.take().items()), self.accounting.to_json(),
        )  # fmt: skip

    def _line(self) -> str:
        return json.dumps(self.report(), separators=(",", ":"))


async def read_lines(stream: trio.abc.ReceiveStream) -> AsyncGenerator[str, None]:
    """Whole lines of a stream of UTF-8 until its end. The lines are ours, so their length is bounded by us."""
    rest = b""
    async for data in stream:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line.decode()


async def _play(share: LoadShare) -> None:
    def tell(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    trio.socket.set_custom_socket_factory(SmallBuffers())
    async with trio.lowlevel.FdStream(os.dup(0)) as stdin, aclosing(read_lines(stdin)) as commands:
        await LoadProcess(share).run(commands, tell)


def main(arguments: list[str]) -> None:
    """One crowd: ``port room first size seed talks``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the show, which tells us to leave
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port, room, first, size, seed, talks = arguments
    trio.run(_play, LoadShare(int(port), room, int(first), int(size), int(seed), bool(int(talks))))


if __name__ == "__main__":
    main(sys.argv[1:])
