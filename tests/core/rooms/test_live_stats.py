"""What has come into a room in each of its last seconds, and over the last minute and quarter of an hour."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.rooms.live_stats import KEPT_S, LiveBudget, LiveStats, RoomCounts, Second
from broker.core.rooms.policies import policy_from
from broker.core.rooms.state import RoomRules, RoomState
from protocol.codes import MessageType, Role
from protocol.messages import Post
from protocol.payloads import AnnouncementPayload, DanmakuPayload, GiftPayload, LikePayload
from tests.support.rooms import CUSTOM, Person

NOTHING = RoomCounts(0, 0, 0, 0, 0, 0, 0, 0)


def a_room() -> RoomState[int]:
    return RoomState(RoomRules(policy=policy_from("off"), custom=CUSTOM), 77, random.Random(1), 0.0)


def run(room: RoomState[int], start: float, seconds: int) -> None:
    """Post a danmaku and five likes a second; each second is taken as the hub does it."""
    for second in range(int(start), int(start) + seconds):
        room.counters.take_second(second)
        room.post(0, Person(f"u{second}"), Post(MessageType.DANMAKU, "", DanmakuPayload(f"text {second}")), second, 0)
        room.post(0, Person(f"u{second}"), Post(MessageType.LIKE, "", LikePayload(5)), second, 0)


def test_everything_that_comes_in_is_counted_once() -> None:
    room = a_room()
    room.enter("ann", "Ann", Role.VIEWER, 1.0)
    room.enter("ann", "Ann", Role.VIEWER, 1.0)
    room.enter("bob", "Bob", Role.VIEWER, 1.0, resumes=True)
    gift = GiftPayload("order-1", "ann", "Ann", "rose", 3, 100)
    for post, role in (
        (Post(MessageType.DANMAKU, "", DanmakuPayload("hi")), Role.VIEWER),
        (Post(MessageType.LIKE, "", LikePayload(4)), Role.VIEWER),
        (Post(MessageType.GIFT, "", gift), Role.APP),
        (Post(MessageType.ANNOUNCEMENT, "", AnnouncementPayload("welcome")), Role.HOST),
    ):
        room.post(1, Person("ann", role), post, 2.0, 0)
    room.tick(2.5, 0)
    came = RoomCounts(messages=3, danmaku=1, gifts=1, joins=1, likes=4, shown=1, merged=0, left_out=0)
    assert room.counters.lately(60, 10.0) == (10.0, came)
    room.counters.take_second(3)
    assert room.counters.live.seconds(2) == [Second(0, NOTHING), Second(3, came)]


@pytest.mark.parametrize("window_s", [60, 900])
def test_a_window_holds_what_came_in_meanwhile_and_at_most_a_second_more(window_s: int) -> None:
    room = a_room()
    run(room, 0, 2000)
    lasted_s, counts = room.counters.lately(window_s, 2000.0)
    assert window_s <= lasted_s <= window_s + 1
    assert counts.danmaku == pytest.approx(lasted_s, abs=1)
    assert counts.likes == 5 * counts.danmaku
    for second in range(2000, 2000 + window_s + 1):
        room.counters.take_second(second)
    assert room.counters.lately(window_s, 2000.0 + window_s)[1] == NOTHING, "nothing came since"


def test_a_room_that_was_restored_counts_from_its_opening() -> None:
    room, restored = a_room(), a_room()
    run(room, 0, 100)
    restored.restore(0, room.totals(), (), 0.0)
    run(restored, 0, 3)
    assert restored.like_total == 515
    assert restored.counters.lately(60, 3.0) == (3.0, RoomCounts(3, 3, 0, 0, 15, 0, 0, 0))


def counts(total: int) -> RoomCounts:
    return NOTHING._replace(danmaku=total, likes=2 * total)


@given(st.integers(0, 500), st.lists(st.tuples(st.integers(1, 400), st.integers(0, 3), st.integers(0, 2)), max_size=40))
def test_the_seconds_are_those_that_were_taken(begin: int, taken: list[tuple[int, int, int]]) -> None:
    """Passed seconds, how many came in, and the connections then."""
    live = LiveStats(NOTHING, 1, begin + 0.5)
    expected = {begin: Second(1, NOTHING)}
    now, total, online = begin, 0, 1
    for passed, came, connections in taken:
        for second in range(now + 1, now + passed):
            expected[second] = Second(online, NOTHING)
        now, total, online = now + passed, total + came, connections
        live.take(counts(total), online, now)
        live.take(counts(total + 1), online, now)
        expected[now] = Second(online, counts(came))
    for asked in (1, 60, 900, 5000):
        first = max(begin, now - min(asked, KEPT_S))
        assert live.seconds(asked) == [expected[second] for second in range(first + 1, now + 1)]
    lasted_s, sums = live.lately(counts(total + 7), 60, now + 0.75)
    assert lasted_s == now + 0.75 - max(begin + 0.5, now - 60)
    assert sums.danmaku == 7 + sum(expected[each].counts.danmaku for each in range(max(begin, now - 60) + 1, now + 1))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 90), st.booleans()), max_size=80))
def test_the_budget_is_what_the_rooms_hold_and_bounds_them(taken: list[tuple[int, int, bool]]) -> None:
    """Three rooms under a small budget: beyond it each has one block, and says since when it knows everything."""
    budget = LiveBudget(1000)
    rooms = [LiveStats(NOTHING, 0, 0.0, budget) for _ in range(3)]
    totals = [0, 0, 0]
    now = 0
    for room, passed, is_busy in taken:
        now += passed
        totals[room] += is_busy
        rooms[room].take(counts(totals[room]), 0, now)
        assert budget.used_bytes == sum(each.nbytes for each in rooms)
        held = rooms[room].seconds(900)
        assert len(held) == min(KEPT_S, rooms[room].taken - rooms[room].since)
    assert budget.used_bytes <= 1000 + 3 * (60 * 20 + 128)
    for each in rooms:
        each.clear()
    assert budget.used_bytes == 0


def test_a_quarter_of_an_hour_of_a_busy_room_takes_16_kb() -> None:
    live = LiveStats(NOTHING, 0, 0.0)
    for second in range(1, 2000):
        busy = RoomCounts(*(40 * second,) * len(RoomCounts._fields))
        live.take(busy, 3000 + second, second)
    assert len(live.seconds(900)) == 900
    assert live.nbytes <= 18_000
    for second in range(2000, 2000 + KEPT_S + 61):
        live.take(busy, 3000 + 1999, second)
    assert live.nbytes == 0, "at rest"
