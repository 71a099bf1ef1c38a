"""A show in the simulated world, and what must be true of it whatever happened.

Viewers watch, a shop sends gifts, a host talks, the platform sends messages to users; all through our own clients. The
seed cuts links, stalls them, fills the disk and kills the broker, at any step. Then the world heals, and: every
gift that was acknowledged is in the ledger once and where it was said to be; every viewer has seen every event of
its stream once, in order, without a gap; every user has seen every message once, in order; every account adds up.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from broker.ledger import Committed, DirectState, Reader, Repeated, Settled, Verdict, database_path
from broker.ledger.replay import event_of, replay
from protocol.clients import Client, PipeLost, open_client
from protocol.clients.events import Event, Gap
from protocol.clients.subscription import Room
from protocol.codes import MessageType, Outcome
from protocol.messages import Direct
from protocol.payloads import GiftPayload
from tests.broker.ledger.books import MEMORY
from tests.sim.house import Life
from tests.sim.network import SimPipe, Wire
from tests.sim.world import World, run_world

__all__ = ["Show", "simulate"]

TROUBLE_S = 20.0
"""Virtual seconds in which things go wrong."""
HEAL_S = 300.0
"""Virtual seconds within which everything must have come true: longer than any backoff."""
ROOMS = ("lobby", "直播间")
GIFTS, NEWS, CODES = 20, 15, 30
"""Gifts and announcements in each room, and messages to users."""
USERS = ("ann", "bob")
DEVICES = ("ann", "ann:viewer", "bob")
"""Tokens of the users' devices; Ann has two, which share her inbox."""
URL = "roomcast://house:7400"


