"""Highlights: paid messages that stay on the screen, the longer the more was paid.

A table of ascending amounts gives each its tier and how long it is held. At most `MAX_HELD` are held: one more lets the
oldest of the lowest tier leave early, and the event that takes its place says which (``displaced``). A moderator's
deletion hides text and name; the money stays where it is.

One highlight that may displace another is on its way to the ledger at a time, so that what its event says is true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from broker.core.tenants.names import plain_name
from protocol.activities.highlights import MAX_SHOWN, HighlightsView, ShownHighlight
from protocol.frames import pack_body
from protocol.json_values import as_json
from protocol.messages import ActivityView
from protocol.payloads import HighlightPayload

__all__ = ["DEFAULT_TIERS", "MAX_HELD", "HeldHighlight", "HighlightPlan", "HighlightTier", "Highlights", "check_tiers"]

MAX_HELD = 50
MAX_VIEW_BYTES = 2048
"""Of the highlights in the answer to a JOIN."""


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
    order_id: str
    user_id: str
    name: str
    text: str
    cents: int
    tier: int
    at_ms: int
    until_ms: int

    @classmethod
    def of(cls, payload: HighlightPayload, offset: int, at_ms: int) -> HeldHighlight:
        """Return the highlight of an event."""
        order_id, user_id, name, text, cents, tier, until_ms, _ = payload
        return cls(offset, order_id, user_id, name, text, cents, tier, at_ms, until_ms)

    def hidden(self) -> HeldHighlight:
        """Return it without name and text."""
        return self._replace(name="", text="")


class HighlightPlan(NamedTuple):
    """What a new highlight is: its tier, until when it is held, and the offset of the one that leaves for it, 0 = none.

    ``until_ms`` is the time of the highlight itself where it is the lowest of more than can be held. ``left``: orders
    of highlights that are not held any more, that one included.
    """

    tier: int
    until_ms: int
    displaced: int
    left: tuple[str, ...] = ()


def check_tiers(tiers: Sequence[tuple[int, int]]) -> None:
    """Raise ValueError unless amounts (cents) rise, and amounts and times (seconds) are above 0."""
    amounts = [min_cents for min_cents, _ in tiers]
    if not tiers or amounts != sorted(set(amounts)) or amounts[0] <= 0 or any(hold_s <= 0 for _, hold_s in tiers):
        raise ValueError("tiers need rising amounts and times above 0")


class Highlights:
    """Highlights of one room. All times are Unix milliseconds."""

    __slots__ = ("_held", "_in_flight", "_left", "_tiers", "_views", "_views_until_ms")

    def __init__(self, tiers: Sequence[HighlightTier] = DEFAULT_TIERS) -> None:
        self._held: dict[str, HeldHighlight] = {}
        """By order, in order of their offsets."""
        self._left: list[str] = []
        """Orders of those whose time was over since the last plan."""
        self._in_flight = 0
        self._views: tuple[ActivityView, ...] = ()
        self._views_until_ms = 0
        self.use_tiers(tiers)

    def __len__(self) -> int:
        return len(self._held)

    def use_tiers(self, tiers: Sequence[HighlightTier]) -> None:
        """Give those that come from now on another table; ValueError: see `check_tiers`."""
        check_tiers(tiers)
        self._tiers = tuple(tiers)

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
        displaced: tuple[HeldHighlight, ...] = ()
        if len(self._held) + self._in_flight >= MAX_HELD:
            if self._in_flight:
                return None
            lowest = min(self._held.values(), key=lambda each: (each.tier, each.offset))
            if lowest.tier <= tier:
                displaced = (lowest,)
            else:
                until_ms = at_ms
        self._in_flight += 1
        left = (*self._left, *(each.order_id for each in displaced))
        self._left.clear()
        return HighlightPlan(tier, until_ms, displaced[0].offset if displaced else 0, left)

    def committed(self, highlight: HeldHighlight, displaced: int) -> None:
        """A planned highlight is in the stream."""
        self._in_flight -= 1
        self.apply(highlight, displaced)

    def withdrawn(self) -> None:
        """A planned highlight is not in the stream: the ledger could not take it, or knew its order."""
        self._in_flight -= 1

    def apply(self, highlight: HeldHighlight, displaced: int) -> None:
        """Follow a highlight of the stream: the fold of its events is the state."""
        if displaced:
            self._set(each for each in self._held.values() if each.offset != displaced)
        if highlight.until_ms > highlight.at_ms:
            self._held[highlight.order_id] = highlight
        self._views_until_ms = 0

    def expire(self, now_ms: int) -> None:
        """Let those leave whose time is over: one is held while ``now_ms < until_ms``."""
        over = [order for order, each in self._held.items() if each.until_ms <= now_ms]
        for order in over:
            del self._held[order]
        self._left += over

    def hide(self, covers: Callable[[int, str, int], bool]) -> None:
        """Hide text and name of those that a deletion covers, by offset, user and time."""
        self.replace(lambda each: each.hidden() if covers(each.offset, each.user_id, each.at_ms) else each)

    def replace(self, change: Callable[[HeldHighlight], HeldHighlight]) -> None:
        """Put what ``change`` returns in place of each."""
        self._set(map(change, list(self._held.values())))

    def shown(self, now_ms: int) -> tuple[HeldHighlight, ...]:
        """Return what is held, as it is shown: the highest tier first, then the oldest."""
        held = [each for each in self._held.values() if now_ms < each.until_ms]
        return tuple(sorted(held, key=lambda each: (-each.tier, each.offset)))

    def views(self, now_ms: int) -> tuple[ActivityView, ...]:
        """Return what every member that joins gets, nothing where none is shown. Made once for each state."""
        if now_ms >= self._views_until_ms:
            shown = self.shown(now_ms)
            self._views_until_ms = min((each.until_ms for each in shown), default=2**63)
            self._views = (_view(shown),) if shown else ()
        return self._views

    def dump(self) -> tuple[HeldHighlight, ...]:
        """Return what is held, in the order of the stream."""
        return tuple(self._held.values())

    def restore(self, held: Iterable[HeldHighlight]) -> None:
        """Go on with what `dump` has returned."""
        self._set(held)

    def _set(self, held: Iterable[HeldHighlight]) -> None:
        self._held = {each.order_id: each for each in held}
        self._views_until_ms = 0


def _view(shown: Sequence[HeldHighlight]) -> ActivityView:
    """Return the first `MAX_SHOWN` that have space in `MAX_VIEW_BYTES`."""
    found: list[ShownHighlight] = []
    left = MAX_VIEW_BYTES
    for each in shown[:MAX_SHOWN]:
        made = ShownHighlight(*each)._replace(user=plain_name(each.user_id))
        left -= len(pack_body(as_json(made)))
        if left < 0:
            break
        found.append(made)
    return ActivityView("highlights", "", as_json(HighlightsView(tuple(found), len(shown) - len(found))))
