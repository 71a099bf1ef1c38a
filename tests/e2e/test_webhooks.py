"""Webhooks of real processes: kill -9 amid deliveries loses no event, and the command line works on them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import trio

from protocol.clients import open_client
from protocol.codes import MessageType, Outcome
from protocol.payloads import GiftPayload
from tests.support.processes import free_port, restarting, roomcast, running, serving
from tests.support.receiver import Received, http_reply, receiver
from tests.support.webhooks import SECRET, config_file, event_of, firsts, secret_file

pytestmark = pytest.mark.integration

ROOMS = ("r0", "r1")


async def test_kill_9_amid_deliveries_loses_no_event(tmp_path: Path) -> None:
    """The receiver fails now and then, the broker is killed four times: every order arrives, each room's in order."""
    rng = random.Random(3)
    events: list[dict[str, Any]] = []

    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        if rng.random() < 0.1:
            return http_reply(500)
        events.append(event_of(received))
        await trio.sleep(0.002)
        # Sometimes the receiver takes it and its answer is lost.
        return http_reply(204 if rng.random() < 0.95 else 500)

    port, acked = free_port(), set[str]()
    async with receiver(answer) as hooks:
        config = config_file(tmp_path, hooks.url, "gift.accepted")
        arguments = ["--config", str(config), "--port", str(port), "--log-level", "warning"]
        async with (
            restarting(*arguments) as broker,
            open_client(f"roomcast://127.0.0.1:{port}", "dev:shop:app") as shop,
            trio.open_nursery() as nursery,
        ):

            async def give(name: str) -> None:
                room = await shop.join(name)
                for number in range(60):
                    order = f"{name}-{number}"
                    gift = GiftPayload(order, f"user-{number}", "Viewer", "rose", 1, 100)
                    result = await room.post(MessageType.GIFT, gift, retry=True, timeout_s=60)
                    assert result.outcome in (Outcome.ACCEPTED, Outcome.MERGED)
                    acked.add(order)

            async def read(name: str) -> None:
                async for _ in await shop.join(name):
                    pass

            async with trio.open_nursery() as givers:
                for name in ROOMS:
                    givers.start_soon(give, name)
                for _ in range(4):
                    seen = len(events)
                    with trio.move_on_after(5):
                        while len(events) < seen + 15:  # noqa: ASYNC110 - the receiver counts
                            await trio.sleep(0.01)
                    await broker.restart()
            with trio.fail_after(60):
                while {event["data"]["order_id"] for event in events} < acked:  # noqa: ASYNC110 - as above
                    await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
    assert len(acked) == 120
    for room in ROOMS:
        offsets = firsts(events, room)
        assert offsets == sorted(offsets)
    facts = {event["id"]: event["data"]["order_id"] for event in events}
    assert len(facts) == len(set(facts.values())), "one fact has one id"
    verified = await roomcast("ledger", "verify", "--data-dir", str(tmp_path / "data"))
    assert verified.status == 0, verified.err


async def test_the_command_line_lists_retries_and_drops(tmp_path: Path) -> None:
    port, api = free_port(), free_port()
    secret = secret_file(tmp_path)
    config = config_file(tmp_path, f"http://127.0.0.1:{port}/hook", "room.opened", api=api)
    url = ("--url", f"http://127.0.0.1:{api}")
    async with serving("--config", str(config)):
        failed = await roomcast("webhooks", "test", "shop", *url)
        assert failed.status == 1
        assert "connect" in failed.out
        async with running("listen-webhooks", "--port", str(port), "--secret-file", secret) as listener:
            await listener.err.until("listening on")
            tested = await roomcast("webhooks", "test", "shop", "--note", "hello", *url)
            assert (tested.status, tested.err) == (0, "")
            assert json.loads(await listener.out.next())["data"] == {"note": "hello"}
            opened = await roomcast("call", "rooms.open", "room=live-1", *url)
            assert opened.status == 0, opened.err
            assert json.loads(await listener.out.next())["type"] == "room.opened"
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
                assert (await stream.receive_some()).startswith(b"HTTP/1.0 401")
            await listener.err.until("refused: the header webhook-id is missing")
        listed = await roomcast("webhooks", "list", *url)
        assert listed.out.startswith(f"shop  http://127.0.0.1:{port}  delivering  waiting")
        assert (await roomcast("webhooks", "retry", "--endpoint", "shop", *url)).out == "retried 0\n"
        assert (await roomcast("webhooks", "retry", "7", *url)).out == "retried 0\n"
        assert (await roomcast("webhooks", "drop", "7", *url)).out == "dropped 0\n"
        wrong = await roomcast("webhooks", "retry", *url)
        assert (wrong.status, "name IDS" in wrong.err) == (2, True)
    assert SECRET not in listed.out
