"""Handlers of the operations on gifts and rankings."""

from __future__ import annotations

from collections.abc import Callable

from broker.core.commerce.room_rankings import KINDS
from broker.core.tenants.names import qualify
from broker.ledger import Committed, LedgerResult, Repeated, SubmitResult
from broker.ledger.orders import stored_order
from broker.operations.caller import Caller, OperationError
from broker.operations.kept import ask, later, required, submit
from broker.operations.parts import Handler, Parts
from broker.operations.rooms import room_of
from protocol.codes import ErrorCode
from protocol.operations.rankings import GetRanking, RankingPage, RefundedGift, RefundGift

__all__ = ["HANDLERS"]


def _get(parts: Parts, caller: Caller, request: GetRanking) -> RankingPage:
    if request.kind not in KINDS:
        raise OperationError(ErrorCode.BAD_FIELD, f"must be one of {', '.join(KINDS)}", "kind")
    state = room_of(parts, request.room).state
    user = request.user
    if user is None and not caller.is_backend:
        user = caller.id
    top, place, around = state.rankings.page(
        request.kind, request.limit, user or "", request.around, parts.clock(), state.last_offset
    )
    return RankingPage(top, place, around)


async def _refund(parts: Parts, caller: Caller, request: RefundGift) -> RefundedGift:
    ledger = required(parts.ledger)
    room = room_of(parts, request.room)
    qualified = qualify(caller.tenant, request.order_id)
    found = await ask(ledger, stored_order, room.name, request.room, qualified, request.order_id)
    if found is None:
        raise OperationError(ErrorCode.UNKNOWN_CLAIM, "is no order of this room, or not kept any more", "order_id")
    epoch, order = found
    cents = order.count * order.price_cents

    def start(on_done: Callable[[LedgerResult], None]) -> SubmitResult:
        return room.journal.refund(epoch, order, qualified, request.reason, on_done)

    if not isinstance(await submit(start), Committed | Repeated):
        raise later()
    return RefundedGift(order.order_id, order.user_id, cents)


HANDLERS: dict[str, Handler] = {"gifts.refund": _refund, "rankings.get": _get}
