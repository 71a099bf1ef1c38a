"""Steps of a flash sale that several commands and timers share: deciding claims, ending them, promoting others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from protocol.activities.sales import ClaimEnded, ClaimReport, ClaimReserved, ClaimState, SaleReport, SaleState
from protocol.codes import ErrorCode
from protocol.operations.sales import ClaimAnswer

from . import sale_commands as said
from .activity import ActivityRefusal, ActivityReport, ActivityStep, Fact, UserMessage
from .sale_facts import SaleFacts
from .sale_window import PendingClaim

__all__ = ["MAX_SLICE", "SaleSteps"]

T = TypeVar("T")

MAX_SLICE = 256
"""Claims that one step decides or promotes."""
_WAITING, _RESERVED = ClaimState.WAITING, ClaimState.RESERVED


class SaleSteps(Generic[T]):
    """Makes steps from the facts of the sale ``id``; changes nothing."""

    def __init__(self, id: str, facts: SaleFacts) -> None:
        self._id = id
        self._facts = facts
        self._price_refusal: tuple[int, ActivityRefusal] | None = None
        """Version of the price and its refusal, which many claims hear."""

    def other_price(self) -> ActivityRefusal:
        """Return what a claim for another version of the price hears."""
        if self._price_refusal is None or self._price_refusal[0] != self._facts.price_version:
            rule = f"the price is {self._facts.price_cents} cents, version {self._facts.price_version}"
            refusal = ActivityRefusal(ErrorCode.PRICE_CHANGED, rule, "price_version")
            self._price_refusal = self._facts.price_version, refusal
        return self._price_refusal[1]

    def nothing_left(self) -> ActivityRefusal:
        """Return what a claim hears when nothing is available and the waiting list is full."""
        return said.SOLD_OUT if self._facts.claims.confirmed == self._facts.stock else said.ALL_RESERVED

    def decide_claims(self, pending: Iterable[PendingClaim[T]], now_ms: int) -> ActivityStep[T]:
        """Take claims, or put them on the waiting list, in their order."""
        facts, claims, config = self._facts, self._facts.claims, self._facts.terms
        available, waiting, number = facts.available, claims.waiting, len(claims)
        expires_at = now_ms + config.reserve_ms
        held: dict[str, int] = {}
        taken: list[tuple[str, str, int, int]] = []
        answers: list[tuple[T, Any]] = []
        reports: list[ActivityReport] = []
        for each in pending:
            user, quantity = each.user, each.quantity
            units = held.get(user)
            if units is None:
                units = held[user] = claims.held(user)
            answer: Any
            if units + quantity > config.per_user:
                answer = said.ALREADY_HAVE
            elif each.price_version and each.price_version != facts.price_version:
                answer = self.other_price()
            elif not waiting and available >= quantity:
                available -= quantity
                number += 1
                taken.append((user, each.request, quantity, 0))
                answer = ClaimAnswer(number, _RESERVED, quantity, facts.price_cents, expires_at)
                reports.append(self.claim_report("reserved", number, user, quantity, facts.price_cents, expires_at))
            elif waiting < config.waiting_max:
                waiting += 1
                number += 1
                taken.append((user, each.request, quantity, waiting))
                answer = ClaimAnswer(number, _WAITING, quantity, None, None, waiting)
            else:
                answer = self.nothing_left()
            if type(answer) is ClaimAnswer:
                held[user] = units + quantity
            answers += ((ticket, answer) for ticket in each.tickets)
        fact = Fact("claims_taken", (now_ms, facts.price_cents, expires_at, tuple(taken)))
        return ActivityStep((fact,) if taken else (), answers=tuple(answers), reports=tuple(reports))

    def end_claim(
        self, name: str, number: int, now_ms: int, answer: Any, message: str | None, report: str
    ) -> ActivityStep[T]:
        """End a claim that waits or is reserved; its units go to those who wait."""
        claims = self._facts.claims
        state, user, quantity = claims.state(number), claims.user(number), claims.quantity(number)
        returned = quantity if state is _RESERVED else 0
        promoted = self.promotions(self._facts.available + returned, now_ms, number)
        messages = (UserMessage(user, message, ClaimEnded(number)),) if message is not None else ()
        made = self.claim_report(report, number, user, quantity, claims.price(number))
        return ActivityStep(
            (Fact(name, (number, int(state))), *promoted.facts),
            answer,
            messages=messages + promoted.messages,
            reports=(made, *promoted.reports),
        )

    def promotions(self, available: int, now_ms: int, skipped: int = 0) -> ActivityStep[T]:
        """Return what reserves ``available`` units for the head of the waiting list. ``skipped``: a claim that ends."""
        facts, claims = self._facts, self._facts.claims
        expires_at = now_ms + self._facts.terms.reserve_ms
        made: list[Fact] = []
        messages: list[UserMessage] = []
        reports: list[ActivityReport] = []
        number = 0
        while (number := claims.first_waiting(number)) and len(made) < MAX_SLICE:
            if number == skipped:
                continue
            quantity = claims.quantity(number)
            if quantity > available:
                break
            available -= quantity
            seen, user = claims.price(number), claims.user(number)
            price_cents = min(seen, facts.price_cents)
            made.append(Fact("claim_promoted", (number, seen, price_cents, expires_at)))
            reserved = ClaimReserved(number, quantity, price_cents, expires_at)
            messages.append(UserMessage(user, "sales.claim_reserved", reserved))
            reports.append(self.claim_report("reserved", number, user, quantity, price_cents, expires_at))
        return ActivityStep(tuple(made), messages=tuple(messages), reports=tuple(reports))

    def end_without_return(self, name: str, message: str, number: int) -> ActivityStep[T]:
        """End a claim whose units go to no other."""
        claims = self._facts.claims
        fact = Fact(name, (number, int(claims.state(number))))
        return ActivityStep((fact,), messages=(UserMessage(claims.user(number), message, ClaimEnded(number)),))

    def claim_report(
        self, name: str, number: int, user: str, quantity: int, price_cents: int,
        expires_at: int | None = None, order: str | None = None,
    ) -> ActivityReport:  # fmt: skip
        report = ClaimReport(self._id, self._facts.terms.sku, number, user, quantity, price_cents, expires_at, order)
        return ActivityReport(f"sale.{name}", report)

    def sale_report(self, name: str, state: SaleState) -> ActivityReport:
        facts = self._facts
        counts = (facts.stock, facts.available, facts.claims.reserved, facts.claims.confirmed)
        return ActivityReport(f"sale.{name}", SaleReport(self._id, self._facts.terms.sku, state, *counts))
