"""A show in the simulated world: who comes, what goes wrong, when the world heals, and the checks.

For `TROUBLE_S` the seed's weather breaks links, disk, clock and process, at any step. Then nothing is broken on purpose
any more, and within `HEAL_S` everything that was promised must have come true.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import trio

from broker.users import inbox as inboxes
from protocol.codes import Tier
from tests.simulation import checks
from tests.simulation.actors import Actors
from tests.simulation.broker import BrokerRun
from tests.simulation.disk import Disk
from tests.simulation.world import World, run_world
from tests.support.faulty_disk import MEMORY

__all__ = ["Show", "simulate"]

TROUBLE_S = 15.0
"""Virtual seconds in which things go wrong."""
HEAL_S = 300.0
"""Virtual seconds within which everything must have come true: longer than any backoff."""
LOOK_S = 0.5
"""How often the accounts and bounds of the broker are looked at."""
LEAPS_MS = (-40 * 86_400_000, -3_600_000, -61_000, 61_000, 3_600_000, 40 * 86_400_000)


class Show:
    """One world's course."""

    def __init__(self, world: World, directory: Path) -> None:
        self.world = world
        self.disk = Disk(world, directory)
        self.actors = Actors(world, self.disk)
        self.lives = 0

    async def keep_alive(self) -> None:
        """Start the broker, and again whenever it is over."""
        while True:
            await self.world.pause(1.0)
            self.lives += 1
            broker_run = self.actors.broker_run = BrokerRun(self.world, self.disk, self.lives)
            await broker_run.run()

    async def run(self) -> None:
        """The whole show, and the checks."""
        world, actors = self.world, self.actors
        self.start_trouble()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.keep_alive)
            nursery.start_soon(actors.view, "ann", Tier.FULL, Tier.MEDIUM)
            nursery.start_soon(actors.view, "ann:viewer")
            nursery.start_soon(actors.view, "bob", Tier.FULL, Tier.LOW)
            nursery.start_soon(partial(actors.view, "eve", Tier.LOW, inbox_items=3))
            for part in (actors.visit, actors.chat, actors.shop, actors.host, actors.platform, actors.passer_by):
                nursery.start_soon(part)
            await trio.sleep(TROUBLE_S)
            world.healed = True
            world.note("healed")
            with trio.move_on_after(HEAL_S):
                while (missing := checks.what_is_missing(actors)) is not None:  # noqa: ASYNC110 - it looks now and then
                    await trio.sleep(LOOK_S)
            assert missing is None, f"{HEAL_S:g} s after all was well: {missing}"
            checks.look(actors)
            nursery.cancel_scope.cancel()
        if actors.broker_run is not None:
            actors.broker_run.kill()
        checks.check(actors)

    # ---- trouble

    def start_trouble(self) -> None:
        """Let every kind of trouble come at random times, as often as the weather says."""
        conditions = self.world.conditions
        for rate, what in (
            (conditions.cuts, self._cut),
            (conditions.holes, self._swallow),
            (conditions.stalls, self._stall),
            (conditions.kills, self._kill),
            (conditions.restarts, self._restart),
            (conditions.room_crashes, self._crash_room),
            (conditions.leaps, self._leap),
        ):
            if rate:
                self._again(rate, what, is_first=True)
        self._look()

    def _again(self, rate: float, what: Callable[[BrokerRun], None], is_first: bool = False) -> None:
        if self.world.healed:
            return
        broker_run = self.actors.broker_run
        if not is_first and broker_run is not None and not broker_run.is_over:
            what(broker_run)
        self.world.later(self.world.rng.expovariate(rate), self._again, rate, what)

    def _cut(self, broker_run: BrokerRun) -> None:
        wires = [wire for wire in broker_run.wires if not wire.is_cut]
        if wires:
            wire = self.world.rng.choice(wires)
            self.world.happen("cut", wire.number)
            wire.cut()

    def _stall(self, broker_run: BrokerRun, most_s: float = 8.0) -> None:
        wires = [wire for wire in broker_run.wires if not wire.is_cut]
        if wires:
            wire = self.world.rng.choice(wires)
            self.world.happen("stall", wire.number)
            wire.stall(self.world.rng.uniform(0, most_s))

    def _swallow(self, broker_run: BrokerRun) -> None:
        self._stall(broker_run, 1000.0)

    def _kill(self, broker_run: BrokerRun) -> None:
        broker_run.kill()

    def _restart(self, broker_run: BrokerRun) -> None:
        if broker_run.is_up:
            self.world.happen("drain", broker_run.number)
            broker_run.drain()

    def _crash_room(self, broker_run: BrokerRun) -> None:
        rooms = list(broker_run.broker.hub)
        if rooms:
            room = self.world.rng.choice(rooms)
            self.world.happen("room crashed", room.name, room.journal.pending)
            broker_run.broker.hub.crash(room)

    def _leap(self, broker_run: BrokerRun) -> None:
        by_ms = self.world.rng.choice(LEAPS_MS)
        self.world.happen("clock leaps", by_ms)
        self.world.wall_leap_ms += by_ms

    def _look(self) -> None:
        checks.look(self.actors)
        self.world.later(LOOK_S, self._look)


def simulate(seed: int, **conditions: float) -> World:
    """One world from one seed; AssertionError and the like if something that must be true was not.

    ``weather``: what shall not be as the seed says, by the names of `Conditions`.
    """
    with tempfile.TemporaryDirectory(prefix="sim-", dir=MEMORY) as name:

        async def main(world: World) -> None:
            world.conditions = world.conditions._replace(**conditions)  # type: ignore[arg-type]  # as the caller says
            with mock.patch.object(inboxes, "MAX_USERS", world.conditions.inbox_users):
                await Show(world, Path(name)).run()

        return run_world(seed, main)
