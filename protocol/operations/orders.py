"""Operations on orders: their records and rows."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..codes import ErrorCode
from ..fields import display_name, integer, name_of, record, room_name, text
from .rows import NEEDS_LEDGER, PLATFORM, OperationRow, RateLimit, Scope, row

__all__ = ["ROWS", "CountedOrder", "OrderEvent", "OrderStatus"]


class OrderStatus(IntEnum):
    """Whether an order is valid."""

    BOUGHT = 1
    CANCELLED = 2


class OrderEvent(NamedTuple):
    """Count an order, or give a counted one a newer status. ``order``: the platform's id, counted once;
    ``status_version``: above that of the order: an older one is STALE; ``name``: of the buyer, of which members see
    the first character."""

    room: str
    order: str
    status_version: int
    product: str
    name: str
    quantity: int = 1
    status: OrderStatus = OrderStatus.BOUGHT


class CountedOrder(NamedTuple):
    """The newest status of an order. ``total``: orders of the room that are bought and not cancelled."""

    order: str
    status_version: int
    status: OrderStatus
    total: int


_id = text(1, 64)
_version = integer(1)
_status = name_of(OrderStatus)

ROWS: tuple[OperationRow, ...] = (
    row(
        210, "orders.event", OrderEvent,
        (room_name, _id, _version, _id, display_name, integer(1, 1_000_000), _status),
        CountedOrder, record(CountedOrder, (_id, _version, _status, integer(0))),
        "Count an order of a viewer, and show some of them.",
        scope=Scope.COMMERCE_WRITE, roles=PLATFORM, durable=True, rate=RateLimit(500, 1000),
        errors=(
            ErrorCode.STALE, ErrorCode.KEY_REUSED, ErrorCode.OUT_OF_STATE, ErrorCode.ROOM_ENDED, *NEEDS_LEDGER,
        ),
        example=(
            OrderEvent("live-1", "order-1", 1, "mug-1", "Wei", 2), CountedOrder("order-1", 1, OrderStatus.BOUGHT, 131),
        ),
    ),
)  # fmt: skip
