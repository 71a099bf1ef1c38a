"""Masks over who viewers are, for those who may not know it: guests.

A masked name is its first character and ``***``. A masked id begins with ``~``; it is the same wherever the user occurs
in a room, so that a client can still merge, count and delete by it, and says nothing of the user: it is a keyed hash.

Not masked are the people whom a room is about: authors with a role of its staff, and of announcements, media, phases,
pins and keys. What people write, and what the platform puts into values of keys and into payloads of its own types, is
not searched for names.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from broker.core.rooms.stream import StoredEvent
from protocol.codes import MessageType, Role
from protocol.json_values import as_json
from protocol.messages import Event, Joined, Message, PinnedMessage, RoomKey, State, Tick, TickEntry
from protocol.payloads import (
    ActivityPayload,
    DeletedPayload,
    GiftPayload,
    HighlightPayload,
    KeysPayload,
    PinsPayload,
)
from protocol.text import masked_name

__all__ = ["NameMask"]

MAX_CACHED = 10_000
ID_BYTES = 6
_BY_STAFF = frozenset(
    {
        MessageType.ANNOUNCEMENT, MessageType.MEDIA, MessageType.ROOM_PHASE, MessageType.PINS_CHANGED,
        MessageType.KEYS_CHANGED, MessageType.MESSAGES_DELETED, MessageType.ACTIVITY, MessageType.ACTIVITY_COUNTER,
        MessageType.NOT_ADDRESSED,
    }
)  # fmt: skip
"""Types of events whose authors are staff, the platform, or nobody."""
_USERS = frozenset({"user", "users", "inviter", "winners", "by"})
"""Fields of activities that hold ids of users, or lists of them."""
_OWNED = frozenset({"name"})
"""Fields that are a user's where the object has a field ``user``."""


class NameMask:
    """Masks of one room. ``key``: of the broker and the room, at least 16 bytes."""

    __slots__ = ("_cache", "_key", "_names")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._cache: OrderedDict[str, str] = OrderedDict()
        self._names: dict[str, str] = {}

    def __len__(self) -> int:
        """Return how many masked ids and names are remembered."""
        return len(self._cache) + len(self._names)

    def user(self, user_id: str) -> str:
        """Return the masked id of a user; that of nobody is empty."""
        if not user_id:
            return ""
        found = self._cache.get(user_id)
        if found is None:
            digest = hmac.digest(self._key, user_id.encode(), hashlib.sha256)
            found = self._cache[user_id] = f"~{digest[:ID_BYTES].hex()}"
            if len(self._cache) > MAX_CACHED:
                self._cache.popitem(last=False)
        return found

    def name(self, name: str) -> str:
        """Return a masked name; an empty one stays empty."""
        found = self._names.get(name)
        if found is None:
            if len(self._names) >= MAX_CACHED:
                self._names.clear()
            found = self._names[name] = masked_name(name) if name else ""
        return found

    def message(self, message: Message) -> Message:
        """Return what a room sends as those get it who may not know its viewers."""
        match message:
            case Tick():
                return message._replace(entries=tuple(map(self._entry, message.entries)))
            case State():
                return message._replace(
                    top_likers=tuple((self.user(user), count) for user, count in message.top_likers),
                    joins=tuple((self.user(user), self.name(name)) for user, name in message.joins),
                )
            case Event():
                return self.event(message)
        return message

    def stored(self, events: Sequence[StoredEvent]) -> list[StoredEvent]:
        """Return events of a stream with masks."""
        return [each._replace(event=self.event(each.event)) for each in events]

    def snapshot(self, joined: Joined) -> Joined:
        """Return a snapshot of the room with masks. What is the viewer's own stays."""
        return joined._replace(
            recent=tuple(map(self._entry, joined.recent)),
            announcement=None if joined.announcement is None else self.event(joined.announcement),
            keys=tuple(map(self.key, joined.keys)),
            pinned=tuple(map(self.pinned, joined.pinned)),
            activities=tuple(view._replace(data=self.data(as_json(view.data))) for view in joined.activities),
        )

    def key(self, key: RoomKey) -> RoomKey:
        """Return a key of the room with a mask over its owner."""
        return key._replace(owner=self._owner(key.owner))

    def _entry(self, entry: TickEntry) -> TickEntry:
        senders = tuple(map(self.user, entry.senders))
        if entry.role >= Role.MODERATOR:
            return entry._replace(senders=senders)
        return entry._replace(user_id=self.user(entry.user_id), name=self.name(entry.name), senders=senders)

    def event(self, event: Event) -> Event:
        """Return an event with masks."""
        payload = self._payload(event.payload)
        if event.type in _BY_STAFF:
            return event if payload is event.payload else event._replace(payload=payload)
        return event._replace(user_id=self.user(event.user_id), name=self.name(event.name), payload=payload)

    # Any: payloads are what their types say.
    def _payload(self, payload: Any) -> Any:
        match payload:
            case GiftPayload():
                return payload._replace(
                    user_id=self.user(payload.user_id), name=self.name(payload.name), target=self.user(payload.target)
                )
            case HighlightPayload():
                return payload._replace(user_id=self.user(payload.user_id), name=self.name(payload.name))
            case DeletedPayload():
                return payload._replace(user_id=self.user(payload.user_id))
            case PinsPayload():
                return PinsPayload(tuple(map(self.pinned, payload.pinned)))
            case KeysPayload():
                return KeysPayload(tuple(each._replace(owner=self._owner(each.owner)) for each in payload.changes))
            case ActivityPayload():
                return payload._replace(data=self.data(as_json(payload.data)))
        return payload

    def _owner(self, owner: str | None) -> str | None:
        return None if owner is None else self.user(owner)

    def pinned(self, pin: PinnedMessage) -> PinnedMessage:
        """Return a pinned message with masks."""
        pin = pin._replace(payload=self._payload(pin.payload))
        if pin.type in _BY_STAFF:
            return pin
        return pin._replace(user_id=self.user(pin.user_id), name=self.name(pin.name))

    def data(self, value: Any) -> Any:
        """Return what an activity says of users with masks: their ids, and the names beside them."""
        if isinstance(value, Mapping):
            has_user = isinstance(value.get("user"), str)
            return {
                field: self._masked(each)
                if field in _USERS
                else self.name(each)
                if has_user and field in _OWNED and isinstance(each, str) and not each.endswith("***")
                else self.data(each)
                for field, each in value.items()
            }
        if isinstance(value, (tuple, list)):
            return tuple(map(self.data, value))
        return value

    def _masked(self, value: Any) -> Any:
        """Return ids of users, in lists or objects, with masks."""
        if isinstance(value, str):
            return self.user(value)
        if isinstance(value, (tuple, list)):
            return tuple(map(self._masked, value))
        return self.data(value)
