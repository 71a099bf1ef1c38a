"""No path across tenants, over the whole table of operations.

Tenant acme has a room with members, events and keys, users with links and messages that wait, and batches; the examples
of the rows name exactly these. Then another tenant calls every row with them. What acme has is the same before and
after, its clients hear nothing, and the caller gets what it gets from a broker on which acme has never been.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from broker.core.tenants.names import SEPARATOR, qualify
from broker.operations.caller import Caller, OperationError
from broker.server import Broker
from protocol.codes import ErrorCode, Outcome, Role
from protocol.messages import Direct
from protocol.operations import BY_NAME, OPERATIONS, KeyUse, OperationRow, Scope
from tests.support.durable import durable_broker
from tests.support.tenants import backend, tenant_link
from tests.support.tenants_table import (
    ENDS,
    KEY,
    OF_THE_BROKER,
    OWNER,
    TENANTS,
    answer,
    at_rest,
    has_pushed_rankings,
    heard,
    in_order,
    leave_out_times,
    memory_of,
    populate,
    push_counters_at_once,
)
from tests.support.tokens import SECRET
from tests.support.until import until

pytestmark = pytest.mark.integration


@asynccontextmanager
async def shared_broker(directory: Path) -> AsyncIterator[Broker]:
    async with durable_broker(directory, auth={"secret": SECRET}, tenants=TENANTS) as broker:
        push_counters_at_once(broker)
        yield broker


def places(directory: Path, *names: str) -> list[Path]:
    """Make directories for ledgers."""
    found = [directory / name for name in names]
    for place in found:
        place.mkdir()
    return found


def viewer(tenant: str, role: Role) -> Caller:
    """A viewer's link of a tenant, with a role in every room."""
    return Caller("ann", "Ann", "127.0.0.1", lambda room: role, frozenset({role}), tenant=tenant)


