from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest
import structlog.testing
import trio

from broker.net.poller import BATCH, GATHER_S, TURN_S, Poller
from broker.net.transport import TcpTransport, Transport
from protocol.codes import CloseCode, Lane
from tests.support.poller import RememberingOwner, Stage, descriptors, on_stage, transport_settings


@pytest.fixture
def stage() -> Iterator[Stage]:
    with on_stage() as found:
        yield found


def test_a_turn_gives_way_when_its_time_is_over(stage: Stage) -> None:
    links = [stage.add(TcpTransport) for _ in range(2 * BATCH + 10)]
    for transport, owner, client in links:
        assert transport.fd >= 0
        owner.on_data_do = lambda _: setattr(stage.clock, "now", stage.clock.now + TURN_S / BATCH)
        client.send(b"x")
    stage.turn()
    served = sum(bool(owner.data) for _, owner, _ in links)
    assert served == BATCH, "one batch took the whole turn"
    stage.turn(2)
    assert all(owner.data == b"x" for _, owner, _ in links)
    assert stage.poller.turns == 3
    assert stage.poller.turn_s == pytest.approx(TURN_S * (2 + 10 / BATCH))


def test_a_long_read_leaves_room_for_the_next_link(stage: Stage) -> None:
    _, greedy, client = stage.add(TcpTransport)
    _, modest, other = stage.add(TcpTransport)
    client.send(bytes(200_000))
    other.send(b"x")
    stage.until(lambda: greedy.data)
    stage.until(lambda: modest.data)
    assert len(greedy.data) < 200_000


def test_deadlines_ask_the_owner_of_the_poller_and_may_be_moved(stage: Stage) -> None:
    transport, owner, _ = stage.add(TcpTransport)
    asked: list[float] = []

    def on_deadline(now: float) -> None:
        asked.append(now)
        if len(asked) < 3:
            stage.poller.rewheel(transport, now + 10.0)
        else:
            transport.close(CloseCode.HEARTBEAT_MISSED, "silent")

    owner.on_deadline = on_deadline  # type: ignore[method-assign]
    begun = stage.clock.now
    stage.poller.rewheel(transport, begun + 5.0)
    stage.later(60.0)
    assert len(asked) == 3
    for expected, found in zip((5.0, 15.0, 25.0), asked, strict=True):
        assert expected <= found - begun < expected + 3 * 0.75
    assert owner.closed == [(CloseCode.HEARTBEAT_MISSED, "silent")]


def stand_still(stage: Stage, seconds: float) -> None:
    """The process is stopped for so long and goes on: housekeeping may well come before the first read."""
    stage.clock.now += seconds
    stage.poller.run_timers()


def test_time_in_which_the_loop_stood_still_counts_against_nobody(stage: Stage) -> None:
    transport, owner, client = stage.add(TcpTransport)
    cut_s = 20.0

    def on_deadline(now: float) -> None:
        silent_until = transport.heard_at + cut_s
        if silent_until <= now:
            transport.close(CloseCode.HEARTBEAT_MISSED, "silent")
        else:
            stage.poller.rewheel(transport, silent_until)

    owner.on_deadline = on_deadline  # type: ignore[method-assign]
    stage.poller.rewheel(transport, stage.clock.now + cut_s)
    stage.later(15.0)
    client.send(b"ping")
    with structlog.testing.capture_logs() as lines:
        stand_still(stage, 600.0)
    assert [(line["paused_s"], line["connections"]) for line in lines] == [(599.75, 1)]
    assert not owner.closed
    stage.later(19.0)
    assert owner.data == b"ping"
    assert not owner.closed
    stage.later(3.0)
    assert owner.closed == [(CloseCode.HEARTBEAT_MISSED, "silent")], "from then on silence is silence again"


def test_a_handshake_under_way_is_finished_after_the_loop_stood_still(stage: Stage) -> None:
    greeting, client = stage.greet()
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
    stage.later(1.0)
    stand_still(stage, 60.0)
    stage.later(3.5)
    assert greeting.fd >= 0
    client.send(b"\r\n")
    assert stage.read_all(client).startswith(b"HTTP/1.1 426 ")
    late, _ = stage.greet()
    stage.later(6.0)
    assert late.fd == -1, "a new one has its five seconds and no more"


