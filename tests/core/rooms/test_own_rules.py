"""Rules of one room: partial updates, what they change at once, and what a checkpoint keeps of them."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.rooms.own_rules import ROOM_RULES, RuleError, checked_rules, rules_in_force
from broker.core.rooms.policies import POLICIES, policy_from
from broker.core.rooms.rules import RoomRules
from broker.core.rooms.state import RoomState
from protocol.codes import MessageType, Outcome, Role
from protocol.messages import Post
from tests.support.examples import examples

names = st.sampled_from(sorted(ROOM_RULES))
values = st.none() | st.booleans() | st.integers(0, 2000) | st.floats(0, 2000, allow_nan=False)
updates = st.dictionaries(names, values, max_size=4)


class Author:
    role = Role.VIEWER
    name = "x"
    may_post = frozenset(range(1, 256))

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id


def a_room(policy: str = "roomcast") -> RoomState[int]:
    return RoomState(RoomRules(policy_from(policy), {}), 7, random.Random(1), 0.0)


def say(room: RoomState[int], user: str, text: str, now: float) -> Any:
    return room.post(1, Author(user), Post(MessageType.DANMAKU, "", (text, None)), now, 0)


@examples(200)
@given(st.sampled_from(sorted(POLICIES)), st.lists(updates, max_size=5), st.randoms(use_true_random=False))
def test_updates_hold_whole_or_not_at_all_while_the_room_works(policy: str, given_updates: Any, rng: Any) -> None:
    room = a_room(policy)
    now, before = 1.0, rules_in_force(room.policy)
    for update in given_updates:
        for number in range(rng.randrange(4)):
            say(room, f"u{rng.randrange(3)}", f"text {number}", now)
            room.post(2, Author("app"), Post(MessageType.GIFT, "", ("o", "u", "n", "g", 1, 1, "")), now, 0)
        try:
            room.set_rules(update)
        except RuleError:
            assert rules_in_force(room.policy) == before
        else:
            after = rules_in_force(room.policy)
            for name, value in update.items():
                if value is not None:
                    assert after[name] == value or (after[name] is None and value == 0)
            before = after
        now += rng.random()
        room.tick(now, 0)
        assert all(account.admitted == sum(account[1:]) for account in room.counters.accounts())
        restored = a_room(policy)
        restored.restore(0, room.totals(), (), now)
        assert rules_in_force(restored.policy) == before
    room.tick(now + 60, 0, last=True)
    assert all(account.held == 0 for account in room.counters.accounts())


@given(st.sampled_from(sorted(POLICIES)), updates, updates)
def test_rules_of_a_room_hold_over_another_policy_of_the_broker(policy: str, own: Any, broker: Any) -> None:
    room = a_room(policy)
    try:
        room.set_rules(own)
        _, changed = checked_rules(policy_from(policy), {}, broker)
    except RuleError:
        return
    kept = dict(room.own_rules)
    _, expected = checked_rules(changed, {}, kept)
    room.use_broker_policy(changed)
    assert (room.policy, room.own_rules) == (expected, kept)
    room.set_rules(dict.fromkeys(kept))
    assert room.policy == changed, "what a room gives up is the broker's present rule"


def test_a_rule_that_is_null_is_the_brokers_again() -> None:
    base = policy_from("roomcast")
    rules, policy = checked_rules(base, {}, {"user_chat_per_s": 0.5, "merge": False})
    assert (policy.user_chat.per_s, policy.user_chat.burst, policy.merge) == (0.5, base.user_chat.burst, False)
    rules, policy = checked_rules(base, rules, {"user_chat_per_s": None})
    assert (rules, policy.user_chat, policy.merge) == ({"merge": False}, base.user_chat, False)


@pytest.mark.parametrize(
    ("rules", "rule"),
    [
        ({"colour": 1}, "colour"),
        ({"user_joins_per_s": 1}, "user_joins_per_s"),
        ({"merge": 1}, "merge"),
        ({"tick_ms": True}, "tick_ms"),
        ({"tick_ms": 0}, "tick_ms"),
        ({"tick_ms": 50.5}, "tick_ms"),
        ({"user_chat_per_s": 0}, "user_chat_per_s"),
        ({"user_chat_per_s": 5e-324}, "user_chat_per_s"),
        ({"user_chat_burst": 0}, "user_chat_burst"),
        ({"duplicate_window_s": 4000}, "duplicate_window_s"),
        ({"tick_ms": 500, "tick_max_ms": 100}, ""),
    ],
)
def test_a_rule_that_cannot_be_set_is_named(rules: Any, rule: str) -> None:
    with pytest.raises(RuleError) as caught:
        checked_rules(policy_from("roomcast"), {}, rules)
    assert caught.value.rule == rule
    assert caught.value.why


def test_a_slower_chat_holds_at_once() -> None:
    room = a_room()
    assert [say(room, "ann", f"text {n}", 1.0) for n in range(3)] == [()] * 3
    room.set_rules({"user_chat_per_s": 0.1, "user_chat_burst": 1, "duplicate_window_s": 0})
    assert say(room, "ann", "text 0", 1.0) == (), "another rate begins anew, and there are no duplicates any more"
    (reply,) = say(room, "ann", "more", 1.0)
    assert reply.outcome is Outcome.LIMITED
    assert reply.detail > 9000


def test_the_interval_follows_the_ticks_rule() -> None:
    room = a_room()
    room.set_rules({"tick_ms": 500, "tick_max_ms": 2000})
    assert room.interval_s == 0.5
    room.set_rules({"tick_ms": None, "tick_max_ms": None})
    assert room.interval_s == 0.5, "the pacer shortens it again"
    assert not room.is_unused or room.own_rules == {}
