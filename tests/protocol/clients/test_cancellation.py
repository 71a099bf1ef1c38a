"""Cancelling at every step of every operation: no request stays open, no frame is cut, the client works on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from protocol.clients import Client, JoinedRoom
from protocol.clients.client import core_of
from protocol.codes import Lane, LeaveReason, Opcode, Outcome
from protocol.messages import Ack, AckResult, Join, Left, Post, Resume, Resumed
from tests.support.peer import Network, Peer, client_of, event, joined

MAX_STEPS = 80


class CancelAtStep(trio.abc.Instrument):
    """Cancels ``scope`` just before the ``step``-th step that ``task`` makes."""

    def __init__(self) -> None:
        self.task: trio.lowlevel.Task | None = None
        self.scope = trio.CancelScope()
        self.step = 0

    def arm(self, task: trio.lowlevel.Task, step: int) -> None:
        self.task, self.step = task, step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.step -= 1
            if self.step == 0:
                self.scope.cancel()


async def broker(network: Network, peers: list[Peer]) -> None:
    """Authenticate every link and answer every request, each after a short time."""
    async with trio.open_nursery() as nursery:
        while True:
            peer = await network.accept()
            peers.append(peer)
            nursery.start_soon(serve, peer)


async def serve(peer: Peer) -> None:
    try:
        await peer.welcome()
        numbers = 0
        while (frame := await peer.next_frame()) is not None:
            await trio.sleep(0.01)
            message = frame.message
            if isinstance(message, Join):
                numbers += 1
                await peer.send(joined(message.room_name), numbers, frame.sequence)
                await peer.send(event(), numbers, 1, Lane.COMMERCE)
            elif isinstance(message, Resume):
                numbers += 1
                await peer.send(Resumed(True, 0, joined(message.room_name, offset=1)), numbers, frame.sequence)
            elif isinstance(message, Post):
                await peer.send(Ack((AckResult(frame.sequence, Outcome.ACCEPTED, 1),)), frame.room)
            elif frame.opcode is Opcode.LEAVE:
                await peer.send(Left(LeaveReason.REQUESTED), frame.room)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def op_join(client: Client, room: JoinedRoom) -> None:
    await client.join("other")


async def op_post(client: Client, room: JoinedRoom) -> None:
    await room.post_danmaku("hi")


async def op_post_with_retry(client: Client, room: JoinedRoom) -> None:
    await room.post_danmaku("hi", retry=True)


async def op_leave(client: Client, room: JoinedRoom) -> None:
    room.like(3)
    await room.leave()


async def op_leave_and_join(client: Client, room: JoinedRoom) -> None:
    await room.leave()
    await client.join("lobby")


async def op_read(client: Client, room: JoinedRoom) -> None:
    await anext(room)


async def op_read_events(client: Client, room: JoinedRoom) -> None:
    await anext(client.events())


async def op_wait(client: Client, room: JoinedRoom) -> None:
    await client.wait_connected()


OPERATIONS = [op_join, op_post, op_post_with_retry, op_leave, op_leave_and_join, op_read, op_read_events, op_wait]


async def cancel_operation(
    operation: Callable[[Client, JoinedRoom], Awaitable[None]], step: int, instrument: CancelAtStep, link_ends: bool
) -> bool:
    """Run ``operation`` and cancel it at ``step``; returns whether it came that far."""
    network, peers = Network(), list[Peer]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker, network, peers)
        async with client_of(network, open_timeout_s=5) as client:
            room = await client.join("lobby")
            if link_ends:
                nursery.start_soon(peers[0].stream.aclose)
            async with trio.open_nursery() as inner:

                async def run() -> None:
                    with instrument.scope:
                        instrument.arm(trio.lowlevel.current_task(), step)
                        await operation(client, room)

                inner.start_soon(run)
            instrument.task = None
            # The client works after any cancellation.
            with trio.fail_after(60):
                await client.wait_connected()
                fresh = await client.join("fresh")
                assert (await fresh.post_danmaku("still here", retry=True)).outcome is Outcome.ACCEPTED
                await trio.sleep(20)
            assert len(core_of(client).posts) == 0
            assert core_of(client).rooms.open_requests == 0
            for each in client.rooms.values():
                assert each.is_joined
            assert room.likes.waiting == 0
        for peer in peers:
            assert not peer.connection.mid_frame
        nursery.cancel_scope.cancel()
    return instrument.scope.cancelled_caught


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("link_ends", [False, True], ids=["calm", "while the link ends"])
def test_cancelling_an_operation_at_any_step_leaves_the_client_working(
    operation: Callable[[Client, JoinedRoom], Awaitable[None]], link_ends: bool
) -> None:
    for step in range(1, MAX_STEPS):
        instrument = CancelAtStep()
        clock = trio.testing.MockClock(autojump_threshold=0)
        was_cancelled = trio.run(
            cancel_operation, operation, step, instrument, link_ends, clock=clock, instruments=[instrument]
        )
        if not was_cancelled and step > 1:
            break
    else:
        raise AssertionError("the operation has more steps than were tried")


async def cancel_client(step: int, instrument: CancelAtStep) -> bool:
    network, peers = Network(), list[Peer]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker, network, peers)

        async def application() -> None:
            with instrument.scope:
                instrument.arm(trio.lowlevel.current_task(), step)
                async with client_of(network, open_timeout_s=5) as client:
                    room = await client.join("lobby")
                    room.like(2)
                    await room.post_danmaku("hi")
                    await anext(room)
                    await room.leave()

        with trio.fail_after(20):
            async with trio.open_nursery() as inner:
                inner.start_soon(application)
        for peer in peers:
            with trio.move_on_after(1):
                await peer.rest()
            assert not peer.connection.mid_frame
        nursery.cancel_scope.cancel()
    return instrument.scope.cancelled_caught


def test_cancelling_an_application_at_any_step_ends_it_cleanly() -> None:
    for step in range(1, MAX_STEPS):
        instrument = CancelAtStep()
        clock = trio.testing.MockClock(autojump_threshold=0)
        if not trio.run(cancel_client, step, instrument, clock=clock, instruments=[instrument]):
            assert step > 10
            break
    else:
        raise AssertionError("the application has more steps than were tried")
