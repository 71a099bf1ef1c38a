"""The operation on questions that customers of the service desk ask again and again: its records and row."""

from __future__ import annotations

from typing import NamedTuple

from ..activities.conversations import MAX_MESSAGE_BYTES
from ..activities.desk import topic_name
from ..codes import ErrorCode
from ..fields import array_of, integer, optional, record, text
from .rows import LOGGED_IN, NEEDS_LEDGER, OperationRow, RateLimit, Scope, row

__all__ = ["ROWS", "AskedQuestion", "AskedQuestions", "ListQuestions"]


class ListQuestions(NamedTuple):
    """List what customers have asked more than once since the broker was started, the most frequent first.
    ``topic``: of one topic, null = of all."""

    topic: str | None = None
    limit: int = 20


class AskedQuestion(NamedTuple):
    """A question. ``text``: as it was asked first; ``times``: how often; ``customers``: by how many, up to 100."""

    topic: str
    text: str
    times: int
    customers: int


class AskedQuestions(NamedTuple):
    """Questions that may be worth an entry of a FAQ."""

    items: tuple[AskedQuestion, ...]


_question = record(AskedQuestion, (topic_name, text(0, MAX_MESSAGE_BYTES, lines=True), integer(0), integer(0)))

ROWS: tuple[OperationRow, ...] = (
    row(
        680, "desk.questions", ListQuestions, (optional(topic_name), integer(1, 100)), AskedQuestions,
        record(AskedQuestions, (array_of(_question, 100),)),
        "List what customers of the service desk ask again and again.",
        scope=Scope.USERS_READ, roles=LOGGED_IN, changes=False, rate=RateLimit(1, 5),
        errors=(ErrorCode.UNKNOWN_DESK, *NEEDS_LEDGER),
        example=(
            ListQuestions("orders"), AskedQuestions((AskedQuestion("orders", "Where is my parcel?", 12, 9),))
        ),
    ),
)  # fmt: skip
