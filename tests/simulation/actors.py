"""Users of the simulated world. Each acts through the project's own client and checks what it receives at once.

A delivered event must be on the disk already; a stream has no gap except reported ones, and a gap is reported only
where the ledger does not have the events any more; nothing is delivered twice. What can only be checked at the end is
recorded here and read by `tests.simulation.checks`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf
from typing import Any

import trio

from broker.ledger import Committed, LedgerResult, Repeated, SubmitResult
from broker.ledger.entries import make_key
from protocol.clients import Address, BytePipe, CallRefused, Client, PipeLost, open_client
from protocol.clients.events import Danmaku, Gap, Position, Rejoined, RoomRefused, StreamEvent, TickAccount
from protocol.clients.room import JoinedRoom
from protocol.clients.transports import run_websocket
from protocol.codes import TRY_AGAIN, ErrorCode, MessageType, Outcome, RoomPhase, Tier
from protocol.frames import HEADER_BYTES, pack_body, unpack_body
from protocol.messages import Direct, State
from protocol.payloads import GiftPayload
from tests.simulation.broker import BrokerRun
from tests.simulation.disk import Disk, Written
from tests.simulation.network import SimPipe, SimStream
from tests.simulation.world import World, credential

__all__ = ["Actors", "Gift", "Reader", "Sent", "is_end"]

URL, WEBSOCKET_URL = "roomcast://127.0.0.1:7400", "ws://127.0.0.1:7400/"
ROOMS = ("lobby", "直播间")
SIDE = "side-room"
"""Room that is joined and left again, so that it is idle in between."""
USERS = ("ann", "bob")
DEVICES = ("ann", "ann:viewer", "bob")
"""Devices by token; Ann has two, which share her inbox."""
GIFTS, NEWS, CODES, CHAT, LIKES, VISITS, BATCHES = 8, 6, 12, 9, 6, 5, 3
"""Gifts, announcements, danmaku and taps of likes in each room; messages to users; visits to the side room; batches of
messages to all users."""
RETRY_S = 10.0
SHORT_MS = 3000
"""Time until a short-lived message expires."""
EXPIRY_LATE_MS = 15_000
"""How late maintenance may be under the faults of this world."""


@dataclass
class Gift:
    """A gift that was acknowledged, with its place in the ledger."""

    room: str
    offset: int
    giver: str
    count: int


@dataclass
class Sent:
    """A durable message to a user."""

    direct_id: int
    """0 for a repetition, whose answer does not have it."""
    texts: tuple[str, ...]
    """Texts sent under one key; the first durable one is the message."""
    may_expire: bool


@dataclass
class Reader:
    """What one viewer has received of one room."""

    name: str
    room: str
    sees_all: bool = True
    """Whether its client drops nothing."""
    epoch: int = 0
    offset: int = 0
    """Everything up to here was received or reported as a gap."""
    is_new: bool = False
    """Nothing was received yet."""
    waiting: int = 0
    """Danmaku received, by their counts, whose tick's account was not received yet."""


