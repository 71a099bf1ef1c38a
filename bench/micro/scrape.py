"""Loop time of one scrape of ``/metrics`` with thousands of open rooms: all of it, and the longest step.

Rooms in which nothing has happened since the scrape before are not read again, so it is measured with all rooms at rest
and with all of them changed.

Between two steps the event loop serves viewers, so the longest step is what a scrape can delay them by. The rooms have
been used: danmaku, likes and a member each. The whole is measured in CPU time, as other work of the machine is not
the scrape's; the step in wall time, as a viewer waits for it.
"""

from __future__ import annotations

import random
import time

from bench.micro.harness import config, serving
from bench.micro.result import Result, median
from broker.core.rooms.rules import Author
from broker.server import Broker
from broker.telemetry.metrics import collect_in_steps, render
from protocol.codes import MessageType, Role
from protocol.messages import Post
from protocol.payloads import DanmakuPayload, LikePayload

__all__ = ["metrics"]


class _Person:
    """Author of a post."""

    def __init__(self, user_id: str) -> None:
        self.user_id = self.name = user_id
        self.role = Role.VIEWER
        self.may_post = frozenset(map(int, MessageType))


async def metrics(smoke: bool) -> list[Result]:
    """Measure scrapes, one after another."""
    rooms, rounds = (200, 3) if smoke else (5000, 40)
    async with serving(config(max_rooms=rooms)) as broker:
        _fill(broker, rooms)
        resting: list[float] = []
        changed: list[float] = []
        longest: list[float] = []
        size = 0
        taken_us = [_take_second(broker, second) / rooms * 1e6 for second in range(1, rounds)]
        for _ in range(rounds):
            for room in broker.hub:
                room.reading = None  # as a post leaves it
            for totals in (changed, resting):
                total, step, size = _scrape(broker)
                totals.append(total * 1000)
                longest.append(step * 1000)
    detail = {"rooms": rooms, "bytes": size}
    return [
        Result(
            "metrics", f"loop time of a scrape, {rooms:,} rooms at rest", median(resting), "ms", 20.0, detail=detail
        ),
        Result(
            "metrics", f"loop time of a scrape, {rooms:,} rooms changed", median(changed), "ms", 20.0, detail=detail
        ),
        Result("metrics", f"longest step of a scrape, {rooms:,} rooms", median(longest), "ms", 5.0, detail=detail),
        Result(
            "metrics", "live statistics of a busy room and second", max(taken_us[:1]), "us", detail={"rooms": rooms}
        ),
        Result("metrics", "live statistics of a room at rest and second", median(taken_us[1:]), "us"),
    ]


def _fill(broker: Broker, rooms: int) -> None:
    """Open rooms and post to each."""
    rng = random.Random(1)
    author: Author = _Person("ann")
    for number in range(rooms):
        broker.hub.open(f"live-{number}")
        room = broker.hub.find(f"live-{number}")
        assert room is not None
        now = room.state.next_due(0.0) or 0.0
        room.state.enter("ann", "Ann", Role.VIEWER, now)
        for count in range(rng.randrange(1, 5)):
            room.state.post(None, author, Post(MessageType.DANMAKU, "", DanmakuPayload(f"text {count}")), now, 0)  # type: ignore[arg-type]
        room.state.post(None, author, Post(MessageType.LIKE, "", LikePayload(5)), now, 0)  # type: ignore[arg-type]
        room.state.tick(now + 1.0, 0)


def _take_second(broker: Broker, second: int) -> float:
    """Take a second of every room; returns the CPU seconds. In the first all rooms are busy, then none is."""
    begin = round(broker.hub.live_budget.used_bytes)
    used = time.thread_time()
    for room in broker.hub:
        room.state.counters.take_second(1_000_000_000 + second)
    used = time.thread_time() - used
    assert (broker.hub.live_budget.used_bytes > begin) == (second == 1)
    return used


def _scrape(broker: Broker) -> tuple[float, float, int]:
    """Make one scrape; returns the CPU seconds of all, the seconds of its longest step, and the bytes of its text."""
    steps = collect_in_steps(broker)
    total = longest = 0.0
    while True:
        started_at, used = time.perf_counter(), time.thread_time()
        try:
            next(steps)
            text = None
        except StopIteration as done:
            text = render(done.value)
        total += time.thread_time() - used
        longest = max(longest, time.perf_counter() - started_at)
        if text is not None:
            return total, longest, len(text)
