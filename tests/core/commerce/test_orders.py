"""Orders of a room: each counted once, at most two a second shown, names masked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.strategies import integers, permutations, sampled_from

from broker.core.commerce import orders
from broker.core.commerce.activity import Fact
from broker.core.commerce.orders import SHOWN_EVERY_MS, CountOrderCommand, RoomOrders
from protocol.activities.orders import OrderShown
from protocol.codes import ErrorCode
from protocol.operations.orders import CountedOrder, OrderStatus
from tests.support.activities import ActivityDriver, platform
from tests.support.examples import examples

START_MS = 1_790_000_000_000
BOUGHT, CANCELLED = OrderStatus.BOUGHT, OrderStatus.CANCELLED


def order(
    id: str, version: int = 1, status: OrderStatus = BOUGHT, name: str = "Wei", quantity: int = 1
) -> CountOrderCommand:
    return CountOrderCommand(id, version, status, "mug", name, quantity)


def counted(driver: ActivityDriver) -> list[Fact]:
    return [fact for fact in driver.facts if fact.name == "counted"]


class OrdersMachine(RuleBasedStateMachine):
    """Any order of reports, commits, refusals and restarts."""

    @initialize()
    def begin(self) -> None:
        self.driver = ActivityDriver(RoomOrders, START_MS)
        self.shown: list[OrderShown] = []

    @rule(id=sampled_from("abcdef"), version=integers(1, 4), status=sampled_from(OrderStatus))
    def count(self, id: str, version: int, status: OrderStatus) -> None:
        self.driver.send(order(id, version, status), platform)

    @rule(ms=integers(0, 700))
    def wait(self, ms: int) -> None:
        self.driver.advance(ms)

    @precondition(lambda self: self.driver.is_under_way)
    @rule()
    def commit(self) -> None:
        self.driver.commit()

    @precondition(lambda self: self.driver.is_under_way)
    @rule()
    def refuse(self) -> None:
        self.driver.refuse()

    @rule()
    def restart(self) -> None:
        self.driver.restart()

    @invariant()
    def the_total_is_that_of_the_newest_statuses(self) -> None:
        self.driver.check()
        newest: dict[str, tuple[int, int]] = {}
        for fact in counted(self.driver):
            id, version, status = fact.data[:3]
            assert version > newest.get(id, (0, 0))[0]
            newest[id] = version, status
        folded: Any = self.driver.folded()
        assert folded.total == sum(status == BOUGHT for _, status in newest.values())

    @invariant()
    def at_most_two_a_second_are_shown_and_none_that_was_refused(self) -> None:
        if self.driver.is_under_way:
            return
        counter = self.driver.activity.counter()
        if counter is not None and (not self.shown or counter.data != self.shown[-1]):
            self.shown.append(counter.data)
        assert len(self.shown) <= 1 + (self.driver.now_ms - START_MS) // SHOWN_EVERY_MS
        assert sum(1 + each.plus for each in self.shown) <= len({fact.data[0] for fact in counted(self.driver)})

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        self.driver.pass_time(60_000)
        new = {fact.data[0]: fact.data[2] for fact in reversed(counted(self.driver))}
        shows = [fact for fact in self.driver.facts if fact.name == "shown"]
        assert bool(shows) == any(status == BOUGHT for status in new.values())
        assert len(self.driver.answers) + len(self.driver.lost) == self.driver.asked
        self.driver.check()


OrdersMachine.TestCase.settings = examples(60, steps=40)
TestOrders = OrdersMachine.TestCase


@given(reports=permutations([order("a", 1), order("a", 2, CANCELLED), order("b", 2), order("b", 1, CANCELLED)]))
def test_statuses_in_any_order_end_in_the_newest(reports: list[CountOrderCommand]) -> None:
    driver = ActivityDriver(RoomOrders)
    for report in reports:
        driver.ask(report, platform)
    assert driver.activity.total == 1


def test_an_order_is_counted_once() -> None:
    driver = ActivityDriver(RoomOrders)
    assert driver.ask(order("a"), platform) == CountedOrder("a", 1, BOUGHT, 1)
    assert driver.ask(order("a"), platform) == CountedOrder("a", 1, BOUGHT, 1)
    assert driver.refusal_of(order("a", quantity=2), platform).code is ErrorCode.KEY_REUSED
    assert driver.ask(order("a", 3, CANCELLED), platform) == CountedOrder("a", 3, CANCELLED, 0)
    refusal = driver.refusal_of(order("a", 2), platform)
    assert refusal.code is ErrorCode.STALE
    assert "version 3" in refusal.rule
    driver.restart()
    assert driver.ask(order("a", 3, CANCELLED), platform) == CountedOrder("a", 3, CANCELLED, 0)


def test_the_first_of_half_a_second_is_shown_with_the_number_of_the_others() -> None:
    driver = ActivityDriver(RoomOrders)
    for number in range(5):
        driver.ask(order(f"o{number}", name=f"{number}sun", quantity=number + 1), platform)
        driver.pass_time(10)
    assert driver.activity.counter() is None
    driver.pass_time(SHOWN_EVERY_MS)
    assert driver.activity.counter().data == OrderShown("0***", "mug", 1, 4, 5)
    driver.ask(order("late"), platform)
    driver.pass_time(SHOWN_EVERY_MS)
    assert driver.activity.counter().data == OrderShown("W***", "mug", 1, 0, 6)
    driver.ask(order("late", 2, CANCELLED), platform)
    driver.pass_time(10 * SHOWN_EVERY_MS)
    assert driver.activity.counter().data.total == 6
    assert driver.activity.view(False) is None


@pytest.mark.parametrize(
    ("name", "masked"),
    [
        ("", "***"),
        ("W", "W***"),
        ("Wei", "W***"),
        ("王小明", "王***"),
        ("👩🏽‍🚀 Ann", "👩🏽‍🚀***"),
        ("e\u0301a", "e\u0301***"),
    ],
)
def test_a_name_is_masked_in_facts_and_on_screens(name: str, masked: str) -> None:
    driver = ActivityDriver(RoomOrders)
    driver.ask(order("a", name=name), platform)
    driver.pass_time(SHOWN_EVERY_MS)
    assert driver.activity.counter().data.name == masked
    assert [fact.data[4] for fact in counted(driver)] == [masked]


def test_an_order_is_shown_once_over_a_restart() -> None:
    driver = ActivityDriver(RoomOrders)
    driver.ask(order("a"), platform)
    driver.restart()
    driver.pass_time(SHOWN_EVERY_MS)
    shown = driver.activity.counter()
    driver.restart()
    driver.pass_time(SHOWN_EVERY_MS)
    assert driver.activity.counter() == shown
    assert [fact.name for fact in driver.facts] == ["counted", "shown"]


def test_a_room_counts_so_many_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "MAX_ORDERS", 100)
    driver = ActivityDriver(RoomOrders)
    for number in range(100):
        assert isinstance(driver.ask(order(f"o{number}"), platform), CountedOrder)
    assert driver.refusal_of(order("one-more"), platform).code is ErrorCode.OUT_OF_STATE
