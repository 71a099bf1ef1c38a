"""Changes of the modes of a room: each is an event of its stream, and holds from that event on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from broker.core.rooms.effects import Effect, PendingReply
from broker.core.rooms.post_guard import PostGuard
from broker.core.rooms.stream import Stream
from protocol.activities import activity_payload
from protocol.activities.moderation import RoomModes, room_modes
from protocol.codes import Lane, MessageType, Outcome, Role
from protocol.fields import FieldError
from protocol.json_values import as_json
from protocol.messages import ActivityView, Event
from protocol.payloads import ActivityPayload

__all__ = ["MODES_EVENT", "ModeChanges", "modes_of"]

T = TypeVar("T")

MODES_EVENT = "moderation.modes_changed"
_ACTIVITY = MessageType.ACTIVITY
_KIND = "moderation"


def modes_of(event: Event) -> RoomModes | None:
    """Return the modes that an event sets; None where it sets none."""
    if event.type != _ACTIVITY or event.payload[0] != MODES_EVENT:
        return None
    try:
        modes: RoomModes = room_modes(event.payload[2])
    except FieldError:
        return None  # of a later version
    return modes


class ModeChanges(Generic[T]):
    """The modes of one room, those that are under way included."""

    def __init__(self, guard: PostGuard[T], stream: Stream[T]) -> None:
        self.guard = guard
        """What the modes hold for."""
        self._stream = stream
        self._wanted = guard.modes

    @property
    def modes(self) -> RoomModes:
        """Those in force."""
        return self.guard.modes

    def change(
        self, changes: Mapping[str, Any], user: str, name: str, now: float, at_ms: int, ticket: T | None = None
    ) -> Sequence[Effect[T]]:
        """Set modes by name (Any: of their types); ``ticket``: is answered when they hold."""
        wanted = self._wanted._replace(**changes)
        self._wanted = wanted
        self._stream.admit(Lane.CONTROL)
        event = Event(_ACTIVITY, at_ms, user, name, ActivityPayload(*activity_payload(MODES_EVENT, "", wanted)))
        asked = () if ticket is None else (PendingReply(ticket, Outcome.ACCEPTED),)
        return self._stream.record(event, Lane.CONTROL, asked, now)

    def follow(self, event: Event) -> None:
        """Follow an event that is in the stream."""
        modes = modes_of(event)
        if modes is not None:
            self.guard.use_modes(modes)

    def give_up(self, event: Event) -> None:
        """The ledger has not written an event."""
        if modes_of(event) is not None:
            self._wanted = self.guard.modes

    def restore(self, stored: Sequence[Any]) -> None:
        """Go on with stored modes (Any: not checked). TypeError or ValueError."""
        self._wanted = RoomModes(*stored)
        self.guard.use_modes(self._wanted)

    def views(self) -> tuple[ActivityView, ...]:
        """Return what those who join get of them."""
        modes = self.guard.modes
        return () if modes == RoomModes() else (ActivityView(_KIND, "", as_json(modes)),)

    def own_views(self, user: str, role: Role) -> tuple[ActivityView, ...]:
        """Return what a user that joins with a role gets of its own mute."""
        mute = self.guard.own_mute(user, role)
        return () if mute is None else (ActivityView(_KIND, "", as_json(mute)),)
