"""The director: runs a broker and its audience, plays the acts, and has everything counted twice at the end.

The broker, the witnesses, the host, the platform and the viewer who stalls live in this process; the crowd in others,
because its work would otherwise be taken from the broker's. Everything speaks through sockets, the director included:
of the broker's objects it looks at counters only, and at the queue of the one link that stalls, to show it.

After the last act everybody falls silent, every post gets its fate, and `tally.differences` compares. What it finds is
the outcome; the director corrects nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import trio

from broker.config import Config, LinkConfig, ListenConfig, RoomConfig
from broker.server import Broker
from broker.show.cast import Member, Valve
from broker.show.crowd import FLOODERS, QUIET, Report, read_lines
from broker.show.picture import Picture, Stalled
from broker.show.script import ANNOUNCEMENTS, HOST_LINES, Phrases, Scene, plan, viewer_name
from broker.show.tally import Latency, Ledger, Witness, differences
from protocol.clients import Danmaku, Event, Rejoined, RoomEvent
from protocol.codes import Lane, MessageType, Tier
from protocol.messages import Account
from protocol.payloads import AnnouncementPayload, DanmakuPayload, GiftPayload

__all__ = ["HOST", "PLATFORM", "ROOM", "Director", "Outcome"]

ROOM = "lobby"
HOST, PLATFORM = "host", "platform"
"""Groups of the ledger."""
CROWD_SIZE = 150
"""Members a process of the crowd plays."""
CUT_SHARE = 1 / 3
ENTRY_S = 120.0
CALM_S = 30.0
SETTLE_S = 20.0
HOME_S = 10.0
"""Deadlines that only a broken show or a drowning machine meets."""
VIEWERS_PER_CPU = 100
"""With more clients of ours than this on a processor the room ticks half as often: they, not the broker, are slow."""
WATCH_S = 0.25
MOMENTS = 12
"""Moments of which a picture's rates and percentiles speak: the last three seconds."""
WITNESS_ITEMS = 100_000
"""Unread events of a witness: it counts, so it must not drop any."""
SCREEN_LINES = 60
WHALES = 12
"""Viewers who give gifts: few, so that combos form."""
_STEP_S = 0.02


class Outcome(NamedTuple):
    """How the show ended."""

    differences: list[str]
    accounts: tuple[Account, ...]
    seconds: float
    viewers: int
    likes: int
    ledger: Ledger
    received: int
    latency: Latency
    crowd: Report
    stalled: Stalled
    peak_stage: int

    @property
    def balanced(self) -> bool:
        return not self.differences

    def to_json(self) -> dict[str, Any]:
        """One object with everything. Any: numbers, words, lists and objects of them."""
        fates: dict[str, dict[str, dict[str, int]]] = {}
        for (group, lane, outcome), count in sorted(self.ledger.fates.items()):
            fates.setdefault(group, {}).setdefault(lane, {})[outcome] = count
        offered = self.ledger.of(Lane.CHAT) + self.ledger.of(Lane.PAID) + self.ledger.of(Lane.AMBIENT)
        return {
            "event": "demo",
            "balanced": self.balanced,
            "differences": self.differences,
            "seconds": round(self.seconds, 1),
            "viewers": self.viewers,
            "lanes": {lane.name.lower(): account._asdict() for lane, account in zip(Lane, self.accounts, strict=True)},
            "likes": self.likes,
            "gifts": {"count": self.ledger.gifts, "amount_cents": self.ledger.gift_cents},
            "offered": offered,
            "senders": fates,
            "deliveries": self.received,
            "deliveries_per_s": round(self.received / self.seconds),
            "latency_ms": {"p50": self.latency.percentile(0.50), "p99": self.latency.percentile(0.99)},
            "reconnects": {"cut": self.crowd.cut, "back": self.crowd.back, "recovered": self.crowd.recovered},
            "stalled": {
                "cut": self.stalled.was_cut, "back": self.stalled.is_back, "recovered": self.stalled.recovered,
                "events_caught_up": self.stalled.events,
            },
            "overload_stage_peak": self.peak_stage,
        }  # fmt: skip


class _Moment(NamedTuple):
    """What `Director._watch` notes; ``latency``: milliseconds and how often, since the last moment."""

    at: float
    offered: int
    received: int
    latency: dict[int, int]


