"""SIGKILL in the middle of a gift storm: as a user of `roomcast serve` sees it, and as our own clients do.

Every gift that was acknowledged is in the ledger once, every viewer has seen every event once and in order, and
`roomcast ledger verify` finds nothing to complain of.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from protocol.clients import open_client
from protocol.clients.events import Gap, StreamEvent
from protocol.clients.room import JoinedRoom
from protocol.codes import MessageType, Outcome
from protocol.payloads import GiftPayload
from tests.support.processes import Eager, Running, free_port, restarting, roomcast, running, serving

pytestmark = pytest.mark.integration

ROOMS = ("r0", "r1", "r2")
WINDOW = 8
"""Gifts under way in each room."""


class Show:
    """A storm of gifts in some rooms, and one viewer in each who writes down what comes."""

    def __init__(self) -> None:
        self.acked: dict[str, tuple[str, int]] = {}
        """Room and offset by order."""
        self.seen: dict[str, list[tuple[int, str]]] = {room: [] for room in ROOMS}
        """Offset and order, as each room's viewer got them."""
        self.gaps: list[Gap] = []
        self.duplicates = 0
        self.heard = trio.Event()
        self._orders = 0
        self.givers = 0
        """Tasks that still post."""
        self.is_over = False

    async def give(self, room: JoinedRoom) -> None:
        """Post one gift after the other, each until the broker has acknowledged it."""
        self.givers += 1
        while not self.is_over:
            self._orders += 1
            order = f"order-{self._orders}"
            gift = GiftPayload(order, f"user-{self._orders}", "Viewer", "rose", 1, 100)
            while True:
                result = await room.post(MessageType.GIFT, gift, retry=True, timeout_s=60)
                if result.outcome in (Outcome.ACCEPTED, Outcome.MERGED):
                    assert self.acked.setdefault(order, (room.name, result.offset)) == (room.name, result.offset)
                    self.heard.set()
                    break
                await trio.sleep(result.retry_after_ms / 1000 or 0.01)
        self.givers -= 1

    async def pass_over(self, room: JoinedRoom) -> None:
        """Read a room only so that its events do not fill the link."""
        async for _ in room:
            pass

    async def watch(self, room: JoinedRoom) -> None:
        """Write down every event."""
        async for event in room:
            if isinstance(event, Gap):
                self.gaps.append(event)
            elif isinstance(event, StreamEvent):
                self.seen[room.name].append((event.offset, event.payload[0]))

    async def more_acks(self, count: int) -> None:
        """Wait for so many more."""
        target = len(self.acked) + count
        with trio.fail_after(60):
            while len(self.acked) < target:
                self.heard = trio.Event()
                await self.heard.wait()

    def unseen(self) -> int:
        """Acknowledged gifts that no viewer has seen (yet)."""
        return len(self.acked.keys() - {order for seen in self.seen.values() for _, order in seen})

    def check(self) -> None:
        """Every viewer saw every event once, in order, and what was acknowledged stands where it was said to stand."""
        assert self.gaps == []
        for room in ROOMS:
            offsets = [offset for offset, _ in self.seen[room]]
            assert offsets == list(range(1, len(offsets) + 1)), room
        assert max(Counter(order for seen in self.seen.values() for _, order in seen).values()) == 1
        slots = {order: (room, offset) for room, seen in self.seen.items() for offset, order in seen}
        assert {order: place for order, place in self.acked.items() if slots.get(order) != place} == {}


def options(directory: Path, port: str) -> list[str]:
    """A broker with a ledger on a fixed port, without pacing or limits of its own."""
    settings = ("room.paid_budget_per_s=0", "room.admit_per_window=100000", "link.frames_per_s=0")
    without_limits = [part for setting in settings for part in ("--set", setting)]
    return ["--data-dir", str(directory), "--port", port, "--log-level", "warning", *without_limits]


Restart = Callable[[], Awaitable[None]]


