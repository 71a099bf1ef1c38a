"""One run of one scenario: bring everybody in, publish on schedule, let it settle, hold the sums, sweep the floor.

The order is always the same, so that figures compare: broker, viewers, publishers (nothing is timed yet), the schedule,
the settling, the reports, and at the end the raw loop on the very same sockets. A run has a deadline for every
step; whatever happens, every process it started ends.
"""

from __future__ import annotations

import itertools
import json
import secrets
import time
from collections.abc import Callable
from typing import Any

import msgspec

from bench.disk import sync_floor, sync_times
from bench.ledger_check import lose_last_entry, read_back
from bench.load.links import ViewerSpec
from bench.load.publishers import PublisherSpec, StreamSpec
from bench.machine import busy_s, facts
from bench.measure import now_us
from bench.process import BenchFailure, Child, Troupe
from bench.report.invariants import check, check_crowd, check_kept
from bench.report.results import assemble
from bench.scenario import Scenario, twin_of

__all__ = ["RunOptions", "run_scenario"]

READY_S = 180.0
"""Longest time until everybody is in."""
SETTLE_S = 25.0
"""Longest time from the last answer until nothing waits anywhere."""
REPORT_S = 90.0
PROBE_S = 1.0
"""How long the disk alone is timed, before the schedule and again after it."""
CALM_S = 2.5
"""Counters are told at most two seconds after a change."""
CALM_DEADLINE_S = 60.0
SECRET_BYTES = 32

Say = Callable[[str], None]


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is not the scenario's: a corpus, a seed, a fault to see the checks fail, where a ledger is made."""

    phrases: tuple[str, ...] = ()
    seed: int = 1
    fault: str = ""
    careful_share: float = 0.01
    own_size: bool = True
    """Whether the run has the size that the scenario's goals speak of."""
    ledger_place: str | None = None
    """Directory in which durable scenarios make their ledger's own (removed afterwards); None = the system's place for
    temporary files."""


def run_scenario(scenario: Scenario, options: RunOptions, say: Say) -> dict[str, Any]:
    """Run ``scenario`` once and return its result (`results`). BenchFailure where it cannot be run at all.

    A scenario with a twin runs that first; violations of the twin are violations of the run.
    """
    twin_scenario = twin_of(scenario)
    twin = None
    if twin_scenario is not None:
        twin = run_scenario(twin_scenario, options, lambda text: say(f"twin: {text}"))
    machine = facts()
    with Troupe() as troupe:
        play = _Play(scenario, options, troupe, say)
        play.bring_in()
        play.publish()
        play.settle()
        floor = play.floor()
        play.collect()
        play.read_ledger()
        result = assemble(scenario, play.evidence(floor), machine, twin)
    if twin is not None:
        result["invariants"]["checked"] += twin["invariants"]["checked"]
        result["invariants"]["violations"] += [f"twin: {each}" for each in twin["invariants"]["violations"]]
    return result


