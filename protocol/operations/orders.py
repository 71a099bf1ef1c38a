"""Operations on orders: their records."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

__all__ = ["CountedOrder", "OrderStatus"]


class OrderStatus(IntEnum):
    """Whether an order is valid."""

    BOUGHT = 1
    CANCELLED = 2


class CountedOrder(NamedTuple):
    """The newest status of an order. ``total``: orders of the room that are bought and not cancelled."""

    order_id: str
    status_version: int
    status: OrderStatus
    total: int
