"""Erasure of a user: what takes the place of its id, name and texts wherever they are kept.

A pseudonym takes the place of the id, the same one everywhere, so that sums by user stay right. Names and texts go.
Orders keep what was paid for; an event that was only the user's text becomes one that says that it is deleted, at its
offset, as after a deletion. What others wrote stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from broker.core.commerce.activity import ErasedUser
from broker.core.commerce.gifts import GiftCombo
from broker.core.commerce.highlights import HeldHighlight
from broker.core.rooms.deletions import redacted
from broker.core.rooms.stream import StoredEvent
from broker.core.tenants.names import qualify, tenant_of
from protocol.codes import KeyCause, Lane, MessageType
from protocol.errors import RemoteProtocolError
from protocol.frames import pack_body, unpack_body
from protocol.messages import Event, PinnedMessage
from protocol.payloads import (
    ActivityPayload,
    DeletedPayload,
    GiftPayload,
    HighlightPayload,
    KeysPayload,
    PinsPayload,
    payload_record,
)

__all__ = ["PAID", "Erasure"]

_OF_THE_USER: dict[str, Any] = {
    "name": "",
    "text": "",
    "reason": "",
    "caption": "",
    "payload": None,
    "value": None,
    "findings": (),
}
"""What an object loses that names the user as its `_OWNERS`."""
PAID = frozenset({"gift", "highlight"})
"""Names of the types of messages that are orders: they stay, without the user."""
_OWNERS = ("user", "user_id", "owner")
_ANNOUNCEMENT, _PINS, _ADDRESSED = 4, 6, 10
"""Places in what `RoomState.totals` packs."""


class Erasure:
    """One erasure: of the user that ``tenant`` calls ``user``, for whom ``pseudonym`` stands from now on."""

    def __init__(self, tenant: str, user: str, pseudonym: str) -> None:
        self.tenant = tenant
        self.user = user
        self.pseudonym = pseudonym
        self._as_word = re.compile(rf"(?<!\w){re.escape(user)}(?!\w)").search
        account = "user {}".format
        self._outside = {
            qualify(tenant, user): qualify(tenant, pseudonym),
            qualify(tenant, account(user)): qualify(tenant, account(pseudonym)),
        }
        self._in_rooms = {user: pseudonym, **self._outside}

    @property
    def in_activities(self) -> ErasedUser:
        """The user as activities of a room of its tenant know it."""
        return ErasedUser(self.user, self.pseudonym)

    @property
    def qualified(self) -> str:
        """The user's qualified id."""
        return qualify(self.tenant, self.user)

    # Any, below: values as they were packed, which any version or application has made.

    def value(self, value: Any, room: str = "") -> Any:
        """Return a free value without the user. ``room``: where it belongs (qualified name), "" = outside of rooms."""
        if not room:
            return _without(value, self._outside)
        return _without(value, self._in_rooms) if tenant_of(room) == self.tenant else value

    def packed(self, body: bytes, room: str = "") -> bytes:
        """Return a packed value without the user, as `value`; the same where it does not occur."""
        try:
            before = unpack_body(body)
        except RemoteProtocolError:
            return body
        after = self.value(before, room)
        return body if after == before else pack_body(after)

    def event(self, event: Event, offset: int) -> Event:
        """Return an event of a room of the tenant without the user; the same where it does not occur."""
        payload = payload_record(event.type, event.payload)
        is_author = event.user_id == self.user
        match payload:
            case GiftPayload():
                payload = self._gift(payload)
            case HighlightPayload(user_id=user) if user == self.user:
                payload = payload._replace(user_id=self.pseudonym, name="", text="")
            case PinsPayload(pinned):
                payload = PinsPayload(tuple(pin for pin in pinned if not self.is_pinned_of_user(pin)))
            case DeletedPayload(user_id=user) if user == self.user:
                payload = payload._replace(user_id=self.pseudonym, reason="")
            case KeysPayload(changes):
                payload = KeysPayload(
                    tuple(each for each in changes if not self.is_key_of_user(each.name, each.owner, each.cause))
                )
            case ActivityPayload(_, _, data):
                payload = payload._replace(data=_without(data, self._in_rooms))
            case HighlightPayload():
                pass
            case _:
                if is_author and event.type not in (MessageType.ROOM_PHASE, MessageType.MESSAGES_DELETED):
                    return redacted(StoredEvent(offset, Lane.COMMERCE, event)).event
        if is_author:
            return event._replace(user_id=self.pseudonym, name="", payload=payload)
        return event if payload == event.payload else event._replace(payload=payload)

    def stored(self, stored: StoredEvent) -> StoredEvent:
        """Return an event of a stream without the user; the same where it does not occur."""
        event = self.event(stored.event, stored.offset)
        return stored if event is stored.event else stored._replace(event=event)

    def totals(self, totals: bytes) -> bytes:
        """Return what `RoomState.totals` has packed for a room of the tenant, without the user."""
        if self.user.encode() not in totals:
            return totals
        try:
            fields = list(unpack_body(totals))
            announcement, pins = fields[_ANNOUNCEMENT], fields[_PINS]
            if announcement is not None and announcement[2] == self.user:
                fields[_ANNOUNCEMENT : _ANNOUNCEMENT + 2] = None, 0
            pinned = payload_record(MessageType.PINS_CHANGED, (pins,))
            if isinstance(pinned, PinsPayload):
                fields[_PINS] = tuple(pin for pin in pinned.pinned if not self.is_pinned_of_user(pin))
            if len(fields) > _ADDRESSED:
                fields[_ADDRESSED] = tuple(each for each in fields[_ADDRESSED] if each[0][2] != self.user)
        except (RemoteProtocolError, IndexError, TypeError):
            return totals  # of another version
        return pack_body(_without(tuple(fields), self._in_rooms))

    def is_pinned_of_user(self, pin: PinnedMessage) -> bool:
        """Return whether a pinned message is the user's, or a gift that the user gave."""
        giver = pin.payload.user_id if isinstance(pin.payload, GiftPayload) else ""
        return self.user in (pin.user_id, giver)

    def combo(self, combo: GiftCombo) -> GiftCombo:
        """Return a combo of gifts without the user."""
        if combo.user_id == self.user:
            combo = combo._replace(user_id=self.pseudonym, name="")
        return combo._replace(target=self.pseudonym) if combo.target == self.user else combo

    def highlight(self, highlight: HeldHighlight) -> HeldHighlight:
        """Return a highlight without the user."""
        is_own = highlight.user_id == self.user
        return highlight.hidden()._replace(user_id=self.pseudonym) if is_own else highlight

    def is_key_of_user(self, name: str, owner: str | None, cause: KeyCause) -> bool:
        """Return whether a change is of a key of the user: it owns it, or the key is gone and its name had the id."""
        return owner == self.user or (cause is not KeyCause.SET and self._as_word(name) is not None)

    def _gift(self, gift: GiftPayload) -> GiftPayload:
        if gift.user_id == self.user:
            gift = gift._replace(user_id=self.pseudonym, name="")
        return gift._replace(target=self.pseudonym) if gift.target == self.user else gift


def _without(value: Any, names: Mapping[str, str]) -> Any:
    """Return a value with other names in place of these; an object of the user loses what is the user's in it too."""
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, (tuple, list)):
        return tuple(_without(each, names) for each in value)
    if isinstance(value, Mapping):
        is_own = any(isinstance(owner := value.get(field), str) and owner in names for field in _OWNERS)
        is_paid = value.get("type") in PAID
        return {
            _without(field, names): _OF_THE_USER[field]
            if is_own and field in _OF_THE_USER and not (is_paid and field == "payload")
            else _without(each, names)
            for field, each in value.items()
        }
    return value
