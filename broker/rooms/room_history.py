"""Events of a room that its in-memory history has no longer, read from the ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from broker.core.rooms.deletions import without_deleted
from broker.core.rooms.stream import StoredEvent
from broker.ledger import Reader, StoredEntry
from broker.ledger.queries import LedgerQueries
from broker.ledger.replay import addressed_event_of, event_of
from protocol.codes import Lane

__all__ = ["RoomHistory", "read_page", "stored_events"]

DELETIONS_PAGE = 1000


def stored_events(entries: Sequence[StoredEntry]) -> list[StoredEvent]:
    """Return the newest entries without a hole as events of a room's history, cut where one cannot be read."""
    events: list[StoredEvent] = []
    for entry in entries:
        found = addressed_event_of(entry)
        if found is None or entry.lane is None:
            events.clear()
        else:
            events.append(StoredEvent(entry.offset, Lane(entry.lane), *found))
    return events


def read_page(
    reader: Reader, room: str, epoch: int, after: int, last: int, max_bytes: int
) -> Sequence[StoredEvent] | None:
    """Return the events ``after + 1`` to ``last``, with those redacted that are deleted by now.

    The first of them that are within ``max_bytes``; None where one of these is not kept. Runs in the ledger's reading
    thread.
    """
    entries = reader.history(room, epoch, after, last, last - after, max_bytes, fits=True)
    if entries is None:
        return None
    later: list[Any] = []
    position = last
    while True:
        found = reader.deletions(room, epoch, position, DELETIONS_PAGE)
        later += [event.payload for each in found if (event := event_of(each)) is not None]
        if len(found) < DELETIONS_PAGE:
            break
        position = found[-1].offset
    events = stored_events(entries)
    return without_deleted(events, later) if len(events) == len(entries) else None


class RoomHistory:
    """Reads the events of a room that its in-memory history has no longer. Never waits.

    ``max_events`` and ``max_bytes``: bounds of one answer.
    """

    def __init__(self, queries: LedgerQueries, max_events: int, max_bytes: int) -> None:
        self._queries = queries
        self.max_events = max_events
        self._max_bytes = max_bytes

    @property
    def may_recover(self) -> bool:
        """Whether what could not be read now may be readable when it is asked for again."""
        return self._queries.may_recover

    def read(
        self,
        room: str,
        epoch: int,
        after: int,
        last: int,
        on_done: Callable[[Sequence[StoredEvent] | None], None],
    ) -> bool:
        """Ask for the events ``after + 1`` to ``last`` of a room.

        ``on_done`` gets all of them, an empty sequence if they cannot be had, or None if reading failed. Returns False
        if too many queries wait.
        """
        arguments = (room, epoch, after, last, self.max_events, self._max_bytes)
        return self._queries.submit(_read_events, arguments, on_done, if_damaged=())


def _read_events(
    reader: Reader, room: str, epoch: int, after: int, last: int, max_events: int, max_bytes: int
) -> Sequence[StoredEvent]:
    events = without_deleted(stored_events(reader.history(room, epoch, after, last, max_events, max_bytes) or ()))
    return events if len(events) == last - after else ()
