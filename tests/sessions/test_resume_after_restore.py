"""RESUME against a restored ledger: what was given out after the backup is never taken for what comes now."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.ledger.backup import back_up
from broker.ledger.reader import open_directory
from broker.ledger.restore import restore
from protocol.codes import Tier
from protocol.messages import Direct, DirectAck, Event, Resume, Resumed
from tests.support.broker import joined_link, raw_link
from tests.support.durable import announce, durable_broker

pytestmark = pytest.mark.integration


async def test_a_position_of_the_lost_history_is_a_gap(directory: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    async with durable_broker(directory) as broker, joined_link(broker, "dev:max:host") as (host, room):
        for number in (1, 2):
            await announce(host, room, number)
        reader = open_directory(directory)
        back_up(reader, copy)
        reader.close()
        for number in (3, 4):
            await announce(host, room, number)
        epoch = broker.hub.epoch_of("lobby")
        assert epoch is not None
    restore(tmp_path / "restored", copy, now_ms=1)
    async with durable_broker(tmp_path / "restored") as broker, joined_link(broker, "dev:max:host") as (host, room):
        for number in (5, 6, 7):
            await announce(host, room, number)
        async with raw_link(broker) as ann:
            await ann.login("dev:ann")
            await ann.send((Resume("lobby", Tier.FULL, epoch, 4), 0, 9))
            _, answer = await ann.expect(Resumed)
            assert not answer.recovered
            assert (answer.snapshot.epoch != epoch, answer.snapshot.offset) == (True, 3)
            await announce(host, room, 8)
            frame, _ = await ann.expect(Event)
            assert frame.sequence == 4


async def test_a_message_after_the_restore_has_a_number_of_its_own(directory: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    async with durable_broker(directory) as broker:
        assert broker.inboxes is not None
        reader = open_directory(directory)
        back_up(reader, copy)
        reader.close()
        async with raw_link(broker) as ann:
            await ann.login("dev:ann")
            broker.inboxes.send("ann", 200, ["lost"], lambda result: None)
            _, before = await ann.expect(Direct)
            await ann.send((DirectAck(before.direct_id), 0, 2))
    restore(tmp_path / "restored", copy, now_ms=1)
    async with durable_broker(tmp_path / "restored") as broker, raw_link(broker) as ann:
        assert broker.inboxes is not None
        await ann.login("dev:ann")
        broker.inboxes.send("ann", 200, ["new"], lambda result: None)
        _, after = await ann.expect(Direct)
        assert after.direct_id > before.direct_id
