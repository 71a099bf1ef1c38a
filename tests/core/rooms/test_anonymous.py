"""Events for an export: without configuration no name, no id and no text of a person is in any of them."""

from __future__ import annotations

from broker.core.rooms.anonymous import exported_event
from broker.core.rooms.masking import NameMask
from protocol.codes import KeyCause, MediaKind, MessageType
from protocol.messages import Event, PinnedMessage
from protocol.payloads import (
    ActivityPayload,
    AnnouncementPayload,
    DanmakuPayload,
    DeletedPayload,
    GiftPayload,
    HighlightPayload,
    KeyChange,
    KeysPayload,
    MediaPayload,
    PinsPayload,
)

USER, NAME, TEXT = "user-4711", "Wilhelmina", "what she wrote"
MASK = NameMask(b"k" * 32)
GIFT = GiftPayload("order", USER, NAME, "rose", 2, 100, USER)
DATA = {"message": {"user": USER, "name": NAME, "text": TEXT}, "winners": [[USER]], "count": 3, "reason": TEXT}
EVENTS = [
    Event(MessageType.GIFT, 1, USER, NAME, GIFT),
    Event(MessageType.DANMAKU, 1, USER, NAME, DanmakuPayload(TEXT)),
    Event(MessageType.ANNOUNCEMENT, 1, USER, NAME, AnnouncementPayload(TEXT)),
    Event(MessageType.HIGHLIGHT, 1, USER, NAME, HighlightPayload("order", USER, NAME, TEXT, 100)),
    Event(MessageType.MEDIA, 1, USER, NAME, MediaPayload(f"https://x/{TEXT}", MediaKind.IMAGE, 1, "ab" * 32, TEXT)),
    Event(MessageType.MESSAGES_DELETED, 1, "", "", DeletedPayload((), USER, 0, TEXT)),
    Event(MessageType.KEYS_CHANGED, 1, "", "", KeysPayload((KeyChange("k", 1, TEXT, KeyCause.SET, None, USER),))),
    Event(
        MessageType.PINS_CHANGED, 1, USER, NAME,
        PinsPayload((PinnedMessage("p", MessageType.ANNOUNCEMENT, AnnouncementPayload(TEXT), USER, NAME, 1),)),
    ),
    Event(MessageType.ACTIVITY, 1, "", "", ActivityPayload("message.held", "", DATA)),
    Event(200, 1, USER, NAME, {"text": TEXT}),
]  # fmt: skip


def test_without_configuration_an_export_names_and_quotes_nobody() -> None:
    for event in EVENTS:
        exported = exported_event(event, MASK)
        assert not any(mark in repr(exported) for mark in (USER, NAME, NAME[:1] + "***", TEXT)), event
        assert (exported.type, exported.at_ms, type(exported)) == (event.type, event.at_ms, Event)
        again = exported_event(event, MASK, names=True, texts=True)
        assert again == event


def test_amounts_and_the_identity_of_a_user_stay() -> None:
    gift = exported_event(EVENTS[0], MASK)
    assert (gift.payload.count, gift.payload.price_cents, gift.payload.gift_id) == (2, 100, "rose")
    assert gift.user_id == gift.payload.user_id == gift.payload.target == MASK.user(USER)
    assert exported_event(EVENTS[8], MASK).payload.data["count"] == 3


def test_names_and_texts_are_configured_apart() -> None:
    text = exported_event(EVENTS[1], MASK, texts=True)
    assert (text.payload.text, text.name, text.user_id) == (TEXT, "", MASK.user(USER))
    named = exported_event(EVENTS[1], MASK, names=True)
    assert (named.payload.text, named.name, named.user_id) == ("", NAME, USER)
