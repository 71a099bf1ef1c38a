"""Bytes, tree, draw and proof of a lottery: the vectors, and that no part of a proof can be changed."""

from __future__ import annotations

import copy
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from protocol.lottery.drand import KNOWN_CHAINS, QUICKNET, beacon_value, check_signature
from protocol.lottery.drawing import Drawing
from protocol.lottery.proof import (
    BeaconCheck,
    ProofFailure,
    ProofUnreadable,
    finish,
    parse_proof,
    verify,
)
from protocol.lottery.terms import LotteryGrade, LotteryTerms, blind_id
from protocol.lottery.tree import EMPTY_ROOT, SLICE, MerkleTree, leaf_hash, root_of_path
from protocol.primitives import DrawStream
from tests.support.lotteries import make_proof, vectors

OPEN_MS = 1_790_000_000_000
OTHER_CHAIN = "ab" * 32


def unchecked(chain: str, round: int, signature: bytes) -> None:
    """Beacons are not checked."""


def failure(document: Any, **seen: str) -> ProofFailure | None:
    return verify(document, **seen, check=unchecked).failure


# ---- vectors


@pytest.mark.parametrize("case", vectors("proofs"), ids=lambda case: case["name"])
def test_proofs_of_the_vectors(case: dict[str, Any]) -> None:
    seen = case.get("seen", {})
    result = verify(case["proof"], seen.get("commitment", ""), seen.get("root", ""), check=unchecked)
    assert (result.failure or "OK") == case["verify"]
    if result.failure is None:
        has_beacon = case["proof"]["beacon"] is not None
        assert result.beacon is (BeaconCheck.UNCHECKED if has_beacon else BeaconCheck.NONE)
        assert result.is_as_seen == bool(seen)
    else:
        assert result.detail


@pytest.mark.parametrize("case", vectors("paths"), ids=lambda case: f"{case['index']} of {case['entries']}")
def test_paths_of_the_vectors(case: dict[str, Any]) -> None:
    leaf = leaf_hash(*case["entry"])
    assert leaf.hex() == case["leaf"]
    root = root_of_path(leaf, case["index"], case["entries"], [bytes.fromhex(each) for each in case["path"]])
    assert root is not None
    assert root.hex() == case["root"]


def test_blind_ids_of_the_vectors() -> None:
    for case in vectors("blind_ids"):
        assert list(blind_id(bytes.fromhex(case["key"]), case["lottery_id"], case["user"])) == case["result"]


@pytest.mark.parametrize("case", vectors("beacons"), ids=lambda case: str(case["round"]))
def test_beacons_of_the_vectors(case: dict[str, Any]) -> None:
    pytest.importorskip("py_ecc")
    signature = bytes.fromhex(case["signature"])
    assert beacon_value(signature).hex() == case["value"]
    assert check_signature(case["chain"], case["round"], signature) is case["bls"]


def test_a_signature_that_is_no_point_is_wrong_and_one_of_an_unknown_chain_unchecked() -> None:
    assert check_signature(OTHER_CHAIN, 1, bytes(48)) is None
    pytest.importorskip("py_ecc")
    infinity = b"\xc0" + bytes(47)
    for signature in (b"", bytes(47), bytes(48), b"\xff" * 48, b"\x80" + bytes(47), infinity):
        assert check_signature(QUICKNET, 1000, signature) is False


def test_rounds_have_times() -> None:
    assert KNOWN_CHAINS[QUICKNET].time_ms(1) == 1_692_803_367_000
    assert KNOWN_CHAINS[QUICKNET].time_ms(657_413) == 1_694_775_603_000


# ---- tree and draw


@given(st.integers(1, 70), st.data())
def test_every_path_leads_to_the_root_and_no_other_does(count: int, data: st.DataObject) -> None:
    entries = [(f"e{index:03}", index + 1) for index in range(count)]
    tree = MerkleTree()
    finish(tree.build(entries))
    index = data.draw(st.integers(0, count - 1))
    leaf, path = leaf_hash(*entries[index]), tree.path(index)
    assert root_of_path(leaf, index, count, path) == tree.root
    assert root_of_path(leaf_hash("other", 1), index, count, path) != tree.root
    assert root_of_path(leaf, index, count, [*path, bytes(32)]) is None
    assert root_of_path(leaf, count, count, path) is None
    assert root_of_path(leaf, -1, count, path) is None
    if path:
        assert root_of_path(leaf, index, count, path[:-1]) is None


