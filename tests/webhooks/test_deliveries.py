"""Events of a whole broker, delivered to receivers on loopback: what is written, in which order, what failures do."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from broker.core.webhooks.breaker import BreakerState
from broker.ledger import LedgerState, Reader
from broker.server import Broker
from broker.webhooks import service
from broker.webhooks.deliveries import EndpointDeliveries
from protocol.codes import MessageType, RoomPhase
from protocol.fields import FieldError
from protocol.messages import Ack, Direct, DirectAck
from protocol.webhook_events import EVENTS_BY_TYPE
from tests.support.broker import joined_link, raw_link
from tests.support.durable import announce, disk, durable_broker, gift
from tests.support.faulty_disk import disk_error
from tests.support.receiver import Answer, Received, Receiver, http_reply, receiver
from tests.support.until import until
from tests.support.webhooks import event_of, events_of, hook_settings

pytestmark = pytest.mark.integration


def types(running: Receiver) -> list[str]:
    return [event["type"] for event in events_of(running)]


def check_data(event: dict[str, Any]) -> None:
    """Check an event's data against the table."""
    row = EVENTS_BY_TYPE[event["type"]]
    try:
        row.read(event["data"])
    except FieldError as error:
        pytest.fail(f"{event}: {error}")
    assert set(event["data"]) == set(row.data._fields)


async def waiting(broker: Broker, dead: bool = False) -> list[Any]:
    assert broker.ledger is not None
    return await broker.ledger.ask(Reader.outbox_page, None, dead, 0, 1000)


async def until_rows(broker: Broker, is_reached: Callable[[list[Any]], bool], dead: bool = False) -> list[Any]:
    """Wait until the outbox is as demanded; return its rows."""
    with trio.fail_after(20):
        while not is_reached(rows := await waiting(broker, dead)):  # noqa: ASYNC110 - only the file knows
            await trio.sleep(0.01)
    return rows


async def until_nothing_waits(broker: Broker) -> None:
    await until_rows(broker, lambda rows: not rows)


def deliveries(broker: Broker, name: str = "shop") -> EndpointDeliveries:
    assert broker.webhooks is not None
    return broker.webhooks.endpoints[name]


async def test_a_room_reports_what_happens_in_order(directory: Path) -> None:
    async with (
        receiver() as shop,
        durable_broker(directory, webhooks=hook_settings(directory, shop.url)) as broker,
        joined_link(broker, "dev:max:host") as (host, room),
        joined_link(broker, "dev:shop:app") as (app, _),
    ):
        assert await announce(host, room, 1) == (1, 0, 1)
        await app.post(room, 2, MessageType.GIFT, gift("o-1", count=3))
        await app.expect(Ack)
        await host.post(room, 3, MessageType.ROOM_PHASE, (RoomPhase.ENDED,))
        await until(lambda: "room.ended" in types(shop))
        events = events_of(shop)
        assert [event["type"] for event in events] == [
            "room.opened", "room.occupied", "message.published", "message.published", "gift.accepted",
            "message.published", "room.ended",
        ]  # fmt: skip
        for event in events:
            check_data(event)
            assert (event["tenant"], event["room"], event["epoch"]) == ("", "lobby", events[0]["epoch"])
        assert [event.get("offset") for event in events] == [None, None, 1, 2, 2, 4, 4], (
            "the end of the combo is no message"
        )
        assert events[2]["data"] == {
            "type": "announcement", "user": "max", "name": "max", "payload": {"text": "news 1"}, "count": 1, "item": 0,
            "audience": None,
        }  # fmt: skip
        assert events[4]["data"]["order_id"] == "o-1"
        assert events[6]["data"] == {"reason": "ended", "user": "max"}
        assert len({event["id"] for event in events}) == len(events)
        await until_nothing_waits(broker)


