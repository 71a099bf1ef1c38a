"""Runner of the demo: starts a broker and its clients, runs the phases, and compares the counts at the end.

The broker, the reference viewers, the host, the platform and the stalled viewer are in this process; the load is in
others, because it would otherwise take the broker's processor time. All of them use sockets. Of the broker's objects
the runner reads counters only, and the queue of the one connection that stalls, to display it.

After the last phase no client posts until every post has its result; then `accounting.differences` compares. The
runner corrects nothing.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import trio

from broker.config.schema import Config, LedgerConfig, LinkConfig, ListenConfig, RoomConfig
from broker.config.sections import ApiConfig
from broker.demo.accounting import Accounting, Latency, ReferenceViewer, differences
from broker.demo.commerce import Commerce
from broker.demo.load import LoadProcesses
from broker.demo.load_process import FLOODERS, QUIET, Report
from broker.demo.scenario import ANNOUNCEMENTS, HOST_LINES, ScheduledPhase, Texts, plan, viewer_name
from broker.demo.screen import Snapshot
from broker.demo.users import DemoUser, StalledState, StalledViewer
from broker.server import Broker
from protocol.clients import Danmaku, RoomEvent, StreamEvent
from protocol.codes import Lane, MessageType, Tier
from protocol.messages import Account
from protocol.payloads import AnnouncementPayload, DanmakuPayload, GiftPayload

__all__ = ["HOST", "PLATFORM", "ROOM", "DemoResult", "Runner"]

ROOM, TITLE = "lobby", "roomcast 演示 · demo"
HOST, PLATFORM, ACTIVITIES = "host", "platform", "activities"
"""Groups of senders in `Accounting`."""
CUT_SHARE = 1 / 3
JOIN_S = 120.0
ANSWERS_S = 30.0
COMPARE_S = 20.0
RETURN_S = 10.0
"""Deadlines of the steps; only a defect or an overloaded machine reaches them."""
VIEWERS_PER_CPU = 100
"""With more viewers than this on a processor the room ticks half as often: the clients, not the broker, are slow."""
LONG_S = 100.0
"""In a shorter demo the viewer stalls one phase earlier; otherwise it could not be cut and resume before the end."""
WATCH_S = 0.25
SAMPLES = 12
"""Samples over which the rates and percentiles of a snapshot are taken: the last three seconds."""
REFERENCE_ITEMS = 100_000
"""Unread events of a reference viewer: it counts, so it must not drop any."""
SCREEN_LINES = 60
GIFT_GIVERS = 12
"""Viewers who give gifts: few, so that combos form."""
_STEP_S = 0.02


class _Sample(NamedTuple):
    """One sample of `Runner._sample`; ``latency``: milliseconds and how often, since the sample before."""

    at: float
    offered: int
    received: int
    latency: dict[int, int]


class DemoResult(NamedTuple):
    """Result of a demo."""

    differences: list[str]
    """Of the messages."""
    commerce_differences: list[str]
    commerce: dict[str, dict[str, int]]
    """Sums of each kind of activities."""
    accounts: tuple[Account, ...]
    seconds: float
    viewers: int
    likes: int
    accounting: Accounting
    received: int
    latency: Latency
    load: Report
    stalled: StalledState
    peak_stage: int
    visited: bool = False
    """Somebody has come by a page: nothing was compared."""

    @property
    def balanced(self) -> bool:
        """Whether every message was counted."""
        return not self.differences

    @property
    def reconciled(self) -> bool:
        """Whether money, stock, codes, votes and entries agree in the ledger, the broker and the clients."""
        return not self.commerce_differences

    def to_json(self) -> dict[str, Any]:
        """Return everything as one object. Any: numbers, strings, lists and objects of them."""
        counts: dict[str, dict[str, dict[str, int]]] = {}
        for (group, lane, outcome), count in sorted(self.accounting.counts.items()):
            counts.setdefault(group, {}).setdefault(lane, {})[outcome] = count
        offered = self.accounting.of(Lane.CHAT) + self.accounting.of(Lane.PAID) + self.accounting.of(Lane.AMBIENT)
        return {
            "event": "demo",
            "balanced": self.balanced,
            "visited": self.visited,
            "differences": [*self.differences, *self.commerce_differences],
            "reconciled": self.reconciled,
            "commerce": self.commerce,
            "seconds": round(self.seconds, 1),
            "viewers": self.viewers,
            "lanes": {lane.name.lower(): account._asdict() for lane, account in zip(Lane, self.accounts, strict=True)},
            "likes": self.likes,
            "gifts": {
                "messages": self.accounting.gift_messages,
                "count": self.accounting.gifts,
                "amount_cents": self.accounting.gift_cents,
            },
            "offered": offered,
            "senders": counts,
            "deliveries": self.received,
            "deliveries_per_s": round(self.received / self.seconds),
            "latency_ms": {"p50": self.latency.percentile(0.50), "p99": self.latency.percentile(0.99)},
            "reconnects": {"cut": self.load.cut, "back": self.load.back, "recovered": self.load.recovered},
            "stalled": {
                "cut": self.stalled.was_cut, "back": self.stalled.is_back, "recovered": self.stalled.recovered,
                "events_caught_up": self.stalled.events,
            },
            "overload_stage_peak": self.peak_stage,
        }  # fmt: skip


class Runner:
    """One demo of ``seconds`` with ``viewers`` clients; `snapshot` returns its state at any time."""

    def __init__(self, seconds: float, viewers: int, seed: int, *, stays: bool = False) -> None:
        """``stays``: the phases begin anew after the last one, until `end_early` is set."""
        self.seconds = seconds
        self.stays = stays
        self.viewers = viewers
        self.phases = plan(seconds)
        self.phase: ScheduledPhase | None = None
        """The phase that runs; None before the first and after the last."""
        self.status = "viewers join"
        self.started_at: float | None = None
        self.broker: Broker | None = None
        self.port = 0
        self.screen: deque[Danmaku | StreamEvent] = deque(maxlen=SCREEN_LINES)
        """What a viewer of the FULL tier receives, the latest last."""
        self.accounting = Accounting()
        """Results of the posts of host and platform."""
        self.peak_stage = 0
        self.on_status: Callable[[], object] | None = None
        """Called whenever `status` has changed, so that even the shortest phase is reported."""
        self.end_early = trio.Event()
        """Set it to end the phases early; the comparison follows all the same."""
        self.serves = trio.Event()
        """Set when the broker serves: `pages` are known."""
        self._phases_at = 0.0
        """When the first phase began the last time."""
        self._rng = Random(seed)
        self._seed = seed
        self._texts = Texts(self._rng)
        self._latency = Latency()
        self._samples: deque[_Sample] = deque([_Sample(0.0, 0, 0, {})], maxlen=SAMPLES)
        self._load = LoadProcesses(self._latency)
        self._members: list[DemoUser] = []
        self._watching: list[DemoUser] = []
        """Those of `_members` that only watch."""
        self.references: list[ReferenceViewer] = []
        self._unfinished = 0
        """Orders and announcements that are not complete, also between two of their posts."""
        self._host: DemoUser
        self._platform: DemoUser
        self._commerce: Commerce | None = None
        self._stalled_viewer: StalledViewer | None = None

    # ---- state

    @property
    def elapsed_s(self) -> float:
        """Seconds since the first phase began."""
        return 0.0 if self.started_at is None else trio.current_time() - self.started_at

    @property
    def pages(self) -> tuple[str, ...]:
        """Addresses for a browser: live room, host desk and console."""
        broker = self.broker
        if broker is None or not broker.api_urls:
            return ()
        viewers = f"http://127.0.0.1:{self.port}"
        return f"{viewers}/room/{ROOM}", f"{viewers}/host/{ROOM}", f"{broker.api_urls[0]}/console"

    @property
    def is_visited(self) -> bool:
        """Whether somebody has come by a page: of what a person does the runner has no account to compare."""
        broker = self.broker
        return broker is not None and (broker.context.auth.verified > 0 or broker.api_counters.requests > 0)

    @property
    def stalled(self) -> StalledState:
        """State of the viewer that stalls."""
        return self._stalled_viewer.state if self._stalled_viewer is not None else StalledState()

    def total_accounting(self) -> Accounting:
        """Return the results of the posts of all senders."""
        activities = Accounting()
        if self._commerce is not None:
            activities += self._commerce.posts
            activities.counts[ACTIVITIES, "commerce", "accepted"] = self._commerce.event_count
        return self._load.accounting() + self.accounting + activities

    def snapshot(self) -> Snapshot:
        """Return the state at this moment."""
        broker = self.broker
        assert broker is not None
        report, accounting = self._load.report(), self.total_accounting()
        latency = Latency()
        for sample in self._samples:
            latency.merge(sample.latency)
        first, last = self._samples[0], self._samples[-1]
        span_s = max(last.at - first.at, WATCH_S)
        rooms = list(broker.hub)
        phase_number = self.phases.index(self.phase) + 1 if self.phase is not None else 0
        if self.started_at is not None and self.phase is None:
            phase_number = len(self.phases) + 1
        return Snapshot(
            status=self.status, phase_number=phase_number, phases=len(self.phases),
            elapsed_s=self.elapsed_s, seconds=self.seconds, port=self.port, viewers=self.viewers,
            tcp=report.tcp + sum(m.is_joined and not m.is_websocket for m in self._watching),
            websocket=report.websocket + sum(m.is_joined and m.is_websocket for m in self._watching),
            online=sum(room.state.online for room in rooms),
            offered_per_s=max(0, last.offered - first.offered) / span_s,
            deliveries_per_s=(last.received - first.received) / span_s,
            p50_ms=latency.percentile(0.50), p99_ms=latency.percentile(0.99),
            interval_ms=max((round(room.state.interval_s * 1000) for room in rooms), default=0),
            stage=int(broker.monitor.stage), likes=self.total_likes(), gifts=accounting.gifts,
            gift_messages=accounting.gift_messages, cut=report.cut, back=report.back,
            recovered=report.recovered, stalled=self.stalled, accounts=broker.hub.accounts(),
            senders={group: _counts_of(accounting, group) for group in (QUIET, FLOODERS, PLATFORM, HOST)},
            screen=tuple(self.screen), pages=self.pages,
        )  # fmt: skip

    # ---- the run

    async def run(self) -> DemoResult:
        """Run all phases, compare the counts and return the result."""
        with TemporaryDirectory(prefix="roomcast-demo-") as directory:
            return await self._run(directory)

    async def _run(self, directory: str) -> DemoResult:
        broker = self.broker = Broker(_config(self.seconds, self.viewers, directory), rng=Random(self._seed))
        async with trio.open_nursery() as background:
            await background.start(broker.run)
            self.port = broker.addresses[0][1]
            await broker.call("rooms.open", room=ROOM, title=TITLE)
            self.serves.set()
            async with trio.open_nursery() as clients:
                clients.start_soon(self._sample)
                await self._connect_all(clients)
                commerce = self._commerce
                assert commerce is not None
                async with trio.open_nursery() as playing:
                    playing.start_soon(commerce.run, self.end_early)
                    await self._run_phases(clients)
                    self._set_status("sales and draws end")
                await commerce.reconcile()
                outcome = await self._count(commerce)
                await self._close_all(clients)
            background.cancel_scope.cancel()
        return outcome

    async def _connect_all(self, clients: trio.Nursery) -> None:
        """Start the reference viewers first, so that they see everything, then host and platform, then the load."""
        for index, (tier, url) in enumerate(
            (tier, url)
            for tier in sorted(Tier, reverse=True)
            for url in (f"roomcast://127.0.0.1:{self.port}", f"ws://127.0.0.1:{self.port}/")
        ):
            transport = "WebSocket" if url.startswith("ws") else "TCP"
            reference = ReferenceViewer(f"the reference viewer over {transport}, {int(tier)}/s", tier, first=index == 0)
            on_event = self._on_first_event if index == 0 else reference.on_event
            member = self._member(f"reference{index}", tier, on_event, url=url, inbox_items=REFERENCE_ITEMS)
            self.references.append(reference)
            self._watching.append(member)
            room = await clients.start(member.run, ROOM)
            reference.on_joined(room.snapshot)
        self._host = self._member("主播:host", Tier.FULL, self._ignore)
        self._platform = self._member("platform:app", Tier.LOW, self._ignore)
        assert self.broker is not None
        stalled_viewer = self._stalled_viewer = StalledViewer(
            f"roomcast://127.0.0.1:{self.port}", self.broker, Random(self._seed)
        )
        self._members.append(stalled_viewer.member)
        self._watching.append(stalled_viewer.member)
        for member in (self._host, self._platform, stalled_viewer.member):
            await clients.start(member.run, ROOM)
        url = f"roomcast://127.0.0.1:{self.port}"
        commerce = self._commerce = Commerce(url, self.broker, ROOM, self.seconds, self._seed)
        await commerce.connect(clients)
        wanted = max(1, self.viewers - len(self._watching) - len(commerce.buyers))
        await self._load.open(self.port, ROOM, wanted, self._seed, clients)
        with trio.move_on_after(JOIN_S):
            while self._load.report().joined < wanted and not self.end_early.is_set() and not self._load.failures():
                await self._load.reported.park()

    def _member(
        self, user: str, tier: Tier, on_event: Callable[[RoomEvent], object], url: str = "", **more: Any
    ) -> DemoUser:
        # Any: further arguments of DemoUser.
        url = url or f"roomcast://127.0.0.1:{self.port}"
        member = DemoUser(url, user, tier, on_event, Random(f"{self._seed}-{user}"), **more)
        self._members.append(member)
        return member

    async def _run_phases(self, clients: trio.Nursery) -> None:
        """Run one phase after another."""
        self.started_at = trio.current_time()
        with trio.CancelScope() as phases:
            async with trio.open_nursery() as nursery:

                async def end_early() -> None:
                    await self.end_early.wait()
                    phases.cancel()

                nursery.start_soon(end_early)
                while True:
                    self._phases_at = trio.current_time()
                    for phase in self.phases:
                        await self._run_phase(phase, clients)
                    if not self.stays:
                        break
                nursery.cancel_scope.cancel()
        self.phase = None

    async def _run_phase(self, phase: ScheduledPhase, clients: trio.Nursery) -> None:
        self.phase = phase
        self._set_status(phase.phase.title)
        await self._load.send(do="rates", at_s=self.elapsed_s, rates=phase.phase.rates)
        clients.start_soon(self._begin_phase, phase.phase.name, clients)
        await self._give_gifts(phase, clients)

    def _set_status(self, status: str) -> None:
        self.status = status
        if self.on_status is not None:
            self.on_status()

    async def _begin_phase(self, name: str, clients: trio.Nursery) -> None:
        """Do what happens once, at the beginning of a phase."""
        assert self._stalled_viewer is not None
        if name == ("stalled" if self.seconds >= LONG_S else "gifts"):
            clients.start_soon(self._stalled_viewer.stall, min(1.5, self.seconds / 20))
        match name:
            case "quiet":
                await self._post_as_host(ANNOUNCEMENTS[0])
            case "gifts":
                await self._post_as_host(ANNOUNCEMENTS[1])
            case "wave":
                await self._load.send(do="cut", share=CUT_SHARE)
            case "finale":
                await self._post_as_host(ANNOUNCEMENTS[2])

    async def _post_as_host(self, announcement: str) -> None:
        """Post an announcement and a danmaku."""
        self._unfinished += 1
        try:
            text = AnnouncementPayload(announcement)
            await self._host.post(self.accounting, HOST, MessageType.ANNOUNCEMENT, text)
            remark = DanmakuPayload(self._rng.choice(HOST_LINES))
            await self._host.post(self.accounting, HOST, MessageType.DANMAKU, remark)
        finally:
            self._unfinished -= 1

    async def _give_gifts(self, phase: ScheduledPhase, clients: trio.Nursery) -> None:
        """Post the orders of the phase until it ends."""
        rate = phase.phase.rates.gifts
        begins_at, ends_at = trio.current_time(), self._phases_at + phase.ends_s
        given = 0
        while trio.current_time() < ends_at:
            due = int((trio.current_time() - begins_at) * rate)
            while given < due:
                given += 1
                clients.start_soon(self._give)
            await trio.sleep(min(_STEP_S, max(0.0, ends_at - trio.current_time())))

    async def _give(self) -> None:
        """Post one order until the room accepts it: it is paid for, so the platform repeats it."""
        gift, count = self._texts.gift()
        giver = viewer_name(self._rng.randrange(GIFT_GIVERS))
        order = f"{self._rng.getrandbits(64):016x}"
        payload = GiftPayload(order, giver, giver, gift.gift_id, count, gift.price_cents, "主播")
        self._unfinished += 1
        try:
            while True:
                wait_ms = await self._platform.post(self.accounting, PLATFORM, MessageType.GIFT, payload)
                if not wait_ms:
                    return
                await trio.sleep(wait_ms / 1000)
        finally:
            self._unfinished -= 1

    # ---- receiving

    def _ignore(self, event: RoomEvent) -> None:
        """Ignore an event: host and platform only post."""

    def _on_first_event(self, event: RoomEvent) -> None:
        self.references[0].on_event(event)
        if isinstance(event, StreamEvent) and isinstance(event.payload, GiftPayload) and not event.payload.count:
            return
        if isinstance(event, (Danmaku, StreamEvent)):
            self.screen.append(event)

    async def _sample(self) -> None:
        """Keep what changes by the second: rates, latencies, the worst clients."""
        assert self.broker is not None
        before: dict[int, int] = {}
        while True:
            now = dict(self._latency.counts)
            fresh = {ms: count - before.get(ms, 0) for ms, count in now.items() if count > before.get(ms, 0)}
            before = now
            report = self._load.report()
            offered = self.total_accounting().of(Lane.CHAT) + report.unanswered
            self._samples.append(_Sample(trio.current_time(), offered, report.received, fresh))
            self.peak_stage = max(self.peak_stage, int(self.broker.monitor.stage))
            await trio.sleep(WATCH_S)

    # ---- the end

    async def _count(self, commerce: Commerce) -> DemoResult:
        """Wait for every result, then compare until all counts agree or `COMPARE_S` have passed."""
        broker = self.broker
        assert broker is not None
        seconds = self.elapsed_s
        self._set_status("waiting for every outcome")
        assert self._stalled_viewer is not None
        self._stalled_viewer.resume_reading()
        await self._load.send(do="stop")
        with trio.move_on_after(ANSWERS_S):
            while not self._is_all_answered():
                await self._load.reported.park()
        self._set_status("counting")
        with trio.move_on_after(0.0 if self.is_visited else COMPARE_S):
            while self._differences():
                for room in broker.hub:
                    room.flush()
                await self._load.reported.park()
        with trio.move_on_after(RETURN_S):
            while not self._is_complete():
                await self._load.reported.park()
        visited = self.is_visited
        return DemoResult(
            [] if visited else self._differences(), [] if visited else commerce.differences, commerce.sums,
            self._accounts(), seconds, self.viewers,
            self.total_likes(),
            self.total_accounting(), self._load.report().received, self._latency, self._load.report(),
            self.stalled, self.peak_stage, visited,
        )  # fmt: skip

    def _is_all_answered(self) -> bool:
        """Return whether every post has its result."""
        return (
            self._load.report().all_answered and not self._unfinished and not any(m.unanswered for m in self._members)
        )

    def _is_complete(self) -> bool:
        """Return whether every viewer that was cut is back and has received the last event."""
        report = self._load.report()
        last = self.references[0].last_offset
        all_back = report.tcp + report.websocket == self._load.size and report.back >= report.cut
        return (
            all_back
            and report.offset >= last
            and self._stalled_viewer is not None
            and self._stalled_viewer.has_returned(last)
        )

    def total_likes(self) -> int:
        """Return the likes that the broker counted."""
        assert self.broker is not None
        return sum(room.state.like_total for room in self.broker.hub)

    def _accounts(self) -> tuple[Account, ...]:
        """Return the accounts of the room in which all clients are; that of the PK has none of them."""
        assert self.broker is not None
        room = self.broker.hub.find(ROOM)
        assert room is not None
        return room.state.counters.accounts()

    def _differences(self) -> list[str]:
        found = differences(self._accounts(), self.total_likes(), self.total_accounting(), self.references)
        found += self._load.failures()
        holes = self._load.report().holes
        if holes:
            found.append(f"the load: {holes} gaps in lanes 0-2")
        if self.stalled.is_back and not self.stalled.recovered:
            found.append("the viewer that stalled came back and missed events of lanes 0-2")
        return found

    async def _close_all(self, clients: trio.Nursery) -> None:
        self.status = "clients leave"
        await self._load.close()
        if self._commerce is not None:
            await self._commerce.close()
        for member in self._members:
            member.leave()
        with trio.move_on_after(RETURN_S):
            for member in self._members:
                await member.wait_left()
        clients.cancel_scope.cancel()


def _config(seconds: float, viewers: int, directory: str) -> Config:
    """Return the defaults on any free port, with a ledger; changed where a short demo on one machine requires it."""
    is_crowded = viewers > VIEWERS_PER_CPU * (os.cpu_count() or 1)
    return Config(
        listen=ListenConfig(port=0),
        # A short demo cannot wait ten seconds for the stalled viewer, nor until 16 KiB are queued.
        link=LinkConfig(write_timeout_s=max(1.0, min(10.0, seconds / 4)), notsent_lowat_bytes=2048),
        ledger=LedgerConfig(data_dir=directory),
        api=ApiConfig(listen="127.0.0.1:0"),
        room=RoomConfig(tick_ms=200 if is_crowded else None),
    )


def _counts_of(accounting: Accounting, group: str) -> dict[str, int]:
    """Return the posts of a group by outcome, without likes."""
    counts: dict[str, int] = {}
    for (by, lane, outcome), count in accounting.counts.items():
        if by == group and lane != "ambient":
            counts[outcome] = counts.get(outcome, 0) + count
    return counts
