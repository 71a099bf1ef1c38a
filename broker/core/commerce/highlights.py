"""Highlights: paid messages that stay on the screen, the longer the more was paid.

A table of ascending amounts gives each its tier and how long it is held. At most `MAX_HELD` are held: one more lets the
oldest of the lowest tier leave early, and the event that takes its place says which (``displaced``). A moderator's
deletion hides text and name; the money stays where it is.

One highlight that may displace another is on its way to the ledger at a time, so that what its event says is true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

__all__ = ["DEFAULT_TIERS", "MAX_HELD", "HeldHighlight", "HighlightPlan", "HighlightTier", "Highlights"]

MAX_HELD = 50


class HighlightTier(NamedTuple):
    """The least amount of a tier, and how long its highlights are held."""

    min_cents: int
    hold_s: int


DEFAULT_TIERS = tuple(
    HighlightTier(*tier)
    for tier in ((500, 60), (1_000, 120), (2_000, 300), (5_000, 600), (10_000, 1_800), (50_000, 3_600))
)


class HeldHighlight(NamedTuple):
    """A highlight that is held. ``tier``: from 1; ``until_ms``: Unix milliseconds; the text is empty once deleted."""

    offset: int
    user_id: str
    name: str
    text: str
    cents: int
    tier: int
    at_ms: int
    until_ms: int


class HighlightPlan(NamedTuple):
    """What a new highlight is: its tier, until when it is held, and the offset of the one that leaves for it, 0 = none.

    ``until_ms`` is the time of the highlight itself where it is the lowest of more than can be held.
    """

    tier: int
    until_ms: int
    displaced: int


class Highlights:
    """Highlights of one room. All times are Unix milliseconds."""

    __slots__ = ("_held", "_in_flight", "_tiers")

    def __init__(self, tiers: Sequence[HighlightTier] = DEFAULT_TIERS) -> None:
        amounts = [tier.min_cents for tier in tiers]
        if not tiers or amounts != sorted(set(amounts)) or any(tier.hold_s <= 0 for tier in tiers):
            raise ValueError("tiers need rising amounts and times above 0")
        self._tiers = tuple(tiers)
        self._held: dict[int, HeldHighlight] = {}
        """By offset, in its order."""
        self._in_flight = 0

    def __len__(self) -> int:
        return len(self._held)

    def tier_of(self, cents: int) -> int:
        """Return the tier of an amount: the last row that fits, 0 = it is too small for a highlight."""
        return sum(tier.min_cents <= cents for tier in self._tiers)

    def begin(self, cents: int, at_ms: int) -> HighlightPlan | None:
        """Plan a new highlight; `committed` or `withdrawn` follows. None: not now, as another is under way.

        ValueError (a bug of the caller): the amount has no tier.
        """
        tier = self.tier_of(cents)
        if not tier:
            raise ValueError(f"{cents} cents are below the first tier")
        self.expire(at_ms)
        until_ms = at_ms + self._tiers[tier - 1].hold_s * 1000
        displaced = 0
        if len(self._held) + self._in_flight >= MAX_HELD:
            if self._in_flight:
                return None
            lowest = min(self._held.values(), key=lambda each: (each.tier, each.offset))
            if lowest.tier <= tier:
                displaced = lowest.offset
            else:
                until_ms = at_ms
        self._in_flight += 1
        return HighlightPlan(tier, until_ms, displaced)

    def committed(self, highlight: HeldHighlight, displaced: int) -> None:
        """A planned highlight is in the stream."""
        self._in_flight -= 1
        self.apply(highlight, displaced)

    def withdrawn(self) -> None:
        """A planned highlight is not in the stream: the ledger could not take it, or knew its order."""
        self._in_flight -= 1

    def apply(self, highlight: HeldHighlight, displaced: int) -> None:
        """Follow a highlight of the stream: the fold of its events is the state."""
        self._held.pop(displaced, None)
        if highlight.until_ms > highlight.at_ms:
            self._held[highlight.offset] = highlight

    def expire(self, now_ms: int) -> None:
        """Let those leave whose time is over: one is held while ``now_ms < until_ms``."""
        for offset in [offset for offset, each in self._held.items() if each.until_ms <= now_ms]:
            del self._held[offset]

    def hide(self, covers: Callable[[int, str, int], bool]) -> None:
        """Hide text and name of those that a deletion covers, by offset, user and time."""
        for offset, each in self._held.items():
            if covers(offset, each.user_id, each.at_ms):
                self._held[offset] = each._replace(text="", name="")

    def shown(self, now_ms: int) -> tuple[HeldHighlight, ...]:
        """Return what is held, as it is shown: the highest tier first, then the oldest."""
        held = [each for each in self._held.values() if now_ms < each.until_ms]
        return tuple(sorted(held, key=lambda each: (-each.tier, each.offset)))

    def dump(self) -> tuple[HeldHighlight, ...]:
        """Return what is held, in the order of the stream."""
        return tuple(self._held.values())

    def restore(self, held: Iterable[HeldHighlight]) -> None:
        """Go on with what `dump` has returned."""
        self._held = {each.offset: each for each in held}
