"""Proof file of a lottery: what it holds, and how it is verified with no broker at hand.

A proof shows that terms, seed and entries were fixed when the commitment and the root were published, and that the
winners follow from them. It does not show that the entries are people or that nobody was left out, that all viewers
saw the same root (`verify` compares with what one's own client kept), or that a draw was not withheld; and without a
beacon the operator, who knows the seed, could add entries until one that it likes wins.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, NamedTuple

from ..fields import FieldError, Rule, array_of, hex_digest, integer
from ..json_depth import parse_json
from .drand import KNOWN_CHAINS, beacon_value, check_signature
from .drawing import Drawing
from .terms import (
    MAX_ENTRIES,
    MAX_GRADES,
    MAX_RULE_CHARS,
    MAX_WEIGHT,
    MAX_WINNERS_OF_GRADE,
    LotteryGrade,
    LotteryTerms,
    commitment,
    draw_key,
)
from .tree import MerkleTree

__all__ = [
    "PROOF_FORMAT",
    "BeaconCheck",
    "LotteryBeacon",
    "LotteryClosed",
    "LotteryCommitted",
    "LotteryProof",
    "ProofFailure",
    "ProofResult",
    "ProofUnreadable",
    "finish",
    "parse_proof",
    "verify",
]

PROOF_FORMAT = "roomcast-lottery-proof/1"


class LotteryCommitted(NamedTuple):
    """The event that announced a lottery: its commitment, its offset in the room's stream, and Unix ms."""

    commitment: str
    offset: int
    at_ms: int


class LotteryClosed(NamedTuple):
    """The event that closed a lottery: the root of its entries, how many they are, and the sum of their weights."""

    root: str
    entries: int
    weight: int
    offset: int
    at_ms: int


class LotteryBeacon(NamedTuple):
    """Value of a drand round: the SHA-256 of its signature."""

    signature: str
    value: str


class LotteryProof(NamedTuple):
    """Contents of a proof file. ``entries``: id and weight, in rising order; ``winners``: ids by grade. Texts of bytes
    are lower-case hexadecimal."""

    format: str
    terms: LotteryTerms
    committed: LotteryCommitted
    closed: LotteryClosed
    seed: str
    beacon: LotteryBeacon | None
    entries: tuple[tuple[str, int], ...]
    winners: tuple[tuple[str, ...], ...]


class ProofFailure(StrEnum):
    """What is wrong with a proof, in the order in which it is checked."""

    BAD_FORMAT = "BAD_FORMAT"
    """Types, bounds, digits, control characters."""
    BAD_TERMS = "BAD_TERMS"
    """Equal names, an end before the beginning, or a beacon that is only partly there."""
    BAD_COMMITMENT = "BAD_COMMITMENT"
    BAD_ORDER = "BAD_ORDER"
    BAD_WEIGHT = "BAD_WEIGHT"
    BAD_COUNT = "BAD_COUNT"
    BAD_ROOT = "BAD_ROOT"
    BAD_BEACON = "BAD_BEACON"
    BAD_TIMES = "BAD_TIMES"
    BAD_WINNERS = "BAD_WINNERS"
    NOT_AS_SEEN = "NOT_AS_SEEN"
    """Consistent in itself, and not what the caller's client has kept."""


class BeaconCheck(StrEnum):
    """What is known of the beacon of a proof that is otherwise in order."""

    NONE = "none"
    UNCHECKED = "unchecked"
    """Its signature was not checked: the chain is unknown, or ``py_ecc`` is not installed."""
    CHECKED = "checked"


class ProofResult(NamedTuple):
    """Result of `verify`. ``failure``: the first, None = it is in order; ``detail``: what differs, in words."""

    failure: ProofFailure | None
    detail: str = ""
    beacon: BeaconCheck = BeaconCheck.NONE
    is_as_seen: bool = False
    """Whether it was compared with a commitment or root that the caller has kept."""


class ProofUnreadable(Exception):
    """The file is no JSON in UTF-8."""


def finish(slices: Iterable[None]) -> None:
    """Run what is done in slices to its end."""
    deque(slices, maxlen=0)


def parse_proof(data: bytes) -> Any:
    """Return the JSON of a proof file; ProofUnreadable where it is none. Any: `verify` checks what it holds."""
    try:
        return parse_json(data.decode(), MAX_DEPTH)
    except (ValueError, RecursionError) as error:
        raise ProofUnreadable(str(error) or "it is nested too deep") from error


