"""What has come into a room over the last minute and quarter of an hour."""

from __future__ import annotations

import random

import pytest

from broker.core.rooms.policies import policy_from
from broker.core.rooms.rates import SAMPLE_S, RoomCounts
from broker.core.rooms.state import RoomRules, RoomState
from protocol.codes import MessageType, Role
from protocol.messages import Post
from protocol.payloads import AnnouncementPayload, DanmakuPayload, GiftPayload, LikePayload
from tests.support.rooms import CUSTOM, Person


def a_room() -> RoomState[int]:
    return RoomState(RoomRules(policy=policy_from("off"), custom=CUSTOM), 77, random.Random(1), 0.0)


def run(room: RoomState[int], start: float, seconds: int) -> None:
    """Post a danmaku and five likes a second; the room is sampled as the hub does it."""
    for second in range(int(start), int(start) + seconds):
        room.post(0, Person(f"u{second}"), Post(MessageType.DANMAKU, "", DanmakuPayload(f"text {second}")), second, 0)
        room.post(0, Person(f"u{second}"), Post(MessageType.LIKE, "", LikePayload(5)), second, 0)
        if second % SAMPLE_S == 0:
            room.counters.sample_rates(second)


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
    assert room.counters.lately(60.0, 10.0) == (10.0, RoomCounts(messages=3, danmaku=1, gifts=1, joins=1, likes=4))


@pytest.mark.parametrize(("window_s", "step_s"), [(60, 5), (900, 60)])
def test_a_window_holds_what_came_in_meanwhile_and_at_most_a_step_more(window_s: int, step_s: int) -> None:
    room = a_room()
    run(room, 0, 2000)
    lasted_s, counts = room.counters.lately(window_s, 2000.0)
    assert window_s <= lasted_s <= window_s + step_s
    assert counts.danmaku == pytest.approx(lasted_s, abs=1)
    assert counts.likes == 5 * counts.danmaku
    end = 2000 + window_s + step_s
    for second in range(2000, end + 1, 5):
        room.counters.sample_rates(second)
    assert room.counters.lately(window_s, end)[1] == RoomCounts(0, 0, 0, 0, 0), "nothing came since"


def test_a_room_that_was_restored_counts_from_its_opening() -> None:
    room, restored = a_room(), a_room()
    run(room, 0, 100)
    restored.restore(0, room.totals(), (), 0.0)
    run(restored, 0, 3)
    assert restored.like_total == 515
    assert restored.counters.lately(60.0, 3.0) == (3.0, RoomCounts(3, 3, 0, 0, 15))
