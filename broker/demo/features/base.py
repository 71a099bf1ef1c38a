"""One kind of activities in the demo: what it plays, and how its counts are compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from random import Random
from typing import Any

from broker.demo.buyers import Buyer
from broker.server import Broker

__all__ = ["DemoFeature", "Participants"]


class Participants:
    """The room and the clients of all features."""

    def __init__(self, broker: Broker, room: str, platform: Buyer, host: Buyer, buyers: list[Buyer]) -> None:
        self.broker = broker
        self.room = room
        self.platform = platform
        self.host = host
        self.buyers = buyers

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
