"""Moderation of a room: what its viewers learn of it."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..fields import boolean, integer, record, text
from .rows import ActivityEventRow, Via

__all__ = ["ROWS", "OwnMute", "SanctionKind", "SanctionVerb", "own_mute"]


class SanctionKind(IntEnum):
    """Kind of a sanction."""

    MUTE = 1
    """The user may not post."""
    BAN = 2
    """The user may not enter."""


class SanctionVerb(IntEnum):
    """What an action does."""

    MUTE = 1
    BAN = 2
    UNMUTE = 3
    UNBAN = 4


class OwnMute(NamedTuple):
    """Whether the user may post in this room. ``until_ms``: when it may again, 0 = when the mute is lifted."""

    is_muted: bool
    until_ms: int = 0
    reason: str = ""


own_mute = record(OwnMute, (boolean, integer(0), text(0, 256)))
_OWN_EXAMPLE = OwnMute(True, 1_790_000_600_000, "spam")

ROWS: tuple[ActivityEventRow, ...] = (
    ActivityEventRow(
        "moderation.muted",
        Via.OWN_COUNTER,
        OwnMute,
        own_mute,
        "The user is muted in this room, or may post again. When the time of a mute is over nothing is sent.",
        _OWN_EXAMPLE,
    ),
)
