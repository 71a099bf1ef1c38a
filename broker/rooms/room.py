"""A room's task: it performs the effects of its `RoomState`, and ticks only when there is something to publish.

The first message after a quiet interval is published in the next turn of the loop; what arrives meanwhile is collected
for the tick after that. A tick is never made while the last one is still in flight, so a room that costs more than its
share stretches its own interval and that of no other.

A room knows members (`members`), not sessions; calls from sessions are synchronous and therefore atomic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Any

import trio

from broker.core.clock import TrustedClock
from broker.core.commerce.activity import AnswerHeld, Attributes, ReleasedPost, Requester, ShowPost
from broker.core.commerce.room_activities import (
    ActivityKey,
    AnswerCommand,
    PushCounter,
    RecordBatch,
    StartActions,
    Times,
)
from broker.core.limits.overload import OverloadStage, TickPacer
from broker.core.rooms.effects import (
    Effect,
    End,
    Flagged,
    Hold,
    Outcomes,
    Publish,
    Record,
    RefusePost,
    Reply,
    ShowToSender,
    ShowToStaff,
    TickOut,
)
from broker.core.rooms.erasure import Erasure
from broker.core.rooms.event_ids import EventIds
from broker.core.rooms.idempotency import OperationKey
from broker.core.rooms.key_changes import KeyDecision
from broker.core.rooms.keys import KeyDelete, KeyRefused
from broker.core.rooms.masking import NameMask
from broker.core.rooms.own_rules import RuleValue
from broker.core.rooms.pins import PinChange
from broker.core.rooms.policies import Policy
from broker.core.rooms.state import RoomState
from broker.core.rooms.stream import StoredEvent
from broker.core.rooms.totals import RoomReading
from broker.core.rooms.traces import MAX_OPEN, MAX_OPEN_TEXTS
from broker.core.rooms.watch_times import WatchTimes
from broker.core.tenants.names import plain_name
from broker.core.tenants.quotas import TenantUse
from broker.core.users.preferences import PreferenceTable
from broker.ledger import ResultBatch
from broker.rooms.actions import RoomActions
from broker.rooms.answers import RoomAnswers
from broker.rooms.attributes import attributes
from broker.rooms.encoding import Content
from broker.rooms.fanout import FanOut
from broker.rooms.hints import RoomHints
from broker.rooms.holding import NOBODY, answer_held, hold
from broker.rooms.journal import RoomJournal
from broker.rooms.keyword_entries import KeywordEntries
from broker.rooms.measures import RoomMeasures
from broker.rooms.members import Member, Members, PostRef
from broker.rooms.own_links import OwnLinks, SessionsOf
from broker.rooms.publishing import RoomPublisher
from broker.rooms.reports import VACATED_AFTER_S, RoomReporter
from broker.rooms.room_store import RoomStore
from broker.rooms.views import RoomViews
from protocol.activities.audiences import Audience
from protocol.activities.reviews import HeldBy
from protocol.codes import LeaveReason, MessageType, Outcome, Role, RoomPhase
from protocol.messages import Post
from protocol.operations import STAFF
from protocol.operations.keys import KeyItem

__all__ = ["OnActions", "PostRef", "Room"]

SWEEP_LIMITERS_S = 10.0
"""How often a room sweeps its limiters."""
MAX_WAITING_SWEEPS = 64
"""A room without a tick (policy ``off``) makes one sweep a message; above so many waiting ones it collects them."""

OnActions = Callable[[RoomActions], None]
"""Does what an activity of a room has to be done outside."""

_KEYS = MessageType.KEYS_CHANGED
_TEXTS = frozenset({MessageType.DANMAKU})
_DATED_BY_TICK = frozenset({MessageType.DANMAKU, MessageType.EMOTE, MessageType.LIKE})
"""Types whose time is that of the tick which shows them, so that the clock is not read for each."""


def _ignore(answer: Any) -> None:
    """Take the answer to a command that has no caller."""


class Room:
    """One room: its members, its state and its task (`run`)."""

    def __init__(
        self,
        name: str,
        number: int,
        state: RoomState[PostRef],
        fanout: FanOut,
        pacer: TickPacer,
        results: ResultBatch,
        *,
        idle_close_s: float,
        unused_close_s: float = inf,
        clock: Callable[[], float],
        unix_ms: Callable[[], int],
        room_store: RoomStore | None = None,
        event_ids: EventIds | None = None,
        on_crash: Callable[[Room], None] | None = None,
        trusted: TrustedClock | None = None,
        reporter: RoomReporter | None = None,
        tenant: TenantUse | None = None,
        on_actions: OnActions = lambda asked: None,
        hints: RoomHints | None = None,
        preferences: PreferenceTable | None = None,
        mask: NameMask | None = None,
        measures: RoomMeasures | None = None,
        sessions_of: SessionsOf = lambda user: (),
    ) -> None:
        self.name = name
        """Qualified by its tenant."""
        self.tenant = tenant
        """Quotas of its tenant; None: the default one, which has none."""
        self.number = number
        self.state = state
        self.views = RoomViews(name, state, PreferenceTable() if preferences is None else preferences, mask)
        state.rankings.is_hidden = self.views.is_hidden
        self.members = Members(self.views.tags_of)
        self.senders: dict[Member, None] = {}
        """Links of the app that post without being members; they get the answers to their posts, nothing else."""
        self._pacer = pacer
        self._fanout = fanout
        self._idle_close_s = idle_close_s
        self._unused_close_s = min(idle_close_s, unused_close_s)
        self._is_by_viewer = unused_close_s < inf
        self._clock = clock
        self._unix_ms = unix_ms
        self._event_ids = event_ids
        self._on_crash = on_crash
        self._trusted = TrustedClock(unix_ms, clock) if trusted is None else trusted
        self._reporter = reporter
        self._on_actions = on_actions
        self._hints = hints
        self._measures = RoomMeasures() if measures is None else measures
        self._answers = RoomAnswers(number, self._measures, state.counters, reporter, clock, unix_ms)
        self.traces = self._answers.traces
        self.journal = RoomJournal(
            room_store, name, state, clock, perform=self._perform, on_due=self._nudge, on_crash=self._crashed,
            defer=results.defer,
        )  # fmt: skip
        """Its durable side."""
        self._has_tick = state.has_tick
        self._has_batches = state.has_batches
        self.ended = LeaveReason.ROOM_ENDED, ""
        """Why the room has ended, once it has."""
        self.has_crashed = False
        self.is_reading = False
        """Whether its activities are being read from the ledger again, after a crash."""
        self.reading: RoomReading | None = None
        """Its numbers as they were read last; None: something may have changed since."""
        self.opened_at_ms = unix_ms()
        self._wake = trio.Event()
        self._sleeps_until = -inf
        """When its task does what is due next; it is awake until that has been found out."""
        self._armed_until = inf
        self._ticking = False
        self._keyword_entries = KeywordEntries(self.command_activity, clock)
        self.watch_times = WatchTimes()
        """What users who left have watched."""
        self._publisher = RoomPublisher(
            number, self.members, fanout, results, tag_bits=state.activities.tag_bits, event_id=self.event_id,
            unix_ms=unix_ms, on_crash=self._crashed, traces=self.traces, clock=clock, mask=mask,
        )  # fmt: skip
        self.own_links = OwnLinks(self, name, state, self._publisher, sessions_of)

    # ---- members

    def enter(self, member: Member, now: float, resumes: bool = False) -> None:
        """Add a member. It gets what is published from now on. ``resumes``: it was a member of this stream before."""
        self._publisher.flush()
        member.variant = self.views.variant_of(member, member.role)
        self.members.add(member)
        if member.role in STAFF:
            self._publisher.staff[member] = None
        member.joined_at_ms = self._unix_ms()
        is_hidden = self.views.is_hidden(plain_name(member.user_id))
        self.state.enter(member.user_id, member.name, member.role, now, resumes, is_hidden)
        if self._reporter is not None:
            self._reporter.entered(member.user_id, member.name, member.role)
        self._nudge(now)

    def leave(self, member: Member, now: float) -> None:
        """Remove a member; a sweep in flight skips it from now on."""
        self.members.remove(member)
        self._publisher.staff.pop(member, None)
        if member.role is not Role.GUEST:
            self.watch_times.left(member.user_id, member.joined_at_ms, self._unix_ms())
        is_last, activities = self.state.leave(member.user_id, member.role, now), self.state.activities
        user = plain_name(member.user_id)
        if is_last and activities.activities is not None and activities.follows(user):
            self._perform(activities.user_left(user, _ignore, now, self._times()))
        if self._reporter is not None:
            self._reporter.left(member.user_id, member.name, member.role)
        self._nudge(now)

    def change_rights(
        self, member: Member, name: str, role: Role, may_post: frozenset[int], tags: tuple[str, ...], now: float
    ) -> None:
        """Give a member the name and the rights of a new token; it keeps its place in the stream."""
        if (role is Role.GUEST, role is Role.APP) != (member.role is Role.GUEST, member.role is Role.APP):
            self.state.leave(member.user_id, member.role, now)  # guests and the app are counted otherwise
            self.state.enter(member.user_id, name, role, now, resumes=True)
            self._nudge(now)
        member.name, member.role, member.may_post, member.tags = name, role, may_post, tags
        variant = self.views.variant_of(member, role)
        if variant != member.variant:
            self.members.change_variant(member, variant)
        if role in STAFF:
            self._publisher.staff[member] = None
        else:
            self._publisher.staff.pop(member, None)

    def keep_open(self, now: float) -> None:
        """Start the time again after which the room closes without members: it is posted to."""
        if self.state.empty_since is not None:
            self.state.empty_since = now

    def remove(self, member: Member, reason: LeaveReason, message: str, now: float) -> None:
        """Remove a member against its will; its session is informed."""
        self.leave(member, now)
        member.session.on_left(self, reason, message)

    def attributes_of(
        self, user: str, joined_at_ms: int | None, tags: tuple[str, ...], now_ms: int, account_created: int = 0
    ) -> Attributes:
        """Return what the conditions of activities ask of a user (qualified id), see `attributes`."""
        return attributes(self.state, self.watch_times, user, joined_at_ms, tags, account_created, now_ms)

    def event_id(self, offset: int) -> str:
        """Return the id of an event for streams of events, "" where there are none."""
        return "" if self._event_ids is None else self._event_ids.of(self.name, self.state.epoch, offset)

    def missing(self, epoch: int, offset: int, now: float) -> Sequence[StoredEvent] | None:
        """Return the events after a position, or None where they are not all there any more."""
        return self.state.events_since(epoch, offset, now)

    # ---- posts

    def post(self, member: Member, sequence: int, post: Post, now: float) -> None:
        """Process one POST; its outcome reaches the member's session now, with a tick, or with the ledger's result."""
        self.reading, state = None, self.state
        if self.tenant is not None and self._is_above_quota(self.tenant, member, sequence, now):
            return
        at_ms = 0 if post[0] in _DATED_BY_TICK else self._unix_ms()
        if (at_ms or post[1]) and len(self.traces.open) < (MAX_OPEN if at_ms else MAX_OPEN_TEXTS):
            self._answers.trace(member, sequence, post, now, at_ms)
        effects = state.post((member, sequence), member, post, now, at_ms)
        activities = state.activities.activities
        if activities is not None and activities.listening and post[0] in _TEXTS:
            self._keyword_entries.hear(self, member, post, effects, activities, self._unix_ms())
        if effects:
            self._perform(effects)
            if type(effects[0]) is Record:
                return  # the ledger has it, and there is nothing for a tick
        if not self._has_tick:
            if len(self._publisher) < MAX_WAITING_SWEEPS:
                self._perform(state.tick(now, self._unix_ms()))
        elif now + state.interval_s < self._armed_until or (self._has_batches and state.batch_full):
            self._nudge(now)

    def _is_above_quota(self, tenant: TenantUse, member: Member, sequence: int, now: float) -> bool:
        """Count a message of a tenant; return whether it is refused."""
        wait_s = tenant.message_wait_s(now)
        if wait_s:
            self._answers.over_quota(member, sequence, wait_s)
        return wait_s > 0

    def hold(self, member: Member, sequence: int, post: Post, held_by: HeldBy, reason: str, now: float) -> None:
        """Put one POST, of a type of `RoomState.may_hold`, into the review queue; its outcome follows as in `post`."""
        if self.tenant is None or not self._is_above_quota(self.tenant, member, sequence, now):
            self._perform(self.state.hold((member, sequence), member, post, now, held_by, reason))

    def reply(self, ticket: PostRef, outcome: Outcome, detail: int) -> None:
        """Answer a post, as the effect `Reply`."""
        self._perform((Reply(ticket, outcome, detail),))

    def post_to(self, audience: Audience, member: Member, sequence: int, post: Post, now: float) -> None:
        """Process one POST for a part of the room, as `post`; the type takes an audience (`Posting.takes_audience`)."""
        ticket = member, sequence
        self._answers.trace(member, sequence, post, now)
        self._perform(self.state.post_to(audience, ticket, member, post, now, self._unix_ms()))

    def change_keys(
        self, author: Member, sequence: int, items: Sequence[KeyItem | KeyDelete], key: OperationKey | None
    ) -> KeyDecision | KeyRefused:
        """Set and delete keys, all or none; a decision that changes anything is answered as a post of ``author`` is."""
        now = self._clock()
        ticket, now_ms = (author, sequence), self._trusted.now_ms()
        decision = self.state.key_changes.command(
            ticket, author.user_id, author.name, items, key, now, now_ms, self._unix_ms()
        )
        if isinstance(decision, KeyDecision):
            self._perform(decision.effects)
            self._nudge(now)
        return decision

    # Any: each kind of activity has its own commands and answers.
    def command_activity(
        self,
        key: ActivityKey,
        command: Any,
        requester: Requester,
        on_answer: Callable[[Any], None],
        *,
        creates: bool = False,
    ) -> None:
        """Give a command to an activity; ``on_answer`` gets its result record or an `ActivityRefusal`."""
        now = self._clock()
        steps = self.state.activities
        self._perform(steps.command(key, command, requester, on_answer, now, self._times(), creates=creates))
        self._nudge(now)

    def _times(self) -> Times:
        return Times(self._trusted.now_ms(), self._trusted.continued_ms())

    def pin(self, author: Member, sequence: int, change: PinChange, ttl_ms: int | None, client_msg_id: str) -> None:
        """Pin or unpin a message, as a post of ``author``. ``ttl_ms``: how long it is pinned; None = without an end."""
        if change.pin is not None and ttl_ms is not None:
            change = PinChange(change.pin._replace(expires_at_ms=self._trusted.now_ms() + ttl_ms))
        self.post(author, sequence, Post(MessageType.PINS_CHANGED, client_msg_id, change), self._clock())
        self._nudge(self._clock())

    def set_modes(self, author: Member, sequence: int, changes: Mapping[str, Any]) -> None:
        """Set modes by name (Any: of their types), see `RoomModes`; answered as a post of ``author``."""
        now, ticket = self._clock(), (author, sequence)
        self._perform(self.state.modes.change(changes, author.user_id, author.name, now, self._unix_ms(), ticket))
        self._nudge(now)

    def set_rules(self, changes: Mapping[str, RuleValue | None]) -> None:
        """Set rules of this room, see `RoomState.set_rules`; the interval between ticks follows with the next one."""
        self.state.set_rules(changes)
        self._follow_ticks()

    def use_broker_policy(self, policy: Policy) -> None:
        """Take another policy of the broker, see `RoomState.use_broker_policy`."""
        self.state.use_broker_policy(policy)
        self._follow_ticks()

    def _follow_ticks(self) -> None:
        policy = self.state.policy
        self._has_batches = self.state.has_batches
        if self._has_tick:
            self._pacer = TickPacer(policy.tick_ms, policy.tick_max_ms)
            self._pacer.interval_s = self.state.interval_s
        self._armed_until = inf
        self._wake.set()

    def set_phase(self, phase: RoomPhase, user_id: str) -> None:
        """Pause, resume or end the room."""
        self._perform(self.state.set_phase(phase, user_id, self._clock(), self._unix_ms()))

    def flush(self) -> None:
        """Publish at once what waits, paced or not: the broker is about to stop."""
        self._perform(self.state.tick(self._clock(), self._unix_ms(), last=True))

    def erase(self, erasure: Erasure) -> bool:
        """Keep nothing of a user any more; return whether that is done. Else call again: the ledger has to answer."""
        if self.state.phase is RoomPhase.ENDED:
            return True  # what it holds in memory ends with it
        now, at_ms = self._clock(), self._unix_ms()
        self.traces.forget_user(plain_name(erasure.user))
        self._perform(self.state.release(erasure.user, now, at_ms))
        effects, is_done = self.state.erase(erasure, now, self._trusted.now_ms(), at_ms)
        self._perform(effects)
        self.journal.checkpoint()
        self._nudge(now)
        return is_done

    def end(self, reason: LeaveReason, message: str = "") -> None:
        """Refuse everything from now on and let the task end; `remove_all` follows."""
        self.journal.keep_totals()
        self.state.close()
        self.ended = reason, message
        self._wake.set()

    def crash(self) -> None:
        """End after a defect in the room's own code: as `end`, with as little use of the state as possible."""
        self.has_crashed = True
        self.ended = LeaveReason.ROOM_CRASHED, "the room failed and was closed"
        with suppress(Exception):  # the defect is logged already
            self.journal.keep_totals()
        self.state.close(comes_back=True)
        self._wake.set()

    @property
    def is_writing(self) -> bool:
        """Whether the fan-out has still to write something of it."""
        return len(self._publisher) > 0

    @property
    def is_left_unused(self) -> bool:
        """Whether a viewer opened the room and nothing was posted in it: there is nothing to keep."""
        return self._is_by_viewer and not self.has_crashed and self.state.is_unused

    @property
    def _close_after_s(self) -> float:
        """Seconds without members after which the room closes."""
        return self._unused_close_s if self.is_left_unused else self._idle_close_s

    # ---- the task

    async def run(self) -> None:
        """Tick when due, until the room has ended."""
        sweep_limiters_at = self._clock() + SWEEP_LIMITERS_S
        while self.state.phase is not RoomPhase.ENDED:
            now = self._clock()
            self._armed_until = self._sleeps_until = self._next_due(now)
            if self._armed_until > now:
                with trio.move_on_after(self._armed_until - now if self._armed_until < inf else SWEEP_LIMITERS_S):
                    await self._wake.wait()
            else:
                await trio.lowlevel.checkpoint()
            self._sleeps_until = -inf
            if self._wake.is_set():
                self._wake = trio.Event()
            now = self._clock()
            if now >= sweep_limiters_at:
                sweep_limiters_at = now + SWEEP_LIMITERS_S
                self.state.sweep(now)
                self.traces.sweep(now)
            self._live(now)

    def _next_due(self, now: float) -> float:
        due = None if self._ticking else self.state.next_due(now)
        empty_since = self.state.empty_since
        if empty_since is not None:
            closes_at = inf if self.state.activities.is_busy else empty_since + self._close_after_s
            if self._reporter is not None and self._reporter.is_occupied:
                closes_at = min(closes_at, empty_since + VACATED_AFTER_S)
            due = closes_at if due is None else min(due, closes_at)
        return min(inf if due is None else due, self.state.expiry_due_at, self._keyword_entries.retry_at)

    def _live(self, now: float) -> None:
        empty_since = self.state.empty_since
        if self._reporter is not None and empty_since is not None and now >= empty_since + VACATED_AFTER_S:
            self._reporter.vacated()
        is_busy = self.state.activities.is_busy
        if empty_since is not None and not is_busy and now >= empty_since + self._close_after_s:
            if self._reporter is not None:
                self._reporter.vacated()
            self.end(LeaveReason.ROOM_IDLE)
            return
        if now >= self._keyword_entries.retry_at:
            self._keyword_entries.retry()
        if now >= self.state.expiry_due_at:
            trusted_ms = None if self._trusted.distrust() else self._trusted.now_ms()
            self._perform(self.state.expire(now, trusted_ms, self._unix_ms()))
            if now >= self.state.activities.due_at:
                self._perform(self.state.activities.due(now, self._times()))
        if not self._ticking:
            due = self.state.next_due(now)
            if due is not None and due <= now:
                self._perform(self.state.tick(now, self._unix_ms()))

    def _nudge(self, now: float) -> None:
        """Wake the task if it would sleep past the next thing to do. Called whenever something has changed."""
        self.reading, state = None, self.state
        if state.expiry_due_at < self._armed_until:
            self._armed_until = now
            self._wake.set()
        elif not self._ticking and state.phase is not RoomPhase.ENDED:
            due = state.next_due(now)
            if (due is not None and due < self._armed_until) or state.empty_since is not None:
                self._armed_until = now
                if due == now and now < self._sleeps_until and state.empty_since is None:
                    self._fanout.call_soon(self._turn)
                else:
                    self._wake.set()

    def _turn(self) -> None:
        """Do at once what is due. The task sleeps on: to wake it costs as much as the tick of a small room."""
        now = self._clock()
        try:
            if self.state.phase is not RoomPhase.ENDED:
                self._live(now)
                self._rearm(now)
        except Exception:
            self._crashed()

    def _rearm(self, now: float) -> None:
        """Wake the task only if it would sleep past the next thing to do."""
        self._armed_until = self._sleeps_until
        if self._next_due(now) < self._armed_until:
            self._armed_until = now
            self._wake.set()

    # ---- effects

    def _perform(self, effects: Iterable[Effect[PostRef]]) -> None:
        self.reading = None
        for effect in effects:
            match effect:  # the commonest first: each case that does not match costs a call
                case Reply():
                    self._answers.reply(effect)
                case TickOut():
                    self._send_tick(effect)
                case Outcomes():
                    self._answers.reply_tick(effect)
                case Publish(event, lane, offset, audience, packed):
                    self._publisher.publish(Content(event, lane, offset, packed=packed), audience)
                    if event.type == _KEYS:
                        self._nudge(self._clock())
                case Record():
                    self.journal.record(effect)
                case RefusePost():
                    self._answers.refuse(effect)
                case ShowToSender((member, _), tick, number):
                    self.own_links.show(tick, number, member.user_id)
                    self._answers.shown_to_sender(effect)
                case ShowToStaff(tick, number):
                    self._publisher.show_to_staff(tick, number)
                case Hold():
                    hold(self, effect)
                case ShowPost(post):
                    self._show(post)
                case AnswerHeld():
                    answer_held(self, effect)
                case AnswerCommand(ticket, answer):
                    ticket(answer)
                case RecordBatch(made):
                    self.journal.record_batch(made)
                case PushCounter(key, counter):
                    self._publisher.push_counter(key, counter)
                case StartActions(key, actions):
                    self._on_actions(RoomActions(self.name, self.state.epoch, key, actions))
                case Flagged():
                    self._answers.flagged(effect)
                case End(reason):
                    self.end(reason)

    def _show(self, post: ReleasedPost) -> None:
        """Show a danmaku that was held with the next tick."""
        now = self._clock()
        self.state.show(post, NOBODY, now)
        if (activities := self.state.activities.activities) is not None:
            self._keyword_entries.hear_shown(self, post, activities, self._unix_ms())
        if not self._has_tick:
            self._perform(self.state.tick(now, self._unix_ms()))

    def _crashed(self) -> None:
        """Report the exception that is being handled; this room ends, the ledger and other rooms go on."""
        if self._on_crash is None:
            raise
        self._on_crash(self)

    def _send_tick(self, out: TickOut) -> None:
        if self._reporter is not None:
            self._reporter.ticked(out.ticks)
        if out.ticks and not out.is_delayed:
            self._measures.tick_wait.observe(out.waited_s)
        on_done = self._swept if out.ticks and self._has_tick else None
        self._ticking = self._publisher.send_tick(out, on_done) or self._ticking
        if self._hints is not None and not out.is_delayed:
            self._hints.hear(self.name, self._publisher, self.post, out.ticks)

    def _swept(self, cost_s: float) -> None:
        """Adapt the interval: the last tick has reached every member; the next one may be due."""
        self._ticking = False
        interval_s = self.state.interval_s = self._pacer.observe(cost_s, self.state.stage)
        self._measures.tick_cost.observe(cost_s)
        self._measures.tick_interval.observe(interval_s)
        self._rearm(self._clock())

    @property
    def stage(self) -> OverloadStage:
        """Overload stage in force here; the server's sampler sets it."""
        return self.state.stage

    @stage.setter
    def stage(self, stage: OverloadStage) -> None:
        if stage is not self.state.stage:
            self.state.stage = stage
            self._wake.set()