def test_a_viewer_that_is_behind_is_not_cut_for_our_own_absence(stage: Stage) -> None:
    server, _ = stage.narrow_pair()
    transport = TcpTransport(server, stage.transports, "127.0.0.1")
    stage.adopt(transport)
    owner = stage.owners[-1]
    while transport.queue is None:
        transport.write(bytes(1000))
    stage.later(5.0)
    stand_still(stage, 60.0)
    stage.later(4.0)
    assert not owner.overflows
    stage.later(2.0)
    assert owner.overflows == 1


def test_a_link_that_leaves_takes_its_deadline_and_its_pause_along(stage: Stage) -> None:
    transport, _, _ = stage.add(TcpTransport)
    stage.poller.pause_reading(transport, stage.clock.now + 5.0)
    transport.abort("gone")
    assert not stage.poller.paused
    assert transport.wheel_slot == -1
    stage.later(100.0)


def test_reading_can_be_resumed_before_its_time(stage: Stage) -> None:
    transport, owner, client = stage.add(TcpTransport)
    stage.poller.pause_reading(transport, stage.clock.now + 100.0)
    client.send(b"x")
    stage.turn(3)
    assert owner.data == b""
    stage.poller.resume_reading(transport)
    stage.until(lambda: owner.data)


def test_a_paused_link_whose_client_resets_is_still_freed(stage: Stage) -> None:
    transport, owner, client = stage.add(TcpTransport)
    stage.poller.pause_reading(transport, stage.clock.now + 100.0)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    stage.until(lambda: owner.closed)


def test_a_paused_link_is_written_to(stage: Stage) -> None:
    server, client = stage.narrow_pair()
    transport = TcpTransport(server, stage.transports, "127.0.0.1")
    stage.adopt(transport)
    stage.poller.pause_reading(transport, stage.clock.now + 100.0)
    for n in range(100):
        transport.write(struct.pack("!I", n) * 250, Lane.CONTROL)
    assert transport.queue is not None
    got = stage.read(client, 100_000)
    assert got[-4:] == struct.pack("!I", 99)


def test_a_replaced_link_keeps_what_it_waited_for(stage: Stage) -> None:
    old, _, client = stage.add(TcpTransport)
    stage.poller.pause_reading(old, stage.clock.now + 100.0)
    new = TcpTransport(old.sock, stage.transports, old.address)
    owner = RememberingOwner(new)
    new.owner = owner
    stage.poller.replace(old, new)
    client.send(b"x")
    stage.until(lambda: owner.data)
    stage.poller.rewheel(new, stage.clock.now + 5.0)
    old.abort("forgotten")
    assert stage.gone == []
    assert len(stage.poller) == 1
    assert not owner.closed


def test_a_descriptor_that_is_used_again_within_a_batch_belongs_to_the_newcomer(stage: Stage) -> None:
    (_, first, first_client), (victim, second, second_client) = stage.add(TcpTransport), stage.add(TcpTransport)
    number = victim.fd
    found: list[RememberingOwner] = []

    def replace_the_second(_: object) -> None:
        server, _ = stage.pair()
        victim.abort("kicked")
        os.dup2(server.fileno(), number)
        server.close()
        stage.adopt(TcpTransport(socket.socket(fileno=number), stage.transports, "127.0.0.1"))
        found.append(stage.owners[-1])

    first.on_data_do = replace_the_second
    first_client.send(b"x")
    second_client.send(b"meant for the second")
    stage.until(lambda: found)
    assert second.data == b"", "both were ready in one batch"
    stage.turn(3)
    assert found[0].data == b""
    assert found[0].closed == []
    assert second.closed == [(CloseCode.CLOSED_BY_PEER, "kicked")]


