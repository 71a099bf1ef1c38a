"""Integer algorithms: the vectors of two programs that agree, and properties."""

from __future__ import annotations

import hmac
from collections import Counter
from fractions import Fraction
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.primitives import (
    MAX_BELOW,
    DrawStream,
    digest,
    is_ratio_less,
    label,
    mac,
    pack_text,
    pack_u32,
    pack_u64,
    per_mille,
    seed_hash,
    shuffle,
)
from tests.support.activities import commerce_vectors

VECTORS = commerce_vectors("primitives")
seeds = st.binary(min_size=32, max_size=32)


@pytest.mark.parametrize("case", VECTORS["below"])
def test_vectors_of_bounded_draws(case: dict[str, Any]) -> None:
    stream = DrawStream(bytes.fromhex(case["seed"]), case["label"])
    assert [stream.below(bound) for bound in case["bounds"]] == case["values"]


@pytest.mark.parametrize("case", VECTORS["shuffle"])
def test_vectors_of_shuffles(case: dict[str, Any]) -> None:
    items = list(range(case["count"]))
    shuffle(items, DrawStream(bytes.fromhex(case["seed"]), case["label"]))
    assert items == case["values"]


@pytest.mark.parametrize("case", VECTORS["order"])
def test_texts_compare_in_the_order_of_their_utf8_bytes(case: dict[str, Any]) -> None:
    assert sorted(case["ids"]) == case["sorted"] == sorted(case["ids"], key=str.encode)


@pytest.mark.parametrize("case", VECTORS["percent"])
def test_vectors_of_thousandths(case: dict[str, Any]) -> None:
    assert per_mille(case["counts"]) == case["per_mille"]


@pytest.mark.parametrize("case", VECTORS["seed_hash"])
def test_vectors_of_commitments(case: dict[str, Any]) -> None:
    assert seed_hash(bytes.fromhex(case["seed"])).hex() == case["hash"]


def test_encodings() -> None:
    assert pack_u32(0x01020304) == b"\x01\x02\x03\x04"
    assert pack_u64(0x0102030405060708) == b"\x01\x02\x03\x04\x05\x06\x07\x08"
    assert pack_text("") == b"\0\0\0\0"
    assert pack_text("弹") == b"\0\0\0\x03\xe5\xbc\xb9"
    assert pack_text("e\u0301") != pack_text("\u00e9")  # not normalized
    assert label("roomcast/sale/tie/1") == b"roomcast/sale/tie/1\0"
    assert digest(b"abc") == sha256(b"abc").digest()
    assert mac(b"key", b"abc") == hmac.new(b"key", b"abc", "sha256").digest()
    for bad in (-1, 2**32):
        with pytest.raises(OverflowError):
            pack_u32(bad)
    with pytest.raises(OverflowError):
        pack_u64(2**64)
    with pytest.raises(UnicodeEncodeError):
        label("弹")


@pytest.mark.parametrize("bound", [0, -1, MAX_BELOW + 1])
def test_a_bound_is_1_to_2_to_the_53(bound: int) -> None:
    with pytest.raises(ValueError, match="bound"):
        DrawStream(bytes(32), "x").below(bound)


@given(seeds, st.text(max_size=20), st.lists(st.integers(1, MAX_BELOW), max_size=30))
def test_draws_follow_from_the_words_of_the_blocks(seed: bytes, name: str, bounds: list[int]) -> None:
    blocks = b"".join(
        hmac.new(seed, name.encode() + b"\0" + block.to_bytes(8, "big"), "sha256").digest() for block in range(200)
    )
    words = (int.from_bytes(blocks[at : at + 8], "big") for at in range(0, len(blocks), 8))
    stream = DrawStream(seed, name)
    for bound in bounds:
        expected = 0
        if bound > 1:
            bits = 64 - (bound - 1).bit_length()
            expected = next(word >> bits for word in words if word >> bits < bound)
        assert stream.below(bound) == expected


def test_draws_are_uniform() -> None:
    stream = DrawStream(bytes(range(32)), "uniform")
    counts = Counter(stream.below(6) for _ in range(60_000))
    assert all(9_600 < counts[number] < 10_400 for number in range(6))


@given(seeds, st.lists(st.integers(), max_size=60))
def test_a_shuffle_keeps_the_items_and_follows_from_the_seed(seed: bytes, items: list[int]) -> None:
    first, second = list(items), list(items)
    shuffle(first, DrawStream(seed, "s"))
    shuffle(second, DrawStream(seed, "s"))
    assert first == second
    assert sorted(first) == sorted(items)


@given(st.lists(st.integers(0, 10**12), max_size=40))
def test_thousandths_add_up_and_are_off_by_less_than_one(counts: list[int]) -> None:
    shares = per_mille(counts)
    total = sum(counts)
    assert len(shares) == len(counts)
    assert sum(shares) == (1000 if total else 0)
    for count, share in zip(counts, shares, strict=True):
        assert total == 0 or abs(share - Fraction(1000 * count, total)) < 1


ratios = st.tuples(st.integers(-(10**20), 10**20), st.integers(1, 10**20))


@given(ratios, ratios)
def test_ratios_compare_exactly(first: tuple[int, int], second: tuple[int, int]) -> None:
    assert is_ratio_less(first, second) == (Fraction(*first) < Fraction(*second))
    assert not is_ratio_less(first, first)
