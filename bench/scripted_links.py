"""Way (c): links in memory with scripted bandwidth, delay and stalls, under a virtual clock, to compare policies.

The room, its fan-out, its queues and its rules are the broker's own; only the socket is replaced, by a pipe that
accepts bytes until its buffer is full and delivers them at the rate of its script. Time is virtual, so a minute takes a
second or two, and the same seed gives the same run. Order, completeness and totals have the same checks as in the other
ways.

The results have no CPU figures and no floor, and the report marks them, so that they are not taken for real links.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import trio
import trio.testing

from bench.load.accounting import SINGLE, STREAM_TICK, ViewerAccounting
from bench.load.client_link import LinkState
from bench.load.links import CODECS, Link, ReadMode, check_sequence, link_report, missing_danmaku
from bench.load.publishers import Schedule, StreamSpec
from bench.load.texts import PHRASES, REPEATED_PHRASES, base36, stamped
from bench.machine import facts
from bench.measure import Latencies
from bench.report.invariants import check
from bench.report.results import assemble
from bench.run import RunOptions, StatusCallback, plain_toml
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
from protocol.messages import AckResult, FirstResult, Post
from protocol.payloads import check_payload

__all__ = ["Pipe", "run_memory"]

STEP_S = 0.01
"""Interval at which pipes deliver; also the resolution of these latencies."""
DRAIN_S = 30.0


class Pipe:
    """A scripted link: accepts bytes while its buffer has room and delivers them in order at its rate."""

    def __init__(self, script: LinkScript, phase_s: float) -> None:
        self.script = script
        self._phase_s = phase_s
        self._held = bytearray()
        self._budget = 0.0

    def send(self, data: bytes | memoryview) -> int:
        """Accept bytes as a socket does: return how many; BlockingIOError if none."""
        room = self.script.buffer_bytes - len(self._held)
        if room <= 0:
            raise BlockingIOError
        accepted = min(room, len(data))
        self._held += data[:accepted]
        return accepted

    @property
    def has_room(self) -> bool:
        """Whether it counts as writable: a third of the buffer is free, as on Linux."""
        return len(self._held) * 3 <= self.script.buffer_bytes * 2

    def deliver(self, now: float, elapsed_s: float) -> bytes:
        """Return the bytes that arrive in this step."""
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


class ScriptedPoller:
    """Poller of the scripted transports."""

    def __init__(self, config: Config) -> None:
        queue = config.queue
        limits = QueueLimits(queue.frames, queue.queue_bytes, queue.critical_bytes)
        self.budget = ByteBudget(queue.total_bytes)
        self.transports = TransportSettings(cast(Poller, self), limits, self.budget, lambda transport: None)
        self.backlogged: dict[ScriptedTransport, None] = {}

    @property
    def now(self) -> float:
        return trio.current_time()

    def watch_writable(self, transport: ScriptedTransport) -> None:
        self.backlogged[transport] = None

    def unwatch_writable(self, transport: ScriptedTransport) -> None:
        self.backlogged.pop(transport, None)

    def remove(self, transport: ScriptedTransport) -> None:
        self.backlogged.pop(transport, None)

    def rewheel(self, transport: ScriptedTransport, due: float) -> None:
        """Do nothing: scripted links have no deadline but the write timeout."""


class NoSocket:
    """Socket of a scripted transport: its ``send`` is the pipe's."""

    def __init__(self, pipe: Pipe) -> None:
        self.send = pipe.send

    def fileno(self) -> int:
        return 0

    def shutdown(self, how: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class ScriptedTransport(TcpTransport):
    """A transport on a `Pipe`."""

    __slots__ = ("pipe",)

    def __init__(self, pipe: Pipe, poller: ScriptedPoller) -> None:
        super().__init__(cast(Any, NoSocket(pipe)), poller.transports, "script")
        self.pipe = pipe


class Viewer:
    """Session of one member, with the link and the receiver at the other end."""

    def __init__(self, link: Link, transport: ScriptedTransport) -> None:
        self.link = link
        self.transport: Transport = transport
        self.pipe = transport.pipe
        transport.owner = self
        self.arriving: deque[tuple[float, bytes]] = deque()
        self.leave: Callable[[], None] = lambda: None
        self.start_backlog: Callable[[], None] = lambda: None

    def on_data(self, data: bytes) -> None:
        """Ignore it: scripted viewers send nothing."""

    def on_text(self, text: str) -> None:
        """Ignore it: scripted viewers send nothing."""

    def on_deadline(self, now: float) -> None:
        """Scripted viewers have no deadlines."""

    def on_backlog(self) -> None:
        self.start_backlog()

    def on_drained(self, missed: QueueMissed) -> None:
        self.link.reported_missed += missed.chat_weight

    def on_overflow(self) -> None:
        self.transport.abort("too far behind", CloseCode.SLOW_VIEWER)

    def on_closed(self, code: int, reason: str) -> None:
        self.link.state = LinkState.CLOSED
        self.link.code = code
        self.leave()

    def reply_acks(self, room: int, results: list[AckResult], firsts: Sequence[FirstResult] = ()) -> None:
        """Scripted viewers post nothing."""

    def reply_with_reason(self, room: int, result: AckResult, reason: str, retry_after_ms: int = 0) -> None:
        """Scripted viewers post nothing."""

    def on_left(self, room: RoomRef, reason: LeaveReason, message: str) -> None:
        self.link.state = LinkState.CLOSED


class PostingUser:
    """Session of all posting users; it receives every answer."""

    def __init__(self, transport: ScriptedTransport) -> None:
        self.transport: Transport = transport
        self.unanswered: dict[int, tuple[str, int, float]] = {}
        self.answers: Counter[tuple[str, str]] = Counter()
        self.amounts: Counter[tuple[str, str]] = Counter()
        self.answered = Latencies()

    def reply_acks(self, room: int, results: list[AckResult], firsts: Sequence[FirstResult] = ()) -> None:
        for sequence, outcome, detail in results:
            kind, amount, due = self.unanswered.pop(sequence)
            name = Outcome(outcome).name.lower()
            self.answers[kind, name] += 1
            self.amounts[kind, name] += detail if kind == "like" and name == "accepted" else amount
            self.answered.record(int((trio.current_time() - due) * 1e6))

    def reply_with_reason(self, room: int, result: AckResult, reason: str, retry_after_ms: int = 0) -> None:
        """Count the result of a refused post."""
        self.reply_acks(room, [result])

    def on_left(self, room: RoomRef, reason: LeaveReason, message: str) -> None:
        """The run is over."""


def _leave(room: Room, member: Member) -> None:
    room.leave(member, trio.current_time())


class _Simulation:
    """The parts of one run."""

    def __init__(self, scenario: Scenario, options: RunOptions, config: Config) -> None:
        self.scenario = scenario
        self.options = options
        self.rng = random.Random(options.seed)
        self.accounting = ViewerAccounting(0, 0)
        self.poller = ScriptedPoller(config)
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
        self.publishers: dict[bool, list[Member]] = {}
        self.publisher_link = PostingUser(ScriptedTransport(Pipe(LinkScript(share=1), 0.0), self.poller))
        self.publisher_link.transport.state = 2  # type: ignore[assignment]  # closed: nothing is written to it

    def add_members(self, room: Room) -> None:
        """Let all viewers and publishers enter; the first script is that of healthy links."""
        scenario = self.scenario
        groups = [self.accounting.group(Tier(scenario.tier), slow) for slow in (False, True)]
        variant = variant_of(Framing.TCP, CODECS[scenario.features], Tier(scenario.tier))
        self.accounting.name_room(room.number, room.name)
        scripts = [script for script in scenario.links for _ in range(round(script.share * scenario.viewers))]
        for index, script in enumerate(scripts):
            slow = script is not scenario.links[0]
            read_mode = ReadMode.THROTTLED if slow else ReadMode.HEALTHY
            link = Link(
                index, room.name, groups[slow], websocket=False, read_mode=read_mode, verifies=False, token=None
            )
            link.state = LinkState.READY
            link.room = link.room_number = room.number
            link.positions = [0, 0, -1, 0]
            viewer = Viewer(link, ScriptedTransport(Pipe(script, self.rng.uniform(0, 60)), self.poller))
            member = Member(viewer, f"viewer-{index}", "", Role.VIEWER, frozenset(), variant)
            viewer.leave = partial(_leave, room, member)
            viewer.start_backlog = partial(room.members.use_slow_path, member)
            self.viewers.append(viewer)
            room.enter(member, trio.current_time())
        everything = frozenset(int(kind) for kind in MessageType)
        role = Role[scenario.chat_role.upper()]
        for app, count in ((False, scenario.users), (True, 1)):
            members = []
            for index in range(count):
                name = f"{'platform' if app else 'user'}-{index}"
                member = Member(self.publisher_link, name, name, Role.APP if app else role, everything, variant)
                member.index = 0
                members.append(member)
            self.publishers[app] = members

    async def publish(self, room: Room) -> None:
        """Post on schedule, in virtual time."""
        heap: list[tuple[int, int, Schedule]] = []
        begin = int(trio.current_time() * 1e6)
        for order, stream in enumerate(self.scenario.streams):
            spec = StreamSpec(
                kind=stream.kind,
                phases=stream.timed(self.scenario.seconds),
                repeated_share=stream.repeated_share,
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
                shout = rng.random() < stream.repeated_share
                text = rng.choice(REPEATED_PHRASES) if shout else stamped(rng.choice(phrases), 0, number, due)
                message_type, payload = MessageType.DANMAKU, (text,)
            case "like":
                message_type, payload, amount = MessageType.LIKE, (stream.count,), stream.count
            case "gift":
                order = f"order~0.{base36(number)}.{base36(due)}"
                amount = stream.count
                message_type, payload = MessageType.GIFT, (order, "giver", "", "gift", amount, 100, "")
            case _:
                message_type, payload = MessageType.ANNOUNCEMENT, (stamped("announcement", 0, number, due),)
        members = self.publishers[kind in ("gift", "announcement")]
        self.publisher_link.unanswered[number] = (kind, amount, due / 1e6)
        self.sent[kind] += 1
        post = Post(int(message_type), "", check_payload(message_type, payload))
        room.post(members[number % len(members)], number, post, trio.current_time())

    async def run_links(self) -> None:
        """Deliver the bytes in the pipes, continue backlogged writes, close links whose writes time out."""
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
                    self._receive(viewer.link, part, int(at * 1e9))
            for transport in list(self.poller.backlogged):
                if transport.pipe.has_room:
                    transport.on_writable()
                elif now - transport.progress_at > self.write_timeout_s and transport.owner is not None:
                    transport.owner.on_overflow()

    def _receive(self, link: Link, part: bytes, now_ns: int) -> None:
        data = link.rest + part
        position = 0
        while len(data) - position >= HEADER_BYTES:
            key = data[position : position + HEADER_BYTES]
            size = int.from_bytes(key[:4], "big")
            if position + size > len(data):
                break
            record = link.seen.get(key)
            if record is None:
                record = self.accounting.decode_first(link.group, key, data[position : position + size], now_ns // 1000)
            position += size
            live, violation = check_sequence(link, record)
            if violation:
                self.accounting.report_violation(violation)
            if live and record.stream != SINGLE:
                record.arrivals.append(now_ns)
        link.rest = data[position:]

    async def sample(self) -> None:
        """Sample the values that the plots show over time."""
        while True:
            rooms = list(self.hub)
            self.samples.append(
                {
                    "at_us": int(trio.current_time() * 1e6), "cpu_s": 0.0, "deliveries": self.fanout.deliveries,
                    "interval_ms": max((room.state.interval_s for room in rooms), default=0.0) * 1000,
                    "stage": int(self.hub.stage), "backlogged": len(self.poller.backlogged),
                    "queue_bytes": self.poller.budget.used_bytes,
                    "connections": sum(not viewer.transport.state for viewer in self.viewers),
                }
            )  # fmt: skip
            await trio.sleep(0.5)

    def check_final_states(self, room: Room) -> None:
        """Check that every link received everything or a report of what it missed."""
        totals = self.accounting.rooms[room.number]
        weights = totals.ticks[Tier(self.scenario.tier)]
        last = max(weights, default=0)
        for viewer in self.viewers:
            link = viewer.link
            if link.state is not LinkState.READY:
                if not link.read_mode:
                    self.accounting.report_violation(f"{link} was closed ({link.code})")
                continue
            position = link.positions[STREAM_TICK]
            missing = missing_danmaku(link, weights) + sum(weights.get(n, 0) for n in range(position + 1, last + 1))
            if not link.read_mode and (missing or link.reported_missed):
                self.accounting.report_violation(
                    f"{link} has a healthy link and misses {missing} danmaku (reported: {link.reported_missed})"
                )
            elif link.reported_missed > missing:
                self.accounting.report_violation(
                    f"{link} was reported {link.reported_missed} missed danmaku, but missed only {missing}"
                )


def run_memory(scenario: Scenario, options: RunOptions, report_status: StatusCallback) -> dict[str, Any]:
    """Run a scenario of way (c) and return its result. A virtual minute takes a few seconds."""
    import tempfile
    from pathlib import Path

    if scenario.rooms != 1 or scenario.cuts:
        raise ValueError("way memory has one room and no cuts")
    report_status("scripted links, virtual time")
    with tempfile.TemporaryDirectory(prefix="roomcast-bench-") as folder:
        path = Path(folder) / "broker.toml"
        path.write_text(plain_toml(scenario.broker) if scenario.broker else "", encoding="utf-8")
        config = load(path)
    configure(LogConfig(level="warning"))
    clock = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(_run, scenario, options, config, clock=clock)


async def _run(scenario: Scenario, options: RunOptions, config: Config) -> dict[str, Any]:
    simulation = _Simulation(scenario, options, config)
    async with trio.open_nursery() as nursery:
        await nursery.start(simulation.fanout.run)
        await nursery.start(simulation.hub.run)
        room = simulation.hub.open("bench-0")
        assert isinstance(room, Room)
        simulation.add_members(room)
        nursery.start_soon(simulation.run_links)
        nursery.start_soon(simulation.sample)
        await trio.sleep(3)
        start_us = int(trio.current_time() * 1e6)
        await simulation.publish(room)
        end_us = int(trio.current_time() * 1e6)
        await trio.sleep(DRAIN_S)
        result = _result(simulation, room, start_us, end_us)
        nursery.cancel_scope.cancel()
    return result


def _result(simulation: _Simulation, room: Room, start_us: int, end_us: int) -> dict[str, Any]:
    publisher_link, scenario = simulation.publisher_link, simulation.scenario
    simulation.check_final_states(room)
    report = simulation.accounting.report() | link_report([viewer.link for viewer in simulation.viewers])
    report |= {
        "unicast_frames": {}, "errors": {}, "holes": sum(bool(viewer.link.holes) for viewer in simulation.viewers),
        "reported_missed": sum(viewer.link.reported_missed for viewer in simulation.viewers), "events_missed": 0,
        "events_repeated": 0,
    }  # fmt: skip
    answers = [
        [kind, 0, name, count, publisher_link.amounts[kind, name]]
        for (kind, name), count in publisher_link.answers.items()
    ]
    publisher = {
        "sent": [[kind, 0, count] for kind, count in simulation.sent.items()], "answers": answers, "reasons": {},
        "unanswered": len(publisher_link.unanswered), "first_unanswered": [], "problems": [],
        "lateness": Latencies().encode(), "answered": publisher_link.answered.encode(), "links": scenario.users + 1,
        "durable": Latencies().encode(), "durable_in_time": 0,
    }  # fmt: skip
    accounts = [list(account) for account in room.state.counters.accounts()]
    totals = {
        "deliveries": simulation.fanout.deliveries, "writes": simulation.fanout.writes, "busy_s": 0.0, "cpu_s": 0.0,
        "posts": sum(simulation.sent.values()),
        "rooms_crashed": simulation.hub.crashed, "accounts": accounts, "shared": None,
        "missed_chat": report["reported_missed"],
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
        "floor": [], "samples": simulation.samples, "resources": [], "origin_us": 0,
        "own_size": simulation.options.own_size,
        "notes": ["simulated links in memory under a virtual clock: what the rules decide, not how fast anything is"],
    }  # fmt: skip
    return assemble(scenario, evidence, facts())
