"""A platform with a real broker, its control API, and viewers with real clients, for acceptance tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import trio

from broker.server import Broker
from protocol.activities import ActivityEvent
from protocol.clients import Client, Direct, JoinedRoom, StreamEvent
from protocol.clients.events import ActivityCounters, Danmaku
from protocol.json_values import as_json
from tests.support.api import API, call
from tests.support.broker import running_broker

__all__ = ["OPEN_SALE", "ROOM", "WIDE", "Platform", "Viewer", "all_have", "audience", "eventually", "platform"]

T = TypeVar("T")

ROOM = "live-1"
WIDE = {"user_chat_per_s": 1000.0, "user_chat_burst": 1000}
"""Limits of a viewer that do not end a test of something else."""
OPEN_SALE: dict[str, Any] = {
    "id": "sale-1", "sku": "mug", "stock": 10, "price_cents": 1990, "open_at_ms": 0, "close_at_ms": 4102444800000,
    "reserve_ms": 15_000, "first_window_ms": 0, "window_ms": 0, "waiting_max": 0,
}  # fmt: skip
"""A sale of ten units that is open and decides each claim when it arrives."""


@dataclass(frozen=True)
class Platform:
    """A broker and the platform beside it, which calls its control API."""

    broker: Broker
    http: httpx.AsyncClient
    has_api: bool
    """Whether operations are called over HTTP; a broker with a secret wants keys there, and is called in process."""

    async def call(self, operation: str, /, key: str = "", **fields: Any) -> Any:
        """Call an operation that must succeed, again after the wait that the broker names where it is too often.

        ``key``: its idempotency key.
        """
        if self.has_api:
            while (answer := await call(self.http, operation, key, **fields)).status_code == 429:  # noqa: ASYNC110
                await trio.sleep(answer.json()["retry_after_ms"] / 1000)
            assert answer.status_code == 200, answer.text
            return answer.json()
        return as_json(await self.broker.call(operation, idempotency_key=key, **fields))


@asynccontextmanager
async def platform(directory: Path, **sections: Any) -> AsyncIterator[Platform]:
    """Run a broker that keeps its ledger in ``directory``, with the room ``live-1`` open; ``sections`` as in TOML."""
    ledger = {"data_dir": str(directory), **sections.pop("ledger", {})}
    api: dict[str, Any] = {} if "auth" in sections else {"api": {**API, "requests_per_s": 100_000}}
    sections = {**api, "admission": {"address_share": 1.0}, **sections}
    limits = httpx.Limits(max_keepalive_connections=0)  # the broker closes what is idle when a test sets its clock on
    async with running_broker(ledger=ledger, **sections) as broker:
        url = broker.api_urls[0] if api else ""
        async with httpx.AsyncClient(base_url=url, trust_env=False, limits=limits) as http:
            opened = Platform(broker, http, has_api=bool(api))
            await opened.call("rooms.open", room=ROOM, title="Evening sale")
            yield opened


@dataclass
class Viewer:
    """A user with a client in a room, and what it was sent there."""

    user: str
    client: Client
    room: JoinedRoom
    received: list[Any] = field(default_factory=list)
    """Events of the room, in order."""
    directs: list[Direct] = field(default_factory=list)

    def of(self, kind: type[T]) -> list[T]:
        """Return the events of a class."""
        return [each for each in self.received if isinstance(each, kind)]

    def texts(self) -> list[str]:
        """Return the texts of the danmaku that were shown."""
        return [each.payload[0] for each in self.of(Danmaku)]

    def activities(self, name: str) -> list[Any]:
        """Return the data of the activity events of a name, those of the lane of counters included."""
        events = [e.payload if isinstance(e, StreamEvent) else e for e in self.received]
        return [e.data for e in events if isinstance(e, ActivityEvent | ActivityCounters) and e.name == name]

    def has_read(self, offset: int) -> bool:
        """Return whether it has the event of an offset, or a later one."""
        events = self.of(StreamEvent)
        return bool(events) and events[-1].offset >= offset

    async def collect_room(self) -> None:
        """Keep what the room sends."""
        async for event in self.room:
            self.received.append(event)

    async def collect_directs(self) -> None:
        """Keep the must-deliver messages, which are acknowledged by this."""
        async for event in self.client.events():
            if isinstance(event, Direct):
                self.directs.append(event)


@asynccontextmanager
async def audience(
    broker: Broker, users: Sequence[str | None], room: str = ROOM, *, reads_directs: bool = False, **options: Any
) -> AsyncIterator[list[Viewer]]:
    """Open a client for each user, join the room, and collect what is sent. A user: "ann", a token such as
    "dev:max:host", or None for a guest."""
    async with AsyncExitStack() as clients:
        viewers: list[Viewer] = []
        for user in users:
            token = f"dev:{user}" if user is not None and user.isalnum() else user
            client = await clients.enter_async_context(broker.connect(token, **options))
            joined = await client.join(room)
            assert client.user is not None
            viewers.append(Viewer(client.user.user_id, client, joined))
        async with trio.open_nursery() as nursery:
            for viewer in viewers:
                nursery.start_soon(viewer.collect_room)
                if reads_directs:
                    nursery.start_soon(viewer.collect_directs)
            yield viewers
            nursery.cancel_scope.cancel()


async def eventually(is_so: Callable[[], object]) -> None:
    """Wait until ``is_so()`` is true, asking every 20 ms: with hundreds of viewers `until` asks too often."""
    for _ in range(6000):
        if is_so():
            return
        await trio.sleep(0.02)
    raise AssertionError("it did not happen within two minutes")


async def all_have(viewers: Sequence[Viewer], name: str, count: int) -> None:
    """Wait until each viewer has so many activity events of a name."""
    await eventually(lambda: all(len(viewer.activities(name)) >= count for viewer in viewers))
