"""Triggered marketing of a broker: its rules, offers that wait, and the sending of those whose time has come.

Rules and offers that wait are records of the ledger. An offer is a must-deliver message of marketing: the ledger judges
preference, caps and quiet hours in the transaction that would write it, and writes it once within the rule's cooldown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio

from broker.core.tenants.names import tenant_of
from broker.core.users.triggers import OfferId, ReportDecision, TriggerTable, UserOffer
from broker.ledger import (
    Item,
    Key,
    Ledger,
    LedgerError,
    LedgerResult,
    Reader,
    RecordPut,
    RecordRemoved,
    Repeated,
    StoredRecord,
    SubmitResult,
    make_key,
)
from broker.ledger.records import read_records, remove_records
from broker.users.inbox import Inboxes
from protocol.activities import activity_payload
from protocol.activities.marketing import OfferShown
from protocol.codes import MessageType
from protocol.direct_batches import TemplateError, fill
from protocol.frames import pack_body
from protocol.operations.marketing import MarketingRule

__all__ = ["RULE", "WAITING", "TriggeredMarketing"]

RULE = "marketing.rule"
"""Kind of the records of rules; subject: the tenant, name: the id."""
WAITING = "marketing.waiting"
"""Kind of the records of offers that wait; subject: the user, erased with all records of a user."""
TICK_S = 1.0
AGAIN_MS = 5000
"""When an offer is tried again that the ledger could not take."""


class TriggeredMarketing:
    """Rules and offers of all tenants. Counter ``offered`` only grows."""

    def __init__(self, ledger: Ledger, inboxes: Inboxes, unix_ms: Callable[[], int]) -> None:
        self.table: TriggerTable[MarketingRule] = TriggerTable()
        self._ledger = ledger
        self._inboxes = inboxes
        self._unix_ms = unix_ms
        self._wake = trio.Event()
        self.offered = 0
        """Offers that were handed to the ledger, which sends those that are allowed."""

    async def load(self) -> None:
        """Take over rules and waiting offers of the last run, or of the node that decided before."""
        rules, offers = await self._ledger.ask(_read)
        self.leave()
        for tenant, rule in rules:
            self.table.put(tenant, rule)
        for offer in offers:
            self.table.wait(offer)
        self._wake.set()

    def leave(self) -> None:
        """Forget all: another node decides now."""
        self.table = TriggerTable()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send offers whose time has come. Until cancelled."""
        task_status.started()
        while True:
            if not len(self.table):
                self._wake = trio.Event()
                await self._wake.wait()
            while (offer := self.table.take_due(self._unix_ms())) is not None:
                self._send_waiting(offer)
                await trio.lowlevel.checkpoint()
            await trio.sleep(TICK_S)

    # ---- rules

    def rule_item(self, tenant: str, rule: MarketingRule) -> RecordPut:
        """Return the record of a rule."""
        return RecordPut(RULE, tenant, rule.id, self._unix_ms(), pack_body(tuple(rule)))

    def rule_removal(self, tenant: str, id: str) -> RecordRemoved:
        """Return what removes the record of a rule."""
        return RecordRemoved(RULE, tenant, id)

    # ---- reports

    def decide(
        self, user: str, trigger: str, subject: str, conversation: str, values: Mapping[str, str]
    ) -> ReportDecision[MarketingRule]:
        """Return what a report of a user (qualified id) brings about. TemplateError: a rule needs a value more."""
        decision = self.table.decide(
            tenant_of(user), user, trigger, subject, conversation, values, self._unix_ms()
        )  # fmt: skip
        later = (self.table.rule(tenant_of(user), offer.id.rule) for offer in decision.later)
        for rule in (*decision.now, *later):
            if rule is not None:
                fill((rule.title, rule.text), values)
        return decision

    def keep(self, decision: ReportDecision[MarketingRule], on_done: Callable[[LedgerResult], None]) -> SubmitResult:
        """Write what waits from now on and what waits no more; it holds when it is durable."""
        now_ms = self._unix_ms()
        items: list[Item] = [_removal(id) for id in decision.cancelled]
        items += [
            RecordPut(WAITING, offer.id.user, _name(offer.id), now_ms, pack_body(
                (offer.due_ms, offer.id.rule, offer.id.subject, offer.conversation, dict(offer.values))
            ))
            for offer in decision.later
        ]  # fmt: skip

        def on_written(result: LedgerResult) -> None:
            if not isinstance(result, LedgerError):
                for id in decision.cancelled:
                    self.table.drop(id)
                for offer in decision.later:
                    self.table.wait(offer)
                self._wake.set()
            on_done(result)

        return self._ledger.record(items, on_written)

    def send(
        self, rule: MarketingRule, offer: UserOffer, on_done: Callable[[LedgerResult], None], then: Sequence[Item] = ()
    ) -> SubmitResult:
        """Send an offer of a rule; ``on_done`` gets the ledger's result: a number, a `Suppression`, or `Repeated`
        within the cooldown. ``then``: what is written with it. TemplateError."""
        title, text = fill((rule.title, rule.text), offer.values)
        user, now_ms = offer.id.user, self._unix_ms()
        shown = OfferShown(rule.trigger, offer.id.subject, title[:100], text[:500], rule.url, offer.conversation)
        key: Key = make_key("marketing offer", user, rule.id, str(now_ms // (rule.cooldown_s * 1000)))
        self.offered += 1
        return self._inboxes.send(
            user, MessageType.ACTIVITY, activity_payload("marketing.offered", rule.id, shown), on_done, key=key,
            expires_at_ms=now_ms + rule.expires_s * 1000, marketing=True, then=then,
        )  # fmt: skip

    def _send_waiting(self, offer: UserOffer) -> None:
        rule = self.table.rule(tenant_of(offer.id.user), offer.id.rule)

        def end() -> None:
            self.table.drop(offer.id)

        def again() -> None:
            self.table.wait(offer._replace(due_ms=self._unix_ms() + AGAIN_MS))

        def on_done(result: LedgerResult) -> None:
            if isinstance(result, LedgerError):
                again()
                return
            if isinstance(result, Repeated):
                remove_records(self._ledger, (_removal(offer.id),))
            end()

        try:
            submitted = None if rule is None else self.send(rule, offer, on_done, (_removal(offer.id),))
        except (TemplateError, ValueError):  # its rule has become another one
            submitted = None
        if submitted is None:
            remove_records(self._ledger, (_removal(offer.id),))
            end()
        elif submitted is not SubmitResult.QUEUED:
            again()

    def forget(self, user: str) -> None:
        """Forget a user who is being erased."""
        self.table.forget(user)


def _name(id: OfferId) -> str:
    return f"{id.rule} {id.subject}"


def _removal(id: OfferId) -> RecordRemoved:
    return RecordRemoved(WAITING, id.user, _name(id))


def _read(reader: Reader) -> tuple[list[tuple[str, MarketingRule]], list[UserOffer]]:
    def rule_of(record: StoredRecord, body: Sequence[Any]) -> tuple[str, MarketingRule]:
        return record.subject, MarketingRule(*body[: len(MarketingRule._fields)])

    def offer_of(record: StoredRecord, body: Sequence[Any]) -> UserOffer:
        due_ms, rule, subject, conversation, values = body[:5]
        return UserOffer(OfferId(record.subject, rule, subject), due_ms, conversation, values)

    return list(read_records(reader, RULE, rule_of)), list(read_records(reader, WAITING, offer_of))
