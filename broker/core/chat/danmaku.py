"""A danmaku on its way through a room, and when two of them say the same.

Mutable and cheap on purpose: one object lives from the POST to the tick, merging only counts up.
"""

from __future__ import annotations

from typing import Any
from unicodedata import is_normalized
from unicodedata import normalize as _to_form

__all__ = ["MAX_SENDERS", "PendingDanmaku", "normalize"]

MAX_SENDERS = 3
"""Further senders named in a merged entry (the wire's cap)."""
MAX_NFKC_CHARS = 256
"""Longer texts (custom types of a deployment; a danmaku has 100) are compared by case folding alone: putting combining
marks in order is quadratic, 18 us for 100 of them but 6 ms for the 2,000 that fit into a payload."""


def normalize(text: str) -> str:
    """Return the form in which texts are compared: NFKC, case folding, no outer white space.

    NFC of NFKD is NFKC by definition, and five times faster here: composition is skipped when the quick check
    finds nothing to compose, which CPython's own NFKC does not try after decomposing. One full-width
    comma in a Chinese sentence would cost 7 us instead of 1.4. No NFKC above `MAX_NFKC_CHARS`.
    """
    if text.isascii():
        return text.strip().lower()
    if len(text) <= MAX_NFKC_CHARS and not is_normalized("NFKC", text):
        text = _to_form("NFC", _to_form("NFKD", text))
    return text.casefold().strip()


class PendingDanmaku:
    """One danmaku or emote, later an entry of a tick: ``count`` equal ones, the first by ``user_id``.

    ``senders``: up to 3 further user ids in order of arrival. ``style`` and ``extra`` are the caller's.
    ``at``: monotonic seconds of arrival. ``folded``: the text after `normalize`, if the caller has it already. The
    fields that begin with an underscore belong to the window it is in.
    """

    __slots__ = (
        "_cost", "_key", "_order", "_rated", "_standing", "_tickets",
        "at", "count", "extra", "folded", "name", "senders", "style", "text", "type", "user_id",
    )  # fmt: skip

    def __init__(
        self,
        type: int,
        user_id: str,
        name: str,
        text: str,
        style: tuple[int, ...] | None = None,
        extra: object = None,
        at: float = 0.0,
        folded: str | None = None,
    ) -> None:
        self.type = type
        self.user_id = user_id
        self.name = name
        self.text = text
        self.style = style
        self.extra = extra
        self.at = at
        self.folded = folded
        self.count = 1
        self.senders: tuple[str, ...] = ()

    _cost: int
    _key: tuple[int, str] | int
    _order: int
    _rated: str  # whose standing it has: the lightest of its senders
    _standing: float
    _tickets: list[Any]  # of the Coalescer's type; a type argument here would cost on every message

    def __repr__(self) -> str:
        return f"<Danmaku {self.text!r} x{self.count} by {self.user_id}>"
