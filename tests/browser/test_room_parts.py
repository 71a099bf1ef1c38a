"""Pure modules of the live room, in Node: lanes without overlap, the fold of activities, the check of a draw."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.http.page_files import FOLDER
from protocol.lottery.drawing import Drawing
from protocol.lottery.proof import finish, verify
from protocol.lottery.terms import LotteryGrade, LotteryTerms, commitment, draw_key
from protocol.lottery.tree import MerkleTree
from tests.support.programs import needs

pytestmark = pytest.mark.integration

SEED = bytes(range(32))


def proof_of(entries: list[tuple[str, int]], grades: tuple[LotteryGrade, ...]) -> dict[str, Any]:
    """Return a proof that the reference finds in order."""
    terms = LotteryTerms("bag", "夜市", 1000, 2000, grades, 9, "一人一次")
    tree = MerkleTree()
    finish(tree.build(entries))
    weight = sum(each for _, each in entries)
    drawing = Drawing([each for _, each in entries], [grade.count for grade in grades])
    finish(drawing.run(draw_key(SEED, terms, tree.root, len(entries), weight, b"")))
    proof = {
        "format": "roomcast/lottery/1",
        "terms": {**terms._asdict(), "grades": [grade._asdict() for grade in grades]},
        "committed": {"commitment": commitment(SEED, terms).hex(), "offset": 1, "at_ms": 900},
        "closed": {
            "root": tree.root.hex(), "entries": len(entries), "weight": weight, "offset": 2, "at_ms": 2000,
        },
        "seed": SEED.hex(), "beacon": None, "entries": [list(each) for each in entries],
        "winners": [[entries[place][0] for place in grade] for grade in drawing.winners],
    }  # fmt: skip
    assert verify(proof).failure is None or verify(proof).failure == "BAD_FORMAT"
    return proof


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Any:
    grades = (LotteryGrade("first", 2), LotteryGrade("second", 5))
    names = sorted([*(f"{number:032x}" for number in range(200)), "\ufb01", "\U0001f600"])
    right = proof_of([(name, 1 + number % 9) for number, name in enumerate(names)], grades)
    seen = {"commitment": right["committed"]["commitment"], "root": right["closed"]["root"]}
    cases: dict[str, Any] = {
        "right": {"proof": right, "seen": seen},
        "empty": {"proof": proof_of([], grades), "seen": {}},
        "one": {"proof": proof_of([("a", 3)], grades), "seen": {}},
        "other seen": {"proof": right, "seen": {"root": "0" * 64}},
    }
    changes: dict[str, Callable[[Any], object]] = {
        "seed": lambda proof: proof.update(seed="0" * 64),
        "rule": lambda proof: proof["terms"].update(rule="x"),
        "weight": lambda proof: proof["entries"][3].__setitem__(1, 9),
        "missing": lambda proof: proof["entries"].pop(),
        "winner": lambda proof: proof["winners"][0].reverse(),
    }
    for name, change in changes.items():
        proof = copy.deepcopy(right)
        change(proof)
        cases[name] = {"proof": proof, "seen": {}}
    file = tmp_path_factory.mktemp("proofs") / "proofs.json"
    file.write_text(json.dumps(cases))
    done = subprocess.run(
        [needs("node"), Path(__file__).with_name("room_parts.mjs"), file], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_danmaku_keep_their_distance_in_random_worlds(out: Any) -> None:
    assert out["placed"] > 2000
    assert out["least"] >= 24 - 1e-6
    assert out["tiers"] == ["low", "medium", "full"]


def test_a_draw_is_computed_as_the_reference_does(out: Any) -> None:
    proofs = out["proofs"]
    assert proofs["right"] == [True, True, True, True]
    assert proofs["empty"] == proofs["one"] == [True, True, True, None]
    assert proofs["other seen"] == [True, True, True, False]
    assert proofs["seed"][:3] == [False, True, False]
    assert proofs["rule"][:3] == [False, True, False]
    assert proofs["weight"][1] is False
    assert proofs["missing"][1] is False
    assert proofs["winner"][:3] == [True, True, False]


def test_activities_are_folded_from_the_snapshot_and_events(out: Any) -> None:
    assert out["joined"] == [["b", "a"], "b", "queued", "r", 5000]
    assert out["open"] == [1, [667, 333], 1, [["r-1", True]]]
    assert out["order"] == ["r", "p", "s"]
    assert out["closed"] == [1, 0, 1, None, None, 0]
    assert out["late"] == [2, 1, 2]


def test_what_is_ones_own_is_right_after_a_cut(out: Any) -> None:
    assert out["cut"] == ["r", 1, None, ["sales", "coupons"], 0]


def test_activities_of_a_day_are_bounded_and_ones_own_are_kept(out: Any) -> None:
    assert out["day"] == [0, 100, 100]
    assert out["countdowns"] == [[None], [90_000_000], []]


def test_each_sentence_of_the_room_is_used() -> None:
    text = (FOLDER / "strings" / "room.js").read_text(encoding="utf-8")
    keys = re.findall(r'"([a-z_.-]+)": \["', text)
    assert len(keys) == len(set(keys)) == text.count('": ["')
    folders = [FOLDER / "js" / each for each in ("room", "parts", "danmaku", "base")]
    files = [
        FOLDER / "js" / "room.js",
        FOLDER / "room.html",
        *(file for each in folders for file in each.rglob("*.js")),
    ]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    made = (*re.findall(r"`([a-z]+\.)\$\{", code), "loading.", "paused.", "ended.", "offline.", "reconnecting.")
    unused = [key for key in keys if f'"{key}"' not in code and not key.startswith((*made, "error."))]
    assert unused == []
