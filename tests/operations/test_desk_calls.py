"""RTC calls to the service desk: they wait for an agent, ring at who holds the conversation, and follow a transfer."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.users import desks
from protocol.activities.desk import DeskState
from protocol.codes import ErrorCode
from tests.support.conversations import do, event, refusal
from tests.support.desk import add_agent, configure, opened, settled
from tests.support.directs import login
from tests.support.durable import durable_broker

pytestmark = pytest.mark.integration


async def test_a_call_follows_assignment_and_transfer(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "TICK_S", 0.005)
    async with (
        durable_broker(directory) as broker, login(broker, "ann") as ann, login(broker, "amy") as amy,
        login(broker, "ben") as ben,
    ):  # fmt: skip
        await configure(broker)
        view = await opened(broker)
        call = (await do(broker, "ann", "rtc.ring", conversation=view.id, video=True)).call
        assert tuple((await do(broker, "ann", "rtc.mine")).call) == (call, view.id, "", False, False)
        await add_agent(broker, "amy", capacity=1)
        _, data = await event(amy, "rtc.ringing")
        assert (data["user"], data["video"], data["conversation"]) == ("ann", True, view.id)
        first = (await do(broker, "amy", "rtc.accept", call=call)).token
        assert (await event(ann, "rtc.transferred"))[1] == {"user": "amy"}
        assert (await event(ann, "rtc.accepted"))[1] == {"token": first}
        view = await settled(broker, view.id, DeskState.ASSIGNED, "amy")
        assert view.first_answer_ms is not None
        assert view.asked_at_ms == 0
        await add_agent(broker, "ben", capacity=1)
        await do(broker, "amy", "desk.transfer", conversation=view.id, epoch=view.epoch, user="ben")
        assert (await event(amy, "rtc.ended"))[1]["reason"] == "transferred"
        assert (await event(ann, "rtc.transferred"))[1] == {"user": "ben"}
        assert (await refusal(broker, "amy", "rtc.hang_up", call=call))[0] is ErrorCode.UNKNOWN_CALL
        await event(ben, "rtc.ringing")
        second = (await do(broker, "ben", "rtc.accept", call=call)).token
        assert second != first
        assert (await event(ann, "rtc.accepted"))[1] == {"token": second}
        await do(broker, "ann", "rtc.hang_up", call=call)
        assert (await event(ben, "rtc.ended"))[1]["reason"] == "hung_up"
        assert (await do(broker, "amy", "rtc.mine")).call is None
