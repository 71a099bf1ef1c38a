"""Near-duplicates: small changes make no other text, different texts are never alike, memory is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.moderation.near_duplicates import OTHERS, OWN, NearDuplicates, shingles

SPAM = "低价出各种会员账号找我私聊"


def is_found(said: list[tuple[str, str]]) -> list[bool]:
    seen = NearDuplicates()
    return [seen.is_near_duplicate(user, text, 1.0) for user, text in said]


@pytest.mark.parametrize(
    "other",
    [
        SPAM + "123", SPAM + "🔥🔥", "好 " + SPAM, SPAM.replace("各种", "多种"), "\u200b".join(SPAM), " ".join(SPAM),
        SPAM.replace("号", "號"), SPAM + "！！", SPAM + "\u0301",
    ],
)  # fmt: skip
def test_small_changes_make_no_other_text(other: str) -> None:
    assert is_found([("eve", SPAM), ("eve", SPAM + "7"), ("eve", other)]) == [False, False, True]


def test_many_users_who_say_nearly_the_same_are_found() -> None:
    said = [(f"user-{number}", f"{SPAM}{number}") for number in range(OTHERS + 2)]
    assert is_found(said) == [False] * OTHERS + [True] * 2


@pytest.mark.parametrize("text", ["来了来了", "主播好美", "666666666666", "哈哈哈哈哈哈哈哈", "加油"])
def test_short_and_simple_texts_are_never_near_duplicates(text: str) -> None:
    assert not any(is_found([(f"user-{number % 3}", text) for number in range(50)]))


def test_different_texts_are_not_alike() -> None:
    texts = [
        "这件衣服有没有大码的", "主播能不能试一下黑色", "昨天买的已经收到了谢谢", "请问这个面料会不会掉色",
        "现在下单什么时候可以发货", "this song is so good today", "how long is the show tonight",
    ]  # fmt: skip
    assert not any(is_found([(user, text) for user in "abcdefgh"[:3] for text in texts]))


def test_what_was_said_long_ago_does_not_count() -> None:
    seen = NearDuplicates(window_s=10.0)
    assert [seen.is_near_duplicate("eve", SPAM, at) for at in (0.0, 1.0, 2.0, 12.5, 13.0, 14.0)] == [
        False, False, True, False, False, True,
    ]  # fmt: skip


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.text("甲乙丙丁戊己庚辛", max_size=12), st.integers(0, 3))),
    st.integers(1, 5),
)
def test_memory_is_bounded_and_holds_only_what_is_recent(said: list[tuple[str, str, int]], most: int) -> None:
    seen, now = NearDuplicates(window_s=5.0, max_texts=most), 0.0
    for user, text, passed in said:
        now += passed
        seen.is_near_duplicate(user, text, now)
        assert len(seen) <= most
        assert seen.shingle_count <= len(seen) * 12
    seen.is_near_duplicate("z", SPAM, now + 5.0)
    assert (len(seen), seen.shingle_count) == (1, len(shingles(SPAM)))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([SPAM, SPAM + "好的", "完全不同的一句话而已啊"]))))
def test_the_index_finds_what_comparing_with_all_finds(said: list[tuple[str, str]]) -> None:
    expected, before = [], list[tuple[str, frozenset[str]]]()
    for user, text in said:
        found = shingles(text)
        alike = [who for who, other in before if len(found & other) >= 0.6 * len(found | other)]
        expected.append(alike.count(user) >= OWN or len(set(alike) - {user}) >= OTHERS)
        before.append((user, found))
    assert is_found(said) == expected
