"""Pinned messages of a room: at most `MAX_PINS`, each for a time or until it is unpinned.

Every change is one event with all that are pinned then, so the newest event is the state. One change is under way at a
time, and none while a deletion is: else an event could pin again what the event before it deletes.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import NamedTuple

from protocol.codes import MessageType
from protocol.frames import pack_body
from protocol.messages import MAX_PINS, Event, PinnedMessage
from protocol.payloads import DeletedPayload, PinsPayload

__all__ = ["PinChange", "RoomPins", "pins_event"]

RETRY_S = 2.0
"""When the end of a pin is published again that the ledger could not take."""

Pins = tuple[PinnedMessage, ...]


class PinChange(NamedTuple):
    """Request to pin a message, or to unpin the one with an id."""

    pin: PinnedMessage | None
    unpin: str = ""


class RoomPins:
    """Pinned messages of one room. ``now``: monotonic seconds; ``at_ms``: Unix milliseconds of the trusted clock."""

    __slots__ = ("_changing", "_deleting", "_is_stale", "due_at", "nbytes", "pinned")

    def __init__(self) -> None:
        self.pinned: Pins = ()
        """Oldest pin first."""
        self.nbytes = 0
        """Their size on the wire."""
        self.due_at = inf
        """When `expired` may have a change, in monotonic seconds."""
        self._changing = False
        self._deleting = 0
        self._is_stale = False
        """Whether something was unpinned by a deletion, of which no event has said so."""

    @property
    def is_busy(self) -> bool:
        """Whether a change or a deletion waits for the ledger."""
        return self._changing or self._deleting > 0

    def changed(self, change: PinChange) -> Pins | None:
        """Return what is pinned after a change; None where there are too many, or there is none to unpin."""
        name = change.unpin if change.pin is None else change.pin.id
        others = tuple(each for each in self.pinned if each.id != name)
        if change.pin is None:
            return others if len(others) < len(self.pinned) else None
        return (*others, change.pin) if len(others) < MAX_PINS else None

    def expired(self, now: float, now_ms: int | None) -> Pins | None:
        """Return what is pinned after the time of some has passed; None where nothing has changed.

        ``now_ms`` None: the clock is not trusted, nothing expires by it.
        """
        if self.is_busy:
            self.due_at = now + RETRY_S
            return None
        left = self.pinned
        if now_ms is not None:
            left = tuple(each for each in left if not 0 < each.expires_at_ms <= now_ms)
        if len(left) == len(self.pinned) and not self._is_stale:
            if now_ms is None:
                self.due_at = now + RETRY_S
            else:
                self._arm(now, now_ms)
            return None
        return left

    def begin(self) -> None:
        """A change is on its way: `apply` or `give_up` follows."""
        self._changing = True
        self.due_at = inf

    def give_up(self, now: float) -> None:
        """The change was not written."""
        self._changing = False
        self.due_at = now + RETRY_S

    def apply(self, payload: PinsPayload, now: float, at_ms: int) -> None:
        """An event of the stream says what is pinned. ``at_ms``: its time."""
        self._set(payload.pinned)
        self._changing = self._is_stale = False
        self._arm(now, at_ms)

    def restore(self, pinned: Pins) -> None:
        """Begin with the pins of a checkpoint; the events after it and `restored` follow."""
        self._set(pinned)

    def restored(self, now: float, now_ms: int | None) -> None:
        """All events up to now have been applied again: unpin what has expired since then. ``now_ms`` as of `expired`.

        The event that says so is due at once; a member that joins before it does not get them.
        """
        if now_ms is None:
            self.due_at = now if self.pinned else inf
            return
        self._arm(now, now_ms)
        self.remove(lambda pin: 0 < pin.expires_at_ms <= now_ms, now)

    def begin_deletion(self) -> None:
        """A deletion is on its way: `delete` or `give_up_deletion` follows."""
        self._deleting += 1

    def give_up_deletion(self) -> None:
        """The deletion was not written."""
        self._deleting -= 1

    def delete(self, deleted: DeletedPayload, now: float) -> None:
        """Unpin what a deletion of the stream covers."""
        self._deleting = max(0, self._deleting - 1)
        self.remove(lambda pin: deleted.covers(pin.offset, pin.user_id, pin.at_ms), now)

    def remove(self, is_removed: Callable[[PinnedMessage], bool], now: float) -> None:
        """Unpin some messages now; the event that says so is due."""
        left = tuple(each for each in self.pinned if not is_removed(each))
        if len(left) < len(self.pinned):
            self._set(left)
            self._is_stale = True
            self.due_at = now

    def _set(self, pinned: Pins) -> None:
        self.pinned = pinned
        self.nbytes = len(pack_body(pinned)) if pinned else 0

    def _arm(self, now: float, at_ms: int) -> None:
        if self._is_stale:
            self.due_at = now
            return
        ends = [each.expires_at_ms for each in self.pinned if each.expires_at_ms]
        self.due_at = now + max(0, min(ends) - at_ms) / 1000 if ends else inf


def pins_event(pinned: Pins, user_id: str, name: str, at_ms: int) -> Event:
    """Return the event that says what is pinned."""
    return Event(int(MessageType.PINS_CHANGED), at_ms, user_id, name, PinsPayload(pinned))
