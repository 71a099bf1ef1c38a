"""Users of the simulated world who buy in a flash sale, take shares of a red packet and enter a lottery, and the
platform behind them.

Every call is repeated until its result is known, over kills, failed commits, restarts and rooms that crash. So every
unit that was confirmed and every share that was taken is known, and the facts in the ledger must make exactly these.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from broker.core.commerce.kinds import activity_kinds
from broker.ledger import Reader as Ledger
from broker.rooms.activity_records import read_all_activities
from protocol.activities.packets import PacketState
from protocol.activities.sales import ClaimState, SaleState
from protocol.clients import CallLost, CallRefused, Client
from protocol.codes import ErrorCode
from protocol.operations.packets import CancelPacket, CreatePacket, GrabPacket, ListPackets
from protocol.operations.sales import (
    CancelClaim,
    ClaimAnswer,
    ClaimSale,
    CloseSale,
    ConfirmClaim,
    CreateSale,
    ListSales,
)
from tests.simulation.actors import RETRY_S, Actors
from tests.simulation.lottery_actors import Raffle

__all__ = ["SHOP_ROOM", "Shop"]

SHOP_ROOM = "room-of-sales"
SALE, PACKET = "sale-1", "packet-1"
BUYERS = ("buyer1", "买家2")
ENTRANTS = ("entrant1", "entrant2")
"""Users who enter the lottery alone: it has losers wherever the others enter it."""
STOCK, PER_USER, CLAIMS = 3, 2, 4
SHARES, CENTS = 2, 1001
FAR_MS = 4_102_444_800_000
NOT_NOW = frozenset(
    {
        ErrorCode.OVERLOADED, ErrorCode.RATE_LIMITED, ErrorCode.UNKNOWN_ROOM, ErrorCode.NOT_JOINED,
        ErrorCode.NOT_OPEN, ErrorCode.ALL_RESERVED,
    }
)  # fmt: skip
"""Refusals after which the same call is made again."""


class Shop:
    """Two buyers and the platform of one sale and one packet."""

    def __init__(self, actors: Actors) -> None:
        self.actors = actors
        self.world = actors.world
        self.claims: dict[int, str] = {}
        """Users of the claims that were answered."""
        self.confirmed: dict[int, str] = {}
        """Orders that confirmed them."""
        self.shares: dict[str, tuple[int, int]] = {}
        """Number and cents of each user's share."""
        self._created = trio.Event()
        self.raffle = Raffle(actors, SHOP_ROOM, (*BUYERS, *ENTRANTS), self.call)
        actors.remaining += 1

    async def run(self) -> None:
        """Create the sale and the packet, let the buyers act, pay their claims, and end both."""
        async with self.actors.client("dev:shop:app") as client:
            await self._do(
                client,
                CreateSale(
                    SHOP_ROOM, SALE, "mug", STOCK, 990, 0, FAR_MS, per_user=PER_USER, reserve_ms=5000,
                    first_window_ms=50, window_ms=self.world.rng.choice((0, 50)),
                ),
            )  # fmt: skip
            await self._do(client, CreatePacket(SHOP_ROOM, PACKET, "order-p", CENTS, SHARES), "packet")
            self._created.set()
            async with trio.open_nursery() as buying:
                buying.start_soon(self.raffle.run, client)
                for user in BUYERS:
                    buying.start_soon(self._buy, user, client)
                for user in ENTRANTS:
                    buying.start_soon(self._enter, user)
            await self._do(client, CloseSale(SHOP_ROOM, SALE))
            await self._do(client, CancelPacket(SHOP_ROOM, PACKET))
            while not await self._has_ended(client):  # noqa: ASYNC110 - a broker may restart meanwhile
                await trio.sleep(1.0)
            self.actors.remaining -= 1
            self.world.count_event("sale and packet ended")
            await trio.sleep_forever()

    async def _has_ended(self, client: Client) -> bool:
        """Return whether both have ended; a leap of the clock may have taken them out of memory and of the list."""
        sales = await self._do(client, ListSales(SHOP_ROOM))
        packets = await self._do(client, ListPackets(SHOP_ROOM))
        return all(sale.state is SaleState.SETTLED for sale in sales.items) and all(
            packet.state is PacketState.SETTLED for packet in packets.items
        )

    async def _enter(self, user: str) -> None:
        """Enter the lottery."""
        async with self.actors.client(f"dev:{user}") as client:
            room = await self.actors.join(client, SHOP_ROOM)
            await self.raffle.take_part(user, client, room)

    async def _buy(self, user: str, platform: Client) -> None:
        """Claim units and take a share, each call twice; the platform pays what is reserved."""
        async with self.actors.client(f"dev:{user}") as client, trio.open_nursery() as nursery:
            room = await self.actors.join(client, SHOP_ROOM)
            nursery.start_soon(self.raffle.take_part, user, client, room)
            await self._created.wait()
            for number in range(CLAIMS):
                await self.world.pause(3.0)
                claim = await self.call(client, ClaimSale(SHOP_ROOM, SALE), f"claim {number}")
                if isinstance(claim, ClaimAnswer):
                    self._claimed(user, claim)
                    again = await self.call(client, ClaimSale(SHOP_ROOM, SALE), f"claim {number}")
                    assert again == claim, f"claim {number} of {user}: {claim}, again {again}"
                    await self._check_units(platform)
                    await self._pay(platform, claim)
                share = await self.call(client, GrabPacket(SHOP_ROOM, PACKET), f"grab {number}")
                assert not isinstance(share, CallRefused), share
                assert self.shares.setdefault(user, tuple(share)) == tuple(share), f"{user} has two shares"

    def _claimed(self, user: str, claim: ClaimAnswer) -> None:
        assert self.claims.setdefault(claim.number, user) == user, f"claim {claim.number} has two users"
        self.world.count_event("claim answered", claim.number, claim.state.name)

    async def _check_units(self, platform: Client) -> None:
        """Check that no unit is granted twice."""
        for sale in (await self._do(platform, ListSales(SHOP_ROOM))).items:
            assert sale.available + sale.reserved + sale.confirmed == STOCK, f"units of {sale}"

    async def _pay(self, platform: Client, claim: ClaimAnswer) -> None:
        """Confirm or cancel a claim, or forget it, so that its unit returns by time."""
        rng = self.world.rng
        choice = rng.random()
        if choice < 0.2:
            return
        await self.world.pause(rng.choice((0.5, 8.0)))
        if choice < 0.4:
            cancelled = await self.call(platform, CancelClaim(SHOP_ROOM, SALE, claim.number))
            assert not isinstance(cancelled, CallRefused) or cancelled.code != ErrorCode.UNKNOWN_CLAIM, cancelled
            return
        order = f"order {claim.number}"
        confirmed = await self.call(platform, ConfirmClaim(SHOP_ROOM, SALE, claim.number, order))
        if isinstance(confirmed, CallRefused):
            assert confirmed.code in (ErrorCode.EXPIRED, ErrorCode.NOT_RESERVED), confirmed
            self.world.count_event("confirmation refused", claim.number, confirmed.code)
        else:
            assert confirmed.state is ClaimState.CONFIRMED
            self.confirmed[claim.number] = order
            self.world.count_event("claim confirmed", claim.number)

    async def _do(self, client: Client, request: Any, key: str | None = None) -> Any:
        """Call what cannot be refused. Any: as in `call`."""
        result = await self.call(client, request, key)
        assert not isinstance(result, CallRefused), (request, result)
        return result

    async def call(self, client: Client, request: Any, key: str | None = None) -> Any:
        """Call until there is a result, or a refusal that a repetition does not change, which is returned. Any: each
        operation has records of its own."""
        while True:
            try:
                return await client.call(request, key=key, timeout_s=RETRY_S)
            except (trio.TooSlowError, CallLost):
                self.world.trace("call again", type(request).__name__, key)
            except CallRefused as refused:
                self.world.trace("refused", type(request).__name__, key, refused.code, refused.field)
                if refused.code not in NOT_NOW:
                    return refused
                await trio.sleep(max(0.2, refused.retry_after_ms / 1000))

    def check_ledger(self, path: Path) -> None:
        """Check that the facts make exactly what was acknowledged."""
        self.raffle.check()
        ledger = Ledger(path)
        try:
            found = read_all_activities(ledger, activity_kinds(lambda: bytes(32)))
        finally:
            ledger.close()
        activities = next(each for (room, _), each in found.items() if room == SHOP_ROOM)
        sale, packet = activities.find("sales", SALE).view(True), activities.find("packets", PACKET).info()
        confirmed = len(self.confirmed)
        assert (sale.state, sale.confirmed) == (SaleState.SETTLED, confirmed), f"{sale}, confirmed were {confirmed}"
        assert (sale.available, sale.reserved, sale.waiting) == (STOCK - confirmed, 0, 0), sale
        users = [self.claims[number] for number in self.confirmed]
        assert max(map(users.count, users), default=0) <= PER_USER, f"{users} are above {PER_USER}"
        assert packet.taken == len(self.shares), f"{packet}, acknowledged were {self.shares}"
        assert len({number for number, _ in self.shares.values()}) == len(self.shares), self.shares
        assert sum(cents for _, cents in self.shares.values()) == CENTS, self.shares
