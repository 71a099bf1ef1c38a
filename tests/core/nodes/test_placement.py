from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.nodes.placement import place, ranking, score
from tests.support.examples import examples

ROOMS = [f"live-{number}" for number in range(60)]

names = st.text("abc-:0", min_size=1, max_size=6)
weights = st.sampled_from([0.5, 1.0, 2.0, 8.0])
node_sets = st.dictionaries(names, weights, min_size=1, max_size=8)


@given(node_sets, names, weights)
@examples(100)
def test_a_node_that_joins_takes_rooms_only_for_itself(nodes: dict[str, float], new: str, weight: float) -> None:
    before = {node: share for node, share in nodes.items() if node != new}
    after = {**before, new: weight}
    for room in ROOMS:
        assert place(room, after) in (place(room, before), new)


@given(node_sets)
@examples(100)
def test_a_node_that_leaves_gives_away_only_its_own_rooms_and_to_the_next_in_rank(nodes: dict[str, float]) -> None:
    for room in ROOMS:
        order = ranking(room, nodes)
        assert order[0] == place(room, nodes)
        for gone in nodes:
            rest = {node: share for node, share in nodes.items() if node != gone}
            assert place(room, rest) == next((node for node in order if node != gone), None)


@given(node_sets)
@examples(50)
def test_the_order_of_the_table_decides_nothing(nodes: dict[str, float]) -> None:
    backwards = dict(reversed(nodes.items()))
    assert [place(room, nodes) for room in ROOMS] == [place(room, backwards) for room in ROOMS]


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (1, 2, 3, 4), (0.25, 8, 8, 2)])
def test_rooms_are_spread_in_the_proportion_of_the_weights(weights: tuple[float, ...]) -> None:
    nodes = {f"node-{index}": float(weight) for index, weight in enumerate(weights)}
    rooms = 4000
    counts = Counter(place(f"live-{number}", nodes) for number in range(rooms))
    for node, weight in nodes.items():
        share = weight / sum(weights)
        deviation = (rooms * share * (1 - share)) ** 0.5
        assert abs(counts[node] - rooms * share) < 4.5 * deviation, (node, counts)


def test_no_nodes_no_place() -> None:
    assert place("live-1", {}) is None
    assert ranking("live-1", {}) == []


def test_names_with_the_separator_are_not_confused() -> None:
    assert score("b:c", "a") != score("c", "a:b")


def test_the_score_is_fixed_for_all_processes_and_versions() -> None:
    """Nodes of two versions must place a room alike while one replaces the other."""
    assert place("live-1", {"a": 1.0, "b": 1.0, "c": 2.0}) == "a"
    assert score("live-1", "a") == pytest.approx(2.6910421776627977)
