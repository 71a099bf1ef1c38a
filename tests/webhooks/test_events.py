"""Rows of the outbox: who gets which event, what it says, and that its id is the fact's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker.config.webhooks import EndpointConfig
from broker.core.tenants.names import qualify
from broker.ledger import OutboxEntry, StoredOutbox
from broker.webhooks.events import WebhookEvents, event_body, event_fields, event_id
from protocol.codes import Lane
from protocol.webhook_events import AuditAnchoredData, GiftAcceptedData, RoomEndedData, RoomOpenedData

GIFT = GiftAcceptedData("o-1", "ann", "安", "rose", 1, 100)


def endpoint(name: str, *events: str, **more: Any) -> EndpointConfig:
    return EndpointConfig(name=name, url="http://127.0.0.1:9/", secret_file="secret", events=events, **more)


def events_for(*endpoints: EndpointConfig) -> WebhookEvents:
    events = WebhookEvents({200: ("sale", Lane.COMMERCE), 201: ("cheer", Lane.CHAT)})
    events.use(endpoints)
    return events


def stored(row: OutboxEntry, number: int = 0) -> StoredOutbox:
    return StoredOutbox(1, row.endpoint, row.line, row.topic, number, row.at_ms, row.at_ms, 0, "", row.body)


def test_an_event_goes_to_the_endpoints_of_its_tenant_and_room() -> None:
    events = events_for(
        endpoint("all", "*"),
        endpoint("live", "room.*", rooms=("live-*",)),
        endpoint("acme", "*", tenant="acme"),
        endpoint("gifts", "gift.accepted"),
        endpoint("silent"),
    )

    def names(room: str) -> list[str]:
        return [row.endpoint for row in events.of_room("room.opened", room, 7, RoomOpenedData(), 1)]

    assert names("live-1") == ["all", "live"]
    assert names("lobby") == ["all"]
    assert names(qualify("acme", "live-1")) == ["acme"]
    assert [row.endpoint for row in events.direct_acked(qualify("acme", "ann"), 3, 1)] == ["acme"]
    assert [row.endpoint for row in events.direct_expired("ann", 3, "", 1)] == ["all"]
    assert [row.endpoint for row in events.room_ended_idle("live-1", 7, 1)] == ["all", "live"]


def test_what_every_tenant_may_know_goes_to_the_endpoints_of_all_each_with_its_own_name() -> None:
    events = events_for(
        endpoint("ours", "audit.anchored"), endpoint("theirs", "audit.anchored", tenant="acme"),
        endpoint("silent", "room.opened", tenant="acme"),
    )  # fmt: skip
    rows = events.of_tenants("audit.anchored", AuditAnchoredData(7, "0" * 64), 5)
    assert [(row.endpoint, event_fields(stored(row))["tenant"]) for row in rows] == [("ours", ""), ("theirs", "acme")]
    assert [row.endpoint for row in events.of_broker("audit.anchored", AuditAnchoredData(7, "0" * 64), 5)] == ["ours"]


def test_names_are_plain_and_the_tenant_is_named() -> None:
    events = events_for(endpoint("acme", "*", tenant="acme"))
    (row,) = events.of_room("gift.accepted", qualify("acme", "live-1"), 7, GIFT, 5)
    event = json.loads(event_body(stored(row, 12)))
    assert event == {
        "id": event["id"], "offset": 12, "type": "gift.accepted", "created_at_ms": 5, "tenant": "acme",
        "room": "live-1", "epoch": 7, "data": GIFT._asdict(),
    }  # fmt: skip
    (acked,) = events.direct_acked(qualify("acme", "ann"), 3, 5)
    event = json.loads(event_body(stored(acked, 3)))
    assert event["data"] == {"user": "ann", "up_to": 3}
    assert not {"offset", "room", "epoch"} & set(event)


def test_the_id_is_that_of_the_fact_for_every_endpoint() -> None:
    events = events_for(endpoint("a", "*"), endpoint("b", "*"))
    first, second = events.of_room("gift.accepted", "live-1", 7, GIFT, 5)
    assert event_id(stored(first, 12)) == event_id(stored(second, 12))
    assert event_id(stored(first, 12)) != event_id(stored(first, 13))
    (other, _) = events.of_room("gift.accepted", "live-2", 7, GIFT, 5)
    assert event_id(stored(other, 12)) != event_id(stored(first, 12))
    assert "." not in event_id(stored(first))


@pytest.mark.parametrize(
    ("pattern", "asked", "in_ticks"),
    [
        ("message.published", "message.sale", False),
        ("message.cheer", "message.cheer", True),
        ("message.danmaku", "message.danmaku", True),
    ],
)
def test_types_of_the_deployment_are_known(pattern: str, asked: str, in_ticks: bool) -> None:
    events = events_for(endpoint("a", pattern))
    assert events.asks(asked)
    assert not events.asks("room.opened")
    assert events.asks_for_ticks is in_ticks
    assert events.type_name(200) == "sale"


def test_what_no_endpoint_asks_for_is_not_made_and_what_is_too_much_is_counted() -> None:
    events = events_for(endpoint("a", "room.ended"))
    assert events.of_room("room.opened", "live-1", 7, RoomOpenedData(), 1) == ()
    events.use_full(["a"])
    assert events.of_room("room.ended", "live-1", 7, RoomEndedData("ended"), 1) == ()
    assert events.dropped == {"a": 1}
