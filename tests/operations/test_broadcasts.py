"""The operation that publishes one message to many rooms, spread over time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.ledger import LedgerState
from broker.ledger.records import all_records
from broker.operations import broadcast_runs
from broker.operations.broadcast_records import BroadcastState, rooms_items, state_items
from broker.operations.broadcast_runs import MAX_RUNNING_OF_TENANT
from broker.operations.kept import keep
from broker.server import Broker
from protocol.codes import Lane, MessageType
from protocol.operations.messages import BroadcastMessage
from tests.support.api import API, call, client_of, ok
from tests.support.broker import running_broker
from tests.support.durable import disk, durable_broker
from tests.support.faulty_disk import disk_error
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


def chat(broker: Broker) -> list[str]:
    return sorted(room.name for room in broker.hub if room.state.counters.accounts()[Lane.CHAT].admitted)


async def open_rooms(client: httpx.AsyncClient, count: int) -> list[str]:
    rooms = [f"live-{number}" for number in range(count)]
    for room in rooms:
        await ok(client, "rooms.open", room=room, title="kept")
    return rooms


async def test_a_broadcast_goes_on_after_a_restart_and_no_room_gets_it_twice(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        rooms = await open_rooms(client, 4)
        await send(client, pattern="*", spread_ms=2000, id="may")
        await until(lambda: reached(broker)[:1] == ["live-0"])
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        assert not (await ok(client, "messages.broadcast_state", id="may"))["done"]
        assert await send(client, pattern="*", spread_ms=2000, id="may") == {"id": "may", "rooms": 4}
        await until(lambda: broker.broadcasts.find("", "may").is_done)  # type: ignore[union-attr]
        state = {"id": "may", "rooms": 4, "reached": 4, "missed": 0, "done": True}
        assert await ok(client, "messages.broadcast_state", id="may") == state
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        assert await ok(client, "messages.broadcast_state", id="may") == state
        assert await send(client, pattern="*", spread_ms=2000, id="may") == {"id": "may", "rooms": 4}
        for room in rooms:
            assert (await ok(client, "rooms.get", room=room))["last_offset"] == 1, room
        assert broker.broadcasts.unfinished == []


@pytest.mark.parametrize(("kind", "payload"), [(NEWS, ("Sale",)), (int(MessageType.DANMAKU), ("Sale",))])
async def test_a_broadcast_whose_broker_was_killed_among_its_posts_sends_nothing_twice(
    kind: int, payload: tuple[str, ...], directory: Path
) -> None:
    """The ledger says that the first two rooms get it now: one has it already, one does not."""
    message = BroadcastMessage(kind, payload, as_user="shop", name="Shop")
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        rooms = await open_rooms(client, 3)
        posted: dict[str, Any] = {"type": kind, "payload": payload, "as_user": "shop", "name": "Shop"}
        await ok(client, "messages.publish", room="live-0", client_msg_id="broadcast may", **posted)
        state = BroadcastState("may", "", b"", 3, first=0, last=2)
        assert broker.ledger is not None
        await keep(broker.ledger, [*state_items(state, message, 1), *rooms_items(state, rooms, 1)])
    async with durable_broker(directory, api=API) as broker:
        await until(lambda: broker.broadcasts.find("", "may").is_done)  # type: ignore[union-attr]
        if kind == NEWS:
            assert broker.broadcasts.find("", "may").state.reached == 3  # type: ignore[union-attr]
            assert {room.name: room.state.last_offset for room in broker.hub} == dict.fromkeys(rooms, 1)
        else:
            assert chat(broker) == ["live-2"], "it may have reached the others"
        assert broker.ledger is not None
        assert list(await broker.ledger.ask(lambda reader: list(all_records(reader, "broadcast.rooms")))) == []


async def test_a_broadcast_with_an_idempotency_key_is_sent_once_over_a_restart(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        await open_rooms(client, 2)
        first = await send(client, pattern="live-*", key="k1")
        await until(lambda: broker.broadcasts.find("", first["id"]).is_done)  # type: ignore[union-attr]
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        assert await send(client, pattern="live-*", key="k1") == first
        answer = await call(client, "messages.broadcast", type=NEWS, payload=["other"], pattern="live-*", key="k1")
        assert answer.json()["code"] == "KEY_REUSED"
        assert (await ok(client, "rooms.get", room="live-0"))["last_offset"] == 1


async def test_a_broadcast_that_cannot_be_made_durable_is_refused_and_not_sent(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        await open_rooms(client, 1)
        disk(broker).fault = disk_error("SQLITE_FULL")
        answer = await call(client, "messages.broadcast", type=NEWS, payload=["x"], pattern="*", id="may")
        assert (answer.status_code, answer.json()["code"]) == (503, "OVERLOADED")
        assert broker.broadcasts.find("", "may") is None
        disk(broker).fault = None
        await until(lambda: broker.ledger.state is LedgerState.READY)  # type: ignore[union-attr]
        assert reached(broker) == []
        assert await send(client, pattern="*", id="may") == {"id": "may", "rooms": 1}
        await until(lambda: reached(broker) == ["live-0"])


async def test_the_broadcast_that_finished_longest_ago_is_forgotten_also_by_the_ledger(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broadcast_runs, "MAX_KNOWN", 2)
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        await open_rooms(client, 1)
        for name in ("one", "two", "three"):
            await send(client, pattern="*", id=name)
            await until(lambda name=name: broker.broadcasts.find("", name).is_done)  # type: ignore[misc, union-attr]
        await until(lambda: broker.broadcasts.find("", "one") is None)
    async with durable_broker(directory) as broker:
        assert [broker.broadcasts.find("", name) is not None for name in ("one", "two", "three")] == [False, True, True]
