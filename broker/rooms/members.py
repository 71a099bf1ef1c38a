"""Members of a room: the subscribed sessions, and the table of sends that the fan-out loops over.

The table is three lists side by side: members, their sockets, and a byte each that says which bytes to send.
The hot loop reads the last two only, so a viewer costs it no more memory traffic than the bare loop: with 100,000
viewers every further object is a miss of the processor's caches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from broker.net.transport import Transport
from broker.rooms.encoding import VARIANTS, Content
from protocol.codes import LeaveReason, Outcome, Role
from protocol.messages import AckResult, FirstResult

__all__ = ["REMOTE", "SLOW_PATH", "Member", "Members", "Mirror", "PostRef", "RoomRef", "Subscriber", "reply_all"]

SLOW_PATH = VARIANTS
"""Code of a slot that is empty, or whose member has just joined or is backlogged. There is never a frame at this
index."""
REMOTE = 1 << 40
"""Slot of a member whose link is at another node: it is in none, and that node's fan-out writes to it."""
_MAX_HOLES = 64
"""Empty slots are removed when there are more than these and more than half of all."""


class RoomRef(Protocol):
    """What a session knows of a room that has removed it."""

    number: int


class Subscriber(Protocol):
    """What a room knows of a session: where it is written to, and how it is answered."""

    transport: Transport

    def reply_acks(self, room: int, results: list[AckResult], firsts: Sequence[FirstResult] = ()) -> None:
        """Answer POSTs of this session; ``firsts``: for those whose key was used before."""

    def reply_with_reason(self, room: int, result: AckResult, reason: str, retry_after_ms: int = 0) -> None:
        """Answer a POST of this session, with a reason for its user and when it would be taken, 0 = not known."""

    def on_left(self, room: RoomRef, reason: LeaveReason, message: str) -> None:
        """Handle that the room has removed this session."""


class Mirror(Protocol):
    """Publishes to other nodes what a room publishes to its members here."""

    def publish(self, by_tier: Sequence[Sequence[Content]], to_staff: bool) -> None:
        """Take contents for all members, by tier; ``to_staff``: for staff too."""


class Member:
    """One session in one room."""

    __slots__ = (
        "index",
        "joined_at_ms",
        "may_post",
        "name",
        "role",
        "session",
        "since",
        "tags",
        "user_id",
        "variant",
    )

    def __init__(
        self,
        session: Subscriber,
        user_id: str,
        name: str,
        role: Role,
        may_post: frozenset[int],
        variant: int,
        tags: tuple[str, ...] = (),
    ) -> None:
        self.session = session
        self.user_id = user_id
        self.name = name
        self.role = role
        self.may_post = may_post
        self.variant = variant
        self.tags = tags
        """Those of its token; what counts in the room is `Members.tags_of`."""
        self.index = -1
        """Its slot in `Members`; -1 = in none."""
        self.since = 0
        """Number of the last content published before it joined: it gets later ones only."""
        self.joined_at_ms = 0
        """When it entered the room, in Unix milliseconds; 0 = it is in none."""


PostRef = tuple[Member, int]
"""Reply address of one POST: the member, and the client's number for it. The reply belongs to the link: it is sent also
after the member has left. A plain tuple, as every message makes one."""
_new = tuple.__new__


class Sender(Protocol):
    """A socket as the fan-out uses it. (Its method is looked up at each send, which costs no more than a bound method
    for each member, and 72 bytes less.)"""

    def send(self, data: bytes, /) -> int:
        """Write what the kernel takes now; return how many bytes. OSError as `socket.socket.send`."""


class _NoSender:
    """Stands for the socket of an empty slot, whose code keeps the fan-out from calling it."""

    def send(self, data: bytes, /) -> int:
        raise BrokenPipeError("the slot is empty")


_NO_SENDER = _NoSender()


