"""Counting the show a second time, from the outside: what senders were told, and what viewers saw.

The broker keeps six numbers a lane. Here the same numbers are found without asking it: a `Accounting` counts the fates
that senders heard of in ACKs, a `ReferenceViewer` counts what one healthy viewer received on its socket. `differences`
lays the three next to each other; an empty list is what ``"balanced": true`` stands on.

    lane                what must be equal
    every               admitted = shown + merged + sampled + expired + held, and held = 0 once all is quiet
    control, paid       ACCEPTED = shown = events seen; MERGED = merged; gifts and cents seen = gifts and cents ordered
    chat                ACCEPTED, MERGED, SAMPLED_OUT, EXPIRED = the account = the sum of the ticks' accounts,
                        and of every tick's entries the number and the counts
    ambient             accepted likes and announced joins = admitted; updates and names seen = shown;
                        the sum of counted likes = the total = the last total seen

A fate that a sender never heard (its link broke first) widens an equation by one; a calm show has none.

Pure: it is given events and results, and knows neither sockets nor the broker's objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from protocol.clients.events import (
    Danmaku,
    Gap,
    MessagesMissed,
    PostResult,
    Rejoined,
    RoomEvent,
    State,
    StreamEvent,
    TickAccount,
)
from protocol.codes import MESSAGE_TYPES, Lane, MessageType, Outcome, Tier
from protocol.messages import Account, Joined

__all__ = ["Accounting", "Latency", "ReferenceViewer", "differences"]

UNKNOWN = "unknown"
"""The fate of a post that was sent and never answered."""


@dataclass(slots=True)
class Accounting:
    """What became of the posts of some senders. Keys of ``fates``: (group, lane's name, outcome's name)."""

    fates: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    likes: int = 0
    """Likes that counted."""
    likes_unknown: int = 0
    gifts: int = 0
    """Gifts of orders that were taken, each as often as it was ordered."""
    gift_cents: int = 0

    def record(self, group: str, type: int, payload: Any, result: PostResult) -> None:
        """Count one result. Any: the payload as it was posted."""
        if result.outcome is None and not result.sent:
            return
        outcome = UNKNOWN if result.outcome is None else result.outcome.name.lower()
        self.fates[group, MESSAGE_TYPES[type].lane.name.lower(), outcome] += 1
        taken = result.outcome in (Outcome.ACCEPTED, Outcome.MERGED)
        if type == MessageType.LIKE:
            if result.outcome is None:
                self.likes_unknown += payload[0]
            elif taken:
                self.likes += result.counted
        elif type == MessageType.GIFT and taken:
            self.gifts += payload[4]
            self.gift_cents += payload[4] * payload[5]

    def of(self, lane: Lane, *outcomes: Outcome | str, group: str | None = None) -> int:
        """Posts of a lane with one of ``outcomes``, by all groups or one; no outcome = any."""
        wanted = {each.name.lower() if isinstance(each, Outcome) else each for each in outcomes}
        name = lane.name.lower()
        return sum(
            count
            for (by, on, outcome), count in self.fates.items()
            if on == name and (not wanted or outcome in wanted) and (group is None or by == group)
        )

    def __add__(self, other: Accounting) -> Accounting:
        return Accounting(
            self.fates + other.fates,
            self.likes + other.likes,
            self.likes_unknown + other.likes_unknown,
            self.gifts + other.gifts,
            self.gift_cents + other.gift_cents,
        )

    def to_json(self) -> dict[str, Any]:
        """For the way between processes. Any: numbers and lists."""
        fates = [[*key, count] for key, count in self.fates.items()]
        return {
            "fates": fates, "likes": self.likes, "likes_unknown": self.likes_unknown, "gifts": self.gifts,
            "gift_cents": self.gift_cents,
        }  # fmt: skip

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Accounting:
        """What `to_json` made."""
        fates = Counter({(group, lane, outcome): count for group, lane, outcome, count in told["fates"]})
        return cls(fates, told["likes"], told["likes_unknown"], told["gifts"], told["gift_cents"])


@dataclass(slots=True)
class ReferenceViewer:
    """What one viewer saw who was there all the time. ``first``: in the room before anybody else."""

    name: str
    tier: Tier
    first: bool = False
    entries: int = 0
    """Danmaku on the screen."""
    copies: int = 0
    """The same, each as often as it was said."""
    chat: Account = field(default_factory=Account)
    """Sum of the ticks' accounts."""
    events: Counter[Lane] = field(default_factory=Counter)
    holes: int = 0
    """Offsets of lanes 0-2 that did not come in order, and gaps that the client reported."""
    last_offset: int = 0
    gifts: int = 0
    gift_cents: int = 0
    likes: int = 0
    like_updates: int = 0
    joins_named: int = 0
    joins_more: int = 0
    missed: int = 0
    """Danmaku and counters that this end or its link was too slow for: above 0 its counts do not hold."""
    links_lost: int = 0

    def enter(self, joined: Joined) -> None:
        """Begin with the snapshot of the join."""
        self.last_offset = joined.offset
        self.likes = joined.likes

    def see(self, event: RoomEvent) -> None:
        """Count one event of the room, in the order of its coming."""
        match event:
            case Danmaku(count=count):
                self.entries += 1
                self.copies += count
            case TickAccount(account=account):
                self.chat = Account(*map(sum, zip(self.chat, account, strict=True)))
            case StreamEvent():
                self._on_event(event)
            case State():
                self.joins_named += len(event.joins)
                self.joins_more += event.joins_more
                self.like_updates += event.likes > self.likes
                self.likes = event.likes
            case MessagesMissed(chat, ambient):
                self.missed += chat + ambient
            case Gap():
                self.holes += 1
            case Rejoined():
                self.links_lost += 1
            case _:
                pass

    def _on_event(self, event: StreamEvent) -> None:
        if event.offset != self.last_offset + 1:
            self.holes += 1
        self.last_offset = event.offset
        self.events[event.lane] += 1
        if event.type == MessageType.GIFT:
            _, _, _, _, count, price_cents, *_ = event.payload
            self.gifts += count
            self.gift_cents += count * price_cents


