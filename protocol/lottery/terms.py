"""Terms of a lottery, and the bytes that stand for them, for its entries and for its draw.

The commitment is published before entries open and fixes seed and terms, the Merkle root at the close fixes the
entries, and the key of the draw follows from all of them: the winners can then only be these.
"""

from __future__ import annotations

from typing import NamedTuple

from ..primitives import digest, label, mac, pack_text, pack_u32, pack_u64

__all__ = [
    "MAX_ENTRIES",
    "MAX_GRADES",
    "MAX_RULE_CHARS",
    "MAX_WEIGHT",
    "MAX_WINNERS_OF_GRADE",
    "BlindId",
    "LotteryGrade",
    "LotteryTerms",
    "blind_id",
    "commitment",
    "draw_key",
]

MAX_GRADES = 20
MAX_WINNERS_OF_GRADE = 10_000
MAX_WEIGHT = 1_000_000
MAX_ENTRIES = 1_000_000
MAX_RULE_CHARS = 1000


class LotteryGrade(NamedTuple):
    """A grade of prizes. ``count``: how many there are; names are different within a lottery."""

    name: str
    count: int  # type: ignore[assignment]  # hides tuple.count


class LotteryTerms(NamedTuple):
    """What is fixed before entries open.

    Entries are taken while ``open_at_ms <= t < close_at_ms`` (Unix ms). ``max_weight``: of one entry; ``rule``: in
    words, who may enter and what weighs more. ``beacon_chain``: hash of a drand chain whose value of ``beacon_round``
    goes into the draw, both empty: none does.
    """

    lottery_id: str
    room: str
    open_at_ms: int
    close_at_ms: int
    grades: tuple[LotteryGrade, ...]
    max_weight: int = 1
    rule: str = ""
    beacon_chain: str = ""
    beacon_round: int = 0

    @property
    def has_beacon(self) -> bool:
        return self.beacon_round > 0

    @property
    def are_consistent(self) -> bool:
        """Whether the names of grades differ, it opens before it closes, and a chain has a round."""
        names = {grade.name for grade in self.grades}
        return (
            len(names) == len(self.grades)
            and self.open_at_ms < self.close_at_ms
            and bool(self.beacon_chain) == self.has_beacon
        )

    def digest(self) -> bytes:
        """Return the 32 bytes that stand for the terms."""
        grades = b"".join(pack_text(grade.name) + pack_u32(grade.count) for grade in self.grades)
        return digest(
            pack_text("roomcast/lottery/terms/1")
            + pack_text(self.lottery_id)
            + pack_text(self.room)
            + pack_u64(self.open_at_ms)
            + pack_u64(self.close_at_ms)
            + pack_u32(len(self.grades))
            + grades
            + pack_u32(self.max_weight)
            + pack_text(self.rule)
            + pack_text(self.beacon_chain)
            + pack_u64(self.beacon_round)
        )


def commitment(seed: bytes, terms: LotteryTerms) -> bytes:
    """Return what is published before entries open: it fixes the seed and the terms."""
    return digest(pack_text("roomcast/lottery/commit/1") + seed + terms.digest())


def draw_key(seed: bytes, terms: LotteryTerms, root: bytes, entries: int, weight: int, value: bytes) -> bytes:
    """Return the key that the winners follow from. ``weight``: sum of the weights; ``value``: of the beacon, or
    empty."""
    return mac(
        seed,
        pack_text("roomcast/lottery/draw/1")
        + terms.digest()
        + root
        + pack_u32(entries)
        + pack_u64(weight)
        + pack_u64(terms.beacon_round)
        + value,
    )


class BlindId(NamedTuple):
    """Id of an entry that does not say whose it is. ``salt``: lets its user, and nobody else, show that it is his;
    both are lower-case hexadecimal."""

    salt: str
    id: str


def blind_id(key: bytes, lottery_id: str, user: str) -> BlindId:
    """Return the id of a user's entry under the private ``key`` of the lottery."""
    salt = mac(key, label("roomcast/lottery/salt/1") + pack_text(user))[:16]
    id = digest(pack_text("roomcast/lottery/entry/1") + pack_text(lottery_id) + pack_text(user) + salt)[:16]
    return BlindId(salt.hex(), id.hex())
