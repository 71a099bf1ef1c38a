"""Processes over a real Redis whose owners are killed: webhooks of their rooms, and the log of what holds on all."""

from __future__ import annotations

import os
import random
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.rooms.broker_log import BROKER_LOG
from protocol.clients import CallRefused, Client, open_client
from protocol.codes import MessageType, Outcome
from protocol.messages import Direct
from protocol.payloads import GiftPayload
from tests.support.engine_processes import NOT_NOW, shared_processes
from tests.support.processes import Serving, serving
from tests.support.receiver import Received, http_reply, receiver
from tests.support.redis_server import RedisServer, redis_server
from tests.support.webhooks import config_file, event_of, firsts

pytestmark = [pytest.mark.integration, pytest.mark.slow]

AOF = ("--appendonly", "yes", "--appendfsync", "always")
ROOMS = ("r0", "r1")
GIFTS = 30
"""In each room."""
DEADLINE_S = 120


async def test_each_event_arrives_under_one_id_and_in_order_when_owners_are_killed(tmp_path: Path) -> None:
    rng = random.Random(3)
    events: list[dict[str, Any]] = []
    acked: set[str] = set()

    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        if rng.random() < 0.04:
            return http_reply(500)
        events.append(event_of(received))
        # Sometimes the receiver takes it and its answer is lost.
        return http_reply(204 if rng.random() < 0.96 else 500)

    async with receiver(answer) as hooks, redis_server(*AOF) as redis:
        config = config_file(tmp_path, hooks.url, "gift.accepted")
        async with (
            shared_processes(3, redis, tmp_path / "data", config=config) as shared,
            open_client(shared.url, "dev:shop:app") as shop,
        ):

            async def give(name: str) -> None:
                for number in range(GIFTS):
                    order = f"{name}-{number}"
                    gift = GiftPayload(order, f"user-{number}", "Viewer", "rose", 1, 100)
                    outcome: Outcome | None = None
                    while outcome not in (Outcome.ACCEPTED, Outcome.MERGED):
                        posted = await shop.room(name).post(MessageType.GIFT, gift, retry=True, timeout_s=DEADLINE_S)
                        outcome = posted.outcome
                        await trio.sleep(0.02)
                    acked.add(order)

            for name in ROOMS:
                await call(shop, "rooms.open", room=name)
            with trio.fail_after(DEADLINE_S):
                async with trio.open_nursery() as givers:
                    for name in ROOMS:
                        givers.start_soon(give, name)
                    killed: list[str] = []
                    for name in ROOMS:
                        seen = len(events)
                        while len(events) < seen + 8:  # noqa: ASYNC110 - the receiver counts
                            await trio.sleep(0.01)
                        owner = await shared.owner_of(name)
                        if owner in killed:
                            owner = await shared.next_owner(name, owner)
                        killed.append(owner)
                        os.kill(shared.pids[owner], signal.SIGKILL)
                        await shared.next_owner(name, owner)
                while {event["data"]["order_id"] for event in events} < acked:  # noqa: ASYNC110 - as above
                    await trio.sleep(0.02)
    assert len(acked) == len(ROOMS) * GIFTS
    for name in ROOMS:
        offsets = firsts(events, name)
        assert offsets == sorted(offsets)
    facts = {event["id"]: event["data"]["order_id"] for event in events}
    assert len(facts) == len(set(facts.values())) == len(acked), "one fact has one id"


async def call(client: Client, operation: str, **arguments: Any) -> Any:  # Any: as `Client.call`
    """Call an operation, again and again while it is refused for now."""
    with trio.fail_after(DEADLINE_S):
        while True:
            try:
                return await client.call(operation, **arguments)
            except CallRefused as error:
                if error.code < NOT_NOW:
                    raise
                await trio.sleep(0.05)


async def first_fact(redis: RedisServer) -> bytes:
    """Return the id of the first fact that the server has of the broker's log."""
    found = await redis.ask("XRANGE", f"rc:{{{BROKER_LOG}}}:fct", "-", "+", "COUNT", "1")
    first: bytes = found[0][0] if found else b""
    return first


async def test_what_holds_on_every_node_outlives_its_owner_after_the_log_was_cut(tmp_path: Path) -> None:
    async with redis_server(*AOF) as redis, AsyncExitStack() as stack:
        await redis.make_old()

        async def start(node: str) -> Serving:
            sets = ("--set", f"engine.url=unix://{redis.path}", "--set", f"engine.node={node}")
            arguments = ("--data-dir", str(tmp_path / node), *sets)
            return await stack.enter_async_context(serving(*arguments, module="tests.support.small_checkpoints"))

        first = await start("a")
        begin = b""
        async with open_client(first.url, "dev:shop:app") as shop:
            await call(shop, "moderation.mute", room=None, user="ben", seconds=600)
            sent = await call(shop, "directs.send", user="dan", type=4, payload=["kept"], key="k-1")
            begin = await first_fact(redis)
            with trio.fail_after(DEADLINE_S):
                while await first_fact(redis) == begin:
                    await call(shop, "directs.send", user="other", type=4, payload=["x" * 450])
        second = await start("b")
        first.signal(signal.SIGKILL)
        async with open_client(second.url, "dev:shop:app") as shop:
            again = await call(shop, "directs.send", user="dan", type=4, payload=["kept"], key="k-1")
            assert (again.id, sent.id) == (1, 1)
            muted = await call(shop, "moderation.list")
            assert "ben" in str(muted)
        async with open_client(second.url, "dev:dan") as dan:
            with trio.fail_after(DEADLINE_S):
                async for event in dan.events():
                    if isinstance(event, Direct):
                        assert (event.direct_id, event.payload) == (1, ("kept",))
                        break
