"""Way (c): links in memory with scripted bandwidth, delay and stalls, under a virtual clock. For policies, never for
speed.

The room, its fan-out, its queues and its rules are the broker's own; only the socket is replaced, by a pipe that
takes bytes until its buffer is full and delivers them at its script's pace. Time is virtual, so a minute takes a
second or two, and the same seed gives the same run. Order, completeness and totals are judged by the same books as
everywhere.

Its results carry no CPU figures and no floor, and the report marks them so that nobody can take them for real links.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import trio
import trio.testing

from bench.load.books import SINGLE, STREAM_TICK, Books
from bench.load.client_link import LinkState
from bench.load.links import CODECS, Link, Manner, judge, link_report, missing_danmaku
from bench.load.publishers import Schedule, StreamSpec
from bench.load.texts import PHRASES, REFRAINS, base36, stamped
from bench.machine import facts
from bench.measure import Latencies
from bench.report.invariants import check
from bench.report.results import assemble
from bench.run import RunOptions, Say, plain_toml
from bench.scenario import LinkScript, Scenario
from broker.config.schema import Config, LogConfig, load
from broker.core.limits.overload import ByteBudget
from broker.core.net.send_queue import QueueLimits, QueueMissed
from broker.core.rooms.policies import policy_from
from broker.core.rooms.state import RoomRules
from broker.net.poller import Poller
from broker.net.transport import Framing, TcpTransport, Transport, TransportSettings
from broker.rooms.encoding import variant_of
from broker.rooms.fanout import FanOut
from broker.rooms.hub import Hub
from broker.rooms.members import Member, RoomRef
from broker.rooms.room import Room
from broker.telemetry.logs import configure
from protocol.codes import CloseCode, LeaveReason, MessageType, Outcome, Role, Tier
from protocol.frames import HEADER_BYTES
from protocol.messages import AckResult, Post
from protocol.payloads import check_payload

__all__ = ["Pipe", "run_memory"]

STEP_S = 0.01
"""How often pipes deliver; also the resolution of these latencies."""
SETTLE_S = 30.0


class Pipe:
    """A scripted link: takes bytes while its buffer has room, delivers them in order at its pace."""

    def __init__(self, script: LinkScript, phase_s: float) -> None:
        self.script = script
        self._phase_s = phase_s
        self._held = bytearray()
        self._budget = 0.0

    def send(self, data: bytes | memoryview) -> int:
        """As a socket's: how much was taken; BlockingIOError when nothing was."""
        room = self.script.buffer_bytes - len(self._held)
        if room <= 0:
            raise BlockingIOError
        taken = min(room, len(data))
        self._held += data[:taken]
        return taken

    @property
    def has_room(self) -> bool:
        """Whether a poller would call it writable: a third of the buffer is free, as Linux has it."""
        return len(self._held) * 3 <= self.script.buffer_bytes * 2

    def deliver(self, now: float, elapsed_s: float) -> bytes:
        """What arrives in this step."""
        script = self.script
        if script.stall_every_s and (now + self._phase_s) % script.stall_every_s < script.stall_s:
            return b""
        if not self._held:
            self._budget = 0.0
            return b""
        self._budget += script.bytes_per_s * elapsed_s
        size = min(int(self._budget), len(self._held))
        self._budget -= size
        out = bytes(self._held[:size])
        del self._held[:size]
        return out


class House:
    """What scripted transports ask of a poller."""

    def __init__(self, config: Config) -> None:
        queue = config.queue
        limits = QueueLimits(queue.frames, queue.queue_bytes, queue.critical_bytes)
        self.budget = ByteBudget(queue.total_bytes)
        self.transports = TransportSettings(cast(Poller, self), limits, self.budget, lambda transport: None)
        self.behind: dict[ScriptedTransport, None] = {}

    @property
    def now(self) -> float:
        return trio.current_time()

    def watch_writable(self, transport: ScriptedTransport) -> None:
        self.behind[transport] = None

    def unwatch_writable(self, transport: ScriptedTransport) -> None:
        self.behind.pop(transport, None)

    def remove(self, transport: ScriptedTransport) -> None:
        self.behind.pop(transport, None)

    def rewheel(self, transport: ScriptedTransport, due: float) -> None:
        """Scripted links have no deadlines besides the write timeout."""


class NoSocket:
    """Stands where a transport has its socket."""

    def __init__(self, pipe: Pipe) -> None:
        self.send = pipe.send

    def fileno(self) -> int:
        return 0

    def shutdown(self, how: int) -> None:
        """There is nothing to shut down."""

    def close(self) -> None:
        """There is nothing to close."""


class ScriptedTransport(TcpTransport):
    """A transport on a `Pipe`."""

    __slots__ = ("pipe",)

    def __init__(self, pipe: Pipe, house: House) -> None:
        super().__init__(cast(Any, NoSocket(pipe)), house.transports, "script")
        self.pipe = pipe


