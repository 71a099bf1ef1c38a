"""The ledger of a node: what its rooms' logs keep, and what another node has of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from broker.engine.base import Engine, Granted, OwnerRecord
from broker.ledger import Committed, Entry, Item, Key, LedgerResult, Reader, RoomCheckpointed, RoomOpened, make_key
from broker.rooms.shared_ledger import REPLACED_KEPT, SharedLedger
from tests.support.engines import MARKER, memory_lab
from tests.support.until import until

ROOM = "room"


@asynccontextmanager
async def running_ledger(path: Path, engine: Engine) -> AsyncIterator[SharedLedger]:
    ledger = SharedLedger(path, engine=engine, unix_ms=lambda: 1)
    async with trio.open_nursery() as nursery:
        await nursery.start(ledger.run)
        yield ledger
        nursery.cancel_scope.cancel()


async def own(engine: Engine, ledger: SharedLedger) -> Granted:
    """Claim the room whoever has it, and take its log over."""
    known: OwnerRecord | None = await engine.owner(ROOM)
    granted = await engine.claim(ROOM, 0 if known is None else known.fence, MARKER)
    assert isinstance(granted, Granted)
    assert await ledger.open(ROOM, granted)
    return granted


async def submit(ledger: SharedLedger, *items: Item, keys: tuple[Key, ...] = ()) -> LedgerResult:
    """Submit, and return what comes of it."""
    found: list[LedgerResult] = []
    ledger.record(items, found.append, keys)
    await until(lambda: found)
    return found[0]


def announced(text: bytes) -> Entry:
    return Entry(ROOM, 7, 0, 4, 1, text)


async def test_another_owner_folds_what_is_left_of_the_log_to_the_same_room(tmp_path: Path) -> None:
    async with memory_lab() as lab:
        a, b = [(await lab.open(name))[0] for name in "ab"]
        async with running_ledger(tmp_path / "a", a) as first, running_ledger(tmp_path / "b", b) as second:
            await own(a, first)
            assert isinstance(await submit(first, RoomOpened(ROOM, 7, 1)), Committed)
            assert await submit(first, announced(b"one"), keys=(make_key("k"),)) == Committed((1,))
            for number in range(3 * REPLACED_KEPT):
                await submit(first, RoomCheckpointed(ROOM, 7, 1, b"%d" % number))
            assert await submit(first, announced(b"two")) == Committed((2,))
            left = await a.read_facts(ROOM, 0, 1000)
            assert len(left) <= REPLACED_KEPT + 4
            assert left[-1].fact == 3 * REPLACED_KEPT + 3
            await own(b, second)
            entries = [each.body for each in await second.ask(Reader.latest, ROOM, 7, 0, 10)]
            assert entries == [b"one", b"two"]
            first_use = await second.ask(Reader.first_result, make_key("k").digest)
            assert first_use is not None
            assert first_use.offset == 1
            assert await submit(second, announced(b"three")) == Committed((3,))
            await own(a, first)  # it goes on behind what it had
            assert await submit(first, announced(b"four")) == Committed((4,))
