"""The activities of a run: a process for each, whose users have links of their own, and what they report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from bench.load.callers import LEAD_MS, CallerSpec
from bench.load.claimers import ClaimerSpec
from bench.load.entrants import LOTTERY, EntrantSpec
from bench.load.grabbers import GrabberSpec
from bench.process import Child, ProcessGroup
from bench.report.activities import check_lottery, check_packets, check_sale
from bench.report.invariants import Findings
from bench.scenario import Scenario

__all__ = ["Activities"]

END_S = 180.0
"""Longest time from the end of the schedule to the report of an activity."""

Report = dict[str, Any]
"""Report of a process. Any: plain JSON."""


class Activities:
    """The sale, the packets and the lottery of a scenario, those that it has, in the first room.

    ``common``: fields of `CallerSpec` that all of them have.
    """

    def __init__(self, scenario: Scenario, processes: ProcessGroup, broker: Child, common: dict[str, Any]) -> None:
        self._scenario = scenario
        self._processes = processes
        self._broker = broker
        self._common = common
        self._children: dict[str, tuple[Child, float]] = {}
        """By name of the activity: its process, and when it begins, as a share of the run."""
        self.reports: dict[str, Report] = {}

    def connect(self, ready_s: float, report_status: Callable[[str], None]) -> None:
        """Start the processes and wait until all users have joined."""
        sale, packets, lottery = self._scenario.sale, self._scenario.packets, self._scenario.lottery
        if sale is not None:
            spec: CallerSpec = ClaimerSpec(
                **self._common, links=sale.buyers, calls=sale.claims, over_s=sale.over_s, stock=sale.stock,
                first_window_ms=sale.first_window_ms,
            )  # fmt: skip
            self._start("sale", "sales.claim", "bench.load.claimers", spec, sale.at)
        if packets is not None:
            spec = GrabberSpec(
                **self._common, links=packets.takers, calls=packets.takers * packets.packets, over_s=packets.over_s,
                packets=packets.packets,
            )  # fmt: skip
            self._start("packets", "packets.grab", "bench.load.grabbers", spec, packets.at)
        if lottery is not None:
            calls = min(lottery.entrants, lottery.entries)
            spec = EntrantSpec(
                **self._common, links=lottery.entrants, calls=calls, over_s=lottery.over_s, winners=lottery.winners,
                open_s=lottery.open_s if lottery.entries else 0.0,
            )  # fmt: skip
            self._start("lottery", "lotteries.enter", "bench.load.entrants", spec, lottery.at)
        for name, (child, _) in self._children.items():
            report_status(f"users of the {name} join")
            child.wait("ready", ready_s)

    def _start(self, name: str, operation: str, module: str, spec: CallerSpec, at: float) -> None:
        self._broker.send_command("lift", operation=operation)
        child = self._processes.start(name, module)
        child.send_spec(msgspec.to_builtins(spec))
        self._children[name] = child, at

    def begin(self, room: str) -> None:
        """Let each begin at its time: the schedule begins now."""
        seconds = self._scenario.seconds
        for child, at in self._children.values():
            child.send_command("start", after_s=at * seconds)
        lottery = self._scenario.lottery
        if lottery is not None and lottery.entries > lottery.entrants:
            self._broker.send_command(
                "enter", room=room, id=LOTTERY, count=lottery.entries - lottery.entrants,
                after_s=lottery.at * seconds + LEAD_MS / 1000 + 0.2,
            )  # fmt: skip

    def finish(self, report_status: Callable[[str], None]) -> list[str]:
        """Wait for the ends; returns notes."""
        for name, (child, _) in self._children.items():
            report_status(f"waiting for the end of the {name}")
            self.reports[name] = child.wait("done", END_S)["report"]
        return [f"calls of the {name} answered: {report['codes']}" for name, report in self.reports.items()]

    def check(self, entered: int) -> Findings:
        """Compare what users were answered with what the platform and the broker have. ``entered``: entries that the
        broker's process has made."""
        scenario, findings = self._scenario, Findings(0, [])
        if scenario.sale is not None:
            sale = scenario.sale
            findings = findings.combined(check_sale(self.reports["sale"], claims=sale.claims, stock=sale.stock))
        if scenario.packets is not None:
            packets = scenario.packets
            findings = findings.combined(
                check_packets(self.reports["packets"], takers=packets.takers, packets=packets.packets)
            )
        if scenario.lottery is not None and scenario.lottery.entries:
            lottery = scenario.lottery
            findings = findings.combined(
                check_lottery(self.reports["lottery"], entered=entered, winners=lottery.winners)
            )
        return findings
