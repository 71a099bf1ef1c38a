"""Every kind of lost link: the client reconnects, and no event is lost or repeated."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing

from protocol.clients import (
    Client,
    ClientClosed,
    Connected,
    Danmaku,
    Disconnected,
    Gap,
    JoinedRoom,
    Position,
    PostResult,
    Rejoined,
    RoomMap,
    RoomRefused,
    StreamEvent,
)
from protocol.codes import ErrorCode, KeyCause, Lane, MessageType, Opcode, Outcome, Tier
from protocol.connection import encode
from protocol.messages import Authenticated, ErrorReply, GoAway, Join, Pong, Resume, Resumed, RoomKey
from protocol.payloads import KeyChange, KeysPayload
from tests.support.peer import (
    NO_ROUTE,
    Network,
    Peer,
    Posting,
    client_of,
    event,
    join,
    joined,
    linked,
    server_hello,
    take,
    take_until,
    tick,
)


async def back(network: Network) -> Peer:
    peer = await network.accept()
    await peer.welcome()
    return peer


async def resume(peer: Peer, recovered: bool = True, number: int = 3, gap_from: int = 0, **changes: Any) -> Resume:
    frame, asked = await peer.expect_resume()
    await peer.send(Resumed(recovered, gap_from, joined(asked.room_name, **changes)), number, frame.sequence)
    return asked


# ---- every kind of loss


async def test_an_abrupt_loss_is_followed_by_a_new_link_after_a_jittered_delay(autojump_clock: Any) -> None:
    async with linked() as (client, peer, network):
        start = trio.current_time()
        await peer.vanish()
        lost = await take_until(client.events(), Disconnected)
        assert lost.code is None
        assert lost.retry_in_s is not None
        await back(network)
        assert network.attempts[-1][0] - start == pytest.approx(lost.retry_in_s)
        assert 0.5 <= lost.retry_in_s <= 1
        assert (await take(client.events(), Connected)).attempts == 1


async def test_it_backs_off_while_there_is_no_broker_and_never_stops(autojump_clock: Any) -> None:
    async with linked() as (client, peer, network):
        network.plan = [NO_ROUTE, OSError("custom"), trio.BrokenResourceError()] * 15
        await peer.vanish()
        await back(network)
        await client.wait_connected()
        times = [at for at, _, _ in network.attempts]
        waits = [later - earlier for earlier, later in pairwise(times)]
        assert len(waits) == 46
        assert all(0.5 <= wait <= 30 for wait in waits)
        assert max(waits) > 15


async def test_a_silent_broker_is_cut(autojump_clock: Any) -> None:
    network = Network()
    async with client_of(network) as client:
        peer = await network.accept()
        await peer.welcome(server_hello(heartbeat_ms=10_000, cut_ms=25_000))
        await client.wait_connected()
        start = trio.current_time()
        lost = await take_until(client.events(), Disconnected)
        assert trio.current_time() - start == pytest.approx(25)
        assert "no byte from the peer for" in lost.reason
        pings = [frame for frame in await peer.rest() if frame.opcode is Opcode.PING]
        assert len(pings) >= 2


async def test_any_frame_ends_the_silence(autojump_clock: Any) -> None:
    network = Network()
    async with client_of(network) as client:
        peer = await network.accept()
        await peer.welcome(server_hello(heartbeat_ms=10_000, cut_ms=25_000))
        room = await join(client, peer)
        for number in range(10):
            await trio.sleep(20)
            await peer.send(tick("hi"), 3, number)
            await take(room, Danmaku)
        assert client.is_connected


async def test_no_broker_can_set_an_absurd_heartbeat(autojump_clock: Any) -> None:
    network = Network()
    async with client_of(network) as client:
        peer = await network.accept()
        await peer.welcome(server_hello(heartbeat_ms=0, cut_ms=0))
        await client.wait_connected()
        start = trio.current_time()
        for _ in range(3):
            ping = await peer.expect(Opcode.PING)
            await peer.send(Pong(0, 0), 0, ping.sequence)
        assert trio.current_time() - start > 2, "pings are a second apart at least"


async def test_a_handshake_has_a_timeout(autojump_clock: Any) -> None:
    network = Network()
    async with client_of(network, handshake_timeout_s=6) as client:
        peer = await network.accept()
        await peer.expect(Opcode.HELLO)
        await trio.sleep(5)
        await peer.send(server_hello())
        lost = await take_until(client.events(), Disconnected)
        assert trio.current_time() == pytest.approx(6)
        assert "6 s" in lost.reason
        await back(network)
        await client.wait_connected()


async def test_connecting_has_a_timeout(autojump_clock: Any) -> None:
    async def connect(nursery: trio.Nursery, address: Any) -> Any:
        await trio.sleep_forever()

    async with client_of(connect, handshake_timeout_s=6) as client:  # type: ignore[arg-type]
        lost = await take_until(client.events(), Disconnected)
        assert "6 s" in lost.reason


async def test_another_protocol_version_is_not_final(autojump_clock: Any) -> None:
    network = Network()
    async with client_of(network) as client:
        peer = await network.accept()
        await peer.expect(Opcode.HELLO)
        await peer.send_bytes(
            peer.connection.send(server_hello()._replace(version=9))
            + encode(Authenticated("u", ""), 0, 0, Lane.CONTROL)
        )
        lost = await take(client.events(), Disconnected)
        assert "version 9" in lost.reason
        assert lost.retry_in_s is not None


NONSENSE = [
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"\x00\x00\x00\x04\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00",
    b"\x00\xff\xff\xff\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00",
    b"\x00\x00\x00\x11\x01\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\xc1",
    b"\x00\x00\x00\x11\x01\x02\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\xff",
]


@pytest.mark.parametrize("nonsense", NONSENSE)
@pytest.mark.parametrize("when", ["at once", "later"])
async def test_invalid_bytes_of_the_broker_end_the_link_and_nothing_else(
    nonsense: bytes, when: str, autojump_clock: Any
) -> None:
    network = Network()
    async with client_of(network) as client:
        peer = await network.accept()
        if when == "later":
            await peer.welcome()
            await client.wait_connected()
        await peer.send_bytes(nonsense)
        lost = await take_until(client.events(), Disconnected)
        assert lost.code is None, "a code that this side chose would be taken for the peer's, and be terminal"
        assert lost.retry_in_s is not None
        assert lost.retry_in_s >= 0.5
        last = (await peer.rest())[-1].message
        assert isinstance(last, GoAway)
        assert 4400 <= last.code < 4500, "the peer gets the code of its violation"
        await back(network)
        await client.wait_connected()


async def test_a_terminal_goaway_is_read_though_writing_fails_first(autojump_clock: Any) -> None:
    network = Network()
    async with client_of(network) as client:
        peer = await network.accept()
        await peer.welcome(server_hello(heartbeat_ms=2000, cut_ms=60_000))
        room = await join(client, peer)
        # The broker closes; its GOAWAY is read only after the client's next write has failed.
        peer.stream.receive_stream.close()  # type: ignore[attr-defined]
        await trio.sleep(2.5)
        await peer.send(GoAway(4410, "kicked"))
        with pytest.raises(ClientClosed) as caught:
            await anext(room)
        assert caught.value.code == 4410


# ---- close codes


@pytest.mark.parametrize("code", [1000, 1006, 3999, 4000, 4001, 4199, 4200, 4399, 4600, 4999])
async def test_it_reconnects_after(code: int, autojump_clock: Any) -> None:
    async with linked() as (client, peer, network):
        await peer.goaway(code)
        lost = await take_until(client.events(), Disconnected)
        assert (lost.code, lost.reason) == (code, "scripted")
        await back(network)
        await client.wait_connected()


@pytest.mark.parametrize("code", [4400, 4408, 4410, 4599])
async def test_it_ends_after(code: int, autojump_clock: Any) -> None:
    async with linked() as (client, peer, network):
        room = await join(client, peer)
        await peer.goaway(code)
        with pytest.raises(ClientClosed) as caught:
            await anext(room)
        assert caught.value.code == code
        with pytest.raises(ClientClosed):
            await client.join("other")
        with pytest.raises(ClientClosed):
            await room.post_danmaku("x")
        with pytest.raises(ClientClosed):
            await client.wait_connected()
        assert [found.retry_in_s async for found in client.events() if isinstance(found, Disconnected)] == [None]
        await trio.sleep(3600)
        assert len(network.attempts) == 1


async def test_a_drain_is_spread_as_the_broker_says(autojump_clock: Any) -> None:
    async with linked() as (_, peer, network):
        start = trio.current_time()
        await peer.goaway(4000, retry_after_ms=3000, jitter_ms=20_000)
        await back(network)
        assert 3 <= trio.current_time() - start <= 23


async def test_other_hosts_are_tried_and_then_the_first_address(autojump_clock: Any) -> None:
    async with linked() as (client, peer, network):
        network.plan = [NO_ROUTE, NO_ROUTE]
        await peer.goaway(4000, hosts=("b2:7500", "not a host/at all", "b3"))
        await back(network)
        await client.wait_connected()
        assert {attempt[1:] for attempt in network.attempts[1:]} == {("b2", 7500), ("b3", 7400), ("broker", 7400)}


async def test_without_reconnect_the_first_loss_is_the_end(autojump_clock: Any) -> None:
    async with linked(reconnect=False) as (client, peer, network):
        room = await join(client, peer)
        await peer.vanish()
        with pytest.raises(ClientClosed) as caught:
            await anext(room)
        assert caught.value.code is None
        assert len(network.attempts) == 1


# ---- resume


async def test_it_resumes_from_the_last_event_and_drops_repeated_events(autojump_clock: Any) -> None:
    async with linked() as (client, peer, network):
        room = await join(client, peer, epoch=7, offset=10)
        for offset in (11, 12):
            await peer.send(event(str(offset)), 3, offset, Lane.COMMERCE)
            assert (await take(room, StreamEvent)).offset == offset
        await peer.vanish()
        peer = await back(network)
        asked = await resume(peer, epoch=7, offset=14, number=8)
        assert asked == Resume("lobby", Tier.FULL, 7, 12)
        for offset in (11, 12, 13, 14, 13, 15):
            await peer.send(event(str(offset)), 8, offset, Lane.PAID)
        assert (await take(room, Rejoined)).recovered
        assert [(await take(room, StreamEvent)).offset for _ in range(3)] == [13, 14, 15]
        assert room.duplicates == 3
        assert room.gaps == 0
        assert room.recovered is True
        assert room.position == (7, 15)
        assert room.number == 8


async def test_unread_events_do_not_come_twice(autojump_clock: Any) -> None:
    async with linked() as (client, peer, network):
        room = await join(client, peer)
        for offset in (1, 2, 3):
            await peer.send(event(), 3, offset, Lane.CONTROL)
        await peer.vanish()
        peer = await back(network)
        assert (await resume(peer, offset=3)).offset == 3
        await peer.send(event(), 3, 4, Lane.CONTROL)
        found = [await anext(room) for _ in range(5)]
        assert [each.offset for each in found if isinstance(each, StreamEvent)] == [1, 2, 3, 4]


@pytest.mark.parametrize("size", [1, 4])
async def test_a_gap_is_reported_before_the_events_after_it(size: int, autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer, offset=4)
        await peer.send(event(), 3, 5 + size, Lane.COMMERCE)
        assert await take(room, Gap) == Gap(5, 4 + size)
        assert (await take(room, StreamEvent)).offset == 5 + size
        assert room.gaps == 1


async def test_a_resume_that_did_not_recover_names_the_gap(autojump_clock: Any) -> None:
    async with linked() as (client, peer, network):
        room = await join(client, peer, offset=4)
        await peer.vanish()
        peer = await back(network)
        await resume(peer, recovered=False, gap_from=5, offset=900)
        assert not (await take(room, Rejoined)).recovered
        assert await take(room, Gap) == Gap(5, 900)
        await peer.send(event(), 3, 901, Lane.COMMERCE)
        assert (await take(room, StreamEvent)).offset == 901
        assert room.recovered is False


async def test_an_unrecovered_resume_that_missed_nothing_has_no_gap(autojump_clock: Any) -> None:
    async with linked() as (client, peer, network):
        room = await join(client, peer, offset=4)
        await peer.vanish()
        await resume(await back(network), recovered=False, offset=4)
        await take(room, Rejoined)
        assert room.gaps == 0


@pytest.mark.parametrize("claim", [True, False])
async def test_another_epoch_is_a_gap_whatever_the_broker_claims(claim: bool, autojump_clock: Any) -> None:
    async with linked() as (client, peer, network):
        room = await join(client, peer, epoch=7, offset=400)
        await peer.vanish()
        peer = await back(network)
        await resume(peer, recovered=claim, epoch=8, offset=2)
        assert not (await take(room, Rejoined)).recovered
        assert await take(room, Gap) == Gap(1, 2, epoch_changed=True)
        await peer.send(event(), 3, 3, Lane.COMMERCE)
        assert (await take(room, StreamEvent)).offset == 3, "a low offset of a new epoch is not a duplicate"


async def test_a_stream_that_went_backwards_is_a_new_one(autojump_clock: Any) -> None:
    async with linked() as (client, peer, network):
        room = await join(client, peer, epoch=7, offset=400)
        await peer.vanish()
        peer = await back(network)
        await resume(peer, recovered=True, epoch=7, offset=2)
        await take(room, Rejoined)
        assert (await take(room, Gap)).epoch_changed
        await peer.send(event(), 3, 3, Lane.COMMERCE)
        await take(room, StreamEvent)


async def test_a_position_of_another_process_is_resumed(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        rooms: list[JoinedRoom] = []

        async def come_back() -> None:
            rooms.append(await client.join("lobby", position=Position(7, 30)))

        nursery.start_soon(come_back)
        assert (await resume(peer, offset=31)).offset == 30
        await peer.send(event(), 3, 31, Lane.COMMERCE)
        await trio.testing.wait_all_tasks_blocked()
        (room,) = rooms
        assert room.recovered is True
        assert (await take(room, StreamEvent)).offset == 31


async def test_all_rooms_are_requested_in_the_first_write(autojump_clock: Any) -> None:
    async with linked() as (client, peer, network):
        for number in range(1, 5):
            await join(client, peer, f"room{number}", number=number)
        await peer.vanish()
        peer = await network.accept()
        await trio.testing.wait_all_tasks_blocked()
        await peer.expect(Opcode.HELLO)
        await peer.expect(Opcode.AUTH)
        names = [(await peer.expect_resume())[1].room_name for _ in range(4)]
        assert names == ["room1", "room2", "room3", "room4"]
        assert peer.received == 1


async def test_a_room_that_is_refused_on_return_ends_its_iteration(autojump_clock: Any) -> None:
    async with linked() as (client, peer, network):
        room = await join(client, peer)
        await peer.vanish()
        peer = await back(network)
        frame, _ = await peer.expect_resume()
        await peer.send(ErrorReply(ErrorCode.ROOM_NOT_GRANTED, "no longer"), 0, frame.sequence)
        with pytest.raises(RoomRefused, match="no longer"):
            await anext(room)
        assert client.is_connected


async def test_a_room_that_is_full_for_now_is_requested_again(autojump_clock: Any) -> None:
    async with linked() as (client, peer, network):
        room = await join(client, peer)
        await peer.vanish()
        peer = await back(network)
        start = trio.current_time()
        for _ in range(8):
            frame, _ = await peer.expect_resume()
            await peer.send(ErrorReply(ErrorCode.ROOM_FULL, "full"), 0, frame.sequence)
        await resume(peer)
        await take(room, Rejoined)
        assert trio.current_time() - start > 15, "it backs off"


async def test_a_delay_of_an_earlier_link_does_not_shorten_a_later_one(autojump_clock: Any) -> None:
    async with linked() as (client, peer, network):
        await join(client, peer)
        for retry_after_ms in (100_000, 500_000):
            await peer.vanish()
            peer = await back(network)
            frame, _ = await peer.expect_resume()
            await peer.send(ErrorReply(ErrorCode.OVERLOADED, "later", "", retry_after_ms), 0, frame.sequence)
        start = trio.current_time()
        with trio.move_on_after(490) as scope:
            while True:
                ping = await peer.expect(Opcode.PING)
                await peer.send(Pong(0, 0), 0, ping.sequence)
        assert scope.cancelled_caught
        assert trio.current_time() == start + 490


async def test_a_link_lost_while_joining_does_not_disturb_the_join(autojump_clock: Any) -> None:
    async with linked() as (client, peer, network), trio.open_nursery() as nursery:
        nursery.start_soon(_joins, client)
        await peer.expect(Opcode.JOIN)
        await peer.vanish()
        peer = await back(network)
        assert (await peer.expect(Opcode.JOIN)).message == Join("lobby")
        await peer.send(joined(), 3)


async def _joins(client: Client) -> None:
    room = await client.join("lobby")
    assert room.is_joined


async def test_a_join_before_the_first_link_waits_for_it(autojump_clock: Any) -> None:
    network = Network()
    network.plan = [NO_ROUTE] * 3
    async with client_of(network) as client, trio.open_nursery() as nursery:
        nursery.start_soon(_joins, client)
        peer = await back(network)
        await peer.admit()


async def test_a_room_left_while_the_link_is_down_is_not_requested_again(autojump_clock: Any) -> None:
    async with linked() as (client, peer, network):
        room = await join(client, peer)
        await peer.vanish()
        await take_until(client.events(), Disconnected)
        assert room.number == 0
        await room.leave()
        peer = await back(network)
        with trio.move_on_after(3) as scope:
            await peer.next_frame()
        assert scope.cancelled_caught


# ---- posts across a loss


async def test_an_open_post_of_a_lost_link_has_no_known_outcome(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        posting = Posting(nursery, room, client_msg_id="m1")
        await peer.expect(Opcode.POST)
        start = trio.current_time()
        await peer.vanish()
        assert await posting.wait_result() == PostResult(None, "m1", sent=True)
        assert trio.current_time() == start
        idle = Posting(nursery, room, client_msg_id="m2")
        assert await idle.wait_result() == PostResult(None, "m2", sent=False)


async def test_a_post_with_retry_is_sent_again_under_the_same_id(autojump_clock: Any) -> None:
    async with linked() as (client, peer, network), trio.open_nursery() as nursery:
        room = await join(client, peer)
        posting = Posting(nursery, room, retry=True)
        first = await peer.expect(Opcode.POST)
        await peer.vanish()
        peer = await back(network)
        await resume(peer, number=9)
        second = await peer.expect(Opcode.POST)
        assert second.message == first.message
        assert second.room == 9
        await peer.ack(second, Outcome.MERGED)
        assert (await posting.wait_result()).outcome is Outcome.MERGED


async def test_a_post_with_retry_still_has_its_timeout(autojump_clock: Any) -> None:
    async with linked() as (client, peer, network), trio.open_nursery() as nursery:
        room = await join(client, peer)
        network.plan = [NO_ROUTE] * 100
        await peer.vanish()
        await take_until(client.events(), Disconnected)
        start = trio.current_time()
        result = await Posting(nursery, room, retry=True, timeout_s=12).wait_result()
        assert (result.is_lost, result.sent) == (True, False)
        assert trio.current_time() - start == pytest.approx(12)


async def test_an_open_post_of_a_client_that_ends_has_no_known_outcome(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        posting = Posting(nursery, room, retry=True)
        await peer.expect(Opcode.POST)
        await peer.goaway(4410)
        assert (await posting.wait_result()).is_lost


async def test_a_new_token_is_sent_on_the_next_link(autojump_clock: Any) -> None:
    async with linked(token="old") as (client, peer, network):
        client.set_token("new")
        await peer.vanish()
        peer = await network.accept()
        await peer.expect(Opcode.HELLO)
        assert (await peer.expect(Opcode.AUTH)).message == ("new",)


def keys_changed(name: str, version: int, value: Any, cause: KeyCause = KeyCause.SET) -> Any:
    return event(type=MessageType.KEYS_CHANGED, payload=KeysPayload((KeyChange(name, version, value, cause),)))


async def test_the_keys_of_a_room_are_live_and_survive_a_lost_link(autojump_clock: Any) -> None:
    async with linked() as (client, peer, network):
        room = await join(client, peer, keys=(RoomKey("price", 100, 1), RoomKey("old", "x", 2)))
        assert {name: key.value for name, key in room.keys.items()} == {"price": 100, "old": "x"}
        await peer.send(keys_changed("price", 3, 90), 3, 1, Lane.COMMERCE)
        await take(room, StreamEvent)
        assert room.keys["price"] == RoomKey("price", 90, 3)
        await peer.vanish()
        peer = await back(network)
        await resume(peer, offset=2, keys_more=2)
        await peer.send(keys_changed("old", 4, None, KeyCause.DELETED), 3, 2, Lane.COMMERCE)
        await take_until(room, StreamEvent)
        assert dict(room.keys) == {"price": RoomKey("price", 90, 3)}
        await peer.vanish()
        peer = await back(network)
        await resume(peer, recovered=False, gap_from=3, offset=9, keys=(RoomKey("new", 1, 8),), keys_more=3)
        await take_until(room, Gap)
        assert dict(room.keys) == {"new": RoomKey("new", 1, 8)}
        assert room.keys.missing == 3


async def test_a_client_that_begins_with_a_position_knows_that_it_has_no_keys_yet(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(resume, peer, True, 3, 0)
            room = await client.join("lobby", position=Position(7, 0))
        assert (dict(room.keys), room.keys.missing) == ({}, 0)


def test_keys_that_are_fetched_bring_nothing_back_that_was_deleted() -> None:
    keys = RoomMap()
    keys.restart((RoomKey("a", 1, 1),), 2)
    keys.apply((KeyChange("b", 5, None, KeyCause.DELETED), KeyChange("a", 6, 2, KeyCause.SET)))
    keys.merge((RoomKey("a", 1, 1), RoomKey("b", 1, 2), RoomKey("c", 1, 3)), is_all=True)
    assert {name: key.version for name, key in keys.items()} == {"a": 6, "c": 3}
    assert keys.missing == 0
