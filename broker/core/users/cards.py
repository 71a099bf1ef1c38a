"""Cards of orders, logistics and payments: their state only goes forward, in whatever order reports come. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from protocol.activities.cards import CardKind, CardStatus

__all__ = ["MAX_CARDS", "CardState", "has_status", "is_newer"]

MAX_CARDS = 200
"""Cards of one user, or of one conversation, whose state is remembered: a further one takes the place of the oldest."""
_RANKS: dict[CardKind, Mapping[CardStatus, int]] = {
    CardKind.ORDER: {
        CardStatus.PENDING: 0, CardStatus.FAILED: 1, CardStatus.PAID: 2, CardStatus.SHIPPED: 3,
        CardStatus.DELIVERED: 4, CardStatus.DONE: 5, CardStatus.CANCELLED: 6, CardStatus.REFUNDED: 7,
    },
    CardKind.LOGISTICS: {
        CardStatus.PENDING: 0, CardStatus.SHIPPED: 1, CardStatus.IN_TRANSIT: 2, CardStatus.DELIVERED: 3,
        CardStatus.RETURNED: 4, CardStatus.CANCELLED: 5,
    },
    CardKind.PAYMENT: {
        CardStatus.PENDING: 0, CardStatus.FAILED: 1, CardStatus.CANCELLED: 2, CardStatus.PAID: 3,
        CardStatus.REFUNDED: 4,
    },
}  # fmt: skip
"""Which states a card of each kind has; it goes to higher ones only. A payment that has failed may still be paid."""


class CardState(NamedTuple):
    """State of a card. ``version``: of reports with the same status, the later one has the higher version."""

    status: CardStatus
    version: int


def has_status(kind: CardKind, status: CardStatus) -> bool:
    """Return whether cards of a kind have this status."""
    return status in _RANKS[kind]


def is_newer(kind: CardKind, before: CardState | None, after: CardState) -> bool:
    """Return whether a report is later than what is known, None = nothing. ``after`` has a status of the kind."""
    if before is None:
        return True
    ranks = _RANKS[kind]
    return (ranks[after.status], after.version) > (ranks[before.status], before.version)
