"""Codes of coupons: vectors, and what a person may type."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.commerce.coupon_codes import ALPHABET, derived_code, read_code, shown_code
from tests.support.activities import commerce_vectors

VECTORS = commerce_vectors("coupons")
lengths = st.integers(11, 21)
prefixes = st.text("ABCXYZ0189", max_size=8)


@st.composite
def codes(draw: st.DrawFn) -> str:
    """Any derived code."""
    return derived_code(draw(st.binary(min_size=32, max_size=32)), "p", draw(st.integers(0, 10**6)), 0, draw(lengths))


@pytest.mark.parametrize("case", VECTORS["codes"])
def test_vectors_of_derived_codes(case: dict[str, Any]) -> None:
    code = derived_code(bytes.fromhex(case["key"]), case["pool"], case["index"], case["attempt"], case["length"])
    assert code == case["code"]
    assert shown_code(case["prefix"], code) == case["shown"]
    assert read_code(case["shown"], case["prefix"], case["length"]) == code


@pytest.mark.parametrize("case", VECTORS["readings"])
def test_vectors_of_what_a_person_types(case: dict[str, Any]) -> None:
    assert read_code(case["typed"], case["prefix"], case["length"]) == case["code"]


def test_no_two_symbols_look_alike() -> None:
    for alike in ("0OQ", "1IL", "2Z", "5S", "6G", "8B", "UV"):
        assert sum(symbol in ALPHABET for symbol in alike) <= 1
    assert len(ALPHABET) == len(set(ALPHABET)) == 23


@given(codes(), st.data())
def test_one_wrong_symbol_is_found(code: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(code) - 1))
    wrong = data.draw(st.sampled_from([symbol for symbol in ALPHABET if symbol != code[place]]))
    assert read_code(code[:place] + wrong + code[place + 1 :], "", len(code) - 1) is None


@given(codes())
def test_every_swap_of_two_symbols_is_found(code: str) -> None:
    for first, second in combinations(range(len(code)), 2):
        symbols = list(code)
        symbols[first], symbols[second] = symbols[second], symbols[first]
        swapped = "".join(symbols)
        assert (read_code(swapped, "", len(code) - 1) == swapped) == (swapped == code)


@given(codes(), prefixes, st.booleans(), st.booleans(), st.sampled_from(["-", " ", "\u3000", ""]))
def test_what_is_shown_can_be_typed_in_any_form(
    code: str, prefix: str, lower: bool, full_width: bool, between: str
) -> None:
    typed = shown_code(prefix, code).replace("-", between)
    if lower:
        typed = typed.lower()
    if full_width:
        typed = "".join(chr(ord(each) + 0xFEE0) if "!" <= each <= "~" else each for each in typed)
    assert read_code(typed, prefix, len(code) - 1) == code


@given(st.text(max_size=30), prefixes, lengths)
def test_any_text_is_a_code_or_none(typed: str, prefix: str, length: int) -> None:
    code = read_code(typed, prefix, length)
    assert code is None or (len(code) == length + 1 and read_code(shown_code(prefix, code), prefix, length) == code)


def test_other_folding_does_not_take_place() -> None:
    code = derived_code(bytes(32), "p", 0, 0, 11)
    assert read_code(code, "", 11) == code
    for typed in (code.replace(code[0], "\u0131", 1), f"{code}\n", f"\u200b{code}", f"{code}\uff65", code + "\u0130"):
        assert read_code(typed, "", 11) is None
