"""Payloads of the built-in message types.

The array of a payload follows the same rules as a message body (`messages`): fields in the order of the NamedTuple, and
new ones only at the end. The payload of a custom type (128-255) is any value within the decoding caps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .codes import KeyCause, MediaKind, MessageType, RoomPhase
from .fields import (
    FieldError,
    Rule,
    any_value,
    array_of,
    boolean,
    characters,
    described,
    display_name,
    free_value,
    hex_digest,
    https_url,
    integer,
    member_id,
    member_of,
    optional,
    record,
    schema_of,
    text,
    user_id,
    user_id_or_empty,
)
from .messages import MAX_KEYS, MAX_PINS, PinnedMessage
from .shared_rules import pinned_message

__all__ = [
    "COMBO_END",
    "COMBO_START",
    "MAX_DANMAKU_BYTES",
    "MAX_DANMAKU_CHARS",
    "MAX_DELETED_AT_ONCE",
    "MAX_GIFT_COUNT",
    "MAX_HIGHLIGHT_BYTES",
    "MAX_HIGHLIGHT_CENTS",
    "MAX_HIGHLIGHT_CHARS",
    "MAX_KEYS_AT_ONCE",
    "MAX_KEY_NAME_BYTES",
    "MAX_KEY_VALUE_BYTES",
    "MAX_LIKES_PER_POST",
    "MAX_MEDIA_BYTES",
    "ORDER_TYPES",
    "PAYLOAD_KINDS",
    "ActivityPayload",
    "AnnouncementPayload",
    "DanmakuPayload",
    "DeletedPayload",
    "EmotePayload",
    "GiftPayload",
    "HighlightPayload",
    "KeyChange",
    "KeysPayload",
    "LikePayload",
    "MediaPayload",
    "NotAddressedPayload",
    "PhasePayload",
    "PinsPayload",
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
MAX_HIGHLIGHT_CHARS = 200
"""Grapheme clusters of the text of a highlight, twice those of a danmaku."""
MAX_HIGHLIGHT_BYTES = 1000
MAX_HIGHLIGHT_CENTS = 10**12
ORDER_TYPES = frozenset({MessageType.GIFT, MessageType.HIGHLIGHT})
"""Types that the platform has charged: the ``order_id`` of the payload is the idempotency key."""
COMBO_START = 1
COMBO_END = 2
"""Bits of ``flags`` of a gift event; one that is both is a combo of its own."""


MAX_KEY_NAME_BYTES = 128
MAX_KEY_VALUE_BYTES = 4096
"""Of the packed value."""
MAX_KEYS_AT_ONCE = 10
"""Keys that one command sets. What falls due together may be more."""
MAX_DELETED_AT_ONCE = 100
"""Events that one MESSAGES_DELETED names."""
MAX_MEDIA_BYTES = 2**40
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
    """Gift that the platform has charged; ``order_id`` is its idempotency key, ``price_cents`` the unit price.

    An event is a part of a combo: ``count`` = ``added``, and ``order_id`` is that of the first order in it, empty where
    it adds nothing. ``combo``: id of the combo; in a post, false = the gift is shown by itself. ``seq``: number of the
    event in it, from 1; ``total``: gifts of the combo so far; ``flags``: `COMBO_START`, `COMBO_END`.
    """

    order_id: str
    user_id: str
    name: str
    gift_id: str
    count: int  # type: ignore[assignment]  # hides tuple.count
    price_cents: int
    target: str = ""
    combo: str | bool = True
    seq: int = 0
    added: int = 0
    total: int = 0
    flags: int = 0


class HighlightPayload(NamedTuple):
    """Message that a user has paid for and that the platform has charged; ``order_id`` is its idempotency key.

    The broker gives an event the other fields. ``tier``: from 1, the more the higher; ``until_ms``: Unix milliseconds,
    before which it is shown; ``displaced``: offset of the highlight that leaves for it, 0 = none. A deleted one has
    neither name nor text.
    """

    order_id: str
    user_id: str
    name: str
    text: str
    cents: int
    tier: int = 0
    until_ms: int = 0
    displaced: int = 0


class PhasePayload(NamedTuple):
    phase: RoomPhase


class MediaPayload(NamedTuple):
    """A medium by reference: the broker stores none. ``sha256``: of its bytes, in hexadecimal, for whoever loads it."""

    url: str
    kind: MediaKind
    size_bytes: int
    sha256: str
    caption: str = ""


class PinsPayload(NamedTuple):
    """All pinned messages of the room after a change, oldest pin first."""

    pinned: tuple[PinnedMessage, ...]


class ActivityPayload(NamedTuple):
    """What happens in an activity of the room: `protocol.activities` has the record of each event.

    ``event``: its name; ``id``: of the activity, empty where a room has one of its kind; ``data``: an object.
    """

    event: str
    id: str
    data: Any


class NotAddressedPayload(NamedTuple):
    """Nothing: the event is for another part of the room."""


class DeletedPayload(NamedTuple):
    """Messages that are deleted; `covers` says which.

    ``offsets``: exactly these events. Without them: every message before this event that is later than ``after_ms``, of
    ``user_id`` where it is given. ``reason``: for people.
    """

    offsets: tuple[int, ...] = ()
    user_id: str = ""
    after_ms: int = 0
    reason: str = ""

    def covers(self, offset: int, user_id: str, at_ms: int) -> bool:
        """Return whether a message before this event is deleted. ``offset``: of an event; 0 = it has none (danmaku)."""
        if self.offsets:
            return offset in self.offsets
        return at_ms > self.after_ms and self.user_id in ("", user_id)


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
_combo_id = text(0, 64)


def _read_combo(value: Any) -> str | bool:
    return value if isinstance(value, bool) else _combo_id(value)


_combo = described(_read_combo, "combo", {"anyOf": [schema_of(boolean), schema_of(_combo_id)]})
_count = integer(0)
key_value: Rule = free_value(MAX_KEY_DEPTH)
"""Rule of a key's value."""
_key_change = record(
    KeyChange, (text(1, 128), _count, key_value, member_of(KeyCause), optional(_count), optional(member_id), boolean)
)
_ACTIVITY_RULES: tuple[Rule, ...] = (text(1, 64), text(0, 64), any_value)

