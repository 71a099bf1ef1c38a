"""What the outbox gets: one row for each endpoint that asks for an event, written in the transaction of its fact.

An event's body is stored as JSON without its id and its offset: the offset is given by the transaction, and the id
follows from both, so that it is the same on each try, for each endpoint and after each restart.

Where no endpoint asks for a topic nothing is written; `WebhookEvents.asks` is one look into a set.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from broker.config.webhooks import EndpointConfig
from broker.core.tenants.names import plain_name, split_name
from broker.ledger import LedgerReports, OutboxEntry, StoredOutbox
from protocol.codes import MESSAGE_TYPES, Lane, MessageType
from protocol.json_values import as_json
from protocol.text import fits_room_pattern
from protocol.webhook_events import EVENTS_BY_TYPE, DirectAckedData, DirectExpiredData, RoomEndedData, topics_of

__all__ = ["WebhookEvents", "event_body", "event_fields", "event_id", "redacted_body", "unstored_event"]

_WITH_ID = b"\0"
"""Around the id in the body of a redacted row: no JSON has it."""


class _Route(NamedTuple):
    """What one endpoint asks for."""

    endpoint: str
    tenant: str
    topics: frozenset[str]
    rooms: tuple[str, ...]


class WebhookEvents(LedgerReports):
    """The events of one broker. Counter ``dropped`` only grows: events that were not written.

    ``type_names``: names of all types of messages by number; ``lanes``: their lanes. `use` and `use_types`
    change it; all other methods only read, and may be called from the ledger's thread.
    """

    def __init__(self, custom: Mapping[int, tuple[str, Lane]]) -> None:
        self._routes: tuple[_Route, ...] = ()
        self._topics: frozenset[str] = frozenset()
        self.asks_for_ticks = False
        """Whether any endpoint asks for messages that are published with a tick."""
        self._full: frozenset[str] = frozenset()
        self.dropped: Counter[str] = Counter()
        self.use_types(custom)

    def use_types(self, custom: Mapping[int, tuple[str, Lane]]) -> None:
        """Take the names and lanes of other types of the deployment's own; `use` follows."""
        lanes = {int(kind): rule.lane for kind, rule in MESSAGE_TYPES.items() if rule.lane is not None}
        names = {int(kind): MessageType(kind).name.lower() for kind in MESSAGE_TYPES}
        self._type_names = names | {kind: name for kind, (name, _) in custom.items()}
        lanes |= {kind: lane for kind, (_, lane) in custom.items()}
        self._durable = frozenset(
            name for kind, name in self._type_names.items() if lanes.get(kind, Lane.AMBIENT) < Lane.CHAT
        )
        self._in_ticks = frozenset(name for kind, name in self._type_names.items() if lanes.get(kind) is Lane.CHAT)

    def use(self, endpoints: Iterable[EndpointConfig]) -> None:
        """Report to these endpoints from now on."""
        routes = (
            _Route(
                endpoint.name, endpoint.tenant or "", topics_of(endpoint.events, self._durable, self._in_ticks),
                endpoint.rooms,
            )
            for endpoint in endpoints
        )  # fmt: skip
        self._routes = tuple(route for route in routes if route.topics)
        self._topics = frozenset().union(*(route.topics for route in self._routes))
        self.asks_for_ticks = self.asks(*(f"message.{name}" for name in self._in_ticks))

    def use_full(self, endpoints: Iterable[str]) -> None:
        """Write nothing for these endpoints: too much waits for them."""
        self._full = frozenset(endpoints)

    @property
    def is_used(self) -> bool:
        """Whether any endpoint asks for anything."""
        return bool(self._topics)

    def asks(self, *topics: str) -> bool:
        """Return whether any endpoint asks for one of these topics."""
        return not self._topics.isdisjoint(topics)

    def type_name(self, kind: int) -> str:
        """Return the name of a type of messages."""
        return self._type_names.get(kind) or str(kind)

    # ---- rows of the outbox

    def of_room(
        self, kind: str, room: str, epoch: int, data: Any, at_ms: int, *, topic: str = ""
    ) -> tuple[OutboxEntry, ...]:
        """Return the rows of an event of a room (qualified name); put them behind the room's entry in the submission.

        :param kind: type of the event; ``topic``: what endpoints ask for, where it is another name.
        :param data: the record of its data. Any: the table has its type.
        """
        topic = topic or kind
        if topic not in self._topics:
            return ()
        tenant, name = split_name(room)
        names = [
            route.endpoint
            for route in self._routes
            if topic in route.topics
            and route.tenant == tenant
            and any(fits_room_pattern(pattern, name) for pattern in route.rooms)
        ]
        return self._rows(names, kind, tenant, (("room", name), ("epoch", epoch)), f"room {room}", data, at_ms)

    def of_user(self, kind: str, user: str, data: Any, at_ms: int) -> tuple[OutboxEntry, ...]:
        """Return the rows of an event of a user (qualified id) outside of rooms."""
        if kind not in self._topics:
            return ()
        tenant = split_name(user)[0]
        names = [route.endpoint for route in self._routes if kind in route.topics and route.tenant == tenant]
        return self._rows(names, kind, tenant, (), f"user {user}", data, at_ms)

    def of_broker(self, kind: str, data: Any, at_ms: int) -> tuple[OutboxEntry, ...]:
        """Return the rows of an event of the broker itself, for endpoints of the default tenant."""
        names = [route.endpoint for route in self._routes if kind in route.topics and not route.tenant]
        return self._rows(names, kind, "", (), "", data, at_ms)

    def of_tenants(self, kind: str, data: Any, at_ms: int) -> tuple[OutboxEntry, ...]:
        """Return the rows of an event of the broker itself that every tenant may know, for all endpoints that ask."""
        asking = [route for route in self._routes if kind in route.topics]
        return tuple(
            row
            for tenant in dict.fromkeys(route.tenant for route in asking)
            for row in self._rows(
                [route.endpoint for route in asking if route.tenant == tenant], kind, tenant, (), "", data, at_ms
            )
        )

    def direct_acked(self, user: str, up_to: int, at_ms: int) -> tuple[OutboxEntry, ...]:
        """Return the rows for an acknowledgement of must-deliver messages."""
        return self.of_user("direct.acked", user, DirectAckedData(plain_name(user), up_to), at_ms)

    def direct_expired(self, user: str, direct_id: int, batch: str, at_ms: int) -> tuple[OutboxEntry, ...]:
        """Return the rows for a must-deliver message that expired."""
        data = DirectExpiredData(plain_name(user), direct_id, plain_name(batch))
        return self.of_user("direct.expired", user, data, at_ms)

    def room_ended_idle(self, room: str, epoch: int, at_ms: int) -> tuple[OutboxEntry, ...]:
        """Return the rows for a stream that ends because nothing has happened in it for long."""
        return self.of_room("room.ended", room, epoch, RoomEndedData("idle"), at_ms)

    def _rows(
        self,
        endpoints: Iterable[str],
        kind: str,
        tenant: str,
        place: tuple[tuple[str, Any], ...],
        line: str,
        data: Any,
        at_ms: int,
    ) -> tuple[OutboxEntry, ...]:
        body = b""
        rows = []
        for endpoint in endpoints:
            if endpoint in self._full:
                self.dropped[endpoint] += 1
                continue
            body = body or _stored_body(kind, at_ms, tenant, place, data)
            rows.append(OutboxEntry(kind, at_ms, body, endpoint, line))
        return tuple(rows)


