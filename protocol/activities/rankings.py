"""Rankings of a room: what members see of them."""

from __future__ import annotations

from typing import NamedTuple

from ..fields import array_of, boolean, integer, member_id, record, text
from .rows import ActivityEventRow, ActivityViewRow, Via

__all__ = ["MAX_TOP", "ROWS", "VIEWS", "RankedScore", "RankingTop", "ranked_score", "ranking_top"]

MAX_TOP = 100


class RankedScore(NamedTuple):
    """A user of a ranking. ``rank``: from 1, without equals; ``score``: cents of gifts, likes, shares or invites."""

    user: str
    score: int
    rank: int


class RankingTop(NamedTuple):
    """The first users of a ranking, the best first.

    ``kind``: gifts, likes, shares or invites; ``total``: sum of the scores of all users; ``ranked``: how many have a
    rank; ``partial``: users are missing in ``top``, and come within a second; ``complete``: false where there were
    more users than have a score: the others count in the total only.
    """

    kind: str
    top: tuple[RankedScore, ...]
    total: int
    ranked: int
    partial: bool = False
    complete: bool = True


ranked_score = record(RankedScore, (member_id, integer(1), integer(1)))
ranking_top = record(
    RankingTop, (text(1, 16), array_of(ranked_score, MAX_TOP), integer(0), integer(0), boolean, boolean)
)
_EXAMPLE = RankingTop("gifts", (RankedScore("ann", 52_000, 1), RankedScore("bob", 990, 2)), 52_990, 2)

ROWS: tuple[ActivityEventRow, ...] = (
    ActivityEventRow(
        "rankings.changed",
        Via.COUNTER,
        RankingTop,
        ranking_top,
        "The first ten of a ranking have changed; at most every two seconds.",
        _EXAMPLE,
    ),
)
VIEWS: tuple[ActivityViewRow, ...] = (ActivityViewRow("rankings", RankingTop, ranking_top, _EXAMPLE),)
