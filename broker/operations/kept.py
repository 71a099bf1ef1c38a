"""What operations ask of the ledger: records written before the answer, and reads; what it cannot do is refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import structlog

from broker.ledger import Committed, Item, Ledger, LedgerRefused, LedgerResult, SubmitResult
from broker.ledger.pending import PendingResult
from broker.operations.caller import OperationError
from protocol.codes import ErrorCode

__all__ = ["AGAIN_MS", "ask", "commit", "keep", "later", "read", "required", "submit"]

log = structlog.get_logger("roomcast.operations")

AGAIN_MS = 1000
"""When to call again where the ledger could not take it: some commits later."""
R = TypeVar("R")


def required(part: R | None) -> R:
    """Return the ledger, or a part that needs one; OperationError NOT_KEPT where there is none."""
    if part is None:
        raise OperationError(ErrorCode.NOT_KEPT, "this broker keeps nothing: start it with a data directory")
    return part


def later() -> OperationError:
    """Return the refusal of what the ledger cannot take now."""
    return OperationError(ErrorCode.OVERLOADED, "the ledger cannot take it now", retry_after_ms=AGAIN_MS)


async def keep(ledger: Ledger, items: Sequence[Item]) -> None:
    """Make items durable; OperationError OVERLOADED where the ledger cannot."""
    await commit(lambda on_done: ledger.record(items, on_done))


async def commit(start: Callable[[Callable[[LedgerResult], None]], SubmitResult]) -> Committed:
    """Return what a submission has committed; OperationError OVERLOADED where the ledger cannot."""
    result = await submit(start)
    if not isinstance(result, Committed):
        raise later()
    return result


async def submit(start: Callable[[Callable[[LedgerResult], None]], SubmitResult]) -> LedgerResult:
    """Return the result of a submission; OperationError OVERLOADED where it is not queued. ``start``: submits, with the
    callback that it is given."""
    pending = PendingResult[LedgerResult]()
    if start(pending.set) is not SubmitResult.QUEUED:
        raise later()
    return await pending.wait()


async def ask(ledger: Ledger, question: Callable[..., R], *args: Any) -> R:
    """Return the ledger's answer; OperationError OVERLOADED where it cannot be read. Any: the question's arguments."""
    return await read(ledger.ask(question, *args))


async def read(answer: Awaitable[R]) -> R:
    """Return an answer that comes from the ledger; OperationError OVERLOADED where it cannot be read."""
    try:
        return await answer
    except (LedgerRefused, sqlite3.Error) as error:
        log.warning("the ledger cannot be read", why=str(error))
        raise OperationError(ErrorCode.OVERLOADED, "the ledger cannot be read now", retry_after_ms=AGAIN_MS) from None
