"""What of a room one viewer gets: its snapshot, and those events of the stream that are for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broker.core.commerce.audiences import NOT_RECOMMENDED_BIT, OPTED_OUT_BIT, STAFF_BIT
from broker.core.rooms.audience import addressed_to
from broker.core.rooms.masking import NameMask
from broker.core.rooms.state import RoomState
from broker.core.rooms.stream import StoredEvent
from broker.core.tenants.names import plain_name, qualify, tenant_of
from broker.core.users.preferences import PreferenceTable
from broker.rooms.encoding import MASKED, TIERS
from broker.rooms.members import Member
from protocol.codes import Role
from protocol.messages import Joined
from protocol.operations import STAFF

__all__ = ["RoomViews"]


class RoomViews:
    """Views of one room. ``name``: qualified by its tenant."""

    def __init__(
        self,
        name: str,
        state: RoomState[Any],
        preferences: PreferenceTable,
        mask: NameMask | None = None,
    ) -> None:
        self.mask = mask
        """Masks over who the viewers are, for guests; None: all are shown to all."""
        self._name = name
        self._state = state
        self._preferences = preferences

    def snapshot(self, member: Member) -> Joined:
        """Return the room as a member gets it that joins now."""
        tier = TIERS[member.variant % len(TIERS)]
        user, tags = plain_name(member.user_id), self.tags_of(member)
        joined = self._state.snapshot(plain_name(self._name), member.role, tier, user, member.joined_at_ms, tags)
        return joined if self.mask is None or not self.is_masked(member.role) else self.mask.snapshot(joined)

    def is_hidden(self, user: str) -> bool:
        """Return whether others do not see a user (without its tenant) in the room."""
        return self._preferences.is_hidden(qualify(tenant_of(self._name), user))

    def is_masked(self, role: Role) -> bool:
        """Return whether a viewer with a role gets masks in place of names and ids."""
        return self.mask is not None and role is Role.GUEST

    def variant_of(self, member: Member, role: Role) -> int:
        """Return the variant of a member with a role."""
        return member.variant % MASKED + MASKED * self.is_masked(role)

    def events_for(self, member: Member, events: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
        """Return events of the stream as a member gets them."""
        events = self.addressed_to(self.tags_of(member), events)
        return events if self.mask is None or not self.is_masked(member.role) else self.mask.stored(events)

    def tags_of(self, member: Member) -> int:
        """Return the bits of a member's tags as they are now."""
        tags = self.tags_of_user(plain_name(member.user_id), member.tags)
        return tags | STAFF_BIT if member.role in STAFF else tags

    def tags_of_user(self, user: str, own: Sequence[str]) -> int:
        """Return the bits of the tags of a user (without its tenant), and of what it does not want; ``own``: the tags
        of its token."""
        tags = self._state.activities.tags_of(user, own)
        preferences, qualified = self._preferences, qualify(tenant_of(self._name), user)
        if not preferences.wants_marketing(qualified):
            tags |= OPTED_OUT_BIT
        return tags if preferences.wants_recommendation(qualified) else tags | NOT_RECOMMENDED_BIT

    def addressed_to(self, tags: int, events: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
        """Return events of the stream as a viewer with these tags gets them."""
        return addressed_to(tags, events, self._state.activities.tag_bits)
