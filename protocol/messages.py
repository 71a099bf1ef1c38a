"""Messages of the wire: one NamedTuple per body, whose field order *is* the msgpack array.

A message is packed as it is and read through the table of `message_rules`, so there is one description of each body for
both encodings (binary and JSON), both directions and the specification. New fields are only appended, with a default:
an older reader ignores unknown ones.

Field units: ``*_ms`` milliseconds; ``at_ms``, ``server_ms``, ``expires_at_ms`` Unix milliseconds; ``price_cents``
integer cents. The length of a text is counted in Unicode code points.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

from .codes import CUSTOM_TYPE_MAX, CUSTOM_TYPE_MIN, Lane, LeaveReason, Outcome, Role, RoomPhase, Tier

__all__ = [
    "MAGIC",
    "MAX_ACK_RESULTS",
    "MAX_ACTIVITIES",
    "MAX_CALLS",
    "MAX_DICTIONARIES",
    "MAX_DIRECT_BYTES",
    "MAX_ENTRIES",
    "MAX_FIRSTS",
    "MAX_KEYS",
    "MAX_KEY_CHARS",
    "MAX_LISTED",
    "MAX_PINS",
    "MAX_PULSES",
    "MAX_REASONS",
    "MAX_RECENT_BYTES",
    "MAX_RECIPIENTS",
    "MAX_TEMPLATE_FIELDS",
    "VERSION",
    "Account",
    "Ack",
    "AckReason",
    "AckResult",
    "Auth",
    "Authenticated",
    "Call",
    "ClientHello",
    "CustomType",
    "Direct",
    "DirectAck",
    "ErrorReply",
    "Event",
    "FirstResult",
    "GoAway",
    "Join",
    "Joined",
    "Leave",
    "Left",
    "Message",
    "Missed",
    "OfferedDictionary",
    "Ping",
    "PinnedMessage",
    "Pong",
    "Post",
    "Result",
    "Resume",
    "Resumed",
    "RoomKey",
    "RoomPulse",
    "RoomRole",
    "ServerHello",
    "Side",
    "State",
    "Tick",
    "TickEntry",
    "common_version",
]

VERSION = 1
MAGIC = "roomcast"

MAX_ENTRIES = 1024
"""Elements of one array on the wire; a longer tick is split into several frames."""
MAX_ACK_RESULTS = 1024
MAX_FIRSTS = 64
"""First uses in one ACK, and its results if it has any."""
MAX_REASONS = 64
MAX_PULSES = 1024
"""Rooms in one heartbeat answer."""
MAX_LISTED = 64
"""Short lists: recent danmaku of a snapshot, named joins, top likers, hosts."""
MAX_RECENT_BYTES = 32 * 1024
"""Recent danmaku of a snapshot, packed."""
MAX_PINS = 3
"""Pinned messages of one room."""
MAX_ACTIVITIES = 100
"""Activities of one room in the answer to a JOIN."""
MAX_KEYS = 100
"""Keys of one room."""
MAX_RECIPIENTS = 1024
"""Users of one call of directs.send_many; a CALL of 4 KiB rarely holds more than a hundred."""
MAX_TEMPLATE_FIELDS = 32
MAX_DICTIONARIES = 4
"""Dictionaries that one HELLO names."""
MAX_DIRECT_BYTES = 4096
"""Payload of one DIRECT that is kept until it is acknowledged, packed."""
MAX_CALLS = 32
"""CALLs of one link that may wait for their answer."""
MAX_KEY_CHARS = 128
"""Idempotency key of a CALL."""
MAX_CUSTOM_TYPES = CUSTOM_TYPE_MAX - CUSTOM_TYPE_MIN + 1

MAX_EXPIRY_S = 31_536_000
"""A year."""


class Side(IntEnum):
    """End of a link that sends a message."""

    CLIENT = 1
    SERVER = 2


# ---- parts ------------------------------------------------------------------------------------


class Account(NamedTuple):
    """Counts of the messages of one lane by result: ``admitted`` is always the sum of the other five."""

    admitted: int = 0
    shown: int = 0
    merged: int = 0
    sampled: int = 0
    expired: int = 0
    held: int = 0


class AckResult(NamedTuple):
    """Result of the POST with ``sequence``.

    ``detail``: milliseconds to wait (LIMITED), an ErrorCode (REJECTED), the event's offset (ACCEPTED on
    lanes 0-2), the number of counted likes (ACCEPTED like), else 0.
    """

    sequence: int
    outcome: Outcome
    detail: int = 0


class FirstResult(NamedTuple):
    """First use of the key of the POST with ``sequence``: where the post took effect that had it first."""

    sequence: int
    room_name: str
    epoch: int
    offset: int


class AckReason(NamedTuple):
    """Why the POST with ``sequence`` has its result, in words for its user.

    ``retry_after_ms``: when a REJECTED post would be taken, 0 = that is not known.
    """

    sequence: int
    text: str
    retry_after_ms: int = 0


class TickEntry(NamedTuple):
    """One shown danmaku or emote. ``count`` equal messages were merged into it, the first by ``user_id``."""

    type: int
    user_id: str
    name: str
    payload: Any
    count: int = 1  # type: ignore[assignment]  # hides tuple.count
    senders: tuple[str, ...] = ()
    """Up to three further user ids, in order of arrival."""
    role: Role = Role.VIEWER
    """Of the first sender, in this room."""


class RoomPulse(NamedTuple):
    """Numbers of one room in a PONG."""

    room: int
    online: int
    interval_ms: int


class CustomType(NamedTuple):
    """Message type of the deployment (128-255)."""

    type: int
    name: str
    lane: Lane


class RoomKey(NamedTuple):
    """One key of a room. ``owner``: the user that it belongs to. ``expires_at_ms``: by the broker's clock."""

    name: str
    value: Any
    version: int
    expires_at_ms: int | None = None
    owner: str | None = None


