"""Idempotency keys over kill -9: every row with a key whose effect is durable has one effect and one answer."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from broker.ledger.entries import AUDITED
from broker.operations.answers import KEPT
from broker.operations.caller import OperationError
from broker.rooms import score_records
from broker.server import Broker
from protocol.codes import ErrorCode
from protocol.json_values import as_json
from protocol.operations import BY_NAME, OPERATIONS, KeyUse, OperationRow
from protocol.operations.coupons import CouponKind, CreatePool
from protocol.operations.keys import KeyItem
from tests.support.durable import durable_broker
from tests.support.faulty_disk import crashed_copy
from tests.support.tenants import backend
from tests.support.tenants_table import at_rest
from tests.support.tokens import SECRET
from tests.support.until import until

pytestmark = pytest.mark.integration

ROWS = [
    row
    for row in OPERATIONS
    if row.key is not KeyUse.NONE and row.durable and row.scope is not None and row.subject != "desk"
]
"""tests/operations/test_desk.py has those of the service desk, whose examples need a conversation."""
CASES = [(row, tenant) for row in ROWS for tenant in ("", "acme") if not tenant or row.subject != "broker"]
SETTINGS: dict[str, Any] = {"auth": {"secret": SECRET, "ticket_s": 600}, "tenants": [{"name": "acme"}]}


async def call(broker: Broker, tenant: str, row: OperationRow, request: Any, key: str) -> tuple[Any, bool]:
    result, is_replayed = await broker.operations.call(backend(tenant, key), row, tuple(request))
    return as_json(result), is_replayed


async def prepare(broker: Broker, tenant: str, row: OperationRow) -> None:
    """Make what the example of a row needs."""
    await broker.operations.call(backend(tenant), BY_NAME["rooms.open"], ("live-1",))
    await broker.operations.call(backend(tenant), BY_NAME["messages.publish"], ("live-1", 4, ("before",)))
    needed: dict[str, tuple[str, ...]] = {
        "keys.delete": ("keys.set",), "messages.unpin": ("messages.pin",), "sales.restock": ("sales.create",),
        "coupons.issue": ("coupons.create",), "coupons.issue_many": ("coupons.create",),
        "products.explain": ("products.put",), "products.stop_explaining": ("products.put", "products.explain"),
    }  # fmt: skip
    for name in needed.get(row.name, ()):
        before = BY_NAME[name]
        key = "before" if before.key is KeyUse.REQUIRED else ""
        await broker.operations.call(backend(tenant, key), before, tuple(before.example[0]))
    if row.name == "conversations.send":
        await broker.operations.call(backend(tenant), BY_NAME["conversations.create"], ("tea", "Tea", ("ann", "bob")))
    if row.name == "coupons.upload":
        pool = CreatePool("live-1", row.example[0].id, 10, CouponKind.UPLOADED)
        await broker.operations.call(backend(tenant, "before"), BY_NAME["coupons.create"], tuple(pool))


def effects(directory: Path) -> list[int]:
    """Return the numbers of events, messages and records in a ledger. Left out: each call is in the audit, and scores
    are written with the room's next checkpoint (`scores`)."""
    with closing(sqlite3.connect(f"file:{directory / 'ledger.db'}?mode=ro", uri=True)) as connection:
        return [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in (
                f"entries WHERE kind <> {AUDITED}",
                "directs",
                f"records WHERE kind <> '{score_records.KIND}'",
            )
        ]


def scores(directory: Path) -> list[tuple[Any, ...]]:
    """Return what a ledger has of scores."""
    with closing(sqlite3.connect(f"file:{directory / 'ledger.db'}?mode=ro", uri=True)) as connection:
        query = "SELECT subject, name, body FROM records WHERE kind = ? ORDER BY subject, name"
        return connection.execute(query, (score_records.KIND,)).fetchall()


def without_marks(result: Any) -> Any:
    """Return a result without what says that it is repeated, and what is as it is now."""
    marks = ("repeated", "opened_at_ms", "online", "users", "uniques", "peak")
    return {name: each for name, each in result.items() if name not in marks}


def request_of(row: OperationRow) -> Any:
    """Return the request of the example, as a backend makes it."""
    request = row.example[0]
    return request._replace(as_user="ann") if row.name == "conversations.send" else request


def other(row: OperationRow) -> Any:
    """Return a request with other content."""
    request = request_of(row)
    if row.name in ("broker.rotate_keys", "products.stop_explaining"):
        return None  # it has one request
    changed: dict[str, dict[str, Any]] = {
        "rooms.set_phase": {"reason": "another"},
        "directs.send": {"payload": ("other",)},
        "messages.publish": {"payload": ("other",)},
        "locks.acquire": {"ttl_ms": 777},
        "messages.broadcast": {"payload": ("other",)},
        "messages.delete": {"reason": "another"},
        "messages.pin": {"ttl_ms": 7777},
        "messages.unpin": {"id": "another"},
        "keys.set": {"value": "another"},
        "keys.set_many": {"items": (KeyItem("another", 1),)},
        "keys.delete": {"name": "another"},
        "sales.restock": {"add": 1},
        "packets.create": {"title": "another"},
        "rains.create": {"title": "another"},
        "coupons.create": {"title": "another"},
        "coupons.upload": {"codes": ("another",)},
        "coupons.issue": {"user": "another"},
        "coupons.issue_many": {"users": ("another",)},
        "products.explain": {"id": "another"},
        "audiences.share": {"channel": "another"},
        "conversations.send": {"text": "another"},
    }
    return request._replace(**changed[row.name])


@pytest.mark.parametrize(("row", "tenant"), CASES, ids=lambda each: each if type(each) is str else each.name)
async def test_a_key_has_one_effect_over_kill_9(directory: Path, row: OperationRow, tenant: str) -> None:
    first_place, second_place = directory / "first", directory / "second"
    first_place.mkdir()
    request = request_of(row)
    async with durable_broker(first_place, **SETTINGS) as broker:
        await prepare(broker, tenant, row)
        first, is_replayed = await call(broker, tenant, row, request, "k1")
        assert not is_replayed
        crashed_copy(first_place, second_place)
        await at_rest(broker)
        before_scores = scores(first_place)
    async with durable_broker(second_place, **SETTINGS) as broker:
        await until(lambda: not broker.broadcasts.unfinished)
        before = effects(second_place)
        changed = other(row)
        if changed is not None:
            with pytest.raises(OperationError) as caught:
                await call(broker, tenant, row, changed, "k1")
            field = "id" if row.name == "messages.broadcast" else "key"
            assert (caught.value.code, caught.value.field) == (ErrorCode.KEY_REUSED, field)
        second, is_replayed = await call(broker, tenant, row, request, "k1")
        assert is_replayed is (row.name in KEPT), "memory cannot know the key"
        assert without_marks(second) == without_marks(first)
        await at_rest(broker)
        assert effects(second_place) == before
        assert scores(second_place) == before_scores
        if row.name in ("messages.publish", "directs.send"):
            with pytest.raises(OperationError) as caught:
                await call(broker, tenant, row, request._replace(payload=("other",)), "k1")
            assert (caught.value.code, caught.value.field) == (ErrorCode.KEY_REUSED, "key")
