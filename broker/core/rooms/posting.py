"""What becomes of a POST: the limits, the admission and the queues that decide it, for every message type.

Danmaku and emotes go into the window of the next tick, likes into a counter, everything else into the stream of events
(gifts as combos). What is refused is answered at once, with the reason.

This is the path that takes 200,000 messages a second: a decision is one method call, and an answer one tuple.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, inf
from random import Random
from typing import Any, Generic, Protocol, TypeVar

from broker.core.chat.coalesce import Coalescer, Offer, PendingDanmaku, Window
from broker.core.chat.duplicates import DuplicateFilter
from broker.core.chat.fold import fold
from broker.core.commerce.activity import ReleasedPost
from broker.core.commerce.gifts import ComboPacer, GiftEvent, GiftOrder
from broker.core.commerce.highlights import HeldHighlight, Highlights
from broker.core.commerce.room_rankings import GIFTS, RoomRankings
from broker.core.limits.overload import STAGE_RULES, OverloadStage
from broker.core.limits.post_limits import PostLimits
from broker.core.moderation.sanctions import RoomSanctions
from broker.core.rooms.accounts import RoomAccounts
from broker.core.rooms.audience import for_marketing
from broker.core.rooms.deletions import deletion_of
from broker.core.rooms.effects import Effect, Hold, PendingReply, Record, RefusePost, Reply
from broker.core.rooms.idempotency import OperationKey, order_key, post_key
from broker.core.rooms.likes import LikeCounter
from broker.core.rooms.phases import RoomPhases
from broker.core.rooms.pins import RoomPins, pins_event
from broker.core.rooms.policies import OverQuota, Policy
from broker.core.rooms.post_guard import PostGuard
from broker.core.rooms.post_screening import PostScreening, ScreenedPost
from broker.core.rooms.rules import Author, RoomRules
from broker.core.rooms.stream import BUSY_RETRY_MS, StoredEvent, Stream
from broker.core.rooms.types import CustomRule
from protocol.activities.audiences import Audience
from protocol.activities.reviews import HeldBy, ReviewFinding
from protocol.codes import CUSTOM_TYPE_MIN, MESSAGE_TYPES, ErrorCode, Lane, MessageType, Outcome, Role, RoomPhase
from protocol.fields import MAX_INT
from protocol.messages import Event, Post
from protocol.payloads import GiftPayload, HighlightPayload

__all__ = ["PhaseSetter", "Posting"]

T = TypeVar("T")

# Looking an Enum member up is a call on Python 3.11 (0.2 us), and a flood passes here 200,000 times a second.
_DANMAKU, _CHAT, _LIVE, _MODERATOR = MessageType.DANMAKU, Lane.CHAT, RoomPhase.LIVE, Role.MODERATOR
_APP, _GUEST = Role.APP, Role.GUEST
_DROP_NEWEST, _COMMERCE_ONLY, _SHED = OverQuota.DROP_NEWEST, OverloadStage.COMMERCE_ONLY, Offer.SHED
_NOTHING: tuple[Effect[Any], ...] = ()
_ACCEPTED, _PAID, _GIFT = Outcome.ACCEPTED, Lane.PAID, MessageType.GIFT
_ADDRESSABLE = frozenset({MessageType.ANNOUNCEMENT, MessageType.MEDIA})
"""Built-in types of messages that may be for a part of the room."""
_HOLDABLE = frozenset({MessageType.DANMAKU, MessageType.EMOTE, MessageType.ANNOUNCEMENT, MessageType.MEDIA})
"""Built-in types of messages that may wait for a reviewer: what people say. Orders are paid for, likes say nothing."""


class PhaseSetter(Protocol[T]):
    """Changes the phase of the room for a POST."""

    def __call__(
        self, phase: RoomPhase, user_id: str, now: float, at_ms: int, asked: Sequence[PendingReply[T]]
    ) -> Sequence[Effect[T]]:
        """Return the effects of the change."""
        ...


class Posting(Generic[T]):
    """Decisions about the POSTs of one room. ``set_phase``: changes its phase."""

    def __init__(
        self,
        rules: RoomRules,
        rng: Random,
        name: str,
        stream: Stream[T],
        accounts: RoomAccounts,
        likes: LikeCounter,
        rankings: RoomRankings,
        phases: RoomPhases,
        pins: RoomPins,
        set_phase: PhaseSetter[T],
        sanctions: RoomSanctions,
    ) -> None:
        policy = rules.policy
        self._rules = rules
        self._name = name
        self._stream = stream
        self._accounts = accounts
        self._likes = likes
        self._rankings = rankings
        self._phases = phases
        self._pins = pins
        self._set_phase = set_phase
        self.guard: PostGuard[T] = PostGuard(sanctions)
        """Who may post."""
        self._mutes = sanctions.mutes
        self._policy = policy
        self.stage = OverloadStage.NORMAL
        """Overload stage in force."""
        self.admission = policy.admission()
        self.limits = PostLimits(
            policy.user_chat, policy.user_likes, policy.staff_posts, policy.app_posts,
        )  # fmt: skip
        self._pre_review = policy.pre_review
        self._unique = policy.duplicate_window_s > 0
        self.duplicates = DuplicateFilter(policy.duplicate_window_s)
        self._folds = policy.merge or self._unique
        self.window: Coalescer[T] = policy.coalescer(rng)
        """Danmaku of the next tick."""
        self.gifts: ComboPacer[PendingReply[T]] = ComboPacer(policy.paid_budget_per_s)
        """Combos of gifts that run."""
        self.highlights = Highlights(policy.highlight_tiers)
        """Paid messages that are shown."""
        self.screening: PostScreening[T] = PostScreening(rules.screens, name)
        """What its posts are screened for."""
        self._posts: dict[int, Callable[[T, Author, Post, float, int], Sequence[Effect[T]]]] = {
            MessageType.DANMAKU: self._danmaku,
            MessageType.EMOTE: self._danmaku,
            MessageType.LIKE: self._like,
            MessageType.ANNOUNCEMENT: self._event,
            MessageType.GIFT: self._gift,
            MessageType.HIGHLIGHT: self._highlight,
            MessageType.MEDIA: self._event,
            MessageType.MESSAGES_DELETED: self._delete,
            MessageType.PINS_CHANGED: self._pin,
            MessageType.ROOM_PHASE: self._phase,
        }
        self.use_types()

    def post(self, ticket: T, author: Author, post: Post, now: float, at_ms: int) -> Sequence[Effect[T]]:
        """Decide what one POST becomes. Its ticket is answered exactly once: by these effects or by a later tick's."""
        kind = post.type
        if kind >= CUSTOM_TYPE_MIN or kind not in author.may_post:
            code = self._rules.types.refusal(kind, post.payload, author.may_post)
            if code is not None:
                return (Reply(ticket, Outcome.REJECTED, code),)
        if self._phases.wanted is not _LIVE:
            refused = self._refused_by_phase(ticket, author.role)
            if refused:
                return refused
        if self._mutes or self.guard.restricts:
            refused = self._refused_by_guard(ticket, author, post, now)
            if refused:
                return refused
        if self._pre_review and author.role < _MODERATOR and self.may_hold(kind):
            return self.hold(ticket, author, post, now, HeldBy.ROOM)
        return self._posts[kind](ticket, author, post, now, at_ms)

    def may_hold(self, kind: int) -> bool:
        """Return whether messages of a type may wait for a reviewer: what people say, and the deployment's own
        types."""
        return kind in _HOLDABLE or kind in self._rules.types.custom

    def hold(
        self,
        ticket: T,
        author: Author,
        post: Post,
        now: float,
        held_by: HeldBy,
        reason: str = "",
        findings: tuple[ReviewFinding, ...] = (),
    ) -> Sequence[Effect[T]]:
        """Put a POST of a type of `may_hold` into the review queue, at the rate at which its author may post."""
        kind, role = post.type, author.role
        refused = self._refused_by_phase(ticket, role)
        if not refused and (self._mutes or self.guard.restricts):
            refused = self._refused_by_guard(ticket, author, post, now)
        if refused:
            return refused
        rule = self._rules.types.custom.get(kind)
        if rule is not None:
            limit = self.limits.of_custom(kind, role)
        else:
            limit = self.limits.of_staff(role) if role >= _MODERATOR else self.limits.chat
        wait_s = limit.try_acquire(author.user_id, now)
        if wait_s:
            return (Reply(ticket, Outcome.LIMITED, retry_ms(wait_s)),)
        lane = MESSAGE_TYPES[MessageType(kind)].lane if rule is None else rule.lane
        if self.guard.restricts and lane is _CHAT:
            self.guard.took(post, author, now)
        refused, found = self.screening.before_review(ticket, author, post)
        return refused or (Hold(ticket, author, post, lane, held_by, reason, findings or found),)

    def show(self, post: ReleasedPost, ticket: T, now: float) -> None:
        """Put a danmaku, emote or message of lane 3 that was held into the window of the next tick: every tier shows
        it."""
        user, name, role, kind, _, payload = post
        if kind in (_DANMAKU, MessageType.EMOTE):
            text, *style = payload
            folded = fold(text) if self._folds else None
            shown = tuple(style[0]) if kind == _DANMAKU and style and style[0] is not None else None
            item = PendingDanmaku(kind, user, name, text, shown, None, now, folded, role)
        else:
            item = PendingDanmaku(kind, user, name, repr(payload), extra=payload, at=now, role=role)
        self.screening.approve(item)
        if self.window.takes_always:
            self.window.offer_always(item, ticket, now)
        else:
            self.window.offer(item, ticket, now)

    def _danmaku(self, ticket: T, author: Author, post: Post, now: float, at_ms: int) -> Sequence[Effect[T]]:
        user_id = author.user_id
        kind, _, payload, _ = post
        text = payload[0]
        folded = fold(text) if self._folds else None
        is_staff = author.role >= _MODERATOR
        limit = self.limits.of_staff(author.role) if is_staff else self.limits.chat
        wait_s = limit.try_acquire(user_id, now)
        if wait_s:
            return (Reply(ticket, Outcome.LIMITED, retry_ms(wait_s)),)
        is_unique, key = self._unique and not is_staff, 0
        if is_unique:
            key = hash((user_id, folded))
            if self.duplicates.is_duplicate(key, now):
                return (Reply(ticket, Outcome.REJECTED, ErrorCode.DUPLICATE_TEXT),)
        style = payload[1] if kind == _DANMAKU else None
        item = PendingDanmaku(kind, user_id, author.name, text, style, None, now, folded, author.role)
        effects = self._offer(ticket, item, now)
        if is_unique and not effects:
            self.duplicates.mark(key, now)
        if not effects and self.guard.restricts:
            self.guard.took(post, author, now)
        return effects

    def refusal_of(self, ticket: T, author: Author, post: Post, now: float) -> RefusePost[T] | None:
        """Return the answer to a post that a mute or a mode of the room refuses; nothing is counted."""
        guard = self.guard
        refusal = guard.mute_of(ticket, author)
        if refusal is None and guard.restricts and self._lane_of(post.type) is _CHAT:
            refusal = guard.refusal_by_mode(ticket, author, post, now)
        return refusal

    def _refused_by_guard(self, ticket: T, author: Author, post: Post, now: float) -> Sequence[Effect[T]]:
        """Return the answer to a post that is refused, or to one of a shadow-muted user; else empty. Its danmaku and
        messages of the deployment's own types are judged as any other, and then shown to nobody else (`_offer`,
        `_publish`)."""
        refusal = self.refusal_of(ticket, author, post, now)
        if refusal is not None:
            return (refusal,)
        guard = self.guard
        if not guard.mutes or not guard.is_shadowed(author.user_id, author.role):
            return _NOTHING
        if post.type >= CUSTOM_TYPE_MIN or self._lane_of(post.type) is _CHAT:
            return _NOTHING
        guard.count_shadowed()
        if post.type == MessageType.LIKE:
            counted = self.limits.likes.take(author.user_id, now, post.payload[0])
            if counted:
                return (Reply(ticket, Outcome.ACCEPTED, counted),)
            return (Reply(ticket, Outcome.LIMITED, retry_ms(self.limits.likes.try_acquire(author.user_id, now))),)
        return (Reply(ticket, Outcome.ACCEPTED, self._stream.history.last_offset),)

    def _lane_of(self, kind: int) -> Lane:
        rule = self._rules.types.custom.get(kind)
        return MESSAGE_TYPES[kind].lane if rule is None else rule.lane

    def _shadow(self, ticket: T, item: PendingDanmaku, outcome: Outcome = Outcome.ACCEPTED) -> Sequence[Effect[T]]:
        """Show a danmaku to its sender alone; the effects are empty where it was taken in."""
        return _NOTHING if self.guard.shadow(ticket, item, outcome) else (Reply(ticket, Outcome.SAMPLED_OUT),)

    def _offer(self, ticket: T, item: PendingDanmaku, now: float) -> Sequence[Effect[T]]:
        """Offer a danmaku to the window; the effects are empty where it was taken in. Those of the room's staff are
        never sampled out."""
        over_quota = not self.admission.try_admit(_CHAT, now)
        if over_quota and self._policy.over_quota is _DROP_NEWEST:
            return (Reply(ticket, Outcome.LIMITED, retry_ms(self.admission.retry_after_s(now))),)
        if self._mutes and self.guard.is_shadowed(item.user_id, item.role):
            refused, outcome = self.screening.shadowed(ticket, item)
            return refused or self._shadow(ticket, item, outcome)
        if _MODERATOR <= item.role < _APP:
            if not self.window.takes_always:
                return (Reply(ticket, Outcome.LIMITED, BUSY_RETRY_MS),)
            self.window.offer_always(item, ticket, now)
            return _NOTHING
        if self.stage >= _COMMERCE_ONLY:
            account = self._accounts[Lane.CHAT]
            account.admitted += 1
            account.sampled += 1
            return (Reply(ticket, Outcome.SAMPLED_OUT),)
        if self.window.offer(item, ticket, now, over_quota) is _SHED:
            return (Reply(ticket, Outcome.SAMPLED_OUT),)
        return _NOTHING

    def _like(self, ticket: T, author: Author, post: Post, now: float, at_ms: int) -> Sequence[Effect[T]]:
        counted = self.limits.likes.take(author.user_id, now, post.payload[0])
        if not counted:
            wait_s = self.limits.likes.try_acquire(author.user_id, now)
            return (Reply(ticket, Outcome.LIMITED, retry_ms(wait_s)),)
        self._likes.add(author.user_id, counted, now)
        if author.role is not _GUEST:
            self._rankings.liked(author.user_id, counted)
        account = self._accounts[Lane.AMBIENT]
        account.admitted += 1
        account.held += 1
        return (Reply(ticket, Outcome.ACCEPTED, counted),)

    def post_to(
        self, audience: Audience, ticket: T, author: Author, post: Post, now: float, at_ms: int
    ) -> Sequence[Effect[T]]:
        """Decide what a POST for a part of the room becomes: an event of a type of `takes_audience`."""
        if post.type not in author.may_post:
            return (Reply(ticket, Outcome.REJECTED, ErrorCode.NOT_ALLOWED),)
        refused = self._refused_by_phase(ticket, author.role)
        if refused:
            return refused
        rule = self._rules.types.custom.get(post.type)
        if rule is None:
            return self._event(ticket, author, post, now, at_ms, audience)
        return self._custom_event(ticket, author, post, rule, now, at_ms, audience)

    def takes_audience(self, kind: int) -> bool:
        """Return whether messages of a type may be for a part of the room: announcements, media, and the deployment's
        own types of lanes 0 to 2."""
        rule = self._rules.types.custom.get(kind)
        return kind in _ADDRESSABLE if rule is None else rule.lane < _CHAT

    def _refused_by_phase(self, ticket: T, role: Role) -> Sequence[Effect[T]]:
        """Return the answer to a post that the phase of the room refuses; empty if it takes it."""
        if self._phases.wanted is RoomPhase.ENDED:
            if self._phases.comes_back:
                return (Reply(ticket, Outcome.LIMITED, BUSY_RETRY_MS),)
            return (Reply(ticket, Outcome.REJECTED, ErrorCode.ROOM_ENDED),)
        if self._phases.wanted is not _LIVE and role < Role.MODERATOR:
            return (Reply(ticket, Outcome.REJECTED, ErrorCode.ROOM_PAUSED),)
        return _NOTHING

    def _event(
        self, ticket: T, author: Author, post: Post, now: float, at_ms: int, audience: Audience | None = None
    ) -> Sequence[Effect[T]]:
        key = post_key(author.user_id, post, audience)
        answer = self._answer_to_staff(ticket, author, key, now)
        lane = MESSAGE_TYPES[post.type].lane
        return self._publish(ticket, author, post, key, lane, now, at_ms, audience) if answer is None else answer

    def _answer_to_staff(
        self, ticket: T, author: Author, key: OperationKey | None, now: float
    ) -> Sequence[Effect[T]] | None:
        """Return the answer to a repeated key or above the limit of staff; None: the post goes on."""
        known = self._stream.known(key, ticket, now)
        if known is not None:
            return known
        wait_s = self.limits.of_staff(author.role).try_acquire(author.user_id, now)
        return (Reply(ticket, Outcome.LIMITED, retry_ms(wait_s)),) if wait_s else None

    def _phase(self, ticket: T, author: Author, post: Post, now: float, at_ms: int) -> Sequence[Effect[T]]:
        key = post_key(author.user_id, post)
        answer = self._answer_to_staff(ticket, author, key, now)
        if answer is not None:
            return answer
        self._stream.begin(key)
        asked = (PendingReply(ticket, Outcome.ACCEPTED, key),)
        return self._set_phase(RoomPhase(post.payload[0]), author.user_id, now, at_ms, asked)

    def _delete(self, ticket: T, author: Author, post: Post, now: float, at_ms: int) -> Sequence[Effect[T]]:
        key = post_key(author.user_id, post)
        answer = self._answer_to_staff(ticket, author, key, now)
        if answer is None:
            self._pins.begin_deletion()
            answer = self._publish(ticket, author, post, key, Lane.COMMERCE, now, at_ms)
        return answer

    def _pin(self, ticket: T, author: Author, post: Post, now: float, at_ms: int) -> Sequence[Effect[T]]:
        """Change the pinned messages. The payload is a `PinChange`: the broker makes such posts for operations."""
        key = post_key(author.user_id, post)
        answer = self._answer_to_staff(ticket, author, key, now)
        if answer is not None:
            return answer
        if self._pins.is_busy:
            return (Reply(ticket, Outcome.LIMITED, BUSY_RETRY_MS),)
        pinned = self._pins.changed(post.payload)
        if pinned is None:
            return (Reply(ticket, Outcome.REJECTED, ErrorCode.OUT_OF_STATE),)
        self._stream.begin(key)
        asked = (PendingReply(ticket, Outcome.ACCEPTED, key),)
        return self._set_pins(pins_event(pinned, author.user_id, author.name, at_ms), asked, now)

    def use_types(self) -> None:
        """Take the deployment's own types as the rules have them now."""
        custom = self._rules.types.custom
        self._posts = {kind: post for kind, post in self._posts.items() if kind < CUSTOM_TYPE_MIN}
        self._posts |= dict.fromkeys(custom, self._custom)
        self.limits.use_custom((rule.type, rule.lane, rule.rate) for rule in custom.values())

    def use_policy(self, policy: Policy) -> None:
        """Apply other limits from now on, to the open window of danmaku from its end."""
        before, self._policy = self._policy, policy
        if policy.quota != before.quota:
            self.admission = policy.admission().continues(self.admission)
        self.limits.use_rates(policy.user_chat, policy.user_likes, policy.staff_posts, policy.app_posts)
        self._pre_review = policy.pre_review
        self._unique = policy.duplicate_window_s > 0
        self.duplicates.use_window(policy.duplicate_window_s)
        self._folds = policy.merge or self._unique
        self.window.use_rules(policy.merge, policy.budgets, policy.pick, policy.queue_max)
        self.gifts.use_rate(policy.paid_budget_per_s)
        self.highlights.use_tiers(policy.highlight_tiers)

    def unpin_expired(self, now: float, now_ms: int | None, at_ms: int) -> Sequence[Effect[T]]:
        """Unpin the messages whose time has passed, see `RoomState.expire`."""
        if self._phases.wanted is RoomPhase.ENDED:
            self._pins.due_at = inf
            return ()
        left = self._pins.expired(now, now_ms)
        return () if left is None else self._set_pins(pins_event(left, "", "", at_ms), (), now)

    def _set_pins(self, event: Event, asked: tuple[PendingReply[T], ...], now: float) -> Sequence[Effect[T]]:
        self._pins.begin()
        self._stream.admit(Lane.COMMERCE)
        return self._stream.record(event, Lane.COMMERCE, asked, now)

    def _gift(self, ticket: T, author: Author, post: Post, now: float, at_ms: int) -> Sequence[Effect[T]]:
        posted = post.payload
        gift = posted if type(posted) is GiftPayload else GiftPayload(*posted)
        order = GiftOrder.of(gift)
        key = order_key(order, self._name)
        known = self._stream.known(key, ticket, now)
        if known is not None:
            return known
        refused = self._refused_order(ticket, order) or self._refused(ticket, author, _PAID, now)
        if refused:
            return refused
        shown = self._screened(ticket, author, post, _PAID).payload
        if shown is not posted:
            gift = GiftPayload(*shown)
        self._stream.begin(key, order.cents)
        self._stream.admit(_PAID)
        asked = PendingReply(ticket, _ACCEPTED, key, order)
        return self.release(self.gifts.offer(gift, asked, now, at_ms), now, at_ms)

    def _highlight(self, ticket: T, author: Author, post: Post, now: float, at_ms: int) -> Sequence[Effect[T]]:
        posted = HighlightPayload(*post.payload)
        order = GiftOrder.of_highlight(posted)
        key = order_key(order, self._name, posted.text)
        known = self._stream.known(key, ticket, now)
        if known is not None:
            return known
        if not self.highlights.tier_of(posted.cents) or posted.tier or posted.until_ms or posted.displaced:
            return (Reply(ticket, Outcome.REJECTED, ErrorCode.BAD_FIELD),)
        refused = self._refused_order(ticket, order)
        screened = self._screened(ticket, author, post, Lane.PAID)
        refused = refused or screened.refusal or self._refused(ticket, author, Lane.PAID, now)
        if refused:
            return refused
        posted = HighlightPayload(*screened.payload)
        plan = self.highlights.begin(posted.cents, at_ms)
        if plan is None:
            return (Reply(ticket, Outcome.LIMITED, BUSY_RETRY_MS),)
        self._stream.begin(key, order.cents)
        self._stream.admit(Lane.PAID)
        payload = posted._replace(tier=plan.tier, until_ms=plan.until_ms, displaced=plan.displaced)
        event = Event(MessageType.HIGHLIGHT, at_ms, posted.user_id, posted.name, payload)
        asked = PendingReply(ticket, screened.outcome, key, order)
        return (*self._stream.record(event, Lane.PAID, (asked,), now, left=plan.left), *screened.reports)

    def _refused_order(self, ticket: T, order: GiftOrder) -> Sequence[Effect[T]]:
        """Return the answer to an order with which the sum of the room, orders under way included, would be no integer
        of JSON."""
        if order.cents <= MAX_INT - self._rankings[GIFTS].total - self._stream.open_cents:
            return _NOTHING
        return (Reply(ticket, Outcome.REJECTED, ErrorCode.BAD_FIELD),)

    def _custom(self, ticket: T, author: Author, post: Post, now: float, at_ms: int) -> Sequence[Effect[T]]:
        rule = self._rules.types.custom[post.type]
        if rule.lane is Lane.CHAT:
            wait_s = self.limits.of_custom(post.type, author.role).try_acquire(author.user_id, now)
            if wait_s:
                return (Reply(ticket, Outcome.LIMITED, retry_ms(wait_s)),)
            item = PendingDanmaku(
                post.type, author.user_id, author.name, repr(post.payload), extra=post.payload, at=now, role=author.role
            )
            effects = self._offer(ticket, item, now)
            if not effects and self.guard.restricts:
                self.guard.took(post, author, now)
            return effects
        return self._custom_event(ticket, author, post, rule, now, at_ms)

    def _custom_event(
        self,
        ticket: T,
        author: Author,
        post: Post,
        rule: CustomRule,
        now: float,
        at_ms: int,
        audience: Audience | None = None,
    ) -> Sequence[Effect[T]]:
        """Decide a message of a type of the deployment's own in lanes 0 to 2."""
        if rule.marketing:
            audience = for_marketing(audience)
        key = post_key(author.user_id, post, audience)
        known = self._stream.known(key, ticket, now)
        if known is not None:
            return known
        wait_s = self.limits.of_custom(rule.type, author.role).try_acquire(author.user_id, now)
        if wait_s:
            return (Reply(ticket, Outcome.LIMITED, retry_ms(wait_s)),)
        return self._publish(ticket, author, post, key, rule.lane, now, at_ms, audience, takes_quota=True)

    def _publish(
        self,
        ticket: T,
        author: Author,
        post: Post,
        key: OperationKey | None,
        lane: Lane,
        now: float,
        at_ms: int,
        audience: Audience | None = None,
        *,
        takes_quota: bool = False,
    ) -> Sequence[Effect[T]]:
        """Put a posted event, whose key is not known yet, on its way into the stream. ``takes_quota``: if what it is
        screened for, and then the quota of the room, let it pass."""
        screened = self._screened(ticket, author, post, lane)
        refused = screened.refusal or (self._refused(ticket, author, lane, now) if takes_quota else _NOTHING)
        if refused:
            return refused
        if screened.is_shadowed or (
            takes_quota and self._mutes and self.guard.is_shadowed(author.user_id, author.role)
        ):
            self.guard.count_shadowed()
            return (*self._stream.accept_unseen(key, ticket, screened.outcome, now), *screened.reports)
        self._stream.begin(key)
        self._stream.admit(lane)
        event = Event(post.type, at_ms, author.user_id, author.name, screened.payload)
        asked = (PendingReply(ticket, screened.outcome, key),)
        return (*self._stream.record(event, lane, asked, now, audience=audience), *screened.reports)

    def _refused(self, ticket: T, author: Author, lane: Lane, now: float) -> Sequence[Effect[T]]:
        """Return the answer to a message of lanes 0 to 2 that the room cannot take in now; empty if it can."""
        rule = STAGE_RULES[self.stage]
        if lane not in rule.admits:
            return (Reply(ticket, Outcome.LIMITED, retry_ms(rule.join_retry_after_s)),)
        if self._policy.exempt_app and author.role is Role.APP:
            self.admission.admit(lane, now)
        elif not self.admission.try_admit(lane, now):
            return (Reply(ticket, Outcome.LIMITED, retry_ms(self.admission.retry_after_s(now))),)
        return _NOTHING

    def close_window(self, now: float, scale: float) -> tuple[Window[T], Sequence[Effect[T]]]:
        """Close the window of danmaku (`Coalescer.close`), and return also what follows from what they were screened
        for."""
        window = self.window.close(now, scale, self.screening.item if self.screening.is_on else None)
        return window, self.screening.closed(window.withheld, self._shadow)

    def _screened(self, ticket: T, author: Author, post: Post, lane: Lane) -> ScreenedPost[T]:
        if self._rules.types.is_opaque(post.type):
            return ScreenedPost(post.payload)
        return self.screening.event(ticket, author, post, lane)

    def release(self, released: Sequence[GiftEvent[PendingReply[T]]], now: float, at_ms: int) -> list[Effect[T]]:
        """Put gift events that are due on their way into the stream."""
        effects: list[Effect[T]] = []
        for item in released:
            payload = item.payload
            event = Event(_GIFT, at_ms, payload.user_id, payload.name, payload)
            asked: Sequence[PendingReply[T]] = item.tickets
            if len(asked) > 1 or (asked and asked[0].outcome is not _ACCEPTED):
                asked = [
                    each if each.outcome is outcome else each._replace(outcome=outcome)
                    for each, outcome in item.outcomes()
                ]
            effects += self._stream.record(event, _PAID, asked, now, combo=item.combo)
        return effects

    def follow(self, stored: StoredEvent, now: float) -> None:
        """Follow an event that is in the stream."""
        event = stored.event
        if event.type == _GIFT:
            self.gifts.committed(event.payload, now)
            self._rankings.gave(event.payload, stored.offset)
        elif event.type == MessageType.HIGHLIGHT:
            held = HeldHighlight.of(event.payload, stored.offset, event.at_ms)
            self.highlights.committed(held, event.payload.displaced)
            self._rankings.gave(event.payload, stored.offset)
        elif event.type == MessageType.MESSAGES_DELETED:
            deletion = deletion_of(event)
            if deletion is not None:
                self.highlights.hide(deletion.covers)

    def withdrawn(self, record: Record[T], left: Sequence[PendingReply[T]], now: float) -> list[Effect[T]]:
        """A paid event was not written; ``left``: orders of gifts that are still to be shown, which are shown again."""
        if record.event.type == MessageType.HIGHLIGHT:
            self.highlights.withdrawn()
            return []
        orders = [(each.gift, each) for each in left if each.gift is not None]
        return self.release(self.gifts.withdrawn(record.event.payload, orders, now), now, record.event.at_ms)


def retry_ms(wait_s: float) -> int:
    """Return a wait as the milliseconds of an answer, at least 1."""
    return max(1, ceil(wait_s * 1000))
