"""The pure hot paths one by one, in microseconds a call: codec, window, limits, queue. No sockets.

Where a bare library call does the same work on the bytes, it is the floor; the other figures are compared from build to
build.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import lz4.block
import msgpack

from bench.micro.result import Result
from bench.micro.wire import Template, hello_auth_join
from broker.core.chat.coalesce import Coalescer, PendingDanmaku, Pick
from broker.core.limits.rate_limit import Gcra, Rate
from broker.core.net.send_queue import QueueLimits, SendQueue
from broker.core.rooms.policies import policy_from
from broker.core.rooms.state import RoomRules, RoomState
from broker.net.transport import Framing
from broker.rooms.encoding import TIERS, Content, prepare, variant_of
from protocol.codes import Codec, Lane, Role, Tier
from protocol.connection import NEED_DATA, Connection, Frame
from protocol.dictionaries import BUILT_IN
from protocol.frames import pack_body
from protocol.messages import Account, Post, Side, Tick, TickEntry

__all__ = ["core"]

MESSAGES = 1000
PHRASE = "来了来了，前排围观"


def core(smoke: bool) -> list[Result]:
    """Measure all of them, the best of several rounds each."""
    rounds = 3 if smoke else 30
    read = _Read()
    results = [
        _result("read a danmaku (25 a read)", read.by_connection, rounds, read.bare, "bare unpackb"),
        _result("decide a danmaku, default rules", _Decide("roomcast").post, rounds),
        _result("decide a danmaku, policy off", _Decide("off").post, rounds),
        _result("offer to the window, all different", _Offer(MESSAGES).run, rounds),
        _result("offer to the window, one in ten different", _Offer(MESSAGES // 10).run, rounds),
        _result("rate limit (GCRA), 1,000 users", _limit, rounds),
        _result("queue and write one part", _queue, rounds),
    ]
    tick = Tick(1, 100, 0, tuple(TickEntry(1, f"u{n}", f"Ann {n}", (f"{PHRASE} {n}",)) for n in range(20)), Account(20))
    content = [[Content(tick, Lane.CHAT, 7, 20)]] * len(TIERS)
    body = pack_body(tick)
    for codec in (Codec.PLAIN, Codec.LZ4_DICT_1):
        variant = variant_of(Framing.WEBSOCKET, codec, Tier.FULL)
        plain = codec is Codec.PLAIN

        def encode(variant: int = variant) -> float:
            return _timed(lambda: prepare((variant,), content, 1), 200)

        def bare(plain: bool = plain) -> float:
            if plain:
                return _timed(lambda: msgpack.packb(tick), 200)
            return _timed(lambda: msgpack.packb(tick), 200) + _timed(lambda: bare_lz4(body), 200)

        def bare_lz4(body: bytes) -> bytes:
            block: bytes = lz4.block.compress(
                body, "high_compression", store_size=False, compression=9, dict=BUILT_IN.data
            )
            return block

        figure = f"encode a tick of 20, {codec.name.lower()}"
        results.append(_result(figure, encode, rounds, bare, "bare packb" if plain else "bare packb + lz4"))
    return results


def _result(
    figure: str, run: Callable[[], float], rounds: int, floor: Callable[[], float] | None = None, floor_name: str = ""
) -> Result:
    """Return the best of ``rounds`` measurements of seconds a call, each followed by the floor."""
    best, best_floor = 1.0, 1.0
    for _ in range(rounds):
        best = min(best, run())
        if floor is not None:
            best_floor = min(best_floor, floor())
    return Result(
        "core", figure, best * 1e6, "us", floor=None if floor is None else best_floor * 1e6, floor_name=floor_name
    )


def _timed(call: Callable[[], object], count: int) -> float:
    begun = time.process_time()
    for _ in range(count):
        call()
    return (time.process_time() - begun) / count


class _Read:
    """Bytes to events."""

    def __init__(self) -> None:
        template = Template(PHRASE, 1, False)
        self.reads = [b"".join([template.message(1, n * 25 + m) for m in range(25)]) for n in range(MESSAGES // 25)]
        self.bodies = [
            read[len(read) // 25 * m + 16 : len(read) // 25 * (m + 1)] for read in self.reads for m in range(25)
        ]

    def by_connection(self) -> float:
        connection = Connection(Side.SERVER)
        connection.receive_data(hello_auth_join("dev:ann", "stage"))
        while connection.next_event() is not NEED_DATA:
            pass
        begun = time.process_time()
        for read in self.reads:
            connection.receive_data(read)
            next_event, take_danmaku = connection.next_event, connection.take_danmaku
            while take_danmaku() or next_event() is not NEED_DATA:
                pass
        return (time.process_time() - begun) / MESSAGES

    def bare(self) -> float:
        unpackb = msgpack.unpackb
        begun = time.process_time()
        for body in self.bodies:
            unpackb(body, use_list=False)
        return (time.process_time() - begun) / MESSAGES


class _Author:
    """Author of posts."""

    may_post = frozenset({1})
    role = Role.VIEWER

    def __init__(self, number: int) -> None:
        self.user_id = f"user-{number}"
        self.name = f"User {number}"


class _Decide:
    """`RoomState.post` with wide limits; its tick is outside of the measured time."""

    def __init__(self, policy: str) -> None:
        wide = {"user_chat_per_s": 10_000.0, "user_chat_burst": 10_000, "admit_per_window": 1_000_000, "tick_ms": 100}
        over = wide if policy == "roomcast" else {"tick_ms": 100}
        self.room: RoomState[int] = RoomState(RoomRules(policy_from(policy, over), {}), 1, random.Random(1), 0.0)
        self.authors = [_Author(number) for number in range(200)]
        self.now = 0.0
        self.count = 0

    def post(self) -> float:
        posts = []
        connection = Connection(Side.SERVER)
        template = Template(PHRASE, 1, False)
        connection.receive_data(hello_auth_join("dev:ann", "stage"))
        connection.receive_data(b"".join([template.message(1, self.count + number) for number in range(MESSAGES)]))
        while (event := connection.next_event()) is not NEED_DATA:
            if isinstance(event, Frame) and isinstance(event.message, Post):
                posts.append(event.message)
        self.count += MESSAGES
        self.now += 1.0
        decide, authors, now = self.room.post, self.authors, self.now
        begun = time.process_time()
        for number, post in enumerate(posts):
            decide(number, authors[number % 200], post, now, 0)
        took = time.process_time() - begun
        self.room.tick(now, 0)
        return took / MESSAGES


class _Offer:
    """`Coalescer.offer` of texts, ``different`` of them distinct."""

    def __init__(self, different: int) -> None:
        self.window: Coalescer[int] = Coalescer(
            max_items=2000, merge=True, pick=Pick.FAIR, budgets={Tier.FULL: 20}, rng=random.Random(1)
        )
        self.different = different
        self.now = 0.0

    def run(self) -> float:
        self.now += 1.0
        now, offer = self.now, self.window.offer
        items = [
            PendingDanmaku(1, f"user-{number % 200}", "", f"{PHRASE} {number % self.different}", at=now)
            for number in range(MESSAGES)
        ]
        begun = time.process_time()
        for number, item in enumerate(items):
            offer(item, number, now)
        took = time.process_time() - begun
        self.window.close(now)
        return took / MESSAGES


def _limit() -> float:
    limit = Gcra(Rate(1.0, 3))
    keys = [f"user-{number}" for number in range(1000)]
    begun = time.process_time()
    for key in keys:
        limit.try_acquire(key, 1.0)
    return (time.process_time() - begun) / len(keys)


def _queue() -> float:
    queue = SendQueue(QueueLimits())
    data = bytes(600)
    begun = time.process_time()
    for _ in range(MESSAGES):
        queue.offer(data, Lane.CHAT, 20, 1)
        chunks = queue.chunks()
        queue.advance(len(chunks[0]))
    return (time.process_time() - begun) / MESSAGES
