"""Operations on must-deliver messages: over HTTP to a real link, refusals that send nothing, keys over a crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.ledger import DirectState
from broker.operations.caller import Caller, OperationError
from broker.server import Broker
from protocol.codes import ErrorCode, Role
from protocol.frames import pack_body
from protocol.messages import Direct
from protocol.operations import BY_NAME, Scope
from protocol.operations.directs import CancelledDirects, DirectProgress, DirectStatus, SentDirect, SentDirects
from tests.support.broker import running_broker
from tests.support.directs import ack, acked, login, nothing_more
from tests.support.durable import durable_broker

pytestmark = pytest.mark.integration

TYPES = [{"id": 130, "name": "coupon", "lane": "commerce", "max_bytes": 16}]


def backend(key: str = "") -> Caller:
    scopes = frozenset({Scope.DIRECTS_WRITE})
    return Caller("shop", "Shop", "127.0.0.1", lambda room: Role.APP, frozenset({Role.APP}), scopes, key)


async def call(broker: Broker, name: str, *arguments: Any, key: str = "") -> Any:
    result, _ = await broker.operations.call(backend(key), BY_NAME[name], arguments)
    return result


def test_the_states_are_those_of_the_ledger() -> None:
    assert {each.name: int(each) for each in DirectStatus} == {each.name: int(each) for each in DirectState}


async def test_a_backend_sends_over_http_and_the_user_acknowledges(directory: Path) -> None:
    async with (
        durable_broker(directory, api={"listen": "127.0.0.1:0"}) as broker,
        login(broker, "ann") as ann,
        httpx.AsyncClient(base_url=broker.api_urls[0], trust_env=False, timeout=20) as client,
    ):
        sent = await client.post("/v1/directs/send", json={"user": "ann", "type": 4, "payload": ["已发货"]})
        assert sent.status_code == 200
        _, direct = await ann.expect(Direct)
        assert (direct.direct_id, direct.payload) == (sent.json()["id"], ("已发货",))
        batch = {"batch": "may", "type": 4, "template": ["码 {code}"], "values": {"ann": {"code": "A"}}}
        counts = {"batch": "may", "sent": 1, "repeated": 0, "failed": 0, "next": None, "suppressed": 0}
        assert (await client.post("/v1/directs/send_many", json=batch)).json() == counts
        _, second = await ann.expect(Direct)
        assert second.payload == ("码 A",)
        assert (await client.post("/v1/directs/send_many", json=batch)).json() == counts | {"sent": 0, "repeated": 1}
        await nothing_more(ann)
        progress = await client.post("/v1/directs/progress", json={"batch": "may"})
        assert progress.json() == {"batch": "may", "pending": 1, "acked": 0, "expired": 0, "cancelled": 0}
        await ack(ann, second.direct_id)
        await acked(broker, "ann", second.direct_id)
        progress = await client.post("/v1/directs/progress", json={"batch": "may"})
        assert progress.json() == {"batch": "may", "pending": 0, "acked": 1, "expired": 0, "cancelled": 0}
        state = await client.post("/v1/directs/state", json={"user": "ann", "id": second.direct_id})
        assert state.json() == {"state": "acked"}
        unknown = await client.post("/v1/directs/state", json={"user": "ann", "id": 999})
        assert unknown.json() == {"state": None}


async def test_a_backend_lists_and_cancels_messages_over_http(directory: Path) -> None:
    async with durable_broker(directory, api={"listen": "127.0.0.1:0"}) as broker:
        async with httpx.AsyncClient(base_url=broker.api_urls[0], trust_env=False, timeout=20) as client:

            async def ok(name: str, **fields: Any) -> Any:
                answer = await client.post(f"/v1/directs/{name}", json=fields)
                assert answer.status_code == 200, answer.text
                return answer.json()

            await ok("send", user="ann", type=4, payload=["one"])
            await ok("send_many", batch="may", type=4, template=["two"], users=["ann", "bob"])
            await ok("send", user="ann", type=4, payload=["three"], expires_s=60)
            page = await ok("list", user="ann", payloads=True, limit=2)
            shown = [(each["id"], each["state"], each["batch"], each["payload"]) for each in page["items"]]
            assert shown == [(1, "pending", None, ["one"]), (2, "pending", "may", ["two"])]
            assert all(each["at_ms"] < each["expires_at_ms"] and each["type"] == 4 for each in page["items"])
            rest = await ok("list", user="ann", limit=2, cursor=page["next"])
            assert [(each["id"], each["payload"]) for each in rest["items"]] == [(3, None)]
            assert rest["next"] is None
            assert await ok("cancel", batch="may") == {"cancelled": 2, "more": False}
            assert await ok("cancel", user="ann", id=3) == {"cancelled": 1, "more": False}
            assert await ok("cancel", user="ann", id=3) == {"cancelled": 0, "more": False}
            counts = {"batch": "may", "pending": 0, "acked": 0, "expired": 0, "cancelled": 2}
            assert await ok("progress", batch="may") == counts
            assert await ok("state", user="ann", id=3) == {"state": "cancelled"}
            again = await ok("send_many", batch="may", type=4, template=["two"], users=["ann", "bob"])
            assert again == {"batch": "may", "sent": 0, "repeated": 2, "failed": 0, "next": None, "suppressed": 0}
            cancelled = await ok("list", user="ann", state="cancelled")
            assert [each["id"] for each in cancelled["items"]] == [2, 3]
        async with login(broker, "ann") as ann:
            assert (await ann.expect(Direct))[1].payload == ("one",)
            await nothing_more(ann)


async def test_a_batch_is_cancelled_a_bounded_part_at_a_time(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.operations.directs.MAX_CANCELLED", 1000)
    async with durable_broker(directory) as broker:
        for part in range(2):
            users = tuple(f"user-{part}-{number}" for number in range(700))
            await call(broker, "directs.send_many", "may", 4, ("news",), None, users)
        assert await call(broker, "directs.cancel", "may") == CancelledDirects(1000, more=True)
        assert await call(broker, "directs.cancel", "may") == CancelledDirects(400)
        assert await call(broker, "directs.progress", "may") == DirectProgress("may", 0, 0, 0, 1400)


async def test_a_page_with_payloads_fits_the_answer_to_a_call(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        for _ in range(40):
            await call(broker, "directs.send", "ann", 4, ("字" * 500,))
        found: list[int] = []
        cursor = None
        while not found or cursor:
            page = await call(broker, "directs.list", "ann", None, True, 100, cursor)
            assert len(pack_body((page,))) < 60_000
            found += [each.id for each in page.items]
            cursor = page.next
        assert found == list(range(1, 41))


async def test_users_take_the_place_of_values_in_a_batch_without_fields(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        sent = await call(broker, "directs.send_many", "may", 4, ("news",), None, ("ann", "bob", "ann"))
        assert sent == SentDirects("may", 2, 0, 0)
        assert await call(broker, "directs.progress", "may") == DirectProgress("may", 2, 0, 0)
        with pytest.raises(OperationError) as caught:
            await call(broker, "directs.send_many", "may", 4, ("other",), None, ("ann",))
        assert (caught.value.code, caught.value.field) == (ErrorCode.KEY_REUSED, "batch")


@pytest.mark.parametrize(
    ("name", "arguments", "code", "field"),
    [
        ("directs.send", ("ann", 1, ("hi", None)), ErrorCode.BAD_FIELD, "type"),
        ("directs.send", ("ann", 250, "x"), ErrorCode.UNKNOWN_TYPE, "type"),
        ("directs.send", ("ann", 130, "x" * 20), ErrorCode.PAYLOAD_TOO_LARGE, "payload"),
        ("directs.send", ("ann", 4, ()), ErrorCode.BAD_FIELD, "payload"),
        ("directs.send", (" ann", 4, ("x",)), ErrorCode.BAD_FIELD, "user"),
        ("directs.send_many", ("may", 4, ("x",)), ErrorCode.BAD_FIELD, "values"),
        ("directs.send_many", ("may", 4, ("x",), {"ann": {}}, ("ann",)), ErrorCode.BAD_FIELD, "values"),
        ("directs.send_many", ("may", 4, ("x",), None, ()), ErrorCode.BAD_FIELD, "users"),
        ("directs.send_many", ("may", 4, ("x",), None, ("ann",), None, ("a", ("t",))), ErrorCode.BAD_FIELD, "users"),
        ("directs.send_many", ("may", 4, ("x",), None, ("ann",), None, None, "b"), ErrorCode.BAD_FIELD, "cursor"),
        ("directs.send_many", ("may", 4, ("x",), None, None, None, ("a",)), ErrorCode.UNKNOWN_ROOM, "room"),
        ("directs.send_many", ("may", 4, ("{a}",), None, ("ann",)), ErrorCode.BAD_FIELD, "values"),
        ("directs.send_many", ("may", 130, "{a}", {"ann": {"a": "x" * 20}}), ErrorCode.PAYLOAD_TOO_LARGE, "template"),
        ("directs.cancel", (), ErrorCode.BAD_FIELD, "batch"),
        ("directs.cancel", ("may", "ann", 1), ErrorCode.BAD_FIELD, "batch"),
        ("directs.cancel", ("may", None, 1), ErrorCode.BAD_FIELD, "id"),
        ("directs.cancel", (None, "ann"), ErrorCode.BAD_FIELD, "id"),
        ("directs.cancel", (None, "ann", 0), ErrorCode.BAD_FIELD, "id"),
        ("directs.list", ("ann", None, False, 100, "-1"), ErrorCode.BAD_FIELD, "cursor"),
        ("directs.list", ("ann", None, False, 100, "9" * 17), ErrorCode.BAD_FIELD, "cursor"),
    ],
)
async def test_a_refused_call_names_the_field_and_sends_nothing(
    directory: Path, name: str, arguments: tuple[Any, ...], code: ErrorCode, field: str
) -> None:
    async with durable_broker(directory, types=TYPES) as broker:
        with pytest.raises(OperationError) as caught:
            await call(broker, name, *arguments)
        assert (caught.value.code, caught.value.field.split(".")[0].split("[")[0]) == (code, field)
        assert broker.inboxes is not None
        assert not broker.inboxes.pending_users


@pytest.mark.parametrize("name", [name for name in BY_NAME if name.startswith("directs.")])
async def test_a_broker_without_a_ledger_answers_not_kept(name: str) -> None:
    async with running_broker() as broker:
        with pytest.raises(OperationError) as caught:
            await call(broker, name, *BY_NAME[name].example[0])
        assert caught.value.code is ErrorCode.NOT_KEPT


async def test_a_key_holds_over_a_restart_with_the_number_of_the_first_message(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        assert await call(broker, "directs.send", "ann", 4, ("zero",)) == SentDirect(1)
        assert await call(broker, "directs.send", "ann", 4, ("one",), key="k1") == SentDirect(2)
    async with durable_broker(directory) as broker:
        assert await call(broker, "directs.send", "ann", 4, ("one",), key="k1") == SentDirect(2, repeated=True)
        with pytest.raises(OperationError) as caught:
            await call(broker, "directs.send", "ann", 4, ("other",), key="k1")
        assert (caught.value.code, caught.value.field) == (ErrorCode.KEY_REUSED, "key")
        async with login(broker, "ann") as ann:
            assert [(await ann.expect(Direct))[1].payload for _ in range(2)] == [("zero",), ("one",)]
            await nothing_more(ann)
