"""The links of one user in a room, found without walking through the room's members, and what they alone are sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from broker.core.commerce.activity import RoomEvent
from broker.core.rooms.state import RoomState
from broker.core.tenants.names import qualify, tenant_of
from broker.rooms.members import Member, RoomRef
from broker.rooms.publishing import RoomPublisher
from protocol.activities.moderation import OwnMute
from protocol.activities.reviews import OwnDecision
from protocol.messages import Tick

__all__ = ["OwnLinks", "SessionsOf"]

SessionsOf = Callable[[str], Iterable[Any]]
"""Returns the open sessions of a user (qualified id). Any: sessions are above this module."""
_OWN = "moderation", "own"


class OwnLinks:
    """Links of users in one room, by user id without its tenant. Each method is O(links of the user)."""

    __slots__ = ("_publisher", "_room", "_sessions_of", "_state", "_tenant")

    # Any: the reply addresses are the room's own business.
    def __init__(
        self, room: RoomRef, name: str, state: RoomState[Any], publisher: RoomPublisher, sessions_of: SessionsOf
    ) -> None:
        """``name``: of the room, qualified."""
        self._room = room
        self._tenant = tenant_of(name)
        self._state = state
        self._publisher = publisher
        self._sessions_of = sessions_of

    def members(self, user: str) -> list[Member]:
        """Return what the links of a user are in the room."""
        sessions = self._sessions_of(qualify(self._tenant, user))
        return [member for session in sessions for member in session.memberships if member.room is self._room]

    def show(self, tick: Tick, number: int, user: str) -> None:
        """Send a tick to a user alone."""
        self._publisher.show(tick, number, self.members(user))

    def show_decision(self, user: str, decision: OwnDecision) -> None:
        """Send what became of a message that was held to every link of its author."""
        members = self.members(user)
        if members:
            event = RoomEvent("reviews.decided", decision)
            self._publisher.push_own_counter(("reviews", str(decision.id)), event, members)

    def show_mute(self, user: str) -> None:
        """Send a user whether it is muted here."""
        for member in self.members(user):
            mute = self._state.own_mute(user, member.role) or OwnMute(False)
            self._publisher.push_own_counter(_OWN, RoomEvent("moderation.muted", mute), (member,))
