"""Systems beside a live room, each with its acceptance check: a real broker, its ledger, real clients, HTTP."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import trio

from protocol.activities import activity_view
from protocol.activities.moderation import Hint
from protocol.activities.products import ProductListed
from protocol.activities.sales import ClaimState
from protocol.clients import CallRefused, StreamEvent
from protocol.codes import Lane, MessageType, Tier
from protocol.connection import encode
from protocol.messages import Join, Joined
from tests.support.acceptance import OPEN_SALE, ROOM, WIDE, Viewer, all_have, audience, eventually, platform
from tests.support.api import call
from tests.support.broker import raw_link
from tests.support.clocks import advance
from tests.support.receiver import Received, Receiver, http_reply, receiver
from tests.support.webhooks import events_of, hook_settings

pytestmark = [pytest.mark.integration, pytest.mark.slow]


async def test_product_management_system(directory: Path) -> None:
    """Updates that arrive in any order end in the highest version at every viewer, early or late."""
    updates = [(product, version) for product in ("mug", "tea", "cup") for version in range(1, 21)]
    random.Random(4).shuffle(updates)
    async with platform(directory) as shop, audience(shop.broker, ["ann", "bob"]) as viewers:
        for product, version in updates:
            fields: dict[str, Any] = {"title": f"{product} {version}", "price_cents": version * 100, "stock": version}
            answer = await call(shop.http, "products.put", room=ROOM, id=product, version=version, **fields)
            assert answer.status_code == 200 or answer.json()["code"] == "STALE"
        last = (await shop.call("rooms.get", room=ROOM))["last_offset"]
        await eventually(lambda: all(viewer.has_read(last) for viewer in viewers))
        for viewer in viewers:
            shown: dict[str, int] = {}
            for listed in viewer.activities("products.put"):
                assert isinstance(listed, ProductListed)
                assert listed.product.version > shown.get(listed.product.id, 0)
                shown[listed.product.id] = listed.product.version
            assert shown == {"mug": 20, "tea": 20, "cup": 20}
        async with audience(shop.broker, ["late"]) as (late,):
            assert late.room.snapshot is not None
            (view,) = [each for each in late.room.snapshot.activities if each.kind == "products"]
            assert {each.id: each.title for each in view.data.products} == {id: f"{id} 20" for id in shown}


async def test_order_management_system(directory: Path) -> None:
    """The order system is away in a sale: reservations end at 15 s, stock returns, no oversell, webhooks in order."""
    is_away = True

    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        return http_reply(503 if is_away else 200)

    users = [f"u{number}" for number in range(30)]
    async with receiver(answer) as orders:
        hooks = hook_settings(directory, orders.url, "sale.reserved", "sale.expired", "sale.confirmed")
        async with (
            platform(directory / "data", webhooks=hooks) as shop,
            audience(shop.broker, users) as viewers,
        ):

            async def claim(viewer: Viewer) -> Any:
                return await viewer.client.call("sales.claim", room=ROOM, id="sale-1", key=f"of {viewer.user}")

            async def counts(*names: str) -> tuple[int, ...]:
                (sale,) = (await shop.call("sales.list", room=ROOM))["items"]
                return tuple(sale[name] for name in names)

            await shop.call("sales.create", room=ROOM, **OPEN_SALE)
            first = [await claim(viewer) for viewer in viewers[:10]]
            assert {each.state for each in first} == {ClaimState.RESERVED}
            with pytest.raises(CallRefused, match="reserved"):
                await claim(viewers[10])
            advance(OPEN_SALE["reserve_ms"])
            await all_have(viewers[:1], "sales.counted", 1)
            await eventually(lambda: viewers[0].activities("sales.counted")[-1].reserved == 0)
            assert await counts("available", "reserved", "confirmed") == (10, 0, 0)
            second = [await claim(viewer) for viewer in viewers[10:20]]
            assert {each.state for each in second} == {ClaimState.RESERVED}

            is_away = False
            for each in second:
                await shop.call("sales.confirm", room=ROOM, id="sale-1", number=each.number, order=f"o-{each.number}")
            with pytest.raises(CallRefused):
                await claim(viewers[20])
            assert await counts("available", "reserved", "confirmed") == (0, 0, 10)
            await eventually(lambda: len(taken(orders)) == 10 + 10 + 10 + 10)
        events = taken(orders)
        for number in range(1, 21):
            of_claim = [each["type"] for each in events if each["data"]["number"] == number]
            assert of_claim == ["sale.reserved", "sale.expired" if number <= 10 else "sale.confirmed"]
        numbers = [each["data"]["number"] for each in events if each["type"] == "sale.reserved"]
        assert numbers == sorted(numbers)


def taken(orders: Receiver) -> list[Any]:
    """Return each event once, in the order of their first arrival."""
    return list({each["id"]: each for each in events_of(orders)}.values())


async def test_web_view_in_the_room(directory: Path) -> None:
    """The answer to a JOIN is at most 32 KiB and has the card and the sale's clock: no further call is needed."""
    async with platform(directory) as shop:
        for number in range(40):
            fields: dict[str, Any] = {
                "title": f"Product {number} " + "商品" * 20,
                "price_cents": 100,
                "note": "live only",
            }
            await shop.call("products.put", room=ROOM, id=f"p-{number}", version=1, **fields)
        await shop.call("products.explain", room=ROOM, id="p-7")
        await shop.call("sales.create", room=ROOM, **OPEN_SALE | {"sku": "p-7"})
        async with raw_link(shop.broker) as link:
            await link.login("dev:ann")
            await link.send((Join(ROOM, Tier.FULL), 0, 1))
            frame, joined = await link.expect(Joined)
            assert len(encode(joined, frame.room, 1, Lane.CONTROL)) <= 32 * 1024
        views = {view.kind: activity_view(view, is_own=False).data for view in joined.activities}
        assert views["products"].explaining.product == "p-7"
        assert (views["products"].card.id, views["products"].card.price_cents) == ("p-7", 100)
        assert views["sales"].close_at_ms == OPEN_SALE["close_at_ms"]


