"""Training: the pieces that many texts share, nothing that one person wrote, and fewer bytes for other texts."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.net.dictionary_training import MIN_TEXTS, bytes_per_danmaku, train
from protocol.dictionaries import BUILT_IN, MAX_DICTIONARY_BYTES
from tests.support.talk import talk

SIZE = 24 * 1024


def test_other_texts_of_the_same_room_cost_fewer_bytes() -> None:
    rng = random.Random(1)
    dictionary = train(talk(rng, 600), SIZE)
    held = talk(rng, 200)
    plain, before, after = (bytes_per_danmaku(held, each) for each in (None, BUILT_IN, dictionary))
    assert after < 0.75 * before < plain
    assert dictionary.data.endswith(BUILT_IN.data)


def test_what_few_write_is_not_in_it() -> None:
    secret = "我的电话是一三八零零零"
    texts = talk(random.Random(1), 300) + [secret + str(n) for n in range(MIN_TEXTS - 2)] + [secret] * 500
    data = train(texts, SIZE).data.decode(errors="replace")
    assert "普洱古树" in data
    assert "电话" not in data.removesuffix(BUILT_IN.data.decode(errors="replace"))


@given(st.lists(st.text(max_size=20), max_size=30), st.integers(0, MAX_DICTIONARY_BYTES))
def test_any_texts_give_a_dictionary_of_at_most_that_size_or_are_refused(texts: list[str], nbytes: int) -> None:
    texts = [each + str(n) for each in texts for n in range(MIN_TEXTS)]
    try:
        dictionary = train(texts, nbytes)
    except ValueError:
        return
    assert len(BUILT_IN.data) < len(dictionary.data) <= nbytes
    assert train(texts, nbytes).name == dictionary.name


@pytest.mark.parametrize("nbytes", [0, len(BUILT_IN.data), MAX_DICTIONARY_BYTES + 1])
def test_a_size_out_of_bounds_is_refused(nbytes: int) -> None:
    with pytest.raises(ValueError, match="a trained dictionary has"):
        train(talk(random.Random(1), 300), nbytes)
