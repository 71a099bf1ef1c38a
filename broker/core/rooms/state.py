"""One room as a pure state machine: commands in, effects out; the room's task performs them.

It decides what a POST becomes (`post`), what a tick shows (`tick`), when the next tick is due (`next_due`) and what
the counters say. Every message is in exactly one place of its lane's account at any time. It knows users and tickets,
neither links nor bytes.

A method call is a command and its return value the effects: an object per command would cost more than the whole
decision on a path that takes 200,000 messages a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil, inf
from random import Random
from typing import Any, Generic, TypeVar

from broker.core.chat.coalesce import Coalescer, Offer, PendingDanmaku, TierCut
from broker.core.chat.duplicates import DuplicateFilter
from broker.core.chat.fold import fold
from broker.core.commerce.gifts import PaidItem, PaidPacer
from broker.core.limits.overload import STAGE_RULES, OverloadStage
from broker.core.limits.post_limits import PostLimits
from broker.core.rooms.accounts import RoomAccounts
from broker.core.rooms.effects import Effect, End, Outcomes, PendingReply, Record, Reply, TickOut
from broker.core.rooms.history import History, RecentDanmaku
from broker.core.rooms.idempotency import (
    MAX_ORDERS,
    ORDER_WINDOW_S,
    IdempotencyTable,
    OperationKey,
    StoredResult,
    order_key,
    post_key,
)
from broker.core.rooms.likes import LikeCounter
from broker.core.rooms.policies import OverQuota
from broker.core.rooms.presence import Presence, PresenceCounts
from broker.core.rooms.rules import Author, RoomRules
from broker.core.rooms.stream import BUSY_RETRY_MS, EXPECTED_EVENT_BYTES, StoredEvent, Stream
from broker.core.rooms.tick_entry import tick_entry
from broker.core.tenants.names import plain_name
from protocol.codes import CUSTOM_TYPE_MIN, ErrorCode, Lane, LeaveReason, MessageType, Outcome, Role, RoomPhase, Tier
from protocol.errors import RemoteProtocolError
from protocol.frames import pack_body, unpack_body
from protocol.messages import MAX_RECENT_BYTES, Account, Event, Joined, Post, RoomPulse, State, Tick, TickEntry
from protocol.payloads import GiftPayload

__all__ = ["Author", "RoomRules", "RoomState", "StoredEvent"]

T = TypeVar("T")

STATE_EVERY_S = 2.0
"""Counters are pushed at most so often, and only when one has changed (as Agora debounces)."""


# Looking an Enum member up is a call on Python 3.11 (0.2 us), and a flood passes here 200,000 times a second.
_DANMAKU, _CHAT, _LIVE, _MODERATOR = MessageType.DANMAKU, Lane.CHAT, RoomPhase.LIVE, Role.MODERATOR
_APP = Role.APP
_DROP_NEWEST, _COMMERCE_ONLY, _SHED = OverQuota.DROP_NEWEST, OverloadStage.COMMERCE_ONLY, Offer.SHED
_NOTHING: tuple[Effect[Any], ...] = ()
_TOTALS_VERSION = 1


class RoomState(Generic[T]):
    """State of one room. All times: ``now`` monotonic seconds, ``at_ms`` Unix milliseconds.

    ``name``: qualified by its tenant; ``orders``: of all rooms of the broker; None: this room is the only one.
    """

    def __init__(
        self,
        rules: RoomRules,
        epoch: int,
        rng: Random,
        now: float,
        name: str = "",
        orders: IdempotencyTable[T] | None = None,
    ) -> None:
        policy = rules.policy
        self._rules = rules
        self.epoch = epoch
        self.phase = RoomPhase.LIVE
        self._presence = Presence()
        self._members = 0
        """Connections, those of the app included."""
        self._likes = LikeCounter()
        self._history: History[StoredEvent] = History(epoch, rules.history_entries, rules.history_s)
        self._recent: RecentDanmaku[TickEntry] = RecentDanmaku(
            rules.snapshot_danmaku, MAX_RECENT_BYTES, lambda entry: len(pack_body(entry))
        )
        self.stage = OverloadStage.NORMAL
        self.interval_s = policy.tick_ms / 1000
        self.empty_since: float | None = now
        self._accounts = RoomAccounts()
        self._stream: Stream[T] = Stream(
            self._history, self._accounts, rules.durable, plain_name(name),
            IdempotencyTable(ORDER_WINDOW_S, MAX_ORDERS) if orders is None else orders,
        )  # fmt: skip
        self._name = name
        self._wanted = RoomPhase.LIVE
        """Phase against which posts are checked: changes count from when they are requested, not from their commit."""
        self._phases_under_way = 0
        self._comes_back = False
        self._policy = policy
        self.has_tick = policy.tick_ms > 0
        """Whether a tick waits for an interval; else each message is shown by a tick of its own."""
        self.has_batches = policy.batch_max > 0
        """Whether a tick may come early because a batch is full."""
        self._admission = policy.admission()
        self._limits = PostLimits(
            policy.user_chat, policy.user_likes, policy.staff_posts, policy.app_posts,
            ((rule.type, rule.lane, rule.rate) for rule in rules.custom.values()),
        )  # fmt: skip
        self._unique = policy.duplicate_window_s > 0
        self._duplicates = DuplicateFilter(policy.duplicate_window_s)
        self._folds = policy.merge or self._unique
        self._window: Coalescer[T] = policy.coalescer(rng)
        self._paid: PaidPacer[PendingReply[T]] = PaidPacer(policy.paid_budget_per_s)
        self._tick_number = 0
        self._state_number = 0
        self._ticked_at = -inf
        self._stated_at = -inf
        self._published: tuple[int, ...] = ()
        self._posts: dict[int, Callable[[T, Author, Post, float, int], Sequence[Effect[T]]]] = {
            MessageType.DANMAKU: self._post_danmaku,
            MessageType.EMOTE: self._post_danmaku,
            MessageType.LIKE: self._post_like,
            MessageType.ANNOUNCEMENT: self._post_event,
            MessageType.GIFT: self._post_gift,
            MessageType.ROOM_PHASE: self._post_phase,
            **dict.fromkeys(rules.custom, self._post_custom),
        }

    # ---- members

    def enter(self, user_id: str, name: str, role: Role, now: float, resumes: bool = False) -> None:
        """Add one connection of a user. The app's are not counted and not shown: it is no viewer.

        ``resumes``: it continues a connection to this stream.
        """
        self.empty_since = None
        self._members += 1
        if role is not _APP:
            self._presence.enter(user_id, name, role, now, resumes)

    def leave(self, user_id: str, role: Role, now: float) -> None:
        """Remove one connection of a user, which came with ``role``."""
        if role is not _APP:
            self._presence.leave(user_id, now)
        self._members -= 1
        if not self._members:
            self.empty_since = now

    # ---- posts

    def post(self, ticket: T, author: Author, post: Post, now: float, at_ms: int) -> Sequence[Effect[T]]:
        """Decide what one POST becomes. Its ticket is answered exactly once: by these effects or by a later tick's."""
        kind = post.type
        if kind >= CUSTOM_TYPE_MIN or kind not in author.may_post:
            code = self._rules.types.refusal(kind, post.payload, author.may_post)
            if code is not None:
                return (Reply(ticket, Outcome.REJECTED, code),)
        if self._wanted is not _LIVE:
            if self._wanted is RoomPhase.ENDED:
                if self._comes_back:
                    return (Reply(ticket, Outcome.LIMITED, BUSY_RETRY_MS),)
                return (Reply(ticket, Outcome.REJECTED, ErrorCode.ROOM_ENDED),)
            if author.role < Role.MODERATOR:
                return (Reply(ticket, Outcome.REJECTED, ErrorCode.ROOM_PAUSED),)
        return self._posts[kind](ticket, author, post, now, at_ms)

    def _post_danmaku(self, ticket: T, author: Author, post: Post, now: float, at_ms: int) -> Sequence[Effect[T]]:
        user_id = author.user_id
        kind, _, payload, _ = post
        text = payload[0]
        folded = fold(text) if self._folds else None
        is_staff = author.role >= _MODERATOR
        limit = self._limits.of_staff(author.role) if is_staff else self._limits.chat
        wait_s = limit.try_acquire(user_id, now)
        if wait_s:
            return (Reply(ticket, Outcome.LIMITED, _retry_ms(wait_s)),)
        if not is_staff and self._unique and self._duplicates.is_duplicate(user_id, folded or "", now):
            return (Reply(ticket, Outcome.REJECTED, ErrorCode.DUPLICATE_TEXT),)
        style = payload[1] if kind == _DANMAKU else None
        item = PendingDanmaku(kind, user_id, author.name, text, style, None, now, folded, author.role)
        effects = self._offer(ticket, item, now)
        if not effects and self._unique and not is_staff:
            self._duplicates.mark(user_id, folded or "", now)
        return effects

    def _offer(self, ticket: T, item: PendingDanmaku, now: float) -> Sequence[Effect[T]]:
        """Offer a danmaku to the window; the effects are empty where it was taken in. Those of the room's staff are
        never sampled out."""
        over_quota = not self._admission.try_admit(_CHAT, now)
        if over_quota and self._policy.over_quota is _DROP_NEWEST:
            return (Reply(ticket, Outcome.LIMITED, _retry_ms(self._admission.retry_after_s(now))),)
        if _MODERATOR <= item.role < _APP:
            if not self._window.takes_always:
                return (Reply(ticket, Outcome.LIMITED, BUSY_RETRY_MS),)
            self._window.offer_always(item, ticket, now)
            return _NOTHING
        if self.stage >= _COMMERCE_ONLY:
            account = self._accounts[Lane.CHAT]
            account.admitted += 1
            account.sampled += 1
            return (Reply(ticket, Outcome.SAMPLED_OUT),)
        if self._window.offer(item, ticket, now, over_quota) is _SHED:
            return (Reply(ticket, Outcome.SAMPLED_OUT),)
        return _NOTHING

    def _post_like(self, ticket: T, author: Author, post: Post, now: float, at_ms: int) -> Sequence[Effect[T]]:
        counted = self._limits.likes.take(author.user_id, now, post.payload[0])
        if not counted:
            wait_s = self._limits.likes.try_acquire(author.user_id, now)
            return (Reply(ticket, Outcome.LIMITED, _retry_ms(wait_s)),)
        self._likes.add(author.user_id, counted, now)
        account = self._accounts[Lane.AMBIENT]
        account.admitted += 1
        account.held += 1
        return (Reply(ticket, Outcome.ACCEPTED, counted),)

    def _post_event(self, ticket: T, author: Author, post: Post, now: float, at_ms: int) -> Sequence[Effect[T]]:
        key = post_key(author.user_id, post)
        answer = self._answer_to_staff(ticket, author, key, now)
        return self._publish(ticket, author, post, key, Lane.CONTROL, now, at_ms) if answer is None else answer

    def _answer_to_staff(
        self, ticket: T, author: Author, key: OperationKey | None, now: float
    ) -> Sequence[Effect[T]] | None:
        """Return the answer to a repeated key or above the limit of staff; None: the post goes on."""
        known = self._stream.known(key, ticket, now)
        if known is not None:
            return known
        wait_s = self._limits.of_staff(author.role).try_acquire(author.user_id, now)
        return (Reply(ticket, Outcome.LIMITED, _retry_ms(wait_s)),) if wait_s else None

    def _post_phase(self, ticket: T, author: Author, post: Post, now: float, at_ms: int) -> Sequence[Effect[T]]:
        key = post_key(author.user_id, post)
        answer = self._answer_to_staff(ticket, author, key, now)
        if answer is not None:
            return answer
        self._stream.begin(key)
        asked = (PendingReply(ticket, Outcome.ACCEPTED, key),)
        return self.set_phase(RoomPhase(post.payload[0]), author.user_id, now, at_ms, asked)

    def _post_gift(self, ticket: T, author: Author, post: Post, now: float, at_ms: int) -> Sequence[Effect[T]]:
        item: PaidItem[PendingReply[T]] = PaidItem.from_gift(post.payload, now)
        key = order_key(post.payload, self._name)
        known = self._stream.known(key, ticket, now)
        if known is not None:
            return known
        refused = self._refused(ticket, author, Lane.PAID, now)
        if refused:
            return refused
        self._stream.begin(key)
        self._stream.admit(Lane.PAID)
        asked = PendingReply(ticket, Outcome.ACCEPTED, key, GiftPayload(*post.payload))
        return self._release(self._paid.offer(item, asked, now), now, at_ms)

    def _post_custom(self, ticket: T, author: Author, post: Post, now: float, at_ms: int) -> Sequence[Effect[T]]:
        rule = self._rules.custom[post.type]
        key = None
        if rule.lane is not Lane.CHAT:
            key = post_key(author.user_id, post)
            known = self._stream.known(key, ticket, now)
            if known is not None:
                return known
        wait_s = self._limits.of_custom(post.type, author.role).try_acquire(author.user_id, now)
        if wait_s:
            return (Reply(ticket, Outcome.LIMITED, _retry_ms(wait_s)),)
        if rule.lane is Lane.CHAT:
            item = PendingDanmaku(
                post.type, author.user_id, author.name, repr(post.payload), extra=post.payload, at=now, role=author.role
            )
            return self._offer(ticket, item, now)
        return self._refused(ticket, author, rule.lane, now) or self._publish(
            ticket, author, post, key, rule.lane, now, at_ms
        )

    def _publish(
        self, ticket: T, author: Author, post: Post, key: OperationKey | None, lane: Lane, now: float, at_ms: int
    ) -> Sequence[Effect[T]]:
        """Put a posted event, whose key is not known yet, on its way into the stream."""
        self._stream.begin(key)
        self._stream.admit(lane)
        event = Event(post.type, at_ms, author.user_id, author.name, post.payload)
        return self._stream.record(event, lane, (PendingReply(ticket, Outcome.ACCEPTED, key),), now)

    def _refused(self, ticket: T, author: Author, lane: Lane, now: float) -> Sequence[Effect[T]]:
        """Return the answer to a message of lanes 0 to 2 that the room cannot take in now; empty if it can."""
        rule = STAGE_RULES[self.stage]
        if lane not in rule.admits:
            return (Reply(ticket, Outcome.LIMITED, _retry_ms(rule.join_retry_after_s)),)
        if self._policy.exempt_app and author.role is Role.APP:
            self._admission.admit(lane, now)
        elif not self._admission.try_admit(lane, now):
            return (Reply(ticket, Outcome.LIMITED, _retry_ms(self._admission.retry_after_s(now))),)
        return _NOTHING

    # ---- events of lanes 0 to 2

    def set_phase(
        self, phase: RoomPhase, user_id: str, now: float, at_ms: int, asked: Sequence[PendingReply[T]] = ()
    ) -> Sequence[Effect[T]]:
        """Pause, resume or end the room; members get an event."""
        effects: list[Effect[T]] = []
        if phase is RoomPhase.ENDED:
            effects += self.tick(now, at_ms, last=True)
        self._wanted = phase
        self._phases_under_way += 1
        event = Event(MessageType.ROOM_PHASE, at_ms, user_id, "", (int(phase),))
        self._stream.admit(Lane.CONTROL)
        then = (End(LeaveReason.ROOM_ENDED),) if phase is RoomPhase.ENDED else ()
        recorded = self._stream.record(event, Lane.CONTROL, asked, now, then)
        if not self._rules.durable:
            self._complete_phase(phase)
        return [*effects, *recorded]

    def close(self, *, comes_back: bool = False) -> None:
        """Accept nothing more: the room has ended, whatever the reason. ``comes_back``: not for good."""
        self._comes_back = comes_back
        self.phase = self._wanted = RoomPhase.ENDED
        self._stream.forget_orders()

    def _complete_phase(self, phase: RoomPhase) -> None:
        """Complete a change of phase: it is durable, or failed (``phase`` is then the present one)."""
        self._phases_under_way -= 1
        if self.phase is not RoomPhase.ENDED:
            self.phase = phase
            if not self._phases_under_way:
                self._wanted = phase

    def committed(self, record: Record[T], offset: int, now: float) -> Sequence[Effect[T]]:
        """The ledger has made a record durable at ``offset``: what follows."""
        if record.event.type == MessageType.ROOM_PHASE:
            self._complete_phase(RoomPhase(record.event.payload[0]))
        return self._stream.committed(record, offset, now)

    def repeated(
        self, record: Record[T], first: Mapping[OperationKey, StoredResult], now: float
    ) -> Sequence[Effect[T]]:
        """The ledger knew some keys of a record and has written nothing: what follows."""
        effects, left = self._stream.repeated(record, first, now)
        if record.event.type == MessageType.ROOM_PHASE:
            self._complete_phase(self.phase)
        elif left and record.event.type == MessageType.GIFT:
            payload = GiftPayload(*record.event.payload)
            gifts = [each.gift for each in left if each.gift is not None]
            payload = payload._replace(order_id=gifts[0].order_id, count=sum(gift.count for gift in gifts))
            left = (left[0]._replace(outcome=Outcome.ACCEPTED), *left[1:])
            effects += self._stream.record(record.event._replace(payload=payload), record.lane, left, now)
        return effects

    def refused(self, record: Record[T], retry_after_ms: int) -> Sequence[Effect[T]]:
        """The ledger could not make a record durable: its senders may try again after ``retry_after_ms``."""
        if record.event.type == MessageType.ROOM_PHASE:
            self._complete_phase(self.phase)
        return self._stream.refused(record, Outcome.UNAVAILABLE, retry_after_ms)

    def _release(self, released: Sequence[PaidItem[PendingReply[T]]], now: float, at_ms: int) -> list[Effect[T]]:
        effects: list[Effect[T]] = []
        for item in released:
            event = Event(MessageType.GIFT, at_ms, item.user_id, item.name, item.payload())
            asked = [
                each if each.outcome is outcome else each._replace(outcome=outcome) for each, outcome in item.outcomes()
            ]
            effects += self._stream.record(event, Lane.PAID, asked, now)
        return effects

    # ---- what outlives the process

    def totals(self, phase: RoomPhase | None = None) -> bytes:
        """Return what a checkpoint keeps beside the stream: phase (or the one it is about to have), likes, peak, the
        last announcement."""
        last = self._stream.announcement
        return pack_body((_TOTALS_VERSION, int(phase or self.phase), self._likes.total, self._presence.peak, last))

    def restore(self, last_offset: int, totals: bytes, events: Sequence[StoredEvent], now: float) -> None:
        """Continue from a checkpoint. ``events``: the newest ones, without a hole, up to ``last_offset``."""
        history = self._history
        history.last_offset = last_offset - len(events)
        try:
            version, phase, likes, peak, *more = unpack_body(totals)
            if version == _TOTALS_VERSION:
                if phase != RoomPhase.ENDED:
                    self.phase = self._wanted = RoomPhase(phase)
                self._likes.total = likes
                self._presence.peak = peak
                if more and more[0] is not None:
                    self._stream.keep(Event(*more[0]))
        except (RemoteProtocolError, TypeError, ValueError):
            pass  # no totals, or those of a later version: the room begins with what the stream says
        for each in events:
            history.append(each, EXPECTED_EVENT_BYTES, now)
            self._stream.keep(each.event)

    # ---- ticks

    def next_due(self, now: float) -> float | None:
        """When `tick` should run next: at once for the first message after a quiet interval, else an interval after
        the last; None while there is nothing to say."""
        due = inf
        if self._window.pending or self._window.shed:
            due = now if self.batch_full else self._ticked_at + self.interval_s
        paid_at = self._paid.next_release_at(now)
        if paid_at is not None:
            due = min(due, paid_at)
        if self._members:
            due = min(due, self._state_due())
        return None if due == inf else max(due, now)

    def _counters(self) -> tuple[int, ...]:
        presence = self._presence
        return (self.phase, presence.online, presence.users, presence.uniques, presence.peak, self.stage)

    def _state_due(self) -> float:
        """Return when the counters are due: likes a second, anything else two seconds after the last time."""
        due = self._likes.due_at
        # The joins first: in a wave there is always one, and the counters need not be compared.
        if self._presence.joins_due_at < inf or self._counters() != self._published:
            due = min(
                due, max(self._stated_at + STATE_EVERY_S, self._presence.joins_due_at if self._published else -inf)
            )
        return due + STAGE_RULES[self.stage].state_spare_s

    def tick(self, now: float, at_ms: int, *, last: bool = False) -> list[Effect[T]]:
        """Close the window and say what is due. ``last``: say everything, the room ends."""
        effects = self._release(self._paid.flush() if last else self._paid.release(now), now, at_ms)
        state = self._state_if_due(now, at_ms, last)
        ticks: tuple[Tick, ...] = ()
        if self._window.pending or self._window.shed:
            window = self._window.close(now, STAGE_RULES[self.stage].chat_budget_share)
            self._ticked_at = now
            self._tick_number += 1
            ticks = self._ticks(window.per_tier, at_ms)
            if window.outcomes:
                effects.append(Outcomes(window.outcomes))
        if ticks or state is not None:
            effects.append(TickOut(self._tick_number, ticks, state, self._state_number))
        return effects

    def _ticks(self, cuts: Mapping[int, TierCut], at_ms: int) -> tuple[Tick, ...]:
        full = cuts[Tier.FULL]
        self._count_chat(full.account)
        entries = {id(item): tick_entry(item) for item in full.entries}
        self._recent.extend(entries.values())
        interval_ms = round(self.interval_s * 1000)
        made: dict[int, Tick] = {}
        for cut in cuts.values():
            if id(cut) not in made:
                shown = tuple(entries.values() if cut is full else [entries[id(item)] for item in cut.entries])
                made[id(cut)] = Tick(at_ms, interval_ms, self.stage, shown, cut.account)
        return tuple(made[id(cuts[tier])] for tier in (Tier.FULL, Tier.MEDIUM, Tier.LOW))

    def _count_chat(self, cut: Account) -> None:
        account = self._accounts[Lane.CHAT]
        account.admitted += cut.admitted
        account.shown += cut.shown
        account.merged += cut.merged
        account.sampled += cut.sampled
        account.expired += cut.expired

    def _state_if_due(self, now: float, at_ms: int, last: bool) -> State | None:
        if not last and now < self._state_due():
            return None
        account = self._accounts[Lane.AMBIENT]
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
        self._state_number += 1
        return self.counters(at_ms, liked.top if liked else (), tuple(named), more)

    # ---- what it says of itself

    def counters_for_one(self, at_ms: int) -> tuple[State, int]:
        """The counters as they stand, with a number of their own: newer than all that this viewer may have heard."""
        self._state_number += 1
        return self.counters(at_ms), self._state_number

    def counters(
        self,
        at_ms: int,
        top_likers: tuple[tuple[str, int], ...] = (),
        joins: tuple[tuple[str, str], ...] = (),
        joins_more: int = 0,
    ) -> State:
        """The counters as they stand, for a tick or for one viewer that has missed some."""
        presence = self._presence
        return State(
            at_ms, self.phase, self.stage, round(self.interval_s * 1000),
            presence.online, presence.users, presence.uniques, presence.peak,
            self._likes.total, top_likers, joins, joins_more, self.accounts(),
        )  # fmt: skip

    def accounts(self) -> tuple[Account, ...]:
        """The five lanes' accounts now, lane 0 first, the open window included; each one balances."""
        totals = list(self._accounts.as_tuples())
        held, shed = self._window.pending, self._window.shed
        chat = totals[Lane.CHAT]
        totals[Lane.CHAT] = chat._replace(
            admitted=chat.admitted + held + shed, sampled=chat.sampled + shed, held=chat.held + held
        )
        return tuple(totals)

    @property
    def is_unused(self) -> bool:
        """Whether nothing was ever posted here; that users came in does not count."""
        was_posted = any(lane.admitted for lane in self.accounts()[: Lane.AMBIENT])
        return not (self.last_offset or self._likes.total or was_posted)

    def counts(self) -> tuple[PresenceCounts, int]:
        """Return who is in the room, and the sum of likes."""
        return self._presence.counts(), self._likes.total

    def snapshot(self, name: str, role: Role, tier: Tier) -> Joined:
        """Return the answer to a JOIN: the room called ``name`` as it is now, for a member with a role and a tier."""
        presence = self._presence
        return Joined(
            name, self.epoch, self._history.last_offset, role, self.phase, tier, round(self.interval_s * 1000),
            presence.online, presence.users, presence.uniques, presence.peak, self._likes.total,
            *self._recent.snapshot(self._stream.announcement_bytes), self._stream.announcement,
        )  # fmt: skip

    def event_counters(self) -> dict[str, int]:
        """Return what the room has counted beside its accounts: the keys are those of ``broker.telemetry.metrics``."""
        return {
            "duplicates": self._duplicates.refused,
            "duplicate_marks_lost": self._duplicates.forgotten,
            "quota_admitted": sum(self._admission.admitted),
            "quota_refused": sum(self._admission.refused),
            "limiter_full": self._limits.full_refusals,
            "keys_lost": self._stream.keys_lost,
            "likes_unranked": self._likes.unranked,
        }

    def pulse(self, number: int) -> RoomPulse:
        """Return what a PONG says of the room with this number."""
        return RoomPulse(number, self._presence.online, round(self.interval_s * 1000))

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
        batch = self._policy.batch_max
        return batch > 0 and self._window.pending >= batch

    @property
    def pending_bytes(self) -> int:
        """Memory that waits in this room besides its history."""
        return self._window.pending_bytes

    def sweep(self, now: float) -> None:
        """Forget limiter keys that no longer matter; cheap, call it now and then."""
        self._limits.sweep(now)


def _retry_ms(wait_s: float) -> int:
    return max(1, ceil(wait_s * 1000))
