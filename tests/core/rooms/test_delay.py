"""The moderators' delay: staff see messages first, and what they delete reaches no viewer."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.core.moderation.sanctions import RoomSanctions, SanctionChange, SanctionTable
from broker.core.rooms.effects import Outcomes, Reply, ShowToSender, ShowToStaff, TickOut
from broker.core.rooms.policies import policy_from
from broker.core.rooms.state import RoomRules, RoomState
from protocol.activities.moderation import SanctionKind
from protocol.codes import MessageType, Outcome, Role, Tier
from protocol.messages import Post
from protocol.payloads import DanmakuPayload, DeletedPayload
from tests.support.rooms import CUSTOM, Person

MOD = Person("mod", Role.MODERATOR)


def delayed_room(table: SanctionTable | None = None) -> RoomState[int]:
    sanctions = RoomSanctions(table or SanctionTable(), "lobby", lambda: 0)
    rules = RoomRules(policy_from("roomcast", {}), CUSTOM)
    room: RoomState[int] = RoomState(rules, 77, random.Random(1), 0.0, "lobby", sanctions=sanctions)
    room.modes.change({"delay_ms": 2000}, "mod", "Mod", 0.0, 0)
    return room


def say(room: RoomState[int], ticket: int, user: str, text: str, now: float) -> None:
    assert room.post(ticket, Person(user), Post(MessageType.DANMAKU, "", DanmakuPayload(text)), now, 0) == ()


def texts(effects: Any, kind: type[Any]) -> list[str]:
    """Texts that staff are shown (ShowToStaff), or viewers (TickOut)."""
    found = []
    for effect in effects:
        if isinstance(effect, kind):
            ticks = effect.ticks[:1] if isinstance(effect, TickOut) else (effect.tick,)
            found += [entry.payload[0] for tick in ticks for entry in tick.entries]
    return found


def test_staff_see_a_message_at_once_and_the_others_after_the_delay() -> None:
    room = delayed_room()
    say(room, 1, "ann", "hello", 1.0)
    effects = room.tick(1.0, 1000)
    assert texts(effects, ShowToStaff) == ["hello"]
    assert texts(effects, TickOut) == []
    assert [each.outcomes for each in effects if isinstance(each, Outcomes)] == [[(1, Outcome.ACCEPTED)]]
    assert room.snapshot("lobby", Role.VIEWER, Tier.FULL).recent == ()
    assert room.next_due(1.0) == 3.0
    assert texts(room.tick(2.9, 2900), TickOut) == []
    later = room.tick(3.0, 3000)
    (out,) = [each for each in later if isinstance(each, TickOut) and each.ticks]
    assert (out.is_delayed, out.number, texts([out], TickOut)) == (True, 1, ["hello"])
    assert [entry.payload[0] for entry in room.snapshot("lobby", Role.VIEWER, Tier.FULL).recent] == ["hello"]


def test_what_is_deleted_meanwhile_never_reaches_viewers_and_the_account_balances() -> None:
    room = delayed_room()
    say(room, 1, "eve", "spam", 1.0)
    say(room, 2, "ann", "hello", 1.0)
    say(room, 3, "bob", "HELLO", 1.0)
    room.tick(1.0, 1000)
    deletion = Post(MessageType.MESSAGES_DELETED, "d", DeletedPayload((), "eve", 0, "spam"))
    room.post(4, MOD, deletion, 2.0, 2000)
    (out,) = [each for each in room.tick(3.0, 3000) if isinstance(each, TickOut) and each.ticks]
    assert texts([out], TickOut) == ["hello"]
    for tick in out.ticks:
        account = tick.account
        assert account == (3, 1, 1, 1, 0, 0)


def test_without_a_delay_any_more_what_waits_leaves_first() -> None:
    room = delayed_room()
    say(room, 1, "ann", "one", 1.0)
    room.tick(1.0, 1000)
    room.modes.change({"delay_ms": 0}, "mod", "Mod", 1.5, 1500)
    say(room, 2, "bob", "two", 1.5)
    assert texts(room.tick(1.5, 1500), TickOut) == ["one", "two"]


def test_a_room_that_ends_shows_what_waits() -> None:
    room = delayed_room()
    say(room, 1, "ann", "one", 1.0)
    room.tick(1.0, 1000)
    say(room, 2, "bob", "two", 1.5)
    assert texts(room.tick(1.6, 1600, last=True), TickOut) == ["one", "two"]


def test_a_shadow_waits_as_what_others_say_and_is_answered_at_once() -> None:
    table = SanctionTable()
    action = table.decide(
        SanctionChange("a", SanctionKind.MUTE, "lobby", "eve", "mod", Role.MODERATOR, None, "", True), 0
    )
    assert action is not None
    table.apply(action)
    room = delayed_room(table)
    say(room, 1, "eve", "buy", 1.0)
    effects = room.tick(1.0, 1000)
    assert [each for each in effects if isinstance(each, Reply)] == [Reply(1, Outcome.ACCEPTED)]
    assert not [each for each in effects if isinstance(each, ShowToSender)]
    (shown,) = [each for each in room.tick(3.0, 3000) if isinstance(each, ShowToSender)]
    assert (shown.outcome, shown.tick.entries[0].payload) == (None, ("buy",))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["say", "tick", "shorter", "longer", "delete"]), st.sampled_from(["ann", "bob"]),
            st.floats(0.05, 1.5),
        ),
        max_size=40,
    )
)  # fmt: skip
def test_viewers_see_in_order_what_staff_have_seen_before_and_nothing_deleted(
    steps: list[tuple[str, str, float]],
) -> None:
    room, now, ticket = delayed_room(), 1.0, 0
    staff: list[str] = []
    viewers: list[str] = []
    deleted: set[str] = set()

    def take(effects: Any) -> None:
        staff.extend(texts(effects, ShowToStaff))
        shown = texts(effects, TickOut)
        assert not deleted.intersection(shown)
        viewers.extend(shown)

    for what, user, wait_s in steps:
        now += wait_s
        ticket += 1
        if what == "say":
            text = f"{user} {ticket}"
            room.post(ticket, Person(user), Post(MessageType.DANMAKU, "", DanmakuPayload(text)), now, 0)
        elif what == "tick":
            take(room.tick(now, round(now * 1000)))
        elif what == "delete":
            waiting = [text for text in staff if text not in viewers and text.startswith(user)]
            room.post(ticket, MOD, Post(MessageType.MESSAGES_DELETED, str(ticket), DeletedPayload((), user)), now, 0)
            deleted.update(waiting)
        else:
            delay_ms = 500 if what == "shorter" else 3000
            room.modes.change({"delay_ms": delay_ms}, "mod", "Mod", now, 0)
    take(room.tick(now, round(now * 1000)))
    take(room.tick(now + 10, round(now * 1000) + 10_000))
    assert viewers == [text for text in staff if text not in deleted]