class Latency:
    """Milliseconds in whole numbers, up to ``MAX_MS``; merged and asked for percentiles."""

    MAX_MS = 60_000

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    def add(self, ms: float) -> None:
        """Note one; negative ones (two clocks' ticks) count as 0."""
        self.counts[min(self.MAX_MS, max(0, round(ms)))] += 1

    def merge(self, counts: Mapping[int, int]) -> None:
        """Add the counts of another."""
        for ms, count in counts.items():
            self.counts[ms] += count

    def take(self) -> dict[int, int]:
        """The counts so far; begins anew."""
        taken, self.counts = dict(self.counts), Counter()
        return taken

    def percentile(self, share: float) -> int | None:
        """The smallest value that at least ``share`` (0 to 1) of all do not exceed; None if there are none."""
        wanted = share * self.counts.total()
        seen = 0
        for ms in sorted(self.counts):
            seen += self.counts[ms]
            if seen >= wanted:
                return ms
        return None


_CHAT_FATES = (
    ("shown", Outcome.ACCEPTED), ("merged", Outcome.MERGED), ("sampled", Outcome.SAMPLED_OUT),
    ("expired", Outcome.EXPIRED),
)  # fmt: skip
_PROMPT = (Lane.CONTROL, Lane.COMMERCE, Lane.PAID)


