"""Messages to parts of a room over HTTP and CALL: a real broker, a real ledger, restarts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.operations import audience_users, coupons, directs
from broker.operations.caller import Caller, OperationError
from broker.server import Broker
from protocol.clients import Client, JoinedRoom, StreamEvent, open_client
from protocol.clients.events import CallRefused, Gap
from protocol.codes import ErrorCode, MessageType, Role, Tier
from protocol.messages import Auth, Authenticated, Direct, Event, Joined, Resume, Resumed
from protocol.operations import BY_NAME, Scope
from tests.support.api import API, call, client_of, ok, refused
from tests.support.broker import raw_link, running_broker
from tests.support.durable import durable_broker
from tests.support.operating import operate
from tests.support.tokens import SECRET

pytestmark = pytest.mark.integration
ROOM = "live-1"
NEWS = int(MessageType.ANNOUNCEMENT)
LAST = "that is all"
SETTINGS: dict[str, Any] = {"api": API}


def rule(name: str) -> dict[str, Any]:
    return {"name": name, "follow": False, "shares": 0, "invites": 0}


@asynccontextmanager
async def user(broker: Broker, name: str, *tags: str) -> AsyncIterator[tuple[Client, JoinedRoom]]:
    """Open a client with a token that has tags, and join the room."""
    made = broker.context.auth.issue(name, tags=tags)
    async with open_client(f"roomcast://127.0.0.1:{broker.addresses[0][1]}", made) as client:
        yield client, await client.join(ROOM)


async def publish(http: Any, text: str, **audience: list[str]) -> int:
    fields: dict[str, Any] = {"audience": audience} if audience else {}
    answer = await ok(http, "messages.publish", room=ROOM, type=NEWS, payload=[text], as_user="host", **fields)
    assert answer["outcome"] == "accepted"
    offset: int = answer["offset"]
    return offset


async def texts_of(room: JoinedRoom) -> list[str]:
    """Return the texts that a member gets up to `LAST`; no gap is among its events."""
    texts: list[str] = []
    with trio.fail_after(20):
        async for event in room:
            assert not isinstance(event, Gap)
            if isinstance(event, StreamEvent) and event.type == NEWS:
                if event.payload.text == LAST:
                    break
                texts.append(event.payload.text)
    return texts


async def test_each_viewer_gets_what_its_tags_select_and_no_gap(directory: Path) -> None:
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(durable_broker(directory, **SETTINGS))
        http = await stack.enter_async_context(client_of(broker))
        defined = await ok(http, "audiences.define", room=ROOM, tags=[{"name": "fans"}, {"name": "buyers"}])
        assert defined == {"tags": [rule("fans"), rule("buyers")]}
        tags = {"ann": ("fans",), "bob": ("fans", "buyers"), "cy": (), "dan": ("buyers", "of another room")}
        rooms: dict[str, JoinedRoom] = {}
        for name, own in tags.items():
            _, rooms[name] = await stack.enter_async_context(user(broker, name, *own))
        assert await ok(http, "audiences.set_tags", room=ROOM, users=["cy"], tags=["fans"]) == {
            "changed": 1, "tagged": 1,
        }  # fmt: skip
        count = await ok(http, "audiences.count", room=ROOM, audience={"any": ["fans"]})
        assert count == {"addressed": 3, "online": 4}
        await publish(http, "for all")
        await publish(http, "for fans", any=["fans"])
        await publish(http, "for buyers who are fans", all=["fans", "buyers"])
        await publish(http, "for no fans", none=["fans"])
        await ok(http, "audiences.set_tags", room=ROOM, users=["cy"], tags=None)
        await publish(http, "for fans without cy", any=["fans"])
        await publish(http, LAST)
        got = {name: await texts_of(room) for name, room in rooms.items()}
        assert got == {
            "ann": ["for all", "for fans", "for fans without cy"],
            "bob": ["for all", "for fans", "for buyers who are fans", "for fans without cy"],
            "cy": ["for all", "for fans"],
            "dan": ["for all", "for no fans"],
        }
        assert all(room.position is not None and room.position.offset == 6 for room in rooms.values())


async def test_who_joins_resumes_or_reads_the_past_gets_what_is_for_it(directory: Path) -> None:
    settings = {**SETTINGS, "room": {"history_entries": 2}}
    for is_restarted in (False, True):
        async with durable_broker(directory, **settings) as broker, client_of(broker) as http:
            if not is_restarted:
                await ok(http, "audiences.define", room=ROOM, tags=[{"name": "fans"}, {"name": "buyers"}])
                await ok(http, "audiences.set_tags", room=ROOM, users=["cy"], tags=["buyers"])
                await publish(http, "for all")
                await publish(http, "for fans", any=["fans"])
                await publish(http, "for buyers", any=["buyers"])
                await publish(http, "for fans again", any=["fans"])
                opened = broker.hub.find(ROOM)
                assert opened is not None
                opened.journal.checkpoint()
                await ok(http, "audiences.set_tags", room=ROOM, users=["eve"], tags=[])  # durable after it
            newest = {"ann": "for fans again", "cy": "for buyers", "dan": "for all"}
            seen = {
                "ann": ["for all", "for fans", None, "for fans again"],
                "cy": ["for all", None, "for buyers", None],
                "dan": ["for all", None, None, None],
            }
            for name, text in newest.items():
                own = ("fans",) if name == "ann" else ()
                async with user(broker, name, *own) as (client, room):
                    snapshot = room.snapshot
                    assert snapshot is not None
                    assert snapshot.announcement is not None
                    assert snapshot.announcement.payload[0] == text
                    assert snapshot.offset == 4
                    page = await client.call("rooms.history", room=ROOM)
                    assert [each.payload[0] if each.payload else None for each in page.items] == seen[name]
                    assert {each.audience for each in page.items} == {None}
                async with raw_link(broker) as link:
                    await link.login(broker.context.auth.issue(name, tags=own))
                    await link.send((Resume(ROOM, Tier.FULL, page.epoch, 0), 0, 9))
                    _, resumed = await link.expect(Resumed)
                    assert resumed.recovered
                    found = [(await link.expect(Event))[1] for _ in range(4)]
                    assert [each.payload[0] if each.payload else None for each in found] == seen[name]
            page = await ok(http, "rooms.history", room=ROOM)
            assert [each["audience"] for each in page["items"]] == [
                None,
                {"any": ["fans"], "all": [], "none": []},
                {"any": ["buyers"], "all": [], "none": []},
                {"any": ["fans"], "all": [], "none": []},
            ]


async def test_follows_and_shares_give_tags_and_meet_conditions_and_outlive_a_restart(directory: Path) -> None:
    packet: dict[str, Any] = {"total_cents": 100, "count": 2, "mode": "equal", "order_id": "o-1"}
    async with durable_broker(directory, **SETTINGS) as broker, client_of(broker) as http:
        rules = [{"name": "fans", "follow": True}, {"name": "heralds", "shares": 2}]
        await ok(http, "audiences.define", room=ROOM, tags=rules)
        await ok(http, "packets.create", "k-1", room=ROOM, id="p-1", **packet, eligibility={"follow": True})
        await ok(
            http,
            "packets.create",
            "k-2",
            room=ROOM,
            id="p-2",
            **{**packet, "order_id": "o-2"},
            eligibility={"tags_any": ["heralds"]},
        )
        async with user(broker, "ann") as (ann, room):
            for id, field in (("p-1", "follow"), ("p-2", "tags_any")):
                with pytest.raises(CallRefused) as caught:
                    await ann.call("packets.grab", room=ROOM, id=id, key=f"grab {id}")
                assert (caught.value.code, caught.value.field) == (ErrorCode.NOT_ELIGIBLE, field)
            assert await ann.call("audiences.follow", room=ROOM) == (True, 0, 0)
            await ann.call("audiences.share", room=ROOM, channel="wechat", key="s-1")
            await ann.call("audiences.share", room=ROOM, channel="wechat", key="s-1")
            assert await ann.call("audiences.share", room=ROOM, channel="qq", key="s-2") == (True, 2, 0)
            for id in ("p-1", "p-2"):
                await ann.call("packets.grab", room=ROOM, id=id, key=f"grab {id}")
            await publish(http, "for fans", any=["fans"])
            await publish(http, LAST)
            assert await texts_of(room) == ["for fans"]
            with pytest.raises(CallRefused):
                await ann.call("audiences.follow", room=ROOM, user="bob")
        where = await refused(http, "audiences.follow", room=ROOM)
        assert where == (400, "BAD_FIELD", "user")
        await ok(http, "audiences.follow", room=ROOM, user="bob")
    async with durable_broker(directory, **SETTINGS) as broker, client_of(broker) as http:
        assert await ok(http, "audiences.top", room=ROOM, kind="shares") == {
            "top": [{"user": "ann", "score": 2}], "totals": {"followers": 2, "shares": 2, "invites": 0},
        }  # fmt: skip
        async with user(broker, "ann") as (_, room):
            assert room.snapshot is not None
            own = {view.kind: view.data for view in room.snapshot.own_activities}
            assert own["audiences"] == (True, 2, 0)


async def test_a_renewed_token_brings_other_tags(directory: Path) -> None:
    async with durable_broker(directory, **SETTINGS) as broker, client_of(broker) as http:
        await ok(http, "audiences.define", room=ROOM, tags=[{"name": "fans"}])
        async with raw_link(broker) as link:
            await link.login("dev:ann")
            _, joined = await link.join(ROOM)
            assert isinstance(joined, Joined)
            assert (await ok(http, "audiences.count", room=ROOM, audience={"any": ["fans"]}))["addressed"] == 0
            await link.send((Auth(broker.context.auth.issue("ann", tags=("fans",))), 0, 5))
            await link.expect(Authenticated)
            assert (await ok(http, "audiences.count", room=ROOM, audience={"any": ["fans"]}))["addressed"] == 1


async def test_refusals_name_the_code_and_change_nothing(directory: Path) -> None:
    async with durable_broker(directory, **SETTINGS) as broker, client_of(broker) as http:
        message: dict[str, Any] = {"room": ROOM, "type": NEWS, "payload": ["x"], "audience": {"any": ["fans"]}}
        assert await refused(http, "messages.publish", **message) == (404, "UNKNOWN_ROOM", "room")
        await publish(http, "for all")
        assert await refused(http, "messages.publish", **message) == (400, "BAD_FIELD", "audience.any[0]")
        seventeen = [{"name": f"tag-{number}"} for number in range(17)]
        assert await refused(http, "audiences.define", room=ROOM, tags=seventeen) == (400, "BAD_FIELD", "tags")
        for name in ("", "x" * 65, "a\nb", 7, None):
            where = await refused(http, "audiences.define", room=ROOM, tags=[{"name": name}])
            assert where == (400, "BAD_FIELD", "tags[0].name")
        assert await refused(http, "audiences.get", room=ROOM) == (404, "UNKNOWN_ACTIVITY", "id")
        await ok(http, "audiences.define", room=ROOM, tags=[{"name": "fans"}])
        assert await refused(http, "audiences.set_tags", room=ROOM, users=["ann"], tags=["fans", "x"]) == (
            400, "BAD_FIELD", "tags[1]",
        )  # fmt: skip
        many = [f"tag-{number}" for number in range(17)]
        assert await refused(http, "audiences.set_tags", room=ROOM, users=["ann"], tags=many) == (
            400, "BAD_FIELD", "tags",
        )  # fmt: skip
        empty: tuple[dict[str, Any], ...] = ({}, {"any": []})
        for audience in empty:
            asked = {**message, "audience": audience}
            assert await refused(http, "messages.publish", **asked) == (400, "BAD_FIELD", "audience")
        for field, value in (("type", int(MessageType.DANMAKU)), ("type", int(MessageType.GIFT))):
            asked = {**message, field: value}
            assert (await refused(http, "messages.publish", **asked))[:2] == (400, "BAD_FIELD")
        asked = {**message, "audience": {"all": ["fans", "nobody"]}}
        assert await refused(http, "messages.publish", **asked) == (400, "BAD_FIELD", "audience.all[1]")
        offset = await publish(http, "for fans", any=["fans"])
        assert offset == 2
        assert await refused(http, "messages.pin", room=ROOM, offset=offset) == (400, "BAD_FIELD", "offset")
        async with user(broker, "ann") as (ann, _):
            for operation, fields in (
                ("audiences.define", {"tags": ()}),
                ("audiences.set_tags", {"users": ("ann",), "tags": ("fans",)}),
                ("audiences.get", {}),
            ):
                with pytest.raises(CallRefused) as caught:
                    await ann.call(operation, room=ROOM, **fields)
                assert caught.value.code == ErrorCode.NOT_ALLOWED
        assert await ok(http, "audiences.get", room=ROOM) == {"tags": [rule("fans")]}


async def test_the_same_message_to_another_audience_is_another_message(directory: Path) -> None:
    async with durable_broker(directory, **SETTINGS) as broker, client_of(broker) as http:
        await ok(http, "audiences.define", room=ROOM, tags=[{"name": "fans"}, {"name": "buyers"}])
        message: dict[str, Any] = {"room": ROOM, "type": NEWS, "payload": ["x"], "client_msg_id": "m-1"}
        first = await ok(http, "messages.publish", **message, audience={"any": ["fans"]})
        again = await ok(http, "messages.publish", **message, audience={"any": ["fans"]})
        assert (again["offset"], again["repeated"]) == (first["offset"], True)
        other = await ok(http, "messages.publish", **message, audience={"any": ["buyers"]})
        assert other["code"] == "key_reused"


async def test_a_broker_without_a_ledger_has_no_audiences() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as http:
        assert await refused(http, "audiences.define", room=ROOM, tags=[{"name": "fans"}]) == (409, "NOT_KEPT", "")


async def test_messages_and_coupons_go_to_the_users_of_an_audience_page_by_page(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audience_users, "SLICE", 2)
    monkeypatch.setattr(coupons, "MAX_ISSUED_AT_ONCE", 2)
    monkeypatch.setattr(directs, "MAX_RECIPIENTS", 2)
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(durable_broker(directory, **SETTINGS))
        http = await stack.enter_async_context(client_of(broker))
        await ok(http, "audiences.define", room=ROOM, tags=[{"name": "fans"}, {"name": "new"}])
        clients: dict[str, Client] = {}
        for name, *tags in (("eve", "fans"), ("ann", "fans"), ("cy", "new"), ("dan", "fans", "new"), ("bob", "fans")):
            clients[name], _ = await stack.enter_async_context(user(broker, name, *tags))
        await stack.enter_async_context(user(broker, "ann", "fans"))  # her second connection

        fans = {"any": ["fans"]}
        pages: list[int] = []
        cursor = None
        while not pages or cursor is not None:
            page = await ok(
                http, "directs.send_many", batch="may", type=NEWS, template=["hello"], cursor=cursor,
                audience={"room": ROOM, **fans},
            )  # fmt: skip
            cursor = page.pop("next")
            pages.append(page["sent"])
        assert pages == [2, 2]
        again = await ok(
            http, "directs.send_many", batch="may", type=NEWS, template=["hello"], audience={"room": ROOM, **fans}
        )
        assert again == {"batch": "may", "sent": 0, "repeated": 2, "failed": 0, "next": "bob", "suppressed": 0}
        for name in ("ann", "bob", "dan", "eve"):
            assert (await direct_of(clients[name])).payload.text == "hello"
        nobody = {"room": ROOM, "all": ["fans"], "none": ["fans"]}
        none = await ok(http, "directs.send_many", batch="may", type=NEWS, template=["hello"], audience=nobody)
        assert none == {"batch": "may", "sent": 0, "repeated": 0, "failed": 0, "next": None, "suppressed": 0}
        for audience, field in (({}, "audience"), ({"any": ["x"]}, "audience.any[0]")):
            refusal = await refused(
                http, "directs.send_many", batch="b", type=NEWS, template=["x"], audience={"room": ROOM, **audience}
            )
            assert refusal == (400, "BAD_FIELD", field)
        unfilled = await refused(http, "directs.send_many", batch="b", type=NEWS, template=["{x}"], audience=nobody)
        assert unfilled == (400, "BAD_FIELD", "template")

        pool = {"room": ROOM, "id": "c"}
        await ok(http, "coupons.create", key="k1", **pool, count=3, claims=False)
        first = await ok(http, "coupons.issue_many", key="k2", **pool, audience=fans)
        assert ([item["user"] for item in first["items"]], first["next"]) == (["ann", "bob"], "bob")
        assert await ok(http, "coupons.issue_many", key="k2", **pool, audience=fans) == first
        second = await ok(http, "coupons.issue_many", key="k3", **pool, audience=fans, cursor="bob")
        assert [item["user"] for item in second["items"]] == ["dan"]
        assert (second["left_out"], second["next"]) == (["eve"], None)
        wrong = await call(http, "coupons.issue_many", "k4", **pool, audience=fans, users=["ann"])
        assert (wrong.status_code, wrong.json()["field"]) == (400, "audience")


async def direct_of(client: Client) -> Direct:
    with trio.fail_after(10):
        async for event in client.events():
            if isinstance(event, Direct):
                return event
    raise AssertionError("the client has closed")


async def test_an_audience_is_of_a_room_that_the_key_has(directory: Path) -> None:
    caller = Caller(
        "shop", "Shop", "", {"live-2": Role.APP}.get, frozenset({Role.APP}), frozenset({Scope.DIRECTS_WRITE})
    )
    async with durable_broker(directory, **SETTINGS) as broker, client_of(broker) as http:
        await ok(http, "audiences.define", room=ROOM, tags=[{"name": "fans"}])
        with pytest.raises(OperationError) as caught:
            await broker.operations.call(
                caller, BY_NAME["directs.send_many"], ("b", NEWS, ("x",), None, None, None, (ROOM, ("fans",)))
            )
        assert (caught.value.code, caught.value.field) == (ErrorCode.ROOM_NOT_GRANTED, "audience.room")


async def test_a_backend_reports_the_shares_of_many_users_and_a_user_its_own(directory: Path) -> None:
    async with durable_broker(directory, **SETTINGS) as broker, client_of(broker) as http:
        await ok(http, "rooms.open", room=ROOM)
        for number in range(20):
            await ok(http, "audiences.share", room=ROOM, user=f"u-{number}")
        async with user(broker, "ann") as (ann, _):
            for _ in range(5):
                await ann.call("audiences.share", room=ROOM)
            with pytest.raises(CallRefused) as limited:
                await ann.call("audiences.share", room=ROOM)
            assert limited.value.code == ErrorCode.RATE_LIMITED
        assert (await ok(http, "audiences.top", room=ROOM, kind="shares"))["totals"]["shares"] == 25


async def test_no_audience_is_of_a_room_of_another_tenant(directory: Path) -> None:
    tenants: dict[str, Any] = {"auth": {"secret": SECRET}, "tenants": [{"name": "acme"}, {"name": "globex"}]}
    async with durable_broker(directory, **tenants) as broker:
        await operate(broker, "audiences.define", ROOM, ({"name": "fans"},), tenant="acme")
        for audience in ((ROOM, ("fans",)), (f"acme {ROOM}", ("fans",))):
            with pytest.raises(OperationError) as caught:
                await operate(
                    broker, "directs.send_many", "b", NEWS, ("x",), None, None, None, audience, tenant="globex"
                )
            assert caught.value.code in (ErrorCode.UNKNOWN_ROOM, ErrorCode.BAD_FIELD)
