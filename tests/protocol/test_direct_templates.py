from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.direct_batches import TemplateError, fields_of, fill

plain = st.text(st.characters(exclude_characters="{}"), max_size=8)
values = st.dictionaries(st.sampled_from(["code", "name", "n_1"]), st.text(max_size=8), min_size=3, max_size=3)
templates = st.recursive(
    st.none()
    | st.integers()
    | plain
    | st.sampled_from(["{code}", "Hi {name}, {code}!", "{n_1}{n_1}", "{not a field}", "{}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3),
    max_leaves=8,
)


def test_each_field_is_replaced_wherever_it_stands() -> None:
    template = {"title": "Hi {name}", "codes": ["{code}", 7, None], "{name}": "keys stay"}
    assert fields_of(template) == {"name", "code"}
    assert fill(template, {"name": "Ann", "code": "X1"}) == {
        "title": "Hi Ann", "codes": ("X1", 7, None), "{name}": "keys stay",
    }  # fmt: skip


def test_a_value_is_never_a_template() -> None:
    assert fill("{name}", {"name": "{code}", "code": "secret"}) == "{code}"
    assert fill("{name.__class__}", {"name": "x"}) == "{name.__class__}"


def test_a_missing_value_is_named() -> None:
    with pytest.raises(TemplateError, match=r"\{code\} has no value"):
        fill(["hello", {"x": "{code}"}], {"name": "Ann"})


@given(templates, values)
def test_what_is_filled_has_the_shape_of_the_template(template: Any, values: dict[str, str]) -> None:
    filled = fill(template, values)

    def same_shape(before: Any, after: Any) -> bool:
        if isinstance(before, dict):
            return (
                isinstance(after, dict)
                and before.keys() == after.keys()
                and all(same_shape(before[key], after[key]) for key in before)
            )
        if isinstance(before, list):
            return isinstance(after, tuple) and len(before) == len(after) and all(map(same_shape, before, after))
        if isinstance(before, str):
            return isinstance(after, str) and (before == after or "{" in before)
        return bool(before == after)

    assert same_shape(template, filled)
    assert fields_of(template) <= values.keys()