async def test_a_room_is_vacated_some_seconds_after_its_last_member_has_left(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.rooms.room.VACATED_AFTER_S", 0.2)
    async with (
        receiver() as shop,
        durable_broker(directory, webhooks=hook_settings(directory, shop.url, "room.*")) as broker,
    ):
        async with joined_link(broker, "dev:ann"):
            pass
        async with joined_link(broker, "dev:bob"):
            await until(lambda: types(shop) == ["room.opened", "room.occupied"])
        await until(lambda: "room.vacated" in types(shop))
        (event,) = [event for event in events_of(shop) if event["type"] == "room.vacated"]
        check_data(event)
        async with joined_link(broker, "dev:ann"):
            await until(lambda: types(shop)[-1] == "room.occupied")
        assert types(shop).count("room.occupied") == 2


async def test_nothing_is_written_that_no_endpoint_asks_for(directory: Path) -> None:
    settings = hook_settings(directory, "http://127.0.0.1:9/hook", "direct.expired", rooms=["vip-*"])
    async with (
        durable_broker(directory, webhooks=settings) as broker,
        joined_link(broker, "dev:max:host") as (host, room),
    ):
        await announce(host, room, 1)
        assert await waiting(broker) == []


async def test_endpoints_get_what_they_ask_for(directory: Path) -> None:
    async with receiver() as rooms, receiver() as gifts:
        settings = hook_settings(directory, rooms.url, "room.*", rooms=["lob*"])
        settings["endpoints"] += hook_settings(directory, gifts.url, "gift.accepted", name="gifts")["endpoints"]
        async with (
            durable_broker(directory, webhooks=settings, tenants=[{"name": "acme"}]) as broker,
            joined_link(broker, "dev:shop:app") as (app, room),
            joined_link(broker, "dev:max:host", "quiet"),
        ):
            await app.post(room, 2, MessageType.GIFT, gift("o-1"))
            await until(lambda: gifts.requests and len(rooms.requests) == 2)
            assert types(rooms) == ["room.opened", "room.occupied"]
            assert types(gifts) == ["gift.accepted"]
            assert {event["room"] for event in events_of(rooms)} == {"lobby"}


async def test_danmaku_and_users_are_reported_where_they_are_named(directory: Path) -> None:
    asked = "message.danmaku", "user.joined", "user.left"
    async with (
        receiver() as shop,
        durable_broker(directory, webhooks=hook_settings(directory, shop.url, *asked)) as broker,
        joined_link(broker, "dev:max:host") as (host, room),
    ):
        async with joined_link(broker, "dev:ann"):
            pass
        for number, text in enumerate(("hello", "you", "there")):
            await host.post(room, 10 + number, MessageType.DANMAKU, (text,))
        await until(lambda: {"user.left", "user.joined"} <= set(types(shop)) and len(shop.requests) >= 5)
        by_type: dict[str, list[Any]] = {}
        for event in events_of(shop):
            check_data(event)
            by_type.setdefault(event["type"], []).append(event["data"])
        assert [data["payload"]["text"] for data in by_type["message.published"]] == ["hello", "you", "there"]
        joined = [user["user"] for data in by_type["user.joined"] for user in data["users"]]
        assert joined == ["max", "ann"]
        assert by_type["user.left"] == [{"users": [{"user": "ann", "name": "ann", "role": "viewer"}]}]


async def test_who_exceeds_limits_is_reported_once_with_a_count(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.rooms.reports.LIMITS_WINDOW_S", 0.5)
    settings = hook_settings(directory, "http://127.0.0.1:9/hook", "user.over_limits")
    async with (
        durable_broker(directory, webhooks=settings) as broker,
        joined_link(broker, "dev:eve") as (eve, room),
    ):
        for number in range(12):
            await eve.post(room, number + 2, MessageType.DANMAKU, (f"buy {number}",))
        rows = await until_rows(broker, bool)
        assert b'"user":"eve","refused":9' in rows[0].body


async def test_directs_report_acknowledgement_and_expiry(directory: Path) -> None:
    async with (
        receiver() as shop,
        durable_broker(directory, webhooks=hook_settings(directory, shop.url, "direct.*")) as broker,
    ):
        assert broker.inboxes is not None
        done = trio.Event()
        broker.inboxes.send("ann", 128, "too late", lambda result: None, batch="sale", expires_at_ms=1)
        broker.inboxes.send("bob", 128, "in time", lambda result: done.set())
        await done.wait()
        async with raw_link(broker) as bob:
            await bob.login("dev:bob")
            _, direct = await bob.expect(Direct)
            await bob.send((DirectAck(direct.direct_id), 0, 0))
            await until(lambda: len(shop.requests) == 2)
        events = events_of(shop)
        for event in events:
            check_data(event)
            assert not {"room", "epoch", "offset"} & set(event)
        assert {event["type"]: event["data"] for event in events} == {
            "direct.acked": {"user": "bob", "up_to": 1},
            "direct.expired": {"user": "ann", "id": 1, "batch": "sale"},
        }


async def test_an_outage_loses_nothing_and_survives_a_restart(directory: Path) -> None:
    """The receiver answers 500 until the broker has been started again; order and ids stay."""
    answers = {"status": 500}

    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        return http_reply(answers["status"])

    async with receiver(answer) as shop:
        settings = hook_settings(directory, shop.url, "message.published")
        async with (
            durable_broker(directory, webhooks=settings) as broker,
            joined_link(broker, "dev:max:host") as (host, room),
        ):
            for number in range(1, 6):
                await announce(host, room, number)
            await until(lambda: len(shop.requests) >= 3)
        assert {event["offset"] for event in events_of(shop)} == {1}, "the first one holds up its room"
        tried = {event["id"] for event in events_of(shop)}
        assert len(tried) == 1
        answers["status"] = 200
        shop.requests.clear()
        async with durable_broker(directory, webhooks=settings) as broker:
            rows = await waiting(broker)
            assert rows[0].attempts >= 2 or rows[0].id > 1, "attempts are known after a restart"
            await until(lambda: len(shop.requests) == 5)
            events = events_of(shop)
            assert [event["offset"] for event in events] == [1, 2, 3, 4, 5]
            assert events[0]["id"] in tried
            await until_nothing_waits(broker)


async def test_a_line_that_is_refused_holds_up_no_other(directory: Path) -> None:
    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        return http_reply(400 if b'"room":"bad"' in received.body else 200)

    async with (
        receiver(answer) as shop,
        durable_broker(directory, webhooks=hook_settings(directory, shop.url, "message.published")) as broker,
        joined_link(broker, "dev:max:host", "bad") as (bad, bad_room),
        joined_link(broker, "dev:eva:host", "good") as (good, good_room),
    ):
        for number in range(1, 21):
            await announce(bad, bad_room, number)
            await announce(good, good_room, number)
        await until(lambda: sum(b'"room":"good"' in each.body for each in shop.requests) == 20)
        offsets = {name: [e["offset"] for e in events_of(shop) if e["room"] == name] for name in ("good", "bad")}
        assert offsets["good"] == list(range(1, 21))
        assert set(offsets["bad"]) == {1}


async def test_an_endpoint_that_fails_is_tried_by_one_delivery_at_a_time(directory: Path) -> None:
    at_once = [0, 0]
    is_away = True

    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        if not is_away:
            return http_reply(204)
        at_once[0] += 1
        at_once[1] = max(at_once[1], at_once[0])
        await trio.sleep(0.02)
        at_once[0] -= 1
        return http_reply(503)

    async with (
        receiver(answer) as shop,
        durable_broker(directory, webhooks=hook_settings(directory, shop.url, "room.opened")) as broker,
    ):
        assert broker.webhooks is not None
        for number in range(40):
            broker.hub.open(f"room-{number}")
        endpoint = deliveries(broker)
        await until(lambda: endpoint.breaker.state is BreakerState.OPEN and endpoint.in_flight == 0)
        assert 1 < at_once[1] <= 8
        at_once[1], before = 0, len(shop.requests)
        await until(lambda: len(shop.requests) == before + 2)
        assert at_once[1] == 1
        is_away = False
        await until(lambda: endpoint.delivered == 40)
        assert endpoint.breaker.state is BreakerState.CLOSED
        assert len({event["room"] for event in events_of(shop)}) == 40


async def test_retry_after_is_heeded(directory: Path) -> None:
    times: list[float] = []

    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        times.append(trio.current_time())
        return http_reply(429, retry_after="1") if len(times) == 1 else http_reply(200)

    async with (
        receiver(answer) as shop,
        durable_broker(directory, webhooks=hook_settings(directory, shop.url, "room.opened")) as broker,
    ):
        broker.hub.open("lobby")
        await until(lambda: len(times) == 2)
        assert times[1] - times[0] >= 0.99


async def test_a_receiver_that_is_gone_gets_nothing_until_it_is_enabled(directory: Path) -> None:
    status = 410

    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        return http_reply(status)

    async with (
        receiver(answer) as shop,
        durable_broker(directory, webhooks=hook_settings(directory, shop.url, "room.opened")) as broker,
    ):
        assert broker.webhooks is not None
        broker.hub.open("lobby")
        endpoint = deliveries(broker)
        await until(lambda: endpoint.breaker.state is BreakerState.DISABLED)
        broker.hub.open("other")
        await trio.sleep(0.3)
        assert len(shop.requests) == 1
        status = 200
        trial = await broker.webhooks.test("shop", "are you there")
        assert (trial.status, trial.detail) == (200, "status 200")
        await until(lambda: endpoint.delivered == 2)
        assert types(shop)[1] == "webhook.test"


async def test_what_is_too_old_becomes_a_dead_letter_that_can_be_sent_again(directory: Path) -> None:
    status = 500

    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        return http_reply(status)

    async with receiver(answer) as shop:
        settings = hook_settings(directory, shop.url, "message.published", webhooks={"retry_for_h": 0.001 / 3.6})
        with pytest.raises(ValueError, match="retry_for_h"):
            async with durable_broker(directory, webhooks=settings):
                pass
        settings["retry_for_h"] = 0.001
        now = {"ms": time.time_ns() // 1_000_000}
        async with (
            durable_broker(directory, webhooks=settings, wall_ms=lambda: now["ms"]) as broker,
            joined_link(broker, "dev:max:host") as (host, room),
        ):
            assert broker.webhooks is not None
            await announce(host, room, 1)
            await until(lambda: len(shop.requests) >= 2)
            now["ms"] += 4000
            await announce(host, room, 2)
            await until(lambda: deliveries(broker).dead == 1)
            (dead,) = await until_rows(broker, bool, dead=True)
            assert (dead.reason, dead.number) == ("status 500", 1)
            status = 200
            await until(lambda: deliveries(broker).delivered == 1)
            done = trio.Event()
            broker.webhooks.retry((dead.id,), lambda result: done.set())
            await done.wait()
            await until(lambda: deliveries(broker).delivered == 2)
            assert await waiting(broker, dead=True) == []
            assert events_of(shop)[-1]["id"] == events_of(shop)[0]["id"], "the same fact has the same id"


async def test_dead_letters_are_bounded_by_their_size(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAINTAIN_S", 0.05)

    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        return http_reply(500)

    async with receiver(answer) as shop:
        limits = {"retry_for_h": 0.001, "dead_letter_bytes": 300}
        settings = hook_settings(directory, shop.url, "room.opened", webhooks=limits)
        now = {"ms": time.time_ns() // 1_000_000}
        async with durable_broker(directory, webhooks=settings, wall_ms=lambda: now["ms"]) as broker:
            for number in range(10):
                broker.hub.open(f"room-{number}")
            await until(lambda: len(shop.requests) >= 5)
            now["ms"] += 4000
            await until(lambda: deliveries(broker).dead == 10)
            await until(lambda: deliveries(broker).dead_removed == 8)
            rows = await until_rows(broker, lambda rows: len(rows) <= 2, dead=True)
            assert sum(len(row.body) for row in rows) <= 300


async def hang(received: Received, stream: trio.abc.Stream) -> bytes | None:
    await trio.sleep_forever()


async def redirect(received: Received, stream: trio.abc.Stream) -> bytes | None:
    return http_reply(301, location="http://127.0.0.1:1/")


async def garbage(received: Received, stream: trio.abc.Stream) -> bytes | None:
    await stream.send_all(b"\x00\xff" * 1000)
    return None


async def close_early(received: Received, stream: trio.abc.Stream) -> bytes | None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    return None


async def endless(received: Received, stream: trio.abc.Stream) -> bytes | None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n")
    while True:
        await stream.send_all(bytes(65_536))


@pytest.mark.parametrize("answer", [hang, redirect, garbage, close_early, endless])
async def test_a_hostile_receiver_hurts_no_other_endpoint_and_no_viewer(
    directory: Path, answer: Callable[[Received, trio.abc.Stream], Awaitable[bytes | None]]
) -> None:
    bad_answer: Answer = answer
    async with receiver(bad_answer) as bad, receiver() as good:
        settings = hook_settings(directory, bad.url, name="bad", webhooks={"timeout_s": 0.2})
        settings["endpoints"] += hook_settings(directory, good.url, name="good")["endpoints"]
        async with (
            durable_broker(directory, webhooks=settings) as broker,
            joined_link(broker, "dev:max:host") as (host, room),
        ):
            for number in range(1, 11):
                assert (await announce(host, room, number))[1] == 0
            await until(lambda: types(good).count("message.published") == 10)
            await until(lambda: deliveries(broker, "bad").failures >= 1)
            assert deliveries(broker, "bad").delivered == 0
            assert deliveries(broker, "bad").last_failure


async def test_an_endpoint_for_which_too_much_waits_gets_nothing_more(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAINTAIN_S", 0.05)
    settings = hook_settings(directory, "http://127.0.0.1:9/hook", "room.opened", webhooks={"max_waiting": 5})
    async with durable_broker(directory, webhooks=settings) as broker:
        for number in range(5):
            broker.hub.open(f"room-{number}")
        await trio.sleep(0.3)
        for number in range(5, 9):
            broker.hub.open(f"room-{number}")
        assert broker.webhook_events.dropped == {"shop": 4}
        assert len(await waiting(broker)) == 5


async def test_a_degraded_broker_says_so_without_its_ledger(directory: Path) -> None:
    async with (
        receiver() as shop,
        durable_broker(directory, webhooks=hook_settings(directory, shop.url, "broker.degraded")) as broker,
        joined_link(broker, "dev:max:host") as (host, room),
    ):
        disk(broker).fault = disk_error("SQLITE_FULL")
        await announce(host, room, 1)
        await until(lambda: broker.ledger is not None and broker.ledger.state is not LedgerState.READY)
        await until(lambda: len(shop.requests) == 1)
        event = event_of(shop.requests[0])
        assert event["data"] == {"status": "degraded", "reason": event["data"]["reason"]}
        assert "full" in event["data"]["reason"]
        disk(broker).fault = None
        await until(lambda: len(shop.requests) == 2)
        assert event_of(shop.requests[1])["data"] == {"status": "ok", "reason": ""}


async def test_a_defect_in_deliveries_begins_them_anew_and_ends_nothing_else(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "BEGIN_ANEW_S", 0.01)
    monkeypatch.setattr("broker.webhooks.deliveries.describe_reply", lambda reply: {}[reply])
    status = 500

    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        return http_reply(status)

    async with (
        receiver(answer) as shop,
        durable_broker(directory, webhooks=hook_settings(directory, shop.url, "room.opened")) as broker,
    ):
        broker.hub.open("lobby")
        broker.hub.open("other")
        await until(lambda: len(shop.requests) >= 6)
        status = 200
        await until(lambda: deliveries(broker).delivered == 2)
        assert {event["room"] for event in events_of(shop)} == {"lobby", "other"}


async def test_a_reload_changes_endpoints_and_loses_nothing(directory: Path) -> None:
    async with receiver() as shop, receiver() as crm:
        settings = hook_settings(directory, "http://127.0.0.1:9/hook", "room.opened")
        async with durable_broker(directory, webhooks=settings) as broker:
            assert broker.webhooks is not None
            broker.hub.open("lobby")
            await until(lambda: deliveries(broker).failures)
            endpoint = broker.config.webhooks.endpoints[0]
            moved = msgspec.structs.replace(endpoint, url=shop.url)
            other = msgspec.structs.replace(endpoint, name="crm", url=crm.url)
            webhooks = msgspec.structs.replace(broker.config.webhooks, endpoints=(moved, other))
            assert broker.reload(msgspec.structs.replace(broker.config, webhooks=webhooks)) == []
            broker.hub.open("other")
            await until(lambda: len(shop.requests) == 2 and len(crm.requests) == 1)
            assert [event["room"] for event in events_of(crm)] == ["other"]
            none = msgspec.structs.replace(broker.config.webhooks, endpoints=())
            broker.reload(msgspec.structs.replace(broker.config, webhooks=none))
            broker.hub.open("third")
            assert not broker.webhooks.endpoints
