"""Who held the loop up is named; a process that was stopped is not overloaded."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import structlog.testing
import trio

from broker.core.limits.overload import OverloadStage
from broker.server import SAMPLE_S
from broker.telemetry import loop_monitor
from broker.telemetry.loop_monitor import LOG_EVERY_S, SLOW_STEP_S, LoopMonitor
from tests.support.broker import running_broker
from tests.support.until import until


class Times:
    """Wall and CPU time that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.cpu = 5.0
        self.loop_monitor = LoopMonitor(lambda: self.now, lambda: self.cpu)

    def step(self, name: str, took_s: float) -> None:
        task: Any = SimpleNamespace(name=name)
        self.loop_monitor.before_task_step(task)
        self.now += took_s
        self.loop_monitor.after_task_step(task)


def test_a_slow_step_is_counted_and_its_task_is_named_at_most_now_and_then() -> None:
    times = Times()
    with structlog.testing.capture_logs() as lines:
        for _ in range(100):
            times.step("quick", SLOW_STEP_S / 2)
        times.step("room lobby", 0.3)
        for _ in range(5):
            times.step("room other", 0.1)
        times.now += LOG_EVERY_S
        times.step("room lobby", 0.2)
    assert [(line["task"], line["took_ms"], line["unlogged"]) for line in lines] == [
        ("room lobby", 300, 0),
        ("room lobby", 200, 5),
    ]
    assert (times.loop_monitor.slow_steps, times.loop_monitor.slowest_step_s) == (7, pytest.approx(0.3))


@pytest.mark.parametrize(
    ("late_s", "worked_s", "judged_s"),
    [(0.5, 0.0, 0.5), (10.0, 0.02, 0.0), (10.0, 9.0, 10.0), (10.0, 2.0, 10.0)],
    ids=["a moment", "stopped", "working", "sharing the CPU"],
)
def test_only_time_in_which_the_loop_worked_is_overload(late_s: float, worked_s: float, judged_s: float) -> None:
    times = Times()
    times.cpu += worked_s
    with structlog.testing.capture_logs() as lines:
        assert times.loop_monitor.overload_lag_s(late_s) == judged_s
    stopped = judged_s < late_s
    assert (times.loop_monitor.pauses, len(lines)) == (stopped, stopped)
    assert times.loop_monitor.overload_lag_s(0.0) == 0.0


@pytest.mark.integration
async def test_a_broker_names_what_blocks_it_and_does_not_shed_load_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_monitor, "LOG_EVERY_S", 0.0)  # a slow start uses up no line
    with structlog.testing.capture_logs() as lines:
        async with running_broker() as broker:

            async def block() -> None:
                time.sleep(1.2 + SAMPLE_S)  # noqa: ASYNC251 - the defect itself

            async with trio.open_nursery() as nursery:
                nursery.start_soon(block)
            await until(lambda: broker.loop_monitor.pauses)
            assert broker.stats().slow_steps >= 1
            assert broker.stats().stage is OverloadStage.NORMAL
    assert any(line["event"] == "event loop blocked" and "block" in line["task"] for line in lines)
    assert any(line["event"] == "event loop paused" for line in lines)
