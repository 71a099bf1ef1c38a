"""Operations on what the ledger holds of a show: their records and rows."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..codes import ErrorCode
from ..fields import any_value, array_of, boolean, integer, optional, record, room_name, room_pattern, text
from .rows import MAX_PAGE, NEEDS_LEDGER, PLATFORM, OperationRow, RateLimit, Scope, page_size, row

__all__ = ["ROWS", "ExportRoom", "ExportRooms", "ReportRoom", "RoomExport", "RoomReport", "RoomsExport"]

_count = integer(0)


class ReportRoom(NamedTuple):
    """Ask for the report of a room, while it is open or after it has ended. ``epoch``: of its stream, null = the last
    one."""

    room: str
    epoch: int | None = None


class RoomReport(NamedTuple):
    """Report of a room. ``report``: an object whose ``schema`` and ``version`` say what it holds."""

    room: str
    epoch: int
    report: Any


class ExportRoom(NamedTuple):
    """Ask for what the ledger holds of a room, oldest first. ``epoch``: of its stream, null = the last one; ``after``:
    ``last`` of the page before, 0 = from the beginning."""

    room: str
    epoch: int | None = None
    after: int = 0
    limit: int = 500


class RoomExport(NamedTuple):
    """A page of an export; it may be empty before the end.

    ``schema`` and ``version``: what the ``lines`` are, objects; ``last``: ``after`` of the next page; ``more``: whether
    there is one now. What follows later is found with ``last`` too.
    """

    schema: str
    version: int
    epoch: int
    lines: tuple[Any, ...]
    last: int
    more: bool


class ExportRooms(NamedTuple):
    """Ask for what the ledger holds of all rooms that fit ``pattern``, oldest first. ``after``: ``last`` of the page
    before, 0 = from the beginning."""

    pattern: str = "*"
    after: int = 0
    limit: int = 500


class RoomsExport(NamedTuple):
    """A page of an export of rooms; fields as of `RoomExport`, each line names its room and epoch."""

    schema: str
    version: int
    lines: tuple[Any, ...]
    last: int
    more: bool


_report = record(RoomReport, (room_name, _count, any_value))
_export = record(RoomExport, (text(1, 32), _count, _count, array_of(any_value, MAX_PAGE), _count, boolean))
_EXPORTED = {
    "version": 1, "seq": 4711, "room": "live-1", "epoch": 7, "at_ms": 1_790_000_000_000, "what": "event", "offset": 42,
    "lane": "paid", "type": "gift", "user": "shop", "payload": {"order_id": "order-1", "user_id": "ann", "cents": 300},
}  # fmt: skip

ROWS: tuple[OperationRow, ...] = (
    row(
        560, "rooms.report", ReportRoom, (room_name, optional(_count)), RoomReport, _report,
        "Return the report of a show: audience, interaction, commerce, moderation, every message, what the host did.",
        scope=Scope.ROOMS_READ, roles=PLATFORM, rate=RateLimit(0.2, 5), at_once=2, changes=False,
        errors=(*NEEDS_LEDGER, ErrorCode.UNKNOWN_ROOM),
        example=(
            ReportRoom("live-1"),
            RoomReport("live-1", 7, {"schema": "roomcast.report", "version": 1, "audience": {"peak": 5210}}),
        ),
    ),
    row(
        561, "rooms.export", ExportRoom, (room_name, optional(_count), _count, page_size), RoomExport, _export,
        "Return what the ledger holds of a room, in pages, without names and texts unless these are configured.",
        scope=Scope.ROOMS_READ, roles=PLATFORM, rate=RateLimit(20, 40), at_once=2, changes=False,
        errors=(*NEEDS_LEDGER, ErrorCode.UNKNOWN_ROOM),
        example=(ExportRoom("live-1"), RoomExport("roomcast.export", 1, 7, (_EXPORTED,), 4711, more=False)),
    ),
    row(
        562, "rooms.export_all", ExportRooms, (room_pattern, _count, page_size), RoomsExport,
        record(RoomsExport, (text(1, 32), _count, array_of(any_value, MAX_PAGE), _count, boolean)),
        "Return what the ledger holds of many rooms in one order, in pages, as rooms.export does of one.",
        scope=Scope.ROOMS_READ, roles=PLATFORM, rate=RateLimit(20, 40), at_once=2, changes=False,
        errors=NEEDS_LEDGER,
        example=(ExportRooms("live-*"), RoomsExport("roomcast.export", 1, (_EXPORTED,), 4711, more=False)),
    ),
)  # fmt: skip
