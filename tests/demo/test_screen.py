from __future__ import annotations

from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from broker.demo.screen import MAX_WIDTH, Snapshot, draw, progress_line
from broker.demo.users import StalledState
from protocol.clients.events import Danmaku, StreamEvent
from protocol.codes import Lane, MessageType
from protocol.messages import Account
from protocol.payloads import AnnouncementPayload, DanmakuPayload, GiftPayload, HighlightPayload
from tests.support.examples import examples

GIFT = StreamEvent(5, Lane.PAID, MessageType.GIFT, 0, "", "", GiftPayload("o", "u", "小鹿", "火箭", 3, 100, "主播"))
ANNOUNCEMENT = StreamEvent(6, Lane.CONTROL, MessageType.ANNOUNCEMENT, 0, "h", "h", AnnouncementPayload("欢迎"))
SNAPSHOT = Snapshot(
    status="chat flood", phase_number=2, phases=6, elapsed_s=34.0, seconds=120.0, port=40000, viewers=300, tcp=225,
    websocket=75,
    online=303, offered_per_s=1983.4, deliveries_per_s=12031.0, p50_ms=8, p99_ms=41, interval_ms=100, stage=0,
    likes=12345, gifts=910, gift_messages=5, cut=98, back=97, recovered=97,
    stalled=StalledState("keyframe mode: chat is dropped", 33, 4100, True),
    accounts=(Account(1, 1), Account(), Account(5, 2, 3), Account(10_000_000, 1, 2, 9_999_997), Account(7, 1, 6)),
    senders={"people": {"accepted": 3, "merged": 2}, "flooders": {"limited": 2}},
    screen=(Danmaku(1, "u", "小鹿", DanmakuPayload("求链接"), 48, (), 0, 1), GIFT, ANNOUNCEMENT),
)  # fmt: skip


def lines(snapshot: Snapshot, width: int = 100, height: int = 30) -> list[str]:
    console = Console(file=StringIO(), width=width, height=height, color_system=None, legacy_windows=False)
    console.print(draw(snapshot, width, height))
    file = console.file
    assert isinstance(file, StringIO)
    return file.getvalue().splitlines()


def test_the_screen_shows_the_room_the_accounts_the_senders_and_the_broker() -> None:
    text = "\n".join(lines(SNAPSHOT))
    for words in (
        "2/6  chat flood", "0:34 of 2:00", "×48 求链接  小鹿", "◆ 小鹿 火箭 ×3", "欢迎", "9,999,997", "people",
        "225 TCP, 75 WebSocket; 303 online", "12,031 delivered/s", "p99 41 ms", "tick 100 ms, overload stage 0",
        "98 cut, 97 back", "keyframe mode: chat is dropped; 33 frames queued",
        "910 gifts in 5 messages, 12,345 likes",
    ):  # fmt: skip
        assert words in text


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("height", [10, 24, 26, 50])
def test_it_is_never_wider_than_the_terminal_or_100_columns(width: int, height: int) -> None:
    drawn = lines(SNAPSHOT, width, height)
    assert max(map(cell_len, drawn)) <= min(width, MAX_WIDTH)
    if height >= 26:
        assert len(drawn) == 26


def test_it_fits_80_columns_and_24_lines_with_every_row_in_view() -> None:
    drawn = lines(SNAPSHOT, 80, 24)
    assert len(drawn) <= 24
    text = "\n".join(drawn)
    for words in (
        "2/6  chat flood",
        "×48 求链接",
        "9,999,997",
        "flooders",
        "910 gifts in 5 messages",
        "98 cut, 97 back",
    ):
        assert words in text
    assert "33 frames queued" in drawn[-1]


def test_the_addresses_of_the_pages_take_one_line_and_no_row_of_the_tables() -> None:
    pages = tuple(f"http://127.0.0.1:{where}" for where in ("40000/room/lobby", "40000/host/lobby", "40001/console"))
    drawn = lines(SNAPSHOT._replace(pages=pages), 80, 24)
    assert len(drawn) <= 24
    assert drawn[2].split() == [pages[0], "/host/lobby", pages[2]]
    assert "33 frames queued" in drawn[-1]


def test_the_screen_of_a_demo_that_has_just_started() -> None:
    empty = SNAPSHOT._replace(
        phase_number=0, elapsed_s=0.0, p50_ms=None, p99_ms=None, cut=0, senders={}, screen=(), stalled=StalledState(),
        accounts=(Account(),) * 5,
    )  # fmt: skip
    text = "\n".join(lines(empty))
    assert "no messages yet" in text
    assert "no messages in the last 3 s" in text


@examples(40)
@given(st.text(max_size=100), st.text(max_size=64), st.integers(1, 1000))
def test_texts_of_the_room_are_never_markup(text: str, name: str, count: int) -> None:
    said = (
        Danmaku(1, "u", name, DanmakuPayload(text), count, (), 0, 1),
        StreamEvent(5, Lane.PAID, MessageType.GIFT, 0, "", "", GiftPayload("o", "u", name, text, count, 100, "")),
        StreamEvent(6, Lane.CONTROL, MessageType.ANNOUNCEMENT, 0, "h", "h", AnnouncementPayload(text)),
        StreamEvent(7, Lane.PAID, MessageType.HIGHLIGHT, 0, "u", name, HighlightPayload("o", "u", name, text, 500)),
    )
    drawn = lines(SNAPSHOT._replace(screen=said))
    assert len(drawn) == 26
    assert not [line for line in drawn if "\x1b" in line]


def test_markup_in_a_text_stays_as_it_was_written() -> None:
    said = (Danmaku(1, "u", "[bold]x", DanmakuPayload("[red]hi[/red]"), 1, (), 0, 1),)
    assert "[red]hi[/red]  [bold]x" in "\n".join(lines(SNAPSHOT._replace(screen=said)))


def test_a_paid_message_has_its_amount() -> None:
    paid = HighlightPayload("o", "u", "小鹿", "bravo", 50_000, 6)
    said = (StreamEvent(7, Lane.PAID, MessageType.HIGHLIGHT, 0, "u", "小鹿", paid),)
    assert "小鹿 500.00  bravo" in "\n".join(lines(SNAPSHOT._replace(screen=said)))


def test_a_progress_line_is_one_line() -> None:
    assert progress_line(SNAPSHOT) == (
        "[ 34.0 s] chat flood: 300 viewers, 1983 messages/s offered, 12031 messages/s delivered, "
        "p99 41 ms, overload stage 0"
    )
    assert "p99 -" in progress_line(SNAPSHOT._replace(p99_ms=None))