class Show:
    """Everybody, and what they wrote down."""

    def __init__(self, world: World, directory: Path) -> None:
        self.world = world
        self.directory = directory
        self.history_entries = world.rng.choice([0, 3, 512])
        self.life: Life | None = None
        self.lives = 0
        self.wires = 0
        self.is_over = False
        self.acked: dict[str, tuple[str, int]] = {}
        self.seen: dict[tuple[str, str], list[tuple[int, Any]]] = {}
        self.first: dict[tuple[str, str], int] = {}
        self.gaps: list[Gap] = []
        self.sent: dict[str, list[tuple[int, str]]] = {user: [] for user in USERS}
        self.shown: dict[str, list[tuple[int, str]]] = {device: [] for device in DEVICES}
        self.under_way = len(ROOMS) * (GIFTS + NEWS) + CODES
        """What somebody still has to send, and to hear that it is durable."""

    # ---- the house

    async def keep_alive(self, nursery: trio.Nursery) -> None:
        """Start the broker, and again whenever it is dead."""
        while True:
            if self.life is None or self.life.is_dead:
                await self.world.pause(1.0)
                self.lives += 1
                life = Life(self.world, self.directory, self.lives, self.history_entries)
                await nursery.start(life.run)
                self.life = life
            await trio.sleep(0.05)

    async def connect(self, nursery: trio.Nursery, address: object) -> SimPipe:
        """The clients' network."""
        await self.world.pause(0.1)
        life = self.life
        if life is None or life.is_dead or self.world.chance(0.05):
            raise PipeLost(None, "connection refused")
        self.wires += 1
        wire = Wire(self.world, self.wires)
        nursery.start_soon(wire.run)
        life.accept(wire)
        return SimPipe(wire)

    async def trouble(self) -> None:
        """Break something now and then."""
        world = self.world
        while not world.healed:
            await world.pause(1.0)
            life = self.life
            if life is None or life.is_dead or world.healed:
                continue
            wires = [wire for wire in life.wires if not wire.is_cut]
            what = world.rng.random()
            if what < 0.08:
                life.kill()
            elif wires and what < 0.4:
                wire = world.rng.choice(wires)
                world.note("cut", wire.number)
                wire.cut()
            elif wires and what < 0.6:
                wire = world.rng.choice(wires)
                world.note("stall", wire.number)
                wire.stall(world.rng.uniform(0, 8))

    # ---- people

    @asynccontextmanager
    async def client(self, token: str) -> AsyncIterator[Client]:
        async with open_client(
            URL,
            token,
            rng=random.Random(self.world.rng.getrandbits(64)),
            connect=self.connect,  # type: ignore[arg-type]  # a pipe is a pipe
            wall_ms=self.world.unix_ms,
            open_timeout_s=0,
        ) as client:
            yield client

    async def join(self, client: Client, name: str) -> Room:
        while True:
            try:
                return await client.join(name)
            except Exception as error:
                self.world.note("join failed", name, repr(error))
                await trio.sleep(1.0)

    async def view(self, user: str, name: str) -> None:
        """Watch a room, at one's own speed, with one's own eyes."""
        async with self.client(f"dev:{user}") as client:
            room = await self.join(client, name)
            assert room.snapshot is not None
            key = user, name
            self.first[key] = room.snapshot.offset + 1
            self.seen[key] = []
            async for event in room:
                if isinstance(event, Gap):
                    self.gaps.append(event)
                    self.world.note("gap", *key, event)
                elif isinstance(event, Event):
                    self.seen[key].append((event.offset, event.payload))
                    self.world.note("saw", *key, event.offset)
                if self.world.chance(0.05):
                    await self.world.pause(1.0)

    async def shop(self) -> None:
        """Send gifts to both rooms, each until it is acknowledged."""
        async with self.client("dev:shop:app") as client, trio.open_nursery() as nursery:
            for name in ROOMS:
                room = await self.join(client, name)
                nursery.start_soon(self.pass_over, room)
                for number in range(GIFTS):
                    await self.world.pause(1.0)
                    nursery.start_soon(self.give, room, f"{name} {number}")

    async def give(self, room: Room, order: str) -> None:
        giver = self.world.rng.choice("xyz")
        gift = GiftPayload(order, giver, giver, "rose", 1 + len(order) % 3, 100)
        while True:
            result = await room.post(MessageType.GIFT, gift, retry=True, timeout_s=10.0)
            if result.outcome in (Outcome.ACCEPTED, Outcome.MERGED):
                self.world.note("acked", order, result.offset)
                assert self.acked.setdefault(order, (room.name, result.offset)) == (room.name, result.offset)
                if not self.world.chance(0.3):  # else the platform did not hear it, and asks again
                    break
            else:
                await trio.sleep(max(0.1, result.retry_after_ms / 1000))
        self.under_way -= 1

    async def host(self) -> None:
        """Talk now and then."""
        async with self.client("dev:max:host") as client, trio.open_nursery() as nursery:
            for name in ROOMS:
                room = await self.join(client, name)
                nursery.start_soon(self.pass_over, room)
                nursery.start_soon(self.talk, room)

    async def talk(self, room: Room) -> None:
        for number in range(NEWS):
            await self.world.pause(2.0)
            message_id = f"talk-{room.name}-{number}"
            while True:
                result = await room.post(
                    MessageType.ANNOUNCEMENT, (f"news {number}",), client_msg_id=message_id, retry=True, timeout_s=10.0
                )
                if result.outcome is Outcome.ACCEPTED:
                    place = room.name, result.offset
                    assert self.acked.setdefault(message_id, place) == place
                    break
                await trio.sleep(max(0.1, result.retry_after_ms / 1000))
            self.under_way -= 1

    async def pass_over(self, room: Room) -> None:
        async for _ in room:
            pass

    async def user(self, device: str) -> None:
        """Read one's messages."""
        async with self.client(f"dev:{device}") as client:
            async for event in client.events():
                if isinstance(event, Direct) and event.direct_id:
                    self.world.note("message", device, event.direct_id)
                    self.shown[device].append((event.direct_id, event.payload))
                    if self.world.chance(0.1):
                        await self.world.pause(1.0)

    async def platform(self) -> None:
        """Send messages to users, each with a key, until it is known to be durable."""
        for number in range(CODES):
            await self.world.pause(1.0)
            user = self.world.rng.choice(USERS)
            text = f"code {number}"
            while True:
                told: list[Settled] = []
                life = self.life
                if life is not None and not life.is_dead:
                    verdict = life.inboxes.send(user, 200, text, told.append, key=f"key {number}")
                    while verdict is Verdict.QUEUED and not told and not life.is_dead:  # noqa: ASYNC110
                        await trio.sleep(0.05)
                    if told and isinstance(told[0], Committed):
                        self.sent[user].append((told[0].direct_ids[0], text))
                        break
                    if told and isinstance(told[0], Repeated):
                        self.sent[user].append((0, text))
                        break
                await trio.sleep(0.2)
            self.under_way -= 1

    # ---- the course of things

    async def run(self) -> None:
        """The whole show, and the verdict."""
        world = self.world
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.keep_alive, nursery)
            nursery.start_soon(self.trouble)
            for name in ROOMS:
                for user in ("v1", "v2"):
                    nursery.start_soon(self.view, user, name)
            for device in DEVICES:
                nursery.start_soon(self.user, device)
            nursery.start_soon(self.shop)
            nursery.start_soon(self.host)
            nursery.start_soon(self.platform)
            await trio.sleep(TROUBLE_S)
            world.healed = True
            world.note("healed")
            with trio.fail_after(HEAL_S):
                while not self.all_is_well():  # noqa: ASYNC110 - it looks now and then
                    await trio.sleep(0.5)
            assert self.life is not None
            accounts = self.life.hub.accounts()
            assert all(account.admitted == sum(account[1:]) for account in accounts), accounts
            nursery.cancel_scope.cancel()
        if self.life is not None:
            self.life.kill()
        self.check()

    def all_is_well(self) -> bool:
        """Whether everything that is to come has come."""
        life = self.life
        if life is None or life.is_dead or self.under_way or life.ledger.waiting or life.inboxes._unsaved:
            return False
        for (_, name), seen in self.seen.items():
            room = life.hub.find(name)
            if room is None or not seen or seen[-1][0] != room.state.history.last_offset:
                return False
        return len(self.seen) == 4 and not life.inboxes._pending

    def check(self) -> None:
        """Compare what everybody saw with what is on the disk."""
        assert self.gaps == []
        reader = Reader(database_path(self.directory))
        try:
            reader.verify_all()
            entries = [entry for entry, _, _ in reader.entries()]
            streams: dict[str, list[Any]] = {name: [] for name in ROOMS}
            for entry in entries:
                streams[entry.room].append(entry)
            stories = replay(entries)
            assert len(stories) == len(ROOMS), "a room began anew"
            for story in stories.values():
                assert (story.first_offset, story.holes, story.unreadable) == (1, 0, 0)
            for (user, name), seen in self.seen.items():
                first = self.first[user, name]
                assert [offset for offset, _ in seen] == list(range(first, len(streams[name]) + 1)), (user, name)
            for order, (name, offset) in self.acked.items():
                assert streams[name][offset - 1].offset == offset, (order, name, offset)
            for name, stream in streams.items():
                for entry in stream:
                    if entry.kind == MessageType.GIFT:
                        count = event_of(entry).payload[4]  # type: ignore[union-attr]
                        orders = [order for order, place in self.acked.items() if place == (name, entry.offset)]
                        assert count == sum(1 + len(order) % 3 for order in orders), (name, entry.offset, count, orders)
            gifts = [story.gift_units for story in stories.values()]
            wanted = sum(1 + len(f"{name} {number}") % 3 for name in ROOMS for number in range(GIFTS))
            assert sum(gifts) == wanted, f"{sum(gifts)} gifts in the ledger, {wanted} were given"
            announced = sum(story.announcements for story in stories.values())
            assert announced == len(ROOMS) * NEWS, "an announcement is missing or there twice"
            for user in USERS:
                texts = [text for _, text in self.sent[user]]
                stored = [reader.direct(user, number) for number in range(1, len(texts) + 1)]
                assert all(direct is not None and direct.state is DirectState.ACKED for direct in stored), user
                assert reader.direct(user, len(texts) + 1) is None, "a message was written twice"
                shown = {text for device in DEVICES if device.split(":")[0] == user for _, text in self.shown[device]}
                assert shown == set(texts), f"{user} has not seen every message"
            for device, messages in self.shown.items():
                numbers = [number for number, _ in messages]
                assert numbers == sorted(set(numbers)), f"{device} was shown a message twice, or out of order"
        finally:
            reader.close()


def simulate(seed: int) -> World:
    """One world from one seed; AssertionError and the like if something that must be true was not."""
    with tempfile.TemporaryDirectory(prefix="sim-", dir=MEMORY) as name:

        async def main(world: World) -> None:
            await Show(world, Path(name)).run()

        return run_world(seed, main)
