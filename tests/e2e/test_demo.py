"""``roomcast demo`` end to end: a broker, real clients in processes of their own, and counts that must agree."""

from __future__ import annotations

import json
import signal

import httpx
import pytest
import trio

from broker.demo import runner
from broker.demo.runner import Runner
from tests.support.processes import running

pytestmark = [pytest.mark.integration, pytest.mark.slow]


async def test_a_miscount_of_the_broker_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class MiscountingRunner(Runner):
        def total_likes(self) -> int:
            return super().total_likes() + 1

    monkeypatch.setattr(runner, "COMPARE_S", 0.5)
    with trio.fail_after(90):
        outcome = await MiscountingRunner(3.0, 20, 1).run()
    assert not outcome.balanced
    assert any(line.startswith("likes: the broker says") for line in outcome.differences)


async def test_ctrl_c_ends_the_demo_early_and_the_counts_are_still_compared() -> None:
    async with running("demo", "--seconds", "600", "--viewers", "20", "--json") as demo:
        await demo.err.until("a quiet room")
        demo.signal(signal.SIGINT)
        written = json.loads(await demo.out.next())
        assert written["balanced"] is True
        assert written["seconds"] < 60
        assert await demo.wait() == 0


async def test_a_demo_that_stays_has_three_pages_and_compares_nothing_after_a_visit() -> None:
    async with running("demo", "--seconds", "3", "--viewers", "20", "--stay", "--json") as demo:
        pages = [(await demo.err.until(name)).rpartition(": ")[2] for name in ("live room", "host desk", "console")]
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            for page in pages:
                answer = await client.get(page)
                assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert (await client.get(pages[0].replace("/room/lobby", "/pages/token"))).status_code == 200
        await demo.err.until("finale")
        await demo.err.until("a quiet room")  # it has begun anew
        demo.signal(signal.SIGINT)
        written = json.loads(await demo.out.next())
        assert (written["visited"], written["balanced"], written["differences"]) == (True, True, [])
        assert await demo.wait() == 0
