"""Orders of a room's viewers, as its platform reports them: all are counted, a few are shown.

An order is known by its id and counted once; its status has a version, and what is older than the newest is refused.
Members see at most one order each `SHOWN_EVERY_MS`, with the number of the others: the first of that time. Amounts are
no part of it, and of a name only the first character is kept.
"""

from __future__ import annotations

from collections import deque
from typing import Any, ClassVar, NamedTuple, TypeVar

from broker.core.commerce.activity import Activity, ActivityStep, Fact, Requester, RoomEvent, refused
from protocol.activities.orders import OrderShown
from protocol.codes import ErrorCode
from protocol.operations.orders import CountedOrder, OrderStatus
from protocol.text import masked_name

__all__ = ["MAX_ORDERS", "SHOWN_EVERY_MS", "CountOrderCommand", "RoomOrders"]

T = TypeVar("T")

MAX_ORDERS = 200_000
SHOWN_EVERY_MS = 500
_UNDOABLE = 1024
"""Replaced states that `undo` may need: the facts of one batch."""


class CountOrderCommand(NamedTuple):
    """Count an order, or give a known one a newer status. ``name``: of the buyer."""

    order_id: str
    status_version: int
    status: OrderStatus
    product: str
    name: str
    quantity: int


class _Order(NamedTuple):
    """The newest status of an order. ``name``: masked."""

    status_version: int
    status: OrderStatus
    product: str
    name: str
    quantity: int


class RoomOrders(Activity[T]):
    """Orders by their ids, and which of them members see."""

    kind: ClassVar[str] = "orders"

    def __init__(self, id: str = "") -> None:
        super().__init__(id)
        self._orders: dict[str, _Order] = {}
        self._total = 0
        self._new: list[tuple[str, int]] = []
        """Ids and times of orders that are counted and not shown, nor among the others of one that is."""
        self._shown: RoomEvent | None = None
        self._replaced: deque[Any] = deque(maxlen=_UNDOABLE)

    @property
    def exists(self) -> bool:
        return bool(self._orders)

    @property
    def total(self) -> int:
        """Orders that are bought and not cancelled."""
        return self._total

    def decide(self, command: CountOrderCommand, requester: Requester, ticket: T, now_ms: int) -> ActivityStep[T]:
        order_id = command.order_id
        order = _Order(*command[1:])._replace(name=masked_name(command.name))
        known = self._orders.get(order_id)
        if known is None:
            if len(self._orders) >= MAX_ORDERS:
                return refused(ErrorCode.OUT_OF_STATE, f"has {MAX_ORDERS} orders", "room")
        elif order == known:
            return ActivityStep(answer=self._counted(order_id, order, self._total))
        elif order.status_version == known.status_version:
            return refused(ErrorCode.KEY_REUSED, "has other content", "status_version")
        elif order.status_version < known.status_version:
            return refused(ErrorCode.STALE, f"is older than the version {known.status_version}", "status_version")
        total = self._total + _bought(order) - _bought(known)
        return ActivityStep(
            (Fact("counted", (order_id, order[0], int(order.status), *order[2:], now_ms)),),
            self._counted(order_id, order, total),
        )

    @staticmethod
    def _counted(order_id: str, order: _Order, total: int) -> CountedOrder:
        return CountedOrder(order_id, order.status_version, order.status, total)

    def next_due(self) -> int | None:
        return self._new[0][1] + SHOWN_EVERY_MS if self._new else None

    def due(self, now_ms: int) -> ActivityStep[T] | None:
        """Show the first of the orders that are new. That is a fact, as none may be shown that the ledger refuses."""
        due_at = self.next_due()
        return None if due_at is None or now_ms < due_at else ActivityStep((Fact("shown"),))

    def counter(self) -> RoomEvent | None:
        return self._shown

    def apply(self, fact: Fact) -> None:
        if fact.name == "shown":
            self._replaced.append((self._new, self._shown))
            first = self._orders[self._new[0][0]]
            shown = OrderShown(first.name, first.product, first.quantity, len(self._new) - 1, self._total)
            self._new, self._shown = [], RoomEvent("orders.shown", shown)
            return
        order_id, *fields, at_ms = fact.data
        order = _Order(*fields)._replace(status=OrderStatus(fields[1]))
        known = self._orders.get(order_id)
        self._replaced.append(known)
        self._orders[order_id] = order
        self._total += _bought(order) - _bought(known)
        if known is None and order.status is OrderStatus.BOUGHT:
            self._new.append((order_id, at_ms))

    def undo(self, fact: Fact) -> None:
        if fact.name == "shown":
            self._new, self._shown = self._replaced.pop()
            return
        order_id = fact.data[0]
        order, known = self._orders[order_id], self._replaced.pop()
        self._total -= _bought(order) - _bought(known)
        if known is not None:
            self._orders[order_id] = known
            return
        del self._orders[order_id]
        if order.status is OrderStatus.BOUGHT:
            self._new.pop()

    def dump(self) -> tuple[Any, ...]:
        return tuple(sorted(self._orders.items())), self._total, tuple(self._new), self._shown

    def view(self, is_staff: bool) -> None:
        """Return None: who joins later sees the orders that follow."""


def _bought(order: _Order | None) -> int:
    return int(order is not None and order.status is OrderStatus.BOUGHT)
