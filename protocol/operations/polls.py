"""Operations on polls: their records and rows."""

from __future__ import annotations

from typing import NamedTuple

from ..activities.eligibility import Eligibility, eligibility
from ..activities.polls import (
    EXAMPLE_SALT,
    MAX_OPTIONS,
    PollRevealed,
    PollState,
    PollTerms,
    PollView,
    PollVote,
    answer_hash,
    poll_option,
    poll_salt,
    poll_terms_rules,
    poll_view,
    poll_vote,
)
from ..codes import ErrorCode
from ..fields import array_of, record, room_name, text
from .rows import (
    DIRECTION,
    LOGGED_IN,
    NEEDS_LEDGER,
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
    "CastVote",
    "ClosePoll",
    "CreatePoll",
    "ListPolls",
    "ListedPoll",
    "PollPage",
    "PollResults",
    "RevealPoll",
]


class CreatePoll(NamedTuple):
    """Create a poll, or with ``answer_hash`` a quiz of one question.

    Both need ``title`` and ``options``: 2 to 10, numbered from 0. A quiz needs ``close_at_ms`` too, and has one choice;
    a poll without it (null) is closed by `polls.close`. ``open_at_ms``: at once where it is past; ``choices``: most
    options of one vote; ``changeable``: whether a user may vote again; ``hidden``: whether counts stay secret until the
    close; ``answer_hash``: of the right option and a salt, which `polls.reveal` names after the close;
    ``eligibility``: who may vote, without ``keyword``."""

    room: str
    id: str
    title: str
    options: tuple[str, ...]
    open_at_ms: int = 0
    close_at_ms: int | None = None
    choices: int = 1
    changeable: bool = False
    hidden: bool = False
    answer_hash: str | None = None
    eligibility: Eligibility = Eligibility()


class CastVote(NamedTuple):
    """Vote for options of a poll."""

    room: str
    id: str
    options: tuple[int, ...]


class ClosePoll(NamedTuple):
    """Close a poll; one that is not open yet is cancelled."""

    room: str
    id: str


class RevealPoll(NamedTuple):
    """Make the right option of a closed quiz public. ``salt``: 16 bytes in hexadecimal."""

    room: str
    id: str
    option: int
    salt: str


class PollResults(NamedTuple):
    """Ask for a poll and its counts."""

    room: str
    id: str


class ListPolls(NamedTuple):
    """Ask for the polls of a room."""

    room: str
    limit: int = 100
    cursor: str | None = None


class ListedPoll(NamedTuple):
    """One poll of a room."""

    id: str
    poll: PollView


class PollPage(NamedTuple):
    """A page of polls, the oldest first. ``next``: cursor of the following page, null = the end."""

    items: tuple[ListedPoll, ...]
    next: str | None = None


_id = text(1, 64)
_page = record(PollPage, page_of(record(ListedPoll, (_id, poll_view))))

_UNKNOWN = (ErrorCode.UNKNOWN_ROOM, ErrorCode.UNKNOWN_ACTIVITY, *NEEDS_LEDGER)
_KNOWN = (*_UNKNOWN, ErrorCode.ROOM_ENDED)
_READ = RateLimit(20, 40)
_AT_MS = 1_790_000_000_000
_OPTIONS = ("red", "blue")
_TERMS = PollTerms("Which colour next?", _OPTIONS, _AT_MS, None)
_QUIZ = PollTerms(
    "Which is older?", ("the mug", "the pan"), _AT_MS, _AT_MS + 10_000, answer_hash=answer_hash(EXAMPLE_SALT, 1)
)
_CLOSED = PollView(PollState.CLOSED, _TERMS, 9, (6, 3), (667, 333))

ROWS: tuple[OperationRow, ...] = (
    row(
        320, "polls.create", CreatePoll, (room_name, _id, *poll_terms_rules, eligibility), PollView, poll_view,
        "Create a poll, or a quiz of one question.",
        speaks=always, scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True,
        errors=(ErrorCode.KEY_REUSED, ErrorCode.OUT_OF_STATE, ErrorCode.ROOM_ENDED, *NEEDS_LEDGER),
        example=(
            CreatePoll("live-1", "colour", "Which colour next?", _OPTIONS),
            PollView(PollState.OPEN, _TERMS, 0, (0, 0)),
        ),
    ),
    row(
        321, "polls.vote", CastVote, (room_name, _id, array_of(poll_option, MAX_OPTIONS)), PollVote, poll_vote,
        "Vote in a poll, or answer a quiz.",
        scope=None, roles=LOGGED_IN, joined=True, key=KeyUse.OPTIONAL, keeps_keys=True, durable=True,
        rate=RateLimit(3, 6),
        errors=(
            ErrorCode.NOT_OPEN, ErrorCode.CLOSED, ErrorCode.CANCELLED, ErrorCode.ALREADY_HAVE, ErrorCode.NOT_ELIGIBLE,
            ErrorCode.KEY_REUSED, ErrorCode.OUT_OF_STATE, ErrorCode.ROOM_PAUSED, *_KNOWN,
        ),
        example=(CastVote("live-1", "colour", (0,)), PollVote((0,), 1)),
    ),
    row(
        322, "polls.close", ClosePoll, (room_name, _id), PollView, poll_view,
        "Close a poll; one that is not open yet is cancelled.",
        scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True, errors=_KNOWN,
        example=(ClosePoll("live-1", "colour"), _CLOSED),
    ),
    row(
        323, "polls.reveal", RevealPoll, (room_name, _id, poll_option, poll_salt), PollView, poll_view,
        "Make the right option of a closed quiz public.",
        scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True, errors=(ErrorCode.OUT_OF_STATE, *_KNOWN),
        example=(
            RevealPoll("live-1", "older", 1, EXAMPLE_SALT),
            PollView(PollState.REVEALED, _QUIZ, 9, (6, 3), (667, 333), PollRevealed(1, EXAMPLE_SALT)),
        ),
    ),
    row(
        324, "polls.results", PollResults, (room_name, _id), PollView, poll_view, "Get a poll with its counts.",
        scope=Scope.COMMERCE_READ, roles=LOGGED_IN, rate=_READ, changes=False, errors=_UNKNOWN,
        example=(PollResults("live-1", "colour"), _CLOSED),
    ),
    row(
        325, "polls.list", ListPolls, (room_name, page_size, cursor), PollPage, _page, "List the polls of a room.",
        scope=Scope.COMMERCE_READ, roles=LOGGED_IN, rate=_READ, changes=False,
        errors=(ErrorCode.UNKNOWN_ROOM, *NEEDS_LEDGER),
        example=(ListPolls("live-1"), PollPage((ListedPoll("colour", _CLOSED),))),
    ),
)  # fmt: skip
