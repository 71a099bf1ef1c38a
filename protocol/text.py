"""Rules for text that is shown to people: which characters are refused, and a form that is safe on one line."""

from __future__ import annotations

import unicodedata

__all__ = ["is_displayable", "plain"]

BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Bidirectional controls: with one of them a text can reorder the text around it."""
REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Controls, lone surrogates (which no encoder takes), line and paragraph separators."""


def _is_refused(character: str) -> bool:
    return character in BIDI_CONTROLS or unicodedata.category(character) in REFUSED_CATEGORIES


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
