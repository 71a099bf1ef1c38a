"""One link's life on a real socket: what every well-formed request gets, and what every bad one gets."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.auth.tokens import Authenticator
from broker.config.schema import load
from broker.core.limits.overload import OverloadStage
from broker.sessions.session import Session
from protocol.codes import CloseCode, ErrorCode, Feature, Lane, LeaveReason, MessageType, Outcome, Role, RoomPhase, Tier
from protocol.frames import build_frame, pack_body
from protocol.messages import (
    MAGIC,
    Ack,
    AckResult,
    Auth,
    ClientHello,
    DirectAck,
    ErrorReply,
    Event,
    GoAway,
    Join,
    Joined,
    Leave,
    Left,
    Message,
    Ping,
    Pong,
    Post,
    Resume,
    Resumed,
    State,
    Tick,
)
from tests.support.broker import RawLink, joined_link, raw_link, running_broker
from tests.support.tokens import SECRET
from tests.support.until import until
from tests.support.websocket import JSON_UPGRADE, PONG, TEXT, masked

pytestmark = pytest.mark.integration


async def test_hello_auth_and_join_in_one_write_are_answered_in_order() -> None:
    async with running_broker() as broker, raw_link(broker) as link:
        await link.send(
            (ClientHello(MAGIC, 1, 1, 0, "test"), 0, 0), (Auth("dev:ann"), 0, 0), (Join("lobby", Tier.LOW), 0, 5)
        )
        frame, joined = await link.expect(Joined)
        assert (frame.sequence, joined.room_name, joined.tier, joined.online) == (5, "lobby", Tier.LOW, 1)
        assert broker.hub.room(frame.room) is broker.hub.find("lobby")


async def test_a_danmaku_reaches_others_and_its_sender_learns_its_outcome() -> None:
    async with (
        running_broker() as broker,
        joined_link(broker, "dev:ann") as (ann, room),
        joined_link(broker, "dev:bob") as (bob, _),
    ):
        await ann.post(room, 7, MessageType.DANMAKU, ("你好", None))
        _, tick = await bob.expect(Tick)
        assert [(entry.user_id, entry.payload, entry.count) for entry in tick.entries] == [("ann", ("你好",), 1)]
        assert tick.account == (1, 1, 0, 0, 0, 0)
        _, ack = await ann.expect(Ack)
        assert ack.results == ((7, Outcome.ACCEPTED, 0),)


async def test_equal_texts_of_one_tick_merge_and_say_so() -> None:
    ticks = {"tick_ms": 10_000, "tick_max_ms": 10_000}
    async with running_broker(room=ticks) as broker, joined_link(broker, "dev:ann") as (ann, room):
        async with joined_link(broker, "dev:bob") as (bob, _), joined_link(broker, "dev:cat") as (cat, _):
            await ann.post(room, 1, MessageType.DANMAKU, ("first", None))
            await ann.expect(Tick)  # the first one after a quiet interval goes out at once: what follows gathers
            await bob.post(room, 2, MessageType.DANMAKU, ("6 6 6", None))
            await cat.post(room, 3, MessageType.DANMAKU, ("６ ６ ６", None))
            found = broker.hub.room(room)
            assert found is not None
            await until(lambda: found.state.counters.accounts()[Lane.CHAT].admitted >= 3)
            broker.hub.flush(found)
            while not (tick := (await ann.expect(Tick))[1]).entries:
                pass
            assert tick.account.admitted == 2
            assert [entry.count for entry in tick.entries] == [2]
            outcomes = {(await link.expect(Ack))[1].results[0].outcome for link in (bob, cat)}
            assert outcomes == {Outcome.ACCEPTED, Outcome.MERGED}


async def test_likes_are_summed_and_reported_once() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:ann") as (ann, room):
        await ann.post(room, 1, MessageType.LIKE, (5,))
        await ann.post(room, 2, MessageType.LIKE, (7,))
        counted = [(await ann.expect(Ack))[1].results]
        if len(counted[0]) == 1:
            counted.append((await ann.expect(Ack))[1].results)
        assert [result for results in counted for result in results] == [
            (1, Outcome.ACCEPTED, 5),
            (2, Outcome.ACCEPTED, 7),
        ]
        while (state := (await ann.expect(State))[1]).likes < 12:
            pass
        assert state.likes == 12


async def test_an_announcement_has_an_offset_and_comes_back_on_resume() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:max:host") as (host, room):
        async with raw_link(broker) as ann:
            await ann.login("dev:ann")
            _, joined = await ann.join()
        for number in (1, 2):
            await host.post(room, number, MessageType.ANNOUNCEMENT, (f"news {number}",))
            frame, event = await host.expect(Event)
            assert (frame.lane, frame.sequence, event.payload) == (Lane.CONTROL, number, (f"news {number}",))
        async with raw_link(broker) as ann:
            await ann.login("dev:ann")
            await ann.send((Resume("lobby", Tier.FULL, joined.epoch, joined.offset), 0, 9))
            frame, resumed = await ann.expect(Resumed)
            assert (frame.sequence, resumed.recovered, resumed.snapshot.offset) == (9, True, 2)
            offsets = [(await ann.expect(Event))[0].sequence for _ in range(2)]
            assert offsets == [1, 2]
            assert resumed.snapshot.announcement is None, "it is among the events"
            _, other = await ann.join("other", sequence=10)
            assert other.announcement is None
            await ann.send((Leave(), frame.room, 11))
            await ann.expect(Left)
            _, late = await ann.join(sequence=12)
            assert late.announcement is not None
            assert late.announcement.payload == ("news 2",)


async def test_a_resume_in_another_epoch_is_not_recovered_and_says_from_where() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:max:host") as (host, room):
        await host.post(room, 1, MessageType.ANNOUNCEMENT, ("news",))
        await host.expect(Event)
        async with raw_link(broker) as ann:
            await ann.login("dev:ann")
            await ann.send((Resume("lobby", Tier.FULL, 12345, 0), 0, 9))
            _, resumed = await ann.expect(Resumed)
            assert (resumed.recovered, resumed.gap_from, resumed.snapshot.offset) == (False, 1, 1)


async def test_gifts_come_from_the_platform_alone_and_combos_keep_their_sum() -> None:
    gift = ("order-1", "u1", "Uma", "rose", 3, 100, "")
    async with (
        running_broker() as broker,
        joined_link(broker, "dev:shop:app") as (app, room),
        joined_link(broker, "dev:ann") as (ann, _),
    ):
        await ann.post(room, 1, MessageType.GIFT, gift)
        _, refused = await ann.expect(Ack)
        assert refused.results == ((1, Outcome.REJECTED, ErrorCode.NOT_ALLOWED),)
        await app.post(room, 1, MessageType.GIFT, gift)
        frame, event = await ann.expect(Event)
        assert (frame.lane, event.type, event.user_id, event.payload[4]) == (Lane.PAID, MessageType.GIFT, "u1", 3)


async def test_a_paused_room_refuses_danmaku_and_a_live_one_takes_them_again() -> None:
    async with (
        running_broker() as broker,
        joined_link(broker, "dev:max:host") as (host, room),
        joined_link(broker, "dev:ann") as (ann, _),
    ):
        await host.post(room, 1, MessageType.ROOM_PHASE, (RoomPhase.PAUSED,))
        await ann.expect(Event)
        await ann.post(room, 1, MessageType.DANMAKU, ("hello", None))
        assert (await ann.expect(Ack))[1].results == ((1, Outcome.REJECTED, ErrorCode.ROOM_PAUSED),)
        await host.post(room, 2, MessageType.ROOM_PHASE, (RoomPhase.LIVE,))
        await ann.expect(Event)
        await ann.post(room, 2, MessageType.DANMAKU, ("hello", None))
        assert (await ann.expect(Ack))[1].results == ((2, Outcome.ACCEPTED, 0),)


async def test_an_idle_room_is_closed_and_forgotten() -> None:
    async with running_broker(room={"idle_close_s": 0.1}) as broker:
        async with joined_link(broker, "dev:ann"):
            assert len(broker.hub) == 1
        await until(lambda: len(broker.hub) == 0)


async def test_leaving_is_answered_and_further_posts_are_refused() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:ann") as (ann, room):
        await ann.send((Leave(), room, 3))
        frame, left = await ann.expect(Left)
        assert (frame.room, frame.sequence, left.reason) == (room, 3, LeaveReason.REQUESTED)
        await ann.post(room, 4, MessageType.DANMAKU, ("hello", None))
        frame, error = await ann.expect(ErrorReply)
        assert (frame.sequence, error.code) == (4, ErrorCode.NOT_JOINED)


async def test_a_ping_is_answered_with_the_pulse_of_each_room() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:ann") as (ann, room):
        await ann.send((Ping(123), 0, 8))
        frame, pong = await ann.expect(Pong)
        assert (frame.sequence, pong.client_ms, pong.missed_chat) == (8, 123, 0)
        assert [(pulse.room, pulse.online) for pulse in pong.rooms] == [(room, 1)]


# ---- refusals that leave the link alive

Requests = list[tuple[Message, int, int]]

REFUSALS: dict[str, tuple[Callable[[int], Requests], ErrorCode, str]] = {
    "join with a bad name": (lambda room: [(Join("no spaces"), 0, 9)], ErrorCode.BAD_FIELD, "room_name"),
    "join twice": (lambda room: [(Join("lobby"), 0, 9)], ErrorCode.ALREADY_JOINED, "room_name"),
    "leave a room one is not in": (lambda room: [(Leave(), room + 1, 9)], ErrorCode.NOT_JOINED, "room"),
    "post to a room one is not in": (
        lambda room: [(Post(1, "m", ("hi", None)), room + 1, 9)],
        ErrorCode.NOT_JOINED,
        "room",
    ),
    "post an unknown type": (lambda room: [(Post(99, "m", ("hi",)), room, 9)], ErrorCode.UNKNOWN_TYPE, "type"),
    "post an empty text": (lambda room: [(Post(1, "m", ("", None)), room, 9)], ErrorCode.BAD_FIELD, "payload.text"),
    "post a long text": (
        lambda room: [(Post(1, "m", ("x" * 101, None)), room, 9)],
        ErrorCode.BAD_FIELD,
        "payload.text",
    ),
    "post control characters": (
        lambda room: [(Post(1, "m", ("a\x1bb", None)), room, 9)],
        ErrorCode.BAD_FIELD,
        "payload.text",
    ),
    "post a body above the type's cap": (
        lambda room: [(Post(1, "m", ("x", None, "y" * 1200)), room, 9)],
        ErrorCode.PAYLOAD_TOO_LARGE,
        "body",
    ),
    "post a body above 4 KiB": (
        lambda room: [(Post(4, "m", ("x" * 5000,)), room, 9)],
        ErrorCode.PAYLOAD_TOO_LARGE,
        "body",
    ),
    "post no likes": (lambda room: [(Post(3, "m", (0,)), room, 9)], ErrorCode.BAD_FIELD, "payload.count"),
    "resume at a negative offset": (
        lambda room: [(Resume("other", Tier.FULL, 1, -1), 0, 9)],
        ErrorCode.BAD_FIELD,
        "offset",
    ),
    "ask for an unknown tier": (lambda room: [(Join("other", 7), 0, 9)], ErrorCode.BAD_FIELD, "tier"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_bad_request_names_field_and_rule_and_the_link_lives(name: str) -> None:
    requests, code, field = REFUSALS[name]
    async with running_broker() as broker, joined_link(broker, "dev:ann") as (ann, room):
        await ann.send(*requests(room))
        frame, error = await ann.expect(ErrorReply)
        assert (frame.sequence, ErrorCode(error.code), error.field) == (9, code, field)
        assert error.message
        await ann.post(room, 10, MessageType.DANMAKU, ("still here", None))
        assert (await ann.expect(Ack))[1].results[0].sequence == 10
        assert broker.context.errors[code] == 1


async def test_limits_say_how_long_to_wait() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:ann") as (ann, room):
        for number in range(6):
            await ann.post(room, number, MessageType.DANMAKU, (f"text {number}", None))
        outcomes: dict[int, AckResult] = {}
        while len(outcomes) < 6:
            outcomes |= {result.sequence: result for result in (await ann.expect(Ack))[1].results}
        limited = [result for result in outcomes.values() if result.outcome is Outcome.LIMITED]
        assert len(limited) >= 2
        assert all(0 < result.detail <= 4000 for result in limited)


async def test_the_same_text_of_the_same_user_is_refused() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:ann") as (ann, room):
        for number in (1, 2):
            await ann.post(room, number, MessageType.DANMAKU, ("Again", None))
        results: dict[int, AckResult] = {}
        while len(results) < 2:
            results |= {result.sequence: result for result in (await ann.expect(Ack))[1].results}
        assert results[1].outcome is Outcome.ACCEPTED
        assert results[2][1:] == (Outcome.REJECTED, ErrorCode.DUPLICATE_TEXT)


async def test_a_guest_reads_and_likes_but_does_not_talk() -> None:
    async with running_broker() as broker, raw_link(broker) as guest:
        user = await guest.login(None)
        assert user.user_id.startswith("guest-")
        room, joined = await guest.join()
        assert joined.role is Role.GUEST
        await guest.post(room, 1, MessageType.DANMAKU, ("hi", None))
        assert (await guest.expect(Ack))[1].results == ((1, Outcome.REJECTED, ErrorCode.NOT_ALLOWED),)
        await guest.post(room, 2, MessageType.LIKE, (1,))
        assert (await guest.expect(Ack))[1].results == ((2, Outcome.ACCEPTED, 1),)


async def test_a_ticket_is_renewed_once_in_a_while_only() -> None:
    config = load(None, {}, {"auth": {"secret": SECRET}})
    token = Authenticator(config.auth).issue("ann")
    async with running_broker(auth={"secret": SECRET}) as broker, raw_link(broker) as link:
        await link.hello(int(Feature.TICKET))
        await link.send((Auth(token), 0, 0))
        for number in range(5):
            await link.send((Ping(1, True), 0, number))
        tickets = [(await link.expect(Pong))[1].ticket for _ in range(5)]
        assert [bool(ticket) for ticket in tickets] == [True, False, False, False, False]


async def test_a_backend_has_links_and_frames_of_its_own() -> None:
    link = {"connections_per_user": 1, "app_connections_per_user": 3, "frames_per_s": 1, "app_frames_per_s": 100_000}
    async with running_broker(link=link) as broker, AsyncExitStack() as links:
        for _ in range(3):
            app = await links.enter_async_context(raw_link(broker))
            await app.login("dev:shop:app")
        more = await links.enter_async_context(raw_link(broker))
        await more.hello()
        await more.send((Auth("dev:shop:app"), 0, 0))
        goaway = await more.expect_close()
        assert (goaway.code, goaway.reason) == (CloseCode.TOO_MANY_FOR_USER, "at most 3 links a user")
        oldest = next(each for each in broker.context.sessions if isinstance(each, Session))
        oldest.transport.heard_at -= 1.25 * broker.config.link.heartbeat_s + 1
        async with raw_link(broker) as another:
            await another.login("dev:shop:app")
        assert not oldest.is_open, "one that has missed its heartbeat is replaced"
        ann = await links.enter_async_context(raw_link(broker))
        await ann.login("dev:ann")
        for link_of, paused in ((app, 0), (ann, 1)):
            await link_of.send(*[(Ping(1), 0, number) for number in range(20)])
            for _ in range(20):
                await link_of.expect(Pong)
            assert broker.poller.paused == paused


async def test_many_failed_log_ins_of_an_address_stop_its_unknown_tokens_only() -> None:
    config = load(None, {}, {"auth": {"secret": SECRET}})
    known, unknown = (Authenticator(config.auth).issue(user) for user in ("ann", "bob"))
    failing: dict[str, Any] = {"auth": {"secret": SECRET}, "admission": {"failed_logins_per_minute": 2}}
    async with running_broker(**failing) as broker:
        async with raw_link(broker) as link:
            await link.login(known)
        for _ in range(2):
            async with raw_link(broker) as link:
                await link.hello()
                await link.send((Auth("x.y.z"), 0, 0))
                assert (await link.expect_close()).code == CloseCode.AUTH_FAILED
        for token in ("x.y.z", unknown):
            async with raw_link(broker) as link:
                await link.hello()
                await link.send((Auth(token), 0, 0))
                goaway = await link.expect_close()
                assert goaway.code == CloseCode.TOO_MANY_FROM_ADDRESS
                assert 0 < goaway.retry_after_ms <= 30_000
        async with raw_link(broker) as link:
            assert (await link.login(known)).user_id == "ann"


# ---- what ends the link


def _raw(data: bytes) -> Callable[[RawLink], Awaitable[None]]:
    return lambda link: link.send_bytes(data)


def _after_login(data: bytes) -> Callable[[RawLink], Awaitable[None]]:
    async def act(link: RawLink) -> None:
        await link.login("dev:ann")
        await link.send_bytes(data)

    return act


def _hello(low: int, high: int) -> bytes:
    return build_frame(1, 0, 0, 0, pack_body((MAGIC, low, high, 0, "")))


FATAL: dict[str, tuple[Callable[[RawLink], Awaitable[None]], CloseCode]] = {
    "a length below the header": (_raw(b"\x00\x00\x00\x0f" + bytes(12)), CloseCode.UNSUPPORTED_VERSION),
    "a short length in version 1": (_raw(b"\x00\x00\x00\x0f\x01" + bytes(11)), CloseCode.BAD_FRAME),
    "a frame above 64 KiB": (_raw(b"\x00\x01\x00\x01\x01\x00\x00\x01" + bytes(8)), CloseCode.FRAME_TOO_LARGE),
    "an unknown opcode": (_raw(build_frame(99, 0, 0, 0, b"\x90")), CloseCode.UNKNOWN_OPCODE),
    "a wrong magic": (_raw(build_frame(1, 0, 0, 0, pack_body(("goim", 1, 1)))), CloseCode.BAD_BODY),
    "a version of the future": (_raw(_hello(2, 9)), CloseCode.UNSUPPORTED_VERSION),
    "a body that is no array": (_raw(build_frame(1, 0, 0, 0, b"\x01")), CloseCode.BAD_BODY),
    "a join before hello": (_raw(build_frame(3, 0, 0, 0, pack_body(("lobby",)))), CloseCode.OUT_OF_STATE),
    "a post before auth": (
        _raw(_hello(1, 1) + build_frame(5, 0, 1, 0, pack_body((1, "", ("x",))))),
        CloseCode.OUT_OF_STATE,
    ),
    "a bad token": (
        _raw(_hello(1, 1) + build_frame(2, 0, 0, 0, pack_body(("not a token",)))),
        CloseCode.AUTH_FAILED,
    ),
    "a client's frame with a lane": (_after_login(build_frame(11, 3, 0, 0, pack_body((1,)))), CloseCode.BAD_FRAME),
    "a compressed client frame": (_after_login(build_frame(11, 0, 0, 0, bytes(9), 1)), CloseCode.BAD_FRAME),
    "a tick from a client": (_after_login(build_frame(8, 0, 0, 0, b"\x90")), CloseCode.OUT_OF_STATE),
    "trailing bytes in a body": (_after_login(build_frame(11, 0, 0, 0, b"\x91\x01\x00")), CloseCode.BAD_BODY),
}


@pytest.mark.parametrize("name", FATAL)
async def test_a_broken_link_ends_with_its_code_and_nobody_else_notices(name: str) -> None:
    act, code = FATAL[name]
    async with running_broker() as broker, joined_link(broker, "dev:bob") as (bob, room):
        async with raw_link(broker) as link:
            await act(link)
            goaway = await link.expect_close()
            assert CloseCode(goaway.code) is code
        await bob.post(room, 1, MessageType.DANMAKU, ("fine", None))
        assert (await bob.expect(Ack))[1].results[0].outcome is Outcome.ACCEPTED
        assert broker.context.closed[code] == 1
        assert len(broker.context.sessions) == 1


async def test_a_link_that_never_logs_in_is_closed_at_its_deadline() -> None:
    async with running_broker(link={"handshake_timeout_s": 0.1}) as broker, raw_link(broker) as link:
        await link.send_bytes(_hello(1, 1))
        assert (await link.expect_close()).code == CloseCode.HANDSHAKE_TIMEOUT


async def test_a_silent_link_is_cut() -> None:
    link_config = {"heartbeat_s": 0.1, "heartbeat_cut_s": 0.3}
    async with running_broker(link=link_config) as broker, joined_link(broker, "dev:ann") as (ann, _):
        assert (await ann.expect_close()).code == CloseCode.HEARTBEAT_MISSED


async def test_a_page_that_only_listens_keeps_its_websocket_and_a_dead_one_is_cut() -> None:
    async with running_broker() as broker:
        async with await trio.open_tcp_stream("127.0.0.1", broker.addresses[0][1]) as stream:
            texts = [
                {"op": "HELLO", "body": {"magic": MAGIC, "version_min": 1, "version_max": 1}},
                {"op": "AUTH", "body": {"token": "dev:eve"}},
            ]
            upgrade = JSON_UPGRADE.replace(b"Host: x", b"Host: localhost")
            await stream.send_all(upgrade + masked(TEXT, json.dumps(texts).encode()))
            received = b""
            with trio.fail_after(20):
                while b"eve" not in received:
                    received += await stream.receive_some(65536)
                (session,) = (each for each in broker.context.sessions if isinstance(each, Session))
                config, transport = broker.config.link, session.transport
                now = broker.poller.refresh_clock()
                transport.heard_at = silent_since = now - 1.25 * config.heartbeat_s - 1
                session.on_deadline(now)
                assert await stream.receive_some(65536) == b"\x89\x00", "a Ping frame"
                await stream.send_all(masked(PONG))
                await until(lambda: transport.heard_at != silent_since)
                transport.heard_at = now - config.heartbeat_cut_s - 1
                session.on_deadline(now)
                assert broker.context.closed == {CloseCode.HEARTBEAT_MISSED: 1}


async def test_the_newest_link_of_a_user_replaces_the_one_that_was_silent_for_longest() -> None:
    async with (
        running_broker(link={"connections_per_user": 2}) as broker,
        joined_link(broker, "dev:ann") as (first, room),
        joined_link(broker, "dev:ann") as (second, _),
    ):
        await first.send((Ping(1), 0, 1))
        await first.expect(Pong)
        async with joined_link(broker, "dev:ann") as (third, _):
            frame, left = await second.expect(Left)
            assert (frame.room, left.reason) == (room, LeaveReason.REPLACED)
            assert (await second.expect_close()).code == CloseCode.REPLACED
            for link in (first, third):
                await link.send((Ping(1), 0, 2))
                await link.expect(Pong)
            assert len(broker.users.sessions("ann")) == 2
            found = broker.hub.room(room)
            assert found is not None
            assert found.state.online == 2


@pytest.mark.parametrize("is_durable", [False, True])
@pytest.mark.parametrize(
    "post",
    [
        Post(MessageType.DANMAKU, "", ("hello", None)),
        Post(MessageType.EMOTE, "", ("smile",)),
        Post(MessageType.LIKE, "", (3,)),
        Post(MessageType.ANNOUNCEMENT, "a1", ("news",)),
        Post(MessageType.GIFT, "", ("o1", "ann", "Ann", "rose", 1, 100, "")),
        Post(MessageType.ROOM_PHASE, "p1", (1,)),
        Post(200, "", None),
    ],
    ids=lambda post: str(int(post.type)),
)
async def test_a_post_before_a_leave_in_one_write_is_answered_once(
    tmp_path: Path, post: Post, is_durable: bool
) -> None:
    ledger = {"data_dir": str(tmp_path)} if is_durable else {}
    async with running_broker(ledger=ledger) as broker, joined_link(broker, "dev:shop:app") as (shop, room):
        await shop.send((post, room, 7), (Leave(), room, 8))
        answers: list[int] = []
        has_left = False
        with trio.fail_after(20):
            while not has_left or not answers:
                frame = await shop.next_frame()
                assert frame is not None
                has_left = has_left or isinstance(frame.message, Left)
                if isinstance(frame.message, Ack):
                    answers += [result.sequence for result in frame.message.results]
        await shop.send((Ping(1), 0, 9))
        while not isinstance((frame := await shop.next_frame()).message, Pong):  # type: ignore[union-attr]
            assert not isinstance(frame.message, Ack)  # type: ignore[union-attr]
        assert answers == [7]


async def test_endless_errors_end_the_link() -> None:
    async with running_broker(link={"errors_per_minute": 3}) as broker, joined_link(broker, "dev:ann") as (ann, room):
        await ann.send(*[(Leave(), room + 1, number) for number in range(5)])
        assert (await ann.expect_close()).code == CloseCode.TOO_MANY_ERRORS


async def test_a_goodbye_ends_the_link_at_once() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:ann") as (ann, _):
        await ann.send((GoAway(CloseCode.CLIENT_DONE, "bye"), 0, 0))
        assert await ann.next_frame() is None or await ann.next_frame() is None
        assert broker.context.closed[CloseCode.CLIENT_DONE] == 1
        assert len(broker.users) == 0


async def test_an_acknowledgement_of_nothing_is_ignored() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:ann") as (ann, _):
        await ann.send((DirectAck(5), 0, 1), (Ping(1), 0, 2))
        assert (await ann.expect(Pong))[0].sequence == 2


async def test_draining_sends_everybody_away_with_a_time_to_return() -> None:
    async with running_broker(link={"drain_s": 2}) as broker, joined_link(broker, "dev:ann") as (ann, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.drain)
            goaway = await ann.expect_close()
            assert (goaway.code, goaway.jitter_ms) == (CloseCode.GOING_AWAY, 2000)
            await ann.stream.aclose()
            await broker.stopped.wait()


async def test_a_crashing_room_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        running_broker() as broker,
        joined_link(broker, "dev:ann", "bad") as (ann, bad),
        joined_link(broker, "dev:bob", "good") as (bob, good),
    ):
        room = broker.hub.room(bad)
        assert room is not None
        monkeypatch.setattr(room.state, "tick", lambda *args, **kwargs: 1 / 0)
        await ann.post(bad, 1, MessageType.DANMAKU, ("boom", None))
        assert (await ann.expect(Left))[1].reason is LeaveReason.ROOM_CRASHED
        await bob.post(good, 1, MessageType.DANMAKU, ("fine", None))
        assert (await bob.expect(Ack))[1].results[0].outcome is Outcome.ACCEPTED
        assert broker.stats().rooms_crashed == 1


async def test_an_overloaded_broker_refuses_new_connections_with_a_wait_and_takes_back_those_who_resume() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:ann") as (_, room), raw_link(broker) as bob:
        known = broker.hub.room(room)
        assert known is not None
        broker.hub.set_stage(OverloadStage.REFUSE_JOINS)
        await bob.login("dev:bob")
        await bob.send((Join("lobby"), 0, 1))
        _, error = await bob.expect(ErrorReply)
        assert (error.code, error.retry_after_ms) == (ErrorCode.OVERLOADED, 5000)
        await bob.send((Resume("lobby", Tier.FULL, known.state.epoch, 0), 0, 2))
        assert (await bob.expect(Resumed))[1].recovered
