"""What a room decides and its task performs. `RoomState` returns effects; it never acts.

``T`` is the caller's reply address of one POST, handed back untouched.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from protocol.codes import Lane, LeaveReason, Outcome
from protocol.messages import Event, State, Tick

__all__ = ["Effect", "End", "Fates", "Publish", "Reply", "TickOut"]

T = TypeVar("T")


class Reply(NamedTuple, Generic[T]):
    """Answer one POST at once. ``detail`` as in `AckResult`."""

    ticket: T
    outcome: Outcome
    detail: int = 0


class Fates(NamedTuple, Generic[T]):
    """Answer the POSTs that a tick has decided."""

    fates: list[tuple[T, Outcome]]


class Publish(NamedTuple):
    """Send one event of lanes 0-2 to everybody now; ``offset`` is its place in the room's stream."""

    event: Event
    lane: Lane
    offset: int


class TickOut(NamedTuple):
    """Send a tick: ``ticks[i]`` is for the i-th of the tiers, widest first; equal ones are one object. ``state`` may
    ride along.

    ``ticks`` is empty where only the counters are due.
    """

    number: int
    ticks: tuple[Tick, ...]
    state: State | None
    state_number: int


class End(NamedTuple):
    """The room has ended: put everybody out and stop its task."""

    reason: LeaveReason


Effect = Reply[T] | Fates[T] | Publish | TickOut | End
