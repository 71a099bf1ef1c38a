"""Share of the event loop that CALLs have, so that messages do not wait until thousands of them are answered.

A turn of the poller handles CALLs for `READ_SLICE_S`. A link whose CALL comes after that is held: nothing more of it is
handled or read, so what it sends next waits in its socket. Held links are served in the order in which they came, for
`QUEUE_SLICE_S` at a time; in between the poller reads the links that chat and the fan-out writes. At most `SHARE` CALLs
of a link are handled before the next one's. As long as links are held, every other CALL queues behind them.

One link has at most one place in the queue, so the connections bound its length, and a held link keeps no more bytes
than one read. The frames of a link stay in their order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Protocol

import trio

from broker.net.poller import Pollable, Poller

__all__ = ["QUEUE_SLICE_S", "READ_SLICE_S", "SHARE", "CallTurns", "HeldLink"]

READ_SLICE_S = 0.001
"""Time for CALLs in one turn of the poller, half of that turn."""
QUEUE_SLICE_S = 0.0005
"""Time for CALLs of held links in one turn of the event loop: a third of a slice of the fan-out, so that a sweep over
thousands of viewers takes little longer beside them. While there is nothing else to do, turns follow at once."""
SHARE = 16
"""CALLs of one held link before the next link's turn."""


class HeldLink(Protocol):
    """What the queue needs of a session."""

    @property
    def is_open(self) -> bool:
        """Whether the connection still exists."""

    @property
    def transport(self) -> Pollable:
        """The connection; it ends where the session fails."""

    def hold(self, until: float) -> None:
        """Leave the connection unread, and what it has sent unhandled, until `go_on` (monotonic seconds)."""

    def go_on(self) -> None:
        """Handle what the connection has sent while it was held, first the CALL that has waited."""


class CallTurns:
    """Queue of the links whose CALLs wait; its `run` is one task. ``clock``: monotonic seconds."""

    def __init__(self, poller: Poller, clock: Callable[[], float] = trio.current_time) -> None:
        self._poller = poller
        self._clock = clock
        self._links: deque[HeldLink] = deque()
        self._work = trio.Event()
        self._turn = -1
        """Turn of the poller whose slice ends at `_ends_at`."""
        self._ends_at = 0.0
        self._left = 0
        """CALLs that the link whose turn it is may still make; 0 = none has its turn."""

    @property
    def held(self) -> int:
        """Links that are held."""
        return len(self._links)

    def admits(self, link: HeldLink) -> bool:
        """Return whether a CALL may be handled now; else the link is held, and its CALL must be kept until `go_on`."""
        if self._left:
            self._left -= 1
            if self._clock() < self._ends_at and self._left:
                return True
        elif not self._links:
            turn = self._poller.turns
            if turn != self._turn:
                self._turn = turn
                self._ends_at = self._clock() + READ_SLICE_S
                return True
            if self._clock() < self._ends_at:
                return True
        self._links.append(link)
        self._work.set()
        link.hold(inf)
        return False

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve held links until cancelled."""
        task_status.started()
        while True:
            if self._links:
                self.serve()
                await trio.lowlevel.checkpoint()
            else:
                self._work = trio.Event()
                await self._work.wait()

    def serve(self) -> None:
        """Serve held links for one slice, at least one of them."""
        links, poller = self._links, self._poller
        self._ends_at = poller.refresh_clock() + QUEUE_SLICE_S
        while links:
            link = links.popleft()
            if link.is_open:
                self._left = SHARE
                try:
                    link.go_on()
                except Exception as error:
                    poller.crash(link.transport, error)
                self._left = 0
            if poller.refresh_clock() >= self._ends_at:
                break
