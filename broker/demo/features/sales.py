"""A flash sale in the demo: more buyers than units, a platform that confirms most claims, and a waiting list."""

from __future__ import annotations

from collections import Counter
from typing import Any

import trio

from broker.demo.buyers import Buyer
from broker.demo.features.base import DemoFeature
from protocol.activities.sales import ClaimState, SaleClosed, SaleSettled
from protocol.operations.sales import (
    CancelClaim,
    ClaimSale,
    CloseSale,
    ConfirmClaim,
    CreateSale,
    ListClaims,
    ListSales,
    ReleaseClaim,
)
from protocol.primitives import seed_hash

__all__ = ["SaleFeature"]

SALE = "sale-1"
STOCK = 15
PER_USER = 2
PRICE_CENTS = 1990
RESERVE_MS = 3000
CLAIMS_A_BUYER = 3
"""One more than a buyer may have."""


class SaleFeature(DemoFeature):
    """Buyers claim more units than there are. Of ten claims the platform confirms seven and cancels one, one buyer
    releases, and one is never paid, so that its unit returns by time."""

    name = "sale"

    async def run(self) -> None:
        platform, now_ms = self.others.platform, self.others.now_ms()
        opens_ms, lasts_ms = now_ms + 200, round(self.seconds * 600)
        self.paid: Counter[str] = Counter()
        self.cents = 0
        await platform.call(
            CreateSale(
                self.others.room, SALE, "mug-1", STOCK, PRICE_CENTS, opens_ms, opens_ms + lasts_ms + 5000,
                per_user=PER_USER, reserve_ms=RESERVE_MS, first_window_ms=200,
            )
        )  # fmt: skip
        async with trio.open_nursery() as nursery:
            for buyer in self.others.buyers:
                nursery.start_soon(self._buy, buyer)
        await platform.call(CloseSale(self.others.room, SALE))
        await platform.wait_until(lambda: platform.event("sales.settled", SALE))

    async def _buy(self, buyer: Buyer) -> None:
        """Claim one unit after another, and go through with each claim."""
        await buyer.wait_until(lambda: buyer.event("sales.opened", SALE))
        async with trio.open_nursery() as nursery:
            for number in range(CLAIMS_A_BUYER):
                await trio.sleep(self.rng.uniform(0.0, self.seconds * 0.2))
                claim = await buyer.call(ClaimSale(self.others.room, SALE), key=f"claim-{number}")
                if claim is None:
                    return
                nursery.start_soon(self._complete, buyer, claim.number, claim.state is ClaimState.WAITING)

    async def _complete(self, buyer: Buyer, number: int, waits: bool) -> None:
        """Do with a claim what happens to claims: pay, cancel, release, or nothing."""
        if waits:
            ended = await buyer.wait_until(lambda: self._outcome_of(buyer, number))
            if ended != "reserved":
                return
        await trio.sleep(self.rng.uniform(0.0, 0.5))
        match number % 10:
            case 1:
                await self.others.platform.call(CancelClaim(self.others.room, SALE, number))
            case 2:
                await buyer.call(ReleaseClaim(self.others.room, SALE, number))
            case 3:
                await buyer.wait_until(lambda: self._outcome_of(buyer, number, beside="reserved"))
            case _:
                confirmed = await self.others.platform.call(
                    ConfirmClaim(self.others.room, SALE, number, f"order-{number}")
                )
                if confirmed is not None:
                    self.paid[buyer.id] += 1
                    self.cents += PRICE_CENTS

    @staticmethod
    def _outcome_of(buyer: Buyer, number: int, beside: str = "") -> str | None:
        """Return what a must-deliver message says of a claim: reserved, or how it has ended; None = nothing yet."""
        for message in buyer.messages:
            verb = message.name.removeprefix("sales.claim_")
            if message.id == SALE and verb != beside and message.data.number == number:
                return verb
        return None

    async def reconcile(self) -> dict[str, int]:
        platform = self.others.platform
        sale = next(each for each in (await platform.call(ListSales(self.others.room))).items if each.id == SALE)
        claims = (await platform.call(ListClaims(self.others.room, SALE, limit=1000))).items
        by_state = Counter(claim.state for claim in claims)
        settled: Any = platform.event("sales.settled", SALE)
        closed: Any = platform.event("sales.closed", SALE)
        assert isinstance(settled, SaleSettled)
        assert isinstance(closed, SaleClosed)
        paid = self.paid.total()
        received = sum(len(buyer.data_of("sales.claim_confirmed", SALE)) for buyer in self.others.buyers)
        self.equal("units sold", platform=paid, event=settled.confirmed, broker=sale.confirmed, buyers=received)
        self.equal("units", offered=STOCK, sold_and_left=settled.confirmed + settled.left)
        self.equal("claims under way", broker=by_state[ClaimState.RESERVED] + by_state[ClaimState.WAITING], wanted=0)
        self.equal("buyers above their limit", broker=sum(n > PER_USER for n in self.paid.values()), wanted=0)
        self.equal("commitment", announced=sale.seed_hash, revealed=seed_hash(bytes.fromhex(closed.seed)).hex())
        return {
            "stock": STOCK, "confirmed": sale.confirmed, "left": settled.left, "claims": len(claims),
            "cancelled": by_state[ClaimState.CANCELLED], "released": by_state[ClaimState.RELEASED],
            "expired": by_state[ClaimState.EXPIRED] + by_state[ClaimState.LOST], "amount_cents": self.cents,
        }  # fmt: skip
