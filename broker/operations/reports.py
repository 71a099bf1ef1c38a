"""Handlers of the operations on what the ledger holds of a show.

A report is folded from all entries of a room's stream, a page at a time: between two pages the ledger answers what
others ask, and the event loop has as much time as the page took.
"""

from __future__ import annotations

import trio

from broker.core.reports.show import ShowFold
from broker.ledger import Reader
from broker.ledger.streams import FoundStream, entries_page, find_stream
from broker.operations.caller import Caller, OperationError
from broker.operations.kept import ask, later, required
from broker.operations.parts import Handler, Parts
from broker.operations.rooms import plain_value
from broker.rooms.show_reports import take_entries
from protocol.codes import ErrorCode, RoomPhase
from protocol.operations.reports import ReportRoom, RoomReport

__all__ = ["HANDLERS"]

FLUSH_S = 1.0
"""How long a report waits until the ledger has written what came before it; a commit takes some milliseconds."""


async def _report(parts: Parts, caller: Caller, request: ReportRoom) -> RoomReport:
    ledger = required(parts.ledger)
    room = parts.hub.find(request.room)
    if room is not None and request.epoch in (None, room.state.epoch):
        if room.state.phase is RoomPhase.ENDED:
            raise later()  # its last counters are about to be written
        room.journal.sample(is_now=True)
    with trio.move_on_after(FLUSH_S):
        await ledger.flush()
    stream = await ask(ledger, find_stream, request.room, request.epoch)
    if stream is None or parts.room_store is None:
        raise OperationError(ErrorCode.UNKNOWN_ROOM, "is not in the ledger", "room")
    fold = ShowFold(request.room, stream.epoch, parts.room_store.kinds)
    after: int | None = stream.after
    while after is not None:
        begun = parts.clock()
        after = await ask(ledger, _fold_page, fold, stream, after)
        await trio.sleep(parts.clock() - begun)
    if fold.is_empty:
        raise OperationError(ErrorCode.UNKNOWN_ROOM, "is not in the ledger", "room")
    return RoomReport(request.room, stream.epoch, plain_value(fold.report()))


def _fold_page(reader: Reader, fold: ShowFold, stream: FoundStream, after: int) -> int | None:
    """Fold one page, and return where the next one begins. Runs in the ledger's reading thread."""
    with reader.snapshot():
        entries, after_page = entries_page(reader, stream, after)
    take_entries(fold, entries)
    return after_page


HANDLERS: dict[str, Handler] = {"rooms.report": _report}
