"""Timer wheel: deadlines of a hundred thousand connections without a timer for each.

A cycle of slots, one per ``slot_s``; an item waits in the slot of its due time and `expire` hands out the slots that
have passed. A deadline that moves often (a heartbeat) is not moved on each byte received: when its slot comes up the
owner checks the real deadline and adds the item again.

A slot is a doubly linked list through the items themselves: 16 bytes an item, and as many whatever the wheel held
before. (A dict weighs 27 to 80, most of it where many items have left.)
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar, cast

__all__ = ["Timed", "TimerWheel"]


class Timed(Protocol):
    """An item of a wheel, which alone writes ``wheel_before`` and ``wheel_after``: its neighbours in the slot, None =
    it is in no slot."""

    wheel_before: Timed | None
    wheel_after: Timed | None


class _Slot:
    """Head of the list of a slot: its neighbours are the last item and the first."""

    __slots__ = ("wheel_after", "wheel_before")

    def __init__(self) -> None:
        self.wheel_before: Timed | None = self
        self.wheel_after: Timed | None = self


T = TypeVar("T", bound=Timed)


class TimerWheel(Generic[T]):
    """A wheel of ``slots`` lists of items, each ``slot_s`` wide. Bounded by the number of items."""

    __slots__ = ("_next", "_slot_s", "_slots")

    def __init__(self, now: float, slot_s: float = 1.0, slots: int = 128) -> None:
        if slot_s <= 0 or slots < 2:
            raise ValueError("a wheel has at least 2 slots of positive width")
        self._slot_s = slot_s
        self._slots = [_Slot() for _ in range(slots)]
        self._next = int(now / slot_s)

    def __len__(self) -> int:
        """Return how many items are in the wheel. O(items)."""
        return sum(len(self._items(slot)) for slot in self._slots)

    def add(self, item: T, due: float) -> None:
        """(Re)place ``item``; it comes out at most one slot late. A time beyond the wheel comes out at its end."""
        slots, tick = self._slots, self._next
        if item.wheel_before is not None:
            _unlink(item)
        wanted = int(due / self._slot_s) + 1
        if wanted > tick:
            tick = min(wanted, tick + len(slots) - 1)
        slot = slots[tick % len(slots)]
        last = slot.wheel_before
        assert last is not None, "a slot's list is a cycle"
        item.wheel_before, item.wheel_after = last, slot
        last.wheel_after = slot.wheel_before = item

    def exchange(self, old: T, new: T) -> None:
        """Let ``new``, which is in no slot, wait in the place of ``old``, if that is in one."""
        before, after = old.wheel_before, old.wheel_after
        if before is not None and after is not None:
            new.wheel_before, new.wheel_after = before, after
            before.wheel_after = after.wheel_before = new
            old.wheel_before = old.wheel_after = None

    def remove(self, item: T) -> None:
        """Take ``item`` out, if it is in."""
        if item.wheel_before is not None:
            _unlink(item)

    def expire(self, now: float) -> list[T]:
        """Take out all items whose slot has passed, oldest slot first."""
        last = int(now / self._slot_s)
        found: list[T] = []
        for tick in range(self._next, min(last + 1, self._next + len(self._slots))):
            slot = self._slots[tick % len(self._slots)]
            found.extend(self._items(slot))
            slot.wheel_before = slot.wheel_after = slot
        self._next = max(self._next, last + 1)
        for item in found:
            item.wheel_before = item.wheel_after = None
        return found

    def _items(self, slot: _Slot) -> list[T]:
        found: list[T] = []
        item = slot.wheel_after
        while item is not slot:
            found.append(cast(T, item))
            assert item is not None, "a slot's list is a cycle"
            item = item.wheel_after
        return found


def _unlink(item: Timed) -> None:
    before, after = item.wheel_before, item.wheel_after
    assert before is not None, "the caller has looked"
    assert after is not None, "both are set together"
    before.wheel_after, after.wheel_before = after, before
    item.wheel_before = item.wheel_after = None
