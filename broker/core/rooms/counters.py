"""What a room says of itself in numbers: who is in it, its likes, the accounts of its lanes, and what came in lately.

`RoomCounters.state` is what viewers get every few seconds; the rest is read by operations and metrics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Any

from broker.core.limits.overload import STAGE_RULES
from broker.core.rooms.accounts import RoomAccounts
from broker.core.rooms.keys import RoomKeys
from broker.core.rooms.likes import LikeCounter
from broker.core.rooms.live_stats import LiveBudget, LiveStats, RoomCounts
from broker.core.rooms.phases import RoomPhases
from broker.core.rooms.posting import Posting
from broker.core.rooms.presence import Presence, PresenceCounts
from broker.core.rooms.stream import Stream
from protocol.codes import Lane
from protocol.messages import Account, RoomPulse, State

__all__ = ["EVENT_COUNTERS", "RoomCounters"]

STATE_EVERY_S = 2.0
"""Counters are pushed at most so often, and only when one has changed (as Agora debounces)."""

_CHAT_ADMITTED, _CHAT_SAMPLED, _CHAT_HELD = (
    Lane.CHAT * len(Account._fields) + Account._fields.index(name) for name in ("admitted", "sampled", "held")
)
_new = tuple.__new__
EVENT_COUNTERS = (
    "duplicates", "duplicate_marks_lost", "quota_admitted", "quota_refused", "limiter_full", "keys_lost",
    "likes_unranked", "keys_changed", "return_marks_lost", "posts_shadowed", "raids",
)  # fmt: skip
"""Names of what a room counts beside its accounts; the rows are in ``broker.telemetry.metrics``."""


class RoomCounters:
    """Numbers of one room, read from the parts that count them. ``now``: monotonic seconds; ``at_ms``: Unix ms."""

    def __init__(
        self,
        presence: Presence,
        likes: LikeCounter,
        lanes: RoomAccounts,
        posting: Posting[Any],
        phases: RoomPhases,
        keys: RoomKeys,
        stream: Stream[Any],
        interval_ms: Callable[[], int],
        now: float,
        live_budget: LiveBudget | None = None,
    ) -> None:
        self._presence = presence
        self._likes = likes
        self._lanes = lanes
        self._control, self._commerce, self._paid, self._chat, _ = lanes
        self._posting = posting
        self._phases = phases
        self._keys = keys
        self._stream = stream
        self._interval_ms = interval_ms
        self._moderated: Counter[str] = Counter()
        self.number = 0
        """Of the last state, whoever got it."""
        self._stated_at = -inf
        self._published: tuple[int, ...] = ()
        self._live_budget = live_budget
        self.live = LiveStats(self._counted(), presence.online, now, live_budget)
        """What happened in each of the last seconds."""

    # ---- for viewers

    def _counters(self) -> tuple[int, ...]:
        presence = self._presence
        return (
            self._phases.phase, presence.online, presence.users, presence.uniques, presence.peak, self._posting.stage,
        )  # fmt: skip

    def due_at(self) -> float:
        """Return when the state is due: likes a second, anything else two seconds after the last time."""
        due = self._likes.due_at
        # The joins first: in a wave there is always one, and the counters need not be compared.
        if self._presence.joins_due_at < inf or self._counters() != self._published:
            due = min(
                due, max(self._stated_at + STATE_EVERY_S, self._presence.joins_due_at if self._published else -inf)
            )
        return due + STAGE_RULES[self._posting.stage].state_spare_s

    def take(self, now: float, at_ms: int, last: bool) -> State | None:
        """Return the state for every viewer where it is due. ``last``: due or not, the room ends."""
        if not last and now < self.due_at():
            return None
        account = self._lanes[Lane.AMBIENT]
        liked = self._likes.take(now)
        if liked is not None:
            account.shown += 1
            account.merged += account.held - 1
            account.held = 0
        named, more = self._presence.take_joins(now)
        account.admitted += len(named) + more
        account.shown += len(named)
        account.merged += more
        self._stated_at = now
        self._published = self._counters()
        self.number += 1
        return self.state(at_ms, liked.top if liked else (), tuple(named), more)

    def state_for_one(self, at_ms: int) -> tuple[State, int]:
        """Return the state as it stands, with a number of its own: newer than all that one viewer may have heard."""
        self.number += 1
        return self.state(at_ms), self.number

    def state(
        self,
        at_ms: int,
        top_likers: tuple[tuple[str, int], ...] = (),
        joins: tuple[tuple[str, str], ...] = (),
        joins_more: int = 0,
    ) -> State:
        """Return the state as it stands, for a tick or for one viewer that has missed some."""
        presence = self._presence
        return State(
            at_ms, self._phases.phase, self._posting.stage, self._interval_ms(),
            presence.online, presence.users, presence.uniques, presence.peak,
            self._likes.total, top_likers, joins, joins_more, self.accounts(),
        )  # fmt: skip

    def pulse(self, number: int) -> RoomPulse:
        """Return what a PONG says of the room with this number."""
        return RoomPulse(number, self._presence.online, self._interval_ms())

    # ---- accounts

    def count_chat(self, cut: Account) -> None:
        """Add what became of the danmaku of one tick to the account of chat."""
        account = self._lanes[Lane.CHAT]
        account.admitted += cut.admitted
        account.shown += cut.shown
        account.merged += cut.merged
        account.sampled += cut.sampled
        account.expired += cut.expired

    def accounts(self) -> tuple[Account, ...]:
        """Return the five lanes' accounts now, lane 0 first, the open window included; each one balances."""
        totals = list(self._lanes.as_tuples())
        held, shed = self._posting.window.pending, self._posting.window.shed
        chat = totals[Lane.CHAT]
        totals[Lane.CHAT] = chat._replace(
            admitted=chat.admitted + held + shed, sampled=chat.sampled + shed, held=chat.held + held
        )
        return tuple(totals)

    def account_numbers(self) -> tuple[int, ...]:
        """Return the counters of what `accounts` returns, lane after lane: about 1.5 us."""
        numbers = self._lanes.as_numbers()
        window = self._posting.window
        held, shed = window.pending, window.shed
        if not (held or shed):
            return numbers
        changed = list(numbers)
        changed[_CHAT_ADMITTED] += held + shed
        changed[_CHAT_SAMPLED] += shed
        changed[_CHAT_HELD] += held
        return tuple(changed)

    def events(self) -> tuple[int, ...]:
        """Return what the room has counted beside its accounts, in the order of `EVENT_COUNTERS`."""
        posting = self._posting
        return (
            posting.duplicates.refused, posting.duplicates.forgotten, sum(posting.admission.admitted),
            sum(posting.admission.refused), posting.limits.full_refusals + posting.guard.full_refusals,
            self._stream.keys_lost,
            self._likes.unranked, self._keys.changed, self._presence.returns_lost, posting.guard.shadow_count,
            posting.guard.raids,
        )  # fmt: skip

    def refused(self, reason: str) -> None:
        """Count a post that was refused, by reason; there are as many as outcomes and error codes."""
        self._moderated[f"refused_{reason}"] += 1

    def found(self, action: str) -> None:
        """Count a message in which words or detectors have found something, by what became of it."""
        self._moderated[f"found_{action}"] += 1

    def moderated(self) -> tuple[tuple[str, int], ...]:
        """Return what `refused` and `found` have counted, by name."""
        return tuple(sorted(self._moderated.items()))

    # ---- how many

    def counts(self) -> tuple[PresenceCounts, int]:
        """Return who is in the room, and the sum of likes."""
        return self._presence.counts(), self._likes.total

    def online_and_combo_gifts(self) -> tuple[int, int]:
        """Return the connections in the room, and the gifts that wait for the next event of their combo."""
        return self._presence.online, self._posting.gifts.pending

    def _counted(self) -> RoomCounts:
        chat, gifts = self._chat, self._paid.admitted
        danmaku = chat.admitted + self._posting.window.admitted
        others = self._control.admitted + self._commerce.admitted
        return _new(RoomCounts, (
            danmaku + gifts + others, danmaku, gifts, self._presence.joined, self._likes.total, chat.shown, chat.merged,
            chat.sampled + chat.expired,
        ))  # fmt: skip

    def restart_live(self, now: float) -> None:
        """Count from the present sums on: they have been restored."""
        self.live.clear()
        self.live = LiveStats(self._counted(), self._presence.online, now, self._live_budget)

    def take_second(self, second: int) -> None:
        """Take what happened in a second that is over, see `LiveStats.take`. About 1.5 us where nothing did."""
        self.live.take(self._counted(), self._presence.online, second)

    def lately(self, window_s: int, now: float) -> tuple[float, RoomCounts]:
        """Return what has come in over the last ``window_s`` seconds (1 to 900), see `LiveStats.lately`."""
        return self.live.lately(self._counted(), window_s, now)
