"""Logging: one JSON line (or one readable line) per state change, on standard error.

What people write, their names, ids and tokens are in no line (`broker.telemetry.redaction`), unless ``log.redact`` is
off; structlog's renderers escape every text. Of each kind at most `LINES_PER_S` lines are written in a second; a line
says how many were left out, so that no client can fill the disk with lines. The logger is set up once, by the command
line.

The reader of standard error may stop reading: a blocked journal, a terminal on hold. A broker must not stop with it,
so it writes through a `LogFile`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from contextlib import suppress
from queue import SimpleQueue
from time import monotonic

import structlog

from broker.config.schema import LogConfig
from broker.core.limits.log_sampler import LogSampler
from broker.core.tenants.names import SEPARATOR, split_name
from broker.telemetry.redaction import format_traceback, redact

__all__ = ["LogFile", "configure", "report_left_out"]

log = structlog.get_logger("roomcast.logs")

MAX_WAITING_CHARS = 1024 * 1024
"""Log lines that wait for their reader, some 5,000; what comes then is counted, and dropped."""
CLOSE_TIMEOUT_S = 2.0


class LogFile:
    """A text file on ``descriptor`` whose writers never wait: a thread of its own does.

    What does not fit is dropped, and a line says how many were, once the reader is back. The thread writes to the bare
    descriptor: a buffer that it holds locked would keep the process from ending.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._counts = threading.Lock()
        self._waiting_chars = 0
        self.dropped = 0
        """Lines dropped since the start."""
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Take whole lines. Never waits for their reader."""
        with self._counts:
            if self._waiting_chars + len(text) > MAX_WAITING_CHARS:
                self.dropped += 1
                return len(text)
            self._waiting_chars += len(text)
        self._queue.put(text)
        return len(text)

    def flush(self) -> None:
        """Nothing to do: no line waits for another."""

    @property
    def is_running(self) -> bool:
        """Whether the thread that writes has not ended."""
        return self._thread.is_alive()

    @property
    def waiting_chars(self) -> int:
        """Characters that wait for the reader."""
        return self._waiting_chars

    def close(self) -> None:
        """Let the thread write what waits and end; a reader that does not read is given up after `CLOSE_TIMEOUT_S`."""
        self._queue.put(None)
        self._thread.join(CLOSE_TIMEOUT_S)

    def _work(self) -> None:
        reported = 0
        with suppress(OSError):  # there is no reader any more
            while (text := self._queue.get()) is not None:
                self._write_out(text)
                with self._counts:
                    self._waiting_chars -= len(text)
                    dropped, reported = self.dropped - reported, self.dropped
                if dropped:
                    self._write_out(
                        json.dumps({"event": "log lines dropped", "count": dropped, "level": "warning"}) + "\n"
                    )

    def _write_out(self, text: str) -> None:
        data = memoryview(text.encode(errors="backslashreplace"))
        while data:
            data = data[os.write(self._descriptor, data) :]


_sampler = LogSampler()
_format_exception = structlog.processors.format_exc_info
_NAMES = ("room", "user", "batch")
"""Fields that hold qualified names."""
_sampling = threading.Lock()
"""The ledger's thread writes lines too."""


def _sample(_logger: object, method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Drop a line of a kind of which there are too many in this second. Debug lines are all written."""
    if method != "debug":
        with _sampling:
            if not _sampler.admits(str(line.get("event", "")), monotonic()):
                raise structlog.DropEvent
    return line


def _split_names(_logger: object, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Write qualified names as plain ones, with the tenant in a field of its own."""
    for field in _NAMES:
        value = line.get(field)
        if type(value) is str and SEPARATOR in value:
            line["tenant"], line[field] = split_name(value)
    return line


def report_left_out() -> None:
    """Write how many lines of each kind were left out. The server calls it a few times a second."""
    with _sampling:
        left_out = _sampler.take_left_out(monotonic())
    for kind, count in left_out.items():
        log.warning("log lines left out", of=kind, count=count)


def configure(config: LogConfig, file: LogFile | None = None, node: str = "") -> None:
    """Send log lines of ``config.level`` and above to ``file`` (standard error) in ``config.format``.

    ``node``: name of this process where several write to one file; each line has it.
    """

    def name_node(_logger: object, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
        line.setdefault("node", node)
        return line

    renderer: structlog.typing.Processor
    if config.format == "json":
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _sample,
            _split_names,
            *((name_node,) if node else ()),
            *((redact,) if config.redact else ()),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(format_traceback) if config.redact else _format_exception,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[config.level.upper()]),
        # Not PrintLogger: it writes a line and its end apart, and lines of several processes come between.
        logger_factory=structlog.WriteLoggerFactory(file=file or sys.stderr),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
