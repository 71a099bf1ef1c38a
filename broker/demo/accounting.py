"""Independent count of the demo's messages: the results that senders received, and what viewers received.

The broker keeps six counts for each lane. This module derives the same counts without the broker: `Accounting` counts
the outcomes that senders received in ACKs, `ReferenceViewer` counts what one healthy viewer received on its socket.
`differences` compares the three; an empty list is what ``"balanced": true`` means.

    lane                what must be equal
    every               admitted = shown + merged + sampled + expired + held, and held = 0 at the end
    control, paid       ACCEPTED = shown = events received; MERGED = merged; gifts and cents ordered = received
    chat                ACCEPTED, MERGED, SAMPLED_OUT, EXPIRED = the account = the sum of the ticks' accounts,
                        number and counts of the ticks' entries agree with it
    ambient             accepted likes and announced joins = admitted; updates and names received = shown;
                        the sum of counted likes = the total = the last total received

A post whose result its sender never received (the link broke first) widens an equation by one; normally there is none.

Pure: its inputs are events and results; it knows neither sockets nor the broker's objects.
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
"""Outcome of a post that was sent and never answered."""


@dataclass(slots=True)
class Accounting:
    """Results of the posts of some senders. Keys of ``counts``: (group, lane's name, outcome's name)."""

    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    likes: int = 0
    """Likes that the broker counted; one message carries several."""
    likes_unknown: int = 0
    gifts: int = 0
    """Gifts in the orders that were accepted; one order (one message) carries several."""
    gift_cents: int = 0

    def record(self, group: str, type: int, payload: Any, result: PostResult) -> None:
        """Count one result. Any: the payload as it was posted."""
        if result.outcome is None and not result.sent:
            return
        outcome = UNKNOWN if result.outcome is None else result.outcome.name.lower()
        self.counts[group, MESSAGE_TYPES[type].lane.name.lower(), outcome] += 1
        accepted = result.outcome in (Outcome.ACCEPTED, Outcome.MERGED)
        if type == MessageType.LIKE:
            if result.outcome is None:
                self.likes_unknown += payload[0]
            elif accepted:
                self.likes += result.counted
        elif type == MessageType.GIFT and accepted:
            self.gifts += payload[4]
            self.gift_cents += payload[4] * payload[5]

    def of(self, lane: Lane, *outcomes: Outcome | str, group: str | None = None) -> int:
        """Return the posts of a lane with one of ``outcomes``, of all groups or one; no outcome = any."""
        wanted = {each.name.lower() if isinstance(each, Outcome) else each for each in outcomes}
        name = lane.name.lower()
        return sum(
            count
            for (by, on, outcome), count in self.counts.items()
            if on == name and (not wanted or outcome in wanted) and (group is None or by == group)
        )

    @property
    def gift_messages(self) -> int:
        """Orders (messages) that were accepted; `gifts` counts the gifts in them."""
        return self.of(Lane.PAID, Outcome.ACCEPTED, Outcome.MERGED)

    @property
    def like_messages(self) -> int:
        """Like messages that were accepted; `likes` counts the likes in them."""
        return self.of(Lane.AMBIENT, Outcome.ACCEPTED)

    def __add__(self, other: Accounting) -> Accounting:
        return Accounting(
            self.counts + other.counts,
            self.likes + other.likes,
            self.likes_unknown + other.likes_unknown,
            self.gifts + other.gifts,
            self.gift_cents + other.gift_cents,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON, for another process. Any: numbers and lists."""
        counts = [[*key, count] for key, count in self.counts.items()]
        return {
            "counts": counts, "likes": self.likes, "likes_unknown": self.likes_unknown, "gifts": self.gifts,
            "gift_cents": self.gift_cents,
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Accounting:
        """Return the accounting that `to_json` encoded."""
        counts = Counter({(group, lane, outcome): count for group, lane, outcome, count in data["counts"]})
        return cls(counts, data["likes"], data["likes_unknown"], data["gifts"], data["gift_cents"])


@dataclass(slots=True)
class ReferenceViewer:
    """Counts of one viewer that is connected all the time. ``first``: it joined before every other client."""

    name: str
    tier: Tier
    first: bool = False
    entries: int = 0
    """Danmaku entries received."""
    copies: int = 0
    """The same, each with its count of merged copies."""
    chat: Account = field(default_factory=Account)
    """Sum of the ticks' accounts."""
    events: Counter[Lane] = field(default_factory=Counter)
    holes: int = 0
    """Offsets of lanes 0-2 out of order, and gaps that the client reported."""
    last_offset: int = 0
    gifts: int = 0
    gift_cents: int = 0
    likes: int = 0
    like_updates: int = 0
    joins_named: int = 0
    joins_more: int = 0
    missed: int = 0
    """Danmaku and counters dropped because this viewer was too slow: above 0 its counts are not exact."""
    links_lost: int = 0

    def on_joined(self, joined: Joined) -> None:
        """Start from the snapshot of the join."""
        self.last_offset = joined.offset
        self.likes = joined.likes

    def on_event(self, event: RoomEvent) -> None:
        """Count one event of the room, in the order of arrival."""
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
        if event.type == MessageType.GIFT:
            _, _, _, _, count, price_cents, *_ = event.payload
            if not count:
                return  # the end of a combo, which is no message of a sender
            self.gifts += count
            self.gift_cents += count * price_cents
        self.events[event.lane] += 1


class Latency:
    """Histogram of whole milliseconds up to ``MAX_MS``, with percentiles."""

    MAX_MS = 60_000

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    def add(self, ms: float) -> None:
        """Count one value; a negative one (two clocks differ) counts as 0."""
        self.counts[min(self.MAX_MS, max(0, round(ms)))] += 1

    def merge(self, counts: Mapping[int, int]) -> None:
        """Add the counts of another histogram."""
        for ms, count in counts.items():
            self.counts[ms] += count

    def take(self) -> dict[int, int]:
        """Return the counts and reset them."""
        taken, self.counts = dict(self.counts), Counter()
        return taken

    def percentile(self, share: float) -> int | None:
        """Return the smallest value that at least ``share`` (0 to 1) of all do not exceed; None without values."""
        wanted = share * self.counts.total()
        seen = 0
        for ms in sorted(self.counts):
            seen += self.counts[ms]
            if seen >= wanted:
                return ms
        return None


_CHAT_OUTCOMES = (
    ("shown", Outcome.ACCEPTED), ("merged", Outcome.MERGED), ("sampled", Outcome.SAMPLED_OUT),
    ("expired", Outcome.EXPIRED),
)  # fmt: skip
_EVENT_LANES = (Lane.CONTROL, Lane.COMMERCE, Lane.PAID)


class _Report:
    """Collects a sentence for each pair of numbers that differ."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def equal(self, what: str, broker: int, others: str, count: int, slack: int = 0) -> None:
        """Add a sentence unless ``count`` is ``broker``, or up to ``slack`` less."""
        if not 0 <= broker - count <= slack:
            spread = f" (or up to {slack} more)" if slack else ""
            self.lines.append(f"{what}: the broker says {broker}, {others} {count}{spread}")


def differences(
    accounts: Sequence[Account], likes: int, accounting: Accounting, references: Sequence[ReferenceViewer]
) -> list[str]:
    """Return a sentence for each difference once every post is answered; [] = balanced.

    ``accounts`` (the five lanes) and ``likes`` are the broker's. The ``references`` joined before the first post, and
    one of them, of the FULL tier, before every other client.
    """
    report = _Report()
    for lane, account in zip(Lane, accounts, strict=True):
        name = lane.name.lower()
        report.equal(
            f"{name}: admitted and the sum of the other counts", account.admitted, "their sum is", sum(account[1:])
        )
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
    answered = 0
    for field_name, outcome in _CHAT_OUTCOMES:
        count = accounting.of(lane, outcome)
        answered += count
        report.equal(
            f"{lane.name.lower()}: {field_name}", getattr(account, field_name), "senders received", count, unknown
        )
    report.equal(f"{lane.name.lower()}: admitted", account.admitted, "senders received", answered, unknown)
    report.equal(f"{lane.name.lower()}: held for review", 0, "senders received", accounting.of(lane, Outcome.HELD))


def _compare_ambient(
    report: _Report, account: Account, likes: int, accounting: Accounting, references: Sequence[ReferenceViewer]
) -> None:
    report.equal("likes", likes, "senders received", accounting.likes, accounting.likes_unknown)
    report.equal("ambient: sampled", account.sampled, "it is summed, so it should be", 0)
    report.equal("ambient: expired", account.expired, "it is summed, so it should be", 0)
    for reference in references:
        if not reference.first:
            continue
        named, joins = reference.joins_named, reference.joins_named + reference.joins_more
        posts, unknown = accounting.of(Lane.AMBIENT, Outcome.ACCEPTED), accounting.of(Lane.AMBIENT, UNKNOWN)
        shown = named + reference.like_updates
        report.equal("ambient: admitted", account.admitted, "likes and joins counted", posts + joins, unknown)
        report.equal("ambient: shown", account.shown, f"{reference.name} received", shown)
        report.equal("ambient: merged", account.merged, "counted", posts + joins - shown, unknown)


def _compare_reference(
    report: _Report, reference: ReferenceViewer, accounts: Sequence[Account], likes: int, accounting: Accounting
) -> None:
    name, chat, ticks = reference.name, accounts[Lane.CHAT], reference.chat
    for what, count in (("missed", reference.missed), ("holes", reference.holes), ("lost links", reference.links_lost)):
        if count:
            report.lines.append(f"{name}: {count} {what}")
    report.equal(f"{name}: danmaku in its ticks' accounts", ticks.shown, "it received", reference.entries)
    report.equal(
        f"{name}: merged in its ticks' accounts", ticks.merged, "it received", reference.copies - reference.entries
    )
    report.equal(f"{name}: its ticks' account", ticks.admitted, "adds up to", sum(ticks[1:]))
    report.equal(f"{name}: chat admitted", chat.admitted, "its ticks say", ticks.admitted)
    if reference.tier is Tier.FULL:
        for field_name, _ in _CHAT_OUTCOMES:
            broker = getattr(chat, field_name)
            report.equal(f"{name}: chat {field_name}", broker, "its ticks say", getattr(ticks, field_name))
    for lane in _EVENT_LANES:
        report.equal(f"{name}: {lane.name.lower()} events", accounts[lane].shown, "it received", reference.events[lane])
    unknown = accounting.of(Lane.PAID, UNKNOWN)
    if not unknown:
        report.equal(f"{name}: gifts ordered", accounting.gifts, "it received", reference.gifts)
        report.equal(f"{name}: cents ordered", accounting.gift_cents, "it received", reference.gift_cents)
    report.equal(f"{name}: likes", likes, "it received", reference.likes)


def _compare_tiers(report: _Report, references: Sequence[ReferenceViewer]) -> None:
    """Viewers of one tier receive the same on every transport; a smaller tier receives no more than a larger one."""
    for one, other in pairwise(sorted(references, key=lambda reference: -reference.tier)):
        if one.tier is other.tier:
            if one.chat != other.chat:
                report.lines.append(f"{one.name} and {other.name} received different accounts of one tier")
        elif other.chat.shown > one.chat.shown:
            report.lines.append(f"{other.name} was shown more than {one.name}")
