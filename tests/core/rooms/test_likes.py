from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.rooms.likes import LikeCounter, LikeUpdate

users = st.sampled_from(["ann", "bob", "cat", "dan", "eve"])
# (1/64 s since the last call, user or None = take, likes)
calls = st.lists(st.tuples(st.integers(0, 50), st.none() | users, st.integers(0, 1000)), max_size=80)


def test_an_update_says_how_many_came_how_many_there_are_and_who_gave_most() -> None:
    likes = LikeCounter(total=1000)
    for user_id, count in (("ann", 3), ("bob", 9), ("cat", 1), ("dan", 3), ("ann", 1), ("eve", 3)):
        likes.add(user_id, count, 0.0)
    assert (likes.total, likes.delta) == (1020, 20)
    assert likes.take(0.1) == LikeUpdate(1020, 20, (("bob", 9), ("ann", 4), ("dan", 3)))
    assert likes.delta == 0


def test_the_first_like_after_a_quiet_time_goes_at_once_and_then_one_update_a_second() -> None:
    likes = LikeCounter()
    assert likes.due_at == inf
    assert likes.take(0.0) is None
    likes.add("ann", 1, 5.0)
    assert likes.due_at == 5.0
    assert likes.take(5.0) == LikeUpdate(1, 1, (("ann", 1),))
    likes.add("ann", 2, 5.25)
    assert likes.due_at == 6.0
    assert likes.take(5.75) is None
    assert likes.take(6.0) == LikeUpdate(3, 2, (("ann", 2),))
    assert likes.take(99.0) is None


@given(st.integers(0, 10**12), calls)
def test_deltas_add_up_to_the_total_and_every_top_is_the_true_one(
    start: int, sent: list[tuple[int, str | None, int]]
) -> None:
    likes = LikeCounter(start)
    tick, reported, came, interval = 0, start, start, Counter[str]()
    for step, user_id, count in sent:
        tick += step
        if user_id is not None:
            likes.add(user_id, count, tick / 64)
            came += count
            if count:
                interval[user_id] += count
        else:
            due = likes.due_at <= tick / 64
            update = likes.take(tick / 64)
            assert (update is not None) == due
            if update is not None:
                reported += update.delta
                assert update.total == reported
                assert update.top == tuple(interval.most_common(3))
                interval.clear()
        assert likes.total == came == reported + likes.delta


@given(st.lists(st.integers(0, 200), max_size=60))
def test_updates_are_at_least_an_interval_apart(steps: list[int]) -> None:
    likes, tick, taken_at = LikeCounter(), 0, list[int]()
    for step in steps:
        tick += step
        likes.add("ann", 1, tick / 64)
        if likes.take(tick / 64):
            taken_at.append(tick)
    assert all(later - earlier >= 64 for earlier, later in pairwise(taken_at))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), max_size=100))
def test_users_beyond_the_bound_still_count_in_full(sent: list[tuple[int, int]]) -> None:
    likes, first = LikeCounter(max_likers=5), dict[int, int]()
    for user, count in sent:
        likes.add(str(user), count, 0.0)
        if user in first or len(first) < 5:
            first[user] = first.get(user, 0) + count
    assert likes.total == sum(count for _, count in sent)
    assert likes.unranked == likes.total - sum(first.values())
    update = likes.take(0.0)
    assert (update.top if update else ()) == tuple((str(u), n) for u, n in Counter(first).most_common(3))


def test_likes_are_not_taken_back() -> None:
    likes = LikeCounter()
    with pytest.raises(ValueError, match="taken back"):
        likes.add("ann", -1, 0.0)
    assert likes.total == 0


@pytest.mark.parametrize("arguments", [(-1, 1.0, 10), (0, 0.0, 10), (0, 1.0, 2)])
def test_a_senseless_counter_is_refused(arguments: tuple[int, float, int]) -> None:
    with pytest.raises(ValueError, match="not a like counter"):
        LikeCounter(*arguments)
