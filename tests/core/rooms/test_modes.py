"""Modes of a room: what they refuse, whom, and how long."""

from __future__ import annotations

import random
from typing import Any

import pytest

from broker.core.moderation.sanctions import RoomSanctions, SanctionTable
from broker.core.rooms.activity_steps import ActivitySteps
from broker.core.rooms.effects import Publish, RefusePost, Reply
from broker.core.rooms.modes import MODES_EVENT, modes_of
from broker.core.rooms.policies import policy_from
from broker.core.rooms.state import RoomRules, RoomState
from protocol.activities.moderation import RoomModes
from protocol.codes import ErrorCode, Lane, MessageType, Outcome, Role, Tier
from protocol.messages import Post
from protocol.payloads import DanmakuPayload, EmotePayload, LikePayload
from tests.support.rooms import CUSTOM, Person

NOW_MS = 1_000_000


def room_with(**modes: Any) -> RoomState[int]:
    sanctions = RoomSanctions(SanctionTable(), "lobby", lambda: NOW_MS)
    room: RoomState[int] = RoomState(
        RoomRules(policy_from("off", {"tick_ms": 100}), CUSTOM), 77, random.Random(1), 0.0, "lobby", sanctions=sanctions
    )
    room.modes.change(modes, "mod", "Mod", 0.0, NOW_MS)
    return room


def danmaku(text: str) -> Post:
    return Post(MessageType.DANMAKU, "", DanmakuPayload(text))


def emote() -> Post:
    return Post(MessageType.EMOTE, "", EmotePayload("heart"))


def refused(room: RoomState[int], post: Post, person: Person, now: float = 1.0) -> tuple[ErrorCode, int] | None:
    """The code and the wait of a refusal; None where the post was taken in."""
    effects = room.post(1, person, post, now, 0)
    if not effects:
        return None
    (refusal,) = effects
    assert isinstance(refusal, RefusePost), refusal
    return refusal.code, refusal.wait_ms


@pytest.mark.parametrize(
    ("modes", "post", "role", "code"),
    [
        ({"mute_all": True}, danmaku("hi"), Role.VIP, ErrorCode.ALL_MUTED),
        ({"mute_all": True}, Post(201, "", "vote"), Role.VIEWER, ErrorCode.ALL_MUTED),
        ({"vip_only": True}, emote(), Role.VIEWER, ErrorCode.VIP_ONLY),
        ({"vip_only": True}, emote(), Role.VIP, None),
        ({"emote_only": True}, danmaku("hi"), Role.VIP, ErrorCode.EMOTE_ONLY),
        ({"emote_only": True}, emote(), Role.VIEWER, None),
        ({"links": False}, danmaku("see www.example.com now"), Role.VIP, ErrorCode.LINKS_OFF),
        ({"links": False}, danmaku("see you"), Role.VIEWER, None),
        ({"followers_s": 0}, danmaku("hi"), Role.VIP, ErrorCode.FOLLOWERS_ONLY),
    ],
)
def test_each_mode_refuses_its_own_with_its_code_and_never_staff(
    modes: dict[str, Any], post: Post, role: Role, code: ErrorCode | None
) -> None:
    room, person = room_with(**modes), Person("ann", role)
    found = refused(room, post, person)
    assert found == (None if code is None else (code, 0))
    peeked = room.refusal_of(1, person, post, 1.0)
    assert (peeked is None) == (code is None)
    if post.type != 201:
        assert refused(room, post, Person("mod", Role.MODERATOR)) is None


def test_likes_are_no_chat() -> None:
    room = room_with(mute_all=True)
    assert room.post(1, Person("ann"), Post(MessageType.LIKE, "", LikePayload(2)), 1.0, 0) == (
        Reply(1, Outcome.ACCEPTED, 2),
    )


