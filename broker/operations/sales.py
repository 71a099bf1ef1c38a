"""Handlers of the operations on flash sales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broker.core.commerce import sale_commands as commands
from broker.core.commerce.activity import ActivityRefusal
from broker.core.commerce.sale import Sale
from broker.operations.activities import begin, command, kept_key, page_of_kind, read_activity, refuse_from_memory
from broker.operations.caller import Caller, OperationError
from broker.operations.parts import Handler, Parts
from protocol.activities.sales import SaleView
from protocol.codes import ErrorCode
from protocol.operations.sales import (
    MAX_WAITING,
    CancelClaim,
    CancelSale,
    ClaimOutcome,
    ClaimPage,
    ClaimSale,
    CloseSale,
    ConfirmClaim,
    CreateSale,
    ListClaims,
    ListSales,
    MyClaims,
    ReleaseClaim,
    RestockSale,
    SaleEnd,
    SalePage,
    SalePrice,
    SaleStock,
    SetSalePrice,
)

__all__ = ["HANDLERS"]


def _key(id: str) -> tuple[str, str]:
    return Sale.kind, id


async def _create(parts: Parts, caller: Caller, request: CreateSale) -> SaleView:
    waiting_max = min(request.stock, MAX_WAITING) if request.waiting_max is None else request.waiting_max
    config = commands.SaleConfig(
        request.sku, request.stock, request.per_user, request.price_cents, request.open_at_ms, request.close_at_ms,
        request.reserve_ms, waiting_max, request.first_window_ms, request.window_ms, request.late_confirm,
        request.eligibility,
    )  # fmt: skip
    view: SaleView = await command(
        parts, caller, request.room, _key(request.id), commands.CreateSaleCommand(config), creates=True
    )
    return view


def _claim(parts: Parts, caller: Caller, request: ClaimSale) -> Any:
    key = kept_key(caller)
    quantity, price_version = request.quantity, request.price_version

    def judge(sale: Sale[Any]) -> ActivityRefusal | None:
        return sale.refusal_from_memory(caller.id, quantity, price_version, parts.unix_ms())

    refuse_from_memory(parts, request.room, _key(request.id), judge)
    claim = commands.ClaimCommand(key, quantity, price_version, request.keyword)
    return begin(parts, caller, request.room, _key(request.id), claim, takes_part=True)


async def _release(parts: Parts, caller: Caller, request: ReleaseClaim) -> ClaimOutcome:
    released = commands.ReleaseCommand(request.number)
    outcome: ClaimOutcome = await command(parts, caller, request.room, _key(request.id), released)
    return outcome


async def _confirm(parts: Parts, caller: Caller, request: ConfirmClaim) -> ClaimOutcome:
    confirmed = commands.ConfirmCommand(request.number, request.order)
    outcome: ClaimOutcome = await command(parts, caller, request.room, _key(request.id), confirmed)
    return outcome


async def _cancel(parts: Parts, caller: Caller, request: CancelClaim) -> ClaimOutcome:
    cancelled = commands.CancelClaimCommand(request.number)
    outcome: ClaimOutcome = await command(parts, caller, request.room, _key(request.id), cancelled)
    return outcome


async def _restock(parts: Parts, caller: Caller, request: RestockSale) -> SaleStock:
    restock = commands.RestockCommand(kept_key(caller), request.add)
    stock: SaleStock = await command(parts, caller, request.room, _key(request.id), restock)
    return stock


async def _set_price(parts: Parts, caller: Caller, request: SetSalePrice) -> SalePrice:
    change = commands.SetPriceCommand(request.price_cents)
    price: SalePrice = await command(parts, caller, request.room, _key(request.id), change)
    return price


async def _close(parts: Parts, caller: Caller, request: CloseSale) -> SaleEnd:
    end: SaleEnd = await command(parts, caller, request.room, _key(request.id), commands.CloseSaleCommand())
    return end


async def _cancel_sale(parts: Parts, caller: Caller, request: CancelSale) -> SaleEnd:
    end: SaleEnd = await command(parts, caller, request.room, _key(request.id), commands.CancelSaleCommand())
    return end


async def _list(parts: Parts, caller: Caller, request: ListSales) -> SalePage:
    found, next = await page_of_kind(
        parts, request.room, Sale.kind, request.cursor, request.limit, lambda sale: sale.view()
    )
    return SalePage(tuple(found), next)


def _claims(parts: Parts, caller: Caller, request: ListClaims) -> Any:
    after = _number_of(request.cursor)

    def page(sale: Sale[Any]) -> ClaimPage:
        return _page(sale, sale.claims.numbers(after, request.limit + 1, request.state), request.limit)

    return read_activity(parts, request.room, _key(request.id), page)


def _mine(parts: Parts, caller: Caller, request: MyClaims) -> Any:
    before = _number_of(request.cursor)

    def page(sale: Sale[Any]) -> ClaimPage:
        numbers = [number for number in sale.claims.of_user(caller.id) if number < (before or len(sale.claims) + 1)]
        return _page(sale, numbers[: request.limit + 1], request.limit)

    return read_activity(parts, request.room, _key(request.id), page)


def _page(sale: Sale[Any], numbers: Sequence[int], limit: int) -> ClaimPage:
    """Return the first claims of ``numbers``, which has one more than fits where there is a next page."""
    views = tuple(sale.claims.view(number) for number in numbers[:limit])
    return ClaimPage(views, str(numbers[limit - 1]) if len(numbers) > limit else None)


def _number_of(cursor: str | None) -> int:
    """Return the number of a claim that a cursor holds, 0 = no cursor."""
    if cursor is None:
        return 0
    if not cursor.isascii() or not cursor.isdecimal() or len(cursor) > 9:
        raise OperationError(ErrorCode.BAD_FIELD, "is no cursor of this operation", "cursor")
    return int(cursor)


HANDLERS: dict[str, Handler] = {
    "sales.create": _create,
    "sales.claim": _claim,
    "sales.release": _release,
    "sales.mine": _mine,
    "sales.confirm": _confirm,
    "sales.cancel": _cancel,
    "sales.restock": _restock,
    "sales.set_price": _set_price,
    "sales.close": _close,
    "sales.cancel_sale": _cancel_sale,
    "sales.list": _list,
    "sales.claims": _claims,
}
