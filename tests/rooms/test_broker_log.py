"""The broker's log of one node: what it submits and follows, in the order of the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio
import trio.testing

from broker.engine.base import EngineUnavailable, OwnerRecord, StoredLogItem
from broker.ledger import Committed, CopyCleared, Item, Key, LedgerError, LedgerResult, RecordPut
from broker.rooms.broker_log import (
    FOLLOW_S,
    PATIENCE_S,
    REACH_S,
    STALE_S,
    BrokerLog,
    Followed,
    LogPart,
    OnHeld,
    pack_part,
)
from broker.rooms.submissions import pack_submission
from protocol.frames import pack_body

ITEM = RecordPut("k", "s", "", 1, b"")


class Facts:
    """An engine that has facts."""

    def __init__(self) -> None:
        self.facts: list[StoredLogItem] = []
        self.last = 0
        self.note = b"1"
        self.is_away = False

    def add(self, body: bytes) -> None:
        self.last += 1
        self.facts.append(StoredLogItem(1, 0, self.last, None, 1, 1, body))

    def lose(self) -> None:
        """Lose all data."""
        self.facts, self.last, self.note = [], 0, b""

    async def read_facts(self, room: str, number: int, count: int) -> Sequence[StoredLogItem]:
        await trio.lowlevel.checkpoint()
        if self.is_away:
            raise EngineUnavailable("away")
        return [each for each in self.facts if each.fact > number][:count]

    async def owner(self, room: str) -> OwnerRecord | None:
        await trio.lowlevel.checkpoint()
        return OwnerRecord("b", 1, 0, self.last, self.note, False) if self.last else None


class Node:
    """A node "a" with its log, and what it has taken over."""

    def __init__(self) -> None:
        self.engine = Facts()
        self.followed: list[tuple[str, bool]] = []
        self.reports: list[tuple[str, int, int]] = []
        self.results: list[LedgerResult] = []
        self.log = BrokerLog(self.engine, self.apply, self.flush)  # type: ignore[arg-type]  # only facts are read
        self.log.origin, self.log.submit = ("a", "life"), self.engine.add
        self.log.follow = self.follow
        self.applied: list[Item] = []
        self.filled = 0
        self.log.on_filled = self.on_filled
        self.log.report = lambda node, fact, links: self.reports.append((node, fact, links))

    async def apply(
        self, items: tuple[Item, ...], keys: tuple[Key, ...], on_done: Callable[[LedgerResult], None]
    ) -> bool:
        await trio.lowlevel.checkpoint()
        assert items, "a ledger takes no submission without items"
        self.applied += items
        on_done(Committed())
        return True

    async def on_filled(self) -> None:
        await trio.lowlevel.checkpoint()
        self.filled += 1

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()

    def follow(self, items: Sequence[Item], result: LedgerResult, is_own: bool, on_held: OnHeld) -> None:
        (item,) = items
        assert isinstance(item, RecordPut)
        self.followed.append((item.subject, is_own))
        on_held(3)

    def part(self, part: LogPart, *subjects: str) -> None:
        """Let the log have a part of a checkpoint."""
        self.engine.add(pack_part(part, [RecordPut("k", subject, "", 1, b"") for subject in subjects]))

    def other(self, subject: str, life: str = "other") -> None:
        """Let the log have a submission of the node "b"."""
        item = RecordPut("k", subject, "", 1, b"")
        self.engine.add(pack_body((("b", life), 1, pack_submission((item,), ()))))


async def test_all_nodes_take_over_what_the_log_has_in_its_order() -> None:
    node = Node()
    node.other("first")
    assert node.log.record((ITEM,), (), node.results.append)
    node.other("last")
    assert node.results == []
    await node.log.catch_up()
    assert node.followed == [("first", False), ("s", True), ("last", False)]
    assert node.results == [Committed()]
    assert node.reports == [("b", 1, 3), ("b", 3, 3)]
    await node.log.catch_up()
    assert len(node.followed) == 3


async def test_a_submission_of_an_earlier_life_of_this_node_is_anothers() -> None:
    node = Node()
    item = pack_submission((ITEM,), ())
    node.engine.add(pack_body((("a", "before"), 1, item)))
    node.log.record((ITEM,), (), node.results.append)
    await node.log.catch_up()
    assert node.followed == [("s", False), ("s", True)]
    assert len(node.results) == 1


async def test_a_change_waits_for_the_other_nodes_even_where_they_are_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node = Node()
    node.log.record((ITEM,), (), node.results.append)
    node.log.reported("b", 1, 2)
    await node.log.catch_up()
    assert await node.log.wait_followed(lambda: ["b"]) == Followed((), 2)
    begun = trio.current_time()
    assert await node.log.wait_followed(lambda: ["b", "c"]) == Followed(("c",), 2)
    assert trio.current_time() - begun >= REACH_S


async def test_a_submission_that_the_log_never_has_is_answered(autojump_clock: trio.testing.MockClock) -> None:
    node = Node()
    node.log.submit = lambda body: None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.log.run)
        node.log.record((ITEM,), (), node.results.append)
        await trio.sleep(PATIENCE_S - FOLLOW_S)
        assert node.results == []
        await trio.sleep(3 * FOLLOW_S)
        (result,) = node.results
        assert isinstance(result, LedgerError)
        nursery.cancel_scope.cancel()


async def test_a_node_that_cannot_read_the_log_is_stale_until_it_can(autojump_clock: trio.testing.MockClock) -> None:
    node = Node()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.log.run)
        await trio.sleep(STALE_S * 2)
        assert not node.log.is_stale
        node.engine.is_away = True
        await trio.sleep(STALE_S - FOLLOW_S)
        assert not node.log.is_stale
        await trio.sleep(3 * FOLLOW_S)
        assert node.log.is_stale
        node.engine.is_away = False
        await trio.sleep(2 * FOLLOW_S)
        assert not node.log.is_stale
        nursery.cancel_scope.cancel()


async def test_a_log_that_the_engine_has_lost_is_followed_anew() -> None:
    node = Node()
    for subject in ("first", "second"):
        node.other(subject)
    await node.log.catch_up()
    node.engine.lose()
    await node.log.catch_up()
    node.engine.note = b"2"
    node.other("third")
    await node.log.catch_up()
    assert [subject for subject, _ in node.followed] == ["first", "second", "third"]


async def test_a_log_is_whole_again_at_the_end_of_a_checkpoint_that_its_owner_has_written() -> None:
    node = Node()
    node.other("first")
    await node.log.catch_up()
    assert not node.log.has_lost
    node.engine.lose()
    await node.log.catch_up()
    node.engine.note = b"2"
    for part, has_lost in ((LogPart.BEGIN_ANEW, True), (LogPart.ROWS, True), (LogPart.END, False)):
        node.part(part, *(("first",) if part is LogPart.ROWS else ()))
        await node.log.catch_up()
        assert node.log.has_lost is has_lost


def record(subject: str) -> RecordPut:
    return RecordPut("k", subject, "", 1, b"")


async def test_a_node_that_begins_fills_its_copy_with_a_checkpoint_and_follows_what_comes_behind_it() -> None:
    node = Node()
    node.engine.last = 100  # what was before was cut
    node.part(LogPart.BEGIN)
    node.part(LogPart.ROWS, "x")
    node.other("between")
    node.part(LogPart.ROWS, "y")
    node.part(LogPart.END)
    node.other("behind")
    await node.log.catch_up()
    assert node.applied == [record("x"), record("between"), record("y"), record("behind")]
    assert node.followed == [("between", False), ("behind", False)]
    assert (node.filled, node.log.is_filling) == (1, False)
    assert node.log.begun_at == 101


async def test_a_node_that_follows_passes_a_checkpoint_over_and_knows_when_the_next_is_due() -> None:
    node = Node()
    node.other("first")
    await node.log.catch_up()
    before = node.log.since_bytes
    assert before > 0
    node.part(LogPart.BEGIN)
    node.other("between")
    node.part(LogPart.ROWS, "first")
    node.part(LogPart.END)
    await node.log.catch_up()
    assert node.applied == [record("first"), record("between")]
    assert node.filled == 0
    assert node.log.since_bytes == before + len("between") - len("first")
    assert node.log.checkpoint_bytes > 0


async def test_a_node_that_was_away_until_the_log_was_cut_fills_its_copy_anew() -> None:
    node = Node()
    node.other("gone meanwhile")
    await node.log.catch_up()
    node.engine.last = 50
    node.part(LogPart.BEGIN)
    node.part(LogPart.ROWS, "x")
    node.part(LogPart.END)
    await node.log.catch_up()
    cleared = next(index for index, item in enumerate(node.applied) if isinstance(item, CopyCleared))
    assert node.applied[cleared + 1 :] == [record("x")]
    assert node.filled == 1


async def test_a_node_that_begins_waits_for_the_end_of_a_log_that_is_written_again() -> None:
    node = Node()
    node.part(LogPart.BEGIN_ANEW)
    node.part(LogPart.ROWS, "x")
    await node.log.catch_up()
    assert (node.log.is_filling, node.filled) == (True, 0)
    node.part(LogPart.END)
    await node.log.catch_up()
    assert (node.log.is_filling, node.filled) == (False, 1)
    other = Node()
    other.part(LogPart.BEGIN_ANEW)
    await other.log.catch_up()
    await other.log.complete()
    assert not other.log.is_filling


async def test_what_the_log_has_lost_of_its_end_is_not_taken_over_twice() -> None:
    node = Node()
    for subject in ("first", "second"):
        node.other(subject)
    await node.log.catch_up()
    node.engine.facts.pop()
    node.engine.last -= 1
    await node.log.catch_up()
    node.other("third")
    await node.log.catch_up()
    assert [subject for subject, _ in node.followed] == ["first", "second", "third"]


async def test_a_node_that_begins_with_two_checkpoints_takes_what_the_first_has_once() -> None:
    node = Node()
    node.log.first_holds = frozenset({"k"})
    node.engine.last = 100  # what was before was cut, and what is before the second checkpoint was not yet
    for _ in range(2):
        node.part(LogPart.BEGIN)
        node.part(LogPart.ROWS, "x")
        node.part(LogPart.END)
    await node.log.catch_up()
    assert node.applied == [record("x")]
    assert (node.filled, node.log.is_filling) == (1, False)


async def test_of_some_records_the_first_holds() -> None:
    node = Node()
    node.log.first_holds = frozenset({"k"})
    node.other("same")
    node.other("same")
    await node.log.catch_up()
    assert node.applied == [record("same")]
    assert len(node.followed) == 2


def test_a_node_that_takes_no_part_submits_nothing() -> None:
    async def main() -> None:
        node = Node()
        node.log.submit = None
        assert node.log.record((ITEM,), (), node.results.append) is None

    trio.run(main)


async def test_what_the_owner_alone_decides_is_appended_by_it_or_refused() -> None:
    node = Node()
    node.log.decided = frozenset({"k"})
    assert node.log.record((ITEM,), (), node.results.append) is None
    assert (node.engine.facts, node.results) == ([], [])

    def append(body: bytes) -> bool:
        node.engine.add(body)
        return True

    node.log.append = append
    assert node.log.record((ITEM,), (), node.results.append)
    await node.log.catch_up()
    assert node.results == [Committed()]
    assert node.log.record((ITEM._replace(kind="other"),), (), node.results.append)  # any node submits it
    assert len(node.engine.facts) == 2
