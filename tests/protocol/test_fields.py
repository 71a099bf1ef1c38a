"""Rules take what they say, refuse the rest with a path, and never repeat what the peer has sent."""

from __future__ import annotations

import re
import sys
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codes import ErrorCode, Tier
from protocol.fields import (
    MAX_DEPTH,
    MAX_INT,
    FieldError,
    any_value,
    array_of,
    boolean,
    characters,
    integer,
    member_of,
    optional,
    record,
    text,
)
from tests.support.examples import examples
from tests.support.strategies import free_values, nested, texts

JUNK = st.one_of(
    free_values,
    st.binary(max_size=4),
    st.floats(),
    st.text(max_size=5),
    st.integers(),
    st.lists(st.none() | st.integers(), max_size=3),
)


class Part(NamedTuple):
    name: str
    score: int = 7


class Whole(NamedTuple):
    tier: Tier
    parts: tuple[Part, ...]
    note: str | None = None
    open: bool = False


read_part = record(Part, (text(1, 5), integer(0, 9)))
read_whole = record(Whole, (member_of(Tier), array_of(read_part, 3), optional(text(0, 4)), boolean))


def error_of(rule: Any, value: Any) -> FieldError:
    with pytest.raises(FieldError) as caught:
        rule(value)
    return caught.value


@given(JUNK)
def test_a_rule_takes_a_value_or_raises_a_field_error_and_nothing_else(value: Any) -> None:
    for rule in (integer(0), boolean, text(0, 3), member_of(Tier), optional(boolean), read_whole, any_value):
        refused: FieldError | None = None
        try:
            rule(value)
        except FieldError as error:
            refused = error
        assert refused is None or refused.code is ErrorCode.BAD_FIELD


@pytest.mark.parametrize("value", [True, False, 1.0, "1", None, b"1", (1,)])
def test_an_integer_is_nothing_that_only_looks_like_one(value: Any) -> None:
    error_of(integer(0, 5), value)


def test_an_integer_keeps_to_its_bounds() -> None:
    rule = integer(2, 4)
    assert [rule(n) for n in (2, 3, 4)] == [2, 3, 4]
    assert error_of(rule, 1).rule == error_of(rule, 5).rule == "must be an integer from 2 to 4"
    assert integer(0)(MAX_INT) == 2**53 - 1
    error_of(integer(0), MAX_INT + 1)


def test_our_own_enum_members_count_as_their_numbers() -> None:
    found = integer(1, 255)(Tier.LOW)
    assert found == 5
    assert type(found) is int


@given(texts(1, 8))
def test_text_without_control_characters_is_kept_as_it_is(value: str) -> None:
    assert text(1, 8)(value) is value


@pytest.mark.parametrize(
    "character", ["\x00", "\n", "\t", "\x1b", "\x7f", "\x85", "\x9f", "\u2028", "\u2029", "\ud800"]
)
def test_text_refuses_what_breaks_logs_and_terminals(character: str) -> None:
    error = error_of(text(0, 9), f"a{character}b")
    assert error.rule == "must be a string of 0 to 9 characters without control characters"


@pytest.mark.parametrize("value", ["👩‍👩‍👧", "e\u0301", "a\u00a0b", "\u3000", "\ufeff", "\u202e"])
def test_text_allows_joiners_marks_and_odd_spaces(value: str) -> None:
    assert text(0, 9)(value) == value


def test_lines_allow_line_feed_and_tab_and_no_other_control() -> None:
    rule = text(1, 9, lines=True)
    assert rule("a\n\tb") == "a\n\tb"
    for character in "\x00\x1b\x0b\u2028":
        error_of(rule, character)


@given(st.lists(st.sampled_from(["a", "\n", "\r", "\r\n", "\t"]), min_size=1).map("".join))
def test_a_line_break_of_any_system_is_a_line_feed(value: str) -> None:
    expected = "\n".join(re.split("\r\n|\r|\n", value))
    for rule in (text(1, 900, lines=True), characters(500, 900, lines=True)):
        if "a" in value or (rule.__doc__ or "").startswith("lines"):
            assert rule(value) == expected
    error_of(text(1, 900), "a\r\nb")
    error_of(characters(500, 900), "a\r\nb")


def test_a_line_break_of_two_characters_counts_as_one() -> None:
    assert text(1, 3, lines=True)("a\r\nb") == "a\nb"
    assert characters(3, 3, lines=True)("a\r\nb") == "a\nb"


def test_text_is_counted_in_code_points() -> None:
    assert text(1, 3)("🌹🌹🌹") == "🌹🌹🌹"
    error_of(text(1, 3), "🌹🌹🌹🌹")
    error_of(text(1, 3), "")


