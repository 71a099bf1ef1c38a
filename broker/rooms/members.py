"""Members of a room: who is subscribed, and the table of sends that the fan-out loops over.

The table is three lists side by side: members, their sockets' ``send``, and a byte each that says which bytes to send.
The hot loop reads the last two only, so a viewer costs it no more memory traffic than the bare loop: with 100,000
viewers every further object is a miss of the processor's caches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from broker.net.transport import Transport
from broker.rooms.encoding import VARIANTS
from protocol.codes import LeaveReason, Role
from protocol.messages import AckResult

__all__ = ["SLOW_PATH", "Member", "Members", "RoomRef", "Subscriber"]

SLOW_PATH = VARIANTS
"""The code of a place that the fan-out must look at closely: nobody is there, or somebody who has just come or is
behind. No frame ever stands at this index."""
_MAX_HOLES = 64
"""Places nobody sits in are closed up when they are more than these and more than half."""


class RoomRef(Protocol):
    """What a session knows of a room it is put out of."""

    number: int


class Subscriber(Protocol):
    """What a room knows of a session: it hears, and it is told what became of what it said."""

    transport: Transport

    def reply_acks(self, room: int, results: list[AckResult]) -> None:
        """Tell the fates of this session's POSTs."""

    def on_left(self, room: RoomRef, reason: LeaveReason, message: str) -> None:
        """The room has put the member out."""


class Member:
    """One session in one room."""

    __slots__ = ("index", "may_post", "name", "role", "session", "since", "user_id", "variant")

    def __init__(
        self, session: Subscriber, user_id: str, name: str, role: Role, may_post: frozenset[int], variant: int
    ) -> None:
        self.session = session
        self.user_id = user_id
        self.name = name
        self.role = role
        self.may_post = may_post
        self.variant = variant
        self.index = -1
        """Its place in the audience; -1 = in none."""
        self.since = 0
        """The last content published before it came: this one and earlier ones are not for it."""


Send = Callable[[bytes], int]


def _nobody(data: bytes) -> int:
    """The ``send`` of an empty place; its code keeps everybody from calling it."""
    raise BrokenPipeError("nobody is there")


class Members:
    """The members of a room, each in a place of its own for as long as it stays: O(1) in and out.

    ``sends`` and ``codes`` are for the fan-out: what to call for each place, and with the bytes of which variant, or
    `SLOW_PATH`. Places are moved only by `close_up`.
    """

    __slots__ = ("_free", "_in_use", "codes", "published", "sends", "slots")

    def __init__(self) -> None:
        self.slots: list[Member | None] = []
        self.sends: list[Send] = []
        self.codes = bytearray()
        self.published = 0
        """Contents so far; each has its number."""
        self._free: list[int] = []
        self._in_use = [0] * VARIANTS

    def __len__(self) -> int:
        return len(self.slots) - len(self._free)

    def add(self, member: Member) -> None:
        """Take a member in; what has been published is not for it."""
        member.since = self.published
        send = member.session.transport.send
        if self._free:
            index = self._free.pop()
            self.slots[index] = member
            self.sends[index] = send
        else:
            index = len(self.slots)
            self.slots.append(member)
            self.sends.append(send)
            self.codes.append(SLOW_PATH)
        member.index = index
        self._in_use[member.variant] += 1

    def remove(self, member: Member) -> None:
        """Put a member out; a sweep under way passes its place by from now on."""
        index = member.index
        member.index = -1
        self.slots[index] = None
        self.sends[index] = _nobody
        self.codes[index] = SLOW_PATH
        self._free.append(index)
        self._in_use[member.variant] -= 1

    def use_slow_path(self, member: Member) -> None:
        """The member's link is behind: what is published must go to its queue."""
        if member.index >= 0:
            self.codes[member.index] = SLOW_PATH

    def use_fast_path(self, member: Member) -> None:
        """Nothing is special about the member any more: write straight to its socket."""
        self.codes[member.index] = member.variant

    def close_up(self) -> None:
        """Close the gaps if they are many. Only between sweeps: it moves members. O(members), paid by who left."""
        if len(self._free) > max(_MAX_HOLES, len(self.slots) // 2):
            members = self.all()
            codes = bytes(self.codes[member.index] for member in members)
            self.sends = [self.sends[member.index] for member in members]
            self.codes = bytearray(codes)
            self.slots = list(members)
            self._free = []
            for index, member in enumerate(members):
                member.index = index

    def all(self) -> list[Member]:
        """Everybody there now."""
        return [member for member in self.slots if member is not None]

    def variants(self) -> list[int]:
        """The forms that somebody needs."""
        return [variant for variant, count in enumerate(self._in_use) if count]
