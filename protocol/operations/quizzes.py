"""Operations on quizzes in which the last one standing wins: their records and rows."""

from __future__ import annotations

from typing import NamedTuple

from ..activities.eligibility import Eligibility, eligibility
from ..activities.polls import (
    EXAMPLE_SALT,
    PollRevealed,
    PollState,
    PollTerms,
    PollView,
    PollVote,
    answer_hash,
    poll_option,
    poll_options,
    poll_salt,
    poll_title,
    poll_view,
    poll_vote,
)
from ..activities.quizzes import (
    MAX_PRIZE_CENTS,
    MAX_QUESTIONS,
    QuizEnd,
    QuizState,
    QuizView,
    quiz_view,
)
from ..codes import ErrorCode
from ..fields import boolean, hex_digest, integer, member_id, record, room_name, text
from .rows import (
    DIRECTION,
    LOGGED_IN,
    NEEDS_LEDGER,
    PLATFORM,
    KeyUse,
    OperationRow,
    RateLimit,
    Scope,
    always,
    cursor,
    page_of,
    page_size,
    row,
)

__all__ = [
    "ROWS",
    "AnswerQuestion",
    "AskQuestion",
    "CancelQuiz",
    "CloseQuestion",
    "CreateQuiz",
    "FinishQuiz",
    "QuizResults",
    "QuizSurvivors",
    "RevealQuestion",
    "SurvivorPage",
]


class CreateQuiz(NamedTuple):
    """Create a quiz. ``prize_cents``: shared by those who answer every question rightly; only the platform may give
    one; ``eligibility``: of who may answer."""

    room: str
    id: str
    title: str
    prize_cents: int = 0
    eligibility: Eligibility = Eligibility()


class AskQuestion(NamedTuple):
    """Ask the next question. ``number``: from 1; ``answer_hash``: of the right option and a salt, as in
    `polls.create`; ``open_at_ms``: at once where it is past; ``changeable``: whether a user may answer again."""

    room: str
    id: str
    number: int
    title: str
    options: tuple[str, ...]
    close_at_ms: int
    answer_hash: str
    open_at_ms: int = 0
    changeable: bool = False


class AnswerQuestion(NamedTuple):
    """Answer a question, as one who has answered all questions before rightly."""

    room: str
    id: str
    number: int
    option: int


class CloseQuestion(NamedTuple):
    """Take no more answers; a question that is not open yet is cancelled."""

    room: str
    id: str
    number: int


class RevealQuestion(NamedTuple):
    """Make the right option of a closed question public. ``salt``: 16 bytes in hexadecimal."""

    room: str
    id: str
    number: int
    option: int
    salt: str


class FinishQuiz(NamedTuple):
    """End a quiz and divide its prize among those who survive."""

    room: str
    id: str


class CancelQuiz(NamedTuple):
    """End a quiz without a prize."""

    room: str
    id: str


class QuizResults(NamedTuple):
    """Ask for a quiz and its newest question."""

    room: str
    id: str


class QuizSurvivors(NamedTuple):
    """Ask who has answered every question rightly."""

    room: str
    id: str
    limit: int = 100
    cursor: str | None = None


class SurvivorPage(NamedTuple):
    """A page of users, in order of their ids. ``next``: cursor of the following page, null = the end."""

    items: tuple[str, ...]
    next: str | None = None


_id = text(1, 64)
_count = integer(0)
_number = integer(1, MAX_QUESTIONS)
_survivors = record(SurvivorPage, page_of(member_id))

_UNKNOWN = (ErrorCode.UNKNOWN_ROOM, ErrorCode.UNKNOWN_ACTIVITY, *NEEDS_LEDGER)
_KNOWN = (*_UNKNOWN, ErrorCode.ROOM_ENDED)
_READ = RateLimit(20, 40)
_AT_MS = 1_790_000_000_000
_OPTIONS = ("the mug", "the pan")
_HASH = answer_hash(EXAMPLE_SALT, 1)
_TERMS = PollTerms("Which is older?", _OPTIONS, _AT_MS, 4_102_444_800_000, hidden=True, answer_hash=_HASH)
_CLOSED = PollView(PollState.CLOSED, _TERMS, 9, (6, 3), (667, 333))
_REVEALED = _CLOSED._replace(state=PollState.REVEALED, answer=PollRevealed(1, EXAMPLE_SALT))
_VIEW = QuizView(QuizState.RUNNING, "Last one standing", 10_000, 1, _REVEALED, 3)

