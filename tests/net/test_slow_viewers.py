"""A viewer that does not read: bounded, informed of what it missed, closed in the end, and no burden on the others."""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack

import pytest
import trio

from broker.core.net.send_queue import QueueMissed
from protocol.codes import CloseCode, MessageType, Outcome
from protocol.messages import Ack, Direct, Event, Missed, Ping, Pong, State, Tick
from tests.support.broker import RawLink, joined_link, running_broker, sessions_of

pytestmark = pytest.mark.integration

# Everything a viewer may lose needs a socket that fills quickly: small buffers on both ends.
SMALL = {"send_buffer_bytes": 4096, "notsent_lowat_bytes": 1024}


async def _shrink(link: RawLink) -> None:
    link.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)


@pytest.mark.slow
async def test_a_viewer_behind_is_shown_a_later_part_and_learns_what_it_missed() -> None:
    room_config = {"policy": "off", "tick_ms": 20}
    async with (
        running_broker(link=SMALL, room=room_config, queue={"frames": 4}) as broker,
        joined_link(broker, "dev:slow") as (slow, _),
        joined_link(broker, "dev:ann:host") as (ann, room),
    ):
        await _shrink(slow)
        sent = 0
        session = next(each for each in sessions_of(broker) if each.grant and each.grant.user_id == "slow")
        with trio.fail_after(30):
            while session.transport.queue is None or not session.transport.queue.keyframe:
                await ann.post(room, sent, MessageType.DANMAKU, (f"{sent:05} " + "很长的一条弹幕" * 10, None))
                sent += 1
                await ann.expect(Tick)
            for _ in range(10):
                await ann.post(room, sent, MessageType.DANMAKU, (f"{sent:05} " + "很长的一条弹幕" * 10, None))
                sent += 1
                await ann.expect(Tick)
        await ann.post(room, 9999, MessageType.ANNOUNCEMENT, ("never lost",))
        seen, missed, announced = 0, None, False
        while missed is None:
            frame = await slow.next_frame()
            assert frame is not None
            if isinstance(frame.message, Tick):
                seen += sum(entry.count for entry in frame.message.entries)
            elif isinstance(frame.message, Event):
                announced = True
            elif isinstance(frame.message, Direct):
                missed = Missed(*frame.message.payload)
        assert announced
        assert missed.chat > 0
        assert seen + missed.chat == sent
        await slow.send((Ping(1), 0, 1))
        _, pong = await slow.expect(Pong)
        assert pong.missed_chat == missed.chat
        assert broker.stats().missed_chat == missed.chat
        assert broker.stats().balanced


@pytest.mark.slow
async def test_a_viewer_that_takes_nothing_is_cut_and_the_others_are_served() -> None:
    link_config = {**SMALL, "write_timeout_s": 0.3}
    async with (
        running_broker(link=link_config, room={"policy": "off", "tick_ms": 20}) as broker,
        joined_link(broker, "dev:dead") as (dead, _),
        joined_link(broker, "dev:ann:host") as (ann, room),
    ):
        await _shrink(dead)
        number = 0
        with trio.fail_after(30):
            while not broker.context.closed[CloseCode.SLOW_VIEWER]:
                number += 1
                await ann.post(room, number, MessageType.DANMAKU, (f"{number:05} " + "很长的一条弹幕" * 10, None))
                _, ack = await ann.expect(Ack)
                assert ack.results[0].outcome is Outcome.ACCEPTED
        assert len(broker.context.sessions) == 1
        assert broker.budget.used_bytes == 0


async def test_counters_reach_a_healthy_viewer_in_rising_order() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:ann") as (ann, room):
        frames = []
        for number in range(2):
            await ann.post(room, number, MessageType.LIKE, (1,))
            while True:
                frame, state = await ann.expect(State)
                frames.append(frame.sequence)
                if state.likes == number + 1:
                    break
        assert frames == sorted(set(frames))


async def test_counters_after_a_gap_are_newer_than_those_before_it_and_older_than_those_after() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:ann") as (ann, room):
        await ann.post(room, 1, MessageType.LIKE, (1,))
        frame, state = await ann.expect(State)
        while state.likes < 1:
            frame, state = await ann.expect(State)
        heard = [frame.sequence]
        (session,) = sessions_of(broker)
        session.on_drained(QueueMissed(chat_frames=0, chat_weight=0, ambient_frames=3, superseded=0))
        _, direct = await ann.expect(Direct)
        assert direct.type == MessageType.MISSED
        frame, state = await ann.expect(State)
        assert state.likes == 1
        heard.append(frame.sequence)
        await ann.post(room, 2, MessageType.LIKE, (1,))
        while state.likes < 2:
            frame, state = await ann.expect(State)
        heard.append(frame.sequence)
        assert heard == sorted(set(heard)), "a client drops what is not newer"


async def test_stalled_links_together_stay_below_the_bound_and_the_slowest_are_closed_to_resume() -> None:
    """Sockets that take nothing more, and critical events: each queue alone may hold 1 MiB, and so may all."""
    total = 1024 * 1024
    queue = {"total_bytes": total, "queue_bytes": 64 * 1024, "critical_bytes": total}
    async with (
        running_broker(link={**SMALL, "frames_per_s": 0, "connections_per_user": 99}, queue=queue) as broker,
        joined_link(broker, "dev:max:host") as (host, room),
        AsyncExitStack() as stalled,
    ):
        for number in range(12):
            link, _ = await stalled.enter_async_context(joined_link(broker, f"dev:stalled-{number}"))
            await _shrink(link)
        highest = number = 0
        with trio.fail_after(60):
            while broker.context.closed[CloseCode.SLOW_VIEWER] < 3:
                number += 1
                await host.post(room, number, MessageType.ANNOUNCEMENT, ("很长的公告" * 60,))
                await host.expect(Ack)
                highest = max(highest, broker.budget.used_bytes)
        assert highest <= total
        assert broker.listener.transports.shed >= 3
        assert broker.budget.mismatches == 0
        assert len(broker.context.sessions) <= 10
        await host.send((Ping(1), 0, 1))
        await host.expect(Pong)


async def test_answers_to_a_link_that_does_not_read_are_bounded() -> None:
    async with running_broker(link={**SMALL, "frames_per_s": 0}) as broker, joined_link(broker, "dev:ann") as (ann, _):
        await _shrink(ann)
        (session,) = sessions_of(broker)
        highest = 0
        with trio.move_on_after(1.5):
            while True:
                await ann.send(*[(Ping(1), 0, number) for number in range(500)])
                queue = session.transport.queue
                highest = max(highest, 0 if queue is None else queue.critical_nbytes)
        assert highest > 0, "it did not read"
        assert highest < 512 * 1024
        assert broker.context.closed[CloseCode.SLOW_VIEWER] == 0
