"""Coupons in the demo: fewer codes than buyers, each asked for twice."""

from __future__ import annotations

import trio

from broker.demo.buyers import Buyer
from broker.demo.features.base import DemoFeature
from protocol.codes import ErrorCode
from protocol.operations.coupons import CheckCoupon, ClaimCoupon, ClosePool, CreatePool

__all__ = ["CouponFeature"]

POOL = "new-10"
CODES = 9


class CouponFeature(DemoFeature):
    """Buyers claim a code of a pool; the platform checks who has which."""

    name = "coupons"

    async def run(self) -> None:
        self.codes: dict[str, str] = {}
        self.exhausted = 0
        await trio.sleep(self.seconds * 0.2)
        await self.others.platform.call(
            CreatePool(self.others.room, POOL, CODES, prefix="LIVE", title="满减 10 元 · 10 off"), key="pool-1"
        )
        async with trio.open_nursery() as nursery:
            for buyer in self.others.buyers:
                nursery.start_soon(self._claim, buyer)

    async def _claim(self, buyer: Buyer) -> None:
        await trio.sleep(self.rng.uniform(0.0, 1.0))
        first, refused = await buyer.try_call(ClaimCoupon(self.others.room, POOL), key="coupon-first")
        if first is None:
            self.exhausted += refused is ErrorCode.EXHAUSTED
            return
        again = await buyer.call(ClaimCoupon(self.others.room, POOL), key="coupon-again")
        self.equal("a code that was asked for twice", first=first.code, second=again.code)
        self.codes[buyer.id] = first.code
        await buyer.wait_until(lambda: buyer.data_of("coupons.issued", POOL) or None)

    async def reconcile(self) -> dict[str, int]:
        platform, room = self.others.platform, self.others.room
        for user, code in self.codes.items():
            checked = await platform.call(CheckCoupon(room, POOL, code))
            self.equal(f"user of {code}", buyer=user, broker=checked.user)
        delivered = {
            buyer.id: message.code for buyer in self.others.buyers for message in buyer.data_of("coupons.issued", POOL)
        }
        messages = sum(len(buyer.data_of("coupons.issued", POOL)) for buyer in self.others.buyers)
        closed = await platform.call(ClosePool(room, POOL))
        self.equal("codes by user", answers=sorted(self.codes.items()), messages=sorted(delivered.items()))
        self.equal(
            "codes", buyers=len(self.codes), different=len(set(self.codes.values())), messages=messages,
            broker=closed.issued,
        )  # fmt: skip
        self.equal("buyers without a code", refused=self.exhausted, others=len(self.others.buyers) - len(self.codes))
        self.equal("codes of the pool", created=CODES, issued_and_left=closed.issued + closed.left)
        return {"codes": CODES, "issued": closed.issued, "left": closed.left, "refused": self.exhausted}
