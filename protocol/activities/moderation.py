"""Moderation of a room: what its viewers learn of it."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..fields import boolean, display_name, integer, member_id, record, text
from .rows import ActivityEventRow, ActivityViewRow, Via

__all__ = [
    "MAX_DELAY_MS",
    "MAX_FOLLOWERS_S",
    "MAX_SLOW_S",
    "ROWS",
    "VIEWS",
    "Hint",
    "OwnMute",
    "RoomModes",
    "SanctionKind",
    "SanctionVerb",
    "own_mute",
    "room_modes",
]

MAX_SLOW_S = 3600
MAX_FOLLOWERS_S = 31_536_000
MAX_DELAY_MS = 30_000


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


class RoomModes(NamedTuple):
    """Who may chat in a room, and how; staff always may.

    ``slow_s``: seconds between two messages of a user, 0 = off; ``followers_s``: users who follow the host for so long,
    0 = who follow at all, -1 = off; ``vip_only``; ``emote_only``: no texts; ``unique``: no text twice within ten
    minutes, whoever says it; ``mute_all``: staff alone; ``links``: whether texts may have links; ``delay_ms``: staff
    see messages first, the others so much later. ``raid_slow_s``: as ``slow_s``, until ``raid_until_ms``, which the
    broker sets by itself on a raid.
    """

    slow_s: int = 0
    followers_s: int = -1
    vip_only: bool = False
    emote_only: bool = False
    unique: bool = False
    mute_all: bool = False
    links: bool = True
    delay_ms: int = 0
    raid_slow_s: int = 0
    raid_until_ms: int = 0


_slow = integer(0, MAX_SLOW_S)
room_modes = record(
    RoomModes,
    (
        _slow, integer(-1, MAX_FOLLOWERS_S), boolean, boolean, boolean, boolean, boolean, integer(0, MAX_DELAY_MS),
        _slow, integer(0),
    ),
)  # fmt: skip


class Hint(NamedTuple):
    """A keyword hint for staff. ``rule``: its id; ``text``: the hint; ``word``: what was found in ``message``, which
    ``user`` wrote and all members see."""

    rule: str
    text: str
    word: str
    user: str
    name: str
    message: str


_hint = record(Hint, (text(1, 32), text(1, 512), text(1, 64), member_id, display_name, text(1, 1000)))
own_mute = record(OwnMute, (boolean, integer(0), text(0, 256)))
_OWN_EXAMPLE = OwnMute(True, 1_790_000_600_000, "spam")

_MODES_EXAMPLE = RoomModes(slow_s=10, followers_s=600, links=False)

ROWS: tuple[ActivityEventRow, ...] = (
    ActivityEventRow(
        "moderation.modes_changed",
        Via.EVENT,
        RoomModes,
        room_modes,
        "The modes of the room have changed.",
        _MODES_EXAMPLE,
    ),
    ActivityEventRow(
        "moderation.muted",
        Via.OWN_COUNTER,
        OwnMute,
        own_mute,
        "The user is muted in this room, or may post again. When the time of a mute is over nothing is sent.",
        _OWN_EXAMPLE,
    ),
    ActivityEventRow(
        "moderation.hint",
        Via.HOST_COUNTER,
        Hint,
        _hint,
        "A message that is shown holds a word of a keyword hint. A newer one of the same rule replaces an older one.",
        Hint("price", "Ann asks for a lower price: offer the coupon", "便宜点", "ann", "Ann", "便宜点吧"),
    ),
)
VIEWS: tuple[ActivityViewRow, ...] = (
    ActivityViewRow("moderation", RoomModes, room_modes, _MODES_EXAMPLE, OwnMute, own_mute, _OWN_EXAMPLE),
)
