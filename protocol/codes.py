"""Numbers of the wire: lanes, opcodes, message types, outcomes, error codes and close codes.

This file is the only registry. SPEC.md has the same tables and a test compares the two; clients in other languages
generate their constants from here. Numbers are never reused.

Error codes and close codes are different. An *error code* says that one request failed; the link stays open. A *close
code* ends the link, and its range says what a client does next, so that a client behaves correctly after an unknown
code too: see `ReconnectAdvice`.
"""

from __future__ import annotations

from enum import Enum, IntEnum, IntFlag
from typing import NamedTuple

__all__ = [
    "CUSTOM_TYPE_MAX",
    "CUSTOM_TYPE_MIN",
    "MESSAGE_TYPES",
    "TRY_AGAIN",
    "CloseCode",
    "Codec",
    "ErrorCode",
    "Feature",
    "KeyCause",
    "Lane",
    "LeaveReason",
    "MediaKind",
    "MessageType",
    "Opcode",
    "Outcome",
    "ReconnectAdvice",
    "Role",
    "RoomPhase",
    "Tier",
    "TypeRule",
    "reconnect_advice",
]


class Lane(IntEnum):
    """Delivery class of a message; lower is more urgent. It alone decides whether and how a message may be dropped."""

    CONTROL = 0
    """Joins, errors, moderation, room phases: never dropped while the link is open."""
    COMMERCE = 1
    """Sales, red packets, coupons, direct messages: never dropped, ordered, resumable."""
    PAID = 2
    """Gifts and highlights: as COMMERCE."""
    CHAT = 3
    """Danmaku: merged, sampled or expired under overload, and always counted."""
    AMBIENT = 4
    """Likes, joins, counters: summed; the newest total replaces older ones."""


class Opcode(IntEnum):
    """Kind of a frame (header bytes 6-7). 16 is not used any more."""

    HELLO = 1
    AUTH = 2
    JOIN = 3
    LEAVE = 4
    POST = 5
    ACK = 6
    EVENT = 7
    TICK = 8
    STATE = 9
    DIRECT = 10
    PING = 11
    PONG = 12
    ERROR = 13
    GOAWAY = 14
    RESUME = 15
    CALL = 17
    RESULT = 18


class Codec(IntEnum):
    """Compression of a body (header flags, bits 0-3)."""

    PLAIN = 0
    LZ4 = 1
    LZ4_DICT_1 = 2
    """With the built-in dictionary."""
    LZ4_DICT_2 = 3
    """With a dictionary of the deployment, which HELLO names."""
    LZ4_DICT_3 = 4
    """With another one of these."""


class Feature(IntFlag):
    """Bits that both sides exchange in HELLO; the link uses those that both have. 8 is not used any more."""

    LZ4 = 1
    LZ4_DICT_1 = 2
    TICKET = 4
    """The server issues tickets: tokens for reconnecting."""
    CALL = 16
    """The opcodes CALL and RESULT are supported: the table of operations."""


class Tier(IntEnum):
    """Most danmaku a second of a viewer; the value is the budget (NIM publishes 20 as its reading limit)."""

    FULL = 20
    MEDIUM = 10
    LOW = 5


class Role(IntEnum):
    """Role of a user in a room, in rising order of rights; GUEST needs no login."""

    GUEST = 0
    VIEWER = 1
    VIP = 2
    MODERATOR = 3
    ASSISTANT = 4
    HOST = 5
    APP = 6
    """The platform's own backend: the only role that may post paid events."""


class RoomPhase(IntEnum):
    """Phase of a room: a paused room refuses danmaku and likes, an ended one refuses everything."""

    LIVE = 1
    PAUSED = 2
    ENDED = 3


