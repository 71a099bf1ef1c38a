"""Scenario of the simulated world: the clients, the faults, the end of the faults, and the checks.

For `FAULTS_S` the seed's conditions break links, disk, clock and process, at any step. Then no fault is injected any
more, and within `HEAL_S` every promise must have been kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import trio

from broker.users import inbox as inboxes
from protocol.codes import Tier
from tests.simulation import checks
from tests.simulation.access_probes import ACCESS_PROBES
from tests.simulation.actors import Actors
from tests.simulation.broker import BrokerRun
from tests.simulation.contest_actors import Contest
from tests.simulation.disk import Disk
from tests.simulation.epilogue import Backup, check_changed_copies, check_files, run_restored
from tests.simulation.kept_actors import Keeper, Moderator, Pinner
from tests.simulation.probes import STREAM_PROBES, run_probes
from tests.simulation.shop_actors import Shop
from tests.simulation.world import World, run_world
from tests.support.faulty_disk import MEMORY

__all__ = ["Scenario", "simulate"]

FAULTS_S = 15.0
"""Virtual seconds during which faults are injected."""
HEAL_S = 300.0
"""Virtual seconds within which every promise must have been kept: longer than any backoff."""
CHECK_INTERVAL_S = 0.5
"""Virtual seconds between two checks of the broker's accounts and bounds."""
PROBES = STREAM_PROBES | ACCESS_PROBES
LEAPS_MS = (-40 * 86_400_000, -3_600_000, -61_000, 61_000, 3_600_000, 40 * 86_400_000)


class Scenario:
    """Course of one world."""

    def __init__(self, world: World, directory: Path) -> None:
        self.world = world
        self.spare = directory / "spare"
        """For copies of the ledger."""
        for path in (self.spare, directory / "data", self.spare / "restored"):
            path.mkdir(mode=0o700)
        self.disk = Disk(world, directory / "data")
        self.actors = Actors(world, self.disk)
        self.run_count = 0

    async def run_brokers(self) -> None:
        """Run one broker after another."""
        while True:
            await self.world.pause(1.0)
            self.run_count += 1
            broker_run = self.actors.broker_run = BrokerRun(self.world, self.disk, self.run_count)
            await broker_run.run()

    async def run(self) -> None:
        """Run the clients and the faults, then the checks."""
        world, actors = self.world, self.actors
        backup: Backup | None = None
        keeper, shop = Keeper(actors), Shop(actors)
        contest = Contest(actors, shop.call)
        self.start_faults()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run_brokers)
            nursery.start_soon(actors.view, "ann", Tier.FULL, Tier.MEDIUM)
            nursery.start_soon(actors.view, "ann:viewer")
            nursery.start_soon(actors.view, "bob", Tier.FULL, Tier.LOW)
            nursery.start_soon(partial(actors.view, "eve", Tier.LOW, inbox_items=3))
            for part in (
                actors.visit,
                actors.chat,
                actors.shop,
                actors.host,
                actors.platform,
                actors.mail,
                actors.short_lived_device,
                keeper.run,
                Pinner(actors).run,
                Moderator(actors).run,
                shop.run,
                contest.run,
            ):
                nursery.start_soon(part)
            await trio.sleep(FAULTS_S / 2)
            if world.conditions.restores:
                backup = await Backup.make(self.disk, self.spare)
            await trio.sleep(FAULTS_S / 2)
            world.healed = True
            world.trace("healed")
            await run_probes(world, actors, PROBES)
            with trio.move_on_after(HEAL_S):
                while (missing := checks.unfinished(actors) or contest.unfinished()) is not None:  # noqa: ASYNC110 - the conditions have no event
                    await trio.sleep(CHECK_INTERVAL_S)
            assert missing is None, f"{HEAL_S:g} s after the last fault: {missing}"
            checks.check_invariants(actors)
            nursery.cancel_scope.cancel()
        if actors.broker_run is not None:
            actors.broker_run.kill()
        checks.check(actors)
        keeper.check_ledger(self.disk.path)
        shop.check_ledger(self.disk.path)
        contest.check(self.disk.path)
        check_files(self.disk.directory)
        check_changed_copies(world, self.disk.path, self.spare / "changed")
        if backup is not None:
            await run_restored(
                world, actors, keeper, backup, self.spare / "restored", lambda: world.rng.getrandbits(48)
            )

    # ---- faults

    def start_faults(self) -> None:
        """Schedule every kind of fault at random times, at the rates of the conditions."""
        conditions = self.world.conditions
        for rate, what in (
            (conditions.cuts, self._cut),
            (conditions.black_holes, self._black_hole),
            (conditions.stalls, self._stall),
            (conditions.kills, self._kill),
            (conditions.restarts, self._restart),
            (conditions.room_crashes, self._crash_room),
            (conditions.leaps, self._leap),
        ):
            if rate:
                self._again(rate, what, is_first=True)
        self._check_invariants()

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
            self.world.count_event("cut", wire.number)
            wire.cut()

    def _stall(self, broker_run: BrokerRun, most_s: float = 8.0) -> None:
        wires = [wire for wire in broker_run.wires if not wire.is_cut]
        if wires:
            wire = self.world.rng.choice(wires)
            self.world.count_event("stall", wire.number)
            wire.stall(self.world.rng.uniform(0, most_s))

    def _black_hole(self, broker_run: BrokerRun) -> None:
        self._stall(broker_run, 1000.0)

    def _kill(self, broker_run: BrokerRun) -> None:
        broker_run.kill()

    def _restart(self, broker_run: BrokerRun) -> None:
        if broker_run.is_up:
            self.world.count_event("drain", broker_run.number)
            broker_run.drain()

    def _crash_room(self, broker_run: BrokerRun) -> None:
        rooms = list(broker_run.broker.hub)
        if rooms:
            room = self.world.rng.choice(rooms)
            self.world.count_event("room crashed", room.name, room.journal.pending)
            broker_run.broker.hub.crash(room)

    def _leap(self, broker_run: BrokerRun) -> None:
        by_ms = self.world.rng.choice(LEAPS_MS)
        self.world.count_event("clock leaps", by_ms)
        self.world.wall_leap_ms += by_ms

    def _check_invariants(self) -> None:
        checks.check_invariants(self.actors)
        self.world.later(CHECK_INTERVAL_S, self._check_invariants)


def simulate(seed: int, **conditions: Any) -> World:
    """Run the world of a seed; raises (mostly AssertionError) where a promise was broken.

    :param conditions: values that replace those of the seed, by the names of `Conditions`.
    """
    with tempfile.TemporaryDirectory(prefix="sim-", dir=MEMORY) as name:

        async def main(world: World) -> None:
            world.conditions = world.conditions._replace(**conditions)
            with mock.patch.object(inboxes, "MAX_USERS", world.conditions.inbox_users):
                await Scenario(world, Path(name)).run()

        return run_world(seed, main)
