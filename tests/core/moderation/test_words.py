"""Words of lists are found however they are written, where they are words; two tables say what that means."""

from __future__ import annotations

import time
from math import inf
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.moderation import word_fold, words
from broker.core.moderation.word_fold import FoldTable
from broker.core.moderation.words import MAX_WORD_CHARS, MAX_WORDS, WordAction, WordError, WordFilter, WordList, masked

HERE = Path(__file__).parent


def lines(name: str) -> list[str]:
    return [each for each in (HERE / name).read_text("utf-8").splitlines() if each and not each.startswith("#")]


WORDS = lines("words.txt")
FILTER = WordFilter.build([WordList("shop", WordAction.MASK, WORDS, lines("exceptions.txt"))])

chinese = st.sampled_from([each for each in WORDS if not normalize("NFKD", each).isascii() and len(each) > 1])
latin = st.sampled_from([each for each in WORDS if each.isascii() and each.isalpha() and len(each) > 2])
marks = st.sampled_from(["", "\u200b", "\u200d", "\u0301", "*", ".", "-", "_", "🔥", "★", "/", "\u2060"])
letters = st.text("今天主播好棒哦", max_size=4)


def test_evasions_are_found_and_innocent_texts_are_not() -> None:
    evasions, innocent = lines("evasions.txt"), lines("innocent.txt")
    assert min(len(set(evasions)), len(set(innocent))) >= 200
    assert [text for text in evasions if masked(text, FILTER.find(text)) == text] == []
    assert [text for text in innocent if FILTER.find(text)] == []


@given(chinese, st.data(), letters, letters)
def test_marks_between_the_characters_hide_no_chinese_word(
    word: str, data: st.DataObject, before: str, after: str
) -> None:
    between = [data.draw(marks) for _ in word[1:]]
    hidden = word[0] + "".join(mark + each for mark, each in zip(between, word[1:], strict=True))
    text = before + hidden + after
    finding = next(each for each in FILTER.find(text) if each.word == word)
    assert text[finding.start : finding.end].startswith(hidden)


@given(latin, st.data(), letters, letters)
def test_marks_and_case_hide_no_latin_word(word: str, data: st.DataObject, before: str, after: str) -> None:
    hidden = data.draw(st.sampled_from([word[0], word[0].upper()]))
    hidden += "".join(data.draw(marks) + each for each in word[1:])
    assert word in [each.word for each in FILTER.find(before + hidden + after)]


@given(latin, st.sampled_from(["z", "xy", "qz"]), st.booleans())
def test_a_part_of_a_latin_word_is_no_finding(word: str, more: str, is_before: bool) -> None:
    text = more + word if is_before else word + more
    assert text in WORDS or word not in [each.word for each in FILTER.find(text)]


@given(st.sampled_from([each for each in WORDS if not each.isdigit()]), st.data())
def test_characters_that_are_repeated_hide_no_word(word: str, data: st.DataObject) -> None:
    text = "".join(each * data.draw(st.sampled_from([1, 1, 3, 7])) for each in word)
    assert (2, 2 + len(text)) in [each[:2] for each in FILTER.find(f"哦 {text} 哦") if each.word == word]


@pytest.mark.parametrize(
    ("word", "text", "masks"),
    [
        ("spam", "spammmm!", "*******!"),
        ("cool", "coool coooolll", "***** ********"),
        ("cool", "col coolll cooler", "col ****** cooler"),
        ("cheap pills", "cheap pilllls", "***** *******"),
        ("www", "wwwww", "*****"),
        ("哈哈", "哈哈哈哈", "****"),
        ("good", "g000d", "*****"),
        ("12234", "122222234", "122222234"),
        ("spam", "spamm spammmer", "spamm spammmer"),
    ],
)
def test_a_word_with_a_character_several_times_in_a_row(word: str, text: str, masks: str) -> None:
    found = WordFilter.build([WordList("list", WordAction.MASK, [word])])
    assert masked(text, found.find(text)) == masks


texts = st.text("套现代购加微信整货。， *\u200b套\u0301ａB1@", max_size=12)