def rows_of(directory: Path, tenant: str) -> str:
    """Return a digest of all rows of the ledger that name something of a tenant."""
    mark, digest = f"{tenant}{SEPARATOR}".encode(), hashlib.sha256()
    with closing(sqlite3.connect(f"file:{directory / 'ledger.db'}?mode=ro", uri=True)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"):
            for row in sorted(map(repr, connection.execute(f'SELECT * FROM "{table}"'))):
                if mark in row.encode() or repr(mark.decode())[1:-1] in row:
                    digest.update(f"{table} {row}\n".encode())
    return digest.hexdigest()


def intruders() -> list[tuple[str, Caller]]:
    callers = [(f"backend of {tenant or 'the default tenant'}", backend(tenant)) for tenant in ("", "globex")]
    roles = (Role.GUEST, Role.VIEWER, Role.HOST, Role.APP)
    return callers + [(f"{role.name} of globex", viewer("globex", role)) for role in roles]


@pytest.mark.parametrize(("name", "intruder"), intruders(), ids=lambda value: value if isinstance(value, str) else "")
async def test_no_operation_reaches_what_another_tenant_has(directory: Path, name: str, intruder: Caller) -> None:
    answers: list[dict[str, Any]] = []
    for place, with_owner in zip(places(directory, "with", "without"), (True, False), strict=True):
        found: dict[str, Any] = {}
        async with shared_broker(place) as broker, tenant_link(broker, OWNER, "ann") as ann:
            if with_owner:
                await populate(broker, OWNER)
                await ann.join("live-1")
                await until(partial(has_pushed_rankings, broker))
                await heard(ann)
                await at_rest(broker)
            for row in in_order(OPERATIONS):
                if row.name in OF_THE_BROKER and not intruder.tenant:
                    continue  # the operator's own
                caller = replace(intruder, key=KEY if row.key is not KeyUse.NONE else "")
                before = rows_of(place, OWNER), memory_of(broker, OWNER)
                found[row.name] = await answer(broker, caller, row, row.example[0])
                await at_rest(broker)
                after = rows_of(place, OWNER), memory_of(broker, OWNER)
                assert after == before, f"{row.name} by {name} changes what {OWNER} has"
            if with_owner:
                assert await heard(ann) == []
        answers.append(found)
    for found in answers:
        leave_out_times(found)
    for row_name, found_answer in answers[0].items():
        assert found_answer == answers[1][row_name], f"{row_name} by {name} shows what {OWNER} has"


async def test_the_owner_itself_sees_and_changes_it(directory: Path) -> None:
    """The population is one that the property would notice: the same rows by the owner answer otherwise."""
    answers: list[dict[str, Any]] = []
    for place, tenant in zip(places(directory, "own", "other"), (OWNER, "globex"), strict=True):
        async with shared_broker(place) as broker:
            await populate(broker, OWNER)
            before = rows_of(place, OWNER), memory_of(broker, OWNER)
            found = {}
            for row in OPERATIONS:
                if row.name not in OF_THE_BROKER and row.name not in ENDS:
                    found[row.name] = await answer(broker, backend(tenant), row, row.example[0])
            await at_rest(broker)
            assert ((rows_of(place, OWNER), memory_of(broker, OWNER)) == before) is (tenant != OWNER)
        answers.append(found)
    differ = {name for name in answers[0] if answers[0][name] != answers[1][name]}
    assert differ >= {"rooms.get", "rooms.history", "directs.progress", "directs.list", "users.export"}


@pytest.mark.parametrize("row", [row for row in OPERATIONS if row.name.startswith("broker.")], ids=lambda row: row.name)
async def test_the_broker_itself_is_for_keys_of_no_tenant(directory: Path, row: OperationRow) -> None:
    async with shared_broker(directory) as broker:
        with pytest.raises(OperationError) as caught:
            await broker.operations.call(backend("acme"), row, tuple(row.example[0]))
        assert caught.value.code is ErrorCode.NOT_ALLOWED
        assert not broker.draining


async def test_a_key_of_a_tenant_that_is_not_configured_is_refused(directory: Path) -> None:
    async with shared_broker(directory) as broker:
        with pytest.raises(OperationError) as caught:
            await broker.operations.call(backend("initech"), BY_NAME["rooms.open"], ("live-1",))
        assert (caught.value.code, caught.value.field) == (ErrorCode.NOT_ALLOWED, "tenant")
        assert len(broker.hub) == 0


async def test_an_idempotency_key_is_of_one_tenant(directory: Path) -> None:
    async with shared_broker(directory) as broker:
        for tenant in ("", "acme", "globex"):
            caller = backend(tenant, key="k1")
            result, replayed = await broker.operations.call(
                caller, BY_NAME["messages.publish"], ("live-1", 4, (f"from {tenant}",))
            )
            assert (result.outcome, result.repeated, replayed) == (Outcome.ACCEPTED, False, False)
            sent, replayed = await broker.operations.call(
                caller, BY_NAME["directs.send"], ("ann", 4, (f"from {tenant}",))
            )
            assert (sent.repeated, replayed) == (False, False)
            async with tenant_link(broker, tenant, "ann") as ann:
                assert (await ann.expect(Direct))[1].payload == (f"from {tenant}",)


async def test_a_list_of_rooms_has_those_of_the_tenant_alone_and_pages_through_them(directory: Path) -> None:
    async with shared_broker(directory) as broker:
        for tenant in ("", "acme", "globex"):
            for number in range(3):
                await broker.operations.call(backend(tenant), BY_NAME["rooms.open"], (f"live-{number}",))
        for tenant in ("", "acme", "globex"):
            seen, cursor = [], None
            while True:
                page, _ = await broker.operations.call(backend(tenant), BY_NAME["rooms.list"], ("*", None, 2, cursor))
                seen += [item.room for item in page.items]
                cursor = page.next
                if cursor is None:
                    break
            assert seen == ["live-0", "live-1", "live-2"]


async def test_a_tenant_has_its_quota_of_calls_and_of_messages_to_users(directory: Path) -> None:
    tenants = [{"name": "acme", "calls_per_s": 1, "messages_per_s": 0}, {"name": "globex", "messages_per_s": 1}]
    async with durable_broker(directory, auth={"secret": SECRET}, tenants=tenants) as broker:
        row = BY_NAME["rooms.list"]
        for _ in range(2):
            await broker.operations.call(backend("acme"), row, ())
        with pytest.raises(OperationError) as caught:
            await broker.operations.call(backend("acme", id="another-key"), row, ())
        assert (caught.value.code, caught.value.rule) == (ErrorCode.RATE_LIMITED, "quota of the tenant: calls")
        assert caught.value.retry_after_ms > 0
        await broker.operations.call(
            backend("globex"), BY_NAME["directs.send_many"], ("b", 4, ("x",), None, ("a", "b"))
        )
        with pytest.raises(OperationError) as caught:
            await broker.operations.call(backend("globex"), BY_NAME["directs.send"], ("ann", 4, ("x",)))
        assert (caught.value.code, caught.value.rule) == (ErrorCode.RATE_LIMITED, "quota of the tenant: messages")
        assert broker.inboxes is not None
        assert qualify("globex", "ann") not in broker.inboxes.pending_users
        assert (await broker.operations.call(backend(""), BY_NAME["directs.send"], ("ann", 4, ("x",))))[0].id == 1


def test_every_scope_is_one_of_the_backend_of_these_tests() -> None:
    assert backend("acme").scopes == frozenset(Scope)


async def test_a_lock_of_another_tenant_is_one_that_does_not_exist(directory: Path) -> None:
    async with shared_broker(directory) as broker:
        lease, _ = await broker.operations.call(backend(OWNER), BY_NAME["locks.acquire"], ("live-1", "sale", 60_000, 0))
        for tenant in ("", "globex"):
            for name, *rest in (("locks.renew", 10_000), ("locks.release",)):
                row = BY_NAME[name]
                theirs, none = [
                    await answer(broker, backend(tenant), row, (fence, *rest))
                    for fence in (lease.fence, lease.fence + 1)
                ]
                assert theirs == none
                assert theirs[0] == ErrorCode.STALE.name
            own, _ = await broker.operations.call(
                backend(tenant), BY_NAME["locks.acquire"], ("live-1", "sale", 60_000, 0)
            )
            assert own.fence != lease.fence
        released, _ = await broker.operations.call(backend(OWNER), BY_NAME["locks.release"], (lease.fence,))
        assert released.fence == lease.fence