def test_an_odd_leaf_is_never_doubled() -> None:
    three, four = MerkleTree(), MerkleTree()
    finish(three.build([("a", 1), ("b", 1), ("c", 1)]))
    finish(four.build([("a", 1), ("b", 1), ("c", 1), ("c", 1)]))
    assert three.root != four.root
    empty = MerkleTree()
    finish(empty.build([]))
    assert empty.root == EMPTY_ROOT


@given(
    st.lists(st.integers(1, 9), max_size=40),
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.binary(min_size=32, max_size=32),
)
def test_winners_are_those_of_the_plain_algorithm(weights: list[int], counts: list[int], key: bytes) -> None:
    stream = DrawStream(key, "roomcast/lottery/winners/1")
    left = list(enumerate(weights))
    expected: list[list[int]] = []
    for count in counts:
        expected.append([])
        while len(expected[-1]) < count and left:
            sought = stream.below(sum(weight for _, weight in left))
            for place, (index, weight) in enumerate(left):
                if sought < weight:
                    expected[-1].append(index)
                    del left[place]
                    break
                sought -= weight
    drawing = Drawing(weights, counts)
    finish(drawing.run(key))
    assert drawing.winners == expected
    assert sum(map(len, expected)) == min(sum(counts), len(weights))


def test_a_heavier_entry_wins_more_often() -> None:
    wins: Counter[int] = Counter()
    for number in range(3000):
        drawing = Drawing([1, 2, 3], [1])
        finish(drawing.run(number.to_bytes(32, "big")))
        wins[drawing.winners[0][0]] += 1
    assert [round(wins[index] / 500) for index in range(3)] == [1, 2, 3]


def test_a_hundred_thousand_entries_are_hashed_and_drawn_in_slices() -> None:
    count = 100_000
    entries = [(f"{index:032x}", 1) for index in range(count)]
    tree, drawing = MerkleTree(), Drawing([1] * count, [1000])
    slices = sum(1 for _ in tree.build(entries)) + sum(1 for _ in drawing.run(tree.root))
    assert slices >= 4 * count // SLICE - 20


# ---- proofs that are in order, and what must not be changed in them

ids = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8)


@st.composite
def proofs(draw: st.DrawFn) -> dict[str, Any]:
    max_weight = draw(st.integers(1, 20))
    entries = draw(st.dictionaries(ids, st.integers(1, max_weight), min_size=2, max_size=30))
    names = draw(st.lists(ids, min_size=1, max_size=4, unique=True))
    round = draw(st.sampled_from([0, 7]))
    terms = LotteryTerms(
        draw(ids), draw(ids), OPEN_MS, OPEN_MS + draw(st.integers(1, 10**6)),
        tuple(LotteryGrade(name, draw(st.integers(1, 3))) for name in names),
        max_weight, draw(st.sampled_from(["", "say 福袋"])), OTHER_CHAIN if round else "", round,
    )  # fmt: skip
    return make_proof(terms, draw(st.binary(min_size=32, max_size=32)), list(entries.items()), b"\1\2\3")


@given(proofs())
def test_a_proof_is_in_order_also_with_members_that_are_unknown(proof: dict[str, Any]) -> None:
    assert failure(proof) is None
    more = json.loads(json.dumps(proof))
    more["next"] = None
    more["terms"]["sponsor"] = more["closed"]["by"] = "x"
    seen = verify(
        more,
        proof["committed"]["commitment"],
        proof["closed"]["root"],
        check=unchecked,
    )
    assert seen.failure is None
    assert seen.is_as_seen
    assert not verify(more, check=unchecked).is_as_seen
    assert failure(proof, seen_commitment="00" * 32) is ProofFailure.NOT_AS_SEEN
    assert failure(proof, seen_root="00" * 32) is ProofFailure.NOT_AS_SEEN


@given(proofs(), st.data())
def test_no_entry_weight_order_or_number_can_be_changed(proof: dict[str, Any], data: st.DataObject) -> None:
    entries = proof["entries"]
    index = data.draw(st.integers(0, len(entries) - 1))
    change = data.draw(st.sampled_from(["remove", "add", "repeat", "id", "weight", "swap"]))
    if change == "remove":
        del entries[index]
    elif change == "add":
        entries.append([entries[-1][0] + "x", 1])
    elif change == "repeat":
        entries.insert(index, list(entries[index]))
    elif change == "id":
        entries[index][0] += "x"
    elif change == "weight":
        other = data.draw(st.integers(-1, 25))
        assume(other != entries[index][1])
        entries[index][1] = other
    else:
        other = data.draw(st.integers(0, len(entries) - 1))
        assume(other != index)
        entries[index], entries[other] = entries[other], entries[index]
    assert failure(proof) in {
        ProofFailure.BAD_ORDER, ProofFailure.BAD_WEIGHT, ProofFailure.BAD_COUNT, ProofFailure.BAD_ROOT,
    }  # fmt: skip
    # the counts of the close do not help, and neither does its root: it is what the viewers have seen
    proof["closed"]["entries"] = len(entries)
    proof["closed"]["weight"] = max(0, sum(weight for _, weight in entries))
    root = proof["closed"]["root"]
    assert failure(proof) in {ProofFailure.BAD_ORDER, ProofFailure.BAD_WEIGHT, ProofFailure.BAD_ROOT}
    tree = MerkleTree()
    finish(tree.build([(id, weight) for id, weight in sorted(entries) if weight >= 0]))
    proof["closed"]["root"] = tree.root.hex()
    assert failure(proof, seen_root=root) is not None