MAX_DEPTH = 16
"""Nesting of a proof file, which needs four levels."""


def verify(
    document: Any,
    seen_commitment: str = "",
    seen_root: str = "",
    *,
    check: Callable[[str, int, bytes], bool | None] = check_signature,
) -> ProofResult:
    """Return the first failure of a proof, or that it is in order.

    ``document``: the JSON of the file (Any: not checked yet). ``seen_commitment``, ``seen_root``: what the caller's own
    client kept, hexadecimal; empty: it kept none. ``check``: checks the signature of a beacon, as `check_signature`,
    which takes about a second.
    """
    try:
        proof = _read(document)
    except FieldError as error:
        return ProofResult(ProofFailure.BAD_FORMAT, f"{error.field} {error.rule}".strip())
    terms, committed, closed = proof.terms, proof.committed, proof.closed
    seed, root = bytes.fromhex(proof.seed), bytes.fromhex(closed.root)
    if not terms.are_consistent:
        return ProofResult(ProofFailure.BAD_TERMS, "names of grades, times or the beacon contradict each other")
    if terms.has_beacon != (proof.beacon is not None):
        return ProofResult(ProofFailure.BAD_TERMS, "a beacon and its value are there together, or neither is")
    if commitment(seed, terms).hex() != committed.commitment:
        return ProofResult(ProofFailure.BAD_COMMITMENT, "seed and terms are not those of the commitment")
    failure = _failure_of_entries(proof)
    if failure is not None:
        return failure
    value, beacon_check, failure = _checked_beacon(proof, check)
    if failure is not None:
        return failure
    chain = KNOWN_CHAINS.get(terms.beacon_chain)
    if not committed.at_ms <= terms.open_at_ms or not terms.close_at_ms <= closed.at_ms:
        return ProofResult(ProofFailure.BAD_TIMES, "it was announced after it opened, or closed too early")
    if not committed.offset < closed.offset:
        return ProofResult(ProofFailure.BAD_TIMES, "the offset of the close is not above that of the commitment")
    if chain is not None and not closed.at_ms < chain.time_ms(terms.beacon_round):
        return ProofResult(ProofFailure.BAD_TIMES, "it was closed when the value of the beacon was known")
    key = draw_key(seed, terms, root, closed.entries, closed.weight, value)
    drawing = Drawing([weight for _, weight in proof.entries], [grade.count for grade in terms.grades])
    finish(drawing.run(key))
    if tuple(tuple(proof.entries[index][0] for index in grade) for grade in drawing.winners) != proof.winners:
        return ProofResult(ProofFailure.BAD_WINNERS, "the draw gives other winners")
    if seen_commitment not in ("", committed.commitment):
        return ProofResult(ProofFailure.NOT_AS_SEEN, f"its commitment is {committed.commitment}")
    if seen_root not in ("", closed.root):
        return ProofResult(ProofFailure.NOT_AS_SEEN, f"its root is {closed.root}")
    return ProofResult(None, "", beacon_check, bool(seen_commitment or seen_root))


def _failure_of_entries(proof: LotteryProof) -> ProofResult | None:
    entries, closed = proof.entries, proof.closed
    last = ""
    for id, _ in entries:  # code points have the order of their bytes in UTF-8
        if id <= last:
            return ProofResult(ProofFailure.BAD_ORDER, f"entry {id!r} is not above the one before")
        last = id
    for id, weight in entries:
        if not 1 <= weight <= proof.terms.max_weight:
            return ProofResult(ProofFailure.BAD_WEIGHT, f"of entry {id!r}: {weight}")
    if len(entries) != closed.entries or sum(weight for _, weight in entries) != closed.weight:
        return ProofResult(ProofFailure.BAD_COUNT, "the close counted other entries, or other weights")
    tree = MerkleTree()
    finish(tree.build(entries))
    if tree.root.hex() != closed.root:
        return ProofResult(ProofFailure.BAD_ROOT, f"the entries have the root {tree.root.hex()}")
    return None


