"""Policies: every number that decides what a room takes in and shows, as one frozen record, selected by name.

``roomcast`` is the default. Four others do what four live services publish about theirs, so that they can be compared
the rules on the same input and the same machine; ``off`` has no rules at all and is the baseline of benches. What a
service does not publish is off where it would change what is lost (limits per user, duplicates, merging, budgets), and
as in ``roomcast`` where it would not (ticks, compression, bounds). Unlike the originals, every loss is reported to its
sender and counted, whatever the policy.

Where the figures come from:

- Tencent Cloud Chat: "Use Limits" (doc 1047/34381): 40 messages a second and group, every group type. "Audio-Video
  Group" FAQ (doc 1047/38173): what is above 40/s is lost.
- RongCloud: "Chatroom message discard policy" (help.rongcloud.io, topic 155) and "Add low-priority message types"
  (platform-chat-api): 40 messages per 200 ms and room, 20 of them for high priority only, 20 shared; the newest are
  discarded; allowlisted messages may fill both and 20 more, 60 in all.
- NetEase IM: "聊天室重要消息投递" (doc.yunxin.163.com, messaging/guide/zI0NzQ0Nzk): a viewer receives at most 20
  ordinary messages a second, those above are discarded at random, and at most 10 of high priority.
- goim: ``internal/job/room.go`` and ``internal/job/conf/conf.go`` of Terry-Mao/goim: a room sends 20 messages at once
  or what came in 1 s; its queue holds 2 x 20, a message that finds it full is discarded.
- Twitch: "Chat & Chatbots" (dev.twitch.tv): 20 messages per 30 s and user, unique-chat mode. This one allows more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum
from functools import cache
from math import ceil
from random import Random
from typing import Any, TypeVar

from protocol.codes import Lane, Tier

from ..chat.coalesce import Coalescer, Pick
from ..commerce.highlights import DEFAULT_TIERS, HighlightTier, check_tiers
from ..limits.rate_limit import UNLIMITED, Rate
from ..limits.room_quota import EXEMPT_LANES, RESERVED_LANES, WindowAdmission

__all__ = [
    "DEFAULT_POLICY",
    "POLICIES",
    "OverQuota",
    "Pick",
    "Policy",
    "policy_from",
    "value_in_force",
    "with_overrides",
]

T = TypeVar("T")

DEFAULT_POLICY = "roomcast"


class OverQuota(Enum):
    """What becomes of a danmaku that the room's window does not admit."""

    SAMPLE = "sample"
    """It may still merge, or take the place of a heavier sender's; else it is SAMPLED_OUT."""
    DROP_NEWEST = "drop_newest"
    """It is refused (LIMITED)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules of one room. Numbers out of range: ValueError. 0 means "none" wherever a field says so."""

    name: str
    reason: str
    """Why one would choose it, in one line."""
    source: str
    """Whose figures they are."""

    admit_per_window: int = 0
    """Messages the room takes in per window; 0 = no limit."""
    window_ms: int = 200
    """RongCloud's: short enough that a refused sender hardly notices, long enough for a burst."""
    reserved: int = 0
    """Part of ``admit_per_window`` that only lanes 0-2 may use."""
    exempt_lanes: frozenset[Lane] = frozenset()
    """Lanes that the window always admits, and counts."""
    exempt_app: bool = False
    """Whether the window admits whatever the role APP posts on lanes 0 to 2, and counts it."""
    allowlist_per_window: int = 0
    """Messages per window of a room whose lanes 0-2 are on RongCloud's allowlist; 0 = there is no such thing."""
    over_quota: OverQuota = OverQuota.DROP_NEWEST

    merge: bool = False
    """Equal danmaku of a tick become one entry with a count."""
    chat_budget_per_s: int = 0
    """Danmaku that one viewer is shown a second; 0 = all."""
    tiers: bool = False
    """Whether a viewer may ask for less (10/s, 5/s)."""
    pick: Pick = Pick.OLDEST_FIRST
    """Who is shown when the budget or the queue does not suffice."""
    paid_budget_per_s: int = 0
    """Paid entries that one viewer is shown a second; more wait, they are never dropped. 0 = all at once."""

    highlight_tiers: tuple[HighlightTier, ...] = DEFAULT_TIERS
    """What a paid message costs at least, by how long it is shown."""

    tick_ms: int = 100
    """Shortest interval between two ticks; 0 = every message is a frame of its own."""
    tick_max_ms: int = 1000
    """Longest interval outside overload (goim's only one)."""
    batch_max: int = 0
    """So many waiting messages end the tick at once; 0 = only time does."""
    queue_max: int = 2000
    """Danmaku that may wait for a tick: ten times a second's quota; more displace each other (SAMPLED_OUT)."""
    compress: bool = True
    """Ticks are compressed once per room where that pays."""

    pre_review: bool = False
    """Whether every message of those who are not staff waits for a reviewer; likes and what is paid for do not."""
    review_s: float = 600.0
    """How long a message waits for a reviewer until it is decided without one; 0 = for ever."""
    approve_unreviewed: bool = False
    """Whether a message that no reviewer has decided in time is shown; else it is rejected."""
    raid_joins: int = 0
    """Users who come in within 10 s that are a raid; 0 = however many are none."""
    raid_repeats: int = 0
    """Messages within 10 s that are merged into equal ones and are a raid; 0 = however many are none."""
    raid_slow_s: int = 30
    """Seconds between two messages of a user in a raid."""
    raid_s: int = 300
    """How long that holds."""
    duplicate_window_s: float = 0.0
    """The same text of the same user is refused for so long; 0 = never."""
    user_chat: Rate = UNLIMITED
    """Danmaku of one user."""
    user_likes: Rate = UNLIMITED
    """Likes of one user that count."""
    staff_posts: Rate = UNLIMITED
    """Danmaku, announcements and phases of one user of the roles MODERATOR to HOST in a room."""
    app_posts: Rate = UNLIMITED
    """The same of one user of the role APP, and its custom messages of lanes 0 to 2; gifts do not count."""
    user_joins: Rate = UNLIMITED
    """Joins of one user, in all rooms together; returning to a room costs nothing (`JoinLimit`)."""

    def __post_init__(self) -> None:
        check_tiers(self.highlight_tiers)
        checks = {
            "admit_per_window": self.admit_per_window >= 0,
            "window_ms": self.window_ms > 0,
            "reserved": 0 <= self.reserved <= self.admit_per_window,
            "allowlist_per_window": self.allowlist_per_window == 0
            or self.allowlist_per_window >= self.admit_per_window,
            "chat_budget_per_s": self.chat_budget_per_s >= 0,
            "paid_budget_per_s": self.paid_budget_per_s >= 0,
            "tick_ms": self.tick_ms >= 0,
            "tick_max_ms": self.tick_max_ms >= self.tick_ms,
            "batch_max": 0 <= self.batch_max <= self.queue_max,
            "queue_max": self.queue_max >= 1,
            "duplicate_window_s": self.duplicate_window_s >= 0,
            "review_s": self.review_s >= 0,
            "raid_joins": self.raid_joins >= 0,
            "raid_repeats": self.raid_repeats >= 0,
            "raid_slow_s": self.raid_slow_s >= 1,
            "raid_s": self.raid_s >= 1,
        }
        for field, holds in checks.items():
            if not holds:
                raise ValueError(f"policy {self.name}: {field} = {getattr(self, field)!r} does not fit the rest")

    def admission(self, allowlisted: bool = False) -> WindowAdmission:
        """A new room's admission; ``allowlisted``: lanes 0-2 are on the allowlist, if the policy has one."""
        if not self.admit_per_window:
            return WindowAdmission.unlimited()
        more = self.allowlist_per_window - self.admit_per_window if allowlisted and self.allowlist_per_window else 0
        return WindowAdmission(
            self.admit_per_window + more,
            self.window_ms / 1000,
            self.reserved + more,
            RESERVED_LANES,
            self.exempt_lanes,
        )

    @property
    def quota(self) -> tuple[object, ...]:
        """What `admission` is made of."""
        return self.admit_per_window, self.window_ms, self.reserved, self.allowlist_per_window, self.exempt_lanes

    def coalescer(self, rng: Random) -> Coalescer[T]:
        """A new room's danmaku window."""
        return Coalescer(max_items=self.queue_max, merge=self.merge, pick=self.pick, budgets=self.budgets, rng=rng)

    @property
    def budgets(self) -> dict[int, float]:
        """Danmaku a second of each tier; 0 or absent = no limit of its own."""
        budgets: dict[int, float] = {Tier.FULL: self.chat_budget_per_s}
        if self.tiers:
            budgets |= {tier: int(tier) for tier in Tier if tier is not Tier.FULL}
        return budgets


