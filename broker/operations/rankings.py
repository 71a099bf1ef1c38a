"""Handlers of the operations on gifts and rankings."""

from __future__ import annotations

from functools import partial

from broker.core.commerce.room_rankings import KINDS
from broker.core.tenants.names import plain_name, qualify
from broker.ledger import Committed, Repeated
from broker.ledger.orders import find_order
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
    room = room_of(parts, request.room)
    state = room.state
    user = "" if caller.is_backend else caller.id
    if request.user is not None:
        user = plain_name(request.user)
        if not caller.is_backend and user != plain_name(caller.id) and room.views.is_hidden(user):
            user = ""
    top, place, around = state.rankings.page(
        request.kind, request.limit, user, request.around, parts.clock(), state.last_offset
    )
    return RankingPage(top, place, around)


async def _refund(parts: Parts, caller: Caller, request: RefundGift) -> RefundedGift:
    ledger = required(parts.ledger)
    room = room_of(parts, request.room)
    qualified = qualify(caller.tenant, request.order_id)
    found = await ask(ledger, find_order, room.name, plain_name(room.name), qualified, request.order_id)
    if found is None:
        raise OperationError(ErrorCode.UNKNOWN_CLAIM, "is no order of this room, or not kept any more", "order_id")
    result = await submit(partial(room.journal.refund, found, request.reason, parts.unix_ms()))
    if not isinstance(result, Committed | Repeated):
        raise later()
    return RefundedGift(request.order_id, found.user, found.cents)


HANDLERS: dict[str, Handler] = {"gifts.refund": _refund, "rankings.get": _get}
