"""Activity events of lotteries: their records and rows."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..codes import Role
from ..fields import array_of, boolean, hex_digest, integer, name_of, record, room_name, text
from ..lottery.terms import (
    MAX_ENTRIES,
    MAX_GRADES,
    MAX_RULE_CHARS,
    MAX_WEIGHT,
    MAX_WINNERS_OF_GRADE,
    LotteryGrade,
    LotteryTerms,
)
from .eligibility import Eligibility, eligibility
from .rows import ActivityEventRow, ActivityViewRow, EventRow, Via

__all__ = [
    "MAX_REPORTED_WINNERS",
    "MAX_SHOWN_WINNERS",
    "REPORTS",
    "ROWS",
    "VIEWS",
    "LotteryAnnounced",
    "LotteryBonuses",
    "LotteryClosedData",
    "LotteryCounter",
    "LotteryDrawn",
    "LotteryDrawnData",
    "LotteryEntry",
    "LotteryOpened",
    "LotteryPhase",
    "LotteryPrize",
    "LotteryRoot",
    "LotteryView",
    "LotteryVoided",
    "LotteryWinner",
    "LotteryWonData",
    "lottery_bonuses",
    "lottery_drawn",
    "lottery_entry",
    "lottery_grades",
    "lottery_terms",
    "lottery_view",
    "lottery_voided",
]

MAX_SHOWN_WINNERS = 100
"""Winners that the event names; the proof has all."""
MAX_REPORTED_WINNERS = 64
"""Winners of one report."""


class LotteryPhase(IntEnum):
    """How far a lottery is."""

    ANNOUNCED = 0
    OPEN = 1
    CLOSED = 2
    DRAWN = 3
    VOIDED = 4


class LotteryBonuses(NamedTuple):
    """What an entry weighs beside 1; all are added, and the sum is cut to the terms' ``max_weight``.

    ``follow``: who follows the host; ``watch``: for each ``watch_every_s`` seconds in the room; ``gift``: for each
    ``gift_every_cents`` of gifts in the room.
    """

    follow: int = 0
    watch: int = 0
    watch_every_s: int = 60
    gift: int = 0
    gift_every_cents: int = 100


class LotteryAnnounced(NamedTuple):
    """A lottery is announced. ``commitment``: of its seed and terms: keep it, to verify the proof with; ``is_blind``:
    ids of entries do not say whose they are; a message that equals ``eligibility.keyword`` enters its sender."""

    commitment: str
    terms: LotteryTerms
    is_blind: bool
    max_entries: int
    eligibility: Eligibility
    bonuses: LotteryBonuses


class LotteryOpened(NamedTuple):
    """Entries are taken."""

    close_at_ms: int


class LotteryRoot(NamedTuple):
    """Entries are closed. ``root``: of all of them: keep it, to verify the proof with; ``weight``: sum of theirs."""

    root: str
    entries: int
    weight: int
    at_ms: int


class LotteryDrawn(NamedTuple):
    """The winners are drawn. ``seed``: that the commitment has fixed; ``signature``, ``value``: of the beacon's round,
    empty without one; ``winners``: ids of entries by grade, the first `MAX_SHOWN_WINNERS`; ``winner_count``: all."""

    seed: str
    signature: str
    value: str
    winners: tuple[tuple[str, ...], ...]
    winner_count: int
    at_ms: int


class LotteryVoided(NamedTuple):
    """There is no draw. ``reason``: in words."""

    reason: str
    at_ms: int


class LotteryCounter(NamedTuple):
    """Entries so far."""

    entries: int


class LotteryPrize(NamedTuple):
    """The user has won. ``grade``: index in the terms' grades, ``prize``: its name; ``entry``: id of the entry."""

    room: str
    grade: int
    prize: str
    entry: str


class LotteryEntry(NamedTuple):
    """An entry, for its user alone. ``entry``: its id in the proof; ``salt``: lets the user show that it is his, empty
    where ids are those of users; ``prize``: name of the grade that it has won, empty = none."""

    entry: str
    salt: str
    weight: int
    prize: str = ""


class LotteryView(NamedTuple):
    """A lottery, for who joins. ``grades``: the first that fit, of ``grade_count``; ``root``: empty until the close."""

    phase: LotteryPhase
    open_at_ms: int
    close_at_ms: int
    keyword: str
    commitment: str
    entries: int
    root: str
    beacon_round: int
    grades: tuple[LotteryGrade, ...]
    grade_count: int


class LotteryClosedData(NamedTuple):
    """The entries of a lottery are closed. ``root``: of all of them."""

    lottery: str
    root: str
    entries: int
    weight: int


class LotteryDrawnData(NamedTuple):
    """A lottery is drawn; reports of the winners follow. ``winner_count``: how many there are."""

    lottery: str
    seed: str
    value: str
    winner_count: int


class LotteryWinner(NamedTuple):
    """``grade``: index in the terms' grades, ``prize``: its name."""

    user: str
    entry: str
    grade: int
    prize: str


class LotteryWonData(NamedTuple):
    """Some of the winners of a lottery, each of whom is in one report."""

    lottery: str
    winners: tuple[LotteryWinner, ...]


class LotteryVoidedData(NamedTuple):
    """A lottery ends without a draw. ``reason``: in words; ``entries``: how many there were."""

    lottery: str
    reason: str
    entries: int


