"""Records that operations keep: written before the answer, read on demand."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import structlog

from broker.ledger import Committed, Item, Ledger, LedgerDamaged, LedgerRefused, LedgerResult, SubmitResult
from broker.ledger.pending import PendingResult
from broker.operations.caller import OperationError
from protocol.codes import ErrorCode

__all__ = ["ask", "keep", "later", "required"]

log = structlog.get_logger("roomcast.operations")

AGAIN_MS = 1000
"""When to call again where the ledger could not take it: some commits later."""
R = TypeVar("R")


def required(ledger: Ledger | None) -> Ledger:
    """Return the ledger; OperationError NOT_KEPT where there is none."""
    if ledger is None:
        raise OperationError(ErrorCode.NOT_KEPT, "this broker keeps nothing: start it with a data directory")
    return ledger


def later() -> OperationError:
    """Return the refusal of what the ledger cannot take now."""
    return OperationError(ErrorCode.OVERLOADED, "the ledger cannot take it now", retry_after_ms=AGAIN_MS)


async def keep(ledger: Ledger, items: Sequence[Item]) -> None:
    """Make items durable; OperationError OVERLOADED where the ledger cannot."""
    pending = PendingResult[LedgerResult]()
    submitted = ledger.record(items, pending.set)
    if submitted is not SubmitResult.QUEUED or not isinstance(await pending.wait(), Committed):
        raise later()


async def ask(ledger: Ledger, question: Callable[..., R], *args: Any) -> R:
    """Return the ledger's answer; OperationError OVERLOADED where it cannot be read. Any: the question's arguments."""
    try:
        return await ledger.ask(question, *args)
    except (LedgerRefused, LedgerDamaged, sqlite3.Error) as error:
        log.warning("the ledger cannot be read", why=str(error))
        raise OperationError(ErrorCode.OVERLOADED, "the ledger cannot be read now", retry_after_ms=AGAIN_MS) from None