@asynccontextmanager
async def started_anew(*options: str) -> AsyncIterator[Restart]:
    """A broker that is killed and started as a user starts it."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(serving(*options))

        async def restart() -> None:
            nonlocal broker
            broker.process.kill()
            await broker.process.wait()
            broker = await stack.enter_async_context(serving(*options))

        yield restart


@asynccontextmanager
async def forked(*options: str) -> AsyncIterator[Restart]:
    """A broker that is killed and started without the cost of starting Python."""
    async with restarting(*options) as broker:
        yield broker.restart


async def storm(directory: Path, kills: int, rng: random.Random, kind: Callable[..., Any] = started_anew) -> Show:
    """Kill the broker so many times in the middle of the storm; the clients never restart."""
    show, port = Show(), str(free_port())
    url = f"roomcast://127.0.0.1:{port}"
    async with AsyncExitStack() as stack:
        restart = await stack.enter_async_context(kind(*options(directory, port)))
        shop = await stack.enter_async_context(open_client(url, "dev:shop:app", rng=Eager(1)))
        viewer = await stack.enter_async_context(open_client(url, "dev:ann", rng=Eager(2)))
        nursery = await stack.enter_async_context(trio.open_nursery())
        for name in ROOMS:
            nursery.start_soon(show.watch, await viewer.join(name))
            room = await shop.join(name)
            nursery.start_soon(show.pass_over, room)
            for _ in range(WINDOW):
                nursery.start_soon(show.give, room)
        for _ in range(kills):
            await show.more_acks(rng.randint(20, 200))
            await restart()
        await show.more_acks(100)
        show.is_over = True
        with trio.fail_after(60):
            while show.givers or show.unseen():  # noqa: ASYNC110 - it only looks now and then
                await trio.sleep(0.01)
        show.duplicates = sum(room.duplicates for room in viewer.rooms.values())
        nursery.cancel_scope.cancel()
    return show


async def check_ledger(directory: Path, show: Show) -> None:
    """The commands find an unbroken book that holds every acknowledged gift once."""
    verified = await roomcast("ledger", "verify", "--data-dir", str(directory))
    assert verified.status == 0, verified.err
    exported = await roomcast("ledger", "export", "--data-dir", str(directory))
    lines = [json.loads(line) for line in exported.out.splitlines()]
    events = [line for line in lines if "payload" in line]
    orders = Counter(line["payload"][0] for line in events)
    assert max(orders.values()) == 1
    assert set(show.acked) <= set(orders)
    assert Counter(line["order"]["order_id"] for line in lines if "order" in line) == orders
    for room in ROOMS:
        offsets = [line["offset"] for line in events if line["room"] == room]
        assert offsets == list(range(1, len(offsets) + 1))
    assert len({line["epoch"] for line in lines}) == len(ROOMS), "a room began anew"


async def test_a_gift_storm_survives_kill_9(tmp_path: Path) -> None:
    show = await storm(tmp_path / "data", 2, random.Random(1))
    show.check()
    await check_ledger(tmp_path / "data", show)


@pytest.mark.slow
async def test_fifty_kills_under_load_lose_no_gift_and_show_none_twice(tmp_path: Path) -> None:
    show = await storm(tmp_path / "data", 50, random.Random(2), forked)
    show.check()
    await check_ledger(tmp_path / "data", show)


async def test_tail_shows_an_unbroken_sequence_over_a_kill(tmp_path: Path) -> None:
    directory, port = tmp_path / "data", str(free_port())
    url = f"roomcast://127.0.0.1:{port}"
    offsets: list[int] = []

    async def follow(tail: Running, count: int) -> None:
        while len(offsets) < count:
            event = json.loads(await tail.out.next())
            assert event["event"] != "gap", event
            if event["event"] == "event":
                offsets.append(event["offset"])

    async with AsyncExitStack() as stack:
        tail: Running | None = None
        for life in range(2):
            async with (
                serving(*options(directory, port)) as broker,
                open_client(url, "dev:max:host", rng=Eager(life)) as host,
            ):
                if tail is None:
                    tail = await stack.enter_async_context(
                        running("tail", "lobby", "--json", "--url", url, "--token", "dev:ann")
                    )
                    await tail.out.until("snapshot")
                room = await host.join("lobby")
                for number in range(5):
                    result = await room.post_announcement(f"news {life} {number}")
                    assert result.offset == 5 * life + number + 1
                await follow(tail, 5 * (life + 1))
                broker.process.kill()
                await broker.process.wait()
    assert offsets == list(range(1, 11))


async def test_the_default_is_to_keep_and_ephemeral_says_what_it_gives_up(tmp_path: Path) -> None:
    config = tmp_path / "roomcast.toml"
    config.write_text("[link]\ndrain_s = 0.1\n")
    async with serving("--config", str(config)) as broker:
        assert (tmp_path / "roomcast-data" / "ledger.db").exists()
        second = await roomcast("serve", "--config", str(config), "--port", "0")
        assert second.status == 1
        assert f"in use by process {broker.announced['pid']}" in second.err
    async with serving("--ephemeral") as broker:
        await broker.err.until("ephemeral: nothing is kept")


async def test_a_damaged_ledger_is_not_served(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"nonsense" * 1000)
    done = await roomcast("serve", "--data-dir", str(tmp_path), "--port", "0")
    assert done.status == 1
    assert "ledger.db" in done.err
    assert "Traceback" not in done.err