class Outcome(IntEnum):
    """Result of one POST; the sender gets it in an ACK."""

    ACCEPTED = 0
    """Shown (danmaku, in the FULL tier), summed (likes) or published at an offset (lanes 0-2)."""
    MERGED = 1
    """Counted into an equal text of the same tick."""
    SAMPLED_OUT = 2
    """Not shown because of the room's quota or the viewers' budget; counted in the tick's account."""
    LIMITED = 3
    """Refused by a rate limit; detail = milliseconds to wait."""
    HELD = 4
    """Waits for a human review."""
    REJECTED = 5
    """Refused finally; detail = an `ErrorCode`."""
    EXPIRED = 6
    """Too old at its tick because the broker was overloaded."""
    UNAVAILABLE = 7
    """Not done, because the broker cannot keep it now (its disk is full or fails), or cannot have it checked; detail =
    milliseconds to wait."""
    MASKED = 8
    """Shown as ACCEPTED or MERGED says, with another text than the sender's; detail as there."""


TRY_AGAIN = frozenset({Outcome.LIMITED, Outcome.UNAVAILABLE})
"""Outcomes of a post that had no effect and may be sent again after a wait, with the same key."""


class LeaveReason(IntEnum):
    """Reason why a link is no longer in a room."""

    REQUESTED = 0
    ROOM_ENDED = 1
    ROOM_IDLE = 2
    KICKED = 3
    ROOM_CRASHED = 4
    REPLACED = 5
    NOT_GRANTED = 6
    """The link has sent AUTH again, with a token that does not grant the room."""
    BANNED = 7
    """As KICKED, and the user may not come back for now."""


class MessageType(IntEnum):
    """Type of a message in a POST or an EVENT. 128 to 255 are the deployment's own."""

    DANMAKU = 1
    EMOTE = 2
    LIKE = 3
    ANNOUNCEMENT = 4
    GIFT = 5
    ROOM_PHASE = 6
    JOINED = 7
    MISSED = 8
    MEDIA = 9
    PINS_CHANGED = 10
    MESSAGES_DELETED = 11
    ACTIVITY = 12
    """What happens in a sale, a poll, ...; the table of activity events has its payloads."""
    ACTIVITY_COUNTER = 13
    """Counters of an activity; a newer one replaces an older one."""
    HIGHLIGHT = 14
    """A paid message, shown for a time that its amount gives it."""
    NOT_ADDRESSED = 15
    """Stands at the offset of an event that is for another part of the room: nothing is to be shown."""
    KEYS_CHANGED = 16


class MediaKind(IntEnum):
    """Kind of a medium that a message refers to."""

    IMAGE = 1
    AUDIO = 2
    VIDEO = 3
    FILE = 4


class KeyCause(IntEnum):
    """Why a key of a room has changed."""

    SET = 0
    DELETED = 1
    EXPIRED = 2
    OWNER_LEFT = 3


CUSTOM_TYPE_MIN = 128
CUSTOM_TYPE_MAX = 255


class TypeRule(NamedTuple):
    """Fixed rule of one message type."""

    lane: Lane
    max_bytes: int
    """Cap of the packed body of a POST of this type (type, client_msg_id and payload together)."""
    post_roles: frozenset[Role]
    """Roles that may POST it; empty = only the broker makes it."""


_LOGGED_IN = frozenset({Role.VIEWER, Role.VIP, Role.MODERATOR, Role.ASSISTANT, Role.HOST, Role.APP})
_STAFF = frozenset({Role.MODERATOR, Role.ASSISTANT, Role.HOST, Role.APP})
_SENIOR_STAFF = frozenset({Role.ASSISTANT, Role.HOST, Role.APP})

