"""When two danmaku say the same."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.core.chat.fold import MAX_NFKC_CHARS, fold
from protocol.text import INVISIBLE

# Text where the forms differ: full-width signs, ligatures, Hangul jamo, combining marks, case without a pair.
ODD_TEXT = st.text(
    st.sampled_from("Aa！，　６ﬃ가ᄀ\u1161\u0301\u0315éßİΣς㌔\u00a0哈 \t😂\u200b\ufe0f\u3164"), max_size=12
)
PLAIN_TEXT = st.text(
    st.sampled_from("aZ~ !<=>\t,\u3002\uff0c\uff01\uff1f买它がガ각가😂🏽🚀")
    | st.characters(min_codepoint=0x3000, max_codepoint=0x30FF),
    max_size=12,
)
"""Mostly of characters that take a short way, with some that must not."""
MARKS = re.compile("[\u0300-\u036f\u1ab0-\u1ace\u1dc0-\u1dff\u20d0-\u20dc\ufe20-\ufe2f]")
HIDDEN = st.sampled_from("\u200b\u2060\u00ad\ufe0f\U000e0020\u3164\u200d\ufeff\u034f\u180e\u2800")


@given(st.text(max_size=40) | ODD_TEXT | PLAIN_TEXT)
@example("\uff1c\u0338买")
@example("が\u3099が")
@example("가\u11a8")
def test_fold_is_nfkc_and_case_folding_of_what_is_seen(text: str) -> None:
    seen = MARKS.sub("", unicodedata.normalize("NFKC", INVISIBLE.sub("", text)))
    assert fold(text) == " ".join(seen.casefold().split())


def test_no_character_takes_a_short_way_that_gives_another_result() -> None:
    for code in (*range(0xD800), *range(0xE000, 0x1FA00)):
        for text in ("买" + chr(code) + "它", "e" + chr(code) + "买"):
            seen = MARKS.sub("", unicodedata.normalize("NFKC", INVISIBLE.sub("", text)))
            assert fold(text) == " ".join(seen.casefold().split())


@given(st.text(max_size=20), HIDDEN, st.integers(0, 20))
def test_a_character_that_nobody_sees_changes_nothing(text: str, hidden: str, place: int) -> None:
    text = unicodedata.normalize("NFC", INVISIBLE.sub("", text))
    assert fold(text[:place] + hidden + text[place:]) == fold(text)


def test_every_character_that_unicode_calls_ignorable_counts_for_nothing() -> None:
    import regex  # an independent table of Unicode

    is_ignorable = regex.compile(r"[\p{Default_Ignorable_Code_Point}\ufff9-\ufffb\u2800]").match
    ignorable = [chr(code) for code in range(0x110000) if is_ignorable(chr(code))]
    assert len(ignorable) > 4000
    assert [character for character in ignorable if fold("买" + character + "它") != "买它"] == []


def test_what_viewers_take_for_the_same_text_is_equal() -> None:
    assert fold("６６６") == fold(" 666 ")
    assert fold("ＡＷＳＬ！") == fold("awsl!")
    assert fold("e\u0301") == fold("É")
    assert fold("买它  买它") == fold("买它\u3000买它")
    assert fold("z\u0335\u0336\u0310algo") == fold("zalgo")
    assert fold("666") != fold("6666")


@pytest.mark.parametrize(("one", "other"), [("กา", "กี"), ("कि", "की"), ("e", "é"), ("👍🏽", "👍🏿")])
def test_texts_that_look_different_stay_different(one: str, other: str) -> None:
    assert fold(one) != fold(other)


def test_very_long_texts_are_compared_without_composition() -> None:
    marks = "A" + "\u0f71\u0f72" * MAX_NFKC_CHARS
    assert fold(marks) == marks.casefold()
    assert fold("A" + "\u0315\u0300" * MAX_NFKC_CHARS) == "a"
