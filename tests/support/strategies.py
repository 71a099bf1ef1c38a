"""Hypothesis strategies for the wire: every message of both sides, headers, splits of bytes, and mutations.

Messages are drawn in the form in which a receiver gets them (tuples, enum members, typed payloads of a POST), so that
``decode(encode(message)) == message`` can be asked for as it stands. They obey every rule of their fields, up to the
limits; client messages also fit into a client's body.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal
from unicodedata import normalize

from hypothesis import strategies as st

from protocol.codes import Lane, LeaveReason, MediaKind, MessageType, Opcode, Outcome, Role, RoomPhase, Tier
from protocol.dictionaries import MAX_DICTIONARY_BYTES
from protocol.fields import MAX_DEPTH, MAX_INT
from protocol.message_rules import OPCODE_LANES, opcode_of
from protocol.messages import (
    MAGIC,
    Account,
    Ack,
    AckReason,
    AckResult,
    ActivityView,
    Auth,
    Authenticated,
    Call,
    ClientHello,
    CustomType,
    Direct,
    DirectAck,
    ErrorReply,
    Event,
    FirstResult,
    GoAway,
    Join,
    Joined,
    Leave,
    Left,
    Message,
    OfferedDictionary,
    Ping,
    PinnedMessage,
    Pong,
    Post,
    Result,
    Resume,
    Resumed,
    RoomKey,
    RoomPulse,
    RoomRole,
    ServerHello,
    Side,
    State,
    Tick,
    TickEntry,
)
from protocol.operations import BY_NAME, BY_NUMBER, OPERATIONS
from protocol.payloads import (
    AnnouncementPayload,
    DanmakuPayload,
    DeletedPayload,
    EmotePayload,
    GiftPayload,
    HighlightPayload,
    LikePayload,
    MediaPayload,
    PhasePayload,
)
from protocol.text import is_blank, is_display_name, is_room_name, is_user_id

Strategy = st.SearchStrategy[Any]

UINT32 = 2**32 - 1
u32 = st.integers(0, UINT32)
counts = st.one_of(st.integers(0, 100), st.integers(0, MAX_INT))
"""Counters, milliseconds, offsets: most are small, some are the largest that the wire takes."""

_SURROGATES: tuple[Literal["Cs"]] = ("Cs",)
_TEXT = st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"))


def texts(low: int, high: int) -> Strategy:
    """Draw text that the rule ``fields.text(low, high)`` accepts."""
    return st.text(_TEXT, min_size=low, max_size=high)


def seen_texts(high: int) -> Strategy:
    """Draw text that the rule ``fields.characters(high, 4 * high)`` accepts."""
    return texts(1, high).filter(lambda text: not is_blank(text))


ids = texts(1, 64)
names = texts(0, 64)
reasons = texts(0, 256)
_ROOM = st.one_of(st.sampled_from("-_.:@"), st.characters(categories=("L", "N")), st.sampled_from("กี่คิé가"))
room_names = st.text(_ROOM, min_size=1, max_size=64).map(partial(normalize, "NFC")).filter(is_room_name)
user_ids = st.text(_TEXT, min_size=1, max_size=64).filter(is_user_id)
display_names = names.filter(is_display_name)

_scalars: Strategy = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=_SURROGATES), max_size=20),
)


def _containers(children: Strategy) -> Strategy:
    keys = st.text(st.characters(exclude_categories=_SURROGATES), max_size=8)
    return st.one_of(
        st.lists(children, max_size=4).map(tuple),
        st.dictionaries(keys, children, max_size=4),
    )


free_values: Strategy = st.recursive(_scalars, _containers, max_leaves=8)
"""Values of a free field as a receiver gets them: arrays are tuples."""


@st.composite
def nested(draw: st.DrawFn, depth: int) -> Any:
    """Draw a free value of exactly ``depth`` nested arrays and maps."""
    value = draw(_scalars)
    for _ in range(depth):
        value = draw(st.sampled_from([(value,), {"k": value}, (1, value), {"a": 1, "b": value}]))
    return value


payloads: dict[int, Strategy] = {
    MessageType.DANMAKU: st.builds(
        DanmakuPayload,
        seen_texts(100),
        st.none() | st.tuples(st.integers(0, 2), st.integers(0, 0xFFFFFF), st.integers(0, 2)),
    ),
    MessageType.EMOTE: st.builds(EmotePayload, ids),
    MessageType.LIKE: st.builds(LikePayload, st.integers(1, 1000)),
    MessageType.ANNOUNCEMENT: st.builds(AnnouncementPayload, seen_texts(100) | st.just("two\nlines\tand a tab")),
    MessageType.GIFT: st.builds(
        GiftPayload,
        ids,
        user_ids,
        display_names,
        ids,
        st.integers(1, 1_000_000),
        counts,
        st.just("") | user_ids,
        st.booleans() | texts(0, 64),
        counts,
        counts,
        counts,
        counts,
    ),
    MessageType.HIGHLIGHT: st.builds(
        HighlightPayload,
        ids,
        user_ids,
        display_names,
        seen_texts(200),
        st.integers(1, 10**12),
        counts,
        counts,
        counts,
    ),
    MessageType.ROOM_PHASE: st.builds(PhasePayload, st.sampled_from(RoomPhase)),
    MessageType.MEDIA: st.builds(
        MediaPayload,
        st.sampled_from(["https://cdn.example/a.jpg", "https://[::1]:8443/x?y=1&z=%20#f", "https://a"]),
        st.sampled_from(MediaKind),
        st.integers(0, 2**40),
        st.text("0123456789abcdef", min_size=64, max_size=64),
        texts(0, 200),
    ),
    MessageType.MESSAGES_DELETED: st.builds(
        DeletedPayload,
        st.lists(st.integers(1, MAX_INT), max_size=100).map(tuple),
        st.just("") | user_ids,
        counts,
        texts(0, 256),
    ),
}
"""Typed payloads of the built-in types."""

custom_types = st.integers(128, 255)
message_types = st.integers(1, 255)


@st.composite
def posts(draw: st.DrawFn) -> Post:
    """Draw a POST as a server receives it: the payload typed, or free for a custom type."""
    kind = draw(st.sampled_from([*payloads, 128, 255]))
    return Post(int(kind), draw(texts(0, 64)), draw(payloads.get(kind, free_values)))


accounts = st.builds(Account, *[counts] * 6)
entries = st.builds(
    TickEntry, message_types, ids, names, free_values, st.integers(1, MAX_INT), st.lists(ids, max_size=3).map(tuple)
)


def _tuples(element: Strategy, high: int) -> Strategy:
    return st.lists(element, max_size=high).map(tuple)


_digests = st.sampled_from(["5f" * 32, "0" * 64, "a9" * 32])
_unknown_operations = st.integers(60_000, 65_535) | texts(1, 64).filter(lambda name: name not in BY_NAME)
_operations = st.sampled_from(sorted(BY_NUMBER)) | _unknown_operations
_events = st.builds(Event, message_types, counts, names, names, free_values)
_activity_views = st.builds(ActivityView, texts(1, 32), names, free_values)
joined = st.builds(
    Joined,
    room_names,
    counts,
    counts,
    st.sampled_from(Role),
    st.sampled_from(RoomPhase),
    st.sampled_from(Tier),
    *[counts] * 6,
    _tuples(entries, 2),
    st.booleans(),
    st.none() | _events,
    _tuples(st.builds(RoomKey, texts(1, 128), free_values, counts, st.none() | counts, st.none() | user_ids), 2),
    counts,
    _tuples(st.builds(PinnedMessage, ids, message_types, free_values, names, names, *[counts] * 3), 2),
    _tuples(_activity_views, 2),
    _tuples(_activity_views, 2),
    counts,
)
_tiers = st.sampled_from(Tier)
_goaways = st.builds(GoAway, st.integers(1000, 4999), reasons, counts, counts, _tuples(texts(1, 255), 2))

MESSAGES: dict[tuple[Side, Opcode], Strategy] = {
    (Side.CLIENT, Opcode.HELLO): st.builds(
        ClientHello, st.just(MAGIC), st.integers(1, 255), st.integers(1, 255), u32, texts(0, 128), _tuples(_digests, 3)
    ),
    (Side.CLIENT, Opcode.AUTH): st.builds(Auth, st.none() | texts(1, 200)),
    (Side.CLIENT, Opcode.JOIN): st.builds(Join, room_names, _tiers),
    (Side.CLIENT, Opcode.LEAVE): st.builds(Leave),
    (Side.CLIENT, Opcode.POST): posts(),
    (Side.CLIENT, Opcode.ACK): st.builds(DirectAck, counts),
    (Side.CLIENT, Opcode.PING): st.builds(Ping, counts, st.booleans(), st.none() | texts(1, 200)),
    (Side.CLIENT, Opcode.RESUME): st.builds(Resume, room_names, _tiers, counts, counts),
    (Side.CLIENT, Opcode.GOAWAY): _goaways,
    (Side.CLIENT, Opcode.CALL): st.builds(
        Call, _operations, texts(0, 128), _tuples(free_values, 3) | st.dictionaries(st.text(max_size=8), free_values)
    ),
    (Side.SERVER, Opcode.HELLO): st.builds(
        ServerHello,
        st.integers(1, 255),
        u32,
        counts,
        counts,
        counts,
        st.integers(1, MAX_INT),
        _tuples(st.builds(CustomType, custom_types, ids, st.sampled_from(Lane)), 3),
        names,
        _tuples(st.builds(OfferedDictionary, st.integers(1, 15), _digests, st.integers(1, MAX_DICTIONARY_BYTES)), 3),
    ),
    (Side.SERVER, Opcode.AUTH): st.builds(
        Authenticated,
        ids,
        names,
        counts,
        texts(0, 200),
        counts,
        _tuples(st.builds(RoomRole, u32, st.sampled_from(Role)), 3),
    ),
    (Side.SERVER, Opcode.JOIN): joined,
    (Side.SERVER, Opcode.LEAVE): st.builds(Left, st.sampled_from(LeaveReason), reasons),
    (Side.SERVER, Opcode.ACK): st.builds(
        Ack,
        _tuples(st.builds(AckResult, u32, st.sampled_from(Outcome), counts), 5),
        _tuples(st.builds(FirstResult, u32, room_names, counts, counts), 5),
        _tuples(st.builds(AckReason, u32, reasons, counts), 5),
    ),
    (Side.SERVER, Opcode.EVENT): _events,
    (Side.SERVER, Opcode.TICK): st.builds(Tick, counts, counts, st.integers(0, 4), _tuples(entries, 3), accounts),
    (Side.SERVER, Opcode.STATE): st.builds(
        State,
        counts,
        st.sampled_from(RoomPhase),
        st.integers(0, 4),
        *[counts] * 6,
        _tuples(st.tuples(ids, counts), 2),
        _tuples(st.tuples(ids, names), 2),
        counts,
        _tuples(accounts, 5),
    ),
    (Side.SERVER, Opcode.DIRECT): st.builds(Direct, counts, message_types, counts, free_values),
    (Side.SERVER, Opcode.PONG): st.builds(
        Pong, counts, counts, _tuples(st.builds(RoomPulse, u32, counts, counts), 3), counts, texts(0, 200), counts
    ),
    (Side.SERVER, Opcode.ERROR): st.builds(ErrorReply, st.integers(100, 999), reasons, names, counts),
    (Side.SERVER, Opcode.GOAWAY): _goaways,
    (Side.SERVER, Opcode.RESUME): st.builds(Resumed, st.booleans(), counts, joined),
    (Side.SERVER, Opcode.RESULT): st.builds(Result, _unknown_operations, free_values)
    | st.sampled_from([Result(row.number, row.example[1]) for row in OPERATIONS]),
}
"""Messages by the side that sends them and their opcode."""


def messages(side: Side, *but: Opcode) -> Strategy:
    """Draw a message that ``side`` may send, except of the opcodes in ``but``."""
    return st.one_of(
        [strategy for (sender, opcode), strategy in MESSAGES.items() if sender is side and opcode not in but]
    )


def lanes_of(side: Side, message: Message) -> Strategy:
    """Draw a lane that ``side`` may put into the header of ``message``."""
    if side is Side.CLIENT:
        return st.just(Lane.CONTROL)
    return st.sampled_from(sorted(OPCODE_LANES[opcode_of(message)]))


@st.composite
def splits(draw: st.DrawFn, data: bytes, most: int = 8) -> list[bytes]:
    """Draw ``data`` cut into pieces, some of which may be empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=most)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


too_deep = nested(MAX_DEPTH + 1)
