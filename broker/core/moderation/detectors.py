"""Detectors: links, phone numbers, contacts on other services, and repeated text, each with its place in the text.

They work on the text in compatibility form and small letters, character by character, without what is invisible, so a
full-width or circled digit is a digit. Each is one search of a regular expression in a text of bounded length.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple
from unicodedata import normalize

from broker.core.moderation.word_fold import CharacterTable, places_of
from protocol.text import INVISIBLE, RIGHT_TO_LEFT

__all__ = ["REPEATED_CHARS", "Detected", "Detector", "detect", "has_link"]

REPEATED_CHARS = 20
"""A part of up to 10 characters that stands three times and more in a row is repeated text from this length on:
哈哈哈哈哈 is laughter."""


class Detector(StrEnum):
    """What is detected."""

    LINK = "link"
    """An address of the web: with a scheme, or a name with a known ending, also with 点 or spaces for the dot."""
    PHONE = "phone"
    """A Chinese mobile number, or an international one that begins with +."""
    CONTACT = "contact"
    """An account on another service, such as vx: abc123."""
    REPEATED = "repeated"
    """The same again and again."""


class Detected(NamedTuple):
    """A place in a text: ``start`` to ``end`` (exclusive) of its characters."""

    detector: Detector
    start: int
    end: int


class _Plain(CharacterTable):
    """A table of compatibility forms in small letters, with Chinese digits and dots as ASCII."""

    def replacement(self, character: str) -> str:
        plain = "" if INVISIBLE.match(character) else normalize("NFKC", normalize("NFKC", character).casefold())
        return "".join(_DIGITS_AND_DOTS.get(each, each) for each in plain)


_DIGITS_AND_DOTS = {
    **dict(zip("零〇一二三四五六七八九幺壹贰叁肆伍陆柒捌玖", "001234567891123456789", strict=True)),
    "。": ".", "·": ".",
}  # fmt: skip
_PLAIN = _Plain()

_DOT = r"(?:\s*[.点]\s*|\s*\(?dot\)?\s*)"
_ENDINGS = "com|cn|net|org|top|xyz|vip|cc|shop|io|me|info|tv|live|link|app|club|site|online|store|ltd|co|ru|tk|ly|gg"
_SEARCHES = {
    Detector.LINK: re.compile(
        rf"\b[a-z][a-z0-9+]{{1,9}}://[^\s/]|(?<![a-z0-9])www{_DOT}[a-z0-9]"
        rf"|(?<![a-z0-9.-])[a-z0-9-]{{2,63}}{_DOT}(?:[a-z0-9-]{{2,63}}{_DOT})?(?:{_ENDINGS})(?![a-z0-9])"
    ),
    Detector.PHONE: re.compile(
        r"(?<!\d)1[ ._*()-]{0,2}[3-9](?:[ ._*()-]{0,2}\d){9}(?!\d)|\+\d{1,3}(?:[ ._()-]{0,2}\d){7,12}(?!\d)"
    ),
    Detector.CONTACT: re.compile(
        r"(?:(?<![a-z])(?:vx|wx|qq|tg|weixin|wechat|whatsapp|telegram)|微信号?|薇信|v信|扣扣|飞机号)"
        r"[\s:.=是号群,-]{0,4}(?:\d{5,12}|[a-z](?=[a-z_-]{0,18}\d)[a-z0-9_-]{5,19})(?![a-z0-9])"
    ),
    Detector.REPEATED: re.compile(r"(\S{1,10}?)\1{2,}"),
}


def detect(text: str) -> list[Detected]:
    """Return what is found in ``text``, a place for each; by detector and place."""
    plain = text.translate(_PLAIN)
    found: list[Detected] = []
    places: list[int] = []
    for detector, search in _SEARCHES.items():
        for match in search.finditer(plain):
            start, end = match.span()
            if detector is Detector.REPEATED and end - start < REPEATED_CHARS:
                continue
            places = places or places_of(text, _PLAIN)
            found.append(Detected(detector, places[start], places[end - 1] + 1))
    return found


def has_link(text: str) -> bool:
    """Return whether a link is found in ``text``, or in what is shown of it from right to left."""
    plain, search = text.translate(_PLAIN), _SEARCHES[Detector.LINK].search
    return search(plain) is not None or (RIGHT_TO_LEFT in text and search(plain[::-1]) is not None)