class PinnedMessage(NamedTuple):
    """One pinned message of a room.

    ``type``, ``payload``, ``user_id``, ``name``, ``at_ms``: of the message; ``expires_at_ms``: when the broker unpins
    it, by its own clock, 0 = never; ``offset``: of the event that it is a copy of, 0 = of none.
    """

    id: str
    type: int
    payload: Any
    user_id: str
    name: str
    at_ms: int
    expires_at_ms: int = 0
    offset: int = 0


class Missed(NamedTuple):
    """Payload of a DIRECT of type MISSED: what the broker dropped for a slow link, over all its rooms, or what was lost
    between the node that owns a room and the viewer's.

    ``chat``: danmaku that others were shown. ``ambient``: counter updates replaced by newer ones.
    """

    chat: int
    ambient: int = 0


# ---- client to server ---------------------------------------------------------------------------


class ClientHello(NamedTuple):
    """First frame of a link."""

    magic: str
    version_min: int
    version_max: int
    features: int = 0
    """Bits of `Feature` that the client supports."""
    agent: str = ""
    dictionaries: tuple[str, ...] = ()
    """Dictionaries that the client has, by SHA-256, besides the built-in one."""


class Auth(NamedTuple):
    """Authentication with a token; nil, or ``guest:`` and a random key that the client keeps, asks for guest access."""

    token: str | None


class Join(NamedTuple):
    """Request to join a room by name; the answer contains its number."""

    room_name: str
    tier: Tier = Tier.FULL


class Leave(NamedTuple):
    """Request to leave the room of the header."""


class Post(NamedTuple):
    """Message to the room of the header. The header's sequence is the client's number for the ACK.

    ``payload`` by type: DANMAKU ``[text, style?]``, EMOTE ``[emote_id]``, LIKE ``[count]``, ANNOUNCEMENT
    ``[text]``, GIFT ``[order_id, user_id, name, gift_id, count, price_cents, target?, combo?]``,
    HIGHLIGHT ``[order_id, user_id, name, text, cents]``, ROOM_PHASE ``[phase]``; custom types: any value.
    """

    type: int
    client_msg_id: str
    payload: Any
    room_name: str | None = None
    """Where the header names no room: the room, which a link of the role APP need not have joined."""


class DirectAck(NamedTuple):
    """Acknowledgement of all DIRECT messages up to ``direct_id``."""

    direct_id: int


class Ping(NamedTuple):
    """Heartbeat; the answer repeats ``client_ms``."""

    client_ms: int
    renew: bool = False
    """Requests a new ticket in the answer (with `Feature.TICKET`)."""
    token: str | None = None
    """A newer token of the same user: the link lasts until its end."""


class Resume(NamedTuple):
    """Request to rejoin a room at a position: the events of lanes 0-2 after ``offset`` are sent."""

    room_name: str
    tier: Tier
    epoch: int
    offset: int


class Call(NamedTuple):
    """Call of an operation of the table. The header's sequence is the client's number for the answer.

    The header names a joined room, which then stands for the field ``room`` of the arguments, or 0.
    """

    operation: int | str
    """Number; its name in JSON mode. A reader turns a name that it knows into the number."""
    key: str
    """Idempotency key; "" = none."""
    arguments: Any
    """Fields of the operation's request: an array in their order, or a map by name."""


# ---- server to client ---------------------------------------------------------------------------


class OfferedDictionary(NamedTuple):
    """Dictionary that frames with a codec have on this link."""

    codec: int
    sha256: str
    nbytes: int


class ServerHello(NamedTuple):
    """Answer to HELLO."""

    version: int
    features: int
    server_ms: int
    heartbeat_ms: int
    cut_ms: int
    """The broker closes the link after this time without a byte."""
    max_rooms: int
    types: tuple[CustomType, ...] = ()
    server: str = ""
    dictionaries: tuple[OfferedDictionary, ...] = ()
    """Dictionaries for this link, the best first: that the client has, or may get by ``dictionaries.get``."""


class RoomRole(NamedTuple):
    """Role of the client in a room that its link has joined, by number."""

    room: int
    role: Role


