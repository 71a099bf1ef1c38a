"""Payloads of the built-in message types.

The array of a payload follows the same rules as a message body (`messages`): fields in the order of the NamedTuple, and
new ones only at the end. The payload of a custom type (128-255) is any value within the decoding caps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .codes import KeyCause, MessageType, RoomPhase
from .fields import (
    FieldError,
    Rule,
    any_value,
    array_of,
    boolean,
    characters,
    display_name,
    free_value,
    integer,
    member_id,
    member_of,
    optional,
    record,
    text,
    user_id,
    user_id_or_empty,
)
from .messages import MAX_KEYS

__all__ = [
    "MAX_DANMAKU_BYTES",
    "MAX_DANMAKU_CHARS",
    "MAX_GIFT_COUNT",
    "MAX_KEYS_AT_ONCE",
    "MAX_KEY_NAME_BYTES",
    "MAX_KEY_VALUE_BYTES",
    "MAX_LIKES_PER_POST",
    "PAYLOAD_KINDS",
    "AnnouncementPayload",
    "DanmakuPayload",
    "EmotePayload",
    "GiftPayload",
    "KeyChange",
    "KeysPayload",
    "LikePayload",
    "PhasePayload",
    "check_payload",
    "key_value",
    "payload_record",
]

MAX_DANMAKU_CHARS = 100
"""Grapheme clusters: characters as people count them."""
MAX_DANMAKU_BYTES = 1000
"""UTF-8 bytes: 100 emoji with a skin tone have 800, 40 families of four have 1,000."""
MAX_LIKES_PER_POST = 1000
MAX_GIFT_COUNT = 1_000_000


MAX_KEY_NAME_BYTES = 128
MAX_KEY_VALUE_BYTES = 4096
"""Of the packed value."""
MAX_KEYS_AT_ONCE = 10
"""Keys that one command sets. What falls due together may be more."""
MAX_KEY_DEPTH = 12
"""Nesting of a key's value: the payload of an event has three levels around it."""


class DanmakuPayload(NamedTuple):
    """Text of a danmaku; ``style``: [mode 0-2 (scroll, top, bottom), color 0xRRGGBB, size 0-2]."""

    text: str
    style: tuple[int, int, int] | None = None


class EmotePayload(NamedTuple):
    emote_id: str


class LikePayload(NamedTuple):
    count: int  # type: ignore[assignment]  # hides tuple.count


class AnnouncementPayload(NamedTuple):
    text: str


class GiftPayload(NamedTuple):
    """Gift that the platform has charged; ``order_id`` is its idempotency key, ``price_cents`` the unit price."""

    order_id: str
    user_id: str
    name: str
    gift_id: str
    count: int  # type: ignore[assignment]  # hides tuple.count
    price_cents: int
    target: str = ""


class PhasePayload(NamedTuple):
    phase: RoomPhase


class KeyChange(NamedTuple):
    """Change of one key of a room; ``value`` and what follows ``cause`` are those of a SET key.

    ``version``: of the name, never used before; ``owner`` with ``delete_on_leave``: the key goes with its owner.
    """

    name: str
    version: int
    value: Any
    cause: KeyCause
    expires_at_ms: int | None = None
    owner: str | None = None
    delete_on_leave: bool = False


class KeysPayload(NamedTuple):
    """Keys that have changed at once."""

    changes: tuple[KeyChange, ...]


def _style(value: Any) -> tuple[Any, ...]:
    """style: three small integers."""
    if not isinstance(value, (tuple, list)) or len(value) != 3:
        raise FieldError("must be an array of 3 fields: mode, color, size")
    return integer(0, 2)(value[0]), integer(0, 0xFFFFFF)(value[1]), integer(0, 2)(value[2])


_id = text(1, 64)
_count = integer(0)
key_value: Rule = free_value(MAX_KEY_DEPTH)
"""Rule of a key's value."""
_key_change = record(
    KeyChange, (text(1, 128), _count, key_value, member_of(KeyCause), optional(_count), optional(member_id), boolean)
)

