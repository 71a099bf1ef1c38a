"""Handlers of the operations on keyword hints."""

from __future__ import annotations

from broker.core.moderation.hints import HintError
from broker.core.tenants.names import plain_name
from broker.operations.caller import Caller, OperationError
from broker.operations.kept import keep, required
from broker.operations.parts import Handler, Parts
from broker.rooms.hints import hint_record, hint_removal
from protocol.codes import ErrorCode
from protocol.operations.hints import HintList, HintRemoved, HintRule, ListHints, PutHint, RemoveHint

__all__ = ["HANDLERS"]


async def _put(parts: Parts, caller: Caller, request: PutHint) -> HintRule:
    ledger, hints = required(parts.ledger), parts.hub.hints
    rule = HintRule(*request._replace(rooms=plain_name(request.rooms)))
    async with hints.changing:
        _check(parts, caller, rule)
        await keep(ledger, [hint_record(caller.tenant, rule, parts.unix_ms())])
        hints.put(caller.tenant, rule)
    await parts.others.follow()
    return rule


def _check(parts: Parts, caller: Caller, rule: HintRule) -> None:
    """Raise the OperationError of a rule that cannot be put."""
    try:
        parts.hub.hints.check(caller.tenant, rule)
    except HintError as error:
        code = ErrorCode.OUT_OF_STATE if error.field == "id" else ErrorCode.BAD_FIELD
        raise OperationError(code, error.rule, error.field) from None


async def _remove(parts: Parts, caller: Caller, request: RemoveHint) -> HintRemoved:
    ledger, hints = required(parts.ledger), parts.hub.hints
    if any(rule.configured and rule.id == request.id for rule in hints.rules(caller.tenant)):
        raise OperationError(ErrorCode.OUT_OF_STATE, "is a rule of the configuration", "id")
    async with hints.changing:
        if not hints.has(caller.tenant, request.id):
            return HintRemoved(False)
        await keep(ledger, [hint_removal(caller.tenant, request.id)])
        hints.remove(caller.tenant, request.id)
    await parts.others.follow()
    return HintRemoved(True)


def _list(parts: Parts, caller: Caller, request: ListHints) -> HintList:
    return HintList(tuple(parts.hub.hints.rules(caller.tenant)))


HANDLERS: dict[str, Handler] = {
    "moderation.put_hint": _put,
    "moderation.remove_hint": _remove,
    "moderation.hints": _list,
}
