"""Rankings of gifts and likes: what is asked, what is pushed, what a refund takes back, and what a restart keeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from broker.core.commerce import audiences
from broker.ledger import Reader, database_path
from broker.rooms.score_records import read_scores
from protocol.activities import activity_event
from protocol.activities.rankings import RankingTop
from protocol.codes import ErrorCode, MessageType, RoomPhase
from protocol.messages import Ack, Call, ErrorReply, Event, Result
from protocol.operations import BY_NAME
from tests.support.api import API, call, client_of, ok
from tests.support.broker import RawLink, joined_link, raw_link
from tests.support.durable import durable_broker, gift
from tests.support.faulty_disk import crashed_copy
from tests.support.until import until

pytestmark = pytest.mark.integration
FIRST = [("o1", "ann", 5), ("o2", "bob", 9), ("o3", "ann", 1), ("o4", "cat", 2)]


async def give(link: RawLink, room: int, orders: Sequence[tuple[str, str, int]]) -> None:
    for number, (order, user, count) in enumerate(orders, 1):
        await link.post(room, number, MessageType.GIFT, gift(order, user, count))
    left = len(orders)
    while left:
        left -= len((await link.expect(Ack))[1].results)


def scores(page: Any) -> list[tuple[str, int, int]]:
    return [(each["user"], each["score"], each["rank"]) for each in page["ranking"]["top"]]


RANKED = [("bob", 900, 1), ("ann", 600, 2), ("cat", 200, 3)]


async def test_gifts_are_ranked_by_what_they_cost_and_a_refund_counts_once(tmp_path: Path) -> None:
    async with (
        durable_broker(tmp_path, api=API) as broker,
        client_of(broker) as client,
        joined_link(broker, "dev:shop:app") as (shop, room),
    ):
        await give(shop, room, FIRST)
        page = await ok(client, "rankings.get", room="lobby", kind="gifts", user="ann", around=1)
        assert scores(page) == RANKED
        assert page["user"] == {"user": "ann", "score": 600, "rank": 2}
        assert [each["user"] for each in page["around"]] == ["bob", "ann", "cat"]
        assert (page["ranking"]["total"], page["ranking"]["ranked"]) == (1700, 3)
        for _ in range(2):
            refunded = await ok(client, "gifts.refund", room="lobby", order_id="o2", reason="chargeback")
            assert refunded == {"order_id": "o2", "user": "bob", "cents": 900}
        page = await ok(client, "rankings.get", room="lobby", kind="gifts", user="bob")
        assert scores(page) == [("ann", 600, 1), ("cat", 200, 2)]
        assert (page["user"], page["ranking"]["total"]) == (None, 800)
        for order in ("o9", "x"):
            answer = await call(client, "gifts.refund", room="lobby", order_id=order)
            assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (
                404, "UNKNOWN_CLAIM", "order_id",
            )  # fmt: skip
        wrong = await call(client, "rankings.get", room="lobby", kind="wishes")
        assert (wrong.status_code, wrong.json()["field"]) == (400, "kind")


async def test_an_order_of_another_room_is_not_refunded_in_this_one(tmp_path: Path) -> None:
    async with (
        durable_broker(tmp_path, api=API) as broker,
        client_of(broker) as client,
        joined_link(broker, "dev:shop:app", "one") as (shop, room),
        joined_link(broker, "dev:shop:app", "two") as (_, _),
    ):
        await give(shop, room, FIRST)
        answer = await call(client, "gifts.refund", room="two", order_id="o1")
        assert answer.json()["code"] == "UNKNOWN_CLAIM"


async def test_scores_are_those_of_before_after_a_restart_and_go_with_their_room(tmp_path: Path) -> None:
    async with durable_broker(tmp_path, api=API) as broker, joined_link(broker, "dev:shop:app") as (shop, room):
        await give(shop, room, FIRST)
        state = broker.hub.find("lobby").state  # type: ignore[union-attr]
        before = state.rankings["gifts"].dump()
    async with (
        durable_broker(tmp_path, api=API) as broker,
        client_of(broker) as client,
        joined_link(broker, "dev:shop:app") as (shop, room),
    ):
        state = broker.hub.find("lobby").state  # type: ignore[union-attr]
        assert set(state.rankings["gifts"].dump()) == set(before), "the events make good what no checkpoint has"
        await ok(client, "gifts.refund", room="lobby", order_id="o1")
        await give(shop, room, [("o5", "dan", 7)])
        broker.hub.find("lobby").journal.checkpoint()  # type: ignore[union-attr]
        await until(lambda: not broker.hub.find("lobby").journal.pending)  # type: ignore[union-attr]
        await shop.post(room, 9, MessageType.ANNOUNCEMENT, ("after the checkpoint",))
        await shop.expect(Ack)
        expected = set(state.rankings["gifts"].dump())
    async with (
        durable_broker(tmp_path, api=API) as broker,
        joined_link(broker, "dev:shop:app") as (shop, room),
    ):
        state = broker.hub.find("lobby").state  # type: ignore[union-attr]
        assert set(state.rankings["gifts"].dump()) == expected
        assert {user: score for user, score, _ in expected} == {"ann": 100, "bob": 900, "cat": 200, "dan": 700}
        await shop.post(room, 1, MessageType.ROOM_PHASE, (int(RoomPhase.ENDED),))
        await until(lambda: broker.hub.find("lobby") is None)
    reader = Reader(database_path(tmp_path))
    try:
        assert read_scores(reader) == {}
    finally:
        reader.close()


async def test_viewers_get_the_top_pushed_and_ask_for_their_own_rank(tmp_path: Path) -> None:
    async with (
        durable_broker(tmp_path) as broker,
        joined_link(broker, "dev:ann") as (ann, room),
        joined_link(broker, "dev:bob") as (bob, _),
    ):
        await ann.post(room, 1, MessageType.LIKE, (3,))
        await bob.post(room, 1, MessageType.LIKE, (5,))
        while True:
            event = activity_event((await ann.expect(Event, rankings=True))[1].payload)
            assert event is not None
            assert (event.name, event.id) == ("rankings.changed", "likes")
            assert isinstance(event.data, RankingTop)
            if len(event.data.top) == 2:
                break
        assert [(each.user, each.score) for each in event.data.top] == [("bob", 5), ("ann", 3)]
        number = BY_NAME["rankings.get"].number
        await ann.send((Call(number, "", ("lobby", "likes")), room, 7))
        page = (await ann.expect(Result))[1].result
        assert tuple(page.user) == ("ann", 3, 2)
        async with raw_link(broker) as guest:
            await guest.login(None)
            room, _ = await guest.join()
            await guest.post(room, 1, MessageType.LIKE, (9,))
            await guest.expect(Ack)
            await guest.send((Call(number, "", ("lobby", "likes")), room, 7))
            assert (await guest.expect(ErrorReply))[1].code == ErrorCode.NOT_ALLOWED
        async with joined_link(broker, "dev:cat") as (_, _):
            state = broker.hub.find("lobby").state  # type: ignore[union-attr]
            assert [view.id for view in state.rankings.views()] == ["likes"]
        assert {user for user, *_ in state.rankings["likes"].dump()} == {"ann", "bob"}, "guests have no rank"


async def test_shares_and_invites_are_ranked_and_pushed_and_survive_a_crash(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audiences, "COUNTED_AFTER_MS", 50)
    first, second = directory / "first", directory / "second"
    first.mkdir()
    shares = [("ann", 2, 1), ("bob", 1, 2)]

    async def ranked(http: Any, kind: str) -> list[tuple[str, int, int]]:
        return scores(await ok(http, "rankings.get", room="lobby", kind=kind))

    async with durable_broker(first, api=API) as broker, client_of(broker) as http:
        await ok(http, "rooms.open", room="lobby")
        async with joined_link(broker, "dev:cat") as (cat, _), joined_link(broker, "dev:dan") as (dan, _):
            for user in ("bob", "ann", "ann"):
                await ok(http, "audiences.share", room="lobby", user=user)
            assert await ranked(http, "shares") == shares
            while True:
                frame = await cat.next_frame()
                assert frame is not None
                if isinstance(frame.message, Event) and frame.message.type == MessageType.ACTIVITY_COUNTER:
                    found = activity_event(frame.message.payload)
                    assert found is not None
                    if isinstance(found.data, RankingTop) and found.data.total == 3:
                        break
            assert found is not None
            assert (found.id, [each.user for each in found.data.top]) == ("shares", ["ann", "bob"])
            invite = Call(BY_NAME["audiences.accept_invite"].number, "", ("lobby", "ann"))
            await dan.send((invite, 0, 1))
            room = broker.hub.find("lobby")
            assert room is not None
            await until(lambda: room.state.rankings["invites"].total == 1)
            assert await ranked(http, "invites") == [("ann", 1, 1)]
        crashed_copy(first, second)
    async with durable_broker(second, api=API) as broker, client_of(broker) as http:
        async with joined_link(broker, "dev:cat") as (_, _):
            assert await ranked(http, "shares") == shares
            assert await ranked(http, "invites") == [("ann", 1, 1)]
