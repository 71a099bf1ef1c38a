"""The kinds of activities that rooms have."""

from __future__ import annotations

from collections.abc import Callable

from broker.core.commerce.audiences import Audiences
from broker.core.commerce.countdowns import Countdown
from broker.core.commerce.coupons import CouponPool
from broker.core.commerce.lottery import Lottery
from broker.core.commerce.mic import Mic
from broker.core.commerce.orders import SHOWN_EVERY_MS, RoomOrders
from broker.core.commerce.packet import RedPacket
from broker.core.commerce.pk import Pk
from broker.core.commerce.polls import Poll
from broker.core.commerce.products import ProductList
from broker.core.commerce.quizzes import Quiz
from broker.core.commerce.rain import Rain
from broker.core.commerce.room_activities import ActivityKind
from broker.core.commerce.sale import Sale
from broker.core.commerce.schedules import Job
from broker.core.moderation.review import ReviewQueue
from broker.core.moderation.review_commands import DEFAULT_LIMITS, ReviewLimits

__all__ = ["activity_kinds"]


def activity_kinds(random_bytes: Callable[[], bytes], held: ReviewLimits = DEFAULT_LIMITS) -> dict[str, ActivityKind]:
    """Return all kinds by name. ``random_bytes``: returns 32 unguessable bytes, the seed of an activity; ``held``: how
    many messages a room holds for review."""
    kinds: tuple[ActivityKind, ...] = (
        ActivityKind(Audiences.kind, Audiences, limit=1, shown=1, follows_users=True),
        ActivityKind("sales", lambda id: Sale(id, random_bytes), limit=20, shown=5),
        ActivityKind("packets", lambda id: RedPacket(id, random_bytes), limit=100, shown=5),
        ActivityKind("coupons", lambda id: CouponPool(id, random_bytes), limit=20, shown=5),
        ActivityKind("rains", lambda id: Rain(id, random_bytes), limit=10, shown=5),
        ActivityKind("lotteries", lambda id: Lottery(id, random_bytes), limit=10, shown=2),
        ActivityKind("mic", Mic, limit=1, shown=1, follows_users=True),
        ActivityKind(Pk.kind, Pk, limit=1, shown=1),
        ActivityKind("schedules", Job, limit=100, shown=0),
        ActivityKind("countdowns", Countdown, limit=20, shown=10),
        ActivityKind(ProductList.kind, ProductList, limit=1, shown=1),
        ActivityKind(RoomOrders.kind, RoomOrders, limit=1, shown=0, counter_every_ms=SHOWN_EVERY_MS),
        ActivityKind(Poll.kind, Poll, limit=20, shown=2),
        ActivityKind(Quiz.kind, Quiz, limit=10, shown=2),
        ActivityKind(ReviewQueue.kind, lambda id: ReviewQueue(id, held), limit=1, shown=0),
    )
    return {kind.name: kind for kind in kinds}