@pytest.mark.parametrize("value", [7, True, 20.0, "FULL", None, (20,)])
def test_a_member_is_found_by_its_number_only(value: Any) -> None:
    assert member_of(Tier)(20) is Tier.FULL
    assert error_of(member_of(Tier), value).rule == "must be one of 20 (FULL), 10 (MEDIUM), 5 (LOW)"


@pytest.mark.parametrize(
    "value",
    [
        (20, (("a", 1), ("b",)), None, True),
        [20, [["a", 1], ["b"]], None, True],
        {"tier": 20, "parts": [{"name": "a", "score": 1}, {"name": "b"}], "open": True},
        (20, ({"name": "a", "score": 1}, ["b"]), None, True, "a later field", 9),
        {"tier": 20, "parts": (("a", 1), ("b", 7, "later")), "open": True, "later": 1},
    ],
)
def test_a_record_is_read_from_an_array_or_an_object_and_later_fields_are_ignored(value: Any) -> None:
    found = read_whole(value)
    assert found == Whole(Tier.FULL, (Part("a", 1), Part("b", 7)), None, True)
    assert type(found) is Whole
    assert [type(part) for part in found.parts] == [Part, Part]


@pytest.mark.parametrize(
    ("value", "field", "rule"),
    [
        ("x", "", "must be an array of 4 fields"),
        (None, "", "must be an array of 4 fields"),
        ((), "tier", "is required"),
        ((20,), "parts", "is required"),
        ({"parts": ()}, "tier", "is required"),
        ((7, ()), "tier", "must be one of 20 (FULL), 10 (MEDIUM), 5 (LOW)"),
        ((20, None), "parts", "must be an array of at most 3 elements"),
        ((20, (("a",),) * 4), "parts", "must be an array of at most 3 elements"),
        ((20, (("a",), ("b", 10))), "parts[1].score", "must be an integer from 0 to 9"),
        ((20, (("a",), 5)), "parts[1]", "must be an array of 2 fields"),
        ((20, ((),)), "parts[0].name", "is required"),
        ({"tier": 20, "parts": [{"name": ""}]}, "parts[0].name", "must be a string of 1 to 5 characters"),
        ((20, (), None, 1), "open", "must be true or false"),
        ((20, (), "12345"), "note", "must be a string of 0 to 4 characters"),
    ],
)
def test_an_error_names_the_path_of_the_first_bad_field(value: Any, field: str, rule: str) -> None:
    error = error_of(read_whole, value)
    assert (error.field, error.rule) == (field, rule)
    assert str(error) == (f"{field}: {rule}" if field else rule)


@given(st.lists(JUNK, max_size=6))
def test_the_quick_reader_and_the_slow_one_agree(values: list[Any]) -> None:
    def judge(value: Any) -> Any:
        try:
            return read_whole(value)
        except FieldError as error:
            return error.field, error.rule

    # A tuple takes the quick way, a list never does.
    assert judge(tuple(values)) == judge(values)


@examples(40)
@given(free_values)
def test_a_free_value_is_kept_as_it_is(value: Any) -> None:
    assert any_value(value) is value


@examples(20)
@given(st.data())
def test_a_free_value_may_be_16_deep_and_no_deeper(data: st.DataObject) -> None:
    any_value(data.draw(nested(MAX_DEPTH)))
    assert error_of(any_value, data.draw(nested(MAX_DEPTH + 1))).rule == "must be nested at most 16 deep"


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (float("nan"), "must hold finite numbers"),
        ((1, float("-inf")), "must hold finite numbers"),
        (2**64, "must hold integers of 64 bits"),
        ({"a": -(2**63) - 1}, "must hold integers of 64 bits"),
        (b"raw", "must hold only nil, booleans, numbers, strings, arrays and maps"),
        ({"a": (b"raw",)}, "must hold only nil, booleans, numbers, strings, arrays and maps"),
        ({1: 2}, "must have strings as keys"),
        (({b"k": 2},), "must have strings as keys"),
        ("a\ud800", "must not have half of a surrogate pair"),
        (({"a": ("好", "\udfff")},), "must not have half of a surrogate pair"),
        ({"\udc00": 1}, "must not have half of a surrogate pair"),
    ],
)
def test_a_free_value_holds_only_what_json_can_say_too(value: Any, rule: str) -> None:
    assert error_of(any_value, value).rule == rule


def test_named_tuples_of_ours_are_free_values() -> None:
    assert any_value(Whole(Tier.FULL, (Part("a"),))) == Whole(Tier.FULL, (Part("a"),))


def test_judging_a_free_value_never_needs_the_callers_stack() -> None:
    value: Any = ()
    for _ in range(sys.getrecursionlimit() * 2):
        value = (value,)
    error_of(any_value, value)
