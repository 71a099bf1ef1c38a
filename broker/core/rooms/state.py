"""One room as a pure state machine: commands in, effects out; the room's task performs them.

It decides what a POST becomes (`posting`), what a tick shows (`tick`), when the next tick is due (`next_due`) and what
the counters say. Every message is in exactly one place of its lane's account at any time. It knows users and tickets,
neither links nor bytes.

A method call is a command and its return value the effects: an object per command would cost more than the whole
decision on a path that takes 200,000 messages a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from random import Random
from typing import Any, Generic, TypeVar

from broker.core.chat.coalesce import TierCut
from broker.core.commerce.gifts import ComboPacer
from broker.core.commerce.highlights import Highlights
from broker.core.commerce.room_activities import PushCounter, RoomActivities
from broker.core.commerce.room_rankings import RoomRankings
from broker.core.limits.overload import STAGE_RULES, OverloadStage
from broker.core.moderation.sanctions import RoomSanctions, SanctionTable
from broker.core.rooms.accounts import RoomAccounts
from broker.core.rooms.activity_steps import ActivitySteps
from broker.core.rooms.counters import RoomCounters
from broker.core.rooms.delayed_ticks import DelayedTick, DelayedTicks
from broker.core.rooms.deletions import deletion_of
from broker.core.rooms.effects import (
    Effect,
    Outcomes,
    PendingReply,
    Record,
    Reply,
    ShowToSender,
    ShowToStaff,
    TickOut,
)
from broker.core.rooms.erasure import Erasure
from broker.core.rooms.history import History
from broker.core.rooms.idempotency import (
    MAX_ORDERS,
    ORDER_WINDOW_S,
    IdempotencyTable,
    OperationKey,
    StoredResult,
)
from broker.core.rooms.kept import KeptMessages
from broker.core.rooms.key_changes import KeyChanges
from broker.core.rooms.keys import KeySpace, RoomKeys
from broker.core.rooms.likes import LikeCounter
from broker.core.rooms.live_stats import LiveBudget
from broker.core.rooms.modes import ModeChanges, modes_of
from broker.core.rooms.own_rules import RuleValue, checked_rules
from broker.core.rooms.phases import RoomPhases
from broker.core.rooms.policies import Policy
from broker.core.rooms.posting import Posting
from broker.core.rooms.presence import Presence
from broker.core.rooms.raid_watch import RaidWatch
from broker.core.rooms.rules import Author, RoomRules
from broker.core.rooms.stream import StoredEvent, Stream, kept_bytes
from broker.core.rooms.tick_entry import tick_entry
from broker.core.tenants.names import plain_name
from protocol.codes import Lane, MessageType, Outcome, Role, RoomPhase, Tier
from protocol.errors import RemoteProtocolError
from protocol.frames import pack_body, unpack_body
from protocol.messages import Account, Event, Joined, Tick, TickEntry
from protocol.payloads import ORDER_TYPES, GiftPayload, HighlightPayload, payload_record

__all__ = ["Author", "RoomRules", "RoomState", "StoredEvent"]

T = TypeVar("T")

RANKING_WAIT_S = 0.25
"""So long the top of a ranking that is due waits for other counters: a write costs more than the bytes."""

_APP = Role.APP
_PHASE, _KEYS = MessageType.ROOM_PHASE, MessageType.KEYS_CHANGED
_TOTALS_VERSION = 1


class RoomState(Generic[T]):
    """State of one room. All times: ``now`` monotonic seconds, ``at_ms`` Unix milliseconds.

    ``name``: qualified by its tenant; ``orders``, ``key_space`` and ``live_budget``: of all rooms of the broker; None:
    this room is the only one; ``activities``: of this room, as the ledger has them; None: it has none, as nothing is
    kept; ``sanctions``: of its users, None = there are none.
    """

    def __init__(
        self,
        rules: RoomRules,
        epoch: int,
        rng: Random,
        now: float,
        name: str = "",
        orders: IdempotencyTable[T] | None = None,
        key_space: KeySpace | None = None,
        activities: RoomActivities[Any] | None = None,
        sanctions: RoomSanctions | None = None,
        live_budget: LiveBudget | None = None,
    ) -> None:
        policy = rules.policy
        self._rules = rules
        self.epoch = epoch
        self._phases = RoomPhases()
        self._presence = Presence()
        self._members = 0
        """Connections, those of the app included."""
        self._likes = LikeCounter()
        self.rankings = RoomRankings()
        """Who gave and liked most."""
        self._history: History[StoredEvent] = History(epoch, rules.history_entries, rules.history_s)
        self.kept = KeptMessages(self._history, rules.snapshot_danmaku)
        """What those who join later get of its messages."""
        self.interval_s = policy.tick_ms / 1000
        """Interval between ticks now."""
        self.empty_since: float | None = now
        self._accounts = RoomAccounts()
        self._stream: Stream[T] = Stream(
            self._history, self._accounts, rules.durable, plain_name(name),
            IdempotencyTable(ORDER_WINDOW_S, MAX_ORDERS) if orders is None else orders, self._follow,
        )  # fmt: skip
        self.policy = policy
        """Limits in force here."""
        self.own_rules: dict[str, RuleValue] = {}
        """Rules of this room that replace those of the broker's policy."""
        self.title = ""
        self.tags: tuple[str, ...] = ()
        self.has_tick = policy.tick_ms > 0
        """Whether a tick waits for an interval; else each message is shown by a tick of its own."""
        self.has_batches = policy.batch_max > 0
        """Whether a tick may come early because a batch is full."""
        self._posting: Posting[T] = Posting(
            rules,
            rng,
            name,
            self._stream,
            self._accounts,
            self._likes,
            self.rankings,
            self._phases,
            self.kept.pins,
            self.set_phase,
            RoomSanctions(SanctionTable(), name, lambda: 0) if sanctions is None else sanctions,
        )
        self.post_to, self.takes_audience = self._posting.post_to, self._posting.takes_audience
        self.hold, self.may_hold, self.show = self._posting.hold, self._posting.may_hold, self._posting.show
        self.refusal_of, self.own_mute = self._posting.refusal_of, self._posting.guard.own_mute
        self.modes: ModeChanges[T] = ModeChanges(self._posting.guard, self._stream)
        """Who may chat, and how."""
        self.raids: RaidWatch[T] = RaidWatch(policy, self.modes, self._posting.guard.now_ms)
        """What sets slow mode by itself."""
        self._delayed: DelayedTicks[T] = DelayedTicks()
        self.post = self._posting.post
        """Decide what one POST becomes: `Posting.post` itself, as a method in between would cost a call a message."""
        self.keys = RoomKeys(self._presence.has, key_space)
        self.key_changes: KeyChanges[T] = KeyChanges(self.keys, self._stream, self._phases, rules.durable)
        self.activities: ActivitySteps[T] = ActivitySteps(
            activities, self._stream, self._phases, self.rankings, self._likes, now
        )
        self._posting.guard.use_follows(self.activities.follows_since)
        self._tick_number = 0
        self._ticked_at = -inf
        self.counters = RoomCounters(
            self._presence, self._likes, self._accounts, self._posting, self._phases, self.keys, self._stream,
            self._interval_ms, now, live_budget,
        )  # fmt: skip
        """What it says of itself in numbers."""

    def _interval_ms(self) -> int:
        return round(self.interval_s * 1000)

    @property
    def gifts(self) -> ComboPacer[PendingReply[T]]:
        """Combos of gifts that run."""
        return self._posting.gifts

    @property
    def highlights(self) -> Highlights:
        """Paid messages that are shown."""
        return self._posting.highlights

    @property
    def phase(self) -> RoomPhase:
        """The phase in force."""
        return self._phases.phase

    @property
    def stage(self) -> OverloadStage:
        """Overload stage in force; the room's task sets it."""
        return self._posting.stage

    @stage.setter
    def stage(self, stage: OverloadStage) -> None:
        self._posting.stage = stage

    def set_rules(self, changes: Mapping[str, RuleValue | None]) -> None:
        """Set rules of this room, None = as the broker has it; they hold from now on. RuleError: nothing changed."""
        self.own_rules, policy = checked_rules(self._rules.policy, self.own_rules, changes)
        self._use_policy(policy)

    def use_broker_policy(self, policy: Policy) -> None:
        """Take another policy of the broker, with ticks where the one before had them, under this room's own rules."""
        self._rules = self._rules.with_policy(policy)
        self.set_rules({})

    def use_types(self) -> None:
        """Take the deployment's own types as the rules have them now; the rules are the same for all rooms."""
        self._posting.use_types()

    def _use_policy(self, policy: Policy) -> None:
        self.policy = policy
        self.has_batches = policy.batch_max > 0
        self._posting.use_policy(policy)
        self.raids.use_policy(policy)
        if self.has_tick:
            self.interval_s = max(policy.tick_ms / 1000, min(self.interval_s, policy.tick_max_ms / 1000))

    def post_wait_s(self, kind: int, author: Author, now: float) -> float:
        """Return the seconds until a danmaku or custom message of an author would pass its rate; 0.0 = now."""
        return self._posting.limits.wait_s(kind, author.role, author.user_id, now)

    # ---- members

    def enter(
        self, user_id: str, name: str, role: Role, now: float, resumes: bool = False, is_hidden: bool = False
    ) -> None:
        """Add one connection of a user. The app's are not counted and not shown: it is no viewer.

        ``resumes``: it continues a connection to this stream; ``is_hidden``: others do not see who it is.
        """
        self.empty_since = None
        self._members += 1
        if role is not _APP:
            self._presence.enter(user_id, name, role, now, resumes, is_hidden)

    def leave(self, user_id: str, role: Role, now: float) -> bool:
        """Remove one connection of a user, which came with ``role``; return whether it was the user's last one."""
        is_last = role is not _APP and self._presence.leave(user_id, now)
        if is_last:
            self.keys.left(user_id, now)
        self._members -= 1
        if not self._members:
            self.empty_since = now
        return is_last

    # ---- events of lanes 0 to 2

    def set_phase(
        self, phase: RoomPhase, user_id: str, now: float, at_ms: int, asked: Sequence[PendingReply[T]] = ()
    ) -> Sequence[Effect[T]]:
        """Pause, resume or end the room; members get an event."""
        effects: list[Effect[T]] = []
        if phase is RoomPhase.ENDED:
            effects += self.tick(now, at_ms, last=True)
        self._phases.request(phase)
        self._stream.admit(Lane.CONTROL)
        event = Event(MessageType.ROOM_PHASE, at_ms, user_id, "", (int(phase),))
        if phase is RoomPhase.ENDED:
            return [*effects, *self.activities.end(event, asked, now)]
        recorded = self._stream.record(event, Lane.CONTROL, asked, now)
        if not self._rules.durable:
            self._phases.complete(phase)
        return [*effects, *recorded]

    def close(self, *, comes_back: bool = False) -> None:
        """Accept nothing more: the room has ended, whatever the reason. ``comes_back``: not for good."""
        self._phases.end(comes_back=comes_back)
        self._stream.forget_orders()

    def committed(self, record: Record[T], offset: int, now: float) -> Sequence[Effect[T]]:
        """The ledger has made a record durable at ``offset``: what follows."""
        kind = record.event.type
        if kind == _PHASE:
            self._phases.complete(RoomPhase(record.event.payload[0]))
        elif kind == _KEYS:
            self.key_changes.committed(record, now)
        effects = self._stream.committed(record, offset, now)
        if kind in ORDER_TYPES:
            effects += self.activities.gave(record.event.payload, record.event.at_ms, offset, now)
        effects += self.activities.committed(record.batches, now)
        return effects

    def repeated(
        self, record: Record[T], first: Mapping[OperationKey, StoredResult], now: float
    ) -> Sequence[Effect[T]]:
        """The ledger knew some keys of a record and has written nothing: what follows."""
        effects, left = self._stream.repeated(record, first, now)
        self.kept.give_up(record.event, now)
        self.modes.give_up(record.event)
        if record.event.type == MessageType.ROOM_PHASE:
            self._phases.complete(self.phase)
        elif record.event.type == MessageType.KEYS_CHANGED:
            self.key_changes.given_up(record, now)
        elif record.event.type in ORDER_TYPES:
            effects += self._posting.withdrawn(record, left, now)
        return effects

    def refused(self, record: Record[T], retry_after_ms: int, now: float) -> Sequence[Effect[T]]:
        """The ledger could not make a record durable: its senders may try again after ``retry_after_ms``."""
        if record.event.type == MessageType.ROOM_PHASE:
            self._phases.complete(self.phase)
        elif record.event.type == MessageType.KEYS_CHANGED:
            self.key_changes.given_up(record, now)
        else:
            self.kept.give_up(record.event, now)
            self.modes.give_up(record.event)
        effects = [
            *self._stream.refused(record, Outcome.UNAVAILABLE, retry_after_ms),
            *self.activities.refused(record.batches, now),
        ]
        if record.event.type in ORDER_TYPES:
            effects += self._posting.withdrawn(record, (), now)
        return effects

    def _follow(self, stored: StoredEvent, now: float) -> None:
        """Follow an event that is in the stream."""
        self.kept.apply(stored, now)
        self._posting.follow(stored, now)
        self.modes.follow(stored.event)
        if len(self._delayed) and (deletion := deletion_of(stored.event)) is not None:
            self._delayed.delete(deletion)

    # ---- what outlives the process

    def totals(self, *pending: Event) -> bytes:
        """Return what a checkpoint keeps beside the stream: phase, likes, peak, kept messages, rules of its own, title,
        tags and modes.

        ``pending``: events in order that are written before or with it, and whose phase, pins or modes count already.
        """
        phase, kept, modes = int(self.phase), self.kept.dump(), self.modes.modes
        for event in pending:
            if event.type == MessageType.ROOM_PHASE:
                phase = event.payload[0]
            elif event.type == MessageType.PINS_CHANGED:
                kept = (*kept[:-1], event.payload[0])
            modes = modes_of(event) or modes
        totals = (_TOTALS_VERSION, int(phase), self._likes.total, self._presence.peak, *kept, self.own_rules)
        return pack_body((*totals, self.title, self.tags, self.kept.dump_addressed(), modes))

    def restore(
        self, last_offset: int, totals: bytes, events: Sequence[StoredEvent], now: float, now_ms: int | None = None
    ) -> None:
        """Continue from a checkpoint. ``events``: the newest ones, without a hole, up to ``last_offset``; ``now_ms`` as
        of `expire`."""
        history = self._history
        history.last_offset = last_offset - len(events)
        try:
            version, phase, likes, peak, *more = unpack_body(totals)
            if version == _TOTALS_VERSION:
                if phase != RoomPhase.ENDED:
                    self._phases.restore(RoomPhase(phase))
                self._likes.total = likes
                self._presence.peak = peak
                self.kept.restore(tuple(more[:3]))
                if len(more) > 3 and isinstance(more[3], Mapping):
                    self.set_rules(more[3])
                if len(more) > 5 and isinstance(more[4], str):
                    self.title, self.tags = more[4], tuple(map(str, more[5]))
                if len(more) > 6:
                    self.kept.restore_addressed(more[6])
                if len(more) > 7:
                    self.modes.restore(more[7])
        except (RemoteProtocolError, TypeError, ValueError):
            pass  # no totals, or those of a later version: the room begins with what the stream says
        for each in events:
            history.append(each, kept_bytes(each.event), now)
            self.kept.apply(each, now)
            paid = payload_record(each.event.type, each.event.payload) if each.event.type in ORDER_TYPES else None
            if isinstance(paid, GiftPayload | HighlightPayload):
                self.rankings.gave(paid, each.offset)
                self.activities.gave(paid, each.event.at_ms, each.offset, now)
        self.activities.rank()
        self.kept.pins.restored(now, now_ms)
        self.raids.restored(now)
        self.counters.restart_live(now)

    # ---- what falls due by the trusted clock

    @property
    def expiry_due_at(self) -> float:
        """When `expire` should run next: monotonic seconds, infinite while nothing expires."""
        return min(self.keys.next_due, self.kept.pins.due_at, self.activities.due_at, self.raids.ends_at)

    def expire(self, now: float, now_ms: int | None, at_ms: int) -> list[Effect[T]]:
        """Delete keys and unpin messages that are due. ``now_ms``: trusted Unix milliseconds, None while they are not
        trusted; ``at_ms``: those of the events."""
        effects: list[Effect[T]] = []
        if now >= self.keys.next_due:
            effects += self.key_changes.due(now, now_ms, at_ms)
        if now >= self.kept.pins.due_at:
            effects += self._posting.unpin_expired(now, now_ms, at_ms)
        if now >= self.raids.ends_at:
            effects += self.raids.end(now, at_ms)
        return effects

    # ---- erasure

    def erase(self, erasure: Erasure, now: float, now_ms: int, at_ms: int) -> tuple[Sequence[Effect[T]], bool]:
        """Keep nothing of a user any more; return also whether that is done. Else the ledger has to answer: keys of the
        user are being deleted, or an activity waits for a batch.

        What waits is not covered: see `release`. ``now_ms``: trusted Unix milliseconds.
        """
        self.kept.erase(erasure, now)
        self.highlights.replace(erasure.highlight)
        self._presence.erase(erasure.user, erasure.pseudonym)
        self.rankings.rename(erasure.user, erasure.pseudonym)
        is_erased = self.activities.erase(erasure.in_activities, now)
        effects, are_deleted = self.key_changes.delete_owned(erasure.user, now, now_ms, at_ms)
        return effects, is_erased and are_deleted

    def release(self, user: str, now: float, at_ms: int) -> list[Effect[T]]:
        """Let out what waits of a user: its combos end, and there is a tick if any danmaku wait for one."""
        posting = self._posting
        effects = posting.release(posting.gifts.flush(now, at_ms, user), now, at_ms)
        if posting.window.pending or posting.window.shed or posting.guard.shadowed:
            effects += self.tick(now, at_ms)
        return effects + self._show_delayed(inf)

    # ---- ticks

    def next_due(self, now: float) -> float | None:
        """When `tick` should run next: at once for the first message after a quiet interval, else an interval after
        the last; None while there is nothing to say."""
        posting = self._posting
        due = inf
        if posting.window.pending or posting.window.shed or posting.guard.shadowed:
            due = now if self.batch_full else self._ticked_at + self.interval_s
            if due <= now:
                return now
        due = min(due, self._delayed.next_due)
        gifts_at = posting.gifts.next_release_at(now)
        if gifts_at is not None:
            due = min(due, gifts_at)
        if self._members:
            due = min(due, self.counters.due_at(), self.rankings.next_push_at + RANKING_WAIT_S)
        return None if due == inf else max(due, now)

    def tick(self, now: float, at_ms: int, *, last: bool = False) -> list[Effect[T]]:
        """Close the window and say what is due. ``last``: say everything, the room ends."""
        posting = self._posting
        gifts = posting.gifts
        effects = posting.release(gifts.flush(now, at_ms) if last else gifts.release(now, at_ms), now, at_ms)
        state = self.counters.take(now, at_ms, last)
        ticks: tuple[Tick, ...] = ()
        waited_s = 0.0
        if posting.window.pending or posting.window.shed:
            window, screened = posting.close_window(now, STAGE_RULES[self.stage].chat_budget_share)
            self._ticked_at = now
            shown = window.per_tier[Tier.FULL].entries
            if shown:
                waited_s = now - shown[0].at
            if window.per_tier[Tier.FULL].account.admitted:  # none where words were found in all of them
                self._tick_number += 1
                ticks = self._ticks(window.per_tier, at_ms)
            if window.outcomes:
                effects.append(Outcomes(window.outcomes, self._tick_number))
            effects += screened
        own: list[ShowToSender[T]] = []
        if posting.guard.shadowed:
            own = self._shadowed(now, at_ms, is_own_tick=not ticks)
        delay_s = 0.0 if last else self.modes.modes.delay_ms / 1000
        if delay_s and (ticks or own):
            effects += self._delay(ticks, own, now + delay_s)
            ticks, own = (), []
        if self._delayed.next_due <= now or (not delay_s and len(self._delayed)):
            effects += self._show_delayed(inf if not delay_s else now)
        effects += own
        if ticks:
            self._keep(ticks)
        if self.raids.is_on:
            joined, repeated = self._presence.joined, self._accounts[Lane.CHAT].merged
            effects += self.raids.observe(joined, repeated, now, at_ms)
        counters: tuple[PushCounter, ...] = ()
        wait_s = 0.0 if ticks or state is not None else RANKING_WAIT_S
        if now >= self.rankings.next_push_at + wait_s:
            counters = self.rankings.push(now, self.last_offset)
        if ticks or state is not None or counters:
            effects.append(TickOut(self._tick_number, ticks, state, self.counters.number, counters, waited_s))
        return effects

    def _delay(self, ticks: tuple[Tick, ...], own: Sequence[ShowToSender[T]], due_at: float) -> list[Effect[T]]:
        """Show a tick to staff now, and to the others later; who posts is answered now."""
        waiting = tuple(each._replace(outcome=None) for each in own)
        self._delayed.put(DelayedTick(due_at, self._tick_number, ticks, waiting))
        effects: list[Effect[T]] = [ShowToStaff(ticks[0], self._tick_number)] if ticks else []
        return effects + [Reply(each.ticket, each.outcome) for each in own if each.outcome is not None]

    def _show_delayed(self, now: float) -> list[Effect[T]]:
        """Show viewers the delayed ticks that are due."""
        effects: list[Effect[T]] = []
        for number, ticks, own in (each[1:] for each in self._delayed.take(now)):
            effects += own
            if ticks:
                self._keep(ticks)
                effects.append(TickOut(number, ticks, None, 0, is_delayed=True))
        return effects

    def _keep(self, ticks: Sequence[Tick]) -> None:
        """Keep what viewers are shown for those who join later."""
        self.kept.show(ticks[0].entries, ticks[0].at_ms)

    def _shadowed(self, now: float, at_ms: int, *, is_own_tick: bool) -> list[ShowToSender[T]]:
        """Show what waits to its senders alone, before the tick. ``is_own_tick``: there is no other now."""
        if is_own_tick:
            self._ticked_at = now
            self._tick_number += 1
        guard = self._posting.guard
        shadowed, guard.shadowed = guard.shadowed, []
        return [self.show_to_sender(ticket, tick_entry(item), at_ms, outcome) for ticket, item, outcome in shadowed]

    def show_to_sender(
        self, ticket: T, entry: TickEntry, at_ms: int, outcome: Outcome = Outcome.ACCEPTED
    ) -> ShowToSender[T]:
        """Return the effect that shows a danmaku to its sender alone, as a part of the tick of this moment."""
        tick = Tick(at_ms, self._interval_ms(), self.stage, (entry,), Account())
        return ShowToSender(ticket, tick, self._tick_number, outcome)

    def _ticks(self, cuts: Mapping[int, TierCut], at_ms: int) -> tuple[Tick, ...]:
        full = cuts[Tier.FULL]
        self.counters.count_chat(full.account)
        entries = {id(item): tick_entry(item) for item in full.entries}
        interval_ms = self._interval_ms()
        made: dict[int, Tick] = {}
        for cut in cuts.values():
            if id(cut) not in made:
                shown = tuple(entries.values() if cut is full else [entries[id(item)] for item in cut.entries])
                made[id(cut)] = Tick(at_ms, interval_ms, self.stage, shown, cut.account)
        return tuple(made[id(cuts[tier])] for tier in (Tier.FULL, Tier.MEDIUM, Tier.LOW))

    # ---- what it says of itself

    @property
    def is_unused(self) -> bool:
        """Whether nothing was ever posted here; that users came in does not count."""
        was_posted = any(lane.admitted for lane in self.counters.accounts()[: Lane.AMBIENT])
        activities = self.activities.activities
        was_used = was_posted or (activities is not None and len(activities) > 0)
        return not (self.last_offset or self._likes.total or was_used or self.own_rules or self.title or self.tags)

    def snapshot(self, name: str, role: Role, tier: Tier, user_id: str = "", at_ms: int = 0, tags: int = 0) -> Joined:
        """Return the answer to a JOIN: the room ``name`` as it is at ``at_ms``, for a role, a tier and tags."""
        views, own_views, left_out = self.activities.snapshot(role >= Role.MODERATOR, user_id)
        views += (*self.rankings.views(), *self.highlights.views(at_ms), *self.modes.views())
        own_views += self.modes.own_views(user_id, role)
        presence = self._presence
        recent, is_recent_cut, announcement, pinned = self.kept.snapshot(self.activities.is_for(tags))
        return Joined(
            name, self.epoch, self._history.last_offset, role, self.phase, tier, self._interval_ms(),
            presence.online, presence.users, presence.uniques, presence.peak, self._likes.total,
            recent, is_recent_cut, announcement, *self.keys.snapshot(), pinned, views,
            own_views, left_out,
        )  # fmt: skip

    def events_since(self, epoch: int, offset: int, now: float) -> Sequence[StoredEvent] | None:
        """Return the events after a position, oldest first; None where the in-memory history lacks one of them."""
        return self._history.since(epoch, offset, now)

    @property
    def first_offset(self) -> int:
        """Offset of the oldest event in the in-memory history; one after `last_offset` where that is empty."""
        return self._history.first_offset

    @property
    def last_offset(self) -> int:
        """Offset of the newest event; 0 = none."""
        return self._history.last_offset

    @property
    def online(self) -> int:
        """Connections in the room, those of the app not counted."""
        return self._presence.online

    @property
    def like_total(self) -> int:
        """Likes counted so far."""
        return self._likes.total

    @property
    def batch_full(self) -> bool:
        """Whether the policy's batch has gathered, so that the tick need not wait."""
        batch = self.policy.batch_max
        return batch > 0 and self._posting.window.pending >= batch

    @property
    def pending_bytes(self) -> int:
        """Memory that waits in this room besides its history."""
        return self._posting.window.pending_bytes

    def sweep(self, now: float) -> None:
        """Forget limiter keys that no longer matter; cheap, call it now and then."""
        self._posting.limits.sweep(now)
        self._posting.guard.sweep(now)
