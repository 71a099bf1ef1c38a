"""Activity events of quizzes in which the last one standing wins: their records and rows."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..fields import array_of, boolean, integer, member_id, name_of, optional, record, text
from .polls import (
    EXAMPLE_SALT,
    PollClosed,
    PollState,
    PollTerms,
    PollView,
    poll_closed,
    poll_option,
    poll_salt,
    poll_terms,
    poll_title,
    poll_view,
)
from .rows import ActivityEventRow, ActivityViewRow, EventRow, Via

__all__ = [
    "MAX_PRIZE_CENTS",
    "MAX_QUESTIONS",
    "REPORTS",
    "ROWS",
    "VIEWS",
    "QuizAsked",
    "QuizCancelled",
    "QuizClosed",
    "QuizCounts",
    "QuizEnd",
    "QuizFinishedData",
    "QuizOpened",
    "QuizOwnView",
    "QuizPaidData",
    "QuizRevealed",
    "QuizState",
    "QuizView",
    "QuizWon",
    "quiz_view",
]

MAX_QUESTIONS = 100
MAX_PRIZE_CENTS = 10**12
MAX_PAID = 256
"""Winners in one report."""


class QuizState(IntEnum):
    """Where a quiz is."""

    RUNNING = 1
    FINISHED = 2
    CANCELLED = 3


class QuizOpened(NamedTuple):
    """A quiz begins. ``prize_cents``: shared by those who answer every question rightly."""

    title: str
    prize_cents: int


class QuizAsked(NamedTuple):
    """A question takes answers. ``number``: from 1."""

    number: int
    question: PollTerms


class QuizCounts(NamedTuple):
    """Users who have answered the question."""

    number: int
    voters: int


class QuizClosed(NamedTuple):
    """A question takes no more answers."""

    number: int
    result: PollClosed


class QuizRevealed(NamedTuple):
    """The right option of a question. ``survivors``: users who have answered every question rightly; ``out``: users
    who no longer belong to them."""

    number: int
    option: int
    salt: str
    survivors: int
    out: int


class QuizEnd(NamedTuple):
    """The quiz is over. Each survivor gets ``each_cents``, and ``returned_cents`` of the prize are paid to none: all of
    it where there is less than a cent for each."""

    survivors: int
    each_cents: int
    returned_cents: int


class QuizCancelled(NamedTuple):
    """The quiz is cancelled and pays nothing."""

    returned_cents: int


class QuizWon(NamedTuple):
    """What this user has won."""

    cents: int


class QuizView(NamedTuple):
    """A quiz as a member that joins gets it. ``question``: the newest, null before the first; ``survivors``: null
    before the first answer is revealed."""

    state: QuizState
    title: str
    prize_cents: int
    number: int
    question: PollView | None
    survivors: int | None
    end: QuizEnd | None = None


class QuizOwnView(NamedTuple):
    """The user's own part. ``answer``: to question ``number``, null = none; ``plays``: whether the user may answer the
    next one."""

    number: int
    answer: int | None
    plays: bool


class QuizFinishedData(NamedTuple):
    """A quiz is over. ``state``: ``finished`` or ``cancelled``; of the prize ``paid_cents`` go to the survivors."""

    quiz: str
    state: QuizState
    survivors: int
    each_cents: int
    paid_cents: int
    returned_cents: int


class QuizPaidData(NamedTuple):
    """Users who have won ``each_cents`` each; a quiz with many winners has several of these events."""

    quiz: str
    each_cents: int
    users: tuple[str, ...]


_count = integer(0)
_id = text(1, 64)
_cents = integer(0, MAX_PRIZE_CENTS)
_number = integer(1, MAX_QUESTIONS)
_end = record(QuizEnd, (_count, _cents, _cents))
quiz_view = record(
    QuizView,
    (
        name_of(QuizState),
        poll_title,
        _cents,
        integer(0, MAX_QUESTIONS),
        optional(poll_view),
        optional(_count),
        optional(_end),
    ),
)
_own_view = record(QuizOwnView, (integer(0, MAX_QUESTIONS), optional(poll_option), boolean))

_QUESTION = PollTerms(
    "Which is older?", ("the mug", "the pan"), 1_790_000_000_000, 1_790_000_010_000, hidden=True,
    answer_hash="ebae21c824f57452c6edd98bfd3fbeb0f513a75bb6c3821673207999c82ee842",
)  # fmt: skip

ROWS: tuple[ActivityEventRow, ...] = (
    ActivityEventRow(
        "quizzes.opened", Via.EVENT, QuizOpened, record(QuizOpened, (poll_title, _cents)), "A quiz begins.",
        QuizOpened("Last one standing", 10_000),
    ),
    ActivityEventRow(
        "quizzes.asked", Via.EVENT, QuizAsked, record(QuizAsked, (_number, poll_terms)),
        "A question takes answers.", QuizAsked(1, _QUESTION),
    ),
    ActivityEventRow(
        "quizzes.counted", Via.COUNTER, QuizCounts, record(QuizCounts, (_number, _count)),
        "Answers to an open question.", QuizCounts(1, 212),
    ),
    ActivityEventRow(
        "quizzes.closed", Via.EVENT, QuizClosed, record(QuizClosed, (_number, poll_closed)),
        "A question takes no more answers.", QuizClosed(1, PollClosed(9, (6, 3), (667, 333))),
    ),
    ActivityEventRow(
        "quizzes.revealed", Via.EVENT, QuizRevealed,
        record(QuizRevealed, (_number, poll_option, poll_salt, _count, _count)),
        "The right option of a question is public.", QuizRevealed(1, 1, EXAMPLE_SALT, 3, 6),
    ),
    ActivityEventRow(
        "quizzes.finished", Via.EVENT, QuizEnd, _end, "A quiz is over.", QuizEnd(3, 3333, 1),
    ),
    ActivityEventRow(
        "quizzes.cancelled", Via.EVENT, QuizCancelled, record(QuizCancelled, (_cents,)), "A quiz is cancelled.",
        QuizCancelled(10_000),
    ),
    ActivityEventRow(
        "quizzes.won", Via.DIRECT, QuizWon, record(QuizWon, (_cents,)), "The user has won a part of the prize.",
        QuizWon(3333),
    ),
)  # fmt: skip
REPORTS: tuple[EventRow, ...] = (
    EventRow(
        "quiz.finished", QuizFinishedData,
        record(QuizFinishedData, (_id, name_of(QuizState), _count, _cents, _cents, _cents)),
        "A quiz is over or cancelled.", QuizFinishedData("friday", QuizState.FINISHED, 3, 3333, 9999, 1),
    ),
    EventRow(
        "quiz.paid", QuizPaidData, record(QuizPaidData, (_id, _cents, array_of(member_id, MAX_PAID))),
        "Users have won a part of the prize of a quiz.", QuizPaidData("friday", 3333, ("ann", "ben", "cem")),
    ),
)  # fmt: skip
VIEWS: tuple[ActivityViewRow, ...] = (
    ActivityViewRow(
        "quizzes", QuizView, quiz_view,
        QuizView(
            QuizState.RUNNING, "Last one standing", 10_000, 1, PollView(PollState.OPEN, _QUESTION, 9, ()), None
        ),
        QuizOwnView, _own_view, QuizOwnView(1, 1, plays=True),
    ),
)  # fmt: skip
