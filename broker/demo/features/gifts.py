"""Gifts and paid messages in the demo: combos, refunds and the ranking, to the cent."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import NamedTuple

import trio

from broker.demo.buyers import Buyer
from broker.demo.features.base import DemoFeature
from broker.ledger import Reader
from broker.ledger.orders import REFUND_KIND, Order, order_of
from protocol.codes import ErrorCode, MessageType, Outcome
from protocol.frames import unpack_body
from protocol.operations.rankings import GetRanking, RefundGift
from protocol.payloads import COMBO_END, GiftPayload, HighlightPayload

__all__ = ["GiftFeature", "PaidSums", "paid_in_ledger", "paid_seen"]

FANS = ("fan1", "fan2", "fan3", "fan4")
"""Who gives; users of the platform, of which no client is in the room."""
GIFTS_EACH = 8
PRICES = {"rose": 100, "rocket": 9_900}
AMOUNTS = (500, 2_000, 50_000)
"""Cents of the paid messages of each."""


class PaidSums(NamedTuple):
    """Sums of what some users have paid. ``ended``: gifts by the totals of combos that have ended; None = not known."""

    gifts: int
    gift_cents: int
    highlights: int
    highlight_cents: int
    ended: int | None = None


class GiftFeature(DemoFeature):
    """Four fans give combos of gifts and pay for messages; one gift and one message are refunded."""

    name = "gifts"

    async def run(self) -> None:
        self.orders: list[GiftPayload | HighlightPayload] = []
        self.refunded: Counter[str] = Counter()
        await trio.sleep(self.seconds * 0.1)
        async with trio.open_nursery() as nursery:
            for fan in FANS:
                nursery.start_soon(self._give, fan)
        await self._repeat(self.orders[0])
        await self._refund(next(each for each in self.orders if isinstance(each, GiftPayload)))
        await self._refund(next(each for each in self.orders if isinstance(each, HighlightPayload)))
        for buyer in self.others.buyers:
            await buyer.wait_until(partial(self._has_seen_all, buyer))

    async def _give(self, fan: str) -> None:
        """Let the platform post orders of one user: gifts in quick succession, paid messages between them."""
        for number in range(GIFTS_EACH):
            gift = self.rng.choice(tuple(PRICES))
            order, count = f"{fan}-gift-{number}", self.rng.randint(1, 9)
            await self._post(GiftPayload(order, fan, fan.title(), gift, count, PRICES[gift]))
            await trio.sleep(self.rng.uniform(0.0, min(1.0, self.seconds * 0.02)))
            if number < len(AMOUNTS):
                await self._post(HighlightPayload(f"{fan}-paid-{number}", fan, fan.title(), "bravo", AMOUNTS[number]))

    async def _post(self, payload: GiftPayload | HighlightPayload) -> None:
        result = await self.others.post(_TYPES[type(payload)], payload)
        if result in (Outcome.ACCEPTED, Outcome.MERGED):
            self.orders.append(payload)
        else:
            self.differences.append(f"{self.name}: order {payload.order_id}: {result}")

    async def _repeat(self, payload: GiftPayload | HighlightPayload) -> None:
        """Post an order again, once with other content: neither counts."""
        other = payload._replace(user_id="eve")
        again = [await self.others.try_post(_TYPES[type(payload)], each) for each in (payload, other)]
        self.equal(
            "repeated order",
            broker=[(each.outcome in (Outcome.ACCEPTED, Outcome.MERGED), each.error_code) for each in again],
            wanted=[(True, 0), (False, int(ErrorCode.KEY_REUSED))],
        )

    async def _refund(self, payload: GiftPayload | HighlightPayload) -> None:
        for _ in range(2):
            refunded = await self.others.platform.call(RefundGift(self.others.room, payload.order_id, "demo"))
            self.equal("refund", broker=refunded.cents if refunded is not None else None, wanted=_cents(payload))
        self.refunded[payload.user_id] += _cents(payload)

    def _ordered(self) -> PaidSums:
        gifts = [each for each in self.orders if isinstance(each, GiftPayload)]
        paid = [each for each in self.orders if isinstance(each, HighlightPayload)]
        count = sum(each.count for each in gifts)
        return PaidSums(count, sum(map(_cents, gifts)), len(paid), sum(map(_cents, paid)), count)

    def _has_seen_all(self, buyer: Buyer) -> bool | None:
        """Return whether a buyer has seen every order, and the end of every combo, None = not yet."""
        wanted, seen = self._ordered(), paid_seen(buyer.paid, FANS)
        return True if (seen.ended, seen.highlights) == (wanted.ended, wanted.highlights) else None

    async def reconcile(self) -> dict[str, int]:
        others, ordered = self.others, self._ordered()
        room, ledger = others.broker.hub.find(others.room), others.broker.ledger
        assert room is not None
        assert ledger is not None
        stored, refunded = await ledger.ask(paid_in_ledger, room.name, FANS)
        self.equal("orders", platform=ordered._replace(ended=None), ledger=stored)
        self.equal("refunds", platform=sorted(self.refunded.items()), ledger=sorted(refunded.items()))
        for buyer in others.buyers:
            self.equal(f"paid events of {buyer.id}", platform=ordered, client=paid_seen(buyer.paid, FANS))
        owed: Counter[str] = Counter()
        for each in self.orders:
            owed[each.user_id] += _cents(each)
        for fan in FANS:
            page = await others.platform.call(GetRanking(others.room, "gifts", user=fan))
            ranked = None if page is None or page.user is None else page.user.score
            self.equal(f"ranking of {fan}", platform=owed[fan] - self.refunded[fan], broker=ranked)
        seen = [each for each in others.buyers[0].paid if isinstance(each, GiftPayload) and each.user_id in FANS]
        combos = {each.combo for each in seen}
        return {
            "gifts": ordered.gifts, "combos": len(combos), "gift_cents": ordered.gift_cents,
            "highlights": ordered.highlights, "highlight_cents": ordered.highlight_cents,
            "refunded_cents": self.refunded.total(),
        }  # fmt: skip


_TYPES: dict[type[GiftPayload | HighlightPayload], MessageType] = {
    GiftPayload: MessageType.GIFT,
    HighlightPayload: MessageType.HIGHLIGHT,
}


def _cents(payload: GiftPayload | HighlightPayload) -> int:
    return payload.count * payload.price_cents if isinstance(payload, GiftPayload) else payload.cents


def paid_seen(events: list[GiftPayload | HighlightPayload], users: tuple[str, ...]) -> PaidSums:
    """Return the sums of the paid events of some users that a client has received."""
    gifts = [each for each in events if isinstance(each, GiftPayload) and each.user_id in users]
    paid = [each for each in events if isinstance(each, HighlightPayload) and each.user_id in users]
    return PaidSums(
        sum(each.added for each in gifts), sum(each.added * each.price_cents for each in gifts),
        len(paid), sum(map(_cents, paid)), sum(each.total for each in gifts if each.flags & COMBO_END),
    )  # fmt: skip


def paid_in_ledger(reader: Reader, room: str, users: tuple[str, ...]) -> tuple[PaidSums, Counter[str]]:
    """Return the sums of the orders of some users in a room, and the cents that were refunded to each. Runs in the
    ledger's reading thread."""
    gifts: list[Order] = []
    paid: list[Order] = []
    refunded: Counter[str] = Counter()
    for entry, *_ in reader.entries():
        if entry.room != room or entry.lane is not None:
            continue
        order = order_of(entry)
        if order is not None and order.user_id in users:
            (gifts if order.gift_id else paid).append(order)
        elif entry.kind == REFUND_KIND:
            _, user, cents, _ = unpack_body(entry.body)
            if user in users:
                refunded[user] += cents
    sums = PaidSums(
        sum(order.count for order in gifts), sum(order.count * order.price_cents for order in gifts),
        len(paid), sum(order.price_cents for order in paid),
    )  # fmt: skip
    return sums, refunded
