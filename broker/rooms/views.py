"""What of a room one viewer gets: its snapshot, and those events of the stream that are for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from broker.core.commerce.audiences import OPTED_OUT_BIT
from broker.core.rooms.audience import addressed_to
from broker.core.rooms.state import RoomState
from broker.core.rooms.stream import StoredEvent
from broker.core.tenants.names import plain_name, qualify, tenant_of
from broker.core.users.preferences import PreferenceTable
from broker.rooms.encoding import TIERS
from broker.rooms.members import Member
from protocol.messages import Joined

__all__ = ["RoomViews"]


class RoomViews:
    """Views of one room. ``name``: qualified by its tenant."""

    def __init__(
        self, name: str, state: RoomState[Any], preferences: PreferenceTable, unix_ms: Callable[[], int]
    ) -> None:
        self._name = name
        self._state = state
        self._preferences = preferences
        self._unix_ms = unix_ms

    def snapshot(self, member: Member) -> Joined:
        """Return the room as a member gets it that joins now."""
        tier = TIERS[member.variant % len(TIERS)]
        user, tags = plain_name(member.user_id), self.tags_of(member)
        return self._state.snapshot(plain_name(self._name), member.role, tier, user, self._unix_ms(), tags)

    def tags_of(self, member: Member) -> int:
        """Return the bits of a member's tags as they are now."""
        return self.tags_of_user(plain_name(member.user_id), member.tags)

    def tags_of_user(self, user: str, own: Sequence[str]) -> int:
        """Return the bits of the tags of a user (without its tenant), and whether it wants no marketing; ``own``: the
        tags of its token."""
        tags = self._state.activities.tags_of(user, own)
        is_sent_all = self._preferences.wants_marketing(qualify(tenant_of(self._name), user))
        return tags if is_sent_all else tags | OPTED_OUT_BIT

    def addressed_to(self, tags: int, events: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
        """Return events of the stream as a viewer with these tags gets them."""
        return addressed_to(tags, events, self._state.activities.tag_bits)
