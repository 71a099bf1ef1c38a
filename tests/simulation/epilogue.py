"""End of a world: its files, changed copies of its ledger, and a ledger that was restored from a backup.

A copy of the ledger that was changed must not verify, and an older one beside the newest high-water mark must
not be served. A restored ledger is another history: its rooms have new epochs, a position of the old history is never
recovered, and inbox numbers never repeat.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import trio

from broker.ledger import LedgerCut, LedgerDamaged, LedgerRefused, Reader, database_path
from broker.ledger.backup import back_up
from broker.ledger.head import Head
from broker.ledger.restore import restore
from broker.ledger.schema import mark_path
from protocol.clients import PipeLost
from protocol.codes import Tier
from protocol.messages import ErrorReply, Join, Resume
from tests.simulation.actors import ROOMS, USERS, Actors
from tests.simulation.broker import BrokerRun
from tests.simulation.disk import Disk
from tests.simulation.kept_actors import KEYS_ROOM, Keeper
from tests.simulation.probes import Prober
from tests.simulation.raw import LinkEnded
from tests.simulation.world import World

__all__ = ["Backup", "check_changed_copies", "check_files", "run_restored"]

CHANGES = (
    "DELETE FROM directs WHERE id = (SELECT max(id) FROM directs)",
    "UPDATE directs SET state = 1 - state WHERE id = (SELECT max(id) FROM directs WHERE state < 2)",
    "UPDATE inboxes SET acked_id = last_id + 1 WHERE user = (SELECT max(user) FROM inboxes)",
    "DELETE FROM inboxes WHERE user = (SELECT max(user) FROM inboxes)",
    "DELETE FROM keys WHERE digest = (SELECT max(digest) FROM keys)",
    "UPDATE keys SET offset = offset + 1 WHERE digest = (SELECT min(digest) FROM keys)",
    "UPDATE streams SET ended_at_ms = 1 WHERE ended_at_ms IS NULL AND stream = (SELECT max(stream) FROM streams)",
    "UPDATE checkpoints SET totals = x'00' WHERE stream = (SELECT max(stream) FROM checkpoints)",
    "UPDATE entries SET body = x'00' WHERE seq = (SELECT max(seq) FROM entries)",
    "DELETE FROM entries WHERE seq = (SELECT min(seq) + 1 FROM entries)",
)
"""Changes of a ledger that were made beside the broker."""


def check_files(directory: Path) -> None:
    """Check that no file of a data directory is open to other users."""
    found = {path.name: oct(path.stat().st_mode & 0o777) for path in directory.iterdir() if path.stat().st_mode & 0o077}
    assert not found, f"files that others may read: {found}"


def check_changed_copies(world: World, path: Path, spare: Path) -> None:
    """Check that a ledger does not verify after one of `CHANGES`, which the seed chooses."""
    change = world.rng.choice(CHANGES)
    spare.mkdir(mode=0o700)
    copy = database_path(spare)
    source, target = sqlite3.connect(path), sqlite3.connect(copy)
    try:
        source.backup(target)
        is_changed = target.execute(change).rowcount
        target.commit()
    finally:
        source.close()
        target.close()
    if is_changed and not _is_damaged(copy):
        raise AssertionError(f"a ledger verifies after {change}")


def _is_damaged(path: Path) -> bool:
    try:
        reader = Reader(path)
        try:
            reader.verify_all()
        finally:
            reader.close()
    except LedgerDamaged:
        return True
    return False


class Backup:
    """Copies of a ledger that were made while it was in use: a verified backup, and the file alone."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "backup.db"
        self.bare = directory / "bare.db"

    @classmethod
    async def make(cls, disk: Disk, directory: Path) -> Backup:
        """Copy a ledger as soon as there is one."""
        backup = cls(directory)
        while True:
            try:
                reader = Reader(disk.path)
            except LedgerRefused:
                await trio.sleep(0.5)
                continue
            try:
                back_up(reader, backup.path)
                target = sqlite3.connect(backup.bare)
                reader.connection.backup(target)
                target.close()
            finally:
                reader.close()
            return backup


def _head(path: Path) -> Head:
    reader = Reader(path)
    try:
        return reader.ends()[0]
    finally:
        reader.close()


async def run_restored(
    world: World, actors: Actors, keeper: Keeper, backup: Backup, directory: Path, new_epoch: Callable[[], int]
) -> None:
    """Restore the backup, or the older file beside the newest mark; run a broker on it and come back to it."""
    now_ms = world.wall_ms()
    if world.rng.random() < 0.5:
        restore(directory, backup.path, now_ms=now_ms, new_epoch=new_epoch)
    else:
        shutil.copy(backup.bare, database_path(directory))
        shutil.copy(mark_path(actors.disk.directory), mark_path(directory))
        is_older = _head(backup.bare) != _head(actors.disk.path)
        if is_older:
            await _check_refused(world, directory)
        restore(directory, None, accept_loss=is_older, now_ms=now_ms, new_epoch=new_epoch)
    disk = Disk(world, directory)
    disk.skip_existing()
    async with trio.open_nursery() as nursery:
        run = actors.broker_run = BrokerRun(world, disk, 0)
        nursery.start_soon(run.run)
        prober = Prober(world, actors, "restored", 0)
        await prober.until_up()
        for _ in range(5):
            try:
                await _check_restored(prober, actors, keeper)
            except (LinkEnded, PipeLost) as error:
                world.trace("restored again", repr(error))
                await trio.sleep(2.0)
            else:
                break
        else:
            raise AssertionError("the restored broker does not serve")
        world.count_event("restored")
        run.kill()


async def _check_refused(world: World, directory: Path) -> None:
    """Check that a ledger that lacks acknowledged entries is neither restored silently nor served."""
    try:
        restore(directory, None, now_ms=world.wall_ms())
    except LedgerCut:
        pass
    else:
        raise AssertionError("a restore has dropped acknowledged entries without a word")
    run = BrokerRun(world, Disk(world, directory), 0)
    refused = world.happened["not up"]
    with trio.move_on_after(5.0):
        await run.run()
    assert world.happened["not up"] > refused, "a ledger without its last entries is served"


async def _check_restored(p: Prober, actors: Actors, keeper: Keeper) -> None:
    async with p.link("back", "host") as link:
        entered = await link.enter(Join(KEYS_ROOM))
        if isinstance(entered, ErrorReply):
            raise LinkEnded(str(entered))
        keeper.check_restored(entered[1])
        for name in ROOMS:
            (epoch, stream), *_ = [(key[1], stream) for key, stream in actors.disk.streams.items() if key[0] == name]
            for offset in (len(stream), max(0, len(stream) - 2)):
                found = await link.enter(Resume(name, Tier.FULL, epoch, offset))
                if isinstance(found, ErrorReply):
                    raise LinkEnded(str(found))
                number, snapshot, resumed = found
                assert snapshot.epoch != epoch, f"{name} goes on in the epoch of the lost history"
                assert resumed is None or not resumed.recovered, f"{name}: a position of the lost history is recovered"
                await link.leave(number)
    for user in USERS:
        number = await p.send_direct(user, "after the restore", 3_600_000)
        assert number > len(actors.sent[user]), f"{user} gets the number {number} again"
