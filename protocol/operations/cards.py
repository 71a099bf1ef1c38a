"""Operations on cards of orders, logistics and payments: their records and rows."""

from __future__ import annotations

from typing import NamedTuple

from ..activities.cards import Card, CardKind, CardStatus, card_fields
from ..activities.conversations import conversation_id
from ..codes import ErrorCode
from ..fields import boolean, integer, name_of, optional, record, user_id
from .rows import NEEDS_LEDGER, PLATFORM, OperationRow, Scope, row

__all__ = ["ROWS", "SendCard", "SentCard"]


class SendCard(NamedTuple):
    """Show a card to a user as a must-deliver message, or in a conversation as a message of the platform; one of both.

    The state of a card only goes forward: a report that is repeated, or comes after a later one, changes and sends
    nothing, so every report may be sent again.
    """

    card: Card
    user: str | None = None
    conversation: str | None = None


class SentCard(NamedTuple):
    """``sent``: whether the report was new and is on the disk; ``number``: of the must-deliver message, or the offset
    in the conversation, 0 = nothing was sent; ``status`` and ``version``: the state that the card has."""

    sent: bool
    number: int
    status: CardStatus
    version: int


ROWS: tuple[OperationRow, ...] = (
    row(
        633, "cards.send", SendCard, (card_fields, optional(user_id), optional(conversation_id)), SentCard,
        record(SentCard, (boolean, integer(0), name_of(CardStatus), integer(0))),
        "Show a card of an order, of logistics or of a payment.",
        scope=Scope.DIRECTS_WRITE, roles=PLATFORM, durable=True,
        errors=(ErrorCode.UNKNOWN_CONVERSATION, *NEEDS_LEDGER),
        example=(
            SendCard(Card(CardKind.PAYMENT, "p-1", CardStatus.PAID, 0, "Paid", amount_cents=1999), "ann"),
            SentCard(True, 7, CardStatus.PAID, 0),
        ),
    ),
)  # fmt: skip
