"""How the processes of a run talk: one JSON object a line, commands on standard input, events on standard output.

A child ends by itself in every case: when it is told to, when its standard input ends (its parent is gone), and
at the latest when its alarm rings.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from typing import Any

__all__ = ["CommandReader", "emit", "first_order", "set_alarm"]

Event = dict[str, Any]
"""One line. Any: plain JSON, whose fields each sender and reader know."""


def emit(event: str, **fields: Any) -> None:
    """Write one event line. The parent always reads, so this may block for a moment only."""
    line = json.dumps({"event": event, **fields}, ensure_ascii=False, separators=(",", ":")) + "\n"
    sys.stdout.write(line)
    sys.stdout.flush()


def set_alarm(seconds: float) -> None:
    """End this process (SIGALRM, default action) after so many seconds, whatever it does then."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


class CommandReader:
    """Commands from a descriptor that is polled; ``fd`` is what to poll for reading."""

    def __init__(self, fd: int = 0) -> None:
        self.fd = fd
        self.ended = False
        """The other end is gone: stop."""
        self._rest = b""
        os.set_blocking(fd, False)

    def read(self) -> list[Event]:
        """Every whole command that has arrived."""
        try:
            data = os.read(self.fd, 65_536)
        except BlockingIOError:
            return []
        if not data:
            self.ended = True
            return []
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines if line]


def first_order() -> Event | None:
    """Wait for the first line, the spec of this process; None if the parent is gone before."""
    commands = CommandReader()
    orders: list[Event] = []
    while not orders and not commands.ended:
        select.select([commands.fd], [], [])
        orders = commands.read()
    return orders[0] if orders else None
