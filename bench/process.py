"""The processes of a run: start, commands, resource samples, end.

Each child reads and writes lines of JSON (`bench.load.child`). A thread for each child puts its events into a queue, so
the run is a plain sequence of commands and waits. Leaving the `ProcessGroup` ends every child: by the command ``stop``
and the end of its standard input, then by signals to exactly the process ids that were started.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from bench.measure import now_us

__all__ = ["BenchFailure", "Child", "ProcessGroup"]

Event = dict[str, Any]
"""One line of a child. Any: plain JSON."""

RESOURCE_SAMPLE_S = 0.5
_ROOT = Path(__file__).parent.parent


class BenchFailure(Exception):
    """A run cannot continue: a child ended, failed or timed out. The text is for the user."""


class Child:
    """One process of a run."""

    def __init__(self, name: str, arguments: list[str], folder: Path) -> None:
        self.name = name
        self.samples: list[Event] = []
        """Events called ``sample``, in order of arrival."""
        self.events: queue.Queue[Event] = queue.Queue(maxsize=10_000)
        self._errors = (folder / f"{name}.stderr").open("w+b")
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_ROOT), environment.get("PYTHONPATH", "")]))
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environment, cwd=folder
        )
        self.pid = self.process.pid
        self.usage = psutil.Process(self.pid)
        self._reader = threading.Thread(target=self._read, daemon=True, name=f"read {name}")
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if event.get("event") == "sample":
                self.samples.append(event)
            else:
                self.events.put(event)
        self.events.put({"event": "ended"})

    def send_command(self, command: str, **fields: Any) -> None:
        """Send one command. Any: plain JSON."""
        self._write({"command": command, **fields})

    def send_spec(self, spec: Any) -> None:
        """Send the spec, the first line that a child reads. Any: a msgspec struct as builtins."""
        self._write(spec)

    def _write(self, line: Any) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(line).encode() + b"\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise BenchFailure(f"{self.name} has ended: {self.final_output()}") from error

    def wait(self, name: str, timeout_s: float) -> Event:
        """Return the next event called ``name`` and drop those before it. BenchFailure on timeout, failure or end."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                event = self.events.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise BenchFailure(f"{self.name} did not report {name!r} within {timeout_s:g} s") from None
            if event["event"] == name:
                return event
            if event["event"] == "ended":
                raise BenchFailure(f"{self.name} ended before it reported {name!r}: {self.final_output()}")
            if event["event"] == "failed":
                raise BenchFailure(f"{self.name}: {event['why']}")

    def final_output(self) -> str:
        """Return the end of its standard error, or its exit status."""
        try:
            self._errors.flush()
            self._errors.seek(0)
            return self._errors.read().decode(errors="replace")[-2000:].strip() or f"exit {self.process.poll()}"
        except ValueError:
            return "no output"

    def end(self, timeout_s: float = 5.0) -> None:
        """End this process: by command, then by signal. Idempotent."""
        process = self.process
        if process.stdin is not None:
            try:
                process.stdin.write(b'{"command":"stop"}\n')
                process.stdin.close()
            except (OSError, ValueError):
                pass
        for signal_by in (None, process.terminate, process.kill):
            if signal_by is not None:
                signal_by()
            try:
                process.wait(timeout_s)
                break
            except subprocess.TimeoutExpired:
                timeout_s = 3.0
        self._reader.join(2)
        if process.stdout is not None:
            process.stdout.close()
        self._errors.close()


class ProcessGroup:
    """All children of a run, in a temporary folder, with their CPU time and memory sampled."""

    def __init__(self) -> None:
        self.children: list[Child] = []
        self.resources: list[dict[str, float | str]] = []
        """Rows of ``at_us, name, cpu_s, rss_mib``."""
        self._folder = tempfile.TemporaryDirectory(prefix="roomcast-bench-")
        self.folder = Path(self._folder.name)
        self._more_folders: list[tempfile.TemporaryDirectory[str]] = []
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True, name="resources")

    def __enter__(self) -> ProcessGroup:
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._sampler.join(5)
        for child in self.children:
            child.end()
        for made in (self._folder, *self._more_folders):
            made.cleanup()

    def start(self, name: str, module: str, *arguments: str) -> Child:
        """Start ``python -m MODULE ARGUMENTS``."""
        return self.start_program(name, [sys.executable, "-m", module, *arguments])

    def start_program(self, name: str, arguments: list[str]) -> Child:
        """Start any program that ends on SIGTERM."""
        child = Child(name, arguments, self.folder)
        self.children.append(child)
        return child

    def make_folder(self, name: str, place: str | None = None) -> Path:
        """Return an empty folder, removed with the group, in ``place`` or else in the group's folder."""
        if place is None:
            path = self.folder / name
            path.mkdir()
            return path
        made = tempfile.TemporaryDirectory(prefix=f"roomcast-{name}-", dir=place)
        self._more_folders.append(made)
        return Path(made.name)

    def rss_mib(self, child: Child) -> float:
        """Return the memory of one child now, 0 if it has ended."""
        try:
            return float(child.usage.memory_info().rss) / 2**20
        except psutil.Error:
            return 0.0

    def cpu_s(self, child: Child) -> float:
        """Return the CPU seconds of one child so far, 0 if it has ended."""
        try:
            times = child.usage.cpu_times()
            return float(times.user + times.system)
        except psutil.Error:
            return 0.0

    def _sample(self) -> None:
        while not self._stop.wait(RESOURCE_SAMPLE_S):
            at = now_us()
            for child in list(self.children):
                rss = self.rss_mib(child)
                if rss:
                    self.resources.append(
                        {"at_us": at, "name": child.name, "cpu_s": self.cpu_s(child), "rss_mib": round(rss, 1)}
                    )
