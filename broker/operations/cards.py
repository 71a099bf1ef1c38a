"""Handlers of the operations on cards of orders, logistics and payments."""

from __future__ import annotations

from broker.core.users.cards import has_status
from broker.operations.caller import Caller, OperationError
from broker.operations.conversations import find_conversation
from broker.operations.kept import later, read, required
from broker.operations.parts import Handler, Parts
from protocol.codes import ErrorCode
from protocol.operations.cards import SendCard, SentCard

__all__ = ["HANDLERS"]


async def _send(parts: Parts, caller: Caller, request: SendCard) -> SentCard:
    cards = required(parts.cards)
    card, user, conversation = request
    if (user is None) is (conversation is None):
        raise OperationError(ErrorCode.BAD_FIELD, "must be given, or conversation, and not both", "user")
    if not has_status(card.kind, card.status):
        raise OperationError(ErrorCode.BAD_FIELD, f"is no status of cards of {card.kind.name.lower()}", "card.status")
    target = user or find_conversation(parts, caller, conversation or "")
    parts.charge_messages(caller, 1)
    shown = await read(cards.show(card, target))
    if shown is None:
        raise later()
    number, state = shown
    return SentCard(number > 0, number, *state)


HANDLERS: dict[str, Handler] = {"cards.send": _send}
