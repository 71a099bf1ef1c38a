"""Operations on the keys of a room: their records and rows."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..codes import ErrorCode
from ..fields import array_of, boolean, integer, member_id, optional, record, room_name, text
from ..messages import MAX_EXPIRY_S, MAX_KEYS, RoomKey
from ..payloads import MAX_KEYS_AT_ONCE, key_value
from ..shared_rules import room_key
from .rows import DIRECTION, EVERY_MEMBER, KeyUse, OperationRow, RateLimit, Scope, always, cursor, row

__all__ = ["ROWS", "DeleteKey", "DeletedKey", "GetKeys", "KeyItem", "KeyPage", "KeyVersion", "SetKey", "SetKeys"]

MIN_TTL_MS = 100


class GetKeys(NamedTuple):
    """Ask for the keys of a room, by name. ``names``: only these."""

    room: str
    names: tuple[str, ...] | None = None
    cursor: str | None = None


class KeyPage(NamedTuple):
    """Keys by name. ``next``: cursor of the following page, null = the end; a page has at most 32 KiB."""

    items: tuple[RoomKey, ...]
    next: str | None


class SetKey(NamedTuple):
    """Set one key.

    ``version``: the one it must have, 0 = it must not exist, null = any; ``ttl_ms``: how long it lives, null = until it
    is deleted; ``owner``: the user that it belongs to; ``delete_on_leave``: delete it when the owner's last connection
    has left the room for 15 s. What is left out is not kept from before.
    """

    room: str
    name: str
    value: Any
    version: int | None = None
    ttl_ms: int | None = None
    owner: str | None = None
    delete_on_leave: bool = False


class KeyItem(NamedTuple):
    """One key to set. ``version``: the one it must have now, 0 = it must not exist, null = any; ``ttl_ms``: how long it
    lives; ``owner``: with ``delete_on_leave`` the key goes when this user leaves."""

    name: str
    value: Any
    version: int | None = None
    ttl_ms: int | None = None
    owner: str | None = None
    delete_on_leave: bool = False


class SetKeys(NamedTuple):
    """Set 1 to 10 keys at once: all, or none."""

    room: str
    items: tuple[KeyItem, ...]


class KeyVersion(NamedTuple):
    """The version of what was set: it never comes again for these names."""

    version: int


class DeleteKey(NamedTuple):
    """Delete one key. ``version``: the one it must have, null = any."""

    room: str
    name: str
    version: int | None = None


class DeletedKey(NamedTuple):
    """Whether the key existed."""

    deleted: bool


_name = text(1, 128)
_version = optional(integer(0))
_KEY_RULES = (
    _name, key_value, _version, optional(integer(MIN_TTL_MS, MAX_EXPIRY_S * 1000)), optional(member_id), boolean,
)  # fmt: skip
_item = record(KeyItem, _KEY_RULES)
_page = record(KeyPage, (array_of(room_key, MAX_KEYS), cursor))
_key_version = record(KeyVersion, (integer(0),))
_deleted = record(DeletedKey, (boolean,))
_WRITE = RateLimit(20, 50)
_REFUSED = (ErrorCode.UNKNOWN_ROOM, ErrorCode.ROOM_ENDED, ErrorCode.STALE, ErrorCode.OVERLOADED)
_SET_REFUSED = (
    *_REFUSED, ErrorCode.PAYLOAD_TOO_LARGE, ErrorCode.TOO_MANY_KEYS, ErrorCode.TOO_MANY_ROOMS_OPEN,
)  # fmt: skip

ROWS: tuple[OperationRow, ...] = (
    row(
        100, "keys.get", GetKeys, (room_name, optional(array_of(_name, MAX_KEYS)), cursor), KeyPage, _page,
        "Return the keys of a room.",
        scope=Scope.ROOMS_READ, roles=EVERY_MEMBER, rate=RateLimit(20, 50), changes=False,
        errors=(ErrorCode.UNKNOWN_ROOM, ErrorCode.OVERLOADED),
        example=(GetKeys("live-1"), KeyPage((RoomKey("price", 1999, 1_790_000_000_000),), None)),
    ),
    row(
        101, "keys.set", SetKey, (room_name, *_KEY_RULES), KeyVersion, _key_version,
        "Set a key of a room; the room is opened if need be.",
        speaks=always,
        scope=Scope.ROOMS_WRITE, roles=DIRECTION, key=KeyUse.OPTIONAL, durable=True, rate=_WRITE, errors=_SET_REFUSED,
        example=(SetKey("live-1", "price", 1999, None, 60_000), KeyVersion(1_790_000_000_000)),
    ),
    row(
        102, "keys.set_many", SetKeys, (room_name, array_of(_item, MAX_KEYS_AT_ONCE)), KeyVersion, _key_version,
        "Set up to 10 keys of a room, all or none.",
        speaks=always,
        scope=Scope.ROOMS_WRITE, roles=DIRECTION, key=KeyUse.OPTIONAL, durable=True, rate=_WRITE, errors=_SET_REFUSED,
        example=(
            SetKeys("live-1", (KeyItem("left", "ann", owner="ann"), KeyItem("right", "bob"))),
            KeyVersion(1_790_000_000_000),
        ),
    ),
    row(
        103, "keys.delete", DeleteKey, (room_name, _name, _version), DeletedKey, _deleted, "Delete a key of a room.",
        scope=Scope.ROOMS_WRITE, roles=DIRECTION, key=KeyUse.OPTIONAL, durable=True, rate=_WRITE, errors=_REFUSED,
        example=(DeleteKey("live-1", "price"), DeletedKey(True)),
    ),
)  # fmt: skip
