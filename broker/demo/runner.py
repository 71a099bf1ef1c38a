"""The director: runs a broker and its audience, plays the acts, and has everything counted twice at the end.

The broker, the witnesses, the host, the platform and the viewer who stalls live in this process; the crowd in others,
because its work would otherwise be taken from the broker's. Everything speaks through sockets, the director included:
of the broker's objects it looks at counters only, and at the queue of the one link that stalls, to show it.

After the last act everybody falls silent, every post gets its fate, and `tally.differences` compares. What it finds is
the outcome; the director corrects nothing.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import trio

from broker.config.schema import Config, LinkConfig, ListenConfig, RoomConfig
from broker.demo.accounting import Latency, Ledger, Witness, differences
from broker.demo.load import House
from broker.demo.load_process import FLOODERS, QUIET
from broker.demo.outcome import Outcome
from broker.demo.picture import Picture, Stalled
from broker.demo.scenario import ANNOUNCEMENTS, HOST_LINES, Phrases, Scene, plan, viewer_name
from broker.demo.sleeper import Sleeper
from broker.demo.users import Member
from broker.server import Broker
from protocol.clients import Danmaku, Event, RoomEvent
from protocol.codes import Lane, MessageType, Tier
from protocol.payloads import AnnouncementPayload, DanmakuPayload, GiftPayload

__all__ = ["HOST", "PLATFORM", "ROOM", "Director"]

ROOM = "lobby"
HOST, PLATFORM = "host", "platform"
"""Groups of the ledger."""
CUT_SHARE = 1 / 3
ENTRY_S = 120.0
CALM_S = 30.0
SETTLE_S = 20.0
HOME_S = 10.0
"""Deadlines that only a broken show or a drowning machine meets."""
VIEWERS_PER_CPU = 100
"""With more clients of ours than this on a processor the room ticks half as often: they, not the broker, are slow."""
LONG_S = 100.0
"""In a shorter show one viewer stalls an act earlier, or there would be no time to be cut and to come back."""
WATCH_S = 0.25
MOMENTS = 12
"""Moments of which a picture's rates and percentiles speak: the last three seconds."""
WITNESS_ITEMS = 100_000
"""Unread events of a witness: it counts, so it must not drop any."""
SCREEN_LINES = 60
WHALES = 12
"""Viewers who give gifts: few, so that combos form."""
_STEP_S = 0.02


