"""Rooms of a client against a scripted broker: joined, left, refused, removed, and their events."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from protocol.clients import (
    Client,
    Danmaku,
    JoinedRoom,
    Membership,
    RoomLeft,
    RoomRefused,
    State,
    StreamEvent,
    TickAccount,
)
from protocol.codes import Codec, ErrorCode, Lane, LeaveReason, MessageType, Opcode, Outcome, RoomPhase
from protocol.connection import Encoding, encode
from protocol.errors import LocalProtocolError
from protocol.messages import Account, Ack, AckResult, Direct, ErrorReply, Join, Left, Pong, RoomPulse, TickEntry
from protocol.messages import State as WireState
from protocol.payloads import AnnouncementPayload, DanmakuPayload, EmotePayload, GiftPayload, PhasePayload
from tests.support.peer import (
    Posting,
    event,
    join,
    joined,
    linked,
    quiet,
    server_hello,
    take,
    take_until,
    tick,
)

# ---- rooms


async def test_join_returns_the_snapshot(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer, epoch=9, offset=41, online=5)
        assert room.snapshot == joined(epoch=9, offset=41, online=5)
        assert room.position == (9, 41)
        assert (room.online, room.number, room.is_joined) == (5, 3, True)
        assert client.rooms == {"lobby": room}


async def test_join_is_answered_by_name_where_the_broker_repeats_no_number(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        rooms: list[JoinedRoom] = []
        async with trio.open_nursery() as nursery:
            for name in ("a", "b"):
                nursery.start_soon(_append, rooms, client, name)
                await peer.expect(Opcode.JOIN)
            await peer.send(joined("b"), 2)
            await peer.send(joined("a"), 1)
        assert {room.name: room.number for room in rooms} == {"a": 1, "b": 2}


async def _append(rooms: list[JoinedRoom], client: Client, name: str) -> None:
    rooms.append(await client.join(name))


async def test_a_refused_join_raises_the_error_of_the_broker(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        async with trio.open_nursery() as nursery:

            async def broker() -> None:
                frame = await peer.expect(Opcode.JOIN)
                await peer.send(ErrorReply(ErrorCode.ROOM_FULL, "full up", "", 700), 0, frame.sequence)

            nursery.start_soon(broker)
            with pytest.raises(RoomRefused) as caught:
                await client.join("lobby")
        assert (caught.value.code, caught.value.message, caught.value.retry_after_ms) == (302, "full up", 700)
        assert client.rooms == {}


async def test_join_has_a_timeout_and_leaves_no_request_open(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        with pytest.raises(trio.TooSlowError):
            await client.join("lobby", timeout_s=5)
        frame = await peer.expect(Opcode.JOIN)
        await peer.send(joined(), 3, frame.sequence)
        left = await peer.expect(Opcode.LEAVE)
        assert left.room == 3, "an answer that comes late is followed by LEAVE"
        await peer.send(Left(LeaveReason.REQUESTED), 3)
        await trio.testing.wait_all_tasks_blocked()
        assert client.rooms == {}


@pytest.mark.parametrize("name", ["", "no spaces", "x" * 65, "new\nline"])
async def test_a_bad_room_name_is_refused_here(name: str, autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        with pytest.raises(LocalProtocolError, match=r"JOIN\.room_name"):
            await client.join(name)
        await quiet(peer)


async def test_a_room_can_be_joined_once(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        await join(client, peer)
        with pytest.raises(LocalProtocolError):
            await client.join("lobby")


async def test_leave_waits_for_the_answer_and_ends_the_iteration(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.leave)
            left = await peer.expect(Opcode.LEAVE)
            assert left.room == 3
            assert client.rooms == {"lobby": room}
            await peer.send(Left(LeaveReason.REQUESTED), 3)
        assert client.rooms == {}
        assert [found async for found in room] == []
        await room.leave()


async def test_leave_has_a_timeout(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer)
        start = trio.current_time()
        await room.leave()
        assert trio.current_time() - start < 10
        assert room.membership is Membership.ENDED


async def test_a_room_that_was_left_can_be_joined_again_at_once(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.leave)
            again: list[JoinedRoom] = []
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(_append, again, client, "lobby")
            await peer.expect(Opcode.LEAVE)
            await quiet(peer)
            await peer.send(Left(LeaveReason.REQUESTED), 3)
            await peer.admit(number=3)
        assert again[0].is_joined
        assert again[0] is not room


async def test_a_room_that_ends_leaves_the_posts_of_others_alone(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        one, two = await join(client, peer, "one", number=1), await join(client, peer, "two", number=2)
        first, second = Posting(nursery, one), Posting(nursery, two)
        posts = {frame.room: frame for frame in [await peer.expect(Opcode.POST) for _ in range(2)]}
        await peer.send(Left(LeaveReason.ROOM_ENDED), 1)
        assert (await first.wait_result()).is_lost
        await peer.ack(posts[2], Outcome.ACCEPTED)
        assert (await second.wait_result()).outcome is Outcome.ACCEPTED


async def test_being_kicked_is_an_event_and_the_end(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer)
        await peer.send(Left(LeaveReason.KICKED, "bye"), 3)
        assert [found async for found in room] == [RoomLeft(LeaveReason.KICKED, "bye", True)]
        assert client.rooms == {}
        result = await room.post_danmaku("hello?")
        assert (result.outcome, result.error, result.sent) == (Outcome.REJECTED, "NOT_JOINED", False)


async def test_a_crashed_room_is_requested_again(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer, epoch=7, offset=5)
        start = trio.current_time()
        await peer.send(Left(LeaveReason.ROOM_CRASHED), 3)
        assert await take(room, RoomLeft) == RoomLeft(LeaveReason.ROOM_CRASHED, "", False)
        frame, resume = await peer.expect_resume()
        assert (resume.epoch, resume.offset) == (7, 5)
        assert 0.5 <= trio.current_time() - start <= 1
        await peer.send(ErrorReply(ErrorCode.OVERLOADED, "soon", "", 4000), 0, frame.sequence)
        await peer.expect_resume()
        assert trio.current_time() - start >= 4.5


async def test_two_rooms_share_a_link(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        one = await join(client, peer, "one", number=1)
        two = await join(client, peer, "two", number=2)
        await peer.send(event("for two"), 2, 1, Lane.COMMERCE)
        await peer.send(event("for one"), 1, 1, Lane.COMMERCE)
        assert (await take(one, StreamEvent)).payload == ("for one",)
        assert (await take(two, StreamEvent)).payload == ("for two",)


# ---- events


async def test_a_tick_becomes_danmaku_and_an_account(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer)
        account = Account(9, 3, 4, 1, 1, 0)
        entries = (
            TickEntry(MessageType.DANMAKU, "u2", "Bo", ("好看", (0, 255, 1)), 5, ("u3", "u4")),
            TickEntry(MessageType.EMOTE, "u5", "Cy", ("heart",)),
            TickEntry(200, "u6", "Di", {"sku": 5}),
        )
        await peer.send(tick()._replace(entries=entries[:1]), 3, 77)
        await peer.send(tick()._replace(entries=entries[1:], account=account, interval_ms=250), 3, 77)
        found = [await take(room, Danmaku) for _ in range(3)]
        assert found[0] == Danmaku(1, "u2", "Bo", ("好看", (0, 255, 1)), 5, ("u3", "u4"), 1_000_000, 77)
        assert [danmaku.text for danmaku in found] == ["好看", "heart", ""]
        assert await take(room, TickAccount) == TickAccount(77, 1_000_000, 250, 0, account)
        await peer.send(tick("x", account=account), 3, 78)
        await take_until(room, TickAccount)
        assert room.account == Account(18, 6, 8, 2, 2, 0)
        assert room.interval_ms == 100


async def test_counters_come_as_state(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer)
        state = WireState(1_000_000, RoomPhase.PAUSED, 1, 200, 50, 40, 60, 55, 1234, (("u2", 7),), (("u3", "Cy"),))
        await peer.send(state, 3, 1)
        found = await take(room, State)
        assert found == state
        assert (found.top_likers[0].likes, found.joins[0].name) == (7, "Cy")  # type: ignore[attr-defined]
        assert (room.online, room.interval_ms, room.phase) == (50, 200, RoomPhase.PAUSED)


async def test_online_users_and_phase_are_live_without_reading_events(autojump_clock: Any) -> None:
    async with linked(hello=server_hello(heartbeat_ms=5000)) as (client, peer, _):
        room = await join(client, peer, online=5, users=4)
        assert (room.online, room.users, room.phase) == (5, 4, RoomPhase.LIVE)
        await peer.send(WireState(1_000_000, RoomPhase.LIVE, 0, 100, 50, 40, 60, 55, 1234), 3, 1)
        ping = await peer.expect(Opcode.PING)
        assert (room.online, room.users) == (50, 40)
        await peer.send(Pong(0, 0, (RoomPulse(3, 70, 100),)), 0, ping.sequence)
        await peer.send(event(type=MessageType.ROOM_PHASE, payload=(2,)), 3, 1, Lane.CONTROL)
        await peer.expect(Opcode.PING)
        assert (room.online, room.phase) == (70, RoomPhase.PAUSED)
        assert room.snapshot is not None
        assert room.snapshot.online == 5


@pytest.mark.parametrize(
    ("type", "wire", "record"),
    [
        (4, ("hi", "later"), AnnouncementPayload("hi")),
        (
            5,
            ("o-1", "u2", "Bo", "rose", 3, 100),
            GiftPayload("o-1", "u2", "Bo", "rose", 3, 100, combo="o-1", seq=1, added=3, total=3, flags=3),
        ),
        (6, (3,), PhasePayload(RoomPhase.ENDED)),
        (200, ("any", 1), ("any", 1)),
    ],
)
async def test_payloads_are_records(type: int, wire: Any, record: Any, autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        entry = TickEntry(MessageType.DANMAKU, "u2", "Bo", ("hi",))
        room = await join(client, peer, recent=(entry,))
        assert room.snapshot is not None
        assert repr(room.snapshot.recent[0].payload) == repr(DanmakuPayload("hi"))
        await peer.send(event(type=type, payload=wire), 3, 1, Lane.CONTROL)
        await peer.send(tick()._replace(entries=(entry, TickEntry(MessageType.EMOTE, "u2", "", ("heart",)))), 3, 1)
        await peer.send(Direct(0, type, 1_000_000, wire))
        assert repr((await take(room, StreamEvent)).payload) == repr(record)
        assert repr((await take(room, Danmaku)).payload) == repr(DanmakuPayload("hi"))
        assert repr((await take(room, Danmaku)).payload) == repr(EmotePayload("heart"))
        assert repr((await take_until(client.events(), Direct)).payload) == repr(record)


@pytest.mark.parametrize("codec", [Codec.LZ4, Codec.LZ4_DICT_1])
async def test_compressed_ticks_are_read(codec: Codec, autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer)
        texts = ["多少钱 怎么买"] * 40
        plain = encode(tick(*texts), 3, 1, Lane.CHAT)
        packed = encode(tick(*texts), 3, 1, Lane.CHAT, Encoding.BINARY, codec)
        assert len(packed) < len(plain)
        await peer.send_bytes(packed)
        assert [(await take(room, Danmaku)).text for _ in texts] == texts


async def test_frames_for_rooms_that_are_not_joined_are_counted(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer)
        await peer.send(event(), 99, 1, Lane.COMMERCE)
        await peer.send(tick("x"), 99, 1)
        await peer.send(Ack((AckResult(12345, Outcome.ACCEPTED),)), 3)
        await peer.send(event(), 3, 1, Lane.COMMERCE)
        await take(room, StreamEvent)
        assert client.unexpected_frames == 3


async def test_a_room_that_was_not_requested_is_left(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        await peer.send(joined("surprise"), 8)
        assert (await peer.expect(Opcode.LEAVE)).room == 8
        assert client.unexpected_frames == 1


async def test_rooms_refused_because_of_their_rate_are_requested_one_after_another(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        rooms: list[JoinedRoom] = []
        requested_at: list[float] = []
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(_append, rooms, client, f"room-{number}")
            for _ in range(6):
                frame = await peer.expect(Opcode.JOIN)
                await peer.send(ErrorReply(ErrorCode.RATE_LIMITED, "too many joins", "", 1000), 0, frame.sequence)
            start = trio.current_time()
            for number in range(6):
                frame = await peer.expect(Opcode.JOIN)
                requested_at.append(trio.current_time() - start)
                assert isinstance(frame.message, Join)
                await peer.send(joined(frame.message.room_name), number + 1, frame.sequence)
        assert requested_at == pytest.approx([1, 2, 3, 4, 5, 6])
        assert len(rooms) == 6
