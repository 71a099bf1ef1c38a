"""Events a second that one endpoint takes, in order per room, from the ledger's outbox.

The outbox is filled first, as after an outage; then deliveries start and are timed until the ledger has no row of them
left. The receiver is another process. The floor is the sender alone, with the same bodies and as many connections.
"""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from bench.micro.harness import cpu_s
from bench.micro.result import Result
from broker.config.schema import LogConfig
from broker.config.webhooks import EndpointConfig, WebhookConfig
from broker.ledger import Entry, Ledger, OutboxEntry, SubmitResult
from broker.telemetry.logs import configure
from broker.webhooks.events import WebhookEvents, unstored_event
from broker.webhooks.sender import WebhookSender
from broker.webhooks.service import WebhookDeliveries
from protocol.codes import Lane, MessageType
from protocol.webhook_events import MessagePublishedData

__all__ = ["webhooks"]

ROOMS = 50
EVENTS = 20_000
GOAL_PER_S = 2_000


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000


async def webhooks(smoke: bool) -> list[Result]:
    """Measure deliveries of a filled outbox, and the sender alone before."""
    configure(LogConfig(level="warning"))
    count = 200 if smoke else EVENTS
    with (
        tempfile.TemporaryDirectory(prefix="roomcast-webhooks-", dir=os.environ.get("ROOMCAST_BENCH_DIR")) as name,
        _receiver() as receiver,
    ):
        directory = Path(name)
        config = _config(directory, receiver)
        floor_per_s = await _sender_alone(config, count)
        delivered_per_s, cpu_us = await _deliver(directory, config, count)
        assert receiver.stdin is not None
        receiver.stdin.close()
        assert receiver.stdout is not None
        received = json.loads(receiver.stdout.readline())
    distinct, misplaced = received["distinct"], received["misplaced"]
    if distinct != count or misplaced:
        raise RuntimeError(f"{distinct} of {count} events arrived, {misplaced} out of order")
    detail = {"rooms": ROOMS, "events": count, "repeated": received["events"] - distinct, "cpu_us": round(cpu_us, 1)}
    return [
        Result(
            "webhooks", f"events a second in order, {ROOMS} rooms, receiver in another process", delivered_per_s, "/s",
            None if smoke else GOAL_PER_S, False, floor_per_s, "the sender alone", "value", detail,
        )
    ]  # fmt: skip


@contextmanager
def _receiver() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.micro.hook_receiver"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _config(directory: Path, receiver: subprocess.Popen[str]) -> WebhookConfig:
    assert receiver.stdout is not None
    secret = directory / "secret"
    secret.touch(mode=0o600)
    secret.write_text("whsec_" + base64.b64encode(bytes(32)).decode())
    url = f"http://127.0.0.1:{json.loads(receiver.stdout.readline())['port']}/hook"
    endpoint = EndpointConfig(name="bench", url=url, secret_file=str(secret), events=("message.published",))
    return WebhookConfig(endpoints=(endpoint,))


async def _sender_alone(config: WebhookConfig, count: int) -> float:
    """Return the posts a second over all connections, of events that are not stored."""
    _, context, keys = WebhookDeliveries.read(config)
    assert context is not None
    sender = WebhookSender(config.endpoints[0], config, keys["bench"], context, _unix_ms)
    posts = iter(range(count // 4))

    async def post() -> None:
        for number in posts:
            made, body = unstored_event("webhook.test", _data(number), 0)
            reply = await sender.post(made, body, 10)
            assert reply.is_success, reply

    started = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(config.max_connections):
            nursery.start_soon(post)
    took_s = time.perf_counter() - started
    await sender.aclose()
    return (count // 4) / took_s


def _data(number: int) -> MessagePublishedData:
    return MessagePublishedData("announcement", f"user-{number}", "Viewer", {"text": "新品上架，前一百名半价"})


async def _deliver(directory: Path, config: WebhookConfig, count: int) -> tuple[float, float]:
    """Return the deliveries a second, and the CPU of each in microseconds."""
    events = WebhookEvents({})
    events.use(config.endpoints)
    ledger = Ledger(directory / "ledger", unix_ms=_unix_ms)
    async with trio.open_nursery() as nursery:
        await nursery.start(ledger.run)
        for number in range(count):
            room = f"room-{number % ROOMS}"
            entry = Entry(room, 7, Lane.CONTROL, MessageType.ANNOUNCEMENT, _unix_ms(), b"")
            rows: tuple[OutboxEntry, ...] = events.of_room(
                "message.published", room, 7, _data(number), _unix_ms(), topic="message.announcement"
            )
            while ledger.record((entry, *rows), lambda result: None) is not SubmitResult.QUEUED:
                await ledger.flush()
        await ledger.flush()
        webhooks = WebhookDeliveries(config, ledger, events, _unix_ms, random.Random(1))
        started, cpu = time.perf_counter(), cpu_s()
        await nursery.start(webhooks.run)
        deliveries = webhooks.endpoints["bench"]
        while deliveries.delivered < count:  # noqa: ASYNC110 - a counter of the bench
            await trio.sleep(0.005)
        await ledger.flush()
        took_s, cpu = time.perf_counter() - started, cpu_s() - cpu
        nursery.cancel_scope.cancel()
    return count / took_s, cpu / count * 1e6
