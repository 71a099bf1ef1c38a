"""Conversations of processes over a real Redis: the one that decides is killed between an answer and its repetition."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.rooms.broker_log import BROKER_LOG
from protocol.clients import CallLost, CallRefused, Client, open_client
from protocol.messages import Direct
from tests.support.engine_processes import NOT_NOW, shared_processes
from tests.support.redis_server import redis_server

pytestmark = [pytest.mark.integration, pytest.mark.slow]

AOF = ("--appendonly", "yes", "--appendfsync", "always")
DEADLINE_S = 120


async def call(client: Client, operation: str, **arguments: Any) -> Any:  # Any: as `Client.call`
    """Call an operation, again and again while it is lost or refused for now."""
    with trio.fail_after(DEADLINE_S):
        while True:
            try:
                return await client.call(operation, **arguments)
            except CallLost:
                pass
            except CallRefused as error:
                if error.code < NOT_NOW:
                    raise
            await trio.sleep(0.05)


async def test_a_message_that_was_answered_is_sent_once_when_its_process_is_killed(tmp_path: Path) -> None:
    async with redis_server(*AOF) as redis, shared_processes(2, redis, tmp_path) as shared:
        async with open_client(shared.url, "dev:ann") as ann, open_client(shared.url, "dev:bob") as bob:
            pair = (await call(ann, "conversations.open", user="bob")).id
            first = await call(ann, "conversations.send", conversation=pair, text="one", key="k1")
            assert first.offset == 1
            owner = await shared.owner_of(BROKER_LOG)
            os.kill(shared.pids[owner], signal.SIGKILL)
            again = await call(ann, "conversations.send", conversation=pair, text="one", key="k1")
            assert (again.offset, again.repeated) == (1, True)
            assert (await call(ann, "conversations.send", conversation=pair, text="two", key="k2")).offset == 2
            history = await call(bob, "conversations.history", conversation=pair)
            assert [(each.offset, each.text) for each in history.items] == [(1, "one"), (2, "two")]
            texts: dict[int, str] = {}
            with trio.fail_after(DEADLINE_S):
                async for message in bob.events():
                    if isinstance(message, Direct) and message.payload.name == "conversations.message":
                        texts[message.direct_id] = message.payload.data.text
                    if "two" in texts.values():
                        break
            assert [texts[number] for number in sorted(texts)] == ["one", "two"]
