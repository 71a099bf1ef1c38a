"""Load processes of the demo, seen by the runner as one.

`load` starts them, sends them commands, and sums their reports. A process that ends before it was asked to is a
difference like any other: `failures` names it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import aclosing
from typing import Any

import trio

from broker.demo.accounting import Accounting, Latency
from broker.demo.load_process import Report, read_lines

__all__ = ["LoadProcesses"]

USERS_PER_PROCESS = 150
"""Members one process plays."""
OBSERVERS = 12
"""Members who only watch, in a process of their own, and measure how late things come."""
LEAVE_S = 8.0

_SUMS = tuple(name for name in Report._fields if name not in ("calm", "offset", "latency", "accounting"))


class _ProcessHandle:
    """One process, seen from here."""

    def __init__(self, process: trio.Process, measures: bool) -> None:
        self.process = process
        self.measures = measures
        """Whether its latencies count."""
        self.report = Report()
        self.accounting = Accounting()


class LoadProcesses:
    """All viewers but those the director plays. ``latency`` takes what the scouts among them measure."""

    def __init__(self, latency: Latency) -> None:
        self.size = 0
        """Members, in the room or not."""
        self.news = trio.lowlevel.ParkingLot()
        """Wakes at every report of a process."""
        self._latency = latency
        self._crowds: list[_ProcessHandle] = []
        self._leaving = False

    async def open(self, port: int, room: str, size: int, seed: int, nursery: trio.Nursery) -> None:
        """Start processes for ``size`` (>= 1) members of ``room``; they enter by and by, see `report`."""
        self.size = size
        observers = min(OBSERVERS, size // 4)
        parts = min(max(1, os.cpu_count() or 1), -(-(size - observers) // USERS_PER_PROCESS))
        shares = [(size - observers) // parts + (part < (size - observers) % parts) for part in range(parts)]
        first = 0
        for share, talks in [(observers, False)] * bool(observers) + [(share, True) for share in shares]:
            arguments = [str(each) for each in (port, room, first, share, seed, int(talks))]
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "broker.demo.load_process", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            crowd = _ProcessHandle(process, measures=not talks or not observers)
            self._crowds.append(crowd)
            nursery.start_soon(self._keep, crowd)
            first += share

    async def _keep(self, crowd: _ProcessHandle) -> None:
        """Listen to one process until it ends; it dies with the show, whatever happens."""
        try:
            assert crowd.process.stdout is not None
            async with aclosing(read_lines(crowd.process.stdout)) as lines:
                async for line in lines:
                    report = Report(*json.loads(line))
                    if crowd.measures:
                        self._latency.merge({ms: count for ms, count in report.latency})
                    crowd.accounting = Accounting.from_json(report.accounting)
                    crowd.report = report
                    self.news.unpark_all()
        finally:
            with trio.move_on_after(1.0, shield=True):
                await crowd.process.wait()
            if crowd.process.poll() is None:
                crowd.process.kill()
            self.news.unpark_all()

    async def tell(self, **command: Any) -> None:
        """Send one command to all. Any: JSON."""
        line = json.dumps(command).encode() + b"\n"
        for crowd in self._crowds:
            assert crowd.process.stdin is not None
            try:
                await crowd.process.stdin.send_all(line)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # it has ended: `failures` says so

    async def close(self) -> None:
        """Send everybody home and wait for it, at most `LEAVE_S`."""
        self._leaving = True
        await self.tell(do="leave")
        with trio.move_on_after(LEAVE_S):
            for crowd in self._crowds:
                await crowd.process.wait()

    def report(self) -> Report:
        """The reports as one."""
        reports = [crowd.report for crowd in self._crowds]
        if not reports:
            return Report()
        sums = {name: sum(getattr(report, name) for report in reports) for name in _SUMS}
        calm, offset = all(report.calm for report in reports), min(report.offset for report in reports)
        return Report(**sums, calm=calm, offset=offset)

    def accounting(self) -> Accounting:
        """What all its senders were told."""
        return sum((crowd.accounting for crowd in self._crowds), Accounting())

    def failures(self) -> list[str]:
        """Processes that have ended although nobody told them to, in words."""
        ended = [crowd.process.poll() for crowd in self._crowds]
        if self._leaving:
            return []
        return [f"a process of the crowd has ended with status {status}" for status in ended if status is not None]
