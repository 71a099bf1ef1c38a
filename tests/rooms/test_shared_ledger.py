"""The ledger of a node: what its rooms' logs keep, and what another node has of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from broker.engine.base import Engine, Granted, OwnerRecord
from broker.ledger import (
    Committed,
    Entry,
    Item,
    Key,
    LedgerResult,
    OutboxDone,
    OutboxEntry,
    Reader,
    Repeated,
    RoomCheckpointed,
    RoomOpened,
    StoredOutbox,
    make_key,
)
from broker.rooms.shared_ledger import AGAIN, REPLACED_KEPT, SharedLedger
from tests.support.engines import MARKER, EngineLab, memory_lab
from tests.support.redis_server import redis_lab
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


async def own_again(engine: Engine, ledger: SharedLedger, held: int) -> None:
    """Claim the room of which the engine knows nothing, as a node does that had it under the fence ``held``."""
    granted = await engine.claim(ROOM, 0, MARKER._replace(body=AGAIN), floor_fence=held)
    assert isinstance(granted, Granted)
    assert granted.is_new
    assert ledger.go_on(ROOM, granted)


async def texts(ledger: SharedLedger) -> list[bytes]:
    """Return the announcements that the copy of a node has."""
    return [each.body for each in await ledger.ask(Reader.latest, ROOM, 7, 0, 100)]


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
            assert await texts(second) == [b"one", b"two"]
            first_use = await second.ask(Reader.first_result, make_key("k").digest)
            assert first_use is not None
            assert first_use.offset == 1
            assert await submit(second, announced(b"three")) == Committed((3,))
            await own(a, first)  # it goes on behind what it had
            assert await submit(first, announced(b"four")) == Committed((4,))


async def test_the_owner_writes_a_room_again_that_the_engine_has_lost(tmp_path: Path) -> None:
    """No viewer notices: offsets and keys go on; another node that had the room before drops what it had."""
    async with memory_lab() as lab:
        a, b = [(await lab.open(name))[0] for name in "ab"]
        async with running_ledger(tmp_path / "a", a) as first, running_ledger(tmp_path / "b", b) as second:
            await own(b, second)
            await submit(second, RoomOpened(ROOM, 7, 1))
            await submit(second, announced(b"one"), keys=(make_key("one"),))
            granted = await own(a, first)
            second.close(ROOM)
            for number in range(2 * REPLACED_KEPT):  # the facts before are not numbered without holes any more
                await submit(first, RoomCheckpointed(ROOM, 7, 1, b"%d" % number))
            await submit(first, announced(b"two"), keys=(make_key("two"),))
            await lab.flush()
            found: list[LedgerResult] = []
            first.record((announced(b"three"),), found.append)
            await trio.testing.wait_all_tasks_blocked()
            assert found == []  # nothing is acknowledged that is nowhere
            await own_again(a, first, granted.fence)
            await until(lambda: found)
            assert found == [Committed((3,))]
            assert isinstance(await submit(first, announced(b"two"), keys=(make_key("two"),)), Repeated)
            await own(b, second)
            assert await texts(second) == [b"one", b"two", b"three"]
            assert isinstance(await submit(second, announced(b"one"), keys=(make_key("one"),)), Repeated)
            assert await submit(second, announced(b"four")) == Committed((4,))
            await own(a, first)
            assert await texts(first) == [b"one", b"two", b"three", b"four"]


async def test_the_end_of_a_log_that_the_engine_has_lost_is_written_again(tmp_path: Path) -> None:
    """As after a power cut with everysec."""
    async with memory_lab() as lab:
        a, b = [(await lab.open(name))[0] for name in "ab"]
        async with running_ledger(tmp_path / "a", a) as first, running_ledger(tmp_path / "b", b) as second:
            await own(a, first)
            await submit(first, RoomOpened(ROOM, 7, 1))
            for text in (b"one", b"two", b"three"):
                await submit(first, announced(text))
            lab.bus.data.cut_tail(ROOM, 0, facts=2)
            assert await submit(first, announced(b"four")) == Committed((4,))
            assert [each.fact for each in await a.read_facts(ROOM, 0, 100)] == [1, 2, 3, 4, 5]
            await own(b, second)
            assert await texts(second) == [b"one", b"two", b"three", b"four"]


async def test_a_log_whose_owner_died_while_it_wrote_it_again_is_owned_by_nobody(tmp_path: Path) -> None:
    async with memory_lab() as lab:
        a, b = [(await lab.open(name))[0] for name in "ab"]
        async with running_ledger(tmp_path / "b", b) as second:
            granted = await a.claim(ROOM, 0, MARKER._replace(body=AGAIN))
            assert isinstance(granted, Granted)
            taken = await b.claim(ROOM, granted.fence, MARKER)
            assert isinstance(taken, Granted)
            assert not await second.open(ROOM, taken)
            await b.note(ROOM, taken.fence, b"%d" % granted.fence)
            assert await second.open(ROOM, taken)


async def test_a_room_of_which_nobody_has_the_memory_begins_anew(tmp_path: Path) -> None:
    async with memory_lab() as lab:
        b = (await lab.open("b"))[0]
        async with running_ledger(tmp_path / "b", b) as second:
            await own(b, second)
            await submit(second, RoomOpened(ROOM, 7, 1))
            await submit(second, announced(b"one"))
            second.close(ROOM)
            await lab.flush()
            await own(b, second)
            assert await texts(second) == []
            assert await submit(second, announced(b"other")) == Committed((1,))


async def test_a_ledger_without_an_engine_that_is_not_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    async with memory_lab() as lab:
        with capture_logs() as lines:
            async with running_ledger(tmp_path, (await lab.open("a"))[0]):
                pass
    assert [line["path"] for line in lines if "is not read" in line["event"]] == [str(tmp_path / "ledger.db")]


async def test_copies_of_processes_that_were_killed_are_removed(tmp_path: Path) -> None:
    left = tmp_path / "copy-left"
    left.mkdir()
    (left / "ledger.lock").touch()
    async with memory_lab() as lab, running_ledger(tmp_path, (await lab.open("a"))[0]):
        assert not left.exists()
        async with running_ledger(tmp_path, (await lab.open("b"))[0]):
            assert len(list(await trio.Path(tmp_path).glob("copy-*"))) == 2  # that of a process that lives stays


def reported(text: bytes) -> OutboxEntry:
    return OutboxEntry("message.published", 1, text, "shop", f"room {ROOM}")


async def reports(ledger: SharedLedger) -> list[StoredOutbox]:
    """Return the reports that wait in the copy of a node."""
    return await ledger.ask(Reader.outbox_page, None, False, 0, 100)


async def until_rows(engine: Engine, count: int) -> None:
    """Wait until the engine has so many rows of the room's reports."""
    while len(await engine.read_outbox(ROOM, "", 100)) != count:  # noqa: ASYNC110 - the engine has no events of it
        await trio.sleep(0.01)


