"""The world of the simulation: one seed decides every delay, loss, stall, fault and crash, and all is written down.

Time is an `Agenda`: when no task can go on, it leaps to whatever comes next, a task's deadline or a thing that the
world itself has planned (`World.later`), which costs microseconds. Tasks are scheduled in an order that the seed
decides, and no thread, socket or real clock takes part. So the same seed gives the same log, line by line;
`World.digest` is its hash.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
import random
import sys
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

import structlog
import trio

from protocol.codes import CloseCode
from tests.simulation.faults import Conditions

__all__ = ["World", "run_world"]

BEGUN_MS = 1_790_000_000_000

_CODES = frozenset(map(int, CloseCode))
DISTURBED = frozenset({
    "ledger degraded: nothing durable is acknowledged",
    "the ledger could not answer",
    "room crashed",
})  # fmt: skip
"""What the broker may log as an error, since the seed has broken it."""


class Agenda(trio.abc.Clock):
    """Virtual time, and what the world does when its time has come."""

    def __init__(self, on_failure: Callable[[BaseException], None]) -> None:
        self.now = 0.0
        self._on_failure = on_failure
        self._plans: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()

    def plan(self, at: float, call: Callable[..., None], *args: Any) -> None:
        """Call at a time; in the order of the planning where times are equal."""
        heapq.heappush(self._plans, (at, next(self._numbers), call, args))

    def start_clock(self) -> None:
        """It never runs by itself."""

    def current_time(self) -> float:
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Trio asks this when no task can go on: do what comes first, without sleeping."""
        if self._plans and self._plans[0][0] <= deadline:
            at, _, call, args = heapq.heappop(self._plans)
            self.now = max(self.now, at)
            try:
                call(*args)
            except BaseException as error:
                self._on_failure(error)
        elif deadline == math.inf:
            raise RuntimeError("nothing will ever happen again")
        else:
            self.now = max(self.now, deadline)
        return 0.0


class World:
    """The seed's randomness, the virtual time, the weather and the log."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.conditions = Conditions.of(self.rng)
        self.log: list[str] = []
        self.happened: Counter[str] = Counter()
        """How often each thing that a seed is there for has happened: proof that it is tried at all."""
        self.errors: list[str] = []
        """What the broker itself reported as its own failure: there must be none, whatever the world does to it."""
        self.healed = False
        """Nothing is broken any more on purpose: what was promised must come true now."""
        self.wall_leap_ms = 0
        self.failure: BaseException | None = None
        self.scope = trio.CancelScope()
        self.agenda = Agenda(self._fail)

    def _fail(self, error: BaseException) -> None:
        if self.failure is None:
            self.failure = error
        self.scope.cancel()

    # ---- time

    def now(self) -> float:
        """Monotonic seconds."""
        return self.agenda.now

    def wall_ms(self) -> int:
        """Wall time, which may have leapt."""
        return BEGUN_MS + round(self.agenda.now * 1000) + self.wall_leap_ms

    def later(self, delay_s: float, call: Callable[..., None], *args: Any) -> None:
        """Let something happen; a failure of it ends the world."""
        self.agenda.plan(self.agenda.now + delay_s, call, *args)

    def soon(self, most_s: float, call: Callable[..., None], *args: Any) -> None:
        """As `later`, at a random time up to ``most_s`` from now."""
        self.later(self.rng.uniform(0, most_s), call, *args)

    async def pause(self, most_s: float) -> None:
        """Let a random time pass."""
        await trio.sleep(self.rng.uniform(0, most_s))

    # ---- fate

    def chance(self, probability: float) -> bool:
        """Whether something goes wrong now; never once the world is healed."""
        return self.rng.random() < probability and not self.healed

    # ---- the log

    def note(self, what: str, *details: object) -> None:
        """Write a line of the log."""
        self.log.append(f"{self.agenda.now:.6f} {what} " + " ".join(map(str, details)))

    def happen(self, what: str, *details: object) -> None:
        """Write a line of the log, and count it among what the seeds are there for."""
        self.happened[what] += 1
        self.note(what, *details)

    @property
    def digest(self) -> str:
        """Hash of the log."""
        return hashlib.sha256("\n".join(self.log).encode()).hexdigest()


def _overhear(world: World, logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take what the broker logs; a failure of its own code counts."""
    words = event.get("event")
    code = event.get("code")
    reason = CloseCode(code).name if code in _CODES else event.get("reason", "")
    if method == "debug":
        world.happened[f"log: {words} {reason}"] += 1
    elif method in ("exception", "error", "critical"):
        if words in DISTURBED:
            world.note("ERROR", words)
        else:
            details = "".join(traceback.format_exception(sys.exception())) if sys.exception() else event
            world.errors.append(f"{words} {details}")
            world.note("ERROR", words, details)
    else:
        world.happen(f"log: {words} {reason}")
    raise structlog.DropEvent


def run_world(seed: int, main: Callable[[World], Awaitable[Any]]) -> World:
    """Run ``main`` in a fresh world; what it raises is raised, with the log's last lines and how to see it again."""
    import trio._core._run as scheduler

    world = World(seed)

    async def live() -> None:
        with world.scope:
            await main(world)

    structlog.configure(processors=[partial(_overhear, world)], cache_logger_on_first_use=False)
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    scheduler._r.seed(seed)
    try:
        trio.run(live, clock=world.agenda)
        if world.failure is not None:
            raise world.failure
        assert world.errors == [], world.errors[0]
    except BaseException as error:
        error.add_note("\n".join(["...", *world.log[-25:], f"again: python -m tests.simulation --log {seed}"]))
        raise
    finally:
        structlog.reset_defaults()
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
    return world
