"""One kind of activities in the demo: what it plays, and how its counts are compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from random import Random
from typing import Any

import trio

from broker.demo.accounting import Accounting
from broker.demo.buyers import Buyer
from broker.server import Broker
from protocol.clients import PostResult
from protocol.codes import TRY_AGAIN, Outcome

__all__ = ["DemoFeature", "Participants"]

ORDERS = "orders"
"""Group of senders in `Accounting`."""


class Participants:
    """The room and the clients of all features."""

    def __init__(self, broker: Broker, room: str, platform: Buyer, host: Buyer, buyers: list[Buyer]) -> None:
        self.broker = broker
        self.room = room
        self.platform = platform
        self.host = host
        self.buyers = buyers
        self.posts = Accounting()
        """Results of the orders that the platform posts."""

    # Any: payloads are of their types.
    async def try_post(self, type: int, payload: Any) -> PostResult:
        """Let the platform post an order that is no new one, and return its result."""
        return await self.platform.post(type, payload)

    async def post(self, type: int, payload: Any) -> Outcome | None:
        """Let the platform post a new order, again while it is refused for now, and return its outcome.

        It is not cancelled while its result is to come: every order in the room is counted.
        """
        while True:
            with trio.CancelScope(shield=True):
                result = await self.platform.post(type, payload)
                self.posts.record(ORDERS, type, payload, result)
            if result.outcome not in TRY_AGAIN:
                return result.outcome
            await trio.sleep(max(0.1, result.retry_after_ms / 1000))

    def now_ms(self) -> int:
        """Return the time of the broker, which is in this process."""
        return self.broker.clock.now_ms()


class DemoFeature(ABC):
    """One kind of activities in the demo."""

    name: str

    def __init__(self, others: Participants, seconds: float, rng: Random) -> None:
        self.others = others
        self.seconds = seconds
        self.rng = rng
        self.differences: list[str] = []

    @abstractmethod
    async def run(self) -> None:
        """Play it from its beginning until nothing of it is under way."""

    @abstractmethod
    async def reconcile(self) -> dict[str, int]:
        """Compare what its clients have counted; return its sums."""

    def equal(self, what: str, **counts: Any) -> None:
        """Add a difference unless all counts are the same. Any: numbers, or what compares as they do."""
        if len({repr(count) for count in counts.values()}) > 1:
            said = ", ".join(f"{who} {count}" for who, count in counts.items())
            self.differences.append(f"{self.name}: {what}: {said}")