_TABLE = (
    Policy(
        name="roomcast",
        reason="A flood stays readable, no quiet viewer is crowded out, and every loss is accounted for.",
        source="quota: RongCloud's in number; budgets: NetEase IM; limits per user: kinder than Twitch's",
        admit_per_window=40,  # 200/s, ten times what a viewer is shown: enough to choose fairly from
        reserved=8,  # a fifth: gifts come in tens a second, not in hundreds
        exempt_lanes=EXEMPT_LANES,
        exempt_app=True,  # it is paid for: paced, not refused
        over_quota=OverQuota.SAMPLE,
        merge=True,
        chat_budget_per_s=20,
        tiers=True,
        pick=Pick.FAIR,
        paid_budget_per_s=10,
        duplicate_window_s=30.0,
        user_chat=Rate(1.0, 3),
        user_likes=Rate(20.0, 20),  # no thumb taps faster; clients report once a second
        staff_posts=Rate(50.0, 500),  # no person is so fast, but a tool with a defect is
        app_posts=Rate(1000.0, 2000),  # several times what a room shows in a second
        user_joins=Rate(1.0, 32),  # two links with 16 new rooms each at once, then a change of room a second
    ),
    Policy(
        name="tencent",
        reason="40 messages a second and room, whatever they are; the rest is lost.",
        source='Tencent Cloud Chat, "Use Limits" and "Audio-Video Group" FAQ',
        admit_per_window=40,
        window_ms=1000,
    ),
    Policy(
        name="rongcloud",
        reason="40 messages per 200 ms and room, half of them for high priority only; the newest are lost.",
        source='RongCloud, "Chatroom message discard policy"',
        admit_per_window=40,
        window_ms=200,
        reserved=20,
        allowlist_per_window=60,
    ),
    Policy(
        name="nim",
        reason="Everything is taken in; a viewer receives 20 a second, chosen at random, and 10 of high priority.",
        source='NetEase IM, "聊天室重要消息投递"',
        chat_budget_per_s=20,
        pick=Pick.RANDOM,
        paid_budget_per_s=10,
    ),
    Policy(
        name="goim",
        reason="Batches of 20 messages or of one second; a queue of two batches, and what finds it full is lost.",
        source="Terry-Mao/goim, internal/job/room.go and conf.go",
        tick_ms=1000,
        batch_max=20,
        queue_max=40,
    ),
    Policy(
        name="off",
        reason="No rules: each message is a frame of its own. The baseline of benches, not for production.",
        source="none",
        tick_ms=0,
        tick_max_ms=0,
        compress=False,
    ),
)

