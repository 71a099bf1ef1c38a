"""The rankings of one room: who gave most, liked most, shared most and brought most viewers.

Scores of gifts are cents and change with the event that shows the gift; those of likes change when the counters of the
room do; those of shares and invites with the facts of the room's audiences. `take_changes` returns the scores that have
changed, for the ledger: gifts first. A score that is not there yet after a crash is made good by the gift events after
its ``reached`` (`gave` counts none twice), and by the audiences (`correct`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import NamedTuple

from broker.core.commerce.activity import RoomEvent
from broker.core.commerce.rankings import RankedUser, Ranking
from broker.core.commerce.room_activities import PushCounter
from broker.core.tenants.names import plain_name
from protocol.activities.rankings import RankedScore, RankingTop
from protocol.json_values import as_json
from protocol.messages import ActivityView
from protocol.payloads import GiftPayload, HighlightPayload

__all__ = ["GIFTS", "INVITES", "KINDS", "LIKES", "SHARES", "RoomRankings", "StoredScore", "paid_cents"]

GIFTS, LIKES, SHARES, INVITES = KINDS = ("gifts", "likes", "shares", "invites")
PUSHED_TOP = 10
"""Users of each ranking that are pushed; `rankings.get` has a hundred."""
SNAPSHOT_TOP = 3
"""Users of each ranking in the answer to a JOIN."""


class StoredScore(NamedTuple):
    """Score of one user in the ledger."""

    kind: str
    user: str
    score: int
    reached: int


class RoomRankings:
    """Rankings by kind. ``now``: monotonic seconds. Users are named as their tenant knows them."""

    __slots__ = ("_by_kind", "_changed", "_dirty", "_likes", "_pushed", "_views", "is_hidden", "next_push_at")

    def __init__(self) -> None:
        self._by_kind = {kind: Ranking(max_users=None) if kind == GIFTS else Ranking() for kind in KINDS}
        self._likes: dict[str, int] = {}
        """Likes that are not in the ranking yet."""
        self._changed: set[str] = set()
        """Kinds that may have something to push."""
        self._dirty: tuple[dict[str, None], ...] = tuple({} for _ in KINDS)
        """Users whose score has changed since it was taken for the ledger, by kind."""
        self._pushed: dict[str, tuple[RankedUser, ...]] = {}
        self._views: tuple[ActivityView, ...] | None = None
        self.is_hidden: Callable[[str], bool] = lambda user: False
        """Returns whether members do not see a user; its score counts all the same."""
        self.next_push_at = inf
        """When `push` has something to do: monotonic seconds."""

    def __getitem__(self, kind: str) -> Ranking:
        return self._by_kind[kind]

    def gave(self, paid: GiftPayload | HighlightPayload, offset: int) -> None:
        """Count a gift event or highlight of the stream; one that its giver's score has already is not counted."""
        user = plain_name(paid.user_id)
        cents = paid_cents(paid)
        if cents and offset > self._by_kind[GIFTS].reached_of(user):
            self.add(GIFTS, user, cents, offset)

    def liked(self, user: str, count: int) -> None:
        """Count likes, which are ranked with `count_likes`. About 0.2 us."""
        likes = self._likes
        if not likes:
            self._follow(LIKES)
        likes[user] = likes.get(user, 0) + count

    def count_likes(self, offset: int) -> None:
        """Rank the likes that have come; ``offset``: of the last event of the stream."""
        likes, self._likes = self._likes, {}
        for user, count in likes.items():
            self.add(LIKES, plain_name(user), count, offset)

    def add(self, kind: str, user: str, change: int, offset: int) -> None:
        """Change a score; by 0 nothing happens."""
        if not change:
            return
        self._by_kind[kind].add(user, change, offset)
        self._dirty[KINDS.index(kind)][user] = None
        self._follow(kind)

    def _follow(self, kind: str) -> None:
        if kind not in self._changed:
            self._changed.add(kind)
            self.next_push_at = min(self.next_push_at, self._by_kind[kind].next_push_ms / 1000)

    def rename(self, user: str, name: str) -> None:
        """Let another name stand for a user whose data are erased."""
        for kind, dirty in zip(KINDS, self._dirty, strict=True):
            dirty.pop(user, None)
            if self._by_kind[kind].rename(user, name):
                dirty[name] = None
                self._follow(kind)
        self._likes = {name if plain_name(each) == user else each: count for each, count in self._likes.items()}
        self._views = None

    # ---- what members see

    def push(self, now: float, offset: int) -> tuple[PushCounter, ...]:
        """Return what to send to every member: the first `PUSHED_TOP` of each ranking in which they have changed."""
        self.count_likes(offset)
        self._views = None
        now_ms = round(now * 1000)
        pushed: list[PushCounter] = []
        for kind in sorted(self._changed):
            ranking = self._by_kind[kind]
            if now_ms >= ranking.next_push_ms:
                self._changed.discard(kind)
                top = ranking.push(now_ms)
                if top is not None and top[:PUSHED_TOP] != self._pushed.get(kind):
                    self._pushed[kind] = top[:PUSHED_TOP]
                    data = self._as_record(kind, top[:PUSHED_TOP])
                    pushed.append(PushCounter(("rankings", kind), RoomEvent("rankings.changed", data)))
                if ranking.is_partial:
                    self._changed.add(kind)
        self.next_push_at = min((self._by_kind[kind].next_push_ms / 1000 for kind in self._changed), default=inf)
        return tuple(pushed)

    def show_again(self) -> None:
        """Make what members see anew: others are hidden now."""
        self._views = None
        self._pushed.clear()

    def views(self) -> tuple[ActivityView, ...]:
        """Return the first users of each ranking that has any, for the answer to a JOIN. Made once for each push."""
        if self._views is None:
            self._views = tuple(
                ActivityView("rankings", kind, as_json(self._as_record(kind, ranking.latest[:SNAPSHOT_TOP])))
                for kind, ranking in self._by_kind.items()
                if ranking.ranked
            )
        return self._views

    def page(
        self, kind: str, limit: int, user: str, around: int, now: float, offset: int
    ) -> tuple[RankingTop, RankedScore | None, tuple[RankedScore, ...]]:
        """Return the first users of a ranking, the rank of a user, None = it has none, and who is next to it."""
        self.count_likes(offset)
        ranking, now_ms = self._by_kind[kind], round(now * 1000)
        top = self._as_record(kind, ranking.top(now_ms)[:limit])
        rank = ranking.rank_of(user, now_ms)
        place = RankedScore(user, ranking.score_of(user), rank) if rank else None
        beside = ranking.around(user, around, now_ms) if around else ()
        return top, place, tuple(_score(each) for each in beside if each.user == user or not self.is_hidden(each.user))

    def _as_record(self, kind: str, top: Iterable[RankedUser]) -> RankingTop:
        ranking = self._by_kind[kind]
        shown = (user for user in top if not self.is_hidden(user.user))
        return RankingTop(
            kind, tuple(map(_score, shown)), ranking.total, ranking.ranked, ranking.is_partial, ranking.is_complete
        )

    # ---- what outlives the process

    def take_changes(self, limit: int, offset: int) -> tuple[StoredScore, ...]:
        """Return up to ``limit`` scores that have changed since they were taken, for the ledger."""
        self.count_likes(offset)
        taken: list[StoredScore] = []
        for kind, dirty in zip(KINDS, self._dirty, strict=True):
            ranking = self._by_kind[kind]
            while dirty and len(taken) < limit:
                user = next(iter(dirty))
                del dirty[user]
                taken.append(StoredScore(kind, user, ranking.score_of(user), ranking.reached_of(user)))
        return tuple(taken)

    def put_back(self, scores: Iterable[StoredScore]) -> None:
        """Let `take_changes` return scores again: the ledger could not take them."""
        for kind, user, *_ in scores:
            self._dirty[KINDS.index(kind)][user] = None

    def correct(self, kind: str, counts: Mapping[str, int], offset: int) -> None:
        """Make the scores of a kind those that are known otherwise; ``offset``: of the last event of the stream."""
        ranking = self._by_kind[kind]
        for user in {*counts, *(user for user, *_ in ranking.dump())}:
            self.add(kind, user, counts.get(user, 0) - ranking.score_of(user), offset)

    def restore(self, scores: Iterable[StoredScore]) -> None:
        """Go on with stored scores."""
        by_kind: dict[str, list[tuple[str, int, int]]] = {}
        for kind, user, score, reached in scores:
            by_kind.setdefault(kind, []).append((user, score, reached))
        for kind, found in by_kind.items():
            self._by_kind[kind].restore(found)

    def dump(self) -> tuple[StoredScore, ...]:
        """Return all scores."""
        return tuple(StoredScore(kind, *score) for kind, ranking in self._by_kind.items() for score in ranking.dump())


def paid_cents(paid: GiftPayload | HighlightPayload) -> int:
    """Return what a gift event or a paid message adds."""
    return paid.count * paid.price_cents if isinstance(paid, GiftPayload) else paid.cents


def _score(user: RankedUser) -> RankedScore:
    return RankedScore(user.user, user.score, user.rank)
