"""Rules for text: which characters are refused, what is the name of a room and the id of a user, and a safe form.

These functions are the only place of each rule: fields of the wire, claims of tokens, settings and commands call them.
"""

from __future__ import annotations

import re
from unicodedata import category, is_normalized

__all__ = [
    "INVISIBLE",
    "MAX_NAME_CHARS",
    "count_graphemes",
    "fits_room_pattern",
    "has_visible",
    "is_blank",
    "is_display_name",
    "is_displayable",
    "is_room_name",
    "is_room_pattern",
    "is_tenant",
    "is_user_id",
    "masked_name",
    "plain",
]

MAX_NAME_CHARS = 64
"""Code points of a room's name, a user's id and a display name."""
_NAME_PUNCTUATION = frozenset("-_.:@")
_is_ascii_room_name = re.compile(r"[A-Za-z0-9\-_.:@]{1,64}").fullmatch

_is_tenant = re.compile(r"[a-z0-9_-]{1,32}").fullmatch

_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
INVISIBLE = re.compile(f"[{_INVISIBLE}]")
"""A character that shows nothing: Default_Ignorable_Code_Point, interlinear marks and the empty Braille cell."""
has_visible = re.compile(rf"[^\s{_INVISIBLE}]").search

RIGHT_TO_LEFT = "\u202e"
"""Right-to-left override: what follows it is shown from right to left, Latin letters too."""
BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Bidirectional controls: with one of them a text can reorder the text around it."""
REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Controls, lone surrogates (which no encoder takes), line and paragraph separators."""


def _is_refused(character: str) -> bool:
    return character in BIDI_CONTROLS or category(character) in REFUSED_CATEGORIES


def is_displayable(text: str) -> bool:
    """Return whether ``text`` has no character that breaks lines, encoders or the text around it.

    Joiners inside emoji are accepted.
    """
    return text.isprintable() or not any(map(_is_refused, text))


def plain(text: str) -> str:
    """Return ``text`` with each refused character replaced by U+FFFD, so that it stays on one line of a terminal."""
    if text.isprintable():
        return text
    return "".join("\ufffd" if _is_refused(character) else character for character in text)


def is_blank(text: str) -> bool:
    """Return whether ``text`` shows nothing: it is empty, or of white space and invisible characters alone."""
    return has_visible(text) is None


def is_room_name(text: str) -> bool:
    """Return whether ``text`` may be the name of a room.

    1 to 64 code points in normalization form C: letters, digits and numbers of any script (categories L and N), marks
    (Mn, Mc) behind one of those, and ``- _ . : @``. Marks write the vowels of Indic scripts and the tones of Thai.
    Invisible characters are refused, and so are texts that another form of the same text would equal on the screen.
    """
    if text.isascii():
        return _is_ascii_room_name(text) is not None
    if len(text) > MAX_NAME_CHARS or not is_normalized("NFC", text) or INVISIBLE.search(text) is not None:
        return False
    may_be_marked = False
    for character in text:
        kind = category(character)
        if character in _NAME_PUNCTUATION:
            may_be_marked = False
        elif kind[0] in "LN":
            may_be_marked = True
        elif not may_be_marked or kind not in ("Mn", "Mc"):
            return False
    return True


def is_room_pattern(text: str) -> bool:
    """Return whether ``text`` is the name of a room, the beginning of one and ``*``, or ``*``."""
    return text == "*" or is_room_name(text.removesuffix("*"))


def fits_room_pattern(pattern: str, name: str) -> bool:
    """Return whether the room ``name`` is meant by ``pattern``, for which `is_room_pattern` holds."""
    return pattern == name or (pattern[-1] == "*" and name.startswith(pattern[:-1]))


def is_tenant(text: str) -> bool:
    """Return whether ``text`` may be the id of a tenant: 1 to 32 of ``a-z``, ``0-9``, ``_`` and ``-``."""
    return _is_tenant(text) is not None


def is_user_id(text: str) -> bool:
    """Return whether a login may have the user id ``text``.

    1 to 64 printable characters (`str.isprintable`: no controls, separators other than U+0020, or format characters),
    no white space at either end, and something visible.
    """
    return 1 <= len(text) <= MAX_NAME_CHARS and text.isprintable() and text == text.strip() and not is_blank(text)


def is_display_name(text: str) -> bool:
    """Return whether ``text`` may be the name that others see of a user: up to 64 displayable code points."""
    return len(text) <= MAX_NAME_CHARS and is_displayable(text)


def count_graphemes(text: str) -> int:
    """Return the number of extended grapheme clusters of ``text`` (UAX #29): characters as people count them.

    Linear in the length of the text: 60 us for 60 emoji with a skin tone.
    """
    if text.isascii() and "\r\n" not in text:
        return len(text)
    import regex  # only long texts in other scripts need it

    return sum(1 for _ in regex.finditer(r"\X", text))


def masked_name(name: str) -> str:
    """Return the first character of ``name``, as people count them, and ``***``: what the public sees of a user.

    The length of the name does not show. An empty name is ``***``.
    """
    if name[:2].isascii():
        return f"{name[:1]}***"
    import regex  # only names in other scripts need it

    first = regex.match(r"\X", name)
    return f"{first.group() if first else ''}***"