def _checked_beacon(
    proof: LotteryProof, check: Callable[[str, int, bytes], bool | None]
) -> tuple[bytes, BeaconCheck, ProofResult | None]:
    """Return the value of the beacon, what is known of it, and the failure, if there is one."""
    if proof.beacon is None:
        return b"", BeaconCheck.NONE, None
    chain, round = proof.terms.beacon_chain, proof.terms.beacon_round
    signature = bytes.fromhex(proof.beacon.signature)
    value = beacon_value(signature)
    if value.hex() != proof.beacon.value:
        return value, BeaconCheck.NONE, ProofResult(ProofFailure.BAD_BEACON, "its value is not that of its signature")
    is_right = check(chain, round, signature)
    if is_right is None:
        return value, BeaconCheck.UNCHECKED, None
    if not is_right:
        return value, BeaconCheck.NONE, ProofResult(ProofFailure.BAD_BEACON, f"its signature is not of round {round}")
    return value, BeaconCheck.CHECKED, None


# ---- reading

_is_refused = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]").search
_is_hex = re.compile("(?:[0-9a-f]{2}){1,256}").fullmatch


def _text(low: int, high: int) -> Rule:
    rule = f"must be a string of {low} to {high} characters without control characters"

    def check(value: Any) -> str:
        if type(value) is str and low <= len(value) <= high and _is_refused(value) is None:
            return value
        raise FieldError(rule)

    return check


def _object(rules: dict[str, Rule]) -> Callable[[Any], list[Any]]:
    """Return the rule of an object with these members, and others, which are ignored; its result is their values."""

    def check(value: Any) -> list[Any]:
        if type(value) is not dict:
            raise FieldError("must be an object")
        found = []
        for name, rule in rules.items():
            if name not in value:
                raise FieldError("is required", name)
            try:
                found.append(rule(value[name]))
            except FieldError as error:
                raise FieldError(error.rule, f"{name}.{error.field}".rstrip(".")) from None
        return found

    return check


def _optional_object(rules: dict[str, Rule]) -> Rule:
    check = _object(rules)
    return lambda value: None if value is None else check(value)


def _signature(value: Any) -> str:
    if type(value) is str and _is_hex(value):
        return value
    raise FieldError("must be digits 0-9a-f, two a byte")


def _chain(value: Any) -> str:
    return "" if value == "" else str(hex_digest(value))


def _format(value: Any) -> str:
    if value != PROOF_FORMAT:
        raise FieldError(f"must be {PROOF_FORMAT}")
    return PROOF_FORMAT


def _entry(value: Any) -> tuple[str, int]:
    if type(value) is not list or len(value) != 2 or type(value[1]) is not int:
        raise FieldError("must be an id and a weight")
    return _id(value[0]), value[1]


_id = _text(1, 64)
_number = integer(0)
_grade = _object({"name": _text(0, 64), "count": integer(1, MAX_WINNERS_OF_GRADE)})
_PARTS: dict[str, Rule] = {
    "format": _format,
    "terms": _object({
        "lottery_id": _id,
        "room": _id,
        "open_at_ms": _number,
        "close_at_ms": _number,
        "grades": array_of(_grade, MAX_GRADES),
        "max_weight": integer(1, MAX_WEIGHT),
        "rule": _text(0, MAX_RULE_CHARS),
        "beacon_chain": _chain,
        "beacon_round": _number,
    }),
    "committed": _object({"commitment": hex_digest, "offset": _number, "at_ms": _number}),
    "closed": _object({
        "root": hex_digest,
        "entries": integer(0, MAX_ENTRIES),
        "weight": _number,
        "offset": _number,
        "at_ms": _number,
    }),
    "seed": hex_digest,
    "beacon": _optional_object({"signature": _signature, "value": hex_digest}),
    "entries": array_of(_entry, MAX_ENTRIES),
    "winners": array_of(array_of(_id, MAX_WINNERS_OF_GRADE), MAX_GRADES),
}  # fmt: skip
_parts = _object(_PARTS)


def _read(document: Any) -> LotteryProof:
    """Return a checked document; FieldError names the first part that is not in order."""
    format, terms, committed, closed, seed, beacon, entries, winners = _parts(document)
    id, room, open_at_ms, close_at_ms, grades, *others = terms
    if not grades:
        raise FieldError(f"must be 1 to {MAX_GRADES} grades", "terms.grades")
    return LotteryProof(
        format,
        LotteryTerms(id, room, open_at_ms, close_at_ms, tuple(LotteryGrade(*grade) for grade in grades), *others),
        LotteryCommitted(*committed),
        LotteryClosed(*closed),
        seed,
        None if beacon is None else LotteryBeacon(*beacon),
        entries,
        winners,
    )
