"""What the facts of a flash sale make of it: the fold, and its inverse."""

from __future__ import annotations

from typing import Any

from protocol.activities.sales import ClaimState, SaleCounts, SaleState

from .activity import ErasedUser, Fact
from .sale_claims import SaleClaims
from .sale_commands import SaleConfig, config_of_fact

__all__ = ["CLAIM_ENDS", "RESTART_GRACE_MS", "SaleFacts"]

RESTART_GRACE_MS = 5000
"""No reservation expires sooner after a restart."""
CLAIM_ENDS = {
    "claim_expired": ClaimState.EXPIRED,
    "claim_cancelled": ClaimState.CANCELLED,
    "claim_released": ClaimState.RELEASED,
    "claim_lost": ClaimState.LOST,
    "claim_voided": ClaimState.VOID,
    "claim_dismissed": ClaimState.DISMISSED,
}
"""Facts that end a claim; their data is its number and its state before."""


class SaleFacts:
    """State of a sale. ``config`` is None until it is created."""

    __slots__ = (
        "claims", "close_at_ms", "config", "ended_at_ms", "is_sold_out_told", "price_cents",
        "price_version", "restocks", "seed", "state", "stock",
    )  # fmt: skip

    def __init__(self) -> None:
        self.config: SaleConfig | None = None
        self.seed = b""
        self.state = SaleState.SCHEDULED
        self.stock = 0
        self.price_cents = 0
        self.price_version = 0
        self.close_at_ms = 0
        """When it closes; a command may bring it forward."""
        self.ended_at_ms: int | None = None
        """When it was settled or cancelled."""
        self.is_sold_out_told = False
        self.restocks: dict[str, tuple[int, int]] = {}
        """Units added and the stock after, by request."""
        self.claims = SaleClaims()

    @property
    def available(self) -> int:
        """Units that are neither reserved nor sold."""
        return self.stock - self.claims.reserved - self.claims.confirmed

    @property
    def terms(self) -> SaleConfig:
        """The configuration of a sale that exists."""
        assert self.config is not None
        return self.config

    def counts(self) -> SaleCounts:
        claims = self.claims
        return SaleCounts(self.available, claims.reserved, claims.confirmed, claims.waiting)

    def apply(self, fact: Fact) -> None:
        name, data = fact
        claims = self.claims
        if name == "claims_taken":
            _, price_cents, expires_at, taken = data
            for user, request, quantity, place in taken:
                claims.add(user, request, quantity, price_cents, expires_at, place)
        elif name in CLAIM_ENDS:
            claims.set_state(data[0], CLAIM_ENDS[name])
        elif name == "claim_promoted":
            number, _, price_cents, expires_at = data
            claims.set_state(number, ClaimState.RESERVED)
            claims.set_terms(number, price_cents, expires_at)
        elif name == "claim_confirmed":
            claims.set_state(data[0], ClaimState.CONFIRMED)
            claims.set_order(data[0], data[2])
        elif name == "restocked":
            request, add, _ = data
            self.stock += add
            self.restocks[request] = add, self.stock
            if add > 0:
                self.is_sold_out_told = False
        elif name == "price_changed":
            self.price_cents = data[1]
            self.price_version += 1
        elif name == "sold_out":
            self.is_sold_out_told = True
        elif name == "resumed":
            claims.extend(data[0] + RESTART_GRACE_MS)
        elif name == "created":
            self._create(*data)
        elif name == "opened":
            self.state = SaleState.OPEN
        elif name == "closing":
            self.close_at_ms = data[0]
        elif name == "closed":
            self.state = SaleState.CLOSED
        elif name == "settled":
            self.state = SaleState.SETTLED
            self.ended_at_ms = data[0]
        else:
            self.state = SaleState.CANCELLED
            self.ended_at_ms = data[0]

    def undo(self, fact: Fact) -> None:
        """Take back the newest fact."""
        name, data = fact
        claims = self.claims
        if name == "claims_taken":
            for _ in data[3]:
                claims.remove_last()
        elif name in CLAIM_ENDS:
            claims.set_state(data[0], data[1])
        elif name == "claim_promoted":
            claims.set_state(data[0], ClaimState.WAITING)
            claims.set_terms(data[0], data[1], 0)
        elif name == "claim_confirmed":
            claims.set_state(data[0], data[1])
            claims.remove_order(data[0])
        elif name == "restocked":
            request, add, self.is_sold_out_told = data
            self.stock -= add
            del self.restocks[request]
        elif name == "price_changed":
            self.price_cents = data[0]
            self.price_version -= 1
        elif name == "sold_out":
            self.is_sold_out_told = False
        elif name == "resumed":
            claims.undo_extend()
        elif name == "created":
            self.__init__()  # type: ignore[misc]
        elif name == "opened":
            self.state = SaleState.SCHEDULED
        elif name == "closing":
            self.close_at_ms = data[1]
        elif name == "closed":
            self.state = SaleState.OPEN
        elif name == "settled":
            self.state = SaleState.CLOSED
            self.ended_at_ms = None
        else:
            self.state = SaleState(data[1])
            self.ended_at_ms = None

    @staticmethod
    def without(fact: Fact, erased: ErasedUser) -> Fact:
        """Return a fact without a user: only that of new claims names users."""
        if fact.name != "claims_taken":
            return fact
        *terms, taken = fact.data
        claims = tuple(
            (erased.pseudonym, "", *claim[2:]) if claim[0] == erased.user else tuple(claim) for claim in taken
        )
        return Fact(fact.name, (*terms, claims))

    def dump(self) -> tuple[Any, ...]:
        """Return the state as plain values."""
        return (
            self.config, self.seed, self.state, self.stock, self.price_cents, self.price_version, self.close_at_ms,
            self.ended_at_ms, self.is_sold_out_told, tuple(sorted(self.restocks.items())), self.claims.dump(),
        )  # fmt: skip

    def _create(self, config: tuple[Any, ...], seed: bytes, _: int) -> None:
        self.config = made = config_of_fact(config)
        self.seed = seed
        self.stock = made.stock
        self.price_cents = made.price_cents
        self.price_version = 1
        self.close_at_ms = made.close_at_ms