def _stored_body(kind: str, at_ms: int, tenant: str, place: Iterable[tuple[str, Any]], data: Any) -> bytes:
    """Return the JSON of an event after its id and offset: what stands behind ``{"id": ..., "offset": ...,``."""
    fields = {"type": kind, "created_at_ms": at_ms, "tenant": tenant, **dict(place), "data": as_json(data)}
    return _packed(fields)


def _packed(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()[1:]


def event_id(row: StoredOutbox) -> str:
    """Return the id of an event: the same for the same fact."""
    return _parts_of(row)[0]


def event_body(row: StoredOutbox) -> bytes:
    """Return the JSON of an event as it is sent."""
    event = EVENTS_BY_TYPE.get(row.topic)
    offset = b'"offset":%d,' % row.number if row.number and event is not None and event.has_offset else b""
    made, fields = _parts_of(row)
    return b'{"id":"%b",%b%b' % (made.encode(), offset, fields)


def event_fields(row: StoredOutbox) -> dict[str, Any]:
    """Return the fields of an event but for its id and offset. Any: JSON."""
    fields: dict[str, Any] = json.loads(b"{" + _parts_of(row)[1])
    return fields


def redacted_body(row: StoredOutbox, fields: Mapping[str, Any]) -> bytes:
    """Return the body that a row has with other ``fields`` (see `event_fields`): its event keeps its id."""
    return b"%b%b%b%b" % (_WITH_ID, event_id(row).encode(), _WITH_ID, _packed(fields))


def _parts_of(row: StoredOutbox) -> tuple[str, bytes]:
    """Return the id of an event, and the JSON of its fields after the opening brace."""
    if row.body.startswith(_WITH_ID):
        _, made, fields = row.body.split(_WITH_ID, 2)
        return made.decode(), fields
    return _id_of(row.number, row.body), row.body


def unstored_event(kind: str, data: Any, at_ms: int, tenant: str = "") -> tuple[str, bytes]:
    """Return id and JSON of an event that is not in the ledger. Any: the table has the type of its data."""
    body = _stored_body(kind, at_ms, tenant, (), data)
    made = _id_of(0, body)
    return made, b'{"id":"%b",%b' % (made.encode(), body)


def _id_of(number: int, body: bytes) -> str:
    return "ev_" + hashlib.sha256(b"%d " % number + body).hexdigest()[:32]
