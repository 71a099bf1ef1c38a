"""Operations on the broker itself: what it says of its settings and its connections."""

from __future__ import annotations

import json

import pytest

from protocol.operations import BY_NAME
from tests.support.api import API, client_of, ok
from tests.support.broker import joined_link, raw_link, running_broker
from tests.support.tenants import backend
from tests.support.tokens import SECRET

pytestmark = pytest.mark.integration


async def test_the_settings_in_force_are_returned_without_secrets() -> None:
    auth = {"secret": SECRET, "jwks_url": "https://keys.example.com/secret/path"}
    async with running_broker(auth=auth, room={"max_rooms": 77}) as broker:
        result, _ = await broker.operations.call(backend(""), BY_NAME["broker.config"], ())
    assert result.settings["room.max_rooms"] == 77
    assert result.settings["auth.jwks_url"] == "https://keys.example.com"
    assert SECRET not in json.dumps(result.settings)
    async with running_broker(api=API) as broker, client_of(broker) as client:
        assert (await ok(client, "broker.config"))["settings"]["listen.host"] == "127.0.0.1"


async def test_connections_are_listed_the_newest_first_and_by_address() -> None:
    async with (
        running_broker(api=API) as broker,
        client_of(broker) as client,
        joined_link(broker, "dev:ann"),
        raw_link(broker) as other,
    ):
        await other.hello()
        found = await ok(client, "broker.connections")
        assert [(each["user"], each["agent"], each["rooms"]) for each in found["items"]] == [
            ("", "test", 0), ("ann", "test", 1),
        ]  # fmt: skip
        assert found["total"] == 2
        assert {each["address"] for each in found["items"]} == {"127.0.0.1"}
        limited = await ok(client, "broker.connections", limit=1)
        assert (len(limited["items"]), limited["total"]) == (1, 2)
        assert (await ok(client, "broker.connections", address="192.0.2.1"))["items"] == []
