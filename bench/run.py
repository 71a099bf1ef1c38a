"""One run of one scenario: connect all clients, publish on schedule, drain, run the raw loop, check the totals.

The order is always the same, so that figures compare: broker, viewers, publishers (nothing is timed yet), the schedule,
draining, the raw loop on the same sockets, the reports. Every step has a deadline; in every case every process that the
run started ends.
"""

from __future__ import annotations

import base64
import itertools
import json
import secrets
import time
from collections.abc import Callable
from typing import Any

import msgspec

from bench.activities import Activities
from bench.disk import sync_floor, sync_times
from bench.ledger_check import delete_last_entry, read_ledger
from bench.load.links import ViewerSpec
from bench.load.publishers import PublisherSpec, StreamSpec
from bench.machine import busy_s, facts
from bench.measure import now_us
from bench.process import BenchFailure, Child, ProcessGroup
from bench.report.activities import with_activities
from bench.report.invariants import check, check_ledger, check_shared
from bench.report.results import assemble
from bench.scenario import Scenario, reference_of

__all__ = ["RunOptions", "run_scenario"]

READY_S = 180.0
"""Longest time until all viewers have joined."""
DRAIN_S = 25.0
"""Longest time from the last answer until no message waits in the broker."""
REPORT_S = 90.0
PROBE_S = 1.0
"""Seconds for which the disk alone is timed, before the schedule and again after it."""
QUIET_S = 2.5
"""Time without counters after which none follow: they are sent at most two seconds after a change."""
QUIET_DEADLINE_S = 60.0
SECRET_BYTES = 32
AWAY_PORT = 9
"""Where a receiver of webhooks is away: nothing listens there."""

StatusCallback = Callable[[str], None]


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options outside the scenario: corpus, seed, injected fault, place of the ledger."""

    phrases: tuple[str, ...] = ()
    seed: int = 1
    fault: str = ""
    verify_share: float = 0.01
    own_size: bool = True
    """Whether the run has the size for which the scenario's goals are defined."""
    ledger_place: str | None = None
    """Directory for the ledger of durable scenarios (in a folder that is removed afterwards); None = the system's
    directory for temporary files."""


def run_scenario(scenario: Scenario, options: RunOptions, report_status: StatusCallback) -> dict[str, Any]:
    """Run ``scenario`` once and return its result (`results`). BenchFailure if it cannot be run.

    The reference run of a scenario, if it has one, comes first; its violations are violations of the run.
    """
    reference_scenario = reference_of(scenario)
    reference = None
    if reference_scenario is not None:
        reference = run_scenario(reference_scenario, options, lambda text: report_status(f"reference: {text}"))
    machine = facts()
    with ProcessGroup() as processes:
        steps = _Run(scenario, options, processes, report_status)
        steps.connect_all()
        steps.publish()
        steps.drain()
        floor = steps.floor()
        steps.collect()
        steps.read_ledger()
        result = assemble(scenario, steps.evidence(floor), machine, reference)
    if reference is not None:
        result["invariants"]["checked"] += reference["invariants"]["checked"]
        result["invariants"]["violations"] += [f"reference: {each}" for each in reference["invariants"]["violations"]]
    return result


