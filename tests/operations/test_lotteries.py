"""Lotteries over CALL and HTTP, with a real ledger: entered, drawn, verified, and the same after a restart."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.ledger.maintenance import Maintenance, Retention
from broker.ledger.schema import database_path
from broker.ledger.store import Store
from broker.server import Broker
from protocol.activities.lotteries import LotteryPhase
from protocol.codes import ErrorCode, MessageType
from protocol.lottery.proof import verify
from protocol.lottery.tree import leaf_hash, root_of_path
from protocol.messages import Call, Direct, ErrorReply, Event, Result
from protocol.operations import BY_NAME
from tests.support.api import API, call, client_of, ok, refused
from tests.support.broker import RawLink, joined_link
from tests.support.durable import durable_broker
from tests.support.until import until

pytestmark = pytest.mark.integration

GRADES = [{"name": "first", "count": 1}, {"name": "second", "count": 2}]


async def ask(link: RawLink, number: int, name: str, arguments: Any) -> Any:
    """Return the result of a CALL, or the code of its refusal."""
    await link.send((Call(BY_NAME[name].number, "", arguments), 0, number))
    while True:
        frame = await link.next_frame()
        assert frame is not None
        if isinstance(frame.message, Result) and frame.sequence == number:
            return frame.message.result
        if isinstance(frame.message, ErrorReply) and frame.sequence == number:
            return ErrorCode(frame.message.code)


async def create(client: Any, broker: Broker, open_in_ms: int = 0, lasts_ms: int = 300, **more: Any) -> dict[str, Any]:
    for ahead_ms in (50, 500, 5_000):  # it must be created before it opens, on a slow machine too
        open_at_ms = broker.clock.now_ms() + ahead_ms + open_in_ms
        answer = await call(
            client, "lotteries.create", room="lobby", id="bag", open_at_ms=open_at_ms,
            close_at_ms=open_at_ms + lasts_ms, grades=GRADES, **more,
        )  # fmt: skip
        if answer.status_code == 200:
            break
        assert answer.json()["field"] == "open_at_ms", answer.text
    created: dict[str, Any] = answer.json()
    return created


async def proof_of(client: Any) -> dict[str, Any]:
    """Wait for the draw, and return the proof that its pages make."""
    page = None
    with trio.fail_after(20):
        while page is None:
            answer = await client.post("/v1/lotteries/proof", json={"room": "lobby", "id": "bag", "limit": 2})
            if answer.status_code == 200:
                page = answer.json()
            else:
                assert answer.json()["code"] == "NOT_OPEN", answer.text
                await trio.sleep(0.25)
    proof: dict[str, Any] = page
    while page["next"] is not None:
        page = await ok(client, "lotteries.proof", room="lobby", id="bag", limit=2, cursor=page["next"])
        proof["entries"] += page["entries"]
        for grade, ids in zip(proof["winners"], page["winners"], strict=True):
            grade += ids
    return proof


async def test_a_lottery_is_entered_and_drawn_and_its_proof_verifies(directory: Path) -> None:
    async with (
        durable_broker(directory, api=API) as broker,
        client_of(broker) as client,
        joined_link(broker, "dev:ann") as (ann, _),
        joined_link(broker, "dev:bob") as (bob, _),
    ):
        created = await create(client, broker, 800, 2000, rule="one entry a user")
        early = await ask(ann, 7, "lotteries.enter", ("lobby", "bag"))
        assert early is ErrorCode.NOT_OPEN
        offsets: dict[str, int] = {}
        events: dict[str, Any] = {}

        async def events_until(name: str) -> None:
            while name not in events:
                frame, event = await bob.expect(Event)
                if event.payload[1:2] == ("bag",):
                    events[event.payload[0]], offsets[event.payload[0]] = event.payload[2], frame.sequence

        await events_until("lotteries.opened")
        entry = await ask(ann, 8, "lotteries.enter", ("lobby", "bag"))
        assert await ask(ann, 9, "lotteries.enter", ("lobby", "bag")) == entry
        other = await ask(bob, 8, "lotteries.enter", ("lobby", "bag"))
        assert other.entry != entry.entry
        proof = await proof_of(client)
        prize = (await ann.expect(Direct))[1].payload
        assert (prize[0], prize[2]["entry"]) == ("lotteries.won", entry.entry)
        await events_until("lotteries.drawn")
        root = events["lotteries.closed"]["root"]
        result = verify(proof, created["commitment"], root)
        assert (result.failure, result.is_as_seen) == (None, True)
        assert proof["committed"]["commitment"] == created["commitment"]
        assert proof["committed"]["offset"] == offsets["lotteries.announced"]
        assert proof["closed"]["offset"] == offsets["lotteries.closed"]
        assert proof["terms"]["room"] == "lobby"
        assert {id for id, _ in proof["entries"]} == {entry.entry, other.entry}
        mine = await ask(ann, 10, "lotteries.my_entry", ("lobby", "bag"))
        found = root_of_path(
            leaf_hash(mine.entry, mine.weight), mine.index, mine.entries, [bytes.fromhex(each) for each in mine.path]
        )
        assert found is not None
        assert found.hex() == mine.root == root
        assert mine.prize in ("first", "second")
        assert await ask(ann, 11, "lotteries.enter", ("lobby", "bag")) is ErrorCode.CLOSED
        assert (await ok(client, "lotteries.draw", room="lobby", id="bag"))["seed"] == proof["seed"]
        assert await refused(client, "lotteries.void", room="lobby", id="bag", reason="x") == (409, "CLOSED", "")


async def test_entries_and_proof_are_the_same_after_a_restart(directory: Path) -> None:
    async with (
        durable_broker(directory, api=API) as broker,
        client_of(broker) as client,
        joined_link(broker, "dev:ann") as (ann, _),
    ):
        await create(client, broker, 0, 3000)
        await trio.sleep(0.1)
        entry = await ask(ann, 8, "lotteries.enter", ("lobby", "bag"))
    async with (
        durable_broker(directory, api=API) as broker,
        client_of(broker) as client,
        joined_link(broker, "dev:ann") as (ann, _),
    ):
        assert await ask(ann, 8, "lotteries.enter", ("lobby", "bag")) == entry
        proof = await proof_of(client)
        assert proof["entries"] == [[entry.entry, 1]]
        assert proof["winners"] == [[entry.entry], []]
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        assert await proof_of(client) == proof
        await ok(client, "rooms.close", room="lobby", reason="done")
        assert await proof_of(client) == proof
        assert verify(proof).failure is None


async def test_requests_that_cannot_be(directory: Path) -> None:
    async with (
        durable_broker(directory, api=API) as broker,
        client_of(broker) as client,
        joined_link(broker, "dev:ann") as (ann, _),
        joined_link(broker, "dev:host:host") as (host, _),
    ):
        assert await refused(client, "lotteries.proof", room="lobby", id="bag") == (404, "UNKNOWN_ACTIVITY", "id")
        created = await create(client, broker, 60_000, 1000)
        assert await refused(client, "lotteries.proof", room="lobby", id="bag") == (409, "NOT_OPEN", "")
        assert await refused(client, "lotteries.draw", room="lobby", id="bag", signature="xy") == (
            400, "BAD_FIELD", "signature",
        )  # fmt: skip
        assert await refused(client, "lotteries.draw", room="lobby", id="bag", round=3, signature="ab") == (
            400, "BAD_FIELD", "round",
        )  # fmt: skip
        assert await ask(ann, 5, "lotteries.my_entry", ("lobby", "bag")) is ErrorCode.UNKNOWN_CLAIM
        assert await ask(ann, 6, "lotteries.void", ("lobby", "bag", "x")) is ErrorCode.NOT_ALLOWED
        other: dict[str, Any] = {
            "room": "lobby",
            "id": "other",
            "open_at_ms": 4_102_444_700_000,
            "close_at_ms": 4_102_444_800_000,
        }
        assert await refused(client, "lotteries.create", **other, grades=[]) == (400, "BAD_FIELD", "grades")
        weighed = {**other, "grades": (("first", 1),), "bonuses": {"gift": 1}}
        assert await ask(host, 7, "lotteries.create", weighed) is ErrorCode.NOT_ALLOWED
        assert (await ok(client, "lotteries.create", **weighed))["commitment"] != created["commitment"]
        assert (await ask(host, 8, "lotteries.void", ("lobby", "bag", "cut"))).reason == "cut"
        assert await refused(client, "lotteries.proof", room="lobby", id="bag") == (409, "CLOSED", "")


async def test_a_signature_is_checked_before_it_is_drawn_with(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[bool | None] = [False, None, True]
    monkeypatch.setattr("broker.operations.lotteries.check_signature", lambda *_: results.pop(0))
    beacon = {"beacon_chain": "ab" * 32, "beacon_round": 7}
    drawing = ("lobby", "bag", 7, "0a" * 48)
    async with (
        durable_broker(directory, api=API) as broker,
        client_of(broker) as client,
        joined_link(broker, "dev:ann") as (ann, _),
        joined_link(broker, "dev:bob") as (bob, _),
    ):
        await create(client, broker, 0, 100, **beacon)
        room = broker.hub.find("lobby")
        assert room is not None
        activities = room.state.activities.activities
        assert activities is not None
        await until(lambda: activities.find("lotteries", "bag").phase is LotteryPhase.CLOSED)
        assert await ask(ann, 6, "lotteries.draw", drawing) is ErrorCode.BAD_FIELD
        assert await ask(ann, 7, "lotteries.draw", drawing) is ErrorCode.NOT_ALLOWED
        drawn = await ask(bob, 8, "lotteries.draw", drawing)
        assert drawn.signature == "0a" * 48
        proof = await proof_of(client)
        assert verify(proof).failure is None
        assert proof["beacon"]["value"] == drawn.value


async def test_every_admitted_message_with_the_keyword_enters_its_sender_once(directory: Path) -> None:
    async with (
        durable_broker(directory, api=API) as broker,
        client_of(broker) as client,
        joined_link(broker, "dev:ann") as (ann, number),
        joined_link(broker, "dev:bob") as (bob, bobs),
    ):
        await create(client, broker, 0, 3000, eligibility={"keyword": "Lucky"})
        activities = broker.hub.find("lobby").state.activities.activities  # type: ignore[union-attr]
        assert activities is not None
        await until(lambda: activities.listening)
        await bob.post(bobs, 1, MessageType.DANMAKU, ("unlucky", None))
        for sequence, text in enumerate((" LUCKY", "lucky", "ｌｕｃｋｙ"), 1):
            await ann.post(number, sequence, MessageType.DANMAKU, (text, None))
        lottery = activities.find("lotteries", "bag")
        await until(lambda: lottery.own_view("ann") is not None)
        proof = await proof_of(client)
        assert [id for id, _ in proof["entries"]] == [lottery.own_view("ann").entry]
        assert verify(proof).failure is None
        assert activities.listening == ()


def remove_old(directory: Path, **retention: Any) -> None:
    """Let retention remove what it may of the ledger of a broker that has stopped."""
    store = Store(database_path(directory))
    maintenance = Maintenance(store, Retention(idle_rooms_s=1e9, **retention))
    while maintenance.step(time.time_ns() // 1_000_000):
        pass
    store.close()


async def test_a_proof_verifies_until_retention_has_removed_the_announcement(directory: Path) -> None:
    async with (
        durable_broker(directory, api=API) as broker,
        client_of(broker) as client,
        joined_link(broker, "dev:ann") as (ann, _),
    ):
        for number in range(3):
            await ok(client, "messages.publish", room="lobby", type=4, payload=[f"news {number}"])
        created = await create(client, broker, 0, 1500)
        await trio.sleep(0.1)
        assert (await ask(ann, 8, "lotteries.enter", ("lobby", "bag"))).weight == 1
        proof = await proof_of(client)
        assert proof["committed"]["offset"] == 4
    remove_old(directory, entries_s=0)
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        assert await proof_of(client) == proof, "the room goes on"
        assert verify(proof, created["commitment"]).failure is None
        await ok(client, "rooms.close", room="lobby")
        assert await proof_of(client) == proof, "it has ended"
    remove_old(directory, entries_s=3600)
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        assert await proof_of(client) == proof
    remove_old(directory, entries_s=0)
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        assert await refused(client, "lotteries.proof", room="lobby", id="bag") == (404, "UNKNOWN_ACTIVITY", "id")


async def test_the_proof_is_that_of_the_newest_lottery_with_the_id(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        await create(client, broker, 300, 50)
        first = await proof_of(client)
        await ok(client, "rooms.close", room="lobby")
        await until(lambda: broker.hub.find("lobby") is None)
        assert await proof_of(client) == first
        await ok(client, "rooms.open", room="lobby")
        created = await create(client, broker, 300, 50)
        second = await proof_of(client)
        assert verify(second, created["commitment"]).failure is None
        assert second["seed"] != first["seed"]
