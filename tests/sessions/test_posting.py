"""The platform's backend posts to rooms without joining them; it is no viewer, and every post has one answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel

from broker.auth.grants import RoomGrant
from broker.auth.tokens import Authenticator
from broker.config.schema import load
from broker.server import Broker
from broker.sessions import posting
from protocol.codes import ErrorCode, MessageType, Outcome, Role, RoomPhase
from protocol.messages import (
    Ack,
    AckResult,
    Call,
    ErrorReply,
    Event,
    Join,
    Left,
    Ping,
    Pong,
    Post,
    Result,
    State,
)
from protocol.operations.directs import SentDirects
from tests.support.broker import DEADLINE_S, RawLink, joined_link, raw_link, running_broker
from tests.support.durable import gift
from tests.support.tokens import SECRET
from tests.support.until import until
from tests.support.websocket import JSON_UPGRADE, TEXT, masked

pytestmark = pytest.mark.integration

GIFT, PHASE = MessageType.GIFT, MessageType.ROOM_PHASE


async def post_to(link: RawLink, room: str, sequence: int, kind: int, payload: Any) -> None:
    await link.send((Post(kind, f"m{sequence}", payload, room), 0, sequence))


async def answer(link: RawLink) -> tuple[int, AckResult]:
    """The room in the header and the single result of the next ACK."""
    frame, ack = await link.expect(Ack)
    (result,) = ack.results
    return frame.room, result


async def test_the_app_posts_to_a_room_without_joining_and_gets_nothing_of_it_but_answers() -> None:
    async with (
        running_broker(room={"tick_ms": 20}) as broker,
        joined_link(broker, "dev:ann") as (ann, room),
        raw_link(broker) as app,
    ):
        await app.login("dev:shop:app")
        await post_to(app, "lobby", 1, GIFT, gift("o-1", "bob"))
        assert await answer(app) == (0, AckResult(1, Outcome.ACCEPTED, 1))
        assert (await ann.expect(Event))[1].payload[:2] == ("o-1", "bob")
        await post_to(app, "lobby", 2, MessageType.DANMAKU, ("welcome",))
        assert await answer(app) == (0, AckResult(2, Outcome.ACCEPTED))
        await ann.post(room, 3, MessageType.DANMAKU, ("hello",))
        await ann.expect(Ack)
        found = broker.hub.find("lobby")
        assert found is not None
        assert (found.state.online, len(found.members)) == (1, 1)
        await app.send((Ping(1), 0, 9))
        frame = await app.next_frame()
        assert frame is not None
        assert isinstance(frame.message, Pong), "no tick, no state, no event came before it"
        assert frame.message.rooms == ()


async def test_a_post_opens_a_room_and_more_rooms_than_a_link_may_join() -> None:
    async with running_broker(link={"rooms_per_connection": 2}) as broker, raw_link(broker) as app:
        await app.login("dev:shop:app")
        for number in range(20):
            await post_to(app, f"room-{number}", number, GIFT, gift(f"o-{number}"))
            assert await answer(app) == (0, AckResult(number, Outcome.ACCEPTED, 1))
        assert len(broker.hub) == 20


async def test_the_app_that_joins_receives_and_is_neither_counted_nor_shown() -> None:
    async with (
        running_broker(room={"tick_ms": 20, "max_viewers": 1}) as broker,
        joined_link(broker, "dev:shop:app") as (app, _),
        joined_link(broker, "dev:ann"),
    ):
        await post_to(app, "lobby", 2, GIFT, gift("o-1"))
        assert await answer(app) == (0, AckResult(2, Outcome.ACCEPTED, 1))
        assert (await app.expect(Event))[1].type == GIFT
        while not (state := (await app.expect(State))[1]).online:
            assert state.joins == ()
        assert (state.online, state.users, state.uniques, state.peak) == (1, 1, 1, 1)
        assert (state.joins, state.joins_more) == ((("ann", "ann"),), 0)
        async with raw_link(broker) as bob:
            await bob.login("dev:bob")
            await bob.send((Join("lobby"), 0, 1))
            assert (await bob.expect(ErrorReply))[1].code == ErrorCode.ROOM_FULL
        async with joined_link(broker, "dev:tool:app"):
            pass  # the app takes no place of a viewer and finds one in a full room


async def test_who_may_post_to_a_room_by_its_name() -> None:
    config = load(None, {}, {"auth": {"secret": SECRET}})
    issuer = Authenticator(config.auth)
    app_token = issuer.issue("shop", rooms=[RoomGrant("live-*", Role.APP, frozenset({"gift"}))])
    host_token = issuer.issue("max", rooms=[RoomGrant("*", Role.HOST)])
    async with running_broker(auth={"secret": SECRET}) as broker, raw_link(broker) as app, raw_link(broker) as host:
        await app.login(app_token)
        await post_to(app, "other", 1, GIFT, gift("o-1"))
        assert (await app.expect(ErrorReply))[1].code == ErrorCode.ROOM_NOT_GRANTED
        await post_to(app, "live-1", 2, MessageType.ANNOUNCEMENT, ("news",))
        assert await answer(app) == (0, AckResult(2, Outcome.REJECTED, ErrorCode.NOT_ALLOWED))
        await app.send((Post(GIFT, "", gift("o-2")), 0, 3))
        assert (await app.expect(ErrorReply))[1].code == ErrorCode.NOT_JOINED, "no room is named at all"
        await app.send((Post(GIFT, "", gift("o-2"), "a b"), 0, 4))
        error = (await app.expect(ErrorReply))[1]
        assert (error.code, error.field) == (ErrorCode.BAD_FIELD, "room_name")
        await host.login(host_token)
        await post_to(host, "live-1", 5, MessageType.ANNOUNCEMENT, ("news",))
        assert (await host.expect(ErrorReply))[1].code == ErrorCode.NOT_JOINED


async def test_a_post_does_not_open_an_ended_room_again_except_to_make_it_live() -> None:
    async with running_broker() as broker, raw_link(broker) as app, joined_link(broker, "dev:ann") as (ann, _):
        await app.login("dev:shop:app")
        await post_to(app, "lobby", 1, PHASE, (RoomPhase.ENDED,))
        assert (await answer(app))[1].outcome is Outcome.ACCEPTED
        await ann.expect(Left)
        for number in (2, 3):
            await post_to(app, "lobby", number, GIFT, gift("o-1"))
            assert await answer(app) == (0, AckResult(number, Outcome.REJECTED, ErrorCode.ROOM_ENDED))
            while len(broker.hub):
                await trio.lowlevel.checkpoint()
        await post_to(app, "lobby", 4, PHASE, (RoomPhase.LIVE,))
        assert (await answer(app))[1].outcome is Outcome.ACCEPTED
        await post_to(app, "lobby", 5, GIFT, gift("o-1"))
        assert (await answer(app))[1].outcome is Outcome.ACCEPTED


async def test_a_room_that_crashes_answers_the_open_posts_once() -> None:
    async with running_broker(room={"tick_ms": 5000}) as broker, raw_link(broker) as app:
        await app.login("dev:shop:app")
        await post_to(app, "lobby", 1, MessageType.DANMAKU, ("first",))
        await app.expect(Ack)
        for number in (2, 3):
            await post_to(app, "lobby", number, MessageType.DANMAKU, (f"waits {number}",))
        await app.send((Ping(1), 0, 4))
        await app.expect(Pong)
        room = broker.hub.find("lobby")
        assert room is not None
        broker.hub.crash(room)
        _, ack = await app.expect(Ack)
        assert [(each.sequence, each.outcome) for each in ack.results] in (
            [(2, Outcome.LIMITED), (3, Outcome.LIMITED)],
            [(2, Outcome.LIMITED)],
        )
        await post_to(app, "lobby", 5, GIFT, gift("o-1"))
        while (result := (await app.expect(Ack))[1].results[-1]).sequence != 5:
            assert result.sequence == 3
        assert result.outcome in (Outcome.ACCEPTED, Outcome.LIMITED)


async def test_a_link_remembers_so_many_rooms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "MAX_SENDERS", 2)
    async with running_broker(room={"tick_ms": 5000}) as broker, raw_link(broker) as app:
        await app.login("dev:shop:app")
        for number in range(5):
            await post_to(app, f"room-{number}", number, GIFT, gift(f"o-{number}"))
            assert (await answer(app))[1].outcome is Outcome.ACCEPTED
        senders = [len(room.senders) for room in broker.hub]
        assert sum(senders) == 2
        # One write: a tick between two of them would answer what came before.
        names = "room-3", "room-3", "room-4", "room-4", "room-5"
        posts = [
            Post(MessageType.DANMAKU, f"m{number}", (f"text {number}",), name) for number, name in enumerate(names)
        ]
        await app.send(*((post, 0, number) for number, post in enumerate(posts, 10)))
        found: dict[int, Outcome] = {}
        while 14 not in found:
            found |= {each.sequence: each.outcome for each in (await app.expect(Ack))[1].results}
        assert found[14] is Outcome.LIMITED, "both rooms owe an answer"


async def test_a_link_that_ends_leaves_nothing_behind() -> None:
    async with running_broker() as broker:
        async with raw_link(broker) as app:
            await app.login("dev:shop:app")
            await post_to(app, "lobby", 1, GIFT, gift("o-1"))
            await app.expect(Ack)
        room = broker.hub.find("lobby")
        assert room is not None
        await until(lambda: not room.senders)


async def test_a_batch_of_a_link_in_no_room_is_sent_and_counts_nobody(tmp_path: Path) -> None:
    async with (
        running_broker(ledger={"data_dir": str(tmp_path)}) as broker,
        joined_link(broker, "dev:ann"),
        raw_link(broker) as app,
    ):
        await app.login("dev:shop:app")
        await app.send((Call(81, "", ("b", MessageType.ANNOUNCEMENT, ("hi {n}",), {"ann": {"n": "Ann"}})), 0, 1))
        assert (await app.expect(Result))[1].result == SentDirects("b", 1, 0, 0)
        room = broker.hub.find("lobby")
        assert room is not None
        assert room.state.online == 1


async def test_a_json_link_posts_to_a_room_by_its_name() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:ann") as (ann, _):
        post = {"type": 5, "client_msg_id": "", "payload": gift("o-1"), "room_name": "lobby"}
        assert await json_post(broker, post) == {
            "op": "ACK", "lane": 0, "room": 0, "seq": 0,
            "body": {"results": [{"sequence": 7, "outcome": 0, "detail": 1}], "firsts": [], "reasons": []},
        }  # fmt: skip
        assert (await ann.expect(Event))[1].payload[0] == "o-1"


async def json_post(broker: Broker, body: Any) -> Any:
    """Post as the app on a JSON link that is in no room; returns the last frame of the answers."""
    frames = [
        {"op": "HELLO", "body": {"magic": "roomcast", "version_min": 1, "version_max": 1}},
        {"op": "AUTH", "body": {"token": "dev:shop:app"}},
        {"op": "POST", "seq": 7, "body": body},
    ]
    async with await trio.open_tcp_stream(*broker.addresses[0]) as stream:
        await stream.send_all(
            JSON_UPGRADE.replace(b"Host: x", b"Host: 127.0.0.1") + masked(TEXT, json.dumps(frames).encode())
        )
        said = b""
        with trio.fail_after(DEADLINE_S):
            while b'"ACK"' not in said or not said.endswith(b"}"):
                said += await stream.receive_some(65536)
    return json.loads(said[said.rindex(b'{"op"') :])
