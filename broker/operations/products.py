"""Handlers of the operations on the product list of a room, and on the orders of its viewers."""

from __future__ import annotations

from typing import Any

from broker.core.commerce import products as commands
from broker.core.commerce.orders import CountOrderCommand, RoomOrders
from broker.core.commerce.products import ProductList
from broker.operations.activities import begin, command, kept_key, page_of_kind
from broker.operations.caller import Caller, OperationError
from broker.operations.parts import Handler, Parts
from protocol.activities.products import Explaining, Product
from protocol.codes import ErrorCode
from protocol.operations import STAFF
from protocol.operations.orders import CountedOrder, OrderEvent
from protocol.operations.products import (
    Arrangement,
    ArrangeProducts,
    ExplainingLog,
    ExplainingPeriod,
    ExplainProduct,
    ListedProduct,
    ListProducts,
    ProductLog,
    ProductPage,
    ProductVersion,
    PutProduct,
    RemoveProduct,
    ReportClicks,
    StopExplaining,
)

__all__ = ["HANDLERS"]

_LIST = (ProductList.kind, "")
_ORDERS = (RoomOrders.kind, "")


async def _put(parts: Parts, caller: Caller, request: PutProduct) -> ProductVersion:
    put = commands.PutProductCommand(Product(*request[1:]))
    version: ProductVersion = await command(parts, caller, request.room, _LIST, put, creates=True)
    return version


async def _remove(parts: Parts, caller: Caller, request: RemoveProduct) -> ProductVersion:
    removed = commands.RemoveProductCommand(request.id, request.version)
    version: ProductVersion = await command(parts, caller, request.room, _LIST, removed, creates=True)
    return version


async def _arrange(parts: Parts, caller: Caller, request: ArrangeProducts) -> Arrangement:
    arranged = commands.ArrangeProductsCommand(request.version, request.positions)
    arrangement: Arrangement = await command(parts, caller, request.room, _LIST, arranged, creates=True)
    return arrangement


async def _explain(parts: Parts, caller: Caller, request: ExplainProduct) -> Explaining:
    explained = commands.ExplainProductCommand(request.id, kept_key(caller))
    explaining: Explaining = await command(parts, caller, request.room, _LIST, explained)
    return explaining


async def _stop_explaining(parts: Parts, caller: Caller, request: StopExplaining) -> Explaining:
    stopped = commands.StopExplainingCommand(kept_key(caller))
    explaining: Explaining = await command(parts, caller, request.room, _LIST, stopped)
    return explaining


def _report_clicks(parts: Parts, caller: Caller, request: ReportClicks) -> Any:
    report = commands.ReportClicksCommand(request.id, request.clicks, request.report)
    return begin(parts, caller, request.room, _LIST, report)


async def _list(parts: Parts, caller: Caller, request: ListProducts) -> ProductPage:
    with_clicks = caller.is_backend or caller.role_in(request.room) in STAFF
    after = None if request.cursor is None else _place_of(request.cursor)

    def listing(products: ProductList[Any]) -> list[ListedProduct]:
        return products.listing(after, request.limit + 1, with_clicks=with_clicks)

    found, _ = await page_of_kind(parts, request.room, ProductList.kind, None, 1, listing)
    items = found[0] if found else []
    page = items[: request.limit]
    if len(items) == len(page):
        return ProductPage(tuple(page))
    last = page[-1]
    position = last.product.position if last.arranged is None else last.arranged
    return ProductPage(tuple(page), f"{position}:{last.product.id}")


def _place_of(cursor: str) -> tuple[int, str]:
    position, colon, id = cursor.partition(":")
    return _number(position if colon else ""), id


async def _log(parts: Parts, caller: Caller, request: ProductLog) -> ExplainingLog:
    after = 0 if request.cursor is None else _number(request.cursor)

    def periods(products: ProductList[Any]) -> tuple[list[ExplainingPeriod], int | None]:
        return products.periods(after, request.limit)

    found, _ = await page_of_kind(parts, request.room, ProductList.kind, None, 1, periods)
    items, following = found[0] if found else ([], None)
    return ExplainingLog(tuple(items), None if following is None else str(following))


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 16:
        raise OperationError(ErrorCode.BAD_FIELD, "is no cursor of this operation", "cursor")
    return int(text)


async def _order_event(parts: Parts, caller: Caller, request: OrderEvent) -> CountedOrder:
    room, order, status_version, product, name, quantity, status = request
    reported = CountOrderCommand(order, status_version, status, product, name, quantity)
    counted: CountedOrder = await command(parts, caller, room, _ORDERS, reported, creates=True)
    return counted


HANDLERS: dict[str, Handler] = {
    "products.put": _put,
    "products.remove": _remove,
    "products.arrange": _arrange,
    "products.explain": _explain,
    "products.stop_explaining": _stop_explaining,
    "products.report_clicks": _report_clicks,
    "products.list": _list,
    "products.log": _log,
    "orders.event": _order_event,
}