ROWS: tuple[OperationRow, ...] = (
    row(
        330, "quizzes.create", CreateQuiz,
        (room_name, _id, poll_title, integer(0, MAX_PRIZE_CENTS), eligibility), QuizView, quiz_view,
        "Create a quiz in which the last one standing wins.",
        speaks=always, scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True,
        errors=(ErrorCode.KEY_REUSED, ErrorCode.OUT_OF_STATE, ErrorCode.ROOM_ENDED, *NEEDS_LEDGER),
        example=(
            CreateQuiz("live-1", "friday", "Last one standing", 10_000),
            QuizView(QuizState.RUNNING, "Last one standing", 10_000, 0, None, None),
        ),
    ),
    row(
        331, "quizzes.ask", AskQuestion,
        (room_name, _id, _number, poll_title, poll_options, _count, hex_digest, _count, boolean), PollView, poll_view,
        "Ask the next question of a quiz.",
        speaks=always, scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True,
        errors=(ErrorCode.KEY_REUSED, ErrorCode.OUT_OF_STATE, ErrorCode.CLOSED, *_KNOWN),
        example=(
            AskQuestion("live-1", "friday", 1, "Which is older?", _OPTIONS, 4_102_444_800_000, _HASH),
            PollView(PollState.OPEN, _TERMS, 0, (0, 0)),
        ),
    ),
    row(
        332, "quizzes.answer", AnswerQuestion, (room_name, _id, _number, poll_option), PollVote, poll_vote,
        "Answer a question of a quiz.",
        scope=None, roles=LOGGED_IN, joined=True, key=KeyUse.OPTIONAL, keeps_keys=True, durable=True,
        rate=RateLimit(3, 6),
        errors=(
            ErrorCode.NOT_OPEN, ErrorCode.CLOSED, ErrorCode.CANCELLED, ErrorCode.ALREADY_HAVE, ErrorCode.NOT_ELIGIBLE,
            ErrorCode.KEY_REUSED, ErrorCode.OUT_OF_STATE, ErrorCode.ROOM_PAUSED, *_KNOWN,
        ),
        example=(AnswerQuestion("live-1", "friday", 1, 1), PollVote((1,), 1)),
    ),
    row(
        333, "quizzes.close", CloseQuestion, (room_name, _id, _number), PollView, poll_view,
        "Take no more answers to a question.",
        scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True, errors=_KNOWN,
        example=(CloseQuestion("live-1", "friday", 1), _CLOSED),
    ),
    row(
        334, "quizzes.reveal", RevealQuestion, (room_name, _id, _number, poll_option, poll_salt), PollView, poll_view,
        "Make the right option of a closed question public.",
        scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True, errors=(ErrorCode.OUT_OF_STATE, *_KNOWN),
        example=(RevealQuestion("live-1", "friday", 1, 1, EXAMPLE_SALT), _REVEALED),
    ),
    row(
        335, "quizzes.finish", FinishQuiz, (room_name, _id), QuizView, quiz_view,
        "End a quiz and divide its prize.",
        scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True,
        errors=(ErrorCode.OUT_OF_STATE, ErrorCode.CANCELLED, *_KNOWN),
        example=(
            FinishQuiz("live-1", "friday"), _VIEW._replace(state=QuizState.FINISHED, end=QuizEnd(3, 3333, 1)),
        ),
    ),
    row(
        336, "quizzes.cancel", CancelQuiz, (room_name, _id), QuizView, quiz_view, "End a quiz without a prize.",
        scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True, errors=(ErrorCode.CLOSED, *_KNOWN),
        example=(CancelQuiz("live-1", "friday"), _VIEW._replace(state=QuizState.CANCELLED)),
    ),
    row(
        337, "quizzes.results", QuizResults, (room_name, _id), QuizView, quiz_view,
        "Get a quiz with its newest question.",
        scope=Scope.COMMERCE_READ, roles=LOGGED_IN, rate=_READ, changes=False, errors=_UNKNOWN,
        example=(QuizResults("live-1", "friday"), _VIEW),
    ),
    row(
        338, "quizzes.survivors", QuizSurvivors, (room_name, _id, page_size, cursor), SurvivorPage, _survivors,
        "List who has answered every question rightly.",
        scope=Scope.COMMERCE_READ, roles=PLATFORM, rate=_READ, changes=False, errors=_UNKNOWN,
        example=(QuizSurvivors("live-1", "friday"), SurvivorPage(("ann", "ben", "cem"))),
    ),
)  # fmt: skip
