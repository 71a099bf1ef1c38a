"""The operation that publishes one message to many rooms, spread over time."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from broker.operations.broadcast_runs import MAX_RUNNING_OF_TENANT
from broker.server import Broker
from protocol.codes import MessageType
from tests.support.api import API, call, client_of, ok
from tests.support.broker import running_broker
from tests.support.until import until

pytestmark = pytest.mark.integration

NEWS = int(MessageType.ANNOUNCEMENT)


async def send(client: httpx.AsyncClient, **fields: Any) -> Any:
    return await ok(client, "messages.broadcast", type=NEWS, payload=["Sale now"], **fields)


def reached(broker: Broker) -> list[str]:
    return sorted(room.name for room in broker.hub if room.state.last_offset)


async def test_messages_broadcast_reaches_the_open_rooms_of_a_pattern_or_list_once() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as client:
        for room in ("live-1", "live-2", "side-1"):
            await ok(client, "rooms.open", room=room)
        assert await send(client, pattern="live-*", id="may") == {"id": "may", "rooms": 2}
        assert await send(client, pattern="live-*", id="may") == {"id": "may", "rooms": 2}
        await until(lambda: broker.broadcasts.find("", "may").is_done)  # type: ignore[union-attr]
        assert reached(broker) == ["live-1", "live-2"]
        state = await ok(client, "messages.broadcast_state", id="may")
        assert state == {"id": "may", "rooms": 2, "reached": 2, "missed": 0, "done": True}
        assert [room.state.last_offset for room in broker.hub if room.name.startswith("live")] == [1, 1]
        listed = await send(client, rooms=["side-1", "nowhere"])
        await until(lambda: broker.broadcasts.find("", listed["id"]).is_done)  # type: ignore[union-attr]
        assert reached(broker) == ["live-1", "live-2", "side-1"]
        assert broker.hub.find("nowhere") is None, "a broadcast opens no room"


async def test_a_broadcast_is_spread_over_its_time_and_few_run_at_once() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as client:
        for number in range(3):
            await ok(client, "rooms.open", room=f"live-{number}")
        for number in range(MAX_RUNNING_OF_TENANT):
            await send(client, pattern="*", spread_ms=600_000, id=f"slow-{number}")
        await until(lambda: reached(broker) == ["live-0"])
        state = await ok(client, "messages.broadcast_state", id="slow-0")
        assert state == {"id": "slow-0", "rooms": 3, "reached": 1, "missed": 0, "done": False}
        answer = await call(client, "messages.broadcast", type=NEWS, payload=["x"], pattern="*")
        assert (answer.status_code, answer.json()["code"]) == (429, "RATE_LIMITED")


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({}, "BAD_FIELD", "pattern"),
        ({"pattern": "*", "rooms": ["a"]}, "BAD_FIELD", "pattern"),
        ({"pattern": "*", "payload": [1]}, "BAD_FIELD", "payload.text"),
        ({"pattern": "*", "type": 99}, "UNKNOWN_TYPE", "type"),
        ({"pattern": "*", "spread_ms": 600_001}, "BAD_FIELD", "spread_ms"),
        ({"pattern": "side-*", "id": "used"}, "KEY_REUSED", "id"),
    ],
)
async def test_a_broadcast_that_cannot_be_sent_is_refused(fields: dict[str, Any], code: str, field: str) -> None:
    async with running_broker(api=API) as broker, client_of(broker) as client:
        await send(client, pattern="*", id="used")
        request: dict[str, Any] = {"type": NEWS, "payload": ["x"]} | fields
        answer = await call(client, "messages.broadcast", **request)
        assert (answer.json()["code"], answer.json()["field"]) == (code, field)
        assert (await call(client, "messages.broadcast_state", id="unknown")).json()["field"] == "id"
