"""Orders in the ledger: each gift that the platform has charged is a fact, also where several are shown as one event.

The facts of an event are written in its transaction, right after it, so one is never there without the other.
"""

from __future__ import annotations

from typing import NamedTuple

from broker.ledger.entries import FACT_KIND_MIN, StoredEntry
from protocol.errors import RemoteProtocolError
from protocol.frames import pack_body, unpack_body

__all__ = ["ORDER_KIND", "Order", "order_of", "pack_order"]

ORDER_KIND = FACT_KIND_MIN + 2
"""Kind of the facts that are orders."""


class Order(NamedTuple):
    """One order; the room is the entry's. ``price_cents`` is the price of one of ``count`` gifts."""

    order_id: str
    user_id: str
    """Who pays."""
    name: str
    gift_id: str
    count: int  # type: ignore[assignment]  # hides tuple.count
    price_cents: int
    target: str
    shown_as: str
    """Order id in the payload of the event that shows it: that of the first order of the event."""


def pack_order(order: Order) -> bytes:
    """Return the body of an order's fact."""
    return pack_body(order)


def order_of(entry: StoredEntry) -> Order | None:
    """Return the order that an entry holds; None for all others, and for what this version cannot read."""
    if entry.lane is not None or entry.kind != ORDER_KIND:
        return None
    try:
        body = unpack_body(entry.body)
        return Order(*body[: len(Order._fields)])
    except (RemoteProtocolError, TypeError):
        return None
