"""World of the simulation: one seed decides every delay, loss, stall, fault and crash, and every event is logged.

Time is an `Agenda`: when every task waits, it jumps to the next deadline of a task or the next call that the world has
scheduled (`World.later`), which costs microseconds. The seed decides the order in which tasks are scheduled, and no
thread, socket or real clock takes part. So the same seed gives the same log; `World.digest` is its hash.
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
from tests.support.tokens import GOOD, HS256, sign

__all__ = ["TEN_YEARS_S", "World", "credential", "run_world"]

START_MS = 1_790_000_000_000

_CODES = frozenset(map(int, CloseCode))
EXPECTED_ERRORS = frozenset({
    "ledger degraded: nothing durable is acknowledged",
    "the ledger could not answer",
    "room crashed",
})  # fmt: skip
"""Errors that the broker may log, because the seed causes them."""


class Agenda(trio.abc.Clock):
    """Virtual clock with a schedule of calls."""

    def __init__(self, on_failure: Callable[[BaseException], None]) -> None:
        self.now = 0.0
        self._on_failure = on_failure
        self._plans: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()

    def plan(self, at: float, call: Callable[..., None], *args: Any) -> None:
        """Schedule ``call`` at the virtual time ``at`` (seconds); calls at the same time keep their order."""
        heapq.heappush(self._plans, (at, next(self._numbers), call, args))

    def start_clock(self) -> None:
        """Do nothing: the clock advances only when every task waits."""

    def current_time(self) -> float:
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Advance to the earliest call or deadline. Trio calls this when every task waits."""
        if self._plans and self._plans[0][0] <= deadline:
            at, _, call, args = heapq.heappop(self._plans)
            self.now = max(self.now, at)
            try:
                call(*args)
            except BaseException as error:
                self._on_failure(error)
        elif deadline == math.inf:
            raise RuntimeError("no task has a deadline and no call is scheduled")
        else:
            self.now = max(self.now, deadline)
        return 0.0


class World:
    """Randomness, virtual time, conditions and log of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.conditions = Conditions.of(self.rng)
        self.log: list[str] = []
        self.happened: Counter[str] = Counter()
        """How often each fault and each rare event occurred: proof that the seeds reach them."""
        self.errors: list[str] = []
        """Failures of its own code that the broker logged: there must be none under any fault."""
        self.healed = False
        """No fault is injected any more: every promise must be kept from here on."""
        self.wall_leap_ms = 0
        self.wrong: list[tuple[int, float]] = []
        """When the wall clock was set wrong, and right again (inf = it is not yet), in true Unix milliseconds."""
        self.failure: BaseException | None = None
        self.scope = trio.CancelScope()
        self.agenda = Agenda(self._fail)

    def _fail(self, error: BaseException) -> None:
        if self.failure is None:
            self.failure = error
        self.scope.cancel()

    # ---- time

    def now(self) -> float:
        """Return monotonic seconds."""
        return self.agenda.now

    def wall_ms(self) -> int:
        """Return wall time in Unix milliseconds, including every injected jump."""
        return START_MS + round(self.agenda.now * 1000) + self.wall_leap_ms

    def later(self, delay_s: float, call: Callable[..., None], *args: Any) -> None:
        """Schedule ``call`` in ``delay_s`` seconds; an exception in it ends the world."""
        self.agenda.plan(self.agenda.now + delay_s, call, *args)

    def soon(self, most_s: float, call: Callable[..., None], *args: Any) -> None:
        """Schedule ``call`` at a random time within ``most_s`` seconds."""
        self.later(self.rng.uniform(0, most_s), call, *args)

    async def pause(self, most_s: float) -> None:
        """Sleep for a random time of at most ``most_s`` seconds."""
        await trio.sleep(self.rng.uniform(0, most_s))

    # ---- randomness

    def chance(self, probability: float) -> bool:
        """Return whether a fault of this probability occurs now; False once the world is healed."""
        return self.rng.random() < probability and not self.healed

    # ---- the log

    def trace(self, what: str, *details: object) -> None:
        """Append a line to the log."""
        self.log.append(f"{self.agenda.now:.6f} {what} " + " ".join(map(str, details)))

    def count_event(self, what: str, *details: object) -> None:
        """Append a line to the log and count the event in `happened`."""
        self.happened[what] += 1
        self.trace(what, *details)

    @property
    def digest(self) -> str:
        """SHA-256 of the log."""
        return hashlib.sha256("\n".join(self.log).encode()).hexdigest()


TEN_YEARS_S = 315_360_000


def credential(world: World, identity: str, lifetime_s: int = TEN_YEARS_S, **claims: Any) -> str:
    """Return the token of ``identity``, ``dev:USER`` or ``dev:USER:ROLE``; in development mode ``identity`` itself.

    :param lifetime_s: seconds until the token expires; by default beyond every jump of the clock.
    :param claims: further claims, which replace the usual ones.
    """
    if world.conditions.development:
        return identity
    _, user, *role = identity.split(":")
    ends = START_MS // 1000 + int(world.now()) + lifetime_s
    return sign(HS256, {**GOOD, "sub": user, "role": role[0] if role else "viewer", "exp": ends, **claims})


def _capture_log(
    world: World, logger: object, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Record log events of the broker; an unexpected error becomes a failure of the world."""
    text = event.get("event")
    code = event.get("code")
    reason = CloseCode(code).name if code in _CODES else event.get("reason", "")
    if method == "debug":
        world.happened[f"log: {text} {reason}"] += 1
    elif method in ("exception", "error", "critical"):
        if text in EXPECTED_ERRORS:
            world.trace("ERROR", text)
        else:
            details = "".join(traceback.format_exception(sys.exception())) if sys.exception() else event
            world.errors.append(f"{text} {details}")
            world.trace("ERROR", text, details)
    else:
        world.count_event(f"log: {text} {reason}")
    raise structlog.DropEvent


def run_world(seed: int, main: Callable[[World], Awaitable[Any]]) -> World:
    """Run ``main`` in a new world; an exception of it is raised with the last log lines and a command."""
    import trio._core._run as scheduler

    world = World(seed)

    async def run() -> None:
        with world.scope:
            await main(world)

    structlog.configure(processors=[partial(_capture_log, world)], cache_logger_on_first_use=False)
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    scheduler._r.seed(seed)
    try:
        trio.run(run, clock=world.agenda)
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
