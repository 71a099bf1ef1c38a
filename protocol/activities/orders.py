"""Activity events of orders: what members see of purchases outside of the room."""

from __future__ import annotations

from typing import NamedTuple

from ..fields import integer, record, text
from .rows import ActivityEventRow, Via

__all__ = ["ROWS", "OrderShown"]


class OrderShown(NamedTuple):
    """A user has bought a product. ``name``: the first character of its name and ``***``; ``plus``: how many other
    orders came in the same half second; ``total``: orders of the room, those that are not shown too."""

    name: str
    product: str
    quantity: int
    plus: int
    total: int


_id = text(1, 64)
_count = integer(0)

ROWS: tuple[ActivityEventRow, ...] = (
    ActivityEventRow(
        "orders.shown", Via.COUNTER, OrderShown,
        record(OrderShown, (text(0, 64), _id, integer(1), _count, _count)),
        "Products were bought.", OrderShown("W***", "mug-1", 2, 7, 131),
    ),
)  # fmt: skip
