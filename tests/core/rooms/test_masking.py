"""Masks over who viewers are: nothing of a viewer's id or name passes, and the same user stays the same."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.core.rooms.masking import MAX_CACHED, NameMask
from protocol.codes import KeyCause, MessageType, Role, RoomPhase, Tier
from protocol.messages import ActivityView, Event, Joined, PinnedMessage, RoomKey, State, Tick, TickEntry
from protocol.payloads import (
    ActivityPayload,
    DanmakuPayload,
    DeletedPayload,
    GiftPayload,
    HighlightPayload,
    KeyChange,
    KeysPayload,
    PinsPayload,
)

USER, NAME, OTHER = "user-4711", "Wilhelmina", "user-0815"
MASK = NameMask(b"k" * 32)
GIFT = GiftPayload("order", USER, NAME, "rose", 1, 100, OTHER)
PIN = PinnedMessage("pin", MessageType.GIFT, GIFT, USER, NAME, 1)
VIEW = ActivityView(
    "mic", "m", {"seats": [{"seat": 1, "user": USER, "name": NAME}], "winners": [[USER, OTHER]], "title": "Rose"}
)
ENTRY = TickEntry(MessageType.DANMAKU, USER, NAME, DanmakuPayload("hi"), 3, (OTHER,))
EVENTS: list[Event] = [
    Event(MessageType.GIFT, 1, USER, NAME, GIFT),
    Event(MessageType.HIGHLIGHT, 1, USER, NAME, HighlightPayload("order", USER, NAME, "hello", 100)),
    Event(200, 1, USER, NAME, {"text": "hello"}),
    Event(MessageType.PINS_CHANGED, 1, "", "", PinsPayload((PIN,))),
    Event(MessageType.MESSAGES_DELETED, 1, "", "", DeletedPayload((), USER)),
    Event(MessageType.KEYS_CHANGED, 1, "", "", KeysPayload((KeyChange("k", 1, 1, KeyCause.SET, None, USER),))),
    Event(MessageType.ACTIVITY, 1, "", "", ActivityPayload("mic.seat_taken", "m", VIEW.data)),
]  # fmt: skip
MESSAGES: list[Any] = [
    Tick(1, 100, 0, (ENTRY,)),
    State(1, RoomPhase.LIVE, 0, 100, 1, 1, 1, 1, 1, ((USER, 3),), ((USER, NAME),)),
    *EVENTS,
]


def is_masked(value: Any) -> bool:
    return not any(text in repr(value) for text in (USER, NAME, OTHER))


def test_no_message_of_a_room_names_a_viewer() -> None:
    for message in MESSAGES:
        assert not is_masked(message)
        masked = MASK.message(message)
        assert is_masked(masked), message
        assert type(masked) is type(message)
    for event in EVENTS:
        joined = Joined(
            "live-1", 1, 1, Role.GUEST, RoomPhase.LIVE, Tier.FULL, 100, 1, 1, 1, 1, 1, (ENTRY,), False, event,
            (RoomKey("k", 1, 1, None, USER),), 0, (PIN,), (VIEW,),
        )  # fmt: skip
        assert is_masked(MASK.snapshot(joined)), event


def test_staff_are_shown_and_what_is_no_name_stays() -> None:
    shown = ENTRY._replace(role=Role.MODERATOR, senders=())
    tick = Tick(1, 100, 0, (shown,))
    assert MASK.message(tick) == tick
    news = Event(MessageType.ANNOUNCEMENT, 1, USER, NAME, ("hello",))
    assert MASK.message(news) is news
    masked: Any = MASK.message(EVENTS[-1])
    assert masked.payload.data["title"] == "Rose"
    assert MASK.data({"name": "a product"}) == {"name": "a product"}
    assert MASK.data({"user": USER, "name": "W***"})["name"] == "W***", "masked already"


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_user_has_one_mask_in_a_room_and_another_elsewhere(user: str, other: str) -> None:
    assert MASK.user(user) == MASK.user(user)
    assert (MASK.user(user) == MASK.user(other)) == (user == other)
    assert NameMask(b"other" * 8).user(user) != MASK.user(user)
    assert MASK.user("") == MASK.name("") == ""
    assert MASK.name(user).endswith("***")


def test_the_masks_that_are_remembered_are_bounded() -> None:
    mask = NameMask(b"k" * 32)
    first = mask.user("0")
    for number in range(MAX_CACHED + 10):
        mask.user(str(number))
        assert mask.name(f"name {number}") == "n***"
    assert MAX_CACHED < len(mask) <= 2 * MAX_CACHED
    assert mask.user("0") == first
