"""How long a reload of many words holds the event loop: the longest step of any task while it goes on, in CPU time.

The broker runs with rooms; the file of words changes wholly from one reload to the next, so that nothing is kept of the
filter before. The steps are those of the loop's own thread, whatever task they are of; reading the file is another
thread's.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import msgspec
import trio
from trio.abc import Instrument

from bench.micro.harness import config, serving
from bench.micro.result import Result, median
from bench.micro.words import made_words
from broker.config.moderation import ModerationConfig, WordListConfig
from broker.config.schema import Config

__all__ = ["reload"]


class _LongestStep(Instrument):
    """Measures the longest step of a task, in CPU seconds."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._begun: float | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Begin a step."""
        self._begun = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """End it."""
        if self._begun is not None:  # else it is the step in which the measurement began
            self.longest_s = max(self.longest_s, time.thread_time() - self._begun)


async def reload(smoke: bool) -> list[Result]:
    """Measure several reloads."""
    count, rooms, rounds = (1_000, 10, 2) if smoke else (50_000, 1_000, 8)
    with tempfile.TemporaryDirectory(prefix="roomcast-reload-") as name:
        file = Path(name) / "words.txt"
        words = made_words(2 * count)
        halves = words[:count], words[count : 2 * count]
        listed = WordListConfig(name="bench", file=str(file), action="mask")
        settings: Config = msgspec.structs.replace(
            config(max_rooms=rooms), moderation=ModerationConfig(lists=(listed,))
        )
        file.write_text("\n".join(halves[1]), encoding="utf-8")
        async with serving(settings) as broker:
            broker._read_config = lambda: settings
            for number in range(rooms):
                broker.hub.open(f"live-{number}")
            steps, took = [], []
            for number in range(rounds):
                file.write_text("\n".join(halves[number % 2]), encoding="utf-8")
                watch = _LongestStep()
                trio.lowlevel.add_instrument(watch)
                begun = time.perf_counter()
                try:
                    await broker.reload_files()
                finally:
                    trio.lowlevel.remove_instrument(watch)
                took.append((time.perf_counter() - begun) * 1e3)
                steps.append(watch.longest_s * 1e3)
    detail = {"words": count, "rooms": rooms, "longest_of_all_ms": round(max(steps), 2)}
    what = f"reload of {count:,} words"
    return [
        Result("reload", f"longest step of a {what}", median(steps), "ms", None if smoke else 20.0, detail=detail),
        Result("reload", f"time of a {what}", median(took), "ms", detail=detail),
    ]