@pytest.mark.parametrize("where", ["on_deadline", "on_overflow", "on_closed", "on_released"])
def test_a_failure_of_ours_ends_one_link_and_frees_it(stage: Stage, where: str) -> None:
    server, client = stage.narrow_pair()
    transport = TcpTransport(server, stage.transports, "127.0.0.1")
    stage.adopt(transport)
    owner = stage.owners[-1]
    _, bystander, other = stage.add(TcpTransport)

    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    release = stage.transports.on_released
    if where == "on_deadline":
        setattr(owner, where, fail)
        stage.poller.rewheel(transport, stage.clock.now)
    elif where == "on_overflow":
        setattr(owner, where, fail)
        while transport.queue is None:
            transport.write(bytes(1000))
    elif where == "on_closed":
        setattr(owner, where, fail)
        client.close()
    else:
        stage.transports.on_released = fail
        client.close()
    with structlog.testing.capture_logs() as lines:
        stage.later(11.0)
        stage.until(lambda: transport.fd == -1)
    assert stage.poller.crashes == len(lines) == 1
    assert server.fileno() == -1, "the descriptor is free"
    assert len(stage.poller) == 1
    stage.poller.crashes = 0
    stage.transports.on_released = release
    if where == "on_released":
        stage.connection_limits.leave("127.0.0.1", authenticated=False)
    other.send(b"fine")
    stage.until(lambda: bystander.data == b"fine")


def test_a_socket_that_cannot_be_polled_leaves_no_trace(stage: Stage) -> None:
    server, _ = stage.pair()
    transport = TcpTransport(server, stage.transports, "127.0.0.1")
    server.close()
    with pytest.raises(OSError, match=r"\S"):
        stage.poller.add(transport, stage.clock.now + 1.0)
    assert len(stage.poller) == 0
    assert transport.wheel_slot == -1


class Sitters:
    """A few owned links on a running poller."""

    def __init__(self, poller: Poller, count: int) -> None:
        self.gone: list[Transport] = []
        transports = transport_settings(poller, budget_bytes=1 << 20, on_released=self.gone.append)
        self.clients: list[socket.socket] = []
        self.owners: list[RememberingOwner] = []
        for _ in range(count):
            server, client = socket.socketpair()
            server.setblocking(False)
            transport = TcpTransport(server, transports, "127.0.0.1")
            transport.owner = RememberingOwner(transport)
            self.owners.append(transport.owner)
            self.clients.append(client)
            poller.add(transport, trio.current_time() + 60.0)


async def test_when_the_poller_ends_every_link_has_ended() -> None:
    before = descriptors()
    with trio.fail_after(10), structlog.testing.capture_logs():
        async with trio.open_nursery() as nursery:
            poller = Poller(write_timeout_s=10.0)
            await nursery.start(poller.run)
            sitters = Sitters(poller, 5)
            sitters.owners[2].on_closed = None  # type: ignore[assignment]  # one of them fails even at the end
            sitters.clients[0].send(b"hello")
            while not sitters.owners[0].data:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    closed = [owner.closed for owner in sitters.owners]
    assert (
        closed
        == [[(CloseCode.GOING_AWAY, "broker stopped")]] * 2 + [[]] + [[(CloseCode.GOING_AWAY, "broker stopped")]] * 2
    )
    assert len(sitters.gone) == 5
    assert len(poller) == 0
    for client in sitters.clients:
        client.close()
    assert descriptors() <= before


async def test_events_that_come_fast_gather_and_those_that_do_not_are_served_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        poller = Poller(write_timeout_s=10.0)
        await nursery.start(poller.run)
        sitters = Sitters(poller, 1)
        for rest_s, waits in ((1.0, False), (0.0, True), (1.0, False)):
            await trio.sleep(rest_s)
            sent_at, had = trio.current_time(), len(sitters.owners[0].data)
            sitters.clients[0].send(b"x")
            while len(sitters.owners[0].data) == had:
                await trio.lowlevel.checkpoint() if not waits else await trio.sleep(GATHER_S / 4)
            assert (trio.current_time() - sent_at >= GATHER_S) is waits
        nursery.cancel_scope.cancel()
    sitters.clients[0].close()


async def test_deadlines_are_kept_without_any_traffic(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        poller = Poller(write_timeout_s=10.0)
        await nursery.start(poller.run)
        sitters = Sitters(poller, 1)
        await trio.sleep(59.9)
        assert not sitters.owners[0].closed
        await trio.sleep(1.0)
        assert sitters.owners[0].closed == [(CloseCode.HANDSHAKE_TIMEOUT, "too late")]
        nursery.cancel_scope.cancel()
    sitters.clients[0].close()
