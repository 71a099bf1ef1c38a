"""The product list in the demo: the host explains one product after another, and buyers click on them."""

from __future__ import annotations

from functools import partial

import trio

from broker.demo.buyers import Buyer
from broker.demo.features.base import DemoFeature
from protocol.activities import ActivityEvent
from protocol.operations.products import (
    ExplainProduct,
    ListProducts,
    ProductLog,
    PutProduct,
    ReportClicks,
    StopExplaining,
)

__all__ = ["ProductFeature"]

PRODUCTS = {"mug-1": "青瓷杯 · Celadon mug", "tea-1": "白茶 · White tea", "bag-1": "帆布袋 · Canvas bag"}
"""Titles by id."""


class ProductFeature(DemoFeature):
    """Three products, one with a newer version that comes before the older one."""

    name = "products"

    async def run(self) -> None:
        host, room = self.others.host, self.others.room
        self.clicks = 0
        for position, (id, title) in enumerate(PRODUCTS.items()):
            await host.call(PutProduct(room, id, 2, title, 990, position))
            _, refused = await host.try_call(PutProduct(room, id, 1, f"{title} (before)", 1990, position))
            self.equal(f"late version of {id}", refused=refused is not None, wanted=True)
        for id in PRODUCTS:
            await host.call(ExplainProduct(room, id))
            async with trio.open_nursery() as nursery:
                for buyer in self.others.buyers[:4]:
                    nursery.start_soon(self._click, buyer, id)
        await host.call(StopExplaining(room))
        for buyer in self.others.buyers:
            for id in PRODUCTS:
                await buyer.wait_until(partial(self._has_seen, buyer, id))

    @staticmethod
    def _has_seen(buyer: Buyer, id: str) -> bool | None:
        """Return whether a buyer has been shown the product's newest version, None = not yet."""
        return True if any(each.data.product.version == 2 for each in _puts(buyer, id)) else None

    async def _click(self, buyer: Buyer, id: str) -> None:
        """Report clicks, once again as a client does that has not got the answer."""
        clicks, report = self.rng.randint(1, 5), list(PRODUCTS).index(id) + 1
        await trio.sleep(self.rng.uniform(0.0, 0.3))
        for _ in range(2):
            counted = await buyer.call(ReportClicks(self.others.room, id, clicks, report))
            self.clicks += clicks if counted is not None and counted.counted else 0

    async def reconcile(self) -> dict[str, int]:
        host, room = self.others.host, self.others.room
        page = await host.call(ListProducts(room))
        listed = {each.product.id: each for each in page.items}
        self.equal("products", host=sorted(PRODUCTS), broker=sorted(listed))
        self.equal("versions", broker={each.product.version for each in page.items}, wanted={2})
        self.equal("clicks", buyers=self.clicks, broker=sum(each.clicks or 0 for each in page.items))
        log = await host.call(ProductLog(room))
        self.equal("products explained", host=list(PRODUCTS), broker=[each.product for each in log.items])
        return {"products": len(listed), "clicks": self.clicks, "explained": len(log.items)}


def _puts(buyer: Buyer, id: str) -> list[ActivityEvent]:
    return [each for each in buyer.events if each.name == "products.put" and each.data.product.id == id]
