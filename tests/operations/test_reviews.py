"""The review queue over HTTP and CALL: a real broker, a real ledger, kills and a disk that refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.auth.grants import RoomGrant
from broker.ledger import LedgerState
from broker.server import Broker
from broker.telemetry.metrics import collect
from protocol.clients import open_client
from protocol.clients.events import CallRefused
from protocol.codes import ErrorCode, LeaveReason, MessageType, Outcome, Role
from protocol.messages import Ack, AckResult, ErrorReply, Event, Left, Tick
from protocol.operations.reviews import ClaimReview, DecideReview, ListReview, Verdict
from tests.support.api import API, client_of, ok, refused
from tests.support.broker import RawLink, joined_link
from tests.support.durable import disk, durable_broker
from tests.support.faulty_disk import disk_error
from tests.support.reviewing import NOTE, REVIEWED, report, result_of, say
from tests.support.until import until

pytestmark = pytest.mark.integration
ROOM = "lobby"
ANNOUNCEMENT = int(MessageType.ANNOUNCEMENT)
SETTINGS: dict[str, Any] = {"api": API, **REVIEWED}


@asynccontextmanager
async def reviewed(directory: Path, **more: Any) -> AsyncIterator[tuple[Broker, Any]]:
    """Run a broker whose rooms hold everything, and a client of its API."""
    async with durable_broker(directory, **{**SETTINGS, **more}) as broker, client_of(broker) as http:
        yield broker, http


async def shown(link: RawLink, count: int) -> list[str]:
    """Return the texts of the next ``count`` danmaku and notes that a member sees."""
    texts: list[str] = []
    with trio.fail_after(10):
        while len(texts) < count:
            frame = await link.next_frame()
            assert frame is not None
            if isinstance(frame.message, Tick):
                texts += [entry.payload[0] for entry in frame.message.entries]
            elif isinstance(frame.message, Event) and frame.message.type == NOTE["id"]:
                texts.append(frame.message.payload)
    return texts


async def ids(http: Any, **fields: Any) -> list[int]:
    page = await ok(http, "moderation.queue", room=ROOM, **fields)
    return [item["id"] for item in page["items"]]


async def test_what_is_held_is_shown_after_approval_in_order_with_its_author_and_type(tmp_path: Path) -> None:
    async with (
        reviewed(tmp_path) as (broker, http),
        joined_link(broker, "dev:ann") as (ann, room),
        joined_link(broker, "dev:bob") as (bob, _),
    ):
        for number, (text, kind) in enumerate((("one", 1), ("two", 140), ("three", 1), ("bad", 1)), 1):
            assert (await say(ann, room, number, text, kind)).outcome is Outcome.HELD
        page = await ok(http, "moderation.queue", room=ROOM, limit=2)
        assert [(item["id"], item["user"], item["state"], item["held_by"]) for item in page["items"]] == [
            (1, "ann", "waiting", "room"), (2, "ann", "waiting", "room"),
        ]  # fmt: skip
        rest = await ok(http, "moderation.queue", room=ROOM, cursor=page["next"])
        assert ([item["id"] for item in rest["items"]], rest["next"]) == ([3, 4], None)
        decided = await ok(http, "moderation.decide", room=ROOM, items=[2, 3], verdict="approve")
        assert decided["decided"] == 2
        await ok(http, "moderation.decide", room=ROOM, items=[4], verdict="reject", reason="rude")
        _, ack = await ann.expect(Ack)
        assert ack.results == (AckResult(4, Outcome.REJECTED, ErrorCode.BLOCKED),)
        assert [each[:2] for each in ack.reasons] == [(4, "rude")]
        await ok(http, "moderation.decide", room=ROOM, items=[1], verdict="approve")
        assert sorted(await shown(bob, 3)) == ["one", "three", "two"]
        assert (await result_of(ann, 3)).outcome is Outcome.ACCEPTED
        history = await ok(http, "rooms.history", room=ROOM)
        assert [(each["user"], each["type"], each["payload"]) for each in history["items"]] == [("ann", 140, "two")]
        assert await ids(http) == []
        assert await ids(http, state="shown") == [1, 2, 3]
        assert broker.stats().balanced


async def test_the_queue_and_its_order_are_as_they_were_after_a_restart(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as (broker, http), joined_link(broker, "dev:ann") as (ann, room):
        for number, text in enumerate(("one", "two", "three"), 1):
            await say(ann, room, number, text, 140, key=text)
        await ok(http, "moderation.claim", room=ROOM, items=[3], ttl_ms=600_000)
        await ok(http, "moderation.decide", room=ROOM, items=[2], verdict="approve")
    for _ in range(2):
        async with reviewed(tmp_path) as (broker, http), joined_link(broker, "dev:ann") as (ann, room):
            page = await ok(http, "moderation.queue", room=ROOM)
            assert [item["state"] for item in page["items"]] == ["waiting", "approved", "claimed"]
            assert (await say(ann, room, 9, "three", 140, key="three")).outcome is Outcome.HELD
    async with (
        reviewed(tmp_path) as (broker, http),
        joined_link(broker, "dev:ann") as (ann, room),
        joined_link(broker, "dev:bob") as (bob, _),
    ):
        await ok(http, "moderation.decide", room=ROOM, items=[3, 1], verdict="approve")
        assert await shown(bob, 3) == ["one", "two", "three"]
        assert (await say(ann, room, 9, "three", 140, key="three")).outcome is Outcome.ACCEPTED
    async with reviewed(tmp_path) as (broker, http):
        history = await ok(http, "rooms.history", room=ROOM)
        assert [each["payload"] for each in history["items"]] == ["one", "two", "three"]
        assert await ids(http) == []


async def test_a_disk_that_takes_nothing_holds_nothing_and_shows_nothing(tmp_path: Path) -> None:
    async with (
        reviewed(tmp_path) as (broker, http),
        joined_link(broker, "dev:ann") as (ann, room),
        joined_link(broker, "dev:bob") as (bob, _),
    ):
        await say(ann, room, 1, "one", 140)
        disk(broker).fault = disk_error("SQLITE_FULL")
        assert (await say(ann, room, 2, "two", 140)).outcome is Outcome.UNAVAILABLE
        status, code, _ = await refused(http, "moderation.decide", room=ROOM, items=[1], verdict="approve")
        assert (status, code) == (503, "OVERLOADED")
        disk(broker).fault = None
        ledger = broker.ledger
        assert ledger is not None
        await until(lambda: ledger.state is LedgerState.READY)
        assert await ids(http) == [1]
        await ok(http, "moderation.decide", room=ROOM, items=[1], verdict="approve")
        assert await shown(bob, 1) == ["one"]


async def test_users_report_messages_with_what_was_said_around_them(tmp_path: Path) -> None:
    open_room = {**SETTINGS["room"], "pre_review": False}
    async with (
        reviewed(tmp_path, room=open_room) as (broker, http),
        joined_link(broker, "dev:ann") as (ann, room),
        joined_link(broker, "dev:bob") as (bob, number),
    ):
        for sequence, text in enumerate(("before", "rude", "after"), 1):
            await say(bob, number, sequence, text)
            await shown(ann, 1)
        await say(bob, number, 4, "a note", 140)
        refusal = await report(ann, room, ROOM, user="bob", text="never said")
        assert isinstance(refusal, ErrorReply)
        assert (refusal.code, refusal.field) == (ErrorCode.BAD_FIELD, "text")
        for fields in ({}, {"offset": 9}, {"offset": 1, "user": "bob"}, {"user": "bob"}):
            assert isinstance(await report(ann, room, ROOM, **fields), ErrorReply)
        async with joined_link(broker, "dev:eve") as (eve, of_eve):
            assert await report(eve, of_eve, ROOM, user="bob", text="rude", reason="insult") == (False,)
            assert await report(eve, of_eve, ROOM, user="bob", text="rude") == (True,)
        async with joined_link(broker, "dev:max") as (other, of_max):
            assert await report(other, of_max, ROOM, offset=1, reason="spam") == (False,)
            own = await report(bob, number, ROOM, offset=1)
            assert isinstance(own, ErrorReply)
        page = await ok(http, "moderation.queue", room=ROOM)
        first, second = page["items"]
        assert (first["user"], first["payload"], first["held_by"], first["offset"]) == ("bob", ["rude"], "report", None)
        assert [each["text"] for each in first["context"]] == ["before", "rude", "after", "a note"]
        assert [(each["user"], each["reason"]) for each in first["reports"]] == [("eve", "insult")]
        assert (second["payload"], second["offset"]) == ("a note", 1)
        await ok(http, "moderation.decide", room=ROOM, items=[1], verdict="approve")
        await ok(http, "moderation.decide", room=ROOM, items=[2], verdict="reject", reason="advertising")
        history = await ok(http, "rooms.history", room=ROOM)
        assert [each["type"] for each in history["items"]] == [int(MessageType.MESSAGES_DELETED)] * 2
        assert await ids(http) == []


async def test_a_reviewer_of_one_room_sees_no_other_and_a_viewer_none(tmp_path: Path) -> None:
    rooms = {"one": Role.MODERATOR, "two": Role.VIEWER}
    async with (
        reviewed(tmp_path) as (broker, http),
        joined_link(broker, broker.context.auth.issue("ann"), "one") as (ann, room),
        joined_link(broker, broker.context.auth.issue("bob"), "two") as (bob, number),
    ):
        await say(ann, room, 1, "in one")
        await say(bob, number, 1, "in two")
        page = await ok(http, "moderation.queue", limit=1)
        assert [item["room"] for item in page["items"]] == ["one"]
        page = await ok(http, "moderation.queue", cursor=page["next"])
        assert ([item["room"] for item in page["items"]], page["next"]) == (["two"], None)
        assert await refused(http, "moderation.queue", cursor="nonsense") == (400, "BAD_FIELD", "cursor")
        grants = [RoomGrant(name, role, None) for name, role in rooms.items()]
        mod = broker.context.auth.issue("mod", rooms=grants)
        address = f"roomcast://127.0.0.1:{broker.addresses[0][1]}"
        async with open_client(address, mod) as client:
            await client.join("one")
            own = await client.call(ListReview("one"))
            assert [item.payload[0] for item in own.items] == ["in one"]
            for request in (ListReview("two"), ListReview(), DecideReview("two", (1,)), ClaimReview("two")):
                with pytest.raises(CallRefused) as refusal:
                    await client.call(request)
                assert refusal.value.code == ErrorCode.NOT_ALLOWED
            claimed = await client.call(ClaimReview("one"))
            assert (claimed.fence, len(claimed.items)) == (1, 1)
            decided = await client.call(DecideReview("one", (1,), Verdict.APPROVE, fence=1))
            assert decided.decided == 1


async def test_a_ban_rejects_all_of_the_author_and_keeps_it_out(tmp_path: Path) -> None:
    async with (
        reviewed(tmp_path) as (broker, http),
        joined_link(broker, "dev:ann") as (ann, room),
        joined_link(broker, "dev:bob") as (bob, number),
    ):
        for sequence in (1, 2):
            await say(bob, number, sequence, f"bad {sequence}")
        await say(ann, room, 1, "good")
        decided = await ok(http, "moderation.decide", room=ROOM, items=[1], verdict="ban", reason="insults")
        assert decided["decided"] == 2
        _, left = await bob.expect(Left)
        assert left.reason is LeaveReason.BANNED
        assert await ids(http) == [3]
        assert await refused(http, "moderation.decide", room=ROOM) == (400, "BAD_FIELD", "items")
        assert await ok(http, "moderation.decide", room=ROOM, user="eve") == {"items": [], "decided": 0}


async def test_a_tenant_that_holds_as_much_as_it_may_is_limited_until_something_is_decided(tmp_path: Path) -> None:
    for is_restarted in (False, True):
        async with reviewed(tmp_path) as (broker, http), joined_link(broker, "dev:ann") as (ann, room):
            store = broker.room_store
            assert store is not None
            if not is_restarted:
                await say(ann, room, 1, "one")
            assert store.review_space.rooms.keys() == {ROOM}
            items, nbytes = store.review_space.rooms[ROOM]
            assert (items, nbytes > 0) == (1, True)
            store.review_space.use("another room", 50_000, 1)
            assert (await say(ann, room, 2, "two")).outcome is Outcome.LIMITED
            status, code, _ = await refused(http, "moderation.decide", room="none", items=[1])
            assert (status, code) == (404, "UNKNOWN_ROOM")
            store.review_space.use("another room", 0, 0)
    async with reviewed(tmp_path) as (broker, http), joined_link(broker, "dev:ann") as (ann, room):
        metrics = {metric.name: values for metric, values in collect(broker)}
        waiting = {dict(each.labels)["state"]: each.value for each in metrics["roomcast_review_messages"]}
        assert waiting == {"waiting": 1, "approved": 0, "reported": 0}
        assert metrics["roomcast_review_oldest_age_seconds"][0].value >= 0
        await ok(http, "moderation.decide", room=ROOM, items=[1], verdict="reject")
        (values,) = [values for metric, values in collect(broker) if metric.name == "roomcast_reviews_total"]
        counted = {dict(each.labels)["what"]: each.value for each in values}
        assert counted == {"held": 0, "reported": 0, "approved": 0, "rejected": 1, "released": 0}
        assert broker.room_store is not None
        assert broker.room_store.review_space.rooms == {}


async def test_staff_hears_of_the_queue_and_configured_bounds_hold(tmp_path: Path) -> None:
    async with (
        reviewed(tmp_path, moderation={"held_per_room": 2, "held_per_user": 1}) as (broker, _),
        joined_link(broker, "dev:mod:moderator") as (mod, _),
        joined_link(broker, "dev:ann") as (ann, room),
        joined_link(broker, "dev:bob") as (bob, number),
        joined_link(broker, "dev:cem") as (cem, of_cem),
    ):
        assert (await say(ann, room, 1, "one")).outcome is Outcome.HELD
        assert (await say(ann, room, 2, "two")).outcome is Outcome.LIMITED
        assert (await say(bob, number, 1, "one")).outcome is Outcome.HELD
        assert (await say(cem, of_cem, 1, "one")).outcome is Outcome.LIMITED
        with trio.fail_after(10):
            while True:
                _, event = await mod.expect(Event)
                if event.type == MessageType.ACTIVITY_COUNTER and event.payload[2]["waiting"] == 2:
                    break
        assert event.payload[:2] == ("reviews.changed", "")


async def test_every_link_of_the_author_learns_what_became_of_a_held_message(tmp_path: Path) -> None:
    async with (
        reviewed(tmp_path) as (broker, http),
        joined_link(broker, "dev:ann") as (ann, room),
        joined_link(broker, "dev:ann") as (phone, _),
        joined_link(broker, "dev:bob") as (bob, number),
    ):
        await say(ann, room, 1, "bad", key="m-1")
        await say(ann, room, 2, "good", key="m-2")
        await say(bob, number, 1, "of bob")
        await ok(http, "moderation.decide", room=ROOM, items=[1], verdict="reject", reason="advertising")
        await ok(http, "moderation.decide", room=ROOM, items=[2], verdict="approve")
        for link in (ann, phone):
            found: list[Any] = []
            while len(found) < 2:
                _, event = await link.expect(Event)
                if event.type == MessageType.ACTIVITY_COUNTER and event.payload[0] == "reviews.decided":
                    found.append(event.payload[2])
            assert [(each["client_msg_id"], each["is_shown"], each["reason"]) for each in found] == [
                ("m-1", False, "advertising"),
                ("m-2", True, ""),
            ]
        await ok(http, "moderation.decide", room=ROOM, items=[3], verdict="approve")
        while True:  # bob gets that of its own alone
            _, event = await bob.expect(Event)
            if event.type == MessageType.ACTIVITY_COUNTER and event.payload[0] == "reviews.decided":
                assert event.payload[2]["id"] == 3
                break


async def test_a_keyword_that_is_held_enters_its_lottery_when_it_is_shown(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as (broker, http), joined_link(broker, "dev:ann") as (ann, room):
        now_ms = broker.clock.now_ms()
        await ok(
            http, "lotteries.create", room=ROOM, id="bag", open_at_ms=now_ms + 50, close_at_ms=now_ms + 60_000,
            grades=[{"name": "mug", "count": 1}], eligibility={"keyword": "lucky"},
        )  # fmt: skip
        found = broker.hub.find(ROOM)
        assert found is not None
        activities = found.state.activities.activities
        assert activities is not None
        await until(lambda: activities.listening)
        for number in (1, 2):
            assert (await say(ann, room, number, "lucky")).outcome is Outcome.HELD
        lottery = activities.find("lotteries", "bag")
        assert lottery.own_view("ann") is None
        await ok(http, "moderation.decide", room=ROOM, items=[1, 2], verdict="approve")
        await until(lambda: lottery.own_view("ann") is not None)


@pytest.mark.parametrize("verb", ["mute", "ban"])
async def test_a_sanction_that_clears_rejects_what_waits_of_its_user(verb: str, tmp_path: Path) -> None:
    async with (
        reviewed(tmp_path) as (broker, http),
        joined_link(broker, "dev:ann") as (ann, room),
        joined_link(broker, "dev:bob") as (bob, number),
    ):
        await say(ann, room, 1, "good")
        for sequence in (1, 2):
            await say(bob, number, sequence, "bad")
        await ok(http, f"moderation.{verb}", room=ROOM, user="bob", reason="spam")
        assert await ids(http) == [1, 2, 3]
        await ok(http, f"moderation.{verb}", room=ROOM, user="bob", reason="spam", clear=True)
        assert await ids(http) == [1]
        assert await ids(http, state="rejected") == [2, 3]
