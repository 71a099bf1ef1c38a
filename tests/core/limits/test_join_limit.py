from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from broker.core.limits.join_limit import MAX_RETURNS, RETURN_WINDOW_S, JoinLimit
from broker.core.limits.rate_limit import UNLIMITED, Rate
from protocol.codes import Role

BURST, PER_S = 4, 0.5


@given(
    st.lists(st.tuples(st.integers(0, 4000), st.sampled_from("ab"), st.sampled_from(Role), st.booleans()), max_size=60)
)
def test_only_rooms_new_to_a_viewer_count_and_a_told_wait_is_enough(asked: list[tuple[int, str, Role, bool]]) -> None:
    limit, now, passed = JoinLimit(Rate(PER_S, BURST)), 0.0, Counter[str]()
    for gap_ms, user, role, is_free in asked:
        now += gap_ms / 1000
        wait_s = limit.wait_s(user, role, now, is_free=is_free)
        if is_free or role >= Role.MODERATOR:
            assert wait_s == 0.0
        elif wait_s:
            now += wait_s
            assert limit.wait_s(user, role, now, is_free=False) == 0.0
            passed[user] += 1
        else:
            passed[user] += 1
    assert all(count <= BURST + now * PER_S + 1 for count in passed.values())


@given(st.lists(st.tuples(st.integers(0, 4000), st.sampled_from("abc")), max_size=40))
def test_a_sweep_forgets_users_at_rest_and_changes_no_answer(asked: list[tuple[int, str]]) -> None:
    swept, kept, now = JoinLimit(Rate(PER_S, BURST)), JoinLimit(Rate(PER_S, BURST)), 0.0
    for gap_ms, user in asked:
        now += gap_ms / 1000
        swept.sweep(now)
        wait_s = swept.wait_s(user, Role.VIEWER, now, is_free=False)
        assert wait_s == kept.wait_s(user, Role.VIEWER, now, is_free=False)
    swept.sweep(now + BURST / PER_S + 1)
    swept.sweep(now + BURST / PER_S + 1)
    assert len(swept) == 0


def test_a_room_that_was_left_is_returned_to_within_the_window() -> None:
    limit = JoinLimit(Rate(PER_S, BURST))
    limit.left("ann", "lobby", 10.0)
    assert limit.is_return("ann", "lobby", 10.0 + RETURN_WINDOW_S - 1)
    assert not limit.is_return("ann", "lobby", 10.0 + RETURN_WINDOW_S)
    assert not limit.is_return("bob", "lobby", 11.0)
    assert not limit.is_return("ann", "other", 11.0)


def test_marks_of_rooms_are_bounded() -> None:
    limit = JoinLimit(Rate(PER_S, BURST))
    for number in range(MAX_RETURNS + 1):
        limit.left("ann", f"room-{number}", 0.0)
    assert not limit.is_return("ann", "room-0", 0.0)
    assert limit.is_return("ann", f"room-{MAX_RETURNS}", 0.0)


def test_without_a_limit_nothing_is_refused_or_remembered() -> None:
    limit = JoinLimit(UNLIMITED)
    limit.left("ann", "lobby", 0.0)
    assert not limit.is_return("ann", "lobby", 0.0)
    assert not any(limit.wait_s("ann", Role.VIEWER, 0.0, is_free=False) for _ in range(1000))
