"""Answers of the service desk that come in parts: shown at once, one message at the end, stopped by the customer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.users import desks
from protocol.activities.desk import DeskState
from protocol.codes import ErrorCode
from tests.support.broker import RawLink
from tests.support.conversations import do, event, refusal
from tests.support.desk import configure, opened, platform, settled
from tests.support.directs import login
from tests.support.durable import durable_broker

pytestmark = pytest.mark.integration

BOT = {"name": "orders", "skills": ["order"], "bot": "helper"}


@pytest.fixture(autouse=True)
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "TICK_S", 0.005)


async def part(link: RawLink) -> tuple[str, bool, bool]:
    _, data = await event(link, "desk.streaming")
    return data["text"], data["ended"], data["interrupted"]


async def test_parts_are_shown_at_once_and_become_one_message(directory: Path) -> None:
    async with durable_broker(directory) as broker, login(broker, "ann") as ann:
        await configure(broker, topics=[BOT])
        view = await opened(broker)
        at: dict[str, Any] = {"conversation": view.id}
        assert (await refusal(broker, "helper", "desk.start_stream", **at, epoch=9))[0] is ErrorCode.STALE
        stream = (await do(broker, "helper", "desk.start_stream", **at, epoch=view.epoch)).stream
        of = {**at, "stream": stream}
        assert (await refusal(broker, "helper", "desk.end_stream", **of))[0] is ErrorCode.BAD_FIELD
        for number, text in enumerate(("It comes", " ", "today."), 1):
            assert (await do(broker, "helper", "desk.append", **of, text=text)).parts == number
            assert await part(ann) == (text, False, False)
        code, _ = await refusal(broker, "helper", "desk.append", **of, text="x" * 600)
        assert code is ErrorCode.PAYLOAD_TOO_LARGE
        # A backend goes on as the bot.
        await platform(broker, "desk.append", **of, text=" Bye.", as_user="helper")
        sent = await do(broker, "helper", "desk.end_stream", "e1", **of)
        again = await do(broker, "helper", "desk.end_stream", "e1", **of)
        assert (sent.offset, sent.repeated, again.offset, again.repeated) == (2, False, 2, True)
        assert await part(ann) == (" Bye.", False, False)
        assert await part(ann) == ("", True, False)
        found = await do(broker, "ann", "desk.get", **at)
        assert [each.text for each in found.messages] == ["Where is my parcel?", "It comes today. Bye."]
        assert found.desk.asked_at_ms == 0
        code, _ = await refusal(broker, "helper", "desk.append", **of, text="x")
        assert code is ErrorCode.OUT_OF_STATE


@pytest.mark.parametrize("by_question", [True, False])
async def test_the_customer_interrupts(directory: Path, by_question: bool) -> None:
    async with durable_broker(directory) as broker, login(broker, "ann") as ann, login(broker, "helper") as helper:
        await configure(broker, topics=[BOT])
        view = await opened(broker)
        at: dict[str, Any] = {"conversation": view.id}
        stream = (await do(broker, "helper", "desk.start_stream", **at, epoch=view.epoch)).stream
        await do(broker, "helper", "desk.append", **at, stream=stream, text="Long ago")
        code, _ = await refusal(broker, "eve", "desk.interrupt", **at)
        assert code is ErrorCode.UNKNOWN_CONVERSATION
        if by_question:
            await do(broker, "ann", "desk.ask", "q2", **at, text="Stop")
        else:
            assert (await do(broker, "ann", "desk.interrupt", **at)).interrupted
            assert not (await do(broker, "ann", "desk.interrupt", **at)).interrupted
        assert (await event(helper, "desk.interrupted"))[1] == {"stream": stream}
        assert await part(ann) == ("Long ago", False, False)
        assert await part(ann) == ("", True, True)
        code, _ = await refusal(broker, "helper", "desk.append", **at, stream=stream, text="x")
        assert code is ErrorCode.OUT_OF_STATE
        texts = [each.text for each in (await do(broker, "ann", "desk.get", **at)).messages]
        assert texts == ["Where is my parcel?", "Long ago", *(["Stop"] if by_question else [])]


async def test_a_bot_that_stops_in_the_middle_loses_the_conversation(directory: Path) -> None:
    async with durable_broker(directory) as broker, login(broker, "ann") as ann:
        await configure(broker, topics=[BOT])
        view = await opened(broker)
        at: dict[str, Any] = {"conversation": view.id}
        stream = (await do(broker, "helper", "desk.start_stream", **at, epoch=view.epoch)).stream
        await do(broker, "helper", "desk.append", **at, stream=stream, text="Well")
        assert await part(ann) == ("Well", False, False)
        await configure(broker, topics=[BOT], bot_ms=1)
        await settled(broker, view.id, DeskState.QUEUED)
        assert await part(ann) == ("", True, True)
        code, _ = await refusal(broker, "helper", "desk.end_stream", **at, stream=stream)
        assert code is ErrorCode.OUT_OF_STATE
