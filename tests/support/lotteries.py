"""Proofs of lotteries for tests: the vectors, and proofs that are in order by construction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from protocol.lottery.drand import beacon_value
from protocol.lottery.drawing import Drawing
from protocol.lottery.proof import PROOF_FORMAT, finish
from protocol.lottery.terms import LotteryTerms, commitment, draw_key
from protocol.lottery.tree import MerkleTree

__all__ = ["make_proof", "vectors"]


def vectors(name: str) -> list[dict[str, Any]]:
    """Return one part of the vectors of lotteries."""
    path = Path(__file__).parents[1] / "core/commerce/vectors/lottery.json"
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))[name]
    return found


def make_proof(terms: LotteryTerms, seed: bytes, entries: list[tuple[str, int]], signature: bytes) -> dict[str, Any]:
    """Return the JSON of a proof. ``entries``: in any order, ids are different; ``signature``: of the beacon."""
    entries = sorted(entries)
    tree = MerkleTree()
    finish(tree.build(entries))
    weight = sum(weight for _, weight in entries)
    value = beacon_value(signature) if terms.has_beacon else b""
    drawing = Drawing([weight for _, weight in entries], [grade.count for grade in terms.grades])
    finish(drawing.run(draw_key(seed, terms, tree.root, len(entries), weight, value)))
    return {
        "format": PROOF_FORMAT,
        "terms": {**terms._asdict(), "grades": [grade._asdict() for grade in terms.grades]},
        "committed": {"commitment": commitment(seed, terms).hex(), "offset": 1, "at_ms": terms.open_at_ms},
        "closed": {
            "root": tree.root.hex(), "entries": len(entries), "weight": weight,
            "offset": 2, "at_ms": terms.close_at_ms,
        },
        "seed": seed.hex(),
        "beacon": {"signature": signature.hex(), "value": value.hex()} if terms.has_beacon else None,
        "entries": [list(entry) for entry in entries],
        "winners": [[entries[index][0] for index in grade] for grade in drawing.winners],
    }  # fmt: skip
