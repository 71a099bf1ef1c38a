from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.core.chat.duplicates import DuplicateFilter


def seen(duplicates: DuplicateFilter, user_id: str, text: str, now: float) -> bool:
    """Judge a text and mark it, as for a message that every other rule takes."""
    key = hash((user_id, text))
    is_duplicate = duplicates.is_duplicate(key, now)
    if not is_duplicate:
        duplicates.mark(key, now)
    return is_duplicate


def test_a_text_that_was_not_taken_in_is_no_duplicate() -> None:
    duplicates = DuplicateFilter()
    assert not duplicates.is_duplicate(hash(("ann", "666")), 0.0)
    assert not duplicates.is_duplicate(hash(("ann", "666")), 0.1)
    assert duplicates.refused == 0


def test_the_same_user_may_not_repeat_a_text_within_the_window() -> None:
    duplicates = DuplicateFilter(window_s=30)
    assert not seen(duplicates, "ann", "666", 0.0)
    assert seen(duplicates, "ann", "666", 29.9)
    assert not seen(duplicates, "bob", "666", 1.0), "what others say again is merged, not refused"
    assert not seen(duplicates, "ann", "777", 1.0)
    assert not seen(duplicates, "ann", "666", 30.0)
    assert duplicates.refused == 1


def test_a_refused_repetition_does_not_prolong_the_window() -> None:
    duplicates = DuplicateFilter(window_s=30)
    assert [seen(duplicates, "ann", "加油", now) for now in (0, 10, 20, 30, 40)] == [False, True, True, False, True]


def test_user_and_text_are_not_confused_at_their_border() -> None:
    duplicates = DuplicateFilter()
    assert not seen(duplicates, "ab", "c", 0.0)
    assert not seen(duplicates, "a", "bc", 0.0)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy")), max_size=20))
def test_a_window_of_0_is_off(sent: list[tuple[str, str]]) -> None:
    duplicates = DuplicateFilter(window_s=0)
    assert not any(seen(duplicates, user_id, text, 0.0) for user_id, text in sent)
    assert len(duplicates) == duplicates.refused == duplicates.forgotten == 0


said = st.tuples(st.integers(0, 200), st.sampled_from("abc"), st.sampled_from(["x", "xx", "", "刷屏"]))


@given(st.integers(1, 400), st.lists(said, max_size=80))
def test_it_equals_a_list_of_all_that_was_said(window: int, sent: list[tuple[int, str, str]]) -> None:
    duplicates, passed, tick = DuplicateFilter(window / 64), list[tuple[int, str, str]](), 0
    for step, user_id, text in sent:
        tick += step
        again = any(tick - at < window and (u, t) == (user_id, text) for at, u, t in passed)
        assert seen(duplicates, user_id, text, tick / 64) == again
        if not again:
            passed.append((tick, user_id, text))
    assert duplicates.refused == len(sent) - len(passed)


@given(st.integers(2, 10), st.lists(said, max_size=80))
def test_memory_is_bounded_and_a_full_table_lets_pass_rather_than_refuse(
    max_keys: int, sent: list[tuple[int, str, str]]
) -> None:
    small, large = DuplicateFilter(1000, max_keys), DuplicateFilter(1000)
    for _, user_id, text in sent:
        if seen(small, user_id, text, 0.0):
            assert seen(large, user_id, text, 0.0)
        else:
            seen(large, user_id, text, 0.0)
        assert len(small) <= max_keys
    assert small.refused <= large.refused
    assert small.forgotten > 0 or small.refused == large.refused
