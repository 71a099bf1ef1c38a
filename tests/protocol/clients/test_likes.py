"""Likes of a client against a scripted broker: summed, always accounted for, never sent twice."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from protocol.clients import Disconnected
from protocol.codes import ErrorCode, LeaveReason, MessageType, Opcode, Outcome
from protocol.errors import LocalProtocolError
from protocol.messages import Left as WireLeft
from protocol.messages import Post, Resumed
from tests.support.peer import join, joined, linked, take_until


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
        limited_at = trio.current_time()
        second = await peer.expect(Opcode.POST)
        assert trio.current_time() - limited_at >= 5
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


async def test_leaving_sends_the_remaining_likes_first(autojump_clock: Any) -> None:
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


async def test_likes_whose_outcome_is_never_reported_are_counted_as_unknown(autojump_clock: Any) -> None:
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