async def test_keyword_engine(directory: Path) -> None:
    """A rule fires to staff alone, keeps its cooldown, and nothing of it reaches a buyer in 10,000 messages."""
    rule: dict[str, Any] = {
        "id": "price",
        "words": "便宜点|性价比",
        "template": "{name} 嫌贵：推荐小样套装",
        "cooldown_s": 3600,
    }
    async with (
        platform(directory, room=WIDE, link={"frames_per_s": 0}) as shop,
        audience(shop.broker, ["dev:max:host"]) as (host,),
        audience(shop.broker, ["ann", "bob"]) as buyers,
    ):
        await shop.call("moderation.put_hint", **rule)
        for part in range(20):
            items = [
                {"room": ROOM, "type": 1, "payload": [f"便宜点吧 {part} {n}"], "as_user": f"u{n}", "name": f"U{n}"}
                for n in range(500)
            ]  # fmt: skip
            await shop.call("messages.publish_many", items=items)
        last = await shop.call("messages.publish", room=ROOM, type=int(MessageType.ANNOUNCEMENT), payload=["end"])
        viewers = [host, *buyers]
        await eventually(lambda: all(v.has_read(last["offset"]) for v in viewers))
        await eventually(lambda: len(hints(host)) >= 1)
        assert len(hints(host)) == 1
        assert "小样套装" in hints(host)[0].text
        for buyer in buyers:
            assert hints(buyer) == []
            assert not [each for each in buyer.received if "小样套装" in repr(each)]


def hints(viewer: Viewer) -> list[Hint]:
    """Return the hints that a viewer was sent."""
    return viewer.activities("moderation.hint")


async def test_privacy_settings(directory: Path) -> None:
    """Users that opted out get no frame of marketing, in rooms and inboxes, also of messages that wait already."""
    users = [f"u{number}" for number in range(40)]
    out = users[::3]
    async with platform(directory) as shop:
        for user in users:
            await shop.call("directs.send", user=user, type=4, payload=["先前的促销"], marketing=True)
        for user in out:
            await shop.call("users.set_preferences", user=user, marketing=False)
        async with audience(shop.broker, users, reads_directs=True) as viewers:
            for user in users:
                answer = await shop.call("directs.send", user=user, type=4, payload=["促销"], marketing=True)
                assert answer["suppressed"] == (user in out)
            publish: dict[str, Any] = {"room": ROOM, "type": int(MessageType.ANNOUNCEMENT)}
            await shop.call("messages.publish", **publish, payload=["大促"], marketing=True)
            last = await shop.call("messages.publish", **publish, payload=["end"])
            await eventually(lambda: all(v.has_read(last["offset"]) for v in viewers))
            await eventually(lambda: all(len(v.directs) == 2 for v in viewers if v.user not in out))
            for viewer in viewers:
                marketing = [each.payload for each in viewer.directs]
                announced = [e.payload[0] for e in viewer.of(StreamEvent) if e.type == MessageType.ANNOUNCEMENT]
                assert marketing == ([] if viewer.user in out else [("先前的促销",), ("促销",)])
                assert announced == (["end"] if viewer.user in out else ["大促", "end"])


async def test_data_analysis(directory: Path) -> None:
    """An export has no name and no text unless configured, and the platform's pseudonyms stay stable."""
    async with platform(directory) as shop, audience(shop.broker, ["ann", "bob"]) as (ann, bob):
        await ann.room.post_danmaku("我的电话是多少")
        gift = ["o-1", "ann", "Ann Secret", "rose", 2, 100]
        await shop.call("messages.publish", room=ROOM, type=int(MessageType.GIFT), payload=gift)
        await shop.call("messages.publish", room=ROOM, type=int(MessageType.ANNOUNCEMENT), payload=["机密"])
        await eventually(lambda: bob.texts() != [])
        exported = await shop.call("rooms.export", room=ROOM)
        lines = [json.loads(line) if isinstance(line, str) else line for line in exported["lines"]]
        assert [line["kind"] for line in lines if line.get("kind") == "gift"] or len(lines) >= 2
        text = json.dumps(exported, ensure_ascii=False)
        assert "ann" in text
        for hidden in ("Ann Secret", "电话", "机密"):
            assert hidden not in text
