"""Operations on keyword hints: their records and rows."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Any, NamedTuple

from ..codes import ErrorCode
from ..fields import FieldError, array_of, boolean, described, integer, name_of, record, room_pattern, text
from .rows import NEEDS_LEDGER, PLATFORM, OperationRow, Scope, row

__all__ = [
    "MAX_HINTS",
    "ROWS",
    "HintList",
    "HintRemoved",
    "HintRule",
    "HintTarget",
    "ListHints",
    "PutHint",
    "RemoveHint",
]

MAX_HINTS = 200
"""Rules of one tenant that operations have put, and as many of the configuration."""
MAX_HINT_WORDS = 20
"""Words of one rule."""
MAX_COOLDOWN_S = 86_400
_DAY = "(?:mon|tue|wed|thu|fri|sat|sun)"
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d"
HOURS_PATTERN = (
    rf"^(?:(?P<days>{_DAY}(?:,{_DAY}){{0,6}}) )?(?P<from>{_TIME})-(?P<to>{_TIME}|24:00)"
    r"(?P<zone>Z|[+-](?:(?:0\d|1[0-3]):[0-5]\d|14:00))\Z"
)
"""Hours of a rule: days, two times of a day, and how far the zone is ahead of UTC."""


class HintTarget(IntEnum):
    """Whom a hint is for."""

    STAFF = 1
    """The staff of the room alone."""
    ROOM = 2
    """All members: the platform's bot posts it as a danmaku."""
    AGENT = 3
    """Agents of the service desk, where a customer writes the word: see ``desk.get``. ``rooms`` names topics then."""


class HintRule(NamedTuple):
    """A rule: where a message that is shown holds one of the words, a hint is given.

    ``words``: words or phrases, with | between two; ``template``: the hint, in which {name} is who wrote the message,
    and {word} the word; ``rooms``: a name, the beginning of one with *, or *; ``cooldown_s``: how long it is quiet
    there after that; ``hours``: when it holds, as in "22:00-08:00+08:00" or "sat,sun 00:00-24:00Z", empty = always;
    ``configured``: it is in the broker's configuration, which alone changes it.
    """

    id: str
    words: str
    template: str
    target: HintTarget = HintTarget.STAFF
    rooms: str = "*"
    cooldown_s: int = 60
    hours: str = ""
    configured: bool = False


class PutHint(NamedTuple):
    """Add a rule, or replace the one of this id; fields as of `HintRule`."""

    id: str
    words: str
    template: str
    target: HintTarget = HintTarget.STAFF
    rooms: str = "*"
    cooldown_s: int = 60
    hours: str = ""


class RemoveHint(NamedTuple):
    """Name a rule."""

    id: str


class HintRemoved(NamedTuple):
    """``removed``: whether there was a rule of this id."""

    removed: bool


class ListHints(NamedTuple):
    """Ask for all rules."""


class HintList(NamedTuple):
    """Rules, by id."""

    items: tuple[HintRule, ...]


def _hours(value: Any) -> str:
    if type(value) is not str or (value and not re.match(HOURS_PATTERN, value)):
        raise FieldError('must be as in "22:00-08:00+08:00" or "sat,sun 00:00-24:00Z", or empty')
    return value


hint_hours = described(_hours, "hours", {"type": "string", "maxLength": 48})
hint_id = text(1, 32)
_RULES = (
    hint_id, text(1, 512), text(1, 100), name_of(HintTarget), room_pattern, integer(1, MAX_COOLDOWN_S), hint_hours,
)  # fmt: skip
_rule = record(HintRule, (*_RULES, boolean))
_EXAMPLE = HintRule("price", "便宜点|太贵", "{name} asks for a lower price: offer the coupon", cooldown_s=30)

ROWS: tuple[OperationRow, ...] = (
    row(
        570, "moderation.put_hint", PutHint, _RULES, HintRule, _rule, "Add a keyword hint, or replace one.",
        scope=Scope.MODERATION_WRITE, roles=PLATFORM, durable=True,
        errors=(*NEEDS_LEDGER, ErrorCode.OUT_OF_STATE),
        example=(PutHint(*_EXAMPLE[:-1]), _EXAMPLE),
    ),
    row(
        571, "moderation.remove_hint", RemoveHint, (hint_id,), HintRemoved, record(HintRemoved, (boolean,)),
        "Remove a keyword hint.",
        scope=Scope.MODERATION_WRITE, roles=PLATFORM, durable=True,
        errors=(*NEEDS_LEDGER, ErrorCode.OUT_OF_STATE),
        example=(RemoveHint("price"), HintRemoved(True)),
    ),
    row(
        572, "moderation.hints", ListHints, (), HintList, record(HintList, (array_of(_rule, 2 * MAX_HINTS),)),
        "Return all keyword hints.",
        scope=Scope.MODERATION_READ, roles=PLATFORM, changes=False,
        example=(ListHints(), HintList((_EXAMPLE,))),
    ),
)  # fmt: skip
