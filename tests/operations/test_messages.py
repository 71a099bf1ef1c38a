"""Operations that pin and delete messages: over HTTP, live, in snapshots, after RESUME and over restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.operations import rooms
from broker.operations.messages import published
from protocol.codes import ErrorCode, MessageType, Outcome, Tier
from protocol.messages import AckResult, Call, ErrorReply, Event, Result, Resume, Resumed
from protocol.operations import BY_NAME
from protocol.payloads import DeletedPayload, PinsPayload, payload_record
from tests.support.api import API, call, client_of, ok, refused
from tests.support.broker import RawLink, joined_link, raw_link, running_broker
from tests.support.clocks import advance
from tests.support.durable import durable_broker
from tests.support.until import until

pytestmark = pytest.mark.integration

NEWS = int(MessageType.ANNOUNCEMENT)


def test_the_detail_of_a_result_is_what_its_outcome_says() -> None:
    fields = {
        Outcome.LIMITED: "retry_after_ms", Outcome.UNAVAILABLE: "retry_after_ms", Outcome.REJECTED: "code",
    }  # fmt: skip
    for outcome in Outcome:
        shown = published(AckResult(1, outcome, 2500), False)._asdict()
        field = fields.get(outcome, "offset")
        assert {name: shown[name] for name in ("offset", "code", "retry_after_ms")} == {
            "offset": None, "code": None, "retry_after_ms": None, field: 2500,
        }  # fmt: skip


async def announce(client: httpx.AsyncClient, text: str, user: str = "max") -> int:
    result = await ok(client, "messages.publish", room="live-1", type=NEWS, payload=[text], as_user=user)
    offset: int = result["offset"]
    return offset


async def next_of(link: RawLink, kind: MessageType) -> Any:
    while True:
        _, event = await link.expect(Event)
        if event.type == kind:
            return payload_record(event.type, event.payload)


async def test_messages_pin_and_messages_unpin_are_seen_live_and_by_those_who_join_later() -> None:
    async with (
        running_broker(api=API) as broker,
        client_of(broker) as client,
        joined_link(broker, "dev:ann", "live-1") as (ann, _),
    ):
        offset = await announce(client, "Sale at 20:00")
        pinned = (await ok(client, "messages.pin", room="live-1", offset=offset))["pinned"]
        assert [(pin["id"], pin["payload"], pin["user"]) for pin in pinned] == [("1", ["Sale at 20:00"], "max")]
        assert [pin.offset for pin in (await next_of(ann, MessageType.PINS_CHANGED)).pinned] == [offset]
        own: dict[str, Any] = {"type": NEWS, "payload": ["Be kind"], "name": "Rules", "as_user": "mod"}
        await ok(client, "messages.pin", room="live-1", id="rules", ttl_ms=30_000, **own)
        assert [pin.id for pin in (await next_of(ann, MessageType.PINS_CHANGED)).pinned] == ["1", "rules"]
        async with joined_link(broker, "dev:bob", "live-1") as (bob, _):
            assert [pin["id"] for pin in (await ok(client, "rooms.get", room="live-1"))["pinned"]] == ["1", "rules"]
            advance(30_000)
            assert [pin.id for pin in (await next_of(bob, MessageType.PINS_CHANGED)).pinned] == ["1"], "its time passed"
        await ok(client, "messages.unpin", room="live-1", id="1")
        await next_of(ann, MessageType.PINS_CHANGED)
        assert await next_of(ann, MessageType.PINS_CHANGED) == PinsPayload(())
        assert await refused(client, "messages.unpin", room="live-1", id="1") == (400, "BAD_FIELD", "id")
        assert await refused(client, "messages.pin", room="live-1", offset=99) == (400, "BAD_FIELD", "offset")
        assert await refused(client, "messages.pin", room="live-1") == (400, "BAD_FIELD", "offset")
        own_text: dict[str, Any] = {"room": "live-1", "type": NEWS, "payload": ["x"]}
        assert await refused(client, "messages.pin", **own_text) == (400, "BAD_FIELD", "id")
        bad: dict[str, Any] = {"room": "live-1", "id": "x", "type": NEWS, "payload": [1]}
        assert await refused(client, "messages.pin", **bad) == (400, "BAD_FIELD", "payload.text")
        assert await refused(client, "messages.pin", room="nowhere", offset=1) == (404, "UNKNOWN_ROOM", "room")
        for name in "abc":
            await ok(client, "messages.pin", room="live-1", id=name, **own)
        assert await refused(client, "messages.pin", room="live-1", id="d", **own) == (409, "OUT_OF_STATE", "room")


async def test_messages_delete_removes_what_history_and_resume_give() -> None:
    async with (
        running_broker(api=API) as broker,
        client_of(broker) as client,
        joined_link(broker, "dev:ann", "live-1") as (ann, _),
    ):
        for text, user in (("text 1", "max"), ("text 2", "bob"), ("text 3", "bob"), ("text 4", "max")):
            await announce(client, text, user)
        gone = await ok(client, "messages.delete", room="live-1", ids=[1], reason="wrong price")
        assert gone == {"deleted": 1, "offset": 5}
        assert await next_of(ann, MessageType.MESSAGES_DELETED) == DeletedPayload((1,), reason="wrong price")
        assert (await ok(client, "messages.delete", room="live-1", user="bob"))["deleted"] == 2
        page = await ok(client, "rooms.history", room="live-1")
        assert [(item["offset"], item["type"]) for item in page["items"]] == [
            (1, 11), (2, 11), (3, 11), (4, 4), (5, 11), (6, 11),
        ]  # fmt: skip
        assert not any(text in str(page) for text in ("text 1", "text 2", "text 3"))
        news = await ok(client, "rooms.history", room="live-1", types=[NEWS], limit=3)
        assert (news["items"], news["next"]) == ([], 3)
        news = await ok(client, "rooms.history", room="live-1", types=[NEWS], after=3)
        assert ([item["payload"] for item in news["items"]], news["next"]) == ([["text 4"]], None)
        async with raw_link(broker) as cy:
            await cy.login("dev:cy")
            await cy.send((Resume("live-1", Tier.FULL, page["epoch"], 0), 0, 9))
            _, resumed = await cy.expect(Resumed)
            assert resumed.recovered
            assert await next_of(cy, MessageType.MESSAGES_DELETED) == DeletedPayload((1,))
        assert (await ok(client, "messages.delete", room="live-1", after_ms=0))["deleted"] == 1
        assert await refused(client, "messages.delete", room="live-1") == (400, "BAD_FIELD", "ids")
        assert await refused(client, "messages.delete", room="live-1", ids=[]) == (400, "BAD_FIELD", "ids")
        assert await refused(client, "messages.delete", room="live-1", ids=[1], user="x") == (400, "BAD_FIELD", "ids")
        assert await refused(client, "messages.delete", room="live-1", ids=[1, 99]) == (400, "BAD_FIELD", "ids[1]")


async def test_deletions_and_pins_hold_over_restarts_and_for_what_only_the_ledger_has(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"api": API, "room": {"history_entries": 2}}
    async with durable_broker(tmp_path, **settings) as broker, client_of(broker) as client:
        for number in range(6):
            await announce(client, f"secret {number}", "bob")
        await ok(client, "messages.pin", room="live-1", offset=1, id="kept")
        await ok(client, "messages.pin", room="live-1", offset=2, id="deleted")
        await ok(client, "messages.delete", room="live-1", ids=[2, 3])
        room = broker.hub.find("live-1")
        assert room is not None
        await until(lambda: len(room.state.kept.pins.pinned) == 1)
        page = await ok(client, "rooms.history", room="live-1", limit=4)
        assert [item["type"] for item in page["items"]] == [4, 11, 11, 4], "deletions after the page count"
    async with durable_broker(tmp_path, **settings) as broker, client_of(broker) as client:
        view = await ok(client, "rooms.open", room="live-1")
        assert [(pin["id"], pin["payload"]) for pin in view["pinned"]] == [("kept", ["secret 0"])]
        page = await ok(client, "rooms.history", room="live-1", limit=4)
        assert [item["type"] for item in page["items"]] == [4, 11, 11, 4]
        async with joined_link(broker, "dev:ann", "live-1") as (ann, _):
            await ok(client, "messages.delete", room="live-1", user="bob")
            assert (await next_of(ann, MessageType.PINS_CHANGED)).pinned == ()
        page = await ok(client, "rooms.history", room="live-1")
        assert "secret" not in str(page)


async def test_a_page_of_history_ends_where_its_bytes_do_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "MAX_HISTORY_BYTES", 1000)
    settings: dict[str, Any] = {"api": API, "room": {"history_entries": 2}}
    async with durable_broker(tmp_path, **settings) as broker, client_of(broker) as client:
        texts = [f"{number:02} " + "x" * 480 for number in range(12)]
        for text in texts:
            await announce(client, text)
        found: list[str] = []
        after = pages = 0
        while True:
            page = await ok(client, "rooms.history", room="live-1", after=after, limit=1000)
            assert not page["gap"]
            found += [item["payload"][0] for item in page["items"]]
            pages += 1
            if page["next"] is None:
                break
            after = page["next"]
        assert found == texts
        assert pages > 4
        monkeypatch.setattr(rooms, "MAX_HISTORY_BYTES", 1)
        assert (await ok(client, "rooms.history", room="live-1"))["next"] == 1, "a page has at least one event"


async def test_a_moderator_pins_under_its_own_name() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:mod:moderator", "live-1") as (link, _):
        row = BY_NAME["messages.pin"]
        pin: dict[str, Any] = {"room": "live-1", "id": "x", "type": NEWS, "payload": ["hi"]}
        for field, value in (("name", "Host"), ("as_user", "host")):
            await link.send((Call(row.number, "", pin | {field: value}), 0, 5))
            _, error = await link.expect(ErrorReply)
            assert (error.code, error.field) == (ErrorCode.NOT_ALLOWED, field)
        await link.send((Call(row.number, "", pin), 0, 6))
        _, answer = await link.expect(Result)
        assert row.read_result(answer.result).pinned[0].name == "mod"


async def test_media_by_reference_are_published_and_checked() -> None:
    media = {"url": "https://cdn.example/a.jpg", "kind": 1, "size_bytes": 10, "sha256": "ab" * 32}
    async with running_broker(api=API) as broker, client_of(broker) as client:
        publish: dict[str, Any] = {"room": "live-1", "type": int(MessageType.MEDIA)}
        result = await ok(client, "messages.publish", payload=media, **publish)
        assert (result["outcome"], result["offset"]) == ("accepted", 1)
        for field, value in (("url", "http://cdn.example/a.jpg"), ("kind", 9), ("sha256", "ab")):
            answer = await refused(client, "messages.publish", payload=media | {field: value}, **publish)
            assert answer == (400, "BAD_FIELD", f"payload.{field}")
        page = await ok(client, "rooms.history", room="live-1")
        assert page["items"][0]["lane"] == 1


async def test_rooms_set_rules_hold_at_once_and_over_restarts(tmp_path: Path) -> None:
    slow = {"user_chat_per_s": 0.2, "user_chat_burst": 1}
    both = {"tick_ms": 500, "tick_max_ms": 100}
    async with durable_broker(tmp_path, api=API) as broker, client_of(broker) as client:
        await ok(client, "rooms.open", room="live-1", rules={"merge": False})
        before = (await ok(client, "rooms.get", room="live-1"))["rules"]
        answer = await ok(client, "rooms.set_rules", room="live-1", rules=slow)
        assert answer["rules"] == before | slow | {"merge": False}
        assert answer["applied_at_ms"] > 0
        for rules, field in (({"x": 1}, "rules.x"), ({"merge": 3}, "rules.merge"), (both, "rules")):
            refusal = await refused(client, "rooms.set_rules", room="live-1", rules=rules)
            assert refusal == (400, "BAD_FIELD", field)
        assert await refused(client, "rooms.open", room="new", rules={"x": 1}) == (400, "BAD_FIELD", "rules.x")
        assert broker.hub.find("new") is None, "nothing was opened"
        assert await refused(client, "rooms.set_rules", room="nowhere", rules={}) == (404, "UNKNOWN_ROOM", "room")
        wanted = (await ok(client, "rooms.get", room="live-1"))["rules"]
    async with durable_broker(tmp_path, api=API) as broker, client_of(broker) as client:
        answer = await ok(client, "rooms.set_rules", room="live-1", rules={"user_chat_burst": 2})
        assert answer["rules"] == wanted | {"user_chat_burst": 2}, "before the first viewer"
        await ok(client, "rooms.set_rules", room="live-1", rules={"user_chat_burst": 1})
        assert (await ok(client, "rooms.open", room="live-1"))["rules"] == wanted
        await ok(client, "rooms.close", room="live-1")
    async with durable_broker(tmp_path, api=API) as broker, client_of(broker) as client:
        assert (await ok(client, "rooms.open", room="live-1"))["rules"]["merge"] is True


async def test_rooms_that_go_on_after_a_restart_are_read_before_a_client_has_joined_them(tmp_path: Path) -> None:
    reads = ("rooms.get", "rooms.members", "rooms.history", "rooms.stats")
    async with durable_broker(tmp_path, api=API) as broker, client_of(broker) as client:
        await announce(client, "welcome")
        epoch = (await ok(client, "rooms.get", room="live-1"))["epoch"]
    for name in reads:
        async with durable_broker(tmp_path, api=API) as broker, client_of(broker) as client:
            found = await ok(client, name, room="live-1")
            assert found.get("epoch", epoch) == epoch
            assert (await call(client, name, room="live-2")).status_code == 404