_RULES: dict[int, tuple[type[Any], tuple[Rule, ...]]] = {
    MessageType.DANMAKU: (DanmakuPayload, (characters(MAX_DANMAKU_CHARS, MAX_DANMAKU_BYTES), optional(_style))),
    MessageType.EMOTE: (EmotePayload, (_id,)),
    MessageType.LIKE: (LikePayload, (integer(1, MAX_LIKES_PER_POST),)),
    MessageType.ANNOUNCEMENT: (AnnouncementPayload, (characters(500, 2000, lines=True),)),
    MessageType.GIFT: (
        GiftPayload,
        (
            *(_id, user_id, display_name, _id, integer(1, MAX_GIFT_COUNT), _count, user_id_or_empty),
            *(_combo, _count, _count, _count, _count),
        ),
    ),
    MessageType.HIGHLIGHT: (
        HighlightPayload,
        (
            *(_id, user_id, display_name, characters(MAX_HIGHLIGHT_CHARS, MAX_HIGHLIGHT_BYTES)),
            *(integer(1, MAX_HIGHLIGHT_CENTS), _count, _count, _count),
        ),
    ),
    MessageType.ROOM_PHASE: (PhasePayload, (member_of(RoomPhase),)),
    MessageType.MEDIA: (
        MediaPayload,
        (https_url, member_of(MediaKind), integer(0, MAX_MEDIA_BYTES), hex_digest, text(0, 200, lines=True)),
    ),
    MessageType.PINS_CHANGED: (PinsPayload, (array_of(pinned_message, MAX_PINS),)),
    MessageType.MESSAGES_DELETED: (
        DeletedPayload,
        (array_of(integer(1), MAX_DELETED_AT_ONCE), user_id_or_empty, _count, text(0, 256)),
    ),
    MessageType.KEYS_CHANGED: (KeysPayload, (array_of(_key_change, MAX_KEYS),)),
    MessageType.ACTIVITY: (ActivityPayload, _ACTIVITY_RULES),
    MessageType.ACTIVITY_COUNTER: (ActivityPayload, _ACTIVITY_RULES),
    MessageType.NOT_ADDRESSED: (NotAddressedPayload, ()),
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
    GiftPayload: (str, str, str, str, int, int, str, (str, bool), int, int, int, int),
    HighlightPayload: (str, str, str, str, int, int, int, int),
    PhasePayload: (int,),
    MediaPayload: (str, int, int, str, str),
    PinsPayload: (tuple,),
    PinnedMessage: (str, int, object, str, str, int, int, int),
    DeletedPayload: (tuple, str, int, str),
    ActivityPayload: (str, str, object),
    NotAddressedPayload: (),
    KeysPayload: (tuple,),
    KeyChange: (str, int, object, int, (int, type(None)), (str, type(None)), bool),
}
_OLD_GIFT_FIELDS = 7
"""Of a gift event before there were combos: it is a combo of its own."""
_MEDIA_KINDS = frozenset(int(kind) for kind in MediaKind)
_CAUSES = frozenset(int(cause) for cause in KeyCause)
_PHASES = frozenset(int(phase) for phase in RoomPhase)


