from __future__ import annotations

import pytest

from broker.sessions.connections import SharedConnections
from broker.sessions.parts import NO_PARTS
from protocol.codes import Lane, MessageType
from protocol.connection import NEED_DATA, Encoding, encode
from protocol.messages import GoAway, Ping, Pong, Post, Side
from protocol.state import LinkState
from tests.support.broker import RawLink, joined_link, running_broker, sessions_of
from tests.support.until import until


@pytest.mark.parametrize("encoding", Encoding)
def test_a_connection_that_is_given_back_serves_the_next_link(encoding: Encoding) -> None:
    shared = SharedConnections()
    first = shared.take(encoding)
    assert shared.take(encoding) is not first, "one link alone has it"
    assert (first.side, first.encoding) == (Side.SERVER, encoding)
    assert first.local_state is first.peer_state is LinkState.OPEN
    assert shared.give_back(first)
    assert shared.take(encoding) is first


def test_a_connection_with_a_part_of_a_frame_stays_with_its_link() -> None:
    shared = SharedConnections()
    connection = shared.take(Encoding.BINARY)
    frame = encode(Ping(1), 0, 1, Lane.CONTROL)
    connection.receive_data(frame + frame[:17])
    assert not shared.give_back(connection), "a whole frame waits"
    connection.next_event()
    assert connection.next_event() is NEED_DATA
    assert not shared.give_back(connection), "the rest would begin the frame of another link"
    connection.receive_data(frame[17:])
    connection.next_event()
    assert connection.next_event() is NEED_DATA
    assert shared.give_back(connection)


def test_a_connection_of_a_link_that_ends_or_skips_bytes_is_not_shared() -> None:
    shared = SharedConnections()
    ended = shared.take(Encoding.BINARY)
    ended.send(GoAway(4000, "enough"))
    assert not shared.give_back(ended)
    skipping = shared.take(Encoding.BINARY)
    oversized = encode(Post(MessageType.DANMAKU, "m", ("x" * 9000,)), 1, 1, Lane.CONTROL)
    skipping.receive_data(oversized[:100])
    skipping.next_event()
    assert skipping.next_event() is NEED_DATA
    assert not shared.give_back(skipping)
    failed = shared.take(Encoding.JSON)
    failed.receive_text("no JSON")
    assert not shared.give_back(failed)


async def ping(link: RawLink, number: int, part: slice = slice(None)) -> None:
    await link.stream.send_all(encode(Ping(number), 0, number, Lane.CONTROL)[part])


@pytest.mark.integration
async def test_links_whose_frames_come_in_parts_at_the_same_time_have_each_its_own_answer() -> None:
    async with (
        running_broker() as broker,
        joined_link(broker, "dev:ann") as (ann, _),
        joined_link(broker, "dev:bob") as (bob, _),
    ):
        sessions = {each.user_id: each for each in sessions_of(broker)}
        assert [each.connection for each in sessions.values()] == [None, None], "an idle link has none"
        await ping(ann, 1, slice(0, 17))
        await until(lambda: sessions["ann"].connection is not None)
        for number in range(2, 5):
            await ping(bob, number)
            assert (await bob.expect(Pong))[1].client_ms == number
        await ping(bob, 5, slice(0, 9))
        await until(lambda: sessions["bob"].connection is not None)
        await ping(ann, 1, slice(17, None))
        assert (await ann.expect(Pong))[1].client_ms == 1
        await ping(bob, 5, slice(9, None))
        assert (await bob.expect(Pong))[1].client_ms == 5
        assert [each.connection for each in sessions.values()] == [None, None]


@pytest.mark.integration
async def test_what_one_link_uses_beyond_the_usual_concerns_no_other() -> None:
    async with (
        running_broker(link={"errors_per_minute": 2}) as broker,
        joined_link(broker, "dev:ann") as (ann, _),
        joined_link(broker, "dev:bob") as (bob, _),
    ):
        sessions = {each.user_id: each for each in sessions_of(broker)}
        assert sessions["ann"].parts is sessions["bob"].parts is NO_PARTS
        await ann.send((Post(MessageType.DANMAKU, "m1", ("hello", None)), 99, 1))
        await ping(ann, 2)
        await ann.expect(Pong)
        assert not sessions["ann"].parts.are_unused
        assert sessions["bob"].parts is NO_PARTS
        assert NO_PARTS.are_unused
        await ping(bob, 3)
        await bob.expect(Pong)
