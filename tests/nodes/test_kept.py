"""What rooms of several nodes keep: announcements, gifts and a sale under way survive the death of the owner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from protocol.clients import CallLost, CallRefused
from protocol.codes import ErrorCode, MessageType, Outcome, Tier
from protocol.messages import Ack, Event, Resume, Resumed
from tests.support.broker import joined_link, raw_link
from tests.support.nodes import NodesOfTest, running_nodes
from tests.support.until import until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

STOCK = 5


async def claims(nodes: NodesOfTest, node: str, room: str, users: range) -> dict[str, Any]:
    """Let users claim a unit each, with a key, until each has an answer."""
    found: dict[str, Any] = {}

    async def claim(user: str) -> None:
        async with nodes[node].broker.connect(f"dev:{user}") as client:
            await client.join(room)
            while user not in found:
                try:
                    answer = await client.call("sales.claim", room=room, id="s1", key=f"claim-{user}")
                    found[user] = answer.state.name
                except CallLost:
                    continue  # the key decides
                except CallRefused as error:
                    if error.code not in (ErrorCode.OVERLOADED, ErrorCode.RATE_LIMITED):
                        found[user] = str(error.code)
                    await trio.sleep(0.05)

    async with trio.open_nursery() as nursery:
        for number in users:
            nursery.start_soon(claim, f"user{number}")
    return found


async def test_a_position_of_the_old_owner_is_resumed_at_the_new_one(tmp_path: Path) -> None:
    async with running_nodes("a", "b", "c", ledger={"data_dir": str(tmp_path)}) as nodes:
        room = nodes.room_on("a")
        async with joined_link(nodes["a"].broker, "dev:host:host", room) as (host, number):
            for sequence in (1, 2, 3):
                await host.post(number, sequence, MessageType.ANNOUNCEMENT, (f"第 {sequence}",))
                _, ack = await host.expect(Ack)
                assert ack.results[0].outcome is Outcome.ACCEPTED
        async with joined_link(nodes["b"].broker, "dev:ben", room) as (ben, ben_room):
            epoch = nodes["a"].broker.hub.find(room).state.epoch  # type: ignore[union-attr]
            nodes["a"].kill()
            await until(lambda: nodes.owner_of(room) is not None)
            async with raw_link(nodes["c"].broker) as cai:
                await cai.login("dev:cai")
                await cai.send((Resume(room, Tier.FULL, epoch, 1), 0, 4))
                _, resumed = await cai.expect(Resumed)
                assert (resumed.recovered, resumed.snapshot.epoch, resumed.snapshot.offset) == (True, epoch, 3)
                assert [(await cai.expect(Event))[1].payload for _ in range(2)] == [("第 2",), ("第 3",)]
                owner = nodes.owner_of(room)
                assert owner is not None
                published = await owner.broker.call("messages.publish", room=room, type=4, payload=["又来了"])
                assert published.offset == 4
                assert (await cai.expect(Event))[0].sequence == 4
                frame, event = await ben.expect(Event)
                assert (frame.room, frame.sequence, event.payload) == (ben_room, 4, ("又来了",))


async def test_a_sale_goes_on_when_its_owner_is_killed_and_never_sells_a_unit_twice(tmp_path: Path) -> None:
    async with running_nodes("a", "b", "c", ledger={"data_dir": str(tmp_path)}) as nodes:
        room = nodes.room_on("a")
        broker = nodes["b"].broker
        await broker.call("rooms.open", room=room)
        now_ms = broker.clock.now_ms()
        sale: dict[str, Any] = {
            "sku": "x",
            "stock": STOCK,
            "price_cents": 100,
            "open_at_ms": now_ms,
            "close_at_ms": now_ms + 600_000,
        }
        await broker.call("sales.create", room=room, id="s1", first_window_ms=0, window_ms=0, waiting_max=0, **sale)
        before = await claims(nodes, "b", room, range(3))
        assert sorted(before.values()) == ["RESERVED"] * 3
        nodes["a"].kill()
        after: dict[str, Any] = {}
        async with trio.open_nursery() as nursery:

            async def claim_at(node: str, users: range) -> None:
                after.update(await claims(nodes, node, room, users))

            nursery.start_soon(claim_at, "b", range(10))
            nursery.start_soon(claim_at, "c", range(10, 20))
        got = [user for user, state in after.items() if state == "RESERVED"]
        assert len(got) == STOCK, after
        assert set(before) <= set(got)
        assert nodes.owner_of(room) not in (None, nodes["a"])


async def test_a_packet_is_shared_out_exactly_when_the_owner_is_cut_off_and_comes_back(tmp_path: Path) -> None:
    async with running_nodes("a", "b", ledger={"data_dir": str(tmp_path)}) as nodes:
        room = nodes.room_on("a")
        broker = nodes["b"].broker
        await broker.call("rooms.open", room=room)
        await broker.call(
            "packets.create", room=room, id="p1", order_id="o-1", total_cents=1000, count=8, idempotency_key="p"
        )
        shares: dict[str, int] = {}

        async def grab(node: str, user: str) -> None:
            async with nodes[node].broker.connect(f"dev:{user}") as client:
                await client.join(room)
                while user not in shares:
                    try:
                        shares[user] = (await client.call("packets.grab", room=room, id="p1", key=f"grab-{user}")).cents
                    except CallLost:
                        continue
                    except CallRefused as error:
                        if error.code not in (ErrorCode.OVERLOADED, ErrorCode.RATE_LIMITED):
                            shares[user] = 0
                        await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(grab, "a", f"early{number}")
        nodes["a"].engine.cut()
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(grab, "b", f"late{number}")
            await until(lambda: sum(user.startswith("late") and cents > 0 for user, cents in shares.items()) == 4)
            nodes["a"].engine.mend()
            for number in range(4):
                nursery.start_soon(grab, "a", f"last{number}")
        assert room not in nodes["a"].nodes.owners.fences
        assert sum(shares.values()) == 1000, shares
        assert sum(cents > 0 for cents in shares.values()) == 8


async def test_a_countdown_without_viewers_ends_at_the_heir_of_its_owner(tmp_path: Path) -> None:
    async with running_nodes("a", "b", ledger={"data_dir": str(tmp_path)}) as nodes:
        room = nodes.room_on("a")
        await nodes["b"].broker.call("rooms.open", room=room)
        deadline_ms = nodes["b"].broker.clock.now_ms() + 600_000
        await nodes["b"].broker.call("countdowns.start", room=room, id="c1", label="开抢", deadline_ms=deadline_ms)
        owner = nodes["a"].broker
        assert owner.hub.find(room).state.activities.activities.has_something_to_do  # type: ignore[union-attr]
        assert nodes["b"].broker.hub.find(room) is None
        nodes["a"].kill()
        await until(lambda: nodes["b"].broker.hub.find(room) is not None)
        activities = nodes["b"].broker.hub.find(room).state.activities.activities  # type: ignore[union-attr]
        assert activities is not None
        assert activities.has_something_to_do
        await nodes["b"].broker.call("countdowns.stop", room=room, id="c1")
        await until(lambda: not nodes.data.outbox_rooms(10))
