"""A flash sale: units of one product, claimed by viewers, confirmed by the platform, never more than there are.

``available`` is the stock less what is reserved and sold, so the three always sum up to the stock. What falls due is
done in the order of due times; of equal ones: opening, reservations that expire, windows, closing. Units that return
go to the head of the waiting list in the same step, so no claim overtakes another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from protocol.activities.eligibility import Eligibility
from protocol.activities.sales import (
    MAX_OWN_CLAIMS,
    ClaimConfirmed,
    ClaimState,
    ClaimView,
    OwnClaims,
    SaleClosed,
    SaleOpened,
    SalePriceChanged,
    SaleRestocked,
    SaleSettled,
    SaleSoldOut,
    SaleState,
    SaleView,
)
from protocol.codes import ErrorCode
from protocol.operations.sales import ClaimOutcome, LateConfirm, SaleEnd, SalePrice, SaleStock
from protocol.primitives import seed_hash

from . import sale_commands as said
from .activity import (
    Activity,
    ActivityRefusal,
    ActivityReport,
    ActivityStep,
    ErasedUser,
    Fact,
    Requester,
    RoomEvent,
    UserMessage,
)
from .eligibility import ineligible
from .sale_claims import MAX_CLAIMS_OF_ONE, SaleClaims
from .sale_facts import SaleFacts
from .sale_steps import MAX_SLICE, SaleSteps
from .sale_window import MAX_PENDING, MAX_TICKETS, PendingClaim, SaleWindow

__all__ = ["Sale"]

T = TypeVar("T")

MAX_RESTOCKS = 100_000
_NEVER = 2**62
_NO_CONDITIONS = Eligibility()
_WAITING, _RESERVED, _CONFIRMED = ClaimState.WAITING, ClaimState.RESERVED, ClaimState.CONFIRMED
_SCHEDULED, _OPEN, _CLOSED = SaleState.SCHEDULED, SaleState.OPEN, SaleState.CLOSED

_OF_CONFIRM = {
    ClaimState.WAITING: said.NOT_RESERVED,
    ClaimState.CANCELLED: said.CLAIM_CANCELLED,
    ClaimState.RELEASED: said.RELEASED,
    ClaimState.LOST: said.EXPIRED,
    ClaimState.VOID: said.SALE_CANCELLED,
    ClaimState.DISMISSED: said.SOLD_OUT,
}
"""What a confirmation hears in states that refuse it."""
_OF_CANCEL = {
    ClaimState.CONFIRMED: said.ALREADY_CONFIRMED,
    ClaimState.VOID: said.SALE_CANCELLED,
    ClaimState.DISMISSED: said.SOLD_OUT,
}
_OF_RELEASE = {
    **_OF_CANCEL,
    ClaimState.EXPIRED: said.EXPIRED,
    ClaimState.LOST: said.EXPIRED,
    ClaimState.CANCELLED: said.CLAIM_CANCELLED,
}


class Sale(Activity[T]):
    """One flash sale. ``rng``: returns 32 unguessable bytes, asked once at creation."""

    kind = "sales"

    def __init__(self, id: str, rng: Callable[[], bytes]) -> None:
        super().__init__(id)
        self._rng = rng
        self._facts = SaleFacts()
        self._steps: SaleSteps[T] = SaleSteps(id, self._facts)
        self._window: SaleWindow[T] | None = None
        self._due: tuple[int, Callable[[int], ActivityStep[T]]] | None = None
        """When something is due, and what; None = not known."""
        self._decides: dict[type[Any], Callable[[Any, Requester, int], ActivityStep[T]]] = {
            said.ConfirmCommand: self._confirm,
            said.CancelClaimCommand: self._cancel,
            said.ReleaseCommand: self._release,
            said.RestockCommand: self._restock,
            said.SetPriceCommand: self._set_price,
            said.CloseSaleCommand: self._close_early,
            said.CancelSaleCommand: self._cancel_sale,
        }

    # ---- what others read

    @property
    def exists(self) -> bool:
        return self._facts.config is not None

    @property
    def claims(self) -> SaleClaims:
        """All claims, to be read."""
        return self._facts.claims

    @property
    def state(self) -> SaleState:
        return self._facts.state

    @property
    def removable_at(self) -> int | None:
        return None if self.claims.waiting or self.claims.reserved else self._facts.ended_at_ms

    @property
    def amounts(self) -> Mapping[str, int]:
        available, reserved, confirmed, _ = self._facts.counts()
        return {"available": available, "reserved": reserved, "confirmed": confirmed}

    def view(self, is_staff: bool = False) -> SaleView:
        facts = self._facts
        config = self._facts.terms
        has_ended = facts.state not in (_SCHEDULED, _OPEN)
        return SaleView(
            self.id, config.sku, facts.state, facts.stock, *facts.counts(), facts.price_cents, facts.price_version,
            config.per_user, config.open_at_ms, facts.close_at_ms, config.reserve_ms, config.first_window_ms,
            config.window_ms, seed_hash(facts.seed).hex(), facts.seed.hex() if has_ended else None,
        )  # fmt: skip

    def own_view(self, user: str) -> OwnClaims | None:
        claims = self.claims_of(user)
        return OwnClaims(claims[:MAX_OWN_CLAIMS], len(claims) > MAX_OWN_CLAIMS) if claims else None

    def claims_of(self, user: str) -> tuple[ClaimView, ...]:
        """Return the claims of ``user``, newest first."""
        claims = self.claims
        return tuple(map(claims.view, claims.of_user(user)))

    def counter(self) -> RoomEvent | None:
        return RoomEvent("sales.counted", self._facts.counts()) if self._facts.state in (_OPEN, _CLOSED) else None

    # ---- state

    def apply(self, fact: Fact) -> None:
        self._facts.apply(fact)
        self._due = None

    def undo(self, fact: Fact) -> None:
        self._facts.undo(fact)
        self._due = None

    def dump(self) -> tuple[Any, ...]:
        return self._facts.dump()

    def without(self, fact: Fact, erased: ErasedUser) -> Fact:
        return self._facts.without(fact, erased)

    def erase(self, erased: ErasedUser) -> None:
        self.claims.erase(erased)
        if self._window is not None:
            self._window.erase(erased)

    # ---- commands

    def decide(self, command: Any, requester: Requester, ticket: T, now_ms: int) -> ActivityStep[T] | None:
        facts = self._facts
        if type(command) is said.CreateSaleCommand:
            return self._create(command.config, now_ms)
        if facts.config is None:
            return _refuse(said.UNKNOWN_SALE)
        if self._first_due()[0] <= now_ms:
            return _LATER  # the ledger does not take what is due: nothing that may follow from it is decided
        if type(command) is said.ClaimCommand:
            return self._claim(command, requester, ticket, now_ms)
        return self._decides[type(command)](command, requester, now_ms)

    def _create(self, config: said.SaleConfig, now_ms: int) -> ActivityStep[T]:
        if self.exists:
            return ActivityStep(
                answer=self.view() if config == self._facts.terms else said.KEY_REUSED._replace(field="id")
            )
        refusal = config.refusal(now_ms)
        if refusal is not None:
            return _refuse(refusal)
        seed = self._rng()
        plain = (*config[:-1], tuple(config.eligibility))
        view = SaleView(
            self.id, config.sku, _SCHEDULED, config.stock, config.stock, 0, 0, 0, config.price_cents, 1,
            config.per_user, config.open_at_ms, config.close_at_ms, config.reserve_ms, config.first_window_ms,
            config.window_ms, seed_hash(seed).hex(),
        )  # fmt: skip
        return ActivityStep((Fact("created", (plain, seed, now_ms)),), view, event=RoomEvent("sales.scheduled", view))

    def _claim(
        self, command: said.ClaimCommand, requester: Requester, ticket: T, now_ms: int
    ) -> ActivityStep[T] | None:
        facts, claims, config = self._facts, self._facts.claims, self._facts.terms
        user, request, quantity, price_version, text = requester.user, *command
        window = self._window
        number = claims.find(user, request)
        if number:
            is_same = claims.quantity(number) == quantity
            return ActivityStep(answer=claims.first_answer(number)) if is_same else _KEY_REUSED
        pending = window.find(user, request) if window is not None else None
        if pending is not None:
            if pending.quantity != quantity:
                return _KEY_REUSED
            if len(pending.tickets) >= MAX_TICKETS:
                return _LATER
            pending.tickets.append(ticket)
            return None
        if facts.state is not _OPEN:
            return self._not_open(now_ms)
        refusal = ineligible(config.eligibility, requester, text)
        if refusal is not None:
            return _refuse(refusal)
        held = claims.held(user)
        if window is not None:
            held += window.quantity_of(user)
        if held + quantity > config.per_user:
            return _ALREADY_HAVE
        if price_version and price_version != facts.price_version:
            return _refuse(self._steps.other_price())
        if facts.available <= 0 and claims.waiting >= config.waiting_max:
            return _refuse(self._steps.nothing_left())
        if len(claims.of_user(user)) >= MAX_CLAIMS_OF_ONE:
            return _TOO_MANY_CLAIMS
        if window is None:
            window = SaleWindow(facts.seed, config.open_at_ms, config.first_window_ms, config.window_ms)
            self._window = window
        made = PendingClaim(user, request, quantity, price_version, ticket)
        if not window.is_on(now_ms):
            step = self._steps.decide_claims([made], now_ms)
            return step._replace(answer=step.answers[0][1], answers=())
        if window.count >= MAX_PENDING:
            return _WINDOW_FULL
        window.add(made, now_ms)
        self._due = None
        return None

    def refusal_from_memory(self, user: str, quantity: int, price_version: int, now_ms: int) -> ActivityRefusal | None:
        """Return what a first claim of ``user`` hears where nothing is available and no more may wait; None: it is to
        be decided. It is the same as `decide` would say, for the many who come too late."""
        facts, claims = self._facts, self._facts.claims
        if (
            facts.state is not _OPEN
            or facts.available > 0
            or claims.waiting < facts.terms.waiting_max
            or quantity > facts.terms.per_user
            or price_version not in (0, facts.price_version)
            or facts.terms.eligibility != _NO_CONDITIONS
            or self._first_due()[0] <= now_ms
            or claims.has_user(user)
            or (self._window is not None and self._window.has_user(user))
        ):
            return None
        return self._steps.nothing_left()

    def _not_open(self, now_ms: int) -> ActivityStep[T]:
        if self._facts.state is _SCHEDULED:
            wait_ms = self._facts.terms.open_at_ms - now_ms
            return _refuse(ActivityRefusal(ErrorCode.NOT_OPEN, "the sale has not begun", "", wait_ms))
        return _SALE_CANCELLED if self._facts.state is SaleState.CANCELLED else _SALE_CLOSED

    def _confirm(self, command: said.ConfirmCommand, requester: Requester, now_ms: int) -> ActivityStep[T]:
        claims = self.claims
        number, order = command
        if not claims.has(number):
            return _UNKNOWN_CLAIM
        state = claims.state(number)
        if state is _CONFIRMED:
            is_same = claims.order(number) == order
            return ActivityStep(answer=ClaimOutcome(number, state) if is_same else said.ALREADY_CONFIRMED)
        if state in _OF_CONFIRM:
            return _refuse(_OF_CONFIRM[state])
        if claims.of_order(order):
            return _refuse(said.ORDER_USED)
        if self._facts.state is SaleState.CANCELLED and state is _RESERVED:
            return _SALE_CANCELLED
        user, quantity, price_cents = claims.user(number), claims.quantity(number), claims.price(number)
        if state is ClaimState.EXPIRED and not self._takes_late(user, quantity):
            return ActivityStep((Fact("claim_lost", (number, int(state))),), said.EXPIRED)
        expires_at = claims.expires_at(number)
        return ActivityStep(
            (Fact("claim_confirmed", (number, int(state), order)),),
            ClaimOutcome(number, _CONFIRMED),
            messages=(UserMessage(user, "sales.claim_confirmed", ClaimConfirmed(number, quantity, price_cents)),),
            reports=(self._steps.claim_report("confirmed", number, user, quantity, price_cents, expires_at, order),),
        )

    def _takes_late(self, user: str, quantity: int) -> bool:
        """Whether an expired claim may be confirmed as if in time."""
        facts, claims, config = self._facts, self._facts.claims, self._facts.terms
        return (
            config.late_confirm is LateConfirm.IF_STOCK
            and facts.state in (_OPEN, _CLOSED)
            and not claims.waiting
            and facts.available >= quantity
            and claims.held(user) + quantity <= config.per_user
        )

    def _cancel(self, command: said.CancelClaimCommand, requester: Requester, now_ms: int) -> ActivityStep[T]:
        claims = self.claims
        number = command.number
        if not claims.has(number):
            return _UNKNOWN_CLAIM
        state = claims.state(number)
        if state in _OF_CANCEL:
            return _refuse(_OF_CANCEL[state])
        if state in (_WAITING, _RESERVED):
            if self._facts.state is SaleState.CANCELLED:
                return _SALE_CANCELLED
            outcome = ClaimOutcome(number, ClaimState.CANCELLED)
            return self._steps.end_claim(
                "claim_cancelled", number, now_ms, outcome, "sales.claim_cancelled", "cancelled"
            )
        if state is ClaimState.EXPIRED:
            fact = Fact("claim_cancelled", (number, int(state)))
            return ActivityStep((fact,), ClaimOutcome(number, ClaimState.CANCELLED))
        return ActivityStep(answer=ClaimOutcome(number, state))

    def _release(self, command: said.ReleaseCommand, requester: Requester, now_ms: int) -> ActivityStep[T]:
        claims = self.claims
        number = command.number
        if not claims.has(number) or claims.user(number) != requester.user:
            return _UNKNOWN_CLAIM
        state = claims.state(number)
        if state in _OF_RELEASE:
            return _refuse(_OF_RELEASE[state])
        outcome = ClaimOutcome(number, ClaimState.RELEASED)
        if state is ClaimState.RELEASED:
            return ActivityStep(answer=outcome)
        if self._facts.state is SaleState.CANCELLED:
            return _SALE_CANCELLED
        return self._steps.end_claim("claim_released", number, now_ms, outcome, None, "released")

    def _restock(self, command: said.RestockCommand, requester: Requester, now_ms: int) -> ActivityStep[T]:
        facts = self._facts
        request, add = command
        known = facts.restocks.get(request)
        if known is not None:
            return ActivityStep(answer=SaleStock(known[1])) if known[0] == add else _KEY_REUSED
        if facts.state not in (_SCHEDULED, _OPEN):
            return self._not_open(now_ms)
        if facts.available + add < 0:
            return _refuse(said.BELOW_TAKEN)
        stock = facts.stock + add
        refusal = said.value_refusal(stock, facts.price_cents, "add")
        if refusal is None and len(facts.restocks) >= MAX_RESTOCKS:
            refusal = ActivityRefusal(ErrorCode.OUT_OF_STATE, f"has been restocked {MAX_RESTOCKS} times", "id")
        if refusal is not None:
            return _refuse(refusal)
        promoted = self._steps.promotions(facts.available + add, now_ms)
        return ActivityStep(
            (Fact("restocked", (request, add, facts.is_sold_out_told)), *promoted.facts),
            SaleStock(stock),
            event=RoomEvent("sales.restocked", SaleRestocked(stock)),
            messages=promoted.messages,
            reports=promoted.reports,
        )

    def _set_price(self, command: said.SetPriceCommand, requester: Requester, now_ms: int) -> ActivityStep[T]:
        facts = self._facts
        price_cents = command.price_cents
        if facts.state not in (_SCHEDULED, _OPEN):
            return self._not_open(now_ms)
        if price_cents == facts.price_cents:
            return ActivityStep(answer=SalePrice(facts.price_version, price_cents))
        refusal = said.value_refusal(facts.stock, price_cents, "price_cents")
        if refusal is not None:
            return _refuse(refusal)
        version = facts.price_version + 1
        return ActivityStep(
            (Fact("price_changed", (facts.price_cents, price_cents)),),
            SalePrice(version, price_cents),
            event=RoomEvent("sales.price_changed", SalePriceChanged(version, price_cents)),
        )

    def _close_early(self, command: said.CloseSaleCommand, requester: Requester, now_ms: int) -> ActivityStep[T]:
        """Close the sale now: what is due at its closing becomes due."""
        facts = self._facts
        if facts.state is _OPEN:
            return ActivityStep((Fact("closing", (now_ms, facts.close_at_ms)),), SaleEnd(now_ms))
        if facts.state in (_CLOSED, SaleState.SETTLED):
            return ActivityStep(answer=SaleEnd(facts.close_at_ms))
        return self._not_open(now_ms)

    def _cancel_sale(self, command: said.CancelSaleCommand, requester: Requester, now_ms: int) -> ActivityStep[T]:
        facts = self._facts
        if facts.state is SaleState.SETTLED:
            return _SALE_CLOSED
        if facts.state is SaleState.CANCELLED:
            return ActivityStep(answer=SaleEnd(facts.ended_at_ms or 0))
        return ActivityStep(
            (Fact("cancelled", (now_ms, int(facts.state))),),
            SaleEnd(now_ms),
            self._answers_of_pending(said.SALE_CANCELLED),
            RoomEvent("sales.cancelled", SaleClosed(facts.seed.hex())),
            reports=(self._steps.sale_report("voided", SaleState.CANCELLED),),
        )

    def _answers_of_pending(self, answer: ActivityRefusal) -> tuple[tuple[T, Any], ...]:
        """Remove the claims of the window, and return the answer of each caller."""
        if self._window is None:
            return ()
        pending = self._window.take(MAX_PENDING)
        return tuple((ticket, answer) for each in pending for ticket in each.tickets)

    # ---- what falls due

    def next_due(self) -> int | None:
        due = self._first_due()[0]
        return None if due == _NEVER else due

    def due(self, now_ms: int) -> ActivityStep[T] | None:
        at_ms, do = self._first_due()
        if at_ms > now_ms:
            return None
        self._due = None
        return do(now_ms)

    def _first_due(self) -> tuple[int, Callable[[int], ActivityStep[T]]]:
        if self._due is None:
            self._due = self._find_due()
        return self._due

    def _find_due(self) -> tuple[int, Callable[[int], ActivityStep[T]]]:
        facts, claims = self._facts, self._facts.claims
        if facts.config is None:
            return _NEVER, self._open
        if facts.state is _SCHEDULED:
            return facts.config.open_at_ms, self._open
        if facts.state is SaleState.CANCELLED:
            return (0 if claims.waiting or claims.reserved else _NEVER), self._void
        if facts.state is SaleState.SETTLED:
            return _NEVER, self._settle
        head = claims.first_waiting()
        if head and claims.quantity(head) <= facts.available:
            return 0, self._promote
        if facts.state is _CLOSED and head and not claims.reserved:
            return 0, self._dismiss
        if not facts.available and not facts.is_sold_out_told:
            return 0, self._tell_sold_out
        first = claims.first_reserved()
        expires_at = claims.expires_at(first) if first else _NEVER
        if facts.state is _CLOSED:
            return (expires_at, self._expire) if first else (0, self._settle)
        close_at = facts.close_at_ms
        window_at = _NEVER
        if self._window is not None and self._window.ends_at is not None:
            window_at = min(self._window.ends_at, close_at)
        if expires_at <= window_at and expires_at <= close_at:
            return expires_at, self._expire
        return (window_at, self._end_window) if window_at <= close_at else (close_at, self._close)

    def _open(self, now_ms: int) -> ActivityStep[T]:
        facts = self._facts
        opened = SaleOpened(facts.stock, facts.price_cents, facts.price_version, facts.close_at_ms)
        return ActivityStep(
            (Fact("opened", (now_ms,)),),
            event=RoomEvent("sales.opened", opened),
            reports=(self._steps.sale_report("opened", _OPEN),),
        )

    def _expire(self, now_ms: int) -> ActivityStep[T]:
        number = self.claims.first_reserved()
        return self._steps.end_claim("claim_expired", number, now_ms, None, "sales.claim_expired", "expired")

    def _promote(self, now_ms: int) -> ActivityStep[T]:
        return self._steps.promotions(self._facts.available, now_ms)

    def _dismiss(self, now_ms: int) -> ActivityStep[T]:
        return self._steps.end_without_return("claim_dismissed", "sales.claim_dismissed", self.claims.first_waiting())

    def _void(self, now_ms: int) -> ActivityStep[T]:
        claims = self.claims
        number = claims.first_reserved() or claims.first_waiting()
        return self._steps.end_without_return("claim_voided", "sales.claim_voided", number)

    def _tell_sold_out(self, now_ms: int) -> ActivityStep[T]:
        claims = self.claims
        return ActivityStep(
            (Fact("sold_out"),),
            event=RoomEvent("sales.sold_out", SaleSoldOut(claims.reserved, claims.confirmed)),
            reports=(self._steps.sale_report("sold_out", self._facts.state),),
        )

    def _end_window(self, now_ms: int) -> ActivityStep[T]:
        assert self._window is not None
        return self._steps.decide_claims(self._window.take(MAX_SLICE), now_ms)

    def _close(self, now_ms: int) -> ActivityStep[T]:
        return ActivityStep(
            (Fact("closed", (now_ms,)),),
            event=RoomEvent("sales.closed", SaleClosed(self._facts.seed.hex())),
            reports=(self._steps.sale_report("closed", _CLOSED),),
        )

    def _settle(self, now_ms: int) -> ActivityStep[T]:
        facts = self._facts
        return ActivityStep(
            (Fact("settled", (now_ms,)),),
            event=RoomEvent("sales.settled", SaleSettled(facts.claims.confirmed, facts.available)),
            reports=(self._steps.sale_report("settled", SaleState.SETTLED),),
        )

    # ---- restart, and the end of the room

    def resumed(self, now_ms: int) -> ActivityStep[T] | None:
        has_reserved = self._facts.state in (_OPEN, _CLOSED) and self.claims.reserved > 0
        return ActivityStep((Fact("resumed", (now_ms,)),)) if has_reserved else None

    def ended(self, now_ms: int) -> ActivityStep[T] | None:
        """Cancel the sale; callers whose claims wait for their window hear that the room has ended."""
        facts, claims = self._facts, self._facts.claims
        if facts.config is None:
            return None
        numbers = [number for number in range(1, len(claims) + 1) if claims.state(number) in (_WAITING, _RESERVED)]
        steps: list[ActivityStep[T]] = [
            self._steps.end_without_return("claim_voided", "sales.claim_voided", n) for n in numbers
        ]
        cancelled: tuple[Fact, ...] = ()
        reports: tuple[ActivityReport, ...] = ()
        if facts.ended_at_ms is None:
            cancelled = (Fact("cancelled", (now_ms, int(facts.state))),)
            reports = (self._steps.sale_report("voided", SaleState.CANCELLED),)
        return ActivityStep(
            (*cancelled, *(step.facts[0] for step in steps)),
            answers=self._answers_of_pending(ActivityRefusal(ErrorCode.ROOM_ENDED, "has ended", "room")),
            messages=tuple(step.messages[0] for step in steps),
            reports=reports,
        )


def _refuse(refusal: ActivityRefusal) -> ActivityStep[Any]:
    return ActivityStep(answer=refusal)


_LATER = _refuse(said.LATER)
_KEY_REUSED = _refuse(said.KEY_REUSED)
_ALREADY_HAVE = _refuse(said.ALREADY_HAVE)
_TOO_MANY_CLAIMS = _refuse(said.TOO_MANY_CLAIMS)
_SOLD_OUT = _refuse(said.SOLD_OUT)
_ALL_RESERVED = _refuse(said.ALL_RESERVED)
_WINDOW_FULL = _refuse(said.WINDOW_FULL)
_UNKNOWN_CLAIM = _refuse(said.UNKNOWN_CLAIM)
_SALE_CANCELLED = _refuse(said.SALE_CANCELLED)
_SALE_CLOSED = _refuse(said.CLOSED)
