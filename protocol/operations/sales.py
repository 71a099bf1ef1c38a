"""Operations on flash sales: their records."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..activities.sales import ClaimState

__all__ = [
    "ClaimAnswer",
    "ClaimOutcome",
    "LateConfirm",
    "SaleEnd",
    "SalePrice",
    "SaleStock",
]


class LateConfirm(IntEnum):
    """What becomes of a confirmation after the reservation has expired."""

    IF_STOCK = 1
    """It counts as in time while units are available and no claim waits."""
    REFUSE = 2


class ClaimAnswer(NamedTuple):
    """A claim as it was taken. ``place``: on the waiting list; price and end of the reservation are null there."""

    number: int
    state: ClaimState
    quantity: int
    price_cents: int | None = None
    expires_at_ms: int | None = None
    place: int | None = None


class ClaimOutcome(NamedTuple):
    """The state of a claim after the request."""

    number: int
    state: ClaimState


class SaleStock(NamedTuple):
    """All units of a sale, also those that are taken."""

    stock: int


class SalePrice(NamedTuple):
    """Price of a sale. ``price_version`` grows with each price."""

    price_version: int
    price_cents: int


class SaleEnd(NamedTuple):
    """When a sale has closed or was cancelled."""

    at_ms: int
