"""A show in the simulated world: who comes, what goes wrong, when the world heals, and the verdict.

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
from tests.simulation import checks as verdict
from tests.simulation.actors import Cast
from tests.simulation.broker import Life
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
LEAPS_MS = (-3_600_000, -60_000, 60_000, 3_600_000)


class Show:
    """One world's course."""

    def __init__(self, world: World, directory: Path) -> None:
        self.world = world
        self.disk = Disk(world, directory)
        self.cast = Cast(world, self.disk)
        self.lives = 0

    async def keep_alive(self) -> None:
        """Start the broker, and again whenever it is over."""
        while True:
            await self.world.pause(1.0)
            self.lives += 1
            life = self.cast.life = Life(self.world, self.disk, self.lives)
            await life.run()

    async def run(self) -> None:
        """The whole show, and the verdict."""
        world, cast = self.world, self.cast
        self.start_trouble()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.keep_alive)
            nursery.start_soon(cast.view, "ann", Tier.FULL, Tier.MEDIUM)
            nursery.start_soon(cast.view, "ann:viewer")
            nursery.start_soon(cast.view, "bob", Tier.FULL, Tier.LOW)
            nursery.start_soon(partial(cast.view, "eve", Tier.LOW, inbox_items=3))
            for part in (cast.visit, cast.chat, cast.shop, cast.host, cast.platform, cast.passer_by):
                nursery.start_soon(part)
            await trio.sleep(TROUBLE_S)
            world.healed = True
            world.note("healed")
            with trio.move_on_after(HEAL_S):
                while (missing := verdict.what_is_missing(cast)) is not None:  # noqa: ASYNC110 - it looks now and then
                    await trio.sleep(LOOK_S)
            assert missing is None, f"{HEAL_S:g} s after all was well: {missing}"
            verdict.look(cast)
            nursery.cancel_scope.cancel()
        if cast.life is not None:
            cast.life.kill()
        verdict.check(cast)

    # ---- trouble

    def start_trouble(self) -> None:
        """Let every kind of trouble come at random times, as often as the weather says."""
        weather = self.world.weather
        for rate, what in (
            (weather.cuts, self._cut),
            (weather.holes, self._swallow),
            (weather.stalls, self._stall),
            (weather.kills, self._kill),
            (weather.restarts, self._restart),
            (weather.room_crashes, self._crash_room),
            (weather.leaps, self._leap),
        ):
            if rate:
                self._again(rate, what, is_first=True)
        self._look()

    def _again(self, rate: float, what: Callable[[Life], None], is_first: bool = False) -> None:
        if self.world.healed:
            return
        life = self.cast.life
        if not is_first and life is not None and not life.is_over:
            what(life)
        self.world.later(self.world.rng.expovariate(rate), self._again, rate, what)

    def _cut(self, life: Life) -> None:
        wires = [wire for wire in life.wires if not wire.is_cut]
        if wires:
            wire = self.world.rng.choice(wires)
            self.world.happen("cut", wire.number)
            wire.cut()

    def _stall(self, life: Life, most_s: float = 8.0) -> None:
        wires = [wire for wire in life.wires if not wire.is_cut]
        if wires:
            wire = self.world.rng.choice(wires)
            self.world.happen("stall", wire.number)
            wire.stall(self.world.rng.uniform(0, most_s))

    def _swallow(self, life: Life) -> None:
        self._stall(life, 1000.0)

    def _kill(self, life: Life) -> None:
        life.kill()

    def _restart(self, life: Life) -> None:
        if life.is_up:
            self.world.happen("drain", life.number)
            life.drain()

    def _crash_room(self, life: Life) -> None:
        rooms = list(life.broker.hub)
        if rooms:
            room = self.world.rng.choice(rooms)
            self.world.happen("room crashed", room.name, room.journal.pending)
            life.broker.hub.crash(room)

    def _leap(self, life: Life) -> None:
        by_ms = self.world.rng.choice(LEAPS_MS)
        self.world.happen("clock leaps", by_ms)
        self.world.wall_leap_ms += by_ms

    def _look(self) -> None:
        verdict.look(self.cast)
        self.world.later(LOOK_S, self._look)


def simulate(seed: int, **weather: float) -> World:
    """One world from one seed; AssertionError and the like if something that must be true was not.

    ``weather``: what shall not be as the seed says, by the names of `Weather`.
    """
    with tempfile.TemporaryDirectory(prefix="sim-", dir=MEMORY) as name:

        async def main(world: World) -> None:
            world.weather = world.weather._replace(**weather)  # type: ignore[arg-type]  # as the caller says
            with mock.patch.object(inboxes, "MAX_USERS", world.weather.inbox_users):
                await Show(world, Path(name)).run()

        return run_world(seed, main)
