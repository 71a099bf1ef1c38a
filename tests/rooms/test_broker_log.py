"""The broker's log of one node: what it submits and follows, in the order of the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio
import trio.testing

from broker.engine.base import EngineUnavailable, OwnerRecord, StoredLogItem
from broker.ledger import Committed, Item, Key, LedgerError, LedgerResult, RecordPut
from broker.rooms.broker_log import FOLLOW_S, PATIENCE_S, REACH_S, STALE_S, BrokerLog, Followed
from broker.rooms.submissions import pack_submission
from protocol.frames import pack_body

ITEM = RecordPut("k", "s", "", 1, b"")


class Facts:
    """An engine that has facts."""

    def __init__(self) -> None:
        self.facts: list[StoredLogItem] = []
        self.is_away = False

    def add(self, body: bytes) -> None:
        self.facts.append(StoredLogItem(1, 0, len(self.facts) + 1, None, 1, 1, body))

    async def read_facts(self, room: str, number: int, count: int) -> Sequence[StoredLogItem]:
        await trio.lowlevel.checkpoint()
        if self.is_away:
            raise EngineUnavailable("away")
        return [each for each in self.facts if each.fact > number][:count]

    async def owner(self, room: str) -> OwnerRecord | None:
        await trio.lowlevel.checkpoint()
        return OwnerRecord("b", 1, 0, len(self.facts), b"", False) if self.facts else None


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
        self.log.report = lambda node, fact, links: self.reports.append((node, fact, links))

    async def apply(
        self, items: tuple[Item, ...], keys: tuple[Key, ...], on_done: Callable[[LedgerResult], None]
    ) -> bool:
        await trio.lowlevel.checkpoint()
        on_done(Committed())
        return True

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()

    def follow(self, items: Sequence[Item], result: LedgerResult, is_own: bool) -> int:
        (item,) = items
        assert isinstance(item, RecordPut)
        self.followed.append((item.subject, is_own))
        return 3

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
    node.engine.facts.clear()
    await node.log.catch_up()
    node.other("third")
    await node.log.catch_up()
    assert [subject for subject, _ in node.followed] == ["first", "second", "third"]


def test_a_node_that_takes_no_part_submits_nothing() -> None:
    async def main() -> None:
        node = Node()
        node.log.submit = None
        assert node.log.record((ITEM,), (), node.results.append) is None

    trio.run(main)
