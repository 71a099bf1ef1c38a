"""Operations on gifts and rankings: their records and rows."""

from __future__ import annotations

from typing import NamedTuple

from ..activities.rankings import MAX_TOP, RankedScore, RankingTop, ranked_score, ranking_top
from ..codes import ErrorCode
from ..fields import array_of, integer, member_id, optional, record, room_name, text, user_id
from .rows import LOGGED_IN, PLATFORM, KeyUse, OperationRow, RateLimit, Scope, row

__all__ = ["MAX_AROUND", "ROWS", "GetRanking", "RankingPage", "RefundGift", "RefundedGift"]

MAX_AROUND = 50
"""Users before and after one."""


class RefundGift(NamedTuple):
    """Take a gift back that the platform has refunded: it counts in no ranking any more, and stays where it was shown.

    ``order_id``: of the gift, in this room.
    """

    room: str
    order_id: str
    reason: str = ""


class RefundedGift(NamedTuple):
    """A gift that is refunded, now or before. ``cents``: what it had cost."""

    order_id: str
    user: str
    cents: int


class GetRanking(NamedTuple):
    """Ask for a ranking. ``kind``: gifts, likes, shares or invites; ``limit``: users of the top; ``user``: whose rank,
    a viewer's own if it is null; ``around``: how many users before and after it."""

    room: str
    kind: str
    limit: int = 10
    user: str | None = None
    around: int = 0


class RankingPage(NamedTuple):
    """A ranking. ``user``: the rank that was asked for, null = none; ``around``: the users next to it and itself, as
    of the last second."""

    ranking: RankingTop
    user: RankedScore | None = None
    around: tuple[RankedScore, ...] = ()


_id = text(1, 64)
_EXAMPLE = RankingTop("gifts", (RankedScore("ann", 52_000, 1), RankedScore("bob", 990, 2)), 52_990, 2)

ROWS: tuple[OperationRow, ...] = (
    row(
        220, "gifts.refund", RefundGift, (room_name, _id, text(0, 256)),
        RefundedGift, record(RefundedGift, (_id, member_id, integer(0))),
        "Take a gift out of the rankings that the platform has refunded; once.",
        scope=Scope.COMMERCE_WRITE, roles=PLATFORM, durable=True,
        errors=(ErrorCode.UNKNOWN_ROOM, ErrorCode.UNKNOWN_CLAIM, ErrorCode.OVERLOADED),
        example=(RefundGift("live-1", "order-7", "chargeback"), RefundedGift("order-7", "ann", 990)),
    ),
    row(
        221, "rankings.get", GetRanking,
        (room_name, text(1, 16), integer(1, MAX_TOP), optional(user_id), integer(0, MAX_AROUND)),
        RankingPage,
        record(RankingPage, (ranking_top, optional(ranked_score), array_of(ranked_score, 2 * MAX_AROUND + 1))),
        "Return who gave, liked, shared or invited most in a room, and the rank of one user.",
        scope=Scope.COMMERCE_READ, roles=LOGGED_IN, changes=False, key=KeyUse.NONE, rate=RateLimit(2, 5),
        errors=(ErrorCode.UNKNOWN_ROOM,),
        example=(GetRanking("live-1", "gifts", 2, "bob"), RankingPage(_EXAMPLE, RankedScore("bob", 990, 2))),
    ),
)  # fmt: skip
