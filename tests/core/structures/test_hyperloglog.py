from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.structures.hyperloglog import STANDARD_ERROR, HyperLogLog


def sketch_of(texts: list[str]) -> HyperLogLog:
    sketch = HyperLogLog()
    for text in texts:
        sketch.add(text)
    return sketch


def test_the_stated_standard_error_is_0_81_percent() -> None:
    assert pytest.approx(0.008125) == STANDARD_ERROR


def test_an_empty_set_is_0() -> None:
    assert HyperLogLog().estimate() == 0


@given(st.sets(st.text(st.characters(), max_size=20), max_size=100))
def test_small_sets_are_counted_almost_exactly(texts: set[str]) -> None:
    assert abs(sketch_of(list(texts)).estimate() - len(texts)) <= 2


@given(st.lists(st.integers(0, 50).map(str), max_size=100), st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter_and_more_is_never_less(texts: list[str], rng: random.Random) -> None:
    sketch, last = HyperLogLog(), 0
    for text in texts:
        sketch.add(text)
        assert sketch.estimate() >= last
        last = sketch.estimate()
    again = [*texts, *texts]
    rng.shuffle(again)
    assert sketch_of(again).estimate() == last


@pytest.mark.parametrize("prefix", ["user-", "u", "观众"])
def test_the_error_stays_within_four_standard_errors_at_every_size(prefix: str) -> None:
    sketch, checkpoints = HyperLogLog(), {100, 1000, 5000, 16_384, 40_000, 60_000, 81_920, 120_000}
    for n in range(1, 120_001):
        sketch.add(f"{prefix}{n}")
        if n in checkpoints:
            assert abs(sketch.estimate() / n - 1) <= 4 * STANDARD_ERROR


def test_the_root_mean_square_error_of_many_sets_is_the_stated_one() -> None:
    errors = [sketch_of([f"{seed}/{n}" for n in range(3000)]).estimate() / 3000 - 1 for seed in range(40)]
    assert sum(errors) / len(errors) == pytest.approx(0, abs=0.005)
    assert (sum(e * e for e in errors) / len(errors)) ** 0.5 <= 1.3 * STANDARD_ERROR


def test_registers_that_are_all_full_have_an_estimate_too() -> None:
    sketch = HyperLogLog()
    for index in range(1 << 14):
        sketch.add_rank(index, 51)
    assert sketch.estimate() > 10**18
