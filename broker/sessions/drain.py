"""Orderly shutdown of a broker, step by step.

1. New connections are refused with a time to return; the listener stays open until the end to say so.
2. What clients had sent before is read, so that it is answered.
3. The rooms publish what waits, and the ledger commits everything: for at most a third of ``link.drain_limit_s``.
4. Every connection gets GOAWAY with a spread return time, a backlogged one after what waits for it; at most
   ``link.drain_s``, and not more than another third.
5. Totals of rooms that the ledger was too full for, and those that have changed since, are written: in what is left of
   the two thirds.

The last third is the ledger's, when its task ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import structlog
import trio

from broker.config.schema import LinkConfig
from broker.core.net.connection_limits import ConnectionLimits
from broker.ledger import Ledger
from broker.net.poller import Poller
from broker.rooms.fanout import FanOut
from broker.rooms.hub import Hub
from broker.sessions.call_turns import CallTurns
from broker.sessions.context import OpenSession
from protocol.codes import CloseCode

__all__ = ["drain"]

log = structlog.get_logger("roomcast.server")

LAST_READ_S = 0.25
"""How long what has arrived before the shutdown is still read."""
CLOSE_BATCH = 128
"""Connections closed between two checkpoints (centrifuge closes 128 at a time)."""


async def drain(
    link: LinkConfig,
    *,
    connection_limits: ConnectionLimits,
    poller: Poller,
    call_turns: CallTurns,
    hub: Hub,
    fanout: FanOut,
    ledger: Ledger | None,
    sessions: Collection[OpenSession],
    clock: Callable[[], float],
) -> None:
    """Shut the parts of a broker down in order; their tasks may be cancelled afterwards.

    ``sessions`` shrinks as connections end. Returns after at most two thirds of ``link.drain_limit_s``, and the second
    that a client has at least to take its GOAWAY.
    """
    begun, begun_at = clock(), trio.current_time()
    window_ms = round(link.drain_s * 1000)
    third_s = link.drain_limit_s / 3
    log.info("draining", connections=len(poller))
    connection_limits.close(max(1, window_ms // 2))
    await poller.serve_pending(LAST_READ_S, lambda: call_turns.held)
    with trio.move_on_after(third_s) as committing:
        for room in hub:
            hub.flush(room)
        if ledger is not None:
            await ledger.flush()
            for room in hub:
                hub.end_run(room)
            await ledger.flush()
    with trio.move_on_after(min(max(1.0, link.drain_s), third_s)):
        while fanout.waiting:  # noqa: ASYNC110 - the scheduler should not pay for an event it needs once
            await trio.sleep(0.01)
        await _close_all(sessions, poller, window_ms)
        while connection_limits.held:  # noqa: ASYNC110 - as above
            await trio.sleep(0.02)
    with trio.move_on_at(begun_at + 2 * third_s):
        await hub.write_checkpoints()
    log.info(
        "drained", seconds=round(clock() - begun, 3), cut=connection_limits.held,
        ledger_waiting=0 if ledger is None else ledger.waiting, ledger_late=committing.cancelled_caught,
    )  # fmt: skip


async def _close_all(sessions: Collection[OpenSession], poller: Poller, window_ms: int) -> None:
    """Close every connection; a backlogged one when what waits for it has been written."""
    while sessions:
        drained = [session for session in sessions if session.transport.queue is None]
        for count, session in enumerate(drained, 1):
            try:
                session.close(CloseCode.GOING_AWAY, "the broker restarts", 0, window_ms)
            except Exception as error:
                poller.crash(session.transport, error)
            if count % CLOSE_BATCH == 0:
                await trio.lowlevel.checkpoint()
        await trio.sleep(0.02)
