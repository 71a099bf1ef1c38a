"""Text that is shown to people: `plain` gives only displayable text, and changes nothing else."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codes import MessageType
from protocol.fields import FieldError
from protocol.payloads import check_payload
from protocol.text import BIDI_CONTROLS, is_blank, is_displayable, masked_name, plain


@given(st.text(st.characters(categories=None)))
def test_plain_text_is_displayable_and_of_the_same_length(text: str) -> None:
    shown = plain(text)
    assert is_displayable(shown)
    assert len(shown) == len(text)
    assert shown.splitlines() in ([], [shown])
    assert plain(shown) == shown


@given(st.text(st.characters(categories=None)))
def test_displayable_text_is_left_as_it_is(text: str) -> None:
    assert is_displayable(text) == (plain(text) == text)


@pytest.mark.parametrize("character", ["\n", "\x1b", "\u2028", "\ud800", *sorted(BIDI_CONTROLS)])
def test_controls_are_refused(character: str) -> None:
    assert not is_displayable(f"a{character}b")
    assert plain(f"a{character}b") == "a\ufffdb"


@pytest.mark.parametrize("text", ["\u597d\u770b", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "caf\u00e9", ""])
def test_ordinary_text_and_joined_emoji_are_displayable(text: str) -> None:
    assert is_displayable(text)


@given(st.text())
def test_plain_text_never_moves_the_cursor_and_keeps_its_length(text: str) -> None:
    shown = plain(text)
    assert len(shown) == len(text)
    assert not [each for each in shown if unicodedata.category(each) in ("Cc", "Zl", "Zp", "Cs")]


def test_plain_text_replaces_escapes_and_reordered_text_but_keeps_emoji_together() -> None:
    assert plain("\x1b[31mred\u202e") == "\ufffd[31mred\ufffd"
    assert plain("👩\u200d💻 你好") == "👩\u200d💻 你好"


@pytest.mark.parametrize(
    "text",
    [
        "\U0001f44d\U0001f3fd" * 100, "\u2764\ufe0f" * 100, "กี่" * 100, "कि" * 100, "x" * 100,
        "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466" * 40,
    ],
)  # fmt: skip
def test_a_danmaku_is_measured_in_characters_as_people_count_them(text: str) -> None:
    assert check_payload(MessageType.DANMAKU, (text,)).text == text


@pytest.mark.parametrize(
    "text", ["\u2764\ufe0f" * 101, "x" * 101, "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 60, "a" + "\u0301" * 500]
)
def test_too_many_characters_or_too_many_bytes_are_refused(text: str) -> None:
    with pytest.raises(FieldError, match="1 to 100 characters"):
        check_payload(MessageType.DANMAKU, (text,))


@pytest.mark.parametrize("kind", [MessageType.DANMAKU, MessageType.ANNOUNCEMENT])
@given(text=st.text(st.sampled_from(" \u00a0\u3000\u200b\u2060\u00ad\ufe0f\U000e0020\u3164\u2800\ufeff"), max_size=20))
def test_a_text_that_shows_nothing_is_refused(kind: MessageType, text: str) -> None:
    assert is_blank(text)
    with pytest.raises(FieldError):
        check_payload(kind, (text,))


@pytest.mark.parametrize(
    ("name", "masked"),
    [
        ("", "***"),
        ("a", "a***"),
        ("Alice", "A***"),
        ("\u5c0f\u660e", "\u5c0f***"),
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467 family", "\U0001f468\u200d\U0001f469\u200d\U0001f467***"),
        ("e\u0301mile", "e\u0301***"),
        ("A\u5c0f", "A***"),
    ],
)
def test_a_masked_name_shows_one_character_and_no_length(name: str, masked: str) -> None:
    assert masked_name(name) == masked


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=64))
def test_a_masked_name_is_a_prefix_and_three_stars(name: str) -> None:
    masked = masked_name(name)
    assert masked.endswith("***")
    assert name.startswith(masked[:-3])
