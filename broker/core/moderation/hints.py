"""Keyword hints: rules that inform staff, or answer as the platform's bot, where a message that is shown holds a word.

A `HintSet` holds the rules of one tenant and finds their words as the word filter does (`words`). `HintCooldowns` keeps
each rule quiet for a while in each room.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from broker.core.moderation.words import WordAction, WordError, WordFilter, WordList
from protocol.operations.hints import HOURS_PATTERN, MAX_HINT_WORDS, HintRule
from protocol.text import fits_room_pattern

__all__ = ["HintCooldowns", "HintError", "HintHours", "HintSet", "filled", "words_of"]

DAY_MS = 86_400_000
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MONDAY_MS = 4 * DAY_MS
"""A Monday: 1970-01-05."""


class HintError(ValueError):
    """A rule that cannot hold. ``field``: of the rule."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field} {rule}")
        self.field = field
        self.rule = rule


class HintHours(NamedTuple):
    """Hours in which a rule holds. Minutes of the day, ``to_min`` before ``from_min`` = of the next day; ``days``: on
    which it begins, 0 = Monday; ``zone_min``: minutes ahead of UTC."""

    days: frozenset[int]
    from_min: int
    to_min: int
    zone_min: int

    @classmethod
    def parse(cls, text: str) -> HintHours:
        """Return the hours of a text that `HOURS_PATTERN` matches. HintError for any other."""
        found = re.match(HOURS_PATTERN, text)
        if found is None:
            raise HintError("hours", "is no such text")
        days = found["days"].split(",") if found["days"] else _DAYS
        zone = found["zone"]
        zone_min = 0 if zone == "Z" else _minutes(zone[1:]) * (-1 if zone[0] == "-" else 1)
        return cls(
            frozenset(_DAYS.index(day) for day in days), _minutes(found["from"]), _minutes(found["to"]), zone_min
        )

    def hold_at(self, now_ms: int) -> bool:
        """Return whether the rule holds at a time, Unix milliseconds."""
        days, rest_ms = divmod(now_ms - _MONDAY_MS + self.zone_min * 60_000, DAY_MS)
        minute, today, yesterday = rest_ms // 60_000, days % 7 in self.days, (days - 1) % 7 in self.days
        if self.from_min < self.to_min:
            return today and self.from_min <= minute < self.to_min
        return (today and minute >= self.from_min) or (yesterday and minute < self.to_min)


def _minutes(text: str) -> int:
    hours, _, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes)


def words_of(rule: HintRule) -> tuple[str, ...]:
    """Return the words of a rule: a | stands between two. HintError for none, or too many."""
    words = tuple(word for each in rule.words.split("|") if (word := each.strip()))
    if not 1 <= len(words) <= MAX_HINT_WORDS:
        raise HintError("words", f"must have 1 to {MAX_HINT_WORDS} words, with | between them")
    return words


class HintSet:
    """Rules of one tenant, built once and never changed."""

    __slots__ = ("_filter", "_hours", "rules")

    def __init__(self, rules: Sequence[HintRule]) -> None:
        """HintError for a rule that cannot hold."""
        self.rules = {rule.id: rule for rule in rules}
        self._hours = {rule.id: HintHours.parse(rule.hours) for rule in rules if rule.hours}
        lists = [WordList(rule.id, WordAction.FLAG, words_of(rule)) for rule in self.rules.values()]
        try:
            self._filter = WordFilter.build(lists)
        except WordError as error:
            raise HintError("words", str(error).partition(": ")[2]) from error

    def found(self, room: str, text: str, now_ms: int) -> list[tuple[HintRule, str]]:
        """Return the rules that a text in a room (by plain name) meets now, each once, with the word."""
        found: dict[str, str] = {}
        for finding in self._filter.find(text):
            found.setdefault(finding.list_name, finding.word)
        return [
            (self.rules[id], word)
            for id, word in found.items()
            if fits_room_pattern(self.rules[id].rooms, room) and self._holds(id, now_ms)
        ]

    def _holds(self, id: str, now_ms: int) -> bool:
        hours = self._hours.get(id)
        return hours is None or hours.hold_at(now_ms)


class HintCooldowns:
    """When each rule has last been met in each room; the oldest are forgotten above ``limit``."""

    __slots__ = ("_limit", "_until")

    def __init__(self, limit: int = 50_000) -> None:
        self._limit = limit
        self._until: dict[tuple[str, str], float] = {}

    def try_begin(self, room: str, rule: HintRule, now: float) -> bool:
        """Return whether a rule may be met in a room now; then it is quiet for its cooldown. ``now``: monotonic s."""
        key = room, rule.id
        if now < self._until.get(key, now):
            return False
        self._until.pop(key, None)
        if len(self._until) >= self._limit:
            del self._until[next(iter(self._until))]
        self._until[key] = now + rule.cooldown_s
        return True


def filled(template: str, name: str, word: str) -> str:
    """Return a template with {name} and {word} replaced."""
    return template.replace("{name}", name).replace("{word}", word)
