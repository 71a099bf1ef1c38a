"""A lottery in the demo: buyers enter, and everybody can compute the draw again."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import trio

from broker.demo.buyers import Buyer
from broker.demo.features.base import DemoFeature
from protocol.activities.lotteries import LotteryDrawn, LotteryRoot
from protocol.json_values import as_json
from protocol.lottery.proof import parse_proof, verify
from protocol.lottery.terms import LotteryGrade
from protocol.operations.lotteries import CreateLottery, EnterLottery, GetLotteryProof

__all__ = ["LotteryFeature"]

LOTTERY = "bag-1"
GRADES = (LotteryGrade("first", 1), LotteryGrade("second", 3))
OPEN_MS, LASTS_MS = 500, 2500


class LotteryFeature(DemoFeature):
    """Every buyer enters twice and counts once. The proof is verified with what a client kept."""

    name = "lottery"

    async def run(self) -> None:
        platform, now_ms = self.others.platform, self.others.now_ms()
        self.entries: dict[str, str] = {}
        self.created = await platform.call(
            CreateLottery(
                self.others.room, LOTTERY, now_ms + OPEN_MS, now_ms + OPEN_MS + LASTS_MS, GRADES, rule="enter by CALL"
            )
        )
        async with trio.open_nursery() as nursery:
            for buyer in self.others.buyers:
                nursery.start_soon(self._enter, buyer)
        drawn = await platform.wait_until(lambda: platform.event("lotteries.drawn", LOTTERY))
        winners = {entry for grade in drawn.winners for entry in grade}
        for buyer in self.others.buyers:
            if self.entries.get(buyer.id) in winners:
                await buyer.wait_until(partial(self._prize_of, buyer))

    @staticmethod
    def _prize_of(buyer: Buyer) -> Any:
        return next(iter(buyer.data_of("lotteries.won", LOTTERY)), None)

    async def _enter(self, buyer: Buyer) -> None:
        await buyer.wait_until(lambda: buyer.event("lotteries.opened", LOTTERY))
        await trio.sleep(self.rng.uniform(0.0, 0.5))
        first = await buyer.call(EnterLottery(self.others.room, LOTTERY))
        again = await buyer.call(EnterLottery(self.others.room, LOTTERY))
        self.equal("an entry that was made twice", first=first, second=again)
        if first is not None:
            self.entries[buyer.id] = first.entry

    async def reconcile(self) -> dict[str, int]:
        platform = self.others.platform
        closed, drawn = platform.event("lotteries.closed", LOTTERY), platform.event("lotteries.drawn", LOTTERY)
        assert isinstance(closed, LotteryRoot)
        assert isinstance(drawn, LotteryDrawn)
        page: Any = await platform.call(GetLotteryProof(self.others.room, LOTTERY))
        proof = parse_proof(json.dumps({k: v for k, v in as_json(page).items() if k != "next"}).encode())
        result = verify(proof, self.created.commitment, closed.root)
        self.equal("proof", verified=result.failure is None and result.is_as_seen, wanted=True)
        self.equal("entries", buyers=len(self.entries), event=closed.entries, proof=len(page.entries))
        won = {each.entry for buyer in self.others.buyers for each in buyer.data_of("lotteries.won", LOTTERY)}
        winners = {entry for grade in drawn.winners for entry in grade}
        self.equal("winners", event=sorted(winners), messages=sorted(won))
        self.equal("prizes", grades=sum(grade.count for grade in GRADES), winners=drawn.winner_count)
        return {"entries": closed.entries, "winners": drawn.winner_count}
