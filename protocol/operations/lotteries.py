"""Operations on lotteries: their records and rows."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..activities.eligibility import Eligibility, eligibility
from ..activities.lotteries import (
    LotteryBonuses,
    LotteryDrawn,
    LotteryEntry,
    LotteryVoided,
    lottery_bonuses,
    lottery_drawn,
    lottery_entry,
    lottery_grades,
    lottery_terms,
    lottery_voided,
)
from ..codes import ErrorCode
from ..fields import (
    FieldError,
    array_of,
    boolean,
    described,
    hex_digest,
    integer,
    optional,
    record,
    room_name,
    text,
)
from ..lottery.proof import PROOF_FORMAT, LotteryBeacon, LotteryClosed, LotteryCommitted
from ..lottery.terms import (
    MAX_ENTRIES,
    MAX_GRADES,
    MAX_RULE_CHARS,
    MAX_WEIGHT,
    LotteryGrade,
    LotteryTerms,
)
from .rows import (
    DIRECTION,
    EVERY_MEMBER,
    LOGGED_IN,
    MAX_PAGE,
    NEEDS_LEDGER,
    OperationRow,
    RateLimit,
    Scope,
    always,
    cursor,
    page_size,
    row,
)

__all__ = [
    "ROWS",
    "CreateLottery",
    "DrawLottery",
    "EnterLottery",
    "GetLotteryProof",
    "GetMyLotteryEntry",
    "LotteryCreated",
    "LotteryProofPage",
    "MyLotteryEntry",
    "VoidLottery",
]

DEFAULT_MAX_ENTRIES = 200_000


class CreateLottery(NamedTuple):
    """Announce a lottery, which opens, closes and (without a beacon) draws by the broker's clock.

    ``id``: chosen by the caller; ``max_weight``: of one entry, see ``bonuses``; ``rule``: in words, for the public;
    ``beacon_chain``, ``beacon_round``: hash of a drand chain and a round of it, 10 s to 1 h after the close, whose
    value goes into the draw; ``is_blind``: ids of entries do not say whose they are; ``eligibility``: a message that
    equals its keyword enters its sender.
    """

    room: str
    id: str
    open_at_ms: int
    close_at_ms: int
    grades: tuple[LotteryGrade, ...]
    max_weight: int = 1
    rule: str = ""
    beacon_chain: str = ""
    beacon_round: int = 0
    is_blind: bool = True
    max_entries: int = DEFAULT_MAX_ENTRIES
    eligibility: Eligibility = Eligibility()
    bonuses: LotteryBonuses = LotteryBonuses()


class EnterLottery(NamedTuple):
    """Enter a lottery; again: the same entry, whose weight may have risen. ``keyword``: where it asks for one."""

    room: str
    id: str
    keyword: str = ""


class GetMyLotteryEntry(NamedTuple):
    """Ask for the caller's entry of a lottery."""

    room: str
    id: str


class DrawLottery(NamedTuple):
    """Hand in the value of a lottery's beacon, or wait for the draw of one that has none (``round`` 0).

    ``signature``: of the round, hexadecimal, as drand publishes it.
    """

    room: str
    id: str
    round: int = 0
    signature: str = ""


class VoidLottery(NamedTuple):
    """End a lottery without a draw. ``reason``: for the public."""

    room: str
    id: str
    reason: str


class GetLotteryProof(NamedTuple):
    """Ask for the proof of a lottery that is drawn."""

    room: str
    id: str
    limit: int = MAX_PAGE
    cursor: str | None = None


class LotteryCreated(NamedTuple):
    """The lottery is announced. ``commitment``: to its seed and terms."""

    id: str
    commitment: str


class MyLotteryEntry(NamedTuple):
    """An entry of the caller. ``entry``: its id in the proof; ``salt``: lets the user show that it is his, empty where
    ids are those of users; ``prize``: name of the grade that it has won, empty = none.

    After the close, ``root`` is that of all ``entries``, and ``path`` leads to it from the entry, which is that of
    ``index``; before, root is empty and index null.
    """

    entry: str
    salt: str
    weight: int
    prize: str = ""
    root: str = ""
    entries: int = 0
    index: int | None = None  # type: ignore[assignment]  # hides tuple.index
    path: tuple[str, ...] = ()


class LotteryProofPage(NamedTuple):
    """Part of a proof, with the members of a proof file: one page that has no ``next`` is a whole one.

    ``entries`` and ``winners`` are parts of those of the file, in their order; all pages have the other fields alike.
    """

    format: str
    terms: LotteryTerms
    committed: LotteryCommitted
    closed: LotteryClosed
    seed: str
    beacon: LotteryBeacon | None
    entries: tuple[tuple[str, int], ...]
    winners: tuple[tuple[str, ...], ...]
    next: str | None = None


def _weighed(value: Any) -> tuple[str, int]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise FieldError("must be an id and a weight")
    return _id(value[0]), _weight(value[1])


