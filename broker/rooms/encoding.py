"""Encoding of what a room publishes: once per variant, never per viewer.

A *variant* is one way to write the same content: framing (TCP, WebSocket, JSON, events) x codec x tier, with names or
with masks over them. There are 120; a room encodes only those in use. A member knows its variant as a small integer, so
the fan-out finds its bytes with one list lookup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from broker.core.commerce.audiences import STAFF_BIT
from broker.core.rooms.audience import Selector, not_addressed
from broker.net.event_stream import event
from broker.net.transport import Framing, Part
from broker.net.websocket import ws_frame
from protocol.codes import Codec, Lane, Opcode, Tier
from protocol.compression import BUILT_IN_ONLY, THOROUGH_SHOWN, compress
from protocol.connection import Encoding, encode
from protocol.errors import LocalProtocolError
from protocol.frames import build_frame, pack_body
from protocol.message_rules import opcode_of
from protocol.messages import MAX_ENTRIES, Account, Event, Message, Tick

__all__ = [
    "MASKED",
    "TIERS",
    "VARIANTS",
    "Bundle",
    "Content",
    "Prepared",
    "packed_once",
    "prepare",
    "prepare_addressed",
    "prepare_for_viewers",
    "variant_of",
    "with_codec",
    "with_packed",
]

TIERS: tuple[Tier, ...] = (Tier.FULL, Tier.MEDIUM, Tier.LOW)
_TICK = Opcode.TICK
_TIER_INDEX = {tier: index for index, tier in enumerate(TIERS)}
_CODECS = len(Codec)
MASKED = len(Framing) * _CODECS * len(TIERS)
"""What is added to the number of a variant for the same one with masks."""
VARIANTS = 2 * MASKED
MAX_TICK_BODY_BYTES = 60 * 1024
"""A little below the frame cap, so that a tick that lz4 cannot shrink still fits."""


def variant_of(framing: Framing, codec: Codec, tier: Tier) -> int:
    """Return the number of a variant without masks, less than `MASKED`."""
    return (framing * _CODECS + codec) * len(TIERS) + _TIER_INDEX[tier]


def with_codec(variant: int, codec: Codec) -> int:
    """Return the number of the variant that differs in the codec alone."""
    form, tier = divmod(variant, len(TIERS))
    return (form // _CODECS * _CODECS + codec) * len(TIERS) + tier


class Content(NamedTuple):
    """One message for the whole room; ``weight``: danmaku inside; ``part_key``: of lane 4, which counters it has: a
    queue keeps the newest of each; ``packed``: its body, where that is packed already."""

    message: Message
    lane: Lane
    sequence: int
    weight: int = 0
    part_key: int = 0
    packed: bytes = b""


class Bundle(NamedTuple):
    """The bytes of one variant: ``joined`` for a bare write, ``parts`` to queue and drop for a backlogged member."""

    joined: bytes
    parts: tuple[Part, ...]


class Prepared(NamedTuple):
    """A write for a room: its ``bundles`` by variant in use. ``frames[variant]`` is the joined bytes, None where
    unused and at `SLOW_PATH`."""

    lane: Lane
    frames: list[bytes | None]
    bundles: dict[int, Bundle]
    selector: Selector | None = None
    """The part of the room that it is for, None = all."""
    others: Prepared | None = None
    """What the other members get where it is for a part of the room."""

    def seen_by(self, tags: int) -> Prepared:
        """Return what a member with these tags gets."""
        return self if self.others is None or self.selector is None or self.selector.selects(tags) else self.others

    @property
    def nbytes(self) -> int:
        """Bytes of the longest write to a member."""
        longest = max([len(bundle.joined) for bundle in self.bundles.values()], default=0)
        return longest if self.others is None else max(longest, self.others.nbytes)


def with_packed(content: Content, body: bytes) -> Content:
    """Return a content with the packed body of its message, where that is one frame: of a large tick it is several."""
    message = content.message
    if type(message) is Tick and (len(message.entries) > MAX_ENTRIES or len(body) > MAX_TICK_BODY_BYTES):
        return content
    return content._replace(packed=body)


def packed_once(by_tier: Sequence[Sequence[Content]]) -> list[list[Content]]:
    """Return contents with their bodies packed, for who uses them more than once; equal tiers stay one object."""
    made: dict[int, list[Content]] = {}
    known: dict[int, Content] = {}
    for contents in by_tier:
        if id(contents) not in made:
            for each in contents:
                if id(each) not in known:
                    is_packed = bool(each.packed)
                    known[id(each)] = each if is_packed else with_packed(each, pack_body(each.message))
            made[id(contents)] = [known[id(each)] for each in contents]
    return [made[id(contents)] for contents in by_tier]


def _no_id(offset: int) -> str:
    return ""


def _unmasked(message: Message) -> Message:
    return message


def _masked(content: Content, mask: Callable[[Message], Message]) -> Content:
    message = mask(content.message)
    return content if message is content.message else content._replace(message=message, packed=b"")


def prepare(
    variants: Iterable[int],
    by_tier: Sequence[Sequence[Content]],
    room: int,
    event_id: Callable[[int], str] = _no_id,
    mask: Callable[[Message], Message] = _unmasked,
    dictionaries: Mapping[int, bytes] = BUILT_IN_ONLY,
    receivers: int = THOROUGH_SHOWN,
) -> Prepared:
    """Encode content once per variant in use. ``by_tier``: what each of `TIERS` gets; tiers may share one object;
    ``event_id``: returns the id of an offset, for streams of events; ``mask``: returns a message with masks;
    ``dictionaries``: by codec; ``receivers``: how many get it, about, for a few of whom a tick is compressed faster."""
    frames: list[bytes | None] = [None] * (VARIANTS + 1)
    bundles: dict[int, Bundle] = {}
    made: dict[tuple[int, int, bool], Bundle] = {}
    masked: dict[int, list[Content]] = {}
    framed = _BinaryFrames(room, dictionaries, receivers)
    lane = min(content.lane for contents in by_tier for content in contents)
    for variant in variants:
        is_masked = variant >= MASKED
        form, tier_index = divmod(variant - MASKED if is_masked else variant, len(TIERS))
        contents = by_tier[tier_index]
        if not contents:
            continue
        key = (form, id(contents), is_masked)
        bundle = made.get(key)
        if bundle is None:
            if is_masked:
                shown = masked.get(id(contents))
                if shown is None:
                    shown = masked[id(contents)] = [_masked(each, mask) for each in contents]
                contents = shown
            bundle = made[key] = _bundle(form, contents, room, framed, event_id)
        frames[variant] = bundle.joined
        bundles[variant] = bundle
    return Prepared(lane, frames, bundles)


def prepare_addressed(
    variants: Iterable[int],
    content: Content,
    selector: Selector,
    room: int,
    event_id: Callable[[int], str] = _no_id,
    mask: Callable[[Message], Message] = _unmasked,
    dictionaries: Mapping[int, bytes] = BUILT_IN_ONLY,
) -> Prepared:
    """Encode an event for a part of the room, once for it and once for the others, in every variant in use."""
    assert isinstance(content.message, Event)
    hidden = content._replace(message=not_addressed(content.message), packed=b"")
    shown = prepare(variants, [[content]] * len(TIERS), room, event_id, mask, dictionaries)
    others = prepare(variants, [[hidden]] * len(TIERS), room, event_id, dictionaries=dictionaries)
    return shown._replace(selector=selector, others=others)


def prepare_for_viewers(
    variants: Iterable[int],
    by_tier: Sequence[Sequence[Content]],
    room: int,
    mask: Callable[[Message], Message] = _unmasked,
    dictionaries: Mapping[int, bytes] = BUILT_IN_ONLY,
    receivers: int = THOROUGH_SHOWN,
) -> Prepared:
    """Encode content without an offset for all members but staff, see `prepare`."""
    shown = prepare(variants, by_tier, room, mask=mask, dictionaries=dictionaries, receivers=receivers)
    nothing = Prepared(shown.lane, [None] * (VARIANTS + 1), {})
    return shown._replace(selector=Selector(0, 0, STAFF_BIT), others=nothing)


class _BinaryFrames:
    """Binary frames of contents, each packed once for all codecs and compressed once for all framings."""

    __slots__ = ("_dictionaries", "_frames", "_packed", "_receivers", "_room")

    def __init__(self, room: int, dictionaries: Mapping[int, bytes], receivers: int) -> None:
        self._receivers = receivers
        self._room = room
        self._dictionaries = dictionaries
        self._packed: dict[int, list[tuple[Message, bytes]]] = {}
        self._frames: dict[tuple[int, Codec], list[bytes]] = {}

    def of(self, content: Content, codec: Codec) -> list[bytes]:
        """Return the frames of a content, which must live as long as this object."""
        key = id(content), codec
        frames = self._frames.get(key)
        if frames is None:
            pieces = self._packed.get(key[0])
            if pieces is None:
                pieces = [(content.message, content.packed)] if content.packed else _pack(content.message)
                self._packed[key[0]] = pieces
            frames = self._frames[key] = [self._frame(content, message, body, codec) for message, body in pieces]
        return frames

    def _frame(self, content: Content, message: Message, body: bytes, codec: Codec) -> bytes:
        opcode = opcode_of(message)
        shown = content.weight * self._receivers
        small = compress(body, codec, self._dictionaries, is_tick=opcode is _TICK, shown=shown)
        if small is None:
            return build_frame(opcode, content.lane, self._room, content.sequence, body)
        return build_frame(opcode, content.lane, self._room, content.sequence, small, codec)


def _bundle(
    form: int, contents: Sequence[Content], room: int, binary: _BinaryFrames, event_id: Callable[[int], str]
) -> Bundle:
    number, codec = divmod(form, _CODECS)
    framing = Framing(number)
    parts = []
    for content in contents:
        if framing is Framing.WEBSOCKET_JSON:
            data = b"".join([ws_frame(frame, text=True) for frame in _json_frames(content, room)])
        elif framing is Framing.EVENT_STREAM:
            has_offset = type(content.message) is Event and content.lane < Lane.CHAT
            named = event_id(content.sequence) if has_offset else ""
            data = b"".join([event(frame, named) for frame in _json_frames(content, room)])
        else:
            frames = binary.of(content, Codec(codec))
            data = b"".join(frames if framing is Framing.TCP else map(ws_frame, frames))
        parts.append(Part(data, content.lane, content.weight, room | content.part_key << 32))
    joined = parts[0].data if len(parts) == 1 else b"".join(part.data for part in parts)
    return Bundle(joined, tuple(parts))


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
        yield data
