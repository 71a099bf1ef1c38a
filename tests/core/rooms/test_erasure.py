"""What an erasure leaves of the events of a room."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from broker.core.rooms.erasure import Erasure
from broker.core.rooms.policies import policy_from
from broker.core.rooms.presence import Presence
from broker.core.rooms.state import RoomRules, RoomState
from protocol.codes import KeyCause, MessageType, Role, RoomPhase
from protocol.frames import pack_body, unpack_body
from protocol.messages import Event, PinnedMessage, Post
from protocol.payloads import (
    ActivityPayload,
    AnnouncementPayload,
    DanmakuPayload,
    DeletedPayload,
    GiftPayload,
    KeyChange,
    KeysPayload,
    PhasePayload,
    PinsPayload,
)
from tests.support.rooms import CUSTOM, Person

ERASURE = Erasure("", "ann", "erased-1")
AT_MS = 1000


def event(kind: MessageType, payload: Any, user: str = "ann", name: str = "Ann") -> Event:
    return Event(kind, AT_MS, user, name, payload)


def pin(id: str, user: str, payload: Any = ("hello",)) -> PinnedMessage:
    kind = MessageType.GIFT if isinstance(payload, GiftPayload) else MessageType.ANNOUNCEMENT
    return PinnedMessage(id, kind, payload, user, user.title(), AT_MS)


GIFT = GiftPayload("o1", "ann", "Ann", "rose", 2, 100, "ann")
WON = {"user": "ann", "name": "Ann", "of": ("ann", "bob")}
DELETED = Event(MessageType.MESSAGES_DELETED, AT_MS, "", "", DeletedPayload((7,)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (event(MessageType.ANNOUNCEMENT, AnnouncementPayload("hello")), DELETED),
        (event(MessageType(4), {"text": 1}), DELETED),
        (
            event(MessageType.GIFT, GIFT, "app", "App"),
            event(MessageType.GIFT, GIFT._replace(user_id="erased-1", name="", target="erased-1"), "app", "App"),
        ),
        (
            event(MessageType.GIFT, GIFT._replace(user_id="bob", name="Bob")),
            event(MessageType.GIFT, GIFT._replace(user_id="bob", name="Bob", target="erased-1"), "erased-1", ""),
        ),
        (
            event(MessageType.ROOM_PHASE, PhasePayload(RoomPhase.PAUSED)),
            event(MessageType.ROOM_PHASE, PhasePayload(RoomPhase.PAUSED), "erased-1", ""),
        ),
        (
            event(MessageType.PINS_CHANGED, PinsPayload((pin("1", "ann"), pin("2", "bob"), pin("3", "app", GIFT)))),
            event(MessageType.PINS_CHANGED, PinsPayload((pin("2", "bob"),)), "erased-1", ""),
        ),
        (
            event(MessageType.MESSAGES_DELETED, DeletedPayload((), "ann", 5, "ann was rude"), "mod", "Mod"),
            event(MessageType.MESSAGES_DELETED, DeletedPayload((), "erased-1", 5), "mod", "Mod"),
        ),
        (
            event(
                MessageType.KEYS_CHANGED,
                KeysPayload((
                    KeyChange("seat", 1, "x", KeyCause.SET, None, "ann"),
                    KeyChange("seat:ann", 2, None, KeyCause.OWNER_LEFT),
                    KeyChange("planner", 3, None, KeyCause.DELETED),
                    KeyChange("ann", 4, "x", KeyCause.SET, None, "bob"),
                )),
                "app", "App",
            ),
            event(
                MessageType.KEYS_CHANGED,
                KeysPayload((
                    KeyChange("planner", 3, None, KeyCause.DELETED),
                    KeyChange("ann", 4, "x", KeyCause.SET, None, "bob"),
                )),
                "app", "App",
            ),
        ),
        (
            event(MessageType.ACTIVITY, ActivityPayload("won", "1", WON), ""),
            event(
                MessageType.ACTIVITY,
                ActivityPayload("won", "1", {"user": "erased-1", "name": "", "of": ("erased-1", "bob")}), "",
            ),
        ),
    ],
)  # fmt: skip
def test_an_event_keeps_what_is_not_of_the_user(before: Event, after: Event) -> None:
    assert ERASURE.event(before, 7) == after
    stored = Event(*unpack_body(pack_body(before)))
    assert pack_body(ERASURE.event(stored, 7)) == pack_body(after), "as the ledger has it"
    assert ERASURE.event(after, 7) == after, "twice is once"


@pytest.mark.parametrize("payload", [AnnouncementPayload("ann and bob"), GIFT._replace(user_id="anna", target="bob")])
def test_an_event_of_others_is_the_same_object(payload: Any) -> None:
    kind = MessageType.GIFT if isinstance(payload, GiftPayload) else MessageType.ANNOUNCEMENT
    before = event(kind, payload, "bob", "ann")
    assert ERASURE.event(before, 7) is before


def test_names_of_other_tenants_stay() -> None:
    erasure = Erasure("acme", "ann", "erased-1")
    body = pack_body(("ann", "acme\x1fann", ("user ann",)))
    assert unpack_body(erasure.packed(body, "acme\x1flobby")) == ("erased-1", "acme\x1ferased-1", ("user ann",))
    assert unpack_body(erasure.packed(body)) == ("ann", "acme\x1ferased-1", ("user ann",))
    assert erasure.packed(body, "lobby") == body
    assert erasure.packed(b"\xff", "acme\x1flobby") == b"\xff"


def room() -> RoomState[str]:
    return RoomState(RoomRules(policy_from("roomcast"), CUSTOM), 7, Random(1), 0.0, "lobby")


def post(state: RoomState[str], user: str, kind: MessageType, payload: Any) -> None:
    state.post(user, Person(user, Role.APP), Post(kind, "", payload), 1.0, AT_MS)


def test_a_room_gives_nothing_of_the_user_to_who_joins_or_comes_back() -> None:
    state = room()
    for user in ("bob", "ann"):
        state.enter(user, user.title(), Role.VIEWER, 0.0)
        post(state, user, MessageType.ANNOUNCEMENT, AnnouncementPayload(f"news of {user}"))
        post(state, user, MessageType.DANMAKU, DanmakuPayload(f"hello from {user}"))
        state.tick(1.0, AT_MS, last=True)
    state.leave("ann", Role.VIEWER, 1.0)
    uniques = state.counters.counts()[0].uniques
    assert b"ann" in state.totals()
    assert state.erase(ERASURE, 2.0, AT_MS, AT_MS) == ((), True)
    events = state.events_since(7, 0, 2.0)
    assert events is not None
    assert [each.event.type for each in events] == [MessageType.ANNOUNCEMENT, MessageType.MESSAGES_DELETED]
    snapshot = pack_body(state.kept.snapshot()) + state.totals() + pack_body((tuple(events),))
    assert (b"ann" in snapshot, b"hello from bob" in snapshot, b"news of bob" in snapshot) == (False, True, True)
    assert state.counters.counts()[0].uniques == uniques


def test_totals_of_a_closed_room_lose_the_announcement_and_the_pins_of_the_user() -> None:
    state = room()
    post(state, "ann", MessageType.ANNOUNCEMENT, AnnouncementPayload("news"))
    totals = ERASURE.totals(state.totals())
    assert b"ann" not in totals
    restored = room()
    restored.restore(1, totals, (), 0.0)
    assert restored.kept.snapshot()[2] is None
    assert ERASURE.totals(b"ann, of another version") == b"ann, of another version"


def test_a_user_who_is_present_stays_in_the_count_of_a_room() -> None:
    presence = Presence()
    presence.enter("ann", "Ann", Role.VIEWER, 0.0)
    presence.erase("ann", "erased-1")
    assert presence.has("ann")
    presence.leave("ann", 1.0)
    presence.erase("ann", "erased-1")
    assert (presence.has("ann"), presence.uniques) == (False, 1)
