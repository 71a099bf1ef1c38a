"""How the money of red packets and rains is divided: vectors and properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.activities.packets import SplitMode
from protocol.packet_shares import packet_shares, rain_drops
from protocol.primitives import seed_hash
from tests.support.activities import commerce_vectors

VECTORS = commerce_vectors("packets")
seeds = st.binary(min_size=32, max_size=32)


@pytest.mark.parametrize("case", VECTORS["splits"])
def test_vectors_of_shares(case: dict[str, Any]) -> None:
    seed = bytes.fromhex(case["seed"])
    mode = SplitMode[case["mode"].upper()]
    shares = packet_shares(mode, case["total_cents"], case["count"], case["min_cents"], case["max_cents"], seed)
    assert shares == case["shares"]
    assert seed_hash(seed).hex() == case["seed_hash"]


@pytest.mark.parametrize("case", VECTORS["rains"])
def test_vectors_of_rains(case: dict[str, Any]) -> None:
    seed = bytes.fromhex(case["seed"])
    drops = rain_drops(case["start"], case["span"], case["drops"], case["jitter"], case["total"], seed)
    assert [[drop.at_ms, drop.cents, drop.seed.hex()] for drop in drops] == case["result"]


@st.composite
def splits(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Total, count, minimum and maximum of a packet that can be divided."""
    count = draw(st.integers(1, 60))
    least = draw(st.integers(1, 10**6))
    most = draw(st.one_of(st.just(0), st.integers(least, 2 * 10**6)))
    total = draw(st.integers(count * least, count * (most or 3 * 10**6)))
    return total, count, least, most


@given(st.sampled_from([SplitMode.EQUAL, SplitMode.LUCKY]), splits(), seeds)
def test_shares_add_up_and_keep_their_bounds(mode: SplitMode, split: tuple[int, int, int, int], seed: bytes) -> None:
    total, count, least, most = split
    shares = packet_shares(mode, total, count, least, most, seed)
    assert len(shares) == count
    assert sum(shares) == total
    assert min(shares) >= least
    assert not most or max(shares) <= most
    if mode is SplitMode.EQUAL:
        assert max(shares) - min(shares) <= 1
    assert shares == packet_shares(mode, total, count, least, most, seed)


@given(st.integers(1, 10**6), st.integers(1, 60), seeds)
def test_fixed_shares_are_equal(share: int, count: int, seed: bytes) -> None:
    assert packet_shares(SplitMode.FIXED, share * count, count, 1, 0, seed) == [share] * count


def test_every_place_expects_the_mean() -> None:
    """Without the shuffle the last places would vary more than the first."""
    packets = [packet_shares(SplitMode.LUCKY, 1000, 10, 1, 0, number.to_bytes(32, "big")) for number in range(3000)]
    for place in range(10):
        shares = [shares[place] for shares in packets]
        mean = sum(shares) / len(shares)
        assert abs(mean - 100) < 6
        spread = sum((share - mean) ** 2 for share in shares) / len(shares)
        assert 2500 < spread < 5500, "a place that varies less than others can be waited for"


@given(
    st.integers(1, 200), st.integers(1, 10**7), st.integers(0, 100), st.integers(0, 10**12), seeds
)  # fmt: skip
def test_the_drops_of_a_rain_add_up_and_stay_in_their_slots(
    count: int, span: int, jitter: int, total: int, seed: bytes
) -> None:
    start = 1_790_000_000_000
    drops = rain_drops(start, span, count, jitter, total, seed)
    slot = span // count
    assert sum(drop.cents for drop in drops) == total
    assert max(drop.cents for drop in drops) - min(drop.cents for drop in drops) <= 1
    assert len({drop.seed for drop in drops}) == count
    for number, drop in enumerate(drops):
        begins = start + number * slot
        assert begins <= drop.at_ms <= begins + slot * jitter // 100
    assert [drop.at_ms for drop in drops] == sorted(drop.at_ms for drop in drops)
