"""Combos of gifts outlive the process: their numbers go on, and a room that has ended leaves nothing of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.core.rooms.state import RoomState
from broker.ledger import Reader, database_path
from broker.rooms.combo_records import read_room_combos
from broker.rooms.room import PostRef
from broker.server import Broker
from protocol.codes import MessageType, RoomPhase
from protocol.messages import Event
from protocol.payloads import COMBO_END, COMBO_START, GiftPayload
from tests.support.broker import RawLink, joined_link
from tests.support.durable import durable_broker, gift
from tests.support.until import until

pytestmark = pytest.mark.integration


async def shown(link: RawLink) -> GiftPayload:
    while True:
        event = (await link.expect(Event))[1]
        if event.type == MessageType.GIFT:
            return GiftPayload(*event.payload)


def state_of(broker: Broker) -> RoomState[PostRef]:
    room = broker.hub.find("lobby")
    assert room is not None
    return room.state


async def test_a_combo_goes_on_after_a_restart_until_its_room_ends(tmp_path: Path) -> None:
    async with durable_broker(tmp_path) as broker, joined_link(broker, "dev:shop:app") as (shop, room):
        await shop.post(room, 1, MessageType.GIFT, gift("o1", count=2))
        await shop.post(room, 2, MessageType.GIFT, (*gift("o2", "bob"), False))
        events = [await shown(shop), await shown(shop)]
        assert [(each.combo, each.seq, each.added, each.total, each.flags) for each in events] == [
            ("o1", 1, 2, 2, COMBO_START), ("o2", 1, 1, 1, COMBO_START | COMBO_END),
        ]  # fmt: skip
        before = state_of(broker).gifts.dump()
        assert [(combo.id, combo.seq, combo.total) for combo in before] == [("o1", 1, 2)]
        assert state_of(broker).gifts.running == 1
    async with durable_broker(tmp_path) as broker, joined_link(broker, "dev:shop:app") as (shop, room):
        assert (state_of(broker).gifts.dump(), state_of(broker).gifts.running) == (before, 1)
        await shop.post(room, 3, MessageType.GIFT, gift("o3", count=5))
        progress = await shown(shop)
        assert (progress.combo, progress.seq, progress.added, progress.total, progress.flags) == ("o1", 2, 5, 7, 0)
        await shop.post(room, 4, MessageType.ROOM_PHASE, (int(RoomPhase.ENDED),))
        end = await shown(shop)
        assert (end.combo, end.seq, end.added, end.total, end.flags) == ("o1", 3, 0, 7, COMBO_END)
        await until(lambda: broker.hub.find("lobby") is None)
    reader = Reader(database_path(tmp_path))
    try:
        assert read_room_combos(reader) == {}
    finally:
        reader.close()