def payload_record(message_type: int, payload: Any) -> Any:
    """Return a received payload as the record of its type.

    A later edition of the protocol may have more fields and wider rules: unknown fields are cut off, and rules are not
    checked. A payload without the form of its type, and that of a type without a record, is returned as it is.
    """
    kind = PAYLOAD_KINDS.get(message_type)
    fields = None if kind is None else _fields_of(kind, payload)
    if kind is None or fields is None:
        return payload
    if kind is GiftPayload and len(fields) <= _OLD_GIFT_FIELDS:
        gift = GiftPayload(*fields)
        return gift._replace(
            combo=gift.order_id, seq=1, added=gift.count, total=gift.count, flags=COMBO_START | COMBO_END
        )
    if kind is PhasePayload:
        return PhasePayload(RoomPhase(fields[0])) if fields[0] in _PHASES else payload
    if kind is MediaPayload:
        return MediaPayload(fields[0], MediaKind(fields[1]), *fields[2:]) if fields[1] in _MEDIA_KINDS else payload
    if kind in _ITEM_READERS:
        items = tuple(map(_ITEM_READERS[kind], fields[0]))
        return payload if None in items else kind(items)
    return kind(*fields)


def _fields_of(kind: type[Any], value: Any) -> tuple[Any, ...] | None:
    """Return the fields of a received record that this edition knows; None where it has not the form of ``kind``."""
    if type(value) is not tuple:
        return None
    fields = value[: len(kind._fields)]
    missing = len(kind._fields) - len(fields)
    if missing > len(kind._field_defaults) or not all(map(isinstance, fields, _FIELD_TYPES[kind])):
        return None
    return fields


def _pin_of(value: Any) -> PinnedMessage | None:
    fields = _fields_of(PinnedMessage, value)
    if fields is None:
        return None
    pin = PinnedMessage(*fields)
    return pin._replace(payload=payload_record(pin.type, pin.payload))


def _key_change_of(value: Any) -> KeyChange | None:
    fields = _fields_of(KeyChange, value)
    if fields is None or fields[3] not in _CAUSES:
        return None
    change = KeyChange(*fields)
    return change._replace(cause=KeyCause(change.cause))


_ITEM_READERS: dict[type[Any], Callable[[Any], Any]] = {PinsPayload: _pin_of, KeysPayload: _key_change_of}
"""Readers of the items of payloads that are one list; None = without their form."""
