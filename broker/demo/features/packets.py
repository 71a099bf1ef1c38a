"""Red packets in the demo: one that is emptied, one that expires with a rest, and a rain."""

from __future__ import annotations

from functools import partial
from typing import Any

import trio

from broker.demo.buyers import Buyer
from broker.demo.features.base import DemoFeature
from protocol.activities.packets import PacketSettled
from protocol.activities.rains import RainSettled
from protocol.operations.packets import CreatePacket, CreateRain, GrabPacket, ListPackets
from protocol.primitives import seed_hash

__all__ = ["PacketFeature", "RainFeature"]

SMALL, LARGE, RAIN = "packet-1", "packet-2", "rain-1"
SMALL_CENTS, SMALL_SHARES = 8888, 8
"""Fewer shares than buyers."""
LARGE_CENTS, LARGE_SHARES = 10_000, 30
"""More shares than buyers: the rest is returned."""
LARGE_MS = 4000
RAIN_CENTS, RAIN_DROPS, RAIN_SHARES = 6000, 3, 4
RAIN_SPAN_MS = 3000
DROP_MS = 2000


class PacketFeature(DemoFeature):
    """Every buyer takes a share of two packets, and asks twice."""

    name = "packets"

    async def run(self) -> None:
        platform, room = self.others.platform, self.others.room
        self.cents = {SMALL: 0, LARGE: 0}
        self.taken = {SMALL: 0, LARGE: 0}
        created: dict[str, Any] = {}
        await trio.sleep(self.seconds * 0.1)
        expire_at_ms = self.others.now_ms() + LARGE_MS
        created[SMALL] = await platform.call(
            CreatePacket(room, SMALL, "order-p1", SMALL_CENTS, SMALL_SHARES), key="packet-1"
        )
        created[LARGE] = await platform.call(
            CreatePacket(room, LARGE, "order-p2", LARGE_CENTS, LARGE_SHARES, expire_at_ms=expire_at_ms), key="packet-2"
        )
        self.created = created
        async with trio.open_nursery() as nursery:
            for buyer in self.others.buyers:
                nursery.start_soon(self._grab, buyer)
        for id in (SMALL, LARGE):
            await platform.wait_until(partial(platform.event, "packets.settled", id))

    async def _grab(self, buyer: Buyer) -> None:
        await trio.sleep(self.rng.uniform(0.0, 1.0))
        for id in (SMALL, LARGE):
            share = await buyer.call(GrabPacket(self.others.room, id), key=f"grab-{id}")
            again = await buyer.call(GrabPacket(self.others.room, id), key=f"again-{id}")
            self.equal("a share that was asked for twice", first=share, second=again)
            if share is not None:
                self.cents[id] += share.cents
                self.taken[id] += 1

    async def reconcile(self) -> dict[str, int]:
        platform = self.others.platform
        page = await platform.call(ListPackets(self.others.room))
        for packet in page.items:
            if packet.id not in self.cents:
                continue
            settled = platform.event("packets.settled", packet.id)
            assert isinstance(settled, PacketSettled)
            buyers, id = self.cents[packet.id], packet.id
            self.equal(f"cents taken of {id}", buyers=buyers, broker=packet.taken_cents)
            self.equal(f"cents of {id}", ordered=packet.total_cents, taken_and_returned=buyers + settled.returned_cents)
            self.equal(f"shares of {id}", buyers=self.taken[id], broker=packet.taken, event=settled.taken)
            announced, revealed = self.created[id].seed_hash, seed_hash(bytes.fromhex(settled.seed)).hex()
            self.equal(f"commitment of {id}", announced=announced, revealed=revealed)
        self.equal("packets", broker=len(self.cents & {each.id: 0 for each in page.items}.keys()), wanted=2)
        returned = platform.event("packets.settled", LARGE).returned_cents
        return {
            "ordered_cents": SMALL_CENTS + LARGE_CENTS, "taken_cents": sum(self.cents.values()),
            "returned_cents": returned, "shares": sum(self.taken.values()),
        }  # fmt: skip


class RainFeature(DemoFeature):
    """Buyers run for the packets of a rain."""

    name = "rain"

    async def run(self) -> None:
        platform = self.others.platform
        self.cents = self.taken = 0
        self.created = await platform.call(
            CreateRain(
                self.others.room, RAIN, "order-r1", RAIN_CENTS, RAIN_DROPS, RAIN_SHARES, RAIN_SPAN_MS, drop_ms=DROP_MS
            ),
            key="rain-1",
        )
        async with trio.open_nursery() as nursery:
            for buyer in self.others.buyers:
                nursery.start_soon(self._run_for, buyer)
            await platform.wait_until(lambda: platform.event("rains.settled", RAIN))
            nursery.cancel_scope.cancel()

    async def _run_for(self, buyer: Buyer) -> None:
        """Take a share of every packet that falls."""
        seen = 0
        while True:
            fallen = await buyer.wait_until(partial(self._fallen, buyer, seen))
            seen += 1
            share = await buyer.call(GrabPacket(self.others.room, fallen), key=f"grab-{fallen}")
            if share is not None:
                self.cents += share.cents
                self.taken += 1

    @staticmethod
    def _fallen(buyer: Buyer, seen: int) -> str | None:
        """Return the packet that fell after so many others, None = not yet."""
        fallen = [each.data.packet for each in buyer.events if each.name == "rains.drop_opened" and each.id == RAIN]
        return fallen[seen] if len(fallen) > seen else None

    async def reconcile(self) -> dict[str, int]:
        settled = self.others.platform.event("rains.settled", RAIN)
        assert isinstance(settled, RainSettled)
        self.equal("cents", ordered=RAIN_CENTS, taken_and_returned=self.cents + settled.returned_cents)
        self.equal("shares", buyers=self.taken, event=settled.taken)
        self.equal("packets", ordered=RAIN_DROPS, fallen=settled.fallen)
        revealed = seed_hash(bytes.fromhex(settled.seed)).hex()
        self.equal("commitment", announced=self.created.seed_hash, revealed=revealed)
        return {
            "ordered_cents": RAIN_CENTS, "taken_cents": self.cents, "returned_cents": settled.returned_cents,
            "shares": self.taken,
        }  # fmt: skip