class Authenticated(NamedTuple):
    """Answer to AUTH with the identity of the client; ``expires_at_ms`` 0 = never."""

    user_id: str
    name: str
    expires_at_ms: int = 0
    ticket: str = ""
    """Token of the broker for reconnecting (with `Feature.TICKET`); empty = none."""
    ticket_ms: int = 0
    """How long a ticket of this link is valid after it was issued."""
    rooms: tuple[RoomRole, ...] = ()
    """To AUTH on an open link: the roles under the new token. The link has left its other rooms."""


class ActivityView(NamedTuple):
    """One activity of a room: a sale, a packet, a poll.

    ``kind``: the subject of its operations; ``id``: in its room; ``data``: an object.
    """

    kind: str
    id: str
    data: Any


class Joined(NamedTuple):
    """Answer to JOIN and snapshot of the room: enough to draw it without a further request."""

    room_name: str
    epoch: int
    offset: int
    """Last event of lanes 0-2; the next one on the link is ``offset + 1``."""
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
    """The last danmaku shown, oldest first, in at most `MAX_RECENT_BYTES`."""
    is_recent_cut: bool = False
    """Whether older ones were omitted because of their size."""
    announcement: Event | None = None
    """The last announcement; its bytes count among those of ``recent``."""
    keys: tuple[RoomKey, ...] = ()
    """Keys of the room by name, as of ``offset``. Empty in the answer to a RESUME that recovered: the events say."""
    keys_more: int = 0
    """Keys that ``keys`` leaves out, for their size or because the RESUME recovered: ``keys.get`` returns them."""
    pinned: tuple[PinnedMessage, ...] = ()
    """Pinned messages, oldest pin first; their bytes count among those of ``recent``. Empty in the answer to a RESUME
    that recovered: the events say."""
    activities: tuple[ActivityView, ...] = ()
    """Activities of the room, as of ``offset``, nearest deadline first, in at most 20 KiB. Empty in the
    answer to a RESUME that recovered."""
    own_activities: tuple[ActivityView, ...] = ()
    """What is this user's own in them, in at most 2 KiB. Empty likewise, but for a mute of the user: no event
    says that."""
    activities_more: int = 0
    """Activities that ``activities`` leaves out; the operations that list them return all."""


class Left(NamedTuple):
    """Notice that the link is no longer in the room of the header."""

    reason: LeaveReason
    message: str = ""


class Ack(NamedTuple):
    """Results of POSTs in the room of the header."""

    results: tuple[AckResult, ...]
    firsts: tuple[FirstResult, ...] = ()
    """First uses of the keys of those results that answer a repetition, or another post under a known key."""
    reasons: tuple[AckReason, ...] = ()
    """Reasons that the platform gives for some of the results."""


class Event(NamedTuple):
    """Event of lanes 0-2; the header's sequence is its offset in the room's stream."""

    type: int
    at_ms: int
    user_id: str
    name: str
    payload: Any


class Tick(NamedTuple):
    """Danmaku of a room since the last tick, for one tier; the header's sequence is the tick number.

    ``account`` counts this tick and tier. All frames of a tick have the same number, and only the last one contains
    the account. On the binary wire an account that follows from the entries is left out, see `protocol.ticks`.
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
    """(user_id, name) of a sample of the users who joined."""
    joins_more: int = 0
    accounts: tuple[Account, ...] = ()
    """Totals of the five lanes since the room was opened."""


class Direct(NamedTuple):
    """Message to one user, independent of rooms."""

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
    missed_chat: int = 0
    """Danmaku that the broker did not send to this slow link since it was opened."""
    ticket: str = ""
    """New ticket, if the PING requested one or contained a token."""
    expires_at_ms: int = 0
    """New end of the link, if the PING contained a token; 0 = not included."""


class ErrorReply(NamedTuple):
    """Error of the request with the header's sequence; the link stays open. ``code`` may be unknown to this reader."""

    code: int
    message: str
    field: str = ""
    retry_after_ms: int = 0


class GoAway(NamedTuple):
    """Last frame of a side. The range of ``code`` says whether a client reconnects."""

    code: int
    reason: str = ""
    retry_after_ms: int = 0
    jitter_ms: int = 0
    hosts: tuple[str, ...] = ()


class Resumed(NamedTuple):
    """Answer to RESUME; if ``recovered`` the missing events follow in order, else they are lost.

    Not recovered: the events ``gap_from`` to ``snapshot.offset`` of ``snapshot.epoch`` are lost to the client.
    """

    recovered: bool
    gap_from: int
    snapshot: Joined


class Result(NamedTuple):
    """Result of the CALL with the header's sequence. A CALL that failed is answered by ERROR."""

    operation: int | str
    result: Any
    """Result record of the operation; as it came where this reader does not know it."""


Message = (
    ClientHello | Auth | Join | Leave | Post | DirectAck | Ping | Resume | Call
    | ServerHello | Authenticated | Joined | Left | Ack | Event | Tick | State | Direct | Pong | ErrorReply
    | GoAway | Resumed | Result
)  # fmt: skip


def common_version(hello: ClientHello) -> int | None:
    """Return the highest version of both ends, or None: the link then ends with UNSUPPORTED_VERSION."""
    return VERSION if hello.version_min <= VERSION <= hello.version_max else None
