"""Operations on webhooks of the caller's tenant: hooks.list, hooks.test, hooks.deliveries, hooks.retry, hooks.drop."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.operations.caller import Caller, OperationError
from broker.server import Broker
from protocol.codes import ErrorCode, Role
from protocol.operations import BY_NAME, Scope
from protocol.operations.hooks import (
    DeliveriesDropped,
    DeliveriesPage,
    DeliveriesRetried,
    DeliveryStatus,
    HookDelivery,
    HookEndpoint,
)
from tests.support.broker import running_broker
from tests.support.durable import durable_broker
from tests.support.receiver import Received, Receiver, http_reply, receiver
from tests.support.until import until
from tests.support.webhooks import events_of, hook_settings

pytestmark = pytest.mark.integration

TENANTS = [{"name": "acme"}]


def backend(tenant: str = "") -> Caller:
    scopes = frozenset({Scope.HOOKS_WRITE})
    return Caller(
        "shop", "Shop", "127.0.0.1", lambda room: Role.APP, frozenset({Role.APP}), scopes, tenant=tenant
    )  # fmt: skip


async def call(broker: Broker, name: str, *arguments: Any, tenant: str = "") -> Any:
    result, _ = await broker.operations.call(backend(tenant), BY_NAME[name], arguments)
    return result


class Failing:
    """A receiver that answers ``status``, and a broker whose clock can leap over what is too old."""

    def __init__(self, hooks: Receiver, broker: Broker, now: dict[str, int], answers: dict[str, int]) -> None:
        self.hooks = hooks
        self.broker = broker
        self._now = now
        self.answers = answers

    async def give_up(self, rooms: int) -> list[HookDelivery]:
        """Open rooms whose report fails until it is too old; return the dead letters."""
        broker = self.broker
        assert broker.webhooks is not None
        for number in range(rooms):
            broker.hub.open(f"room-{number}")
        deliveries = broker.webhooks.endpoints["shop"]
        await until(lambda: deliveries.failures)
        self._now["ms"] += 4000
        await until(lambda: deliveries.dead == rooms)
        with trio.fail_after(10):
            while len(found := await self.dead()) < rooms:  # noqa: ASYNC110 - only the file knows
                await trio.sleep(0.01)
        return found

    async def dead(self) -> list[HookDelivery]:
        page: DeliveriesPage = await call(self.broker, "hooks.deliveries")
        return list(page.items)


@asynccontextmanager
async def failing(directory: Path, **more: Any) -> AsyncIterator[Failing]:
    answers = {"status": 500}

    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        return http_reply(answers["status"])

    now = {"ms": time.time_ns() // 1_000_000}
    async with receiver(answer) as hooks:
        settings = hook_settings(directory, hooks.url, "room.opened", webhooks={"retry_for_h": 0.001}, **more)
        async with durable_broker(directory, webhooks=settings, tenants=TENANTS, wall_ms=lambda: now["ms"]) as broker:
            yield Failing(hooks, broker, now, answers)


async def test_endpoints_are_listed_without_the_path_of_their_url(directory: Path) -> None:
    async with failing(directory) as run:
        (endpoint,) = (await call(run.broker, "hooks.list")).items
        origin = run.hooks.url.removesuffix("/hook")
        assert endpoint == HookEndpoint("shop", origin, ("room.opened",), "closed", 0, 0, 0, 0, 0)
        assert (await call(run.broker, "hooks.list", tenant="acme")).items == ()


async def test_a_test_event_says_what_the_receiver_answered(directory: Path) -> None:
    async with failing(directory) as run:
        tested = await call(run.broker, "hooks.test", "shop", "hello")
        assert (tested.status, tested.detail) == (500, "status 500")
        (event,) = events_of(run.hooks)
        assert (event["id"], event["type"], event["data"]) == (tested.id, "webhook.test", {"note": "hello"})
        for name, tenant in (("other", ""), ("shop", "acme")):
            with pytest.raises(OperationError) as refusal:
                await call(run.broker, "hooks.test", name, tenant=tenant)
            assert (refusal.value.code, refusal.value.field) == (ErrorCode.BAD_FIELD, "endpoint")


async def test_dead_letters_are_listed_in_pages_retried_and_dropped(directory: Path) -> None:
    async with failing(directory) as run:
        found = await run.give_up(3)
        assert {(each.type, each.endpoint, each.due_at_ms, each.reason) for each in found} == {
            ("room.opened", "shop", None, "status 500")
        }
        assert {each.room for each in found} == {"room-0", "room-1", "room-2"}
        first: DeliveriesPage = await call(run.broker, "hooks.deliveries", "shop", DeliveryStatus.DEAD, 2)
        rest: DeliveriesPage = await call(run.broker, "hooks.deliveries", "shop", DeliveryStatus.DEAD, 2, first.next)
        assert [*first.items, *rest.items] == found
        assert rest.next is None
        assert (await call(run.broker, "hooks.deliveries", None, DeliveryStatus.WAITING)).items == ()
        assert await call(run.broker, "hooks.drop", (found[0].id, 999)) == DeliveriesDropped(1)
        run.answers["status"] = 200
        run.hooks.requests.clear()
        assert await call(run.broker, "hooks.retry", (found[1].id,)) == DeliveriesRetried(1)
        assert await call(run.broker, "hooks.retry", (found[1].id,)) == DeliveriesRetried(0)
        await until(lambda: found[1].event in {event["id"] for event in events_of(run.hooks)})
        assert await call(run.broker, "hooks.retry", (), "shop", 0) == DeliveriesRetried(1)
        await until(lambda: found[2].event in {event["id"] for event in events_of(run.hooks)})
        assert await run.dead() == []
        assert found[0].event not in {event["id"] for event in events_of(run.hooks)}


async def test_events_of_another_tenant_are_not_seen_retried_or_dropped(directory: Path) -> None:
    async with failing(directory) as run:
        (dead,) = await run.give_up(1)
        assert (await call(run.broker, "hooks.deliveries", tenant="acme")).items == ()
        assert await call(run.broker, "hooks.retry", (dead.id,), tenant="acme") == DeliveriesRetried(0)
        assert await call(run.broker, "hooks.drop", (dead.id,), tenant="acme") == DeliveriesDropped(0)
        for arguments in (("shop",), (None, DeliveryStatus.DEAD, 10, "x")):
            with pytest.raises(OperationError):
                await call(run.broker, "hooks.deliveries", *arguments, tenant="acme")


@pytest.mark.parametrize("cursor", ["x", "-1", "1_0", "\u0663", "9" * 64])
async def test_a_cursor_that_no_answer_gave_is_refused_by_name(directory: Path, cursor: str) -> None:
    async with durable_broker(directory, webhooks=hook_settings(directory, "http://127.0.0.1:9/")) as broker:
        with pytest.raises(OperationError) as refused:
            await call(broker, "hooks.deliveries", None, DeliveryStatus.WAITING, 10, cursor)
        assert (refused.value.code, refused.value.field) == (ErrorCode.BAD_FIELD, "cursor")


async def test_what_waits_can_be_dropped(directory: Path) -> None:
    async with failing(directory) as run:
        run.broker.hub.open("lobby")
        assert run.broker.webhooks is not None
        deliveries = run.broker.webhooks.endpoints["shop"]
        await until(lambda: deliveries.failures)
        page: DeliveriesPage = await call(run.broker, "hooks.deliveries", None, DeliveryStatus.WAITING)
        (waiting,) = page.items
        assert waiting.room == "lobby"
        assert await call(run.broker, "hooks.drop", (waiting.id,)) == DeliveriesDropped(1)
        run.answers["status"] = 200
        run.broker.hub.open("other")
        await until(lambda: deliveries.delivered)
        assert events_of(run.hooks)[-1]["room"] == "other"


@pytest.mark.parametrize("arguments", [(), ((1,), "shop")])
async def test_a_retry_names_letters_or_an_endpoint(directory: Path, arguments: tuple[Any, ...]) -> None:
    async with failing(directory) as run:
        with pytest.raises(OperationError) as refusal:
            await call(run.broker, "hooks.retry", *arguments)
        assert (refusal.value.code, refusal.value.field) == (ErrorCode.BAD_FIELD, "ids")


async def test_a_broker_that_keeps_nothing_has_no_webhooks() -> None:
    async with running_broker(ledger={"ephemeral": True}) as broker:
        with pytest.raises(OperationError) as refusal:
            await call(broker, "hooks.list")
        assert refusal.value.code is ErrorCode.NOT_KEPT
