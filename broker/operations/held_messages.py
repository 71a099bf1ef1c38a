"""What sanctions do about the messages of a user that wait for a reviewer."""

from __future__ import annotations

from broker.core.moderation.review import REVIEWS_KEY
from broker.core.moderation.review_commands import DecideItems
from broker.core.tenants.names import plain_name
from broker.operations.activities import command, read_if_there
from broker.operations.caller import Caller
from broker.operations.parts import Parts
from protocol.operations.reviews import Verdict

__all__ = ["reject_held"]


async def reject_held(parts: Parts, caller: Caller, room: str, user: str, reason: str) -> None:
    """Reject all messages of a user (qualified names) that wait in a room; nothing where there are none, or no ledger.

    OperationError.
    """
    plain = plain_name(user)

    if parts.ledger is not None and await read_if_there(parts, room, REVIEWS_KEY, lambda queue: queue.holds(plain)):
        await command(parts, caller, room, REVIEWS_KEY, DecideItems((), Verdict.REJECT, reason, plain))