_RULES: dict[int, tuple[type[Any], tuple[Rule, ...]]] = {
    MessageType.DANMAKU: (DanmakuPayload, (characters(MAX_DANMAKU_CHARS, MAX_DANMAKU_BYTES), optional(_style))),
    MessageType.EMOTE: (EmotePayload, (_id,)),
    MessageType.LIKE: (LikePayload, (integer(1, MAX_LIKES_PER_POST),)),
    MessageType.ANNOUNCEMENT: (AnnouncementPayload, (characters(500, 2000, lines=True),)),
    MessageType.GIFT: (
        GiftPayload,
        (_id, user_id, display_name, _id, integer(1, MAX_GIFT_COUNT), _count, user_id_or_empty),
    ),
    MessageType.ROOM_PHASE: (PhasePayload, (member_of(RoomPhase),)),
    MessageType.KEYS_CHANGED: (KeysPayload, (array_of(_key_change, MAX_KEYS),)),
}

PAYLOAD_KINDS: dict[int, type[Any]] = {number: kind for number, (kind, _) in _RULES.items()}
"""NamedTuple of every built-in payload, by message type."""

_READERS: dict[int, Rule] = {number: record(kind, rules) for number, (kind, rules) in _RULES.items()}


def check_payload(message_type: int, payload: Any) -> Any:
    """Return the record of a built-in type's payload, or the free value of any other type.

    Raises FieldError with a path below ``payload``.
    """
    rule = _READERS.get(message_type, any_value)
    try:
        return rule(payload)
    except FieldError as error:
        raise FieldError(error.rule, f"payload.{error.field}" if error.field else "payload") from None


_FIELD_TYPES: dict[type[Any], tuple[type | tuple[type, ...], ...]] = {
    DanmakuPayload: (str, (tuple, type(None))),
    EmotePayload: (str,),
    LikePayload: (int,),
    AnnouncementPayload: (str,),
    GiftPayload: (str, str, str, str, int, int, str),
    PhasePayload: (int,),
    KeysPayload: (tuple,),
}
_CHANGE_TYPES: tuple[type | tuple[type, ...], ...] = (
    str,
    int,
    object,
    int,
    (int, type(None)),
    (str, type(None)),
    bool,
)


def payload_record(message_type: int, payload: Any) -> Any:
    """Return a received payload as the record of its type.

    A later edition of the protocol may have more fields and wider rules: unknown fields are cut off, and rules are not
    checked. A payload without the form of its type, and that of a type without a record, is returned as it is.
    """
    kind = PAYLOAD_KINDS.get(message_type)
    if kind is None or type(payload) is not tuple:
        return payload
    fields = payload[: len(kind._fields)]
    missing = len(kind._fields) - len(fields)
    if missing > len(kind._field_defaults) or not all(map(isinstance, fields, _FIELD_TYPES[kind])):
        return payload
    if kind is PhasePayload:
        return PhasePayload(RoomPhase(fields[0])) if fields[0] in _PHASES else payload
    if kind is KeysPayload:
        changes = tuple(change for each in fields[0] if (change := _key_change_of(each)) is not None)
        return KeysPayload(changes) if len(changes) == len(fields[0]) else payload
    return kind(*fields)


def _key_change_of(fields: Any) -> KeyChange | None:
    """Return a received change of a key; None where it has not the form of one. Any: it is not checked yet."""
    if type(fields) is not tuple or len(fields) < 4 or not all(map(isinstance, fields, _CHANGE_TYPES)):
        return None
    change = KeyChange(*fields[: len(KeyChange._fields)])
    return change._replace(cause=KeyCause(change.cause)) if change.cause in _CAUSES else None


_CAUSES = frozenset(int(cause) for cause in KeyCause)
_PHASES = frozenset(int(phase) for phase in RoomPhase)
