from __future__ import annotations

from io import StringIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from broker.demo.screen import MAX_WIDTH, Snapshot, draw, progress_line
from broker.demo.users import StalledState
from protocol.clients.events import Danmaku, StreamEvent
from protocol.codes import Lane, MessageType
from protocol.messages import Account

GIFT = StreamEvent(5, Lane.PAID, MessageType.GIFT, 0, "", "", ("o", "u", "小鹿", "火箭", 3, 100, "主播"))
ANNOUNCEMENT = StreamEvent(6, Lane.CONTROL, MessageType.ANNOUNCEMENT, 0, "h", "h", ("欢迎",))
SNAPSHOT = Snapshot(
    phase="chat flood", act=2, acts=6, elapsed_s=34.0, seconds=120.0, port=40000, viewers=300, tcp=225, websocket=75,
    online=303, offered_per_s=1983.4, deliveries_per_s=12031.0, p50_ms=8, p99_ms=41, interval_ms=100, stage=0,
    likes=12345, cut=98, back=97, recovered=97, stalled=StalledState("keyframe mode: chat is dropped", 33, 4100, True),
    accounts=(Account(1, 1), Account(), Account(5, 2, 3), Account(10_000_000, 1, 2, 9_999_997), Account(7, 1, 6)),
    senders={"people": {"accepted": 3, "merged": 2}, "flooders": {"limited": 2}},
    screen=(Danmaku(1, "u", "小鹿", ("求链接", None), 48, (), 0, 1), GIFT, ANNOUNCEMENT),
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
        "98 cut, 97 back", "keyframe mode: chat is dropped; 33 frames wait",
    ):  # fmt: skip
        assert words in text


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("height", [10, 25, 50])
def test_it_fits_the_terminal_and_never_is_wider_than_a_readme(width: int, height: int) -> None:
    drawn = lines(SNAPSHOT, width, height)
    assert max(map(cell_len, drawn)) <= min(width, MAX_WIDTH)
    if width >= MAX_WIDTH and height >= 25:
        assert len(drawn) == 25


def test_before_anything_has_happened_there_is_a_picture_too() -> None:
    empty = SNAPSHOT._replace(
        act=0, elapsed_s=0.0, p50_ms=None, p99_ms=None, cut=0, senders={}, screen=(), stalled=StalledState(),
        accounts=(Account(),) * 5,
    )  # fmt: skip
    text = "\n".join(lines(empty))
    assert "nobody has said anything yet" in text
    assert "nothing has arrived lately" in text


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=100), st.text(max_size=64), st.integers(1, 1000))
def test_what_people_say_is_text_and_no_markup_whatever_it_is(text: str, name: str, count: int) -> None:
    said = (
        Danmaku(1, "u", name, (text, None), count, (), 0, 1),
        StreamEvent(5, Lane.PAID, MessageType.GIFT, 0, "", "", ("o", "u", name, text, count, 100, "")),
        StreamEvent(6, Lane.CONTROL, MessageType.ANNOUNCEMENT, 0, "h", "h", (text,)),
    )
    drawn = lines(SNAPSHOT._replace(screen=said))
    assert len(drawn) == 25
    assert not [line for line in drawn if "\x1b" in line]


def test_markup_in_a_text_stays_as_it_was_written() -> None:
    said = (Danmaku(1, "u", "[bold]x", ("[red]hi[/red]", None), 1, (), 0, 1),)
    assert "[red]hi[/red]  [bold]x" in "\n".join(lines(SNAPSHOT._replace(screen=said)))


def test_a_progress_line_is_one_line() -> None:
    assert progress_line(SNAPSHOT) == (
        "[ 34.0 s] chat flood: 300 viewers, 1983 offered/s, 12031 delivered/s, p99 41 ms, stage 0"
    )
    assert "p99 -" in progress_line(SNAPSHOT._replace(p99_ms=None))
