"""Operations on the keys of a room: over HTTP, in the snapshot, by events, over restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.core.rooms.idempotency import OperationKey
from broker.core.rooms.key_changes import KEY_CHANGES
from broker.operations.caller import Caller, OperationError
from broker.rooms.journal import RoomJournal
from protocol.codes import ErrorCode, KeyCause, Role, Tier
from protocol.messages import Event, Resume, Resumed
from protocol.operations import BY_NAME, Scope
from protocol.payloads import KeysPayload, payload_record
from tests.support.api import API, call, client_of, ok
from tests.support.broker import RawLink, joined_link, raw_link, running_broker
from tests.support.clocks import advance
from tests.support.durable import disk, durable_broker
from tests.support.faulty_disk import disk_error
from tests.support.until import until

pytestmark = pytest.mark.integration


async def changes_of(link: RawLink) -> dict[str, KeyCause]:
    while True:
        _, event = await link.expect(Event)
        payload = payload_record(event.type, event.payload)
        if isinstance(payload, KeysPayload):
            return {change.name: change.cause for change in payload.changes}


async def test_keys_are_set_compared_listed_and_deleted_over_http() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as client:
        first = await ok(client, "keys.set", room="live-1", name="price", value={"cents": 1999}, version=0)
        stale = await call(client, "keys.set", room="live-1", name="price", value=1, version=0)
        assert (stale.status_code, stale.json()["code"], stale.json()["field"]) == (409, "STALE", "version")
        second = await ok(client, "keys.set", room="live-1", name="price", value=1, version=first["version"])
        assert second["version"] > first["version"]
        many = await ok(
            client, "keys.set_many", room="live-1", items=[{"name": "a", "value": 1}, {"name": "b", "value": None}]
        )
        refused = await call(
            client,
            "keys.set_many",
            room="live-1",
            items=[{"name": "c", "value": 1}, {"name": "a", "value": 2, "version": 0}],
        )
        assert (refused.json()["code"], refused.json()["field"]) == ("STALE", "items[1].version")
        assert (await call(client, "keys.set_many", room="live-1", items=[])).json()["field"] == "items"
        page = await ok(client, "keys.get", room="live-1")
        assert [(item["name"], item["value"]) for item in page["items"]] == [("a", 1), ("b", None), ("price", 1)]
        assert page["items"][0]["version"] == many["version"]
        assert (await ok(client, "keys.delete", room="live-1", name="a"))["deleted"] is True
        assert (await ok(client, "keys.delete", room="live-1", name="a"))["deleted"] is False
        assert [each["name"] for each in (await ok(client, "keys.get", room="live-1", names=["b", "x"]))["items"]] == [
            "b"
        ]
        for fields in ({"name": "", "value": 1}, {"name": "好" * 43, "value": 1}, {"name": "x", "value": "x" * 4097}):
            answer = await call(client, "keys.set", room="live-1", **fields)
            assert answer.status_code in (400, 413), answer.text
        unknown = await call(client, "keys.get", room="nowhere")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "UNKNOWN_ROOM")


async def test_large_maps_come_in_pages() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as client:
        for number in range(20):
            await ok(client, "keys.set", room="live-1", name=f"k{number:02}", value="x" * 4000)
        found: list[str] = []
        cursor = None
        while True:
            page = await ok(client, "keys.get", room="live-1", cursor=cursor)
            found += [item["name"] for item in page["items"]]
            cursor = page["next"]
            if cursor is None:
                break
        assert found == [f"k{number:02}" for number in range(20)]
        async with raw_link(broker) as link:
            await link.login("dev:ann")
            _, snapshot = await link.join("live-1")
            assert len(snapshot.keys) + snapshot.keys_more == 20
            assert 1 <= len(snapshot.keys) <= 4


async def test_members_see_changes_and_those_who_resume_have_the_same_map(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        await ok(client, "keys.set", room="lobby", name="price", value=1)
        async with joined_link(broker, "dev:ann") as (link, _):
            version = (await ok(client, "keys.set", room="lobby", name="price", value=2))["version"]
            assert await changes_of(link) == {"price": KeyCause.SET}
        await ok(client, "keys.delete", room="lobby", name="price")
        async with raw_link(broker) as link:
            await link.login("dev:ann")
            epoch = broker.hub.find("lobby").state.epoch  # type: ignore[union-attr]
            await link.send((Resume("lobby", Tier.FULL, epoch, 2), 0, 1))
            _, answer = await link.expect(Resumed)
            assert (answer.recovered, answer.snapshot.keys) == (True, ())
            assert await changes_of(link) == {"price": KeyCause.DELETED}
        assert version > 0


async def test_keys_and_versions_survive_a_restart_and_end_with_their_room(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        kept = await ok(client, "keys.set", "k-1", room="lobby", name="kept", value=[1], owner="ann", version=0)
        gone = await ok(client, "keys.set", room="lobby", name="gone", value=1)
        await ok(client, "keys.delete", room="lobby", name="gone")
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        again = await ok(client, "keys.set", "k-1", room="lobby", name="kept", value=[1], owner="ann", version=0)
        assert again == kept
        other = await call(client, "keys.set", "k-1", room="lobby", name="kept", value=[2], owner="ann", version=0)
        assert other.json()["code"] == "KEY_REUSED"
        (item,) = (await ok(client, "keys.get", room="lobby"))["items"]
        assert item == {"name": "kept", "value": [1], "version": kept["version"], "expires_at_ms": None, "owner": "ann"}
        assert (await ok(client, "keys.set", room="lobby", name="gone", value=2))["version"] > gone["version"]
        assert broker.hub.key_space.nbytes > 0
        await ok(client, "rooms.close", room="lobby")
        await until(lambda: broker.hub.find("lobby") is None)
        assert broker.hub.key_space.nbytes == 0
        await ok(client, "rooms.open", room="lobby")
        assert (await ok(client, "keys.get", room="lobby"))["items"] == []
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        await ok(client, "rooms.open", room="lobby")
        assert (await ok(client, "keys.get", room="lobby"))["items"] == []


async def test_what_the_ledger_cannot_write_has_not_happened(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        first = await ok(client, "keys.set", room="lobby", name="price", value=1)
        disk(broker).fault = disk_error("SQLITE_FULL")
        refused = await call(client, "keys.set", room="lobby", name="price", value=2, version=first["version"])
        assert (refused.status_code, refused.json()["code"]) == (503, "OVERLOADED")
        assert "retry-after" in refused.headers
        page = await ok(client, "keys.get", room="lobby")
        assert page["items"][0]["version"] == first["version"]
        disk(broker).fault = None


async def test_an_expired_key_is_deleted_for_everybody() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as client:
        async with joined_link(broker, "dev:ann") as (link, _):
            await ok(client, "keys.set", room="lobby", name="soon", value=1, ttl_ms=30_000)
            assert await changes_of(link) == {"soon": KeyCause.SET}
            advance(30_000)
            assert await changes_of(link) == {"soon": KeyCause.EXPIRED}
        assert (await ok(client, "keys.get", room="lobby"))["items"] == []


async def test_the_keys_of_a_user_that_has_left_are_deleted_after_the_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.core.rooms.keys.LEAVE_GRACE_S", 0.05)
    async with (
        running_broker(api=API) as broker,
        client_of(broker) as client,
        joined_link(broker, "dev:bob") as (bob, _),
    ):
        async with joined_link(broker, "dev:ann"):
            await ok(client, "keys.set", room="lobby", name="seat", value=1, owner="ann", delete_on_leave=True)
            assert await changes_of(bob) == {"seat": KeyCause.SET}
        assert await changes_of(bob) == {"seat": KeyCause.OWNER_LEFT}


async def test_more_changes_than_a_room_takes_are_refused_with_the_wait() -> None:
    async with running_broker() as broker:

        async def set_keys() -> None:
            for number in range(KEY_CHANGES.burst + 50):
                caller = Caller(f"shop-{number}", "", "", lambda room: Role.APP, scopes=frozenset({Scope.ADMIN}))
                await broker.operations.call(caller, BY_NAME["keys.set"], ("lobby", "k", number))

        with pytest.raises(OperationError) as caught:
            await set_keys()
        assert caught.value.code is ErrorCode.RATE_LIMITED
        assert caught.value.retry_after_ms > 0


async def test_a_room_that_crashes_while_a_key_is_looked_up_has_not_ended(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = Caller("shop", "Shop", "", lambda room: Role.APP, frozenset({Role.APP}), frozenset({Scope.ADMIN}), "k1")
    request = {"room": "live-1", "name": "price", "value": 1}
    async with durable_broker(directory) as broker:
        first_use = RoomJournal.first_use

        async def crash(self: RoomJournal, key: OperationKey) -> None:
            room = broker.hub.find("live-1")
            assert room is not None
            broker.hub.crash(room)

        monkeypatch.setattr(RoomJournal, "first_use", crash)
        with pytest.raises(OperationError) as caught:
            await broker.operations.call(platform, BY_NAME["keys.set"], request)
        assert (caught.value.code, caught.value.retry_after_ms) == (ErrorCode.OVERLOADED, 1000)
        monkeypatch.setattr(RoomJournal, "first_use", first_use)
        await until(lambda: broker.hub.find("live-1") is None)
        assert (await broker.operations.call(platform, BY_NAME["keys.set"], request))[0].version