class _Moment(NamedTuple):
    """What `Director._watch` notes; ``latency``: milliseconds and how often, since the last moment."""

    at: float
    offered: int
    received: int
    latency: dict[int, int]


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
        self.peak_stage = 0
        self.on_phase: Callable[[], object] | None = None
        """Called whenever `phase` has changed, so that even one that lasts no time is told."""
        self.hurry = trio.Event()
        """Set it to end the acts early; the counting follows all the same."""
        self._rng = Random(seed)
        self._seed = seed
        self._phrases = Phrases(self._rng)
        self._latency = Latency()
        self._moments: deque[_Moment] = deque([_Moment(0.0, 0, 0, {})], maxlen=MOMENTS)
        self._house = House(self._latency)
        self._members: list[Member] = []
        self._audience: list[Member] = []
        """Those of them who only watch."""
        self.witnesses: list[Witness] = []
        self._unfinished = 0
        """Orders and announcements under way, also between two posts of theirs."""
        self._host: Member
        self._platform: Member
        self._sleeper: Sleeper | None = None

    # ---- what the picture asks

    @property
    def elapsed_s(self) -> float:
        """Since the curtain rose."""
        return 0.0 if self.begun_at is None else trio.current_time() - self.begun_at

    @property
    def stalled(self) -> Stalled:
        """The viewer who stalls."""
        return self._sleeper.state if self._sleeper is not None else Stalled()

    def all_ledgers(self) -> Ledger:
        """What every sender was told."""
        return self._house.ledger() + self.ledger

    def picture(self) -> Picture:
        """The show at this moment."""
        broker = self.broker
        assert broker is not None
        report, ledger = self._house.report(), self.all_ledgers()
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
            online=sum(room.state.online for room in rooms),
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
        async with trio.open_nursery() as background:
            await background.start(broker.run)
            self.port = broker.addresses[0][1]
            async with trio.open_nursery() as stage:
                stage.start_soon(self._watch)
                await self._enter(stage)
                await self._play(stage)
                outcome = await self._count()
                await self._go_home(stage)
            background.cancel_scope.cancel()
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
        assert self.broker is not None
        sleeper = self._sleeper = Sleeper(f"roomcast://127.0.0.1:{self.port}", self.broker, Random(self._seed))
        self._members.append(sleeper.member)
        self._audience.append(sleeper.member)
        for member in (self._host, self._platform, sleeper.member):
            await stage.start(member.run, ROOM)
        wanted = max(1, self.viewers - len(self._audience))
        await self._house.open(self.port, ROOM, wanted, self._seed, stage)
        with trio.move_on_after(ENTRY_S):
            while self._house.report().entered < wanted and not self.hurry.is_set() and not self._house.failures():
                await self._house.news.park()

    def _member(self, user: str, tier: Tier, hear: Callable[[RoomEvent], object], url: str = "", **more: Any) -> Member:
        # Any: further arguments of Member.
        url = url or f"roomcast://127.0.0.1:{self.port}"
        member = Member(url, user, tier, hear, Random(f"{self._seed}-{user}"), **more)
        self._members.append(member)
        return member

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
                    self.scene = scene
                    self._enter_phase(scene.act.title)
                    await self._house.tell(do="mood", at_s=self.elapsed_s, mood=scene.act.mood)
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
        assert self._sleeper is not None
        if name == ("stalled" if self.seconds >= LONG_S else "gifts"):
            stage.start_soon(self._sleeper.stall, min(1.5, self.seconds / 20))
        match name:
            case "quiet":
                await self._speak_as_host(ANNOUNCEMENTS[0])
            case "gifts":
                await self._speak_as_host(ANNOUNCEMENTS[1])
            case "wave":
                await self._house.tell(do="cut", share=CUT_SHARE)
            case "finale":
                await self._speak_as_host(ANNOUNCEMENTS[2])

    async def _speak_as_host(self, announcement: str) -> None:
        """Announce something and add a word to it."""
        self._unfinished += 1
        try:
            text = AnnouncementPayload(announcement)
            await self._host.say(self.ledger, HOST, MessageType.ANNOUNCEMENT, text)
            word = DanmakuPayload(self._rng.choice(HOST_LINES))
            await self._host.say(self.ledger, HOST, MessageType.DANMAKU, word)
        finally:
            self._unfinished -= 1

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
        self._unfinished += 1
        try:
            while True:
                wait_ms = await self._platform.say(self.ledger, PLATFORM, MessageType.GIFT, payload)
                if not wait_ms:
                    return
                await trio.sleep(wait_ms / 1000)
        finally:
            self._unfinished -= 1

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
            report = self._house.report()
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
        self._enter_phase("everybody falls silent, every post gets its fate")
        assert self._sleeper is not None
        self._sleeper.wake()
        await self._house.tell(do="calm")
        with trio.move_on_after(CALM_S):
            while not self._is_calm():
                await self._house.news.park()
        self._enter_phase("counting")
        with trio.move_on_after(SETTLE_S):
            while self._differences():
                for room in broker.hub:
                    room.flush()
                await self._house.news.park()
        with trio.move_on_after(HOME_S):
            while not self._is_home():
                await self._house.news.park()
        return Outcome(
            self._differences(), broker.hub.accounts(), seconds, self.viewers, self._likes(), self.all_ledgers(),
            self._house.report().received, self._latency, self._house.report(), self.stalled, self.peak_stage,
        )  # fmt: skip

    def _is_calm(self) -> bool:
        """Whether nobody waits for a fate."""
        return self._house.report().calm and not self._unfinished and not any(m.under_way for m in self._members)

    def _is_home(self) -> bool:
        """Whether everybody who was cut is back and has heard the last event."""
        report = self._house.report()
        last = self.witnesses[0].last_offset
        everybody = report.tcp + report.websocket == self._house.size and report.back >= report.cut
        return everybody and report.offset >= last and self._sleeper is not None and self._sleeper.is_home(last)

    def _likes(self) -> int:
        assert self.broker is not None
        return sum(room.state.like_total for room in self.broker.hub)

    def _differences(self) -> list[str]:
        assert self.broker is not None
        found = differences(self.broker.hub.accounts(), self._likes(), self.all_ledgers(), self.witnesses)
        found += self._house.failures()
        holes = self._house.report().holes
        if holes:
            found.append(f"the crowd: {holes} gaps in lanes 0-2")
        if self.stalled.is_back and not self.stalled.recovered:
            found.append("the viewer who stalled came back and missed events of lanes 0-2")
        return found

    async def _go_home(self, stage: trio.Nursery) -> None:
        self.phase = "good night"
        await self._house.close()
        for member in self._members:
            member.leave()
        with trio.move_on_after(HOME_S):
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


def _fates(ledger: Ledger, group: str) -> dict[str, int]:
    """The fates of a group by outcome, likes left out."""
    fates: dict[str, int] = {}
    for (by, lane, outcome), count in ledger.fates.items():
        if by == group and lane != "ambient":
            fates[outcome] = fates.get(outcome, 0) + count
    return fates
