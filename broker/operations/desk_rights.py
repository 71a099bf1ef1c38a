"""Who takes part in a conversation of the service desk, and how what has changed meanwhile is refused."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from broker.core.users.conversations import TooMany
from broker.core.users.desk_records import DeskConversation
from broker.ledger import Key, KeyResult, LedgerResult, Repeated
from broker.operations.caller import Caller, OperationError
from broker.operations.conversations import sent_answer, too_many
from broker.operations.kept import later, required
from broker.operations.parts import Parts
from broker.users.desks import NotWritten
from broker.users.tenant_desk import Desk
from protocol.codes import ErrorCode
from protocol.operations.conversations import SentMessage

__all__ = ["find_desk", "find_row", "holder_row", "repeated", "sent", "stale", "written"]

R = TypeVar("R")


def find_desk(parts: Parts, caller: Caller) -> Desk:
    """Return the desk of the caller's tenant; OperationError UNKNOWN_DESK."""
    found = required(parts.desks).find(caller.tenant)
    if found is None:
        raise OperationError(ErrorCode.UNKNOWN_DESK, "there is none: desk.configure sets one up")
    return found


def find_row(parts: Parts, caller: Caller, desk: Desk, id: str, user: str | None) -> DeskConversation:
    """Return a conversation that a user (None = the platform) takes part in: its customer, who holds it, or an agent.

    OperationError UNKNOWN_CONVERSATION also for others: they do not learn of it.
    """
    row = desk.core.find(id)
    if row is None or not (user is None or user in (row.customer, row.agent) or user in desk.agents):
        raise OperationError(ErrorCode.UNKNOWN_CONVERSATION, "is not known", "conversation")
    return row


def stale(field: str = "epoch", rule: str = "is held by another one, or under another epoch") -> OperationError:
    """Return the refusal of what is decided about a conversation that has changed."""
    return OperationError(ErrorCode.STALE, rule, field)


async def written(change: Awaitable[R]) -> R:
    """Return the result of a change of the desk; OperationError where it is not possible, STALE not included."""
    try:
        return await change
    except NotWritten:
        raise later() from None
    except TooMany as error:
        raise too_many(error) from None


def holder_row(parts: Parts, caller: Caller, desk: Desk, id: str, user: str) -> DeskConversation:
    """Return a conversation that a user may hold; also a bot that has lost it learns that it has."""
    is_bot = any(topic.bot == user for topic in desk.settings.topics)
    return find_row(parts, caller, desk, id, None if is_bot else user)


def repeated(key: Key, first: KeyResult) -> LedgerResult:
    """Return the result of a submission whose key has had a first one."""
    reused = frozenset({key.digest}) if first.fingerprint != key.fingerprint else frozenset[bytes]()
    return Repeated({key.digest: first}, reused)


def sent(offset: int, result: LedgerResult) -> SentMessage:
    """Return the answer to a call that has sent a message at an offset; OperationError where it was refused."""
    answer = sent_answer(offset, result)
    if isinstance(answer, OperationError):
        raise answer
    return answer
