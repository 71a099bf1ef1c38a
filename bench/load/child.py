"""Protocol between the processes of a run: lines of JSON, commands on standard input, events on standard output.

A child ends by itself in every case: on the command, when its standard input ends (its parent has ended), and at the
latest when its alarm fires.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from typing import Any

__all__ = ["CommandReader", "emit", "read_spec", "set_alarm"]

Event = dict[str, Any]
"""One line. Any: plain JSON; its fields belong to the command or event."""


def emit(event: str, **fields: Any) -> None:
    """Write one event line. The parent always reads, so this blocks for a moment at most."""
    line = json.dumps({"event": event, **fields}, ensure_ascii=False, separators=(",", ":")) + "\n"
    sys.stdout.write(line)
    sys.stdout.flush()


def set_alarm(seconds: float) -> None:
    """End this process (SIGALRM, default action) after ``seconds``, whatever it does."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


class CommandReader:
    """Reader of commands from a non-blocking descriptor; poll ``fd`` for reading."""

    def __init__(self, fd: int = 0) -> None:
        self.fd = fd
        self.ended = False
        """Whether the parent has closed its end: stop then."""
        self._rest = b""
        os.set_blocking(fd, False)

    def read(self) -> list[Event]:
        """Return every whole command that has arrived."""
        try:
            data = os.read(self.fd, 65_536)
        except BlockingIOError:
            return []
        if not data:
            self.ended = True
            return []
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines if line]


def read_spec() -> Event | None:
    """Wait for the first line, the spec of this process; None if the parent ends before it."""
    commands = CommandReader()
    orders: list[Event] = []
    while not orders and not commands.ended:
        select.select([commands.fd], [], [])
        orders = commands.read()
    return orders[0] if orders else None
