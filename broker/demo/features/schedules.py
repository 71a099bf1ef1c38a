"""Schedules in the demo: operations that the broker runs at a time, each once, and the countdowns that they start."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import trio

from broker.demo.buyers import Buyer
from broker.demo.features.base import DemoFeature
from protocol.activities.schedules import JobState
from protocol.operations.schedules import (
    CancelSchedule,
    ChangeSchedule,
    CreateSchedule,
    ListSchedules,
    SchedulePage,
)

__all__ = ["ScheduleFeature"]

STARTS = {"start-1": "开场 · Doors", "start-2": "返场 · Encore", "start-3": "下一场 · Next show"}
"""Schedules that start a countdown each, with its label."""
FIRST = "start-1"
STOP, REFUSED, CANCELLED = "stop-1", "refused-1", "cancelled-1"
FIRST_MS, STEP_MS, LATER_MS = 3000, 300, 120_000
"""All but the cancelled one are created for much later, and then given an earlier time, so that no slow machine has
passed the time of one before it is created."""
LISTS_AGAIN_S = 0.1


class ScheduleFeature(DemoFeature):
    """The platform schedules countdowns, each twice under the same id, one stop, one operation that is refused, and
    one that it cancels."""

    name = "schedules"

    async def run(self) -> None:
        await trio.sleep(self.seconds * 0.1)
        platform, room, later_ms = self.others.platform, self.others.room, self.others.now_ms() + LATER_MS
        for id in (*STARTS, STOP, REFUSED, CANCELLED):
            countdown = {STOP: FIRST, REFUSED: "unknown"}.get(id, id)
            operation = "countdowns.stop"
            request: dict[str, Any] = {"room": room, "id": countdown}
            if id in (*STARTS, CANCELLED):
                operation, request = (
                    "countdowns.start",
                    request | {"label": STARTS.get(id, id), "deadline_ms": later_ms},
                )
            job = CreateSchedule(room, id, operation, request, later_ms)
            first, again = await platform.call(job), await platform.call(job)
            self.equal(f"schedule {id}, created twice", first=first.id, second=again.id)
        await platform.call(CancelSchedule(room, CANCELLED))
        self.at_ms = {CANCELLED: later_ms}
        for number, id in enumerate((*STARTS, STOP, REFUSED)):
            self.at_ms[id] = self.others.now_ms() + FIRST_MS + STEP_MS * number
            await platform.call(ChangeSchedule(room, id, self.at_ms[id], 1))
        await self._until_run(len(STARTS) + 2)
        for buyer in self.others.buyers:
            await buyer.wait_until(partial(self._has_seen_all, buyer))

    async def _until_run(self, count: int) -> None:
        """Wait until so many schedules have run."""
        while True:
            if sum(job.has_run for job in (await self._list()).items) >= count:
                return
            await trio.sleep(LISTS_AGAIN_S)

    async def _list(self) -> SchedulePage:
        page: SchedulePage = await self.others.platform.call(ListSchedules(self.others.room))
        return page

    @staticmethod
    def _has_seen_all(buyer: Buyer) -> bool | None:
        """Return whether a buyer has seen every countdown start, and the one stop; None = not yet."""
        seen = all(buyer.event("countdowns.started", id) for id in STARTS)
        return True if seen and buyer.event("countdowns.stopped", FIRST) is not None else None

    async def reconcile(self) -> dict[str, int]:
        jobs = {job.id: job for job in (await self._list()).items}
        fired = {id for id, job in jobs.items() if job.state is JobState.FIRED}
        refused = {id for id, job in jobs.items() if job.refusal is not None}
        self.equal("schedules", platform=sorted(self.at_ms), broker=sorted(jobs))
        self.equal("fired", broker=sorted(fired), wanted=sorted(self.at_ms.keys() - {CANCELLED}))
        self.equal("refused", broker=sorted(refused), wanted=[REFUSED])
        early = [id for id in fired if (jobs[id].fired_at_ms or 0) < self.at_ms[id]]
        self.equal("fired before their time", broker=early, wanted=[])
        for buyer in self.others.buyers:
            starts = Counter(each.id for each in buyer.events if each.name == "countdowns.started")
            stops = Counter(each.id for each in buyer.events if each.name == "countdowns.stopped")
            self.equal(
                f"countdowns as {buyer.id} saw them", seen=dict(sorted(starts.items())), wanted=dict.fromkeys(STARTS, 1)
            )
            self.equal(f"stops as {buyer.id} saw them", seen=dict(stops), wanted={FIRST: 1})
        return {
            "schedules": len(jobs), "fired": len(fired), "refused": len(refused), "cancelled": len(jobs) - len(fired),
            "countdowns": len(STARTS),
        }  # fmt: skip
