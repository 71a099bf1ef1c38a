"""Payloads of the built-in types."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codes import MESSAGE_TYPES, MediaKind, MessageType, RoomPhase
from protocol.fields import FieldError
from protocol.frames import pack_body, unpack_body
from protocol.messages import Post
from protocol.payloads import (
    MAX_DANMAKU_CHARS,
    MAX_LIKES_PER_POST,
    PAYLOAD_KINDS,
    DanmakuPayload,
    GiftPayload,
    LikePayload,
    PhasePayload,
    check_payload,
    payload_record,
)
from tests.support.examples import examples
from tests.support.strategies import free_values, payloads, texts, too_deep


@pytest.mark.parametrize("kind", payloads)
@examples(15)
@given(st.data())
def test_a_payload_is_read_back_typed_from_an_array_and_from_an_object(kind: int, data: st.DataObject) -> None:
    payload = data.draw(payloads[kind])
    for form in (unpack_body(pack_body(payload)), list(payload), payload._asdict()):
        found = check_payload(kind, form)
        assert found == payload
        assert type(found) is type(payload)


@pytest.mark.parametrize("kind", payloads)
@examples(15)
@given(st.data())
def test_the_largest_honest_post_fits_its_types_cap(kind: int, data: st.DataObject) -> None:
    payload = data.draw(payloads[kind])
    client_msg_id = data.draw(texts(0, 64))
    assert len(pack_body(Post(kind, client_msg_id, payload))) <= MESSAGE_TYPES[kind].max_bytes


def test_the_very_largest_posts_fit() -> None:
    rose = "\U0001f339"
    largest = {
        MessageType.DANMAKU: (rose * 100, (2, 0xFFFFFF, 2)),
        MessageType.EMOTE: (rose * 64,),
        MessageType.LIKE: (MAX_LIKES_PER_POST,),
        MessageType.ANNOUNCEMENT: (rose * 500,),
        MessageType.GIFT: (rose * 64, rose * 64, rose * 64, rose * 64, 1_000_000, 2**53 - 1, rose * 64),
        MessageType.HIGHLIGHT: (rose * 64, rose * 64, rose * 64, rose * 200, 10**12),
        MessageType.ROOM_PHASE: (RoomPhase.ENDED,),
        MessageType.MEDIA: ("https://" + "a" * 1016, MediaKind.FILE, 2**40, "f" * 64, rose * 200),
        MessageType.MESSAGES_DELETED: ((2**53 - 1,) * 100, rose * 64, 2**53 - 1, rose * 256),
    }
    assert set(largest) == set(payloads)
    for kind, payload in largest.items():
        check_payload(kind, payload)
        assert len(pack_body(Post(kind, rose * 64, payload))) <= MESSAGE_TYPES[kind].max_bytes


@examples(15)
@given(free_values)
def test_types_without_a_shape_take_any_free_value_as_it_is(value: Any) -> None:
    for kind in (128, 200, 255, MessageType.JOINED, MessageType.MISSED):
        assert check_payload(kind, value) is value


@examples(15)
@given(too_deep)
def test_a_custom_payload_is_judged_as_a_free_value(value: Any) -> None:
    with pytest.raises(FieldError) as caught:
        check_payload(128, value)
    assert caught.value.field == "payload"


@pytest.mark.parametrize(
    ("kind", "payload", "field"),
    [
        (MessageType.DANMAKU, ("x" * (MAX_DANMAKU_CHARS + 1),), "payload.text"),
        (MessageType.DANMAKU, ("a\nb",), "payload.text"),
        (MessageType.DANMAKU, ("a", (3, 0, 0)), "payload.style"),
        (MessageType.DANMAKU, ("a", (0, -1, 0)), "payload.style"),
        (MessageType.DANMAKU, ("a", (0, 0)), "payload.style"),
        (MessageType.DANMAKU, ("a", "red"), "payload.style"),
        (MessageType.DANMAKU, "a", "payload"),
        (MessageType.DANMAKU, None, "payload"),
        (MessageType.DANMAKU, {}, "payload.text"),
        (MessageType.EMOTE, ("",), "payload.emote_id"),
        (MessageType.LIKE, (0,), "payload.count"),
        (MessageType.LIKE, (MAX_LIKES_PER_POST + 1,), "payload.count"),
        (MessageType.LIKE, (True,), "payload.count"),
        (MessageType.ANNOUNCEMENT, ("a\x0bb",), "payload.text"),
        (MessageType.ANNOUNCEMENT, ("x" * 501,), "payload.text"),
        (MessageType.GIFT, ("", "u", "n", "g", 1, 1), "payload.order_id"),
        (MessageType.GIFT, ("o", "u", "n", "g", 0, 1), "payload.count"),
        (MessageType.GIFT, ("o", "u", "n", "g", 1, -1), "payload.price_cents"),
        (MessageType.GIFT, ("o", "u", "n", "g", 1, 9.99), "payload.price_cents"),
        (MessageType.GIFT, ("o", "u", "n", "g", 1), "payload.price_cents"),
        *(
            (MessageType.HIGHLIGHT, ("o", "u", "n", "hi", cents), "payload.cents")
            for cents in (0, -500, 10**12 + 1, 2**63, 500.0, "500", True, None)
        ),
        (MessageType.HIGHLIGHT, ("o", "u", "n", "", 500), "payload.text"),
        (MessageType.HIGHLIGHT, ("o", "u", "n", "x" * 201, 500), "payload.text"),
        (MessageType.HIGHLIGHT, ("o", "u", "n", "a\nb", 500), "payload.text"),
        (MessageType.HIGHLIGHT, ("", "u", "n", "hi", 500), "payload.order_id"),
        (MessageType.HIGHLIGHT, ("o", "u", "n", "hi", 500, -1), "payload.tier"),
        (MessageType.ROOM_PHASE, (4,), "payload.phase"),
        *(
            (MessageType.MEDIA, (url, 1, 1, "0" * 64), "payload.url")
            for url in (
                "http://a/b",
                "javascript:alert(1)",
                "data:image/png;base64,AA",
                "https://",
                "https://u:p@a/",
                "//a/b",
                "https://a/ b",
                "https://a/\u4e2d",
                'https://a/"><script>',
                "https://" + "a" * 1017,
                "HTTPS://a",
                1,
                "",
            )
        ),
        (MessageType.MEDIA, ("https://a", 0, 1, "0" * 64), "payload.kind"),
        (MessageType.MEDIA, ("https://a", 1, -1, "0" * 64), "payload.size_bytes"),
        (MessageType.MEDIA, ("https://a", 1, 1, "0" * 63), "payload.sha256"),
        (MessageType.MEDIA, ("https://a", 1, 1, "F" * 64), "payload.sha256"),
        (MessageType.MEDIA, ("https://a", 1, 1, "0" * 64 + "\n"), "payload.sha256"),
        (MessageType.MESSAGES_DELETED, ((0,),), "payload.offsets[0]"),
        (MessageType.MESSAGES_DELETED, ((1,) * 101,), "payload.offsets"),
        (MessageType.MESSAGES_DELETED, ((), "", -1), "payload.after_ms"),
    ],
)
def test_a_bad_payload_is_refused_with_its_path(kind: int, payload: Any, field: str) -> None:
    with pytest.raises(FieldError) as caught:
        check_payload(kind, payload)
    assert caught.value.field == field


def test_appended_fields_of_a_payload_are_ignored() -> None:
    assert check_payload(MessageType.LIKE, (3, "later")) == LikePayload(3)
    assert check_payload(MessageType.DANMAKU, ("a",)) == DanmakuPayload("a", None)
    assert check_payload(MessageType.ROOM_PHASE, {"phase": 2, "later": 1}) == PhasePayload(RoomPhase.PAUSED)
    assert check_payload(MessageType.GIFT, ("o", "u", "", "g", 1, 0)) == GiftPayload("o", "u", "", "g", 1, 0, "")


@pytest.mark.parametrize("kind", payloads)
@examples(15)
@given(st.data())
def test_a_received_payload_becomes_its_record_also_from_a_later_edition(kind: int, data: st.DataObject) -> None:
    payload = data.draw(payloads[kind])
    wire = tuple(unpack_body(pack_body(payload)))
    later = data.draw(st.lists(free_values, max_size=2))
    for received in (wire, (*wire, *later)):
        found = payload_record(kind, received)
        assert found == payload
        assert type(found) is type(payload)


@examples(200)
@given(st.integers(1, 255), free_values)
def test_any_other_payload_stays_as_it_is_or_becomes_a_record(kind: int, value: object) -> None:
    found = payload_record(kind, value)
    assert found is value or type(found) is PAYLOAD_KINDS[kind]