_id = text(1, 64)
_time = integer(0)
_count = integer(0)
_weight = integer(1, MAX_WEIGHT)
_reason = text(1, 200)
_hex = text(0, 512)
_chain = text(0, 64)
_entry = described(
    _weighed,
    "array of an id and a weight",
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "minItems": 2, "maxItems": 2},
)
_created = record(LotteryCreated, (_id, hex_digest))
_mine = record(
    MyLotteryEntry,
    (
        _id, text(0, 32), _weight, text(0, 64), _chain, _count, optional(integer(0, MAX_ENTRIES)),
        array_of(hex_digest, 20),
    ),
)  # fmt: skip
_page = record(
    LotteryProofPage,
    (
        text(1, 64), lottery_terms, record(LotteryCommitted, (hex_digest, _count, _time)),
        record(LotteryClosed, (hex_digest, _count, _count, _count, _time)), hex_digest,
        optional(record(LotteryBeacon, (_hex, hex_digest))), array_of(_entry, MAX_PAGE),
        array_of(array_of(_id, MAX_PAGE), MAX_GRADES), cursor,
    ),
)  # fmt: skip
_KNOWN = (ErrorCode.UNKNOWN_ROOM, ErrorCode.UNKNOWN_ACTIVITY, *NEEDS_LEDGER)
_OF_OPEN = (ErrorCode.ROOM_ENDED, ErrorCode.CLOSED, *_KNOWN)
_OPEN_MS, _CLOSE_MS = 4_102_444_700_000, 4_102_444_800_000
_GRADES = (LotteryGrade("first", 1), LotteryGrade("second", 10))
_COMMITMENT, _ROOT, _SEED = "5f" * 32, "c2" * 32, "7d" * 32
_ENTRY, _SALT = "894d3f1b4ebea1bd78a0781fc22abdf0", "15a3a464d431e07f4cedf0f2a1ac4713"

ROWS: tuple[OperationRow, ...] = (
    row(
        300, "lotteries.create", CreateLottery,
        (
            room_name, _id, _time, _time, lottery_grades, _weight, text(0, MAX_RULE_CHARS), _chain, _count, boolean,
            integer(1, MAX_ENTRIES), eligibility, lottery_bonuses,
        ),
        LotteryCreated, _created, "Announce a lottery.",
        speaks=always, scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True,
        errors=(ErrorCode.KEY_REUSED, ErrorCode.OUT_OF_STATE, ErrorCode.ROOM_ENDED, *NEEDS_LEDGER),
        example=(
            CreateLottery("live-1", "bag-1", _OPEN_MS, _CLOSE_MS, _GRADES, rule="one entry a user"),
            LotteryCreated("bag-1", _COMMITMENT),
        ),
    ),
    row(
        301, "lotteries.enter", EnterLottery, (room_name, _id, text(0, 64)), LotteryEntry, lottery_entry,
        "Enter a lottery.",
        scope=None, roles=LOGGED_IN, joined=True, durable=True, rate=RateLimit(3, 6), address_rate=RateLimit(20, 40),
        errors=(ErrorCode.NOT_OPEN, ErrorCode.NOT_ELIGIBLE, ErrorCode.ROOM_PAUSED, *_OF_OPEN),
        example=(EnterLottery("live-1", "bag-1"), LotteryEntry(_ENTRY, _SALT, 1)),
    ),
    row(
        302, "lotteries.my_entry", GetMyLotteryEntry, (room_name, _id), MyLotteryEntry, _mine,
        "Return the caller's entry, after the close with its place under the root.",
        scope=None, roles=LOGGED_IN, changes=False, errors=(ErrorCode.UNKNOWN_CLAIM, *_KNOWN),
        example=(
            GetMyLotteryEntry("live-1", "bag-1"),
            MyLotteryEntry(_ENTRY, _SALT, 1, "first", _ROOT, 3, 2, (_COMMITMENT,)),
        ),
    ),
    row(
        303, "lotteries.draw", DrawLottery, (room_name, _id, _count, _hex), LotteryDrawn, lottery_drawn,
        "Hand in the value of a lottery's beacon, or wait for its draw.",
        scope=Scope.COMMERCE_WRITE, roles=LOGGED_IN, durable=True, rate=RateLimit(0.2, 2), at_once=1,
        errors=(ErrorCode.NOT_OPEN, *_OF_OPEN),
        example=(
            DrawLottery("live-1", "bag-1"),
            LotteryDrawn(_SEED, "", "", ((_ENTRY,), ()), 1, _CLOSE_MS + 500),
        ),
    ),
    row(
        304, "lotteries.void", VoidLottery, (room_name, _id, _reason), LotteryVoided, lottery_voided,
        "End a lottery without a draw.",
        scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True, errors=_OF_OPEN,
        example=(VoidLottery("live-1", "bag-1", "the stream was cut"), LotteryVoided("the stream was cut", _OPEN_MS)),
    ),
    row(
        305, "lotteries.proof", GetLotteryProof, (room_name, _id, page_size, cursor), LotteryProofPage, _page,
        "Return the proof of a lottery, in pages that have the members of a proof file.",
        scope=Scope.COMMERCE_READ, roles=EVERY_MEMBER, changes=False, rate=RateLimit(5, 20), at_once=2,
        errors=(ErrorCode.NOT_OPEN, ErrorCode.CLOSED, ErrorCode.UNKNOWN_ACTIVITY, *NEEDS_LEDGER),
        example=(
            GetLotteryProof("live-1", "bag-1"),
            LotteryProofPage(
                PROOF_FORMAT, LotteryTerms("bag-1", "live-1", _OPEN_MS, _CLOSE_MS, _GRADES),
                LotteryCommitted(_COMMITMENT, 17, _OPEN_MS - 60_000), LotteryClosed(_ROOT, 1, 1, 99, _CLOSE_MS),
                _SEED, None, ((_ENTRY, 1),), ((_ENTRY,), ()),
            ),
        ),
    ),
)  # fmt: skip
