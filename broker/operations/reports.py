"""Handlers of the operations on what the ledger holds of a show: its report and its export.

A report is folded from all entries of a room's stream, a page at a time: between two pages the ledger answers what
others ask, and the event loop has as much time as the page took.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from broker.core.reports.show import ShowFold
from broker.core.tenants.names import plain_name, split_name
from broker.ledger import Ledger, Reader
from broker.ledger.reader import stored_entries
from broker.ledger.streams import FoundStream, entries_page, find_stream
from broker.operations.caller import Caller, OperationError
from broker.operations.kept import ask, later, required
from broker.operations.parts import Handler, Parts
from broker.operations.rooms import plain_value
from broker.rooms.room_export import EXPORT_SCHEMA, EXPORT_VERSION, ExportFields, export_line
from broker.rooms.show_reports import take_audit, take_entries
from protocol.codes import ErrorCode, RoomPhase
from protocol.operations.reports import ExportRoom, ExportRooms, ReportRoom, RoomExport, RoomReport, RoomsExport
from protocol.text import fits_room_pattern

__all__ = ["HANDLERS"]

SCAN_ENTRIES = 2000
"""Entries of all tenants that one page of an export of many rooms inspects."""
EXPORT_BYTES = 160 * 1024
"""Bodies of the entries on one page of an export; one may be above it."""
FLUSH_S = 1.0
"""How long a report waits until the ledger has written what came before it; a commit takes some milliseconds."""


def _ledger_for(parts: Parts, room: str) -> Ledger:
    """Return the ledger; OperationError where there is none: UNKNOWN_ROOM, or NOT_KEPT of a room that is open."""
    if parts.ledger is None:
        parts.room(room)
    return required(parts.ledger)


async def _report(parts: Parts, caller: Caller, request: ReportRoom) -> RoomReport:
    ledger = _ledger_for(parts, request.room)
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
    after = stream.after
    while after is not None:
        after = await ask(ledger, take_audit, fold, stream, after)
    if fold.is_empty:
        raise OperationError(ErrorCode.UNKNOWN_ROOM, "is not in the ledger", "room")
    return RoomReport(request.room, stream.epoch, plain_value(fold.report()))


def _fold_page(reader: Reader, fold: ShowFold, stream: FoundStream, after: int) -> int | None:
    """Fold one page, and return where the next one begins. Runs in the ledger's reading thread."""
    with reader.snapshot():
        entries, after_page = entries_page(reader, stream, after)
    take_entries(fold, entries)
    return after_page


async def _export(parts: Parts, caller: Caller, request: ExportRoom) -> RoomExport:
    ledger = _ledger_for(parts, request.room)
    settings = parts.control.settings()
    fields = ExportFields(settings["ledger.export_names"], settings["ledger.export_texts"])
    found = await ask(ledger, _read_lines, request, fields)
    if found is None:
        raise OperationError(ErrorCode.UNKNOWN_ROOM, "is not in the ledger", "room")
    return found


def _read_lines(reader: Reader, request: ExportRoom, fields: ExportFields) -> RoomExport | None:
    """Return a page of an export. Runs in the ledger's reading thread."""
    with reader.snapshot():
        stream = find_stream(reader, request.room, request.epoch)
        if stream is None:
            return None
        entries, following = entries_page(reader, stream, request.after, request.limit)
    items: list[Any] = []
    last = max(request.after, stream.last if following is None else following)
    is_cut, nbytes = False, 0
    for entry in entries:
        nbytes += len(entry.body)
        if items and nbytes > EXPORT_BYTES:
            is_cut, last = True, items[-1]["seq"]
            break
        items.append(plain_value(export_line(entry, fields)))
    more = is_cut or following is not None
    return RoomExport(EXPORT_SCHEMA, EXPORT_VERSION, stream.epoch, tuple(items), last, more)


async def _export_all(parts: Parts, caller: Caller, request: ExportRooms) -> RoomsExport:
    ledger = required(parts.ledger)
    settings = parts.control.settings()
    fields = ExportFields(settings["ledger.export_names"], settings["ledger.export_texts"])
    pattern = plain_name(request.pattern)

    def selects(room: str) -> bool:
        tenant, name = split_name(room)
        return (
            bool(room) and tenant == caller.tenant and fits_room_pattern(pattern, name)
            and caller.role_in(room) is not None
        )  # fmt: skip

    return await ask(ledger, _read_all, request, selects, fields)


def _read_all(
    reader: Reader, request: ExportRooms, selects: Callable[[str], bool], fields: ExportFields
) -> RoomsExport:
    """Return a page of an export of many rooms. Runs in the ledger's reading thread."""
    items: list[Any] = []
    nbytes = 0
    with reader.snapshot():
        end = reader.ends()[0].seq
        last = min(end, request.after + SCAN_ENTRIES)
        for entry in stored_entries(reader, "e.seq > ? AND e.seq <= ? ORDER BY e.seq", (request.after, last)):
            if not selects(entry.room):
                continue
            nbytes += len(entry.body)
            if items and (nbytes > EXPORT_BYTES or len(items) == request.limit):
                last = items[-1]["seq"]
                break
            items.append(plain_value(export_line(entry, fields)))
    last = max(last, request.after)
    return RoomsExport(EXPORT_SCHEMA, EXPORT_VERSION, tuple(items), last, last < end)


HANDLERS: dict[str, Handler] = {
    "rooms.report": _report,
    "rooms.export": _export,
    "rooms.export_all": _export_all,
}
