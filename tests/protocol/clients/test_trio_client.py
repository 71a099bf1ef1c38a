"""The client against a scripted broker: handshake, rooms, posts, events, likes and the end."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from protocol.clients import (
    Client,
    ClientClosed,
    Connected,
    Danmaku,
    Direct,
    Disconnected,
    Event,
    Fault,
    Left,
    Membership,
    Missed,
    PostResult,
    Pulse,
    Room,
    RoomRefused,
    State,
    TickAccount,
    open_client,
)
from protocol.clients.directs import SEEN_DIRECTS
from protocol.codes import Codec, ErrorCode, Feature, Lane, LeaveReason, MessageType, Opcode, Outcome, RoomPhase, Tier
from protocol.connection import Encoding, encode
from protocol.errors import LocalProtocolError
from protocol.messages import (
    Account,
    Ack,
    AckResult,
    Auth,
    Authenticated,
    ClientHello,
    DirectAck,
    ErrorReply,
    GoAway,
    Join,
    Ping,
    Pong,
    Post,
    Resumed,
    RoomPulse,
    TickEntry,
)
from protocol.messages import Left as WireLeft
from protocol.messages import State as WireState

from .peer import NO_ROUTE, URL, Network, Peer, client_of, event, joined, linked, server_hello, take, take_until, tick


async def join(client: Client, peer: Peer, name: str = "lobby", **changes: Any) -> Room:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: peer.admit(**changes))
        return await client.join(name)


class Posting:
    """A post that runs beside the test."""

    def __init__(self, nursery: trio.Nursery, room: Room, text: str = "hi", **options: Any) -> None:
        self.result: PostResult | None = None
        self.done = trio.Event()
        nursery.start_soon(self._run, room, text, options)

    async def _run(self, room: Room, text: str, options: dict[str, Any]) -> None:
        self.result = await room.post_danmaku(text, **options)
        self.done.set()

    async def fate(self) -> PostResult:
        with trio.fail_after(1000):
            await self.done.wait()
        assert self.result is not None
        return self.result


# ---- handshake


async def test_hello_auth_and_join_leave_in_one_write(autojump_clock: Any) -> None:
    network = Network()
    async with client_of(network, token="secret", agent="test/1") as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.join, "lobby", Tier.LOW)
        peer = await network.accept()
        await trio.testing.wait_all_tasks_blocked()
        hello, auth = await peer.expect(Opcode.HELLO), await peer.expect(Opcode.AUTH)
        assert isinstance(hello.message, ClientHello)
        assert hello.message.agent == "test/1"
        assert hello.message.features == Feature.LZ4 | Feature.LZ4_DICT_1 | Feature.BATCH
        assert auth.message == Auth("secret")
        asked = await peer.expect(Opcode.JOIN)
        assert asked.message == Join("lobby", Tier.LOW)
        assert peer._received == 1, "one write carried all three"
        await peer.send(server_hello())
        await peer.send(Authenticated("u1", "Ann", 99))
        await peer.send(joined(), 3, asked.sequence)


async def test_the_client_knows_who_it_is_and_says_so(autojump_clock: Any) -> None:
    async with linked() as (client, _, _):
        assert client.is_connected
        assert client.user is not None
        assert client.user.user_id == "u1"
        assert client.server == server_hello()
        connected = await take(client.events(), Connected)
        assert connected == Connected("u1", "Ann", 0, "scripted", 0)


async def test_opening_waits_for_the_first_welcome(autojump_clock: Any) -> None:
    network = Network()

    async def broker() -> None:
        peer = await network.accept()
        await trio.sleep(3)
        await peer.welcome()
        await peer.rest()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker)
        async with open_client(URL, connect=network) as client:
            assert client.is_connected
            assert trio.current_time() >= 3


async def test_opening_gives_up_after_its_deadline(autojump_clock: Any) -> None:
    network = Network()
    network.plan = [NO_ROUTE] * 100
    start = trio.current_time()
    with pytest.raises(trio.TooSlowError):
        async with open_client(URL, connect=network, open_timeout_s=20):
            raise AssertionError("entered")
    assert trio.current_time() - start == pytest.approx(20)
    assert len(network.attempts) > 2


async def test_a_broker_that_bars_us_makes_opening_fail_with_its_code(autojump_clock: Any) -> None:
    network = Network()

    async def broker() -> None:
        peer = await network.accept()
        await peer.goaway(4408)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker)
        with pytest.raises(ClientClosed) as caught:
            async with open_client(URL, connect=network):
                raise AssertionError("entered")
    assert caught.value.code == 4408


@pytest.mark.parametrize(
    ("options", "field"),
    [({"token": ""}, "AUTH.token"), ({"agent": "x" * 200}, "HELLO.agent"), ({"features": -1}, "HELLO.features")],
)
async def test_bad_options_are_named_before_anything_is_sent(options: dict[str, Any], field: str) -> None:
    network = Network()
    with pytest.raises(LocalProtocolError, match=field):
        async with open_client(URL, connect=network, **options):
            pass
    assert network.attempts == []


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
        rooms: list[Room] = []
        async with trio.open_nursery() as nursery:
            for name in ("a", "b"):
                nursery.start_soon(_append, rooms, client, name)
                await peer.expect(Opcode.JOIN)
            await peer.send(joined("b"), 2)
            await peer.send(joined("a"), 1)
        assert {room.name: room.number for room in rooms} == {"a": 1, "b": 2}


async def _append(rooms: list[Room], client: Client, name: str) -> None:
    rooms.append(await client.join(name))


async def test_a_refused_join_raises_the_brokers_words(autojump_clock: Any) -> None:
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


async def test_join_has_a_deadline_and_leaves_nothing_behind(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        with pytest.raises(trio.TooSlowError):
            await client.join("lobby", timeout_s=5)
        asked = await peer.expect(Opcode.JOIN)
        await peer.send(joined(), 3, asked.sequence)
        left = await peer.expect(Opcode.LEAVE)
        assert left.room == 3, "an answer that comes late is followed by LEAVE"
        await peer.send(WireLeft(LeaveReason.REQUESTED), 3)
        await trio.testing.wait_all_tasks_blocked()
        assert client.rooms == {}


@pytest.mark.parametrize("name", ["", "no spaces", "x" * 65, "new\nline"])
async def test_a_bad_room_name_is_refused_here(name: str, autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        with pytest.raises(LocalProtocolError, match=r"JOIN\.room_name"):
            await client.join(name)
        await _quiet(peer)


async def _quiet(peer: Peer) -> None:
    """The client has said nothing."""
    with trio.move_on_after(1) as scope:
        frame = await peer.next_frame()
        raise AssertionError(frame)
    assert scope.cancelled_caught


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
            await peer.send(WireLeft(LeaveReason.REQUESTED), 3)
        assert client.rooms == {}
        assert [found async for found in room] == []
        await room.leave()


async def test_leave_does_not_wait_for_ever(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer)
        start = trio.current_time()
        await room.leave()
        assert trio.current_time() - start < 10
        assert room.membership is Membership.GONE


async def test_a_room_that_was_left_can_be_joined_again_at_once(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.leave)
            again: list[Room] = []
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(_append, again, client, "lobby")
            await peer.expect(Opcode.LEAVE)
            await _quiet(peer)
            await peer.send(WireLeft(LeaveReason.REQUESTED), 3)
            await peer.admit(number=3)
        assert again[0].is_joined
        assert again[0] is not room


async def test_a_room_that_ends_leaves_the_posts_of_others_alone(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        one, two = await join(client, peer, "one", number=1), await join(client, peer, "two", number=2)
        first, second = Posting(nursery, one), Posting(nursery, two)
        posts = {frame.room: frame for frame in [await peer.expect(Opcode.POST) for _ in range(2)]}
        await peer.send(WireLeft(LeaveReason.ROOM_ENDED), 1)
        assert (await first.fate()).is_lost
        await peer.ack(posts[2], Outcome.ACCEPTED)
        assert (await second.fate()).outcome is Outcome.ACCEPTED


async def test_being_kicked_is_an_event_and_the_end(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer)
        await peer.send(WireLeft(LeaveReason.KICKED, "bye"), 3)
        assert [found async for found in room] == [Left(LeaveReason.KICKED, "bye", True)]
        assert client.rooms == {}
        result = await room.post_danmaku("hello?")
        assert (result.outcome, result.error, result.sent) == (Outcome.REJECTED, "NOT_JOINED", False)


async def test_a_crashed_room_is_asked_for_again(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer, epoch=7, offset=5)
        start = trio.current_time()
        await peer.send(WireLeft(LeaveReason.ROOM_CRASHED), 3)
        assert await take(room, Left) == Left(LeaveReason.ROOM_CRASHED, "", False)
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
        assert (await take(one, Event)).payload == ("for one",)
        assert (await take(two, Event)).payload == ("for two",)


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
        state = WireState(1_000_000, RoomPhase.PAUSED, 1, 200, 50, 40, 60, 55, 1234)
        await peer.send(state, 3, 1)
        assert await take(room, State) == state
        assert (room.online, room.interval_ms, room.phase) == (50, 200, RoomPhase.PAUSED)


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


async def test_frames_for_rooms_we_are_not_in_are_counted(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer)
        await peer.send(event(), 99, 1, Lane.COMMERCE)
        await peer.send(tick("x"), 99, 1)
        await peer.send(Ack((AckResult(12345, Outcome.ACCEPTED),)), 3)
        await peer.send(event(), 3, 1, Lane.COMMERCE)
        await take(room, Event)
        assert client.strays == 3


async def test_a_room_nobody_asked_for_is_left(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        await peer.send(joined("surprise"), 8)
        assert (await peer.expect(Opcode.LEAVE)).room == 8
        assert client.strays == 1


# ---- posts


FATES = [
    (Outcome.ACCEPTED, 0, {}),
    (Outcome.MERGED, 0, {}),
    (Outcome.SAMPLED_OUT, 0, {}),
    (Outcome.LIMITED, 800, {"retry_after_ms": 800}),
    (Outcome.HELD, 0, {}),
    (Outcome.REJECTED, int(ErrorCode.DUPLICATE_TEXT), {"error_code": 204}),
    (Outcome.EXPIRED, 0, {}),
]


@pytest.mark.parametrize(("outcome", "detail", "fields"), FATES)
async def test_every_fate_is_told(outcome: Outcome, detail: int, fields: dict[str, int], autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        posting = Posting(nursery, room, "好看", client_msg_id="m1", style=(0, 0xFF0000, 1))
        post = await peer.expect(Opcode.POST)
        assert post.room == 3
        assert post.message == Post(1, "m1", ("好看", (0, 0xFF0000, 1)))
        await peer.ack(post, outcome, detail)
        assert await posting.fate() == PostResult(outcome, "m1", **fields)  # type: ignore[arg-type]


async def test_an_accepted_event_tells_its_offset(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        results: list[PostResult] = []

        async def announce() -> None:
            results.append(await room.post_announcement("welcome"))

        nursery.start_soon(announce)
        await peer.ack(await peer.expect(Opcode.POST), Outcome.ACCEPTED, 42)
        await trio.testing.wait_all_tasks_blocked()
        assert results[0].offset == 42


async def test_acks_find_their_posts_in_any_order(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        postings, frames = [], []
        for index in range(5):
            postings.append(Posting(nursery, room, f"text {index}"))
            frames.append(await peer.expect(Opcode.POST))
        details = [500, 400, 300, 200, 100]
        results = [AckResult(f.sequence, Outcome.LIMITED, d) for f, d in zip(frames, details, strict=True)]
        await peer.send(Ack(tuple(results[3:])), 3)
        await peer.send(Ack(tuple(reversed(results[:3]))), 3)
        assert [(await posting.fate()).retry_after_ms for posting in postings] == details


async def test_an_error_answers_a_post_too(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        for code, outcome in ((ErrorCode.BAD_FIELD, Outcome.REJECTED), (ErrorCode.RATE_LIMITED, Outcome.LIMITED)):
            posting = Posting(nursery, room)
            post = await peer.expect(Opcode.POST)
            await peer.send(ErrorReply(code, "no", "payload.text", 90), 3, post.sequence)
            result = await posting.fate()
            assert (result.outcome, result.error_code, result.field) == (outcome, code, "payload.text")
            assert (result.message, result.retry_after_ms) == ("no", 90)


async def test_an_error_that_nobody_waits_for_is_an_event(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        await peer.send(ErrorReply(999, "future"), 0, 4242)
        assert await take_until(client.events(), Fault) == Fault(999, "future", "", 0)


@pytest.mark.parametrize(
    ("text", "style", "words"),
    [
        ("", None, r"POST\.payload\.text: .*1 to 100"),
        ("x" * 101, None, r"POST\.payload\.text"),
        ("bell\x07", None, "control characters"),
        ("ok", (9, 0, 0), r"POST\.payload\.style"),
    ],
)
async def test_a_bad_post_is_refused_here(text: str, style: Any, words: str, autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer)
        with pytest.raises(LocalProtocolError, match=words):
            await room.post_danmaku(text, style)
        await _quiet(peer)


async def test_a_post_that_is_never_answered_ends_with_its_deadline(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        posting = Posting(nursery, room, timeout_s=4)
        post = await peer.expect(Opcode.POST)
        result = await posting.fate()
        assert result.is_lost
        assert result.sent
        await peer.ack(post, Outcome.ACCEPTED)
        await trio.testing.wait_all_tasks_blocked()
        assert client.strays == 1


async def test_message_ids_differ(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        ids = set()
        for _ in range(3):
            Posting(nursery, room, timeout_s=1)
            post = (await peer.expect(Opcode.POST)).message
            assert isinstance(post, Post)
            ids.add(post.client_msg_id)
        assert len(ids) == 3


# ---- likes


async def test_likes_are_summed_and_sent_once_a_second(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer)
        start = trio.current_time()
        for _ in range(7):
            room.like(3)
        post = await peer.expect(Opcode.POST)
        assert isinstance(post.message, Post)
        assert (post.message.type, post.message.payload) == (MessageType.LIKE, (21,))
        assert trio.current_time() - start == pytest.approx(1)
        room.like()
        await peer.ack(post, Outcome.ACCEPTED, 21)
        again = await peer.expect(Opcode.POST)
        assert isinstance(again.message, Post)
        assert again.message.payload == (1,)
        assert trio.current_time() - start >= 2
        await peer.ack(again, Outcome.ACCEPTED, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert room.likes.counted == 22
        assert room.likes.waiting == 0


async def test_limited_likes_wait_and_are_not_lost(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer)
        room.like(1000)
        room.like(500)
        first = await peer.expect(Opcode.POST)
        assert isinstance(first.message, Post)
        assert first.message.payload == (1000,)
        await peer.ack(first, Outcome.LIMITED, 5000)
        told = trio.current_time()
        second = await peer.expect(Opcode.POST)
        assert trio.current_time() - told >= 5
        await peer.ack(second, Outcome.ACCEPTED, 600)
        third = await peer.expect(Opcode.POST)
        assert isinstance(third.message, Post)
        assert third.message.payload == (500,)
        await peer.ack(third, Outcome.REJECTED, ErrorCode.ROOM_PAUSED)
        await trio.testing.wait_all_tasks_blocked()
        assert room.likes == (0, 600, 900, 0, 0)


async def test_likes_in_flight_when_the_link_is_lost_are_not_sent_twice_and_later_ones_wait(
    autojump_clock: Any,
) -> None:
    async with linked() as (client, peer, network):
        room = await join(client, peer)
        room.like(4)
        await peer.expect(Opcode.POST)
        await peer.vanish()
        await take_until(client.events(), Disconnected)
        room.like(3)
        peer = await network.accept()
        await peer.welcome()
        frame, _ = await peer.expect_resume()
        await peer.send(_resumed(), 3, frame.sequence)
        later = await peer.expect(Opcode.POST)
        assert isinstance(later.message, Post)
        assert later.message.payload == (3,)
        await peer.ack(later, Outcome.ACCEPTED, 3)
        await trio.testing.wait_all_tasks_blocked()
        assert room.likes == (0, 3, 0, 4, 0)


def _resumed(recovered: bool = True, gap_from: int = 0, **changes: Any) -> Any:
    return Resumed(recovered, gap_from, joined(**changes))


async def test_leaving_sends_the_last_likes_first(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        room.like(2)
        start = trio.current_time()
        nursery.start_soon(room.leave)
        post = await peer.expect(Opcode.POST)
        assert trio.current_time() == start
        await peer.ack(post, Outcome.ACCEPTED, 2)
        await peer.expect(Opcode.LEAVE)
        await peer.send(WireLeft(LeaveReason.REQUESTED), 3)
        with pytest.raises(LocalProtocolError):
            room.like()
        await trio.testing.wait_all_tasks_blocked()
        assert room.likes.counted == 2


async def test_likes_that_cannot_be_sent_are_counted(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer)
        await peer.vanish()
        await take_until(client.events(), Disconnected)
        room.like(3)
        await room.leave()
        assert room.likes == (0, 0, 0, 0, 3)


async def test_likes_whose_fate_is_never_told_are_counted_as_unknown(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer)
        room.like(5)
        await peer.expect(Opcode.POST)
        await trio.sleep(40)
        assert room.likes == (0, 0, 0, 5, 0)


@pytest.mark.parametrize("count", [0, -1, 1001, True, 1.5])
async def test_like_refuses_what_is_no_count(count: Any, autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer)
        with pytest.raises(LocalProtocolError):
            room.like(count)


# ---- direct messages and heartbeats


async def test_a_direct_message_is_acknowledged_when_it_was_shown(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        events = client.events()
        for direct_id in (1, 2):
            await peer.send(Direct(direct_id, 200, 5, "coupon"))
        assert (await take_until(events, Direct)).direct_id == 1
        await _quiet(peer)
        assert (await take(events, Direct)).direct_id == 2
        assert (await peer.expect(Opcode.ACK)).message == DirectAck(1)


async def test_a_repeated_direct_message_is_shown_once_and_acknowledged_again(autojump_clock: Any) -> None:
    async with linked() as (client, peer, network):
        events = client.events()
        await peer.send(Direct(1, 200, 5, "coupon"))
        await peer.send(Direct(2, 200, 5, "coupon"))
        assert (await take_until(events, Direct)).direct_id == 1
        await take(events, Direct)
        await peer.vanish()
        peer = await network.accept()
        await peer.welcome()
        await peer.send(Direct(1, 200, 5, "coupon"))
        assert (await peer.expect(Opcode.ACK)).message == DirectAck(1)
        await peer.send(Direct(2, 200, 5, "coupon"))
        await peer.send(Direct(1, 200, 6, "counted from one again, but new"))
        found = await take_until(events, Direct)
        assert (found.direct_id, found.at_ms) == (1, 6)


async def test_however_many_wait_to_be_shown_none_is_shown_twice(autojump_clock: Any) -> None:
    count = SEEN_DIRECTS + 100
    async with linked() as (client, peer, network):
        events = client.events()
        for direct_id in range(1, count + 1):
            await peer.send(Direct(direct_id, 200, 5, "coupon"))
        await peer.vanish()
        peer = await network.accept()
        await peer.welcome()
        for direct_id in range(1, count + 3):
            await peer.send(Direct(direct_id, 200, 5, "coupon"))
        found = [(await take_until(events, Direct)).direct_id for _ in range(count + 2)]
        assert found == list(range(1, count + 3))


async def test_an_old_acknowledgement_never_covers_a_message_that_was_not_shown(autojump_clock: Any) -> None:
    async with linked() as (client, peer, network):
        events = client.events()
        await peer.send(Direct(100, 200, 5, "of a broker that then lost its memory"))
        await take_until(events, Direct)
        for _ in range(2):
            await peer.vanish()
            peer = await network.accept()
            await peer.welcome()
            await peer.send(Direct(1, 200, 6, "new"))
        await take_until(events, Connected)
        await _quiet(peer)


async def test_direct_messages_nobody_reads_are_refused_without_a_hole(autojump_clock: Any) -> None:
    async with linked(inbox_items=2) as (client, peer, network):
        for direct_id in range(1, 5):
            await peer.send(Direct(direct_id, 200, 5, "coupon"))
        await trio.testing.wait_all_tasks_blocked()
        assert client.dropped_directs == 2
        events = client.events()
        assert [(await take_until(events, Direct)).direct_id for _ in range(2)] == [1, 2]
        await peer.send(Direct(5, 200, 5, "coupon"))
        await trio.testing.wait_all_tasks_blocked()
        assert client.dropped_directs == 3, "an acknowledgement of 5 would lose 3 and 4"
        await peer.vanish()
        peer = await network.accept()
        await peer.welcome()
        for direct_id in range(2, 6):
            await peer.send(Direct(direct_id, 200, 5, "coupon"))
        assert [(await take_until(events, Direct)).direct_id for _ in range(3)] == [3, 4, 5]


async def test_what_the_broker_dropped_for_a_slow_link_is_told(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        await peer.send(Direct(0, MessageType.MISSED, 5, (30, 2)))
        assert await take_until(client.events(), Missed) == Missed(30, 2, is_local=False)
        await peer.send(Direct(0, MessageType.MISSED, 5, "nonsense"))
        await peer.send(Direct(0, 200, 5, "unacknowledged"))
        assert (await take(client.events(), Direct)).payload == "unacknowledged"
        assert client.strays == 1


async def test_heartbeats_measure_the_brokers_clock(autojump_clock: Any) -> None:
    network = Network()
    async with client_of(network, wall_ms=lambda: round(trio.current_time() * 1000)) as client:
        peer = await network.accept()
        await peer.welcome()
        room = await join(client, peer)
        events = client.events()
        first = await peer.expect(Opcode.PING)
        assert isinstance(first.message, Ping)
        await trio.sleep(0.2)
        client._link.clock._samples.clear()  # type: ignore[union-attr]  # the HELLO's sample, of a made-up clock
        ahead_ms = 5000
        now_ms = round(trio.current_time() * 1000)
        await peer.send(Pong(first.message.client_ms, now_ms - 100 + ahead_ms, (RoomPulse(3, 77, 150),), 8))
        pulse = await take_until(events, Pulse)
        assert pulse.rtt_ms == pytest.approx(200)
        assert pulse.missed_chat == 8
        assert (room.online, room.interval_ms) == (77, 150)
        sent = trio.current_time()
        second = await peer.expect(Opcode.PING)
        assert trio.current_time() - sent <= 30
        assert isinstance(second.message, Ping)
        await trio.sleep(4)
        await peer.send(Pong(second.message.client_ms, round(trio.current_time() * 1000) + ahead_ms))
        assert (await take_until(events, Pulse)).rtt_ms == pytest.approx(4000)
        assert client.clock_offset_ms == pytest.approx(ahead_ms, abs=1), "the quicker round trip knows better"
        assert client.server_ms() == pytest.approx(trio.current_time() * 1000 + ahead_ms, abs=1)


# ---- the end


async def test_leaving_the_block_says_goodbye(autojump_clock: Any) -> None:
    network = Network()
    async with client_of(network) as client:
        peer = await network.accept()
        await peer.welcome()
        room = await join(client, peer)
    frames = await peer.rest()
    assert [frame.opcode for frame in frames] == [Opcode.GOAWAY]
    assert isinstance(frames[0].message, GoAway)
    assert frames[0].message.code == 4411
    assert [found async for found in room] == []
    assert client.closed is not None
    with pytest.raises(ClientClosed):
        await client.join("lobby")
    with pytest.raises(ClientClosed):
        await room.post_danmaku("x")


async def test_leaving_the_block_sends_the_last_likes(autojump_clock: Any) -> None:
    network = Network()
    async with trio.open_nursery() as nursery:
        async with client_of(network) as client:
            peer = await network.accept()
            await peer.welcome()
            room = await join(client, peer)
            room.like(5)
            nursery.start_soon(lambda: count_likes(peer, 5))
    assert room.likes == (0, 5, 0, 0, 0)


async def count_likes(peer: Peer, count: int) -> None:
    await peer.ack(await peer.expect(Opcode.POST), Outcome.ACCEPTED, count)


async def test_a_cancelled_application_still_says_goodbye(autojump_clock: Any) -> None:
    network = Network()
    with trio.CancelScope() as scope:
        async with client_of(network):
            peer = await network.accept()
            await peer.welcome()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert [frame.opcode for frame in await peer.rest()] == [Opcode.GOAWAY]


async def test_the_applications_exception_is_not_wrapped(autojump_clock: Any) -> None:
    class OurError(Exception):
        pass

    network = Network()
    with pytest.raises(OurError):
        async with client_of(network):
            raise OurError
    group = ExceptionGroup("two", [ValueError(), OurError()])
    with pytest.raises(ExceptionGroup) as caught:
        async with client_of(network):
            raise group
    assert caught.value is group


async def test_a_goodbye_that_nobody_reads_has_a_deadline(autojump_clock: Any) -> None:
    network = Network(trio.testing.lockstep_stream_pair)
    start = trio.current_time()
    async with client_of(network):
        await network.accept()
    assert trio.current_time() - start < 5


async def test_a_closed_client_can_be_left_before_it_began(autojump_clock: Any) -> None:
    network = Network()
    async with client_of(network):
        pass
    with trio.CancelScope() as scope:
        scope.cancel()
        async with client_of(network):
            await trio.sleep_forever()
    assert scope.cancelled_caught
