"""Fold of one stream of a room into the report of a show.

Everything in a report comes from the entries of the ledger, and nothing from the clock or the order of a table: so the
same entries give the same report, byte for byte, whoever folds them. All values are integers and texts.

A restart of the broker begins another *run* of the room, whose counters begin at 0: the runs are added up. What a run
held when it was sampled last stays ``held``; and what a run counted after that, where a kill ended it, is not known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from operator import add
from typing import Any

from broker.core.commerce.activity import Fact
from broker.core.commerce.room_activities import ActivityKey, ActivityKind
from broker.core.reports.commerce import ShowCommerce
from broker.core.reports.moderation import ShowModeration
from broker.core.reports.series import Series
from broker.core.reports.timeline import Timeline
from broker.core.rooms.accounts import sum_of
from broker.core.rooms.samples import RoomSample
from broker.core.tenants.names import split_name
from protocol.codes import Lane, MessageType, RoomPhase
from protocol.messages import Account, Event

__all__ = ["REPORT_SCHEMA", "REPORT_VERSION", "ShowFold"]

REPORT_SCHEMA, REPORT_VERSION = "roomcast.report", 1
AUDIENCE_MS, INTERACTION_MS = 10_000, 60_000
"""Time of a point at first."""
TOP_GIVERS = 10

_NOTHING = tuple(Account() for _ in Lane)


class ShowFold:
    """Report of one stream. ``room``: its qualified name; ``kinds``: of activities, by name.

    The methods take what the entries hold, in order; ``at_ms`` is the time of the entry.
    """

    def __init__(self, room: str, epoch: int, kinds: Mapping[str, ActivityKind]) -> None:
        self.room = room
        self.epoch = epoch
        self.unreadable = 0
        """Entries that this version cannot read."""
        self.last_number = 0
        """Number of the last entry that was folded, in the ledger's chain."""
        self._from_ms: int | None = None
        self._to_ms = 0
        self._phase = RoomPhase.LIVE
        self._events: Counter[int] = Counter()
        self._commerce = ShowCommerce(kinds)
        self._staff = ShowModeration()
        self._timeline = Timeline()
        self._audience = Series(AUDIENCE_MS, max)
        self._interaction = Series(INTERACTION_MS, add)
        self._last: RoomSample | None = None
        self._last_ms = 0
        self._past_accounts = _NOTHING
        """Of the runs before the last one."""
        self._past_counts: Counter[str] = Counter()
        self._runs = self._interrupted = 0
        self._uniques = self._peak = 0
        self._watch_ms = 0
        self._stages: Counter[int] = Counter()
        self._tick_ms = 0
        self._gifts = self._gift_units = self._gift_cents = self._highlight_cents = 0
        self._orders = self._refunds = self._refunded_cents = 0
        self._cents_of: Counter[str] = Counter()

    # ---- entries

    def sample(self, sample: RoomSample, at_ms: int) -> None:
        """Take a sample of the room's counters."""
        self._seen(at_ms)
        before = self._last
        if before is None or before.run_ms != sample.run_ms:
            self._runs += 1
            if before is not None:
                self._interrupted += not before.is_last
                self._past_accounts = sum_of(self._past_accounts, before.accounts)
                self._past_counts.update(dict(before.counts))
        else:
            passed_ms = max(0, at_ms - self._last_ms)
            self._watch_ms += before.online * passed_ms
            self._stages[before.stage] += passed_ms
        shown_before = 0 if before is None or before.run_ms != sample.run_ms else _danmaku(before)
        liked = sample.likes - (0 if before is None else before.likes)
        self._interaction.add(at_ms, (max(0, _danmaku(sample) - shown_before), max(0, liked), 0, 0))
        self._last, self._last_ms = sample, at_ms
        self._uniques, self._peak = max(self._uniques, sample.uniques), max(self._peak, sample.peak)
        self._tick_ms = max(self._tick_ms, sample.tick_ms)
        if not sample.is_last:
            self._audience.add(at_ms, (sample.online, sample.users))
            self._commerce.audience(sample.online)

    # Any: the payload of an event is what its type says, and was checked when it came in.
    def event(self, event: Event, at_ms: int) -> None:
        """Take an event of the stream."""
        self._seen(at_ms)
        self._events[event.type] += 1
        try:
            self._count(event, event.payload, at_ms)
            self._timeline.take(event, at_ms)
            self._commerce.event(event, at_ms)
        except (TypeError, ValueError, LookupError, AttributeError):
            self.unreadable += 1

    def _count(self, event: Event, payload: Any, at_ms: int) -> None:
        match event.type:
            case MessageType.ROOM_PHASE:
                self._phase = RoomPhase(payload[0])
            case MessageType.GIFT:
                _, user, _, _, count, price_cents, *_ = payload
                self._gifts += count > 0  # the bare end of a combo is none
                self._gift_units += count
                self._gave(user, count * price_cents, at_ms)
                self._gift_cents += count * price_cents
            case MessageType.HIGHLIGHT:
                _, user, _, _, cents, *_ = payload
                self._highlight_cents += cents
                self._gave(user, cents, at_ms)

    def _gave(self, user: str, cents: int, at_ms: int) -> None:
        if cents:
            self._cents_of[user] += cents
            self._interaction.add(at_ms, (0, 0, 1, cents))

    def order(self, at_ms: int) -> None:
        """Take an order of a gift."""
        self._seen(at_ms)
        self._orders += 1

    def refund(self, cents: int, at_ms: int) -> None:
        """Take the refund of an order."""
        self._seen(at_ms)
        self._refunds += 1
        self._refunded_cents += cents

    def facts(self, key: ActivityKey, facts: Iterable[Fact], at_ms: int) -> None:
        """Take facts of an activity."""
        self._seen(at_ms)
        try:
            taken = tuple(facts)
            self._staff.facts(key, taken)
            self._commerce.facts(key, taken, at_ms)
        except (TypeError, ValueError, LookupError, AttributeError):
            self.unreadable += 1

    @property
    def action(self) -> Callable[..., None]:
        """Take an entry of the audit that names the room, see `ShowModeration.action`."""
        return self._staff.action

    def _seen(self, at_ms: int) -> None:
        if self._from_ms is None:
            self._from_ms = at_ms
        self._to_ms = max(self._to_ms, at_ms)

    # ---- the report

    @property
    def is_empty(self) -> bool:
        """Whether the stream has no entry."""
        return self._from_ms is None

    def report(self) -> dict[str, Any]:
        """Return the report as plain JSON; nothing may be taken after it."""
        tenant, name = split_name(self.room)
        self._commerce.finish(self._to_ms)
        activities, activities_left_out = self._commerce.activities()
        accounts = self._accounts()
        return {
            "schema": REPORT_SCHEMA,
            "version": REPORT_VERSION,
            "tenant": tenant,
            "room": name,
            "epoch": self.epoch,
            "title": "" if self._last is None else self._last.title,
            "from_ms": self._from_ms or 0,
            "to_ms": self._to_ms,
            "phase": self._phase.name.lower(),
            "audience": self._audience_json(),
            "interaction": self._interaction_json(accounts),
            "commerce": {
                "products": self._commerce.funnels(),
                "activities": activities,
                "activities_left_out": activities_left_out,
            },
            "moderation": self._moderation(accounts),
            "accounts": {lane.name.lower(): accounts[lane]._asdict() for lane in Lane},
            "service": {
                "runs": self._runs,
                "interrupted_runs": self._interrupted,
                "sampled_until_ms": self._last_ms,
                "stage_ms": {str(stage): ms for stage, ms in sorted(self._stages.items()) if stage},
                "slowest_tick_ms": self._tick_ms,
                "unreadable_entries": self.unreadable,
            },
            "timeline": [line.as_json() for line in self._timeline.lines],
            "timeline_left_out": self._timeline.left_out,
        }

    def _accounts(self) -> tuple[Account, ...]:
        return self._past_accounts if self._last is None else sum_of(self._past_accounts, self._last.accounts)

    def _audience_json(self) -> dict[str, Any]:
        return {
            "peak": self._peak,
            "uniques": self._uniques,
            "watch_ms": self._watch_ms,
            "average_watch_ms": self._watch_ms // self._uniques if self._uniques else 0,
            "from_ms": self._audience.from_ms or 0,
            "width_ms": self._audience.width_ms,
            "points": self._audience.rows(),
        }

    def _interaction_json(self, accounts: tuple[Account, ...]) -> dict[str, Any]:
        top = sorted(self._cents_of.items(), key=lambda item: (-item[1], item[0]))[:TOP_GIVERS]
        return {
            "danmaku": accounts[Lane.CHAT].admitted,
            "likes": 0 if self._last is None else self._last.likes,
            "gifts": self._gifts,
            "gift_units": self._gift_units,
            "gift_cents": self._gift_cents,
            "highlights": self._events[MessageType.HIGHLIGHT],
            "highlight_cents": self._highlight_cents,
            "orders": self._orders,
            "refunds": self._refunds,
            "refunded_cents": self._refunded_cents,
            "givers": len(self._cents_of),
            "top_givers": [{"user": user, "cents": cents} for user, cents in top],
            "announcements": self._events[MessageType.ANNOUNCEMENT],
            "from_ms": self._interaction.from_ms or 0,
            "width_ms": self._interaction.width_ms,
            "points": self._interaction.rows(),
        }

    def _moderation(self, accounts: tuple[Account, ...]) -> dict[str, Any]:
        counts = self._past_counts + Counter(dict(() if self._last is None else self._last.counts))
        chat = accounts[Lane.CHAT]
        return {
            "deletions": self._events[MessageType.MESSAGES_DELETED],
            "not_shown": chat.sampled + chat.expired,
            "held": chat.held,
            "counts": dict(sorted(counts.items())),
            **self._staff.as_json(),
        }


def _danmaku(sample: RoomSample) -> int:
    return sample.accounts[Lane.CHAT].admitted
