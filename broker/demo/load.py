"""The load processes of the demo as one object.

`LoadProcesses` starts them, sends them commands, and sums their reports. `LoadProcesses.failures` names a process that
ended before it was asked to.
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
"""Viewers of one process."""
OBSERVERS = 12
"""Viewers that only watch, in a process of their own, and measure latency."""
LEAVE_S = 8.0

_SUMS = tuple(name for name in Report._fields if name not in ("all_answered", "offset", "latency", "accounting"))


class _ProcessHandle:
    """One load process and its last report."""

    def __init__(self, process: trio.Process, measures: bool) -> None:
        self.process = process
        self.measures = measures
        """Whether its latencies count."""
        self.report = Report()
        self.accounting = Accounting()


class LoadProcesses:
    """All load processes. ``latency`` receives what the observers among the viewers measure."""

    def __init__(self, latency: Latency) -> None:
        self.size = 0
        """Viewers of all processes, in the room or not."""
        self.reported = trio.lowlevel.ParkingLot()
        """Unparked at every report of a process."""
        self._latency = latency
        self._processes: list[_ProcessHandle] = []
        self._sending = trio.Lock()
        """Phases and waves send in tasks of their own, and a pipe takes one at a time."""
        self._leaving = False

    async def open(self, port: int, room: str, size: int, seed: int, nursery: trio.Nursery) -> None:
        """Start processes for ``size`` (>= 1) viewers of ``room``; `report` says how many have joined."""
        self.size = size
        observers = min(OBSERVERS, size // 4)
        parts = min(max(1, os.cpu_count() or 1), -(-(size - observers) // USERS_PER_PROCESS))
        shares = [(size - observers) // parts + (part < (size - observers) % parts) for part in range(parts)]
        first = 0
        for share, posts in [(observers, False)] * bool(observers) + [(share, True) for share in shares]:
            arguments = [str(each) for each in (port, room, first, share, seed, int(posts))]
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "broker.demo.load_process", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            handle = _ProcessHandle(process, measures=not posts or not observers)
            self._processes.append(handle)
            nursery.start_soon(self._read_reports, handle)
            first += share

    async def _read_reports(self, handle: _ProcessHandle) -> None:
        """Read the reports of one process until it ends; kill it when this task is cancelled."""
        try:
            assert handle.process.stdout is not None
            async with aclosing(read_lines(handle.process.stdout)) as lines:
                async for line in lines:
                    report = Report(*json.loads(line))
                    if handle.measures:
                        self._latency.merge({ms: count for ms, count in report.latency})
                    handle.accounting = Accounting.from_json(report.accounting)
                    handle.report = report
                    self.reported.unpark_all()
        finally:
            with trio.move_on_after(1.0, shield=True):
                await handle.process.wait()
            if handle.process.poll() is None:
                handle.process.kill()
            self.reported.unpark_all()

    async def send(self, **command: Any) -> None:
        """Send one command to every process. Any: JSON."""
        line = json.dumps(command).encode() + b"\n"
        async with self._sending:
            for handle in self._processes:
                assert handle.process.stdin is not None
                try:
                    await handle.process.stdin.send_all(line)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass  # the process has ended; `failures` names it

    async def close(self) -> None:
        """Ask every process to disconnect its clients, and wait for their ends, at most `LEAVE_S`."""
        self._leaving = True
        await self.send(do="leave")
        with trio.move_on_after(LEAVE_S):
            for handle in self._processes:
                await handle.process.wait()

    def report(self) -> Report:
        """Return the sum of all reports."""
        reports = [handle.report for handle in self._processes]
        if not reports:
            return Report()
        sums = {name: sum(getattr(report, name) for report in reports) for name in _SUMS}
        all_answered = all(report.all_answered for report in reports)
        return Report(**sums, all_answered=all_answered, offset=min(report.offset for report in reports))

    def accounting(self) -> Accounting:
        """Return the sum of what their senders were answered."""
        return sum((handle.accounting for handle in self._processes), Accounting())

    def failures(self) -> list[str]:
        """Return a sentence for each process that ended before `close`."""
        ended = [handle.process.poll() for handle in self._processes]
        if self._leaving:
            return []
        return [f"a load process ended with status {status}" for status in ended if status is not None]
