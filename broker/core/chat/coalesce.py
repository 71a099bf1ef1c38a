"""Merging and sampling of danmaku: one window of a room, between two ticks.

Equal texts (after `fold`) become one entry with a count. Of the entries each tier shows what its
budget lets a human read (`ReadingBudget`). When that is not all of them, FAIR shows those of the lowest
score first (`fairness`): one flooder cannot displace a hundred quiet users, and no user needs to be
recognised as a flooder.

The danmaku of the room's staff are always shown, on top of the budgets, each as an entry of its own.

Every message offered is counted once and answered once: SHED at the offer, else in the window's outcomes.
Nothing is carried from one window to the next. Bounded by entries, bytes of text and tickets.

It never decides whether a message may be posted at all (rate limits) and knows no viewers. A caller that screens texts
is asked about those that would be shown when the window is closed, and of no others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from heapq import heapify, heappop, heappush, heapreplace
from math import inf
from operator import attrgetter
from random import Random
from typing import Any, Generic, TypeVar

from protocol.codes import Outcome, Role, Tier
from protocol.messages import Account

from .fairness import QUIET_BELOW, FairnessScores, ReadingBudget
from .fold import fold

__all__ = ["MAX_SENDERS", "Coalescer", "Offer", "PendingDanmaku", "Pick", "Showing", "TierCut", "Window"]

T = TypeVar("T")

ITEM_BYTES = 512
"""One held item without its text, rounded up (object, ids, name, dict and heap places)."""
TICKET_BYTES = 64


MAX_WITHHELD = 256
"""Entries of one window that a screen may withhold beyond those that are shown: what it costs has a bound."""
MAX_SENDERS = 3
"""Further senders named in a merged entry (the wire's cap)."""


class PendingDanmaku:
    """One danmaku or emote, later an entry of a tick: ``count`` equal ones, the first by ``user_id``.

    ``senders``: up to 3 further user ids in order of arrival. ``style`` and ``extra`` are the caller's.
    ``at``: monotonic seconds of arrival. ``folded``: the text after `fold`, if the caller has it already. The
    fields that begin with an underscore belong to the window it is in.
    """

    __slots__ = (
        "_cost", "_key", "_order", "_rated", "_score", "_tickets",
        "at", "count", "extra", "folded", "name", "role", "senders", "style", "text", "type", "user_id",
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
        role: Role = Role.VIEWER,
    ) -> None:
        self.type = type
        self.user_id = user_id
        self.name = name
        self.text = text
        self.style = style
        self.extra = extra
        self.at = at
        self.folded = folded
        self.role = role
        self.count = 1
        self.senders: tuple[str, ...] = ()

    _cost: int
    _key: tuple[int, str] | int
    _order: int
    _rated: str  # whose score it has: the lightest of its senders
    _score: float
    _tickets: list[Any]  # of the Coalescer's type; a type argument here would cost on every message

    def __repr__(self) -> str:
        return f"<Danmaku {self.text!r} x{self.count} by {self.user_id}>"


class Offer(Enum):
    """What the window did with a message."""

    ADMITTED = "admitted"
    MERGED = "merged"
    SHED = "shed"
    """Dropped at once; the caller answers SAMPLED_OUT itself, the window still counts it."""


_ADMITTED, _MERGED, _SHED = Offer  # looking an Enum member up is a call on Python 3.11
_ACCEPTED, _MERGED_INTO, _SAMPLED_OUT = Outcome.ACCEPTED, Outcome.MERGED, Outcome.SAMPLED_OUT
_by_arrival = attrgetter("_order")


class Showing(Enum):
    """What the caller has decided about an entry that would be shown."""

    SHOWN = "shown"
    MASKED = "masked"
    """It is shown, with another text."""
    WITHHELD = "withheld"
    """It is not shown, and the next one takes its place; the caller answers its tickets, and no account has it."""


_MASKED, _WITHHELD, _MASKED_AS = Showing.MASKED, Showing.WITHHELD, Outcome.MASKED


class Pick(Enum):
    """Who is shown when the budget does not suffice for all."""

    FAIR = "fair"
    RANDOM = "random"
    OLDEST_FIRST = "oldest_first"


@dataclass(frozen=True, slots=True)
class TierCut:
    """What one tier shows of a window, in order of arrival, and what became of the rest.

    A shown entry of count n is 1 shown and n - 1 merged; an entry not shown is n sampled or n expired.
    """

    entries: tuple[PendingDanmaku, ...]
    account: Account


@dataclass(frozen=True, slots=True)
class Window(Generic[T]):
    """A closed window. Tiers that show the same share one `TierCut` object, so compare by identity.

    ``outcomes``: every ticket of the window once, except those that were SHED or WITHHELD; by the widest tier.
    ``withheld``: those of the latter, by entry.
    """

    per_tier: dict[int, TierCut]
    outcomes: list[tuple[T, Outcome]]
    withheld: list[tuple[PendingDanmaku, list[T]]]


class Coalescer(Generic[T]):
    """The danmaku window of one room; ``T`` is the caller's reply address, returned with its outcome.

    ``budgets``: danmaku per second of each tier; 0 or absent = no limit of its own. A smaller tier shows a
    subset of the larger one, so it is also bound by the larger one's budget.

    Full: at ``max_items``, or at ``max_bytes`` of them (1 KiB each; 4 bytes a character, with the normalized
    form), the entry that would be shown last gives way, or the new one is SHED. ``max_tickets`` (32 an item)
    bounds the senders waiting for an answer: merging stops ``max_items`` below it, first messages still get in.
    """

    def __init__(
        self,
        *,
        max_items: int,
        merge: bool,
        pick: Pick,
        budgets: Mapping[int, float],
        rng: Random,
        expire_s: float = 3.0,
        sender_memory_s: float = 10.0,
        max_bytes: int | None = None,
        max_tickets: int | None = None,
    ) -> None:
        self._own_bounds = max_bytes, max_tickets
        if expire_s <= 0:
            raise ValueError("the time to expire must be positive")
        self._next: tuple[bool, Mapping[int, float], Pick, int] | None = None
        """Rules of the next window, where they are others."""
        self._rng = rng
        self._expire_s = expire_s
        self._scores = FairnessScores(sender_memory_s)
        self._apply(merge, budgets, pick, max_items)
        self._now = -inf
        self._open()

    def use_rules(self, merge: bool, budgets: Mapping[int, float], pick: Pick, max_items: int) -> None:
        """Apply other rules: to an empty window now, else from the next one."""
        self._next = merge, budgets, pick, max_items
        if not self._admitted:
            self._open()

    def _apply(self, merge: bool, budgets: Mapping[int, float], pick: Pick, max_items: int) -> None:
        max_bytes, max_tickets = self._own_bounds
        self._max_items = max_items
        self._max_bytes = max_bytes or 1024 * max_items
        self._max_tickets = max_tickets or 32 * max_items
        if max_items < 1 or self._max_tickets <= max_items:
            raise ValueError("bounds must be positive, and max_tickets above max_items")
        self._is_fair = pick is Pick.FAIR
        self._is_random = pick is Pick.RANDOM
        if not set(budgets) <= set(Tier) or min(budgets.values(), default=0.0) < 0:
            raise ValueError(f"budgets must be of known tiers and not negative: {dict(budgets)}")
        self._merge = merge
        self._budgets: dict[int, ReadingBudget] = {}
        rate = inf
        for tier in sorted(Tier, reverse=True):
            rate = min(rate, budgets.get(tier) or inf)
            self._budgets[tier] = ReadingBudget(rate)
        self._is_limited = rate < inf

    def _open(self) -> None:
        if self._next is not None:
            self._apply(*self._next)
            self._next = None
        self._items: dict[tuple[int, str] | int, PendingDanmaku] = {}
        """By type and folded text; without merging, by order of arrival."""
        self._heaviest: list[tuple[float, int, int, PendingDanmaku]] | None = None
        self._displaced: list[T] = []
        self._always: list[PendingDanmaku] = []
        self._always_bytes = 0
        self._order = self._admitted = self._undecided = self._tickets = self._bytes = 0

    @property
    def pending(self) -> int:
        """Messages whose outcome is open (``held`` in an account); 0 after `close`."""
        return self._undecided

    @property
    def shed(self) -> int:
        """Messages that the open window has already dropped; its account counts them as sampled."""
        return self._admitted - self._undecided

    @property
    def admitted(self) -> int:
        """Messages of the open window, those that it has dropped included."""
        return self._admitted

    @property
    def pending_bytes(self) -> int:
        """Memory held for the open window, rounded up; payloads in ``extra`` are the caller's to bound."""
        return self._bytes + self._always_bytes + TICKET_BYTES * (self._tickets + len(self._always))

    @property
    def takes_always(self) -> bool:
        """Whether `offer_always` may be called: there are ``max_items`` places for such items too."""
        return len(self._always) < self._max_items

    def offer_always(self, item: PendingDanmaku, ticket: T, now: float) -> None:
        """Put one message of the room's staff into the open window: every tier shows it. ``now`` as in `offer`."""
        if now < self._now:
            raise ValueError(f"time went back from {self._now} to {now}")
        self._now = now
        self._admitted += 1
        self._undecided += 1
        item._order = self._order
        item._tickets = [ticket]
        self._order += 1
        self._always.append(item)
        self._always_bytes += ITEM_BYTES + 4 * len(item.text)

    def offer(self, item: PendingDanmaku, ticket: T, now: float, over_quota: bool = False) -> Offer:
        """Put one message into the open window; ``item`` is its own from now on.

        ``over_quota``: the room takes no more now. It may still merge, or take the place of an entry whose sender
        has the higher score; that entry's tickets become SAMPLED_OUT.
        ``now`` is monotonic seconds and must not go back (ValueError: a bug in the caller).
        Amortized O(log n) when full, else O(1).
        """
        if now < self._now:
            raise ValueError(f"time went back from {self._now} to {now}")
        self._now = now
        self._admitted += 1
        sender = item.user_id
        if self._is_fair:
            score = self._scores.attempt(sender, now)
        elif self._is_random:
            score = self._rng.random()
        else:
            score = self._order
        if self._merge:
            folded = item.folded
            if folded is None:
                folded = fold(item.text)
            key: tuple[int, str] | int = (item.type, folded)
            first = self._items.get(key)
            if first is not None:
                return self._merge_into(first, sender, score, ticket)
            cost = ITEM_BYTES + 4 * (len(item.text) + len(folded))
        else:
            key = self._order
            cost = ITEM_BYTES + 4 * len(item.text)
        full = over_quota or len(self._items) >= self._max_items or self._bytes + cost > self._max_bytes
        if self._tickets >= self._max_tickets or (full and not self._make_room(score, cost)):
            return _SHED
        item._key = key
        item._order = self._order
        item._cost = cost
        item._score = score
        item._rated = sender
        item._tickets = [ticket]
        self._order += 1
        self._items[key] = item
        self._bytes += cost
        self._tickets += 1
        self._undecided += 1
        if self._heaviest is not None:
            heappush(self._heaviest, _weight(item))
        return _ADMITTED

    def _merge_into(self, first: PendingDanmaku, sender: str, score: float, ticket: T) -> Offer:
        if self._tickets >= self._max_tickets - self._max_items:
            return _SHED
        first.count += 1
        first._tickets.append(ticket)
        self._tickets += 1
        self._undecided += 1
        if sender != first.user_id and len(first.senders) < MAX_SENDERS and sender not in first.senders:
            first.senders += (sender,)
        if self._is_fair and score < first._score:
            first._score = score
            first._rated = sender
        return _MERGED

    def _make_room(self, score: float, cost: int) -> bool:
        """Displace entries that stand behind ``score`` until one more fits; all or none of them.

        The heap exists from the first time a window is full. Entries only ever gain weight by merging, so
        a stale record is never too good: it comes up early and is put back.
        """
        if self._heaviest is None:
            self._heaviest = [_weight(item) for item in self._items.values()]
            heapify(self._heaviest)
        heap = self._heaviest
        victims: list[tuple[float, int, int, PendingDanmaku]] = []
        freed = 0
        while heap and (not victims or self._bytes - freed + cost > self._max_bytes):
            record = heap[0]
            actual = _weight(record[3])
            if actual != record:
                heapreplace(heap, actual)
            elif -record[0] <= score:
                break
            else:
                victims.append(heappop(heap))
                freed += record[3]._cost
        if not victims or self._bytes - freed + cost > self._max_bytes:
            for record in victims:
                heappush(heap, record)
            return False
        for *_, item in victims:
            del self._items[item._key]
            self._displaced += item._tickets
            self._undecided -= item.count
            item._tickets = []
        self._bytes -= freed
        return True

    def close(
        self, now: float, scale: float = 1.0, screen: Callable[[PendingDanmaku], Showing] | None = None
    ) -> Window[T]:
        """End the window: decide what each tier shows, answer every ticket, open the next window.

        ``scale`` multiplies the budgets (overload halves them). Entries that arrived more than ``expire_s``
        ago are not shown. ``screen``: decides about each entry that would be shown, those that are shown first first;
        it may change texts. ``now`` as in `offer`. O(n log n) in the entries held, with a budget.
        """
        if now < self._now or scale < 0:
            raise ValueError(f"time went back from {self._now} to {now}, or scale {scale} is negative")
        self._now = now
        oldest_at = now - self._expire_s
        held = list(self._items.values())
        live = [item for item in held if item.at >= oldest_at]
        expired = [item for item in held if item.at < oldest_at]
        quiet = self._rank(live) if self._is_limited else 0
        always = self._always
        masked: set[int] = set()
        withheld: list[tuple[PendingDanmaku, list[T]]] = []
        taken = len(live)
        charged: list[PendingDanmaku] = []
        if screen is not None:
            most = self._budgets[Tier.FULL].allowed(now, scale, taken, quiet)
            of_staff = [(item, screen(item)) for item in always]
            of_others = self._screened(live, most, screen)
            judged = of_staff + of_others
            masked = {id(item) for item, showing in judged if showing is _MASKED}
            gone = {id(item): item for item, showing in judged if showing is _WITHHELD}
            withheld = [(item, item._tickets) for item in gone.values()]
            self._admitted -= sum(item.count for item in gone.values())
            always = [item for item in always if id(item) not in gone]
            quiet -= sum(id(item) in gone for item in live[:quiet])
            charged = [item for item, showing in of_others if showing is _WITHHELD]
            taken = sum(showing is not _WITHHELD for _, showing in of_others)
            live = [item for item in live if id(item) not in gone]
        cut = self._cut(always + live[:taken], expired)
        per_tier: dict[int, TierCut] = {}
        for tier, budget in self._budgets.items():  # widest first
            taken = budget.take(now, scale, taken, min(quiet, taken))
            if len(always) + taken < len(cut.entries):
                cut = self._cut(always + live[:taken], expired)
            per_tier[tier] = cut
        shown = len(per_tier[Tier.FULL].entries) - len(always)
        outcomes: list[tuple[T, Outcome]] = [
            (item._tickets[0], _MASKED_AS if id(item) in masked else _ACCEPTED) for item in always
        ]
        for item in live[:shown]:
            tickets = item._tickets
            if masked and id(item) in masked:
                outcomes += [(ticket, _MASKED_AS) for ticket in tickets]
                continue
            outcomes.append((tickets[0], _ACCEPTED))
            if len(tickets) > 1:
                outcomes += [(ticket, _MERGED_INTO) for ticket in tickets[1:]]
        outcomes += [(ticket, _SAMPLED_OUT) for item in live[shown:] for ticket in item._tickets]
        outcomes += [(ticket, _SAMPLED_OUT) for ticket in self._displaced]
        outcomes += [(ticket, Outcome.EXPIRED) for item in expired for ticket in item._tickets]
        for item in (*held, *self._always):
            item._tickets = []  # entries live on in snapshots, reply addresses must not

        if self._is_fair:
            self._scores.close_window([item._rated for item in charged + live[:shown]], now)
        self._open()
        return Window(per_tier, outcomes, withheld)

    def _rank(self, live: list[PendingDanmaku]) -> int:
        """Sort ``live``, first to be shown first, and return how many of its head are of quiet senders."""
        quiet = 0
        if self._is_fair:
            for item in live:
                item._score += self._scores.insistence(item._rated)
                quiet += item._score < QUIET_BELOW
        live.sort(key=lambda item: (item._score, -item.count, item._order))
        return quiet

    def _screened(
        self, live: list[PendingDanmaku], most: int, screen: Callable[[PendingDanmaku], Showing]
    ) -> list[tuple[PendingDanmaku, Showing]]:
        """Ask about entries until ``most`` may be shown, or `MAX_WITHHELD` may not; the others are not shown."""
        judged: list[tuple[PendingDanmaku, Showing]] = []
        left = most + MAX_WITHHELD
        for item in live:
            if not most or not left:
                break
            showing = screen(item)
            judged.append((item, showing))
            most -= showing is not _WITHHELD
            left -= 1
        return judged

    def _cut(self, shown: list[PendingDanmaku], expired: list[PendingDanmaku]) -> TierCut:
        merged = sum(item.count for item in shown) - len(shown)
        late = sum(item.count for item in expired)
        sampled = self._admitted - len(shown) - merged - late
        entries = tuple(sorted(shown, key=_by_arrival))
        return TierCut(entries, Account(self._admitted, len(shown), merged, sampled, late))


def _weight(item: PendingDanmaku) -> tuple[float, int, int, PendingDanmaku]:
    """Heap record of an entry: the one to be shown last is the smallest."""
    return -item._score, item.count, -item._order, item
