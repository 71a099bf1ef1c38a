"""Entries of the ledger as lines of an export: JSON with a schema version, without names and texts unless asked for.

A line is what happened, in the terms of the wire: an event with its payload by field name, an order, a refund, a sample
of a room's counters, or the names of the facts of an activity. ``seq`` grows from line to line and is never used again,
so an export goes on after the last line that was taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from broker.core.rooms.samples import read_sample
from broker.core.tenants.names import split_name
from broker.ledger import ACTIVITY_FACTS, StoredEntry
from broker.ledger.entries import ROOM_SAMPLED
from broker.ledger.orders import ORDER_KIND, REFUND_KIND, order_of
from broker.ledger.replay import addressed_event_of
from protocol.codes import CUSTOM_TYPE_MIN, Lane, MessageType
from protocol.errors import RemoteProtocolError
from protocol.frames import unpack_body
from protocol.json_values import as_json
from protocol.payloads import payload_record

__all__ = ["EXPORT_SCHEMA", "EXPORT_VERSION", "ExportFields", "export_line"]

EXPORT_SCHEMA, EXPORT_VERSION = "roomcast.export", 1

_NAMES = frozenset({"name", "names", "host_name"})
"""Fields that hold names of users."""
_TEXTS = frozenset(
    {
        "text", "caption", "reason", "title", "label", "note", "question", "options", "value", "keyword", "message",
        "url", "image", "prize", "prizes", "payload",
    }
)  # fmt: skip
"""Fields that hold what people have written, or point to it."""


class ExportFields(NamedTuple):
    """What an export may hold beside ids, numbers and times: names of users, and texts."""

    names: bool = False
    texts: bool = False


def export_line(entry: StoredEntry, fields: ExportFields) -> dict[str, Any]:
    """Return the line of an entry. Any: JSON. What this version cannot read has ``kind`` alone."""
    tenant, room = split_name(entry.room)
    line: dict[str, Any] = {"seq": entry.seq, **({"tenant": tenant} if tenant else {}), "room": room}
    line = {"version": EXPORT_VERSION} | line | {"epoch": entry.epoch, "at_ms": entry.at_ms}
    try:
        return line | (_event(entry, fields) if entry.lane is not None else _fact(entry, fields))
    except (RemoteProtocolError, TypeError, ValueError, LookupError):
        return line | {"what": "other", "kind": entry.kind}


def _event(entry: StoredEntry, fields: ExportFields) -> dict[str, Any]:
    assert entry.lane is not None
    found = addressed_event_of(entry)
    if found is None:
        raise ValueError("an event of a later version")
    event, audience = found
    known = entry.kind < CUSTOM_TYPE_MIN
    line: dict[str, Any] = {
        "what": "event", "offset": entry.offset, "lane": Lane(entry.lane).name.lower(),
        "type": MessageType(entry.kind).name.lower() if known else entry.kind, "user": event.user_id,
    }  # fmt: skip
    if fields.names:
        line["name"] = event.name
    if known:
        line["payload"] = _kept(as_json(payload_record(event.type, event.payload)), fields)
    elif fields.names and fields.texts:
        line["payload"] = as_json(event.payload)  # of the deployment's own: what it holds is not known
    if audience is not None:
        line["audience"] = as_json(audience)
    return line


def _fact(entry: StoredEntry, fields: ExportFields) -> dict[str, Any]:
    if entry.kind == ORDER_KIND:
        order = order_of(entry)
        if order is None:
            raise ValueError("an order of a later version")
        return {"what": "order", "order": _kept(order._asdict(), fields)}
    if entry.kind == REFUND_KIND and entry.room:
        order_id, user, cents, reason, *_ = unpack_body(entry.body)
        refund = {"order_id": order_id, "user_id": user, "cents": cents, "reason": reason}
        return {"what": "refund", "refund": _kept(refund, fields)}
    if entry.kind == ROOM_SAMPLED:
        sample = _kept(as_json(read_sample(entry.body)), fields)
        return {"what": "sample", "sample": sample}
    if entry.kind == ACTIVITY_FACTS:
        kind, id, facts = unpack_body(entry.body)
        return {"what": "facts", "activity": kind, "id": id, "facts": [str(name) for name, _ in facts]}
    raise ValueError("a fact of another part")


def _kept(value: Any, fields: ExportFields) -> Any:
    """Return a value without the fields that are not wanted. Any: JSON."""
    if isinstance(value, Mapping):
        return {
            key: _kept(each, fields)
            for key, each in value.items()
            if (fields.names or key not in _NAMES) and (fields.texts or key not in _TEXTS)
        }
    return [_kept(each, fields) for each in value] if isinstance(value, (list, tuple)) else value
