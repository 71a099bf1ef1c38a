"""Operations on what the ledger holds of a show: their records and rows."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..codes import ErrorCode
from ..fields import any_value, integer, optional, record, room_name
from .rows import NEEDS_LEDGER, PLATFORM, OperationRow, RateLimit, Scope, row

__all__ = ["ROWS", "ReportRoom", "RoomReport"]

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


_report = record(RoomReport, (room_name, _count, any_value))

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
)  # fmt: skip
