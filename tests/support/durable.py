"""A broker with a ledger on a disk whose failures the test chooses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from broker.ledger import Ledger, Pace
from broker.ledger.configured import ledger_of
from broker.server import Broker
from protocol.codes import MessageType
from protocol.messages import Ack, AckResult
from tests.support.broker import RawLink, running_broker
from tests.support.faulty_disk import FaultyStore

QUICK = Pace(idle_s=0.005, maintenance_s=0.05, retry_first_s=0.005, retry_most_s=0.02)


class DurableBroker(Broker):
    """Broker whose ledger is on a `FaultyStore` and commits without pauses."""

    store: FaultyStore | None = None
    """The opened disk; None before `run`."""

    def _make_ledger(self) -> Ledger | None:
        return ledger_of(
            self.config, self.clock, self.results, pace=QUICK, open_store=self._open_store,
            reports=self.webhook_events,
        )  # fmt: skip

    def _open_store(self, path: Path) -> FaultyStore:
        self.store = self.store or FaultyStore(path)
        return self.store


@asynccontextmanager
async def durable_broker(directory: Path, **overrides: Any) -> AsyncIterator[Broker]:
    """Run a broker with its ledger in ``directory``, on a disk that fails when the test requests it."""
    ledger = {"data_dir": str(directory), **overrides.pop("ledger", {})}
    async with running_broker(ledger=ledger, kind=DurableBroker, **overrides) as broker:
        yield broker


def disk(broker: Broker) -> FaultyStore:
    """Return the disk of a broker."""
    assert isinstance(broker, DurableBroker)
    assert broker.store is not None
    return broker.store


def gift(order: str, user: str = "ann", count: int = 1) -> tuple[Any, ...]:
    return (order, user, user.title(), "rose", count, 100, "")


async def announce(link: RawLink, room: int, number: int) -> AckResult:
    """Post one announcement and return its result."""
    await link.post(room, number, MessageType.ANNOUNCEMENT, (f"news {number}",))
    while not (results := (await link.expect(Ack))[1].results):
        pass
    return results[0]