class _Play:
    """The steps of one run, in order."""

    def __init__(self, scenario: Scenario, options: RunOptions, troupe: Troupe, say: Say) -> None:
        self.scenario = scenario
        self.options = options
        self.troupe = troupe
        self.say = say
        self.origin_us = now_us()
        self.secret = secrets.token_hex(SECRET_BYTES)
        self.rooms = [f"bench-{index}" for index in range(scenario.rooms)]
        self.lifetime_s = READY_S + scenario.seconds + SETTLE_S + 2 * REPORT_S + 120
        self.broker: Child
        self.publisher: Child
        self.viewers: list[Child] = []
        self.notes: list[str] = []
        self.ledger_folder = troupe.room_for("ledger", options.ledger_place) if scenario.durable else None
        self.sync_probes: list[list[float]] = []
        self.evidence_parts: dict[str, Any] = {}

    # ---- coming in

    def bring_in(self) -> None:
        """Start the broker, then the viewers, then the publishers; wait until everybody is in a room."""
        scenario = self.scenario
        self.say("starting the broker")
        path = self.troupe.folder / "broker.toml"
        path.write_text(plain_toml(self._settings()), encoding="utf-8")
        self.broker = self.troupe.start("broker", "bench.broker_process", str(path), str(self.lifetime_s))
        serving = self.broker.wait("serving", 30)
        host, port = serving["address"][:2]
        empty = self.troupe.rss_mib(self.broker)
        crowd = scenario.way == "crowd"
        if not crowd and scenario.viewers > serving["max_connections"] - 500:
            raise BenchFailure(
                f"{scenario.viewers} real links do not fit: the broker's limit is {serving['max_connections']}: "
                "way (b), a crowd that shares sockets, goes further"
            )
        begun, cpu = time.monotonic(), self.troupe.cpu_s(self.broker)
        if crowd:
            self._seat_crowd(host)
        else:
            self._connect_viewers(host, port)
        joined_s, join_cpu_s = time.monotonic() - begun, self.troupe.cpu_s(self.broker) - cpu
        time.sleep(0.5)
        full = self.troupe.rss_mib(self.broker)
        self.say("publishers come in")
        self.publisher = self.troupe.start("publishers", "bench.load.publishers")
        self.publisher.order(msgspec.to_builtins(self._publisher_spec(host, port)))
        self.publisher.wait("ready", 60)
        self.evidence_parts["joining"] = {
            "wall_s": joined_s, "broker_cpu_s": join_cpu_s, "rss_empty_mib": empty, "rss_full_mib": full,
        }  # fmt: skip

    def _settings(self) -> dict[str, Any]:
        """The broker's configuration: the scenario's, on what every run needs."""
        base: dict[str, Any] = {
            "listen": {"host": "127.0.0.1", "port": 0},
            "link": {"frames_per_s": 0},
            "admission": {
                "per_address": 0,
                "accept_per_s": 100_000,
                "unauthenticated_share": 0.5,
                "address_share": 1.0,
            },
            "auth": {"secret": self.secret, "guest_access": ["*"]} if self.scenario.auth != "dev" else {},
            "log": {"level": "warning"},
            "ledger": {} if self.ledger_folder is None else {"data_dir": str(self.ledger_folder)},
        }
        for part, values in self.scenario.broker.items():
            if isinstance(values, dict):
                base.setdefault(part, {}).update(values)
            else:
                base[part] = values
        return {part: values for part, values in base.items() if values}

    def _split(self, total: int) -> list[tuple[int, int]]:
        """``total`` over the viewer processes: [(first, count)]."""
        parts = min(self.scenario.viewer_processes, total)
        bounds = [total * part // parts for part in range(parts + 1)]
        return [(first, last - first) for first, last in itertools.pairwise(bounds)]

    def _viewer_spec(self, host: str, port: int, first: int, count: int) -> ViewerSpec:
        scenario = self.scenario
        return ViewerSpec(
            host=host,
            port=port,
            links=count,
            first_index=first,
            rooms=self.rooms,
            websocket_share=scenario.websocket_share,
            features=scenario.features,
            tier=scenario.tier,
            connect_per_s=scenario.connect_per_s / min(scenario.viewer_processes, max(1, count)),
            careful_share=max(self.options.careful_share, 1 / count),
            stalled=round(scenario.stalled_share * count),
            throttled=round(scenario.throttled_share * count),
            throttle_bytes_per_s=scenario.throttle_bytes_per_s,
            auth=scenario.auth,
            secret=self.secret,
            origin_us=self.origin_us,
            lifetime_s=self.lifetime_s,
            seed=self.options.seed + first,
            fault=self.options.fault if self.options.fault == "drop-frame" else "",
        )

    def _connect_viewers(self, host: str, port: int) -> None:
        self.say(f"{self.scenario.viewers} viewers come in")
        for number, (first, count) in enumerate(self._split(self.scenario.viewers)):
            child = self.troupe.start(f"viewers-{number}", "bench.load.viewers")
            child.order(msgspec.to_builtins(self._viewer_spec(host, port, first, count)))
            self.viewers.append(child)
        ready = [child.wait("ready", READY_S) for child in self.viewers]
        inside = sum(each["states"].get("ready", 0) for each in ready)
        if inside < self.scenario.viewers:
            errors = {key: value for each in ready for key, value in each["errors"].items()}
            raise BenchFailure(f"only {inside} of {self.scenario.viewers} viewers came in: {errors}")

    def _seat_crowd(self, host: str) -> None:
        scenario = self.scenario
        sockets = min(scenario.sockets, scenario.viewers)
        self.say(f"{scenario.viewers} viewers are seated on {sockets} sockets")
        websocket = scenario.transport == "websocket"
        self.broker.tell(
            "crowd", sockets=sockets, viewers=scenario.viewers, rooms=scenario.rooms,
            websocket=websocket, features=scenario.features,
        )  # fmt: skip
        port = self.broker.wait("crowd_listening", 10)["port"]
        for number, (first, count) in enumerate(self._split(sockets)):
            spec = self._viewer_spec(host, port, first, count)
            spec.crowd = True
            spec.websocket_share = 1.0 if websocket else 0.0
            child = self.troupe.start(f"viewers-{number}", "bench.load.viewers")
            child.order(msgspec.to_builtins(spec))
            self.viewers.append(child)
        rooms = self.broker.wait("crowd_ready", READY_S)["rooms"]
        for child in self.viewers:
            child.tell("rooms", rooms=rooms)
        for child in self.viewers:
            child.wait("ready", READY_S)

    def _publisher_spec(self, host: str, port: int) -> PublisherSpec:
        scenario = self.scenario
        streams = [
            StreamSpec(
                kind=stream.kind,
                phases=stream.timed(scenario.seconds),
                refrain_share=stream.refrain_share,
                hot_room_share=stream.hot_room_share,
                count=stream.count,
            )
            for stream in scenario.streams
        ]
        return PublisherSpec(
            host=host,
            port=port,
            rooms=self.rooms,
            users=scenario.users,
            streams=streams,
            auth=scenario.auth,
            secret=self.secret,
            chat_role=scenario.chat_role,
            origin_us=self.origin_us,
            lifetime_s=self.lifetime_s,
            seed=self.options.seed,
            phrases=list(self.options.phrases),
        )

    # ---- the schedule

    def publish(self) -> None:
        """Let the schedule run; links are cut when the scenario says so."""
        scenario = self.scenario
        if scenario.way == "crowd":
            self._await_calm()
        self._probe_disk()
        for child in self.viewers:
            child.tell("begin")
        time.sleep(0.1)
        before = self._stats()
        machine = busy_s()
        start_us = now_us() + 200_000
        self.publisher.tell("start", at_us=start_us)
        begun = time.monotonic() + 0.2
        for cut in sorted(scenario.cuts, key=lambda cut: cut.at):
            self._wait_until(begun + cut.at * scenario.seconds)
            self.say(f"{cut.share:.0%} of the viewers lose their links")
            for child in self.viewers:
                child.tell("cut", share=cut.share, away_s=cut.away_s, over_s=cut.over_s)
        self._wait_until(begun + scenario.seconds)
        after = self._stats()
        end_us = now_us()
        spent = {part: value - machine[part] for part, value in busy_s().items()}
        self.evidence_parts["machine_spent_s"] = spent
        self.evidence_parts |= {"before": before, "after": after, "start_us": start_us, "end_us": end_us}
        self.say("waiting for the last answers")
        self.publisher.wait("done", 30)

    def _probe_disk(self) -> None:
        """Time the disk alone, in the ledger's directory, while the broker has nothing to write."""
        if self.ledger_folder is not None:
            self.say("timing the disk alone")
            self.sync_probes.append(sync_times(self.ledger_folder, min(PROBE_S, self.scenario.seconds / 10)))

    def read_ledger(self) -> None:
        """End the broker, verify its ledger and hold its sums against what was acknowledged."""
        if self.ledger_folder is None:
            return
        self._probe_disk()
        self.say("verifying the ledger")
        self.broker.end()
        parts = self.evidence_parts
        if self.options.fault == "lose-entry":
            lose_last_entry(self.ledger_folder)
        kept = read_back(self.ledger_folder)
        more = check_kept(parts["publisher"], parts["final"], kept, rooms=self.scenario.rooms)
        parts["kept"] = {part: value for part, value in kept.items() if part != "rooms"}
        parts["sync_floor"] = sync_floor(self.sync_probes)._asdict()
        parts["findings"] = parts["findings"].plus(more)

    def _await_calm(self) -> None:
        """Counters follow the last newcomer by two seconds; a crowd's receivers begin to count when that is over."""
        self.say("waiting until the room has counted its crowd")
        deadline = time.monotonic() + CALM_DEADLINE_S
        quiet_since, sweeps = time.monotonic(), -1
        while time.monotonic() - quiet_since < CALM_S:
            if time.monotonic() > deadline:
                raise BenchFailure("the broker goes on telling counters although nobody comes or goes")
            stats = self._stats()
            if stats["fanning_out"] or stats["behind"] or stats["sweeps"] != sweeps:
                quiet_since, sweeps = time.monotonic(), stats["sweeps"]
            time.sleep(0.2)

    def _wait_until(self, moment: float) -> None:
        total = self.scenario.seconds
        while (left := moment - time.monotonic()) > 0:
            self.say(f"publishing, {max(0.0, left):.0f} s of {total:.0f} s to go")
            time.sleep(min(left, 0.5))
            for child in self.troupe.children:
                if child.process.poll() is not None:
                    raise BenchFailure(f"{child.name} ended in the middle of the run: {child.final_output()}")

    def _stats(self) -> dict[str, Any]:
        self.broker.tell("stats")
        return self.broker.wait("stats", 30)

    def settle(self) -> None:
        """Wait until the broker holds nothing back and owes nobody anything but the slow."""
        slow = round((self.scenario.stalled_share + self.scenario.throttled_share) * self.scenario.viewers)
        deadline = time.monotonic() + SETTLE_S
        calm = 0
        self.say("letting the broker settle")
        while time.monotonic() < deadline and calm < 3:
            time.sleep(0.25)
            if any(volume["coming_in"] for volume in self._volumes()):
                continue
            stats = self._stats()
            held = sum(account[5] for account in stats["accounts"])
            calm = calm + 1 if not held and not stats["fanning_out"] and stats["behind"] <= slow else 0
        if calm < 3:
            self.notes.append(f"the broker had not settled {SETTLE_S:g} s after the last answer")

    def _volumes(self) -> list[dict[str, Any]]:
        """What each viewer process has read so far, and how many of its links are still coming in."""
        for child in self.viewers:
            child.tell("volume")
        return [child.wait("volume", REPORT_S) for child in self.viewers]

    def collect(self) -> None:
        """Take everybody's report and hold the sums."""
        self.say("adding up")
        for child in (*self.viewers, self.publisher):
            child.tell("report")
        reports = [child.wait("report", REPORT_S) for child in self.viewers]
        publisher = self.publisher.wait("report", REPORT_S)
        final = self._stats()
        scenario = self.scenario
        full_tier = scenario.tier == 20
        findings = check(publisher, final, reports, full_tier=full_tier, rooms=scenario.rooms)
        if scenario.way == "crowd":
            more = check_crowd(
                final, reports, viewer_count=scenario.viewers, room_count=scenario.rooms,
                socket_count=min(scenario.sockets, scenario.viewers),
            )  # fmt: skip
            findings = findings.plus(more)
        self.evidence_parts |= {"reports": reports, "publisher": publisher, "final": final, "findings": findings}

    # ---- the floor

    def floor(self) -> list[dict[str, Any]]:
        """Sweep the raw loop over the viewers' sockets, with frames of the size that the run had."""
        sweeps = self.scenario.floor_sweeps
        if not sweeps:
            return []
        self.say("sweeping the same sockets with the raw loop")
        parts = self.evidence_parts
        size = self._mean_write_bytes()
        parts["floor_size_bytes"] = size
        self.broker.tell("floor", size_bytes=size, sweeps=sweeps)
        found: list[dict[str, Any]] = self.broker.wait("floor", 120 + sweeps * 20)["sweeps"]
        return found

    def _mean_write_bytes(self) -> int:
        """Mean bytes of one delivery: what viewers got over what the fan-out swept. Asked of the viewers, roughly."""
        volumes = self._volumes()
        deliveries: int = self._stats()["deliveries"] - self.evidence_parts["before"]["deliveries"]
        nbytes: int = sum(volume["bytes"] for volume in volumes)
        return max(40, min(60_000, nbytes // max(1, deliveries)))

    def evidence(self, floor: list[dict[str, Any]]) -> dict[str, Any]:
        """All that `results.assemble` needs."""
        return self.evidence_parts | {
            "floor": floor,
            "samples": self.broker.samples,
            "resources": self.troupe.resources,
            "notes": self.notes,
            "origin_us": self.origin_us,
            "own_size": self.options.own_size,
        }


def plain_toml(table: dict[str, Any]) -> str:
    """Two levels of settings as TOML: strings, numbers, booleans, arrays of them, and arrays of tables."""
    lines: list[str] = []
    for part, values in table.items():
        for entry in values if isinstance(values, list) else [values]:
            lines.append(f"[[{part}]]" if isinstance(values, list) else f"[{part}]")
            # JSON's strings, numbers, booleans and arrays are TOML's.
            lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in entry.items()]
    return "\n".join(lines) + "\n"