def test_slow_mode_counts_what_was_taken_in_and_says_how_long() -> None:
    room = room_with(slow_s=10)
    ann = Person("ann")
    assert refused(room, danmaku("a"), ann, 1.0) is None
    assert refused(room, emote(), ann, 3.0) == (ErrorCode.SLOW_MODE, 8000)
    assert refused(room, danmaku("b"), Person("bob"), 3.0) is None
    assert refused(room, danmaku("c"), ann, 11.0) is None
    room.modes.change({"slow_s": 0}, "mod", "Mod", 12.0, 0)
    assert refused(room, danmaku("d"), ann, 12.0) is None


def test_slow_mode_counts_types_of_the_deployment_too() -> None:
    room = room_with(slow_s=10)
    assert refused(room, Post(201, "", "vote"), Person("ann"), 1.0) is None
    assert refused(room, danmaku("a"), Person("ann"), 2.0) == (ErrorCode.SLOW_MODE, 9000)


def test_a_refusal_by_another_mode_costs_no_slow_place() -> None:
    room = room_with(slow_s=10, links=False)
    assert refused(room, danmaku("www.example.com"), Person("ann"), 1.0) == (ErrorCode.LINKS_OFF, 0)
    assert refused(room, danmaku("a"), Person("ann"), 1.0) is None


def test_unique_takes_no_text_twice_within_ten_minutes_whoever_says_it() -> None:
    room = room_with(unique=True)
    assert refused(room, danmaku("Hello there"), Person("ann"), 1.0) is None
    assert refused(room, danmaku("HELLO  there"), Person("bob"), 2.0) == (ErrorCode.NOT_UNIQUE, 0)
    assert refused(room, danmaku("other"), Person("bob"), 2.0) is None
    assert refused(room, danmaku("hello there"), Person("bob"), 602.0) is None


def test_followers_wait_until_they_have_followed_for_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    since = {"ann": NOW_MS - 60_000, "bob": NOW_MS - 59_000}
    monkeypatch.setattr(ActivitySteps, "follows_since", lambda self, user: since.get(user))
    room = room_with(followers_s=60)
    assert refused(room, danmaku("hi"), Person("ann")) is None
    assert refused(room, danmaku("hi"), Person("bob")) == (ErrorCode.FOLLOWERS_ONLY, 1000)
    assert refused(room, danmaku("hi"), Person("eve")) == (ErrorCode.FOLLOWERS_ONLY, 0)


def test_a_change_is_an_event_and_part_of_what_joins_get() -> None:
    room = room_with()
    (event,) = room.modes.change({"slow_s": 5}, "mod", "Mod", 1.0, 7)
    assert isinstance(event, Publish)
    assert (event.lane, event.event.at_ms, event.event.user_id) == (Lane.CONTROL, 7, "mod")
    assert event.event.payload[0] == MODES_EVENT
    assert modes_of(event.event) == RoomModes(slow_s=5)
    views = {view.kind: view.data for view in room.snapshot("lobby", Role.VIEWER, Tier.FULL).activities}
    assert views["moderation"]["slow_s"] == 5
    room.modes.change({"slow_s": 0}, "mod", "Mod", 1.0, 8)
    assert not room.snapshot("lobby", Role.VIEWER, Tier.FULL).activities


def test_modes_go_on_from_a_checkpoint_those_under_way_included() -> None:
    room = room_with(slow_s=5)
    (event,) = room_with().modes.change({"slow_s": 9, "links": False}, "mod", "Mod", 1.0, 7)
    assert isinstance(event, Publish)
    for totals, expected in (
        (room.totals(), RoomModes(slow_s=5)),
        (room.totals(event.event), RoomModes(slow_s=9, links=False)),
    ):
        later = room_with()
        later.restore(1, totals, (), 1.0)
        assert later.modes.modes == expected
        assert refused(later, danmaku("a"), Person("ann"), 2.0) is None
        assert refused(later, danmaku("b"), Person("ann"), 2.0) == (ErrorCode.SLOW_MODE, expected.slow_s * 1000)
