"""The messages of the wire: one NamedTuple per body, whose field order *is* the msgpack array.

A message is packed as it stands and read back through the rule table below, so there is one
description of each body for both encodings (binary and JSON), both directions and the specification.
Fields are only ever appended, with a default: an older reader ignores what it does not know.

Field units: ``*_ms`` milliseconds; ``at_ms``, ``server_ms``, ``expires_at_ms`` Unix milliseconds;
``price_cents`` integer cents. Text is counted in Unicode code points.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

from .codes import Lane, LeaveReason, Opcode, Outcome, Role, RoomPhase, Tier
from .fields import FieldError, Rule, any_value, array_of, boolean, integer, member_of, optional, record, text

__all__ = [
    "MAGIC",
    "MAX_ACK_RESULTS",
    "MAX_ENTRIES",
    "OPCODE_LANES",
    "VERSION",
    "Account",
    "Ack",
    "AckResult",
    "Auth",
    "Authenticated",
    "ClientHello",
    "CustomType",
    "Direct",
    "DirectAck",
    "ErrorReply",
    "Event",
    "GoAway",
    "Join",
    "Joined",
    "Leave",
    "Left",
    "Message",
    "Missed",
    "Ping",
    "Pong",
    "Post",
    "Resume",
    "Resumed",
    "RoomPulse",
    "ServerHello",
    "Side",
    "State",
    "Tick",
    "TickEntry",
    "opcode_of",
    "reader_of",
]

VERSION = 1
MAGIC = "roomcast"

MAX_ENTRIES = 1024
"""Elements of one array on the wire; a longer tick is split into several frames."""
MAX_ACK_RESULTS = 1024
MAX_LISTED = 64
"""Short lists: hosts, custom types, named joins."""

UINT32 = 0xFFFF_FFFF


class Side(IntEnum):
    """Which end of a link speaks."""

    CLIENT = 1
    SERVER = 2


# ---- parts ------------------------------------------------------------------------------------


class Account(NamedTuple):
    """What became of the messages of one lane: ``admitted`` is always the sum of the other five."""

    admitted: int = 0
    shown: int = 0
    merged: int = 0
    sampled: int = 0
    expired: int = 0
    held: int = 0


class AckResult(NamedTuple):
    """Fate of the POST that had ``sequence``.

    ``detail``: milliseconds to wait (LIMITED), an ErrorCode (REJECTED), the event's offset (ACCEPTED on
    lanes 0-2), how many likes counted (ACCEPTED like), else 0.
    """

    sequence: int
    outcome: Outcome
    detail: int = 0


class TickEntry(NamedTuple):
    """One shown danmaku or emote. ``count`` equal messages were merged into it, the first by ``user_id``."""

    type: int
    user_id: str
    name: str
    payload: Any
    count: int = 1  # type: ignore[assignment]  # hides tuple.count, which nobody needs
    senders: tuple[str, ...] = ()
    """Up to three further user ids, in order of arrival."""


class RoomPulse(NamedTuple):
    """One room in a heartbeat answer. ``missed_chat``: danmaku shown to others but dropped on this slow link."""

    room: int
    online: int
    interval_ms: int
    missed_chat: int = 0


class CustomType(NamedTuple):
    """A message type of the deployment's registry (128-255)."""

    type: int
    name: str
    lane: Lane


class Missed(NamedTuple):
    """Payload of a DIRECT of type MISSED: what one slow link lost in one room while it was behind."""

    room: int
    chat: int
    ambient: int = 0


# ---- client to server ---------------------------------------------------------------------------


class ClientHello(NamedTuple):
    """First frame of a link."""

    magic: str
    version_min: int
    version_max: int
    features: int = 0
    """Bits of `Feature` the client understands."""
    agent: str = ""


class Auth(NamedTuple):
    """Show a token; nil asks for guest access."""

    token: str | None


class Join(NamedTuple):
    """Enter a room by name; the answer carries its number."""

    room_name: str
    tier: Tier = Tier.FULL


class Leave(NamedTuple):
    """Leave the room of the header."""


class Post(NamedTuple):
    """Say something in the room of the header. The header's sequence is the client's number for the ACK.

    ``payload`` by type: DANMAKU ``[text, style?]``, EMOTE ``[emote_id]``, LIKE ``[count]``, ANNOUNCEMENT
    ``[text]``, GIFT ``[order_id, user_id, name, gift_id, count, price_cents, target]``, ROOM_PHASE ``[phase]``;
    custom types: any value.
    """

    type: int
    client_msg_id: str
    payload: Any


class DirectAck(NamedTuple):
    """All DIRECT messages up to ``direct_id`` have been shown."""

    direct_id: int


class Ping(NamedTuple):
    """Heartbeat; ``client_ms`` comes back."""

    client_ms: int


class Resume(NamedTuple):
    """Come back to a room at a position: everything of lanes 0-2 after ``offset`` is sent again."""

    room_name: str
    tier: Tier
    epoch: int
    offset: int


# ---- server to client ---------------------------------------------------------------------------