MESSAGE_TYPES: dict[int, TypeRule] = {
    # 1 KiB for danmaku (Zego caps barrage at 1 KB), 4 KiB for the others (goim's body cap). 1 KiB for a payload of one
    # number, because client_msg_id and room_name have up to 64 characters of 4 bytes each, more in JSON.
    MessageType.DANMAKU: TypeRule(Lane.CHAT, 1024, _LOGGED_IN),
    MessageType.EMOTE: TypeRule(Lane.CHAT, 1024, _LOGGED_IN),
    MessageType.LIKE: TypeRule(Lane.AMBIENT, 1024, _LOGGED_IN | {Role.GUEST}),
    MessageType.ANNOUNCEMENT: TypeRule(Lane.CONTROL, 4096, _STAFF),
    MessageType.GIFT: TypeRule(Lane.PAID, 4096, frozenset({Role.APP})),
    MessageType.HIGHLIGHT: TypeRule(Lane.PAID, 4096, frozenset({Role.APP})),
    MessageType.ROOM_PHASE: TypeRule(Lane.CONTROL, 1024, _SENIOR_STAFF),
    MessageType.JOINED: TypeRule(Lane.AMBIENT, 4096, frozenset()),
    MessageType.MISSED: TypeRule(Lane.CONTROL, 4096, frozenset()),
    MessageType.MEDIA: TypeRule(Lane.COMMERCE, 4096, _STAFF),
    MessageType.PINS_CHANGED: TypeRule(Lane.COMMERCE, 4096, frozenset()),
    MessageType.MESSAGES_DELETED: TypeRule(Lane.COMMERCE, 4096, _STAFF),
    MessageType.KEYS_CHANGED: TypeRule(Lane.COMMERCE, 4096, frozenset()),
    MessageType.ACTIVITY: TypeRule(Lane.COMMERCE, 4096, frozenset()),
    MessageType.ACTIVITY_COUNTER: TypeRule(Lane.AMBIENT, 4096, frozenset()),
    MessageType.NOT_ADDRESSED: TypeRule(Lane.CONTROL, 1024, frozenset()),
}
"""Lane, size cap and senders of every built-in message type; every queue and policy uses this table."""


class ErrorCode(IntEnum):
    """Reason why one request failed; the link stays open.

    1xx it is wrong, 2xx it is not allowed, 3xx not now, 4xx the broker has a defect.
    """

    BAD_FIELD = 101
    """A field breaks its rule; the ERROR names field and rule."""
    UNKNOWN_TYPE = 102
    PAYLOAD_TOO_LARGE = 103
    NOT_JOINED = 104
    ALREADY_JOINED = 105
    OUT_OF_STATE = 106
    """The request is valid but not allowed in the present state."""
    UNKNOWN_ROOM = 107
    KEY_REUSED = 108
    """The order id, client_msg_id or batch was used before with other content; nothing has changed."""
    STALE = 109
    """What the request compares with has changed; nothing was done."""
    UNKNOWN_OPERATION = 110
    UNKNOWN_ACTIVITY = 111
    """The room has no sale, packet, poll ... of this id."""
    UNKNOWN_CLAIM = 112
    ORDER_USED = 113
    """The order id belongs to another claim."""
    BELOW_TAKEN = 114
    """Less than what is taken already."""
    BAD_CODE = 115
    """The text is no code of this pool."""
    UNKNOWN_ACTION = 116
    """No action of this id can be undone."""
    UNKNOWN_CONVERSATION = 117
    """There is no conversation of this id with the caller, or with the user that a backend names."""
    UNKNOWN_CALL = 118
    """The user takes part in no RTC call of this id, or not any more."""
    UNKNOWN_DESK = 119
    """The tenant has no service desk: ``desk.configure`` sets one up."""

    NOT_ALLOWED = 201
    """The role may not do this."""
    ROOM_NOT_GRANTED = 202
    TOO_MANY_ROOMS = 203
    DUPLICATE_TEXT = 204
    """Same user, same text, within the duplicate window."""
    ROOM_PAUSED = 205
    ROOM_ENDED = 206
    NOT_KEPT = 207
    """This broker has no ledger, which the request needs."""
    TOO_MANY_KEYS = 208
    """The keys of the room, or of all rooms, take the space there is."""
    BLOCKED = 209
    """The platform has refused this message."""
    CLOSED = 210
    """The activity takes nothing more."""
    SOLD_OUT = 211
    ALREADY_HAVE = 212
    """The user has as much as one may have."""
    ALREADY_CONFIRMED = 213
    EXPIRED = 214
    CANCELLED = 215
    RELEASED = 216
    SALE_CANCELLED = 217
    EMPTY = 218
    """All shares of the packet are taken."""
    EXHAUSTED = 219
    """All codes of the pool are issued."""
    NOT_ELIGIBLE = 220
    """The user does not meet a condition; `field` names it."""
    NOT_INVITED = 221
    BANNED = 222
    """A moderator or the platform keeps the user out, of this room or of all; `retry_after_ms` = 0: without an end."""
    MUTED = 223
    """A moderator or the platform lets the user not post, see `BANNED`."""
    FOLLOWERS_ONLY = 224
    """The room takes chat of users who follow its host, for a time that its modes say."""
    VIP_ONLY = 225
    """The room takes chat of VIPs and staff alone."""
    EMOTE_ONLY = 226
    """The room takes no texts."""
    ALL_MUTED = 227
    """The room takes chat of its staff alone."""
    LINKS_OFF = 228
    """The room takes no texts with links."""
    NOT_UNIQUE = 229
    """The room takes no text twice, whoever says it."""
    TOO_MANY_MEMBERS = 230
    """The group, the user or the broker has as many members, conversations or blocked users as it may."""

    RATE_LIMITED = 301
    ROOM_FULL = 302
    OVERLOADED = 303
    TOO_MANY_ROOMS_OPEN = 304
    """The broker has as many rooms as it may."""
    LOCKED = 305
    """Another caller holds the lock, or the user is being erased."""
    NOT_OPEN = 306
    """The activity has not begun; `retry_after_ms` says when it does."""
    ALL_RESERVED = 307
    """Everything is reserved and may come back."""
    NOT_RESERVED = 308
    """The claim still waits for a unit."""
    PRICE_CHANGED = 309
    SEAT_TAKEN = 310
    SLOW_MODE = 311
    """The user has chatted in this room a short while ago."""
    BUSY = 312
    """The user, or the other one, has another RTC call."""

    INTERNAL_ERROR = 401
    """The request met a defect of the broker, whose log has it; the effect of the request is unknown."""


