"""Timer wheel: deadlines of a hundred thousand connections without a timer for each.

A cycle of slots, one per ``slot_s``; an item waits in the slot of its due time and `expire` hands out the slots that
have passed. A deadline that moves often (a heartbeat) is not moved on each byte received: when its slot comes up the
owner checks the real deadline and adds the item again. Cost per item and turn of the wheel: one set operation.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

__all__ = ["Timed", "TimerWheel"]


class Timed(Protocol):
    """An item of a wheel; the wheel alone writes ``wheel_slot`` (-1 = in no slot)."""

    wheel_slot: int


T = TypeVar("T", bound=Timed)


class TimerWheel(Generic[T]):
    """A wheel of ``slots`` sets of items, each ``slot_s`` wide. Bounded by the number of items."""

    __slots__ = ("_next", "_slot_s", "_slots")

    def __init__(self, now: float, slot_s: float = 1.0, slots: int = 128) -> None:
        if slot_s <= 0 or slots < 2:
            raise ValueError("a wheel has at least 2 slots of positive width")
        self._slot_s = slot_s
        # Dicts as ordered sets: a set of 10,000 that grew weighs 60 to 110 bytes an item, a dict 40.
        self._slots: list[dict[T, None]] = [{} for _ in range(slots)]
        self._next = int(now / slot_s)

    def __len__(self) -> int:
        return sum(map(len, self._slots))

    def add(self, item: T, due: float) -> None:
        """(Re)place ``item``; it comes out at most one slot late. A time beyond the wheel comes out at its end."""
        slots, tick = self._slots, self._next
        if item.wheel_slot >= 0:
            del slots[item.wheel_slot][item]
        wanted = int(due / self._slot_s) + 1
        if wanted > tick:
            tick = min(wanted, tick + len(slots) - 1)
        slot = tick % len(slots)
        slots[slot][item] = None
        item.wheel_slot = slot

    def exchange(self, old: T, new: T) -> None:
        """Let ``new``, which is in no slot, wait in the place of ``old``, if that is in one."""
        slot = old.wheel_slot
        if slot >= 0:
            del self._slots[slot][old]
            self._slots[slot][new] = None
            new.wheel_slot, old.wheel_slot = slot, -1

    def remove(self, item: T) -> None:
        """Take ``item`` out, if it is in."""
        if item.wheel_slot >= 0:
            del self._slots[item.wheel_slot][item]
            item.wheel_slot = -1

    def expire(self, now: float) -> list[T]:
        """Take out all items whose slot has passed, oldest slot first."""
        last = int(now / self._slot_s)
        found: list[T] = []
        for tick in range(self._next, min(last + 1, self._next + len(self._slots))):
            slot = self._slots[tick % len(self._slots)]
            found.extend(slot)
            slot.clear()
        self._next = max(self._next, last + 1)
        for item in found:
            item.wheel_slot = -1
        return found
