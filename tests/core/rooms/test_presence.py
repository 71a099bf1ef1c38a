from __future__ import annotations

import tracemalloc
from collections import Counter
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.core.rooms.presence import NAMED_JOINS_PER_S, Presence, PresenceCounts
from broker.core.structures.hyperloglog import STANDARD_ERROR
from protocol.codes import Role
from tests.support.examples import examples


def test_a_user_with_three_tabs_comes_once_and_leaves_once() -> None:
    room = Presence()
    assert [room.enter("ann", "Ann", Role.VIEWER, 0.0) for _ in range(3)] == [True, False, False]
    assert room.counts() == PresenceCounts(online=3, users=1, uniques=1, peak=3)
    assert [room.leave("ann", 1.0) for _ in range(3)] == [False, False, True]
    assert room.counts() == PresenceCounts(online=0, users=0, uniques=1, peak=3)
    assert room.take_joins(1.0) == ([("ann", "Ann")], 0)


def test_a_connection_that_resumes_counts_and_causes_no_notice() -> None:
    room = Presence()
    assert room.enter("ann", "Ann", Role.VIEWER, 0.0, resumes=True)
    assert room.counts() == PresenceCounts(online=1, users=1, uniques=1, peak=1)
    assert room.take_joins(0.0) == ([], 0)
    room.enter("bob", "Bob", Role.VIEWER, 0.0)
    assert room.take_joins(0.0) == ([("bob", "Bob")], 0)


def test_at_most_five_joins_a_second_are_named_and_the_rest_is_a_number() -> None:
    room = Presence()
    for n in range(12):
        room.enter(f"u{n}", f"User {n}", Role.VIEWER, 0.0)
    assert room.take_joins(0.0) == ([(f"u{n}", f"User {n}") for n in range(5)], 7)
    room.enter("late", "Late", Role.VIEWER, 0.5)
    assert room.take_joins(0.75) == ([], 0)
    assert room.joins_due_at == 1.0
    assert room.take_joins(1.0) == ([("late", "Late")], 0)
    assert room.joins_due_at == inf


def test_guests_are_counted_but_not_named() -> None:
    room = Presence()
    room.enter("guest-1", "", Role.GUEST, 0.0)
    room.enter("ann", "Ann", Role.VIEWER, 0.0)
    assert room.take_joins(0.0) == ([("ann", "Ann")], 1)
    assert room.counts() == PresenceCounts(online=2, users=1, uniques=2, peak=2)
    room.leave("guest-1", 1.0)
    assert room.users == 1
    room.leave("ann", 1.0)
    assert room.users == 0


def test_a_guest_who_returns_ten_times_is_one_unique_and_no_user() -> None:
    room = Presence()
    for at in range(10):
        room.enter("guest-1", "", Role.GUEST, at)
        assert room.counts() == PresenceCounts(online=1, users=0, uniques=1, peak=1)
        room.leave("guest-1", at + 0.5)


def test_the_host_is_named_however_many_came_before() -> None:
    room = Presence()
    for n in range(8):
        room.enter(f"u{n}", "", Role.VIEWER, 0.0)
    room.enter("host", "Host", Role.HOST, 0.0)
    room.enter("vip", "Vip", Role.VIP, 0.0)
    named, more = room.take_joins(0.0)
    assert [user_id for user_id, _ in named] == ["u0", "u1", "u2", "host", "vip"]
    assert more == 5


def test_a_user_who_returns_within_a_minute_causes_no_notice() -> None:
    room = Presence()
    room.enter("ann", "Ann", Role.VIEWER, 0.0)
    room.take_joins(0.0)
    room.leave("ann", 10.0)
    assert room.enter("ann", "Ann", Role.VIEWER, 69.9), "it is a first connection all the same"
    assert room.take_joins(70.0) == ([], 0)
    room.leave("ann", 80.0)
    room.enter("ann", "Ann", Role.VIEWER, 140.0)
    assert room.take_joins(140.0) == ([("ann", "Ann")], 0)


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 90.0)), max_size=60))
def test_no_user_causes_two_notices_within_a_minute(moves: list[tuple[bool, float]]) -> None:
    room, now, links, noticed_at = Presence(), 0.0, 0, -inf
    for comes, wait in moves:
        now += wait
        if comes:
            room.enter("ann", "Ann", Role.VIEWER, now)
            links += 1
        elif links:
            room.leave("ann", now)
            links -= 1
        if room.take_joins(now + 1.0) != ([], 0):
            assert now - noticed_at >= 60.0
            noticed_at = now


def test_who_is_not_here_cannot_leave() -> None:
    room = Presence()
    with pytest.raises(ValueError, match="not in the room"):
        room.leave("ann", 0.0)
    room.enter("ann", "", Role.VIEWER, 0.0)
    room.leave("ann", 0.0)
    with pytest.raises(ValueError, match="not in the room"):
        room.leave("ann", 0.0)
    assert room.counts() == PresenceCounts(0, 0, 1, 1)
    with pytest.raises(ValueError, match="exact_uniques"):
        Presence(exact_uniques=0)


