"""Activity events of polls: their records and rows, and the commitment to the answer of a quiz."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

from ..fields import (
    FieldError,
    Rule,
    array_of,
    boolean,
    characters,
    described,
    hex_digest,
    integer,
    name_of,
    optional,
    record,
    text,
)
from ..primitives import digest, pack_text, pack_u32
from .rows import ActivityEventRow, ActivityViewRow, EventRow, Via

__all__ = [
    "EXAMPLE_SALT",
    "MAX_OPTIONS",
    "REPORTS",
    "ROWS",
    "SALT_BYTES",
    "VIEWS",
    "PollClosed",
    "PollClosedData",
    "PollCounts",
    "PollRevealed",
    "PollState",
    "PollTerms",
    "PollView",
    "PollVote",
    "answer_hash",
    "poll_closed",
    "poll_option",
    "poll_options",
    "poll_salt",
    "poll_terms",
    "poll_terms_rules",
    "poll_title",
    "poll_view",
    "poll_vote",
]

MAX_OPTIONS = 10
SALT_BYTES = 16


def answer_hash(salt: str, option: int) -> str:
    """Return the commitment to the right option of a quiz, in hexadecimal. ``salt``: 16 random bytes in hexadecimal,
    which are revealed with the option; ``option``: from 0."""
    return digest(pack_text("roomcast/quiz/1") + bytes.fromhex(salt) + pack_u32(option)).hex()


class PollState(IntEnum):
    """Where a poll is. A quiz ends as REVEALED."""

    SCHEDULED = 1
    OPEN = 2
    CLOSED = 3
    CANCELLED = 4
    REVEALED = 5


class PollTerms(NamedTuple):
    """What is asked. Options are numbered from 0. ``open_at_ms``: from then on votes are taken, and until
    ``close_at_ms``, null = until it is closed; ``choices``: most options of one vote; ``changeable``: whether a user
    may vote again; ``hidden``: whether counts stay secret until the close; ``answer_hash``: of a quiz, see
    `answer_hash`."""

    title: str
    options: tuple[str, ...]
    open_at_ms: int
    close_at_ms: int | None = None
    choices: int = 1
    changeable: bool = False
    hidden: bool = False
    answer_hash: str | None = None


class PollCounts(NamedTuple):
    """Votes until now. ``counts``: of each option, empty while they are hidden."""

    voters: int
    counts: tuple[int, ...] = ()


class PollClosed(NamedTuple):
    """The exact result. ``counts``: votes of each option; ``per_mille``: their shares, whose sum is 1000."""

    voters: int
    counts: tuple[int, ...]
    per_mille: tuple[int, ...]


class PollRevealed(NamedTuple):
    """The right option of a quiz, with the salt of its hash."""

    option: int
    salt: str


class PollView(NamedTuple):
    """A poll as a member that joins gets it. ``counts``: empty while they are hidden; ``per_mille``: empty before the
    close; ``answer``: null before it is revealed."""

    state: PollState
    terms: PollTerms
    voters: int
    counts: tuple[int, ...]
    per_mille: tuple[int, ...] = ()
    answer: PollRevealed | None = None


class PollVote(NamedTuple):
    """The vote of one user. ``vote_no``: 1 for the first, one more for each change."""

    options: tuple[int, ...]
    vote_no: int


class PollClosedData(NamedTuple):
    """A poll or quiz has its result. ``counts`` and ``per_mille``: of each option."""

    poll: str
    voters: int
    counts: tuple[int, ...]
    per_mille: tuple[int, ...]


_count = integer(0)
_counts = array_of(_count, MAX_OPTIONS)
poll_title = characters(100, 400)
poll_option = integer(0, MAX_OPTIONS - 1)
poll_options = array_of(characters(40, 160), MAX_OPTIONS)


def _salt(value: Any) -> str:
    if type(value) is str and len(value) == 2 * SALT_BYTES and not value.strip("0123456789abcdef"):
        return value
    raise FieldError(f"must be {2 * SALT_BYTES} digits 0-9a-f")


poll_salt: Rule = described(_salt, "16 bytes", {"type": "string", "pattern": "^[0-9a-f]{32}$"})
poll_terms_rules: tuple[Rule, ...] = (
    poll_title, poll_options, _count, optional(_count), integer(1, MAX_OPTIONS), boolean, boolean,
    optional(hex_digest),
)  # fmt: skip
"""Rules of the fields of `PollTerms`."""
poll_terms = record(PollTerms, poll_terms_rules)
poll_closed = record(PollClosed, (_count, _counts, _counts))
_revealed = record(PollRevealed, (poll_option, poll_salt))
poll_view = record(PollView, (name_of(PollState), poll_terms, _count, _counts, _counts, optional(_revealed)))
poll_vote = record(PollVote, (array_of(poll_option, MAX_OPTIONS), integer(0)))

EXAMPLE_SALT = "000102030405060708090a0b0c0d0e0f"
_TERMS = PollTerms("Which colour next?", ("red", "blue"), 1_790_000_000_000, 1_790_000_060_000)

ROWS: tuple[ActivityEventRow, ...] = (
    ActivityEventRow("polls.opened", Via.EVENT, PollTerms, poll_terms, "A poll takes votes.", _TERMS),
    ActivityEventRow(
        "polls.counted", Via.COUNTER, PollCounts, record(PollCounts, (_count, _counts)),
        "Votes of an open poll.", PollCounts(9, (6, 3)),
    ),
    ActivityEventRow(
        "polls.closed", Via.EVENT, PollClosed, poll_closed, "A poll takes no more votes.",
        PollClosed(9, (6, 3), (667, 333)),
    ),
    ActivityEventRow(
        "polls.revealed", Via.EVENT, PollRevealed, _revealed, "The right option of a quiz is public.",
        PollRevealed(1, EXAMPLE_SALT),
    ),
)  # fmt: skip
REPORTS: tuple[EventRow, ...] = (
    EventRow(
        "poll.closed", PollClosedData, record(PollClosedData, (text(1, 64), _count, _counts, _counts)),
        "A poll or quiz has its result.", PollClosedData("colour", 9, (6, 3), (667, 333)),
    ),
)  # fmt: skip
VIEWS: tuple[ActivityViewRow, ...] = (
    ActivityViewRow(
        "polls", PollView, poll_view, PollView(PollState.OPEN, _TERMS, 9, (6, 3)),
        PollVote, poll_vote, PollVote((1,), 1),
    ),
)  # fmt: skip
