"""Events of a room as they leave it for analysis: without names of people, and without what they wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broker.core.rooms.masking import NameMask
from protocol.codes import CUSTOM_TYPE_MIN
from protocol.json_values import as_json
from protocol.messages import Event, PinnedMessage
from protocol.payloads import (
    ActivityPayload,
    AnnouncementPayload,
    DanmakuPayload,
    DeletedPayload,
    GiftPayload,
    HighlightPayload,
    KeysPayload,
    MediaPayload,
    PinsPayload,
)

__all__ = ["exported_event"]

_TEXTS = frozenset(
    {"text", "texts", "reason", "message", "title", "question", "options", "template", "note", "payload"}
)
"""Fields of activities that hold what somebody wrote."""


def exported_event(event: Event, mask: NameMask, *, names: bool = False, texts: bool = False) -> Event:
    """Return an event for an export. ``names``: with names and ids as they are, else every id is masked, also that of
    staff, and every name is empty; ``texts``: with what was written, else texts are empty, and values of keys and
    payloads of the deployment's own types are null.
    """
    if not texts:
        event = event._replace(payload=_without_texts(event.type, event.payload))
    if not names:
        event = mask.event(event)._replace(user_id=mask.user(event.user_id), name="")
        event = event._replace(payload=_without_names(event.payload, mask))
    return event


# Any: payloads are what their types say.
def _without_texts(kind: int, payload: Any) -> Any:
    match payload:
        case DanmakuPayload() | AnnouncementPayload() | HighlightPayload():
            return payload._replace(text="")
        case MediaPayload():
            return payload._replace(url="", caption="")
        case DeletedPayload():
            return payload._replace(reason="")
        case KeysPayload():
            return KeysPayload(tuple(each._replace(value=None) for each in payload.changes))
        case PinsPayload():
            return PinsPayload(
                tuple(pin._replace(payload=_without_texts(pin.type, pin.payload)) for pin in payload.pinned)
            )
        case ActivityPayload():
            return payload._replace(data=_data_without_texts(as_json(payload.data)))
    return None if kind >= CUSTOM_TYPE_MIN else payload


def _data_without_texts(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {field: None if field in _TEXTS else _data_without_texts(each) for field, each in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(map(_data_without_texts, value))
    return value


def _without_names(payload: Any, mask: NameMask) -> Any:
    """Return a payload that is masked already with empty names in place of masked ones."""
    match payload:
        case GiftPayload() | HighlightPayload():
            return payload._replace(name="")
        case PinsPayload():
            return PinsPayload(tuple(_pin_without_names(pin, mask) for pin in payload.pinned))
        case ActivityPayload():
            return payload._replace(data=_data_without_names(payload.data))
    return payload


def _pin_without_names(pin: PinnedMessage, mask: NameMask) -> PinnedMessage:
    user = pin.user_id if pin.user_id.startswith("~") else mask.user(pin.user_id)
    return pin._replace(user_id=user, name="", payload=_without_names(pin.payload, mask))


def _data_without_names(value: Any) -> Any:
    if isinstance(value, Mapping):
        has_user = isinstance(value.get("user"), str)
        return {
            field: "" if field == "name" and has_user else _data_without_names(each) for field, each in value.items()
        }
    if isinstance(value, (tuple, list)):
        return tuple(map(_data_without_names, value))
    return value
