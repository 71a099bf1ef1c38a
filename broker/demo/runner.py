"""Runner of the demo: starts a broker and its clients, plays the acts, and compares the counts at the end.

The broker, the reference viewers, the host, the platform and the stalled viewer live in this process; the load in
others, because its work would otherwise take the broker's processor time. All of them use sockets. Of the broker's
objects the runner reads counters only, and the queue of the one connection that stalls, to display it.

After the last act every client is silent until every post has its outcome; then `accounting.differences` compares. The
runner corrects nothing.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import trio

from broker.config.schema import Config, LinkConfig, ListenConfig, RoomConfig
from broker.demo.accounting import Accounting, Latency, ReferenceViewer, differences
from broker.demo.load import LoadProcesses
from broker.demo.load_process import FLOODERS, QUIET, Report
from broker.demo.scenario import ANNOUNCEMENTS, HOST_LINES, Phrases, ScheduledAct, plan, viewer_name
from broker.demo.screen import Snapshot
from broker.demo.users import DemoUser, StalledState, StalledViewer
from broker.server import Broker
from protocol.clients import Danmaku, RoomEvent, StreamEvent
from protocol.codes import Lane, MessageType, Tier
from protocol.messages import Account
from protocol.payloads import AnnouncementPayload, DanmakuPayload, GiftPayload

__all__ = ["HOST", "PLATFORM", "ROOM", "DemoResult", "Runner"]

ROOM = "lobby"
HOST, PLATFORM = "host", "platform"
"""Groups of the ledger."""
CUT_SHARE = 1 / 3
ENTRY_S = 120.0
CALM_S = 30.0
COMPARE_S = 20.0
RETURN_S = 10.0
"""Deadlines that only a broken show or a drowning machine meets."""
VIEWERS_PER_CPU = 100
"""With more clients of ours than this on a processor the room ticks half as often: they, not the broker, are slow."""
LONG_S = 100.0
"""In a shorter show one viewer stalls an act earlier, or there would be no time to be cut and to come back."""
WATCH_S = 0.25
MOMENTS = 12
"""Moments of which a picture's rates and percentiles speak: the last three seconds."""
REFERENCE_ITEMS = 100_000
"""Unread events of a reference viewer: it counts, so it must not drop any."""
SCREEN_LINES = 60
WHALES = 12
"""Viewers who give gifts: few, so that combos form."""
_STEP_S = 0.02


class _Moment(NamedTuple):
    """What `Runner._watch` notes; ``latency``: milliseconds and how often, since the last moment."""

    at: float
    offered: int
    received: int
    latency: dict[int, int]


