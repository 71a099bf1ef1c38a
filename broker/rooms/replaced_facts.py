"""Which facts of a room's log later ones replace: what is left of the log folds to the same room.

A submission that only writes the checkpoint and records is replaced once each of them was written again. One with
anything else (an event, a fact of an activity, a key) stays as long as the room's log. Reports alone are done at some
time. The newest fact stays, whatever it is: by it the end of the log is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from broker.ledger import Item, Key, OutboxEntry, RecordPut, RecordRemoved, RoomCheckpointed, RoomEnded

__all__ = ["ReplacedFacts"]

_Slot = tuple[str, str, str] | int
"""What a later item writes over: a record by its names, or the checkpoint of an epoch."""


class ReplacedFacts:
    """The facts of one room, added in the order of the log. O(records of the room) in memory."""

    def __init__(self) -> None:
        self._written: dict[_Slot, int] = {}
        """Number of the fact that has written each last."""
        self._in_force: dict[int, int] = {}
        """By fact that may be replaced: how much of it is still in force."""
        self._replaced: list[int] = []
        self._reports: set[int] = set()
        """Facts that are reports alone, which are not done."""
        self._newest = 0

    def __len__(self) -> int:
        """Return how many facts may be removed now."""
        return len(self._replaced)

    def add(self, number: int, items: Sequence[Item], keys: Sequence[Key]) -> None:
        """Take the fact with this number, which holds a submission."""
        self._newest = number
        if items and not keys and all(isinstance(item, OutboxEntry) for item in items):
            self._reports.add(number)
            return
        slots = {slot for item in items if (slot := _slot(item)) is not None}
        if not keys and all(isinstance(item, (RoomCheckpointed, RecordPut, RecordRemoved)) for item in items):
            self._in_force[number] = len(slots)
        for slot in slots:
            before = self._written.get(slot)
            self._written[slot] = number
            if before is not None and before in self._in_force:
                self._in_force[before] -= 1
                if not self._in_force[before]:
                    del self._in_force[before]
                    self._replaced.append(before)

    def reported(self, numbers: Iterable[int]) -> None:
        """Take that the reports of these facts are done."""
        for number in self._reports.intersection(numbers):
            self._reports.remove(number)
            self._replaced.append(number)

    def take(self, count: int) -> list[int]:
        """Return up to ``count`` numbers of facts that are to be removed, oldest first, each once."""
        found = [number for number in self._replaced if number != self._newest][:count]
        taken = set(found)
        self._replaced = [number for number in self._replaced if number not in taken]
        return found

    def put_back(self, numbers: Sequence[int]) -> None:
        """Take that facts could not be removed."""
        self._replaced[:0] = numbers


def _slot(item: Item) -> _Slot | None:
    match item:
        case RoomCheckpointed(_, epoch) | RoomEnded(_, epoch):
            return epoch
        case RecordPut(kind, subject, name) | RecordRemoved(kind, subject, name):
            return kind, subject, name
        case _:
            return None
