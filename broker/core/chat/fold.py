"""The form in which texts of viewers are compared: the one for merging, for duplicates and for filters."""

from __future__ import annotations

import re
from unicodedata import is_normalized
from unicodedata import normalize as _to_form

from protocol.text import INVISIBLE

__all__ = ["COMBINING_MARKS", "MAX_NFKC_CHARS", "fold"]

MAX_NFKC_CHARS = 256
"""Longer texts (custom types of a deployment, emoji of many code points) are compared without NFKC: putting combining
marks in order is quadratic, 18 us for 100 of them but 6 ms for the 2,000 that fit into a payload."""

COMBINING_MARKS = re.compile("[\u0300-\u036f\u1ab0-\u1ace\u1dc0-\u1dff\u20d0-\u20dc\ufe20-\ufe2f]")
"""Combining marks that fit onto any letter. Vowel signs of Indic and Thai scripts are letters to a reader, and stay."""

_CASELESS = "\u3002\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3\U0001f300-\U0001f64f\U0001f680-\U0001f6c5"
"""Ideographic full stop, kana, Han, Hangul syllables and most emoji: each is its own NFKC and its own lower case, and
joins no neighbour of these or of ASCII."""
_has_unfolded = re.compile(f"[^!-@\\[-~{_CASELESS}]").search
_needs_forms = re.compile(f"[^\t-\r -~{_CASELESS}]").search


def fold(text: str) -> str:
    """Return ``text`` as it is compared: what is invisible is left out, NFKC, case folding, single spaces.

    Left out are invisible characters, and combining marks that NFKC does not compose with their letter. Outer white
    space is removed and each inner run of it becomes one space. Two texts that look alike can still differ (Latin and
    Cyrillic a). Linear in the length of the text.

    NFC of NFKD is NFKC by definition, and five times faster here: composition is skipped when the quick check
    finds nothing to compose, which CPython's own NFKC does not try after decomposing. One full-width
    letter in a Chinese sentence would cost 7 us instead of 1.4. No NFKC above `MAX_NFKC_CHARS`. What most viewers of
    East Asia write needs none of that: 0.15 us for 20 Han characters.
    """
    if not text.isascii():
        if _has_unfolded(text) is None:
            return text
        if len(text) <= MAX_NFKC_CHARS:  # these three are in half of all Chinese texts, and NFKC says the same of them
            text = text.replace("\uff0c", ",").replace("\uff01", "!").replace("\uff1f", "?")
        if _needs_forms(text) is not None:
            text = _in_form(text)
    return " ".join(text.casefold().split())


def _in_form(text: str) -> str:
    """Return ``text`` without what is invisible, in NFKC."""
    text = INVISIBLE.sub("", text)
    if len(text) <= MAX_NFKC_CHARS and not is_normalized("NFKC", text):
        text = _to_form("NFC", _to_form("NFKD", text))
    return COMBINING_MARKS.sub("", text)
