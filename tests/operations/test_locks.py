"""Operations on locks: over HTTP, with waits, over restarts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.operations.caller import Caller, OperationError
from broker.server import Broker
from protocol.codes import ErrorCode, Role
from protocol.operations import BY_NAME, Scope
from tests.support.api import API, call, client_of, ok
from tests.support.broker import running_broker
from tests.support.durable import disk, durable_broker
from tests.support.faulty_disk import disk_error
from tests.support.until import until

pytestmark = pytest.mark.integration


def is_waiting(broker: Broker, count: int) -> bool:
    return broker.locks.table.waiting == count


async def invoke(broker: Broker, owner: str, name: str, *arguments: Any) -> Any:
    caller = Caller(owner, owner, "", lambda room: Role.APP, scopes=frozenset({Scope.ADMIN}))
    result, _ = await broker.operations.call(caller, BY_NAME[name], arguments)
    return result


async def test_a_lock_is_acquired_renewed_and_released_over_http() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as client:
        lease = await ok(client, "locks.acquire", room="live-1", name="settlement", ttl_ms=60_000)
        taken = await call(client, "locks.acquire", room="live-1", name="settlement", ttl_ms=1000)
        assert (taken.status_code, taken.json()["code"]) == (409, "LOCKED")
        assert 0 < taken.json()["retry_after_ms"] <= 60_000
        renewed = await ok(client, "locks.renew", fence=lease["fence"], ttl_ms=120_000)
        assert renewed["fence"] == lease["fence"]
        assert renewed["expires_at_ms"] > lease["expires_at_ms"]
        assert await ok(client, "locks.release", fence=lease["fence"]) == {"fence": lease["fence"]}
        for stale in (
            await call(client, "locks.renew", fence=lease["fence"], ttl_ms=1000),
            await call(client, "locks.release", fence=lease["fence"]),
        ):
            assert (stale.status_code, stale.json()["code"], stale.json()["field"]) == (409, "STALE", "fence")
        again = await ok(client, "locks.acquire", room="live-1", name="settlement", ttl_ms=1000)
        assert again["fence"] > lease["fence"]


async def test_only_the_holder_renews_and_releases() -> None:
    async with running_broker() as broker:
        lease = await invoke(broker, "shop", "locks.acquire", "live-1", "a", 60_000, 0)
        for name, arguments in (("locks.renew", (lease.fence, 1000)), ("locks.release", (lease.fence,))):
            with pytest.raises(OperationError) as caught:
                await invoke(broker, "desk", name, *arguments)
            assert caught.value.code is ErrorCode.STALE


async def test_requests_wait_in_order_until_it_is_released_or_has_ended(directory: Path) -> None:
    async with durable_broker(directory) as broker, trio.open_nursery() as nursery:
        first = await invoke(broker, "first", "locks.acquire", "live-1", "a", 60_000, 0)
        order: list[tuple[str, int]] = []

        async def wait(owner: str, ttl_ms: int) -> None:
            lease = await invoke(broker, owner, "locks.acquire", "live-1", "a", ttl_ms, 20_000)
            order.append((owner, lease.fence))

        for number, owner in enumerate(("second", "third"), 1):
            nursery.start_soon(wait, owner, 100)
            await until(partial(is_waiting, broker, number))
        await invoke(broker, "first", "locks.release", first.fence)
        await until(lambda: len(order) == 2)
        assert [owner for owner, _ in order] == ["second", "third"]
        assert first.fence < order[0][1] < order[1][1]


async def test_a_wait_ends_and_a_caller_that_is_gone_holds_nothing() -> None:
    async with running_broker() as broker:
        first = await invoke(broker, "first", "locks.acquire", "live-1", "a", 60_000, 0)
        with pytest.raises(OperationError) as caught:
            await invoke(broker, "second", "locks.acquire", "live-1", "a", 1000, 50)
        assert caught.value.code is ErrorCode.LOCKED
        async with trio.open_nursery() as nursery:
            nursery.start_soon(invoke, broker, "third", "locks.acquire", "live-1", "a", 1000, 20_000)
            await until(lambda: broker.locks.table.waiting == 1)
            nursery.cancel_scope.cancel()
        assert broker.locks.table.waiting == 0
        await invoke(broker, "first", "locks.release", first.fence)
        assert len(broker.locks.table) == 0


async def test_locks_and_fences_survive_a_restart(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        held = await invoke(broker, "shop", "locks.acquire", "live-1", "held", 3_600_000, 0)
        freed = await invoke(broker, "shop", "locks.acquire", "live-1", "freed", 60_000, 0)
        await invoke(broker, "shop", "locks.release", freed.fence)
    async with durable_broker(directory) as broker:
        with pytest.raises(OperationError) as caught:
            await invoke(broker, "desk", "locks.acquire", "live-1", "held", 1000, 0)
        assert caught.value.code is ErrorCode.LOCKED
        again = await invoke(broker, "desk", "locks.acquire", "live-1", "freed", 1000, 0)
        assert again.fence > freed.fence > held.fence
        await invoke(broker, "shop", "locks.renew", held.fence, 1000)


async def test_a_lock_that_cannot_be_recorded_is_not_given(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        disk(broker).fault = disk_error("SQLITE_FULL")
        with pytest.raises(OperationError) as caught:
            await invoke(broker, "shop", "locks.acquire", "live-1", "a", 1000, 0)
        assert caught.value.code is ErrorCode.OVERLOADED
        assert len(broker.locks.table) == 0
        disk(broker).fault = None
