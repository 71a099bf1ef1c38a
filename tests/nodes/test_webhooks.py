"""Webhooks over nodes: the owner of a room sends its events, in their order, and the next owner what is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from broker.rooms.broker_log import BROKER_LOG
from tests.support.nodes import NodesOfTest, running_nodes
from tests.support.receiver import Received, http_reply, receiver
from tests.support.until import until
from tests.support.webhooks import event_of, events_of, hook_settings

pytestmark = [pytest.mark.integration, pytest.mark.slow]


class Shop:
    """A receiver that answers with ``status``; ``taken``: the events that it has taken."""

    def __init__(self) -> None:
        self.status = 204
        self.taken: list[Any] = []
        self.refused: list[Any] = []

    async def answer(self, received: Received, stream: trio.abc.Stream) -> bytes:
        (self.taken if self.status < 300 else self.refused).append(event_of(received))
        return http_reply(self.status)


async def announce(nodes: NodesOfTest, node: str, room: str, *texts: str) -> None:
    for text in texts:
        await nodes[node].broker.call("messages.publish", room=room, type=4, payload=[text])


async def nothing_waits(nodes: NodesOfTest, node: str) -> None:
    while (await nodes[node].broker.call("hooks.deliveries", state="waiting")).items:  # noqa: ASYNC110 - a call has no events
        await trio.sleep(0.01)


def texts(events: list[Any]) -> list[str]:
    return [event["data"]["payload"]["text"] for event in events]


async def test_a_room_reports_once_and_in_order_and_its_next_owner_reports_what_is_left(tmp_path: Path) -> None:
    shop = Shop()
    async with receiver(shop.answer) as server:
        hooks = hook_settings(tmp_path, server.url, "message.announcement")
        async with running_nodes("a", "b", ledger={"data_dir": str(tmp_path)}, webhooks=hooks) as nodes:
            room = nodes.room_on("a")
            await nodes["b"].broker.call("rooms.open", room=room)
            await announce(nodes, "b", room, "1", "2", "3")
            await until(lambda: len(shop.taken) == 3)
            await until(lambda: not nodes.data.read_outbox(room, "", 10))
            shop.status = 503
            await announce(nodes, "b", room, "4", "5", "6")
            await until(lambda: shop.refused)
            waiting = await nodes["b"].broker.call("hooks.deliveries", state="waiting")
            assert [item.room for item in waiting.items] == [room] * 3
            ids = [item.event for item in waiting.items]
            nodes["a"].kill()
            shop.status = 204
            await until(lambda: nodes.owner_of(room) is nodes["b"])
            await announce(nodes, "b", room, "7")
            await until(lambda: len(shop.taken) == 7)
            await until(lambda: not nodes.data.read_outbox(room, "", 10))
            assert texts(shop.taken) == ["1", "2", "3", "4", "5", "6", "7"]
            assert [event["offset"] for event in shop.taken] == [1, 2, 3, 4, 5, 6, 7]
            assert [event["id"] for event in shop.taken[3:6]] == ids
            assert {event["id"] for event in shop.refused} <= set(ids)
            await nothing_waits(nodes, "b")


async def test_what_is_about_no_room_is_reported_once(tmp_path: Path) -> None:
    shop = Shop()
    async with receiver(shop.answer) as server:
        hooks = hook_settings(tmp_path, server.url, "user.sanctioned")
        async with running_nodes("a", "b", ledger={"data_dir": str(tmp_path)}, webhooks=hooks) as nodes:
            shop.status = 503
            await nodes["b"].broker.call("moderation.ban", room=None, user="mallory", seconds=60)
            await until(lambda: shop.refused)
            await until(lambda: nodes.owner_of(BROKER_LOG) is not None)
            owner = nodes.owner_of(BROKER_LOG)
            assert owner is not None
            (other,) = (node for node in nodes.by_name.values() if node is not owner)
            assert (await other.broker.call("hooks.list")).items[0].name == "shop"
            owner.kill()
            shop.status = 204
            await until(lambda: shop.taken)
            assert shop.taken[0] == shop.refused[0]
            await other.broker.call("moderation.ban", room=None, user="mallet", seconds=60)
            await until(lambda: len(shop.taken) == 2)
            assert [event["data"]["user"] for event in events_of(server)][-1] == "mallet"
            await until(lambda: not nodes.data.read_outbox(BROKER_LOG, "", 10))


async def test_reports_of_all_nodes_are_listed_and_dropped_at_any(tmp_path: Path) -> None:
    shop = Shop()
    shop.status = 503
    async with receiver(shop.answer) as server:
        hooks = hook_settings(tmp_path, server.url, "message.announcement")
        async with running_nodes("a", "b", ledger={"data_dir": str(tmp_path)}, webhooks=hooks) as nodes:
            table = nodes["b"].nodes.owners.table
            names = [f"live-{n}" for n in range(100)]

            def placed_on(node: str) -> str:
                return next((name for name in names if table.placed_on(name, trio.current_time()) == node), "")

            await until(lambda: placed_on("a") and placed_on("b"))
            rooms = {node: placed_on(node) for node in "ab"}
            for room in rooms.values():
                await announce(nodes, "a", room, "1", "2")
            found: list[Any] = []
            cursor = None
            while not found or cursor is not None:
                page = await nodes["b"].broker.call("hooks.deliveries", state="waiting", limit=1, cursor=cursor)
                found += page.items
                cursor = page.next
            assert len({item.id for item in found}) == 4
            assert sorted(item.room for item in found) == sorted([*rooms.values()] * 2)
            dropped = await nodes["a"].broker.call("hooks.drop", ids=[item.id for item in found])
            assert dropped.dropped == 4
            await nothing_waits(nodes, "b")
            await until(lambda: not any(nodes.data.read_outbox(room, "", 10) for room in rooms.values()))
