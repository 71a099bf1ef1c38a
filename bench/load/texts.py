"""Texts of the generator: phrases, and the stamp that makes every message traceable.

A stamp is the end of a text: ``~ROOM.NUMBER.DUE`` in base 36. ROOM is the index of the room the message was sent to (in
another room it is a leak), NUMBER is the message's own, and DUE is its due time by the schedule, in microseconds since
the run's origin. So any viewer can compute the latency of any shown entry, and the lateness of a publisher is part of
it: there is no coordinated omission.

A repeated phrase has no stamp: many senders post the same text, so that the broker can merge it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from broker.config.files import FileError, read_text_of
from protocol.payloads import MAX_DANMAKU_CHARS

__all__ = ["PHRASES", "REPEATED_PHRASES", "Stamp", "base36", "load_corpus", "read_stamp", "stamped"]

PHRASES: tuple[str, ...] = (
    "来了来了", "前排围观", "主播今天状态真好", "这个价格可以", "已下单，坐等发货", "声音有点小", "画质好清晰",
    "链接在哪里", "刚进来，错过了什么", "这个颜色好看", "有没有大码", "包邮吗", "多少钱一件", "再来一遍", "笑死我了",
    "太真实了", "这操作也行？", "学到了", "求歌名", "背景音乐好听", "从南京来打卡", "下班路上看直播", "已经三刷了",
    "礼物走一波", "红包什么时候发", "别走开，马上开奖", "手慢无", "库存还有吗", "这个尺码偏小", "求返场", "客服在吗",
    "Hello from Berlin", "first time here", "what did I miss", "love this song", "sound is a bit low", "price please",
    "is shipping free", "this looks great", "what a play", "no way", "good evening everyone", "greetings from Lagos",
    "how long is the show today", "can we see the blue one", "camera two please", "that was close", "well deserved",
    "sold, thank you", "when is the next one", "bonne soirée", "qué bueno", "こんばんは", "かわいい", "안녕하세요",
)  # fmt: skip
"""The built-in list: short texts in several scripts."""

REPEATED_PHRASES: tuple[str, ...] = ("666", "哈哈哈哈", "冲冲冲", "GG", "awsl", "主播加油", "泪目", "下次一定")
"""Texts that many viewers post at the same time."""

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_STAMP = re.compile(r"~([0-9a-z]+)\.([0-9a-z]+)\.([0-9a-z]+)\Z")
_STAMP_CHARS = 28
"""Room, number and microseconds of a day in base 36, with a margin."""


class Stamp(NamedTuple):
    """Content of a stamp; ``due_us`` counts from the run's origin."""

    room: int
    number: int
    due_us: int


def base36(number: int) -> str:
    """Return ``number`` (>= 0) in digits and lower-case letters."""
    if number < 36:
        return _DIGITS[number]
    digits: list[str] = []
    while number:
        number, rest = divmod(number, 36)
        digits.append(_DIGITS[rest])
    return "".join(reversed(digits))


def stamped(phrase: str, room: int, number: int, due_us: int) -> str:
    """Return ``phrase`` with its stamp; the phrase is cut where both would exceed the length of a danmaku."""
    return f"{phrase[: MAX_DANMAKU_CHARS - _STAMP_CHARS]}~{base36(room)}.{base36(number)}.{base36(max(0, due_us))}"


def read_stamp(text: str) -> Stamp | None:
    """Return the stamp at the end of ``text``; None if it has none."""
    found = _STAMP.search(text)
    if found is None:
        return None
    room, number, due = found.groups()
    return Stamp(int(room, 36), int(number, 36), int(due, 36))


def load_corpus(path: Path) -> tuple[str, ...]:
    """Return the lines of a UTF-8 file, one danmaku a line, without empty ones. ValueError if none is left."""
    try:
        lines = [line.strip() for line in read_text_of(path).split("\n")]
    except FileError as error:
        raise ValueError(str(error)) from error
    durable = tuple(line[: MAX_DANMAKU_CHARS - _STAMP_CHARS] for line in lines if line and line.isprintable())
    if not durable:
        raise ValueError(f"{path}: none of its lines can be a danmaku")
    return durable
