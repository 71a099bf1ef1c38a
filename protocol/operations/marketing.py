"""Operations on triggered marketing: their records and rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..activities.conversations import conversation_id
from ..codes import ErrorCode
from ..fields import array_of, boolean, https_url, integer, map_of, optional, record, text, user_id
from ..messages import MAX_TEMPLATE_FIELDS
from .rows import NEEDS_LEDGER, PLATFORM, OperationRow, RateLimit, Scope, row

__all__ = [
    "ROWS", "ListMarketingRules", "MarketingRule", "MarketingRuleList", "MarketingRuleRemoved", "PutMarketingRule",
    "RemoveMarketingRule", "ReportTrigger", "TriggeredOffers",
]  # fmt: skip

MAX_DELAY_S = 30 * 86_400
MAX_COOLDOWN_S = 7 * 86_400


class MarketingRule(NamedTuple):
    """A rule. ``trigger``: the report that starts its offer; ``title``, ``text``: with ``{name}`` for values of the
    report; ``url``: where it leads; ``delay_s``: how long it waits, 0 = not; ``cancelled_by``: the report that ends it
    meanwhile, empty = none; ``cooldown_s``: within each such time, counted from 1970, a user gets one offer of the
    rule; ``expires_s``: after which it is not delivered any more."""

    id: str
    trigger: str
    title: str
    text: str = ""
    url: str | None = None
    delay_s: int = 0
    cancelled_by: str = ""
    cooldown_s: int = 86_400
    expires_s: int = 86_400


class PutMarketingRule(NamedTuple):
    """Add a rule, or replace the one of this id; fields as of `MarketingRule`."""

    id: str
    trigger: str
    title: str
    text: str = ""
    url: str | None = None
    delay_s: int = 0
    cancelled_by: str = ""
    cooldown_s: int = 86_400
    expires_s: int = 86_400


class RemoveMarketingRule(NamedTuple):
    """Name a rule; its offers that wait are not sent."""

    id: str


class MarketingRuleRemoved(NamedTuple):
    """``removed``: whether there was a rule of this id."""

    removed: bool


class ListMarketingRules(NamedTuple):
    """Ask for all rules."""


class MarketingRuleList(NamedTuple):
    """Rules, by id."""

    items: tuple[MarketingRule, ...]


class ReportTrigger(NamedTuple):
    """Report what a user has done: it starts the offers of the rules with this ``trigger``, and ends those that wait
    and that it cancels. ``subject``: what it is about, a product for example, empty = anything; ``values``: of the
    fields of the rules' texts; ``conversation``: of the user, where the offer is to be shown."""

    user: str
    trigger: str
    subject: str = ""
    values: Mapping[str, str] = {}
    conversation: str | None = None


class TriggeredOffers(NamedTuple):
    """Offers of a report. ``sent``: at once; ``waiting``: from now on; ``cancelled``: no more; ``suppressed``: the
    user's preference, the caps or the quiet hours are against them; ``repeated``: an earlier report has sent them
    within the cooldown; ``refused``: there is no room for them to wait."""

    sent: int
    waiting: int
    cancelled: int
    suppressed: int
    repeated: int
    refused: int


_id = text(1, 32)
_trigger = text(1, 32)
_count = integer(0)
_RULES = (
    _id, _trigger, text(1, 100), text(0, 500, lines=True), optional(https_url), integer(0, MAX_DELAY_S), text(0, 32),
    integer(1, MAX_COOLDOWN_S), integer(1, 30 * 86_400),
)  # fmt: skip
_rule = record(MarketingRule, _RULES)
_EXAMPLE = MarketingRule(
    "come-back", "viewed", "Still thinking about {product}?", "10 % off today", "https://shop.example/", 1800, "bought"
)

ROWS: tuple[OperationRow, ...] = (
    row(
        650, "marketing.put_rule", PutMarketingRule, _RULES, MarketingRule, _rule,
        "Add a rule of triggered marketing, or replace one.",
        scope=Scope.DIRECTS_WRITE, roles=PLATFORM, durable=True, errors=(*NEEDS_LEDGER, ErrorCode.OUT_OF_STATE),
        example=(PutMarketingRule(*_EXAMPLE), _EXAMPLE),
    ),
    row(
        651, "marketing.remove_rule", RemoveMarketingRule, (_id,), MarketingRuleRemoved,
        record(MarketingRuleRemoved, (boolean,)), "Remove a rule of triggered marketing.",
        scope=Scope.DIRECTS_WRITE, roles=PLATFORM, durable=True, errors=NEEDS_LEDGER,
        example=(RemoveMarketingRule("come-back"), MarketingRuleRemoved(True)),
    ),
    row(
        652, "marketing.rules", ListMarketingRules, (), MarketingRuleList,
        record(MarketingRuleList, (array_of(_rule, 200),)), "Return all rules of triggered marketing.",
        scope=Scope.DIRECTS_WRITE, roles=PLATFORM, changes=False, errors=NEEDS_LEDGER,
        example=(ListMarketingRules(), MarketingRuleList((_EXAMPLE,))),
    ),
    row(
        653, "marketing.report", ReportTrigger,
        (
            user_id, _trigger, text(0, 64), map_of(text(1, 32), text(0, 200), MAX_TEMPLATE_FIELDS),
            optional(conversation_id),
        ),
        TriggeredOffers, record(TriggeredOffers, (_count, _count, _count, _count, _count, _count)),
        "Report what a user has done, which may start or end an offer.",
        scope=Scope.DIRECTS_WRITE, roles=PLATFORM, durable=True, rate=RateLimit(500, 1000),
        errors=(ErrorCode.UNKNOWN_CONVERSATION, *NEEDS_LEDGER),
        example=(
            ReportTrigger("ann", "viewed", "mug-1", {"product": "the mug"}), TriggeredOffers(0, 1, 0, 0, 0, 0)
        ),
    ),
)  # fmt: skip