class Viewer:
    """One member with its link, and the receiver at the other end."""

    def __init__(self, link: Link, transport: ScriptedTransport) -> None:
        self.link = link
        self.transport: Transport = transport
        self.pipe = transport.pipe
        transport.owner = self
        self.arriving: deque[tuple[float, bytes]] = deque()
        self.leave: Callable[[], None] = lambda: None
        self.start_backlog: Callable[[], None] = lambda: None

    def on_data(self, data: bytes) -> None:
        """Scripted viewers say nothing."""

    def on_text(self, text: str) -> None:
        """Scripted viewers say nothing."""

    def on_deadline(self, now: float) -> None:
        """Scripted viewers have no deadlines."""

    def on_backlog(self) -> None:
        self.start_backlog()

    def on_drained(self, missed: QueueMissed) -> None:
        self.link.told += missed.chat_weight

    def on_overflow(self) -> None:
        self.transport.abort("too far behind", CloseCode.SLOW_VIEWER)

    def on_closed(self, code: int, reason: str) -> None:
        self.link.state = LinkState.CLOSED
        self.link.code = code
        self.leave()

    def reply_acks(self, room: int, results: list[AckResult]) -> None:
        """Scripted viewers post nothing."""

    def on_left(self, room: RoomRef, reason: LeaveReason, message: str) -> None:
        self.link.state = LinkState.CLOSED


class Talker:
    """The one who posts, for all users; it gets every answer."""

    def __init__(self, transport: ScriptedTransport) -> None:
        self.transport: Transport = transport
        self.asked: dict[int, tuple[str, int, float]] = {}
        self.answers: Counter[tuple[str, str]] = Counter()
        self.amounts: Counter[tuple[str, str]] = Counter()
        self.answered = Latencies()

    def reply_acks(self, room: int, results: list[AckResult]) -> None:
        for sequence, outcome, detail in results:
            kind, amount, due = self.asked.pop(sequence)
            name = Outcome(outcome).name.lower()
            self.answers[kind, name] += 1
            self.amounts[kind, name] += detail if kind == "like" and name == "accepted" else amount
            self.answered.record(int((trio.current_time() - due) * 1e6))

    def on_left(self, room: RoomRef, reason: LeaveReason, message: str) -> None:
        """The run is over."""


def _leave(room: Room, member: Member) -> None:
    room.leave(member, trio.current_time())


