"""JSON of a bounded depth: what is deeper is refused before it is parsed, brackets inside strings do not count."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.json_depth import check_depth, parse_json

values = st.recursive(
    st.none() | st.integers() | st.text('[]{}"\\a,', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[{"', max_size=3), inner, max_size=3),
    max_leaves=12,
)


def depth_of(value: Any) -> int:
    if isinstance(value, list | dict):
        return 1 + max(map(depth_of, value.values() if isinstance(value, dict) else value), default=0)
    return 0


@given(values, st.integers(0, 6))
def test_a_value_is_parsed_up_to_its_depth(value: Any, max_depth: int) -> None:
    text = json.dumps(value)
    if depth_of(value) <= max_depth:
        assert parse_json(text, max_depth) == value
    else:
        with pytest.raises(ValueError, match="nested deeper"):
            parse_json(text, max_depth)


@given(st.text('[]{}"\\a', max_size=30))
def test_what_is_no_json_is_refused(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"nested|line 1"):
            parse_json(text, 40)
    else:
        assert parse_json(text, 40) == expected


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '["' + "a" * 10 + '", {"b":' * 50_000])
def test_a_deep_text_is_refused_before_it_is_parsed(text: str) -> None:
    with pytest.raises(ValueError, match="nested deeper than 32 levels"):
        parse_json(text, 32)


def test_a_string_without_an_end_takes_one_search() -> None:
    check_depth("[" * 40 + "]" * 40 + '"' + '\\"' * 200_000, 40)
