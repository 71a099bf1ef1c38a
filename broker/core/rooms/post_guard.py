"""Who may post in a room: mutes of its users, and the modes of the room.

A mute refuses every post of its user, or lets its sender alone see what it says. Modes restrict chat (lane 3) of those
who are not staff. What is refused has a code of its own, and the time after which it would be taken, where that is
known.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Generic, TypeVar

from broker.core.chat.coalesce import PendingDanmaku
from broker.core.chat.fold import fold
from broker.core.limits.rate_limit import UNLIMITED, Gcra, Rate
from broker.core.moderation.detectors import has_link
from broker.core.moderation.sanctions import RoomSanctions
from broker.core.rooms.effects import RefusePost
from broker.core.rooms.rules import Author
from broker.core.structures.recent_keys import RecentKeys
from broker.core.tenants.names import plain_name
from protocol.activities.moderation import OwnMute, RoomModes
from protocol.codes import ErrorCode, MessageType, Outcome, Role
from protocol.messages import Post

__all__ = ["MAX_SHADOWED", "PostGuard"]

T = TypeVar("T")

MAX_SHADOWED = 1000
"""Danmaku of one tick that their senders alone are shown; more are answered as sampled out."""
UNIQUE_S = 600.0
MAX_UNIQUE = 65_536
"""Texts that mode ``unique`` knows; beyond, the oldest are forgotten."""
_NO_MODES = RoomModes()
_DANMAKU, _MODERATOR = MessageType.DANMAKU, Role.MODERATOR


class PostGuard(Generic[T]):
    """Mutes and modes of one room. ``follows_since``: since when a user (without its tenant) follows the host, Unix
    milliseconds, None = it does not."""

    __slots__ = (
        "_follows_since",
        "_said",
        "_sanctions",
        "_slow",
        "modes",
        "mutes",
        "raids",
        "restricts",
        "shadow_count",
        "shadowed",
    )  # fmt: skip

    def __init__(self, sanctions: RoomSanctions) -> None:
        self._sanctions = sanctions
        self._follows_since: Callable[[str], int | None] = lambda user: None
        self.mutes = sanctions.mutes
        """Of all rooms, by user: where it is empty, no user is muted."""
        self.modes = _NO_MODES
        self.restricts = False
        """Whether a mode restricts chat."""
        self._slow = Gcra(UNLIMITED)
        self._said: RecentKeys[int] | None = None
        self.shadowed: list[tuple[T, PendingDanmaku, Outcome]] = []
        """Danmaku that their senders alone will be shown with the next tick, and the answers to them."""
        self.shadow_count = 0
        """Posts of shadow-muted users so far, of any type."""
        self.raids = 0
        """Raids so far."""

    @property
    def now_ms(self) -> Callable[[], int]:
        """The trusted clock, Unix milliseconds."""
        return self._sanctions.now_ms

    def use_follows(self, follows_since: Callable[[str], int | None]) -> None:
        """Ask there who follows the host."""
        self._follows_since = follows_since

    def use_modes(self, modes: RoomModes) -> None:
        """Apply other modes from now on."""
        slow_s = max(modes.slow_s, modes.raid_slow_s)
        self._slow = self._slow.at_rate(Rate(1 / slow_s, 1) if slow_s else UNLIMITED)
        if not modes.unique:
            self._said = None
        elif self._said is None:
            self._said = RecentKeys(UNIQUE_S, MAX_UNIQUE)
        self.modes = modes
        self.restricts = modes._replace(delay_ms=0, raid_until_ms=0) != _NO_MODES

    # ---- mutes

    def mute_of(self, ticket: T, author: Author) -> RefusePost[T] | None:
        """Return the answer to any post of an author who is muted and knows it."""
        found = self._sanctions.mute_of(author.user_id, author.role) if self.mutes else None
        if found is None or found[0].is_shadow:
            return None
        return RefusePost(ticket, ErrorCode.MUTED, found[1], found[0].reason)

    def own_mute(self, user_id: str, role: Role) -> OwnMute | None:
        """Return what a user learns of its mute here; None: it is not muted, or is not to learn of it."""
        found = self._sanctions.mute_of(user_id, role) if self.mutes else None
        return None if found is None or found[0].is_shadow else OwnMute(True, found[0].until_ms, found[0].reason)

    def is_shadowed(self, user_id: str, role: Role) -> bool:
        """Return whether a user alone is to see what it says."""
        found = self._sanctions.mute_of(user_id, role)
        return found is not None and found[0].is_shadow

    def shadow(self, ticket: T, item: PendingDanmaku, outcome: Outcome = Outcome.ACCEPTED) -> bool:
        """Show a danmaku to its sender alone, with the next tick; False: too many wait for that."""
        if len(self.shadowed) >= MAX_SHADOWED:
            return False
        self.count_shadowed()
        self.shadowed.append((ticket, item, outcome))
        return True

    def count_raid(self) -> None:
        """Count a raid, in which slow mode begins by itself."""
        self.raids += 1

    def count_shadowed(self) -> None:
        """Count a post that its sender alone learns of."""
        self.shadow_count += 1

    # ---- modes

    def refusal_by_mode(self, ticket: T, author: Author, post: Post, now: float) -> RefusePost[T] | None:
        """Return the answer to a message of lane 3 that the modes of the room refuse; nothing is counted."""
        modes = self.modes
        if author.role >= _MODERATOR:
            return None
        if modes.mute_all:
            return RefusePost(ticket, ErrorCode.ALL_MUTED)
        if modes.vip_only and author.role < Role.VIP:
            return RefusePost(ticket, ErrorCode.VIP_ONLY)
        if modes.emote_only and post.type == _DANMAKU:
            return RefusePost(ticket, ErrorCode.EMOTE_ONLY)
        if modes.followers_s >= 0:
            wait_ms = self._follow_wait_ms(author.user_id, modes.followers_s)
            if wait_ms is None or wait_ms > 0:
                return RefusePost(ticket, ErrorCode.FOLLOWERS_ONLY, wait_ms or 0)
        if post.type == _DANMAKU:
            text = post.payload[0]
            if not modes.links and has_link(text):
                return RefusePost(ticket, ErrorCode.LINKS_OFF)
            if self._said is not None and self._said.is_recent(hash(fold(text)), now):
                return RefusePost(ticket, ErrorCode.NOT_UNIQUE)
        wait_s = self._slow.wait_s(author.user_id, now)
        return RefusePost(ticket, ErrorCode.SLOW_MODE, max(1, ceil(wait_s * 1000))) if wait_s else None

    def took(self, post: Post, author: Author, now: float) -> None:
        """A message of lane 3 was taken in: it counts for the modes."""
        if author.role < _MODERATOR:
            self._slow.try_acquire(author.user_id, now)
            if self._said is not None and post.type == _DANMAKU:
                self._said.mark(hash(fold(post.payload[0])), now)

    def _follow_wait_ms(self, user_id: str, seconds: int) -> int | None:
        """Return how long a user must still follow the host; None: it does not."""
        since_ms = self._follows_since(plain_name(user_id))
        return None if since_ms is None else max(0, since_ms + seconds * 1000 - self._sanctions.now_ms())

    @property
    def full_refusals(self) -> int:
        """Users whose last message could not be remembered, as the table was full."""
        return self._slow.full_refusals

    def sweep(self, now: float) -> None:
        """Forget users whose last message is long ago."""
        self._slow.sweep(now)