class _Stage:
    """The pieces of one run."""

    def __init__(self, scenario: Scenario, options: RunOptions, config: Config) -> None:
        self.scenario = scenario
        self.options = options
        self.rng = random.Random(options.seed)
        self.books = Books(0, 0)
        self.house = House(config)
        self.fanout = FanOut(clock=trio.current_time)
        self.write_timeout_s = config.link.write_timeout_s
        room = config.room
        rules = RoomRules(
            policy_from(room.policy, room.policy_overrides()), {}, room.history_entries, room.history_s,
            room.snapshot_danmaku,
        )  # fmt: skip
        self.hub = Hub(
            room, rules, self.fanout, open_roles=config.open_roles, clock=trio.current_time,
            unix_ms=lambda: int(trio.current_time() * 1000), rng=self.rng,
        )  # fmt: skip
        self.viewers: list[Viewer] = []
        self.sent: Counter[str] = Counter()
        self.samples: list[dict[str, float]] = []
        self.talkers: dict[bool, list[Member]] = {}
        self.talker = Talker(ScriptedTransport(Pipe(LinkScript(share=1), 0.0), self.house))
        self.talker.transport.state = 2  # type: ignore[assignment]  # it hears nothing

    def seat(self, room: Room) -> None:
        """Seat everybody. Only healthy links count as such in the books."""
        scenario = self.scenario
        forms = [self.books.form(Tier(scenario.tier), slow) for slow in (False, True)]
        variant = variant_of(Framing.TCP, CODECS[scenario.features], Tier(scenario.tier))
        self.books.name_room(room.number, room.name)
        scripts = [script for script in scenario.links for _ in range(round(script.share * scenario.viewers))]
        for index, script in enumerate(scripts):
            slow = script is not scenario.links[0]
            manner = Manner.THROTTLED if slow else Manner.HEALTHY
            link = Link(index, room.name, forms[slow], websocket=False, manner=manner, careful=False, token=None)
            link.state = LinkState.READY
            link.room = link.seat = room.number
            link.marks = [0, 0, -1, 0]
            viewer = Viewer(link, ScriptedTransport(Pipe(script, self.rng.uniform(0, 60)), self.house))
            member = Member(viewer, f"viewer-{index}", "", Role.VIEWER, frozenset(), variant)
            viewer.leave = partial(_leave, room, member)
            viewer.start_backlog = partial(room.members.use_slow_path, member)
            self.viewers.append(viewer)
            room.enter(member, trio.current_time())
        everything = frozenset(int(kind) for kind in MessageType)
        role = Role[scenario.chat_role.upper()]
        for app, count in ((False, scenario.users), (True, 1)):
            seated = []
            for index in range(count):
                name = f"{'platform' if app else 'talker'}-{index}"
                member = Member(self.talker, name, name, Role.APP if app else role, everything, variant)
                member.index = 0
                seated.append(member)
            self.talkers[app] = seated

    async def publish(self, room: Room) -> None:
        """Post on schedule, in virtual time."""
        heap: list[tuple[int, int, Schedule]] = []
        begin = int(trio.current_time() * 1e6)
        for order, stream in enumerate(self.scenario.streams):
            spec = StreamSpec(
                kind=stream.kind,
                phases=stream.timed(self.scenario.seconds),
                refrain_share=stream.refrain_share,
                count=stream.count,
            )
            schedule = Schedule(spec, begin, self.rng)
            first = schedule.next_due()
            if first is not None:
                heapq.heappush(heap, (first, order, schedule))
        number = 0
        while heap:
            due, order, schedule = heapq.heappop(heap)
            await trio.sleep_until(due / 1e6)
            number += 1
            self._post(room, schedule.spec, number, due)
            following = schedule.next_due()
            if following is not None:
                heapq.heappush(heap, (following, order, schedule))

    def _post(self, room: Room, stream: StreamSpec, number: int, due: int) -> None:
        rng, kind, amount = self.rng, stream.kind, 1
        phrases = self.options.phrases or PHRASES
        payload: tuple[Any, ...]
        match kind:
            case "danmaku":
                shout = rng.random() < stream.refrain_share
                text = rng.choice(REFRAINS) if shout else stamped(rng.choice(phrases), 0, number, due)
                message_type, payload = MessageType.DANMAKU, (text,)
            case "like":
                message_type, payload, amount = MessageType.LIKE, (stream.count,), stream.count
            case "gift":
                order = f"order~0.{base36(number)}.{base36(due)}"
                amount = stream.count
                message_type, payload = MessageType.GIFT, (order, "giver", "", "gift", amount, 100, "")
            case _:
                message_type, payload = MessageType.ANNOUNCEMENT, (stamped("announcement", 0, number, due),)
        members = self.talkers[kind in ("gift", "announcement")]
        self.talker.asked[number] = (kind, amount, due / 1e6)
        self.sent[kind] += 1
        post = Post(int(message_type), "", check_payload(message_type, payload))
        room.post(members[number % len(members)], number, post, trio.current_time())

    async def run_links(self) -> None:
        """Deliver what pipes hold, let who is behind write on, cut who does not move."""
        while True:
            await trio.sleep(STEP_S)
            now = trio.current_time()
            for viewer in self.viewers:
                if viewer.transport.state:
                    continue
                pipe = viewer.pipe
                data = pipe.deliver(now, STEP_S)
                if data:
                    viewer.arriving.append((now + pipe.script.delay_ms / 1000, data))
                while viewer.arriving and viewer.arriving[0][0] <= now:
                    at, part = viewer.arriving.popleft()
                    self._hear(viewer.link, part, int(at * 1e9))
            for transport in list(self.house.behind):
                if transport.pipe.has_room:
                    transport.on_writable()
                elif now - transport.progress_at > self.write_timeout_s and transport.owner is not None:
                    transport.owner.on_overflow()

    def _hear(self, link: Link, part: bytes, now_ns: int) -> None:
        data = link.rest + part
        position = 0
        while len(data) - position >= HEADER_BYTES:
            key = data[position : position + HEADER_BYTES]
            size = int.from_bytes(key[:4], "big")
            if position + size > len(data):
                break
            record = link.seen.get(key)
            if record is None:
                record = self.books.first(link.form, key, data[position : position + size], now_ns // 1000)
            position += size
            live, wrong = judge(link, record)
            if wrong:
                self.books.violate(wrong)
            if live and record.stream != SINGLE:
                record.arrivals.append(now_ns)
        link.rest = data[position:]

    async def sample(self) -> None:
        """What the plots show over time."""
        while True:
            rooms = list(self.hub)
            self.samples.append(
                {
                    "at_us": int(trio.current_time() * 1e6), "cpu_s": 0.0, "deliveries": self.fanout.deliveries,
                    "interval_ms": max((room.state.interval_s for room in rooms), default=0.0) * 1000,
                    "stage": int(self.hub.stage), "behind": len(self.house.behind),
                    "queue_bytes": self.house.budget.used_bytes,
                    "connections": sum(not viewer.transport.state for viewer in self.viewers),
                }
            )  # fmt: skip
            await trio.sleep(0.5)

    def judge_ends(self, room: Room) -> None:
        """What every link must have heard, or been told that it did not."""
        book = self.books.rooms[room.number]
        weights = book.ticks[Tier(self.scenario.tier)]
        last = max(weights, default=0)
        for viewer in self.viewers:
            link = viewer.link
            if link.state is not LinkState.READY:
                if not link.manner:
                    self.books.violate(f"{link} was closed ({link.code})")
                continue
            mark = link.marks[STREAM_TICK]
            missing = missing_danmaku(link, weights) + sum(weights.get(n, 0) for n in range(mark + 1, last + 1))
            if not link.manner and (missing or link.told):
                self.books.violate(f"{link} has a good link and misses {missing} danmaku (told of {link.told})")
            elif link.told > missing:
                self.books.violate(f"{link} was told of {link.told} missed danmaku, but missed only {missing}")


def run_memory(scenario: Scenario, options: RunOptions, say: Say) -> dict[str, Any]:
    """Run a scenario of way (c) and return its result. A virtual minute takes a few seconds."""
    import tempfile
    from pathlib import Path

    if scenario.rooms != 1 or scenario.cuts:
        raise ValueError("way memory has one room and no cuts")
    say("scripted links, virtual time")
    with tempfile.TemporaryDirectory(prefix="roomcast-bench-") as folder:
        path = Path(folder) / "broker.toml"
        path.write_text(plain_toml(scenario.broker) if scenario.broker else "", encoding="utf-8")
        config = load(path)
    configure(LogConfig(level="warning"))
    clock = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(_run, scenario, options, config, clock=clock)


async def _run(scenario: Scenario, options: RunOptions, config: Config) -> dict[str, Any]:
    stage = _Stage(scenario, options, config)
    async with trio.open_nursery() as nursery:
        await nursery.start(stage.fanout.run)
        await nursery.start(stage.hub.run)
        room = stage.hub.open("bench-0")
        assert isinstance(room, Room)
        stage.seat(room)
        nursery.start_soon(stage.run_links)
        nursery.start_soon(stage.sample)
        await trio.sleep(3)
        start_us = int(trio.current_time() * 1e6)
        await stage.publish(room)
        end_us = int(trio.current_time() * 1e6)
        await trio.sleep(SETTLE_S)
        result = _result(stage, room, start_us, end_us)
        nursery.cancel_scope.cancel()
    return result


def _result(stage: _Stage, room: Room, start_us: int, end_us: int) -> dict[str, Any]:
    talker, scenario = stage.talker, stage.scenario
    stage.judge_ends(room)
    report = stage.books.report() | link_report([viewer.link for viewer in stage.viewers])
    report |= {
        "singles": {}, "errors": {}, "holes": sum(bool(viewer.link.holes) for viewer in stage.viewers),
        "told_missed": sum(viewer.link.told for viewer in stage.viewers), "events_missed": 0, "events_twice": 0,
    }  # fmt: skip
    publisher = {
        "sent": [[kind, 0, count] for kind, count in stage.sent.items()],
        "answers": [[kind, 0, name, n, talker.amounts[kind, name]] for (kind, name), n in talker.answers.items()],
        "reasons": {}, "unanswered": len(talker.asked), "first_unanswered": [], "problems": [],
        "lateness": Latencies().encode(), "answered": talker.answered.encode(), "links": scenario.users + 1,
        "kept": Latencies().encode(), "kept_in_time": 0,
    }  # fmt: skip
    accounts = [list(account) for account in room.state.accounts()]
    totals = {
        "deliveries": stage.fanout.deliveries, "writes": stage.fanout.writes, "busy_s": 0.0, "cpu_s": 0.0,
        "posts": sum(stage.sent.values()),
        "rooms_crashed": stage.hub.crashed, "accounts": accounts, "crowd": None,
        "missed_chat": report["told_missed"],
        "rooms": [
            {
                "name": room.name, "number": room.number, "accounts": accounts, "likes": room.state.like_total,
                "last_offset": room.state.last_offset,
            }
        ],
    }  # fmt: skip
    evidence = {
        "reports": [report], "publisher": publisher, "final": totals,
        "before": {**totals, "deliveries": 0, "writes": 0, "posts": 0}, "after": totals,
        "start_us": start_us, "end_us": end_us,
        "joining": {"wall_s": 0.0, "broker_cpu_s": 0.0, "rss_empty_mib": 0.0, "rss_full_mib": 0.0},
        "findings": check(publisher, totals, [report], full_tier=scenario.tier == int(Tier.FULL), rooms=1),
        "floor": [], "samples": stage.samples, "resources": [], "origin_us": 0, "own_size": stage.options.own_size,
        "notes": ["simulated links in memory under a virtual clock: what the rules decide, not how fast anything is"],
    }  # fmt: skip
    return assemble(scenario, evidence, facts())