class Members:
    """The members of a room, each in a slot of its own for as long as it stays: O(1) to add and to remove.

    ``senders`` and ``codes`` are for the fan-out: the socket of each slot, and the bytes of which variant it gets, or
    `SLOW_PATH`. Members change their slot only in `close_up`.
    """

    __slots__ = (
        "_free",
        "_in_use",
        "_variants",
        "changed",
        "codes",
        "make_mirror",
        "mirror",
        "published",
        "remote",
        "senders",
        "slots",
        "tags_of",
    )

    def __init__(self, tags_of: Callable[[Member], int] = lambda member: 0) -> None:
        self.tags_of = tags_of
        """Returns the bits of a member's tags in the room as they are now."""
        self.slots: list[Member | None] = []
        self.senders: list[Sender] = []
        self.codes = bytearray()
        self.published = 0
        """Contents so far; each has its number."""
        self.changed: dict[Member, list[tuple[int, int]]] = {}
        """Members whose variant has changed, until they have what was encoded before: the number of the last content
        that was encoded for a variant, and that variant, the oldest first."""
        self.remote: dict[Member, None] = {}
        """Members whose links are at other nodes."""
        self.mirror: Mirror | None = None
        """Of a room with members at other nodes; None: it has none."""
        self.make_mirror: Callable[[], Mirror] | None = None
        """Returns a mirror of the room; None: there are no other nodes."""
        self._free: list[int] = []
        self._in_use: dict[int, int] = {}
        """Members in a slot by variant, none without any."""
        self._variants: tuple[int, ...] | None = ()
        """The keys of that, in order; None after a change."""

    def __len__(self) -> int:
        return len(self.slots) - len(self._free) + len(self.remote)

    def add(self, member: Member) -> None:
        """Add a member; it gets what is published from now on."""
        member.since = self.published
        sender: Sender | None = member.session.transport.sock
        if sender is None:
            self._add_remote(member)
            return
        if self._free:
            index = self._free.pop()
            self.slots[index] = member
            self.senders[index] = sender
        else:
            index = len(self.slots)
            self.slots.append(member)
            self.senders.append(sender)
            self.codes.append(SLOW_PATH)
        member.index = index
        self._count(member.variant, 1)

    def _add_remote(self, member: Member) -> None:
        """Add a member whose link is at another node."""
        member.index = REMOTE
        self.remote[member] = None
        if self.mirror is None and self.make_mirror is not None:
            self.mirror = self.make_mirror()

    def remove(self, member: Member) -> None:
        """Remove a member; a sweep in flight skips its slot from now on."""
        index = member.index
        member.index = -1
        if index == REMOTE:
            del self.remote[member]
            return
        self.slots[index] = None
        self.senders[index] = _NO_SENDER
        self.codes[index] = SLOW_PATH
        self._free.append(index)
        self._count(member.variant, -1)
        self.changed.pop(member, None)

    def change_variant(self, member: Member, variant: int) -> None:
        """Let a member get another variant of what is published from now on."""
        if 0 <= member.index < REMOTE:
            self._count(member.variant, -1)
            self._count(variant, 1)
            self.codes[member.index] = SLOW_PATH  # until the contents that are in flight have reached it
            self.changed.setdefault(member, []).append((self.published, member.variant))
        member.variant = variant

    def variant_of(self, member: Member, number: int) -> int:
        """Return the variant in which a member gets the content with this number."""
        for last, variant in self.changed.get(member, ()):
            if number <= last:
                return variant
        return member.variant

    def has_changed(self, member: Member, oldest: int) -> bool:
        """Return whether a content from the number ``oldest`` on was encoded for an earlier variant of a member."""
        before = [each for each in self.changed.get(member, ()) if each[0] >= oldest]
        if before:
            self.changed[member] = before
        else:
            self.changed.pop(member, None)
        return bool(before)

    def use_slow_path(self, member: Member) -> None:
        """Let the fan-out write to the queue of a backlogged member."""
        if 0 <= member.index < REMOTE:
            self.codes[member.index] = SLOW_PATH

    def use_fast_path(self, member: Member) -> None:
        """Let the fan-out write to the member's socket."""
        self.codes[member.index] = member.variant

    def close_up(self) -> None:
        """Remove the empty slots if they are many. Only between sweeps: it moves members. O(members), amortized over
        those who have left."""
        if len(self._free) > max(_MAX_HOLES, len(self.slots) // 2):
            members = self.local()
            codes = bytes(self.codes[member.index] for member in members)
            self.senders = [self.senders[member.index] for member in members]
            self.codes = bytearray(codes)
            self.slots = list(members)
            self._free = []
            for index, member in enumerate(members):
                member.index = index

    def all(self) -> list[Member]:
        """Return all members of this moment."""
        return [*self.local(), *self.remote]

    def local(self) -> list[Member]:
        """Return the members whose links are at this node."""
        return [member for member in self.slots if member is not None]

    def variants(self) -> tuple[int, ...]:
        """Return the variants in use. O(1) but after the first member of one, or the last."""
        variants = self._variants
        if variants is None:
            variants = self._variants = tuple(sorted(self._in_use))
        return variants

    def _count(self, variant: int, more: int) -> None:
        """Count members of a variant."""
        count = self._in_use.get(variant, 0) + more
        if count:
            if count == more:
                self._variants = None
            self._in_use[variant] = count
        else:
            self._variants = None
            del self._in_use[variant]


def reply_all(room: int, outcomes: Sequence[tuple[PostRef, Outcome]]) -> None:
    """Answer the POSTs of a tick to the room with this number, all of a member together."""
    by_member: dict[Member, list[AckResult]] = {}
    for (member, sequence), outcome in outcomes:
        results = by_member.get(member)
        if results is None:
            results = by_member[member] = []
        results.append(_new(AckResult, (sequence, outcome, 0)))
    for member, results in by_member.items():
        member.session.reply_acks(room, results)
