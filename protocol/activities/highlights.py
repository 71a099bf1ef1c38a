"""Highlights of a room: what a member that joins gets of the paid messages that are shown."""

from __future__ import annotations

from typing import NamedTuple

from ..fields import array_of, display_name, integer, member_id, record, text
from ..payloads import MAX_HIGHLIGHT_BYTES, MAX_HIGHLIGHT_CENTS
from .rows import ActivityViewRow

__all__ = ["MAX_SHOWN", "VIEWS", "HighlightsView", "ShownHighlight"]

MAX_SHOWN = 10
"""Highlights in the answer to a JOIN."""


class ShownHighlight(NamedTuple):
    """A paid message that is shown while the time is before ``until_ms``; ``offset``: of its event, whose payload has
    the other fields. A deleted one has neither name nor text."""

    offset: int
    order_id: str
    user: str
    name: str
    text: str
    cents: int
    tier: int
    at_ms: int
    until_ms: int


class HighlightsView(NamedTuple):
    """Paid messages that are shown, the highest tier first, then the oldest. ``more``: so many others are shown too."""

    highlights: tuple[ShownHighlight, ...]
    more: int = 0


_count = integer(0)
_shown = record(
    ShownHighlight,
    (
        *(integer(1), text(1, 64), member_id, display_name, text(0, MAX_HIGHLIGHT_BYTES)),
        *(integer(1, MAX_HIGHLIGHT_CENTS), integer(1), _count, _count),
    ),
)
_AT_MS = 1_790_000_000_000
_EXAMPLE = HighlightsView(
    (ShownHighlight(44, "order-8", "ann", "Ann", "the red one, please", 2_000, 3, _AT_MS, _AT_MS + 300_000),), 2
)

VIEWS: tuple[ActivityViewRow, ...] = (
    ActivityViewRow(
        "highlights", HighlightsView, record(HighlightsView, (array_of(_shown, MAX_SHOWN), _count)), _EXAMPLE
    ),
)
