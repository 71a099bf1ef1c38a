"""Handlers of the operations on triggered marketing."""

from __future__ import annotations

from functools import partial

from broker.core.tenants.names import plain_name
from broker.core.users.triggers import OfferId, UserOffer
from broker.ledger import Committed, Repeated
from broker.operations.caller import Caller, OperationError
from broker.operations.conversations import find_conversation
from broker.operations.kept import commit, keep, later, required, submit
from broker.operations.parts import Handler, Parts
from protocol.codes import ErrorCode
from protocol.direct_batches import TemplateError
from protocol.operations.marketing import (
    ListMarketingRules,
    MarketingRule,
    MarketingRuleList,
    MarketingRuleRemoved,
    PutMarketingRule,
    RemoveMarketingRule,
    ReportTrigger,
    TriggeredOffers,
)

__all__ = ["HANDLERS"]


async def _put(parts: Parts, caller: Caller, request: PutMarketingRule) -> MarketingRule:
    marketing, rule = required(parts.marketing), MarketingRule(*request)
    if not marketing.table.has_room(caller.tenant, rule.id):
        raise OperationError(ErrorCode.OUT_OF_STATE, "there are as many rules as may be", "id")
    await keep(required(parts.ledger), [marketing.rule_item(caller.tenant, rule)])
    marketing.table.put(caller.tenant, rule)
    return rule


async def _remove(parts: Parts, caller: Caller, request: RemoveMarketingRule) -> MarketingRuleRemoved:
    marketing = required(parts.marketing)
    if marketing.table.rule(caller.tenant, request.id) is None:
        return MarketingRuleRemoved(False)
    await keep(required(parts.ledger), [marketing.rule_removal(caller.tenant, request.id)])
    return MarketingRuleRemoved(marketing.table.remove(caller.tenant, request.id))


def _list(parts: Parts, caller: Caller, request: ListMarketingRules) -> MarketingRuleList:
    return MarketingRuleList(tuple(required(parts.marketing).table.rules(caller.tenant)))


async def _report(parts: Parts, caller: Caller, request: ReportTrigger) -> TriggeredOffers:
    marketing = required(parts.marketing)
    if request.conversation is not None:
        conversation = find_conversation(parts, caller, request.conversation)
        if plain_name(request.user) not in conversation.members:
            raise OperationError(ErrorCode.UNKNOWN_CONVERSATION, "is not known", "conversation")
    shown_in = request.conversation or ""
    try:
        decision = marketing.decide(request.user, request.trigger, request.subject, shown_in, request.values)
    except TemplateError as error:
        raise OperationError(ErrorCode.BAD_FIELD, str(error), "values") from None
    parts.charge_messages(caller, len(decision.now) + len(decision.later))
    if decision.later or decision.cancelled:
        await commit(lambda on_done: marketing.keep(decision, on_done))
    sent = suppressed = repeated = 0
    for rule in decision.now:
        id = OfferId(request.user, rule.id, request.subject)
        offer = UserOffer(id, parts.unix_ms(), shown_in, request.values)
        result = await submit(partial(marketing.send, rule, offer))
        if isinstance(result, Repeated):
            repeated += 1
        elif isinstance(result, Committed):
            sent += result.direct_ids[0] > 0
            suppressed += result.direct_ids[0] <= 0
        else:
            raise later()
    return TriggeredOffers(
        sent, len(decision.later), len(decision.cancelled), suppressed, repeated, decision.refused
    )  # fmt: skip


HANDLERS: dict[str, Handler] = {
    "marketing.put_rule": _put,
    "marketing.remove_rule": _remove,
    "marketing.rules": _list,
    "marketing.report": _report,
}