class DemoResult(NamedTuple):
    """How the show ended."""

    differences: list[str]
    accounts: tuple[Account, ...]
    seconds: float
    viewers: int
    likes: int
    accounting: Accounting
    received: int
    latency: Latency
    crowd: Report
    stalled: StalledState
    peak_stage: int

    @property
    def balanced(self) -> bool:
        return not self.differences

    def to_json(self) -> dict[str, Any]:
        """One object with everything. Any: numbers, words, lists and objects of them."""
        fates: dict[str, dict[str, dict[str, int]]] = {}
        for (group, lane, outcome), count in sorted(self.accounting.fates.items()):
            fates.setdefault(group, {}).setdefault(lane, {})[outcome] = count
        offered = self.accounting.of(Lane.CHAT) + self.accounting.of(Lane.PAID) + self.accounting.of(Lane.AMBIENT)
        return {
            "event": "demo",
            "balanced": self.balanced,
            "differences": self.differences,
            "seconds": round(self.seconds, 1),
            "viewers": self.viewers,
            "lanes": {lane.name.lower(): account._asdict() for lane, account in zip(Lane, self.accounts, strict=True)},
            "likes": self.likes,
            "gifts": {"count": self.accounting.gifts, "amount_cents": self.accounting.gift_cents},
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


class Runner:
    """One show. `run` plays it; the attributes are what a picture of it needs at any time."""

    def __init__(self, seconds: float, viewers: int, seed: int) -> None:
        self.seconds = seconds
        self.viewers = viewers
        self.scenes = plan(seconds)
        self.scene: ScheduledAct | None = None
        """The act that plays; None before the first and after the last."""
        self.phase = "viewers join"
        self.begun_at: float | None = None
        self.broker: Broker | None = None
        self.port = 0
        self.screen: deque[Danmaku | StreamEvent] = deque(maxlen=SCREEN_LINES)
        """What a viewer of the FULL tier sees, the latest last."""
        self.accounting = Accounting()
        """Host and platform."""
        self.peak_stage = 0
        self.on_phase: Callable[[], object] | None = None
        """Called whenever `phase` has changed, so that even one that lasts no time is told."""
        self.end_early = trio.Event()
        """Set it to end the acts early; the counting follows all the same."""
        self._rng = Random(seed)
        self._seed = seed
        self._phrases = Phrases(self._rng)
        self._latency = Latency()
        self._moments: deque[_Moment] = deque([_Moment(0.0, 0, 0, {})], maxlen=MOMENTS)
        self._load = LoadProcesses(self._latency)
        self._members: list[DemoUser] = []
        self._audience: list[DemoUser] = []
        """Those of them who only watch."""
        self.references: list[ReferenceViewer] = []
        self._unfinished = 0
        """Orders and announcements under way, also between two posts of theirs."""
        self._host: DemoUser
        self._platform: DemoUser
        self._stalled_viewer: StalledViewer | None = None

    # ---- what the picture asks

    @property
    def elapsed_s(self) -> float:
        """Since the curtain rose."""
        return 0.0 if self.begun_at is None else trio.current_time() - self.begun_at

    @property
    def stalled(self) -> StalledState:
        """The viewer who stalls."""
        return self._stalled_viewer.state if self._stalled_viewer is not None else StalledState()

    def total_accounting(self) -> Accounting:
        """What every sender was told."""
        return self._load.accounting() + self.accounting

    def snapshot(self) -> Snapshot:
        """The show at this moment."""
        broker = self.broker
        assert broker is not None
        report, accounting = self._load.report(), self.total_accounting()
        latency = Latency()
        for moment in self._moments:
            latency.merge(moment.latency)
        first, last = self._moments[0], self._moments[-1]
        span_s = max(last.at - first.at, WATCH_S)
        rooms = list(broker.hub)
        act = self.scenes.index(self.scene) + 1 if self.scene is not None else 0
        if self.begun_at is not None and self.scene is None:
            act = len(self.scenes) + 1
        return Snapshot(
            phase=self.phase, act=act, acts=len(self.scenes), elapsed_s=self.elapsed_s, seconds=self.seconds,
            port=self.port, viewers=self.viewers,
            tcp=report.tcp + sum(m.is_joined and not m.is_websocket for m in self._audience),
            websocket=report.websocket + sum(m.is_joined and m.is_websocket for m in self._audience),
            online=sum(room.state.online for room in rooms),
            offered_per_s=max(0, last.offered - first.offered) / span_s,
            deliveries_per_s=(last.received - first.received) / span_s,
            p50_ms=latency.percentile(0.50), p99_ms=latency.percentile(0.99),
            interval_ms=max((round(room.state.interval_s * 1000) for room in rooms), default=0),
            stage=int(broker.monitor.stage), likes=self._likes(), cut=report.cut, back=report.back,
            recovered=report.recovered, stalled=self.stalled, accounts=broker.hub.accounts(),
            senders={group: _fates(accounting, group) for group in (QUIET, FLOODERS, PLATFORM, HOST)},
            screen=tuple(self.screen),
        )  # fmt: skip

    # ---- the show

    async def run(self) -> DemoResult:
        """Play the whole show and count."""
        broker = self.broker = Broker(_config(self.seconds, self.viewers), rng=Random(self._seed))
        async with trio.open_nursery() as background:
            await background.start(broker.run)
            self.port = broker.addresses[0][1]
            async with trio.open_nursery() as stage:
                stage.start_soon(self._watch)
                await self._enter(stage)
                await self._play(stage)
                outcome = await self._count()
                await self._leave_all(stage)
            background.cancel_scope.cancel()
        return outcome

    async def _enter(self, stage: trio.Nursery) -> None:
        """Start the reference viewers first, so that they see everything, then host and platform, then the load."""
        for index, (tier, url) in enumerate(
            (tier, url)
            for tier in sorted(Tier, reverse=True)
            for url in (f"roomcast://127.0.0.1:{self.port}", f"ws://127.0.0.1:{self.port}/")
        ):
            transport = "WebSocket" if url.startswith("ws") else "TCP"
            reference = ReferenceViewer(f"the reference viewer at {transport}, {int(tier)}/s", tier, first=index == 0)
            on_event = self._on_first_event if index == 0 else reference.see
            member = self._member(f"witness{index}", tier, on_event, url=url, inbox_items=REFERENCE_ITEMS)
            self.references.append(reference)
            self._audience.append(member)
            room = await stage.start(member.run, ROOM)
            reference.enter(room.snapshot)
        self._host = self._member("主播:host", Tier.FULL, self._ignore)
        self._platform = self._member("platform:app", Tier.LOW, self._ignore)
        assert self.broker is not None
        stalled_viewer = self._stalled_viewer = StalledViewer(
            f"roomcast://127.0.0.1:{self.port}", self.broker, Random(self._seed)
        )
        self._members.append(stalled_viewer.member)
        self._audience.append(stalled_viewer.member)
        for member in (self._host, self._platform, stalled_viewer.member):
            await stage.start(member.run, ROOM)
        wanted = max(1, self.viewers - len(self._audience))
        await self._load.open(self.port, ROOM, wanted, self._seed, stage)
        with trio.move_on_after(ENTRY_S):
            while self._load.report().entered < wanted and not self.end_early.is_set() and not self._load.failures():
                await self._load.news.park()

    def _member(
        self, user: str, tier: Tier, on_event: Callable[[RoomEvent], object], url: str = "", **more: Any
    ) -> DemoUser:
        # Any: further arguments of Member.
        url = url or f"roomcast://127.0.0.1:{self.port}"
        member = DemoUser(url, user, tier, on_event, Random(f"{self._seed}-{user}"), **more)
        self._members.append(member)
        return member

    async def _play(self, stage: trio.Nursery) -> None:
        """One act after another."""
        self.begun_at = trio.current_time()
        with trio.CancelScope() as acts:
            async with trio.open_nursery() as nursery:

                async def end_early() -> None:
                    await self.end_early.wait()
                    acts.cancel()

                nursery.start_soon(end_early)
                for scene in self.scenes:
                    self.scene = scene
                    self._enter_phase(scene.act.title)
                    await self._load.tell(do="rates", at_s=self.elapsed_s, rates=scene.act.rates)
                    stage.start_soon(self._open_act, scene.act.name, stage)
                    await self._give_gifts(scene, stage)
                nursery.cancel_scope.cancel()
        self.scene = None

    def _enter_phase(self, phase: str) -> None:
        self.phase = phase
        if self.on_phase is not None:
            self.on_phase()

    async def _open_act(self, name: str, stage: trio.Nursery) -> None:
        """What happens once, when an act begins."""
        assert self._stalled_viewer is not None
        if name == ("stalled" if self.seconds >= LONG_S else "gifts"):
            stage.start_soon(self._stalled_viewer.stall, min(1.5, self.seconds / 20))
        match name:
            case "quiet":
                await self._speak_as_host(ANNOUNCEMENTS[0])
            case "gifts":
                await self._speak_as_host(ANNOUNCEMENTS[1])
            case "wave":
                await self._load.tell(do="cut", share=CUT_SHARE)
            case "finale":
                await self._speak_as_host(ANNOUNCEMENTS[2])

    async def _speak_as_host(self, announcement: str) -> None:
        """Announce something and add a word to it."""
        self._unfinished += 1
        try:
            text = AnnouncementPayload(announcement)
            await self._host.say(self.accounting, HOST, MessageType.ANNOUNCEMENT, text)
            word = DanmakuPayload(self._rng.choice(HOST_LINES))
            await self._host.say(self.accounting, HOST, MessageType.DANMAKU, word)
        finally:
            self._unfinished -= 1

    async def _give_gifts(self, scene: ScheduledAct, stage: trio.Nursery) -> None:
        """Post the act's orders until it ends."""
        assert self.begun_at is not None
        rate = scene.act.rates.gifts
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
        self._unfinished += 1
        try:
            while True:
                wait_ms = await self._platform.say(self.accounting, PLATFORM, MessageType.GIFT, payload)
                if not wait_ms:
                    return
                await trio.sleep(wait_ms / 1000)
        finally:
            self._unfinished -= 1

    # ---- listening

    def _ignore(self, event: RoomEvent) -> None:
        """Host and platform do not watch."""

    def _on_first_event(self, event: RoomEvent) -> None:
        self.references[0].see(event)
        if isinstance(event, (Danmaku, StreamEvent)):
            self.screen.append(event)

    async def _watch(self) -> None:
        """Keep what changes by the second: rates, latencies, the worst stage."""
        assert self.broker is not None
        before: dict[int, int] = {}
        while True:
            now = dict(self._latency.counts)
            fresh = {ms: count - before.get(ms, 0) for ms, count in now.items() if count > before.get(ms, 0)}
            before = now
            report = self._load.report()
            offered = self.total_accounting().of(Lane.CHAT) + report.under_way
            self._moments.append(_Moment(trio.current_time(), offered, report.received, fresh))
            self.peak_stage = max(self.peak_stage, int(self.broker.monitor.stage))
            await trio.sleep(WATCH_S)

    # ---- the end

    async def _count(self) -> DemoResult:
        """Silence, then compare until all agree or `COMPARE_S` have passed."""
        broker = self.broker
        assert broker is not None
        seconds = self.elapsed_s
        self._enter_phase("waiting for every outcome")
        assert self._stalled_viewer is not None
        self._stalled_viewer.wake()
        await self._load.tell(do="calm")
        with trio.move_on_after(CALM_S):
            while not self._is_calm():
                await self._load.news.park()
        self._enter_phase("counting")
        with trio.move_on_after(COMPARE_S):
            while self._differences():
                for room in broker.hub:
                    room.flush()
                await self._load.news.park()
        with trio.move_on_after(RETURN_S):
            while not self._has_everyone_returned():
                await self._load.news.park()
        return DemoResult(
            self._differences(), broker.hub.accounts(), seconds, self.viewers, self._likes(), self.total_accounting(),
            self._load.report().received, self._latency, self._load.report(), self.stalled, self.peak_stage,
        )  # fmt: skip

    def _is_calm(self) -> bool:
        """Whether nobody waits for a fate."""
        return self._load.report().calm and not self._unfinished and not any(m.under_way for m in self._members)

    def _has_everyone_returned(self) -> bool:
        """Whether everybody who was cut is back and has heard the last event."""
        report = self._load.report()
        last = self.references[0].last_offset
        everybody = report.tcp + report.websocket == self._load.size and report.back >= report.cut
        return (
            everybody
            and report.offset >= last
            and self._stalled_viewer is not None
            and self._stalled_viewer.has_returned(last)
        )

    def _likes(self) -> int:
        assert self.broker is not None
        return sum(room.state.like_total for room in self.broker.hub)

    def _differences(self) -> list[str]:
        assert self.broker is not None
        found = differences(self.broker.hub.accounts(), self._likes(), self.total_accounting(), self.references)
        found += self._load.failures()
        holes = self._load.report().holes
        if holes:
            found.append(f"the load: {holes} gaps in lanes 0-2")
        if self.stalled.is_back and not self.stalled.recovered:
            found.append("the viewer who stalled came back and missed events of lanes 0-2")
        return found

    async def _leave_all(self, stage: trio.Nursery) -> None:
        self.phase = "good night"
        await self._load.close()
        for member in self._members:
            member.leave()
        with trio.move_on_after(RETURN_S):
            for member in self._members:
                await member.wait_gone()
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


def _fates(accounting: Accounting, group: str) -> dict[str, int]:
    """The fates of a group by outcome, likes left out."""
    fates: dict[str, int] = {}
    for (by, lane, outcome), count in accounting.fates.items():
        if by == group and lane != "ambient":
            fates[outcome] = fates.get(outcome, 0) + count
    return fates
