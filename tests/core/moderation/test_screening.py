"""Screens: the highest action counts, the original text is masked, and a screen holds where its lists say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.moderation import screening
from broker.core.moderation.detectors import Detector
from broker.core.moderation.screening import OTHER, Screen, ScreenGroup, ScreenResult, Screens
from broker.core.moderation.words import Finding, WordAction, WordFilter, WordList
from broker.core.tenants.names import qualify
from protocol.codes import MessageType

FLAG, MASK, HOLD, BLOCK = WordAction.FLAG, WordAction.MASK, WordAction.HOLD, WordAction.BLOCK
LISTS = [
    WordList("noted", FLAG, ["便宜"], (), "price"),
    WordList("ads", MASK, ["套现", "badword"], ["整套现货"], "advertising"),
    WordList("worst", BLOCK, ["赌博"], (), "gambling"),
]
SCREEN = Screen([WordFilter.build(LISTS)], {})


@pytest.mark.parametrize(
    ("text", "action", "shown"),
    [
        ("今天真好", None, "今天真好"),
        ("真便宜", FLAG, "真便宜"),
        ("可以套*现吗", MASK, "可以***吗"),
        ("便宜套现", MASK, "便宜**"),
        ("套现和赌博", BLOCK, "**和赌博"),
        ("整套现货", None, "整套现货"),
        ("hi \u202edrowdab!", MASK, "hi *******!"),  # shown from right to left
        ("badword \u202e博赌", BLOCK, "******* \u202e博赌"),
        ("drowdab", None, "drowdab"),
    ],
)
def test_the_highest_action_counts(text: str, action: WordAction | None, shown: str) -> None:
    verdict, payload = SCREEN.screened(MessageType.DANMAKU, (text, None))
    assert (verdict and verdict.action) == action
    assert payload == (shown, None)
    assert SCREEN.judge(text) is verdict  # it is known from now on


def test_the_reason_is_the_category_of_the_highest_action() -> None:
    verdict = SCREEN.judge("便宜 套现 赌博")
    assert verdict is not None
    assert verdict.reason == "gambling"


def test_a_name_is_masked_whatever_the_action_and_never_refused() -> None:
    assert [SCREEN.masked_name(name) for name in ("Ann", "赌博之王", "便宜", "b.a.d.w.o.r.d")] == [
        "Ann", "**之王", "便宜", "*.*.*.*.*.*.*",
    ]  # fmt: skip


def test_detectors_find_and_mask() -> None:
    screen = Screen([], {Detector.LINK: MASK, Detector.PHONE: BLOCK})
    verdict, (text,) = screen.screened(MessageType.ANNOUNCEMENT, ("see shop.example.com now",))
    assert verdict is not None
    assert (verdict.action, verdict.findings[0].category, text) == (MASK, "link", "see ****.*******.*** now")
    assert screen.judge("加vx: abc12345") is None  # that one is off


payloads = st.recursive(
    st.sampled_from(["套现", "好", "badword!", 7, None, True]),
    lambda inner: st.one_of(st.lists(inner, max_size=3).map(tuple), st.dictionaries(st.sampled_from("ab"), inner)),
    max_leaves=8,
)


def texts_in(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ()
    return [text for each in inside for text in texts_in(each)]


@given(payloads)
def test_every_text_in_a_message_of_an_own_type_is_screened(payload: Any) -> None:
    verdict, shown = SCREEN.screened(200, payload)
    masked = {"套现": "**", "badword!": "*******!"}
    assert texts_in(shown) == [masked.get(text, text) for text in texts_in(payload)]
    assert (verdict is None) == (shown == payload)


def test_gifts_have_names_and_highlights_both() -> None:
    gift = ("o-1", "ann", "套现", "rose", 1, 100, "", True, 0, 0, 0, 0)
    assert SCREEN.screened(MessageType.GIFT, gift) == (None, (*gift[:2], "**", *gift[3:]))
    verdict, shown = SCREEN.screened(MessageType.HIGHLIGHT, ("o-2", "ann", "赌博", "套现", 100, 0, 0, 0))
    assert verdict is not None
    assert (verdict.action, shown[2:4]) == (MASK, ("**", "**"))


def test_a_message_without_text_is_as_it_was() -> None:
    assert SCREEN.screened(MessageType.LIKE, (3,)) == (None, (3,))


def test_a_full_memory_changes_nothing() -> None:
    screen = Screen([WordFilter.build(LISTS)], {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screening, "MAX_KNOWN", 2)
        verdicts = [screen.judge(text) for text in ("套现", "a", "b", "套现", "赌博" * 300)]
    assert [each and each.action for each in verdicts] == [MASK, None, None, MASK, BLOCK]


def group(word: str, tenant: str | None, *rooms: str) -> ScreenGroup:
    return ScreenGroup(tenant, rooms, WordFilter.build([WordList("x", BLOCK, [word])]))


def test_a_screen_holds_in_the_rooms_of_its_tenant() -> None:
    screens = Screens()
    assert screens.of("live-1") is None
    screens.use([group("甲", "", "live-*"), group("乙", "acme", "*"), group("丙", None, "vip")], {}, frozenset())

    def found_in(tenant: str, room: str) -> str:
        screen = screens.of(qualify(tenant, room))
        return "" if screen is None else "".join(each for each in "甲乙丙" if screen.judge(each))

    assert found_in("", "live-1") == "甲"
    assert found_in("", "other") == ""
    assert found_in("acme", "live-1") == "乙"
    assert found_in("acme", "vip") == "乙丙"
    assert screens.of("live-1") is screens.of("live-2")
    assert screens.of_names("") is None
    names = screens.of_names("acme")
    assert names is not None
    assert (names.masked_name("乙"), names.masked_name("丙")) == ("*", "丙")


def test_categories_are_counted_by_name_up_to_a_bound() -> None:
    screens = Screens()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screening, "MAX_CATEGORIES", 2)
        for category in ("a", "b", "c", "d", "a", ""):
            screens.count(ScreenResult(BLOCK, (Finding(0, 1, "x", "l", category, BLOCK),)))
    assert screens.found == {"block": 6}
    assert screens.categories == {"a": 2, "b": 1, OTHER: 3}
