"""What was shown lately: found by author and text, with its neighbours, for a minute."""

from __future__ import annotations

from broker.core.rooms.shown_lately import MAX_AGE_MS, MAX_ENTRIES, ShownLately, is_reportable
from broker.core.rooms.stream import StoredEvent
from protocol.activities.audiences import Audience
from protocol.activities.reviews import MAX_CONTEXT, ContextMessage
from protocol.codes import Lane, MessageType
from protocol.messages import Event, TickEntry
from protocol.payloads import HighlightPayload

START = 1_790_000_000_000


def entry(user: str, text: str, *senders: str) -> TickEntry:
    return TickEntry(1, user, user.title(), (text,), 1 + len(senders), senders)


def test_the_last_danmaku_of_an_author_with_a_text_is_found_also_where_it_was_merged() -> None:
    lately = ShownLately()
    first, merged = entry("bob", "hi"), entry("ann", "hi", "bob")
    lately.extend([(START, first)])
    assert lately.find("bob", "hi") == (START, first)
    lately.extend([(START + 1, merged)])
    assert lately.find("bob", "hi") == (START + 1, merged)
    assert lately.find("bob", "ho") is None
    assert lately.find("eve", "hi") is None


def test_danmaku_go_after_a_minute_and_the_oldest_of_too_many_go_first() -> None:
    lately = ShownLately()
    lately.extend([(START, entry("bob", "old"))])
    lately.extend([(START + MAX_AGE_MS, entry("bob", "new"))])
    assert lately.find("bob", "old") is not None
    lately.extend([(START + MAX_AGE_MS + 1, entry("bob", "newer"))])
    assert lately.find("bob", "old") is None
    lately.extend([(START + MAX_AGE_MS + 2, entry("ann", str(number))) for number in range(MAX_ENTRIES)])
    assert len(list(lately)) == MAX_ENTRIES
    assert lately.find("bob", "newer") is None


def test_what_is_around_a_message_is_in_order_and_bounded() -> None:
    lately = ShownLately()
    lately.extend([(START + number, entry("bob", str(number))) for number in range(40)])
    highlight = HighlightPayload("o", "ann", "Ann", "paid", 500, 1, 0)
    events = [
        StoredEvent(1, Lane.COMMERCE, Event(MessageType.ANNOUNCEMENT, START + 20, "host", "Host", ("news",))),
        StoredEvent(2, Lane.PAID, Event(MessageType.HIGHLIGHT, START + 21, "ann", "Ann", highlight)),
        StoredEvent(3, Lane.CONTROL, Event(MessageType.ROOM_PHASE, START + 21, "host", "", (1,))),
        StoredEvent(4, Lane.COMMERCE, Event(MessageType.MEDIA, START + 21, "h", "", ("x",)), Audience(any=("fans",))),
    ]
    around = lately.around(START + 20, events)
    assert [each.text for each in around] == [*map(str, range(11, 21)), "news", "21", "paid", "22", "23", "24"]
    assert len(around) <= MAX_CONTEXT
    assert around[10] == ContextMessage(START + 20, "host", "Host", int(MessageType.ANNOUNCEMENT), "news")
    long = ShownLately()
    long.extend([(START, entry("bob", "x" * 1000))])
    assert len(long.around(START, ())[0].text) == 256


def test_orders_and_what_the_room_says_of_itself_cannot_be_reported() -> None:
    assert {kind for kind in MessageType if is_reportable(kind)} == {
        MessageType.DANMAKU, MessageType.EMOTE, MessageType.ANNOUNCEMENT, MessageType.MEDIA, MessageType.HIGHLIGHT,
    }  # fmt: skip
    assert is_reportable(200)