class Actors:
    """All users and their records."""

    def __init__(self, world: World, disk: Disk) -> None:
        self.world = world
        self.disk = disk
        self.broker_run: BrokerRun | None = None
        self.connections = 0
        self.gifts: dict[str, Gift] = {}
        self.news: dict[str, tuple[str, int]] = {}
        """Announcements by the first part of the text: room and offset."""
        self.readers: list[Reader] = []
        self.sent: dict[str, list[Sent]] = {user: [] for user in USERS}
        self.shown: dict[str, list[tuple[int, str]]] = {device: [] for device in DEVICES}
        self.seen_elsewhere: set[tuple[str, int]] = set()
        """Messages by user and number that only the short-lived device received."""
        self.expires: dict[tuple[str, str], int] = {}
        """Expiry of a message by user and text, in Unix milliseconds."""
        self.likers: list[JoinedRoom] = []
        self.likes: Counter[JoinedRoom] = Counter()
        """Likes given, by client and room."""
        self.like_totals: dict[str, int] = {}
        """Totals of the rooms at the end."""
        self.remaining = len(ROOMS) * (GIFTS + NEWS + CHAT + LIKES) + CODES + VISITS + BATCHES + 1
        """Actions that are not acknowledged yet."""

    # ---- the network

    async def open_pipe(self, source: str = "") -> SimPipe:
        """Connect to the running broker from the address ``source``; PipeLost if it accepts no connection."""
        await self.world.pause(0.1)
        self.connections += 1
        wire = None
        if self.broker_run is not None and not self.world.chance(self.world.conditions.refusals):
            wire = self.broker_run.accept(self.connections, source)
        if wire is None:
            raise PipeLost(None, "connection refused")
        return SimPipe(self.world, wire)

    async def connect(self, nursery: trio.Nursery, address: Address) -> BytePipe:
        """Connector of the clients."""
        pipe = await self.open_pipe()
        if not address.is_websocket:
            return pipe
        websocket: BytePipe = await nursery.start(run_websocket, SimStream(pipe), address)
        return websocket

    @asynccontextmanager
    async def client(self, token: str, inbox_items: int = 2000) -> AsyncIterator[Client]:
        """Open a client that reconnects without limit."""
        is_websocket = token in self.world.conditions.websockets
        async with open_client(
            WEBSOCKET_URL if is_websocket else URL,
            credential(self.world, token),
            rng=random.Random(self.world.rng.getrandbits(64)),
            connect=self.connect,
            wall_ms=self.world.wall_ms,
            open_timeout_s=0,
            inbox_items=inbox_items,
        ) as client:
            yield client

    async def join(
        self, client: Client, name: str, tier: Tier = Tier.FULL, position: Position | None = None
    ) -> JoinedRoom:
        """Join a room; retry until it succeeds."""
        while True:
            try:
                return await client.join(name, tier, position=position, timeout_s=RETRY_S)
            except (RoomRefused, trio.TooSlowError) as error:
                self.world.trace("join failed", name, repr(error))
                await trio.sleep(1.0)

    # ---- viewers

    async def view(self, device: str, *tiers: Tier, inbox_items: int = 2000) -> None:
        """Run one device: watch a room for each tier, and read the user's messages."""
        async with self.client(f"dev:{device}", inbox_items) as client, trio.open_nursery() as nursery:
            if device in DEVICES:
                nursery.start_soon(self.read, device, client)
            for name, tier in zip(ROOMS, tiers, strict=False):
                nursery.start_soon(self.watch, device, client, name, tier, inbox_items < 2000)

    async def watch(self, device: str, client: Client, name: str, tier: Tier, is_slow: bool) -> None:
        """Watch a room; a slow viewer has a small inbox and often pauses."""
        reader = Reader(f"{device} in {name}", name, sees_all=not is_slow)
        self.readers.append(reader)
        room = await self.join(client, name, tier)
        async with trio.open_nursery() as nursery:
            if not is_slow:
                self.likers.append(room)
                nursery.start_soon(self.like, room)
            self.on_joined(reader, room)
            async for event in room:
                self.on_event(reader, room, event)
                if self.world.chance(0.2 if is_slow else 0.05):
                    await self.world.pause(12.0 if is_slow else 1.0)

    def on_joined(self, reader: Reader, room: JoinedRoom) -> None:
        """Start at the position of the first snapshot, or continue from the last position."""
        assert room.snapshot is not None
        if reader.epoch:
            self.change_epoch(reader, room.snapshot.epoch)
        else:
            reader.epoch, reader.offset = room.snapshot.epoch, room.snapshot.offset
            reader.is_new = True

    def on_event(self, reader: Reader, room: JoinedRoom, event: object) -> None:
        """Check one event."""
        match event:
            case StreamEvent():
                if reader.is_new:  # the client may have rejoined before the first snapshot was read
                    reader.offset, reader.is_new = min(reader.offset, event.offset - 1), False
                assert event.offset == reader.offset + 1, f"{reader.name}: {event.offset} after {reader.offset}"
                stream = self.disk.streams.get((room.name, reader.epoch), [])
                assert event.offset <= len(stream), f"{reader.name} received {event.offset}, which is not durable"
                written = unpack_body(stream[event.offset - 1].body)
                assert written == (event.type, event.at_ms, event.user_id, event.name, event.payload), reader.name
                reader.offset = event.offset
                self.world.trace("received", reader.name, event.offset)
            case Gap():
                self.on_gap(reader, room.name, event)
            case Rejoined():
                self.world.count_event(
                    "recovered" if event.recovered else "rejoined", reader.name, event.snapshot.offset
                )
                reader.waiting = 0
                self.change_epoch(reader, event.snapshot.epoch)
            case Danmaku():
                reader.waiting += event.count
            case TickAccount():
                account = event.account
                assert account.admitted == sum(account[1:]), (reader.name, account)
                is_whole = reader.waiting == account.shown + account.merged
                assert is_whole or not reader.sees_all, (reader.name, reader.waiting, account)
                reader.waiting = 0
            case State():
                for lane in event.accounts:
                    assert lane.admitted == sum(lane[1:]), (reader.name, event)

    def change_epoch(self, reader: Reader, epoch: int) -> None:
        """Check a new epoch: the old stream is empty, as its first commit failed, or ends with the end of the room."""
        if epoch != reader.epoch:
            stream = self.disk.streams.get((reader.room, reader.epoch))
            assert not stream or is_end(stream[-1]), "a stream with events was replaced"
            reader.epoch, reader.offset = epoch, 0

    def on_gap(self, reader: Reader, name: str, gap: Gap) -> None:
        """Check a gap: the ledger does not have its events, or they are more than a RESUME may send."""
        self.world.count_event("gap", reader.name, gap.first, gap.last, gap.epoch_changed)
        assert gap.first == reader.offset + 1, (reader.name, reader.offset, gap)
        stream = self.disk.streams.get((name, reader.epoch), [])
        if gap.last >= gap.first and not gap.epoch_changed:
            nbytes = sum(len(written.body) + HEADER_BYTES for written in stream[gap.first - 1 : gap.last])
            is_expensive = nbytes > self.world.conditions.critical_bytes // 2
            assert is_expensive or self.disk.stored_from(name, reader.epoch) > gap.first, (
                f"{reader.name}: needless {gap}"
            )
        reader.offset = max(reader.offset, gap.last)

    async def visit(self) -> None:
        """Join the side room, post, leave, and resume later from the last position."""
        reader = Reader(f"visitor in {SIDE}", SIDE)
        self.readers.append(reader)
        position: Position | None = None
        async with self.client("dev:visitor:host") as client:
            for number in range(VISITS):
                room = await self.join(client, SIDE, position=position)
                self.on_joined(reader, room)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.read_events, reader, room)
                    await self.announce(room, f"visit {number}")
                    if self.world.rng.random() < 0.4:
                        await self.pause_room(room, f"pause {number}")
                    last = self.news[f"visit {number}"][1]
                    with trio.move_on_after(60.0):
                        while reader.offset < last:  # noqa: ASYNC110 - a reader has no event
                            await trio.sleep(0.1)
                    assert reader.offset >= last, f"{reader.name} has not received its own announcement"
                    if self.world.rng.random() < 0.15:
                        await self.end_room(room, f"end {number}")
                    await room.leave()
                position = Position(reader.epoch, reader.offset)
                self.remaining -= 1
                await self.world.pause(3.0)
            room = await self.join(client, SIDE, position=position)
            self.on_joined(reader, room)
            await self.read_events(reader, room)

    async def read_events(self, reader: Reader, room: JoinedRoom) -> None:
        async for event in room:
            self.on_event(reader, room, event)

    # ---- senders

    async def like(self, room: JoinedRoom) -> None:
        """Give likes."""
        for _ in range(LIKES // 2):
            await self.world.pause(4.0)
            count = self.world.rng.randint(1, 5)
            self.likes[room] += count
            room.like(count)
            self.remaining -= 1

    async def chat(self) -> None:
        """Post danmaku, which are not durable."""
        async with self.client("dev:fan") as client, trio.open_nursery() as nursery:
            for name in ROOMS:
                room = await self.join(client, name)
                nursery.start_soon(self.discard_events, room)
                nursery.start_soon(self.chatter, room)

    async def chatter(self, room: JoinedRoom) -> None:
        for _ in range(CHAT):
            await self.world.pause(1.5)
            text = self.world.rng.choice(("666", "好看", f"number {self.world.rng.randrange(99)}"))
            result = await room.post_danmaku(text, timeout_s=RETRY_S)
            self.world.trace("chat", room.name, result.outcome)
            self.remaining -= 1

    async def shop(self) -> None:
        """Send gifts to both rooms, each until it is acknowledged."""
        async with self.client("dev:shop:app") as client, trio.open_nursery() as nursery:
            for name in ROOMS:
                room = await self.join(client, name)
                nursery.start_soon(self.discard_events, room)
                for number in range(GIFTS):
                    await self.world.pause(1.5)
                    nursery.start_soon(self.give, room, f"{name} {number}")

    async def give(self, room: JoinedRoom, order: str) -> None:
        """Post one gift; the platform may repeat it, or post another one under the same order id."""
        giver = self.world.rng.choice("xyz")
        count = self.world.rng.randint(1, 3)
        is_reused = False
        while True:
            payload = GiftPayload(order, giver, giver, "rose", count, 100)
            result = await room.post(MessageType.GIFT, payload, retry=True, timeout_s=RETRY_S)
            if result.outcome in (Outcome.ACCEPTED, Outcome.MERGED):
                known = self.gifts.get(order)
                if known is None:
                    self.gifts[order] = Gift(room.name, result.offset, giver, count)
                else:
                    assert known.offset == result.offset, f"{order} is at {known.offset} and at {result.offset}"
                assert not is_reused, f"{order} was accepted with other content"
                self.world.trace("acked", order, result.offset)
                if not self.world.chance(0.3):
                    break
                self.world.count_event("repeated")
                if self.world.chance(0.5):
                    is_reused, count = True, 100
            elif is_reused and result.outcome is Outcome.REJECTED:
                assert result.error_code == ErrorCode.KEY_REUSED, result
                self.world.count_event("reused key refused")
                break
            else:
                assert result.outcome is None or result.outcome in TRY_AGAIN, result
                await trio.sleep(max(0.1, result.retry_after_ms / 1000))
        self.remaining -= 1

    async def host(self) -> None:
        """Post announcements."""
        async with self.client("dev:max:host") as client, trio.open_nursery() as nursery:
            for name in ROOMS:
                room = await self.join(client, name)
                nursery.start_soon(self.discard_events, room)
                nursery.start_soon(self.talk, room)
                if name == ROOMS[0]:
                    nursery.start_soon(self.burst, room)

    async def talk(self, room: JoinedRoom) -> None:
        for number in range(NEWS):
            await self.world.pause(3.0)
            await self.announce(room, f"news {number} of {room.name}")
            self.remaining -= 1

    async def burst(self, room: JoinedRoom) -> None:
        """Post many announcements at once, so that slow viewers are backlogged."""
        await trio.sleep(self.world.rng.uniform(3, 15))
        async with trio.open_nursery() as nursery:
            for number in range(self.world.conditions.burst):
                nursery.start_soon(self.announce, room, f"burst {number}", 450)
        self.remaining -= 1

    async def announce(self, room: JoinedRoom, what: str, length: int = 0) -> None:
        """Post one announcement under one id until it is acknowledged; at times another text under that id."""
        length = length or self.world.rng.choice((1, 50, 450))
        is_reused = False
        while True:
            text = f"{what}, {'another' if is_reused else 'first'}{'.' * length}"
            result = await room.post(
                MessageType.ANNOUNCEMENT, (text,), client_msg_id=what, retry=True, timeout_s=RETRY_S
            )
            if result.outcome is Outcome.ACCEPTED:
                place = room.name, result.offset
                assert self.news.setdefault(what, place) == place, f"{what} is at {self.news[what]} and at {place}"
                assert not is_reused, f"{what} was accepted with other content"
                if not self.world.chance(0.2):
                    return
                is_reused = self.world.chance(0.5)
            elif is_reused and result.outcome is Outcome.REJECTED:
                assert result.error_code == ErrorCode.KEY_REUSED, result
                return
            else:
                assert result.outcome is None or result.outcome in TRY_AGAIN, (what, result)
                await trio.sleep(max(0.1, result.retry_after_ms / 1000))

    async def pause_room(self, room: JoinedRoom, what: str) -> None:
        """Pause the room, then continue it; after a crash in between it stays paused until it is continued."""
        for phase in (RoomPhase.PAUSED, RoomPhase.LIVE):
            while True:
                result = await room.post(
                    MessageType.ROOM_PHASE, (phase,), client_msg_id=f"{what} {phase}", retry=True, timeout_s=RETRY_S
                )
                if result.outcome is Outcome.ACCEPTED:
                    break
                assert result.outcome is None or result.outcome in TRY_AGAIN, (what, result)
                await trio.sleep(max(0.1, result.retry_after_ms / 1000))
            self.world.count_event(f"phase {phase.name}")

    async def end_room(self, room: JoinedRoom, what: str) -> None:
        """End the room, unless it has ended: the next member joins a new stream."""
        while room.is_active:
            result = await room.post(
                MessageType.ROOM_PHASE, (RoomPhase.ENDED,), client_msg_id=what, retry=True, timeout_s=RETRY_S
            )
            if result.outcome is Outcome.ACCEPTED:
                self.world.count_event("phase ENDED")
                return
            await trio.sleep(max(0.1, result.retry_after_ms / 1000))

    async def discard_events(self, room: JoinedRoom) -> None:
        async for _ in room:
            pass

    # ---- messages to users

    async def read(self, device: str, client: Client) -> None:
        """Read the messages of a device."""
        shown = self.shown[device]
        async for event in client.events():
            if isinstance(event, Direct) and event.direct_id:
                self.world.trace("message", device, event.direct_id)
                is_next = not shown or event.direct_id > shown[-1][0]
                expires_at_ms = self.expires.get((device.split(":")[0], event.payload), inf)
                # A probe sets the wall clock wrong for some seconds, which the broker does not follow: nothing expires.
                true_ms = self.world.wall_ms() - self.world.wall_leap_ms
                wrong_ms = sum(max(0, min(true_ms, end) - max(expires_at_ms, begin)) for begin, end in self.world.wrong)
                is_late = true_ms > expires_at_ms + wrong_ms + EXPIRY_LATE_MS
                assert self.world.happened["clock leaps"] or not is_late, (
                    f"{device}: {event} was delivered after its expiry at {expires_at_ms}, at {true_ms}"
                )
                assert is_next, f"{device}: {event.direct_id} after {shown[-1]}"
                shown.append((event.direct_id, event.payload))
                if self.world.chance(0.1):
                    await self.world.pause(1.0)

    async def short_lived_device(self) -> None:
        """Run devices of Bob, one after the other, that read for a while."""
        while True:
            await self.world.pause(8.0)
            newest = 0
            with trio.move_on_after(self.world.rng.uniform(0, 4)):
                async with self.client("dev:bob") as client:
                    async for event in client.events():
                        if isinstance(event, Direct) and event.direct_id:
                            assert event.direct_id > newest, (
                                "a message was delivered twice to one device, or out of order"
                            )
                            newest = event.direct_id
                            self.seen_elsewhere.add(("bob", event.direct_id))

    async def platform(self) -> None:
        """Send messages to users, each with a key, until it is known to be durable."""
        for number in range(CODES):
            await self.world.pause(1.5)
            user = self.world.rng.choice(USERS)
            may_expire = self.world.rng.random() < 0.2
            texts: list[str] = []
            while True:
                texts.append(f"code {number}, try {len(texts)}")
                result = await self.send(user, f"key {number}", texts[-1], may_expire)
                if isinstance(result, Committed):
                    self.sent[user].append(Sent(result.direct_ids[0], tuple(texts), may_expire))
                    break
                if isinstance(result, Repeated):
                    (first,) = result.first.values()
                    assert first.fingerprint in [_fingerprint(user, f"key {number}", text) for text in texts[:-1]]
                    assert bool(result.reused) == (first.fingerprint != _fingerprint(user, f"key {number}", texts[-1]))
                    self.sent[user].append(Sent(0, tuple(texts), may_expire))
                    break
                await trio.sleep(0.2)
            self.remaining -= 1

    async def mail(self) -> None:
        """Send batches to all users, each until it is durable; at times another text under the name of a batch."""
        async with self.client("dev:mail:app") as client:
            for number in range(BATCHES):
                await self.world.pause(4.0)
                batch, values = f"batch {number}", {user: {"name": user} for user in USERS}
                while True:
                    try:
                        state = await client.send_direct(
                            f"{batch} for {{name}}", values, batch=batch, type=200, timeout_s=RETRY_S
                        )
                    except (trio.TooSlowError, CallRefused) as error:
                        self.world.trace("batch again", batch, repr(error))
                        continue
                    assert state.sent + state.repeated == len(USERS), state
                    break
                for user in USERS:
                    self.sent[user].append(Sent(0, (f"{batch} for {user}",), False))
                if self.world.chance(0.3):
                    refusal: CallRefused | None = None
                    try:
                        await client.send_direct("other {name}", values, batch=batch, type=200, timeout_s=RETRY_S)
                    except trio.TooSlowError:
                        pass
                    except CallRefused as error:
                        refusal = error
                    else:
                        raise AssertionError(f"{batch} was accepted with another text")
                    assert refusal is None or refusal.code in (ErrorCode.KEY_REUSED, ErrorCode.OVERLOADED), refusal
                self.world.count_event("batch sent")
                self.remaining -= 1

    async def send(self, user: str, key: str, text: str, may_expire: bool) -> LedgerResult | None:
        """Send one message; None if there is no result in time."""
        broker_run = self.broker_run
        if broker_run is None or not broker_run.is_up:
            return None
        inboxes = broker_run.broker.inboxes
        assert inboxes is not None
        results: list[LedgerResult] = []
        expires_at_ms = self.world.wall_ms() + SHORT_MS if may_expire else None
        if expires_at_ms is not None:
            self.expires[user, text] = min(expires_at_ms, self.expires.get((user, text), expires_at_ms))
        done = trio.Event()

        def on_done(result: LedgerResult) -> None:
            results.append(result)
            done.set()

        if inboxes.send(user, 200, text, on_done, key=key, expires_at_ms=expires_at_ms) is not SubmitResult.QUEUED:
            return None
        with trio.move_on_after(RETRY_S):
            await done.wait()
        return results[0] if results else None


def is_end(written: Written) -> bool:
    """Return whether this event is the end of its room."""
    return written.kind == MessageType.ROOM_PHASE and unpack_body(written.body)[4][0] == RoomPhase.ENDED


def _fingerprint(user: str, key: str, text: Any) -> bytes:
    return make_key("direct", user, key, content=pack_body((200, text))).fingerprint