_id = text(1, 64)
_time = integer(0)
_name = text(1, 64)
_sum = integer(0)
_index = integer(0, MAX_GRADES - 1)
_hex_or_empty = text(0, 64)
lottery_grades = array_of(record(LotteryGrade, (_name, integer(1, MAX_WINNERS_OF_GRADE))), MAX_GRADES)
lottery_terms = record(
    LotteryTerms,
    (
        _id, room_name, _time, _time, lottery_grades, integer(1, MAX_WEIGHT), text(0, MAX_RULE_CHARS), _hex_or_empty,
        integer(0),
    ),
)  # fmt: skip
"""Rule of `LotteryTerms`."""
_bonus = integer(0, MAX_WEIGHT)
lottery_bonuses = record(LotteryBonuses, (_bonus, _bonus, integer(1, 86_400), _bonus, integer(1, 10**12)))
"""Rule of `LotteryBonuses`."""
lottery_drawn = record(
    LotteryDrawn,
    (
        hex_digest, text(0, 512), _hex_or_empty, array_of(array_of(_id, MAX_SHOWN_WINNERS), MAX_GRADES), integer(0),
        _time,
    ),
)  # fmt: skip
"""Rule of `LotteryDrawn`."""
lottery_voided = record(LotteryVoided, (text(0, 200), _time))
"""Rule of `LotteryVoided`."""
lottery_entry = record(LotteryEntry, (_id, text(0, 32), integer(1, MAX_WEIGHT), text(0, 64)))
"""Rule of `LotteryEntry`."""
lottery_view = record(
    LotteryView,
    (
        name_of(LotteryPhase), _time, _time, text(0, 64), hex_digest, _sum, _hex_or_empty, integer(0), lottery_grades,
        integer(1, MAX_GRADES),
    ),
)  # fmt: skip
"""Rule of `LotteryView`."""
_GRADES = (LotteryGrade("first", 1), LotteryGrade("second", 10))
_COMMITMENT = "5f" * 32
_ROOT = "c2" * 32
_ENTRY = "894d3f1b4ebea1bd78a0781fc22abdf0"

ROWS: tuple[ActivityEventRow, ...] = (
    ActivityEventRow(
        "lotteries.announced", Via.EVENT, LotteryAnnounced,
        record(
            LotteryAnnounced,
            (hex_digest, lottery_terms, boolean, integer(1, MAX_ENTRIES), eligibility, lottery_bonuses),
        ),
        "A lottery is announced, with the commitment to its seed and terms.",
        LotteryAnnounced(
            _COMMITMENT, LotteryTerms("bag-1", "live-1", 1_790_000_060_000, 1_790_000_120_000, _GRADES, 1, "say 福袋"),
            True, 200_000, Eligibility(Role.VIEWER, keyword="福袋"), LotteryBonuses(),
        ),
    ),
    ActivityEventRow(
        "lotteries.opened", Via.EVENT, LotteryOpened, record(LotteryOpened, (_time,)), "Entries are taken.",
        LotteryOpened(1_790_000_120_000),
    ),
    ActivityEventRow(
        "lotteries.closed", Via.EVENT, LotteryRoot, record(LotteryRoot, (hex_digest, _sum, _sum, _time)),
        "Entries are closed, and fixed by their root.", LotteryRoot(_ROOT, 3, 3, 1_790_000_120_000),
    ),
    ActivityEventRow(
        "lotteries.drawn", Via.EVENT, LotteryDrawn, lottery_drawn, "The winners are drawn, and the seed is public.",
        LotteryDrawn("7d" * 32, "", "", ((_ENTRY,), ()), 1, 1_790_000_120_500),
    ),
    ActivityEventRow(
        "lotteries.voided", Via.EVENT, LotteryVoided, lottery_voided, "A lottery ends without a draw.",
        LotteryVoided("the stream was cut", 1_790_000_090_000),
    ),
    ActivityEventRow(
        "lotteries.counted", Via.COUNTER, LotteryCounter, record(LotteryCounter, (_sum,)), "Entries so far.",
        LotteryCounter(1234),
    ),
    ActivityEventRow(
        "lotteries.won", Via.DIRECT, LotteryPrize, record(LotteryPrize, (room_name, _index, _name, _id)),
        "The user has won a prize.", LotteryPrize("live-1", 0, "first", _ENTRY),
    ),
)  # fmt: skip

_winner = record(LotteryWinner, (_id, _id, _index, _name))
REPORTS: tuple[EventRow, ...] = (
    EventRow(
        "lottery.closed", LotteryClosedData, record(LotteryClosedData, (_id, hex_digest, _sum, _sum)),
        "The entries of a lottery are closed.", LotteryClosedData("bag-1", _ROOT, 3, 3),
    ),
    EventRow(
        "lottery.drawn", LotteryDrawnData, record(LotteryDrawnData, (_id, hex_digest, _hex_or_empty, _sum)),
        "A lottery is drawn; lottery.won names the winners.", LotteryDrawnData("bag-1", "7d" * 32, "", 1),
    ),
    EventRow(
        "lottery.won", LotteryWonData, record(LotteryWonData, (_id, array_of(_winner, MAX_REPORTED_WINNERS))),
        "Users have won prizes of a lottery.",
        LotteryWonData("bag-1", (LotteryWinner("ann", _ENTRY, 0, "first"),)),
    ),
    EventRow(
        "lottery.voided", LotteryVoidedData, record(LotteryVoidedData, (_id, text(0, 200), _sum)),
        "A lottery ends without a draw.", LotteryVoidedData("bag-1", "the stream was cut", 3),
    ),
)  # fmt: skip

VIEWS: tuple[ActivityViewRow, ...] = (
    ActivityViewRow(
        "lotteries", LotteryView, lottery_view,
        LotteryView(
            LotteryPhase.OPEN, 1_790_000_060_000, 1_790_000_120_000, "福袋", _COMMITMENT, 3, "", 0, _GRADES, 2,
        ),
        LotteryEntry, lottery_entry, LotteryEntry(_ENTRY, "15a3a464d431e07f4cedf0f2a1ac4713", 1),
    ),
)  # fmt: skip
"""What a member that joins gets of a lottery."""