def test_uniques_are_exact_to_the_limit_and_within_the_stated_error_beyond() -> None:
    room, last = Presence(exact_uniques=10_000), 0
    for n in range(1, 30_001):
        room.enter(f"user-{n}", "", Role.VIEWER, float(n))
        if n % 3:
            room.leave(f"user-{n}", float(n))
        if n % 1000 <= 1:
            assert room.uniques_exact == (n <= 10_000)
            assert room.uniques == n if n <= 10_001 else abs(room.uniques / n - 1) < 4 * STANDARD_ERROR
            assert room.uniques >= last
            last = room.uniques
    before = room.uniques
    for n in range(1, 30_001):
        room.enter(f"user-{n}", "", Role.VIEWER, 1e6)
    assert room.uniques == before, "whoever was here before adds nothing"


def test_beyond_the_limit_only_those_who_are_here_are_remembered() -> None:
    room = Presence(exact_uniques=100)
    for n in range(5000):
        room.enter(f"user-{n}", "", Role.VIEWER, float(n))
        room.leave(f"user-{n}", float(n))
    assert room.entries == 0
    assert room.users == 0


@pytest.mark.parametrize("exact_uniques", [1, 2, 3, 7, 64])
def test_nobody_is_lost_when_counting_turns_into_estimating(exact_uniques: int) -> None:
    room = Presence(exact_uniques)
    for n in range(exact_uniques + 1):
        room.enter(str(n), "", Role.VIEWER, 0.0)
    assert not room.uniques_exact
    assert abs(room.uniques - exact_uniques - 1) <= 1
    for n in range(exact_uniques + 1):
        room.leave(str(n), 0.0)
        room.enter(str(n), "", Role.VIEWER, 0.0)
    assert abs(room.uniques - exact_uniques - 1) <= 1


def test_an_idle_user_costs_less_than_a_hundred_bytes() -> None:
    user_ids = [f"user-{n}" for n in range(40_000)]
    tracemalloc.start()
    try:
        room = Presence()
        for user_id in user_ids:
            room.enter(user_id, user_id, Role.VIEWER, 0.0)
        room.take_joins(1.0)
        per_user = tracemalloc.get_traced_memory()[0] / len(user_ids)
    finally:
        tracemalloc.stop()
    assert per_user < 100


users = st.sampled_from(["ann", "bob", "cat", "dan"])


class Room(RuleBasedStateMachine):
    """Any comings and goings against sets and lists that never forget. Times are whole 1/64 s."""

    @initialize(exact=st.integers(1, 5), start=st.integers(0, 2**30))
    def start(self, exact: int, start: int) -> None:
        self.room, self.exact, self.tick = Presence(exact), exact, start
        self.here, self.ever, self.peak = Counter[str](), set[str](), 0
        self.left_at: dict[str, int] = {}
        self.logged_in = set[str]()
        self.announced: list[str] = []
        self.last_notice = -(10**9)

    @rule(step=st.integers(0, 200) | st.integers(3800, 3900))
    def wait(self, step: int) -> None:
        self.tick += step

    @rule(user_id=users, guest=st.booleans())
    def enter(self, user_id: str, guest: bool) -> None:
        first = self.here[user_id] == 0
        assert self.room.enter(user_id, "", Role.GUEST if guest else Role.VIEWER, self.tick / 64) == first
        self.here[user_id] += 1
        self.ever.add(user_id)
        if not guest:
            self.logged_in.add(user_id)
        self.peak = max(self.peak, self.here.total())
        if first and self.tick - self.left_at.get(user_id, -(10**9)) >= 3840:
            self.announced.append("" if guest else user_id)

    @precondition(lambda self: self.here.total())
    @rule(user_id=users)
    def leave(self, user_id: str) -> None:
        if self.here[user_id] == 0:
            with pytest.raises(ValueError, match="not in the room"):
                self.room.leave(user_id, self.tick / 64)
            return
        self.here[user_id] -= 1
        last = self.here[user_id] == 0
        assert self.room.leave(user_id, self.tick / 64) == last
        if last:
            self.left_at[user_id] = self.tick
            self.logged_in.discard(user_id)

    @rule()
    def take(self) -> None:
        named, more = self.room.take_joins(self.tick / 64)
        if self.tick - self.last_notice < 64:
            assert (named, more) == ([], 0)
            return
        expected = [user_id for user_id in self.announced if user_id]
        assert [user_id for user_id, _ in named] == expected[:NAMED_JOINS_PER_S]
        assert len(named) + more == len(self.announced)
        if self.announced:
            self.last_notice = self.tick
        self.announced.clear()

    @invariant()
    def the_counters_are_right(self) -> None:
        room = self.room
        assert room.online == self.here.total()
        assert room.users == len(self.logged_in)
        assert room.peak == self.peak
        assert room.uniques == len(self.ever)
        assert room.entries <= sum(count > 0 for count in self.here.values()) + self.exact


TestRoom = Room.TestCase
TestRoom.settings = examples(40)


@given(st.integers(1, 30), st.lists(st.tuples(users, st.booleans()), max_size=60))
def test_the_table_of_those_who_left_is_bounded(max_left: int, moves: list[tuple[str, bool]]) -> None:
    room, here = Presence(max_left=max_left + 1), Counter[str]()
    for user_id, comes in moves:
        if comes:
            room.enter(user_id, "", Role.VIEWER, 0.0)
            here[user_id] += 1
        elif here[user_id]:
            room.leave(user_id, 0.0)
            here[user_id] -= 1
        assert room.entries_left <= max_left + 1