class ServerHello(NamedTuple):
    """Answer to HELLO."""

    version: int
    features: int
    server_ms: int
    heartbeat_ms: int
    cut_ms: int
    """The link is cut after this much silence."""
    max_rooms: int
    types: tuple[CustomType, ...] = ()
    server: str = ""


class Authenticated(NamedTuple):
    """Who the broker takes the client for; ``expires_at_ms`` 0 = never."""

    user_id: str
    name: str
    expires_at_ms: int = 0


class Joined(NamedTuple):
    """Answer to JOIN and snapshot of the room: renders it with no further request."""

    room_name: str
    epoch: int
    offset: int
    """Last event of lanes 0-2; what follows on the link starts at ``offset + 1``."""
    role: Role
    phase: RoomPhase
    tier: Tier
    interval_ms: int
    online: int
    users: int
    uniques: int
    peak: int
    likes: int
    recent: tuple[TickEntry, ...] = ()


class Left(NamedTuple):
    """The link is no longer in the room of the header."""

    reason: LeaveReason
    message: str = ""


class Ack(NamedTuple):
    """Fates of POSTs in the room of the header."""

    results: tuple[AckResult, ...]


class Event(NamedTuple):
    """One event of lanes 0-2; the header's sequence is its offset in the room's stream."""

    type: int
    at_ms: int
    user_id: str
    name: str
    payload: Any


class Tick(NamedTuple):
    """What the room said since the last tick, for one tier; the header's sequence is the tick number.

    ``account`` speaks of this tick and tier. A tick split into several frames repeats the number, and
    only its last frame carries the account.
    """

    at_ms: int
    interval_ms: int
    stage: int
    entries: tuple[TickEntry, ...]
    account: Account = Account()


class State(NamedTuple):
    """Counters of the room; a newer one replaces an older one (the header's sequence rises)."""

    at_ms: int
    phase: RoomPhase
    stage: int
    interval_ms: int
    online: int
    users: int
    uniques: int
    peak: int
    likes: int
    top_likers: tuple[tuple[str, int], ...] = ()
    joins: tuple[tuple[str, str], ...] = ()
    """(user_id, name) of a sample of those who came in."""
    joins_more: int = 0
    accounts: tuple[Account, ...] = ()
    """Totals of the five lanes since the room began."""


class Direct(NamedTuple):
    """A message to one user, whatever room they are in."""

    direct_id: int
    """Rising per user; 0 = needs no acknowledgement."""
    type: int
    at_ms: int
    payload: Any


class Pong(NamedTuple):
    """Heartbeat answer."""

    client_ms: int
    server_ms: int
    rooms: tuple[RoomPulse, ...] = ()


class ErrorReply(NamedTuple):
    """The request with the header's sequence failed; the link lives. ``code`` may be newer than this reader."""

    code: int
    message: str
    field: str = ""
    retry_after_ms: int = 0


class GoAway(NamedTuple):
    """The link ends after this frame. Either side may send it; the range of ``code`` says whether to return."""

    code: int
    reason: str = ""
    retry_after_ms: int = 0
    jitter_ms: int = 0
    hosts: tuple[str, ...] = ()


class Resumed(NamedTuple):
    """Answer to RESUME; if ``recovered`` the missing events follow, in order, else the gap is named.

    Not recovered: the events in ``gap_from``..``snapshot.offset`` cannot be had (of another epoch if that differs).
    """

    recovered: bool
    gap_from: int
    snapshot: Joined


Message = (
    ClientHello | Auth | Join | Leave | Post | DirectAck | Ping | Resume
    | ServerHello | Authenticated | Joined | Left | Ack | Event | Tick | State | Direct | Pong | ErrorReply
    | GoAway | Resumed
)  # fmt: skip

# ---- rules --------------------------------------------------------------------------------------

_u32 = integer(0, UINT32)
_count = integer(0)
_ms = integer(0)
_name = text(0, 64)
_user_id = text(1, 64)
_reason = text(0, 256)


def _room_name(value: Any) -> str:
    checked: str = text(1, 64)(value)
    if not all(c.isalnum() or c in "-_.:@" for c in checked):
        raise FieldError("must be 1 to 64 letters, digits or - _ . : @")
    return checked


def _literal(expected: str) -> Rule:
    def check(value: Any) -> str:
        if value != expected or type(value) is not str:
            raise FieldError(f"must be {expected!r}")
        return expected

    return check


def _pair(first: Rule, second: Rule) -> Rule:
    def check(value: Any) -> tuple[Any, Any]:
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise FieldError("must be an array of 2 fields")
        return first(value[0]), second(value[1])

    return check


_account = record(Account, (_count,) * 6)
_entry = record(TickEntry, (integer(1, 255), _user_id, _name, any_value, integer(1), array_of(_user_id, 3)))
_recent = array_of(_entry, MAX_LISTED)
_joined = record(
    Joined,
    (
        _room_name, _count, _count, member_of(Role), member_of(RoomPhase), member_of(Tier), _ms,
        _count, _count, _count, _count, _count, _recent,
    ),
)  # fmt: skip
_goaway = record(GoAway, (integer(1000, 4999), _reason, _ms, _ms, array_of(text(1, 255), MAX_LISTED)))