class _Crowd:
    """One process of the crowd, seen from here."""

    def __init__(self, process: trio.Process, size: int, latency: Latency, news: trio.lowlevel.ParkingLot) -> None:
        self.process = process
        self.size = size
        self.report = Report()
        self.ledger = Ledger()
        self._latency = latency
        self._news = news

    async def listen(self) -> None:
        """Take reports until the process ends."""
        assert self.process.stdout is not None
        async for line in read_lines(self.process.stdout):
            report = Report(*json.loads(line))
            self._latency.merge({ms: count for ms, count in report.latency})
            self.ledger = Ledger.from_json(report.ledger)
            self.report = report
            self._news.unpark_all()

    async def tell(self, **command: Any) -> None:
        """Send one command. Any: JSON."""
        assert self.process.stdin is not None
        try:
            await self.process.stdin.send_all(json.dumps(command).encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it has ended; whoever waits for its report will notice


class Director:
    """One show. `run` plays it; the attributes are what a picture of it needs at any time."""

    def __init__(self, seconds: float, viewers: int, seed: int) -> None:
        self.seconds = seconds
        self.viewers = viewers
        self.scenes = plan(seconds)
        self.scene: Scene | None = None
        """The act that plays; None before the first and after the last."""
        self.phase = "the house fills"
        self.begun_at: float | None = None
        self.broker: Broker | None = None
        self.port = 0
        self.screen: deque[Danmaku | Event] = deque(maxlen=SCREEN_LINES)
        """What a viewer of the FULL tier sees, the latest last."""
        self.ledger = Ledger()
        """Host and platform."""
        self.stalled = Stalled()
        self.peak_stage = 0
        self.hurry = trio.Event()
        """Set it to end the acts early; the counting follows all the same."""
        self._rng = Random(seed)
        self._seed = seed
        self._phrases = Phrases(self._rng)
        self._latency = Latency()
        self._moments: deque[_Moment] = deque([_Moment(0.0, 0, 0, {})], maxlen=MOMENTS)
        self._crowds: list[_Crowd] = []
        self._members: list[Member] = []
        self._audience: list[Member] = []
        """Those of them who only watch."""
        self.witnesses: list[Witness] = []
        self._valve = Valve()
        self._news = trio.lowlevel.ParkingLot()
        """Wakes at every report."""
        self._open_orders = 0
        self._stalled_target: int | None = None
        self._host: Member
        self._platform: Member
        self._sleeper: Member

    # ---- what the picture asks

    @property
    def elapsed_s(self) -> float:
        """Since the curtain rose."""
        return 0.0 if self.begun_at is None else trio.current_time() - self.begun_at

    def crowd_report(self) -> Report:
        """The crowds' reports as one."""
        reports = [crowd.report for crowd in self._crowds]
        if not reports:
            return Report()
        sums = {
            name: sum(getattr(report, name) for report in reports)
            for name in (
                "entered",
                "tcp",
                "websocket",
                "under_way",
                "received",
                "cut",
                "back",
                "recovered",
                "holes",
                "missed",
            )
        }
        return Report(
            **sums, calm=all(report.calm for report in reports), offset=min(report.offset for report in reports)
        )

    def all_ledgers(self) -> Ledger:
        """What every sender was told."""
        return sum((crowd.ledger for crowd in self._crowds), self.ledger)

    def picture(self) -> Picture:
        """The show at this moment."""
        broker = self.broker
        assert broker is not None
        report, ledger = self.crowd_report(), self.all_ledgers()
        latency = Latency()
        for moment in self._moments:
            latency.merge(moment.latency)
        first, last = self._moments[0], self._moments[-1]
        span_s = max(last.at - first.at, WATCH_S)
        rooms = list(broker.hub)
        act = self.scenes.index(self.scene) + 1 if self.scene is not None else 0
        if self.begun_at is not None and self.scene is None:
            act = len(self.scenes) + 1
        return Picture(
            phase=self.phase, act=act, acts=len(self.scenes), elapsed_s=self.elapsed_s, seconds=self.seconds,
            port=self.port, viewers=self.viewers,
            tcp=report.tcp + sum(m.is_joined and not m.is_websocket for m in self._audience),
            websocket=report.websocket + sum(m.is_joined and m.is_websocket for m in self._audience),
            online=sum(room.state.presence.online for room in rooms),
            offered_per_s=max(0, last.offered - first.offered) / span_s,
            deliveries_per_s=(last.received - first.received) / span_s,
            p50_ms=latency.percentile(0.50), p99_ms=latency.percentile(0.99),
            interval_ms=max((round(room.state.interval_s * 1000) for room in rooms), default=0),
            stage=int(broker.monitor.stage), likes=self._likes(), cut=report.cut, back=report.back,
            recovered=report.recovered, stalled=self.stalled, accounts=broker.hub.accounts(),
            senders={group: _fates(ledger, group) for group in (QUIET, FLOODERS, PLATFORM, HOST)},
            screen=tuple(self.screen),
        )  # fmt: skip

    # ---- the show

    async def run(self) -> Outcome:
        """Play the whole show and count."""
        broker = self.broker = Broker(_config(self.seconds, self.viewers), rng=Random(self._seed))
        async with trio.open_nursery() as house:
            await house.start(broker.run)
            self.port = broker.addresses[0][1]
            async with trio.open_nursery() as stage:
                stage.start_soon(self._watch)
                await self._enter(stage)
                await self._play(stage)
                outcome = await self._count()
                await self._go_home(stage)
            house.cancel_scope.cancel()
        return outcome

    async def _enter(self, stage: trio.Nursery) -> None:
        """Witnesses first, so that they see everything, then the principals, then the crowd."""
        for index, (tier, url) in enumerate(
            (tier, url)
            for tier in sorted(Tier, reverse=True)
            for url in (f"roomcast://127.0.0.1:{self.port}", f"ws://127.0.0.1:{self.port}/")
        ):
            transport = "WebSocket" if url.startswith("ws") else "TCP"
            witness = Witness(f"the witness at {transport}, {int(tier)}/s", tier, first=index == 0)
            hear = self._hear_first if index == 0 else witness.see
            member = self._member(f"witness{index}", tier, hear, url=url, inbox_items=WITNESS_ITEMS)
            self.witnesses.append(witness)
            self._audience.append(member)
            room = await stage.start(member.run, ROOM)
            witness.enter(room.snapshot)
        self._host = self._member("主播:host", Tier.FULL, self._ignore)
        self._platform = self._member("platform:app", Tier.LOW, self._ignore)
        self._sleeper = self._member("口袋里的手机", Tier.FULL, self._hear_sleeper, connect=self._valve)
        self._audience.append(self._sleeper)
        for member in (self._host, self._platform, self._sleeper):
            await stage.start(member.run, ROOM)
        await self._gather(stage)

    def _member(self, user: str, tier: Tier, hear: Callable[[RoomEvent], object], url: str = "", **more: Any) -> Member:
        # Any: further arguments of Member.
        url = url or f"roomcast://127.0.0.1:{self.port}"
        member = Member(url, user, tier, hear, Random(f"{self._seed}-{user}"), **more)
        self._members.append(member)
        return member

    async def _gather(self, stage: trio.Nursery) -> None:
        """Start the crowd's processes and wait until everybody is in."""
        wanted = max(1, self.viewers - len(self.witnesses) - 1)
        parts = min(max(1, os.cpu_count() or 1), -(-wanted // CROWD_SIZE)) if wanted > CROWD_SIZE else 1
        first = 0
        for part in range(parts):
            size = wanted // parts + (part < wanted % parts)
            arguments = [str(each) for each in (self.port, ROOM, first, size, self._seed)]
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "broker.show.crowd", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            crowd = _Crowd(process, size, self._latency, self._news)
            self._crowds.append(crowd)
            stage.start_soon(self._keep, crowd)
            first += size
        with trio.move_on_after(ENTRY_S):
            while self.crowd_report().entered < wanted and not self.hurry.is_set():
                await self._news.park()

    async def _keep(self, crowd: _Crowd) -> None:
        """Listen to one process; it dies with the show, whatever happens."""
        try:
            await crowd.listen()
        finally:
            if crowd.process.poll() is None:
                with trio.move_on_after(2.0, shield=True):
                    await crowd.process.wait()
            if crowd.process.poll() is None:
                crowd.process.kill()

    async def _play(self, stage: trio.Nursery) -> None:
        """One act after another."""
        self.begun_at = trio.current_time()
        with trio.CancelScope() as acts:
            async with trio.open_nursery() as nursery:

                async def hurry() -> None:
                    await self.hurry.wait()
                    acts.cancel()

                nursery.start_soon(hurry)
                for scene in self.scenes:
                    self.scene, self.phase = scene, scene.act.title
                    for crowd in self._crowds:
                        await crowd.tell(do="mood", at_s=self.elapsed_s, mood=scene.act.mood)
                    nursery.start_soon(self._open_act, scene.act.name)
                    await self._give_gifts(scene, stage)
                nursery.cancel_scope.cancel()
        self.scene = None

    async def _open_act(self, name: str) -> None:
        """What happens once, when an act begins."""
        if name == "quiet":
            await self._announce(0)
        elif name == "gifts":
            await self._stall()
        elif name == "wave":
            for crowd in self._crowds:
                await crowd.tell(do="cut", share=CUT_SHARE)
        elif name == "finale":
            await self._announce(1)
            await self._host.say(self.ledger, HOST, MessageType.DANMAKU, DanmakuPayload(self._rng.choice(HOST_LINES)))

    async def _announce(self, number: int) -> None:
        text = AnnouncementPayload(ANNOUNCEMENTS[number])
        await self._host.say(self.ledger, HOST, MessageType.ANNOUNCEMENT, text)

    async def _give_gifts(self, scene: Scene, stage: trio.Nursery) -> None:
        """Post the act's orders until it ends."""
        assert self.begun_at is not None
        rate = scene.act.mood.gifts
        begins_at, ends_at = trio.current_time(), self.begun_at + scene.ends_s
        given = 0
        while trio.current_time() < ends_at:
            due = int((trio.current_time() - begins_at) * rate)
            while given < due:
                given += 1
                stage.start_soon(self._give)
            await trio.sleep(min(_STEP_S, max(0.0, ends_at - trio.current_time())))

    async def _give(self) -> None:
        """Post one order until the room takes it: it is paid for, so it is not dropped here either."""
        gift, count = self._phrases.gift()
        giver = viewer_name(self._rng.randrange(WHALES))
        order = f"{self._rng.getrandbits(64):016x}"
        payload = GiftPayload(order, giver, giver, gift.gift_id, count, gift.price_cents, "主播")
        self._open_orders += 1
        try:
            while True:
                wait_ms = await self._platform.say(self.ledger, PLATFORM, MessageType.GIFT, payload)
                if not wait_ms:
                    return
                await trio.sleep(wait_ms / 1000)
        finally:
            self._open_orders -= 1

    # ---- the viewer who stalls

    async def _stall(self) -> None:
        """Let one viewer stop reading, watch what the broker does about it, and let it read on when it is cut."""
        self._valve.close()
        self.stalled = Stalled("has stopped reading")
        port = self._valve.local_port
        while True:
            link = self._link_from(port)
            if link is None:
                break
            queue = link.queue
            if queue is None:
                self.stalled = self.stalled._replace(queued_frames=0, queued_bytes=0)
            else:
                keyframe = self.stalled.keyframe or queue.keyframe
                state = "keyframe mode: chat is dropped" if queue.keyframe else "behind: frames are queued"
                self.stalled = Stalled(state, queue.frames, queue.nbytes, keyframe)
            await trio.sleep(_STEP_S)
        self.stalled = Stalled("cut: too slow (4001), may resume", keyframe=self.stalled.keyframe, was_cut=True)
        await trio.sleep(min(1.5, self.seconds / 20))
        self._valve.open()

    def _link_from(self, port: int) -> Any:
        """The broker's transport of the link that comes from ``port`` on this machine, None if there is none.

        Any: looked at for the picture only.
        """
        assert self.broker is not None
        for session in self.broker.services.sessions:
            transport = session.transport
            try:
                if not transport.state and transport.sock.getpeername()[1] == port:
                    return transport
            except OSError:
                continue
        return None

    def _hear_sleeper(self, event: RoomEvent) -> None:
        match event:
            case Rejoined(snapshot, recovered):
                self._stalled_target = snapshot.offset
                self.stalled = self.stalled._replace(state="is back", is_back=True, recovered=recovered)
            case Event(offset=offset) if self._stalled_target is not None and offset <= self._stalled_target:
                events = self.stalled.events + 1
                self.stalled = self.stalled._replace(state="is back, has caught up", events=events)
            case _:
                pass

    # ---- listening

    def _ignore(self, event: RoomEvent) -> None:
        """Host and platform do not watch."""

    def _hear_first(self, event: RoomEvent) -> None:
        self.witnesses[0].see(event)
        if isinstance(event, (Danmaku, Event)):
            self.screen.append(event)

    async def _watch(self) -> None:
        """Keep what changes by the second: rates, latencies, the worst stage."""
        assert self.broker is not None
        before: dict[int, int] = {}
        while True:
            now = dict(self._latency.counts)
            fresh = {ms: count - before.get(ms, 0) for ms, count in now.items() if count > before.get(ms, 0)}
            before = now
            report = self.crowd_report()
            offered = self.all_ledgers().of(Lane.CHAT) + report.under_way
            self._moments.append(_Moment(trio.current_time(), offered, report.received, fresh))
            self.peak_stage = max(self.peak_stage, int(self.broker.monitor.stage))
            await trio.sleep(WATCH_S)

    # ---- the end

    async def _count(self) -> Outcome:
        """Silence, then compare until all agree or `SETTLE_S` have passed."""
        broker = self.broker
        assert broker is not None
        seconds = self.elapsed_s
        self.phase = "everybody falls silent, every post gets its fate"
        self._valve.open()
        for crowd in self._crowds:
            await crowd.tell(do="calm")
        with trio.move_on_after(CALM_S):
            while not self._is_calm():
                await self._news.park()
        self.phase = "counting"
        with trio.move_on_after(SETTLE_S):
            while self._differences():
                for room in broker.hub:
                    room.flush()
                await self._news.park()
        with trio.move_on_after(HOME_S):
            while not self._is_home():
                await self._news.park()
        return Outcome(
            self._differences(), broker.hub.accounts(), seconds, self.viewers, self._likes(), self.all_ledgers(),
            self.crowd_report().received, self._latency, self.crowd_report(), self.stalled, self.peak_stage,
        )  # fmt: skip

    def _is_calm(self) -> bool:
        """Whether nobody waits for a fate."""
        return self.crowd_report().calm and not self._open_orders and not any(m.under_way for m in self._members)

    def _is_home(self) -> bool:
        """Whether everybody who was cut is back and has heard the last event."""
        report = self.crowd_report()
        last = self.witnesses[0].last_offset
        everybody = report.tcp + report.websocket == sum(crowd.size for crowd in self._crowds)
        sleeper = not self.stalled.was_cut or (self.stalled.is_back and self._sleeper.offset >= last)
        return everybody and report.back >= report.cut and report.offset >= last and sleeper

    def _likes(self) -> int:
        assert self.broker is not None
        return sum(room.state.likes.total for room in self.broker.hub)

    def _differences(self) -> list[str]:
        assert self.broker is not None
        found = differences(self.broker.hub.accounts(), self._likes(), self.all_ledgers(), self.witnesses)
        report = self.crowd_report()
        if report.holes:
            found.append(f"the crowd: {report.holes} gaps in lanes 0-2")
        if self.stalled.is_back and not self.stalled.recovered:
            found.append("the viewer who stalled came back and missed events of lanes 0-2")
        return found

    async def _go_home(self, stage: trio.Nursery) -> None:
        self.phase = "good night"
        for crowd in self._crowds:
            await crowd.tell(do="leave")
        for member in self._members:
            member.leave()
        with trio.move_on_after(8.0):
            for crowd in self._crowds:
                await crowd.process.wait()
        stage.cancel_scope.cancel()


def _config(seconds: float, viewers: int) -> Config:
    """The defaults, on any free port, but for what a short show on one machine needs."""
    crowded = viewers > VIEWERS_PER_CPU * (os.cpu_count() or 1)
    return Config(
        listen=ListenConfig(port=0),
        # A short show cannot wait ten seconds for the viewer who stalls, nor until 16 KiB have gathered.
        link=LinkConfig(write_timeout_s=max(1.0, min(10.0, seconds / 4)), notsent_lowat_bytes=2048),
        room=RoomConfig(tick_ms=200 if crowded else None),
    )


def _fates(ledger: Ledger, group: str) -> dict[str, int]:
    """The fates of a group by outcome, likes left out."""
    fates: dict[str, int] = {}
    for (by, lane, outcome), count in ledger.fates.items():
        if by == group and lane != "ambient":
            fates[outcome] = fates.get(outcome, 0) + count
    return fates