@given(proofs(), st.data())
def test_neither_seed_nor_terms_can_be_changed(proof: dict[str, Any], data: st.DataObject) -> None:
    terms = proof["terms"]
    field = data.draw(st.sampled_from(["seed", "grades", *terms]))
    if field == "seed":
        proof["seed"] = data.draw(st.binary(min_size=32, max_size=32).filter(lambda s: s.hex() != proof["seed"])).hex()
    elif field == "grades":
        change = data.draw(st.sampled_from(["name", "count", "add"]))
        if change == "add":
            terms["grades"].append({"name": "one more", "count": 1})
        else:
            terms["grades"][0][change] = "another" if change == "name" else terms["grades"][0]["count"] + 1
    elif field == "beacon_chain":
        terms[field] = "cd" * 32
    elif isinstance(terms[field], int):
        terms[field] += 1
    else:
        terms[field] += "x"
    assert failure(proof) in {ProofFailure.BAD_COMMITMENT, ProofFailure.BAD_TERMS}


@given(proofs(), st.data())
def test_no_winner_can_be_changed(proof: dict[str, Any], data: st.DataObject) -> None:
    grades = proof["winners"]
    grade = data.draw(st.sampled_from([each for each in grades if each]))
    index = data.draw(st.integers(0, len(grade) - 1))
    change = data.draw(st.sampled_from(["other", "remove", "repeat", "grade"]))
    if change == "other":
        grade[index] = data.draw(st.sampled_from([id for id, _ in proof["entries"] if id != grade[index]]))
    elif change == "remove":
        del grade[index]
    elif change == "repeat":
        grade.append(grade[index])
    else:
        grades.append([])
    assert failure(proof) in {ProofFailure.BAD_WINNERS, ProofFailure.BAD_FORMAT}


@given(proofs(), st.sampled_from(["signature", "value", "both", "null"]))
def test_a_beacon_is_whole_and_an_invented_one_gives_other_winners_or_the_same(
    proof: dict[str, Any], change: str
) -> None:
    assume(proof["beacon"] is not None)
    other = copy.deepcopy(proof)
    if change == "null":
        other["beacon"] = None
        assert failure(other) is ProofFailure.BAD_TERMS
        return
    if change in ("signature", "both"):
        other["beacon"]["signature"] = "0505"
    if change in ("value", "both"):
        other["beacon"]["value"] = beacon_value(b"\5\5").hex()
    if change == "both":  # without BLS only the winners can give it away
        assert failure(other) in {None, ProofFailure.BAD_WINNERS}
        assert verify(other, check=lambda *_: False).failure is ProofFailure.BAD_BEACON
    else:
        assert failure(other) is ProofFailure.BAD_BEACON
    assert verify(proof, check=lambda *_: True).beacon is BeaconCheck.CHECKED


TIMES = [
    ("committed", "at_ms", OPEN_MS + 1),
    ("closed", "at_ms", OPEN_MS + 999),
    ("closed", "offset", 1),
    ("closed", "offset", 0),
]


@pytest.mark.parametrize(("part", "field", "value"), TIMES)
def test_times_and_offsets(part: str, field: str, value: int) -> None:
    proof = make_proof(plain_terms(), bytes(32), [("a", 1)], b"")
    assert failure(proof) is None
    proof[part][field] = value
    assert failure(proof) is ProofFailure.BAD_TIMES


def test_a_close_at_the_time_of_the_round_is_too_late() -> None:
    known = KNOWN_CHAINS[QUICKNET]
    at_ms = known.time_ms(1000)
    terms = plain_terms()._replace(
        beacon_chain=QUICKNET, beacon_round=1000, open_at_ms=at_ms - 60_000, close_at_ms=at_ms - 30_000
    )
    proof = make_proof(terms, bytes(32), [("a", 1), ("b", 1)], b"\7")
    proof["closed"]["at_ms"] = at_ms - 1
    assert failure(proof) is None
    proof["closed"]["at_ms"] = at_ms
    assert failure(proof) is ProofFailure.BAD_TIMES


