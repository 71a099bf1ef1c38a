"""Ticks that the staff of a room has seen and its viewers have not yet: the moderators' delay.

What is deleted meanwhile never reaches the viewers. Ticks leave in their order, whatever the delay becomes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import inf
from typing import Generic, NamedTuple, TypeVar

from broker.core.rooms.effects import ShowToSender
from protocol.messages import Tick, TickEntry
from protocol.payloads import DeletedPayload

__all__ = ["DelayedTick", "DelayedTicks"]

T = TypeVar("T")


class DelayedTick(NamedTuple, Generic[T]):
    """One tick: ``ticks`` as in `TickOut`, empty where nobody but the senders of ``own`` see anything."""

    due_at: float
    number: int
    ticks: tuple[Tick, ...]
    own: tuple[ShowToSender[T], ...] = ()


class DelayedTicks(Generic[T]):
    """The ticks of one room that wait. Bounded by the longest delay and the shortest interval between ticks."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[DelayedTick[T]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def next_due(self) -> float:
        """When `take` has something: monotonic seconds, infinite while nothing waits."""
        return self._waiting[0].due_at if self._waiting else inf

    def put(self, tick: DelayedTick[T]) -> None:
        """Let a tick wait, behind all that wait already."""
        last = self._waiting[-1].due_at if self._waiting else -inf
        self._waiting.append(tick._replace(due_at=max(tick.due_at, last)))

    def take(self, now: float) -> list[DelayedTick[T]]:
        """Return what is due, in order; ``now`` infinite: everything."""
        found = []
        while self._waiting and self._waiting[0].due_at <= now:
            found.append(self._waiting.popleft())
        return found

    def delete(self, deletion: DeletedPayload) -> None:
        """Take out what a deletion covers. O(messages that wait)."""
        self._waiting = deque(
            each._replace(
                ticks=_without(each.ticks, deletion),
                own=tuple(own for own in each.own if _without((own.tick,), deletion)[0] is own.tick),
            )
            for each in self._waiting
        )


def _without(ticks: Sequence[Tick], deletion: DeletedPayload) -> tuple[Tick, ...]:
    """Return ticks without what is deleted, which their accounts count as sampled; equal ones stay one object."""
    made: dict[int, Tick] = {}
    for tick in ticks:
        if id(tick) not in made:
            left = tuple(entry for entry in tick.entries if not _is_deleted(entry, tick.at_ms, deletion))
            made[id(tick)] = tick if len(left) == len(tick.entries) else _cut(tick, left)
    return tuple(made[id(tick)] for tick in ticks)


def _cut(tick: Tick, left: tuple[TickEntry, ...]) -> Tick:
    shown = len(left)
    merged = sum(entry.count for entry in left) - shown
    account = tick.account
    gone = account.shown + account.merged - shown - merged
    account = account._replace(shown=shown, merged=merged, sampled=account.sampled + gone)
    return tick._replace(entries=left, account=account)


def _is_deleted(entry: TickEntry, at_ms: int, deletion: DeletedPayload) -> bool:
    return any(deletion.covers(0, user, at_ms) for user in (entry.user_id, *entry.senders))
