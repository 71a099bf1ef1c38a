"""Operations on PKs: their records and rows."""

from __future__ import annotations

from typing import NamedTuple

from ..activities.pk import PkMeasure, PkOutcome, PkPhase, PkState, pk_state
from ..codes import ErrorCode
from ..fields import boolean, integer, name_of, room_name, text
from .rows import DIRECTION, NEEDS_LEDGER, OperationRow, RateLimit, Scope, row

__all__ = ["MAX_DURATION_MS", "ROWS", "AnswerPk", "EndPk", "InviteToPk"]

MIN_DURATION_MS = 1_000
MAX_DURATION_MS = 3_600_000


class InviteToPk(NamedTuple):
    """Invite another room to a PK: what the viewers of both give is compared for ``duration_ms``.

    ``id``: of the PK, the same in both rooms; ``measure``: what counts.
    """

    room: str
    id: str
    other_room: str
    duration_ms: int = 300_000
    measure: PkMeasure = PkMeasure.GIFTS


class AnswerPk(NamedTuple):
    """Answer the invitation that the room has got."""

    room: str
    id: str
    accepts: bool


class EndPk(NamedTuple):
    """Take an invitation back, decline one, or give up a PK that runs: the other room wins."""

    room: str
    id: str


_id = text(1, 64)
_RATE = RateLimit(5, 10)
_AGAIN = (ErrorCode.ROOM_ENDED, *NEEDS_LEDGER)
_INVITING = PkState("pk-1", PkPhase.INVITING, "live-2", True, PkMeasure.GIFTS, 300_000, expires_at_ms=1_790_000_030_000)
_RUNNING = PkState(
    "pk-1", PkPhase.RUNNING, "live-1", False, PkMeasure.GIFTS, 300_000, None, 1_790_000_003_000, 1_790_000_303_000
)
_CANCELLED = PkState("pk-1", PkPhase.IDLE, "live-2", True, PkMeasure.GIFTS, 300_000, outcome=PkOutcome.CANCELLED)

ROWS: tuple[OperationRow, ...] = (
    row(
        360, "pk.invite", InviteToPk,
        (room_name, _id, room_name, integer(MIN_DURATION_MS, MAX_DURATION_MS), name_of(PkMeasure)),
        PkState, pk_state, "Invite another room to a PK.",
        scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True, rate=_RATE,
        errors=(ErrorCode.KEY_REUSED, ErrorCode.OUT_OF_STATE, *_AGAIN),
        example=(InviteToPk("live-1", "pk-1", "live-2"), _INVITING),
    ),
    row(
        361, "pk.answer", AnswerPk, (room_name, _id, boolean), PkState, pk_state,
        "Accept or decline an invitation to a PK.",
        scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True, rate=_RATE,
        errors=(ErrorCode.UNKNOWN_ACTIVITY, ErrorCode.EXPIRED, ErrorCode.CANCELLED, *_AGAIN),
        example=(AnswerPk("live-2", "pk-1", True), _RUNNING),
    ),
    row(
        362, "pk.cancel", EndPk, (room_name, _id), PkState, pk_state,
        "End an invitation to a PK, or give up a PK that runs.",
        scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True, rate=_RATE,
        errors=(ErrorCode.UNKNOWN_ACTIVITY, ErrorCode.OUT_OF_STATE, *_AGAIN),
        example=(EndPk("live-1", "pk-1"), _CANCELLED),
    ),
)  # fmt: skip
