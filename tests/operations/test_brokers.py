"""Operations on the broker itself: what it says of its settings and its connections."""

from __future__ import annotations

import json
import sqlite3
import stat
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.auth.ticket_keys import FILE_NAME, MAX_KEYS
from broker.ledger import Reader, database_path
from broker.operations.caller import OperationError
from broker.server import Broker
from protocol.operations import BY_NAME
from tests.support.api import API, call, client_of, ok, refused
from tests.support.broker import joined_link, raw_link, running_broker
from tests.support.durable import durable_broker
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


def ticket_of(broker: Broker) -> str:
    auth = broker.context.auth
    return auth.ticket(auth.verify(auth.issue("ann", ttl_s=3600)))[0]


async def test_a_rotated_key_signs_and_those_before_are_valid_over_restarts_until_their_tickets_end(
    directory: Path,
) -> None:
    tickets: list[str] = []
    clock = {"now_ms": 1_800_000_000_000}
    settings: dict[str, Any] = {"auth": {"secret": SECRET}, "wall_ms": lambda: clock["now_ms"]}
    for run in range(2):
        async with durable_broker(directory, **settings) as broker:
            caller, row = replace(backend(""), key=f"rotation {run}"), BY_NAME["broker.rotate_keys"]
            tickets.append(ticket_of(broker))
            rotated, _ = await broker.operations.call(caller, row, ("tickets",))
            assert (rotated, True) == await broker.operations.call(caller, row, ("tickets",))
            assert rotated.valid == run + 2
            assert 0 <= rotated.previous_until_ms - clock["now_ms"] - 600_000 < 60_000
            assert stat.S_IMODE((directory / FILE_NAME).stat().st_mode) == 0o600
            tickets.append(ticket_of(broker))
            assert len({each.rpartition(".")[2] for each in tickets}) == len(tickets)
            for ticket in tickets:
                assert broker.context.auth.verify(ticket).user_id == "ann"
        clock["now_ms"] += 60_000


async def test_keys_are_rotated_over_http_up_to_a_bound_and_refusals_name_the_reason(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        refused = await call(client, "broker.rotate_keys", kind="passwords")
        assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (400, "BAD_FIELD", "kind")
        now_ms, file = broker.clock.now_ms(), directory / FILE_NAME
        found = await ok(client, "broker.rotate_keys", kind="tickets")
        assert (found["kind"], found["valid"]) == ("tickets", 2)
        assert 600_000 <= found["previous_until_ms"] - now_ms < 630_000
        assert broker.ticket_keys is not None
        for _ in range(MAX_KEYS - 2):
            await broker.ticket_keys.rotate(now_ms)
        content = file.read_bytes()
        refused = await call(client, "broker.rotate_keys", kind="tickets")
        assert (refused.status_code, refused.json()["code"]) == (429, "RATE_LIMITED")
        assert 0 < refused.json()["retry_after_ms"] <= 600_000
        assert file.read_bytes() == content
    async with durable_broker(directory, api=API, auth={"ticket_s": 0}) as broker, client_of(broker) as client:
        refused = await call(client, "broker.rotate_keys", kind="tickets")
        assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (409, "OUT_OF_STATE", "kind")
    async with running_broker(api=API) as broker, client_of(broker) as client:
        refused = await call(client, "broker.rotate_keys", kind="tickets")
        assert (refused.status_code, refused.json()["code"]) == (409, "NOT_KEPT")


async def test_a_key_that_cannot_be_written_is_refused_with_a_wait(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        (directory / "ticket.key.new").mkdir()
        refused = await call(client, "broker.rotate_keys", kind="tickets")
        assert (refused.status_code, refused.json()["code"]) == (503, "OVERLOADED")
        (directory / "ticket.key.new").rmdir()
        assert (await ok(client, "broker.rotate_keys", kind="tickets"))["valid"] == 2


async def test_the_chain_is_checked_and_a_changed_entry_is_named_without_its_path(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        await ok(client, "rooms.open", room="live-1")
        await ok(client, "rooms.set_phase", room="live-1", phase="live")
        found = await ok(client, "broker.verify_chain")
        assert (found["holds"], found["problem"], found["is_whole"]) == (True, "", True)
        with closing(Reader(database_path(directory))) as reader:
            head, _ = reader.ends()
        assert (found["entries"], found["last"], found["hash"]) == (head.seq, head.seq, head.hash.hex())
        assert await refused(client, "broker.verify_chain", entries=0) == (400, "BAD_FIELD", "entries")
        with closing(sqlite3.connect(database_path(directory))) as connection, connection:
            connection.execute("UPDATE entries SET body = 'other' WHERE seq = 2")
        found = await ok(client, "broker.verify_chain")
        assert (found["holds"], found["entries"]) == (False, 1)
        assert found["problem"] == "the ledger: entry 2 is not what was written (checksum)"


async def test_tenants_are_listed_with_what_they_use_to_keys_of_no_tenant(directory: Path) -> None:
    tenants = [{"name": "acme", "max_rooms": 1, "calls_per_s": 100.0}, {"name": "globex"}]
    async with durable_broker(directory, auth={"secret": SECRET}, tenants=tenants) as broker:
        row = BY_NAME["rooms.open"]
        await broker.operations.call(backend("acme"), row, ("live-1",))
        with pytest.raises(OperationError):
            await broker.operations.call(backend("acme"), row, ("live-2",))
        listed, _ = await broker.operations.call(backend(""), BY_NAME["broker.tenants"], ())
        acme, globex = listed.items
        assert (acme.name, acme.rooms, acme.max_rooms, acme.calls, acme.calls_per_s, acme.refused) == (
            "acme", 1, 1, 2, 100.0, 1,
        )  # fmt: skip
        assert globex == ("globex", 0, 0, 0, 0, 0, 0.0, 0, 0.0, 0, True)
        for name in ("broker.tenants", "broker.verify_chain"):
            with pytest.raises(OperationError, match="keys of no tenant"):
                await broker.operations.call(backend("acme"), BY_NAME[name], ())
