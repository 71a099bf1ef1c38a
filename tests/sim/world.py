"""The world of the simulation: one seed decides every delay, loss, stall, fault and crash, and all is written down.

Time is a `MockClock` that jumps to the next deadline, tasks are scheduled in an order that the seed decides, and no
thread, socket or wall clock takes part. So the same seed gives the same log, line by line; `World.digest` is its hash.
"""

from __future__ import annotations

import hashlib
import random
import sys
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

import structlog
import trio
import trio.testing

__all__ = ["World", "run_world"]

BEGUN_MS = 1_790_000_000_000


class World:
    """The seed's randomness, the virtual time and the log."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.log: list[str] = []
        self.errors: list[str] = []
        """What the broker itself reported as its own failure: there must be none, whatever the world does to it."""
        self.rooms_founded = False
        """Both rooms' epochs are on the disk. Before that a full disk may cost an epoch, and viewers hear so."""
        self.healed = False
        """Nothing is broken any more on purpose: what was promised must come true now."""

    def now(self) -> float:
        return trio.current_time()

    def unix_ms(self) -> int:
        """Wall time; it runs evenly here."""
        return BEGUN_MS + round(self.now() * 1000)

    def note(self, what: str, *details: object) -> None:
        """Write a line of the log."""
        self.log.append(f"{self.now():.6f} {what} " + " ".join(map(str, details)))

    def chance(self, probability: float) -> bool:
        """Whether something goes wrong now; never once the world is healed."""
        return self.rng.random() < probability and not self.healed

    async def pause(self, most_s: float) -> None:
        """Let a random time pass."""
        await trio.sleep(self.rng.uniform(0, most_s))

    @property
    def digest(self) -> str:
        """Hash of the log."""
        return hashlib.sha256("\n".join(self.log).encode()).hexdigest()


def _overhear(world: World, logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take what the broker logs; a failure of its own code counts."""
    if method in ("exception", "error", "critical"):
        text = (
            f"{event.get('event')} {''.join(traceback.format_exception(sys.exception())) if sys.exception() else event}"
        )
        world.errors.append(text)
        world.note("ERROR", event.get("event"))
    raise structlog.DropEvent


def run_world(seed: int, main: Callable[[World], Awaitable[Any]]) -> World:
    """Run ``main`` in a fresh world; what it raises is raised, with the log's last lines and how to see it again."""
    import trio._core._run as scheduler

    world = World(seed)
    structlog.configure(processors=[partial(_overhear, world)], cache_logger_on_first_use=False)
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    scheduler._r.seed(seed)
    try:
        trio.run(main, world, clock=trio.testing.MockClock(autojump_threshold=0))
    except BaseException as error:
        error.add_note("\n".join(["...", *world.log[-25:], f"again: python -m tests.sim {seed}"]))
        raise
    else:
        assert world.errors == [], world.errors
    finally:
        structlog.reset_defaults()
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
    return world