_READERS: dict[tuple[Side, Opcode], Any] = {
    (Side.CLIENT, Opcode.HELLO): record(
        ClientHello, (_literal(MAGIC), integer(1, 255), integer(1, 255), _u32, text(0, 128))
    ),
    (Side.CLIENT, Opcode.AUTH): record(Auth, (optional(text(1, 4000)),)),
    (Side.CLIENT, Opcode.JOIN): record(Join, (_room_name, member_of(Tier))),
    (Side.CLIENT, Opcode.LEAVE): record(Leave, ()),
    (Side.CLIENT, Opcode.POST): record(Post, (integer(1, 255), text(0, 64), any_value)),
    (Side.CLIENT, Opcode.ACK): record(DirectAck, (_count,)),
    (Side.CLIENT, Opcode.PING): record(Ping, (_ms,)),
    (Side.CLIENT, Opcode.RESUME): record(Resume, (_room_name, member_of(Tier), _count, _count)),
    (Side.CLIENT, Opcode.GOAWAY): _goaway,
    (Side.SERVER, Opcode.HELLO): record(
        ServerHello,
        (
            integer(1, 255), _u32, _ms, _ms, _ms, integer(1),
            array_of(record(CustomType, (integer(128, 255), _user_id, member_of(Lane))), 128), _name,
        ),
    ),
    (Side.SERVER, Opcode.AUTH): record(Authenticated, (_user_id, _name, _ms)),
    (Side.SERVER, Opcode.JOIN): _joined,
    (Side.SERVER, Opcode.LEAVE): record(Left, (member_of(LeaveReason), _reason)),
    (Side.SERVER, Opcode.ACK): record(
        Ack, (array_of(record(AckResult, (_u32, member_of(Outcome), _count)), MAX_ACK_RESULTS),)
    ),
    (Side.SERVER, Opcode.EVENT): record(Event, (integer(1, 255), _ms, text(0, 64), _name, any_value)),
    (Side.SERVER, Opcode.TICK): record(
        Tick, (_ms, _ms, integer(0, 4), array_of(_entry, MAX_ENTRIES), _account)
    ),
    (Side.SERVER, Opcode.STATE): record(
        State,
        (
            _ms, member_of(RoomPhase), integer(0, 4), _ms, _count, _count, _count, _count, _count,
            array_of(_pair(_user_id, _count), MAX_LISTED), array_of(_pair(_user_id, _name), MAX_LISTED), _count,
            array_of(_account, 5),
        ),
    ),
    (Side.SERVER, Opcode.DIRECT): record(Direct, (_count, integer(1, 255), _ms, any_value)),
    (Side.SERVER, Opcode.PONG): record(
        Pong, (_ms, _ms, array_of(record(RoomPulse, (_u32, _count, _ms, _count)), MAX_ENTRIES))
    ),
    (Side.SERVER, Opcode.ERROR): record(ErrorReply, (integer(100, 999), _reason, _name, _ms)),
    (Side.SERVER, Opcode.GOAWAY): _goaway,
    (Side.SERVER, Opcode.RESUME): record(Resumed, (boolean, _count, _joined)),
}  # fmt: skip

_OPCODES: dict[type[Any], Opcode] = {
    ClientHello: Opcode.HELLO, ServerHello: Opcode.HELLO, Auth: Opcode.AUTH, Authenticated: Opcode.AUTH,
    Join: Opcode.JOIN, Joined: Opcode.JOIN, Leave: Opcode.LEAVE, Left: Opcode.LEAVE, Post: Opcode.POST,
    Ack: Opcode.ACK, DirectAck: Opcode.ACK, Event: Opcode.EVENT, Tick: Opcode.TICK, State: Opcode.STATE,
    Direct: Opcode.DIRECT, Ping: Opcode.PING, Pong: Opcode.PONG, ErrorReply: Opcode.ERROR,
    GoAway: Opcode.GOAWAY, Resume: Opcode.RESUME, Resumed: Opcode.RESUME,
}  # fmt: skip

_CONTROL = frozenset({Lane.CONTROL})
OPCODE_LANES: dict[Opcode, frozenset[Lane]] = {
    **dict.fromkeys(Opcode, _CONTROL),
    Opcode.EVENT: frozenset({Lane.CONTROL, Lane.COMMERCE, Lane.PAID}),
    Opcode.TICK: frozenset({Lane.CHAT}),
    Opcode.STATE: frozenset({Lane.AMBIENT}),
    Opcode.DIRECT: frozenset({Lane.COMMERCE}),
}
"""Lanes a server's frame of an opcode may carry in its header; a client's frames are all lane 0."""


def opcode_of(message: Message) -> Opcode:
    """The opcode whose body ``message`` is."""
    return _OPCODES[type(message)]


def reader_of(side: Side, opcode: Opcode) -> Any:
    """The rule that turns a body sent by ``side`` into its message, or None where that side never sends it."""
    return _READERS.get((side, opcode))
