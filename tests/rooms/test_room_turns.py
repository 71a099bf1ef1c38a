"""A tick that is due at once is made by the fan-out's task; the room's own task sleeps on."""

from __future__ import annotations

import pytest
import trio

from broker.rooms.fanout import SLICE_S, FanOut
from protocol.codes import MessageType
from protocol.messages import Tick
from protocol.payloads import DanmakuPayload
from tests.support.broker import joined_link, running_broker


class StepsOfRooms(trio.abc.Instrument):
    """Counts the steps of the tasks of rooms, and those of the fan-out's task."""

    count = 0
    of_fanout = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task.name.startswith("room ")
        self.of_fanout += task.name.endswith("FanOut.run")


@pytest.mark.integration
async def test_danmaku_in_a_quiet_room_are_shown_without_a_step_of_its_task() -> None:
    async with running_broker(room={"tick_ms": 10}) as broker, joined_link(broker, "dev:ann:host") as (ann, room):
        steps = StepsOfRooms()
        trio.lowlevel.add_instrument(steps)
        for sequence in range(1, 11):
            await ann.post(room, sequence, MessageType.DANMAKU, DanmakuPayload(f"hello {sequence}"))
            _, tick = await ann.expect(Tick)
            assert [entry.payload[0] for entry in tick.entries] == [f"hello {sequence}"]
            await trio.sleep(0.015)
        trio.lowlevel.remove_instrument(steps)
    assert steps.count < 10, "its counters are due now and then"
    assert steps.of_fanout <= 10 + steps.count, "it waits where nothing is left"


def test_calls_of_rooms_take_one_slice_at_most_and_none_is_lost() -> None:
    now = 0.0

    def call(number: int) -> None:
        nonlocal now
        called.append(number)
        now += SLICE_S / 2

    called: list[int] = []
    fanout = FanOut(lambda: now)
    for number in range(5):
        fanout.call_soon(lambda number=number: call(number))  # type: ignore[misc]
    assert fanout.turn()
    assert called == [0, 1]
    assert fanout.turn()
    assert fanout.turn()
    assert called == [0, 1, 2, 3, 4]
    assert not fanout.turn()
