"""When two danmaku say the same."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from broker.core.chat.coalesce import MAX_NFKC_CHARS, normalize

# Text where the forms differ: full-width signs, ligatures, Hangul jamo, combining marks, case without a pair.
ODD_TEXT = st.text(st.sampled_from("Aa！，　６ﬃ가ᄀ\u1161\u0301\u0315éßİΣς㌔\u00a0哈 \t😂"), max_size=12)


@given(st.text(max_size=40) | ODD_TEXT)
def test_normalize_is_nfkc_and_case_folding_without_outer_space(text: str) -> None:
    assert normalize(text) == unicodedata.normalize("NFKC", text).casefold().strip()


def test_what_viewers_take_for_the_same_text_is_equal() -> None:
    assert normalize("６６６") == normalize(" 666 ")
    assert normalize("ＡＷＳＬ！") == normalize("awsl!")
    assert normalize("e\u0301") == normalize("É")
    assert normalize("666") != normalize("6666")


def test_very_long_texts_are_compared_by_case_alone() -> None:
    marks = "A" + "\u0315\u0300" * (MAX_NFKC_CHARS // 2)
    assert normalize(marks[:MAX_NFKC_CHARS]) == unicodedata.normalize("NFKC", marks[:MAX_NFKC_CHARS]).casefold()
    assert normalize(marks) == "a" + marks[1:]
