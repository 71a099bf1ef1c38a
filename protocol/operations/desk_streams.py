"""Operations on answers of the service desk that come in parts: their records and rows."""

from __future__ import annotations

from typing import NamedTuple

from ..activities.conversations import MAX_MESSAGE_BYTES, conversation_id
from ..activities.desk import EXAMPLE
from ..codes import ErrorCode
from ..fields import boolean, integer, optional, record, text, user_id
from .conversations import MESSAGE_RATE, SentMessage
from .rows import LOGGED_IN, NEEDS_LEDGER, KeyUse, OperationRow, RateLimit, Scope, row

__all__ = [
    "ROWS",
    "AppendText",
    "AppendedText",
    "EndStream",
    "InterruptDesk",
    "InterruptedDesk",
    "StartStream",
    "StartedStream",
]  # fmt: skip


class StartStream(NamedTuple):
    """Begin an answer that comes in parts, as the bot or agent who holds the conversation: its customer is shown each
    part at once. One that is under way in the conversation ends."""

    conversation: str
    epoch: int
    as_user: str | None = None


class StartedStream(NamedTuple):
    """The answer under way."""

    stream: str


class AppendText(NamedTuple):
    """Add a part to an answer under way. OUT_OF_STATE: it was interrupted, or the caller has lost the conversation."""

    conversation: str
    stream: str
    text: str
    as_user: str | None = None


class AppendedText(NamedTuple):
    """How many parts the answer has."""

    parts: int


class EndStream(NamedTuple):
    """End an answer under way: it becomes a message of the conversation."""

    conversation: str
    stream: str
    as_user: str | None = None


class InterruptDesk(NamedTuple):
    """Stop the answer under way, as the customer. A further question does so too. What was shown becomes a message."""

    conversation: str


class InterruptedDesk(NamedTuple):
    """Whether there was one."""

    interrupted: bool


_stream = text(1, 64)
_as_user = optional(user_id)
_KNOWN = (
    ErrorCode.STALE,
    ErrorCode.OUT_OF_STATE,
    ErrorCode.UNKNOWN_CONVERSATION,
    ErrorCode.UNKNOWN_DESK,
    *NEEDS_LEDGER,
)
_BACKEND_RATE = RateLimit(500, 1000)
_ID = EXAMPLE.id

ROWS: tuple[OperationRow, ...] = (
    row(
        676, "desk.start_stream", StartStream, (conversation_id, integer(0), _as_user), StartedStream,
        record(StartedStream, (_stream,)), "Begin an answer of the service desk that comes in parts.",
        scope=Scope.DIRECTS_WRITE, roles=LOGGED_IN, rate=MESSAGE_RATE, backend_rate=_BACKEND_RATE,
        errors=(ErrorCode.MUTED, *_KNOWN),
        example=(StartStream(_ID, 2), StartedStream("5f0c6a")),
    ),
    row(
        677, "desk.append", AppendText, (conversation_id, _stream, text(1, MAX_MESSAGE_BYTES, lines=True), _as_user),
        AppendedText, record(AppendedText, (integer(0),)), "Add a part to an answer of the service desk.",
        scope=Scope.DIRECTS_WRITE, roles=LOGGED_IN, rate=RateLimit(50, 100), backend_rate=_BACKEND_RATE,
        errors=(ErrorCode.BLOCKED, ErrorCode.PAYLOAD_TOO_LARGE, *_KNOWN),
        example=(AppendText(_ID, "5f0c6a", "It comes"), AppendedText(1)),
    ),
    row(
        678, "desk.end_stream", EndStream, (conversation_id, _stream, _as_user), SentMessage,
        record(SentMessage, (integer(0), boolean)), "End an answer of the service desk that came in parts.",
        scope=Scope.DIRECTS_WRITE, roles=LOGGED_IN, key=KeyUse.REQUIRED, keeps_keys=True, durable=True,
        rate=MESSAGE_RATE, backend_rate=_BACKEND_RATE,
        errors=(ErrorCode.KEY_REUSED, ErrorCode.BLOCKED, ErrorCode.MUTED, ErrorCode.PAYLOAD_TOO_LARGE, *_KNOWN),
        example=(EndStream(_ID, "5f0c6a"), SentMessage(3)),
    ),
    row(
        679, "desk.interrupt", InterruptDesk, (conversation_id,), InterruptedDesk,
        record(InterruptedDesk, (boolean,)), "Stop an answer of the service desk that comes in parts.",
        scope=None, roles=LOGGED_IN, durable=True, errors=_KNOWN,
        example=(InterruptDesk(_ID), InterruptedDesk(True)),
    ),
)  # fmt: skip
