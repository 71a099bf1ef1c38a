"""A poll in the demo: every buyer votes, some change their vote."""

from __future__ import annotations

from collections import Counter

import trio

from broker.demo.buyers import Buyer
from broker.demo.features.base import DemoFeature
from protocol.activities.polls import PollClosed
from protocol.operations.polls import CastVote, ClosePoll, CreatePoll, PollResults

__all__ = ["PollFeature"]

POLL = "poll-1"
OPTIONS = ("red", "blue", "green")


class PollFeature(DemoFeature):
    """The host asks which color comes next; a vote may be changed until the poll closes."""

    name = "poll"

    async def run(self) -> None:
        host, room = self.others.host, self.others.room
        self.votes: dict[str, int] = {}
        await trio.sleep(self.seconds * 0.3)
        await host.call(CreatePoll(room, POLL, "下一个颜色? · Which color next?", OPTIONS, changeable=True))
        async with trio.open_nursery() as nursery:
            for buyer in self.others.buyers:
                nursery.start_soon(self._vote, buyer)
        await host.call(ClosePoll(room, POLL))
        await host.wait_until(lambda: host.event("polls.closed", POLL))

    async def _vote(self, buyer: Buyer) -> None:
        await buyer.wait_until(lambda: buyer.event("polls.opened", POLL))
        for number in range(self.rng.randint(1, 3)):
            await trio.sleep(self.rng.uniform(0.0, 0.5))
            option = self.rng.randrange(len(OPTIONS))
            vote = await buyer.call(CastVote(self.others.room, POLL, (option,)), key=f"vote-{number}")
            if vote is not None:
                self.votes[buyer.id] = option

    async def reconcile(self) -> dict[str, int]:
        closed = self.others.host.event("polls.closed", POLL)
        assert isinstance(closed, PollClosed)
        result = await self.others.host.call(PollResults(self.others.room, POLL))
        counted = Counter(self.votes.values())
        counts = tuple(counted[option] for option in range(len(OPTIONS)))
        self.equal("votes", buyers=counts, event=tuple(closed.counts), broker=tuple(result.counts))
        self.equal("voters", buyers=len(self.votes), event=closed.voters, broker=result.voters)
        self.equal("per mille", event=sum(closed.per_mille), wanted=1000)
        return {"voters": closed.voters, "votes": sum(closed.counts)}