class CloseCode(IntEnum):
    """Reason why the link ends. 4000-4199 reconnect now, 4200-4399 with backoff, 4400-4599 never.

    The numbers are valid WebSocket close codes.
    """

    GOING_AWAY = 4000
    """The broker drains; the GOAWAY says when and where to reconnect."""
    SLOW_VIEWER = 4001
    """Lanes 0-2 did not fit this link's queue; resume from the last position."""
    HEARTBEAT_MISSED = 4002
    CLOSED_BY_PEER = 4003
    """The other side ended the connection without a reason."""

    OVERLOADED = 4200
    TOO_MANY_CONNECTIONS = 4201
    TOO_MANY_FROM_ADDRESS = 4202
    TOO_MANY_FOR_USER = 4203
    HANDSHAKE_TIMEOUT = 4204
    INTERNAL_ERROR = 4205
    TOO_MANY_ERRORS = 4206
    FLOODING = 4207

    BAD_FRAME = 4400
    """Bytes that are not a frame: length, reserved bits, truncated or trailing body."""
    FRAME_TOO_LARGE = 4401
    BAD_BODY = 4402
    """The body is not the msgpack array (or JSON) of its opcode, or exceeds a decoding cap."""
    BAD_COMPRESSION = 4403
    UNSUPPORTED_VERSION = 4404
    UNKNOWN_OPCODE = 4405
    OUT_OF_STATE = 4406
    """The side may not send this frame in its state, for example POST before AUTH."""
    BAD_TRANSPORT = 4407
    """Violation of the WebSocket layer: RFC 6455, too many fragments or control frames, wrong kind of message."""
    AUTH_FAILED = 4408
    TOKEN_EXPIRED = 4409
    KICKED = 4410
    CLIENT_DONE = 4411
    """The client closed the link on purpose."""
    REPLACED = 4412
    """A newer link of the user took the place of this one, which was silent for longest."""
    TOKEN_REVOKED = 4413
    """The platform has revoked the tokens of this user that were issued before a time."""
    BANNED = 4414
    """The platform keeps this user out of every room."""


class ReconnectAdvice(Enum):
    """Behaviour of a client after a close code."""

    NOW = "now"
    BACKOFF = "backoff"
    NEVER = "never"


def reconnect_advice(code: int) -> ReconnectAdvice:
    """Return what a client does after ``code``, known or not.

    Codes outside 4000-4599 (a lost TCP connection, 1006, a proxy's 1011 ...) mean BACKOFF: an unknown reason must not
    keep a client away.
    """
    if 4000 <= code < 4200:
        return ReconnectAdvice.NOW
    if 4400 <= code < 4600:
        return ReconnectAdvice.NEVER
    return ReconnectAdvice.BACKOFF
