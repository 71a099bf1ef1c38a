"""Raids: bursts of joins or of equal texts begin slow mode, which ends by itself."""

from __future__ import annotations

import random
from typing import Any

from broker.core.moderation.raids import RaidDetector, RaidRules
from broker.core.rooms.effects import Publish
from broker.core.rooms.modes import modes_of
from broker.core.rooms.policies import policy_from
from broker.core.rooms.state import RoomRules, RoomState
from protocol.activities.moderation import RoomModes
from protocol.codes import MessageType, Role
from protocol.messages import Post
from protocol.payloads import DanmakuPayload
from tests.support.rooms import CUSTOM, Person


def test_a_burst_is_counted_over_ten_seconds() -> None:
    detector = RaidDetector(RaidRules(joins=10))
    for second in range(60):  # one in 1.25 s never is ten in ten seconds
        assert not detector.observe(second, 0, second * 1.25)
    assert detector.observe(59 + 4, 0, 74.0)
    assert not RaidDetector(RaidRules()).observe(10**6, 10**6, 1.0)


def test_repeated_texts_are_a_raid_too() -> None:
    detector = RaidDetector(RaidRules(repeats=3))
    assert not detector.observe(50, 0, 0.0)
    assert not detector.observe(90, 2, 1.0)
    assert detector.observe(90, 3, 2.0)


def raided(**rules: Any) -> RoomState[int]:
    return RoomState(RoomRules(policy_from("roomcast", rules), CUSTOM), 7, random.Random(1), 0.0)


def changes(effects: Any) -> list[RoomModes]:
    events = [each.event for each in effects if isinstance(each, Publish)]
    return [modes for event in events if (modes := modes_of(event)) is not None]


def test_slow_mode_begins_on_a_raid_and_ends_by_itself() -> None:
    room = raided(raid_joins=5, raid_slow_s=30, raid_s=60)
    room.tick(0.0, 0)
    for number in range(5):
        room.enter(f"raider-{number}", "R", Role.VIEWER, 1.0)
    assert changes(room.tick(1.0, 1000)) == [RoomModes(raid_slow_s=30, raid_until_ms=60_000)]
    assert room.counters.events()[-1] == 1
    danmaku = Post(MessageType.DANMAKU, "", DanmakuPayload("hi"))
    assert room.post(1, Person("ann"), danmaku, 2.0, 0) == ()
    assert room.refusal_of(2, Person("ann"), danmaku, 3.0) is not None
    assert room.expiry_due_at == 61.0
    assert changes(room.expire(61.0, 0, 61_000)) == [RoomModes()]
    assert room.refusal_of(2, Person("ann"), danmaku, 61.0) is None


def test_other_rules_hold_at_once_in_an_open_room() -> None:
    room = raided()
    for number in range(5):
        room.enter(f"raider-{number}", "R", Role.VIEWER, 1.0)
    assert changes(room.tick(1.0, 1000)) == []
    room.set_rules({"raid_joins": 1})
    room.tick(2.0, 2000)
    room.enter("raider", "R", Role.VIEWER, 2.0)
    assert len(changes(room.tick(3.0, 3000))) == 1


def test_staff_end_it_sooner_and_a_restart_goes_on_with_its_end() -> None:
    room = raided(raid_joins=1, raid_s=60)
    room.tick(0.0, 0)
    room.enter("raider", "R", Role.VIEWER, 1.0)
    room.tick(1.0, 1000)
    later = raided(raid_joins=1, raid_s=60)
    later.restore(1, room.totals(), (), 100.0)
    assert later.expiry_due_at == 160.0
    room.modes.change({"raid_slow_s": 0, "raid_until_ms": 0}, "mod", "Mod", 2.0, 0)
    assert changes(room.expire(61.0, 0, 61_000)) == []
    assert room.modes.modes == RoomModes()
