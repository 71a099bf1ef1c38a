"""Cards of orders, logistics and payments, which the platform alone sends: the record and row of the event."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..fields import characters, https_url, integer, name_of, optional, record, text
from .rows import ActivityEventRow, Via

__all__ = ["ROWS", "Card", "CardKind", "CardStatus", "card_fields"]


class CardKind(IntEnum):
    """What a card is about."""

    ORDER = 1
    LOGISTICS = 2
    PAYMENT = 3


class CardStatus(IntEnum):
    """State of what a card is about. Orders have all but in_transit and returned; logistics pending, shipped,
    in_transit, delivered, returned, cancelled; payments pending, failed, cancelled, paid, refunded."""

    PENDING = 1
    FAILED = 2
    PAID = 3
    SHIPPED = 4
    IN_TRANSIT = 5
    DELIVERED = 6
    DONE = 7
    CANCELLED = 8
    RETURNED = 9
    REFUNDED = 10


class Card(NamedTuple):
    """A card. ``id``: of the order, the parcel or the payment, as the platform knows it; ``version``: of two reports
    with one status the later one has the higher version; ``amount_cents``: null = it has none; ``order``: the order
    that a parcel or a payment belongs to, null = none; ``url``: where the user is led."""

    kind: CardKind
    id: str
    status: CardStatus
    version: int
    title: str
    text: str = ""
    amount_cents: int | None = None
    order: str | None = None
    url: str | None = None


card_fields = record(
    Card,
    (
        name_of(CardKind), text(1, 64), name_of(CardStatus), integer(0), characters(60, 240),
        text(0, 500, lines=True), optional(integer(0)), optional(text(1, 64)), optional(https_url),
    ),
)  # fmt: skip
"""Rule of a card."""

ROWS: tuple[ActivityEventRow, ...] = (
    ActivityEventRow(
        "cards.changed", Via.DIRECT, Card, card_fields,
        "The platform shows the user a card of an order, of logistics or of a payment, in a new state.",
        Card(CardKind.PAYMENT, "p-1", CardStatus.PAID, 0, "Paid", amount_cents=1999, order="o-1"),
    ),
)  # fmt: skip
