"""``roomcast demo`` end to end: a broker, real clients in processes of their own, and two counts that must agree."""

from __future__ import annotations

import json
import signal

import pytest
import trio

from broker.demo import runner as direction
from broker.demo.runner import Runner
from protocol.codes import Lane
from tests.support.processes import roomcast, running

pytestmark = [pytest.mark.integration, pytest.mark.slow]


async def test_a_short_show_balances_and_says_so_in_one_line() -> None:
    done = await roomcast("demo", "--seconds", "5", "--viewers", "60", "--json")
    assert done.out.count("\n") == 1, done.err
    told = json.loads(done.out)
    assert told["differences"] == []
    assert told["balanced"] is True
    assert done.status == 0
    assert list(told["lanes"]) == [lane.name.lower() for lane in Lane]
    for account in told["lanes"].values():
        assert account["admitted"] == sum(account.values()) - account["admitted"]
        assert account["held"] == 0
    for lane in ("control", "paid", "chat", "ambient"):
        assert told["lanes"][lane]["shown"] > 0
    assert told["viewers"] == 60
    assert told["deliveries"] > 1000
    assert told["reconnects"]["back"] <= told["reconnects"]["cut"]
    for act in ("a quiet room", "chat flood", "gift storm", "a third is cut and comes back", "finale", "counting"):
        assert act in done.err
    assert "Traceback" not in done.err


async def test_a_broker_that_miscounts_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Liar(Runner):
        def _likes(self) -> int:
            return super()._likes() + 1

    monkeypatch.setattr(direction, "COMPARE_S", 0.5)
    with trio.fail_after(90):
        outcome = await Liar(3.0, 20, 1).run()
    assert not outcome.balanced
    assert any(line.startswith("likes: the broker says") for line in outcome.differences)


async def test_ctrl_c_ends_the_show_early_and_the_counts_are_still_compared() -> None:
    async with running("demo", "--seconds", "600", "--viewers", "20", "--json") as demo:
        await demo.err.until("a quiet room")
        demo.signal(signal.SIGINT)
        told = json.loads(await demo.out.next())
        assert told["balanced"] is True
        assert told["seconds"] < 60
        assert await demo.wait() == 0
