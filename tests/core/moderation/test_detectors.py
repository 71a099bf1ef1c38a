"""Detectors find what they are for, also disguised, and nothing in what people say in rooms."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.moderation.detectors import REPEATED_CHARS, Detector, detect, has_link

INNOCENT = (Path(__file__).parent / "innocent.txt").read_text("utf-8").splitlines()


@pytest.mark.parametrize(
    ("text", "detector", "found"),
    [
        ("看 https://例子.cn/a", Detector.LINK, "https://例"),
        ("taobao.com", Detector.LINK, "taobao.com"),
        ("进 shop.example.com 看", Detector.LINK, "shop.example.com"),
        ("ｔａｏｂａｏ．ｃｏｍ", Detector.LINK, "ｔａｏｂａｏ．ｃｏｍ"),
        ("taobao点com", Detector.LINK, "taobao点com"),
        ("taobao . com", Detector.LINK, "taobao . com"),
        ("tao\u200bbao.c\u200bom", Detector.LINK, "tao\u200bbao.c\u200bom"),
        ("www。a123", Detector.LINK, "www。a"),
        ("t.me/abc", None, ""),
        ("打13800138000", Detector.PHONE, "13800138000"),
        ("138-0013-8000", Detector.PHONE, "138-0013-8000"),
        ("一三八零零一三八零零零", Detector.PHONE, "一三八零零一三八零零零"),
        ("①③⑧00138000", Detector.PHONE, "①③⑧00138000"),
        ("+49 171 1234567", Detector.PHONE, "+49 171 1234567"),
        ("订单 2026112813800138000", None, ""),
        ("165 170 175 180 有吗", None, ""),
        ("3.5cm", None, ""),
        ("vx：abc12345", Detector.CONTACT, "vx：abc12345"),
        ("ＱＱ 12345678", Detector.CONTACT, "ＱＱ 12345678"),
        ("微信是shop_2026", Detector.CONTACT, "微信是shop_2026"),
        ("微信支付 199", None, ""),
        ("qq糖 500g", None, ""),
        ("买" * REPEATED_CHARS, Detector.REPEATED, "买" * REPEATED_CHARS),
        ("加我吧" * 7, Detector.REPEATED, "加我吧" * 7),
        ("哈" * (REPEATED_CHARS - 1), None, ""),
    ],
)
def test_examples(text: str, detector: Detector | None, found: str) -> None:
    assert [(each.detector, text[each.start : each.end]) for each in detect(text)] == (
        [] if detector is None else [(detector, found)]
    )


def test_nothing_is_detected_in_innocent_texts() -> None:
    assert [text for text in INNOCENT if detect(text)] == []


@given(st.text("a1.点 8+哈:/\u200b③ｗＡ-", max_size=100))
def test_places_are_inside_the_text(text: str) -> None:
    for each in detect(text):
        assert 0 <= each.start < each.end <= len(text)


@given(
    st.from_regex(r"1[3-9]\d{9}", fullmatch=True),
    st.lists(st.sampled_from(["", " ", "-", ".", "\u200b"]), min_size=10, max_size=10),
)
def test_a_phone_number_with_marks_is_detected(number: str, marks: list[str]) -> None:
    text = number[0] + "".join(mark + each for mark, each in zip(marks, number[1:], strict=True))
    assert Detector.PHONE in [each.detector for each in detect(f"打 {text} 找我")]


def test_a_link_that_is_shown_from_right_to_left_is_one() -> None:
    assert has_link("\u202emoc.elpmaxe.pohs")
    assert not has_link("moc.elpmaxe.pohs")
    assert not has_link("\u202e哈哈")
