"""Messages to the user, and heartbeats, against a scripted broker."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from protocol.clients import Connected, Direct, MessagesMissed, Pulse
from protocol.clients.directs import SEEN_DIRECTS
from protocol.codes import MessageType, Opcode
from protocol.messages import DirectAck, Ping, Pong, RoomPulse
from tests.support.peer import Network, client_of, join, linked, quiet, take, take_until


async def test_a_direct_message_is_acknowledged_when_it_was_processed(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        events = client.events()
        for direct_id in (1, 2):
            await peer.send(Direct(direct_id, 200, 5, "coupon"))
        assert (await take_until(events, Direct)).direct_id == 1
        await quiet(peer)
        assert (await take(events, Direct)).direct_id == 2
        assert (await peer.expect(Opcode.ACK)).message == DirectAck(1)


async def test_a_repeated_direct_message_is_delivered_once_and_acknowledged_again(autojump_clock: Any) -> None:
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


async def test_however_many_are_unread_none_is_delivered_twice(autojump_clock: Any) -> None:
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


async def test_an_old_acknowledgement_never_covers_an_unprocessed_message(autojump_clock: Any) -> None:
    async with linked() as (client, peer, network):
        events = client.events()
        await peer.send(Direct(100, 200, 5, "of a broker that then restarted"))
        await take_until(events, Direct)
        for _ in range(2):
            await peer.vanish()
            peer = await network.accept()
            await peer.welcome()
            await peer.send(Direct(1, 200, 6, "new"))
        await take_until(events, Connected)
        await quiet(peer)


async def test_after_a_dropped_direct_message_no_later_one_is_taken(autojump_clock: Any) -> None:
    async with linked(inbox_items=2) as (client, peer, network):
        for direct_id in range(1, 5):
            await peer.send(Direct(direct_id, 200, 5, "coupon"))
        await trio.testing.wait_all_tasks_blocked()
        assert client.dropped_directs == 2
        events = client.events()
        assert [(await take_until(events, Direct)).direct_id for _ in range(2)] == [1, 2]
        await peer.send(Direct(5, 200, 5, "coupon"))
        await trio.testing.wait_all_tasks_blocked()
        assert client.dropped_directs == 3, "an acknowledgement of 5 would cover 3 and 4"
        await peer.vanish()
        peer = await network.accept()
        await peer.welcome()
        for direct_id in range(2, 6):
            await peer.send(Direct(direct_id, 200, 5, "coupon"))
        assert [(await take_until(events, Direct)).direct_id for _ in range(3)] == [3, 4, 5]


async def test_what_the_broker_dropped_for_a_slow_link_is_reported(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        await peer.send(Direct(0, MessageType.MISSED, 5, (30, 2)))
        assert await take_until(client.events(), MessagesMissed) == MessagesMissed(30, 2, is_local=False)
        await peer.send(Direct(0, MessageType.MISSED, 5, "nonsense"))
        await peer.send(Direct(0, 200, 5, "unacknowledged"))
        assert (await take(client.events(), Direct)).payload == "unacknowledged"
        assert client.unexpected_frames == 1


async def test_heartbeats_measure_the_brokers_clock(autojump_clock: Any) -> None:
    network = Network()
    async with client_of(network, wall_ms=lambda: round(trio.current_time() * 1000)) as client:
        peer = await network.accept()
        await trio.sleep(1)  # the HELLO, with a constant for its time, has the longer round trip
        await peer.welcome()
        room = await join(client, peer)
        events = client.events()
        first = await peer.expect(Opcode.PING)
        assert isinstance(first.message, Ping)
        await trio.sleep(0.2)
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
        assert client.clock_offset_ms == pytest.approx(ahead_ms, abs=1), "the sample of the shorter round trip is used"
        assert client.server_ms() == pytest.approx(trio.current_time() * 1000 + ahead_ms, abs=1)
