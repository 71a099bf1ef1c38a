"""What a room keeps of its messages for those who join later: recent danmaku, the last announcement, pinned messages.

It follows the room's stream: an announcement replaces all before it, and one for a part of the room the last one of the
same audience; who joins gets the newest of those that are for it. PINS_CHANGED says what is pinned, and what
MESSAGES_DELETED covers goes from here and from the in-memory history. Where the last announcement is deleted, the one
before it counts again, if the history has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from broker.core.rooms.deletions import as_shown, deletion_of, is_covered
from broker.core.rooms.erasure import Erasure
from broker.core.rooms.history import History, RecentDanmaku
from broker.core.rooms.pins import RoomPins
from broker.core.rooms.shown_lately import ShownLately
from broker.core.rooms.stream import StoredEvent
from protocol.activities.audiences import Audience
from protocol.activities.reviews import ContextMessage
from protocol.codes import Lane, MessageType
from protocol.frames import pack_body
from protocol.messages import MAX_RECENT_BYTES, Event, PinnedMessage, TickEntry
from protocol.payloads import DeletedPayload, PinsPayload, payload_record

__all__ = ["KeptMessages"]

_FOLLOWED = frozenset({MessageType.ANNOUNCEMENT, MessageType.PINS_CHANGED, MessageType.MESSAGES_DELETED})
MAX_ADDRESSED = 16
"""Announcements for parts of the room that are kept, beside the last one for all."""


class KeptMessages:
    """Kept messages of one room. ``max_danmaku``: how many danmaku a snapshot has at most."""

    __slots__ = ("_announcement_bytes", "_announcements", "_history", "_recent", "lately", "pins")

    def __init__(self, history: History[StoredEvent], max_danmaku: int) -> None:
        self._history = history
        self._recent: RecentDanmaku[tuple[int, TickEntry]] = RecentDanmaku(
            max_danmaku, MAX_RECENT_BYTES, lambda item: len(pack_body(item[1]))
        )
        self.lately = ShownLately()
        self._announcements: list[StoredEvent] = []
        """The last one for all, and those for a part of the room after it, the newest of each audience: oldest
        first."""
        self._announcement_bytes = 0
        """Of the largest."""
        self.pins = RoomPins()

    def show(self, entries: Iterable[TickEntry], at_ms: int) -> None:
        """Add the danmaku of a tick, oldest first."""
        shown = [(at_ms, entry) for entry in entries]
        self._recent.extend(shown)
        self.lately.extend(shown)

    def apply(self, stored: StoredEvent, now: float) -> None:
        """Follow the next event of the stream, which is in the history."""
        event = stored.event
        if event.type not in _FOLLOWED:
            return
        if event.type == MessageType.ANNOUNCEMENT:
            self._announce(stored)
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

    def snapshot(
        self, is_for: Callable[[Audience], bool] = lambda audience: False
    ) -> tuple[tuple[TickEntry, ...], bool, Event | None, tuple[PinnedMessage, ...]]:
        """Return recent danmaku, whether older ones were left out for their size, the announcement, and the pins.

        ``is_for``: returns whether a message with an audience is for who joins.
        """
        items, is_cut = self._recent.snapshot(self._announcement_bytes + self.pins.nbytes)
        announcement = next(
            (each.event for each in reversed(self._announcements) if each.audience is None or is_for(each.audience)),
            None,
        )
        return tuple(entry for _, entry in items), is_cut, announcement, self.pins.pinned

    def erase(self, erasure: Erasure, now: float) -> None:
        """Keep nothing of a user any more; where a message of the user was pinned, the event that says so is due."""
        user = erasure.user
        self._history.replace(erasure.stored)
        self._recent.replace(lambda item: _without_sender(user, *item))
        self.lately.replace(lambda item: _without_sender(user, *item))
        self._announce_again([each for each in self._announcements if each.event.user_id != user])
        self.pins.remove(erasure.is_pinned_of_user, now)

    # ---- reports

    def event_at(self, offset: int) -> StoredEvent | None:
        """Return an event of the in-memory history."""
        return next((each for each in self._history if each.offset == offset), None)

    def around(self, at_ms: int) -> tuple[ContextMessage, ...]:
        """Return what was shown before and after a time, see `ShownLately.around`."""
        return self.lately.around(at_ms, self._history)

    # ---- checkpoints

    def dump(self) -> tuple[Any, ...]:
        """Return what a checkpoint keeps: the announcement for all, its offset, the pinned messages."""
        last = next((each for each in self._announcements if each.audience is None), None)
        return (None, 0, self.pins.pinned) if last is None else (last.event, last.offset, self.pins.pinned)

    def dump_addressed(self) -> tuple[Any, ...]:
        """Return what a checkpoint keeps of announcements for parts of the room: events, offsets and audiences."""
        addressed = (each for each in self._announcements if each.audience is not None)
        return tuple((each.event, each.offset, each.audience) for each in addressed)

    def restore(self, stored: tuple[Any, ...]) -> None:
        """Begin with what `dump` has returned, as it was read (Any); TypeError or ValueError for anything else."""
        announcement, *more = stored or (None,)
        if announcement is not None:
            self._announce(StoredEvent(more[0] if more else 0, Lane.CONTROL, Event(*announcement)))
        if len(more) > 1:
            payload = payload_record(MessageType.PINS_CHANGED, (more[1],))
            if isinstance(payload, PinsPayload):
                self.pins.restore(payload.pinned)

    def restore_addressed(self, stored: tuple[Any, ...]) -> None:
        """Begin with what `dump_addressed` has returned, after `restore`; errors as there."""
        for event, offset, audience in stored:
            self._announce(StoredEvent(offset, Lane.CONTROL, Event(*event), Audience(*audience)))

    # ---- inside

    def _announce(self, stored: StoredEvent) -> None:
        kept: list[StoredEvent] = []
        if stored.audience is not None:
            kept = [each for each in self._announcements if each.audience != stored.audience]
            addressed = [each for each in kept if each.audience is not None]
            if len(addressed) >= MAX_ADDRESSED:
                kept.remove(addressed[0])
        self._announcements = [*kept, stored]
        self._announcement_bytes = max(len(pack_body(each.event)) for each in self._announcements)

    def _delete(self, payload: DeletedPayload, before: int, now: float) -> None:
        self._history.replace(lambda each: as_shown(each, payload.covers) if each.offset < before else each)
        self._recent.replace(lambda item: None if _covers_danmaku(payload, *item) else item)
        self.lately.replace(lambda item: None if _covers_danmaku(payload, *item) else item)
        announced = self._announcements
        self._announce_again([each for each in announced if not is_covered(each, payload.covers)])
        self.pins.delete(payload, now)

    def _announce_again(self, left: list[StoredEvent]) -> None:
        """Go on with the announcements that are left, and those of the history before them, if any has gone."""
        if len(left) == len(self._announcements):
            return
        kept = {each.offset: each for each in self._history if each.event.type == MessageType.ANNOUNCEMENT}
        kept |= {each.offset: each for each in left}
        self._announcements, self._announcement_bytes = [], 0
        for offset in sorted(kept):
            self._announce(kept[offset])


def _without_sender(user: str, at_ms: int, entry: TickEntry) -> tuple[int, TickEntry] | None:
    """Return a shown danmaku without one of its senders; None where it is the first one's."""
    if entry.user_id == user:
        return None
    return at_ms, entry._replace(senders=tuple(each for each in entry.senders if each != user))


def _covers_danmaku(payload: DeletedPayload, at_ms: int, entry: TickEntry) -> bool:
    """Return whether a shown danmaku is deleted: that of one of its senders is."""
    return any(payload.covers(0, user, at_ms) for user in (entry.user_id, *entry.senders))
