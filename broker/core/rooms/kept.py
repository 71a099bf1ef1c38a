"""What a room keeps of its messages for those who join later: recent danmaku, the last announcement, pinned messages.

It follows the room's stream: an announcement replaces the last one, PINS_CHANGED says what is pinned, and what
MESSAGES_DELETED covers goes from here and from the in-memory history. Where the last announcement is deleted, the one
before it counts again, if the history has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from broker.core.rooms.deletions import as_shown, deletion_of, is_covered
from broker.core.rooms.erasure import Erasure
from broker.core.rooms.history import History, RecentDanmaku
from broker.core.rooms.pins import RoomPins
from broker.core.rooms.stream import StoredEvent
from protocol.codes import MessageType
from protocol.frames import pack_body
from protocol.messages import MAX_RECENT_BYTES, Event, PinnedMessage, TickEntry
from protocol.payloads import DeletedPayload, PinsPayload, payload_record

__all__ = ["KeptMessages"]


class KeptMessages:
    """Kept messages of one room. ``max_danmaku``: how many danmaku a snapshot has at most."""

    __slots__ = ("_announced_at", "_announcement_bytes", "_history", "_recent", "announcement", "pins")

    def __init__(self, history: History[StoredEvent], max_danmaku: int) -> None:
        self._history = history
        self._recent: RecentDanmaku[tuple[int, TickEntry]] = RecentDanmaku(
            max_danmaku, MAX_RECENT_BYTES, lambda item: len(pack_body(item[1]))
        )
        self.announcement: Event | None = None
        """The last one."""
        self._announced_at = 0
        """Its offset."""
        self._announcement_bytes = 0
        self.pins = RoomPins()

    def show(self, entries: Iterable[TickEntry], at_ms: int) -> None:
        """Add the danmaku of a tick, oldest first."""
        self._recent.extend((at_ms, entry) for entry in entries)

    def apply(self, stored: StoredEvent, now: float) -> None:
        """Follow the next event of the stream, which is in the history."""
        event = stored.event
        if event.type == MessageType.ANNOUNCEMENT:
            self._announce(event, stored.offset)
        elif event.type == MessageType.PINS_CHANGED:
            pins = payload_record(event.type, event.payload)
            if isinstance(pins, PinsPayload):
                self.pins.apply(pins, now, event.at_ms)
        elif event.type == MessageType.MESSAGES_DELETED:
            deletion = deletion_of(event)
            if deletion is not None:
                self._delete(deletion, stored.offset, now)

    def give_up(self, event: Event, now: float) -> None:
        """The ledger has not written an event: it could not, or it knew its key."""
        if event.type == MessageType.PINS_CHANGED:
            self.pins.give_up(now)
        elif event.type == MessageType.MESSAGES_DELETED:
            self.pins.give_up_deletion()

    def count_covered(self, payload: DeletedPayload) -> int:
        """Return how many events of the history and recent danmaku a deletion would remove now."""
        events = sum(is_covered(each, payload.covers) for each in self._history)
        return events + sum(_covers_danmaku(payload, *each) for each in self._recent)

    def snapshot(self) -> tuple[tuple[TickEntry, ...], bool, Event | None, tuple[PinnedMessage, ...]]:
        """Return recent danmaku, whether older ones were left out for their size, the announcement, and the pins."""
        items, is_cut = self._recent.snapshot(self._announcement_bytes + self.pins.nbytes)
        return tuple(entry for _, entry in items), is_cut, self.announcement, self.pins.pinned

    def erase(self, erasure: Erasure, now: float) -> None:
        """Keep nothing of a user any more; where a message of the user was pinned, the event that says so is due."""
        user = erasure.user
        self._history.replace(erasure.stored)
        self._recent.replace(lambda item: _without_sender(user, *item))
        if self.announcement is not None and self.announcement.user_id == user:
            self._announce_last()
        self.pins.remove(erasure.is_pinned_of_user, now)

    # ---- checkpoints

    def dump(self) -> tuple[Any, ...]:
        """Return what a checkpoint keeps: the announcement, its offset, the pinned messages."""
        return self.announcement, self._announced_at, self.pins.pinned

    def restore(self, stored: tuple[Any, ...]) -> None:
        """Begin with what `dump` has returned, as it was read (Any); TypeError or ValueError for anything else."""
        announcement, *more = stored or (None,)
        if announcement is not None:
            self._announce(Event(*announcement), more[0] if more else 0)
        if len(more) > 1:
            payload = payload_record(MessageType.PINS_CHANGED, (more[1],))
            if isinstance(payload, PinsPayload):
                self.pins.restore(payload.pinned)

    # ---- inside

    def _announce(self, event: Event | None, offset: int) -> None:
        self.announcement = event
        self._announced_at = offset
        self._announcement_bytes = 0 if event is None else len(pack_body(event))

    def _delete(self, payload: DeletedPayload, before: int, now: float) -> None:
        self._history.replace(lambda each: as_shown(each, payload.covers) if each.offset < before else each)
        self._recent.replace(lambda item: None if _covers_danmaku(payload, *item) else item)
        last = self.announcement
        if last is not None and payload.covers(self._announced_at, last.user_id, last.at_ms):
            self._announce_last()
        self.pins.delete(payload, now)

    def _announce_last(self) -> None:
        """Let the last announcement of the history count, where it has one."""
        kept = [each for each in self._history if each.event.type == MessageType.ANNOUNCEMENT]
        self._announce(kept[-1].event, kept[-1].offset) if kept else self._announce(None, 0)


def _without_sender(user: str, at_ms: int, entry: TickEntry) -> tuple[int, TickEntry] | None:
    """Return a shown danmaku without one of its senders; None where it is the first one's."""
    if entry.user_id == user:
        return None
    return at_ms, entry._replace(senders=tuple(each for each in entry.senders if each != user))


def _covers_danmaku(payload: DeletedPayload, at_ms: int, entry: TickEntry) -> bool:
    """Return whether a shown danmaku is deleted: that of one of its senders is."""
    return any(payload.covers(0, user, at_ms) for user in (entry.user_id, *entry.senders))
