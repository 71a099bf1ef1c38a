"""Paid messages: what the platform posts, what members see, and what a restart, a deletion and an erasure leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.core.tenants.names import qualify
from broker.ledger import Reader, database_path
from broker.ledger.orders import order_of
from broker.ledger.replay import replay
from broker.rooms.highlight_records import read_room_highlights
from broker.server import Broker
from broker.webhooks.events import event_fields
from protocol.activities import activity_view
from protocol.activities.highlights import HighlightsView, ShownHighlight
from protocol.codes import ErrorCode, Lane, MessageType, Outcome, RoomPhase, Tier
from protocol.messages import Ack, AckResult, Call, ErrorReply, Event, Joined, Result, Resume, Resumed
from protocol.operations import BY_NAME
from protocol.payloads import HighlightPayload
from tests.support.api import API, client_of, ok, refused
from tests.support.broker import RawLink, configuration, joined_link, raw_link
from tests.support.durable import disk, durable_broker
from tests.support.erasing import erase
from tests.support.faulty_disk import disk_error
from tests.support.operating import exported, operate
from tests.support.until import until
from tests.support.webhooks import hook_settings

pytestmark = pytest.mark.integration


def paid(order: str, cents: int = 2_000, user: str = "ann", text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"order_id": order, "user_id": user, "name": user.title(), "text": text, "cents": cents, **more}


async def publish(client: Any, payload: dict[str, Any], room: str = "lobby") -> Any:
    return await ok(client, "messages.publish", room=room, type=int(MessageType.HIGHLIGHT), payload=payload)


async def highlight(link: RawLink) -> tuple[int, HighlightPayload]:
    """Return offset and payload of the next highlight."""
    while True:
        frame, event = await link.expect(Event)
        if event.type == MessageType.HIGHLIGHT:
            assert frame.lane is Lane.PAID
            assert (event.user_id, event.name) == (event.payload[1], event.payload[2])
            return frame.sequence, HighlightPayload(*event.payload)


def shown_in(joined: Joined) -> HighlightsView:
    for view in joined.activities:
        found = activity_view(view, is_own=False)
        if found.kind == "highlights":
            assert isinstance(found.data, HighlightsView)
            return found.data
    return HighlightsView(())


async def shown_to(broker: Broker, name: str = "lobby") -> HighlightsView:
    """Return what a member that joins now gets."""
    async with raw_link(broker) as link:
        await link.login("dev:late")
        return shown_in((await link.join(name))[1])


async def test_a_paid_message_is_an_order_an_event_and_a_place_in_the_ranking(tmp_path: Path) -> None:
    async with (
        durable_broker(tmp_path, api=API) as broker,
        client_of(broker) as client,
        joined_link(broker, "dev:bob") as (bob, _),
    ):
        first = await publish(client, paid("o1"))
        assert (first["outcome"], first["offset"], first["repeated"]) == ("accepted", 1, False)
        offset, event = await highlight(bob)
        assert (offset, event[:6]) == (1, ("o1", "ann", "Ann", "hello", 2_000, 3))
        assert event.displaced == 0
        assert await publish(client, paid("o1") | {"name": "New name"}) == first | {"repeated": True}
        for other in (paid("o1", text="bye"), paid("o1", 2_001), paid("o1", user="bob")):
            answer = await publish(client, other)
            assert (answer["outcome"], answer["code"]) == ("rejected", "key_reused")
        await publish(client, paid("o2", 50_000, "cat"))
        await publish(client, paid("o3", 500))
        view = await shown_to(broker)
        assert [(each.offset, each.user, each.tier) for each in view.highlights] == [
            (2, "cat", 6), (1, "ann", 3), (3, "ann", 1),
        ]  # fmt: skip
        assert view.highlights[1] == ShownHighlight(
            1, "o1", "ann", "Ann", "hello", 2_000, 3, event.until_ms - 300_000, event.until_ms
        )
        page = await ok(client, "rankings.get", room="lobby", kind="gifts")
        assert [(each["user"], each["score"]) for each in page["ranking"]["top"]] == [("cat", 50_000), ("ann", 2_500)]
        for _ in range(2):
            refunded = await ok(client, "gifts.refund", room="lobby", order_id="o1")
            assert refunded == {"order_id": "o1", "user": "ann", "cents": 2_000}
        page = await ok(client, "rankings.get", room="lobby", kind="gifts", user="ann")
        assert (page["user"]["score"], page["ranking"]["total"]) == (500, 50_500)
        assert (await shown_to(broker)) == view, "a refund takes nothing from the screen"
        async with joined_link(broker, "dev:shop:app") as (shop, _):
            publishing = BY_NAME["messages.publish"].number
            await shop.send((Call(publishing, "", {"room": "lobby", "type": 14, "payload": paid("o4", 499)}), 0, 7))
            assert (await shop.expect(Result))[1].result[:2] == (Outcome.REJECTED, None)
            await shop.send((Call(publishing, "", {"room": "lobby", "type": 14, "payload": paid("o3", 500)}), 0, 8))
            assert (await shop.expect(Result))[1].result[:2] == (Outcome.ACCEPTED, 3), "the first result"
            await shop.send((Call(publishing, "", {"room": "lobby", "type": 14, "payload": paid("o4", -1)}), 0, 9))
            error = (await shop.expect(ErrorReply))[1]
            assert (error.code, error.field) == (ErrorCode.BAD_FIELD, "payload.cents")
    reader = Reader(database_path(tmp_path))
    try:
        found = [entry for entry, *_ in reader.entries()]
        (replayed,) = (each for each in replay(found).values() if each.room)
        assert (replayed.highlights, replayed.highlight_cents) == (3, 52_500)
        assert (replayed.orders, replayed.order_cents) == (3, 52_500)
        orders = [order for order in map(order_of, found) if order is not None]
        assert {(each.order_id, each.gift_id, each.shown_as) for each in orders} == {
            ("o1", "", "o1"), ("o2", "", "o2"), ("o3", "", "o3"),
        }  # fmt: skip
    finally:
        reader.close()


BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    *(({"cents": cents}, "cents") for cents in (0, -2_000, 10**12 + 1, 2**63, 2_000.0, "2000", None, True)),
    *(({"text": text}, "text") for text in ("", "x" * 201, "a\x00b", None)),
    *(({"order_id": order}, "order_id") for order in ("", "o" * 65, 7)),
    ({"user_id": ""}, "user_id"),
    ({"tier": "gold"}, "tier"),
    ({"tier": -1}, "tier"),
    ({"until_ms": -1}, "until_ms"),
]


async def test_a_field_that_breaks_its_rule_is_named(tmp_path: Path) -> None:
    async with durable_broker(tmp_path, api=API) as broker, client_of(broker) as client:
        for change, field in BAD_FIELDS:
            payload = paid("o1") | change
            answer = await refused(client, "messages.publish", room="lobby", type=14, payload=payload)
            assert answer == (400, "BAD_FIELD", f"payload.{field}"), change
        assert broker.hub.find("lobby") is None


async def test_what_is_too_small_or_names_its_own_tier_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    async with durable_broker(tmp_path, api=API) as broker, client_of(broker) as client:
        for payload in (
            paid("o1", 499), paid("o1", tier=3), paid("o1", tier=99), paid("o1", until_ms=2**53 - 1),
            paid("o1", displaced=1),
        ):  # fmt: skip
            answer = await publish(client, payload)
            assert (answer["outcome"], answer["code"], answer["offset"]) == ("rejected", "bad_field", None)
        assert (await shown_to(broker)).highlights == ()
        assert (await publish(client, paid("o1")))["offset"] == 1


async def test_only_the_platform_posts_paid_messages(tmp_path: Path) -> None:
    async with durable_broker(tmp_path) as broker:
        for token in ("dev:eve", "dev:mod:moderator", "dev:max:host"):
            async with joined_link(broker, token) as (link, room):
                payload = HighlightPayload("o1", "eve", "Eve", "hi", 50_000)
                await link.post(room, 1, MessageType.HIGHLIGHT, payload)
                assert (await link.expect(Ack))[1].results == (
                    AckResult(1, Outcome.REJECTED, int(ErrorCode.NOT_ALLOWED)),
                )
                await link.post(room, 2, MessageType.HIGHLIGHT, payload._replace(cents=-1))
                assert (await link.expect(ErrorReply))[1].field == "payload.cents"
        lobby = broker.hub.find("lobby")
        assert lobby is not None
        assert lobby.state.last_offset == 0


async def test_no_sum_of_a_room_is_larger_than_an_integer_of_json(tmp_path: Path) -> None:
    async with durable_broker(tmp_path, api=API) as broker, client_of(broker) as client:
        most = 2**53 - 1
        for order, count, price in (("o1", 1_000_000, most), ("o2", 2, most), ("o3", 1, most), ("o4", 1, 1)):
            answer = await ok(
                client, "messages.publish", room="lobby", type=5,
                payload={"order_id": order, "user_id": "ann", "name": "", "gift_id": "rose", "count": count,
                         "price_cents": price},
            )  # fmt: skip
            assert answer["outcome"] == ("accepted" if order == "o3" else "rejected")
            assert answer["code"] == (None if order == "o3" else "bad_field")
        assert (await publish(client, paid("o5")))["code"] == "bad_field"
        page = await ok(client, "rankings.get", room="lobby", kind="gifts")
        assert page["ranking"]["total"] == most


async def test_highlights_go_on_after_a_restart_without_what_was_deleted_or_erased(tmp_path: Path) -> None:
    async with durable_broker(tmp_path, api=API) as broker, client_of(broker) as client:
        for order, user in (("o1", "ann"), ("o2", "eve"), ("o3", "bob"), ("o4", "dan")):
            await publish(client, paid(order, user=user))
        deleted = await ok(client, "messages.delete", room="lobby", ids=[1], reason="insult")
        assert deleted["deleted"] == 1
        await ok(client, "messages.delete", room="lobby", user="dan")
        assert [(each.name, each.text) for each in (await shown_to(broker)).highlights] == [
            ("", ""), ("Eve", "hello"), ("Bob", "hello"), ("", ""),
        ]  # fmt: skip
        (item,), _ = await exported(broker, "dan")
        assert (item["about"]["deleted"], item["data"][3], item["data"][4]) == (True, "", 2_000)
        await erase(broker, "eve")
        before = await shown_to(broker)
        assert [(each.offset, each.user, each.name, each.text) for each in before.highlights] == [
            (1, "ann", "", ""), (2, before.highlights[1].user, "", ""), (3, "bob", "Bob", "hello"), (4, "dan", "", ""),
        ]  # fmt: skip
        assert before.highlights[1].user.startswith("erased-")
        page = await ok(client, "rankings.get", room="lobby", kind="gifts")
        assert [each["score"] for each in page["ranking"]["top"]] == [2_000] * 4, "deleting takes no money"
        epoch = broker.hub.find("lobby").state.epoch  # type: ignore[union-attr]
    async with durable_broker(tmp_path, api=API) as broker, client_of(broker) as client:
        assert await shown_to(broker) == before
        async with raw_link(broker) as link:
            await link.login("dev:back")
            await link.send((Resume("lobby", Tier.FULL, epoch, 0), 0, 1))
            assert (await link.expect(Resumed))[1].recovered
            again = [await highlight(link) for _ in range(4)]
        assert [(offset, event.name, event.text, event.cents) for offset, event in again] == [
            (1, "", "", 2_000), (2, "", "", 2_000), (3, "Bob", "hello", 2_000), (4, "", "", 2_000),
        ]  # fmt: skip
        assert (await publish(client, paid("o1")))["repeated"]
        assert (await publish(client, paid("o5", 50_000)))["offset"] == 7
        async with joined_link(broker, "dev:shop:app") as (shop, room):
            await shop.post(room, 1, MessageType.ROOM_PHASE, (int(RoomPhase.ENDED),))
            await until(lambda: broker.hub.find("lobby") is None)
        await ok(client, "rooms.open", room="lobby", reopen=True)
        assert (await shown_to(broker)).highlights == (), "another stream begins"
    reader = Reader(database_path(tmp_path))
    try:
        assert read_room_highlights(reader) == {}
    finally:
        reader.close()


async def test_what_the_ledger_cannot_take_is_not_shown_and_may_be_posted_again(tmp_path: Path) -> None:
    async with (
        durable_broker(tmp_path) as broker,
        joined_link(broker, "dev:bob") as (bob, _),
        joined_link(broker, "dev:shop:app") as (shop, room),
    ):
        disk(broker).fault = disk_error("SQLITE_FULL")
        await shop.post(room, 1, MessageType.HIGHLIGHT, HighlightPayload("o1", "ann", "Ann", "hello", 500))
        (result,) = (await shop.expect(Ack))[1].results
        assert result.outcome is Outcome.UNAVAILABLE
        assert (await shown_to(broker)).highlights == ()
        disk(broker).fault = None
        while result.outcome is not Outcome.ACCEPTED:
            assert result.outcome is Outcome.UNAVAILABLE
            await shop.post(room, 2, MessageType.HIGHLIGHT, HighlightPayload("o1", "ann", "Ann", "hello", 500))
            (result,) = (await shop.expect(Ack))[1].results
        assert (await highlight(bob))[0] == result.detail
        assert [each.order_id for each in (await shown_to(broker)).highlights] == ["o1"]


async def test_the_snapshot_has_ten_within_two_kilobytes_and_says_how_many_more(tmp_path: Path) -> None:
    async with durable_broker(tmp_path, api=API) as broker, client_of(broker) as client:
        for number in range(12):
            await publish(client, paid(f"o{number}"))
        view = await shown_to(broker)
        assert ([each.offset for each in view.highlights], view.more) == (list(range(1, 11)), 2)
        for number in range(3):
            await publish(client, paid(f"long{number}", 50_000, text="\u5b57" * 200))
        view = await shown_to(broker)
        assert ([each.offset for each in view.highlights], view.more) == ([13, 14], 13)


async def test_other_tiers_are_reloaded_for_open_rooms(tmp_path: Path) -> None:
    async with durable_broker(tmp_path, api=API) as broker, client_of(broker) as client:
        assert (await publish(client, paid("o1", 500)))["outcome"] == "accepted"
        settings = {"api": API, "ledger": {"data_dir": str(tmp_path)}}
        assert broker.reload(configuration(room={"highlight_tiers": ((600, 5), (700, 9))}, **settings)) == []
        assert (await publish(client, paid("o2", 500)))["code"] == "bad_field"
        assert (await publish(client, paid("o3", 700)))["outcome"] == "accepted"
        o3, o1 = (await shown_to(broker)).highlights
        assert (o1.tier, o1.until_ms - o1.at_ms, o3.tier, o3.until_ms - o3.at_ms) == (1, 60_000, 2, 9_000)


async def test_the_platform_gets_each_by_webhook(tmp_path: Path) -> None:
    webhooks = hook_settings(tmp_path, "http://127.0.0.1:9/hook", "highlight.*", "message.highlight")
    async with durable_broker(tmp_path / "data", api=API, webhooks=webhooks) as broker, client_of(broker) as client:
        await publish(client, paid("o1"))
        await publish(client, paid("o1"))
        (shown,) = (await shown_to(broker)).highlights
        assert broker.ledger is not None
        rows = await broker.ledger.ask(Reader.outbox_page, None, False, 0, 100)
        published, accepted = [event_fields(row) for row in rows]
        assert (published["type"], published["data"]["type"]) == ("message.published", "highlight")
        assert accepted["type"] == "highlight.accepted"
        assert accepted["data"] == {
            "order_id": "o1", "user": "ann", "name": "Ann", "text": "hello", "cents": 2_000, "tier": 3,
            "until_ms": shown.until_ms,
        }  # fmt: skip


async def test_orders_of_tenants_with_the_same_id_are_two(tmp_path: Path) -> None:
    tenants = [{"name": "acme"}]
    async with durable_broker(tmp_path, tenants=tenants) as broker:
        for tenant in ("", "acme"):
            sent = await operate(
                broker, "messages.publish", "lobby", 14, paid("o1", user=f"ann{tenant}"), tenant=tenant
            )
            assert (sent.outcome, sent.offset, sent.repeated) == (Outcome.ACCEPTED, 1, False)
    async with durable_broker(tmp_path, tenants=tenants) as broker:
        for tenant in ("", "acme"):
            await operate(broker, "rooms.open", "lobby", tenant=tenant)
            room = broker.hub.find(qualify(tenant, "lobby"))
            assert room is not None
            assert [each.user_id for each in room.state.highlights.dump()] == [f"ann{tenant}"]
