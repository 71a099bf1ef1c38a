"""Rankings are those of a full sort, whatever comes in whatever order, and are pushed when they change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broker.core.commerce.rankings import RankedUser, Ranking

CASES = json.loads((Path(__file__).parent / "vectors/rankings.json").read_text(encoding="utf-8"))["cases"]


def pairs(top: tuple[RankedUser, ...] | None) -> list[list[Any]]:
    assert top is not None
    assert [each.rank for each in top] == list(range(1, len(top) + 1))
    return [[each.user, each.score] for each in top]


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_histories_have_the_tops_pushes_and_ranks_of_the_vectors(case: dict[str, Any]) -> None:
    ranking = Ranking(case["size"], case["every_ms"])
    pushes: list[list[Any]] = []

    def push(at_ms: int) -> None:
        top = ranking.push(at_ms)
        if top is not None:
            pushes.append([at_ms, pairs(top)])

    waits = False
    for at_ms, offset, changes in case["steps"]:
        if waits and ranking.next_push_ms < at_ms:
            push(ranking.next_push_ms)
        for user, change in changes:
            ranking.add(user, change, offset)
        push(at_ms)
        waits = at_ms < ranking.next_push_ms
    end_ms = case["end_at"]
    if waits and ranking.next_push_ms <= end_ms:
        push(ranking.next_push_ms)
    assert pushes == case["result"]["pushes"]
    assert pairs(ranking.top(end_ms)) == case["result"]["top"]
    assert ranking.total == case["result"]["total"]
    assert [[user, ranking.rank_of(user, end_ms)] for user in case["ask"]] == case["result"]["ranks"]


def test_a_fall_out_of_the_top_is_made_up_for_once_a_second() -> None:
    ranking = Ranking(size=2)
    for offset, (user, score) in enumerate([("a", 9), ("b", 8), ("c", 7), ("d", 6)], 1):
        ranking.add(user, score, offset)
    ranking.add("a", -8, 5)
    assert ranking.is_partial
    assert pairs(ranking.top(10_000)) == [["b", 8], ["c", 7]]
    ranking.add("b", -7, 6)
    assert pairs(ranking.top(10_999)) == [["c", 7]]
    assert ranking.is_partial
    assert pairs(ranking.top(11_000)) == [["c", 7], ["d", 6]]
    assert not ranking.is_partial


def test_a_hole_in_the_top_is_closed_by_who_rises_into_it() -> None:
    ranking = Ranking(size=2)
    for offset, (user, score) in enumerate([("a", 9), ("b", 8), ("c", 7)], 1):
        ranking.add(user, score, offset)
    ranking.add("a", -9, 4)
    assert ranking.is_partial
    ranking.add("c", 10, 5)
    assert not ranking.is_partial
    assert pairs(ranking.top(0)) == [["c", 17], ["b", 8]]


def test_users_beyond_the_bound_count_in_the_total_only() -> None:
    ranking = Ranking(size=1, max_users=2)
    for offset, user in enumerate("abc", 1):
        ranking.add(user, 5, offset)
    assert (ranking.total, len(ranking), ranking.is_complete) == (15, 2, False)
    assert ranking.rank_of("c", 0) == 0


def test_the_users_around_one_are_those_next_to_it() -> None:
    ranking = Ranking(size=2)
    for offset in range(1, 10):
        ranking.add(f"u{offset}", 100 - offset, offset)
    found = ranking.around("u5", 2, 5_000)
    assert [(each.user, each.rank) for each in found] == [("u3", 3), ("u4", 4), ("u5", 5), ("u6", 6), ("u7", 7)]
    assert [each.user for each in ranking.around("u1", 1, 5_000)] == ["u1", "u2"]
    assert ranking.around("nobody", 1, 5_000) == ()


def test_another_name_takes_the_place_of_an_erased_user() -> None:
    ranking = Ranking(size=2)
    for offset, (user, score) in enumerate([("a", 9), ("b", 8), ("c", 7)], 1):
        ranking.add(user, score, offset)
    assert ranking.rename("b", "erased-1")
    assert not ranking.rename("b", "erased-2")
    assert pairs(ranking.top(0)) == [["a", 9], ["erased-1", 8]]
    assert (ranking.score_of("b"), ranking.score_of("erased-1"), ranking.total, ranking.ranked) == (0, 8, 24, 3)


def test_what_makes_no_ranking_is_refused() -> None:
    for bad in ({"size": 0}, {"every_ms": -1}, {"max_users": 5}):
        with pytest.raises(ValueError, match="not a ranking"):
            Ranking(**bad)


class Rankings(RuleBasedStateMachine):
    """Scores that rise and fall, against a full sort."""

    @initialize(size=st.integers(1, 4))
    def begin(self, size: int) -> None:
        self.size = size
        self.ranking = Ranking(size)
        self.scores: dict[str, tuple[int, int]] = {}
        self.total = 0
        self.offset = 0
        self.now_ms = 1_790_000_000_000
        self.pushed_ms: list[int] = []

    @rule(
        user=st.sampled_from(["a", "b", "c", "～", "😀", "\ue000", "z"]),
        change=st.integers(-20, 20),
        is_new_offset=st.booleans(),
    )
    def change(self, user: str, change: int, is_new_offset: bool) -> None:
        self.offset += is_new_offset
        self.ranking.add(user, change, self.offset)
        if change:
            self.scores[user] = self.scores.get(user, (0, 0))[0] + change, self.offset
            self.total += change

    @rule(ms=st.sampled_from([10, 500, 1_000, 3_000]))
    def wait(self, ms: int) -> None:
        self.now_ms += ms

    @rule()
    def push(self) -> None:
        if self.ranking.push(self.now_ms) is not None:
            assert not self.pushed_ms or self.now_ms >= self.pushed_ms[-1] + 2_000
            self.pushed_ms.append(self.now_ms)
            assert self.ranking.push(self.now_ms + 5_000) is None, "nothing has changed"

    @rule()
    def restart(self) -> None:
        stored, total = self.ranking.dump(), self.ranking.total
        self.ranking = Ranking(self.size)
        self.ranking.restore(stored)
        self.pushed_ms.clear()
        assert (self.ranking.dump(), self.ranking.total) == (stored, total)

    def sorted(self) -> list[str]:
        ranked = [(-score, reached, user.encode(), user) for user, (score, reached) in self.scores.items() if score > 0]
        return [user for *_, user in sorted(ranked)]

    @rule()
    def ask_for_ranks(self) -> None:
        self.now_ms += 1_000
        order = self.sorted()
        for user in self.scores:
            assert self.ranking.rank_of(user, self.now_ms) == (order.index(user) + 1 if user in order else 0)

    @invariant()
    def the_top_is_that_of_a_full_sort(self) -> None:
        if not hasattr(self, "ranking"):
            return
        order = self.sorted()
        assert self.ranking.total == self.total
        assert self.ranking.ranked == len(order)
        top = [each.user for each in self.ranking.top(self.now_ms)]
        if self.ranking.is_partial:
            assert top == order[: len(top)]
        else:
            assert top == order[: self.size]


TestRankings = Rankings.TestCase