def plain_terms() -> LotteryTerms:
    return LotteryTerms("lot-1", "live-1", OPEN_MS, OPEN_MS + 1000, (LotteryGrade("first", 1),))


BAD_VALUES: list[tuple[str, Any]] = [
    ("format", "roomcast-lottery-proof/2"), ("format", None),
    ("terms", []), ("terms.lottery_id", ""), ("terms.lottery_id", "x" * 65), ("terms.room", "a\n"),
    ("terms.room", "\ud800"), ("terms.open_at_ms", -1), ("terms.open_at_ms", 1.0), ("terms.open_at_ms", True),
    ("terms.close_at_ms", 2**53), ("terms.close_at_ms", "1"), ("terms.grades", []),
    ("terms.grades", [{"name": str(number), "count": 1} for number in range(21)]),
    ("terms.grades", [{"name": "a", "count": 0}]), ("terms.grades", [{"name": "a", "count": 10_001}]),
    ("terms.grades", [{"name": "\x7f", "count": 1}]), ("terms.grades", [["a", 1]]), ("terms.grades", [{"name": "a"}]),
    ("terms.max_weight", 0), ("terms.max_weight", 1_000_001), ("terms.rule", None), ("terms.rule", "\x85"),
    ("terms.rule", "x" * 1001), ("terms.beacon_chain", "AB" * 32), ("terms.beacon_chain", "ab"),
    ("terms.beacon_round", None), ("committed.commitment", "ab"), ("committed.offset", -1),
    ("closed.root", ""), ("closed.entries", 1_000_001), ("closed.weight", 1.5), ("closed.at_ms", None),
    ("seed", "AB" * 32), ("seed", "ab" * 31), ("seed", "é" * 64), ("beacon", []), ("beacon", {}),
    ("beacon", {"signature": "0", "value": "ab" * 32}), ("beacon", {"signature": "AB", "value": "ab" * 32}),
    ("beacon", {"signature": "ab", "value": ""}), ("entries", None), ("entries", {}), ("entries", [["a"]]),
    ("entries", [["a", 1, 1]]), ("entries", [["", 1]]), ("entries", [["a", True]]), ("entries", [["a", 1.0]]),
    ("entries", [[1, 1]]), ("entries", [{"id": "a", "weight": 1}]), ("entries", [["\udfff", 1]]),
    ("winners", None), ("winners", ["a"]), ("winners", [[1]]), ("winners", [["x" * 65]]), ("winners", [[]] * 21),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), BAD_VALUES, ids=lambda value: repr(value)[:40])
def test_what_is_not_of_the_form_is_named_with_its_place(path: str, value: object) -> None:
    proof = make_proof(plain_terms(), bytes(32), [("a", 1)], b"")
    part = proof
    *parents, name = path.split(".")
    for parent in parents:
        part = part[parent]
    part[name] = value
    result = verify(proof, check=unchecked)
    assert result.failure is ProofFailure.BAD_FORMAT
    assert result.detail.startswith(path)
    del part[name]
    assert verify(proof, check=unchecked).failure is ProofFailure.BAD_FORMAT


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("grades", [{"name": "a", "count": 1}, {"name": "a", "count": 2}]),
        ("close_at_ms", OPEN_MS),
        ("beacon_round", 1),
        ("beacon_chain", "ab" * 32),
    ],
)
def test_terms_that_contradict_each_other(field: str, value: object) -> None:
    proof = make_proof(plain_terms(), bytes(32), [("a", 1)], b"")
    proof["terms"][field] = value
    assert failure(proof) is ProofFailure.BAD_TERMS


@given(st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3)))
def test_other_json_is_no_proof(document: object) -> None:
    assert failure(document) is ProofFailure.BAD_FORMAT


@pytest.mark.parametrize("data", [b"", b"{", b"\xff{}", b"\xfe\xff\0{\0}", b"[" * 100_000])
def test_what_is_no_json_in_utf_8_cannot_be_read(data: bytes) -> None:
    with pytest.raises(ProofUnreadable):
        parse_proof(data)
    assert parse_proof(b" {} ") == {}
    assert parse_proof(b'{"a\\"[[[[[[[[[[[[[[[[[[": ["{{{{{{{{{{{{{{{{{{{{"]}') == {'a"' + "[" * 18: ["{" * 20]}
