"""Audiences in the demo: offers to parts of the room, and follows and shares that are counted and give tags."""

from __future__ import annotations

from collections import Counter
from functools import partial

import trio

from broker.demo.buyers import Buyer
from broker.demo.features.base import DemoFeature
from protocol.activities.audiences import Audience, TagRule
from protocol.clients import PostResult
from protocol.codes import MessageType, Outcome
from protocol.operations.audiences import (
    DefineAudiences,
    FollowHost,
    ReachKind,
    SetUserTags,
    ShareRoom,
    TopReach,
)
from protocol.operations.messages import PublishMessage
from protocol.payloads import AnnouncementPayload

__all__ = ["AudienceFeature"]

VIP, FANS, HERALDS = "vip", "fans", "heralds"
SHARES = 2
"""Shares that make a herald."""
OFFERS = {
    "offer for vip": Audience(any=(VIP,)),
    "offer for fans who are vip": Audience(all=(FANS, VIP)),
    "offer for heralds or vip": Audience(any=(HERALDS, VIP)),
}
LAST = "offer for all"
REFERENCES = tuple(f"reference{number}" for number in range(8))
"""The demo's reference viewers, whose counts are compared with all that the room has published: they get every
offer."""


class AudienceFeature(DemoFeature):
    """The platform tags some buyers, others follow and share; then each offer goes to its part of the room."""

    name = "audiences"

    async def run(self) -> None:
        platform, room, buyers = self.others.platform, self.others.room, self.others.buyers
        self.follows: set[str] = set()
        self.shares: Counter[str] = Counter()
        await trio.sleep(self.seconds * 0.2)
        rules = TagRule(VIP), TagRule(FANS, follow=True), TagRule(HERALDS, shares=SHARES)
        await platform.call(DefineAudiences(room, rules))
        self.vip = {buyer.id for buyer in buyers if self.rng.random() < 0.5}
        await platform.call(SetUserTags(room, tuple(self.vip), (VIP,)))
        await platform.call(SetUserTags(room, REFERENCES, (VIP, FANS, HERALDS)))
        async with trio.open_nursery() as nursery:
            for buyer in buyers:
                nursery.start_soon(self._act, buyer, self.rng.random() < 0.5, self.rng.randint(0, SHARES + 1))
        for text, audience in (*OFFERS.items(), (LAST, None)):
            payload = AnnouncementPayload(text)
            message = PublishMessage(room, MessageType.ANNOUNCEMENT, payload, text, "host", audience=audience)
            published = await platform.call(message)
            outcome = None if published is None else published.outcome
            self.equal(text, published=outcome, wanted=Outcome.ACCEPTED)
            result = PostResult(outcome, text)
            self.others.posts.record("platform", MessageType.ANNOUNCEMENT, payload, result)
        for buyer in buyers:
            await buyer.wait_until(partial(buyer.announcements.__contains__, LAST))

    async def _act(self, buyer: Buyer, follows: bool, shares: int) -> None:
        room = self.others.room
        if follows and await buyer.call(FollowHost(room)) is not None:
            self.follows.add(buyer.id)
        for number in range(shares):
            for _ in range(2):  # the same share is counted once
                shared = await buyer.call(ShareRoom(room, "demo"), key=f"share-{number}")
            self.shares[buyer.id] += shared is not None

    async def reconcile(self) -> dict[str, int]:
        tags = {
            VIP: self.vip,
            FANS: self.follows,
            HERALDS: {user for user, shares in self.shares.items() if shares >= SHARES},
        }
        received = 0
        for text, (any_of, all_of, _) in OFFERS.items():
            wanted = {
                buyer.id
                for buyer in self.others.buyers
                if (not any_of or any(buyer.id in tags[tag] for tag in any_of))
                and all(buyer.id in tags[tag] for tag in all_of)
            }
            got = Counter(buyer.id for buyer in self.others.buyers for each in buyer.announcements if each == text)
            self.equal(text, buyers=sorted(got.elements()), tagged=sorted(wanted))
            received += len(got)
        ranks = await self.others.host.call(TopReach(self.others.room, ReachKind.SHARES, 100))
        top = {rank.user: rank.score for rank in ranks.top}
        self.equal("shares", buyers=sorted((+self.shares).items())[:100], broker=sorted(top.items()))
        self.equal("followers", buyers=len(self.follows), broker=ranks.totals.followers)
        return {"offers": received, "followers": ranks.totals.followers, "shares": ranks.totals.shares}
