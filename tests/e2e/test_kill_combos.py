"""SIGKILL in the middle of combos and paid messages, and a room that ends in one: every sum is that of the orders."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from broker.ledger import Reader, database_path
from broker.ledger.orders import order_of
from broker.ledger.replay import event_of
from protocol.clients import open_client
from protocol.clients.room import JoinedRoom
from protocol.codes import MessageType, Outcome, RoomPhase
from protocol.payloads import COMBO_END, COMBO_START, GiftPayload, HighlightPayload
from tests.support.processes import Eager, free_port, read_all, restarting

pytestmark = pytest.mark.integration

ROOMS = ("ends", "goes-on")
GIVERS = 3
KILLS = 2


class Givers:
    """Users who give the same gift again and again, and pay for a message now and then."""

    def __init__(self) -> None:
        self.accepted: Counter[str] = Counter()
        """Gifts and cents of paid messages that were acknowledged, by room and kind."""
        self.orders = 0
        self.is_over = False
        self.active = 0

    async def give(self, room: JoinedRoom, user: str, rng: random.Random) -> None:
        """Post one order after the other, each until the broker has acknowledged it."""
        self.active += 1
        while not self.is_over:
            self.orders += 1
            order, count, cents = f"order-{self.orders}", rng.randint(1, 9), 500
            paid = HighlightPayload(order, user, user, "hello", cents)
            gift = GiftPayload(order, user, user, "rose", count, 100)
            is_gift = rng.random() < 0.8
            kind, payload = (MessageType.GIFT, gift) if is_gift else (MessageType.HIGHLIGHT, paid)
            while True:
                result = await room.post(kind, payload, retry=True, timeout_s=60)
                if result.outcome in (Outcome.ACCEPTED, Outcome.MERGED):
                    break
                await trio.sleep(result.retry_after_ms / 1000 or 0.01)
            self.accepted[f"{room.name} {'gifts' if is_gift else 'cents'}"] += count if is_gift else cents
            await trio.sleep(rng.uniform(0.02, 0.1))
        self.active -= 1


async def test_ends_of_combos_sum_to_the_gifts_over_kill_9_and_the_end_of_a_room(tmp_path: Path) -> None:
    givers, port = Givers(), str(free_port())
    options = ["--data-dir", str(tmp_path), "--port", port, "--log-level", "warning"]
    with trio.fail_after(60):
        async with (
            restarting(*options) as broker,
            open_client(f"roomcast://127.0.0.1:{port}", "dev:shop:app", rng=Eager(1)) as shop,
            trio.open_nursery() as nursery,
        ):
            rooms = [await shop.join(name) for name in ROOMS]
            for room in rooms:
                nursery.start_soon(read_all, room)
                for number in range(GIVERS):
                    nursery.start_soon(givers.give, room, f"user-{number}", random.Random(number))
            for _ in range(KILLS):
                target = givers.accepted.total() + 2_000
                while givers.accepted.total() < target:  # noqa: ASYNC110 - only the broker knows when
                    await trio.sleep(0.01)
                await broker.restart()
            givers.is_over = True
            while givers.active:  # noqa: ASYNC110 - only the broker knows when
                await trio.sleep(0.01)
            assert (await rooms[0].set_phase(RoomPhase.ENDED, retry=True)).outcome is Outcome.ACCEPTED
            await trio.sleep(3.5)  # the window of the last combos
            nursery.cancel_scope.cancel()
    check(tmp_path, givers.accepted)


def check(directory: Path, accepted: Counter[str]) -> None:
    added: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    ordered: Counter[str] = Counter()
    combos: dict[tuple[str, str], list[tuple[int, GiftPayload]]] = defaultdict(list)
    reader = Reader(database_path(directory))
    try:
        for entry, *_ in reader.entries():
            order, event = order_of(entry), event_of(entry)
            if order is not None:
                ordered[f"{entry.room} {'gifts' if order.gift_id else 'cents'}"] += (
                    order.count if order.gift_id else order.price_cents
                )
            elif event is not None and event.type == MessageType.GIFT:
                gift = GiftPayload(*event.payload)
                added[f"{entry.room} gifts"] += gift.added
                if gift.flags & COMBO_END:
                    ended[f"{entry.room} gifts"] += gift.total
                combos[entry.room, str(gift.combo)].append((event.at_ms, gift))
            elif event is not None and event.type == MessageType.HIGHLIGHT:
                added[f"{entry.room} cents"] += HighlightPayload(*event.payload).cents
    finally:
        reader.close()
    assert added == ordered == accepted
    assert ended == Counter({key: value for key, value in added.items() if key.endswith("gifts")})
    for events in combos.values():
        assert [gift.seq for _, gift in events] == list(range(1, len(events) + 1))
        flags = [gift.flags for _, gift in events]
        assert [flag & COMBO_START for flag in flags] == [COMBO_START] + [0] * (len(events) - 1)
        assert [flag & COMBO_END for flag in flags] == [0] * (len(events) - 1) + [COMBO_END]
        progress = [at_ms for at_ms, gift in events if not gift.flags & COMBO_END]
        gaps = [later - earlier for earlier, later in pairwise(progress)]
        assert all(gap >= 490 for gap in gaps), f"more than two a second: {gaps}"
    assert max(map(len, combos.values())) > 2, "combos have formed"
