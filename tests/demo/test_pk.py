"""Gifts of a PK in the demo are counted from the ledger, by the times of their events."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.demo.features.pk import gift_cents
from tests.support.durable import durable_broker
from tests.support.pk import A, give

pytestmark = pytest.mark.integration


async def test_only_gifts_of_the_time_are_counted(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        begin_ms = broker.clock.now_ms()
        for amount in (1, 2, 4):
            await give(broker, A, amount)
        end_ms = broker.clock.now_ms() + 1
        room, ledger = broker.hub.find(A), broker.ledger
        assert room is not None
        assert ledger is not None
        stream = room.name, room.state.epoch
        assert await ledger.ask(gift_cents, *stream, begin_ms, end_ms) == 700
        assert await ledger.ask(gift_cents, *stream, end_ms, end_ms + 1000) == 0
        assert await ledger.ask(gift_cents, *stream, 0, begin_ms) == 0