@pytest.mark.parametrize("make_lab", [memory_lab, pytest.param(redis_lab, marks=pytest.mark.integration)])
async def test_reports_are_at_the_owner_of_a_room_until_they_are_done(
    make_lab: Callable[[], AbstractAsyncContextManager[EngineLab]], tmp_path: Path
) -> None:
    async with make_lab() as lab:
        a, b = [(await lab.open(name))[0] for name in "ab"]
        async with running_ledger(tmp_path / "a", a) as first, running_ledger(tmp_path / "b", b) as second:
            await own(a, first)
            await submit(first, RoomOpened(ROOM, 7, 1))
            await submit(first, announced(b"one"), reported(b"one"))
            await submit(first, reported(b"alone"))
            await submit(first, announced(b"two"), reported(b"two"), keys=(make_key("two"),))
            assert isinstance(await submit(first, reported(b"again"), keys=(make_key("two"),)), Repeated)
            at_first = [(each.body, each.number) for each in await reports(first)]
            assert at_first == [(b"one", 1), (b"alone", 0), (b"two", 2)]
            done = (await reports(first))[0]
            await submit(first, OutboxDone((done.id,)))
            first.reports_done([done])
            await until_rows(a, 2)

            first.close(ROOM)
            await own(b, second)
            assert [(each.body, each.number) for each in await reports(second)] == at_first[1:]
            while await reports(first):  # noqa: ASYNC110 - a file has no events
                await trio.sleep(0.01)

            second.close(ROOM)
            await own(a, first)  # which had these facts before
            back = await reports(first)
            assert [(each.body, each.number) for each in back] == at_first[1:]
            first.reports_done(back)
            await until_rows(a, 0)
            assert await texts(first) == [b"one", b"two"]


async def test_facts_that_are_reports_alone_are_removed_once_they_are_done(tmp_path: Path) -> None:
    async with memory_lab() as lab:
        a, _ = await lab.open("a")
        async with running_ledger(tmp_path, a) as ledger:
            await own(a, ledger)
            await submit(ledger, RoomOpened(ROOM, 7, 1))
            for number in range(2 * REPLACED_KEPT):
                await submit(ledger, reported(b"%d" % number))
            assert len(await a.read_facts(ROOM, 0, 1000)) == 2 * REPLACED_KEPT + 1
            ledger.reports_done(await ledger.ask(Reader.outbox_page, None, False, 0, 1000))
            await until(lambda: not lab.bus.data.read_outbox(ROOM, "", 10))
            await submit(ledger, announced(b"one"))
            await until(lambda: len(lab.bus.data.read_facts(ROOM, 0, 1000)) <= 3)


async def test_reports_that_the_engine_has_lost_go_on_at_their_owner(tmp_path: Path) -> None:
    async with memory_lab() as lab:
        a, b = [(await lab.open(name))[0] for name in "ab"]
        async with running_ledger(tmp_path / "a", a) as first, running_ledger(tmp_path / "b", b) as second:
            granted = await own(a, first)
            await submit(first, RoomOpened(ROOM, 7, 1))
            await submit(first, announced(b"one"), reported(b"one"))
            await lab.flush()
            found: list[LedgerResult] = []
            first.record((announced(b"two"), reported(b"two")), found.append)
            await trio.testing.wait_all_tasks_blocked()
            await own_again(a, first, granted.fence)
            await until(lambda: found)
            waiting = await reports(first)
            assert [each.body for each in waiting] == [b"one", b"two"]
            first.reports_done(waiting)
            await until(lambda: not lab.bus.data.read_outbox(ROOM, "", 10))
            first.close(ROOM)
            await own(b, second)
            assert await reports(second) == []
