"""SIGTERM with many viewers: all get the time to reconnect, what was acknowledged is on the disk, exit status 0."""

from __future__ import annotations

import json
import signal
import socket
from collections import Counter
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
import trio

from protocol.clients import Client, ClientClosed, Disconnected, open_client
from protocol.clients.room import JoinedRoom
from protocol.codes import CloseCode, MessageType, Outcome
from protocol.payloads import GiftPayload
from tests.support.processes import Serving, healthz, read_all, roomcast, serving

pytestmark = [pytest.mark.integration, pytest.mark.slow]

VIEWERS = 200
WINDOW_S = 8.0


class Viewers:
    """Viewers over TCP and WebSocket, and the GOODBYE of each of them."""

    def __init__(self, broker: Serving) -> None:
        self.urls = (broker.url, f"ws://127.0.0.1:{broker.port}/")
        self.inside = 0
        self.goodbyes: list[Disconnected] = []

    async def view(self, number: int) -> None:
        async with open_client(self.urls[number % 2], f"dev:v{number}", reconnect=True) as client:
            await client.join("lobby")
            self.inside += 1
            async for event in client.events():
                if isinstance(event, Disconnected):
                    self.goodbyes.append(event)
                    return

    async def until(self, wanted: int) -> None:
        with trio.fail_after(60):
            while self.inside < wanted:  # noqa: ASYNC110 - it only looks now and then
                await trio.sleep(0.01)


async def give(room: JoinedRoom, acked: list[str], worker: int) -> None:
    """One gift after the other until the link has gone; what was acknowledged is written down."""
    with suppress(ClientClosed):
        for number in count(1):
            order = f"order-{worker}-{number}"
            gift = GiftPayload(order, f"user-{number}", "Viewer", "rose", 1, 100)
            result = await room.post(MessageType.GIFT, gift, timeout_s=20)
            if result.outcome in (Outcome.ACCEPTED, Outcome.MERGED):
                acked.append(order)


async def storm(shop: Client, nursery: trio.Nursery, acked: list[str]) -> None:
    room = await shop.join("lobby")
    nursery.start_soon(read_all, room)
    for worker in range(4):
        nursery.start_soon(give, room, acked, worker)
    while len(acked) < 20:  # noqa: ASYNC110 - it only looks now and then
        await trio.sleep(0.01)


async def test_every_viewer_is_sent_away_with_returns_spread_over_the_window(tmp_path: Path) -> None:
    settings = {"drain_s": WINDOW_S, "drain_limit_s": 9, "handshake_timeout_s": 60, "frames_per_s": 0}
    options = [part for name, value in settings.items() for part in ("--set", f"link.{name}={value}")]
    options += ["--set", "room.paid_budget_per_s=0"]
    acked: list[str] = []
    async with serving("--data-dir", str(tmp_path), *options) as broker:
        viewers = Viewers(broker)
        with socket.create_connection(("127.0.0.1", broker.port)) as silent:
            silent.sendall(b"\0")  # it never closes its end, so the drain waits for it a little
            async with trio.open_nursery() as nursery:
                for number in range(VIEWERS):
                    nursery.start_soon(viewers.view, number)
                await viewers.until(VIEWERS)
                assert (await healthz(broker))[0] == 200
                async with open_client(broker.url, "dev:shop:app", reconnect=False) as shop:
                    async with trio.open_nursery() as giving:
                        await storm(shop, giving, acked)
                        broker.signal(signal.SIGTERM)
                        await broker.err.until('"draining"')
                        status, words = await healthz(broker)
                        assert (status, words["status"]) == (503, "draining")
            drained = json.loads(await broker.err.until('"drained"'))
            assert drained["cut"] == 0, "the silent one got its GOODBYE too"
            assert drained["ledger_waiting"] == 0
        assert await broker.wait(20) == 0
    assert len(viewers.goodbyes) == VIEWERS
    assert {goodbye.code for goodbye in viewers.goodbyes} == {CloseCode.GOING_AWAY}
    quarters = Counter(int(4 * (goodbye.retry_in_s or 0.0) / WINDOW_S) for goodbye in viewers.goodbyes)
    assert set(quarters) == {0, 1, 2, 3}
    assert min(quarters.values()) > VIEWERS / 10
    verified = await roomcast("ledger", "verify", "--data-dir", str(tmp_path))
    assert verified.status == 0, verified.err
    exported = await roomcast("ledger", "export", "--data-dir", str(tmp_path))
    lines = [json.loads(line) for line in exported.out.splitlines()]
    assert set(acked) <= {line["payload"][0] for line in lines if "payload" in line}
