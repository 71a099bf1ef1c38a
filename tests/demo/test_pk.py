"""Gifts of a PK in the demo are counted from the ledger, by the times of their events."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.demo.features.pk import given_cents
from protocol.codes import MessageType
from protocol.payloads import HighlightPayload
from tests.support.durable import durable_broker
from tests.support.operating import operate
from tests.support.pk import A, give

pytestmark = pytest.mark.integration


async def test_gifts_and_paid_messages_of_the_time_are_counted(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        begin_ms = broker.clock.now_ms()
        for amount in (1, 2, 4):
            await give(broker, A, amount)
        highlight = HighlightPayload("paid-1", "ann", "Ann", "冲", 10_000)
        await operate(broker, "messages.publish", A, MessageType.HIGHLIGHT, tuple(highlight))
        end_ms = broker.clock.now_ms() + 1
        room, ledger = broker.hub.find(A), broker.ledger
        assert room is not None
        assert ledger is not None
        stream = room.name, room.state.epoch
        assert await ledger.ask(given_cents, *stream, begin_ms, end_ms) == 10_700
        assert await ledger.ask(given_cents, *stream, end_ms, end_ms + 1000) == 0
        assert await ledger.ask(given_cents, *stream, 0, begin_ms) == 0
