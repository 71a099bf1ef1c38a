"""Commerce of the demo: what the host and the platform offer, what buyers do with it, and the reconciliation.

Every `DemoFeature` runs beside the chat, with real clients over real sockets, and counts what its own clients were
answered, shown and sent. At the end these counts are compared with one another, with the broker's state, and with the
state that the facts of the ledger make; `Commerce.differences` has a sentence for each difference.
"""

from __future__ import annotations

from random import Random

import trio

from broker.demo.buyers import Buyer
from broker.demo.features import FEATURES
from broker.demo.features.base import DemoFeature, Participants
from broker.server import Broker

__all__ = ["Commerce"]

BUYERS = 12
COMPARISONS = 100
COMPARE_AGAIN_S = 0.2
"""How often the state is compared with the ledger, whose commits take a moment."""
SETTLE_S = 60.0
"""Deadline of everything that an activity leaves running; only a defect or an overloaded machine reaches it."""


class Commerce:
    """All features of one demo."""

    def __init__(self, url: str, broker: Broker, room: str, seconds: float, seed: int) -> None:
        rng = Random(f"{seed}-commerce")

        def buyer(user: str) -> Buyer:
            return Buyer(url, user, Random(f"{seed}-{user}"))

        self._broker = broker
        self._room = room
        platform, host = buyer("shop:app"), buyer("anchor:host")
        self.buyers = [buyer(f"buyer{number}") for number in range(BUYERS)]
        self._all = [platform, host, *self.buyers]
        others = Participants(broker, room, platform, host, self.buyers)
        self.posts = others.posts
        """Results of the orders that the platform posts."""
        self.features: list[DemoFeature] = [kind(others, seconds, rng) for kind in FEATURES]
        self.sums: dict[str, dict[str, int]] = {}
        self.is_cut_short = False
        self._differences: list[str] = []

    async def connect(self, nursery: trio.Nursery) -> None:
        """Let all clients join the room."""
        for each in self._all:
            await nursery.start(each.run, self._room)

    async def run(self, end_early: trio.Event) -> None:
        """Play all features at the same time, until all have ended or ``end_early`` is set."""
        with trio.move_on_after(SETTLE_S + max(feature.seconds for feature in self.features)) as playing:
            async with trio.open_nursery() as nursery:

                async def cut_short() -> None:
                    await end_early.wait()
                    self.is_cut_short = True
                    nursery.cancel_scope.cancel()

                nursery.start_soon(cut_short)
                async with trio.open_nursery() as features:
                    for feature in self.features:
                        features.start_soon(feature.run)
                nursery.cancel_scope.cancel()
        if playing.cancelled_caught:
            self._differences.append("commerce: not everything has ended in time")

    async def reconcile(self) -> None:
        """Compare clients, broker and ledger; where it was cut short, the broker and the ledger."""
        if not self.is_cut_short and not self._differences:
            for feature in self.features:
                self.sums[feature.name] = await feature.reconcile()
        for _ in range(COMPARISONS):
            changed = await self._changed_in_ledger()
            if not changed:
                return
            await trio.sleep(COMPARE_AGAIN_S)
        self._differences += changed

    @property
    def event_count(self) -> int:
        """Activity events that a client has received which was there before the first."""
        return len(self._all[0].events)

    async def _changed_in_ledger(self) -> list[str]:
        """Compare the state of every activity with what its facts in the ledger make: a sentence for each difference.

        What is on its way to the ledger is one, for a moment.
        """
        store, room = self._broker.room_store, self._broker.hub.find(self._room)
        assert store is not None
        assert room is not None
        live = room.state.activities.activities
        assert live is not None
        folded = await store.read_activities(room.name, room.state.epoch)
        found: list[str] = []
        keys = set(live.keys()) | set(folded.keys())
        for key in sorted(keys):
            here, there = live.find(*key), folded.find(*key)
            if here is None or there is None or here.dump() != there.dump():
                found.append(f"{key[0]} {key[1]}: the facts in the ledger make another state")
        return found

    @property
    def differences(self) -> list[str]:
        """A sentence for each difference; [] = reconciled."""
        return [*self._differences, *(each for feature in self.features for each in feature.differences)]

    async def close(self) -> None:
        """Let all clients leave."""
        for each in self._all:
            await each.leave()
