"""Commerce of a show: activities as their facts have made them, and the funnel of each product."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from broker.core.commerce.activity import Activity, Fact
from broker.core.commerce.room_activities import ActivityKey, ActivityKind
from broker.core.commerce.sale_commands import config_of_fact
from protocol.codes import MessageType
from protocol.json_values import as_json
from protocol.messages import Event
from protocol.operations.orders import OrderStatus

__all__ = ["MAX_ACTIVITIES", "MAX_PRODUCTS", "ShowCommerce"]

MAX_ACTIVITIES = 300
"""Activities in one report, the first ones; the others are counted."""
MAX_PRODUCTS = 500
"""Products in one report: those with the most clicks."""
_FUNNEL = ("shown", "clicked", "claimed", "confirmed", "ordered")
_REPORTED = frozenset(
    {"sales", "packets", "coupons", "rains", "lotteries", "polls", "quizzes", "countdowns", "pk"}
)  # fmt: skip
"""Kinds of activities that a report has; the others hold names of viewers, or are no part of the show."""


class _Product:
    """What was counted of one product. ``viewers``: the most who were there while it was explained."""

    __slots__ = ("cents", "claimed", "clicks", "confirmed", "ordered", "shown", "shown_ms", "title", "viewers")

    def __init__(self) -> None:
        self.title = ""
        self.shown = self.shown_ms = self.viewers = 0
        self.clicks = self.claimed = self.confirmed = self.cents = self.ordered = 0

    def as_json(self, id: str) -> dict[str, Any]:
        return {
            "product": id, "title": self.title, "shown": self.shown, "shown_ms": self.shown_ms,
            "viewers": self.viewers, "clicked": self.clicks, "claimed": self.claimed, "confirmed": self.confirmed,
            "confirmed_cents": self.cents, "ordered": self.ordered,
        }  # fmt: skip


class _Ran:
    """One activity, and when its first and last facts were written."""

    __slots__ = ("activity", "first_ms", "last_ms")

    def __init__(self, activity: Activity[Any], at_ms: int) -> None:
        self.activity = activity
        self.first_ms = self.last_ms = at_ms


class ShowCommerce:
    """Fold of what is sold and played in a room. ``kinds``: of activities, by name."""

    def __init__(self, kinds: Mapping[str, ActivityKind]) -> None:
        self._kinds = kinds
        self._ran: dict[ActivityKey, _Ran] = {}
        self._products: dict[str, _Product] = {}
        self._skus: dict[ActivityKey, str] = {}
        self._orders: dict[str, tuple[str, int, bool]] = {}
        """Product, units, and whether it is bought, by order id."""
        self._explained: tuple[str, int] | None = None
        """The product that is explained, and since when."""
        self._online = 0

    def audience(self, online: int) -> None:
        """So many viewers are in the room from now on."""
        self._online = online
        if self._explained is not None:
            product = self._product(self._explained[0])
            product.viewers = max(product.viewers, online)

    def event(self, event: Event, at_ms: int) -> None:
        """Fold an event of the stream."""
        if event.type != MessageType.ACTIVITY:
            return
        payload: Any = event.payload
        name, _, data = payload
        if name == "products.put":
            self._product(data["product"]["id"]).title = data["product"]["title"]
        elif name == "products.explaining":
            self._explain(data["product"], at_ms)
        elif name == "products.removed" and data.get("explaining") is not None:
            self._explain(data["explaining"]["product"], at_ms)

    def facts(self, key: ActivityKey, facts: Iterable[Fact], at_ms: int) -> None:
        """Fold facts of an activity. TypeError, ValueError, LookupError or AttributeError for what it does not know."""
        kind = key[0]
        if kind in _REPORTED and kind in self._kinds:
            ran = self._ran.get(key)
            if ran is None:
                ran = self._ran[key] = _Ran(self._kinds[kind].make(key[1]), at_ms)
            ran.last_ms = at_ms
            for fact in facts:
                ran.activity.apply(fact)
                if kind == "sales":
                    self._sold(key, ran.activity, fact)
        elif kind == "products":
            for name, data in facts:
                if name == "clicked":
                    for id, clicks in data[0]:
                        self._product(id).clicks += clicks
        elif kind == "orders":
            for name, data in facts:
                if name == "counted":
                    order_id, _, status, product, _, quantity, *_ = data
                    self._orders[order_id] = product, quantity, status == OrderStatus.BOUGHT

    def finish(self, at_ms: int) -> None:
        """The last entry was of ``at_ms``: what is explained then was explained until then."""
        self._explain(None, at_ms)

    def funnels(self) -> list[dict[str, Any]]:
        """Return the products that were shown, clicked, claimed, confirmed or ordered; the most clicks first."""
        for product in self._products.values():
            product.ordered = 0
        for name, quantity, is_bought in self._orders.values():
            self._product(name).ordered += quantity * is_bought
        rows = [product.as_json(id) for id, product in self._products.items()]
        rows = [row for row in rows if any(row[name] for name in _FUNNEL)]
        rows.sort(key=lambda row: (-row["clicked"], -row["confirmed"], row["product"]))
        return rows[:MAX_PRODUCTS]

    def activities(self) -> tuple[list[dict[str, Any]], int]:
        """Return the activities in order of their beginning, and how many are left out."""
        found: list[dict[str, Any]] = []
        exist = [(key, ran) for key, ran in self._ran.items() if ran.activity.exists]
        for (kind, id), ran in exist[:MAX_ACTIVITIES]:
            line = {"kind": kind, "id": id, "from_ms": ran.first_ms, "to_ms": ran.last_ms}
            line["amounts"] = dict(ran.activity.amounts)
            view = as_json(ran.activity.view(True))
            found.append(line if view is None else line | {"view": view})
        return found, max(0, len(exist) - MAX_ACTIVITIES)

    def _product(self, id: str) -> _Product:
        return self._products.setdefault(id, _Product())

    def _explain(self, id: str | None, at_ms: int) -> None:
        if self._explained is not None:
            before, since_ms = self._explained
            self._product(before).shown_ms += max(0, at_ms - since_ms)
        self._explained = None if id is None else (id, at_ms)
        if id is not None:
            self._product(id).shown += 1
            self.audience(self._online)

    def _sold(self, key: ActivityKey, sale: Any, fact: Fact) -> None:
        """Count the claims of a sale. Any: a `Sale`."""
        if fact.name == "created":
            self._skus[key] = config_of_fact(fact.data[0]).sku
        elif fact.name == "claims_taken":
            self._product(self._skus[key]).claimed += sum(taken[2] for taken in fact.data[3])
        elif fact.name == "claim_confirmed":
            number, product = fact.data[0], self._product(self._skus[key])
            quantity = sale.claims.quantity(number)
            product.confirmed += quantity
            product.cents += quantity * sale.claims.price(number)
