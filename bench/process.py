"""The processes of a run: started here, watched here, ended here, and nothing else is ever touched.

Each child speaks lines of JSON (`child`). A thread per child puts its events into one queue, so the run is a plain
sequence of "tell" and "wait for". Leaving the `Troupe` ends every child: first by word, then by closing its
standard input, then by signals to exactly the process ids that were started.
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

__all__ = ["BenchFailure", "Child", "Troupe"]

Event = dict[str, Any]
"""One line of a child. Any: plain JSON."""

RESOURCE_SAMPLE_S = 0.5
_ROOT = Path(__file__).parent.parent


class BenchFailure(Exception):
    """The run cannot go on: a child died, refused or took too long. The text is for the user."""


class Child:
    """One process of a run."""

    def __init__(self, name: str, arguments: list[str], folder: Path) -> None:
        self.name = name
        self.samples: list[Event] = []
        """Events called ``sample``, as they came."""
        self.events: queue.Queue[Event] = queue.Queue(maxsize=10_000)
        self._errors = (folder / f"{name}.stderr").open("w+b")
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_ROOT), environment.get("PYTHONPATH", "")]))
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environment, cwd=folder
        )
        self.pid = self.process.pid
        self.watched = psutil.Process(self.pid)
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

    def tell(self, command: str, **fields: Any) -> None:
        """Send one command. Any: plain JSON."""
        self._write({"command": command, **fields})

    def order(self, spec: Any) -> None:
        """Send the spec, the first line of a child's life. Any: a msgspec struct made plain."""
        self._write(spec)

    def _write(self, line: Any) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(line).encode() + b"\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise BenchFailure(f"{self.name} is gone: {self.final_output()}") from error

    def wait(self, name: str, timeout_s: float) -> Event:
        """The next event called ``name``; others that come before it are dropped. BenchFailure if it does not come."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                event = self.events.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise BenchFailure(f"{self.name} did not say {name!r} within {timeout_s:g} s") from None
            if event["event"] == name:
                return event
            if event["event"] == "ended":
                raise BenchFailure(f"{self.name} ended before it said {name!r}: {self.final_output()}")
            if event["event"] == "failed":
                raise BenchFailure(f"{self.name}: {event['why']}")

    def final_output(self) -> str:
        """The end of what it wrote to standard error."""
        try:
            self._errors.flush()
            self._errors.seek(0)
            return self._errors.read().decode(errors="replace")[-2000:].strip() or f"exit {self.process.poll()}"
        except ValueError:
            return "no words"

    def end(self, timeout_s: float = 5.0) -> None:
        """End this process, politely first. Idempotent."""
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


class Troupe:
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

    def __enter__(self) -> Troupe:
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
        """Start any program that ends by itself when told to by a signal."""
        child = Child(name, arguments, self.folder)
        self.children.append(child)
        return child

    def room_for(self, name: str, place: str | None = None) -> Path:
        """An empty folder that goes with the troupe, in ``place`` or else beside the others."""
        if place is None:
            path = self.folder / name
            path.mkdir()
            return path
        made = tempfile.TemporaryDirectory(prefix=f"roomcast-{name}-", dir=place)
        self._more_folders.append(made)
        return Path(made.name)

    def rss_mib(self, child: Child) -> float:
        """Memory of one child now, 0 if it is gone."""
        try:
            return float(child.watched.memory_info().rss) / 2**20
        except psutil.Error:
            return 0.0

    def cpu_s(self, child: Child) -> float:
        """CPU seconds of one child so far, 0 if it is gone."""
        try:
            times = child.watched.cpu_times()
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
