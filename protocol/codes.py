"""The numbers of the wire: lanes, opcodes, message types, outcomes, error codes and close codes.

This file is the one registry. SPEC.md prints the same tables and a test holds the two together;
clients in other languages generate their constants from here. Numbers are never reused.

Errors and closes are two vocabularies. An *error code* says that one request failed while the link
lives. A *close code* ends the link, and its range tells a client what to do next, so that a client
that has never seen the code still behaves: see `ReconnectAdvice`.
"""

from __future__ import annotations

from enum import Enum, IntEnum, IntFlag
from typing import NamedTuple

__all__ = [
    "CUSTOM_TYPE_MAX",
    "CUSTOM_TYPE_MIN",
    "MESSAGE_TYPES",
    "CloseCode",
    "Codec",
    "ErrorCode",
    "Feature",
    "Lane",
    "LeaveReason",
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
    """Delivery class of a message; lower is more urgent. What may be lost, and how, follows from it alone."""

    CONTROL = 0
    """Joins, errors, moderation, room phases: never dropped while the link lives."""
    COMMERCE = 1
    """Sales, red packets, coupons, direct messages: never dropped, ordered, resumable."""
    PAID = 2
    """Gifts and highlights: as commerce."""
    CHAT = 3
    """Danmaku: merged, sampled or expired when there is too much, and always counted."""
    AMBIENT = 4
    """Likes, joins, counters: summed; the newest total wins."""


class Opcode(IntEnum):
    """Kind of a frame (header bytes 6-7)."""

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
    BATCH = 16


class Codec(IntEnum):
    """How a body is compressed (header flags, bits 0-3)."""

    PLAIN = 0
    LZ4 = 1
    LZ4_DICT_1 = 2


class Feature(IntFlag):
    """Bits both sides exchange in HELLO; the link uses what both have."""

    LZ4 = 1
    LZ4_DICT_1 = 2
    TICKET = 4
    """The server gives a ticket, which is a token for coming back with."""
    BATCH = 8
    """The opcode BATCH is known."""


class Tier(IntEnum):
    """Danmaku per second a viewer wants to see; the value is the budget (NIM publishes 20 as its reading limit)."""

    FULL = 20
    MEDIUM = 10
    LOW = 5


class Role(IntEnum):
    """What a user is in a room, in rising order of rights; GUEST needs no login."""

    GUEST = 0
    VIEWER = 1
    VIP = 2
    MODERATOR = 3
    ASSISTANT = 4
    HOST = 5
    APP = 6
    """The platform's own backend: the only role that may post paid events."""


class RoomPhase(IntEnum):
    """Life of a room: a paused room refuses danmaku and likes, an ended one refuses everything."""

    LIVE = 1
    PAUSED = 2
    ENDED = 3


class Outcome(IntEnum):
    """What became of one POST; every one of them is told to its sender in an ACK."""

    ACCEPTED = 0
    """Shown (danmaku, in the FULL tier), summed (likes) or published at an offset (lanes 0-2)."""
    MERGED = 1
    """Counted into an equal text of the same tick."""
    SAMPLED_OUT = 2
    """Lost to the room's quota or the viewers' budget; the tick's account says so to everybody."""
    LIMITED = 3
    """Refused by a rate limit; detail = milliseconds to wait."""
    HELD = 4
    """Waits for a human review."""
    REJECTED = 5
    """Refused for good; detail = an `ErrorCode`."""
    EXPIRED = 6
    """Too old when its tick came: the broker was overloaded."""


class LeaveReason(IntEnum):
    """Why a link is no longer in a room."""

    REQUESTED = 0
    ROOM_ENDED = 1
    ROOM_IDLE = 2
    KICKED = 3
    ROOM_CRASHED = 4
    REPLACED = 5


class MessageType(IntEnum):
    """What a POST or an EVENT carries. 128 to 255 belong to the deployment's own registry."""

    DANMAKU = 1
    EMOTE = 2
    LIKE = 3
    ANNOUNCEMENT = 4
    GIFT = 5
    ROOM_PHASE = 6
    JOINED = 7
    MISSED = 8


CUSTOM_TYPE_MIN = 128
CUSTOM_TYPE_MAX = 255


class TypeRule(NamedTuple):
    """The fixed rule of one message type."""

    lane: Lane
    max_bytes: int
    """Cap of the packed body of a POST of this type (type, client_msg_id and payload together)."""
    post_roles: frozenset[Role]
    """Who may POST it; empty = the broker alone makes it."""


_EVERYBODY_WITH_A_NAME = frozenset({Role.VIEWER, Role.VIP, Role.MODERATOR, Role.ASSISTANT, Role.HOST, Role.APP})
_STAFF = frozenset({Role.MODERATOR, Role.ASSISTANT, Role.HOST, Role.APP})
_DIRECTION = frozenset({Role.ASSISTANT, Role.HOST, Role.APP})

MESSAGE_TYPES: dict[int, TypeRule] = {
    # 1 KiB of danmaku (Zego caps barrage at 1 KB), 4 KiB of anything else (goim's body cap). A payload of one
    # number needs 512 all the same: the longest client_msg_id is 64 characters of 4 bytes, more in JSON.
    MessageType.DANMAKU: TypeRule(Lane.CHAT, 1024, _EVERYBODY_WITH_A_NAME),
    MessageType.EMOTE: TypeRule(Lane.CHAT, 1024, _EVERYBODY_WITH_A_NAME),
    MessageType.LIKE: TypeRule(Lane.AMBIENT, 512, _EVERYBODY_WITH_A_NAME | {Role.GUEST}),
    MessageType.ANNOUNCEMENT: TypeRule(Lane.CONTROL, 4096, _STAFF),
    MessageType.GIFT: TypeRule(Lane.PAID, 4096, frozenset({Role.APP})),
    MessageType.ROOM_PHASE: TypeRule(Lane.CONTROL, 512, _DIRECTION),
    MessageType.JOINED: TypeRule(Lane.AMBIENT, 4096, frozenset()),
    MessageType.MISSED: TypeRule(Lane.CONTROL, 4096, frozenset()),
}
"""Lane, size cap and senders of every built-in message type: the one table that every queue and policy asks."""


class ErrorCode(IntEnum):
    """One request failed; the link lives. 1xx the request is wrong, 2xx it is not allowed, 3xx not now."""

    BAD_FIELD = 101
    """A field breaks its rule; the ERROR names both."""
    UNKNOWN_TYPE = 102
    PAYLOAD_TOO_LARGE = 103
    NOT_JOINED = 104
    ALREADY_JOINED = 105
    OUT_OF_STATE = 106
    """The frame is legal on the wire but not now, for example a second AUTH."""
    UNKNOWN_ROOM = 107
    KEY_REUSED = 108
    """The same order id, client_msg_id or batch came before with other content; nothing has changed."""

    NOT_ALLOWED = 201
    """The role may not do this."""
    ROOM_NOT_GRANTED = 202
    TOO_MANY_ROOMS = 203
    DUPLICATE_TEXT = 204
    """Same user, same text, within the duplicate window."""
    ROOM_PAUSED = 205
    ROOM_ENDED = 206
    NOT_KEPT = 207
    """This broker keeps nothing on a disk, and this cannot be promised without."""

    RATE_LIMITED = 301
    ROOM_FULL = 302
    OVERLOADED = 303
    TOO_MANY_ROOMS_OPEN = 304
    """The broker holds as many rooms as it may."""


class CloseCode(IntEnum):
    """Why the link ends. 4000-4199 come back now, 4200-4399 with backoff, 4400-4599 do not come back.

    The numbers are valid WebSocket close codes as they are.
    """

    GOING_AWAY = 4000
    """The broker drains; the GOAWAY carries when and where to return."""
    SLOW_VIEWER = 4001
    """Lanes 0-2 did not fit this link's queue; resume from the last position."""
    HEARTBEAT_MISSED = 4002
    CLOSED_BY_PEER = 4003
    """The other side ended the link without a reason."""

    OVERLOADED = 4200
    TOO_MANY_CONNECTIONS = 4201
    TOO_MANY_FROM_ADDRESS = 4202
    TOO_MANY_FOR_USER = 4203
    HANDSHAKE_TIMEOUT = 4204
    INTERNAL_ERROR = 4205
    TOO_MANY_ERRORS = 4206
    FLOODING = 4207

    BAD_FRAME = 4400
    """Bytes that are no frame: length, reserved bits, truncated or trailing body."""
    FRAME_TOO_LARGE = 4401
    BAD_BODY = 4402
    """The body is not the msgpack array (or JSON) that its opcode demands, or breaks a decoding cap."""
    BAD_COMPRESSION = 4403
    UNSUPPORTED_VERSION = 4404
    UNKNOWN_OPCODE = 4405
    OUT_OF_STATE = 4406
    """A frame that this side may never send in this state, for example POST before AUTH."""
    BAD_TRANSPORT = 4407
    """The WebSocket layer was violated: RFC 6455, fragment flood, control flood, wrong message kind."""
    AUTH_FAILED = 4408
    TOKEN_EXPIRED = 4409
    KICKED = 4410
    CLIENT_DONE = 4411
    """The client said goodbye on purpose."""


class ReconnectAdvice(Enum):
    """What a close code's range tells the client."""

    NOW = "now"
    BACKOFF = "backoff"
    NEVER = "never"


def reconnect_advice(code: int) -> ReconnectAdvice:
    """Say what a client does after ``code``, known or not.

    Codes outside 4000-4599 (a lost TCP connection, 1006, a proxy's 1011 ...) mean BACKOFF: not knowing
    why is no reason to give up.
    """
    if 4000 <= code < 4200:
        return ReconnectAdvice.NOW
    if 4400 <= code < 4600:
        return ReconnectAdvice.NEVER
    return ReconnectAdvice.BACKOFF
