from __future__ import annotations

import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.structures.timer_wheel import Timed, TimerWheel
from tests.support.examples import examples


class Item:
    def __init__(self, name: str = "") -> None:
        self.name = name
        self.wheel_before: Timed | None = None
        self.wheel_after: Timed | None = None


def test_an_item_comes_out_after_its_time_and_at_most_one_slot_late() -> None:
    wheel: TimerWheel[Item] = TimerWheel(100.0, slot_s=1.0, slots=8)
    item = Item()
    wheel.add(item, 103.4)
    assert wheel.expire(103.4) == []
    assert wheel.expire(104.0) == [item]
    assert item.wheel_before is item.wheel_after is None
    assert wheel.expire(200.0) == []


def test_a_removed_item_never_comes_out() -> None:
    wheel: TimerWheel[Item] = TimerWheel(0.0)
    item = Item()
    wheel.add(item, 5.0)
    wheel.remove(item)
    wheel.remove(item)
    assert wheel.expire(1000.0) == []
    assert len(wheel) == 0


def test_an_exchanged_item_comes_out_in_the_place_of_the_other() -> None:
    wheel: TimerWheel[Item] = TimerWheel(0.0)
    old, new, other = Item("old"), Item("new"), Item("absent")
    wheel.add(old, 5.0)
    wheel.exchange(old, new)
    wheel.exchange(other, old)
    assert len(wheel) == 1
    assert wheel.expire(4.9) == []
    assert wheel.expire(6.0) == [new]
    assert old.wheel_before is old.wheel_after is other.wheel_before is None


def test_adding_again_moves_the_item() -> None:
    wheel: TimerWheel[Item] = TimerWheel(0.0)
    item = Item()
    wheel.add(item, 2.0)
    wheel.add(item, 9.0)
    assert len(wheel) == 1
    assert wheel.expire(5.0) == []
    assert wheel.expire(10.0) == [item]


def test_a_time_in_the_past_is_due_with_the_next_slot() -> None:
    wheel: TimerWheel[Item] = TimerWheel(50.0)
    item = Item()
    wheel.add(item, -3.0)
    assert wheel.expire(50.0) == [item]


def test_a_time_beyond_the_ring_comes_out_at_its_end_so_that_the_owner_looks_again() -> None:
    wheel: TimerWheel[Item] = TimerWheel(0.0, slot_s=1.0, slots=4)
    item = Item()
    wheel.add(item, 1000.0)
    assert wheel.expire(2.9) == []
    assert wheel.expire(3.0) == [item]


def test_after_a_sleep_longer_than_the_ring_the_oldest_slot_still_comes_first() -> None:
    wheel: TimerWheel[Item] = TimerWheel(5.0, slot_s=1.0, slots=4)
    items = [Item(str(n)) for n in range(3)]
    for n, item in enumerate(items):
        wheel.add(item, 5.5 + n)
    assert wheel.expire(21.0) == items
    late = Item()
    wheel.add(late, 21.5)
    assert wheel.expire(22.0) == [late]


@pytest.mark.parametrize(("slot_s", "slots"), [(0.0, 8), (-1.0, 8), (1.0, 1)])
def test_a_wheel_that_cannot_turn_is_refused(slot_s: float, slots: int) -> None:
    with pytest.raises(ValueError, match="a wheel has"):
        TimerWheel(0.0, slot_s, slots)


class WheelMachine(RuleBasedStateMachine):
    """Against a plain dict of due times."""

    SLOT_S = 0.5
    SLOTS = 16

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.wheel: TimerWheel[Item] = TimerWheel(self.now, self.SLOT_S, self.SLOTS)
        self.due: dict[Item, float] = {}
        self.added_at: dict[Item, float] = {}
        self.items = [Item(str(n)) for n in range(6)]

    @rule(n=st.integers(0, 5), wait_s=st.floats(-2, 20))
    def add(self, n: int, wait_s: float) -> None:
        item = self.items[n]
        self.due[item] = self.now + wait_s
        self.added_at[item] = self.now
        self.wheel.add(item, self.now + wait_s)

    @rule(n=st.integers(0, 5))
    def remove(self, n: int) -> None:
        self.due.pop(self.items[n], None)
        self.wheel.remove(self.items[n])

    @rule(passed_s=st.floats(0, 30))
    def expire(self, passed_s: float) -> None:
        self.now += passed_s
        out = self.wheel.expire(self.now)
        assert len(out) == len(set(out))
        for item in out:
            due = self.due.pop(item)
            is_beyond_the_ring = due - self.added_at[item] > self.SLOT_S * (self.SLOTS - 3)
            assert due <= self.now or is_beyond_the_ring, "an item came early"
        for item, due in self.due.items():
            assert max(due, self.added_at[item]) + self.SLOT_S >= self.now, "an item is more than one slot late"

    @precondition(lambda self: self.due)
    @rule()
    def everything_comes_out_in_the_end(self) -> None:
        out = self.wheel.expire(max(self.now, max(self.due.values())) + self.SLOT_S * (self.SLOTS + 1))
        self.now = math.ceil(max(self.now, max(self.due.values())) + self.SLOT_S * (self.SLOTS + 1))
        assert set(out) == set(self.due)
        self.due.clear()

    @invariant()
    def holds_what_was_added(self) -> None:
        assert len(self.wheel) == len(self.due)
        assert {item for item in self.items if item.wheel_before is not None} == set(self.due)


TestWheel = WheelMachine.TestCase
TestWheel.settings = examples(40)
