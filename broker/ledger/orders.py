"""Orders in the ledger: each gift that the platform has charged is a fact, also where several are shown as one event.

The facts of an event are written in its transaction, right after it, so one is never there without the other.
"""

from __future__ import annotations

from typing import NamedTuple

from broker.ledger.entries import FACT_KIND_MIN, Key, StoredEntry, make_key
from broker.ledger.reader import Reader, stored_entries
from protocol.errors import RemoteProtocolError
from protocol.frames import pack_body, unpack_body

__all__ = ["ORDER_KIND", "REFUND_KIND", "Order", "StoredOrder", "find_order", "order_of", "pack_order"]

ORDER_KIND = FACT_KIND_MIN + 2
"""Kind of the facts that are orders."""
REFUND_KIND = FACT_KIND_MIN + 5
"""Kind of the facts that are refunds of orders: order id, user, cents, reason."""
MAX_SEQ_AFTER_EVENT = 1100
"""The orders of an event are among so many entries after it: those of its submission."""


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


class StoredOrder(NamedTuple):
    """An order in the ledger. ``epoch``: of the stream that shows it; ``refund_key``: of its refund."""

    order: Order
    epoch: int
    refund_key: Key

    @property
    def user(self) -> str:
        """Who paid."""
        return self.order.user_id

    @property
    def cents(self) -> int:
        """What was paid."""
        return self.order.count * self.order.price_cents


def find_order(reader: Reader, room: str, shown_room: str, order: str, order_id: str) -> StoredOrder | None:
    """Return an order of a room; None where the room has none of that id, or it is not kept any more.

    ``room``: by its qualified name, ``shown_room`` as its tenant knows it; ``order``: the id qualified with its tenant.
    Runs in the ledger's reading thread.
    """
    known = reader.first_result(make_key("order", order).digest)
    if known is None:
        return None
    first_room, epoch = unpack_body(known.answer)
    shown = reader.history(room, epoch, known.offset - 1, known.offset) if first_room == shown_room else None
    if not shown:
        return None
    first, last = shown[0].seq, shown[0].seq + MAX_SEQ_AFTER_EVENT
    where = f"s.room = ? AND s.epoch = ? AND e.kind = {ORDER_KIND} AND e.seq > ? AND e.seq <= ? ORDER BY e.seq"
    for entry in stored_entries(reader, where, (room, epoch, first, last)):
        found = order_of(entry)
        if found is not None and found.order_id == order_id:
            return StoredOrder(found, epoch, make_key("refund", order))
    return None