class _Report:
    """Gathers what is not equal, in words."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def equal(self, what: str, broker: int, others: str, count: int, slack: int = 0) -> None:
        """``count`` must be ``broker``, or up to ``slack`` less."""
        if not 0 <= broker - count <= slack:
            spread = f" (or up to {slack} more)" if slack else ""
            self.lines.append(f"{what}: the broker says {broker}, {others} {count}{spread}")


def differences(
    accounts: Sequence[Account], likes: int, accounting: Accounting, references: Sequence[ReferenceViewer]
) -> list[str]:
    """Everything that does not add up once all is quiet, in words; [] = balanced.

    ``accounts`` (the five lanes) and ``likes`` are the broker's; the ``references`` were in the room before anything
    was posted, and one of them, of the FULL tier, before anybody else.
    """
    report = _Report()
    for lane, account in zip(Lane, accounts, strict=True):
        name = lane.name.lower()
        report.equal(f"{name}: admitted and the sum of the rest", account.admitted, "the rest is", sum(account[1:]))
        report.equal(f"{name}: held at the end", account.held, "it should be", 0)
        _compare_senders(report, lane, account, accounting)
    _compare_ambient(report, accounts[Lane.AMBIENT], likes, accounting, references)
    for reference in references:
        _compare_reference(report, reference, accounts, likes, accounting)
    _compare_tiers(report, references)
    return report.lines


def _compare_senders(report: _Report, lane: Lane, account: Account, accounting: Accounting) -> None:
    if lane is Lane.AMBIENT:
        return
    unknown = accounting.of(lane, UNKNOWN)
    told = 0
    for field_name, outcome in _CHAT_FATES:
        count = accounting.of(lane, outcome)
        told += count
        report.equal(
            f"{lane.name.lower()}: {field_name}", getattr(account, field_name), "senders heard", count, unknown
        )
    report.equal(f"{lane.name.lower()}: admitted", account.admitted, "senders heard of", told, unknown)
    report.equal(f"{lane.name.lower()}: held for review", 0, "senders heard", accounting.of(lane, Outcome.HELD))


def _compare_ambient(
    report: _Report, account: Account, likes: int, accounting: Accounting, references: Sequence[ReferenceViewer]
) -> None:
    report.equal("likes", likes, "senders were told", accounting.likes, accounting.likes_unknown)
    report.equal("ambient: sampled", account.sampled, "it is summed, so it should be", 0)
    report.equal("ambient: expired", account.expired, "it is summed, so it should be", 0)
    for reference in references:
        if not reference.first:
            continue
        named, joins = reference.joins_named, reference.joins_named + reference.joins_more
        posts, unknown = accounting.of(Lane.AMBIENT, Outcome.ACCEPTED), accounting.of(Lane.AMBIENT, UNKNOWN)
        shown = named + reference.like_updates
        report.equal("ambient: admitted", account.admitted, "likes and joins counted", posts + joins, unknown)
        report.equal("ambient: shown", account.shown, f"{reference.name} saw", shown)
        report.equal("ambient: merged", account.merged, "counted", posts + joins - shown, unknown)


def _compare_reference(
    report: _Report, reference: ReferenceViewer, accounts: Sequence[Account], likes: int, accounting: Accounting
) -> None:
    name, chat, cut = reference.name, accounts[Lane.CHAT], reference.chat
    for what, count in (("missed", reference.missed), ("holes", reference.holes), ("lost links", reference.links_lost)):
        if count:
            report.lines.append(f"{name}: {count} {what}")
    report.equal(f"{name}: danmaku that its ticks claim", cut.shown, "it saw", reference.entries)
    report.equal(f"{name}: merged that its ticks claim", cut.merged, "it saw", reference.copies - reference.entries)
    report.equal(f"{name}: its ticks' account", cut.admitted, "adds up to", sum(cut[1:]))
    report.equal(f"{name}: chat admitted", chat.admitted, "its ticks say", cut.admitted)
    if reference.tier is Tier.FULL:
        for field_name, _ in _CHAT_FATES:
            broker = getattr(chat, field_name)
            report.equal(f"{name}: chat {field_name}", broker, "its ticks say", getattr(cut, field_name))
    for lane in _PROMPT:
        report.equal(f"{name}: {lane.name.lower()} events", accounts[lane].shown, "it saw", reference.events[lane])
    unknown = accounting.of(Lane.PAID, UNKNOWN)
    if not unknown:
        report.equal(f"{name}: gifts ordered", accounting.gifts, "it saw", reference.gifts)
        report.equal(f"{name}: cents ordered", accounting.gift_cents, "it saw", reference.gift_cents)
    report.equal(f"{name}: likes", likes, "it saw", reference.likes)


def _compare_tiers(report: _Report, references: Sequence[ReferenceViewer]) -> None:
    """Equal tiers saw the same on every transport; a smaller tier saw no more than a larger one."""
    for one, other in pairwise(sorted(references, key=lambda reference: -reference.tier)):
        if one.tier is other.tier:
            if one.chat != other.chat:
                report.lines.append(f"{one.name} and {other.name} were told different accounts of one tier")
        elif other.chat.shown > one.chat.shown:
            report.lines.append(f"{other.name} was shown more than {one.name}")
