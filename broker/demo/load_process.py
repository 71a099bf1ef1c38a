"""Load process of the demo: many clients that watch, post, flood, like, disconnect and reconnect.

The clients run in processes of their own because they would otherwise take the broker's processor time. Commands are
JSON lines on standard input, reports are JSON lines on standard output; the process ends when its input ends.

    {"do": "rates", "at_s": 3.2, "rates": [...]}   post at these rates (`PhaseRates`); the demo is 3.2 s old
    {"do": "cut", "share": 0.33}                   cut this share of the links, once all their posts are answered
    {"do": "stop"}                                 post nothing more; ``all_answered`` says when every result is known
    {"do": "leave"}                                leave the room and end
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from itertools import cycle
from random import Random
from typing import Any, NamedTuple

import trio

from broker.demo.accounting import Accounting, Latency
from broker.demo.scenario import PhaseRates, Texts, viewer_name
from broker.demo.users import CuttableConnector, DemoUser, SmallBuffers
from protocol.clients import Danmaku, Gap, MessagesMissed, Rejoined, RoomEvent, State, StreamEvent, TickAccount
from protocol.codes import MessageType, Tier
from protocol.payloads import DanmakuPayload, LikePayload

__all__ = ["FLOODERS", "QUIET", "LoadProcess", "LoadShare", "LoadViewer", "Report", "read_lines", "round_robin"]

QUIET, FLOODERS = "people", "flooders"
"""Groups of senders in `Accounting`."""

STEP_S = 0.02
REPORT_S = 0.25
JOINS_AT_ONCE = 16
"""Viewers that connect and join at the same time."""
MAX_IN_FLIGHT = 300
"""Unanswered posts of a process; above it, posts that are due are left out. An answer takes at most a tick."""
LATE_S = 0.1
"""A process whose own timer is later than this posts less until it is on time: it must not measure itself."""
CREDIT_S = 0.2
"""After a delay a process posts at most what was due in this time."""
FLOODER_EVERY = 25
"""One viewer in this many is a flooder."""
FLOOD_BURST = 5
WEBSOCKET_EVERY = 4
"""One viewer in this many connects over WebSocket."""
ANSWERS_S = 20.0
LEAVE_S = 5.0
_TIERS = (Tier.FULL, Tier.FULL, Tier.MEDIUM, Tier.LOW)


class LoadShare(NamedTuple):
    """The viewers that one load process runs: numbers ``first`` to ``first + size - 1``.

    ``posts`` False: they only watch and are never cut. A few such viewers in a process of their own measure latency
    better than many viewers that share one processor.
    """

    port: int
    room: str
    first: int
    size: int
    seed: int
    posts: bool = True


class Report(NamedTuple):
    """Report of one load process; all numbers are totals since its start, except ``latency``."""

    joined: int = 0
    tcp: int = 0
    """Viewers in the room now, by transport."""
    websocket: int = 0
    unanswered: int = 0
    all_answered: bool = False
    received: int = 0
    """Danmaku, events and counters received by all viewers."""
    cut: int = 0
    back: int = 0
    recovered: int = 0
    """Reconnects after which no event of lanes 0-2 was missed."""
    holes: int = 0
    missed: int = 0
    offset: int = 0
    """Last event of lanes 0-2 that every viewer has received."""
    latency: tuple[tuple[int, int], ...] = ()
    """(milliseconds, how often) since the last report."""
    accounting: Any = None
    """`Accounting.to_json`."""


class LoadViewer:
    """One viewer of the load and the counts of what it received."""

    def __init__(self, share: LoadShare, index: int, latency: Latency, wall_ms: Callable[[], float]) -> None:
        self.connector = CuttableConnector()
        self.silent = False
        """Whether it must not post: its link is about to be cut, or is."""
        self.received = 0
        self.back = 0
        self.recovered = 0
        self.holes = 0
        self.missed = 0
        self._latency = latency
        self._wall_ms = wall_ms
        self._replay_until = 0
        websocket = index % WEBSOCKET_EVERY == 1
        url = f"ws://127.0.0.1:{share.port}/" if websocket else f"roomcast://127.0.0.1:{share.port}"
        rng = Random(f"{share.seed}-{index}")
        tier = _TIERS[index // WEBSOCKET_EVERY % len(_TIERS)]
        self.member = DemoUser(url, viewer_name(index), tier, self.on_event, rng, self.connector)

    def on_event(self, event: RoomEvent) -> None:
        """Count one event of the room."""
        match event:
            case Danmaku() | State():
                self.received += 1
            case TickAccount(at_ms=at_ms):
                self._latency.add(self._wall_ms() - at_ms)
            case StreamEvent(offset=offset, at_ms=at_ms):
                self.received += 1
                if offset > self._replay_until:
                    self._latency.add(self._wall_ms() - at_ms)
            case Rejoined(snapshot, recovered):
                self.back += 1
                self.recovered += recovered
                self.silent = False
                self._replay_until = snapshot.offset
            case Gap():
                self.holes += 1
            case MessagesMissed(chat, ambient):
                self.missed += chat + ambient
            case _:
                pass


def round_robin(viewers: Sequence[LoadViewer]) -> Iterator[LoadViewer | None]:
    """Yield the viewers that may post, one after another; None while none may."""
    if not viewers:
        return cycle((None,))

    def generate() -> Iterator[LoadViewer | None]:
        start = 0
        while True:
            for step in range(len(viewers)):
                viewer = viewers[(start + step) % len(viewers)]
                if not viewer.silent and viewer.member.is_joined:
                    start = (start + step + 1) % len(viewers)
                    yield viewer
                    break
            else:
                yield None

    return generate()


class LoadProcess:
    """The viewers of one process."""

    def __init__(self, share: LoadShare, wall_ms: Callable[[], float] = lambda: time.time_ns() / 1e6) -> None:
        self._share = share
        self._rng = Random(f"{share.seed}-load-{share.first}")
        self._texts = Texts(self._rng)
        self._latency = Latency()
        self.accounting = Accounting()
        self.viewers = [
            LoadViewer(share, index, self._latency, wall_ms) for index in range(share.first, share.first + share.size)
        ]
        flooders = self.viewers[FLOODER_EVERY // 3 :: FLOODER_EVERY]
        chosen = set(map(id, flooders))
        quiet = [viewer for viewer in self.viewers if id(viewer) not in chosen]
        self._quiet = round_robin(self._rng.sample(quiet, len(quiet)))
        self._flooders = round_robin(flooders)
        self.rates = PhaseRates()
        self._started = 0.0
        self._joined = 0
        self._cut = 0
        self._stopped = False

    # ---- commands

    async def run(self, commands: AsyncIterator[str], write: Callable[[str], None]) -> None:
        """Run until the command ``leave`` or the end of the commands. ``write`` takes a line and must not wait."""
        async with trio.open_nursery() as clients:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(self._join_all, clients)
                tasks.start_soon(self._post_on_schedule, tasks)
                tasks.start_soon(self._report, write)
                async for line in commands:
                    command = json.loads(line)
                    match command["do"]:
                        case "rates" | "cut" if not self._share.posts:
                            pass
                        case "rates":
                            self.rates = PhaseRates(*command["rates"])
                            self._started = trio.current_time() - command["at_s"]
                        case "cut":
                            tasks.start_soon(self._cut_links, command["share"])
                        case "stop":
                            self._stopped = True
                        case _:
                            break
                write(self._line())
                tasks.cancel_scope.cancel()
            for viewer in self.viewers:
                viewer.member.leave()
            clients.cancel_scope.deadline = trio.current_time() + LEAVE_S

    async def _cut_links(self, share: float) -> None:
        chosen = self._rng.sample(self.viewers, round(share * len(self.viewers)))
        for viewer in chosen:
            viewer.silent = True
        with trio.move_on_after(ANSWERS_S):
            for viewer in chosen:
                await viewer.member.wait_answered()
        # Links with an unanswered post stay: its result would be lost with the link and could not be counted.
        chosen = [viewer for viewer in chosen if not viewer.member.unanswered]
        self._cut += len(chosen)
        async with trio.open_nursery() as nursery:
            for viewer in chosen:
                nursery.start_soon(viewer.connector.cut)

    # ---- viewers

    async def _join_all(self, nursery: trio.Nursery) -> None:
        limiter = trio.CapacityLimiter(JOINS_AT_ONCE)

        async def join(viewer: LoadViewer) -> None:
            async with limiter:
                await nursery.start(viewer.member.run, self._share.room)
            self._joined += 1

        async with trio.open_nursery() as joins:
            for viewer in self.viewers:
                joins.start_soon(join, viewer)

    async def _post_on_schedule(self, nursery: trio.Nursery) -> None:
        """Post at the rates of the phase, in small steps."""
        credit = [0.0, 0.0, 0.0]
        pace = 1.0
        before = trio.current_time()
        while True:
            await trio.sleep(STEP_S)
            now = trio.current_time()
            elapsed_s, before = now - before, now
            pace = max(0.05, pace * 0.8) if elapsed_s > STEP_S + LATE_S else min(1.0, pace + 0.01)
            if self._stopped:
                continue
            rates, size, unanswered = self.rates, len(self.viewers), self._count_unanswered()
            by_source = (
                rates.chat_per_viewer * size,
                rates.flood_per_viewer * size / FLOOD_BURST,
                rates.likes_per_viewer * size,
            )
            for source, rate in enumerate(by_source):
                credit[source] = min(credit[source] + pace * rate * elapsed_s, max(1.0, rate * CREDIT_S))
                while credit[source] >= 1.0:
                    credit[source] -= 1.0
                    if unanswered < MAX_IN_FLIGHT:
                        unanswered += self._post_next(source, now - self._started, nursery)

    def _post_next(self, source: int, at_s: float, nursery: trio.Nursery) -> int:
        """Let the next viewer post and return the number of posts."""
        viewer = next(self._flooders if source == 1 else self._quiet)
        if viewer is None:
            return 0
        post = viewer.member.post
        if source == 0:
            payload = DanmakuPayload(self._texts.next(at_s, self.rates.trending_share))
            nursery.start_soon(post, self.accounting, QUIET, MessageType.DANMAKU, payload)
        elif source == 1:
            for _ in range(FLOOD_BURST):
                payload = DanmakuPayload(self._texts.flood())
                nursery.start_soon(post, self.accounting, FLOODERS, MessageType.DANMAKU, payload)
            return FLOOD_BURST
        else:
            taps = LikePayload(self._rng.randint(1, 15))
            nursery.start_soon(post, self.accounting, QUIET, MessageType.LIKE, taps)
        return 1

    def _count_unanswered(self) -> int:
        return sum(viewer.member.unanswered for viewer in self.viewers)

    # ---- reports

    async def _report(self, write: Callable[[str], None]) -> None:
        while True:
            write(self._line())
            await trio.sleep(REPORT_S)

    def report(self) -> Report:
        """Return the report of this moment and reset its latencies."""
        viewers = self.viewers
        joined = [viewer.member for viewer in viewers if viewer.member.is_joined]
        websocket = sum(member.is_websocket for member in joined)
        unanswered = self._count_unanswered()
        return Report(
            self._joined, len(joined) - websocket, websocket, unanswered, self._stopped and not unanswered,
            sum(viewer.received for viewer in viewers), self._cut,
            sum(viewer.back for viewer in viewers), sum(viewer.recovered for viewer in viewers),
            sum(viewer.holes for viewer in viewers), sum(viewer.missed for viewer in viewers),
            min((viewer.member.offset for viewer in viewers), default=0),
            tuple(self._latency.take().items()), self.accounting.to_json(),
        )  # fmt: skip

    def _line(self) -> str:
        return json.dumps(self.report(), separators=(",", ":"))


async def read_lines(stream: trio.abc.ReceiveStream) -> AsyncGenerator[str, None]:
    """Yield whole lines of a UTF-8 stream until its end. Both ends are this program, so lengths need no limit."""
    rest = b""
    async for data in stream:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line.decode()


async def _run(share: LoadShare) -> None:
    def write(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    trio.socket.set_custom_socket_factory(SmallBuffers())
    async with trio.lowlevel.FdStream(os.dup(0)) as stdin, aclosing(read_lines(stdin)) as commands:
        await LoadProcess(share).run(commands, write)


def main(arguments: list[str]) -> None:
    """Run one load process; arguments: ``port room first size seed posts``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner handles Ctrl-C and sends "leave"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port, room, first, size, seed, posts = arguments
    trio.run(_run, LoadShare(int(port), room, int(first), int(size), int(seed), bool(int(posts))))


if __name__ == "__main__":
    main(sys.argv[1:])