@given(texts)
def test_masking_changes_the_characters_of_findings_alone(text: str) -> None:
    findings = FILTER.find(text)
    inside = {index for each in findings for index in range(each.start, each.end)}
    assert all(0 <= each.start < each.end <= len(text) for each in findings)
    kept = [
        each for index, each in enumerate(text) if index not in inside or not (each.isalnum() or each in "\u200b\u0301")
    ]
    assert masked(text, findings).replace("*", "") == "".join(kept).replace("*", "")


@given(st.lists(st.text("甲乙丙", min_size=1, max_size=4), max_size=12), st.text("甲乙丙丁", max_size=20))
def test_every_place_of_every_word_is_found(listed: list[str], text: str) -> None:
    found = WordFilter.build([WordList("list", WordAction.FLAG, listed)]).find(text)
    expected = {
        (start, start + len(word), word)
        for word in listed
        for start in range(len(text))
        if text.startswith(word, start)
    }
    assert {each[:3] for each in found} >= expected
    assert {each[2] for each in found} <= set(listed)


@given(st.lists(st.text("甲乙丙", min_size=1, max_size=4), max_size=12), st.text("甲乙丙丁", max_size=20))
def test_the_number_of_automata_changes_nothing(listed: list[str], text: str) -> None:
    lists = [WordList("list", WordAction.FLAG, listed)]
    one = WordFilter.build(lists).find(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "WORDS_OF_AUTOMATON", 2)
        assert WordFilter.build(lists).find(text) == one


def test_each_list_has_its_action_category_and_exceptions() -> None:
    found = WordFilter.build([
        WordList("ads", WordAction.MASK, ["套现"], ["整套现货"], "advertising"),
        WordList("finance", WordAction.BLOCK, ["套现"], (), "finance"),
    ]).find("整套现货")  # fmt: skip
    assert [(each.list_name, each.category, each.action) for each in found] == [
        ("finance", "finance", WordAction.BLOCK)
    ]


def test_a_filter_without_lists_finds_nothing() -> None:
    assert WordFilter.build([]).find("套现") == []


@pytest.mark.parametrize(
    ("listed", "exceptions", "rule"),
    [
        (["好", ""], [], "list x: word 2 must have 1 to 64 characters"),
        (["a" * (MAX_WORD_CHARS + 1)], [], "list x: word 1 must have 1 to 64 characters"),
        (["🔞"], [], "list x: word 1 has no letter and no digit"),
        (["\u200b"], [], "list x: word 1 has no letter and no digit"),
        (["好"], ["..."], "list x: exception 1 has no letter and no digit"),
        (["好"] * MAX_WORDS, ["好"], "the lists have more than 100000 words together"),
    ],
)
def test_words_that_no_text_can_hold_are_refused(listed: list[str], exceptions: list[str], rule: str) -> None:
    with pytest.raises(WordError) as refused:
        WordFilter.build([WordList("x", WordAction.FLAG, listed, exceptions)])
    assert str(refused.value) == rule


def test_a_table_that_is_full_folds_on() -> None:
    table = FoldTable({})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(word_fold, "MAX_KNOWN", 3)
        assert "套現ＡЬ①".translate(table) == "套现aь1"
        assert len(table) <= 3


@pytest.mark.parametrize("piece", ["a-", "a.", "aa ", "哈", "1 ", "套 现 "])
def test_a_text_of_overlapping_words_costs_no_square_of_its_length(piece: str) -> None:
    listed = ["aa", "aaa", "a" * 60, "哈哈", "哈哈哈", "11", "套现"]
    found = WordFilter.build([WordList("list", WordAction.MASK, listed, ["哈哈哈哈", "aaaa"])])
    spent = []
    for length in (250, 2000):
        text = (piece * length)[:length]
        best = inf
        for _ in range(3):
            begun = time.process_time()
            masked(text, found.find(text))
            best = min(best, time.process_time() - begun)
        spent.append(best)
    assert spent[1] < 40 * spent[0] + 0.01, "a square would be 64 times as much"