POLICIES: Mapping[str, Policy] = {policy.name: policy for policy in _TABLE}
"""Every policy by its name."""

_RATES = ("user_chat", "user_joins", "staff_posts", "app_posts")
_PLAIN_OVERRIDES = {field.name for field in fields(Policy)} - {"name", "reason", "source"}


def policy_from(name: str, overrides: Mapping[str, Any] | None = None) -> Policy:
    """Return the policy called ``name`` with single fields replaced.

    ``overrides``: fields of `Policy`, and ``user_chat_per_s``, ``user_chat_burst``, ``user_joins_per_s``,
    ``user_joins_burst``, the same of ``staff_posts`` and ``app_posts``, ``likes_per_s`` for those parts of a `Rate`.
    What hangs together follows when only one side is given: ``reserved`` and the allowlist keep their proportion to
    ``admit_per_window``, ``tick_ms`` <= ``tick_max_ms``, likes may burst for one second.
    Unknown names and numbers that do not fit together: ValueError.
    """
    # Any: the values are what the fields are; dataclasses.replace and __post_init__ check them.
    policy = POLICIES.get(name)
    if policy is None:
        raise ValueError(f"there is no policy {name!r}, but {', '.join(POLICIES)}")
    return with_overrides(policy, overrides or {})


def with_overrides(policy: Policy, overrides: Mapping[str, Any]) -> Policy:
    """Return a policy with single fields replaced, see `policy_from`."""
    changes = dict(overrides)
    for field in _RATES:
        per_s, burst = changes.pop(f"{field}_per_s", None), changes.pop(f"{field}_burst", None)
        if per_s is not None or burst is not None:
            own: Rate = getattr(policy, field)
            base: Rate = getattr(POLICIES[DEFAULT_POLICY], field) if own.unlimited else own
            changes[field] = Rate(per_s or base.per_s, burst or base.burst)
    likes_per_s = changes.pop("likes_per_s", None)
    if likes_per_s is not None:
        changes["user_likes"] = Rate(likes_per_s, max(1, ceil(likes_per_s)))
    unknown = changes.keys() - _PLAIN_OVERRIDES
    if unknown:
        raise ValueError(f"a policy has no {', '.join(sorted(unknown))}")
    if "admit_per_window" in changes and policy.admit_per_window:
        for part in ("reserved", "allowlist_per_window"):
            changes.setdefault(part, changes["admit_per_window"] * getattr(policy, part) // policy.admit_per_window)
    if "tick_ms" in changes and "tick_max_ms" not in changes:
        changes["tick_max_ms"] = max(policy.tick_max_ms, changes["tick_ms"])
    if "tick_max_ms" in changes and "tick_ms" not in changes:
        changes["tick_ms"] = min(policy.tick_ms, changes["tick_max_ms"])
    return replace(policy, **changes)


def value_in_force(policy: Policy, override: str) -> float | bool | None:
    """Return the value that ``override``, a name of `policy_from`, would replace in a policy; None = no limit."""
    field, part = _place_of(override)
    found: Any = getattr(policy, field)
    if not part:
        value: float | bool = found
        return value
    if found.unlimited:
        return None
    rate: float = found.burst if part == "burst" else found.per_s
    return rate


@cache
def _place_of(override: str) -> tuple[str, str]:
    """Return the field of a policy that an override is in, and the part of it where that is a rate."""
    if override == "likes_per_s":
        return "user_likes", "per_s"
    for field in _RATES:
        if override in (f"{field}_per_s", f"{field}_burst"):
            return field, override.removeprefix(f"{field}_")
    return override, ""
