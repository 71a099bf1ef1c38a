"""Who hears a room, and in which of few forms: encode once per form, never per viewer.

A *variant* is one way to write the same content: framing (TCP, WebSocket, JSON) x codec x tier. There are 27; a room
encodes only those that somebody needs. A member knows its variant as a small integer, so the fan-out finds its bytes
with one list look-up.

An audience is three lists side by side: members, their sockets' ``send``, and a byte each that says which bytes to
send. The hot loop reads the last two only, so a viewer costs it no more memory traffic than the bare loop: with
100,000 viewers every further object is a miss of the processor's caches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from broker.net.transport import Framing, Part, Transport
from broker.net.websocket import ws_frame
from protocol.codes import Codec, Lane, LeaveReason, Role, Tier
from protocol.compression import compress
from protocol.connection import Encoding, encode
from protocol.errors import LocalProtocolError
from protocol.frames import build_frame, pack_body
from protocol.messages import MAX_ENTRIES, Account, AckResult, Message, Tick, opcode_of

__all__ = [
    "SLOW_PATH",
    "TIERS",
    "Bundle",
    "Content",
    "Member",
    "Members",
    "Prepared",
    "Subscriber",
    "prepare",
    "variant_of",
]

TIERS: tuple[Tier, ...] = (Tier.FULL, Tier.MEDIUM, Tier.LOW)
_TIER_INDEX = {tier: index for index, tier in enumerate(TIERS)}
_CODECS = len(Codec)
VARIANTS = len(Framing) * _CODECS * len(TIERS)
SLOW_PATH = VARIANTS
"""The code of a place that the fan-out must look at closely: nobody is there, or somebody who has just come or is
behind. No frame ever stands at this index."""
_MAX_HOLES = 64
"""Places nobody sits in are closed up when they are more than these and more than half."""


def variant_of(framing: Framing, codec: Codec, tier: Tier) -> int:
    """The number of one form, 0 to 26."""
    return (framing * _CODECS + codec) * len(TIERS) + _TIER_INDEX[tier]


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


class Content(NamedTuple):
    """One message for the whole room; ``weight``: danmaku inside."""

    message: Message
    lane: Lane
    sequence: int
    weight: int = 0


class Bundle(NamedTuple):
    """The bytes of one variant: ``joined`` for a viewer that keeps up, ``parts`` to queue and drop for one that
    does not."""

    joined: bytes
    parts: tuple[Part, ...]


class Prepared(NamedTuple):
    """A write for a room, ready in every form in use. ``frames[variant]`` is the joined bytes, None where unused and at
    LOOK."""

    lane: Lane
    frames: list[bytes | None]
    bundles: list[Bundle | None]


def prepare(variants: Iterable[int], by_tier: Sequence[Sequence[Content]], room: int) -> Prepared:
    """Encode content once per variant in use. ``by_tier``: what each of `TIERS` gets; tiers may share one object."""
    frames: list[bytes | None] = [None] * (VARIANTS + 1)
    bundles: list[Bundle | None] = [None] * (VARIANTS + 1)
    made: dict[tuple[int, int], Bundle] = {}
    packed: dict[int, list[tuple[Message, bytes]]] = {}
    lane = min(content.lane for contents in by_tier for content in contents)
    for variant in variants:
        form, tier_index = divmod(variant, len(TIERS))
        contents = by_tier[tier_index]
        if not contents:
            continue
        key = (form, id(contents))
        bundle = made.get(key)
        if bundle is None:
            bundle = made[key] = _bundle(form, contents, room, packed)
        frames[variant] = bundle.joined
        bundles[variant] = bundle
    return Prepared(lane, frames, bundles)


def _bundle(
    form: int, contents: Sequence[Content], room: int, packed: dict[int, list[tuple[Message, bytes]]]
) -> Bundle:
    number, codec = divmod(form, _CODECS)
    framing = Framing(number)
    parts = []
    for content in contents:
        if framing is Framing.WEBSOCKET_JSON:
            data = b"".join(_json_frames(content, room))
        else:
            pieces = packed.get(id(content))
            if pieces is None:
                pieces = packed[id(content)] = _pack(content.message)
            data = b"".join(_binary_frames(content, pieces, room, Codec(codec), framing))
        parts.append(Part(data, content.lane, content.weight, room))
    joined = parts[0].data if len(parts) == 1 else b"".join(part.data for part in parts)
    return Bundle(joined, tuple(parts))


def _binary_frames(
    content: Content, pieces: list[tuple[Message, bytes]], room: int, codec: Codec, framing: Framing
) -> Iterable[bytes]:
    for message, body in pieces:
        opcode = opcode_of(message)
        small = compress(body, codec)
        if small is None:
            frame = build_frame(opcode, content.lane, room, content.sequence, body)
        else:
            frame = build_frame(opcode, content.lane, room, content.sequence, small, codec)
        yield frame if framing is Framing.TCP else ws_frame(frame)


def _pack(message: Message) -> list[tuple[Message, bytes]]:
    """Pack a body; a tick above the frame cap becomes several, of which the last carries the account."""
    if not isinstance(message, Tick):
        return [(message, pack_body(message))]
    if len(message.entries) <= MAX_ENTRIES:
        body = pack_body(message)
        if len(body) <= MAX_TICK_BODY_BYTES:
            return [(message, body)]
    first, second = _halves(message)
    return [*_pack(first), *_pack(second)]


MAX_TICK_BODY_BYTES = 60 * 1024
"""A little below the frame cap, so that a tick that lz4 cannot shrink still fits."""


def _halves(tick: Tick) -> tuple[Tick, Tick]:
    middle = len(tick.entries) // 2
    return (
        tick._replace(entries=tick.entries[:middle], account=Account()),
        tick._replace(entries=tick.entries[middle:]),
    )


def _json_frames(content: Content, room: int) -> Iterable[bytes]:
    message = content.message
    try:
        data = encode(message, room, content.sequence, content.lane, Encoding.JSON)
    except LocalProtocolError:
        if not isinstance(message, Tick) or len(message.entries) < 2:
            raise
        for half in _halves(message):
            yield from _json_frames(content._replace(message=half), room)
    else:
        yield ws_frame(data, text=True)
