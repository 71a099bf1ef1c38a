"""The review queue over HTTP and CALL: a real broker, a real ledger, kills and a disk that refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.ledger import LedgerState
from broker.server import Broker
from protocol.codes import ErrorCode, MessageType, Outcome
from protocol.messages import Ack, AckResult, Event, Post, Tick
from tests.support.api import API, client_of, ok, refused
from tests.support.broker import RawLink, joined_link
from tests.support.durable import disk, durable_broker
from tests.support.faulty_disk import disk_error
from tests.support.until import until

pytestmark = pytest.mark.integration
ROOM = "lobby"
ANNOUNCEMENT = int(MessageType.ANNOUNCEMENT)
NOTE = {"id": 140, "name": "note", "lane": "commerce", "roles": ["viewer"], "rate_per_s": 1000.0, "burst": 1000}
SETTINGS: dict[str, Any] = {
    "api": API,
    "types": [NOTE],
    "room": {"user_chat_per_s": 1000.0, "user_chat_burst": 1000, "duplicate_window_s": 0, "pre_review": True},
}


@asynccontextmanager
async def reviewed(directory: Path, **more: Any) -> AsyncIterator[tuple[Broker, Any]]:
    """Run a broker whose rooms hold everything, and a client of its API."""
    async with durable_broker(directory, **{**SETTINGS, **more}) as broker, client_of(broker) as http:
        yield broker, http


async def say(link: RawLink, room: int, number: int, text: str, kind: int = 1, key: str = "") -> AckResult:
    """Post a message and return its first result."""
    payload = (text, None) if kind == 1 else text
    await link.send((Post(kind, key, payload), room, number))
    return await result_of(link, number)


async def result_of(link: RawLink, number: int) -> AckResult:
    while True:
        _, ack = await link.expect(Ack)
        for result in ack.results:
            if result.sequence == number:
                return result


async def shown(link: RawLink, count: int) -> list[str]:
    """Return the texts of the next ``count`` danmaku and notes that a member sees."""
    texts: list[str] = []
    with trio.fail_after(10):
        while len(texts) < count:
            frame = await link.next_frame()
            assert frame is not None
            if isinstance(frame.message, Tick):
                texts += [entry.payload[0] for entry in frame.message.entries]
            elif isinstance(frame.message, Event) and frame.message.type == NOTE["id"]:
                texts.append(frame.message.payload)
    return texts


async def ids(http: Any, **fields: Any) -> list[int]:
    page = await ok(http, "moderation.queue", room=ROOM, **fields)
    return [item["id"] for item in page["items"]]


async def test_what_is_held_is_shown_after_approval_in_order_with_its_author_and_type(tmp_path: Path) -> None:
    async with (
        reviewed(tmp_path) as (broker, http),
        joined_link(broker, "dev:ann") as (ann, room),
        joined_link(broker, "dev:bob") as (bob, _),
    ):
        for number, (text, kind) in enumerate((("one", 1), ("two", 140), ("three", 1), ("bad", 1)), 1):
            assert (await say(ann, room, number, text, kind)).outcome is Outcome.HELD
        page = await ok(http, "moderation.queue", room=ROOM, limit=2)
        assert [(item["id"], item["user"], item["state"], item["held_by"]) for item in page["items"]] == [
            (1, "ann", "waiting", "room"), (2, "ann", "waiting", "room"),
        ]  # fmt: skip
        rest = await ok(http, "moderation.queue", room=ROOM, cursor=page["next"])
        assert ([item["id"] for item in rest["items"]], rest["next"]) == ([3, 4], None)
        decided = await ok(http, "moderation.decide", room=ROOM, items=[2, 3], verdict="approve")
        assert decided["decided"] == 2
        await ok(http, "moderation.decide", room=ROOM, items=[4], verdict="reject", reason="rude")
        _, ack = await ann.expect(Ack)
        assert ack.results == (AckResult(4, Outcome.REJECTED, ErrorCode.BLOCKED),)
        assert [each[:2] for each in ack.reasons] == [(4, "rude")]
        await ok(http, "moderation.decide", room=ROOM, items=[1], verdict="approve")
        assert sorted(await shown(bob, 3)) == ["one", "three", "two"]
        assert (await result_of(ann, 3)).outcome is Outcome.ACCEPTED
        history = await ok(http, "rooms.history", room=ROOM)
        assert [(each["user"], each["type"], each["payload"]) for each in history["items"]] == [("ann", 140, "two")]
        assert await ids(http) == []
        assert await ids(http, state="shown") == [1, 2, 3]
        assert broker.stats().balanced


async def test_the_queue_and_its_order_are_as_they_were_after_a_restart(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as (broker, http), joined_link(broker, "dev:ann") as (ann, room):
        for number, text in enumerate(("one", "two", "three"), 1):
            await say(ann, room, number, text, 140, key=text)
        await ok(http, "moderation.claim", room=ROOM, items=[3], ttl_ms=600_000)
        await ok(http, "moderation.decide", room=ROOM, items=[2], verdict="approve")
    for _ in range(2):
        async with reviewed(tmp_path) as (broker, http), joined_link(broker, "dev:ann") as (ann, room):
            page = await ok(http, "moderation.queue", room=ROOM)
            assert [item["state"] for item in page["items"]] == ["waiting", "approved", "claimed"]
            assert (await say(ann, room, 9, "three", 140, key="three")).outcome is Outcome.HELD
    async with (
        reviewed(tmp_path) as (broker, http),
        joined_link(broker, "dev:ann") as (ann, room),
        joined_link(broker, "dev:bob") as (bob, _),
    ):
        await ok(http, "moderation.decide", room=ROOM, items=[3, 1], verdict="approve")
        assert await shown(bob, 3) == ["one", "two", "three"]
        assert (await say(ann, room, 9, "three", 140, key="three")).outcome is Outcome.ACCEPTED
    async with reviewed(tmp_path) as (broker, http):
        history = await ok(http, "rooms.history", room=ROOM)
        assert [each["payload"] for each in history["items"]] == ["one", "two", "three"]
        assert await ids(http) == []


async def test_a_disk_that_takes_nothing_holds_nothing_and_shows_nothing(tmp_path: Path) -> None:
    async with (
        reviewed(tmp_path) as (broker, http),
        joined_link(broker, "dev:ann") as (ann, room),
        joined_link(broker, "dev:bob") as (bob, _),
    ):
        await say(ann, room, 1, "one", 140)
        disk(broker).fault = disk_error("SQLITE_FULL")
        assert (await say(ann, room, 2, "two", 140)).outcome is Outcome.UNAVAILABLE
        status, code, _ = await refused(http, "moderation.decide", room=ROOM, items=[1], verdict="approve")
        assert (status, code) == (503, "OVERLOADED")
        disk(broker).fault = None
        ledger = broker.ledger
        assert ledger is not None
        await until(lambda: ledger.state is LedgerState.READY)
        assert await ids(http) == [1]
        await ok(http, "moderation.decide", room=ROOM, items=[1], verdict="approve")
        assert await shown(bob, 1) == ["one"]
