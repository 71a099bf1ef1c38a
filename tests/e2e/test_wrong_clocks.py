"""A real broker under a wrong wall clock (libfaketime): nothing expires, nothing is removed, nothing happens twice."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from protocol.clients import open_client
from protocol.codes import MessageType, Outcome
from protocol.messages import Direct
from tests.support.processes import Serving, healthz, roomcast, serving
from tests.support.programs import needs

pytestmark = pytest.mark.integration


def fake_clock(file: Path) -> dict[str, str]:
    """Environment in which the wall clock is off by what ``file`` says; monotonic time stays."""
    program = needs("faketime")
    library = subprocess.run(
        [program, "-f", "+0", "sh", "-c", "echo $LD_PRELOAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


@asynccontextmanager
async def broker_under(clock: Path, directory: Path) -> AsyncIterator[Serving]:
    async with serving("--data-dir", str(directory), **fake_clock(clock)) as broker:
        yield broker


async def clock_reason(broker: Serving) -> str:
    """What the health check says of the clock."""
    return str((await healthz(broker))[1].get("clock", ""))


async def send_direct(broker: Serving, file: Path) -> None:
    await trio.Path(file).write_text("user,code\nann,C-17\n")
    done = await roomcast(
        "direct", "--url", broker.url, "--batch", file.stem, "--template", "code {code}", "--values", str(file)
    )
    assert done.status == 0, done.err


async def received(broker: Serving) -> str:
    """The first must-deliver message that ann gets."""
    with trio.fail_after(60):
        async with open_client(broker.url, "dev:ann") as ann:
            async for event in ann.events():
                if isinstance(event, Direct):
                    return str(event.payload)
    raise AssertionError("the stream of messages ended")


async def test_a_clock_that_is_ahead_for_seconds_loses_no_message(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    async with broker_under(clock, tmp_path / "data") as broker:
        await send_direct(broker, tmp_path / "codes.csv")
        clock.write_text("+80h")
        with trio.fail_after(60):
            while "leapt by 288" not in await clock_reason(broker):  # noqa: ASYNC110 - another process
                await trio.sleep(0.1)
        assert "C-17" in await received(broker), "delivered under the wrong clock"
        await send_direct(broker, tmp_path / "more.csv")
        await trio.sleep(2.5)  # two runs of maintenance, one a second
        clock.write_text("+0")
        with trio.fail_after(60):
            while await clock_reason(broker):  # noqa: ASYNC110 - another process
                await trio.sleep(0.1)
        assert "C-17" in await received(broker), "delivered after it"


async def test_a_start_under_a_clock_far_ahead_removes_nothing(tmp_path: Path) -> None:
    clock, data = tmp_path / "clock", tmp_path / "data"
    gift = ("order-1", "ann", "Ann", "rose", 1, 100, "")
    clock.write_text("+0")
    async with broker_under(clock, data) as broker:
        await send_direct(broker, tmp_path / "codes.csv")
        async with open_client(broker.url, "dev:shop:app") as shop:
            room = await shop.join("lobby")
            first = await room.post(MessageType.GIFT, gift)
            assert first.outcome is Outcome.ACCEPTED
        broker.process.terminate()
        assert await broker.wait() == 0
    clock.write_text("+40d")
    async with broker_under(clock, data) as broker:
        assert "ahead of the last trusted time" in await clock_reason(broker)
        await trio.sleep(2.5)  # two runs of maintenance
        async with open_client(broker.url, "dev:shop:app") as shop:
            room = await shop.join("lobby")
            again = await room.post(MessageType.GIFT, gift)
            assert (again.outcome, again.offset) == (first.outcome, first.offset)
        assert "C-17" in await received(broker)
        broker.process.terminate()
        assert await broker.wait() == 0
    verified = await roomcast("ledger", "verify", "--data-dir", str(data))
    assert verified.status == 0, verified.err
