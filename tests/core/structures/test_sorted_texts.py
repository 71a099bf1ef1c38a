"""The sorted set of texts against a sorted list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.core.structures.sorted_texts import MAX_PART, SortedTexts


@given(st.lists(st.text(max_size=3), unique=True), st.data())
def test_texts_are_in_order_whatever_is_added_and_removed(texts: list[str], data: st.DataObject) -> None:
    found = SortedTexts()
    for text in texts:
        found.add(text)
    removed = data.draw(st.lists(st.sampled_from(texts), unique=True)) if texts else []
    for text in removed:
        found.remove(text)
    assert found.all() == sorted(set(texts) - set(removed))


def test_many_texts_are_kept_in_parts() -> None:
    texts = [f"{number * 7919 % 10_007:05}" for number in range(5 * MAX_PART)]
    found = SortedTexts()
    for text in texts:
        found.add(text)
    assert found.all() == sorted(texts)
    for text in texts[::2]:
        found.remove(text)
    assert found.all() == sorted(texts[1::2])
    for text in texts[1::2]:
        found.remove(text)
    assert found.all() == []