class _Run:
    """The steps of one run, in order."""

    def __init__(
        self, scenario: Scenario, options: RunOptions, processes: ProcessGroup, report_status: StatusCallback
    ) -> None:
        self.scenario = scenario
        self.options = options
        self.processes = processes
        self.report_status = report_status
        self.origin_us = now_us()
        self.secret = secrets.token_hex(SECRET_BYTES)
        self.rooms = [f"bench-{index}" for index in range(scenario.rooms)]
        self.lifetime_s = READY_S + scenario.seconds + DRAIN_S + 2 * REPORT_S + 120
        self.broker: Child
        self.publisher: Child
        self.caller: Child | None = None
        """Calls the control API during the schedule, in scenarios that want it."""
        self.activities: Activities | None = None
        """A sale, packets or a lottery during the schedule, in scenarios that have one."""
        self.viewers: list[Child] = []
        self.notes: list[str] = []
        self.ledger_folder = processes.make_folder("ledger", options.ledger_place) if scenario.durable else None
        self.sync_probes: list[list[float]] = []
        self.evidence_parts: dict[str, Any] = {}

    # ---- connecting

    def connect_all(self) -> None:
        """Start the broker, the viewers and the publishers, and wait until all of them have joined."""
        scenario = self.scenario
        self.report_status("starting the broker")
        path = self.processes.folder / "broker.toml"
        path.write_text(plain_toml(self._settings()), encoding="utf-8")
        self.broker = self.processes.start("broker", "bench.broker_process", str(path), str(self.lifetime_s))
        serving = self.broker.wait("serving", 30)
        host, port = serving["address"][:2]
        empty = self.processes.rss_mib(self.broker)
        shared = scenario.way == "shared"
        if not shared and scenario.viewers > serving["max_connections"] - 500:
            raise BenchFailure(
                f"{scenario.viewers} real links do not fit: the broker's limit is {serving['max_connections']}: "
                "way (b), viewers that share sockets, has room for more"
            )
        begun, cpu = time.monotonic(), self.processes.cpu_s(self.broker)
        if shared:
            self._connect_shared(host)
        else:
            self._connect_viewers(host, port)
        joined_s, join_cpu_s = time.monotonic() - begun, self.processes.cpu_s(self.broker) - cpu
        time.sleep(0.5)
        full = self.processes.rss_mib(self.broker)
        self.report_status("publishers connect")
        self.publisher = self.processes.start("publishers", "bench.load.publishers")
        self.publisher.send_spec(msgspec.to_builtins(self._publisher_spec(host, port)))
        self.publisher.wait("ready", 60)
        if scenario.api_calls_per_s:
            self._start_caller(serving["api_urls"][0])
        if scenario.has_activities:
            self._connect_activities(host, port, serving["api_urls"][0])
        self.evidence_parts["joining"] = {
            "wall_s": joined_s, "broker_cpu_s": join_cpu_s, "rss_empty_mib": empty, "rss_full_mib": full,
        }  # fmt: skip

    def _start_caller(self, url: str) -> None:
        scenario = self.scenario
        self.caller = self.processes.start("api-calls", "bench.load.api_calls")
        address, _, port = url.removeprefix("http://").rpartition(":")
        self.caller.send_spec(
            {
                "host": address, "port": int(port), "per_s": scenario.api_calls_per_s, "seconds": scenario.seconds,
                "connections": scenario.api_connections, "lifetime_s": self.lifetime_s,
            }
        )  # fmt: skip
        self.caller.wait("ready", 30)

    def _connect_activities(self, host: str, port: int, url: str) -> None:
        address, _, api_port = url.removeprefix("http://").rpartition(":")
        common = {
            "host": host, "port": port, "api_host": address, "api_port": int(api_port), "room": self.rooms[0],
            "auth": self.scenario.auth, "secret": self.secret, "lifetime_s": self.lifetime_s,
        }  # fmt: skip
        self.activities = Activities(self.scenario, self.processes, self.broker, common)
        self.activities.connect(READY_S, self.report_status)

    def _settings(self) -> dict[str, Any]:
        """Return the broker's configuration: what every run needs, with the scenario's settings on top."""
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
            "webhooks.endpoints": self._endpoints(),
        }
        for part, values in self.scenario.broker.items():
            if isinstance(values, dict):
                base.setdefault(part, {}).update(values)
            else:
                base[part] = values
        return {part: values for part, values in base.items() if values}

    def _endpoints(self) -> list[dict[str, Any]]:
        """Return the endpoint of webhooks, and start its receiver where it is present."""
        if self.scenario.webhooks == "none":
            return []
        port = AWAY_PORT
        if self.scenario.webhooks == "present":
            receiver = self.processes.start("receiver", "bench.micro.hook_receiver")
            port = receiver.wait("listening", 30)["port"]
        secret = self.processes.folder / "hook.secret"
        secret.touch(mode=0o600)
        secret.write_text("whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode())
        url = f"http://127.0.0.1:{port}/hook"
        return [{"name": "bench", "url": url, "secret_file": str(secret), "events": ["*"]}]

    def _split(self, total: int) -> list[tuple[int, int]]:
        """Divide ``total`` among the viewer processes: [(first, count)]."""
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
            verify_share=max(self.options.verify_share, 1 / count),
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
        self.report_status(f"{self.scenario.viewers} viewers connect")
        for number, (first, count) in enumerate(self._split(self.scenario.viewers)):
            child = self.processes.start(f"viewers-{number}", "bench.load.viewers")
            child.send_spec(msgspec.to_builtins(self._viewer_spec(host, port, first, count)))
            self.viewers.append(child)
        ready = [child.wait("ready", READY_S) for child in self.viewers]
        joined = sum(each["states"].get("ready", 0) for each in ready)
        if joined < self.scenario.viewers:
            errors = {key: value for each in ready for key, value in each["errors"].items()}
            raise BenchFailure(f"only {joined} of {self.scenario.viewers} viewers joined: {errors}")

    def _connect_shared(self, host: str) -> None:
        scenario = self.scenario
        sockets = min(scenario.sockets, scenario.viewers)
        self.report_status(f"{scenario.viewers} viewers enter on {sockets} sockets")
        websocket = scenario.transport == "websocket"
        self.broker.send_command(
            "shared", sockets=sockets, viewers=scenario.viewers, rooms=scenario.rooms,
            websocket=websocket, features=scenario.features,
        )  # fmt: skip
        port = self.broker.wait("shared_listening", 10)["port"]
        for number, (first, count) in enumerate(self._split(sockets)):
            spec = self._viewer_spec(host, port, first, count)
            spec.shared = True
            spec.websocket_share = 1.0 if websocket else 0.0
            child = self.processes.start(f"viewers-{number}", "bench.load.viewers")
            child.send_spec(msgspec.to_builtins(spec))
            self.viewers.append(child)
        rooms = self.broker.wait("shared_ready", READY_S)["rooms"]
        for child in self.viewers:
            child.send_command("rooms", rooms=rooms)
        for child in self.viewers:
            child.wait("ready", READY_S)

    def _publisher_spec(self, host: str, port: int) -> PublisherSpec:
        scenario = self.scenario
        streams = [
            StreamSpec(
                kind=stream.kind,
                phases=stream.timed(scenario.seconds),
                repeated_share=stream.repeated_share,
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
        """Run the schedule and cut links when the scenario says so."""
        scenario = self.scenario
        if scenario.way == "shared":
            self._wait_quiet()
        self._probe_disk()
        for child in self.viewers:
            child.send_command("begin")
        time.sleep(0.1)
        before = self._stats()
        machine = busy_s()
        start_us = now_us() + 200_000
        self.publisher.send_command("start", at_us=start_us)
        begun = time.monotonic() + 0.2
        if self.caller is not None:
            self.caller.send_command("start", at_us=start_us)
        if self.activities is not None:
            self.activities.begin(self.rooms[0])
        for cut in sorted(scenario.cuts, key=lambda cut: cut.at):
            self._wait_until(begun + cut.at * scenario.seconds)
            self.report_status(f"{cut.share:.0%} of the links are cut")
            for child in self.viewers:
                child.send_command("cut", share=cut.share, away_s=cut.away_s, over_s=cut.over_s)
        self._wait_until(begun + scenario.seconds)
        after = self._stats()
        end_us = now_us()
        spent = {part: value - machine[part] for part, value in busy_s().items()}
        self.evidence_parts["machine_spent_s"] = spent
        self.evidence_parts |= {"before": before, "after": after, "start_us": start_us, "end_us": end_us}
        self.report_status("waiting for the last answers")
        self.publisher.wait("done", 30)
        if self.activities is not None:
            self.notes += self.activities.finish(self.report_status)
            self.evidence_parts["activities"] = self.activities.reports
        if self.caller is not None:
            answers = self.caller.wait("done", 60)["answers"]
            self.notes.append(f"calls of the control API answered, by status: {answers}")
            if not answers.get("200"):
                raise BenchFailure(f"no call of the control API was done: {answers}")

    def _probe_disk(self) -> None:
        """Time the disk alone in the ledger's directory, while the broker writes nothing."""
        if self.ledger_folder is not None:
            self.report_status("timing the disk alone")
            self.sync_probes.append(sync_times(self.ledger_folder, min(PROBE_S, self.scenario.seconds / 10)))

    def read_ledger(self) -> None:
        """End the broker, verify its ledger and compare its totals with what was acknowledged."""
        if self.ledger_folder is None:
            return
        self._probe_disk()
        self.report_status("verifying the ledger")
        self.broker.end()
        parts = self.evidence_parts
        if self.options.fault == "drop-entry":
            delete_last_entry(self.ledger_folder)
        ledger = read_ledger(self.ledger_folder)
        more = check_ledger(parts["publisher"], parts["final"], ledger, rooms=self.scenario.rooms)
        parts["ledger"] = {part: value for part, value in ledger.items() if part != "rooms"}
        parts["sync_floor"] = sync_floor(self.sync_probes)._asdict()
        parts["findings"] = parts["findings"].combined(more)

    def _wait_quiet(self) -> None:
        """Wait until the counters of the joins have been sent: shared receivers start to count after them."""
        self.report_status("waiting for the counters of the joins")
        deadline = time.monotonic() + QUIET_DEADLINE_S
        quiet_since, sweeps = time.monotonic(), -1
        while time.monotonic() - quiet_since < QUIET_S:
            if time.monotonic() > deadline:
                raise BenchFailure("the broker still sends counters although no viewer joins or leaves")
            stats = self._stats()
            if stats["fanning_out"] or stats["backlogged"] or stats["sweeps"] != sweeps:
                quiet_since, sweeps = time.monotonic(), stats["sweeps"]
            time.sleep(0.2)

    def _wait_until(self, moment: float) -> None:
        total = self.scenario.seconds
        while (left := moment - time.monotonic()) > 0:
            self.report_status(f"publishing, {max(0.0, left):.0f} s of {total:.0f} s to go")
            time.sleep(min(left, 0.5))
            for child in self.processes.children:
                if child.process.poll() is not None:
                    raise BenchFailure(f"{child.name} ended during the run: {child.final_output()}")

    def _stats(self) -> dict[str, Any]:
        self.broker.send_command("stats")
        return self.broker.wait("stats", 30)

    def drain(self) -> None:
        """Wait until the broker holds no message back, no combo runs, and only slow viewers have a backlog."""
        slow = round((self.scenario.stalled_share + self.scenario.throttled_share) * self.scenario.viewers)
        deadline = time.monotonic() + DRAIN_S
        quiet_polls = 0
        self.report_status("waiting until the broker is idle")
        while time.monotonic() < deadline and quiet_polls < 3:
            time.sleep(0.25)
            if any(volume["connecting"] for volume in self._volumes()):
                continue
            stats = self._stats()
            # The end of a combo comes up to 3 s after its last gift: an event that no account holds before.
            held = sum(account[5] for account in stats["accounts"]) + sum(room["combos"] for room in stats["rooms"])
            quiet_polls = (
                quiet_polls + 1 if not held and not stats["fanning_out"] and stats["backlogged"] <= slow else 0
            )
        if quiet_polls < 3:
            self.notes.append(f"the broker was not idle {DRAIN_S:g} s after the last answer")

    def _volumes(self) -> list[dict[str, Any]]:
        """Return the bytes that each viewer process has read and the number of its links that still connect."""
        for child in self.viewers:
            child.send_command("volume")
        return [child.wait("volume", REPORT_S) for child in self.viewers]

    def collect(self) -> None:
        """Collect all reports and check the totals."""
        self.report_status("checking the totals")
        for child in (*self.viewers, self.publisher):
            child.send_command("report")
        reports = [child.wait("report", REPORT_S) for child in self.viewers]
        publisher = self.publisher.wait("report", REPORT_S)
        final = self._stats()
        scenario = self.scenario
        if self.activities is not None:
            publisher = with_activities(publisher, self.activities.reports.values())
        full_tier = scenario.tier == 20
        findings = check(publisher, final, reports, full_tier=full_tier, rooms=scenario.rooms)
        if scenario.way == "shared":
            more = check_shared(
                final, reports, viewer_count=scenario.viewers, room_count=scenario.rooms,
                socket_count=min(scenario.sockets, scenario.viewers),
            )  # fmt: skip
            findings = findings.combined(more)
        if self.activities is not None:
            findings = findings.combined(self.activities.check(final["entered"]))
        self.evidence_parts |= {"reports": reports, "publisher": publisher, "final": final, "findings": findings}

    # ---- the floor

    def floor(self) -> list[dict[str, Any]]:
        """Run the raw loop over the viewers' sockets, with frames of the run's mean size."""
        sweeps = self.scenario.floor_sweeps
        if not sweeps:
            return []
        self.report_status("timing the raw loop on the same sockets")
        parts = self.evidence_parts
        size = self._mean_write_bytes()
        parts["floor_size_bytes"] = size
        self.broker.send_command("floor", size_bytes=size, sweeps=sweeps)
        found: list[dict[str, Any]] = self.broker.wait("floor", 120 + sweeps * 20)["sweeps"]
        return found

    def _mean_write_bytes(self) -> int:
        """Return the mean bytes of one delivery: bytes that viewers received over deliveries of the fan-out."""
        volumes = self._volumes()
        deliveries: int = self._stats()["deliveries"] - self.evidence_parts["before"]["deliveries"]
        nbytes: int = sum(volume["bytes"] for volume in volumes)
        return max(40, min(60_000, nbytes // max(1, deliveries)))

    def evidence(self, floor: list[dict[str, Any]]) -> dict[str, Any]:
        """Return everything that `results.assemble` needs."""
        return self.evidence_parts | {
            "floor": floor,
            "samples": self.broker.samples,
            "resources": self.processes.resources,
            "notes": self.notes,
            "origin_us": self.origin_us,
            "own_size": self.options.own_size,
        }


def plain_toml(table: dict[str, Any]) -> str:
    """Return two levels of settings as TOML: strings, numbers, booleans, arrays of them, and arrays of tables."""
    lines: list[str] = []
    for part, values in table.items():
        for entry in values if isinstance(values, list) else [values]:
            lines.append(f"[[{part}]]" if isinstance(values, list) else f"[{part}]")
            # JSON's strings, numbers, booleans and arrays are TOML's.
            lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in entry.items()]
    return "\n".join(lines) + "\n"
