"""An application that reads too slowly: which events are dropped, when reading stops, and what still works."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from protocol.clients import Connected, Danmaku, Direct, Disconnected, MessagesMissed, PostResult, Rejoined, StreamEvent
from protocol.clients.client import core_of
from protocol.codes import Lane, Opcode, Outcome
from protocol.messages import Resumed
from tests.support.peer import (
    Network,
    Peer,
    Posting,
    client_of,
    count_likes,
    event,
    join,
    joined,
    linked,
    server_hello,
    take,
    take_until,
    tick,
)

ITEMS = 10


async def test_danmaku_are_dropped_oldest_first_and_the_next_event_says_so(autojump_clock: Any) -> None:
    async with linked(inbox_items=ITEMS) as (client, peer, _):
        room = await join(client, peer)
        for number in range(30):
            await peer.send(tick(str(number)), 3, number)
        await trio.testing.wait_all_tasks_blocked()
        assert room.dropped == 20
        assert await take(room, MessagesMissed) == MessagesMissed(20, 0, is_local=True)
        assert [(await take(room, Danmaku)).text for _ in range(ITEMS)] == [str(n) for n in range(20, 30)]


async def test_commerce_is_never_dropped_and_stops_the_reader(autojump_clock: Any) -> None:
    async with linked(inbox_items=ITEMS) as (client, peer, _):
        room = await join(client, peer)
        for offset in range(1, 51):
            await peer.send(tick("chat"), 3, offset)
            await peer.send(event(), 3, offset, Lane.COMMERCE)
        await trio.testing.wait_all_tasks_blocked()
        assert room.position == (7, ITEMS), "the rest was not taken from the socket"
        offsets: list[int] = []
        while len(offsets) < 50:
            found = await anext(room)
            if isinstance(found, StreamEvent):
                offsets.append(found.offset)
        assert offsets == list(range(1, 51))


async def test_bytes_stop_the_reader_too(autojump_clock: Any) -> None:
    async with linked(inbox_bytes=20_000) as (client, peer, _):
        room = await join(client, peer)
        for offset in range(1, 11):
            await peer.send(event("x" * 5000), 3, offset, Lane.COMMERCE)
        await trio.testing.wait_all_tasks_blocked()
        assert room.position == (7, 4)
        assert [(await take(room, StreamEvent)).offset for _ in range(10)] == list(range(1, 11))


async def test_a_link_that_is_not_read_is_not_taken_for_a_dead_one(autojump_clock: Any) -> None:
    network = Network()
    async with client_of(network, inbox_items=ITEMS) as client:
        peer = await network.accept()
        await peer.welcome(server_hello(heartbeat_ms=5000, cut_ms=15_000))
        room = await join(client, peer)
        for offset in range(1, 21):
            await peer.send(event(), 3, offset, Lane.COMMERCE)
        await trio.sleep(200)
        assert client.is_connected
        for _ in range(20):
            await peer.expect(Opcode.PING)
        for offset in range(1, 21):
            assert (await take(room, StreamEvent)).offset == offset


async def test_a_link_that_is_not_read_and_closed_by_the_broker_is_resumed(autojump_clock: Any) -> None:
    async with linked(inbox_items=ITEMS) as (client, peer, network):
        room = await join(client, peer)
        for offset in range(1, 41):
            await peer.send(event(), 3, offset, Lane.COMMERCE)
        await peer.vanish()
        peer = await network.accept()
        await peer.welcome()
        frame, asked = await peer.expect_resume()
        assert asked.offset == ITEMS, "what was not put in the inbox counts as not received"
        await peer.send(Resumed(True, 0, joined(offset=40)), 3, frame.sequence)
        for offset in range(ITEMS + 1, 41):
            await peer.send(event(), 3, offset, Lane.COMMERCE)
        found = [await anext(room) for _ in range(41)]
        assert [each.offset for each in found if isinstance(each, StreamEvent)] == list(range(1, 41))
        assert isinstance(found[ITEMS], Rejoined)
        assert room.gaps == 0


async def test_a_room_that_is_not_read_can_still_be_left_and_posted_to(autojump_clock: Any) -> None:
    async with linked(inbox_items=ITEMS) as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        for offset in range(1, 21):
            await peer.send(event(), 3, offset, Lane.COMMERCE)
        posting = Posting(nursery, room, timeout_s=5)
        post = await peer.expect(Opcode.POST)
        await peer.ack(post, Outcome.ACCEPTED)
        assert (await posting.wait_result()).is_lost, "its answer is behind unread events"
        start = trio.current_time()
        nursery.start_soon(room.leave)
        left = await peer.expect(Opcode.LEAVE)
        assert left.room == 3
        await trio.testing.wait_all_tasks_blocked()
        other = await join(client, peer, "other", number=4)
        assert trio.current_time() == start
        assert other.is_joined


async def test_leaving_a_room_that_is_not_read_still_gets_its_likes_counted(autojump_clock: Any) -> None:
    async with linked(inbox_items=ITEMS) as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        for offset in range(1, 21):
            await peer.send(event(), 3, offset, Lane.COMMERCE)
        room.like(2)
        nursery.start_soon(room.leave)
        await peer.ack(await peer.expect(Opcode.POST), Outcome.ACCEPTED, 2)
        await peer.expect(Opcode.LEAVE)
        assert room.likes.counted == 2


async def test_leaving_the_block_does_not_wait_for_the_reader(autojump_clock: Any) -> None:
    network = Network()
    async with trio.open_nursery() as nursery:
        async with client_of(network, inbox_items=ITEMS) as client:
            peer = await network.accept()
            await peer.welcome()
            room = await join(client, peer)
            for offset in range(1, 21):
                await peer.send(event(), 3, offset, Lane.COMMERCE)
            await trio.testing.wait_all_tasks_blocked()
            room.like(2)
            start = trio.current_time()
            nursery.start_soon(count_likes, peer, 2)
        assert trio.current_time() == start
    assert room.likes == (0, 2, 0, 0, 0)
    assert [frame.opcode for frame in await peer.rest()] == [Opcode.GOAWAY]


async def test_direct_messages_stop_the_reading_of_the_link_once_the_application_reads_them(
    autojump_clock: Any,
) -> None:
    async with linked(inbox_items=ITEMS) as (client, peer, _):
        events = client.events()
        for direct_id in range(1, 31):
            await peer.send(Direct(direct_id, 200, 5, "coupon"))
        await trio.testing.wait_all_tasks_blocked()
        assert client.dropped_directs == 0
        assert [(await take_until(events, Direct)).direct_id for _ in range(30)] == list(range(1, 31))


async def test_unread_changes_of_the_link_are_bounded(autojump_clock: Any) -> None:
    async with linked(inbox_items=ITEMS) as (client, peer, network):
        for _ in range(20):
            await peer.vanish()
            peer = await network.accept()
            await peer.welcome()
        await client.wait_connected()
        assert client.dropped == 41 - ITEMS
        await take(client.events(), Disconnected)


async def test_a_peer_that_talks_but_takes_no_bytes_is_cut_too(autojump_clock: Any) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    network = Network(lambda: (trio.StapledStream(ours.send_stream, inward[1]), inward_peer(theirs, inward[0])))
    inward = trio.testing.memory_stream_one_way_pair()
    async with client_of(network) as client:
        peer = await network.accept()
        await peer.welcome(server_hello(heartbeat_ms=10_000, cut_ms=25_000))
        room = await join(client, peer)
        start = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):
            await chatter(peer)
        lost = await take_until(client.events(), Disconnected)
        assert "took no bytes" in lost.reason
        assert room.number == 0
        assert trio.current_time() - start <= 45


async def chatter(peer: Peer) -> None:
    for number in range(100):
        await peer.send(tick("x"), 3, number)
        await trio.sleep(5)


def inward_peer(theirs: Any, towards_client: Any) -> trio.StapledStream[Any, Any]:
    return trio.StapledStream(towards_client, theirs.receive_stream)


async def test_a_peer_that_takes_no_bytes_is_cut_and_posts_end(autojump_clock: Any) -> None:
    network = Network(trio.testing.lockstep_stream_pair)
    async with client_of(network) as client, trio.open_nursery() as nursery:
        peer = await network.accept()
        await peer.welcome(server_hello(heartbeat_ms=10_000, cut_ms=25_000))
        room = await join(client, peer)
        posting = Posting(nursery, room)
        lost = await take_until(client.events(), Disconnected)
        assert "25 s" in lost.reason
        assert (await posting.wait_result()).is_lost


async def test_posts_wait_for_a_full_outbox(autojump_clock: Any) -> None:
    network = Network(trio.testing.lockstep_stream_pair)
    async with client_of(network) as client, trio.open_nursery() as nursery:
        peer = await network.accept()
        await peer.welcome()
        room = await join(client, peer)
        results: list[PostResult] = []

        async def post() -> None:
            results.append(await room.post(200, "x" * 4000, timeout_s=1000))

        for _ in range(100):
            nursery.start_soon(post)
        await trio.testing.wait_all_tasks_blocked()
        link = core_of(client).link
        assert link is not None
        assert 64 * 1024 < link.outbox_bytes < 64 * 1024 + 4200
        start = trio.current_time()
        await peer.vanish()
        await take_until(client.events(), Disconnected)
        await trio.testing.wait_all_tasks_blocked()
        assert len(results) == 100, "posts in the outbox and before it end too"
        assert all(result.is_lost for result in results)
        assert sum(result.sent for result in results) < 30
        assert trio.current_time() - start < 5


async def test_an_application_that_stops_reading_stops_no_link_and_acknowledges_nothing(autojump_clock: Any) -> None:
    async with linked(inbox_items=ITEMS) as (client, peer, _):
        events = client.events()
        await take_until(events, Connected)
        events.stop()
        for direct_id in range(1, 31):
            await peer.send(Direct(direct_id, 200, 5, "coupon"))
        await trio.testing.wait_all_tasks_blocked()
        assert client.dropped_directs == 20
    assert [frame.opcode for frame in await peer.rest()] == [Opcode.GOAWAY]
